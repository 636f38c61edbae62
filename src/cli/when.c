/* SPDX-License-Identifier: Apache-2.0 */
/* Times as people write them; what Docker takes is taken, and means the same. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "cli/cli.h"

enum {
	/* A number without a unit is seconds ago, but nobody means more than 30 years. */
	UNIX_DIGITS = 10,
};

/* ".5", up to nanoseconds; more digits say nothing. */
static const char *parse_fraction(const char *s, int64_t *ns)
{
	int64_t unit = 100000000;

	*ns = 0;
	if (*s != '.' || s[1] < '0' || s[1] > '9')
		return s;
	for (s++; *s >= '0' && *s <= '9'; s++, unit /= 10)
		*ns += (*s - '0') * unit;
	return s;
}

/* What a zone adds to UTC, in seconds; none is this host's. All of @s, or false. */
static bool parse_zone(const char *s, bool *local, int64_t *offset)
{
	unsigned h, m;
	int end = 0;

	*local = !*s;
	*offset = 0;
	if (!*s || str_eq(s, "Z") || str_eq(s, "z"))
		return true;
	if (*s != '+' && *s != '-')
		return false;
	if ((sscanf(s + 1, "%2u:%2u%n", &h, &m, &end) != 2 || end != 5) &&
	    (sscanf(s + 1, "%2u%2u%n", &h, &m, &end) != 2 || end != 4))
		return false;
	*offset = ((int64_t)h * 60 + m) * (*s == '+' ? 60 : -60);
	return !s[1 + end] && h < 24 && m < 60;
}

static bool parse_date(const char *text, int64_t *ret)
{
	static const char *const forms[] = {"%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S",
					    "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%d"};

	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		struct tm tm = {.tm_isdst = -1};
		const char *rest = strptime(text, forms[i], &tm);
		int64_t ns = 0, offset, s;
		int day = tm.tm_mday;
		bool local;

		if (rest && str_ends(forms[i], "S"))
			rest = parse_fraction(rest, &ns);
		if (!rest || !parse_zone(rest, &local, &offset))
			continue;
		s = local ? mktime(&tm) : timegm(&tm) - offset;
		/* The 30th of February becomes another day. */
		if (tm.tm_mday != day)
			return false;
		*ret = s * 1000000000 + ns;
		return true;
	}
	return false;
}

static bool parse_unix(const char *text, int64_t *ret)
{
	const size_t digits = strspn(text, "0123456789");
	const char *rest;
	char seconds[24];
	uint64_t s;
	int64_t ns;

	if (!digits || digits >= sizeof(seconds))
		return false;
	memcpy(seconds, text, digits);
	seconds[digits] = '\0';
	rest = parse_fraction(text + digits, &ns);
	if (*rest || str_to_u64(seconds, INT64_MAX / 1000000000 - 1, &s) < 0)
		return false;
	*ret = (int64_t)s * 1000000000 + ns;
	return true;
}

int cli_past_time(const char *text, int64_t *ret, struct err *err)
{
	struct err ignored = ERR_INIT;
	struct timespec now;
	uint64_t ago;

	if (parse_date(text, ret) ||
	    (text[0] == '@' ? parse_unix(text + 1, ret)
			    : strspn(text, "0123456789") >= UNIX_DIGITS && parse_unix(text, ret)))
		return 0;
	if (str_to_duration(text, "time", &ago, &ignored) < 0) {
		err_set(err, ERR_USAGE, "\"%s\" is no time", text);
		return err_hint(err, "it is like 10m or 2h30m (ago), 2026-01-31, 2026-01-31T12:00 "
				     "(here), 2026-01-31T12:00:00Z, with +01:00 for Z, or "
				     "@1767225600");
	}
	clock_gettime(CLOCK_REALTIME, &now);
	*ret = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec - (int64_t)ago;
	return 0;
}
