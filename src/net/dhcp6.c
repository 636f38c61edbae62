/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DHCPv6 (RFC 8415), for guests that configure themselves: as with DHCP there is one address, for
 * good, and nothing to remember.
 */
#include "base/cleanup.h"
#include "net/stack_impl.h"

enum {
	SOLICIT = 1,
	ADVERTISE,
	REQUEST,
	CONFIRM,
	RENEW,
	REBIND,
	REPLY,
	RELEASE,
	DECLINE,
	INFORMATION = 11,

	OPT_CLIENT = 1,
	OPT_SERVER,
	OPT_IA_NA,
	OPT_ADDRESS = 5,
	OPT_STATUS = 13,
	OPT_RAPID = 14,
	OPT_DNS = 23,

	/* RFC 8415, 11.1 */
	DUID_MAX = 130,
	/* An interface has one; who asks for more gets the address in each of as many. */
	IAS_MAX = 4,
	HDR = 4,
	ANSWER_MAX = HDR + 4 + DUID_MAX + 14 + IAS_MAX * 44 + 64,
	STATUS_NOT_ON_LINK = 4,
};

struct wish {
	const uint8_t *client, *server;
	uint8_t nclient, nserver;
	bool rapid, elsewhere; /* has an address that is not the guest's */
	uint32_t ias[IAS_MAX];
	unsigned nias;
};

static bool next(struct cur *c, unsigned *code, struct cur *value)
{
	const uint8_t *p;
	size_t n;

	if (cur_left(c) < 4)
		return false;
	*code = cur_be16(c);
	n = cur_be16(c);
	p = cur_bytes(c, n);
	if (p)
		*value = cur_make(p, n);
	return p;
}

static void parse_ia(struct stack *s, struct wish *w, struct cur c)
{
	const uint32_t id = cur_be32(&c);
	struct cur value;
	unsigned code;

	(void)cur_be64(&c); /* when it would like to renew */
	if (c.bad || w->nias == IAS_MAX)
		return;
	w->ias[w->nias++] = id;
	while (next(&c, &code, &value)) {
		const uint8_t *a = code == OPT_ADDRESS ? cur_bytes(&value, 16) : NULL;

		w->elsewhere |= a && memcmp(a, s->config.guest6.b, 16) != 0;
	}
}

static struct wish parse(struct stack *s, const uint8_t *m, size_t n)
{
	struct cur c = cur_make(m + HDR, n - HDR), value;
	struct wish w = {0};
	unsigned code;

	while (next(&c, &code, &value)) {
		size_t len = cur_left(&value);

		if (code == OPT_CLIENT && len <= DUID_MAX) {
			w.client = cur_bytes(&value, len);
			w.nclient = (uint8_t)len;
		} else if (code == OPT_SERVER && len <= DUID_MAX) {
			w.server = cur_bytes(&value, len);
			w.nserver = (uint8_t)len;
		} else if (code == OPT_IA_NA) {
			parse_ia(s, &w, value);
		} else if (code == OPT_RAPID) {
			w.rapid = true;
		}
	}
	return w;
}

static uint8_t *option(uint8_t *o, unsigned code, const void *p, size_t n)
{
	put16(o, code);
	put16(o + 2, (uint32_t)n);
	if (p)
		memcpy(o + 4, p, n);
	return o + 4 + n;
}

static uint8_t *add_ia(const struct stack *s, uint8_t *o, uint32_t id)
{
	uint8_t ia[12 + 4 + 24] = {0}, *a = ia + 12;

	put32(ia, id);
	/* Renewed never, and valid for ever. */
	put32(ia + 4, UINT32_MAX);
	put32(ia + 8, UINT32_MAX);
	a = option(a, OPT_ADDRESS, NULL, 24) - 24;
	memcpy(a, s->config.guest6.b, 16);
	put32(a + 16, UINT32_MAX);
	put32(a + 20, UINT32_MAX);
	return option(o, OPT_IA_NA, ia, sizeof(ia));
}

/* A DUID of the link-layer address (11.4). */
static const uint8_t *duid(const struct stack *s, uint8_t ret[10])
{
	put32(ret, 3 << 16 | 1);
	memcpy(ret + 4, s->config.gateway_mac, 6);
	return ret;
}

static void answer(struct stack *s, const struct packet *p, const uint8_t *m, const struct wish *w,
		   uint8_t type, bool addresses)
{
	const struct net_addr own = ndp_link_local(s);
	uint8_t r[ANSWER_MAX] = {type, m[1], m[2], m[3]}, *o = r + HDR, id[10], status[2];

	if (w->client)
		o = option(o, OPT_CLIENT, w->client, w->nclient);
	o = option(o, OPT_SERVER, duid(s, id), sizeof(id));
	if (type == REPLY && m[0] == SOLICIT)
		o = option(o, OPT_RAPID, NULL, 0);
	if (m[0] == CONFIRM || m[0] == RELEASE || m[0] == DECLINE) {
		put16(status, m[0] == CONFIRM && w->elsewhere ? STATUS_NOT_ON_LINK : 0);
		o = option(o, OPT_STATUS, status, sizeof(status));
	}
	for (unsigned i = 0; addresses && i < w->nias; i++)
		o = add_ia(s, o, w->ias[i]);
	o = option(o, OPT_DNS, s->config.gateway6.b, 16);
	udp_send(s, &own, DHCP6_SERVER, &p->src, DHCP6_CLIENT, r, (size_t)(o - r));
}

bool dhcp6_input(struct stack *s, const struct packet *p, const void *message, size_t n)
{
	const uint8_t *m = message;
	struct wish w;
	uint8_t own[10];

	/* To all servers on the link, and nowhere else (18.2.10 lets nobody know ours). */
	if (net_addr_kind(&p->dst) != NET_MULTICAST)
		return false;
	if (n < HDR) {
		s->stats.malformed++;
		return true;
	}
	w = parse(s, m, n);
	if (w.server &&
	    (w.nserver != sizeof(own) || memcmp(w.server, duid(s, own), sizeof(own)) != 0))
		return true;
	switch (m[0]) {
	case SOLICIT:
		if (w.client)
			answer(s, p, m, &w, w.rapid ? REPLY : ADVERTISE, true);
		break;
	case REQUEST:
	case RENEW:
	case REBIND:
		if (w.client)
			answer(s, p, m, &w, REPLY, true);
		break;
	case CONFIRM:
	case RELEASE:
	case DECLINE:
	case INFORMATION:
		answer(s, p, m, &w, REPLY, false);
		break;
	default:
		break;
	}
	return true;
}
