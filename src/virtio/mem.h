/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-mem (virtio 1.2, 5.15): memory that comes and goes while the guest runs.
 *
 * The device has a region of guest-physical addresses behind the memory that the guest booted with,
 * in blocks of MEM_BLOCK. The host says how much of it there is to be; the driver asks for blocks,
 * in places of its choice, until there is as much, or gives some up. What it gives up goes back to
 * the host at once and is zero when it comes again.
 *
 * All of the region is mapped and in the guest-memory map from the start. So a block that is not
 * plugged is harmless in a descriptor, and at every moment, whichever thread is at it; a guest that
 * uses what it was not given gets zeros, and costs at most what it could have asked for.
 */
#ifndef VIRTIO_MEM_H
#define VIRTIO_MEM_H

#include "virtio/device.h"

/* The host's large pages: what is given up goes whole. */
#define MEM_BLOCK ((uint64_t)2 << 20)

#define MEM_STATE_VERSION 1u

/* What the device is, as plain data: mem_state_size() bytes. */
struct mem_state {
	uint32_t version, reserved;
	uint64_t gpa, size;	     /* the region */
	uint64_t requested, plugged; /* bytes */
	uint64_t blocks[];	     /* a bit each: it is plugged */
};

struct mem_options {
	uint64_t gpa, size; /* the region: multiples of MEM_BLOCK */
	/* There is more or less than before. On the device's worker; must not call back. */
	void (*changed)(void *arg);
	void *arg;
};

/* -EINVAL for a region that is empty, wraps around, or is not of whole blocks. */
int mem_device_new(const struct mem_options *o, struct virtio_device **ret, struct err *err);

/* Have @bytes (rounded down to MEM_BLOCK, at most the region) plugged. Any thread. */
void mem_want(struct virtio_device *dev, uint64_t bytes);

/* How much is plugged. Any thread. */
uint64_t mem_plugged(struct virtio_device *dev);

/*
 * While no queue runs: into @ret, and out of @s into a device with the same region, whose memory is
 * what it was. -EINVAL for a state that is none of this device's.
 */
size_t mem_state_size(const struct virtio_device *dev);
void mem_save(struct virtio_device *dev, struct mem_state *ret);
int mem_restore(struct virtio_device *dev, const struct mem_state *s, size_t n);

#endif
