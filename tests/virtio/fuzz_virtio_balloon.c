/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of any shape to a balloon's three queues. Guest memory has a page on each side that is
 * not the guest's; whatever the driver asks for, they stay.
 */
#include "fuzz_driver.h"
#include "virtio/balloon.h"

enum { QUEUES = 3, LIST = 0x100000, PAGE = 4096, GUARD = 0xa5 };

/* Page numbers with the interesting ones near. */
static uint32_t page_number(struct cur *c)
{
	static const uint32_t numbers[] = {
		0,
		1,
		LIST / PAGE,
		DRV_LOW / PAGE - 1,
		DRV_LOW / PAGE,
		DRV_HIGH_AT / PAGE - 1,
		DRV_HIGH_AT / PAGE,
		(DRV_HIGH_AT + DRV_HIGH) / PAGE - 1,
		(DRV_HIGH_AT + DRV_HIGH) / PAGE,
		0x7fffffff,
		0xffffffff,
	};
	uint8_t v = cur_u8(c);

	return v < sizeof(numbers) / sizeof(numbers[0]) ? numbers[v] : 0x200 + v;
}

static void one_request(struct cur *c, struct drv *d, struct drvq *q, uint8_t op)
{
	struct drvbuf b[5];
	unsigned n = 1 + (op >> 2 & 3), count = cur_u8(c) & 63;

	for (unsigned k = 0; k < count; k++) {
		uint32_t pfn = page_number(c);

		memcpy((uint8_t *)drv_at(d, LIST) + k * 4, &pfn, 4);
	}
	b[0] = (struct drvbuf){LIST, count * 4, op & 16};
	for (unsigned k = 1; k <= n; k++) {
		uint8_t kind = cur_u8(c);

		b[k] = (struct drvbuf){(uint64_t)page_number(c) * PAGE + (kind & 7u),
				       fuzz_length(c), kind & 0x40};
	}
	drvq_add(q, b, op & 32 ? n + 1 : 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cur c = cur_make(data, size);
	uint64_t features = 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC;
	struct virtio_device *dev;
	struct drv d;
	struct drvq q[QUEUES];
	uint8_t *area;

	if (balloon_device_new(&dev, NULL) < 0)
		abort();
	drv_init(&d);
	/* The same memory once more, the guest's part between two pages of somebody else. */
	area = mmap(NULL, DRV_LOW + DRV_HIGH + 2 * PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED)
		abort();
	munmap(d.mem, DRV_LOW + DRV_HIGH);
	d.mem = area + PAGE;
	d.map = (struct guest_memory){0};
	if (guest_memory_add(&d.map, 0, DRV_LOW, d.mem) ||
	    guest_memory_add(&d.map, DRV_HIGH_AT, DRV_HIGH, d.mem + DRV_LOW))
		abort();
	area[0] = area[PAGE - 1] = GUARD;
	d.mem[DRV_LOW + DRV_HIGH] = d.mem[DRV_LOW + DRV_HIGH + PAGE - 1] = GUARD;
	if (virtio_device_activate(dev, features, &d.map) < 0)
		abort();
	for (unsigned i = 0; i < QUEUES; i++) {
		drvq_init(&q[i], &d, 32);
		if (virtio_queue_start(dev, i, &q[i].s, q[i].kick, q[i].call) < 0)
			abort();
	}
	for (unsigned i = 0; i < 64 && cur_left(&c); i++) {
		uint8_t op = cur_u8(&c);

		if ((op & 3) < QUEUES) {
			one_request(&c, &d, &q[op & 3], op);
		} else {
			uint32_t v = page_number(&c);

			balloon_set_target(dev, (uint64_t)v * PAGE);
			(void)virtio_config_write(dev, op >> 2 & 15, &v, 1 + (op >> 6));
			(void)balloon_size(dev);
		}
		if (op & 64) {
			for (unsigned k = 0; k < QUEUES; k++)
				drvq_kick(&q[k]);
			fuzz_settle(dev);
		}
		if (op & 128) {
			virtio_device_pause(dev);
			(void)virtio_device_resume(dev);
		}
	}
	for (unsigned k = 0; k < QUEUES; k++)
		drvq_kick(&q[k]);
	fuzz_settle(dev);
	virtio_device_free(dev);
	if (area[0] != GUARD || area[PAGE - 1] != GUARD || d.mem[DRV_LOW + DRV_HIGH] != GUARD ||
	    d.mem[DRV_LOW + DRV_HIGH + PAGE - 1] != GUARD)
		abort();
	for (unsigned k = 0; k < QUEUES; k++)
		drvq_done(&q[k]);
	munmap(area, DRV_LOW + DRV_HIGH + 2 * PAGE);
	close(d.memfd);
	return 0;
}
