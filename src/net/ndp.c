/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Neighbours and routers of IPv6 (RFC 4861). The gateway's addresses are told to who asks for them.
 * A guest that asks for routers hears that we are one, that its address comes from DHCPv6 (dhcp6.c)
 * and who resolves names; and again before that would be forgotten. Ours are told all this by their
 * agent and need not ask.
 */
#include <netinet/icmp6.h>

#include "net/plan.h"
#include "net/stack_impl.h"

enum {
	/* The longest there is (RFC 4861, 6.2.1), and two that may get lost before. */
	ROUTER_S = 9000,
	AGAIN_S = ROUTER_S / 3,
	OPT_RDNSS = 25, /* RFC 8106 */
	HOPS = 255,	/* whoever is further away cannot send that */
};

/* Made of the gateway's MAC. */
struct net_addr ndp_link_local(const struct stack *s)
{
	const uint8_t *m = s->config.gateway_mac;
	const uint8_t b[16] = {0xfe, 0x80, [8] = (uint8_t)(m[0] ^ 2), m[1], m[2], 0xff, 0xfe, m[3],
			       m[4], m[5]};

	return net_addr_v6(b);
}

static void solicitation(struct stack *s, const struct packet *p)
{
	static const struct net_addr nobody;
	/* type, code, sum; flags: a router's, asked for, overriding; target; option: our MAC */
	uint8_t m[32] = {ND_NEIGHBOR_ADVERT, [4] = 0xe0, [24] = ND_OPT_TARGET_LINKADDR, 1};
	const struct net_addr own = ndp_link_local(s);
	struct net_addr target;

	if (p->len - p->l4 < 24 || p->head_len < p->l4 + 24) {
		s->stats.malformed++;
		return;
	}
	target = net_addr_v6(p->head + p->l4 + 8);
	/* Whether an address of the guest's is free is answered by silence. */
	if (net_addr_equal(&p->src, &nobody) ||
	    (!net_addr_equal(&target, &s->config.gateway6) && !net_addr_equal(&target, &own)))
		return;
	memcpy(m + 8, target.b, 16);
	memcpy(m + 26, s->config.gateway_mac, 6);
	icmp_send(s, &target, &p->src, m, sizeof(m));
}

/* To all on the link, as the guest may not have an address of its own there. */
static void advertise(struct stack *s)
{
	static const uint8_t all[16] = {0xff, 2, [15] = 1};
	const struct net_addr own = ndp_link_local(s), dst = net_addr_v6(all);
	/* hops to begin with; addresses and more by DHCPv6 */
	uint8_t m[16 + 8 + 8 + 32 + 24] = {ND_ROUTER_ADVERT, [4] = 64, 0xc0}, *o = m + 16;

	put16(m + 6, ROUTER_S);
	o[0] = ND_OPT_SOURCE_LINKADDR;
	o[1] = 1;
	memcpy(o + 2, s->config.gateway_mac, 6);
	o += 8;
	o[0] = ND_OPT_MTU;
	o[1] = 1;
	put32(o + 4, s->config.mtu);
	o += 8;
	/* On this link; and not to make addresses from, as only one is the guest's. */
	o[0] = ND_OPT_PREFIX_INFORMATION;
	o[1] = 4;
	o[2] = NET_PREFIX6;
	o[3] = ND_OPT_PI_FLAG_ONLINK;
	put32(o + 4, UINT32_MAX);
	put32(o + 8, UINT32_MAX);
	memcpy(o + 16, s->config.gateway6.b, NET_PREFIX6 / 8);
	o += 32;
	o[0] = OPT_RDNSS;
	o[1] = 3;
	put32(o + 4, UINT32_MAX);
	memcpy(o + 8, s->config.gateway6.b, 16);
	icmp_send(s, &own, &dst, m, sizeof(m));
	s->advert_due = s->now + AGAIN_S * SECOND;
}

void ndp_tick(struct stack *s)
{
	if (s->advert_due && s->advert_due <= s->now)
		advertise(s);
}

bool ndp_input(struct stack *s, const struct packet *p, uint8_t type)
{
	if (p->head[ETH_HDR + 7] != HOPS)
		return false;
	if (type == ND_NEIGHBOR_SOLICIT)
		solicitation(s, p);
	else if (type == ND_ROUTER_SOLICIT)
		advertise(s);
	else
		return false;
	return true;
}
