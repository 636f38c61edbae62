/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unix sockets of the host that the guest reaches over vsock, and ports of its that are reached
 * through some.
 *
 * Theory of operation. In its jail msb-vm can neither make sockets nor see those of others. A
 * child, forked before the jail is built, does that: it is told a number, connects to the path of
 * that number, and hands the connection back. It has no other files, and a system call list that
 * goes no further. The guest's request waits meanwhile (vsock_answer()); nobody else does. What a
 * path leads to is looked up each time, so a server there may come and go.
 *
 * Sockets to listen on are bound before the jail, too, and accepted from by the main loop. The
 * child removes them when msb-vm has gone, whatever its end was.
 *
 * The main thread's, but for what vsock calls.
 */
#ifndef MACHINE_ROUTES_H
#define MACHINE_ROUTES_H

#include "base/err.h"
#include "base/loop.h"
#include "machine/vm_config.h"
#include "virtio/device.h"

struct routes;

/* Before the jail, with one thread: bind, and fork. NULL when there are none. */
int routes_begin(const struct vm_config *c, struct routes **ret, struct err *err);
/* The device is there, and so is the loop. */
int routes_start(struct routes *r, struct virtio_device *vsock, struct loop *loop, struct err *err);
/* Before the device is freed. NULL is fine; returns NULL. */
struct routes *routes_free(struct routes *r);

#endif
