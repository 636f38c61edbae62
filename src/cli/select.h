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
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "cli/opt.h"

struct cli;
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
int cli_select(const struct cli *cli, struct store *s, struct select_args *a,
	       const struct opt_words *words, enum select_what what, struct strv *ret,
	       struct err *err);

/*
 * Stop all of @names: they are asked first, and then waited for. What each is called for the user
 * is printed when it has stopped, unless @shown is NULL, and noted in stopped[], if wanted. 0, or
 * EXIT_FAILURE after a message.
 */
int cli_stop_all(struct store *s, const struct strv *names, bool force, uint64_t timeout_ms,
		 char *const *shown, bool *stopped);

#endif
