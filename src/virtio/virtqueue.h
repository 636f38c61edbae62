/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Split virtqueues, the device's side (virtio 1.2, 2.7).
 *
 * The driver puts the head of a descriptor chain into the available ring, the device takes it with
 * virtqueue_pop(), works on the buffers in place and returns it with virtqueue_push(). Chains may
 * be returned in any order.
 *
 * Everything in the rings is hostile. An index, descriptor or table is read once, checked, and
 * used; the first violation marks the queue broken (virtqueue_pop() then keeps failing, `why` says
 * what was wrong) and the owner tells its transport. Nothing the driver writes can make a call here
 * run longer than VIRTQUEUE_CHAIN_MAX steps or touch a byte outside guest memory.
 *
 * A virtqueue belongs to one thread. It holds no descriptor and no thread, so its state can be
 * taken out (virtqueue_save()), stored, and started again elsewhere.
 */
#ifndef VIRTIO_VIRTQUEUE_H
#define VIRTIO_VIRTQUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "virtio/guest_memory.h"

/* The largest ring the specification allows is 32768; no driver of ours asks for more than this. */
#define VIRTQUEUE_SIZE_MAX 1024

/*
 * Buffers in one chain. The specification stops at the ring size, but Linux builds longer indirect
 * tables; this is what preadv() takes at once.
 */
#define VIRTQUEUE_CHAIN_MAX 1024

/* What a queue is: plain data, valid in any process that has the same guest memory. */
struct virtqueue_state {
	uint64_t desc, avail, used; /* guest-physical addresses of the three areas */
	uint16_t size;		    /* a power of two */
	uint16_t last_avail;	    /* next available entry to take */
	uint16_t last_used;	    /* next used entry to fill */
};

struct virtqueue {
	struct virtqueue_state state;
	bool broken;
	const char *why; /* static text; what broke the queue */

	/* private */
	const struct guest_memory *mem;
	bool event_idx, indirect;
	void *desc, *avail, *used;
	uint16_t signalled;   /* used index at the last notification... */
	bool signalled_valid; /* ...if there was one */
};

/* A chain taken from the queue: buffers to read, then buffers to write. */
struct virtqueue_chain {
	uint16_t head;
	unsigned nread, nwrite;
	uint32_t read_len, write_len; /* total bytes */
	struct iovec *read, *write;   /* inside the array given to virtqueue_pop() */
};

/*
 * Begin to serve the queue described by @s. @features are the negotiated feature bits. @mem is
 * borrowed until the queue is no longer used. -EINVAL for a bad size or misaligned area, -EFAULT
 * for one outside guest memory (or across two regions).
 */
int virtqueue_start(struct virtqueue *vq, const struct virtqueue_state *s, uint64_t features,
		    const struct guest_memory *mem);

/* The state to start again from. Every popped chain must have been pushed or rewound. */
struct virtqueue_state virtqueue_save(const struct virtqueue *vq);

/*
 * Take the next chain, using @iov for its buffers. 1 with @c filled, 0 when there is none,
 * -ENOBUFS when @niov < VIRTQUEUE_CHAIN_MAX was too small (the chain stays), -EIO when the queue
 * is broken. Empty buffers are dropped.
 */
int virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *c, struct iovec *iov,
		  unsigned niov);

/* Put the last @n chains popped back, unused. Nothing popped after them may have been pushed. */
void virtqueue_rewind(struct virtqueue *vq, unsigned n);

/* Return a chain into whose writable buffers @written bytes were put. */
void virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t written);

/* The same in two steps, for chains that the driver must see all at once or not at all. */
void virtqueue_put(struct virtqueue *vq, uint16_t head, uint32_t written);
void virtqueue_publish(struct virtqueue *vq);

/* Does the driver want an interrupt for what was pushed since this last said yes? */
bool virtqueue_should_notify(struct virtqueue *vq);

/*
 * Ask the driver not to kick, or to kick again. virtqueue_enable_kick() returns true when chains
 * became available meanwhile: the caller must serve them, because their kick may have been
 * suppressed.
 */
void virtqueue_disable_kick(struct virtqueue *vq);
bool virtqueue_enable_kick(struct virtqueue *vq);

/* Mark the queue broken for a reason found by the device above; @why is static text. -EIO. */
int virtqueue_break(struct virtqueue *vq, const char *why);

#endif
