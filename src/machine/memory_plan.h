/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a machine's memory is, for both engines: what it boots with on both sides of the hole below
 * 4 GiB, and behind it, on one side of the hole, a region for what comes later (virtio/mem.h).
 */
#ifndef MACHINE_MEMORY_PLAN_H
#define MACHINE_MEMORY_PLAN_H

#include <stdint.h>

/* Memory below 4 GiB ends here at the latest; QEMU's microvm has it there, too. */
#define MEMORY_HOLE	((uint64_t)3 << 30)
#define MEMORY_HOLE_END ((uint64_t)4 << 30)

struct memory_plan {
	uint64_t end; /* the first address behind what it boots with */
	/*
	 * The region, 0 bytes when there is none. It begins and ends where the kernel can add
	 * memory, so there may be a little more of it than is ever asked for.
	 */
	uint64_t more, more_size;
};

/* For @boot bytes at the start and @most in all, both multiples of 2 MiB. */
struct memory_plan memory_plan(uint64_t boot, uint64_t most);

#endif
