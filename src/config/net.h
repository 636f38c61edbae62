/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network in files.
 *
 * Which of the rules comes first is decided by where they were said, not when: those of the command
 * line, then network.rules, network.deny and network.allow of files. With any network.allow,
 * profiles count for nothing, and what no rule decides is denied unless a default says otherwise.
 * That is how the peer's files mean it.
 */
#ifndef CONFIG_NET_H
#define CONFIG_NET_H

#include "config/load.h"

/* "none", "public", "open", or {policy, allow, deny, ...} */
int conf_load_network(struct conf_loading *l, const struct field *f, const struct conf_node *n,
		      struct err *err);
extern const char conf_network_schema[];

int conf_net_policy(struct model *m, const char *text, struct err *err);
int conf_net_deny(struct model *m, const char *text, struct err *err);
int conf_net_allow(struct model *m, const char *text, struct err *err);
/* Of all that was said, make the spec's rules and profiles; its ports. */
int conf_net_compose(struct model *m, struct err *err);
void conf_net_ports(struct model *m);

#endif
