/* SPDX-License-Identifier: Apache-2.0 */
/* TCP, the sending half: segments to the guest, windows, timers. */
#include <errno.h>

#include "base/cleanup.h"
#include "base/iov.h"
#include "net/stack_impl.h"

enum {
	/* 8 MiB of window: more than the host's sockets buffer by themselves. */
	SHIFT = 7,
	/* The guest is next door, but may be scheduled away, or emulated. */
	RTO_MS = 400,
	RTO_MAX_MS = 60000,
	RETRIES = 12,
	SYN_RTO_MS = 1000,
	SYN_RETRIES = 6,
	/* Nothing happens for this long: is the guest's end still there (RFC 9293, 3.8.4)? */
	IDLE_S = 7200,
	IDLE_RETRY_S = 75,
	IDLE_RETRIES = 9,
	/* Segments of one flow before others have their turn. */
	TURN = 16,
	/* With one frame: what IPv4 can say, less the longest of our headers. */
	SEGMENT_MAX = 65535 - (OUT_HEAD_MAX - ETH_HDR),
	STAMPS_LEN = 12,
	/* An answer that is expected; room for more takes many of the guest's buffers in vain. */
	GUESS_MIN = 4096,
};

static uint32_t stamp(const struct stack *s)
{
	return (uint32_t)(s->now / MS);
}

static size_t add_options(const struct stack *s, const struct flow *f, uint8_t flags, uint8_t *p)
{
	const bool four = net_addr_is_v4(&f->key.remote);
	const struct tcp *t = &f->tcp;
	uint8_t *o = p;

	if (flags & TCP_RST)
		return 0;
	if (flags & TCP_SYN) {
		put16(o, 0x0204);
		put16(o + 2, s->config.mtu - TCP_HDR - (uint32_t)(four ? IP4_HDR : IP6_HDR));
		o += 4;
		if (t->shifts) {
			put32(o, 0x01030300 | SHIFT);
			o += 4;
		}
	}
	if (t->stamps) {
		put32(o, 0x0101080a);
		put32(o + 4, stamp(s));
		put32(o + 8, t->ts_recent);
		o += STAMPS_LEN;
	}
	return (size_t)(o - p);
}

/* The window that fits what the socket will take; its edge never goes back (3.8.6). */
static uint16_t window(struct stack *s, struct flow *f, uint8_t flags)
{
	struct tcp *t = &f->tcp;
	const unsigned shift = t->shifts && !(flags & TCP_SYN) ? SHIFT : 0;
	uint32_t room = t->guest_fin ? 0 : (uint32_t)MIN(s->ops->room(s->arg, f), (size_t)1 << 30);
	uint32_t w;

	if (SEQ_LT(t->rcv_nxt + room, t->rcv_adv))
		room = t->rcv_adv - t->rcv_nxt;
	w = MIN(room >> shift, 65535u);
	/* Between two of its steps: a promise was made. */
	if (SEQ_LT(t->rcv_nxt + (w << shift), t->rcv_adv) && w < 65535)
		w++;
	t->rcv_adv = t->rcv_nxt + (w << shift);
	return (uint16_t)w;
}

/* All headers of a segment with @len bytes of data; the checksum is of the pseudo header. */
static size_t make_head(struct stack *s, struct flow *f, uint8_t flags, uint32_t seq, size_t len,
			uint8_t head[OUT_HEAD_MAX], size_t *l4)
{
	const struct net_addr *src = &f->key.remote, *dst = stack_guest(s, src);
	uint8_t options[40], *tcp;
	size_t extra, l3;

	/* What is acknowledged has been sent. */
	if (s->held.f == f)
		tcp_settle(s);
	extra = add_options(s, f, flags, options);
	l3 = link_header(s, head, src, dst, NET_TCP, TCP_HDR + extra + len);
	tcp = head + l3;
	put16(tcp, f->key.remote_port);
	put16(tcp + 2, f->key.guest_port);
	put32(tcp + 4, seq);
	put32(tcp + 8, flags & TCP_ACK ? f->tcp.rcv_nxt : 0);
	tcp[12] = (uint8_t)((TCP_HDR + extra) / 4 << 4);
	tcp[13] = flags;
	put16(tcp + 14, flags & TCP_RST ? 0 : window(s, f, flags));
	put32(tcp + 16, 0);
	memcpy(tcp + TCP_HDR, options, extra);
	put16(tcp + 16, sum_fold(sum_pseudo(src, dst, NET_TCP, TCP_HDR + extra + len)));
	*l4 = l3;
	return l3 + TCP_HDR + extra;
}

/* Complete the checksum, or say that the guest need not care. */
static struct stack_meta finish(const struct stack *s, uint8_t *head, size_t l4, size_t head_len,
				const struct iovec *data, unsigned n, size_t len)
{
	uint64_t sum;

	if (s->csum)
		return (struct stack_meta){
			.partial = true,
			.csum_start = (uint16_t)l4,
			.csum_offset = 16,
			.hdr_len = (uint16_t)head_len,
		};
	/* The header is a multiple of four bytes; what is in its field is part of the sum. */
	sum = sum_bytes(head + l4, head_len - l4, 0);
	put16(head + l4 + 16, (uint16_t)~sum_fold(sum_pieces(data, n, 0, len, sum)));
	return (struct stack_meta){0};
}

