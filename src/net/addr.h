/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses of both families in one type, and what kind of address one is.
 *
 * An IPv4 address is kept in its mapped form (::ffff:a.b.c.d). Every form in which an IPv6 address
 * can carry an IPv4 one is looked through by net_addr_kind(), so that no spelling of an address is
 * of a milder kind than the address itself.
 */
#ifndef NET_ADDR_H
#define NET_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct net_addr {
	uint8_t b[16];
};

/* Long enough for any address as text. */
#define NET_ADDR_TEXT 46

struct net_addr net_addr_v4(const void *four);
struct net_addr net_addr_v6(const void *sixteen);
/* Of text, without brackets; false when it is none. */
bool net_addr_parse(const char *text, struct net_addr *ret);
const char *net_addr_text(const struct net_addr *a, char ret[NET_ADDR_TEXT]);

static inline bool net_addr_equal(const struct net_addr *a, const struct net_addr *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}
bool net_addr_is_v4(const struct net_addr *a);
/* The four bytes of a mapped address. */
static inline const uint8_t *net_addr_four(const struct net_addr *a)
{
	return a->b + 12;
}
/* Are the first @bits of the mapped form (96 more than of IPv4's) the same? */
bool net_addr_within(const struct net_addr *a, const struct net_addr *prefix, unsigned bits);

/*
 * Every address is of exactly one kind, by IANA's registries of special-purpose addresses for IPv4
 * and IPv6 (RFC 6890 and what was added since). The later, the worse to be let through.
 */
enum net_kind {
	NET_PUBLIC,
	NET_PRIVATE,	/* RFC 1918, shared address space, unique local */
	NET_LINK_LOCAL, /* this link, metadata excepted */
	NET_MULTICAST,	/* broadcast too */
	NET_RESERVED,	/* nothing that a connection could be meant for */
	NET_METADATA,	/* what clouds tell their machines, secrets among it */
	NET_LOOPBACK,	/* this host */
	NET_KINDS,
};

/* Of one that can be read in several ways, the worst. */
enum net_kind net_addr_kind(const struct net_addr *a);

/* The IPv4 addresses that an IPv6 address may stand for, to whom translates it. How many. */
#define NET_ADDR_INNER 5
unsigned net_addr_inner(const struct net_addr *a, struct net_addr ret[NET_ADDR_INNER]);

#endif
