/* SPDX-License-Identifier: Apache-2.0 */
/* YAML by libyaml's events: it knows the syntax, what is allowed is decided here. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "config/node.h"

struct reader {
	yaml_parser_t parser;
	struct conf_build build;
	const uint8_t *bytes;
};

static void event_done(yaml_event_t *e)
{
	yaml_event_delete(e);
}

static struct conf_mark mark(const yaml_mark_t *m)
{
	return (struct conf_mark){(unsigned)m->line + 1, (unsigned)m->column + 1};
}

/* The reader of bytes knows only how many there were. */
static struct conf_mark offset_mark(const uint8_t *p, size_t n)
{
	struct conf_mark m = {1, 1};

	for (size_t i = 0; i < n; i++) {
		if (p[i] == '\n') {
			m.line++;
			m.column = 1;
		} else if ((p[i] & 0xc0) != 0x80) {
			m.column++;
		}
	}
	return m;
}

static int syntax(struct reader *r, struct err *err)
{
	const yaml_parser_t *p = &r->parser;
	const char *name = r->build.name;

	switch (p->error) {
	case YAML_MEMORY_ERROR:
		return err_set(err, ENOMEM, "out of memory");
	case YAML_READER_ERROR:
		conf_error(err, name, offset_mark(r->bytes, p->problem_offset), "%s", p->problem);
		return err_hint(err, "the file must be UTF-8 text without control characters");
	default:
		conf_error(err, name, mark(&p->problem_mark), "%s%s%s", p->problem,
			   p->context ? " " : "", p->context ? p->context : "");
		return err_hint(err, "this is not YAML; check indentation, quotes and brackets");
	}
}

static int next(struct reader *r, yaml_event_t *e, struct err *err)
{
	return yaml_parser_parse(&r->parser, e) ? 0 : syntax(r, err);
}

/* What nobody expects, by the properties of a node. */
static int check_properties(struct reader *r, const yaml_event_t *e, const yaml_char_t *anchor,
			    const yaml_char_t *tag, struct err *err)
{
	struct conf_mark at = mark(&e->start_mark);

	if (anchor) {
		conf_error(err, r->build.name, at, "anchors (&%.40s) are not understood", anchor);
		return err_hint(err, "write the value out, or put it in quotes if & is part of it");
	}
	if (tag) {
		conf_error(err, r->build.name, at, "tags (%.40s) are not understood", tag);
		return err_hint(err, "leave it out, or put the value in quotes if ! is part of it");
	}
	return 0;
}

static int read_node(struct reader *r, const yaml_event_t *e, struct conf_node **ret,
		     struct err *err);

static bool is_null(const char *p, size_t n)
{
	return n == 0 || (n == 1 && *p == '~') || (n == 4 && memcmp(p, "null", 4) == 0);
}

static int read_scalar(struct reader *r, const yaml_event_t *e, struct conf_node *n,
		       struct err *err)
{
	const char *p = (const char *)e->data.scalar.value;
	size_t len = e->data.scalar.length;

	n->quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
	if (!n->quoted && is_null(p, len)) {
		n->kind = CONF_NULL;
		return 0;
	}
	return conf_node_text(&r->build, n, p, len, err);
}

static int read_list(struct reader *r, struct conf_node *list, struct err *err)
{
	struct conf_node **end = &list->first;

	for (;;) {
		CLEANUP(event_done) yaml_event_t e = {0};
		int k = next(r, &e, err);

		if (k < 0 || e.type == YAML_SEQUENCE_END_EVENT)
			return k;
		k = read_node(r, &e, end, err);
		if (k < 0)
			return k;
		end = &(*end)->next;
	}
}

static int read_key(struct reader *r, const yaml_event_t *e, char **ret, struct err *err)
{
	const char *text = (const char *)e->data.scalar.value;
	size_t len = e->data.scalar.length;
	struct conf_mark at = mark(&e->start_mark);
	int k;

	if (e->type != YAML_SCALAR_EVENT)
		return conf_error(err, r->build.name, at, "a key must be a text");
	k = check_properties(r, e, e->data.scalar.anchor, e->data.scalar.tag, err);
	if (k < 0)
		return k;
	if (e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && len == 2 &&
	    memcmp(text, "<<", 2) == 0) {
		conf_error(err, r->build.name, at, "merge keys (<<) are not understood");
		return err_hint(err, "write the keys out, or use several --conf files");
	}
	if (memchr(text, 0, len))
		return conf_error(err, r->build.name, at, "a key with a NUL in it");
	*ret = strndup(text, len);
	return *ret ? 0 : err_set(err, ENOMEM, "out of memory");
}

