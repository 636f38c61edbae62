/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's memory: one mapping, seen by the guest in one or two pieces around the hole below
 * 4 GiB where devices and interrupt controllers live.
 *
 * Pages exist only once the guest or a device touches them. Large ones make fewer exits, but a boot
 * touches a little of everything and would own twice as much; so they are asked for where a boot
 * fills them (ram_want_large()), and everywhere once it is over. Huge pages from the host's pool
 * are reserved all at once: a guest that has been given them never waits for memory, and never
 * lacks any.
 */
#ifndef MACHINE_KVM_RAM_H
#define MACHINE_KVM_RAM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "virtio/guest_memory.h"

/* What every piece's address and size is a multiple of: the processor's large page. */
#define RAM_ALIGN ((uint64_t)2 << 20)

enum ram_kind {
	RAM_PRIVATE,
	RAM_SHARED, /* in a file */
	RAM_HUGE,   /* private, in huge pages that the host has set aside (hugetlbfs) */
};

struct ram {
	enum ram_kind kind;
	int fd;		    /* the memory file; -1 when memory is private */
	uint64_t size, low; /* @low bytes of it are below the hole */
	void *host;
	struct guest_memory map;
	unsigned boot; /* the first so many regions of it are what the guest boots with */

	/* private */
	struct ram_area {
		void *at; /* NULL: not mapped */
		uint64_t size;
	} area, more;
};

#define RAM_INIT                                                                                   \
	{                                                                                          \
		.fd = -1                                                                           \
	}

/*
 * -ENOMEM for more than memory and swap of this host together, which could only end with the guest
 * being killed half-way.
 */
int ram_check_host(uint64_t size, struct err *err);

/*
 * @size bytes of memory, of which at most @hole are below 4 GiB. -EINVAL for a size that is no
 * multiple of RAM_ALIGN; -ENOMEM when too few huge pages are free.
 */
int ram_init(struct ram *m, uint64_t size, uint64_t hole, enum ram_kind kind, struct err *err);
/* @size bytes at @gpa, above all others, for memory that comes later. Private, in ordinary pages.
 */
int ram_more(struct ram *m, uint64_t gpa, uint64_t size, struct err *err);
/*
 * From here on let large pages back [gpa, gpa + len), widened to whole ones, where nothing has been
 * touched yet. For private memory; memory in a file has them only where shmem_enabled says so.
 */
void ram_want_large(struct ram *m, uint64_t gpa, uint64_t len);

void ram_done(struct ram *m);

#endif
