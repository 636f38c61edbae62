/* SPDX-License-Identifier: Apache-2.0 */
#include "net/limit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "net/stack.h"

#define SECOND ((uint64_t)1000000000)
/* No computer of today reaches it, and sums of a few stay within 64 bits. */
#define MOST ((uint64_t)1 << 50)
/* A bucket of longer than this would be no rate but a volume. */
#define TIME_MAX (24 * 3600 * SECOND)

static const struct {
	const char *key;
	enum net_rate_of of;
	bool bytes;
} rates[] = {
	{"max-connection-rate", NET_RATE_CONNECTIONS, false},
	{"egress-bandwidth", NET_RATE_OUT_BYTES, true},
	{"egress-ops", NET_RATE_OUT_FRAMES, false},
	{"ingress-bandwidth", NET_RATE_IN_BYTES, true},
	{"ingress-ops", NET_RATE_IN_FRAMES, false},
};

static int parse_amount(const char *key, const char *text, bool bytes, uint64_t *ret,
			struct err *err)
{
	int r = bytes ? str_to_size(text, 1, key, ret, err) : str_to_u64(text, MOST, ret);

	if (r == 0 && *ret && *ret <= MOST)
		return 0;
	if (r == 0 || !bytes)
		err_set(err, ERR_USAGE, "%s cannot be \"%.60s\"", key, text);
	if (bytes)
		return err_hint(err, "write it like 10M, or 10M/1s; none takes it away");
	return err_hint(err, "write it like 1000, or 1000/1s; none takes it away");
}

static int set_rate(struct net_rate *rate, const char *key, bool bytes, const char *value,
		    struct err *err)
{
	cleanup_free char *text = strdup(value);
	struct net_rate new = {.time_ns = SECOND, .burst = rate->burst};
	char *time = text;
	int r;

	if (!text)
		return err_set(err, ENOMEM, "out of memory");
	strsep(&time, "/");
	r = parse_amount(key, text, bytes, &new.amount, err);
	if (r == 0 && time)
		r = str_to_duration(time, key, &new.time_ns, err);
	if (r < 0)
		return r;
	if (new.time_ns < SECOND / 1000 || new.time_ns > TIME_MAX) {
		err_set(err, ERR_USAGE, "%s cannot be counted in times of %.40s", key, time);
		return err_hint(err, "a millisecond is the least, a day the most");
	}
	*rate = new;
	return 0;
}

static int set_connections(struct net_limits *l, const char *key, const char *value,
			   struct err *err)
{
	uint64_t n;

	if (str_to_u64(value, STACK_FLOWS_MAX, &n) < 0 || !n) {
		err_set(err, ERR_USAGE, "%s cannot be \"%.60s\"", key, value);
		return err_hint(err, "it is a number from 1 to %d", STACK_FLOWS_MAX);
	}
	l->connections = (unsigned)n;
	return 0;
}

int net_limits_set(struct net_limits *l, const char *key, const char *value, struct err *err)
{
	const bool none = str_eq(value, "none");

	if (str_eq(key, "max-connections")) {
		if (!none)
			return set_connections(l, key, value, err);
		l->connections = 0;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		struct net_rate *rate = &l->rate[rates[i].of];

		if (!str_starts(key, rates[i].key))
			continue;
		if (str_eq(key + strlen(rates[i].key), "-burst")) {
			rate->burst = 0;
			return none ? 0
				    : parse_amount(key, value, rates[i].bytes, &rate->burst, err);
		}
		if (key[strlen(rates[i].key)])
			continue;
		if (!none)
			return set_rate(rate, key, rates[i].bytes, value, err);
		rate->amount = 0;
		return 0;
	}
	return err_set(err, ERR_USAGE, "there is no limit \"%.60s\" of a network", key);
}

int net_limits_set_pair(struct net_limits *l, const char *pair, struct err *err)
{
	cleanup_free char *key = strdup(pair);
	char *value = key;

	if (!key)
		return err_set(err, ENOMEM, "out of memory");
	strsep(&value, "=");
	return net_limits_set(l, key, value ? value : "", err);
}

