/* SPDX-License-Identifier: Apache-2.0 */
/* Requests for random numbers that no driver makes. */
#include "villain.h"

#define AT(p) ((uint64_t)(uintptr_t)(p))

/* What a request gets at most. */
enum { MOST = 4096 };

void case_rng_readable(void)
{
	const struct desc d = {AT(buffer), 64, 0, 0};

	strike(&d, 1);
}

void case_rng_readable_in_front(void)
{
	const struct desc d[] = {{AT(buffer), 1, NEXT, 1}, {AT(buffer), 64, WRITE, 0}};

	strike(d, 2);
}

void case_rng_nothing(void)
{
	const struct desc d = {AT(buffer), 0, WRITE, 0};

	strike(&d, 1);
}

/* A long table of buffers, each of @len bytes at @at. */
static struct desc many(unsigned n, uint64_t at, uint32_t len)
{
	for (unsigned i = 0; i < n; i++)
		table[i] = (struct desc){at, len, WRITE | NEXT, (uint16_t)(i + 1)};
	table[n - 1].flags = WRITE;
	return (struct desc){AT(table), n * (uint32_t)sizeof(*table), INDIRECT, 0};
}

void case_rng_nothing_often(void)
{
	const struct desc d = many(1024, AT(buffer), 0);

	strike(&d, 1);
}

void case_rng_over_4g_indirect(void)
{
	const struct desc d = many(1024, 0x100000, 5 << 20);

	strike(&d, 1);
}

static bool all_zero(unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++) {
		if (buffer[i])
			return false;
	}
	return true;
}

void case_rng_shapes(void)
{
	__builtin_memset(buffer, 0, 8192);
	check(give(dev, 0, (struct desc){AT(buffer) + 100, 1, WRITE, 0}) == 1, "not one byte");
	check(all_zero(0, 100) && all_zero(101, 200), "more than one byte");
	check(give(dev, 0, many(1024, AT(buffer), 1)) == 1024, "not a byte for each buffer");
	check(all_zero(1, 100), "more than the buffers");
	check(give(dev, 0, many(1000, AT(buffer), 0x100)) == MOST, "more than a request gets");
	check(give(dev, 0, (struct desc){low_end - 5, 5, WRITE, 0}) == 5, "not the last bytes");
	check(give(dev, 0, (struct desc){low_end - MOST, MOST, WRITE, 0}) == MOST,
	      "not the last page");
	/* Two buffers, the first empty. */
	table[0] = (struct desc){UINT64_MAX, 0, WRITE | NEXT, 1};
	table[1] = (struct desc){AT(buffer), 16, WRITE, 0};
	check(give(dev, 0, (struct desc){AT(table), 32, INDIRECT, 0}) == 16, "not what there is");
}

/* Nearly 4 GiB are asked for: no more than a page of it is touched. */
void case_rng_greedy(void)
{
	__builtin_memset(buffer, 0, 2 * MOST);
	check(give(dev, 0, (struct desc){AT(buffer), BUFFER_SIZE, WRITE, 0}) == MOST,
	      "more than a request gets");
	check(all_zero(MOST, 2 * MOST), "more was written than said");
	check(give(dev, 0, many(1000, AT(buffer), 4 << 20)) == MOST, "more than a request gets");
	check(all_zero(MOST, 2 * MOST), "more was written than said");
}

/* As many as there may be at a time, each of all there is. */
static void ask_all(void)
{
	for (uint16_t i = 0; i < ring_size(ring); i++) {
		ring->desc[i] = (struct desc){AT(buffer), BUFFER_SIZE, WRITE, 0};
		publish(ring, i);
	}
	notify(dev, 0);
}

void case_rng_storm(void)
{
	for (unsigned i = 0; i < turns(200); i++) {
		ask_all();
		check(!settle(dev, ring), "the device broke");
	}
}

static void notify_for_ever(unsigned cpu)
{
	(void)cpu;
	while (!others_stop)
		notify(dev, 0);
}

void case_rng_reset_in_flight(void)
{
	start_on_others(3, notify_for_ever);
	for (unsigned i = 0; i < turns(200); i++) {
		bring_up(dev, i % 2 ? F_INDIRECT : 0);
		ask_all();
		for (unsigned k = i % 16; k; k--)
			pause();
		reset(dev);
		/* What has stopped writes no more. */
		__builtin_memset(buffer, 0, 64);
		check(all_zero(0, 64), "a queue that was stopped wrote");
	}
	stop_others();
}
