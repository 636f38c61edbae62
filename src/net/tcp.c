/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP as the guest's peer, the receiving half: segments in, their bytes to the host's socket, what
 * they acknowledge off it. tcp_out.c has the other half. RFC 9293 is meant where a section is named
 * without a document.
 *
 *	from the guest:  SYN ─► CONNECTING ─(host connected)─► GREETED ─(its ACK)─► OPEN
 *	to the guest:    accept ─► CALLING ─(its SYN, ACK)─► OPEN
 *
 * OPEN covers all that follows, as the two directions end independently: guest_fin is the guest's
 * FIN (we shut the socket), fin_acked its acknowledgement of ours (the socket ended). With both the
 * flow is forgotten at once: a segment that comes late finds no flow and is reset, which is the
 * end it wanted.
 *
 * Segments out of order are not kept: each is answered with the acknowledgement that makes the
 * guest send again. Between a guest and its host nothing gets lost.
 */
#include <errno.h>

#include "base/cleanup.h"
#include "base/iov.h"
#include "net/stack_impl.h"

enum {
	OPT_END,
	OPT_NOP,
	OPT_MSS,
	OPT_SHIFT,
	OPT_STAMPS = 8,
	/* A guest that asks for less gets frames of this; RFC 879 would have 536. */
	MSS_MIN = 88,
	MSS_DEFAULT = 536,
	SHIFT_MAX = 14,
	/* Of a shut window that is said to be shut: probes come half a minute apart at most. */
	PATIENT = 6,
};

struct segment {
	uint32_t seq, ack, stamp;
	size_t at, len; /* of the data in the frame */
	uint16_t window, mss;
	uint8_t flags, shift;
	bool has_shift, has_stamp;
};

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void parse_options(struct segment *g, const uint8_t *p, size_t n)
{
	while (n && *p != OPT_END) {
		size_t len = *p == OPT_NOP ? 1 : n > 1 ? p[1] : 0;

		if (!len || len > n || (*p != OPT_NOP && len < 2))
			return;
		if (*p == OPT_MSS && len == 4)
			g->mss = (uint16_t)(p[2] << 8 | p[3]);
		if (*p == OPT_SHIFT && len == 3) {
			g->has_shift = true;
			g->shift = (uint8_t)MIN((int)p[2], (int)SHIFT_MAX);
		}
		if (*p == OPT_STAMPS && len == 10) {
			g->has_stamp = true;
			g->stamp = get32(p + 2);
		}
		p += len;
		n -= len;
	}
}

static bool parse(const struct packet *p, struct segment *g)
{
	const uint8_t *tcp = p->head + p->l4;
	size_t header;

	if (p->len - p->l4 < TCP_HDR || p->head_len < p->l4 + TCP_HDR)
		return false;
	header = (size_t)(tcp[12] >> 4) * 4;
	if (header < TCP_HDR || header > p->len - p->l4 || p->head_len < p->l4 + header)
		return false;
	*g = (struct segment){
		.seq = get32(tcp + 4),
		.ack = get32(tcp + 8),
		.flags = tcp[13] & 31,
		.window = (uint16_t)(tcp[14] << 8 | tcp[15]),
		.mss = MSS_DEFAULT,
		.at = p->l4 + header,
		.len = p->len - p->l4 - header,
	};
	parse_options(g, tcp + TCP_HDR, header - TCP_HDR);
	return packet_intact(p);
}

/* What RFC 9293, 3.10.7.1 answers to a segment of no connection. */
static void refuse(struct stack *s, const struct packet *p, const struct segment *g)
{
	uint32_t end = g->seq + (uint32_t)g->len + (g->flags & TCP_SYN ? 1 : 0) +
		       (g->flags & TCP_FIN ? 1 : 0);

	if (g->flags & TCP_RST)
		return;
	if (g->flags & TCP_ACK)
		tcp_refuse(s, p, g->ack, 0, false);
	else
		tcp_refuse(s, p, 0, end, true);
}

