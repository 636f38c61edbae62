/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

bool str_starts(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_ends(const char *s, const char *suffix)
{
	size_t n = strlen(s), m = strlen(suffix);

	return n >= m && str_eq(s + n - m, suffix);
}

char *str_fmt(const char *fmt, ...)
{
	char *s;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	return n < 0 ? NULL : s;
}

int str_to_u64(const char *s, uint64_t max, uint64_t *ret)
{
	uint64_t v = 0;

	if (!*s)
		return -EINVAL;
	for (; *s; s++) {
		if (!isdigit((unsigned char)*s))
			return -EINVAL;
		if (__builtin_mul_overflow(v, (uint64_t)10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v) || v > max)
			return -ERANGE;
	}
	*ret = v;
	return 0;
}

/*
 * "12" or "12.345" followed by a suffix: the value times 10^9 in *ret, the suffix in *rest. Nine
 * decimals are exact for durations and far finer than any size needs.
 */
static int parse_decimal(const char *s, unsigned __int128 *ret, const char **rest)
{
	unsigned __int128 v = 0;
	unsigned decimals = 0;

	if (!isdigit((unsigned char)*s))
		return -EINVAL;
	for (; isdigit((unsigned char)*s); s++) {
		v = v * 10 + (unsigned)(*s - '0');
		if (v > UINT64_MAX)
			return -ERANGE;
	}
	if (*s == '.') {
		s++;
		if (!isdigit((unsigned char)*s))
			return -EINVAL;
		for (; isdigit((unsigned char)*s); s++) {
			if (decimals < 9) {
				v = v * 10 + (unsigned)(*s - '0');
				decimals++;
			}
		}
	}
	for (; decimals < 9; decimals++)
		v *= 10;
	*ret = v;
	*rest = s;
	return 0;
}

int str_to_size(const char *s, uint64_t unit, const char *what, uint64_t *ret, struct err *err)
{
	static const char letters[] = "KMGTP";
	unsigned __int128 v;
	const char *rest;
	int r = parse_decimal(s, &v, &rest);

	if (r == 0) {
		const char *l = *rest ? strchr(letters, toupper((unsigned char)*rest)) : NULL;

		if (*rest == '\0') {
			v *= unit;
		} else if (l) {
			v <<= 10 * (l - letters + 1);
			rest++;
			if (*rest == 'i')
				rest++;
			if (*rest == 'B' || *rest == 'b')
				rest++;
		} else if (str_eq(rest, "B")) {
			rest++;
		}
		v /= 1000000000u;
		if (*rest)
			r = -EINVAL;
		else if (v > INT64_MAX)
			r = -ERANGE;
	}
	if (r < 0) {
		err_set(err, ERR_USAGE, "%s \"%s\" is %s", what, s,
			r == -ERANGE ? "too large" : "not a size");
		return err_hint(err, "write it like 512M, 1G or 1.5G");
	}
	*ret = (uint64_t)v;
	return 0;
}

int str_to_duration(const char *s, const char *what, uint64_t *ret_ns, struct err *err)
{
	static const struct {
		const char *suffix;
		uint64_t ns;
	} units[] = {
		{"", 1000000000},     {"ms", 1000000},	     {"s", 1000000000}, {"m", 60000000000},
		{"h", 3600000000000}, {"d", 86400000000000}, {"us", 1000},
	};
	unsigned __int128 v, sum = 0;
	const char *at = s, *rest;
	uint64_t last = UINT64_MAX;
	int r;

	/* Each part in a smaller unit than the one before; "" is no part, but all there is. */
	do {
		size_t i = 0, len;

		r = parse_decimal(at, &v, &rest);
		if (r < 0)
			break;
		len = strspn(rest, "abcdefghijklmnopqrstuvwxyz");
		while (i < ARRAY_SIZE(units) &&
		       (strlen(units[i].suffix) != len || strncmp(rest, units[i].suffix, len) != 0))
			i++;
		if (i == ARRAY_SIZE(units) || (!len && at != s) || units[i].ns >= last) {
			r = -EINVAL;
			break;
		}
		last = len ? units[i].ns : 0;
		r = v / 1000000000u > INT64_MAX / units[i].ns ? -ERANGE : 0;
		if (r == 0)
			sum += v * units[i].ns / 1000000000u;
		if (sum > INT64_MAX)
			r = -ERANGE;
		at = rest + len;
	} while (r == 0 && *at);
	if (r < 0) {
		err_set(err, ERR_USAGE, "%s \"%s\" is %s", what, s,
			r == -ERANGE ? "too long" : "not a duration");
		return err_hint(err, "write it like 30s, 500ms, 5m or 2h30m");
	}
	*ret_ns = (uint64_t)sum;
	return 0;
}

char *str_size(uint64_t bytes, char b[24])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double v = (double)bytes;
	size_t u = 0;

	for (; v >= 1024 && u + 1 < ARRAY_SIZE(units); u++)
		v /= 1024;
	snprintf(b, 24, u && v < 100 ? "%.1f %s" : "%.0f %s", v, units[u]);
	return b;
}

