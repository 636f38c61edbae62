/* SPDX-License-Identifier: Apache-2.0 */
/* Answers that are kept, and how. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "net/hash.h"
#include "net/resolver_impl.h"

enum {
	ENTRIES_MAX = 2048,
	BYTES_MAX = 2 << 20,
	NEGATIVE_MAX = 300,
};

/* ---- entries ---- */

struct dns_entry *entry_new(const struct dns_key *key, uint64_t now)
{
	struct dns_entry *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->key = *key;
	e->born = now;
	e->until = now + RESOLVER_TTL_MAX * SECOND;
	return e;
}

void entry_free(struct dns_entry *e)
{
	if (!e)
		return;
	free(e->records);
	free(e);
}

int entry_add(struct dns_entry *e, const struct dns_piece *p)
{
	size_t need = DNS_PIECE_HEAD + (size_t)p->name.n + p->len;
	uint8_t *to;

	if (need > DNS_MESSAGE_MAX - e->n)
		return -ENOSPC;
	if (need > e->max - e->n) {
		size_t max = MAX(e->max * 2, e->n + need);
		uint8_t *records = realloc(e->records, max);

		if (!records)
			return -ENOMEM;
		e->records = records;
		e->max = max;
	}
	to = e->records + e->n;
	to[0] = (uint8_t)p->section;
	to[1] = p->name.n;
	memcpy(to + 2, &p->type, 2);
	memcpy(to + 4, &p->len, 2);
	memcpy(to + 6, &p->ttl, 4);
	memcpy(to + DNS_PIECE_HEAD, p->name.b, p->name.n);
	if (p->len)
		memcpy(to + DNS_PIECE_HEAD + p->name.n, p->data, p->len);
	e->n += need;
	return 0;
}

bool entry_next(const struct dns_entry *e, size_t *at, struct dns_piece *ret)
{
	const uint8_t *p = e->records + *at;

	if (*at >= e->n)
		return false;
	ret->section = (enum dns_section)p[0];
	ret->name.n = p[1];
	memcpy(&ret->type, p + 2, 2);
	memcpy(&ret->len, p + 4, 2);
	memcpy(&ret->ttl, p + 6, 4);
	memcpy(ret->name.b, p + DNS_PIECE_HEAD, ret->name.n);
	ret->data = p + DNS_PIECE_HEAD + ret->name.n;
	*at += DNS_PIECE_HEAD + (size_t)ret->name.n + ret->len;
	return true;
}

/* The last word of a SOA's data. */
static uint32_t minimum(const struct dns_piece *soa)
{
	const uint8_t *p = soa->data + soa->len - 4;

	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

void entry_settle(struct dns_entry *e)
{
	uint32_t ttl = RESOLVER_TTL_MAX, negative = RESOLVER_TTL_MIN;
	struct dns_piece p;
	bool answers = false;

	for (size_t at = 0; entry_next(e, &at, &p);) {
		if (p.section == DNS_ANSWER) {
			answers |= p.type == e->key.type || e->key.type == DNS_ANY;
			ttl = MIN(ttl, p.ttl);
		} else if (p.type == DNS_SOA) {
			negative = minimum(&p);
			negative = MIN(negative, p.ttl);
			negative = MIN(negative, (uint32_t)NEGATIVE_MAX);
		}
	}
	if (!answers)
		ttl = MIN(ttl, negative);
	ttl = MAX(ttl, (uint32_t)RESOLVER_TTL_MIN);
	e->until = e->born + ttl * SECOND;
}

/* ---- the cache ---- */

void cache_init(struct dns_cache *c)
{
	TAILQ_INIT(&c->age);
}

static void drop(struct dns_cache *c, struct dns_entry *e)
{
	LIST_REMOVE(e, bucket);
	TAILQ_REMOVE(&c->age, e, age);
	c->n--;
	c->bytes -= sizeof(*e) + e->max;
	entry_free(e);
}

void cache_done(struct dns_cache *c)
{
	while (c->n)
		drop(c, TAILQ_FIRST(&c->age));
}

static uint64_t hash(const uint8_t seed[16], const struct dns_key *key)
{
	uint8_t b[DNS_NAME_MAX + 4];

	memcpy(b, key->name.b, key->name.n);
	memcpy(b + key->name.n, &key->type, 2);
	b[key->name.n + 2] = key->dnssec_ok;
	b[key->name.n + 3] = key->unchecked;
	return net_hash(seed, b, key->name.n + 4u);
}

static bool key_equal(const struct dns_key *a, const struct dns_key *b)
{
	return a->type == b->type && a->dnssec_ok == b->dnssec_ok && a->unchecked == b->unchecked &&
	       dns_name_equal(&a->name, &b->name);
}

struct dns_entry *cache_find(struct dns_cache *c, const uint8_t seed[16], const struct dns_key *key,
			     uint64_t now)
{
	struct dns_entry *e;

	LIST_FOREACH(e, &c->bucket[hash(seed, key) % ARRAY_SIZE(c->bucket)], bucket)
	{
		if (key_equal(&e->key, key))
			break;
	}
	if (!e)
		return NULL;
	if (e->until <= now) {
		drop(c, e);
		return NULL;
	}
	TAILQ_REMOVE(&c->age, e, age);
	TAILQ_INSERT_TAIL(&c->age, e, age);
	return e;
}

void cache_put(struct dns_cache *c, const uint8_t seed[16], struct dns_entry *e)
{
	struct dns_entry *old = cache_find(c, seed, &e->key, e->born);

	if (old)
		drop(c, old);
	LIST_INSERT_HEAD(&c->bucket[hash(seed, &e->key) % ARRAY_SIZE(c->bucket)], e, bucket);
	TAILQ_INSERT_TAIL(&c->age, e, age);
	c->n++;
	c->bytes += sizeof(*e) + e->max;
	while (c->n > ENTRIES_MAX || c->bytes > BYTES_MAX)
		drop(c, TAILQ_FIRST(&c->age));
}