int net_limits_check(const struct net_limits *l, struct err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		const struct net_rate *rate = &l->rate[rates[i].of];

		if (!rate->burst || rate->amount)
			continue;
		err_set(err, ERR_USAGE, "a burst of %s without a limit that it is above",
			rates[i].key);
		return err_hint(err, "add --net-%s", rates[i].key);
	}
	return 0;
}

/* ---- buckets ---- */

void net_bucket_init(struct net_bucket *b, const struct net_rate *rate, uint64_t now)
{
	*b = (struct net_bucket){
		.rate = *rate,
		.tokens = (int64_t)rate->amount,
		.once = rate->burst,
		.filled = now,
	};
}

/* What came in since. Parts of a token stay there as what they are, so that none is ever lost. */
static void fill(struct net_bucket *b, uint64_t now)
{
	unsigned __int128 due;

	if (now <= b->filled)
		return;
	due = (unsigned __int128)(now - b->filled) * b->rate.amount + b->rest;
	b->filled = now;
	b->rest = (uint64_t)(due % b->rate.time_ns);
	due /= b->rate.time_ns;
	if (due >= (uint64_t)((int64_t)b->rate.amount - b->tokens)) {
		b->tokens = (int64_t)b->rate.amount;
		b->rest = 0;
	} else {
		b->tokens += (int64_t)due;
	}
}

/* What @level of @old is of @new: what is missing of one is missing of the other, but no more. */
static int64_t moved(int64_t level, uint64_t old, uint64_t new)
{
	if (new > old)
		return level + (int64_t)(new - old);
	return MIN(level, (int64_t) new);
}

void net_bucket_change(struct net_bucket *b, const struct net_rate *rate, uint64_t now)
{
	if (!b->rate.amount || !rate->amount) {
		net_bucket_init(b, rate, now);
		return;
	}
	fill(b, now);
	b->tokens = moved(b->tokens, b->rate.amount, rate->amount);
	b->once = (uint64_t)moved((int64_t)b->once, b->rate.burst, rate->burst);
	/* Parts of a token are parts of its time. */
	if (rate->time_ns != b->rate.time_ns)
		b->rest = 0;
	b->rate = *rate;
}

bool net_bucket_ready(struct net_bucket *b, uint64_t now)
{
	if (!b->rate.amount)
		return true;
	fill(b, now);
	return b->tokens > 0 || b->once;
}

void net_bucket_take(struct net_bucket *b, uint64_t n)
{
	uint64_t once;

	if (!b->rate.amount)
		return;
	/* What comes back is used before what does not. */
	if (b->tokens > 0) {
		uint64_t k = MIN(n, (uint64_t)b->tokens);

		b->tokens -= (int64_t)k;
		n -= k;
	}
	once = MIN(n, b->once);
	b->once -= once;
	b->tokens -= (int64_t)(n - once);
}

uint64_t net_bucket_when(const struct net_bucket *b)
{
	unsigned __int128 need;

	if (!b->rate.amount || b->tokens > 0 || b->once)
		return b->filled;
	need = (unsigned __int128)(1 - b->tokens) * b->rate.time_ns - b->rest;
	return b->filled + (uint64_t)((need + b->rate.amount - 1) / b->rate.amount);
}

void net_gate_change(struct net_gate *g, const struct net_rate *bytes,
		     const struct net_rate *frames, uint64_t now)
{
	net_bucket_change(&g->bytes, bytes, now);
	net_bucket_change(&g->frames, frames, now);
	g->held = false;
}

bool net_gate_open(struct net_gate *g, uint64_t now)
{
	/* Both, so that both are filled. */
	bool bytes = net_bucket_ready(&g->bytes, now), frames = net_bucket_ready(&g->frames, now);

	g->held = !bytes || !frames;
	return !g->held;
}

void net_gate_pass(struct net_gate *g, uint64_t bytes)
{
	net_bucket_take(&g->bytes, bytes);
	net_bucket_take(&g->frames, 1);
}

uint64_t net_gate_when(const struct net_gate *g)
{
	return MAX(net_bucket_when(&g->bytes), net_bucket_when(&g->frames));
}