static int read_map(struct reader *r, struct conf_node *map, struct err *err)
{
	struct conf_node **end = &map->first;

	for (;;) {
		CLEANUP(event_done) yaml_event_t ke = {0};
		CLEANUP(event_done) yaml_event_t ve = {0};
		cleanup_free char *key = NULL;
		int k = next(r, &ke, err);

		if (k == 0 && ke.type == YAML_MAPPING_END_EVENT)
			return conf_check_keys(&r->build, map, err);
		if (k == 0)
			k = read_key(r, &ke, &key, err);
		if (k == 0)
			k = next(r, &ve, err);
		if (k == 0)
			k = read_node(r, &ve, end, err);
		if (k < 0)
			return k;
		(*end)->key = take_ptr(key);
		(*end)->name = mark(&ke.start_mark);
		end = &(*end)->next;
	}
}

/* *ret is set, though the node may be half read, so that it is freed with the tree. */
static int read_node(struct reader *r, const yaml_event_t *e, struct conf_node **ret,
		     struct err *err)
{
	struct conf_mark at = mark(&e->start_mark);
	enum conf_kind kind;
	int k;

	switch (e->type) {
	case YAML_SCALAR_EVENT:
		kind = CONF_TEXT;
		k = check_properties(r, e, e->data.scalar.anchor, e->data.scalar.tag, err);
		break;
	case YAML_SEQUENCE_START_EVENT:
		kind = CONF_LIST;
		k = check_properties(r, e, e->data.sequence_start.anchor,
				     e->data.sequence_start.tag, err);
		break;
	case YAML_MAPPING_START_EVENT:
		kind = CONF_MAP;
		k = check_properties(r, e, e->data.mapping_start.anchor, e->data.mapping_start.tag,
				     err);
		break;
	case YAML_ALIAS_EVENT:
		conf_error(err, r->build.name, at, "aliases (*%.40s) are not understood",
			   e->data.alias.anchor);
		return err_hint(err, "write the value out, or put it in quotes if * is part of it");
	default:
		return conf_error(err, r->build.name, at, "a value is missing");
	}
	if (k < 0)
		return k;
	*ret = conf_node_new(&r->build, kind, at, err);
	if (!*ret)
		return err && err->code ? -err->code : -ERR_USAGE;
	if (kind == CONF_TEXT)
		return read_scalar(r, e, *ret, err);
	r->build.depth++;
	k = kind == CONF_LIST ? read_list(r, *ret, err) : read_map(r, *ret, err);
	r->build.depth--;
	return k;
}

/* Up to the end of the stream. An empty one has no document. */
static int read_stream(struct reader *r, struct conf_file *f, struct err *err)
{
	for (;;) {
		CLEANUP(event_done) yaml_event_t e = {0};
		int k = next(r, &e, err);

		if (k < 0)
			return k;
		switch (e.type) {
		case YAML_STREAM_START_EVENT:
		case YAML_DOCUMENT_END_EVENT:
			break;
		case YAML_DOCUMENT_START_EVENT:
			if (f->root)
				return conf_error(err, r->build.name, mark(&e.start_mark),
						  "a second document; a file has one");
			break;
		case YAML_STREAM_END_EVENT:
			return 0;
		default:
			k = read_node(r, &e, &f->root, err);
			if (k < 0)
				return k;
		}
	}
}

static void reader_done(struct reader *r)
{
	yaml_parser_delete(&r->parser);
}

static int parse(const char *name, const char *dir, const void *p, size_t n, bool verbatim,
		 struct conf_file *ret, struct err *err)
{
	CLEANUP(reader_done)
	struct reader r = {.build = {.name = name, .verbatim = verbatim}, .bytes = p};
	cleanup_conf_file struct conf_file f = {.name = strdup(name), .dir = strdup(dir)};
	int k;

	if (!f.name || !f.dir || !yaml_parser_initialize(&r.parser))
		return err_set(err, ENOMEM, "out of memory");
	if (n > CONF_BYTES_MAX)
		return err_set(err, ERR_LIMIT, "%s: more than %zu MiB", name, CONF_BYTES_MAX >> 20);
	/* Or it would guess, and take UTF-16 as well. */
	yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&r.parser, n ? p : (const void *)"", n);
	k = read_stream(&r, &f, err);
	if (k < 0)
		return k;
	if (!f.root) {
		f.root = conf_node_new(&r.build, CONF_NULL, (struct conf_mark){1, 1}, err);
		if (!f.root)
			return -ENOMEM;
	}
	*ret = f;
	f = (struct conf_file){0};
	return 0;
}

int conf_parse_yaml(const char *name, const char *dir, const void *p, size_t n,
		    struct conf_file *ret, struct err *err)
{
	return parse(name, dir, p, n, false, ret, err);
}

int conf_parse_words(const char *name, const char *text, struct conf_file *ret, struct err *err)
{
	return parse(name, ".", text, strlen(text), true, ret, err);
}