bool tcp_say(struct stack *s, struct flow *f, uint8_t flags, uint32_t seq)
{
	uint8_t head[OUT_HEAD_MAX];
	struct stack_meta meta;
	size_t l4, n = make_head(s, f, flags, seq, 0, head, &l4);

	meta = finish(s, head, l4, n, NULL, 0, 0);
	if (!link_send(s, head, n, NULL, 0, &meta))
		return false;
	if (flags & TCP_ACK) {
		f->tcp.owes_ack = false;
		f->tcp.last_ack = f->tcp.rcv_nxt;
	}
	return true;
}

void tcp_refuse(struct stack *s, const struct packet *p, uint32_t seq, uint32_t ack, bool with_ack)
{
	const uint8_t *tcp = p->head + p->l4;
	uint8_t head[OUT_HEAD_MAX] = {0}, *out;
	size_t l3 = link_header(s, head, &p->dst, &p->src, NET_TCP, TCP_HDR);
	struct stack_meta meta;

	out = head + l3;
	memcpy(out, tcp + 2, 2);
	memcpy(out + 2, tcp, 2);
	put32(out + 4, seq);
	put32(out + 8, ack);
	out[12] = TCP_HDR / 4 << 4;
	out[13] = TCP_RST | (with_ack ? TCP_ACK : 0);
	put16(out + 16, sum_fold(sum_pseudo(&p->dst, &p->src, NET_TCP, TCP_HDR)));
	meta = finish(s, head, l3, l3 + TCP_HDR, NULL, 0, 0);
	link_send(s, head, l3 + TCP_HDR, NULL, 0, &meta);
}

/* ---- data ---- */

/* The most data in one segment, and in one frame if the guest takes several at once. */
static size_t segment_size(const struct flow *f)
{
	return f->tcp.mss - (f->tcp.stamps ? STAMPS_LEN : 0u);
}

static size_t frame_size(const struct stack *s, const struct flow *f)
{
	const size_t one = segment_size(f);

	if (!(net_addr_is_v4(&f->key.remote) ? s->tso4 : s->tso6))
		return one;
	return one < SEGMENT_MAX ? SEGMENT_MAX / one * one : one;
}

static size_t head_size(const struct flow *f)
{
	return ETH_HDR + (net_addr_is_v4(&f->key.remote) ? IP4_HDR : IP6_HDR) + TCP_HDR +
	       (f->tcp.stamps ? STAMPS_LEN : 0u);
}

/*
 * One frame of at most @want bytes: how many, 0 at the end of the stream, -ENOBUFS when the guest
 * has no room, or what peek() says.
 */
static ssize_t send_frame(struct stack *s, struct flow *f, size_t want)
{
	const size_t first = head_size(f);
	struct tcp *t = &f->tcp;
	struct iovec iov[PIECES_MAX], data[PIECES_MAX];
	unsigned n = s->ops->reserve(s->arg, first + want, iov, PIECES_MAX), ndata;
	uint8_t head[OUT_HEAD_MAX], flags = TCP_ACK;
	struct stack_meta meta;
	size_t l4;
	ssize_t got;

	if (!n)
		return -ENOBUFS;
	ndata = iov_slice(iov, n, first, want, data, PIECES_MAX);
	got = s->ops->peek(s->arg, f, t->snd_nxt - t->snd_una, data, ndata);
	if (got <= 0) {
		s->ops->commit(s->arg, 0, NULL);
		return got;
	}
	if ((size_t)got < want)
		flags |= TCP_PSH;
	make_head(s, f, flags, t->snd_nxt, (size_t)got, head, &l4);
	meta = finish(s, head, l4, first, data, ndata, (size_t)got);
	if ((size_t)got > segment_size(f)) {
		meta.gso = net_addr_is_v4(&f->key.remote) ? STACK_GSO_TCP4 : STACK_GSO_TCP6;
		meta.gso_size = (uint16_t)segment_size(f);
	}
	iov_write(iov, n, 0, head, first);
	s->ops->commit(s->arg, first + (size_t)got, &meta);
	s->stats.frames_out++;
	s->stats.bytes_out += first + (size_t)got;
	t->owes_ack = false;
	t->last_ack = t->rcv_nxt;
	return got;
}

static void advance(struct tcp *t, uint32_t n)
{
	t->snd_nxt += n;
	if (SEQ_LT(t->snd_max, t->snd_nxt))
		t->snd_max = t->snd_nxt;
}

/* How much may go now. */
static size_t allowance(const struct stack *s, const struct flow *f, bool probe)
{
	const struct tcp *t = &f->tcp;
	uint32_t in_flight = t->snd_nxt - t->snd_una;
	uint32_t window_ = MAX(t->snd_wnd, probe ? 1u : 0u);
	size_t room = window_ > in_flight ? window_ - in_flight : 0;

	/* Crumbs can wait for the rest of the loaf (3.8.6.2.1). */
	if (room < segment_size(f) && in_flight)
		return 0;
	return MIN(room, frame_size(s, f));
}

