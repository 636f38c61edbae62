/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may talk to whom: rules in the order they were given, the first that matches counts; then
 * what the profiles say; everything else is denied.
 *
 *	ACTION[:DIRECTION]@TARGET[:PROTOCOL[:PORTS]]
 *
 *	ACTION     allow, deny
 *	DIRECTION  egress (what the guest begins), ingress (what comes through a published port),
 *	           any
 *	TARGET     any; host, meta, loopback, private, link-local, multicast, public; an IPv4
 *	           address or network; an IPv6 address or network in brackets;
 *	           dns[:udp|tcp|any]; domain=NAME or a name with a dot, suffix=NAME (what is
 *	           below it, too), *.NAME (only what is below it); dns=NAME, dns=*.NAME;
 *	           doh: the servers of DNS over HTTPS that are known, without a protocol
 *	PROTOCOL   any, tcp, udp, icmpv4, icmpv6
 *	PORTS      any, or N and A-B with commas between: what begins with a digit after a
 *	           comma belongs to the rule before it
 *
 * Three things are not a matter of taste: what names this host by address (loopback in all its
 * spellings) is denied whatever the rules say, for the host has a name of its own, the gateway; and
 * "any" in a rule that allows includes neither the host nor the metadata of clouds; and who denies
 * an IPv4 address or network denies it inside of IPv6 addresses as well (NAT64, 6to4 and others).
 *
 * A name opens the addresses that the guest was told for it (net/names.h), for as long as it was
 * told, and it can be asked for: a rule for a name speaks of looking it up as well, unless it
 * denies only some ports of it. dns=NAME speaks of nothing else. Names never reach metadata, nor
 * the host by another name than its own.
 *
 * Port 53 is the gateway's wherever it is addressed. Other ways to ask for names (DNS over TLS and
 * QUIC, mDNS, LLMNR, NetBIOS) are open only to a rule that says the port.
 *
 * Plain data; no thread of its own.
 */
#ifndef NET_POLICY_H
#define NET_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "net/addr.h"
#include "wire/dns.h"

/* A list that a person could still follow. */
#define NET_RULES_MAX 256

enum net_proto {
	NET_ICMP = 1,
	NET_TCP = 6,
	NET_UDP = 17,
	NET_ICMP6 = 58,
};

enum net_direction {
	NET_EGRESS = 1,
	NET_INGRESS = 2,
};

/* Besides the kinds of addresses, as bits behind theirs. */
enum {
	NET_IS_HOST = NET_KINDS, /* the host: the gateway's address, or one of the host's own */
	NET_IS_DNS,		 /* the gateway's name service */
};

enum net_names {
	NET_NO_NAME,
	NET_NAME,	/* this one */
	NET_NAME_BELOW, /* what ends with it, itself not */
	NET_NAME_WITHIN,
};

struct net_rule {
	bool allow;
	uint8_t names;	    /* of name; targets is NET_IS_DNS if only lookups are meant */
	uint8_t directions; /* NET_EGRESS | NET_INGRESS */
	uint8_t proto;	    /* 0 is any */
	uint8_t bits;	    /* of the network, if neither targets nor names */
	uint16_t targets;   /* 1 << enum net_kind or the two above */
	uint16_t low, high; /* ports; 0 and 65535 is any */
	struct net_addr net;
	struct dns_name name;
};

struct net_policy {
	struct net_rule rule[NET_RULES_MAX];
	unsigned nrules;
	uint16_t egress; /* targets that profiles, or the default, allow */
	bool ingress;	 /* through published ports */
};

/* Some of a policy's rules, a bit each. */
struct net_rules {
	uint64_t bits[NET_RULES_MAX / 64];
};

/* What is asked: a flow from or to an address of the world. */
struct net_question {
	enum net_direction direction;
	uint8_t proto;
	bool host, dns; /* see above */
	uint16_t port;	/* that is connected to; 0 for ICMP */
	struct net_addr peer;
	const struct net_rules *named; /* rules for names that are the peer's; NULL is none */
};

enum net_verdict {
	NET_DENIED,
	NET_ALLOWED,
	NET_ALLOWED_BY_NAME, /* and if it were not for a rule's name, it might not be */
};

/* Nothing is allowed out, everything in: only published ports are asked about. */
void net_policy_init(struct net_policy *p);
/* Add what profiles allow: "public", "private", "host", "all", "none"; several with commas. */
int net_policy_profile(struct net_policy *p, const char *words, struct err *err);
/*
 * "allow" or "deny" what no rule decides, in place of what profiles say, in @which directions
 * (enum net_direction). What is allowed so is what a last rule allow@any would.
 */
int net_policy_default(struct net_policy *p, unsigned which, const char *word, struct err *err);
/* Append rules, separated by commas. ERR_USAGE with a hint; ERR_LIMIT. */
int net_policy_rules(struct net_policy *p, const char *text, struct err *err);
/* "N" or "A-B", none below @least. */
bool net_ports_parse(const char *text, uint16_t least, uint16_t *low, uint16_t *high);
enum net_verdict net_policy_decide(const struct net_policy *p, const struct net_question *q);
static inline bool net_policy_allows(const struct net_policy *p, const struct net_question *q)
{
	return net_policy_decide(p, q) != NET_DENIED;
}
/* May the guest ask for what there is under a name, over UDP or TCP? */
bool net_policy_may_ask(const struct net_policy *p, const struct dns_name *name, uint8_t proto);
/* Does a rule for names say that there is nothing under this one, for any port? */
bool net_policy_denies_name(const struct net_policy *p, const struct dns_name *name);
/* The rules that are for this name. */
void net_policy_named(const struct net_policy *p, const struct dns_name *name,
		      struct net_rules *ret);

/* Of policy_doh.c: targets, up to a NULL. */
extern const char *const net_policy_doh[];
/* Of policy_name.c: the target of a rule, "domain=..." and so on. False when it is no name. */
bool net_policy_name_target(const char *text, struct net_rule *r);
/* The ways to ask for names that have to be named themselves. */
bool net_policy_asks_elsewhere(const struct net_question *q);

#endif
