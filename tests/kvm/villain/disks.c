/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to a disk that no driver makes. The first sectors are compared afterwards. */
#include "villain.h"

#define AT(p) ((uint64_t)(uintptr_t)(p))

static uint64_t capacity(void)
{
	return read64(dev->at + CONFIG);
}

static void expect(uint32_t type, uint64_t sector, uint32_t len, uint8_t want)
{
	check(blk_request(dev, type, sector, AT(buffer), len) == want, "another status expected");
}

void case_blk_types(void)
{
	for (uint32_t type = 2; type < 64; type++) {
		if (type != BLK_FLUSH && type != BLK_GET_ID && type != BLK_DISCARD &&
		    type != BLK_ZEROES)
			expect(type, 0, 512, BLK_UNSUPP);
	}
	expect(UINT32_MAX, 0, 512, BLK_UNSUPP);
	expect(0x80000000, 0, 512, BLK_UNSUPP); /* once a barrier */
	expect(0x100, 0, 0, BLK_UNSUPP);
	expect(BLK_FLUSH, UINT64_MAX, 0, BLK_OK);
	expect(BLK_GET_ID, UINT64_MAX, 20, BLK_OK);
	expect(BLK_GET_ID, 0, 1, BLK_OK);
	expect(BLK_GET_ID, 0, BUFFER_SIZE, BLK_OK);
}

void case_blk_beyond_the_end(void)
{
	const uint64_t end = capacity();
	const uint64_t sectors[] = {end,	end + 1,    1ull << 32,	      1ull << 54,
				    1ull << 55, 1ull << 63, UINT64_MAX / 512, UINT64_MAX - 1,
				    UINT64_MAX};

	for (size_t i = 0; i < COUNT(sectors); i++) {
		expect(BLK_IN, sectors[i], 512, BLK_IOERR);
		expect(BLK_IN, sectors[i], BUFFER_SIZE, BLK_IOERR);
		expect(BLK_OUT, sectors[i], 512, BLK_IOERR);
	}
	expect(BLK_IN, end - 1, 512, BLK_OK);
	expect(BLK_IN, end - 1, 1024, BLK_IOERR);
	expect(BLK_OUT, end - 1, 1024, BLK_IOERR);
	expect(BLK_IN, end, 0, BLK_OK);
	expect(BLK_IN, end + 1, 0, BLK_IOERR);
	/* What a failed read leaves is not memory of the host, but zeros. */
	for (unsigned i = 0; i < 64; i++)
		check(buffer[i] == 0, "a failed read left something");
}

void case_blk_odd_lengths(void)
{
	const uint32_t odd[] = {1, 15, 511, 513, 1023, 4095, 65535};

	for (size_t i = 0; i < COUNT(odd); i++) {
		expect(BLK_IN, 0, odd[i], BLK_IOERR);
		expect(BLK_OUT, VILLAIN_SCRATCH, odd[i], BLK_IOERR);
	}
	expect(BLK_IN, 0, 0, BLK_OK);
	expect(BLK_OUT, 0, 0, BLK_OK);
}

/* The header's page holds the header, and behind it the status. */
static struct blk_request *request(uint32_t type, uint64_t sector)
{
	struct blk_request *h = (struct blk_request *)(buffer + 4096);

	*h = (struct blk_request){type, 0, sector};
	buffer[8192] = BLK_UNTOUCHED;
	return h;
}

static void chain(const struct desc *d, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		ring->desc[i] = d[i];
	publish(ring, 0);
	notify(dev, 0);
}

#define HEADER(len)                                                                                \
	{                                                                                          \
		AT(request(BLK_IN, 0)), len, NEXT, 1                                               \
	}
#define DATA(len, how)                                                                             \
	{                                                                                          \
		AT(buffer), len, (how) | NEXT, 2                                                   \
	}
#define STATUS_BYTE(how)                                                                           \
	{                                                                                          \
		AT(buffer) + 8192, 1, how, 0                                                       \
	}

