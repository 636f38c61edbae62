/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What msb-vm asks the agent for on the control connection: host.* (wire/agent_msg.h).
 */
#ifndef GUEST_HOST_H
#define GUEST_HOST_H

#include "server.h"

void host_usage(struct conn *c, uint32_t id);
/* Switch CPUs on and off; a request at a time. The answer comes when the kernel has done it. */
void host_cpus(struct conn *c, uint32_t id, const struct msg_host_cpus *m);
/* Takes what @m holds. */
void host_defaults(struct server *sv, struct msg_host_defaults *m);

/* How many CPUs a list of the kernel's names, as in "0-2,5"; 0 when it is none. */
unsigned host_count_cpus(const char *list);

#endif
