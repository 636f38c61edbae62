/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is who on a sandbox's link, and what the host has to offer. Every sandbox has a network of
 * its own, so all have the same addresses.
 */
#ifndef NET_PLAN_H
#define NET_PLAN_H

#include "base/str.h"
#include "net/resolver.h"
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
/*
 * The host's name servers, of a resolv.conf(5), unless there are some already; and the names that
 * the gateway has of its own.
 */
void net_plan_resolver(struct resolver_config *dns, const struct stack_config *c, const char *path);
/*
 * One of what can be said about names, "KEY=VALUE": timeout-ms=N, rebind-protection=on|off,
 * strict=on|off. ERR_USAGE.
 */
int net_plan_names(struct resolver_config *dns, const char *pair, struct err *err);
/* The domains in which the host looks for short names, with blanks between; a new string. */
int net_plan_search(const char *path, char **ret);

#endif
