/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vhost-user back-end: serves one virtio device to one front-end (QEMU) over a connected stream
 * socket. Protocol: "Vhost-user Protocol" in QEMU's interop documents.
 *
 * The server lives on one loop, the transport's thread; all calls are made there, and that must not
 * be one of the device's workers. Give the front-end the other end of a socketpair:
 *
 *	-chardev socket,id=c0,fd=N -device vhost-user-blk,chardev=c0
 *
 * A server serves exactly one connection. When it ends, by the front-end or because of a protocol
 * error, every queue has stopped and guest memory is unmapped before on_end is called.
 *
 * The front-end is trusted not to truncate the memory files it shares, not otherwise.
 */
#ifndef VIRTIO_VHOST_USER_H
#define VIRTIO_VHOST_USER_H

#include "virtio/device.h"

struct vhost_user;

/* @err is empty when the front-end simply closed. The server may be freed in here. */
typedef void vhost_user_end_fn(struct vhost_user *vu, const struct err *err, void *arg);

/* Takes @fd on success. @dev is borrowed and must outlive the server. @fn may be NULL. */
int vhost_user_new(struct virtio_device *dev, struct loop *loop, int fd, vhost_user_end_fn *fn,
		   void *arg, struct vhost_user **ret, struct err *err);

/* Ends the connection without calling on_end. NULL is fine. Returns NULL. */
struct vhost_user *vhost_user_free(struct vhost_user *vu);

/* How much of the memory it shares is there, swapped out or not; 0 before it shares any. */
uint64_t vhost_user_resident(const struct vhost_user *vu);

#endif
