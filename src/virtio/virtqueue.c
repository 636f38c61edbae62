/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ordering. The driver publishes a chain by storing the available index with release; our acquire
 * load makes descriptors and buffers visible. We publish used entries the same way round. The two
 * places where one side stores and then loads what the other stores (used index against used_event
 * or the interrupt flag; avail_event or the kick flag against the available index) need a full
 * barrier between, which sequentially consistent accesses give.
 *
 * Fields are little-endian (VIRTIO_F_VERSION_1 is required by the device layer).
 */
#include "virtio/virtqueue.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stddef.h>

_Static_assert(sizeof(struct vring_desc) == 16, "descriptor is 16 bytes (2.7.5)");
_Static_assert(sizeof(struct vring_used_elem) == 8, "used element is 8 bytes (2.7.8)");

static struct vring_avail *avail_ring(struct virtqueue *vq)
{
	return vq->avail;
}

static struct vring_used *used_ring(struct virtqueue *vq)
{
	return vq->used;
}

/* The event fields follow the rings (2.7.6, 2.7.8). */
static __virtio16 *used_event(struct virtqueue *vq)
{
	return &avail_ring(vq)->ring[vq->state.size];
}

static __virtio16 *avail_event(struct virtqueue *vq)
{
	return (__virtio16 *)&used_ring(vq)->ring[vq->state.size];
}

static uint16_t load16(const __virtio16 *p, int order)
{
	return le16toh(order == __ATOMIC_SEQ_CST   ? __atomic_load_n(p, __ATOMIC_SEQ_CST)
		       : order == __ATOMIC_ACQUIRE ? __atomic_load_n(p, __ATOMIC_ACQUIRE)
						   : __atomic_load_n(p, __ATOMIC_RELAXED));
}

int virtqueue_start(struct virtqueue *vq, const struct virtqueue_state *s, uint64_t features,
		    const struct guest_memory *mem)
{
	bool event_idx = features & (1ull << VIRTIO_RING_F_EVENT_IDX);
	size_t n = s->size, event = event_idx ? sizeof(__virtio16) : 0;
	void *desc, *avail, *used;

	if (!n || (n & (n - 1)) || n > VIRTQUEUE_SIZE_MAX)
		return -EINVAL;
	desc = guest_memory_ptr(mem, s->desc, n * sizeof(struct vring_desc));
	avail = guest_memory_ptr(mem, s->avail, offsetof(struct vring_avail, ring[n]) + event);
	used = guest_memory_ptr(mem, s->used, offsetof(struct vring_used, ring[n]) + event);
	if (!desc || !avail || !used)
		return -EFAULT;
	if ((uintptr_t)desc % VRING_DESC_ALIGN_SIZE || (uintptr_t)avail % VRING_AVAIL_ALIGN_SIZE ||
	    (uintptr_t)used % VRING_USED_ALIGN_SIZE)
		return -EINVAL;
	*vq = (struct virtqueue){
		.state = *s,
		.mem = mem,
		.event_idx = event_idx,
		.indirect = features & (1ull << VIRTIO_RING_F_INDIRECT_DESC),
		.desc = desc,
		.avail = avail,
		.used = used,
	};
	return 0;
}

struct virtqueue_state virtqueue_save(const struct virtqueue *vq)
{
	return vq->state;
}

int virtqueue_break(struct virtqueue *vq, const char *why)
{
	if (!vq->broken)
		vq->why = why;
	vq->broken = true;
	return -EIO;
}

/* A descriptor in host byte order, read once. */
struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

/* Where the descriptors of a chain are: the queue's table, or an indirect one at @gpa. */
struct table {
	uint64_t gpa;
	uint32_t n;
	bool is_indirect;
};

static int read_desc(struct virtqueue *vq, const struct table *t, uint32_t i, struct desc *d)
{
	struct vring_desc raw;

	if (t->is_indirect) {
		int r = guest_memory_read(vq->mem, t->gpa + (uint64_t)i * sizeof(raw), &raw,
					  sizeof(raw));
		if (r < 0)
			return r;
	} else {
		volatile const struct vring_desc *p = (struct vring_desc *)vq->desc + i;

		raw = *p;
	}
	*d = (struct desc){le64toh(raw.addr), le32toh(raw.len), le16toh(raw.flags),
			   le16toh(raw.next)};
	return 0;
}

static int enter_indirect(struct virtqueue *vq, struct table *t, const struct desc *d)
{
	if (!vq->indirect)
		return virtqueue_break(vq, "indirect descriptor without the feature");
	if (t->is_indirect)
		return virtqueue_break(vq, "indirect table inside an indirect table");
	if (d->flags & VRING_DESC_F_NEXT)
		return virtqueue_break(vq, "indirect descriptor with a successor");
	if (!d->len || d->len % sizeof(struct vring_desc))
		return virtqueue_break(vq, "indirect table of a bad length");
	*t = (struct table){d->addr, d->len / sizeof(struct vring_desc), true};
	if (d->addr + d->len < d->addr)
		return virtqueue_break(vq, "indirect table outside guest memory");
	return 0;
}

/* Add the buffer of @d to the chain; readable buffers come before writable ones (2.7.4.2). */
static int add_buffer(struct virtqueue *vq, struct virtqueue_chain *c, const struct desc *d,
		      struct iovec *iov, unsigned niov)
{
	bool write = d->flags & VRING_DESC_F_WRITE;
	unsigned have = c->nread + c->nwrite;
	uint32_t *sum = write ? &c->write_len : &c->read_len;
	int n;

