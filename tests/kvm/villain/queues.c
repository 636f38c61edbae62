/* SPDX-License-Identifier: Apache-2.0 */
/* What can be wrong with a queue, whatever the device. */
#include "villain.h"

#define AT(p) ((uint64_t)(uintptr_t)(p))

/* In the direction that the device expects. */
static uint16_t good_flags(void)
{
	bool in = dev->id == 19 || dev->id == 1 ? target->queue == RX
		  : dev->id == 5		? target->queue == REPORTING
						: dev->id == 4;

	return in ? WRITE : 0;
}

static void one_buffer(uint64_t addr, uint32_t len)
{
	const struct desc d = {addr, len, good_flags(), 0};

	strike(&d, 1);
}

#define ONE_BUFFER(name, addr, len)                                                                \
	void case_##name(void)                                                                     \
	{                                                                                          \
		one_buffer(addr, len);                                                             \
	}
ONE_BUFFER(addr_above_low_memory, low_end, 512)
ONE_BUFFER(addr_across_end_of_memory, low_end - 256, 512)
ONE_BUFFER(addr_below_hole_across, HOLE - 1, 1u << 30)
ONE_BUFFER(addr_in_hole, HOLE + (1 << 20), 512)
ONE_BUFFER(addr_across_4g, FOUR_GIB - 256, 512)
ONE_BUFFER(addr_above_all, high_end, 512)
ONE_BUFFER(addr_of_device_window, WINDOWS, 512)
ONE_BUFFER(addr_wraps, UINT64_MAX - 15, 4096)
ONE_BUFFER(addr_ends_at_2_64, UINT64_MAX - 511, 512)
ONE_BUFFER(len_all_ones, AT(buffer), UINT32_MAX)

void case_len_sum_overflows(void)
{
	const struct desc d = {AT(table), 100 * sizeof(*table), INDIRECT, 0};

	/* Every one is inside memory; together they are more than 4 GiB. */
	for (uint16_t i = 0; i < 100; i++)
		table[i] = (struct desc){0x100000, 48 << 20, (uint16_t)(good_flags() | NEXT),
					 (uint16_t)(i + 1)};
	strike(&d, 1);
}

static void two(struct desc a, struct desc b)
{
	const struct desc d[] = {a, b};

	strike(d, 2);
}

static struct desc small(uint16_t flags, uint16_t next)
{
	return (struct desc){AT(buffer), 64, (uint16_t)(good_flags() | flags), next};
}

void case_loop_to_self(void)
{
	two(small(NEXT, 0), small(0, 0));
}

void case_loop_of_two(void)
{
	two(small(NEXT, 1), small(NEXT, 0));
}

void case_loop_of_empty(void)
{
	two((struct desc){0, 0, NEXT, 1}, (struct desc){0, 0, NEXT, 0});
}

void case_next_out_of_range(void)
{
	two(small(NEXT, (uint16_t)ring_size(ring)), small(0, 0));
}

void case_next_all_ones(void)
{
	two(small(NEXT, UINT16_MAX), small(0, 0));
}

void case_readable_after_writable(void)
{
	two((struct desc){AT(buffer), 64, WRITE | NEXT, 1}, (struct desc){AT(buffer), 64, 0, 0});
}

/* ---- indirect tables ---- */

static void indirect(uint64_t at, uint32_t len, uint16_t flags)
{
	two((struct desc){at, len, (uint16_t)(INDIRECT | flags), 1}, small(0, 0));
}

void case_indirect_nested(void)
{
	table[0] = (struct desc){AT(table + 4), 16, INDIRECT, 0};
	table[4] = small(0, 0);
	indirect(AT(table), 16, 0);
}

void case_indirect_nested_in_self(void)
{
	table[0] = (struct desc){AT(table), 16, INDIRECT, 0};
	indirect(AT(table), 16, 0);
}

void case_indirect_with_next(void)
{
	table[0] = small(0, 0);
	indirect(AT(table), 16, NEXT);
}

void case_indirect_length_odd(void)
{
	table[0] = small(0, 0);
	indirect(AT(table), 17, 0);
}

void case_indirect_length_zero(void)
{
	indirect(AT(table), 0, 0);
}

