/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which sandboxes a verb is about: those named, those with certain labels, or all.
 *
 * A verb names select_opts as its shared table and parses into a struct that begins with a struct
 * select_args.
 */
#ifndef CLI_SELECT_H
#define CLI_SELECT_H

#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"
#include "cli/opt.h"

struct store;

struct select_args {
	struct strv labels;
	bool all, quiet;
};

extern const struct opt_set select_opts;

/* Of those that are not named, only what runs, or only what does not. */
enum select_what { SELECT_ANY, SELECT_RUNNING, SELECT_STOPPED };

/* The names, each once, those of @words first. ERR_USAGE when nothing was said. Drops the labels.
 */
int cli_select(struct store *s, struct select_args *a, const struct opt_words *words,
	       enum select_what what, struct strv *ret, struct err *err);

#endif
