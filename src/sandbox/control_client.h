/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of control.sock: asks the machine of a sandbox that runs, whoever owns it. Any thread.
 */
#ifndef SANDBOX_CONTROL_CLIENT_H
#define SANDBOX_CONTROL_CLIENT_H

#include "base/err.h"
#include "machine/control_msg.h"

struct store;

/* Longer than anything that msb-vm itself waits for. */
#define CONTROL_TIMEOUT_MS 90000

/*
 * A connection to the machine of @name: a descriptor. -ENOTCONN: it does not run; -ERR_NOT_FOUND:
 * there is no such sandbox; -EBUSY: it runs, but its machine is not there yet, or no more.
 */
int control_connect(struct store *s, const char *name, struct err *err);
/*
 * Ask on a connection, and wait for the answer. What the machine refuses is an error as it words
 * it; @ret (may be NULL) is the caller's to release with control_answer_done().
 */
int control_ask(int fd, const struct control_request *q, int timeout_ms, struct control_answer *ret,
		struct err *err);
/* Both; errors name the sandbox. */
int control_request(struct store *s, const char *name, const struct control_request *q,
		    struct control_answer *ret, struct err *err);

#endif
