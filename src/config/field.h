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

enum pull_policy { PULL_MISSING, PULL_ALWAYS, PULL_NEVER };

struct said {
	const struct field *field;
	char *text; /* in the words of a person, as the option would take it */
	char *from; /* "command line", "FILE:LINE" */
};

struct model {
	struct sandbox_spec spec;
	enum pull_policy pull;
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
	FIELD_PATH,	/* of this host */
	FIELD_LIST,	/* of texts, one for each use of the option */
	FIELD_MAP,	/* of names to texts; the option says NAME=TEXT */
};

struct field {
	/* In a file, dots between levels; NULL: @why it is not said there. */
	const char *key;
	const char *why;
	enum field_kind kind;
	/* On the command line; @letter may be 0. */
	char letter;
	const char *opt;
	const char *arg; /* what to call the value */
	const char *help;
	const char *def; /* default; NULL: none */
	/* Take the value as a person writes it: one of these, or a text at @text in the spec. */
	int (*spec)(struct sandbox_spec *s, const char *text, struct err *err);
	int (*model)(struct model *m, const char *text, struct err *err);
	size_t text;
	bool anyway; /* counts for a sandbox that is there already, too */
};

extern const struct field fields[];
extern const size_t nfields;

/* -ERR_USAGE with a hint; nothing has changed then. */
int field_set(const struct field *f, struct model *m, const char *text, const char *from,
	      struct err *err);

/* "always", "missing" (or "if-missing"), "never" */
int pull_policy_parse(const char *text, enum pull_policy *ret, struct err *err);

#endif
