/* SPDX-License-Identifier: Apache-2.0 */
/* A driver of a network card whose frames and receive buffers are of any shape and length. */
#include "fuzz_driver.h"

#include "echo.h"

static struct echo echo;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cur c = cur_make(data, size);
	uint64_t features = 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC;
	struct virtio_device *dev;
	struct drvq q[NET_QUEUES];
	struct drv d;
	uint8_t how = cur_u8(&c);

	memset(&echo, 0, sizeof(echo));
	if (net_device_new(echo_mac, &echo_ops, &echo, &dev, NULL) < 0)
		abort();
	echo.dev = dev;
	echo.longer = how & 2 ? 3000 : 0;
	if (how & 1)
		features |= 1ull << VIRTIO_NET_F_MRG_RXBUF;
	drv_init(&d);
	if (virtio_device_activate(dev, features, &d.map) < 0)
		abort();
	for (unsigned i = 0; i < NET_QUEUES; i++) {
		drvq_init(&q[i], &d, 32);
		if (virtio_queue_start(dev, i, &q[i].s, q[i].kick, q[i].call) < 0)
			abort();
	}
	for (unsigned i = 0; i < 64 && cur_left(&c); i++) {
		uint8_t op = cur_u8(&c);
		struct drvq *to = &q[op >> 7];
		struct drvbuf b[4];
		unsigned n = 1 + (op & 3);

		for (unsigned k = 0; k < n; k++) {
			uint8_t kind = cur_u8(&c);
			bool write = to == &q[NET_QUEUE_RX];

			b[k] = (struct drvbuf){0x200000 + (kind & 0x3fu) * 4096, fuzz_length(&c),
					       kind & 0x40 ? !write : write};
			if (kind & 0x80)
				b[k].gpa += DRV_HIGH_AT;
		}
		drvq_add(to, b, n);
		if (op & 4) {
			drvq_kick(to);
			fuzz_settle(dev);
		}
		if (op & 8) {
			virtio_device_pause(dev);
			(void)virtio_device_resume(dev);
		}
	}
	drvq_kick(&q[NET_QUEUE_TX]);
	drvq_kick(&q[NET_QUEUE_RX]);
	fuzz_settle(dev);
	virtio_device_free(dev);
	for (unsigned i = 0; i < NET_QUEUES; i++)
		drvq_done(&q[i]);
	drv_done(&d);
	return 0;
}
