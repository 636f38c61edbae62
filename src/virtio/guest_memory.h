/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory as the devices see it: ranges of guest-physical addresses and where each is mapped.
 *
 * This is the one place that turns an address from the guest into a pointer. Every accessor checks
 * the whole range, overflow included, and fails rather than shorten it.
 *
 * A map does not own what it points to: whoever mapped the memory (the KVM engine, the vhost-user
 * server) unmaps it, after every queue that uses the map has stopped. While a queue runs the map
 * must not change; it may be read by any number of threads.
 *
 * The bytes behind the pointers belong to the guest and change at any moment. Copy what must be
 * checked into a local first.
 */
#ifndef VIRTIO_GUEST_MEMORY_H
#define VIRTIO_GUEST_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* A PC needs two or three; vhost-user front-ends send at most 8 without further features. */
#define GUEST_MEMORY_REGIONS_MAX 32

struct guest_region {
	uint64_t gpa, size;
	uint8_t *host;
};

struct guest_memory {
	struct guest_region region[GUEST_MEMORY_REGIONS_MAX]; /* sorted by gpa, disjoint */
	unsigned nregions;
	bool shared; /* mappings of a file, which others may map too */
};

/*
 * Add a region. -EINVAL for an empty one or one that wraps around, -EEXIST when it overlaps
 * another, -ENOSPC when the map is full.
 */
int guest_memory_add(struct guest_memory *m, uint64_t gpa, uint64_t size, void *host);

/* @len bytes at @gpa, contiguous on the host too; NULL if any of them is outside. */
void *guest_memory_ptr(const struct guest_memory *m, uint64_t gpa, uint64_t len);

/*
 * @len bytes at @gpa as at most @max pieces, one per region touched. Returns how many (0 for no
 * bytes), -EFAULT if any byte is outside, -ENOBUFS if @max is too small.
 */
int guest_memory_iov(const struct guest_memory *m, uint64_t gpa, uint64_t len, struct iovec *iov,
		     unsigned max);

/* Copy @len bytes out of guest memory; -EFAULT, and nothing copied, if any is outside. */
int guest_memory_read(const struct guest_memory *m, uint64_t gpa, void *dst, size_t len);

/*
 * Give the host back what is behind these pieces of guest memory, as far as they are whole pages of
 * the host: when they are next touched they are zero. What was there is lost, so this is for the
 * guest to ask for. Returns the bytes it could give back.
 */
uint64_t guest_memory_discard(const struct guest_memory *m, const struct iovec *iov, unsigned n);

/* How many bytes of it the host holds in memory now; takes some milliseconds a GiB. */
uint64_t guest_memory_resident(const struct guest_memory *m);

#endif