void case_indirect_length_huge(void)
{
	/* The first entry is inside memory, the next is not. */
	*(struct desc *)(low_end - 16) = small(NEXT, 1);
	indirect(low_end - 16, 0xfffffff0, 0);
}

void case_indirect_outside(void)
{
	indirect(low_end - 8, 16, 0);
}

void case_indirect_wraps(void)
{
	indirect(UINT64_MAX - 15, 4096, 0);
}

void case_indirect_loop(void)
{
	table[0] = small(NEXT, 1);
	table[1] = small(NEXT, 0);
	indirect(AT(table), 32, 0);
}

void case_indirect_next_out_of_range(void)
{
	table[0] = small(NEXT, 2);
	indirect(AT(table), 32, 0);
}

void case_indirect_longer_than_any(void)
{
	for (uint16_t i = 0; i < TABLE_MAX; i++)
		table[i] = (struct desc){AT(buffer), 1, (uint16_t)(good_flags() | NEXT),
					 (uint16_t)(i + 1)};
	table[TABLE_MAX - 1].flags = good_flags();
	indirect(AT(table), TABLE_MAX * sizeof(*table), 0);
}

void case_indirect_not_negotiated(void)
{
	bring_up(dev, 0);
	table[0] = small(0, 0);
	indirect(AT(table), 16, 0);
}

/* ---- the available ring ---- */

static void available(uint16_t idx, uint16_t entry)
{
	ring->desc[0] = small(0, 0);
	for (unsigned i = 0; i < ring_size(ring); i++)
		ring->avail.ring[i] = entry;
	ring->avail.idx = idx;
	provoke();
	check(settle(dev, ring), "the device takes it");
}

void case_avail_jumps_forward(void)
{
	available((uint16_t)(ring_size(ring) + 1), 0);
}

void case_avail_jumps_back(void)
{
	available(UINT16_MAX, 0);
}

void case_avail_entry_out_of_range(void)
{
	available(1, (uint16_t)ring_size(ring));
}

void case_avail_entry_all_ones(void)
{
	available(1, UINT16_MAX);
}

/* ---- where the areas are ---- */

