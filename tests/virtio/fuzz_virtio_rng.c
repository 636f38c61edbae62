/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of any shape for random numbers, with pauses and resets in between. */
#include "fuzz_driver.h"
#include "virtio/rng.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cur c = cur_make(data, size);
	uint64_t features = 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC;
	struct virtio_device *dev;
	struct drv d;
	struct drvq q;

	if (rng_device_new(&dev, NULL) < 0)
		abort();
	drv_init(&d);
	drvq_init(&q, &d, 32);
	if (virtio_device_activate(dev, features, &d.map) < 0 ||
	    virtio_queue_start(dev, 0, &q.s, q.kick, q.call) < 0)
		abort();
	for (unsigned i = 0; i < 64 && cur_left(&c); i++) {
		uint8_t op = cur_u8(&c);
		struct drvbuf b[4];
		unsigned n = 1 + (op & 3);

		for (unsigned k = 0; k < n; k++) {
			uint8_t kind = cur_u8(&c);

			b[k] = (struct drvbuf){0x200000 + (kind & 0x3fu) * 4096, fuzz_length(&c),
					       !(kind & 0x40)};
			if (kind & 0x80)
				b[k].gpa += DRV_HIGH_AT;
		}
		drvq_add(&q, b, n);
		if (op & 4) {
			drvq_kick(&q);
			fuzz_settle(dev);
		}
		if (op & 8) {
			virtio_device_pause(dev);
			(void)virtio_device_resume(dev);
		}
	}
	drvq_kick(&q);
	fuzz_settle(dev);
	virtio_device_free(dev);
	drvq_done(&q);
	drv_done(&d);
	return 0;
}
