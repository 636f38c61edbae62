/* SPDX-License-Identifier: Apache-2.0 */
#include "net/authority.h"

#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/cleanup.h"

static enum authority take_name(const char *text, size_t n, struct dns_name *ret)
{
	char copy[DNS_NAME_MAX + 1];

	if (!n || n >= sizeof(copy) || memchr(text, '\0', n))
		return AUTHORITY_NONE;
	memcpy(copy, text, n);
	copy[n] = '\0';
	/* The root of all names is nobody's. */
	return dns_name_parse(copy, ret) < 0 || ret->n == 1 ? AUTHORITY_NONE : AUTHORITY_FOUND;
}

/* ---- TLS ---- */

enum {
	HANDSHAKE = 22,
	CLIENT_HELLO = 1,
	RECORD_HEAD = 5,
	SERVER_NAME = 0,
	HOST_NAME = 0,
};

/* The part of @c of the next @n bytes; it is bad, too, when there are not so many. */
static struct cur part(struct cur *c, size_t n)
{
	const uint8_t *p = cur_bytes(c, n);
	struct cur sub = cur_make(p ? p : (const uint8_t *)"", p ? n : 0);

	sub.bad = !p;
	return sub;
}

static enum authority server_name(struct cur c, struct dns_name *ret)
{
	struct cur list = part(&c, cur_be16(&c));
	unsigned kind = cur_u8(&list);
	size_t n = cur_be16(&list);
	const uint8_t *p = cur_bytes(&list, n);

	/* There is one kind of name, and one name of a kind. */
	if (!p || c.bad || cur_left(&c) || cur_left(&list) || kind != HOST_NAME)
		return AUTHORITY_NONE;
	return take_name((const char *)p, n, ret);
}

static enum authority client_hello(struct cur c, struct dns_name *ret)
{
	enum authority found = AUTHORITY_NONE;
	struct cur extensions;
	bool seen = false;

	(void)cur_bytes(&c, 2 + 32);  /* version, random */
	(void)part(&c, cur_u8(&c));   /* session */
	(void)part(&c, cur_be16(&c)); /* ciphers */
	(void)part(&c, cur_u8(&c));   /* compression */
	extensions = part(&c, cur_be16(&c));
	while (!c.bad && !extensions.bad && cur_left(&extensions)) {
		unsigned type = cur_be16(&extensions);
		struct cur e = part(&extensions, cur_be16(&extensions));

		if (type != SERVER_NAME || e.bad)
			continue;
		if (seen)
			return AUTHORITY_NONE;
		seen = true;
		found = server_name(e, ret);
	}
	return c.bad || extensions.bad || cur_left(&c) ? AUTHORITY_NONE : found;
}

/* Its message may be spread over records. */
static enum authority tls(const uint8_t *p, size_t n, struct dns_name *ret)
{
	uint8_t hello[AUTHORITY_MAX];
	size_t have = 0, need = 4;

	while (n >= RECORD_HEAD) {
		size_t len = (size_t)(p[3] << 8 | p[4]), here = MIN(len, n - RECORD_HEAD);

		if (p[0] != HANDSHAKE || p[1] != 3 || !len || here > sizeof(hello) - have)
			return AUTHORITY_NONE;
		memcpy(hello + have, p + RECORD_HEAD, here);
		have += here;
		if (hello[0] != CLIENT_HELLO)
			return AUTHORITY_NONE;
		if (have >= 4)
			need = 4 + ((size_t)hello[1] << 16 | (size_t)hello[2] << 8 | hello[3]);
		if (need > sizeof(hello))
			return AUTHORITY_NONE;
		if (have >= need)
			return client_hello(cur_make(hello + 4, need - 4), ret);
		if (here < len)
			break;
		p += RECORD_HEAD + len;
		n -= RECORD_HEAD + len;
	}
	return AUTHORITY_MORE;
}

/* ---- HTTP ---- */

struct line {
	const char *p;
	size_t n;
};

