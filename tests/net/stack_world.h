/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A world for the stack without sockets: what the guest gets is kept and checked as frames, what
 * the world gets is kept in a flow's `sent`, and `answer` is what it has to say.
 */
#ifndef TESTS_NET_WORLD_H
#define TESTS_NET_WORLD_H

#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/iov.h"
#include "net/stack_impl.h"

enum { WORLD_FRAMES = 64, WORLD_FRAME = 70000, WORLD_KEPT = 8 };

struct world_socket {
	struct buf sent, answer;
	bool ended, shut;
	int error;   /* to be told with the next receive() */
	bool over;   /* of the name service: no answer is left */
	bool floods; /* there is always another datagram */
	struct flow *flow;
};

struct world {
	struct stack *s;
	uint64_t now;
	uint8_t frame[WORLD_FRAMES][WORLD_FRAME];
	size_t len[WORLD_FRAMES];
	struct stack_meta meta[WORLD_FRAMES];
	unsigned nframes, max_frames;	       /* room for how many */
	uint8_t kept[WORLD_KEPT][WORLD_FRAME]; /* of the guest */
	size_t kept_len[WORLD_KEPT];
	unsigned nkept, keep; /* so many until they are settled; 0 is 1 */
	unsigned sends;	      /* of connections */
	int send_error;
	bool reserved;
	int open_error;
	bool near; /* what is opened is connected at once */
	unsigned peeks;
	size_t room; /* what sockets take at once */
	unsigned open, mtu;
	struct world_socket *last;
	struct net_addr local;
	struct net_addr to;
	uint16_t to_port;
};

static unsigned world_reserve(void *arg, size_t len, struct iovec *iov, unsigned max)
{
	struct world *w = arg;

	assert(!w->reserved && len && len <= WORLD_FRAME && max);
	if (w->nframes >= w->max_frames)
		return 0;
	w->reserved = true;
	/* In two pieces, at an odd place. */
	iov[0] = (struct iovec){w->frame[w->nframes], len};
	if (max == 1 || len <= 61)
		return 1;
	iov[0].iov_len = 61;
	iov[1] = (struct iovec){w->frame[w->nframes] + 61, len - 61};
	return 2;
}

static void world_commit(void *arg, size_t len, const struct stack_meta *meta)
{
	struct world *w = arg;

	assert(w->reserved);
	w->reserved = false;
	if (!len)
		return;
	w->len[w->nframes] = len;
	w->meta[w->nframes++] = *meta;
}

static int world_open(void *arg, struct flow *f, uint8_t proto, const struct net_addr *to,
		      uint16_t port)
{
	struct world *w = arg;
	struct world_socket *k;

	if (w->open_error)
		return -w->open_error;
	k = calloc(1, sizeof(*k));
	assert(k);
	k->flow = f;
	w->last = k;
	w->open++;
	w->to = *to;
	w->to_port = port;
	*flow_host(f) = k;
	return proto == NET_TCP && w->near;
}

static void world_close(void *arg, struct flow *f, bool reset)
{
	struct world *w = arg;
	struct world_socket *k = *flow_host(f);

	(void)reset;
	if (!k)
		return;
	if (w->last == k)
		w->last = NULL;
	buf_done(&k->sent);
	buf_done(&k->answer);
	free(k);
	*flow_host(f) = NULL;
	w->open--;
}

static ssize_t world_send(void *arg, struct flow *f, const struct iovec *iov, unsigned n)
{
	struct world *w = arg;
	struct world_socket *k = *flow_host(f);
	size_t len = iov_size(iov, n);
	uint8_t *p;

	if (!k)
		return -ENOTCONN;
	assert(!k->shut || flow_proto(f) != NET_TCP);
	if (flow_proto(f) == NET_TCP) {
		w->sends++;
		if (w->send_error)
			return -w->send_error;
		if (buf_size(&k->sent) >= w->room)
			return -EAGAIN;
		len = MIN(len, w->room - buf_size(&k->sent));
	} else {
		buf_reset(&k->sent);
	}
	if (!len)
		return 0;
	p = buf_reserve(&k->sent, len);
	assert(p);
	iov_read(iov, n, 0, p, len);
	buf_commit(&k->sent, len);
	return (ssize_t)len;
}

static ssize_t world_peek(void *arg, struct flow *f, size_t skip, const struct iovec *iov,
			  unsigned n)
{
	struct world_socket *k = *flow_host(f);
	size_t have = buf_size(&k->answer);

	((struct world *)arg)->peeks++;
	assert(skip <= have);
	if (skip == have)
		return k->ended ? 0 : -EAGAIN;
	return (ssize_t)iov_write(iov, n, 0, buf_ptr(&k->answer) + skip, have - skip);
}

static void world_consume(void *arg, struct flow *f, size_t n)
{
	struct world_socket *k = *flow_host(f);

	(void)arg;
	assert(n <= buf_size(&k->answer));
	buf_consume(&k->answer, n);
}

static ssize_t world_receive(void *arg, struct flow *f, void *p, size_t n)
{
	struct world_socket *k = *flow_host(f);
	size_t have = k ? MIN(buf_size(&k->answer), n) : 0;
	int error = k ? k->error : 0;

	(void)arg;
	if (error) {
		/* Of an echo, its header. */
		if (flow_proto(f) != NET_UDP)
			memcpy(p, "\10\0\0\0\0\0\0\7", 8);
		k->error = 0;
		return -error;
	}
	if (k && k->floods && n >= 1000) {
		memset(p, 'x', 1000);
		return 1000;
	}
	if (!have)
		return k && k->over ? -EPIPE : -EAGAIN;
	memcpy(p, buf_ptr(&k->answer), have);
	buf_consume(&k->answer, buf_size(&k->answer));
	return (ssize_t)have;
}

