/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UDP: a flow is a pair of addresses and ports with a socket of the host that is connected to the
 * other end, so that its errors come back; a flow through a published port uses that port's socket.
 *
 * What is longer than the path is cut on the host, "do not fragment" or not: on a link that takes
 * 64 KiB Linux sets that for all programs, and one that did not ask would take the news that it is
 * too long for an error of its own. What a router of the path did not let through is told.
 *
 * A question to port 53 is the name service's, which is behind the same operations: its flow ends
 * with the last answer, as most programs ask each question from another port.
 */
#include <errno.h>

#include "base/cleanup.h"
#include "base/iov.h"
#include "net/stack_impl.h"

enum {
	IDLE_S = 60,
	TURN = 64,
	/* What IPv4 can say. */
	DATA_MAX = MESSAGE_MAX - IP4_HDR - UDP_HDR,
};

static void give_up(struct stack *s, struct flow *f)
{
	s->ops->close(s->arg, f, false);
	flow_free(s, f);
}

static void touch(struct stack *s, struct flow *f)
{
	flow_used(s, f, IDLE_S);
}

void udp_send(struct stack *s, const struct net_addr *from, uint16_t from_port,
	      const struct net_addr *to, uint16_t to_port, const void *p, size_t n)
{
	struct stack_meta meta = {.csum_offset = 6};
	uint8_t h[OUT_HEAD_MAX], *udp;
	size_t l3 = link_header(s, h, from, to, NET_UDP, UDP_HDR + n);
	const bool parts = l3 - ETH_HDR + UDP_HDR + n > s->config.mtu;
	uint64_t sum = sum_pseudo(from, to, NET_UDP, UDP_HDR + n);
	uint16_t folded;

	udp = h + l3;
	put16(udp, from_port);
	put16(udp + 2, to_port);
	put16(udp + 4, (uint32_t)(UDP_HDR + n));
	put16(udp + 6, 0);
	if (s->csum && !parts) {
		meta.partial = true;
		meta.csum_start = (uint16_t)l3;
		put16(udp + 6, sum_fold(sum));
	} else {
		sum = sum_bytes(udp, UDP_HDR, sum);
		folded = (uint16_t)~sum_fold(sum_bytes(p, n, sum));
		/* Zero would say that there is none. */
		put16(udp + 6, folded ? folded : 0xffff);
	}
	if (parts)
		frag_send(s, from, to, NET_UDP, udp, p, n);
	else
		link_send(s, h, l3 + UDP_HDR, p, n, &meta);
}

static void send_datagram(struct stack *s, const struct net_addr *from, uint16_t from_port,
			  uint16_t guest_port, const void *p, size_t n)
{
	udp_send(s, from, from_port, stack_guest(s, from), guest_port, p, n);
}

static int begin(struct stack *s, const struct flow_key *key, struct flow **ret)
{
	struct stack_way way;
	struct flow *f;
	int r;

	r = stack_route(s, NET_UDP, &key->remote, key->remote_port, &way);
	if (r < 0)
		return r;
	f = flow_new(s, key, NET_EGRESS);
	/* Told the same way: it is a limit that somebody set. */
	if (!f)
		return -EACCES;
	flow_send_on(f, &way);
	r = s->ops->open(s->arg, f, NET_UDP, &way.to, f->to_port);
	if (r < 0) {
		flow_failed(s, f, -r);
		flow_free(s, f);
		return r;
	}
	flow_opened(s, f);
	*ret = f;
	return 0;
}

/* What the gateway itself answers. */
static bool serve(struct stack *s, const struct packet *p, const uint8_t *udp, size_t len)
{
	const unsigned port = (unsigned)(udp[2] << 8 | udp[3]);

	if (port != (p->four ? DHCP_SERVER : DHCP6_SERVER))
		return false;
	/* Whatever is longer is none of theirs. */
	len = iov_read(p->iov, p->n, p->l4 + UDP_HDR, s->message, MIN(len, (size_t)2048));
	return p->four ? dhcp_input(s, p, s->message, len) : dhcp6_input(s, p, s->message, len);
}