void case_blk_wrong_directions(void)
{
	struct desc d[] = {HEADER(16), DATA(512, 0), STATUS_BYTE(WRITE)};

	/* A read into readable buffers reads nothing; a write from writable ones writes nothing. */
	request(BLK_IN, 0);
	buffer[0] = 0x77;
	chain(d, 3);
	check(wait_used(dev, ring) == 1 && buffer[8192] == BLK_OK, "a read of nothing");
	check(buffer[0] == 0x77, "a buffer was written that must be read");
	request(BLK_OUT, VILLAIN_SCRATCH);
	d[1].flags = WRITE | NEXT;
	chain(d, 3);
	check(wait_used(dev, ring) == 513 && buffer[8192] == BLK_OK, "a write of nothing");
	check(buffer[0] == 0, "what was not filled is not zero");
}

void case_blk_write_to_read_only(void)
{
	const uint32_t types[] = {BLK_OUT, BLK_DISCARD, BLK_ZEROES};

	dev = find_dev(2, 1);
	ring = dev->ring;
	bring_up(dev, F_INDIRECT);
	__builtin_memset(buffer, 0, 512);
	for (size_t i = 0; i < COUNT(types); i++) {
		expect(types[i], 3, 512, BLK_IOERR);
		expect(types[i], 3, 16, BLK_IOERR);
	}
	blk_verify(dev);
}

void case_blk_ranges(void)
{
	static const struct {
		uint64_t sector;
		uint32_t sectors, flags;
		uint8_t discard, zeroes;
	} ranges[] = {
		{VILLAIN_SCRATCH, 8, 0, BLK_OK, BLK_OK},
		{VILLAIN_SCRATCH, 0, 0, BLK_OK, BLK_OK},
		{VILLAIN_SCRATCH, 8, 1, BLK_UNSUPP, BLK_OK},
		{VILLAIN_SCRATCH, 8, 2, BLK_UNSUPP, BLK_UNSUPP},
		{VILLAIN_SCRATCH, 8, UINT32_MAX, BLK_UNSUPP, BLK_UNSUPP},
		{VILLAIN_SCRATCH, UINT32_MAX, 0, BLK_IOERR, BLK_IOERR},
		{UINT64_MAX, 1, 0, BLK_IOERR, BLK_IOERR},
		{UINT64_MAX, UINT32_MAX, 0, BLK_IOERR, BLK_IOERR},
		{UINT64_MAX / 512 + 1, 8, 0, BLK_IOERR, BLK_IOERR},
		{1ull << 55, 1, 0, BLK_IOERR, BLK_IOERR},
	};
	struct {
		uint64_t sector;
		uint32_t sectors, flags;
	} *r = (void *)buffer;

	for (size_t i = 0; i < COUNT(ranges); i++) {
		r->sector = ranges[i].sector;
		r->sectors = ranges[i].sectors;
		r->flags = ranges[i].flags;
		expect(BLK_DISCARD, 0, 16, ranges[i].discard);
		expect(BLK_ZEROES, 0, 16, ranges[i].zeroes);
	}
	/* A good one, then a bad: neither is carried out. */
	for (unsigned i = 0; i < 16; i++) {
		r[i].sector = i < 15 ? 0 : capacity();
		r[i].sectors = 8;
		r[i].flags = 0;
	}
	expect(BLK_ZEROES, 0, 256, BLK_IOERR);
	expect(BLK_DISCARD, 0, 256, BLK_IOERR);
	expect(BLK_ZEROES, 0, 0, BLK_IOERR);
	expect(BLK_ZEROES, 0, 15, BLK_IOERR);
	expect(BLK_ZEROES, 0, 17, BLK_IOERR);
	expect(BLK_ZEROES, 0, 272, BLK_IOERR);
	expect(BLK_ZEROES, 0, BUFFER_SIZE, BLK_IOERR);
	blk_verify(dev);
}

