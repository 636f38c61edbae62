/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sandboxes that another process runs, by name: for commands that work inside of one. Any thread.
 */
#ifndef SANDBOX_REACH_H
#define SANDBOX_REACH_H

#include "base/err.h"

struct store;

/*
 * Connect to the agent of sandbox @name, waiting for one that is just being started or stopped.
 * Returns a descriptor. -ENOTCONN: it does not run; -ERR_NOT_FOUND: there is none; -EBUSY: somebody
 * holds it, and nothing came of that.
 */
int sandbox_reach(struct store *s, const char *name, struct err *err);

#endif
