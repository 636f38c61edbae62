/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of any shape to a small disk: per request a header, then up to eight buffers. */
#include <linux/virtio_blk.h>

#include "base/io.h"
#include "fuzz_driver.h"
#include "virtio/blk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cur c = cur_make(data, size);
	uint64_t features = 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC;
	uint8_t flags = cur_u8(&c);
	struct virtio_device *dev;
	struct blk_disk *disk;
	struct drv d;
	struct drvq q;
	int fd = io_memfd("disk", NULL, 0, NULL);

	if (fd < 0 || ftruncate(fd, 65536) < 0)
		abort();
	if (flags & 1) {
		struct blk_extent e[2] = {{512, 1000, fd, 7}, {4096, 5000, fd, 60000}};

		if (blk_extents_new(e, 2, 20000, &disk, NULL) < 0)
			abort();
	} else if (blk_file_new(fd, &(struct blk_file_options){flags & 2, flags & 4}, &disk, NULL) <
		   0) {
		abort();
	}
	if (blk_device_new(disk, &(struct blk_options){.serial = "fuzz"}, &dev, NULL) < 0)
		abort();
	drv_init(&d);
	drvq_init(&q, &d, 64);
	if (virtio_device_activate(dev, features, &d.map) < 0 ||
	    virtio_queue_start(dev, 0, &q.s, q.kick, q.call) < 0)
		abort();
	for (unsigned i = 0; i < 64 && cur_left(&c); i++) {
		struct drvbuf b[9];
		uint64_t hdr = 0x100000 + i * 16u;
		unsigned n = 1 + (cur_u8(&c) & 7);

		*(struct virtio_blk_outhdr *)drv_at(&d, hdr) = (struct virtio_blk_outhdr){
			.type = cur_u8(&c) & 31, .sector = (uint64_t)(int8_t)cur_u8(&c)};
		b[0] = (struct drvbuf){hdr, flags & 8 ? cur_u8(&c) & 31 : 16u, false};
		for (unsigned k = 1; k <= n; k++) {
			uint8_t kind = cur_u8(&c);

			b[k] = (struct drvbuf){0x200000 + (kind & 0x3fu) * 4096, fuzz_length(&c),
					       kind & 0x40};
			if (kind & 0x80)
				b[k] = (struct drvbuf){hdr, cur_u8(&c), false};
		}
		if (flags & 16)
			b[n] = (struct drvbuf){0x180000 + i, 1, true};
		drvq_add(&q, b, n + 1);
		if (i % 6 == 5) {
			drvq_kick(&q);
			fuzz_settle(dev);
		}
		if (cur_u8(&c) == 77) {
			virtio_device_pause(dev);
			(void)virtio_device_resume(dev);
		}
	}
	drvq_kick(&q);
	fuzz_settle(dev);
	virtio_device_free(dev);
	drvq_done(&q);
	drv_done(&d);
	close(fd);
	return 0;
}
