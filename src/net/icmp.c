/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ICMP: echoes, and bad news.
 *
 * An echo to the gateway is answered here. One to the world is a flow of its identifier, whose
 * socket of the host is a "ping socket": the kernel gives it an identifier of its own and hands
 * back answers to that only. Where the host does not allow those, the guest hears that it is
 * prohibited.
 */
#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>

#include "base/cleanup.h"
#include "base/iov.h"
#include "net/stack_impl.h"

enum {
	ICMP_HDR = 8,
	/* Of what the guest sent: the headers, for TCP with the sequence number (RFC 792). */
	QUOTE_MAX = 64,
	ECHO_IDLE_S = 30,
};

bool icmp_send(struct stack *s, const struct net_addr *src, const struct net_addr *dst,
	       uint8_t *message, size_t len)
{
	const uint8_t proto = net_addr_is_v4(src) ? NET_ICMP : NET_ICMP6;
	uint64_t sum = proto == NET_ICMP ? 0 : sum_pseudo(src, dst, proto, len);
	uint8_t head[OUT_HEAD_MAX];

	put16(message + 2, 0);
	put16(message + 2, (uint16_t)~sum_fold(sum_bytes(message, len, sum)));
	if (len + (proto == NET_ICMP ? IP4_HDR : IP6_HDR) > s->config.mtu) {
		frag_send(s, src, dst, proto, message, message + ICMP_HDR, len - ICMP_HDR);
		return true;
	}
	return link_send(s, head, link_header(s, head, src, dst, proto, len), message, len, NULL);
}

/* ---- bad news ---- */

/* @rest is what the message has for the error besides; @l4 what the guest sent to @remote. */
static void send_error(struct stack *s, const struct net_addr *from, const struct net_addr *remote,
		       uint8_t proto, const uint8_t *l4, size_t n, uint8_t type, uint8_t code,
		       uint32_t rest)
{
	const struct net_addr *guest = stack_guest(s, remote);
	uint8_t m[ICMP_HDR + ETH_HDR + IP6_HDR + QUOTE_MAX] = {type, code}, head[ETH_HDR + IP6_HDR];
	size_t ip;

	put32(m + 4, rest);
	n = MIN(n, (size_t)QUOTE_MAX);
	ip = link_header(s, head, guest, remote, proto, n) - ETH_HDR;
	memcpy(m + ICMP_HDR, head + ETH_HDR, ip);
	memcpy(m + ICMP_HDR + ip, l4, n);
	icmp_send(s, from, guest, m, ICMP_HDR + ip + n);
}

void icmp_unreachable(struct stack *s, int error, const struct net_addr *remote, uint8_t proto,
		      const uint8_t *l4, size_t n)
{
	static const struct {
		int error;
		uint8_t code4, code6;
	} codes[] = {
		{ECONNREFUSED, ICMP_PORT_UNREACH, ICMP6_DST_UNREACH_NOPORT},
		{ENETUNREACH, ICMP_NET_UNREACH, ICMP6_DST_UNREACH_NOROUTE},
		{EACCES, ICMP_PKT_FILTERED, ICMP6_DST_UNREACH_ADMIN},
		{EPERM, ICMP_PKT_FILTERED, ICMP6_DST_UNREACH_ADMIN},
		{EPROTONOSUPPORT, ICMP_PROT_UNREACH, ICMP6_DST_UNREACH_ADMIN},
		/* the last: all others */
		{EHOSTUNREACH, ICMP_HOST_UNREACH, ICMP6_DST_UNREACH_ADDR},
	};
	const bool four = net_addr_is_v4(remote);
	size_t i = 0;

	while (i < ARRAY_SIZE(codes) - 1 && codes[i].error != error)
		i++;
	/* It is the destination itself that knows of ports. */
	send_error(s, error == ECONNREFUSED ? remote : stack_gateway(s, remote), remote, proto, l4,
		   n, four ? ICMP_DEST_UNREACH : ICMP6_DST_UNREACH,
		   four ? codes[i].code4 : codes[i].code6, 0);
}

void icmp6_refuse(struct stack *s, const struct packet *p)
{
	uint8_t m[ICMP_HDR + IP6_HDR + QUOTE_MAX] = {ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_ADMIN};
	const size_t n = MIN(p->head_len - ETH_HDR, sizeof(m) - ICMP_HDR);
	const bool bad_news = p->proto == NET_ICMP6 && p->head[p->l4] < ICMP6_ECHO_REQUEST;

	s->stats.denied++;
	stack_tell(s, STACK_DENIED, NET_EGRESS, p->proto, &p->dst, 0, 0, "mapped");
	/* Of those there are none in answer to others. Its own address may come in that guise, too. */
	if (bad_news || !(net_addr_equal(&p->src, &s->config.guest6) ||
			  net_addr_equal(&p->src, &s->config.guest4)))
		return;
	memcpy(m + ICMP_HDR, p->head + ETH_HDR, n);
	icmp_send(s, &s->config.gateway6, &s->config.guest6, m, ICMP_HDR + n);
}

void icmp_too_big(struct stack *s, const struct net_addr *remote, uint8_t proto, const uint8_t *l4,
		  size_t n, unsigned mtu)
{
	const bool four = net_addr_is_v4(remote);

	send_error(s, stack_gateway(s, remote), remote, proto, l4, n,
		   four ? ICMP_DEST_UNREACH : ICMP6_PACKET_TOO_BIG, four ? ICMP_FRAG_NEEDED : 0,
		   mtu);
}

