/* SPDX-License-Identifier: Apache-2.0 */
/* The table of flows, and the wheel of their timers. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "net/hash.h"
#include "net/stack_impl.h"

/* A flow without an end that was used within this long is in use. */
#define QUIET SECOND
/* A connection that nobody answered for this long gives way, where there are many. */
#define PATIENCE (3 * SECOND)

uint64_t stack_hash(const struct stack *s, const void *p, size_t n)
{
	return net_hash(s->config.seed, p, n);
}

/* ---- the table ---- */

static struct flow_list *bucket_of(struct stack *s, const struct flow_key *key)
{
	return &s->buckets[stack_hash(s, key, sizeof(*key)) & s->bucket_mask];
}

int flow_table_init(struct stack *s)
{
	uint32_t n = 256;

	while (n < s->config.max_flows)
		n *= 2;
	s->buckets = calloc(n, sizeof(*s->buckets));
	s->bucket_mask = n - 1;
	TAILQ_INIT(&s->owing);
	TAILQ_INIT(&s->quiet);
	TAILQ_INIT(&s->half[0].flows);
	TAILQ_INIT(&s->half[1].flows);
	return s->buckets ? 0 : -ENOMEM;
}

struct flow *flow_find(struct stack *s, const struct flow_key *key)
{
	struct flow *f;

	LIST_FOREACH(f, bucket_of(s, key), bucket)
	{
		if (memcmp(&f->key, key, sizeof(*key)) == 0)
			return f;
	}
	return NULL;
}

/* ---- news ---- */

void stack_tell(struct stack *s, enum stack_news_kind kind, enum net_direction direction,
		uint8_t proto, const struct net_addr *peer, uint16_t port, uint16_t guest_port,
		const char *why)
{
	const struct stack_news n = {
		.kind = kind,
		.direction = direction,
		.proto = proto,
		.peer = *peer,
		.port = port,
		.guest_port = guest_port,
		.why = why,
	};

	if (s->ops->news)
		s->ops->news(s->arg, &n);
}

/* Out it is what the guest asked for, in who came. */
static struct stack_news news_of(const struct stack *s, const struct flow *f,
				 enum stack_news_kind kind)
{
	return (struct stack_news){
		.kind = kind,
		.direction = f->inbound ? NET_INGRESS : NET_EGRESS,
		.proto = (uint8_t)f->key.proto,
		.peer = f->inbound ? f->to : f->key.remote,
		.port = f->inbound ? f->to_port : f->key.remote_port,
		.guest_port = f->key.guest_port,
		.sent = f->sent,
		.got = f->got,
		.lasted = s->now - f->since,
	};
}

void flow_opened(struct stack *s, struct flow *f)
{
	struct stack_news n;

	/* Questions for names are not connections. */
	if (f->told || f->dns || !s->ops->news)
		return;
	f->told = true;
	f->since = s->now;
	n = news_of(s, f, STACK_OPENED);
	s->ops->news(s->arg, &n);
}

static void tell_why(struct stack *s, const struct flow *f, enum stack_news_kind kind,
		     const char *why)
{
	struct stack_news n = news_of(s, f, kind);

	n.why = why;
	if (s->ops->news)
		s->ops->news(s->arg, &n);
}

void flow_failed(struct stack *s, const struct flow *f, int error)
{
	tell_why(s, f, STACK_FAILED_TO, err_name(error));
}

/* ---- life ---- */

/* The oldest half-open one of a direction, if it is that old. */
static bool give_way(struct stack *s, bool inbound, uint64_t age)
{
	struct flow *f = TAILQ_FIRST(&s->half[inbound].flows);

	if (!f || s->now - f->since < age)
		return false;
	s->stats.full++;
	tell_why(s, f, STACK_LIMITED, "half-open");
	tcp_reset(s, f);
	return true;
}

/* Many of them at once are a busy program; many that wait for long, or very many, a flood. */
static void stem(struct stack *s, bool inbound)
{
	const unsigned n = s->half[inbound].n, most = s->config.max_flows;

	if (n >= MAX(most / 8, 64u))
		(void)give_way(s, inbound, n >= most / 2 ? 0 : PATIENCE);
}

/* Whoever sends to ever new places loses his own, not the connections of others. */
static bool make_room(struct stack *s)
{
	struct flow *f = TAILQ_FIRST(&s->quiet);

	/* One in use is as good as the one that asks. */
	if (!f || s->now - f->udp.used < QUIET)
		return give_way(s, false, PATIENCE) || give_way(s, true, PATIENCE);
	s->ops->close(s->arg, f, false);
	flow_free(s, f);
	return true;
}

struct flow *flow_new(struct stack *s, const struct flow_key *key, enum net_direction direction)
{
	const bool inbound = direction == NET_INGRESS;
	/* Questions for names are no connections; the name service has limits for them. */
	const bool counts = inbound || key->remote_port != DNS_PORT;
	const char *why = "max-connections";
	struct flow *f = NULL;