static void forget(struct stack *s, struct flow *f, bool reset)
{
	s->ops->close(s->arg, f, reset);
	flow_free(s, f);
}

void tcp_reset(struct stack *s, struct flow *f)
{
	tcp_say(s, f, TCP_RST | TCP_ACK, f->tcp.snd_nxt);
	forget(s, f, true);
}

/* ---- beginnings ---- */

/* Hard to guess, and later ones are larger (3.4.1): a clock of 4 us and a hash of who talks. */
static uint32_t first_seq(const struct stack *s, const struct flow *f)
{
	return (uint32_t)(stack_hash(s, &f->key, sizeof(f->key)) + (s->now >> 12));
}

static void take_options(struct stack *s, struct flow *f, const struct segment *g)
{
	struct tcp *t = &f->tcp;
	unsigned most =
		s->config.mtu - TCP_HDR - (net_addr_is_v4(&f->key.remote) ? IP4_HDR : IP6_HDR);

	t->mss = (uint16_t)MIN(MAX((unsigned)g->mss, (unsigned)MSS_MIN), most);
	t->shifts = g->has_shift;
	t->snd_shift = g->has_shift ? g->shift : 0;
	t->stamps = g->has_stamp;
	t->ts_recent = g->stamp;
	t->irs = g->seq;
	t->rcv_nxt = t->rcv_adv = t->last_ack = g->seq + 1;
	/* Of a SYN it is not scaled. */
	t->snd_wnd = g->window;
	t->snd_wl1 = g->seq;
}

static void begin_seq(struct stack *s, struct flow *f)
{
	f->tcp.iss = first_seq(s, f);
	f->tcp.snd_una = f->tcp.snd_wl2 = f->tcp.iss;
	f->tcp.snd_nxt = f->tcp.snd_max = f->tcp.iss + 1;
}

/* Refused is refused; what the network said is said; of silence there is nothing to tell. */
static void cannot_connect(struct stack *s, struct flow *f, int error)
{
	uint8_t l4[TCP_HDR] = {0};

	flow_failed(s, f, error);
	put16(l4, f->key.guest_port);
	put16(l4 + 2, f->key.remote_port);
	put32(l4 + 4, f->tcp.irs);
	l4[12] = TCP_HDR / 4 << 4;
	l4[13] = TCP_SYN;
	if (error == ECONNREFUSED || error == ECONNRESET || error == EPIPE) {
		tcp_reset(s, f);
		return;
	}
	if (error != ETIMEDOUT)
		icmp_unreachable(s, error, &f->key.remote, NET_TCP, l4, sizeof(l4));
	forget(s, f, true);
}

static void connected(struct stack *s, struct flow *f)
{
	f->tcp.state = TCP_GREETED;
	begin_seq(s, f);
	tcp_say(s, f, TCP_SYN | TCP_ACK, f->tcp.iss);
	tcp_wait(s, f);
}

static void on_syn(struct stack *s, const struct packet *p, const struct flow_key *key,
		   const struct segment *g)
{
	struct stack_way way;
	struct flow *f;
	int r = stack_route(s, NET_TCP, &p->dst, key->remote_port, &way);

	if (r == -EACCES) {
		refuse(s, p, g);
		return;
	}
	f = r == 0 ? flow_new(s, key, NET_EGRESS) : NULL;
	if (!f) {
		refuse(s, p, g);
		return;
	}
	flow_send_on(f, &way);
	f->tcp.state = TCP_CONNECTING;
	take_options(s, f, g);
	r = s->ops->open(s->arg, f, NET_TCP, &way.to, f->to_port);
	if (r < 0)
		cannot_connect(s, f, -r);
	else if (r > 0)
		connected(s, f);
}

