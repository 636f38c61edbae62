/* SPDX-License-Identifier: Apache-2.0 */
/* A driver of the balloon that gives what it has not, and what it needs. */
#include "villain.h"

#define AT(p) ((uint64_t)(uintptr_t)(p))

enum {
	PAGES_MAX = 1 << 18, /* what a request may name */
	SPARE = 64,	     /* pages at the end of buffer, to be given away */
};

static uint32_t page_of(uint64_t at)
{
	return (uint32_t)(at / PAGE_SIZE);
}

static uint8_t *spare(unsigned i)
{
	return buffer + BUFFER_SIZE - (SPARE - i) * PAGE_SIZE;
}

/* The list of page numbers is at the beginning of buffer. */
static uint32_t *list(void)
{
	return (uint32_t *)buffer;
}

static struct desc named(unsigned n)
{
	return (struct desc){AT(list()), n * 4, 0, 0};
}

static void inflate(unsigned n)
{
	check(give(dev, INFLATE, named(n)) == 0, "the device wrote page numbers");
}

static void strike_anew(struct desc d)
{
	bring_up(dev, F_INDIRECT);
	strike(&d, 1);
	check(is_broken(dev), "the device takes what it must not");
}

void case_balloon_outside(void)
{
	const uint32_t outside[] = {
		page_of(low_end),
		page_of(HOLE),
		page_of(HOLE) + 1000,
		page_of(WINDOWS),
		page_of(FOUR_GIB) - 1,
		page_of(high_end),
		page_of(high_end) + (1 << 20),
		0x7fffffff,
		0x80000000,
		UINT32_MAX - 1,
		UINT32_MAX,
	};

	for (size_t i = 0; i < COUNT(outside); i++) {
		list()[0] = outside[i];
		strike_anew(named(1));
	}
}

/* Sorted or not, in the first hundreds or after them. */
void case_balloon_outside_after_good(void)
{
	for (unsigned bad = 0; bad < 600; bad += 85) {
		for (unsigned i = 0; i < 600; i++)
			list()[i] = page_of(AT(spare(i % SPARE)));
		list()[bad] = page_of(high_end) + bad;
		strike_anew(named(600));
	}
}

/* A run that begins inside; below the hole, and at the end of all. */
void case_balloon_across_the_end(void)
{
	const uint64_t ends[] = {low_end, high_end == FOUR_GIB ? low_end : high_end};

	for (size_t e = 0; e < COUNT(ends); e++) {
		for (unsigned i = 0; i < 8; i++)
			list()[i] = page_of(ends[e]) - 7 + i;
		strike_anew(named(8));
	}
}

void case_balloon_odd_lengths(void)
{
	const uint32_t odd[] = {1, 2, 3, 5, 1023, 65537};

	for (size_t i = 0; i < COUNT(odd); i++) {
		__builtin_memset(buffer, 0, odd[i]);
		strike_anew((struct desc){AT(buffer), odd[i], 0, 0});
	}
}

/* The same numbers again and again, @rest bytes of them at the end. */
static struct desc repeated(uint32_t bytes, uint32_t rest)
{
	unsigned n = 0;

	for (unsigned i = 0; i < 1024; i++)
		list()[i] = page_of(AT(spare(i % SPARE)));
	for (; bytes; bytes -= PAGE_SIZE, n++)
		table[n] = (struct desc){AT(list()), PAGE_SIZE, NEXT, (uint16_t)(n + 1)};
	table[n] = (struct desc){AT(list()), rest, 0, 0};
	return (struct desc){AT(table), (n + 1) * (uint32_t)sizeof(*table), INDIRECT, 0};
}

void case_balloon_too_many(void)
{
	strike_anew(repeated(PAGES_MAX * 4, 4));
	/* Nearly 4 GiB of numbers. */
	for (uint16_t i = 0; i < 1000; i++)
		table[i] = (struct desc){AT(buffer), 4 << 20, NEXT, (uint16_t)(i + 1)};
	table[999].flags = 0;
	strike_anew((struct desc){AT(table), 1000 * sizeof(*table), INDIRECT, 0});
}

void case_balloon_many(void)
{
	spare(0)[9] = 1;
	check(give(dev, INFLATE, repeated(PAGES_MAX * 4, 0)) == 0, "the device wrote page numbers");
	check(spare(0)[9] == 0, "an inflated page is still there");
	check(give(dev, DEFLATE, repeated(PAGES_MAX * 4, 4)) == 0, "the device wrote page numbers");
}

