/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "image/digest.h"
#include "image/reference.h"

static int bad(const char *text, const char *why, struct err *err)
{
	err_set(err, ERR_USAGE, "\"%.200s\" is not an image reference: %s", text, why);
	return err_hint(err,
			"write [REGISTRY/]NAME[:TAG][@sha256:DIGEST], for example python:3.12");
}

static bool is_lower(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_word(char c)
{
	return is_lower(c) || (c >= 'A' && c <= 'Z') || c == '_';
}

/* Lower-case words joined by one dot, one or two underscores, or any number of dashes. */
static bool component_ok(const char *p, size_t n)
{
	for (size_t i = 0; i < n;) {
		size_t start = i;

		while (i < n && is_lower(p[i]))
			i++;
		if (i == start)
			return false;
		if (i == n)
			return true;
		start = i;
		if (p[i] == '-') {
			while (i < n && p[i] == '-')
				i++;
		} else if (p[i] == '_') {
			while (i < n && p[i] == '_')
				i++;
			if (i - start > 2)
				return false;
		} else if (p[i++] != '.') {
			return false;
		}
	}
	return false;
}

static bool path_ok(const char *p)
{
	for (;;) {
		size_t n = strcspn(p, "/");

		if (!component_ok(p, n))
			return false;
		if (!p[n])
			return true;
		p += n + 1;
	}
}

/* Host name, IPv4 or bracketed IPv6, and maybe a port. */
static bool domain_ok(const char *p)
{
	size_t n = strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_");

	if (*p == '[') {
		n = 1 + strspn(p + 1, "0123456789abcdefABCDEF:.");
		if (n == 1 || p[n] != ']')
			return false;
		n++;
	} else if (n == 0 || *p == '-' || *p == '.' || p[n - 1] == '-' || p[n - 1] == '.') {
		return false;
	}
	if (!p[n])
		return true;
	p += n + 1;
	n = strspn(p, "0123456789");
	return p[-1] == ':' && n > 0 && n <= 5 && !p[n];
}

static bool tag_ok(const char *p)
{
	size_t n = strlen(p);

	if (n == 0 || n > REFERENCE_TAG_MAX || !is_word(*p))
		return false;
	for (; *p; p++)
		if (!is_word(*p) && *p != '.' && *p != '-')
			return false;
	return true;
}

int reference_parse(const char *text, struct reference *ret, struct err *err)
{
	char name[IMAGE_REFERENCE_MAX];
	struct reference r = {0};
	struct digest d;
	char *at, *colon, *slash, *path = name;
	size_t len = strlen(text);

	if (len == 0)
		return bad(text, "it is empty", err);
	if (len >= sizeof(name))
		return bad(text, "it is too long", err);
	memcpy(name, text, len + 1);

	at = strchr(name, '@');
	if (at) {
		*at++ = 0;
		if (digest_parse(at, "what follows the @", &d, NULL) < 0)
			return bad(text,
				   "after the @ must come sha256: and 64 lower-case hex digits",
				   err);
		memcpy(r.digest, at, IMAGE_DIGEST_LEN + 1);
	}
	slash = strrchr(name, '/');
	colon = strrchr(slash ? slash : name, ':');
	if (colon) {
		*colon++ = 0;
		if (!tag_ok(colon))
			return bad(text,
				   "the tag has characters that tags cannot have, or too many",
				   err);
		memcpy(r.tag, colon, strlen(colon) + 1);
	} else if (!at) {
		memcpy(r.tag, REFERENCE_DEFAULT_TAG, sizeof(REFERENCE_DEFAULT_TAG));
	}
	slash = strchr(name, '/');
	if (slash) {
		bool domain = false;

		*slash = 0;
		domain = strpbrk(name, ".:ABCDEFGHIJKLMNOPQRSTUVWXYZ") || str_eq(name, "localhost");
		if (domain) {
			if (!domain_ok(name) || strlen(name) > REFERENCE_NAME_MAX)
				return bad(text, "the registry's name is malformed", err);
			memcpy(r.domain, name, strlen(name) + 1);
			path = slash + 1;
		}
		*slash = '/';
	}
	if (!path_ok(path)) {
		for (const char *p = path; *p; p++)
			if (*p >= 'A' && *p <= 'Z')
				return bad(text, "names are lower-case", err);
		return bad(text, "the name is malformed", err);
	}
	if (!r.domain[0] || str_eq(r.domain, "index.docker.io"))
		snprintf(r.domain, sizeof(r.domain), "%s", REFERENCE_DEFAULT_DOMAIN);
	if (str_eq(r.domain, REFERENCE_DEFAULT_DOMAIN) && !strchr(path, '/'))
		memcpy(r.path, "library/", sizeof("library/"));
	if (strlen(r.domain) + 1 + strlen(r.path) + strlen(path) > REFERENCE_NAME_MAX)
		return bad(text, "the name is too long", err);
	memcpy(r.path + strlen(r.path), path, strlen(path) + 1);
	*ret = r;
	return 0;
}

char *reference_format(const struct reference *r, char out[IMAGE_REFERENCE_MAX])
{
	snprintf(out, IMAGE_REFERENCE_MAX, "%s/%s%s%s%s%s", r->domain, r->path,
		 r->tag[0] ? ":" : "", r->tag, r->digest[0] ? "@" : "", r->digest);
	return out;
}

int reference_normalise(const char *text, char out[IMAGE_REFERENCE_MAX], struct err *err)
{
	struct reference r;
	int rc = reference_parse(text, &r, err);

	if (rc < 0)
		return rc;
	reference_format(&r, out);
	return 0;
}
