/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of any shape to the memory device, and states of any shape to restore. What is plugged
 * is counted here a second time; the pages beside the region stay whatever is asked for.
 */
#include <endian.h>
#include <linux/virtio_mem.h>

#include "fuzz_driver.h"
#include "virtio/mem.h"

enum { BLOCKS = 66, REQUEST = 0x100000, ANSWER = 0x101000, PAGE = 4096, GUARD = 0xa5 };

#define REGION (BLOCKS * MEM_BLOCK)
#define AT     (UINT64_C(8) << 30)

static uint64_t address(struct cur *c)
{
	uint8_t v = cur_u8(c);

	switch (v) {
	case 255:
		return UINT64_MAX / MEM_BLOCK * MEM_BLOCK;
	case 254:
		return AT - MEM_BLOCK;
	case 253:
		return AT + PAGE;
	case 252:
		return 0;
	default:
		return AT + v % (BLOCKS + 2) * MEM_BLOCK;
	}
}

static void one_request(struct cur *c, struct drv *d, struct drvq *q, struct virtio_device *dev)
{
	const uint8_t op = cur_u8(c), n = cur_u8(c);
	struct virtio_mem_req req = {.type = htole16(op & 7),
				     .u.plug = {.nb_blocks = htole16(n == 255 ? 65535 : n)}};
	struct drvbuf b[] = {{REQUEST, sizeof(req), false},
			     {ANSWER, sizeof(struct virtio_mem_resp), true}};
	const uint64_t before = mem_plugged(dev);
	struct virtio_mem_resp resp;
	uint64_t after;

	req.u.plug.addr = htole64(address(c));
	memcpy(drv_at(d, REQUEST), &req, sizeof(req));
	if (op & 8)
		b[0].len = fuzz_length(c);
	if (op & 16)
		b[1].len = fuzz_length(c);
	if (op & 32)
		b[0].gpa = AT + (op >> 6) * MEM_BLOCK;
	memset(drv_at(d, ANSWER), 0xff, sizeof(resp));
	drvq_add(q, b, 2);
	drvq_kick(q);
	fuzz_settle(dev);
	memcpy(&resp, drv_at(d, ANSWER), sizeof(resp));
	after = mem_plugged(dev);
	/* Only a request that was granted changes anything, and what it says. */
	if (op & 56)
		return;
	if (le16toh(resp.type) != VIRTIO_MEM_RESP_ACK || (op & 7) == VIRTIO_MEM_REQ_STATE) {
		if (after != before)
			abort();
	} else if ((op & 7) == VIRTIO_MEM_REQ_PLUG) {
		if (after != before + n * MEM_BLOCK)
			abort();
	} else if ((op & 7) == VIRTIO_MEM_REQ_UNPLUG) {
		if (after != before - n * MEM_BLOCK)
			abort();
	} else if (after) {
		abort();
	}
}

static void restore(struct cur *c, struct virtio_device *dev)
{
	const size_t n = mem_state_size(dev);
	struct mem_state *s = calloc(1, n);
	uint8_t *p = (uint8_t *)s;

	if (!s)
		abort();
	mem_save(dev, s);
	for (unsigned k = cur_u8(c) & 7; k; k--)
		p[cur_u8(c) % n] = cur_u8(c);
	(void)mem_restore(dev, s, n - (cur_u8(c) == 0));
	free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct mem_options o = {.gpa = AT, .size = REGION};
	struct cur c = cur_make(data, size);
	struct virtio_device *dev;
	struct drv d;
	struct drvq q;
	uint8_t *area;

	if (mem_device_new(&o, &dev, NULL) < 0)
		abort();
	drv_init(&d);
	area = mmap(NULL, REGION + 2 * PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (area == MAP_FAILED || guest_memory_add(&d.map, AT, REGION, area + PAGE))
		abort();
	d.map.shared = false;
	area[0] = area[PAGE - 1] = area[PAGE + REGION] = area[2 * PAGE + REGION - 1] = GUARD;
	drvq_init(&q, &d, 16);
	if (virtio_device_activate(dev, 1ull << VIRTIO_F_VERSION_1, &d.map) < 0 ||
	    virtio_queue_start(dev, 0, &q.s, q.kick, q.call) < 0)
		abort();
	for (unsigned i = 0; i < 64 && cur_left(&c); i++) {
		uint8_t op = cur_u8(&c);

		if (op < 200) {
			one_request(&c, &d, &q, dev);
		} else if (op < 240) {
			mem_want(dev, (uint64_t)cur_u8(&c) * MEM_BLOCK + op);
		} else {
			virtio_device_pause(dev);
			restore(&c, dev);
			(void)virtio_device_resume(dev);
		}
		if (mem_plugged(dev) > REGION || mem_plugged(dev) % MEM_BLOCK)
			abort();
	}
	virtio_device_free(dev);
	if (area[0] != GUARD || area[PAGE - 1] != GUARD || area[PAGE + REGION] != GUARD ||
	    area[2 * PAGE + REGION - 1] != GUARD)
		abort();
	drvq_done(&q);
	munmap(area, REGION + 2 * PAGE);
	drv_done(&d);
	return 0;
}