void case_balloon_shapes(void)
{
	/* Nothing at all; nothing but a writable buffer, which stays as it is. */
	inflate(0);
	list()[0] = 0x12345678;
	check(give(dev, INFLATE, (struct desc){AT(list()), 4, WRITE, 0}) == 0, "a used length");
	check(list()[0] == 0x12345678, "the device wrote page numbers");
	/* Backwards, and each twice; those between them stay. */
	for (unsigned i = 0; i < SPARE; i++) {
		spare(i)[9] = 1;
		list()[i] = page_of(AT(spare((SPARE - 1 - i) / 2 * 2)));
	}
	inflate(SPARE);
	for (unsigned i = 0; i < SPARE; i++)
		check(spare(i)[9] == (i % 2 != 0), "another page was inflated");
	/* The list's own page, after it was read. */
	list()[0] = page_of(AT(list()));
	inflate(1);
	check(list()[0] == 0, "the list is still there");
	/* The first page, the last, and the first behind the hole. */
	list()[0] = 0;
	list()[1] = page_of(low_end) - 1;
	list()[2] = page_of(high_end) - 1;
	list()[3] = page_of(FOUR_GIB);
	inflate(high_end == FOUR_GIB ? 2 : 4);
	/* A number in two buffers. */
	list()[0] = page_of(AT(spare(0)));
	spare(0)[9] = 1;
	table[0] = (struct desc){AT(list()), 3, NEXT, 1};
	table[1] = (struct desc){AT(list()) + 3, 1, 0, 0};
	check(give(dev, INFLATE, (struct desc){AT(table), 32, INDIRECT, 0}) == 0, "a used length");
	check(spare(0)[9] == 0, "an inflated page is still there");
	/* What is deflated need not be anything. */
	for (unsigned i = 0; i < 64; i++)
		list()[i] = UINT32_MAX - i;
	for (uint32_t len = 0; len < 256; len += 37)
		check(give(dev, DEFLATE, (struct desc){AT(list()), len, len % 2 ? WRITE : 0, 0}) ==
			      0,
		      "a used length");
}

/* Only what the driver holds can be written, whole or in pieces. */
void case_balloon_config(void)
{
	const uint64_t wanted = dev->at + CONFIG, actual = wanted + 4;
	const uint32_t before = read32(wanted);

	for (uint64_t at = wanted; at < actual; at++) {
		write8(at, 0xa5);
		write16(at, 0xa5a5);
		write32(at, 0xa5a5a5a5);
		write64(at, 0xa5a5a5a5a5a5a5a5);
	}
	check(read32(wanted) == before, "the driver says what the host wants");
	check(read32(actual) == 0, "an access that is half wrong was half done");
	for (uint64_t at = actual + 1; at < actual + 5; at++) {
		write64(at, UINT64_MAX);
		write32(at, UINT32_MAX);
		if (at == actual + 3)
			write16(at, UINT16_MAX);
	}
	write64(actual, UINT64_MAX);
	check(read64(actual) == 0, "an access beyond the end was half done");
	write32(actual, UINT32_MAX);
	check(read32(actual) == UINT32_MAX, "more than the host wanted is not written down");
	write16(actual + 1, 0x1234);
	write8(actual + 3, 0x56);
	check(read32(actual) == 0x561234ff, "it cannot be written in pieces");
	check(read32(wanted) == before && read64(wanted + 8) == 0, "something else was written");
	for (unsigned i = 0; i < 1000; i++)
		write32(actual, random32());
	check(!(get(dev, INTERRUPT_STATUS) & INT_CONFIG), "the driver is told what it said");
	reset(dev);
	check(read32(actual) == 0, "a reset leaves pages in the balloon");
}

static void report(uint64_t at, uint32_t len, uint16_t flags)
{
	check(give(dev, REPORTING, (struct desc){at, len, flags, 0}) == 0, "a used length");
}

void case_balloon_report_shapes(void)
{
	for (unsigned i = 0; i < 8; i++)
		__builtin_memset(spare(i), 0x55, PAGE_SIZE);
	report(AT(spare(0)), 0, WRITE);
	report(UINT64_MAX, 0, WRITE);
	report(AT(spare(0)), 4 * PAGE_SIZE, 0); /* to be read: nothing is free */
	report(AT(spare(0)), PAGE_SIZE - 1, WRITE);
	report(AT(spare(0)) + 1, PAGE_SIZE, WRITE);
	report(AT(spare(1)) + 1, 2 * PAGE_SIZE - 2, WRITE);
	for (unsigned i = 0; i < 3 * PAGE_SIZE; i += 13)
		check(spare(0)[i] == 0x55, "a part of a page was reported, and all is gone");
	/* One whole page is between. */
	report(AT(spare(3)) - 1, PAGE_SIZE + 2, WRITE);
	check(spare(2)[PAGE_SIZE - 1] == 0x55 && spare(4)[0] == 0x55, "a neighbour is gone");
	check(spare(3)[0] == 0 && spare(3)[PAGE_SIZE - 1] == 0, "a reported page is still there");
	/* The same a thousand times. */
	for (uint16_t i = 0; i < 1000; i++)
		table[i] = (struct desc){AT(spare(5)), PAGE_SIZE, WRITE | NEXT, (uint16_t)(i + 1)};
	table[999].flags = WRITE;
	report(AT(table), 1000 * sizeof(*table), INDIRECT);
	check(spare(5)[0] == 0 && spare(6)[0] == 0x55, "another page was reported");
	/* From below the hole to its end; and above it. */
	report(low_end - 2 * PAGE_SIZE - 7, 2 * PAGE_SIZE + 7, WRITE);
	if (high_end > FOUR_GIB)
		report(FOUR_GIB, (uint32_t)(high_end - FOUR_GIB), WRITE);
}

