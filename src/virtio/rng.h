/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-rng (virtio 1.2, 5.4): the host's random numbers.
 *
 * A request gets at most a page of them, which the specification leaves to the device: whoever
 * wants more asks again, and waits for its turn.
 */
#ifndef VIRTIO_RNG_H
#define VIRTIO_RNG_H

#include "virtio/device.h"

int rng_device_new(struct virtio_device **ret, struct err *err);

#endif
