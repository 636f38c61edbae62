/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a sandbox may use of the network: connections, new ones in a time, bytes and frames in a
 * time and each direction.
 *
 * A rate is kept by a bucket of tokens that fills as fast as the rate says and holds what one of
 * its times allows, with a burst on top that is there once. Something may pass as long as the
 * bucket holds anything, however large it is: what it takes too much is a debt that is paid before
 * the next may. So the sum is exact to the byte over any longer time.
 *
 * Plain data; no thread and no clock of its own.
 */
#ifndef NET_LIMIT_H
#define NET_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum net_rate_of {
	NET_RATE_CONNECTIONS, /* new ones, both ways */
	NET_RATE_OUT_BYTES,   /* from the guest */
	NET_RATE_OUT_FRAMES,
	NET_RATE_IN_BYTES, /* to the guest */
	NET_RATE_IN_FRAMES,
	NET_RATES,
};

struct net_rate {
	uint64_t amount, time_ns; /* amount 0: no limit */
	uint64_t burst;		  /* once, on top */
};

struct net_limits {
	unsigned connections; /* at a time; 0: the stack's default */
	struct net_rate rate[NET_RATES];
};

/*
 * One of them: @key is "max-connections" (a number), "max-connection-rate" (COUNT[/TIME]),
 * "egress-bandwidth" or "ingress-bandwidth" (SIZE[/TIME], a bare number is bytes),
 * "egress-ops" or "ingress-ops" (COUNT[/TIME]), or one of these four with "-burst" (SIZE, COUNT).
 * TIME is a second if it is not said. "none" takes a limit away. ERR_USAGE with a hint.
 */
int net_limits_set(struct net_limits *l, const char *key, const char *value, struct err *err);
/* "KEY=VALUE" */
int net_limits_set_pair(struct net_limits *l, const char *pair, struct err *err);
/* Do they go together? ERR_USAGE with a hint. */
int net_limits_check(const struct net_limits *l, struct err *err);

struct net_bucket {
	struct net_rate rate;
	int64_t tokens;	       /* negative: a debt */
	uint64_t once;	       /* what is left of the burst */
	uint64_t filled, rest; /* when, and what was left in parts of a token */
};

/* Full. */
void net_bucket_init(struct net_bucket *b, const struct net_rate *rate, uint64_t now);
/*
 * Another rate from now on. What was used stays used: the level moves with the size, and a debt
 * remains one. Where there was no rate the bucket begins full.
 */
void net_bucket_change(struct net_bucket *b, const struct net_rate *rate, uint64_t now);
/* May something pass? */
bool net_bucket_ready(struct net_bucket *b, uint64_t now);
/* It did, and was this large. */
void net_bucket_take(struct net_bucket *b, uint64_t n);
/* When something may, if not now. */
uint64_t net_bucket_when(const struct net_bucket *b);

/* One direction: frames and their bytes. */
struct net_gate {
	struct net_bucket bytes, frames;
	bool held; /* somebody was told to wait */
};

/* What it lets through from now on: see net_bucket_change(). Who was held has to ask again. */
void net_gate_change(struct net_gate *g, const struct net_rate *bytes,
		     const struct net_rate *frames, uint64_t now);
static inline bool net_gate_limits(const struct net_gate *g)
{
	return g->bytes.rate.amount || g->frames.rate.amount;
}
/* May a frame pass? If not it is held. */
bool net_gate_open(struct net_gate *g, uint64_t now);
void net_gate_pass(struct net_gate *g, uint64_t bytes);
/* When it opens, if it is held. */
uint64_t net_gate_when(const struct net_gate *g);

#endif
