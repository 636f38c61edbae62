/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DHCP (RFC 2131, 2132), for guests that configure themselves: there is one address, it is always
 * the guest's, and the server remembers nothing.
 */
#include "base/cleanup.h"
#include "net/plan.h"
#include "net/stack_impl.h"

enum {
	OP_REQUEST = 1,
	OP_REPLY,

	DISCOVER = 1,
	OFFER,
	REQUEST,
	DECLINE,
	ACK,
	NAK,
	RELEASE,
	INFORM,

	OPT_PAD = 0,
	OPT_MASK = 1,
	OPT_ROUTER = 3,
	OPT_DNS = 6,
	OPT_MTU = 26,
	OPT_WISH = 50,
	OPT_LEASE = 51,
	OPT_TYPE = 53,
	OPT_SERVER = 54,
	OPT_END = 255,

	LEASE_S = 86400,
	COOKIE = 0x63825363,
	/* op, htype, hlen, hops, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr, sname,
	 * file, cookie */
	AT_XID = 4,
	AT_FLAGS = 10,
	AT_CIADDR = 12,
	AT_YIADDR = 16,
	AT_CHADDR = 28,
	AT_COOKIE = 236,
	FIXED = 240,
	/* The shortest message that every client and relay takes. */
	SHORTEST = 300,
};

struct wish {
	uint8_t type;
	const uint8_t *address, *server; /* four bytes each, or NULL */
};

static struct wish parse(const uint8_t *m, size_t n)
{
	struct cur c = cur_make(m + FIXED, n - FIXED);
	struct wish w = {0};

	while (cur_left(&c)) {
		uint8_t code = cur_u8(&c), len;
		const uint8_t *p;

		if (code == OPT_PAD)
			continue;
		if (code == OPT_END)
			break;
		len = cur_u8(&c);
		p = cur_bytes(&c, len);
		if (!p)
			break;
		if (code == OPT_TYPE && len == 1)
			w.type = *p;
		if (code == OPT_WISH && len == 4)
			w.address = p;
		if (code == OPT_SERVER && len == 4)
			w.server = p;
	}
	return w;
}

static uint8_t *option(uint8_t *o, uint8_t code, const void *p, uint8_t n)
{
	*o++ = code;
	*o++ = n;
	memcpy(o, p, n);
	return o + n;
}

static uint8_t *option32(uint8_t *o, uint8_t code, uint32_t v)
{
	uint8_t b[4];

	put32(b, v);
	return option(o, code, b, 4);
}

static void answer(struct stack *s, const uint8_t *m, uint8_t type, bool lease)
{
	static const uint8_t everybody[4] = {255, 255, 255, 255}, none[4];
	const uint8_t *gateway = net_addr_four(&s->config.gateway4);
	const uint8_t *guest = net_addr_four(&s->config.guest4);
	const uint8_t *ciaddr = m + AT_CIADDR;
	const bool named = type != NAK && memcmp(ciaddr, none, 4) != 0;
	const struct net_addr to = net_addr_v4(named ? guest : everybody);
	uint8_t r[SHORTEST] = {OP_REPLY, 1, 6}, *o = r + FIXED, mtu[2];

	memcpy(r + AT_XID, m + AT_XID, 4);
	memcpy(r + AT_FLAGS, m + AT_FLAGS, 2);
	if (type != NAK)
		memcpy(r + AT_CIADDR, ciaddr, 4);
	if (lease)
		memcpy(r + AT_YIADDR, guest, 4);
	memcpy(r + AT_CHADDR, s->config.guest_mac, 6);
	put32(r + AT_COOKIE, COOKIE);
	o = option(o, OPT_TYPE, &type, 1);
	o = option(o, OPT_SERVER, gateway, 4);
	if (lease)
		o = option32(o, OPT_LEASE, LEASE_S);
	if (type != NAK) {
		o = option32(o, OPT_MASK, UINT32_MAX << (32 - NET_PREFIX4));
		o = option(o, OPT_ROUTER, gateway, 4);
		o = option(o, OPT_DNS, gateway, 4);
		put16(mtu, s->config.mtu);
		o = option(o, OPT_MTU, mtu, 2);
	}
	*o = OPT_END;
	udp_send(s, &s->config.gateway4, DHCP_SERVER, &to, DHCP_CLIENT, r, sizeof(r));
}

bool dhcp_input(struct stack *s, const struct packet *p, const void *message, size_t n)
{
	const uint8_t *guest = net_addr_four(&s->config.guest4), *m = message, *wanted;
	static const uint8_t cookie[4] = {0x63, 0x82, 0x53, 0x63}, none[4];
	struct wish w;

	if (net_addr_kind(&p->dst) != NET_MULTICAST &&
	    !net_addr_equal(&p->dst, &s->config.gateway4))
		return false;
	if (n < FIXED || m[0] != OP_REQUEST || m[1] != 1 || m[2] != 6 ||
	    memcmp(m + AT_COOKIE, cookie, 4) != 0) {
		s->stats.malformed++;
		return true;
	}
	/* Who is behind the guest is the guest's to serve. */
	if (memcmp(m + AT_CHADDR, s->config.guest_mac, 6) != 0)
		return true;
	w = parse(m, n);
	if (w.server && memcmp(w.server, net_addr_four(&s->config.gateway4), 4) != 0)
		return true;
	if (w.type == DISCOVER)
		answer(s, m, OFFER, true);
	if (w.type == INFORM)
		answer(s, m, ACK, false);
	if (w.type == REQUEST) {
		/* Of one that it was offered, or that it has. */
		wanted = w.address ? w.address : m + AT_CIADDR;
		if (memcmp(wanted, none, 4) == 0 || memcmp(wanted, guest, 4) == 0)
			answer(s, m, ACK, true);
		else
			answer(s, m, NAK, false);
	}
	return true;
}
