/* SPDX-License-Identifier: Apache-2.0 */
/* The network of a sandbox that runs, after its record has changed. Any thread. */
#ifndef SANDBOX_NET_CHANGE_H
#define SANDBOX_NET_CHANGE_H

#include "base/err.h"
#include "sandbox/spec.h"

/* Have the machine at the other end of @control (control_client.h) go by @to: policy and limits. */
int sandbox_net_tell(int control, const struct sandbox_spec *to, struct err *err);

/*
 * Could what @to has and @from has not be published? So that what cannot be is not written down:
 * the next start would fail by it.
 */
int sandbox_net_ports_try(int dirfd, const struct sandbox_spec *from, const struct sandbox_spec *to,
			  struct err *err);

/*
 * Publish what @to has and @from has not, no longer what only @from has, and write what came of
 * that into the machine's record in @dirfd.
 */
int sandbox_net_ports(int control, int dirfd, const struct sandbox_spec *from,
		      const struct sandbox_spec *to, struct err *err);

/* Take from the list the one that says the same as @text. ERR_NOT_FOUND. */
int sandbox_net_port_rm(struct strv *ports, const char *text, struct err *err);

#endif
