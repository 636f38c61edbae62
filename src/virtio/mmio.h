/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio over MMIO (virtio 1.2, 4.2), register version 2: the transport of an engine that sees the
 * guest's accesses itself.
 *
 * The engine claims MMIO_SIZE bytes of guest-physical space, sends accesses there to virtio_mmio_
 * read() and _write() (any vCPU thread; a lock of the transport makes them one at a time), lets a
 * write of queue number N to MMIO_QUEUE_NOTIFY signal virtio_mmio_kick_fd(N) without leaving the
 * kernel (KVM_IOEVENTFD). The function it is made with makes an interrupt, an edge.
 *
 * InterruptStatus always shows "used buffer": that interrupt is the worker's alone, and a driver
 * that looks at a ring in vain loses nothing. Acknowledging it (MMIO_INTERRUPT_ACK with
 * MMIO_ACK_USED) is therefore a no-op that need not arrive here. "Configuration changed" is shown
 * until it is acknowledged.
 *
 * Nor need reads: what one can say is in a page, too, that the engine may let the guest see in place
 * of the registers, read-only (KVM_MEM_READONLY), so that no interrupt of a device leaves the kernel.
 */
#ifndef VIRTIO_MMIO_H
#define VIRTIO_MMIO_H

#include "virtio/device.h"

enum {
	MMIO_SIZE = 0x200,
	MMIO_QUEUE_NOTIFY = 0x50,
	MMIO_INTERRUPT_ACK = 0x64,
	MMIO_ACK_USED = 1,
};

struct virtio_mmio;

/*
 * @dev and @mem are borrowed and must outlive the transport. Any thread calls @interrupt, which must
 * not call back.
 */
int virtio_mmio_new(struct virtio_device *dev, const struct guest_memory *mem,
		    virtio_interrupt_fn *interrupt, void *arg, struct virtio_mmio **ret,
		    struct err *err);

/* An access of the guest. Widths and offsets that the device has not are ignored and read as 0. */
void virtio_mmio_read(struct virtio_mmio *t, uint64_t off, void *p, uint32_t len);
/* -errno when this was to start a queue that cannot work: for a log, the driver sees it itself. */
int virtio_mmio_write(struct virtio_mmio *t, uint64_t off, const void *p, uint32_t len);

/*
 * Show in @page, of MMIO_SIZE bytes, from here on what virtio_mmio_read() of whole registers gives;
 * there are no wrong widths and offsets then.
 * Borrowed; it is kept up to date until the transport is freed. Before the guest runs.
 */
void virtio_mmio_show(struct virtio_mmio *t, void *page);

unsigned virtio_mmio_queues(const struct virtio_mmio *t);
int virtio_mmio_kick_fd(const struct virtio_mmio *t, unsigned queue);

/* Resets the device. NULL is fine. Returns NULL. */
struct virtio_mmio *virtio_mmio_free(struct virtio_mmio *t);

#endif
