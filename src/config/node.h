/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A configuration file as a tree, every part of which knows where it stood.
 *
 * Two front ends make it: YAML and JSON, both of a strict kind. UTF-8, one document, no key twice.
 * Of YAML's liberties those that nobody expects are refused with a reason: anchors, aliases, merge
 * keys, tags. A plain word is the text that stands there, whatever it looks like: `no` and `1.0`
 * stay what they are where a text is wanted, and are refused where a truth value or a whole number
 * is.
 *
 * ${NAME} in a value of YAML is the host's environment variable, which must be set; $${ is ${
 * itself.
 *
 * The file is the user's, but may have come from anywhere: depth, nodes and bytes have ceilings.
 * One thread.
 */
#ifndef CONFIG_NODE_H
#define CONFIG_NODE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* The peer's, far above what is written by hand. */
#define CONF_BYTES_MAX ((size_t)16 << 20)
#define CONF_NODES_MAX 100000u
#define CONF_DEPTH_MAX 64u

enum conf_kind {
	CONF_NULL, /* nothing, ~ or null */
	CONF_TEXT,
	CONF_LIST,
	CONF_MAP,
};

struct conf_mark {
	unsigned line, column; /* from 1; columns are characters */
};

struct conf_node {
	enum conf_kind kind;
	bool quoted;	       /* a text for certain, not a number or a truth value */
	struct conf_mark at;   /* of the value */
	char *text;	       /* of a text; has no NUL within */
	char *key;	       /* of a map's member */
	struct conf_mark name; /* of the key */
	struct conf_node *first, *next;
};

struct conf_file {
	char *name; /* as the user named it, for messages */
	char *dir;  /* absolute: what relative paths are relative to */
	struct conf_node *root;
};

void conf_file_done(struct conf_file *f);
#define cleanup_conf_file __attribute__((cleanup(conf_file_done)))

/* -ERR_USAGE, "NAME:LINE:COLUMN: reason"; -ENOENT and others without a position. */
int conf_read_yaml(const char *path, struct conf_file *ret, struct err *err);
int conf_read_json(const char *path, struct conf_file *ret, struct err *err);
/* The same from memory; relative paths are relative to @dir. */
int conf_parse_yaml(const char *name, const char *dir, const void *p, size_t n,
		    struct conf_file *ret, struct err *err);
int conf_parse_json(const char *name, const char *dir, const void *p, size_t n,
		    struct conf_file *ret, struct err *err);
/* YAML where a shell has had its way with variables already. */
int conf_parse_words(const char *name, const char *text, struct conf_file *ret, struct err *err);

/* The member @key of a map, or NULL. */
struct conf_node *conf_get(const struct conf_node *map, const char *key);
/* "a list" and the like, for messages. */
const char *conf_what(const struct conf_node *n);

/* Set an error that starts with the position. Returns -ERR_USAGE. */
int conf_error(struct err *err, const char *name, struct conf_mark at, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* ---- for front ends ---- */

struct conf_build {
	const char *name;
	unsigned depth, nodes;
	bool verbatim; /* ${NAME} is no variable */
};

void conf_node_free(struct conf_node *n);
/* A new node, counted. NULL after an error. */
struct conf_node *conf_node_new(struct conf_build *b, enum conf_kind kind, struct conf_mark at,
				struct err *err);
/* Give a text node its text. */
int conf_node_text(struct conf_build *b, struct conf_node *n, const char *p, size_t len,
		   struct err *err);
/* Is no key there twice? */
int conf_check_keys(struct conf_build *b, const struct conf_node *map, struct err *err);

#endif
