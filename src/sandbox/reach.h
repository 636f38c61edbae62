/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sandboxes that another process runs, by name: for commands that work inside of one. Any thread.
 */
#ifndef SANDBOX_REACH_H
#define SANDBOX_REACH_H

#include <stdbool.h>

#include "base/err.h"

struct store;

/*
 * Connect to the agent of sandbox @name, waiting for one that is just being started or stopped.
 * Returns a descriptor. -ENOTCONN: it does not run; -ERR_NOT_FOUND: there is none; -EBUSY: somebody
 * holds it, and nothing came of that.
 */
int sandbox_reach(struct store *s, const char *name, struct err *err);
/* The same of a socket in its directory, and for how long to wait. */
int sandbox_reach_socket(struct store *s, const char *name, const char *socket, int patience_ms,
			 struct err *err);
/*
 * The same of the host of its sessions, @wait for which to appear. -ERR_UNSUPPORTED: it runs, but
 * has none.
 */
int sandbox_reach_sessions(struct store *s, const char *name, bool wait, struct err *err);

#endif