/* Part of a segment, or whole ones. */
static size_t guessed(const struct flow *f)
{
	const size_t one = segment_size(f), n = MAX(f->tcp.guess, (uint32_t)GUESS_MIN);

	return n < one ? n : n / one * one;
}

bool tcp_push(struct stack *s, struct flow *f, bool probe)
{
	struct tcp *t = &f->tcp;

	for (int budget = TURN; budget; budget--) {
		size_t want;
		ssize_t r;

		if (t->at_end && t->snd_nxt == t->fin_seq + 1)
			return true;
		if (t->at_end && t->snd_nxt == t->fin_seq) {
			if (!tcp_say(s, f, TCP_FIN | TCP_ACK, t->fin_seq))
				return false;
			advance(t, 1);
			return true;
		}
		/* Below snd_max the socket has it, whether it said so lately or not. */
		if (!t->readable && t->snd_nxt == t->snd_max)
			return true;
		want = MIN(allowance(s, f, probe), guessed(f));
		if (!want)
			return true;
		r = send_frame(s, f, want);
		if (r == -ENOBUFS)
			return false;
		if (r == -EAGAIN) {
			t->readable = false;
			return true;
		}
		if (r < 0) {
			tcp_reset(s, f);
			return true;
		}
		if (r == 0) {
			t->at_end = true;
			t->fin_seq = t->snd_nxt;
			continue;
		}
		advance(t, (uint32_t)r);
		t->guess = (size_t)r < want ? 2 * (uint32_t)r : SEGMENT_MAX;
		if ((size_t)r < want && !t->stops) {
			t->readable = false;
			return true;
		}
	}
	flow_owes(s, f);
	return true;
}

/* Make the guest send again what the socket had no room for: three of the same (RFC 5681). */
static bool ask_again(struct stack *s, struct flow *f)
{
	for (int i = 0; i < 4; i++) {
		if (!tcp_say(s, f, TCP_ACK, f->tcp.snd_nxt))
			return false;
	}
	return true;
}

bool tcp_run(struct stack *s, struct flow *f)
{
	struct tcp *t = &f->tcp;
	uint64_t flows = s->stats.flows;
	bool enough;

	if (t->state != TCP_OPEN)
		return true;
	if (t->broken) {
		tcp_reset(s, f);
		return true;
	}
	enough = tcp_push(s, f, false);
	if (s->stats.flows != flows)
		return true;
	if (enough && t->stalled && s->ops->room(s->arg, f)) {
		t->stalled = false;
		enough = ask_again(s, f);
	}
	if (enough && t->owes_ack)
		enough = tcp_say(s, f, TCP_ACK, t->snd_nxt);
	if (!enough)
		flow_owes(s, f);
	tcp_wait(s, f);
	return enough;
}

/* ---- timers ---- */

static bool waiting(const struct tcp *t)
{
	return t->snd_max != t->snd_una || t->readable;
}

void tcp_wait(struct stack *s, struct flow *f)
{
	struct tcp *t = &f->tcp;
	const bool more = waiting(t);
	uint64_t delay;

	/* What is awaited since then goes on being awaited. */
	if (more && t->timed && t->timed_una == t->snd_una)
		return;
	if (t->state == TCP_CONNECTING)
		delay = 0;
	else if (t->state != TCP_OPEN)
		delay = (uint64_t)SYN_RTO_MS * MS << t->retries;
	else if (more)
		delay = MIN((uint64_t)RTO_MS << t->retries, (uint64_t)RTO_MAX_MS) * MS;
	else
		delay = (t->retries ? IDLE_RETRY_S : IDLE_S) * SECOND;
	t->timed = more;
	t->timed_una = t->snd_una;
	flow_timer(s, f, delay ? s->now + delay : 0);
}

void tcp_timer(struct stack *s, struct flow *f)
{
	struct tcp *t = &f->tcp;
	uint64_t flows = s->stats.flows;
	const bool more = waiting(t);

	t->timed = false;
	if (t->state != TCP_OPEN) {
		if (t->retries++ == SYN_RETRIES) {
			tcp_reset(s, f);
			return;
		}
		tcp_say(s, f, t->state == TCP_CALLING ? TCP_SYN : TCP_SYN | TCP_ACK, t->iss);
		tcp_wait(s, f);
		return;
	}
	if (t->retries++ == (more ? RETRIES : IDLE_RETRIES)) {
		tcp_reset(s, f);
		return;
	}
	if (more) {
		/* What was sent got lost, or the window is shut: again, a byte at least. */
		if (t->snd_max != t->snd_una)
			s->stats.retransmits++;
		t->snd_nxt = t->snd_una;
		t->dupacks = 0;
		tcp_push(s, f, true);
		if (s->stats.flows != flows)
			return;
	} else {
		/* Something that is old to the guest, which it has to say (3.8.4). */
		tcp_say(s, f, TCP_ACK, t->snd_una - 1);
	}
	tcp_wait(s, f);
}
