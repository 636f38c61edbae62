/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What several sandboxes print, line by line, each under its name, until all have ended. Main
 * thread: signals end it.
 */
#ifndef CLI_FOLLOW_H
#define CLI_FOLLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct store;

struct follow_of {
	const char *name;  /* in the store */
	const char *shown; /* for the user */
};

/*
 * Show what was printed since @since_ns (Unix time) and what comes, until no sandbox runs any more:
 * the first exit code that is not 0, or 0. A signal that comes meanwhile is taken (and no longer
 * pending): EXIT_SIGNAL plus its number. The log goes on until follow_done().
 */
struct follow;
int follow_new(struct follow **ret, struct store *s, const struct follow_of *of, size_t n,
	       int64_t since_ns, struct err *err);
int follow_run(struct follow *f);
/* Show what there is left. NULL is fine; returns NULL. */
struct follow *follow_free(struct follow *f);

/* Now, as log entries have it. */
int64_t follow_now(void);

#endif