	if (counts && !net_bucket_ready(&s->new_flows, s->now)) {
		why = "max-connection-rate";
	} else {
		if (key->proto == NET_TCP)
			stem(s, inbound);
		if (s->stats.flows < s->config.max_flows || make_room(s))
			f = calloc(1, sizeof(*f));
	}
	if (!f) {
		s->stats.full++;
		stack_tell(s, STACK_LIMITED, direction, (uint8_t)key->proto, &key->remote,
			   key->remote_port, key->guest_port, why);
		return NULL;
	}
	f->inbound = inbound;
	f->since = s->now;
	if (counts)
		net_bucket_take(&s->new_flows, 1);
	f->key = *key;
	LIST_INSERT_HEAD(bucket_of(s, key), f, bucket);
	if (key->proto != NET_TCP) {
		f->udp.used = s->now;
		TAILQ_INSERT_TAIL(&s->quiet, f, udp.quiet);
	} else {
		TAILQ_INSERT_TAIL(&s->half[inbound].flows, f, tcp.half);
		s->half[inbound].n++;
	}
	s->stats.flows++;
	s->stats.opened++;
	return f;
}

void flow_made(struct stack *s, struct flow *f)
{
	TAILQ_REMOVE(&s->half[f->inbound].flows, f, tcp.half);
	s->half[f->inbound].n--;
}

void flow_free(struct stack *s, struct flow *f)
{
	if (f->told) {
		const struct stack_news n = news_of(s, f, STACK_CLOSED);

		s->ops->news(s->arg, &n);
	}
	if (s->held.f == f)
		s->held.f = NULL;
	if (f->listed)
		TAILQ_REMOVE(&s->owing, f, owing);
	if (f->tick)
		LIST_REMOVE(f, wheel);
	if (f->key.proto != NET_TCP)
		TAILQ_REMOVE(&s->quiet, f, udp.quiet);
	else if (f->tcp.state != TCP_OPEN)
		flow_made(s, f);
	LIST_REMOVE(f, bucket);
	s->stats.flows--;
	free(f);
}

void flow_owes(struct stack *s, struct flow *f)
{
	if (f->listed)
		return;
	f->listed = true;
	TAILQ_INSERT_TAIL(&s->owing, f, owing);
}

void **flow_host(struct flow *f)
{
	return &f->host;
}

uint8_t flow_proto(const struct flow *f)
{
	return (uint8_t)f->key.proto;
}

void flow_peer(const struct flow *f, struct net_addr *a, uint16_t *port)
{
	*a = f->to;
	*port = f->to_port;
}

/* ---- timers ---- */

static void hang(struct stack *s, struct flow *f)
{
	uint64_t tick = (f->due >> WHEEL_TICK) + 1;

	/* Further than a turn: it will be looked at on the way. */
	tick = MAX(tick, s->tick + 1);
	tick = MIN(tick, s->tick + WHEEL_SLOTS - 1);
	f->tick = tick;
	LIST_INSERT_HEAD(&s->slots[tick % WHEEL_SLOTS], f, wheel);
	if (!s->next_tick || tick < s->next_tick)
		s->next_tick = tick;
}

/* A timer that moves away, as most do with every packet, stays where it is until it is looked at.
 */
void flow_timer(struct stack *s, struct flow *f, uint64_t due)
{
	f->due = due;
	if (!due || (f->tick && (due >> WHEEL_TICK) + 1 >= f->tick))
		return;
	if (f->tick)
		LIST_REMOVE(f, wheel);
	hang(s, f);
}

void flow_used(struct stack *s, struct flow *f, unsigned idle)
{
	f->udp.used = s->now;
	TAILQ_REMOVE(&s->quiet, f, udp.quiet);
	TAILQ_INSERT_TAIL(&s->quiet, f, udp.quiet);
	flow_timer(s, f, s->now + idle * SECOND);
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
	return !a || (b && b < a) ? b : a;
}

uint64_t stack_next(const struct stack *s)
{
	return sooner(s->next_tick << WHEEL_TICK, sooner(s->advert_due, frag_next(s)));
}

static void fire(struct stack *s, struct flow *f)
{
	f->due = 0;
	if (f->key.proto == NET_TCP)
		tcp_timer(s, f);
	else
		udp_timer(s, f);
}

static void turn(struct stack *s, uint64_t tick)
{
	struct flow_list *slot = &s->slots[tick % WHEEL_SLOTS], now = LIST_HEAD_INITIALIZER(now);
	struct flow *f;

	/* What is put back goes into other slots, as they are all later. */
	s->tick = tick;
	if ((f = LIST_FIRST(slot))) {
		now = *slot;
		f->wheel.le_prev = &now.lh_first;
		LIST_INIT(slot);
	}
	while ((f = LIST_FIRST(&now))) {
		LIST_REMOVE(f, wheel);
		f->tick = 0;
		if (f->due && f->due <= s->now)
			fire(s, f);
		else if (f->due)
			hang(s, f);
	}
}

void stack_tick(struct stack *s, uint64_t now)
{
	uint64_t to = now >> WHEEL_TICK, from = s->tick;

	s->now = now;
	frag_tick(s);
	ndp_tick(s);
	if (to <= from)
		return;
	/* After a pause longer than a turn every slot is due, once. */
	if (to - from > WHEEL_SLOTS)
		from = to - WHEEL_SLOTS;
	for (uint64_t t = from + 1; t <= to; t++)
		turn(s, t);
	s->next_tick = 0;
	for (uint64_t t = to + 1; t < to + WHEEL_SLOTS && !s->next_tick; t++) {
		if (!LIST_EMPTY(&s->slots[t % WHEEL_SLOTS]))
			s->next_tick = t;
	}
}
