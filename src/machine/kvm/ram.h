/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's memory: one mapping, seen by the guest in one or two pieces around the hole below
 * 4 GiB where devices and interrupt controllers live.
 *
 * Pages exist only once the guest or a device touches them. Private memory gets large pages on any
 * host with transparent huge pages (two thirds fewer exits in a boot); memory in a file, which
 * other processes can map as well, only where shmem_enabled says so, and by default it does not.
 */
#ifndef MACHINE_KVM_RAM_H
#define MACHINE_KVM_RAM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "virtio/guest_memory.h"

/* What every piece's address and size is a multiple of: the processor's large page. */
#define RAM_ALIGN ((uint64_t)2 << 20)

struct ram {
	int fd;		    /* the memory file; -1 when memory is private */
	uint64_t size, low; /* @low bytes of it are below the hole */
	void *host;
	struct guest_memory map;

	/* private */
	void *area;
	uint64_t area_size;
};

#define RAM_INIT                                                                                   \
	{                                                                                          \
		.fd = -1                                                                           \
	}

/*
 * @size bytes of memory, of which at most @hole are below 4 GiB, in a file if @shared. -EINVAL for
 * a size that is no multiple of RAM_ALIGN, -ENOMEM for more than the host has.
 */
int ram_init(struct ram *m, uint64_t size, uint64_t hole, bool shared, struct err *err);
void ram_done(struct ram *m);

#endif
