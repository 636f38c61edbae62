/* SPDX-License-Identifier: Apache-2.0 */
/* Policies and names. */
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "net/policy.h"

/* "1.2.3" and "10.0.0.256" are addresses that went wrong, not names: no top level is a number. */
static bool like_address(const struct dns_name *name)
{
	struct dns_name top;

	dns_name_tail(name, 1, &top);
	for (unsigned i = 1; i <= top.b[0]; i++) {
		if (top.b[i] < '0' || top.b[i] > '9')
			return false;
	}
	return true;
}

bool net_policy_name_target(const char *text, struct net_rule *r)
{
	enum net_names names = NET_NAME;
	bool lookup = str_starts(text, "dns="), said = lookup;

	if (lookup) {
		text += strlen("dns=");
	} else if (str_starts(text, "domain=")) {
		text += strlen("domain=");
		said = true;
	}
	if (str_starts(text, "suffix=") && (lookup || !said)) {
		text += strlen("suffix=");
		names = NET_NAME_WITHIN;
	} else if (str_starts(text, "*.")) {
		text += 2;
		names = NET_NAME_BELOW;
	}
	/* A single label is too easily a word misspelt. */
	if (!said && names == NET_NAME && !strchr(text, '.'))
		return false;
	if (dns_name_parse(text, &r->name) < 0 || r->name.n == 1 || like_address(&r->name))
		return false;
	if (names != NET_NAME && dns_name_labels(&r->name) < 2 && !lookup)
		return false;
	r->names = names;
	r->targets = lookup ? (uint16_t)(1u << NET_IS_DNS) : 0;
	return true;
}

static bool is_for(const struct net_rule *r, const struct dns_name *name)
{
	switch ((enum net_names)r->names) {
	case NET_NAME:
		return dns_name_equal(&r->name, name);
	case NET_NAME_BELOW:
		return name->n > r->name.n && dns_name_within(name, &r->name);
	case NET_NAME_WITHIN:
		return dns_name_within(name, &r->name);
	default:
		return false;
	}
}

void net_policy_named(const struct net_policy *p, const struct dns_name *name,
		      struct net_rules *ret)
{
	*ret = (struct net_rules){0};
	for (unsigned i = 0; i < p->nrules; i++) {
		if (is_for(&p->rule[i], name))
			ret->bits[i / 64] |= (uint64_t)1 << (i % 64);
	}
}

static bool is_for_all_ports(const struct net_rule *r)
{
	return !r->proto && !r->low && r->high == 65535;
}

bool net_policy_denies_name(const struct net_policy *p, const struct dns_name *name)
{
	for (unsigned i = 0; i < p->nrules; i++) {
		const struct net_rule *r = &p->rule[i];

		if (is_for(r, name) && (r->allow || is_for_all_ports(r)))
			return !r->allow;
	}
	return false;
}

bool net_policy_may_ask(const struct net_policy *p, const struct dns_name *name, uint8_t proto)
{
	for (unsigned i = 0; i < p->nrules; i++) {
		const struct net_rule *r = &p->rule[i];
		bool lookup = r->targets & 1u << NET_IS_DNS;

		if (r->names && !is_for(r, name))
			continue;
		/* What may be reached may be asked for; what may not be reached at all may not. */
		if (r->names && !lookup) {
			if (r->allow)
				return true;
			if (is_for_all_ports(r))
				return false;
			continue;
		}
		if (lookup && r->directions & NET_EGRESS && (!r->proto || r->proto == proto) &&
		    r->low <= DNS_PORT && r->high >= DNS_PORT)
			return r->allow;
	}
	return p->egress & 1u << NET_IS_DNS;
}

bool net_policy_asks_elsewhere(const struct net_question *q)
{
	enum { NETBIOS = 137, OVER_TLS = 853, MDNS = 5353, LLMNR = 5355 };

	return q->direction == NET_EGRESS && (q->proto == NET_UDP || q->proto == NET_TCP) &&
	       (q->port == OVER_TLS || q->port == NETBIOS || q->port == MDNS || q->port == LLMNR);
}
