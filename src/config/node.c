/* SPDX-License-Identifier: Apache-2.0 */
#include "config/node.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

int conf_error(struct err *err, const char *name, struct conf_mark at, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return err_set(err, ERR_USAGE, "%.200s:%u:%u: %s", name, at.line, at.column, text);
}

/* Its depth is bounded, and so is this. */
void conf_node_free(struct conf_node *n)
{
	while (n) {
		struct conf_node *next = n->next;

		conf_node_free(n->first);
		free(n->text);
		free(n->key);
		free(n);
		n = next;
	}
}

void conf_file_done(struct conf_file *f)
{
	conf_node_free(f->root);
	free(f->name);
	free(f->dir);
	*f = (struct conf_file){0};
}

struct conf_node *conf_node_new(struct conf_build *b, enum conf_kind kind, struct conf_mark at,
				struct err *err)
{
	struct conf_node *n = NULL;

	if (b->nodes >= CONF_NODES_MAX) {
		conf_error(err, b->name, at, "more than %u values", CONF_NODES_MAX);
	} else if (b->depth >= CONF_DEPTH_MAX) {
		conf_error(err, b->name, at, "more than %u levels within each other",
			   CONF_DEPTH_MAX);
	} else {
		n = calloc(1, sizeof(*n));
		if (!n)
			no_memory(err);
	}
	if (!n)
		return NULL;
	b->nodes++;
	n->kind = kind;
	n->at = at;
	return n;
}

static bool name_char(char c, bool first)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' ||
	       (!first && c >= '0' && c <= '9');
}

/* What "${NAME}" at @p stands for, and how long that is; NULL after an error. */
static const char *variable(struct conf_build *b, const struct conf_node *n, const char *p,
			    const char *end, size_t *len, struct err *err)
{
	const char *at = p + 2, *value;
	char name[128];
	size_t size;

	while (at < end && name_char(*at, at == p + 2))
		at++;
	size = (size_t)(at - p) - 2;
	if (at == end || *at != '}' || size == 0 || size >= sizeof(name)) {
		conf_error(err, b->name, n->at, "${ is not followed by a variable's name and }");
		err_hint(err, "write ${NAME} for the value that NAME has here, $${ for ${ itself");
		return NULL;
	}
	memcpy(name, p + 2, size);
	name[size] = '\0';
	value = getenv(name);
	if (!value) {
		conf_error(err, b->name, n->at, "the environment variable %s is not set here",
			   name);
		err_hint(err, "set it, or write $${%s} for these characters themselves", name);
		return NULL;
	}
	*len = size + 3;
	return value;
}

int conf_node_text(struct conf_build *b, struct conf_node *n, const char *p, size_t len,
		   struct err *err)
{
	cleanup_buf struct buf out = {.max = CONF_BYTES_MAX};
	const char *end = p + len, *start = p;

	if (memchr(p, 0, len))
		return conf_error(err, b->name, n->at, "a text with a NUL in it");
	while (p < end) {
		const char *dollar = b->verbatim ? NULL : memchr(p, '$', (size_t)(end - p)), *value;
		size_t left = dollar ? (size_t)(end - dollar) : 0, used;

		if (left < 2) {
			buf_add(&out, p, (size_t)(end - p));
			break;
		}
		buf_add(&out, p, (size_t)(dollar - p));
		p = dollar;
		if (left >= 3 && memcmp(p, "$${", 3) == 0) {
			buf_add_str(&out, "${");
			p += 3;
		} else if (p[1] != '{') {
			buf_add_u8(&out, '$');
			p++;
		} else {
			value = variable(b, n, p, end, &used, err);
			if (!value)
				return -ERR_USAGE;
			buf_add_str(&out, value);
			/* What it looks like is now the environment's doing. */
			if (p == start && p + used == end)
				n->quoted = false;
			p += used;
		}
	}
	if (buf_failed(&out))
		return conf_error(err, b->name, n->at, "more than %zu MiB of text",
				  CONF_BYTES_MAX >> 20);
	n->text = malloc(buf_size(&out) + 1);
	if (!n->text)
		return no_memory(err);
	if (buf_size(&out))
		memcpy(n->text, buf_ptr(&out), buf_size(&out));
	n->text[buf_size(&out)] = '\0';
	return 0;
}

static int by_key(const void *a, const void *b)
{
	const struct conf_node *x = *(const struct conf_node *const *)a;
	const struct conf_node *y = *(const struct conf_node *const *)b;
	int r = strcmp(x->key, y->key);

	if (r)
		return r;
	if (x->name.line != y->name.line)
		return x->name.line < y->name.line ? -1 : 1;
	return x->name.column < y->name.column ? -1 : x->name.column > y->name.column;
}

int conf_check_keys(struct conf_build *b, const struct conf_node *map, struct err *err)
{
	cleanup_free const struct conf_node **v = NULL;
	size_t n = 0;

	for (const struct conf_node *c = map->first; c; c = c->next)
		n++;
	v = calloc(n + 1, sizeof(*v));
	if (!v)
		return no_memory(err);
	n = 0;
	for (const struct conf_node *c = map->first; c; c = c->next)
		v[n++] = c;
	qsort(v, n, sizeof(*v), by_key);
	for (size_t i = 1; i < n; i++) {
		if (str_eq(v[i - 1]->key, v[i]->key))
			return conf_error(err, b->name, v[i]->name,
					  "the key \"%.60s\" is there twice, first in line %u",
					  v[i]->key, v[i - 1]->name.line);
	}
	return 0;
}

struct conf_node *conf_get(const struct conf_node *map, const char *key)
{
	if (map->kind != CONF_MAP)
		return NULL;
	for (struct conf_node *c = map->first; c; c = c->next) {
		if (str_eq(c->key, key))
			return c;
	}
	return NULL;
}

const char *conf_what(const struct conf_node *n)
{
	switch (n->kind) {
	case CONF_NULL:
		return "nothing";
	case CONF_LIST:
		return "a list";
	case CONF_MAP:
		return "a map";
	default:
		return "a text";
	}
}

typedef int parse_fn(const char *name, const char *dir, const void *p, size_t n,
		     struct conf_file *ret, struct err *err);

/* The file may be a pipe, which has no place of its own: it is where its name is. */
static char *directory_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	cleanup_free char *dir = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");

	return dir ? realpath(dir, NULL) : NULL;
}

static int read_with(parse_fn *parse, const char *path, struct conf_file *ret, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;
	cleanup_free char *dir = NULL;
	int r = io_read_file(path, CONF_BYTES_MAX, &b, err);

	if (r < 0)
		return r;
	dir = directory_of(path);
	if (!dir)
		return err_errno(err, "cannot tell where %s is", path);
	return parse(path, dir, buf_ptr(&b), buf_size(&b), ret, err);
}

int conf_read_yaml(const char *path, struct conf_file *ret, struct err *err)
{
	return read_with(conf_parse_yaml, path, ret, err);
}

int conf_read_json(const char *path, struct conf_file *ret, struct err *err)
{
	return read_with(conf_parse_json, path, ret, err);
}