/* Its own rings are among the pages: the device finds zeros there. */
void case_balloon_rings(void)
{
	for (unsigned i = 0; i < 16; i++) {
		struct ring *of = &dev->ring[i % 3];
		unsigned n = 0;

		bring_up(dev, F_INDIRECT);
		if (i & 1)
			list()[n++] = page_of(AT(of->desc));
		if (i & 2)
			list()[n++] = page_of(AT(&of->avail));
		if (i & 4)
			list()[n++] = page_of(AT(&of->used));
		if (i & 8)
			list()[n++] = page_of(AT(list()));
		for (uint16_t k = 0; k < 4; k++) {
			ring->desc[k] = named(n);
			publish(ring, k);
		}
		notify(dev, INFLATE);
		for (unsigned k = 0; k < 1000 && !is_broken(dev); k++)
			pause();
		reset(dev);
	}
}

void case_balloon_report_rings(void)
{
	for (unsigned i = 0; i < 12; i++) {
		struct ring *of = &dev->ring[i % 3], *r = &dev->ring[REPORTING];
		const uint64_t at[] = {AT(of->desc), AT(&of->avail), AT(&of->used), AT(of)};

		bring_up(dev, F_INDIRECT);
		for (uint16_t k = 0; k < 4; k++) {
			r->desc[k] = (struct desc){at[i / 3],
						   i / 3 == 3 ? (uint32_t)sizeof(*of) : PAGE_SIZE,
						   WRITE, 0};
			publish(r, k);
		}
		notify(dev, REPORTING);
		for (unsigned k = 0; k < 1000 && !is_broken(dev); k++)
			pause();
		reset(dev);
	}
}

/* All of the spare pages in all queues at once, full. */
static void fill_all(void)
{
	for (unsigned q = INFLATE; q <= REPORTING; q++) {
		struct ring *r = &dev->ring[q];

		for (unsigned i = 0; i < SPARE; i++)
			list()[i] = page_of(AT(spare(i)));
		for (uint16_t i = 0; i < ring_size(r); i++) {
			r->desc[i] = q == REPORTING ? (struct desc){AT(spare(0)), SPARE * PAGE_SIZE,
								    WRITE, 0}
						    : named(SPARE);
			publish(r, i);
		}
		notify(dev, q);
	}
}

static void touch_for_ever(unsigned cpu)
{
	while (!others_stop) {
		for (unsigned i = 0; i < SPARE; i++)
			((volatile uint8_t *)spare(i))[cpu] = (uint8_t)cpu;
	}
}

/* Given away, taken back, and in use all the time. */
void case_balloon_storm(void)
{
	start_on_others(3, touch_for_ever);
	for (unsigned i = 0; i < 30; i++) {
		fill_all();
		for (unsigned q = INFLATE; q <= REPORTING; q++)
			check(!settle(dev, &dev->ring[q]), "the device broke");
	}
	stop_others();
}

void case_balloon_reset_in_flight(void)
{
	start_on_others(3, touch_for_ever);
	for (unsigned i = 0; i < turns(60); i++) {
		bring_up(dev, F_INDIRECT);
		fill_all();
		for (unsigned k = i % 16; k; k--)
			pause();
		reset(dev);
		/* What has stopped takes no more. */
		((volatile uint8_t *)spare(0))[9] = 1;
		check(((volatile uint8_t *)spare(0))[9] == 1, "a queue that was stopped took");
	}
	stop_others();
}

static void change_list(unsigned cpu)
{
	volatile uint32_t *p = list();

	(void)cpu;
	while (!others_stop) {
		for (unsigned i = 0; i < SPARE; i++)
			p[i] = random32() % 4 ? page_of(AT(spare(i))) : UINT32_MAX - i;
		for (unsigned i = 0; i < SPARE; i++)
			p[i] = page_of(AT(spare(i)));
	}
}

/* The numbers change while the device looks at them. */
void case_balloon_toctou(void)
{
	for (unsigned i = 0; i < SPARE; i++)
		list()[i] = page_of(AT(spare(i)));
	start_on_others(1, change_list);
	for (unsigned i = 0; i < turns(200); i++) {
		struct desc d = named(SPARE);

		if (is_broken(dev))
			bring_up(dev, F_INDIRECT);
		ring->desc[0] = d;
		publish(ring, 0);
		notify(dev, INFLATE);
		(void)settle(dev, ring);
	}
	stop_others();
}

/*
 * The page we run on, and all others of this program. What comes back is zeros, or what the file of
 * the kernel has there: nothing to return to in either case.
 */
void case_balloon_code(void)
{
	const uint32_t first = page_of(AT(case_balloon_code));

	list()[0] = first;
	for (unsigned i = 1; i < 32; i++)
		list()[i] = first - 16 + i;
	last_words();
	inflate(32);
	for (;;)
		__asm__ volatile("hlt");
}

void case_balloon_report_everything(void)
{
	last_words();
	report(0, (uint32_t)low_end, WRITE);
}