/* However a good request is cut, it is the same request. */
void case_blk_shapes(void)
{
	struct desc d[RING];

	for (uint32_t cut = 1; cut < 20; cut += 3) {
		unsigned n = 0;

		request(BLK_IN, 5);
		for (uint32_t at = 0; at < 16; at += cut, n++)
			d[n] = (struct desc){AT(buffer) + 4096 + at, cut < 16 - at ? cut : 16 - at,
					     NEXT, (uint16_t)(n + 1)};
		d[n] = (struct desc){0, 0, NEXT, (uint16_t)(n + 1)}; /* empty, of nowhere */
		n++;
		/* Data and status in one, and the status byte within the ring's table of old. */
		d[n] = (struct desc){AT(buffer), 513, WRITE, 0};
		chain(d, n + 1);
		check(wait_used(dev, ring) == 513 && buffer[512] == BLK_OK, "a read fails");
		check(buffer[1] == 5 * 7 + 1, "a read has the wrong data");
	}
	/* Direct descriptors first, a table last, which may say that it is writable. */
	request(BLK_IN, 6);
	table[0] = (struct desc){AT(buffer), 512, WRITE | NEXT, 1};
	table[1] = (struct desc)STATUS_BYTE(WRITE);
	d[0] = (struct desc){AT(buffer) + 4096, 16, NEXT, 1};
	d[1] = (struct desc){AT(table), 32, INDIRECT | WRITE, 0};
	chain(d, 2);
	check(wait_used(dev, ring) == 513 && buffer[8192] == BLK_OK, "a read fails");
	check(buffer[1] == 6 * 7 + 1, "a read has the wrong data");
}

void case_blk_chain_of_the_whole_queue(void)
{
	struct desc d[RING];

	request(BLK_IN, 0);
	d[0] = (struct desc){AT(buffer) + 4096, 16, NEXT, 1};
	for (uint16_t i = 1; i < RING - 1; i++)
		d[i] = (struct desc){AT(buffer), 512, WRITE | NEXT, (uint16_t)(i + 1)};
	d[RING - 1] = (struct desc)STATUS_BYTE(WRITE);
	chain(d, RING);
	check(wait_used(dev, ring) == (RING - 2) * 512 + 1, "the chain is cut");
	check(buffer[8192] == BLK_OK, "a read fails");
}

void case_blk_last_byte_of_memory(void)
{
	const struct desc d[] = {
		HEADER(16), {low_end - 512, 512, WRITE | NEXT, 2}, STATUS_BYTE(WRITE)};
	const struct desc e[] = {HEADER(16), DATA(512, WRITE), {low_end - 1, 1, WRITE, 0}};

	request(BLK_IN, 9);
	chain(d, 3);
	check(wait_used(dev, ring) == 513 && buffer[8192] == BLK_OK, "a read fails");
	check(read8(low_end - 1) == (uint8_t)(9 * 7 + 511), "a read has the wrong data");
	chain(e, 3);
	check(wait_used(dev, ring) == 513 && read8(low_end - 1) == BLK_OK, "a read fails");
}

void case_blk_short_header(void)
{
	const struct desc d[] = {HEADER(15), DATA(512, WRITE), STATUS_BYTE(WRITE)};

	strike(d, 3);
	check(buffer[8192] == BLK_UNTOUCHED, "half a request was carried out");
}

void case_blk_no_status(void)
{
	const struct desc d[] = {{AT(request(BLK_OUT, VILLAIN_SCRATCH)), 16, 0, 0}};

	strike(d, 1);
}

void case_blk_header_writable(void)
{
	const struct desc d[] = {{AT(request(BLK_IN, 0)), 16, WRITE | NEXT, 1}, STATUS_BYTE(WRITE)};

	strike(d, 2);
	check(buffer[8192] == BLK_UNTOUCHED, "half a request was carried out");
}

void case_blk_status_readable(void)
{
	const struct desc d[] = {HEADER(16), STATUS_BYTE(0)};

	strike(d, 2);
	check(buffer[8192] == BLK_UNTOUCHED, "what must be read was written");
}

