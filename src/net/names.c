/* SPDX-License-Identifier: Apache-2.0 */
#include "net/names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/cleanup.h"
#include "net/hash.h"

enum { BUCKETS = 1024, SHARE_MIN = 32, OTHERS = NET_RULES_MAX };

struct pin {
	LIST_ENTRY(pin) bucket;
	TAILQ_ENTRY(pin) age;
	struct net_addr addr;
	uint64_t until;
	unsigned share;
	struct net_rules rules;
	struct dns_name name; /* its end may not be there */
};

struct share {
	TAILQ_HEAD(pin_tail, pin) pins; /* oldest first */
	unsigned n;
};

struct names {
	uint8_t seed[16];
	const struct net_policy *policy;
	unsigned each; /* how many pins a share may have */
	LIST_HEAD(pin_list, pin) bucket[BUCKETS];
	struct share share[NET_RULES_MAX + 1]; /* of the first rule that is for the name */
};

int names_new(const uint8_t seed[16], struct names **ret)
{
	struct names *n = calloc(1, sizeof(*n));

	if (!n)
		return -ENOMEM;
	memcpy(n->seed, seed, sizeof(n->seed));
	n->each = NAMES_PINS;
	for (size_t i = 0; i < ARRAY_SIZE(n->share); i++)
		TAILQ_INIT(&n->share[i].pins);
	*ret = n;
	return 0;
}

static void unpin(struct names *n, struct pin *p)
{
	LIST_REMOVE(p, bucket);
	TAILQ_REMOVE(&n->share[p->share].pins, p, age);
	n->share[p->share].n--;
	free(p);
}

struct names *names_free(struct names *n)
{
	if (!n)
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(n->share); i++) {
		while (n->share[i].n)
			unpin(n, TAILQ_FIRST(&n->share[i].pins));
	}
	free(n);
	return NULL;
}

static unsigned first_rule(const struct net_rules *r)
{
	for (unsigned w = 0; w < ARRAY_SIZE(r->bits); w++) {
		if (r->bits[w])
			return w * 64 + (unsigned)__builtin_ctzll(r->bits[w]);
	}
	return OTHERS;
}

/* Into the share that it belongs to, as its youngest. */
static void enlist(struct names *n, struct pin *p)
{
	struct share *s;

	if (n->policy)
		net_policy_named(n->policy, &p->name, &p->rules);
	p->share = first_rule(&p->rules);
	s = &n->share[p->share];
	TAILQ_INSERT_TAIL(&s->pins, p, age);
	s->n++;
	while (s->n > n->each)
		unpin(n, TAILQ_FIRST(&s->pins));
}

void names_policy(struct names *n, const struct net_policy *p)
{
	struct pin_tail all = TAILQ_HEAD_INITIALIZER(all);
	unsigned named = 1;
	struct pin *pin;

	for (unsigned i = 0; i < p->nrules; i++)
		named += p->rule[i].names != NET_NO_NAME;
	n->policy = p;
	n->each = MAX(NAMES_PINS / named, (unsigned)SHARE_MIN);
	for (size_t i = 0; i < ARRAY_SIZE(n->share); i++) {
		TAILQ_CONCAT(&all, &n->share[i].pins, age);
		n->share[i].n = 0;
	}
	while ((pin = TAILQ_FIRST(&all))) {
		TAILQ_REMOVE(&all, pin, age);
		enlist(n, pin);
	}
}

static struct pin_list *bucket_of(struct names *n, const struct net_addr *a)
{
	return &n->bucket[net_hash(n->seed, a, sizeof(*a)) % BUCKETS];
}

int names_pin(struct names *n, const struct net_addr *a, const struct dns_name *name,
	      uint64_t until)
{
	struct pin_list *list = bucket_of(n, a);
	struct pin *p;

	LIST_FOREACH(p, list, bucket)
	{
		if (!net_addr_equal(&p->addr, a) || !dns_name_equal(&p->name, name))
			continue;
		p->until = MAX(p->until, until);
		TAILQ_REMOVE(&n->share[p->share].pins, p, age);
		TAILQ_INSERT_TAIL(&n->share[p->share].pins, p, age);
		/* The last is the first that is found. */
		LIST_REMOVE(p, bucket);
		LIST_INSERT_HEAD(list, p, bucket);
		return 0;
	}
	p = calloc(1, offsetof(struct pin, name.b) + name->n);
	if (!p)
		return -ENOMEM;
	p->addr = *a;
	p->until = until;
	p->name.n = name->n;
	memcpy(p->name.b, name->b, name->n);
	LIST_INSERT_HEAD(list, p, bucket);
	enlist(n, p);
	return 0;
}

/* The next pin of an address, beginning behind @p or anew. */
static struct pin *next(struct names *n, const struct net_addr *a, uint64_t now, struct pin *p)
{
	do
		p = p ? LIST_NEXT(p, bucket) : LIST_FIRST(bucket_of(n, a));
	while (p && (p->until < now || !net_addr_equal(&p->addr, a)));
	return p;
}

void names_rules(struct names *n, const struct net_addr *a, uint64_t now, struct net_rules *ret)
{
	struct pin *p = NULL;

	*ret = (struct net_rules){0};
	while ((p = next(n, a, now, p))) {
		for (unsigned w = 0; w < ARRAY_SIZE(ret->bits); w++)
			ret->bits[w] |= p->rules.bits[w];
	}
}

bool names_has(struct names *n, const struct net_addr *a, const struct dns_name *name, uint64_t now,
	       struct net_rules *ret)
{
	struct pin *p = NULL;

	while ((p = next(n, a, now, p))) {
		if (dns_name_equal(&p->name, name)) {
			*ret = p->rules;
			return true;
		}
	}
	return false;
}
