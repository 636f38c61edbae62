/* SPDX-License-Identifier: Apache-2.0 */
/* JSON as RFC 8259 has it, into the same tree as YAML; every value remembers where it stood. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "config/node.h"

struct reader {
	struct conf_build build;
	const uint8_t *p, *end;
	/* The position of a byte at or before p, from which it is counted on. */
	const uint8_t *counted;
	struct conf_mark mark;
};

static struct conf_mark here(struct reader *r)
{
	for (; r->counted < r->p; r->counted++)
		r->mark.column += (*r->counted & 0xc0) != 0x80;
	return r->mark;
}

static int wrong(struct reader *r, const char *want, struct err *err)
{
	if (r->p == r->end)
		return conf_error(err, r->build.name, here(r), "the file ends where %s should be",
				  want);
	if (*r->p > ' ' && *r->p < 0x7f)
		return conf_error(err, r->build.name, here(r), "'%c' where %s should be", *r->p,
				  want);
	return conf_error(err, r->build.name, here(r), "a byte 0x%02x where %s should be", *r->p,
			  want);
}

static void blanks(struct reader *r)
{
	for (; r->p < r->end && *r->p && strchr(" \t\r\n", *r->p); r->p++) {
		if (*r->p == '\n') {
			r->mark.line++;
			r->mark.column = 1;
			r->counted = r->p + 1;
		}
	}
}

/* After blanks. */
static bool is(const struct reader *r, char c)
{
	return r->p < r->end && *r->p == (uint8_t)c;
}

static int hex4(struct reader *r, uint32_t *ret, struct err *err)
{
	*ret = 0;
	for (int i = 0; i < 4; i++, r->p++) {
		static const char digits[] = "0123456789abcdefABCDEF";
		const char *at = r->p < r->end && *r->p ? strchr(digits, *r->p) : NULL;

		if (!at)
			return wrong(r, "a hexadecimal digit", err);
		*ret = *ret << 4 | (uint32_t)(at - digits < 16 ? at - digits : at - digits - 6);
	}
	return 0;
}

static void add_utf8(struct buf *b, uint32_t c)
{
	if (c < 0x80) {
		buf_add_u8(b, (uint8_t)c);
		return;
	}
	if (c < 0x800) {
		buf_add_u8(b, (uint8_t)(0xc0 | c >> 6));
	} else {
		if (c < 0x10000) {
			buf_add_u8(b, (uint8_t)(0xe0 | c >> 12));
		} else {
			buf_add_u8(b, (uint8_t)(0xf0 | c >> 18));
			buf_add_u8(b, (uint8_t)(0x80 | (c >> 12 & 0x3f)));
		}
		buf_add_u8(b, (uint8_t)(0x80 | (c >> 6 & 0x3f)));
	}
	buf_add_u8(b, (uint8_t)(0x80 | (c & 0x3f)));
}

/* Behind "\u". */
static int read_unicode(struct reader *r, struct buf *b, struct err *err)
{
	uint32_t c, low = 0;
	int k = hex4(r, &c, err);

	if (k == 0 && c >= 0xd800 && c < 0xdc00 && r->end - r->p >= 2 && r->p[0] == '\\' &&
	    r->p[1] == 'u') {
		r->p += 2;
		k = hex4(r, &low, err);
		if (k == 0 && low >= 0xdc00 && low < 0xe000)
			c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
	}
	if (k == 0 && c >= 0xd800 && c < 0xe000)
		return conf_error(err, r->build.name, here(r), "half of a pair of \\u escapes");
	if (k == 0)
		add_utf8(b, c);
	return k;
}

static int read_escape(struct reader *r, struct buf *b, struct err *err)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *at = r->p < r->end && *r->p ? strchr(from, *r->p) : NULL;

	if (is(r, 'u')) {
		r->p++;
		return read_unicode(r, b, err);
	}
	if (!at)
		return wrong(r, "one of \"\\/bfnrtu", err);
	buf_add_u8(b, (uint8_t)to[at - from]);
	r->p++;
	return 0;
}

/* How long the character at @p is, 0 if it is none. Neither overlong, nor a surrogate. */
static size_t utf8_length(const uint8_t *p, const uint8_t *end)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t n = *p < 0x80   ? 1
		   : *p < 0xc2 ? 0
		   : *p < 0xe0 ? 2
		   : *p < 0xf0 ? 3
		   : *p < 0xf5 ? 4
			       : 0;
	uint32_t c;

	if (n < 2)
		return n;
	if ((size_t)(end - p) < n)
		return 0;
	c = *p & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3f);
	}
	return c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : n;
}

/* At the opening quote. */
static int read_string(struct reader *r, struct buf *b, struct err *err)
{
	if (!is(r, '"'))
		return wrong(r, "a text in double quotes", err);
	for (r->p++; !is(r, '"');) {
		size_t n = r->p < r->end && *r->p >= ' ' ? utf8_length(r->p, r->end) : 0;
		int k = 0;

		if (!n)
			return wrong(r, "a character of a text, or its closing quote,", err);
		if (*r->p == '\\') {
			r->p++;
			k = read_escape(r, b, err);
		} else {
			buf_add(b, r->p, n);
			r->p += n;
		}
		if (k < 0)
			return k;
	}
	r->p++;
	return buf_failed(b) ? err_set(err, ENOMEM, "out of memory") : 0;
}