void case_blk_empty_chain(void)
{
	const struct desc d[] = {{AT(buffer), 0, 0, 0}};

	strike(d, 1);
}

/* A table of @n buffers of a MiB each, in request @type. */
static void post_large(uint32_t type, uint64_t sector, unsigned n, unsigned times)
{
	request(type, sector);
	table[0] = (struct desc){AT(buffer) + 4096, 16, NEXT, 1};
	for (unsigned i = 1; i <= n; i++)
		table[i] = (struct desc){AT(buffer) + (2 << 20), 1 << 20, WRITE | NEXT,
					 (uint16_t)(i + 1)};
	table[n + 1] = (struct desc)STATUS_BYTE(WRITE);
	ring->desc[0] = (struct desc){AT(table), (n + 2) * 16, INDIRECT, 0};
	while (times--)
		publish(ring, 0);
	notify(dev, 0);
}

void case_blk_too_large(void)
{
	post_large(BLK_IN, 0, 127, 1);
	(void)wait_used(dev, ring);
	check(buffer[8192] == BLK_IOERR, "a request beyond all limits was carried out");
	post_large(BLK_IN, 0, 1000, 1);
	(void)wait_used(dev, ring);
	check(buffer[8192] == BLK_IOERR, "a request beyond all limits was carried out");
	post_large(BLK_IN, VILLAIN_SCRATCH, 126, 1);
	(void)wait_used(dev, ring);
	check(buffer[8192] == BLK_OK, "a request within limits fails");
}

void case_blk_reset_in_flight(void)
{
	for (unsigned i = 0; i < 12; i++) {
		bring_up(dev, F_INDIRECT);
		post_large(BLK_IN, VILLAIN_SCRATCH, 1 + i * 6, RING);
		if (i % 3 == 1)
			(void)wait_used(dev, ring);
		reset(dev);
		/* It has stopped: what we put there stays. */
		__builtin_memset(buffer + (2 << 20), 0x5a, 4096);
		buffer[8192] = BLK_UNTOUCHED;
		ring->used.idx = 0;
		for (unsigned k = 0; k < 20; k++)
			(void)get(dev, STATUS);
		check(buffer[2 << 20] == 0x5a && buffer[8192] == BLK_UNTOUCHED && !ring->used.idx,
		      "a device that was reset goes on");
	}
}

void case_blk_queue_stopped_in_flight(void)
{
	for (unsigned i = 0; i < 12; i++) {
		uint16_t used;

		bring_up(dev, F_INDIRECT);
		post_large(BLK_IN, VILLAIN_SCRATCH, 1 + i * 3, RING);
		set(dev, QUEUE_SEL, 0);
		set(dev, QUEUE_READY, 0);
		used = ring->used.idx;
		__builtin_memset(buffer + (2 << 20), 0x5a, 4096);
		for (unsigned k = 0; k < 20; k++)
			notify(dev, 0);
		(void)get(dev, STATUS);
		check(buffer[2 << 20] == 0x5a && ring->used.idx == used,
		      "a queue that was stopped goes on");
	}
}

static void change_header(unsigned cpu)
{
	struct blk_request *h = (struct blk_request *)(buffer + 4096);

	(void)cpu;
	while (!others_stop) {
		h->sector = UINT64_MAX;
		h->type = 77;
		h->sector = UINT64_MAX / 512;
		h->type = BLK_IN;
		h->sector = capacity() - 1;
	}
}

void case_blk_toctou_header(void)
{
	start_on_others(1, change_header);
	for (unsigned i = 0; i < turns(500); i++) {
		const struct desc d[] = {
			{AT(buffer) + 4096, 16, NEXT, 1}, DATA(1024, WRITE), STATUS_BYTE(WRITE)};

		buffer[8192] = BLK_UNTOUCHED;
		chain(d, 3);
		(void)wait_used(dev, ring);
		check(buffer[8192] == BLK_IOERR || buffer[8192] == BLK_UNSUPP,
		      "a bad request was carried out");
	}
	stop_others();
}