	if (!write && c->nwrite)
		return virtqueue_break(vq, "readable buffer after a writable one");
	if (__builtin_add_overflow(*sum, d->len, sum))
		return virtqueue_break(vq, "chain longer than 4 GiB");
	n = guest_memory_iov(vq->mem, d->addr, d->len, iov + have, niov - have);
	if (n == -ENOBUFS && niov < VIRTQUEUE_CHAIN_MAX)
		return n;
	if (n == -ENOBUFS)
		return virtqueue_break(vq, "chain of too many buffers");
	if (n < 0)
		return virtqueue_break(vq, "buffer outside guest memory");
	if (write)
		c->nwrite += (unsigned)n;
	else
		c->nread += (unsigned)n;
	return 0;
}

static int walk(struct virtqueue *vq, struct virtqueue_chain *c, struct iovec *iov, unsigned niov)
{
	struct table t = {0, vq->state.size, false};
	uint32_t i = c->head;
	uint32_t steps = 0; /* in this table: more than its length means a loop */
	struct desc d;
	int r;

	for (;;) {
		if (read_desc(vq, &t, i, &d) < 0)
			return virtqueue_break(vq, "indirect table outside guest memory");
		if (d.flags & VRING_DESC_F_INDIRECT) {
			r = enter_indirect(vq, &t, &d);
			if (r < 0)
				return r;
			i = steps = 0;
			continue;
		}
		r = add_buffer(vq, c, &d, iov, niov);
		if (r < 0)
			return r;
		if (!(d.flags & VRING_DESC_F_NEXT))
			return 0;
		if (++steps >= t.n)
			return virtqueue_break(vq, "descriptor loop");
		if (steps >= VIRTQUEUE_CHAIN_MAX)
			return virtqueue_break(vq, "chain of too many buffers");
		if (d.next >= t.n)
			return virtqueue_break(vq, "descriptor index out of range");
		i = d.next;
	}
}

int virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *c, struct iovec *iov, unsigned niov)
{
	struct virtqueue_chain chain = {0};
	uint16_t pending;
	int r;

	if (vq->broken)
		return -EIO;
	pending = (uint16_t)(load16(&avail_ring(vq)->idx, __ATOMIC_ACQUIRE) - vq->state.last_avail);
	if (!pending)
		return 0;
	if (pending > vq->state.size)
		return virtqueue_break(vq, "available index jumped");
	chain.head = load16(&avail_ring(vq)->ring[vq->state.last_avail & (vq->state.size - 1)],
			    __ATOMIC_RELAXED);
	if (chain.head >= vq->state.size)
		return virtqueue_break(vq, "available entry out of range");
	r = walk(vq, &chain, iov, niov);
	if (r < 0)
		return r;
	chain.read = iov;
	chain.write = iov + chain.nread;
	vq->state.last_avail++;
	*c = chain;
	return 1;
}

void virtqueue_rewind(struct virtqueue *vq, unsigned n)
{
	vq->state.last_avail = (uint16_t)(vq->state.last_avail - n);
}

void virtqueue_put(struct virtqueue *vq, uint16_t head, uint32_t written)
{
	struct vring_used *used = used_ring(vq);
	struct vring_used_elem *e = &used->ring[vq->state.last_used & (vq->state.size - 1)];

	__atomic_store_n(&e->id, htole32(head), __ATOMIC_RELAXED);
	__atomic_store_n(&e->len, htole32(written), __ATOMIC_RELAXED);
	vq->state.last_used++;
}

void virtqueue_publish(struct virtqueue *vq)
{
	__atomic_store_n(&used_ring(vq)->idx, htole16(vq->state.last_used), __ATOMIC_SEQ_CST);
}

void virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t written)
{
	virtqueue_put(vq, head, written);
	virtqueue_publish(vq);
}

bool virtqueue_should_notify(struct virtqueue *vq)
{
	uint16_t now = vq->state.last_used, before = vq->signalled;
	bool valid = vq->signalled_valid;

	if (!vq->event_idx)
		return !(load16(&avail_ring(vq)->flags, __ATOMIC_SEQ_CST) &
			 VRING_AVAIL_F_NO_INTERRUPT);
	vq->signalled = now;
	vq->signalled_valid = true;
	return !valid || vring_need_event(load16(used_event(vq), __ATOMIC_SEQ_CST), now, before);
}

void virtqueue_disable_kick(struct virtqueue *vq)
{
	/* With event indices a stale avail_event asks for no kick until a full turn later. */
	if (!vq->event_idx)
		__atomic_store_n(&used_ring(vq)->flags, htole16(VRING_USED_F_NO_NOTIFY),
				 __ATOMIC_RELAXED);
}

bool virtqueue_enable_kick(struct virtqueue *vq)
{
	if (vq->event_idx)
		__atomic_store_n(avail_event(vq), htole16(vq->state.last_avail), __ATOMIC_SEQ_CST);
	else
		__atomic_store_n(&used_ring(vq)->flags, 0, __ATOMIC_SEQ_CST);
	return load16(&avail_ring(vq)->idx, __ATOMIC_SEQ_CST) != vq->state.last_avail;
}