/* Somebody is there for the guest. */
void tcp_call(struct stack *s, struct flow *f)
{
	f->tcp.state = TCP_CALLING;
	f->tcp.shifts = f->tcp.stamps = true; /* offered */
	f->tcp.readable = true;
	begin_seq(s, f);
	tcp_say(s, f, TCP_SYN, f->tcp.iss);
	tcp_wait(s, f);
}

static void opened(struct stack *s, struct flow *f, const struct segment *g)
{
	flow_made(s, f);
	f->tcp.state = TCP_OPEN;
	flow_opened(s, f);
	f->tcp.snd_una = f->tcp.iss + 1;
	f->tcp.retries = 0;
	f->tcp.snd_wnd = (uint32_t)g->window << (g->flags & TCP_SYN ? 0 : f->tcp.snd_shift);
	f->tcp.snd_wl1 = g->seq;
	f->tcp.snd_wl2 = g->ack;
	flow_owes(s, f);
	tcp_wait(s, f);
}

static void on_answer(struct stack *s, struct flow *f, const struct segment *g)
{
	const bool fits = g->flags & TCP_ACK && g->ack == f->tcp.iss + 1;

	if (g->flags & TCP_RST) {
		/* Nobody listens there. */
		if (fits)
			forget(s, f, true);
		return;
	}
	if (!fits || !(g->flags & TCP_SYN))
		return;
	take_options(s, f, g);
	f->tcp.owes_ack = true;
	opened(s, f, g);
}

/* ---- a connection's segments ---- */

/* Has a reset any right to be (3.10.7.4, and RFC 5961)? Data next in order proves more. */
static void on_rst(struct stack *s, struct flow *f, const struct segment *g)
{
	struct tcp *t = &f->tcp;

	if (t->state == TCP_CONNECTING ? g->seq == t->irs + 1 || g->seq == t->irs
				       : g->seq == t->rcv_nxt) {
		forget(s, f, true);
		return;
	}
	if (t->state == TCP_OPEN && SEQ_LT(t->rcv_nxt, g->seq) && SEQ_LT(g->seq, t->rcv_adv))
		tcp_say(s, f, TCP_ACK, t->snd_nxt);
}

static bool newer_window(const struct tcp *t, const struct segment *g)
{
	return SEQ_LT(t->snd_wl1, g->seq) || (t->snd_wl1 == g->seq && SEQ_LE(t->snd_wl2, g->ack));
}

/* False when the segment is to be ignored from here on, or the flow is gone (*gone). */
static bool on_ack(struct stack *s, struct flow *f, const struct segment *g, bool *gone)
{
	struct tcp *t = &f->tcp;
	uint32_t window = (uint32_t)g->window << t->snd_shift, acked;
	bool same = window == t->snd_wnd;

	if (SEQ_LT(t->snd_max, g->ack)) {
		/* Of what was never sent. */
		tcp_say(s, f, TCP_ACK, t->snd_nxt);
		return false;
	}
	if (SEQ_LE(t->snd_una, g->ack) && newer_window(t, g)) {
		t->snd_wnd = window;
		t->snd_wl1 = g->seq;
		t->snd_wl2 = g->ack;
	}
	if (SEQ_LT(t->snd_una, g->ack)) {
		acked = g->ack - t->snd_una;
		t->snd_una = g->ack;
		if (SEQ_LT(t->snd_nxt, g->ack))
			t->snd_nxt = g->ack;
		t->dupacks = t->retries = 0;
		if (t->at_end && g->ack == t->fin_seq + 1) {
			acked--;
			t->fin_acked = true;
		}
		f->got += acked;
		if (acked)
			s->ops->consume(s->arg, f, acked);
	} else if (g->ack == t->snd_una && !g->len && !(g->flags & TCP_FIN) && same &&
		   t->snd_nxt != t->snd_una && t->dupacks < 3 && ++t->dupacks == 3) {
		/* Fast retransmission (RFC 5681): of all, as it is still in the socket. */
		t->snd_nxt = t->snd_una;
		s->stats.retransmits++;
	}
	/* What the guest took may let more go. */
	flow_owes(s, f);
	/* Whoever answers lives: he may keep his window shut for as long as he likes. */
	if (!t->snd_wnd)
		t->retries = MIN(t->retries, (uint8_t)PATIENT);
	else if (t->snd_una == t->snd_max)
		t->retries = 0;
	if (t->fin_acked && t->guest_fin) {
		forget(s, f, false);
		*gone = true;
		return false;
	}
	return true;
}

