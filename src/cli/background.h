/* SPDX-License-Identifier: Apache-2.0 */
/* Sandboxes that go on when the command that started them has ended: what verbs share. */
#ifndef CLI_BACKGROUND_H
#define CLI_BACKGROUND_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "cli/attach.h"
#include "sandbox/keeper.h"

struct cli;
struct keeper;
struct sandbox;
struct store;

/*
 * Put @sb, which is given up, into the background, and wait until it is ready: 0. Otherwise an exit
 * code, after a message. Signals that came meanwhile end it.
 */
int background_start(const struct cli *cli, struct sandbox *sb, enum keeper_until until);
/*
 * The same for as long as we need it ourselves: started, and then waited for. 0, negative, or the
 * exit code that stands for a signal that came meanwhile; unless 0, @k needs nothing more.
 */
int background_hold(struct sandbox *sb, enum keeper_until until, struct keeper *k, struct err *err);
int background_ready(const struct cli *cli, struct keeper *k, struct err *err);
/*
 * Let go of it, with @r the result of what was done there and @end how that ended: waits until it
 * has stopped, or goes on for others. @r, or what its machine says to have failed of.
 */
int background_leave(const struct cli *cli, struct keeper *k, int r, enum attach_end end,
		     struct err *err);
/* A descriptor of the signals that ask us to end, which are blocked: a signalfd, or -1. */
int background_signals(void);
/* Wait for one that was started and is left to itself: an exit code, after a message. */
int background_wait(const struct cli *cli, struct keeper *k);
/*
 * Start kept sandboxes, some at once; those that run already are fine. Prints their names, unless
 * @quiet. 0, or EXIT_FAILURE if any failed.
 */
int background_start_all(const struct cli *cli, struct store *s, char *const *names, size_t n,
			 bool quiet);

#endif
