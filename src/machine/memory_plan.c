/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/memory_plan.h"

/*
 * Linux on x86 adds memory in blocks of 128 MiB, and in larger ones, up to 2 GiB, once it has
 * booted with 64 GiB (arch/x86/mm/init_64.c, probe_memory_block_size()).
 */
#define BLOCK	    ((uint64_t)128 << 20)
#define LARGE_BLOCK ((uint64_t)2 << 30)
#define LARGE	    ((uint64_t)64 << 30)

static uint64_t round_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

struct memory_plan memory_plan(uint64_t boot, uint64_t most)
{
	struct memory_plan p = {boot, 0, 0};
	uint64_t block;

	if (boot > MEMORY_HOLE)
		p.end = MEMORY_HOLE_END + (boot - MEMORY_HOLE);
	block = p.end < LARGE ? BLOCK : LARGE_BLOCK;
	if (most > boot) {
		p.more = round_up(p.end, block);
		p.more_size = round_up(most - boot, block);
		if (p.more < MEMORY_HOLE_END && p.more + p.more_size > MEMORY_HOLE)
			p.more = MEMORY_HOLE_END;
	}
	return p;
}
