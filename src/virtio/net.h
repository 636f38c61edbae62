/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net (virtio 1.2, 5.1): a network card with one pair of queues.
 *
 * The card knows nothing of what frames say. It hands those of the guest to its back-end as pieces
 * of guest memory, and gives it room for frames to the guest, again in guest memory, in as many
 * receive buffers as it takes. Checksums and segmentation are offered in both directions: what a
 * frame leaves undone is in its header.
 *
 * Everything happens on the device's worker: the back-end's functions are called there, and it may
 * call net_device_reserve() and net_device_commit() there only.
 */
#ifndef VIRTIO_NET_H
#define VIRTIO_NET_H

#include <linux/virtio_net.h>

#include "virtio/device.h"

enum net_queue { NET_QUEUE_RX, NET_QUEUE_TX, NET_QUEUES };

struct net_backend_ops {
	/* What the driver takes of VIRTIO_NET_F_GUEST_*, before its first frame. */
	void (*features)(void *arg, uint64_t features);
	/* How many frames may come before this is asked again; 0: none until net_device_resume().
	 */
	unsigned (*frames)(void *arg);
	/*
	 * A frame, whose pieces stay as they are until settle() has returned. The fields of @h are
	 * in host order.
	 */
	void (*input)(void *arg, const struct iovec *iov, unsigned n,
		      const struct virtio_net_hdr_v1 *h);
	/* The frames so far go back to the driver. */
	void (*settle)(void *arg);
	/* After a batch of frames, and when the guest has room again. */
	void (*run)(void *arg);
	/* The last call: let go of what is tied to the worker's loop. */
	void (*stop)(void *arg);
};

/* @ops and @arg are borrowed for the device's life. */
int net_device_new(const uint8_t mac[6], const struct net_backend_ops *ops, void *arg,
		   struct virtio_device **ret, struct err *err);

/* After frames() said that none may come: now they may. On the device's worker. */
void net_device_resume(struct virtio_device *dev);

/*
 * Room for a frame of @len bytes in at most @max pieces; 0 when there is none, in which case run()
 * is called once there may be. net_device_commit() follows, with the length used or 0.
 */
unsigned net_device_reserve(struct virtio_device *dev, size_t len, struct iovec *iov, unsigned max);
void net_device_commit(struct virtio_device *dev, size_t len, const struct virtio_net_hdr_v1 *h);

#endif