void icmp_timeout(struct stack *s, const struct net_addr *remote, uint8_t proto, const uint8_t *l4,
		  size_t n)
{
	const bool four = net_addr_is_v4(remote);

	send_error(s, stack_gateway(s, remote), remote, proto, l4, n,
		   four ? ICMP_TIME_EXCEEDED : ICMP6_TIME_EXCEEDED,
		   four ? ICMP_EXC_FRAGTIME : ICMP6_TIME_EXCEED_REASSEMBLY, 0);
}

/* ---- echoes ---- */

static void echo_reply(struct stack *s, const struct net_addr *src, uint8_t *m, size_t len)
{
	m[0] = net_addr_is_v4(src) ? ICMP_ECHOREPLY : ICMP6_ECHO_REPLY;
	m[1] = 0;
	icmp_send(s, src, stack_guest(s, src), m, len);
}

/* Does it go somewhere whose path is too narrow for it? The guest was told, then. */
static bool too_big(struct stack *s, struct flow *f, const struct packet *p)
{
	const size_t len = p->len - ETH_HDR;
	unsigned mtu;

	/* What every path can carry need not be asked about. */
	if (!p->whole || len <= STACK_MTU_MIN)
		return false;
	mtu = s->ops->mtu(s->arg, f);
	if (!mtu || len <= mtu)
		return false;
	icmp_too_big(s, &p->dst, p->proto, p->head + p->l4, p->head_len - p->l4, mtu);
	return true;
}

static void echo_request(struct stack *s, const struct packet *p)
{
	const size_t len = p->len - p->l4;
	struct flow_key key = {.proto = p->proto, .remote = p->dst};
	struct stack_way way;
	struct iovec v;
	struct flow *f;
	int r;

	if (len > sizeof(s->message))
		return;
	/* Nobody else is on the link to hear it. */
	if (net_addr_kind(&p->dst) == NET_MULTICAST) {
		s->stats.unsupported++;
		return;
	}
	iov_read(p->iov, p->n, p->l4, s->message, len);
	if (net_addr_equal(&p->dst, stack_gateway(s, &p->dst))) {
		echo_reply(s, &p->dst, s->message, len);
		return;
	}
	key.guest_port = (uint16_t)(s->message[4] << 8 | s->message[5]);
	f = flow_find(s, &key);
	if (!f) {
		r = stack_route(s, p->proto, &p->dst, 0, &way);
		f = r == 0 ? flow_new(s, &key, NET_EGRESS) : NULL;
		if (r == 0 && !f)
			r = -EACCES;
		if (f) {
			f->to = way.to;
			r = s->ops->open(s->arg, f, p->proto, &way.to, 0);
		}
		if (r < 0) {
			if (f) {
				flow_failed(s, f, -r);
				flow_free(s, f);
			}
			icmp_unreachable(s, -r, &p->dst, p->proto, s->message, len);
			return;
		}
	}
	flow_opened(s, f);
	flow_used(s, f, ECHO_IDLE_S);
	/* Paths are measured with echoes, so theirs are told. */
	if (too_big(s, f, p))
		return;
	f->sent += len - ICMP_HDR;
	v = (struct iovec){s->message, len};
	(void)s->ops->send(s->arg, f, &v, 1);
}

bool echo_run(struct stack *s, struct flow *f)
{
	struct iovec probe;
	ssize_t n;

	for (int budget = 16; budget; budget--) {
		if (!s->ops->reserve(s->arg, ETH_HDR, &probe, 1)) {
			flow_owes(s, f);
			return false;
		}
		s->ops->commit(s->arg, 0, NULL);
		memset(s->message, 0, ICMP_HDR);
		n = s->ops->receive(s->arg, f, s->message, sizeof(s->message));
		if (n == -EAGAIN)
			return true;
		put16(s->message + 4, f->key.guest_port);
		if (n < 0) {
			/* The host may have forgotten the rest. */
			s->message[0] = f->key.proto == NET_ICMP ? ICMP_ECHO : ICMP6_ECHO_REQUEST;
			flow_bad_news(s, f, (int)-n, s->message, ICMP_HDR);
			continue;
		}
		if (n < ICMP_HDR)
			continue;
		echo_reply(s, &f->key.remote, s->message, (size_t)n);
	}
	flow_owes(s, f);
	return true;
}

void echo_event(struct stack *s, struct flow *f, unsigned events, int error)
{
	(void)error;
	if (events & (STACK_READABLE | STACK_FAILED))
		flow_owes(s, f);
}

void icmp_input(struct stack *s, const struct packet *p)
{
	if (p->len - p->l4 < ICMP_HDR || p->head_len < p->l4 + ICMP_HDR || !packet_intact(p)) {
		s->stats.malformed++;
		return;
	}
	if (p->head[p->l4] == ICMP_ECHO)
		echo_request(s, p);
	else
		s->stats.unsupported++;
}

void icmp6_input(struct stack *s, const struct packet *p)
{
	uint8_t type;

	if (p->len - p->l4 < ICMP_HDR || p->head_len < p->l4 + ICMP_HDR || !packet_intact(p)) {
		s->stats.malformed++;
		return;
	}
	type = p->head[p->l4];
	if (type == ICMP6_ECHO_REQUEST && net_addr_equal(&p->src, &s->config.guest6))
		echo_request(s, p);
	else if (!ndp_input(s, p, type))
		s->stats.unsupported++;
}