static int read_value(struct reader *r, struct conf_node **ret, struct err *err);

/* -?(0|[1-9][0-9]*)(.[0-9]+)?([eE][+-]?[0-9]+)? */
static size_t number_length(const char *s, size_t n)
{
	size_t i = n && s[0] == '-', from = i;

#define DIGITS()                                                                                   \
	do {                                                                                       \
		from = i;                                                                          \
		while (i < n && s[i] >= '0' && s[i] <= '9')                                        \
			i++;                                                                       \
	} while (0)
	DIGITS();
	if (i == from || (s[from] == '0' && i > from + 1))
		return 0;
	if (i < n && s[i] == '.') {
		i++;
		DIGITS();
		if (i == from)
			return 0;
	}
	if (i < n && (s[i] == 'e' || s[i] == 'E')) {
		i++;
		i += i < n && (s[i] == '+' || s[i] == '-');
		DIGITS();
		if (i == from)
			return 0;
	}
#undef DIGITS
	return i;
}

/* A number or one of the three words, kept as it stands. */
static int read_word(struct reader *r, struct conf_node *n, struct err *err)
{
	const char *s = (const char *)r->p;
	size_t len = 0;

	while (r->p + len < r->end && s[len] && !strchr(" \t\r\n,:]}[{\"", s[len]))
		len++;
	if (len == 4 && memcmp(s, "null", 4) == 0)
		n->kind = CONF_NULL;
	else if (!(len == 4 && memcmp(s, "true", 4) == 0) &&
		 !(len == 5 && memcmp(s, "false", 5) == 0) &&
		 (!len || number_length(s, len) != len))
		return wrong(r, "a value", err);
	r->p += len;
	return n->kind == CONF_NULL ? 0 : conf_node_text(&r->build, n, s, len, err);
}

/* Members of a list or map, at the opening bracket. */
static int read_members(struct reader *r, struct conf_node *n, struct err *err)
{
	bool map = n->kind == CONF_MAP;
	char close = map ? '}' : ']';
	struct conf_node **end = &n->first;

	r->p++;
	for (blanks(r); !is(r, close); blanks(r)) {
		cleanup_buf struct buf key = BUF_INIT;
		struct conf_mark at;
		int k = 0;

		if (n->first) {
			if (!is(r, ','))
				return wrong(r, map ? "',' or '}'" : "',' or ']'", err);
			r->p++;
			blanks(r);
		}
		at = here(r);
		if (map) {
			k = read_string(r, &key, err);
			blanks(r);
			if (k == 0 && !is(r, ':'))
				k = wrong(r, "':'", err);
			if (k == 0 && memchr(buf_ptr(&key) ? buf_ptr(&key) : (uint8_t *)"", 0,
					     buf_size(&key)))
				k = conf_error(err, r->build.name, at, "a key with a NUL in it");
			r->p += k == 0;
		}
		if (k == 0)
			k = read_value(r, end, err);
		if (k < 0)
			return k;
		if (map) {
			const char *name = buf_cstr(&key);

			(*end)->key = name ? strdup(name) : NULL;
			(*end)->name = at;
			if (!(*end)->key)
				return err_set(err, ENOMEM, "out of memory");
		}
		end = &(*end)->next;
	}
	r->p++;
	return map ? conf_check_keys(&r->build, n, err) : 0;
}

static int read_value(struct reader *r, struct conf_node **ret, struct err *err)
{
	cleanup_buf struct buf text = {.max = CONF_BYTES_MAX};
	struct conf_node *n;
	int k;

	blanks(r);
	n = conf_node_new(&r->build,
			  is(r, '{')   ? CONF_MAP
			  : is(r, '[') ? CONF_LIST
				       : CONF_TEXT,
			  here(r), err);
	if (!n)
		return -ERR_USAGE;
	*ret = n;
	if (n->kind != CONF_TEXT) {
		r->build.depth++;
		k = read_members(r, n, err);
		r->build.depth--;
		return k;
	}
	if (!is(r, '"'))
		return read_word(r, n, err);
	n->quoted = true;
	k = read_string(r, &text, err);
	if (k < 0)
		return k;
	return conf_node_text(&r->build, n, buf_size(&text) ? (char *)buf_ptr(&text) : "",
			      buf_size(&text), err);
}

int conf_parse_json(const char *name, const char *dir, const void *p, size_t n,
		    struct conf_file *ret, struct err *err)
{
	struct reader r = {
		.build = {.name = name, .verbatim = true}, .p = p, .end = (const uint8_t *)p + n};
	cleanup_conf_file struct conf_file f = {.name = strdup(name), .dir = strdup(dir)};
	int k;

	if (!f.name || !f.dir)
		return err_set(err, ENOMEM, "out of memory");
	if (n > CONF_BYTES_MAX)
		return err_set(err, ERR_LIMIT, "%s: more than %zu MiB", name, CONF_BYTES_MAX >> 20);
	r.counted = r.p;
	r.mark = (struct conf_mark){1, 1};
	k = read_value(&r, &f.root, err);
	if (k == 0) {
		blanks(&r);
		if (r.p != r.end)
			k = wrong(&r, "the end of the file", err);
	}
	if (k < 0)
		return k;
	*ret = f;
	f = (struct conf_file){0};
	return 0;
}