/*
 * Data that is next in order is held until its frame goes back to the guest, and goes into the
 * socket with what follows it: a call, and a wakeup of whoever reads, for many segments. Nothing
 * is said to the guest meanwhile but by make_head(), which settles first; what the socket then does
 * not take was never received.
 */
static void hold(struct stack *s, struct flow *f, const struct iovec *v, unsigned n, size_t len)
{
	if (s->held.f != f)
		tcp_settle(s);
	if (!s->held.f)
		s->held.n = s->held.len = 0;
	s->held.f = f;
	memcpy(s->held.v + s->held.n, v, n * sizeof(*v));
	s->held.n += n;
	s->held.len += len;
}

static ssize_t send_now(struct stack *s, struct flow *f, const struct iovec *v, unsigned n)
{
	ssize_t r = s->ops->send(s->arg, f, v, n);

	return r == -EAGAIN ? 0 : r;
}

void tcp_settle(struct stack *s)
{
	struct flow *f = s->held.f;
	size_t left;
	ssize_t took;

	if (!f)
		return;
	s->held.f = NULL;
	took = send_now(s, f, s->held.v, s->held.n);
	f->tcp.broken = took < 0;
	left = s->held.len - (size_t)MAX(took, 0);
	if (!left)
		return;
	f->tcp.rcv_nxt -= (uint32_t)left;
	f->sent -= left;
	f->tcp.stalled = true;
}

/* How much of the data in order the socket took, or will; negative when it broke. */
static ssize_t forward(struct stack *s, struct flow *f, const struct packet *p, size_t at,
		       size_t len, bool last)
{
	struct iovec v[PIECES_MAX];
	unsigned n = iov_slice(p->iov, p->n, at, len, v, PIECES_MAX);

	if (!s->kept || p->joined || last)
		return send_now(s, f, v, n);
	hold(s, f, v, n, len);
	return (ssize_t)len;
}

static void on_data(struct stack *s, struct flow *f, const struct packet *p, struct segment *g)
{
	struct tcp *t = &f->tcp;
	const bool last = g->flags & TCP_FIN;
	size_t len = g->len;
	ssize_t took = 0;
	uint32_t old;

	/* What cannot follow it, or could fail, comes after it. */
	if (s->held.f == f && (last || p->joined || !s->kept || s->held.n + PIECES_MAX > HELD_MAX ||
			       g->seq != t->rcv_nxt))
		tcp_settle(s);
	old = t->rcv_nxt - g->seq;
	if (SEQ_LT(t->rcv_nxt, g->seq) || t->guest_fin) {
		/* A hole before it, or behind the end: at once, as three of these mean something.
		 */
		tcp_say(s, f, TCP_ACK, t->snd_nxt);
		return;
	}
	t->owes_ack = true;
	flow_owes(s, f);
	if (old > len)
		return;
	len -= old;
	if (len) {
		took = forward(s, f, p, g->at + old, len, last);
		if (took < 0) {
			tcp_reset(s, f);
			return;
		}
		t->rcv_nxt += (uint32_t)took;
		f->sent += (uint64_t)took;
		/* It may begin anew where the window then is. */
		if (SEQ_LT(t->rcv_adv, t->rcv_nxt))
			t->rcv_adv = t->rcv_nxt;
		if ((size_t)took < len) {
			t->stalled = true;
			return;
		}
	}
	if (last) {
		t->guest_fin = true;
		t->rcv_nxt++;
		if (SEQ_LT(t->rcv_adv, t->rcv_nxt))
			t->rcv_adv = t->rcv_nxt;
		s->ops->shut(s->arg, f);
		if (t->fin_acked) {
			tcp_say(s, f, TCP_ACK, t->snd_nxt);
			forget(s, f, false);
		}
	}
}

