/* SPDX-License-Identifier: Apache-2.0 */
/* Sandboxes that go on when the command that started them has ended: what verbs share. */
#ifndef CLI_BACKGROUND_H
#define CLI_BACKGROUND_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct cli;
struct sandbox;
struct store;

/*
 * Put @sb, which is given up, into the background, and wait until it is ready: 0. Otherwise an exit
 * code, after a message. Signals that came meanwhile end it.
 */
int background_start(const struct cli *cli, struct sandbox *sb, bool main);
/*
 * Start kept sandboxes, some at once; those that run already are fine. Prints their names, unless
 * @quiet. 0, or EXIT_FAILURE if any failed.
 */
int background_start_all(const struct cli *cli, struct store *s, char *const *names, size_t n,
			 bool quiet);

#endif