/* The next line, without its end; false when there is none that is complete. */
static bool next_line(const char **p, size_t *n, struct line *ret)
{
	const char *end = memchr(*p, '\n', *n);

	if (!end)
		return false;
	*ret = (struct line){*p, (size_t)(end - *p)};
	*n -= ret->n + 1;
	*p = end + 1;
	if (ret->n && ret->p[ret->n - 1] == '\r')
		ret->n--;
	return true;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* HOST or HOST:PORT, with blanks around it. */
static enum authority take_host(struct line l, struct dns_name *ret)
{
	const char *colon;

	while (l.n && is_blank(l.p[0]))
		l.p++, l.n--;
	while (l.n && is_blank(l.p[l.n - 1]))
		l.n--;
	colon = memchr(l.p, ':', l.n);
	if (colon) {
		for (const char *d = colon + 1; d < l.p + l.n; d++) {
			if (*d < '0' || *d > '9')
				return AUTHORITY_NONE;
		}
		l.n = (size_t)(colon - l.p);
	}
	return take_name(l.p, l.n, ret);
}

/* METHOD TARGET HTTP/1.x: what the target says about the host, if it does. */
static bool request_line(struct line l, struct dns_name *ret, bool *said)
{
	static const char scheme[] = "http://", version[] = " HTTP/1.";
	const char *target = memchr(l.p, ' ', l.n), *end;
	size_t n;

	*said = false;
	if (!target || l.n < sizeof(version) ||
	    memcmp(l.p + l.n - sizeof(version), version, sizeof(version) - 1) != 0)
		return false;
	end = l.p + l.n - sizeof(version);
	target++;
	n = target < end ? (size_t)(end - target) : 0;
	if (!n || memchr(target, ' ', n))
		return false;
	if (*target == '/' || (n == 1 && *target == '*'))
		return true;
	if (n < sizeof(scheme) || strncasecmp(target, scheme, sizeof(scheme) - 1) != 0)
		return false;
	target += sizeof(scheme) - 1;
	n -= sizeof(scheme) - 1;
	for (size_t i = 0; i < n; i++) {
		if (strchr("/?#", target[i]))
			n = i;
	}
	*said = true;
	return take_host((struct line){target, n}, ret) == AUTHORITY_FOUND;
}

static bool is_host(struct line l)
{
	return l.n >= 4 && strncasecmp(l.p, "host", 4) == 0 &&
	       (l.n == 4 || l.p[4] == ':' || is_blank(l.p[4]));
}

/* All of the head has to be there: of two hosts, servers believe either. */
static enum authority http(const char *p, size_t n, struct dns_name *ret)
{
	enum authority found = AUTHORITY_NONE;
	struct dns_name target, host;
	bool said, first = true;
	struct line l;

	if (!next_line(&p, &n, &l))
		return memchr(p, '\0', n) ? AUTHORITY_NONE : AUTHORITY_MORE;
	if (!request_line(l, &target, &said))
		return AUTHORITY_NONE;
	while (next_line(&p, &n, &l) && l.n) {
		/* A line that goes on, or pretends to end. */
		if (is_blank(l.p[0]) || memchr(l.p, '\r', l.n) || memchr(l.p, '\0', l.n))
			return AUTHORITY_NONE;
		if (!is_host(l))
			continue;
		if (!first || l.n < 5 || l.p[4] != ':')
			return AUTHORITY_NONE;
		first = false;
		found = take_host((struct line){l.p + 5, l.n - 5}, &host);
		if (found != AUTHORITY_FOUND)
			return AUTHORITY_NONE;
	}
	if (l.n)
		return AUTHORITY_MORE;
	if (found != AUTHORITY_FOUND || (said && !dns_name_equal(&host, &target)))
		return AUTHORITY_NONE;
	*ret = host;
	return AUTHORITY_FOUND;
}

enum authority authority_find(const uint8_t *p, size_t n, struct dns_name *ret)
{
	enum authority found;

	if (!n)
		return AUTHORITY_MORE;
	if (*p == HANDSHAKE)
		found = tls(p, n, ret);
	else if (*p >= 'A' && *p <= 'Z')
		found = http((const char *)p, n, ret);
	else
		found = AUTHORITY_NONE;
	return found == AUTHORITY_MORE && n >= AUTHORITY_MAX ? AUTHORITY_NONE : found;
}
