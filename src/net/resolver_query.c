/* SPDX-License-Identifier: Apache-2.0 */
/* Queries to servers: whom to ask, when to ask another, whom to believe. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "net/resolver_impl.h"

enum {
	/* Until the next server is asked as well; guests ask again after 2.5 s or more. */
	STEP_MAX_MS = 800,
	STEP_MIN_MS = 20,
	/* A server that kept silent is asked last for so long. */
	SILENT_S = 30,
	WAITING_MAX = 64,
	ASKERS_MAX = 2048,
	/* What fits every path (DNS flag day 2020). */
	EDNS_SIZE = 1232,
	/* RFC 8914 */
	NO_SERVER = 22,
	NETWORK_ERROR = 23,
};

static unsigned slot_of(const struct resolver *r, const struct query *q, unsigned attempt)
{
	return (unsigned)(q - r->query) * RESOLVER_TRIES + attempt;
}

static void drop(struct resolver *r, struct query *q, unsigned i)
{
	if (!q->attempt[i].on)
		return;
	q->attempt[i].on = false;
	r->ops->drop(r->arg, slot_of(r, q, i));
}

static void finish(struct resolver *r, struct query *q)
{
	for (unsigned i = 0; i < RESOLVER_TRIES; i++)
		drop(r, q, i);
	q->on = false;
	r->busy--;
}

static void fail(struct resolver *r, struct query *q, int ede, const char *why)
{
	struct asker *a;

	r->stats.failed++;
	finish(r, q);
	while ((a = TAILQ_FIRST(&q->askers))) {
		TAILQ_REMOVE(&q->askers, a, list);
		answer_nothing(r, a, DNS_SERVFAIL, ede, why);
		asker_free(r, a);
	}
}

static size_t write_question(const struct resolver *r, const struct query *q,
			     const struct attempt *t, uint8_t *p, size_t max)
{
	const struct dns_edns edns = {.size = EDNS_SIZE, .dnssec_ok = q->key.dnssec_ok};
	uint16_t flags = DNS_RD | DNS_AD | (q->key.unchecked ? DNS_CD : 0);
	struct dns_writer w;

	dns_write(&w, p, max, t->id, flags);
	dns_write_question(&w, &q->key.name, q->key.type, DNS_IN);
	/* How long a name is can be seen from outside of TLS, too. */
	if (t->edns && r->config.server[t->server].transport == RESOLVER_TLS)
		dns_write_edns_padded(&w, &edns);
	else if (t->edns)
		dns_write_edns(&w, &edns, -1, NULL);
	return dns_write_end(&w, flags);
}

static bool ask(struct resolver *r, struct query *q, unsigned i)
{
	struct attempt *t = &q->attempt[i];
	uint8_t m[DNS_HEADER + DNS_NAME_MAX + 32 + DNS_PADDED];
	size_t n;

	t->id = r->ops->random(r->arg);
	n = write_question(r, q, t, m, sizeof(m));
	t->on = r->ops->ask(r->arg, slot_of(r, q, i), t->server, t->tcp, m, n) == 0;
	return t->on;
}

/* The server for the next attempt; -1 when there is none that could know. */
static int next_server(const struct resolver *r, const struct query *q)
{
	for (unsigned k = 0; k < r->config.nservers; k++) {
		unsigned s = q->order[(q->tries + k) % r->config.nservers];

		if (!(q->hopeless >> s & 1))
			return (int)s;
	}
	return -1;
}

static bool waiting(const struct query *q)
{
	for (unsigned i = 0; i < RESOLVER_TRIES; i++) {
		if (q->attempt[i].on)
			return true;
	}
	return false;
}

static uint64_t step(const struct resolver *r)
{
	uint64_t n = r->config.timeout / (r->config.nservers + 2);

	return MIN(MAX(n, STEP_MIN_MS * MS), STEP_MAX_MS * MS);
}

/* Ask somebody else, or give up. */
static void advance(struct resolver *r, struct query *q)
{
	while (q->tries < RESOLVER_TRIES) {
		struct attempt *t = &q->attempt[q->tries];
		int server = next_server(r, q);

		if (server < 0)
			break;
		*t = (struct attempt){
			.server = (uint8_t)server,
			.tcp = r->config.server[server].transport != RESOLVER_UDP,
			.edns = true,
		};
		q->next = r->now + step(r);
		if (ask(r, q, q->tries++))
			return;
		q->hopeless |= 1u << server;
	}
	q->next = q->begun + r->config.timeout;
	if (!waiting(q))
		fail(r, q, NO_SERVER, "no name server could be reached or knows");
}

static void begin(struct resolver *r, struct query *q, const struct dns_key *key)
{
	unsigned n = 0;

	*q = (struct query){.on = true, .key = *key, .begun = r->now};
	TAILQ_INIT(&q->askers);
	r->busy++;
	r->stats.asked++;
	for (int late = 0; late < 2; late++) {
		for (unsigned s = 0; s < r->config.nservers; s++) {
			if ((r->silent[s] > r->now) == late)
				q->order[n++] = (uint8_t)s;
		}
	}
}

static bool same_key(const struct dns_key *a, const struct dns_key *b)
{
	return a->type == b->type && a->dnssec_ok == b->dnssec_ok && a->unchecked == b->unchecked &&
	       dns_name_equal(&a->name, &b->name);
}

