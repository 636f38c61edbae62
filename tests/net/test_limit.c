/* SPDX-License-Identifier: Apache-2.0 */
/* Limits as people write them, and what buckets let through in a simulated time. */
#include "test.h"

#include "base/cleanup.h"
#include "net/limit.h"

#define SECOND UINT64_C(1000000000)

static void words(void **state)
{
	static const char *const good[] = {
		"max-connections=1",	       "max-connections=65536",
		"max-connections=none",	       "max-connection-rate=10",
		"max-connection-rate=10/1m",   "egress-bandwidth=10M",
		"egress-bandwidth=1.5G/500ms", "egress-bandwidth-burst=1M",
		"ingress-bandwidth=1000/1d",   "ingress-ops=1000/100ms",
		"ingress-ops-burst=5",	       "egress-ops=none",
	};
	static const char *const bad[] = {
		"max-connections=0",	     "max-connections=65537",
		"max-connections=-1",	     "max-connections=ten",
		"max-connection-rate=0",     "max-connection-rate=",
		"max-connection-rate=10/",   "max-connection-rate=10/0",
		"max-connection-rate=10/2d", "max-connection-rate=1K",
		"egress-bandwidth=0",	     "egress-bandwidth=10M/10us",
		"egress-bandwidth=10X",	     "egress-bandwidth=99999999T",
		"egress-bandwidth-burst=0",  "egress-ops=1.5",
	};
	struct net_limits l = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		if (net_limits_set_pair(&l, good[i], NULL) < 0)
			fail_msg("refused: %s", good[i]);
	}
	assert_int_equal(l.connections, 0);
	assert_int_equal(l.rate[NET_RATE_CONNECTIONS].amount, 10);
	assert_int_equal(l.rate[NET_RATE_CONNECTIONS].time_ns, 60 * SECOND);
	assert_int_equal(l.rate[NET_RATE_OUT_BYTES].amount, 3u << 29);
	assert_int_equal(l.rate[NET_RATE_OUT_BYTES].burst, 1 << 20);
	assert_int_equal(l.rate[NET_RATE_IN_FRAMES].burst, 5);
	assert_int_equal(net_limits_check(&l, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct err err = ERR_INIT;

		if (net_limits_set_pair(&l, bad[i], &err) != -ERR_USAGE || !err.hint[0])
			fail_msg("\"%s\": %s", bad[i], err.msg);
	}
	assert_int_equal(net_limits_set_pair(&l, "speed=1", NULL), -ERR_USAGE);
	assert_int_equal(net_limits_set_pair(&l, "ingress-ops=none", NULL), 0);
	assert_int_equal(net_limits_check(&l, NULL), -ERR_USAGE);
}

/* How much passes in @time when there is always more, in pieces of @size. */
static uint64_t pass(const struct net_rate *rate, uint64_t size, uint64_t time)
{
	uint64_t now = 12345, end = now + time, sum = 0;
	struct net_bucket b;

	net_bucket_init(&b, rate, now);
	while (now < end) {
		uint64_t when;

		while (net_bucket_ready(&b, now)) {
			net_bucket_take(&b, size);
			sum += size;
		}
		when = net_bucket_when(&b);
		/* Not too early, and not for nothing. */
		assert_true(when > now);
		assert_false(net_bucket_ready(&b, when - 1));
		now = when;
	}
	return sum;
}

static void rates(void **state)
{
	static const struct {
		struct net_rate rate;
		uint64_t size;
	} rows[] = {
		{{1000, SECOND, 0}, 1},
		{{1000, SECOND, 0}, 7},
		{{1000, SECOND, 500}, 10},
		{{10000, SECOND, 0}, 65549},
		{{10 << 20, SECOND, 1 << 20}, 1514},
		{{3, 7 * SECOND, 0}, 1},
		{{1, SECOND / 1000, 0}, 1},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct net_rate *r = &rows[i].rate;
		const uint64_t time = 100 * r->time_ns, sum = pass(r, rows[i].size, time);
		/* Full at the beginning, and the last piece may go into debt. */
		const uint64_t least = r->burst + 100 * r->amount;

		if (sum < least || sum > least + r->amount + rows[i].size)
			fail_msg("row %zu: %llu", i, (unsigned long long)sum);
	}
}