void str_hex(const void *p, size_t n, char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		out[2 * i] = digits[((const uint8_t *)p)[i] >> 4];
		out[2 * i + 1] = digits[((const uint8_t *)p)[i] & 15];
	}
	out[2 * n] = '\0';
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int str_unhex(const char *s, void *p, size_t n)
{
	if (strlen(s) != 2 * n)
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		int hi = hex_digit(s[2 * i]), lo = hex_digit(s[2 * i + 1]);

		if (hi < 0 || lo < 0)
			return -EINVAL;
		((uint8_t *)p)[i] = (uint8_t)(hi << 4 | lo);
	}
	return 0;
}

/* Words longer than this are not what somebody mistyped. */
enum { WORD_MAX = 63 };

/* Edit distance with swaps of neighbours ("optimal string alignment"), in three rows. */
static unsigned distance(const char *a, const char *b)
{
	unsigned rows[3][WORD_MAX + 1];
	size_t n = strlen(a), m = strlen(b);

	if (n > WORD_MAX || m > WORD_MAX)
		return WORD_MAX + 1;
	for (size_t i = 0; i <= n; i++) {
		unsigned *row = rows[i % 3], *above = rows[(i + 2) % 3];

		row[0] = (unsigned)i;
		for (size_t j = 1; j <= m; j++) {
			if (i == 0) {
				row[j] = (unsigned)j;
				continue;
			}
			row[j] = MIN(above[j], row[j - 1]) + 1;
			row[j] = MIN(row[j], above[j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				row[j] = MIN(row[j], rows[(i + 1) % 3][j - 2] + 1);
		}
	}
	return rows[n % 3][m];
}

const char *str_suggest(const char *word, const char *const *candidates, size_t n)
{
	const char *best = NULL;
	unsigned limit = MAX((unsigned)strlen(word) / 3, 1u) + 1;

	for (size_t i = 0; i < n; i++) {
		unsigned d = distance(word, candidates[i]);

		if (d < limit) {
			limit = d;
			best = candidates[i];
		}
	}
	return best;
}

void strv_done(struct strv *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->v[i]);
	free(s->v);
	s->v = NULL;
	s->n = 0;
}

/* Takes ownership of @text, which may be NULL after a failed allocation. */
static int strv_take(struct strv *s, char *text)
{
	char **v = text ? reallocarray(s->v, s->n + 2, sizeof(*v)) : NULL;

	if (!v) {
		free(text);
		return -ENOMEM;
	}
	s->v = v;
	v[s->n++] = text;
	v[s->n] = NULL;
	return 0;
}

int strv_add(struct strv *s, const char *text)
{
	return strv_take(s, strdup(text));
}

int strv_addf(struct strv *s, const char *fmt, ...)
{
	char *text;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	return strv_take(s, n < 0 ? NULL : text);
}

void strv_remove(struct strv *s, size_t i)
{
	free(s->v[i]);
	/* With the NULL behind the last one. */
	memmove(s->v + i, s->v + i + 1, (s->n - i) * sizeof(*s->v));
	s->n--;
}

size_t strv_find(const struct strv *s, const char *text)
{
	size_t i = 0;

	while (i < s->n && !str_eq(s->v[i], text))
		i++;
	return i;
}

int strv_env_set(struct strv *s, const char *assignment)
{
	size_t key = strcspn(assignment, "=") + 1;

	for (size_t i = 0; i < s->n; i++) {
		if (strncmp(s->v[i], assignment, key) == 0) {
			char *copy = strdup(assignment);

			if (!copy)
				return -ENOMEM;
			free(s->v[i]);
			s->v[i] = copy;
			return 0;
		}
	}
	return strv_add(s, assignment);
}

void str_list_free(char **v)
{
	for (char **p = v; p && *p; p++)
		free(*p);
	free(v);
}