/* An old duplicate, told by its time stamp (RFC 7323, 5.3)? */
static bool outdated(const struct tcp *t, const struct segment *g)
{
	return t->stamps && g->has_stamp && (int32_t)(g->stamp - t->ts_recent) < 0;
}

static void on_segment(struct stack *s, struct flow *f, const struct packet *p, struct segment *g)
{
	struct tcp *t = &f->tcp;
	bool gone = false;

	if (t->state == TCP_CALLING) {
		on_answer(s, f, g);
		return;
	}
	if (g->flags & TCP_RST) {
		if (s->held.f == f)
			tcp_settle(s);
		on_rst(s, f, g);
		return;
	}
	/* It asks again; the host is at it. */
	if (t->state == TCP_CONNECTING)
		return;
	if (outdated(t, g)) {
		tcp_say(s, f, TCP_ACK, t->snd_nxt);
		return;
	}
	if (g->flags & TCP_SYN) {
		/* Our answer was lost, or this is none of ours (RFC 5961, 4). */
		if (t->state == TCP_GREETED && g->seq == t->irs)
			tcp_say(s, f, TCP_SYN | TCP_ACK, t->iss);
		else
			tcp_say(s, f, TCP_ACK, t->snd_nxt);
		return;
	}
	if (!(g->flags & TCP_ACK))
		return;
	if (t->state == TCP_GREETED) {
		if (g->ack != t->iss + 1) {
			refuse(s, p, g);
			return;
		}
		opened(s, f, g);
	}
	if (g->has_stamp && SEQ_LE(g->seq, t->last_ack))
		t->ts_recent = g->stamp;
	if (!on_ack(s, f, g, &gone))
		return;
	/* A probe of a guest that wants to know whether we live, or whether the window is open. */
	if (!g->len && !(g->flags & TCP_FIN) && SEQ_LT(g->seq, t->rcv_nxt))
		t->owes_ack = true;
	if (g->len || g->flags & TCP_FIN)
		on_data(s, f, p, g);
}

void tcp_input(struct stack *s, const struct packet *p)
{
	const uint8_t *tcp = p->head + p->l4;
	struct flow_key key = {.proto = NET_TCP, .remote = p->dst};
	struct segment g;
	struct flow *f;

	if (!parse(p, &g)) {
		s->stats.malformed++;
		return;
	}
	key.guest_port = (uint16_t)(tcp[0] << 8 | tcp[1]);
	key.remote_port = (uint16_t)(tcp[2] << 8 | tcp[3]);
	if (!key.guest_port || !key.remote_port || net_addr_kind(&p->dst) == NET_MULTICAST) {
		s->stats.malformed++;
		return;
	}
	f = flow_find(s, &key);
	if (f)
		on_segment(s, f, p, &g);
	else if ((g.flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN)
		on_syn(s, p, &key, &g);
	else
		refuse(s, p, &g);
}

/* ---- the socket's side ---- */

void tcp_event(struct stack *s, struct flow *f, unsigned events, int error)
{
	struct tcp *t = &f->tcp;

	if (events & STACK_READABLE)
		t->readable = true;
	if (events & STACK_STOPS)
		t->stops = true;
	if (t->state == TCP_CONNECTING) {
		if (events & STACK_FAILED)
			cannot_connect(s, f, error);
		else if (events & STACK_WRITABLE)
			connected(s, f);
		return;
	}
	if (events & STACK_FAILED) {
		tcp_reset(s, f);
		return;
	}
	if (events & STACK_WRITABLE)
		t->owes_ack = true;
	if (t->state == TCP_OPEN)
		flow_owes(s, f);
}