static void world_shut(void *arg, struct flow *f)
{
	struct world_socket *k = *flow_host(f);

	(void)arg;
	assert(!k->shut);
	k->shut = true;
}

static size_t world_room(void *arg, struct flow *f)
{
	struct world *w = arg;
	struct world_socket *k = *flow_host(f);
	size_t used = k ? buf_size(&k->sent) : 0;

	return used < w->room ? w->room - used : 0;
}

static unsigned world_mtu(void *arg, struct flow *f)
{
	(void)f;
	return ((struct world *)arg)->mtu;
}

static bool world_is_local(void *arg, const struct net_addr *a)
{
	return net_addr_equal(a, &((struct world *)arg)->local);
}

static const struct stack_ops world_ops = {
	.reserve = world_reserve,
	.commit = world_commit,
	.open = world_open,
	.close = world_close,
	.send = world_send,
	.peek = world_peek,
	.consume = world_consume,
	.receive = world_receive,
	.shut = world_shut,
	.room = world_room,
	.mtu = world_mtu,
	.is_local = world_is_local,
};

static struct net_addr world_addr(const char *text)
{
	struct net_addr a;
	bool ok = net_addr_parse(text, &a);

	assert(ok);
	return a;
}

static void world_config(struct stack_config *c)
{
	*c = (struct stack_config){
		.guest_mac = {2, 0x6d, 0x73, 0, 0, 2},
		.gateway_mac = {2, 0x6d, 0x73, 0, 0, 1},
		.guest4 = world_addr("172.16.0.2"),
		.gateway4 = world_addr("172.16.0.1"),
		.guest6 = world_addr("fd42:6d73:62::2"),
		.gateway6 = world_addr("fd42:6d73:62::1"),
		.host4 = world_addr("127.0.0.1"),
		.host6 = world_addr("::1"),
		.mtu = 1500,
		.max_flows = 32,
	};
	net_policy_init(&c->policy);
	net_policy_profile(&c->policy, "public", NULL);
}

static void world_begin(struct world *w, const struct stack_config *c)
{
	int r = stack_new(c, &world_ops, w, &w->s, NULL);

	assert(r == 0);
	w->max_frames = WORLD_FRAMES;
	w->room = 1 << 16;
	w->now = SECOND;
	w->local = world_addr("198.51.100.7");
}

/* Every frame that left: lengths, addresses and checksums as a real host would look at them. */
static void world_check(const struct world *w, unsigned i)
{
	const uint8_t *h = w->frame[i], *ip = h + ETH_HDR;
	const struct stack_meta *m = &w->meta[i];
	unsigned type = (unsigned)(h[12] << 8 | h[13]);
	struct iovec v = {(void *)(uintptr_t)h, w->len[i]};
	struct packet p = {.iov = &v, .n = 1, .len = w->len[i]};
	size_t total;

	assert(w->len[i] >= ETH_HDR && memcmp(h + 6, w->s->config.gateway_mac, 6) == 0);
	if (type == 0x0806)
		return;
	p.four = type == 0x0800;
	assert(p.four || type == 0x86dd);
	if (p.four) {
		total = (size_t)(ip[2] << 8 | ip[3]);
		assert(ip[0] == 0x45 && sum_fold(sum_bytes(ip, IP4_HDR, 0)) == 0xffff);
		p.proto = ip[9];
		p.src = net_addr_v4(ip + 12);
		p.dst = net_addr_v4(ip + 16);
		p.l4 = ETH_HDR + IP4_HDR;
	} else {
		total = IP6_HDR + (size_t)(ip[4] << 8 | ip[5]);
		p.proto = ip[6];
		p.src = net_addr_v6(ip + 8);
		p.dst = net_addr_v6(ip + 24);
		p.l4 = ETH_HDR + IP6_HDR;
	}
	assert(ETH_HDR + total == w->len[i]);
	/* A part of a datagram has no sum of its own. */
	if (p.four ? (ip[6] & 0x3f) || ip[7] : p.proto == NET_FRAGMENT) {
		assert(total <= w->s->config.mtu && !m->partial);
		return;
	}
	assert(m->gso || total <= w->s->config.mtu || p.proto != NET_TCP);
	assert(!m->gso || m->partial);
	if (m->partial) {
		const uint8_t *sum = h + m->csum_start + m->csum_offset;

		assert(m->csum_start == p.l4);
		assert((sum[0] << 8 | sum[1]) ==
		       sum_fold(sum_pseudo(&p.src, &p.dst, p.proto, w->len[i] - p.l4)));
	} else {
		assert(packet_intact(&p));
	}
}

static void world_settle(struct world *w)
{
	stack_settle(w->s);
	/* Now they are the guest's again. */
	for (unsigned i = 0; i < w->nkept; i++)
		memset(w->kept[i], 0xa5, w->kept_len[i]);
	w->nkept = 0;
	stack_run(w->s, w->now);
	for (unsigned i = 0; i < w->nframes; i++)
		world_check(w, i);
}

static void world_input(struct world *w, const uint8_t *frame, size_t len,
			const struct stack_meta *meta)
{
	static const struct stack_meta none;
	size_t half = len / 3;
	uint8_t *p = w->kept[w->nkept];
	struct iovec v[2] = {{p, half}, {p + half, len - half}};

	memcpy(p, frame, len);
	w->kept_len[w->nkept] = len;
	stack_input(w->s, v, 2, meta ? meta : &none, true, w->now);
	if (++w->nkept >= MIN(MAX(w->keep, 1u), (unsigned)WORLD_KEPT))
		world_settle(w);
}

static void world_end(struct world *w)
{
	stack_free(w->s);
	assert(!w->open);
}

#endif
