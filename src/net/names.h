/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which names an address has for the guest: those under which it was told the address, for as long
 * as it was told plus a grace (NAMES_GRACE_S), since programs connect a while after they asked.
 *
 * A pin is made before the answer that it comes from is handed out, so no connection can be faster
 * than it. Each rule for names has a share of the pins of its own: whoever floods one rule with
 * names pushes out that rule's oldest, and nobody else's. One that is over stays until then, for
 * those that ask about the past.
 *
 * Owned by one thread.
 */
#ifndef NET_NAMES_H
#define NET_NAMES_H

#include "net/addr.h"
#include "net/policy.h"
#include "wire/dns.h"

struct names;

#define NAMES_GRACE_S 60
/* Of all rules together; a rule has 32 at least. */
#define NAMES_PINS 4096

int names_new(const uint8_t seed[16], struct names **ret);
/* NULL is fine. Returns NULL. */
struct names *names_free(struct names *n);

/* Whose rules count. Borrowed; to be said again when they changed. */
void names_policy(struct names *n, const struct net_policy *p);

/* Times are nanoseconds. -ENOMEM. */
int names_pin(struct names *n, const struct net_addr *a, const struct dns_name *name,
	      uint64_t until);
/* The rules for all the names that an address has at @now; at 0 all that it is known to have had. */
void names_rules(struct names *n, const struct net_addr *a, uint64_t now, struct net_rules *ret);
/* The rules for @name, if that is one of them. */
bool names_has(struct names *n, const struct net_addr *a, const struct dns_name *name, uint64_t now,
	       struct net_rules *ret);

#endif