bool query_add(struct resolver *r, struct asker *a)
{
	struct query *q = NULL, *idle = NULL;

	for (unsigned i = 0; i < RESOLVER_QUERIES && !q; i++) {
		if (!r->query[i].on)
			idle = idle ? idle : &r->query[i];
		else if (same_key(&r->query[i].key, &a->key))
			q = &r->query[i];
	}
	if ((q && q->naskers == WAITING_MAX) || (!q && !idle) || r->askers == ASKERS_MAX)
		return false;
	r->askers++;
	if (q) {
		q->naskers++;
		TAILQ_INSERT_TAIL(&q->askers, a, list);
		return true;
	}
	begin(r, idle, &a->key);
	idle->naskers++;
	TAILQ_INSERT_TAIL(&idle->askers, a, list);
	advance(r, idle);
	return true;
}

void resolver_forget(struct resolver *r, const void *who)
{
	for (unsigned i = 0; i < RESOLVER_QUERIES && r->askers; i++) {
		struct query *q = &r->query[i];
		struct asker *a, *next;

		/* The query goes on: its answer is worth keeping. */
		for (a = q->on ? TAILQ_FIRST(&q->askers) : NULL; a; a = next) {
			next = TAILQ_NEXT(a, list);
			if (a->who != who)
				continue;
			TAILQ_REMOVE(&q->askers, a, list);
			q->naskers--;
			asker_free(r, a);
		}
	}
}

/* ---- what servers say ---- */

static struct query *query_of(struct resolver *r, unsigned slot)
{
	struct query *q = &r->query[slot / RESOLVER_TRIES];

	return q->on && q->attempt[slot % RESOLVER_TRIES].on ? q : NULL;
}

void resolver_failed(struct resolver *r, unsigned slot, uint64_t now)
{
	struct query *q = query_of(r, slot);
	unsigned server;

	r->now = now;
	if (!q)
		return;
	server = q->attempt[slot % RESOLVER_TRIES].server;
	drop(r, q, slot % RESOLVER_TRIES);
	q->hopeless |= 1u << server;
	r->silent[server] = now + SILENT_S * SECOND;
	advance(r, q);
}

static void answered(struct resolver *r, struct query *q, struct dns_entry *e)
{
	struct asker *a;

	finish(r, q);
	while ((a = TAILQ_FIRST(&q->askers))) {
		TAILQ_REMOVE(&q->askers, a, list);
		answer_from(r, a, e);
		asker_free(r, a);
	}
	cache_put(&r->cache, r->config.seed, e);
}

/* The same server once more, in another way. */
static void again(struct resolver *r, struct query *q, unsigned i, bool tcp, bool edns)
{
	struct attempt *t = &q->attempt[i];

	drop(r, q, i);
	t->tcp = tcp;
	t->edns = edns;
	if (ask(r, q, i)) {
		q->next = MAX(q->next, r->now + step(r));
		return;
	}
	q->hopeless |= 1u << t->server;
	advance(r, q);
}

void resolver_reply(struct resolver *r, unsigned slot, const void *p, size_t n, uint64_t now)
{
	struct query *q = query_of(r, slot);
	unsigned i = slot % RESOLVER_TRIES;
	struct dns_entry *e = NULL;
	struct dns_reader m;
	struct attempt *t;
	uint8_t rcode;
	int got;

	r->now = now;
	if (!q)
		return;
	t = &q->attempt[i];
	/* Not what was asked for: somebody guesses, or it is late. The answer may yet come. */
	if (dns_read(&m, p, n) < 0 || m.id != t->id || !(m.flags & DNS_QR) || m.flags & DNS_OPCODE)
		return;
	got = reply_read(r, &q->key, &m, &e, &rcode);
	if (got == -ENOMEM) {
		fail(r, q, -1, NULL);
		return;
	}
	if (got == 1) {
		r->silent[t->server] = 0;
		answered(r, q, e);
		return;
	}
	if (got == 0 && !t->tcp) {
		again(r, q, i, true, t->edns);
		return;
	}
	/* Servers from before EDNS (RFC 6891, 7). */
	if (t->edns && (rcode == DNS_FORMERR || rcode == DNS_NOTIMP || rcode == DNS_BADVERS)) {
		again(r, q, i, t->tcp, false);
		return;
	}
	if (got == -EBADMSG)
		r->stats.malformed++;
	drop(r, q, i);
	q->hopeless |= 1u << t->server;
	advance(r, q);
}

/* ---- time ---- */

uint64_t resolver_next(const struct resolver *r)
{
	uint64_t next = 0;

	for (unsigned i = 0; i < RESOLVER_QUERIES && r->busy; i++) {
		const struct query *q = &r->query[i];

		if (q->on && (!next || q->next < next))
			next = q->next;
	}
	return next;
}

void resolver_tick(struct resolver *r, uint64_t now)
{
	r->now = now;
	for (unsigned i = 0; i < RESOLVER_QUERIES && r->busy; i++) {
		struct query *q = &r->query[i];

		if (!q->on || q->next > now)
			continue;
		if (now - q->begun >= r->config.timeout) {
			fail(r, q, NETWORK_ERROR, "no name server answered in time");
			continue;
		}
		/* Whoever was asked last has had his chance. */
		if (q->tries && q->attempt[q->tries - 1].on)
			r->silent[q->attempt[q->tries - 1].server] = now + SILENT_S * SECOND;
		advance(r, q);
		if (q->on)
			q->next = MIN(q->next, q->begun + r->config.timeout);
	}
}
