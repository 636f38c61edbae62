/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile driver at the virtio-mmio registers of a real block device.
 *
 * The input is a program for it, of 8-byte instructions:
 *	op u8 (low 3 bits), width u8, address u16, value u32
 * ops: 0-2 write a register, 3 read one, 4-5 write guest memory at address * 4, 6 kick a queue
 * without the registers, 7 bring the device up with queue 0 at a fixed place.
 */
#include <endian.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "virtio/blk.h"
#include "virtio/mmio.h"

enum { MEMORY = 0x40000, DISK = 64 * 1024, QUEUES = 2, STEPS_MAX = 512 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct disk {
	struct blk_disk d;
	uint8_t bytes[DISK];
};

static int move(struct blk_disk *d, struct iovec *iov, unsigned niov, uint64_t off, bool in)
{
	uint8_t *p = container_of(d, struct disk, d)->bytes;

	for (unsigned i = 0; i < niov; i++) {
		if (off > DISK || iov[i].iov_len > DISK - off)
			abort(); /* the device has let a bad range through */
		if (in)
			memcpy(iov[i].iov_base, p + off, iov[i].iov_len);
		else
			memcpy(p + off, iov[i].iov_base, iov[i].iov_len);
		off += iov[i].iov_len;
	}
	return 0;
}

static int disk_read(struct blk_disk *d, struct iovec *iov, unsigned niov, uint64_t off)
{
	return move(d, iov, niov, off, true);
}

static int disk_write(struct blk_disk *d, struct iovec *iov, unsigned niov, uint64_t off)
{
	return move(d, iov, niov, off, false);
}

static int disk_flush(struct blk_disk *d)
{
	(void)d;
	return 0;
}

static int disk_discard(struct blk_disk *d, uint64_t off, uint64_t len)
{
	(void)d;
	if (off > DISK || len > DISK - off)
		abort();
	return 0;
}

static int disk_zero(struct blk_disk *d, uint64_t off, uint64_t len, bool unmap)
{
	(void)unmap;
	return disk_discard(d, off, len);
}

static void disk_free(struct blk_disk *d)
{
	free(container_of(d, struct disk, d));
}

static const struct blk_disk_ops disk_ops = {
	.read = disk_read,
	.write = disk_write,
	.flush = disk_flush,
	.discard = disk_discard,
	.write_zeroes = disk_zero,
	.free = disk_free,
};

static struct virtio_device *dev;
static struct guest_memory map;
static uint8_t *memory;

static void create(void)
{
	const struct blk_options options = {.serial = "fuzz", .queues = QUEUES};
	struct disk *d = calloc(1, sizeof(*d));

	memory = calloc(1, MEMORY);
	if (!d || !memory)
		abort();
	d->d = (struct blk_disk){.ops = &disk_ops, .size = DISK};
	if (blk_device_new(&d->d, &options, &dev, NULL) < 0 ||
	    guest_memory_add(&map, 0x1000, MEMORY, memory) < 0)
		abort();
}

static void set(struct virtio_mmio *t, uint32_t off, uint32_t v)
{
	v = htole32(v);
	virtio_mmio_write(t, off, &v, 4);
}

static void bring_up(struct virtio_mmio *t, uint32_t features)
{
	set(t, VIRTIO_MMIO_STATUS, 0);
	set(t, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	set(t, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	set(t, VIRTIO_MMIO_DRIVER_FEATURES, features & (uint32_t)dev->offered);
	set(t, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	set(t, VIRTIO_MMIO_DRIVER_FEATURES, 1);
	set(t, VIRTIO_MMIO_STATUS, 11);
	set(t, VIRTIO_MMIO_QUEUE_SEL, 0);
	set(t, VIRTIO_MMIO_QUEUE_NUM, 8);
	set(t, VIRTIO_MMIO_QUEUE_DESC_LOW, 0x1000);
	set(t, VIRTIO_MMIO_QUEUE_AVAIL_LOW, 0x1100);
	set(t, VIRTIO_MMIO_QUEUE_USED_LOW, 0x1200);
	set(t, VIRTIO_MMIO_QUEUE_READY, 1);
	set(t, VIRTIO_MMIO_STATUS, 15);
}

static void step(struct virtio_mmio *t, const uint8_t *p)
{
	static const uint32_t widths[] = {4, 4, 4, 1, 2, 8};
	uint32_t width = widths[p[1] % ARRAY_SIZE(widths)], v;
	uint16_t address;
	uint8_t b[8] = {0};
	const uint64_t one = 1;

	memcpy(&address, p + 2, 2);
	address = le16toh(address);
	memcpy(&v, p + 4, 4);
	memcpy(b, p + 4, 4);
	switch (p[0] & 7) {
	case 3:
		virtio_mmio_read(t, MIN((uint32_t)address % MMIO_SIZE, (uint32_t)MMIO_SIZE - width),
				 b, width);
		return;
	case 4:
	case 5:
		memcpy(memory + address * 4u % MEMORY, &v, 4);
		return;
	case 6:
		(void)!write(virtio_mmio_kick_fd(t, address % QUEUES), &one, sizeof(one));
		return;
	case 7:
		bring_up(t, le32toh(v));
		return;
	default:
		virtio_mmio_write(t,
				  MIN((uint32_t)address % MMIO_SIZE, (uint32_t)MMIO_SIZE - width),
				  b, width);
		return;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct virtio_mmio *t;

	if (!dev)
		create();
	memset(memory, 0, MEMORY);
	if (virtio_mmio_new(dev, &map, &t, NULL) < 0)
		abort();
	for (unsigned i = 0; i < STEPS_MAX && size >= 8; i++, data += 8, size -= 8)
		step(t, data);
	virtio_mmio_free(t);
	return 0;
}
