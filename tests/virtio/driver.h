/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's side of a virtqueue, for tests: memory, rings built by hand, kicks and interrupts.
 * Guest-physical memory is two regions, at 0 and at 4 GiB, so that addresses and host pointers
 * never agree by accident. Used by one thread; what the device also touches is accessed atomically.
 */
#ifndef TESTS_VIRTIO_DRIVER_H
#define TESTS_VIRTIO_DRIVER_H

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "virtio/device.h"

#define DRV_LOW	    (8u << 20)
#define DRV_HIGH    (1u << 20)
#define DRV_HIGH_AT (4ull << 30)

struct drv {
	int memfd;
	uint8_t *mem; /* low, then high */
	struct guest_memory map;
	uint64_t next; /* bump allocator in the low region */
};

struct drvq {
	struct drv *d;
	struct virtqueue_state s;
	uint16_t avail_idx, used_seen, next_desc;
	int kick, call;
	bool event_idx;
};

struct drvbuf {
	uint64_t gpa;
	uint32_t len;
	bool write;
};

static inline void drv_init(struct drv *d)
{
	*d = (struct drv){.next = 4096, .map.shared = true};
	d->memfd = memfd_create("guest", MFD_CLOEXEC);
	if (d->memfd < 0 || ftruncate(d->memfd, DRV_LOW + DRV_HIGH) < 0)
		abort();
	d->mem = mmap(NULL, DRV_LOW + DRV_HIGH, PROT_READ | PROT_WRITE, MAP_SHARED, d->memfd, 0);
	if (d->mem == MAP_FAILED || guest_memory_add(&d->map, 0, DRV_LOW, d->mem) ||
	    guest_memory_add(&d->map, DRV_HIGH_AT, DRV_HIGH, d->mem + DRV_LOW))
		abort();
}

static inline void drv_done(struct drv *d)
{
	munmap(d->mem, DRV_LOW + DRV_HIGH);
	close(d->memfd);
}

static inline uint64_t drv_alloc(struct drv *d, size_t n)
{
	uint64_t at = (d->next + 63) & ~63ull;

	d->next = at + n;
	if (d->next > DRV_LOW)
		abort();
	return at;
}

static inline void *drv_at(struct drv *d, uint64_t gpa)
{
	return gpa < DRV_LOW ? d->mem + gpa : d->mem + DRV_LOW + (gpa - DRV_HIGH_AT);
}

static inline void drvq_init(struct drvq *q, struct drv *d, uint16_t size)
{
	*q = (struct drvq){.d = d, .s.size = size};
	q->s.desc = drv_alloc(d, size * 16u);
	q->s.avail = drv_alloc(d, 6 + size * 2u);
	q->s.used = drv_alloc(d, 6 + size * 8u);
	q->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	q->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static inline void drvq_done(struct drvq *q)
{
	close(q->kick);
	close(q->call);
}

static inline struct vring_desc *drvq_desc(struct drvq *q, unsigned i)
{
	return (struct vring_desc *)drv_at(q->d, q->s.desc) + i;
}

static inline struct vring_avail *drvq_avail(struct drvq *q)
{
	return drv_at(q->d, q->s.avail);
}

static inline struct vring_used *drvq_used(struct drvq *q)
{
	return drv_at(q->d, q->s.used);
}

static inline void drvq_set(struct drvq *q, unsigned i, uint64_t gpa, uint32_t len, uint16_t flags,
			    uint16_t next)
{
	*drvq_desc(q, i) = (struct vring_desc){gpa, len, flags, next};
}

/* Make descriptor @head available. */
static inline void drvq_publish(struct drvq *q, uint16_t head)
{
	struct vring_avail *a = drvq_avail(q);

	__atomic_store_n(&a->ring[q->avail_idx % q->s.size], head, __ATOMIC_RELAXED);
	q->avail_idx++;
	__atomic_store_n(&a->idx, q->avail_idx, __ATOMIC_SEQ_CST);
}

/* A chain of direct descriptors from a rolling position; the caller keeps count of free ones. */
static inline uint16_t drvq_add(struct drvq *q, const struct drvbuf *b, unsigned n)
{
	uint16_t head = q->next_desc % q->s.size;

	for (unsigned i = 0; i < n; i++) {
		uint16_t at = q->next_desc % q->s.size;

		q->next_desc++;
		drvq_set(q, at, b[i].gpa, b[i].len,
			 (uint16_t)((b[i].write ? VRING_DESC_F_WRITE : 0) |
				    (i + 1 < n ? VRING_DESC_F_NEXT : 0)),
			 q->next_desc % q->s.size);
	}
	drvq_publish(q, head);
	return head;
}

static inline void drvq_kick(struct drvq *q)
{
	uint64_t one = 1;

	(void)!write(q->kick, &one, sizeof(one));
}

/* The next used entry, if there is one. */
static inline bool drvq_take(struct drvq *q, uint32_t *head, uint32_t *len)
{
	struct vring_used *u = drvq_used(q);
	struct vring_used_elem *e = &u->ring[q->used_seen % q->s.size];

	if (__atomic_load_n(&u->idx, __ATOMIC_ACQUIRE) == q->used_seen)
		return false;
	*head = __atomic_load_n(&e->id, __ATOMIC_RELAXED);
	*len = __atomic_load_n(&e->len, __ATOMIC_RELAXED);
	q->used_seen++;
	if (q->event_idx)
		__atomic_store_n(&drvq_avail(q)->ring[q->s.size], q->used_seen, __ATOMIC_SEQ_CST);
	return true;
}

/* Wait up to @ms for an interrupt. */
static inline bool drvq_wait(struct drvq *q, int ms)
{
	struct pollfd p = {.fd = q->call, .events = POLLIN};
	uint64_t n;

	if (poll(&p, 1, ms) <= 0)
		return false;
	(void)!read(q->call, &n, sizeof(n));
	return true;
}

/* Kick, and wait for one used entry: its length, or -1 after a minute. */
static inline int64_t drvq_finish(struct drvq *q)
{
	uint32_t head, len;

	drvq_kick(q);
	while (!drvq_take(q, &head, &len)) {
		if (!drvq_wait(q, 60000))
			return -1;
	}
	return len;
}

static inline uint64_t drv_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

#endif
