/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk (virtio 1.2, 5.2).
 *
 * The device turns requests into calls on a disk. Each queue has a worker thread that serves one
 * request at a time, straight between the disk's files and guest memory; stopping a queue therefore
 * never leaves a request behind. Parallelism comes from several queues.
 */
#ifndef VIRTIO_BLK_H
#define VIRTIO_BLK_H

#include "virtio/device.h"

#define BLK_SECTOR 512

/* A disk. Its functions are called by several threads at once. */
struct blk_disk;

struct blk_disk_ops {
	/*
	 * Transfer everything in @iov at byte @off: 0 or -errno. Ranges are inside the disk and
	 * multiples of a sector. The vector may be modified.
	 */
	int (*read)(struct blk_disk *d, struct iovec *iov, unsigned niov, uint64_t off);
	/* The rest is absent on a read-only disk. */
	int (*write)(struct blk_disk *d, struct iovec *iov, unsigned niov, uint64_t off);
	int (*flush)(struct blk_disk *d);
	int (*discard)(struct blk_disk *d, uint64_t off, uint64_t len);
	/* Not by writing them: nothing bounds a range but the disk. */
	int (*write_zeroes)(struct blk_disk *d, uint64_t off, uint64_t len, bool unmap);
	void (*free)(struct blk_disk *d);
};

struct blk_disk {
	const struct blk_disk_ops *ops;
	uint64_t size; /* bytes, a multiple of BLK_SECTOR */
	bool read_only;
	bool no_zeroes; /* write_zeroes cannot be had; drivers are not offered it */
};

struct blk_disk *blk_disk_free(struct blk_disk *d);

/* One piece of a composed disk. Pieces are sorted, disjoint; gaps between them read as zeros. */
struct blk_extent {
	uint64_t start, length; /* bytes in the disk */
	int fd;			/* borrowed; a regular file */
	uint64_t offset;	/* where in the file @start lies */
};

/*
 * A read-only disk of @size bytes (rounded up to a sector) made of pieces of files. The array is
 * copied, the descriptors stay the caller's and must outlive the disk. A file shorter than its
 * extent is refused here, and is a read error if it shrinks later.
 */
int blk_extents_new(const struct blk_extent *extents, size_t n, uint64_t size,
		    struct blk_disk **ret, struct err *err);

/*
 * The same in files that are the disk's from a successful return on, each piece having a
 * descriptor of its own, and writable if it was asked for; then there may be no gaps.
 */
int blk_pieces_new(const struct blk_extent *extents, size_t n, uint64_t size, bool read_only,
		   struct blk_disk **ret, struct err *err);

struct blk_file_options {
	bool read_only;
	/* Answer flushes at once: for disks that are thrown away with the machine. */
	bool no_flush;
	/* Close @fd in the end, once the disk was made. */
	bool own_fd;
};

/*
 * A disk in one (sparse) file; its size, rounded down to a sector, is the disk's. @fd stays the
 * caller's (without own_fd) and must outlive the disk.
 */
int blk_file_new(int fd, const struct blk_file_options *options, struct blk_disk **ret,
		 struct err *err);

struct blk_options {
	const char *serial;  /* up to 20 bytes; the guest's /sys/block/vdX/serial */
	unsigned queues;     /* 0 means 1 */
	uint16_t queue_size; /* 0 means 256 */
	uint32_t block_size; /* 0 means 512; a power of two up to 4096, reported as logical block */
};

/* The device owns @disk from a successful return on. Serve it with a transport (device.h). */
int blk_device_new(struct blk_disk *disk, const struct blk_options *options,
		   struct virtio_device **ret, struct err *err);

/* What has gone through a block device since it was made. Any thread. */
struct blk_usage {
	uint64_t read_bytes, read_ops, write_bytes, write_ops;
};
void blk_device_usage(const struct virtio_device *dev, struct blk_usage *ret);

#endif