/* Nobody who waits gets more than one time's worth for it. */
static void no_savings(void **state)
{
	const struct net_rate rate = {100, SECOND, 50};
	struct net_bucket b;
	unsigned n = 0;

	(void)state;
	net_bucket_init(&b, &rate, 0);
	for (; net_bucket_ready(&b, 3600 * SECOND); n++)
		net_bucket_take(&b, 1);
	assert_int_equal(n, 150);
	for (n = 0; net_bucket_ready(&b, 7200 * SECOND); n++)
		net_bucket_take(&b, 1);
	assert_int_equal(n, 100);
}

/* Whoever changes something else does not fill the bucket. */
static void changes(void **state)
{
	static const struct {
		struct net_rate from;
		uint64_t taken;
		struct net_rate to;
		int64_t left;
		uint64_t once;
	} rows[] = {
		{{100, SECOND, 50}, 70, {100, SECOND, 50}, 30, 50},
		{{100, SECOND, 50}, 120, {100, SECOND, 50}, 0, 30},
		{{100, SECOND, 0}, 300, {100, SECOND, 0}, -200, 0},
		/* less: no more than fits; more: as much more as there is room */
		{{100, SECOND, 50}, 70, {20, SECOND, 10}, 20, 10},
		{{100, SECOND, 50}, 95, {20, SECOND, 50}, 5, 50},
		{{100, SECOND, 50}, 120, {150, SECOND, 60}, 50, 40},
		{{100, SECOND, 0}, 300, {150, SECOND, 0}, -150, 0},
		{{100, SECOND, 0}, 70, {100, 60 * SECOND, 0}, 30, 0},
		/* from none, to none */
		{{0}, 70, {100, SECOND, 50}, 100, 50},
		{{100, SECOND, 50}, 120, {0}, 0, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct net_bucket b;

		net_bucket_init(&b, &rows[i].from, SECOND);
		net_bucket_take(&b, rows[i].taken);
		net_bucket_change(&b, &rows[i].to, SECOND);
		if (b.tokens != rows[i].left || b.once != rows[i].once)
			fail_msg("row %zu: %lld and %llu", i, (long long)b.tokens,
				 (unsigned long long)b.once);
	}
}

/* However often the same is said, no more goes through. */
static void changed_often(void **state)
{
	const struct net_rate rate = {7, SECOND, 0};
	struct net_bucket b;
	unsigned n = 0;

	(void)state;
	net_bucket_init(&b, &rate, 0);
	for (uint64_t now = 0; now < 100 * SECOND; now += SECOND / 1000 * 3) {
		net_bucket_change(&b, &rate, now);
		if (net_bucket_ready(&b, now)) {
			net_bucket_take(&b, 1);
			n++;
		}
	}
	assert_in_range(n, 7 * 100, 7 * 101);
}

static void gates(void **state)
{
	const struct net_rate bytes = {1000, SECOND, 0}, frames = {2, SECOND, 0}, none = {0};
	struct net_gate g = {0};

	(void)state;
	net_gate_change(&g, &none, &none, 0);
	assert_false(net_gate_limits(&g));
	net_gate_change(&g, &bytes, &frames, 0);
	assert_true(net_gate_open(&g, 0));
	net_gate_pass(&g, 10);
	net_gate_pass(&g, 10);
	assert_false(net_gate_open(&g, 0));
	assert_true(g.held);
	assert_int_equal(net_gate_when(&g), SECOND / 2);
	assert_true(net_gate_open(&g, SECOND / 2));
	net_gate_pass(&g, 3000);
	assert_false(net_gate_open(&g, SECOND));
	assert_int_equal(net_gate_when(&g) / (SECOND / 1000), 2501);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(words),	 cmocka_unit_test(rates),
		cmocka_unit_test(no_savings),	 cmocka_unit_test(changes),
		cmocka_unit_test(changed_often), cmocka_unit_test(gates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
