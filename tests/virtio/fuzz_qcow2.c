/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image of any bytes: opened, read, written, zeroed, flushed. The first byte says how; the next
 * ones where; the rest is the file.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/cleanup.h"
#include "virtio/qcow2.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cur c = cur_make(data, size);
	uint8_t how = cur_u8(&c), n = cur_u8(&c) % 16;
	struct qcow2_options o = {.read_only = how & 1, .no_flush = how & 2};
	struct cur ops = cur_make(c.p, MIN(cur_left(&c), (size_t)n * 4));
	static uint8_t buffer[128 << 10];
	struct blk_disk *disk;
	int fd, base = -1;

	cur_bytes(&c, cur_left(&ops));
	fd = io_memfd("image", c.p, cur_left(&c), NULL);
	if (fd < 0)
		abort();
	if (how & 4) {
		base = io_memfd("base", data, size, NULL);
		if (base < 0 || ftruncate(base, 65536) < 0 ||
		    blk_file_new(base, &(struct blk_file_options){true, false, true}, &o.backing,
				 NULL) < 0)
			abort();
	}
	if (qcow2_open(fd, &o, &disk, NULL) < 0) {
		close(fd);
		blk_disk_free(o.backing);
		return 0;
	}
	for (; cur_left(&ops) && !ops.bad;) {
		uint8_t op = cur_u8(&ops);
		uint64_t sectors = disk->size / BLK_SECTOR, at = cur_be16(&ops) % sectors;
		uint64_t len = MIN((uint64_t)cur_u8(&ops) + 1, sectors - at) * BLK_SECTOR;
		struct iovec iov = {buffer, len};

		/* From the end as well. */
		if (op & 0x80)
			at = sectors - len / BLK_SECTOR;
		if (op % 4 == 0 || disk->read_only)
			(void)disk->ops->read(disk, &iov, 1, at * BLK_SECTOR);
		else if (op % 4 == 1)
			(void)disk->ops->write(disk, &iov, 1, at * BLK_SECTOR);
		else if (op % 4 == 2)
			(void)disk->ops->write_zeroes(disk, at * BLK_SECTOR, len, op & 4);
		else
			(void)(op & 4 ? disk->ops->flush(disk)
				      : disk->ops->discard(disk, at * BLK_SECTOR, len));
	}
	blk_disk_free(disk);
	return 0;
}
