/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fragments, both ways (RFC 791, RFC 8200). The guest's are put together here, as a flow needs the
 * ports, which are in the first only. What is longer than the MTU goes to the guest in parts.
 *
 * Who sends parts only costs little: FRAGS_MAX datagrams are in the making at most, each for some
 * seconds, and the oldest goes for a new one. A part that overlaps another condemns its datagram,
 * in IPv4 too (RFC 5722 says why): nothing that was read changes behind a reader's back.
 */
#include <netinet/ip.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/iov.h"
#include "net/stack_impl.h"

enum {
	TIMEOUT_S = 15, /* RFC 791, 3.2 */
	UNIT = 8,
	LONGEST = 65535,
	UNITS = (LONGEST + UNIT) / UNIT,
};

struct frag {
	struct net_addr dst;
	uint32_t id;
	uint8_t proto;
	uint64_t due;
	size_t total; /* bytes of its data; 0: the last part was not there yet */
	size_t top;   /* the end of what was */
	size_t units; /* how many are there */
	size_t l3;    /* length of the headers; 0: the first part was not there yet */
	uint8_t there[(UNITS + 7) / 8];
	uint8_t bytes[HEAD_MAX + LONGEST + UNIT]; /* the data is behind HEAD_MAX */
};

static void drop(struct stack *s, unsigned i)
{
	free(s->frags[i]);
	s->frags[i] = NULL;
}

void frag_done(struct stack *s)
{
	for (unsigned i = 0; i < FRAGS_MAX; i++)
		drop(s, i);
}

uint64_t frag_next(const struct stack *s)
{
	uint64_t next = 0;

	for (unsigned i = 0; i < FRAGS_MAX; i++) {
		if (s->frags[i] && (!next || s->frags[i]->due < next))
			next = s->frags[i]->due;
	}
	return next;
}

void frag_tick(struct stack *s)
{
	for (unsigned i = 0; i < FRAGS_MAX; i++) {
		struct frag *g = s->frags[i];

		if (!g || g->due > s->now)
			continue;
		/* Only who has the first part can say what it was about (RFC 1122, 3.3.2). */
		if (g->l3)
			icmp_timeout(s, &g->dst, g->proto, g->bytes + HEAD_MAX, g->top);
		drop(s, i);
	}
}

static unsigned slot_for(struct stack *s, const struct packet *p, uint32_t id)
{
	unsigned oldest = 0;

	for (unsigned i = 0; i < FRAGS_MAX; i++) {
		struct frag *g = s->frags[i];

		if (g && g->id == id && g->proto == p->proto && net_addr_equal(&g->dst, &p->dst))
			return i;
		if (s->frags[oldest] && (!g || g->due < s->frags[oldest]->due))
			oldest = i;
	}
	drop(s, oldest);
	return oldest;
}

enum overlap { APART, SAME, ACROSS };

static enum overlap mark(struct frag *g, size_t off, size_t len)
{
	size_t first = off / UNIT, n = (len + UNIT - 1) / UNIT, known = 0;

	for (size_t u = first; u < first + n; u++)
		known += g->there[u / 8] >> u % 8 & 1;
	if (known)
		return known == n ? SAME : ACROSS;
	for (size_t u = first; u < first + n; u++)
		g->there[u / 8] |= (uint8_t)(1 << u % 8);
	g->units += n;
	return APART;
}

/* The headers of the first part, for all. */
static void keep_head(struct frag *g, const struct packet *p)
{
	uint8_t *ip = g->bytes + ETH_HDR;

	g->l3 = p->four ? p->l4 : ETH_HDR + IP6_HDR;
	memcpy(g->bytes, p->head, g->l3);
	if (p->four)
		put16(ip + 6, 0);
	else
		ip[6] = p->proto;
}

static void finish(struct stack *s, struct frag *g, bool four)
{
	const struct iovec v[] = {{g->bytes, g->l3}, {g->bytes + HEAD_MAX, g->total}};
	struct packet p = {.iov = v, .n = 2, .joined = true};
	uint8_t *ip = g->bytes + ETH_HDR;

	if (four) {
		put16(ip + 2, (uint32_t)(g->l3 - ETH_HDR + g->total));
		put16(ip + 10, 0);
		put16(ip + 10, (uint16_t)~sum_fold(sum_bytes(ip, g->l3 - ETH_HDR, 0)));
	} else {
		put16(ip + 4, (uint32_t)g->total);
	}
	link_packet(s, &p);
}

void frag_input(struct stack *s, const struct packet *p, uint32_t id, size_t off, bool more)
{
	const size_t len = p->len - p->l4, end = off + len;
	const unsigned i = slot_for(s, p, id);
	struct frag *g = s->frags[i];
	enum overlap o;

	if (!len || (more && len % UNIT) || end + (p->four ? p->l4 - ETH_HDR : 0) > LONGEST ||
	    p->proto == NET_FRAGMENT)
		goto malformed;
	if (!g) {
		g = s->frags[i] = calloc(1, sizeof(*g));
		if (!g)
			return;
		g->dst = p->dst;
		g->id = id;
		g->proto = p->proto;
		g->due = s->now + TIMEOUT_S * SECOND;
	}
	if (g->total ? end > g->total || (!more && end < g->total) : !more && g->top > end)
		goto malformed;
	o = mark(g, off, len);
	if (o == ACROSS)
		goto malformed;
	if (o == SAME)
		return;
	iov_read(p->iov, p->n, p->l4, g->bytes + HEAD_MAX + off, len);
	g->top = MAX(g->top, end);
	if (!more)
		g->total = end;
	if (!off)
		keep_head(g, p);
	if (!g->total || g->units != (g->total + UNIT - 1) / UNIT)
		return;
	/* What it leads to may bring others here. */
	s->frags[i] = NULL;
	if (g->l3 - ETH_HDR + g->total <= LONGEST + (p->four ? 0 : IP6_HDR))
		finish(s, g, p->four);
	free(g);
	return;
malformed:
	s->stats.malformed++;
	drop(s, i);
}

void frag_send(struct stack *s, const struct net_addr *src, const struct net_addr *dst,
	       uint8_t proto, const uint8_t header[8], const void *data, size_t len)
{
	const bool four = net_addr_is_v4(src);
	const size_t extra = four ? 0 : FRAGMENT_HDR, total = UNIT + len;
	const size_t most = (s->config.mtu - (four ? IP4_HDR : IP6_HDR) - extra) / UNIT * UNIT;
	const uint16_t id = s->frag_id++;

	for (size_t off = 0, n; off < total; off += n) {
		const unsigned more = total - off > most;
		uint8_t h[OUT_HEAD_MAX], *ip = h + ETH_HDR;
		const size_t first = off ? 0 : UNIT; /* of the header */
		size_t l3;

		n = MIN(total - off, most);
		l3 = link_header(s, h, src, dst, four ? proto : NET_FRAGMENT, extra + n);
		if (four) {
			put16(ip + 4, id);
			put16(ip + 6, (uint32_t)(off / UNIT) | more << 13);
			put16(ip + 10, 0);
			put16(ip + 10, (uint16_t)~sum_fold(sum_bytes(ip, IP4_HDR, 0)));
		} else {
			h[l3] = proto;
			h[l3 + 1] = 0;
			put16(h + l3 + 2, (uint32_t)off | more);
			put32(h + l3 + 4, id);
			l3 += FRAGMENT_HDR;
		}
		memcpy(h + l3, header, first);
		/* The others are of no use without it. */
		if (!link_send(s, h, l3 + first, (const uint8_t *)data + off + first - UNIT,
			       n - first, NULL))
			return;
	}
}
