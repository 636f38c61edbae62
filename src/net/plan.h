/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is who on a sandbox's link, and what the host has to offer. Every sandbox has a network of
 * its own, so all have the same addresses.
 */
#ifndef NET_PLAN_H
#define NET_PLAN_H

#include "net/stack.h"

#define NET_INTERFACE "eth0"
#define NET_HOST_NAME "host.microsandbox.internal"
#define NET_PREFIX4   30
#define NET_PREFIX6   64
/*
 * The link has nearly no limit but that of IP, and only this link sees it: TCP ends at the host,
 * which cuts UDP to fit its own path.
 */
#define NET_MTU 65520

/* Addresses, MACs and the MTU; the rest stays as it is. */
void net_plan(struct stack_config *c, bool ipv6);
/* Does the host know a way to addresses of IPv6? Asks its routes, sends nothing. */
bool net_host_has_ipv6(void);
/* The host's resolvers, of a resolv.conf(5). */
void net_plan_resolvers(struct stack_config *c, const char *path);

#endif
