/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who answers which address: ports, and guest-physical addresses that are no memory.
 *
 * Filled before the first vCPU runs and constant from then on, so that vCPU threads need no lock to
 * look something up. The functions are called by any of them, several at a time.
 */
#ifndef MACHINE_KVM_BUS_H
#define MACHINE_KVM_BUS_H

#include <stdint.h>

/* All devices a machine can have, and the few of the platform. */
#define BUS_RANGES_MAX 64

/* @off counts from the start of the range. @len is 1, 2, 4 or 8 and inside the range. */
typedef void bus_read_fn(void *arg, uint64_t off, void *p, uint32_t len);
typedef void bus_write_fn(void *arg, uint64_t off, const void *p, uint32_t len);

struct bus_range {
	uint64_t base, size;
	bus_read_fn *read;
	bus_write_fn *write;
	void *arg;
};

struct bus {
	struct bus_range range[BUS_RANGES_MAX]; /* sorted, disjoint */
	unsigned nranges;
};

/* -EINVAL for an empty range or one that wraps around, -EEXIST for an overlap, -ENOSPC when full.
 */
int bus_add(struct bus *b, const struct bus_range *r);

/* Where nobody answers, reads give ones and writes are lost, as on a PC. */
void bus_read(const struct bus *b, uint64_t addr, void *p, uint32_t len);
void bus_write(const struct bus *b, uint64_t addr, const void *p, uint32_t len);

#endif
