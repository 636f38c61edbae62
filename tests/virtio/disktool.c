/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disk images through our eyes, for tests/virtio/disks.py, where qemu-img is the judge.
 *
 *	disktool export FORMAT PATH [FORMAT PATH]...     the disk's bytes to stdout
 *	disktool change SEED COUNT COPY FORMAT PATH [FORMAT PATH]...
 *		COUNT random requests to the disk, and to the raw file COPY with what should come of
 *		them; reads are compared on the way, flushes happen
 *	disktool crash ... as change, but leave without closing the disk, as kill -9 would
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"
#include "machine/disk_image.h"
#include "virtio/virtqueue.h"

#define CHUNK ((uint64_t)1 << 20)

static void fail(const char *what, int r)
{
	fprintf(stderr, "disktool: %s: %s\n", what, err_name(r));
	exit(1);
}

static struct blk_disk *open_disk(char **argv, int n, bool read_only)
{
	struct vm_image images[16] = {{0}};
	struct vm_disk d = {.images = {images, (size_t)n / 2}, .read_only = read_only};
	struct blk_disk *disk;
	struct err err = ERR_INIT;

	if (n < 2 || n % 2 || n > 32)
		fail("wrong arguments", -EINVAL);
	for (int i = 0; i < n / 2; i++) {
		images[i].overlay = str_eq(argv[2 * i], "overlay");
		images[i].format = images[i].overlay ? (char *)(uintptr_t) "qcow2" : argv[2 * i];
		images[i].path = argv[2 * i + 1];
	}
	if (disk_image_open(&d, &disk, &err) < 0) {
		fprintf(stderr, "disktool: %s\n%s\n", err.msg, err.hint);
		exit(1);
	}
	return disk;
}

static int export_disk(char **argv, int n)
{
	struct blk_disk *d = open_disk(argv, n, true);
	char *p = malloc(CHUNK);

	for (uint64_t off = 0; off < d->size;) {
		struct iovec iov = {p, MIN(CHUNK, d->size - off)};
		size_t len = iov.iov_len;
		int r = d->ops->read(d, &iov, 1, off);

		if (r < 0)
			fail("read", r);
		r = io_write_full(1, p, len);
		if (r < 0)
			fail("write", r);
		off += len;
	}
	free(p);
	blk_disk_free(d);
	return 0;
}

static uint64_t state;

static uint64_t rnd(uint64_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % below;
}

/* The vector in odd pieces. */
static unsigned pieces(uint8_t *p, size_t n, struct iovec *iov)
{
	unsigned k = 0;

	while (n) {
		size_t part = k == 15 ? n : 1 + rnd(n);

		iov[k++] = (struct iovec){p, part};
		p += part;
		n -= part;
	}
	return k;
}

static void zero_copy(int fd, uint64_t off, uint64_t n)
{
	static const uint8_t zeros[CHUNK];

	for (; n; off += MIN(n, CHUNK), n -= MIN(n, CHUNK)) {
		if (pwrite(fd, zeros, MIN(n, CHUNK), (off_t)off) < 0)
			fail("copy", -errno);
	}
}

static void request(struct blk_disk *d, int copy, uint8_t *p, uint8_t *q)
{
	/* Mostly small, near each other, sometimes large and far. */
	uint64_t sectors = d->size / 512, n = 1 + rnd(rnd(4) ? 16 : 1024), at;
	struct iovec iov[16];
	int r = 0;

	n = MIN(n, sectors);
	at = rnd(sectors - n + 1);
	switch (rnd(8)) {
	case 0:
		r = d->ops->flush(d);
		break;
	case 1:
		/* May or may not take effect: so it is followed by zeros. */
		r = d->ops->discard(d, at * 512, n * 512);
		if (r < 0)
			fail("discard", r);
		/* fall through */
	case 2:
		r = d->ops->write_zeroes(d, at * 512, n * 512, rnd(2));
		zero_copy(copy, at * 512, n * 512);
		break;
	case 3:
		r = d->ops->read(d, iov, pieces(p, n * 512, iov), at * 512);
		if (io_pread_full(copy, q, n * 512, at * 512) != (ssize_t)(n * 512))
			fail("copy", -EIO);
		if (r == 0 && memcmp(p, q, n * 512) != 0)
			fail("read back something else", -EIO);
		break;
	default:
		for (uint64_t i = 0; i < n * 512; i += 8)
			memcpy(p + i, &(uint64_t){rnd(UINT64_MAX)}, 8);
		if (pwrite(copy, p, n * 512, (off_t)(at * 512)) < 0)
			fail("copy", -errno);
		r = d->ops->write(d, iov, pieces(p, n * 512, iov), at * 512);
		break;
	}
	if (r < 0)
		fail("request", r);
}

static int change(char **argv, int n, bool crash)
{
	int copy = open(argv[2], O_RDWR | O_CLOEXEC);
	uint8_t *p = malloc(CHUNK), *q = malloc(CHUNK);
	struct blk_disk *d;

	if (copy < 0)
		fail(argv[2], -errno);
	d = open_disk(argv + 3, n - 3, false);
	state = strtoull(argv[0], NULL, 0) * 2654435761u + 88172645463325252u;
	for (long i = strtol(argv[1], NULL, 0); i > 0; i--)
		request(d, copy, p, q);
	if (crash) {
		/* What was flushed must be there; so that the copy stays right, flush. */
		int r = d->ops->flush(d);

		if (r < 0)
			fail("flush", r);
		_exit(0);
	}
	free(p);
	free(q);
	close(copy);
	blk_disk_free(d);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc >= 4 && str_eq(argv[1], "export"))
		return export_disk(argv + 2, argc - 2);
	if (argc >= 7 && str_eq(argv[1], "change"))
		return change(argv + 2, argc - 2, false);
	if (argc >= 7 && str_eq(argv[1], "crash"))
		return change(argv + 2, argc - 2, true);
	fprintf(stderr, "disktool: see its source\n");
	return 2;
}
