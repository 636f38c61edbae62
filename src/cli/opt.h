/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Command lines. A verb has a table of options; parsing, the help text and suggestions for
 * mistyped words all follow from it.
 *
 * Understood: -x, -xVALUE, -x VALUE, -x=VALUE, clusters (-qt), --name VALUE, --name=VALUE, `--`.
 */
#ifndef CLI_OPT_H
#define CLI_OPT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

struct opt {
	char letter;	  /* 0: none */
	const char *name; /* without dashes */
	const char *arg;  /* what to call the value in the help; NULL: it takes none */
	const char *help;
	/* Store @value (NULL without arg) in @target, at o->offset if that is of use. */
	int (*set)(const struct opt *o, void *target, const char *value, struct err *err);
	size_t offset;
	int number;	   /* for set() */
	const char *def;   /* default, for the help; NULL: none */
	const char *group; /* heading in the help; NULL: that of its table */
};

/* A table that several verbs share. */
struct opt_set {
	const struct opt *opts;
	size_t n;
	/* What is to be done when all words were read without a mistake; NULL: nothing. */
	int (*finish)(void *target, struct err *err);
};

struct opt_table {
	const struct opt *opts;
	size_t n;
	void *target;
};

/* What is left when options are taken out. Points into argv. */
struct opt_words {
	const char **words; /* operands; room for argc of them, the caller's to free */
	size_t n;
	const char *const *rest; /* what follows `--` (or the last operand, see below), verbatim */
	size_t nrest;
	bool has_rest;
};

/*
 * Parse argv[0..argc) with @tables, an earlier one going first. After @operands operands the next
 * one starts the rest; otherwise `--` does. ERR_USAGE with a hint.
 */
int opt_parse(const struct opt_table *tables, size_t ntables, size_t operands, int argc,
	      char *const *argv, struct opt_words *ret, struct err *err);
void opt_words_done(struct opt_words *w);
#define cleanup_words __attribute__((cleanup(opt_words_done)))

/*
 * The groups of a table in the order in which they begin: the next one after @group in *ret, and
 * false when there is none. Begin with no group at all.
 */
struct opt_group {
	const char *name; /* NULL: those without */
	bool begun;
};
bool opt_next_group(const struct opt *opts, size_t n, struct opt_group *group);
bool opt_in_group(const struct opt *o, const struct opt_group *group);

/* Help is not wider than this; 96 columns if nothing is said. */
void opt_help_width(size_t columns);
/* Append one aligned line (or more) per option. */
void opt_help(const struct opt *opts, size_t n, struct buf *b);

/* "There is no WHAT TEXT", and what it may have been meant to be. Returns -ERR_USAGE. */
int opt_no_word(const char *what, const char *text, const char *const *words, size_t n,
		struct err *err);

/* Ready-made setters. */
int opt_set_flag(const struct opt *o, void *target, const char *value, struct err *err); /* bool */
int opt_set_text(const struct opt *o, void *target, const char *value,
		 struct err *err); /* const char * */
int opt_add_text(const struct opt *o, void *target, const char *value, struct err *err); /* strv */
/* uint64_t of nanoseconds, and not none. */
int opt_set_timeout(const struct opt *o, void *target, const char *value, struct err *err);
/* "json" sets a bool; "table" leaves it. */
int opt_set_format(const struct opt *o, void *target, const char *value, struct err *err);

#endif