static bool ready_at(uint32_t size, uint64_t desc, uint64_t avail, uint64_t used)
{
	bool ready;

	reset(dev);
	negotiate(dev, F_INDIRECT);
	ready = queue_ready(dev, target->queue, size, desc, avail, used);
	set(dev, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
	notify(dev, target->queue);
	return ready;
}

void case_areas_refused(void)
{
	const uint64_t d = AT(ring->desc), a = AT(&ring->avail), u = AT(&ring->used);
	const uint32_t n = ring_size(ring);
	const struct {
		uint32_t size;
		uint64_t desc, avail, used;
	} bad[] = {
		{0, d, a, u},
		{3, d, a, u},
		{RING + 1, d, a, u},
		{512, d, a, u},
		{65536, d, a, u},
		{65536 + 8, d, a, u},
		{UINT32_MAX, d, a, u},
		/* misaligned */
		{n, d + 8, a, u},
		{n, d, a + 1, u},
		{n, d, a, u + 2},
		/* outside, across the end, wrapping */
		{n, low_end, a, u},
		{n, d, low_end, u},
		{n, d, a, low_end},
		{n, low_end - n * 16 + 16, a, u},
		{n, d, low_end - n * 2, u},
		{n, d, a, low_end - n * 8},
		{n, UINT64_MAX - 15, a, u},
		{n, d, UINT64_MAX - 1, u},
		{n, d, a, UINT64_MAX - 3},
		{n, 1ull << 63, 1ull << 52, 1ull << 40},
		/* on devices and in the hole */
		{n, dev->at, a, u},
		{n, d, dev->at + QUEUE_NOTIFY, u},
		{n, d, a, dev->at + CONFIG},
		{n, d, a, HOLE - 64},
		{n, 0xfee00000, 0xfec00000, 0xfffff000},
	};

	/* More than the host's log takes. */
	for (size_t i = 0; i < 8 * COUNT(bad); i++) {
		size_t k = i % COUNT(bad);

		check(!ready_at(bad[k].size, bad[k].desc, bad[k].avail, bad[k].used),
		      "a queue that cannot work is ready");
	}
	check(ready_at(1, d, a, u), "a queue of one entry is not ready");
}

void case_areas_on_top_of_each_other(void)
{
	const uint64_t at = AT(ring->desc);

	for (unsigned i = 0; i < 40; i++) {
		for (unsigned k = 0; k < RING * 4; k++)
			((uint32_t *)at)[k] = i ? random32() : 0x00010001;
		(void)ready_at(8, at + i % 3 * 16, at + i % 5 * 8, at + i % 7 * 4);
		for (unsigned k = 0; k < 8; k++) {
			write16(at + i % 5 * 8 + 2, (uint16_t)(k + 1));
			notify(dev, target->queue);
		}
		if (target->queue == RX && (dev->id == 19 || dev->id == 1)) {
			(void)queue_good(dev, TX);
			dev->ring[TX].avail.idx = 0;
			provoke();
		}
		(void)is_broken(dev);
	}
	reset(dev);
}

void case_areas_at_end_of_memory(void)
{
	const uint32_t n = ring_size(ring);
	const uint64_t desc = low_end - n * 16, avail = low_end - (6 + n * 2),
		       used = low_end - (8 + n * 8);

	check(ready_at(n, desc, AT(&ring->avail), AT(&ring->used)), "descriptors at the end");
	check(ready_at(n, AT(ring->desc), avail - avail % 2 - 2, AT(&ring->used)),
	      "available ring at the end");
	check(ready_at(n, AT(ring->desc), AT(&ring->avail), used - used % 4),
	      "used ring at the end");
	check(ready_at(n, desc, desc, desc), "all at the end");
	write16(desc + 2, 1);
	provoke();
	reset(dev);
}

/* What the device writes as data, status or header are its own rings. */
void case_buffers_on_rings(void)
{
	const uint64_t on[] = {AT(ring->desc), AT(&ring->avail), AT(&ring->used), AT(table)};

	for (unsigned i = 0; i < 16; i++) {
		struct blk_request *h = (struct blk_request *)(buffer + 4096);

		bring_up(dev, F_INDIRECT);
		*h = (struct blk_request){BLK_IN, 0, 0};
		table[0] = (struct desc){AT(h), 16, NEXT, 1};
		table[1] = (struct desc){on[i % 4], 512, WRITE | NEXT, 2};
		table[2] = (struct desc){on[i / 4], 64, WRITE, 0};
		for (uint16_t k = 0; k < 4; k++) {
			ring->desc[k] = (struct desc){AT(table + (good_flags() ? 1 : 0)),
						      (good_flags() ? 2 : 3) * 16, INDIRECT, 0};
			publish(ring, k);
		}
		provoke();
		reset(dev);
	}
}

/* The same buffers in all entries, all entries at once, again and again. */
void case_same_chain_many_times(void)
{
	struct blk_request *h = (struct blk_request *)(buffer + 4096);

	*h = (struct blk_request){BLK_IN, 0, 0};
	ring->desc[0] = (struct desc){AT(h), 16, NEXT, 1};
	ring->desc[1] = (struct desc){AT(buffer) + 8192, 65536, WRITE, 0};
	if (good_flags())
		ring->desc[0] = small(0, 0);
	for (unsigned turn = 0; turn < 20 && !is_broken(dev); turn++) {
		for (unsigned i = 0; i < ring_size(ring); i++)
			publish(ring, 0);
		provoke();
		if (!good_flags() && !settle(dev, ring))
			check(ring->used.idx == ring->avail.idx, "not all were used");
	}
}

/* ---- at random ---- */

static uint64_t random_address(void)
{
	const uint64_t some[] = {AT(buffer), AT(table), AT(ring), low_end,    HOLE,
				 FOUR_GIB,   dev->at,	0,	  UINT64_MAX, 0x100000};

	return some[random32() % COUNT(some)] + (random32() & 3 ? 0 : random32() % 8192 - 4096ull);
}

static struct desc random_desc(unsigned n)
{
	const uint32_t lengths[] = {0, 1, 16, 44, 64, 512, 513, 4096, 65536, 1 << 20, UINT32_MAX};

	return (struct desc){
		random32() % 4 ? AT(buffer) : random_address(),
		lengths[random32() % COUNT(lengths)],
		(uint16_t)(random32() % 16 ? random32() & (NEXT | WRITE) : random32()),
		(uint16_t)(random32() % 16 ? random32() % n : random32()),
	};
}

void case_random_rings(void)
{
	for (unsigned i = 0; i < turns(150); i++) {
		bring_up(dev, random32());
		for (unsigned k = 0; k < 16; k++) {
			ring->desc[k] = random_desc(16);
			table[k] = random_desc(16);
			ring->avail.ring[k] = (uint16_t)(random32() % 24 ? k : random32());
			if (random32() % 4 == 0)
				ring->desc[k] = (struct desc){AT(table), (k + 1) * 16, INDIRECT, 0};
		}
		*(struct blk_request *)buffer =
			(struct blk_request){random32() % 16, 0, random32() % 8 ? i : UINT64_MAX};
		/* Nothing of it may change the sectors that are compared in the end. */
		if (dev->id == 2 && read32(AT(buffer)) != BLK_GET_ID)
			write32(AT(buffer), BLK_IN);
		ring->avail.flags = (uint16_t)random32();
		ring->avail.used_event = (uint16_t)random32();
		ring->avail.idx = (uint16_t)(random32() % 16 ? random32() % 16 : random32());
		provoke();
	}
}

/* ---- with a second CPU ---- */

static void change_descriptors(unsigned cpu)
{
	static const uint64_t far = UINT64_MAX - 100;

	(void)cpu;
	while (!others_stop) {
		volatile struct desc *d = &ring->desc[random32() % 3];

		d->len = UINT32_MAX;
		d->addr = far;
		d->next = UINT16_MAX;
		d->flags = INDIRECT | NEXT;
		d->flags = WRITE;
		d->addr = AT(buffer);
		d->len = 512;
		d->next = 1;
	}
}

static void change_avail(unsigned cpu)
{
	(void)cpu;
	while (!others_stop) {
		uint16_t idx = ring->avail.idx;

		ring->avail.ring[idx % ring_size(ring)] = UINT16_MAX;
		ring->avail.idx = (uint16_t)(idx + 20000);
		ring->avail.idx = idx;
		ring->avail.ring[idx % ring_size(ring)] = 0;
	}
}

static void change_table(unsigned cpu)
{
	(void)cpu;
	while (!others_stop) {
		table[1] = (struct desc){UINT64_MAX - 15, 4096, INDIRECT | NEXT, 0};
		ring->desc[0].len = 17;
		ring->desc[0].addr = low_end - 16;
		table[1] = (struct desc){AT(buffer), 512, WRITE, 0};
		ring->desc[0].addr = AT(table);
		ring->desc[0].len = 48;
	}
}

static void toctou(void (*job)(unsigned cpu))
{
	start_on_others(1, job);
	for (unsigned i = 0; i < turns(200); i++) {
		bring_up(dev, F_INDIRECT);
		*(struct blk_request *)buffer = (struct blk_request){BLK_IN, 0, 0};
		table[0] = (struct desc){AT(buffer), 16, NEXT, 1};
		ring->desc[0] = (struct desc){AT(table), 48, INDIRECT, 0};
		for (unsigned k = 0; k < 8; k++)
			publish(ring, 0);
		for (unsigned k = 0; k < 8; k++)
			provoke();
	}
	stop_others();
}

void case_toctou_descriptors(void)
{
	toctou(change_descriptors);
}

void case_toctou_avail(void)
{
	toctou(change_avail);
}

void case_toctou_indirect(void)
{
	toctou(change_table);
}

void case_ready_toggles(void)
{
	for (unsigned i = 0; i < 100; i++) {
		if (is_broken(dev))
			bring_up(dev, F_INDIRECT);
		ring->desc[0] = small(0, 0);
		publish(ring, 0);
		notify(dev, target->queue);
		set(dev, QUEUE_SEL, target->queue);
		set(dev, QUEUE_READY, 0);
		check(!get(dev, QUEUE_READY), "a queue that was stopped runs");
		set(dev, QUEUE_READY, 1);
		provoke();
	}
}