void udp_input(struct stack *s, const struct packet *p)
{
	const uint8_t *udp = p->head + p->l4;
	struct flow_key key = {.proto = NET_UDP, .remote = p->dst};
	struct iovec v[PIECES_MAX];
	unsigned n;
	struct flow *f;
	size_t len;
	int r = 0;

	if (p->len - p->l4 < UDP_HDR || p->head_len < p->l4 + UDP_HDR)
		goto malformed;
	len = (size_t)(udp[4] << 8 | udp[5]);
	if (len < UDP_HDR || len > p->len - p->l4)
		goto malformed;
	/* IPv4 knows datagrams without a checksum. */
	if ((!p->four || udp[6] || udp[7]) && !packet_intact(p))
		goto malformed;
	key.guest_port = (uint16_t)(udp[0] << 8 | udp[1]);
	key.remote_port = (uint16_t)(udp[2] << 8 | udp[3]);
	if (!key.guest_port || !key.remote_port)
		goto malformed;
	if (serve(s, p, udp, len - UDP_HDR))
		return;
	if (!net_addr_equal(&p->src, stack_guest(s, &p->src)))
		goto malformed;
	/* Nobody else is on the link to hear it; many programs try all the same. */
	if (net_addr_kind(&p->dst) == NET_MULTICAST) {
		s->stats.unsupported++;
		return;
	}
	f = flow_find(s, &key);
	if (!f)
		r = begin(s, &key, &f);
	if (r < 0) {
		icmp_unreachable(s, -r, &p->dst, NET_UDP, udp, UDP_HDR);
		return;
	}
	n = iov_slice(p->iov, p->n, p->l4 + UDP_HDR, len - UDP_HDR, v, PIECES_MAX);
	if (iov_size(v, n) != len - UDP_HDR)
		goto malformed;
	(void)s->ops->send(s->arg, f, v, n);
	f->sent += len - UDP_HDR;
	touch(s, f);
	return;
malformed:
	s->stats.malformed++;
}

void flow_bad_news(struct stack *s, struct flow *f, int error, const uint8_t *l4, size_t n)
{
	const struct net_addr *remote = &f->key.remote;
	unsigned mtu;

	if (error != EMSGSIZE) {
		icmp_unreachable(s, error, remote, (uint8_t)f->key.proto, l4, n);
		return;
	}
	mtu = s->ops->mtu(s->arg, f);
	if (mtu)
		icmp_too_big(s, remote, (uint8_t)f->key.proto, l4, n, mtu);
}

/* @f's own port and the other end's are all that has to be quoted. */
static void bad_news(struct stack *s, struct flow *f, int error)
{
	uint8_t udp[UDP_HDR];

	put16(udp, f->key.guest_port);
	put16(udp + 2, f->key.remote_port);
	put32(udp + 4, UDP_HDR << 16);
	flow_bad_news(s, f, error, udp, sizeof(udp));
}

bool udp_run(struct stack *s, struct flow *f)
{
	struct iovec probe;

	for (int budget = TURN; budget; budget--) {
		ssize_t n;

		/* What has no place in the guest yet stays in the socket. */
		if (!s->ops->reserve(s->arg, ETH_HDR, &probe, 1)) {
			flow_owes(s, f);
			return false;
		}
		s->ops->commit(s->arg, 0, NULL);
		n = s->ops->receive(s->arg, f, s->message, DATA_MAX);
		if (n == -EAGAIN)
			return true;
		if (n == -EPIPE) {
			give_up(s, f);
			return true;
		}
		if (n < 0) {
			bad_news(s, f, (int)-n);
			continue;
		}
		send_datagram(s, &f->key.remote, f->key.remote_port, f->key.guest_port, s->message,
			      (size_t)n);
		f->got += (uint64_t)n;
		touch(s, f);
	}
	flow_owes(s, f);
	return true;
}

void udp_event(struct stack *s, struct flow *f, unsigned events, int error)
{
	(void)error;
	if (events & (STACK_READABLE | STACK_FAILED))
		flow_owes(s, f);
}

void udp_accept(struct stack *s, struct flow *f)
{
	flow_opened(s, f);
	touch(s, f);
}

void stack_datagram(struct stack *s, struct flow *f, const void *p, size_t n, uint64_t now)
{
	s->now = now;
	if (n > DATA_MAX)
		return;
	send_datagram(s, &f->key.remote, f->key.remote_port, f->key.guest_port, p, n);
	f->got += n;
	touch(s, f);
}

/* Of UDP and echoes: nothing was heard for a while. */
void udp_timer(struct stack *s, struct flow *f)
{
	give_up(s, f);
}
