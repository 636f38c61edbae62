/* SPDX-License-Identifier: Apache-2.0 */
/* What the device fuzzers share: input as a stream of numbers, and waiting for a worker. */
#ifndef TESTS_VIRTIO_FUZZ_DRIVER_H
#define TESTS_VIRTIO_FUZZ_DRIVER_H

#include "base/buf.h"
#include "driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void fuzz_nothing(void *arg)
{
	(void)arg;
}

/* The worker has served every kick from before this: what was due in its turns has run. */
static inline void fuzz_settle(struct virtio_device *dev)
{
	for (unsigned i = 0; i < 3; i++)
		loop_call(virtio_queue_loop(dev, 0), fuzz_nothing, NULL);
}

/* Lengths with the interesting ones near. */
static inline uint32_t fuzz_length(struct cur *c)
{
	static const uint32_t lengths[] = {0,	1,   15,   16,	  17,	   44,	       511,
					   512, 513, 4096, 65536, DRV_LOW, 0x7fffffff, 0xffffffff};
	uint8_t v = cur_u8(c);

	return v < sizeof(lengths) / sizeof(lengths[0]) ? lengths[v] : v * 16u;
}

#endif
