/* SPDX-License-Identifier: Apache-2.0 */
/* A world for the name service without sockets: servers are what a test says for them. */
#ifndef TESTS_NET_RESOLVER_WORLD_H
#define TESTS_NET_RESOLVER_WORLD_H

#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "net/resolver_impl.h"

enum { RW_SLOTS = RESOLVER_QUERIES * RESOLVER_TRIES };

struct rw_slot {
	bool on, tcp;
	unsigned server;
	uint8_t m[600];
	size_t n;
};

struct rw {
	struct resolver *r;
	struct resolver_config config;
	struct net_policy policy;
	struct names *names;
	uint64_t now;
	struct rw_slot slot[RW_SLOTS];
	unsigned asked, last; /* how often; the slot of the last */
	unsigned dead;	      /* servers that cannot be reached, as bits */
	uint16_t id;
	unsigned answers;
	uint8_t answer[DNS_MESSAGE_MAX];
	size_t len;
	void *who;
};

static int rw_ask(void *arg, unsigned slot, unsigned server, bool tcp, const void *m, size_t n)
{
	struct rw *w = arg;

	assert(slot < RW_SLOTS && !w->slot[slot].on && n <= sizeof(w->slot[slot].m));
	if (w->dead >> server & 1)
		return -ENETUNREACH;
	w->slot[slot] = (struct rw_slot){.on = true, .tcp = tcp, .server = server, .n = n};
	memcpy(w->slot[slot].m, m, n);
	w->last = slot;
	w->asked++;
	return 0;
}

static void rw_drop(void *arg, unsigned slot)
{
	struct rw *w = arg;

	assert(slot < RW_SLOTS);
	w->slot[slot].on = false;
}

static void rw_answer(void *arg, void *asker, const void *m, size_t n)
{
	struct rw *w = arg;

	assert(n >= DNS_HEADER && n <= sizeof(w->answer));
	memcpy(w->answer, m, n);
	w->len = n;
	w->answers++;
	w->who = asker;
}

static uint16_t rw_random(void *arg)
{
	return ((struct rw *)arg)->id += 7919;
}

static const struct resolver_ops rw_ops = {
	.ask = rw_ask, .drop = rw_drop, .answer = rw_answer, .random = rw_random};

static void rw_begin(struct rw *w, unsigned servers)
{
	int r;

	w->now = SECOND;
	w->config.nservers = servers;
	r = names_new(w->config.seed, &w->names);
	assert(r == 0);
	names_policy(w->names, &w->policy);
	r = resolver_new(&w->config, &w->policy, w->names, &rw_ops, w, &w->r, NULL);
	assert(r == 0);
}

static void rw_end(struct rw *w)
{
	w->r = resolver_free(w->r);
	w->names = names_free(w->names);
}

#endif
