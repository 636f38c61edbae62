/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-vsock (virtio 1.2, 5.10): byte streams between the guest and sockets on the host.
 *
 * Each connection is bridged to a stream socket on the host, normally one end of a socketpair. The
 * device owns that end; closing or shutting down the other one is how the host ends a connection,
 * and it reads end-of-file when the guest does. All data sent before either arrives first.
 *
 * A reset of the device ends its connections, but what the guest had sent is still delivered: wait
 * for vsock_connections() to become 0 before virtio_device_free() if that matters.
 *
 * The calls below may be made from any thread (they hand over to the device's worker and wait),
 * the callbacks included. Callbacks run on the worker: they must not block, and must not
 * loop_call() into a thread that may be calling the device.
 */
#ifndef VIRTIO_VSOCK_H
#define VIRTIO_VSOCK_H

#include "virtio/device.h"

#define VSOCK_CID_HOST	2u
#define VSOCK_CID_FIRST 3u /* the first a guest may have */
/* Listens on every port that nobody listens on. */
#define VSOCK_PORT_ANY UINT32_MAX

/*
 * The guest connects from its @guest_port to @host_port. Return a stream socket, which the device
 * then owns, or -errno to refuse. The socket may be a blocking one. -EINPROGRESS: vsock_answer()
 * follows.
 */
typedef int vsock_accept_fn(struct virtio_device *dev, uint32_t guest_port, uint32_t host_port,
			    void *arg);

struct vsock_options {
	uint32_t guest_cid;	  /* 0 means VSOCK_CID_FIRST */
	unsigned max_connections; /* 0 means 1024 */
	/* How much the guest may send ahead of the host's reader, per connection; 0 means 256 KiB.
	 */
	uint32_t buffer_size;
	/* As by vsock_listen(), without waiting for the device's thread; NULL for none. */
	vsock_accept_fn *accept;
	uint32_t port;
	void *arg;
};

int vsock_device_new(const struct vsock_options *options, struct virtio_device **ret,
		     struct err *err);

/* For a connection that was put off: its socket, which the device then owns, or -errno. */
void vsock_answer(struct virtio_device *dev, uint32_t guest_port, uint32_t host_port, int fd);

/* -EADDRINUSE when the port is taken, -ENOSPC beyond 64 listeners. */
int vsock_listen(struct virtio_device *dev, uint32_t port, vsock_accept_fn *fn, void *arg);
/* Connections that exist stay. After the return the callback is not called any more. */
void vsock_unlisten(struct virtio_device *dev, uint32_t port);

/*
 * Called exactly once per successful vsock_connect(): 0 when the guest accepted, -ECONNREFUSED,
 * -ETIMEDOUT, -ECONNRESET when the device is freed or the guest sent nonsense. On failure the
 * socket is closed around the same time, so the other end also sees end-of-file.
 */
typedef void vsock_connect_fn(struct virtio_device *dev, int result, void *arg);

/*
 * Connect to @guest_port and bridge to @fd, which the device owns if this returns 0. Before the
 * guest's driver is up the request waits for it. @timeout_ms of 0 means no limit. @fn may be NULL.
 * -EMFILE when the table of connections is full.
 */
int vsock_connect(struct virtio_device *dev, uint32_t guest_port, int fd, uint32_t timeout_ms,
		  vsock_connect_fn *fn, void *arg);

/* Open connections, those being opened or closed included. */
unsigned vsock_connections(struct virtio_device *dev);

#endif
