/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options that say what a sandbox is: of `run`, `create`, and whatever else makes one. They are the
 * rows of config/field.h; a new one is made there.
 *
 * A verb names spec_opts as its shared table and parses into a struct that begins with a struct
 * spec_args, of which the model is filled when the words have been read.
 */
#ifndef CLI_SPEC_OPTS_H
#define CLI_SPEC_OPTS_H

#include <stdbool.h>

#include "cli/cli.h"
#include "config/load.h"

/* An option of the command line; it counts after all files, wherever they are named. */
struct spec_word {
	const struct field *field;
	const char *value; /* argv's */
};

struct spec_file {
	const struct conf_scope *scope;
	const char *path; /* argv's */
};

struct spec_args {
	struct model model;
	bool quiet;
	bool replace; /* one of that name */
	int replace_ms;
	struct spec_file *files; /* in the order in which they were named */
	size_t nfiles;
	struct spec_word *words;
	size_t nwords;
};

/* Fill in the defaults. */
void spec_args_init(struct spec_args *a);
void spec_args_done(struct spec_args *a);
#define cleanup_spec_args __attribute__((cleanup(spec_args_done)))

/* As if the option of @key, which there is, had been given; for setters of a verb's own options. */
int spec_args_say(struct spec_args *a, const char *key, const char *word, struct err *err);

/* The sandbox's log level, unless it was given, is that of the command. */
int spec_args_level(struct spec_args *a, const struct cli *cli, struct err *err);
/*
 * The image is the first operand and the command the rest, or what a file says, of which @words has
 * then the words, as long as @a lives. -ERR_USAGE if there is no image.
 */
int spec_args_operands(struct spec_args *a, struct opt_words *words, struct err *err);

/* Its rows are there after spec_opts_init(). */
extern struct opt_set spec_opts;
void spec_opts_init(void);

#endif
