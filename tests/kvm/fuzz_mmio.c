/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile driver at the virtio-mmio registers of real devices.
 *
 * The input's first byte chooses the device: blk, vsock, rng, balloon, mem. The rest is a program of
 * 8-byte instructions:
 *	op u8 (low 3 bits), width u8, address u16, value u32
 * ops: 0-2 write a register, 3 read one, 4-5 write guest memory at address * 4, 6 kick a queue
 * without the registers, 7 bring the device up with the queue of that address, and no other, at a
 * fixed place.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "virtio/balloon.h"
#include "virtio/blk.h"
#include "virtio/mem.h"
#include "virtio/mmio.h"
#include "virtio/rng.h"
#include "virtio/vsock.h"

enum { MEMORY = 0x40000, DISK = 64 * 1024, PORT = 7, STEPS_MAX = 512 };

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

/* Somebody who greets, and is gone. */
static int on_accept(struct virtio_device *d, uint32_t guest_port, uint32_t host_port, void *arg)
{
	int p[2];

	(void)d, (void)guest_port, (void)host_port, (void)arg;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p) < 0)
		return -errno;
	(void)!write(p[1], "hello", 5);
	close(p[1]);
	return p[0];
}

static struct virtio_device *devices[5];
static struct guest_memory map;
static uint8_t *memory;

static struct virtio_device *create_disk(void)
{
	const struct blk_options options = {.serial = "fuzz", .queues = 2};
	struct disk *d = calloc(1, sizeof(*d));
	struct virtio_device *dev;

	if (!d)
		abort();
	d->d = (struct blk_disk){.ops = &disk_ops, .size = DISK};
	if (blk_device_new(&d->d, &options, &dev, NULL) < 0)
		abort();
	return dev;
}

static void create(void)
{
	const struct vsock_options options = {.max_connections = 16};
	/* No memory is there: it is given and taken all the same. */
	const struct mem_options more = {.gpa = 1 << 30, .size = 8 * MEM_BLOCK};

	memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	devices[0] = create_disk();
	if (memory == MAP_FAILED || guest_memory_add(&map, 0x1000, MEMORY, memory) < 0 ||
	    vsock_device_new(&options, &devices[1], NULL) < 0 ||
	    vsock_listen(devices[1], PORT, on_accept, NULL) < 0 ||
	    rng_device_new(&devices[2], NULL) < 0 || balloon_device_new(&devices[3], NULL) < 0 ||
	    mem_device_new(&more, &devices[4], NULL) < 0)
		abort();
	mem_want(devices[4], 4 * MEM_BLOCK);
}

static void set(struct virtio_mmio *t, uint32_t off, uint32_t v)
{
	v = htole32(v);
	virtio_mmio_write(t, off, &v, 4);
}

static void bring_up(struct virtio_mmio *t, uint32_t queue, uint32_t features)
{
	set(t, VIRTIO_MMIO_STATUS, 0);
	set(t, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	set(t, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	set(t, VIRTIO_MMIO_DRIVER_FEATURES, features);
	set(t, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	set(t, VIRTIO_MMIO_DRIVER_FEATURES, 1);
	set(t, VIRTIO_MMIO_STATUS, 11);
	set(t, VIRTIO_MMIO_QUEUE_SEL, queue);
	set(t, VIRTIO_MMIO_QUEUE_NUM, 8);
	set(t, VIRTIO_MMIO_QUEUE_DESC_LOW, 0x1000);
	set(t, VIRTIO_MMIO_QUEUE_AVAIL_LOW, 0x1100);
	set(t, VIRTIO_MMIO_QUEUE_USED_LOW, 0x1200);
	set(t, VIRTIO_MMIO_QUEUE_READY, 1);
	set(t, VIRTIO_MMIO_STATUS, 15);
}

static void interrupt(void *arg)
{
	(void)arg;
}

static void step(struct virtio_mmio *t, uint64_t offered, const uint8_t *p)
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
		(void)!write(virtio_mmio_kick_fd(t, address % virtio_mmio_queues(t)), &one,
			     sizeof(one));
		return;
	case 7:
		bring_up(t, address % virtio_mmio_queues(t), le32toh(v) & (uint32_t)offered);
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
	static uint32_t page[MMIO_SIZE / sizeof(uint32_t)];
	struct virtio_device *dev;
	struct virtio_mmio *t;

	if (!memory)
		create();
	if (!size)
		return 0;
	dev = devices[*data++ % ARRAY_SIZE(devices)];
	size--;
	memset(memory, 0, MEMORY);
	if (virtio_mmio_new(dev, &map, interrupt, NULL, &t, NULL) < 0)
		abort();
	virtio_mmio_show(t, page);
	for (unsigned i = 0; i < STEPS_MAX && size >= 8; i++, data += 8, size -= 8)
		step(t, dev->offered, data);
	virtio_mmio_free(t);
	return 0;
}
