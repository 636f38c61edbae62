/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be said about a sandbox, by whatever front end: the command line, a file, the
 * environment. One row in the table of field.c is all that a new wish takes besides its setter;
 * option, help, key of files and schema follow from it.
 *
 * A struct model is what the front ends fill. It remembers who said what. One thread.
 */
#ifndef CONFIG_FIELD_H
#define CONFIG_FIELD_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"
#include "sandbox/spec.h"

struct field;
struct conf_loading;
struct conf_node;

enum pull_policy { PULL_MISSING, PULL_ALWAYS, PULL_NEVER };

/* Of what comes first wherever an order counts. */
#define SAID_BY_HAND "command line"

struct said {
	const struct field *field;
	char *text; /* in the words of a person, as the option would take it */
	char *from; /* SAID_BY_HAND, "FILE:LINE" */
};

struct model {
	struct sandbox_spec spec;
	char *image;	 /* NULL: not said */
	struct strv cmd; /* in place of the image's; empty: not said */
	enum pull_policy pull;
	/* Who we are at the image's registry; NULL: as `msb registry login` has it. */
	char *registry_username, *registry_password_env;
	bool creates; /* something was said that only counts for a new sandbox */
	struct said *said;
	size_t nsaid;
};

/* Fill in the defaults. */
void model_init(struct model *m);
void model_done(struct model *m);
#define cleanup_model __attribute__((cleanup(model_done)))

/* What a value is; the option takes all of them as words. */
enum field_kind {
	FIELD_TEXT,
	FIELD_WORD, /* one of those that @arg lists */
	FIELD_NUMBER,
	FIELD_SIZE,	/* 512M, 1.5G; a number is MiB */
	FIELD_DURATION, /* 90, 30s, 5m */
	FIELD_PATH,	/* of this host; in a file relative to its directory */
	FIELD_SOURCE,	/* a text that is such a path if it begins with ./ ../ or / */
	FIELD_LIST,	/* of texts, one for each use of the option */
	FIELD_MAP,	/* of names to texts; the option says NAME=TEXT */
};

/* The kinds of files of which a key can be part. */
enum field_scope {
	FIELD_ANYWHERE, /* those that say everything */
	FIELD_RESOURCE,
	FIELD_RUNTIME,
	FIELD_FS,
	FIELD_NET,
};

struct field {
	/* In a file, dots between levels; NULL: @why it is not said there. */
	const char *key;
	const char *why;
	enum field_kind kind;
	/* On the command line; @letter may be 0. */
	char letter;
	const char *opt; /* NULL: not said there */
	const char *arg; /* what to call the value */
	const char *help;
	const char *def; /* default; NULL: none */
	/* Take the value as a person writes it: one of these, or a text at @text in the spec. */
	int (*spec)(struct sandbox_spec *s, const char *text, struct err *err);
	int (*model)(struct model *m, const char *text, struct err *err);
	size_t text;
	bool anyway; /* counts for a sandbox that is there already, too */
	enum field_scope scope;
	/* Of lists: forget what was said. Files replace them, options add to them. */
	void (*clear)(struct model *m);
	/* Take the value of a file, when it is more than @kind says; and its JSON schema then. */
	int (*load)(struct conf_loading *l, const struct field *f, const struct conf_node *n,
		    struct err *err);
	const char *schema;
	/* What was said has changed. */
	int (*after)(struct model *m, struct err *err);
};

extern const struct field fields[];
extern const size_t nfields;

/* -ERR_USAGE with a hint; nothing has changed then. */
int field_set(const struct field *f, struct model *m, const char *text, const char *from,
	      struct err *err);

/* Remember that it was said, when that has been done already. */
int field_note(const struct field *f, struct model *m, const char *text, const char *from,
	       struct err *err);

/* Forget what was said in a list. -ENOMEM. */
int field_clear(const struct field *f, struct model *m);
/* The row of a key or an option, or NULL. */
const struct field *field_by_key(const char *key);
const struct field *field_by_opt(const char *opt);

/* "always", "missing" (or "if-missing"), "never" */
int pull_policy_parse(const char *text, enum pull_policy *ret, struct err *err);

#endif
