/* SPDX-License-Identifier: Apache-2.0 */
/* Filling a model from a file, by the table of fields. One thread. */
#ifndef CONFIG_LOAD_H
#define CONFIG_LOAD_H

#include "config/field.h"
#include "config/node.h"

/* A kind of file: all that can be said, or a part of it. */
struct conf_scope {
	const char *opt; /* that names such a file */
	const char *help;
	const char *prefix; /* the file is the value of this key; NULL: it has keys from the top */
	enum field_scope scope;
	/* Rows that only such files have, which stand before those of the table. */
	const struct field *more;
	size_t nmore;
};
extern const struct conf_scope conf_scopes[];
extern const size_t nconf_scopes;

/*
 * What the file says takes the place of what was said before, but maps are joined. @path of a
 * missing or wrong file, "FILE:LINE:COLUMN: key: …" otherwise; the model may have changed then.
 */
int conf_load(const struct conf_scope *scope, const char *path, struct model *m, struct err *err);
/* The same when it has been read; the root of @file is what the scope's file would be. */
int conf_load_file(const struct conf_scope *scope, const struct conf_file *file, struct model *m,
		   struct err *err);

/* One map of a file that describes several sandboxes; @arg is for the rows of the scope. */
int conf_load_map(const struct conf_scope *scope, const struct conf_file *file,
		  const struct conf_node *map, struct model *m, void *arg, struct err *err);

/* Why the key is refused though it is meaningful elsewhere, or NULL. */
const char *conf_refused(const char *key);

/* ---- for rows of the table whose value is no plain one ---- */

struct conf_loading {
	const struct conf_file *file;
	struct model *m;
	const struct conf_scope *scope;
	bool patches; /* those of this file have begun */
	void *arg;    /* of conf_load_map() */
};
/* A plain value of a row; @key is what it is called in messages. */
int conf_load_plain(struct conf_loading *l, const struct field *f, const char *key,
		    const struct conf_node *n, struct err *err);
/* The keys of a map, which are those below @prefix. */
int conf_load_keys(struct conf_loading *l, const char *prefix, const struct conf_node *map,
		   struct err *err);

/* Hand words to the field's setter; where they stood is in the error, as in those below. */
int conf_say(struct conf_loading *l, const struct field *f, const char *key,
	     const struct conf_node *n, const char *words, struct err *err);
/* "@key: @want is expected, not …": returns -ERR_USAGE. */
int conf_expected(const struct conf_loading *l, const char *key, const struct conf_node *n,
		  const char *want, struct err *err);
/* There is no such key among @keys. */
int conf_unknown(struct conf_loading *l, const char *key, const struct conf_node *n,
		 const char *const *keys, size_t nkeys, struct err *err);
int conf_missing(struct conf_loading *l, const char *key, const struct conf_node *n,
		 const char *what, struct err *err);
/* @path if it is absolute, else below the file's directory. NULL without memory. */
char *conf_resolve(const struct conf_loading *l, const char *path);

/* The keys that a map may have, and what it has: node[i] is NULL for those that are missing. */
struct conf_form {
	const char *const *keys;
	size_t n;
	const struct conf_node *node[8]; /* texts */
};
int conf_take_form(struct conf_loading *l, const char *key, const struct conf_node *n,
		   struct conf_form *form, struct err *err);

int conf_load_image(struct conf_loading *l, const struct field *f, const struct conf_node *n,
		    struct err *err);
int conf_load_entrypoint(struct conf_loading *l, const struct field *f, const struct conf_node *n,
			 struct err *err);
int conf_load_rlimits(struct conf_loading *l, const struct field *f, const struct conf_node *n,
		      struct err *err);
int conf_load_sockets(struct conf_loading *l, const struct field *f, const struct conf_node *n,
		      struct err *err);
int conf_load_patches(struct conf_loading *l, const struct field *f, const struct conf_node *n,
		      struct err *err);
int conf_load_patch_files(struct conf_loading *l, const struct field *f, const struct conf_node *n,
			  struct err *err);
extern const char conf_patches_schema[];

/* One patch as a file would have it, but in one line and without variables. */
int conf_patch(struct model *m, const char *text, struct err *err);
/* A program, or "[PROGRAM, ARGUMENT, ...]". */
int conf_entrypoint(struct model *m, const char *text, struct err *err);
/* The path of a file with patches. */
int conf_patch_file(struct model *m, const char *text, struct err *err);

#endif
