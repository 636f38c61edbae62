/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/challenge.h"

#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/str.h"

static bool is_token(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c && strchr("!#$%&'*+-.^_`|~", c));
}

static const char *skip_blanks(const char *p)
{
	return p + strspn(p, " \t");
}

static size_t token_length(const char *p)
{
	size_t n = 0;

	while (is_token(p[n]))
		n++;
	return n;
}

static bool token_is(const char *p, size_t n, const char *word)
{
	return strlen(word) == n && strncasecmp(p, word, n) == 0;
}

/* A token or quoted string at *p into @out, if that is not NULL. */
static int parse_value(const char **p, char *out, size_t size, struct err *err)
{
	const char *s = *p;
	const bool quoted = *s == '"';
	size_t n = 0;

	s += quoted;
	for (; quoted ? *s != '"' : is_token(*s) || *s == '/' || *s == ':' || *s == '='; s++) {
		if (quoted && *s == '\\')
			s++;
		if (!*s)
			return err_set(err, ERR_CORRUPT, "a quotation mark is missing");
		if (out && n + 1 >= size)
			return err_set(err, ERR_LIMIT, "a value is longer than %zu bytes", size);
		if (out)
			out[n++] = *s;
	}
	if (out)
		out[n] = '\0';
	*p = s + quoted;
	return 0;
}

static int parse_param(const char **p, size_t name, struct challenge *c, struct err *err)
{
	const struct {
		const char *name;
		char *at;
		size_t size;
	} params[] = {
		{"realm", c->realm, sizeof(c->realm)},
		{"service", c->service, sizeof(c->service)},
		{"scope", c->scope, sizeof(c->scope)},
		{"error", c->error, sizeof(c->error)},
	};
	const char *value = skip_blanks(skip_blanks(*p + name) + 1);
	char *at = NULL;
	size_t size = 0;
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(params); i++) {
		if (token_is(*p, name, params[i].name)) {
			at = params[i].at;
			size = params[i].size;
		}
	}
	r = parse_value(&value, at, size, err);
	*p = value;
	return r;
}

static void consider(const struct challenge *c, struct challenge *best, int *taken)
{
	/* A bearer challenge that does not say where to go is no use. */
	bool good = c->scheme == CHALLENGE_BASIC || (c->scheme == CHALLENGE_BEARER && c->realm[0]);

	if (good && (best->scheme == CHALLENGE_NONE ||
		     (best->scheme == CHALLENGE_BASIC && c->scheme == CHALLENGE_BEARER))) {
		*best = *c;
		*taken = 1;
	}
}

int challenge_offer(const char *text, struct challenge *best, struct err *err)
{
	struct challenge c = {0}, found = *best;
	const char *p = text;
	unsigned count = 0;
	int taken = 0, r;

	for (;;) {
		size_t n;

		p += strspn(p, " \t,");
		if (!*p)
			break;
		n = token_length(p);
		if (n == 0)
			return err_set(err, ERR_CORRUPT, "\"%.60s\" is no challenge", p);
		/* "name = value" belongs to the scheme before it; anything else is the next scheme.
		 */
		if (*skip_blanks(p + n) == '=') {
			if (c.scheme == CHALLENGE_NONE)
				return err_set(err, ERR_CORRUPT, "a challenge has no scheme");
			r = parse_param(&p, n, &c, err);
			if (r < 0)
				return r;
			continue;
		}
		consider(&c, &found, &taken);
		if (++count > CHALLENGES_MAX)
			return err_set(err, ERR_LIMIT, "more than %u challenges", CHALLENGES_MAX);
		c = (struct challenge){.scheme = token_is(p, n, "basic")    ? CHALLENGE_BASIC
						 : token_is(p, n, "bearer") ? CHALLENGE_BEARER
									    : CHALLENGE_OTHER};
		p += n;
	}
	consider(&c, &found, &taken);
	*best = found;
	return taken;
}
