/* SPDX-License-Identifier: Apache-2.0 */
/* A guest that is written out frame by frame, in the world of stack_world.h. */
#ifndef TESTS_NET_GUEST_H
#define TESTS_NET_GUEST_H

#include "test.h"

#include "net/stack_world.h"

static struct world w;

static inline int begin(void **state)
{
	struct stack_config config;

	(void)state;
	memset(&w, 0, sizeof(w));
	world_config(&config);
	world_begin(&w, &config);
	return 0;
}

static inline int end(void **state)
{
	(void)state;
	world_end(&w);
	return 0;
}

static uint8_t out[WORLD_FRAME];

/* An IP packet of the guest's around the @n bytes at out + the header. */
static inline size_t wrap(const char *to, uint8_t proto, size_t n)
{
	const struct net_addr dst = world_addr(to), *src = stack_guest(w.s, &dst);
	size_t l4 = link_header(w.s, out, src, &dst, proto, n);

	memcpy(out, w.s->config.gateway_mac, 6);
	memcpy(out + 6, w.s->config.guest_mac, 6);
	return l4;
}

static inline void sum_up(size_t l4, size_t n, size_t field, const char *to, uint8_t proto)
{
	const struct net_addr dst = world_addr(to), *src = stack_guest(w.s, &dst);
	uint64_t sum = proto == NET_ICMP ? 0 : sum_pseudo(src, &dst, proto, n);

	put16(out + l4 + field, 0);
	put16(out + l4 + field, (uint16_t)~sum_fold(sum_bytes(out + l4, n, sum)));
}

static inline size_t head(const char *to)
{
	return ETH_HDR + (strchr(to, ':') ? IP6_HDR : IP4_HDR);
}

static inline void send_udp(const char *to, uint16_t from_port, uint16_t port, const void *p,
			    size_t n)
{
	size_t l4 = head(to);

	put16(out + l4, from_port);
	put16(out + l4 + 2, port);
	put16(out + l4 + 4, (uint32_t)(UDP_HDR + n));
	memcpy(out + l4 + UDP_HDR, p, n);
	wrap(to, NET_UDP, UDP_HDR + n);
	sum_up(l4, UDP_HDR + n, 6, to, NET_UDP);
	world_input(&w, out, l4 + UDP_HDR + n, NULL);
}

static inline void send_echo(const char *to, size_t n)
{
	const bool four = !strchr(to, ':');
	size_t l4 = head(to);

	memset(out + l4, 0, n);
	out[l4] = four ? 8 : 128;
	out[l4 + 4] = 0x12;
	wrap(to, four ? NET_ICMP : NET_ICMP6, n);
	sum_up(l4, n, 2, to, four ? NET_ICMP : NET_ICMP6);
	world_input(&w, out, l4 + n, NULL);
}

struct seg {
	const char *to;
	uint8_t flags;
	uint32_t seq, ack;
	uint16_t window; /* 0: 60000 */
	bool shut;
	const void *data;
	size_t len;
	const uint8_t *options;
	size_t noptions;
};

static inline void send_tcp(const struct seg *g)
{
	size_t l4 = head(g->to), hdr = TCP_HDR + g->noptions;
	uint8_t *tcp = out + l4;

	put16(tcp, 40000);
	put16(tcp + 2, 80);
	put32(tcp + 4, g->seq);
	put32(tcp + 8, g->ack);
	tcp[12] = (uint8_t)(hdr / 4 << 4);
	tcp[13] = g->flags;
	put16(tcp + 14, g->shut ? 0 : g->window ? g->window : 60000);
	put32(tcp + 16, 0);
	if (g->noptions)
		memcpy(tcp + TCP_HDR, g->options, g->noptions);
	if (g->len)
		memcpy(tcp + hdr, g->data, g->len);
	wrap(g->to, NET_TCP, hdr + g->len);
	sum_up(l4, hdr + g->len, 16, g->to, NET_TCP);
	world_input(&w, out, l4 + hdr + g->len, NULL);
}
#define SEG(...) send_tcp(&(struct seg){__VA_ARGS__})

/* The frame @i that the guest got, from its layer 4 on. */
static inline const uint8_t *got(unsigned i, size_t *len)
{
	size_t l4 = ETH_HDR + (w.frame[i][12] == 0x08 ? IP4_HDR : IP6_HDR);

	assert_true(i < w.nframes);
	*len = w.len[i] - l4;
	return w.frame[i] + l4;
}

static inline uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

struct reply {
	uint8_t flags;
	uint32_t seq, ack;
	uint32_t window;
	size_t len;
	const uint8_t *data;
};

static inline struct reply reply(unsigned i)
{
	size_t len, hdr;
	const uint8_t *t = got(i, &len);

	hdr = (size_t)(t[12] >> 4) * 4;
	return (struct reply){t[13],	 be32(t + 4), be32(t + 8), (uint32_t)(t[14] << 8 | t[15]),
			      len - hdr, t + hdr};
}

#define PEER "1.2.3.4"
#define ISS  ((uint32_t)0xfffffff0) /* the numbers wrap soon */

/* A connection that is open; ours is the sequence number the guest expects. */
static inline uint32_t open_tcp(const char *to)
{
	uint32_t theirs;

	SEG(.to = to, .flags = TCP_SYN, .seq = ISS);
	assert_int_equal(w.nframes, 0);
	stack_event(w.s, w.last->flow, STACK_WRITABLE, 0, w.now);
	assert_int_equal(w.nframes, 1);
	assert_int_equal(reply(0).flags, TCP_SYN | TCP_ACK);
	assert_int_equal(reply(0).ack, ISS + 1);
	theirs = reply(0).seq + 1;
	w.nframes = 0;
	SEG(.to = to, .flags = TCP_ACK, .seq = ISS + 1, .ack = theirs);
	w.nframes = 0;
	return theirs;
}

static inline void say(const char *text)
{
	buf_add_str(&w.last->answer, text);
	stack_event(w.s, w.last->flow, STACK_READABLE, 0, w.now);
	stack_run(w.s, w.now);
}

#endif
