/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of any shape to a small disk: per request a header, then up to eight buffers. */
#include <linux/virtio_blk.h>

#include "base/io.h"
#include "fuzz_driver.h"
#include "virtio/blk.h"

enum { DISK = 65536, EXTENTS = 1, READ_ONLY = 2, NO_FLUSH = 4, KINDS = 8 };

static struct drv memory;
static int file = -1;

/* A device of each kind lives for ever: starting its thread would be most of a run. */
static struct virtio_device *device(uint8_t kind)
{
	static struct virtio_device *devices[KINDS];
	struct virtio_device **dev = &devices[kind];
	struct blk_extent e[2] = {{512, 1000, file, 7}, {4096, 5000, file, 60000}};
	const struct blk_file_options o = {kind & READ_ONLY, kind & NO_FLUSH};
	struct blk_disk *disk;

	if (*dev)
		return *dev;
	if ((kind & EXTENTS ? blk_extents_new(e, 2, 20000, &disk, NULL)
			    : blk_file_new(file, &o, &disk, NULL)) < 0 ||
	    blk_device_new(disk, &(struct blk_options){.serial = "fuzz"}, dev, NULL) < 0)
		abort();
	return *dev;
}

/* Memory and disk as after creation. */
static struct drv fresh(void)
{
	struct drv d;

	if (file < 0) {
		drv_init(&memory);
		file = io_memfd("disk", NULL, 0, NULL);
	}
	if (file < 0 || ftruncate(file, 0) < 0 || ftruncate(file, DISK) < 0)
		abort();
	d = memory;
	memset(drv_at(&d, 0), 0, 0x10000);
	memset(drv_at(&d, 0x100000), 0, 0x1000);
	return d;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cur c = cur_make(data, size);
	uint64_t features = 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC;
	uint8_t flags = cur_u8(&c);
	struct drv d = fresh();
	struct virtio_device *dev = device(flags % KINDS);
	struct drvq q;

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
	virtio_device_reset(dev);
	drvq_done(&q);
	return 0;
}
