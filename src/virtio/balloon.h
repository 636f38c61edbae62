/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-balloon (virtio 1.2, 5.5): memory that the guest does not use goes back to the host.
 *
 * Two ways. The driver reports free blocks (2 MiB and more, some two seconds after they became
 * free) by itself; it may use them again at any time without asking. And the host can set a target:
 * the driver then takes that much out of the guest's use, page by page, until the target falls or
 * the guest would run out of memory (DEFLATE_ON_OOM).
 *
 * Given back are whole pages inside guest memory, whoever owns them there: a driver that names
 * pages in use, rings among them, finds zeros in them and has hurt itself.
 */
#ifndef VIRTIO_BALLOON_H
#define VIRTIO_BALLOON_H

#include "virtio/device.h"

int balloon_device_new(struct virtio_device **ret, struct err *err);

/* Ask the driver to take @bytes (rounded down to 4 KiB) out of use; 0 to return all. Any thread. */
void balloon_set_target(struct virtio_device *dev, uint64_t bytes);

/* How much the driver says it has taken; on the way to the target, or all it could. Any thread. */
uint64_t balloon_size(struct virtio_device *dev);

#endif
