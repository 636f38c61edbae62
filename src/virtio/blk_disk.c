/* SPDX-License-Identifier: Apache-2.0 */
/* Disks in files as they are: pieces of files, and one file. */
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "virtio/blk.h"
#include "base/iov.h"

/* What is told to be there must be there. */
static int transfer(int fd, struct iovec *iov, unsigned niov, uint64_t off, bool write)
{
	int r = iov_transfer(fd, iov, niov, off, write);

	return r == -ENODATA ? -EIO : r;
}

/* ---- what can be done to a range of a file ---- */

static int sync_fd(int fd)
{
	while (fdatasync(fd) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

static int allocate(int fd, int mode, uint64_t off, uint64_t len)
{
	while (fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

static int discard_range(int fd, uint64_t off, uint64_t len)
{
	int r = allocate(fd, FALLOC_FL_PUNCH_HOLE, off, len);

	/* A discard is advice; a file system without holes just keeps the blocks. */
	return r == -EOPNOTSUPP ? 0 : r;
}

static int zero_range(int fd, uint64_t off, uint64_t len, bool unmap)
{
	int r = allocate(fd, unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE, off, len);

	/* tmpfs knows holes only. */
	return r == -EOPNOTSUPP ? allocate(fd, FALLOC_FL_PUNCH_HOLE, off, len) : r;
}

/* Asked behind the end of the file, where there is nothing to make a hole into. */
static bool has_holes(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 &&
	       allocate(fd, FALLOC_FL_PUNCH_HOLE, ((uint64_t)st.st_size + 4095) / 4096 * 4096,
			4096) != -EOPNOTSUPP;
}

/* ---- pieces of files ---- */

struct extents_disk {
	struct blk_disk disk;
	bool own;
	size_t n;
	struct blk_extent extent[];
};

/* The first piece that ends behind @off; n if there is none. */
static size_t find_extent(const struct extents_disk *d, uint64_t off)
{
	size_t lo = 0, hi = d->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (d->extent[mid].start + d->extent[mid].length <= off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int extents_move(struct extents_disk *d, struct iovec *iov, unsigned niov, uint64_t off,
			bool write)
{
	size_t total = iov_size(iov, niov), done = 0;
	size_t i = find_extent(d, off);

	while (done < total) {
		const struct blk_extent *e = &d->extent[i];
		uint64_t at = off + done;
		size_t left = total - done, part;
		struct iovec cut[VIRTQUEUE_CHAIN_MAX];
		unsigned n;
		int r;

		if (i == d->n || at < e->start) {
			part = i == d->n ? left : MIN(left, e->start - at);
			done += iov_zero(iov, niov, done, part);
			continue;
		}
		part = MIN(left, e->start + e->length - at);
		n = iov_slice(iov, niov, done, part, cut, VIRTQUEUE_CHAIN_MAX);
		r = transfer(e->fd, cut, n, e->offset + (at - e->start), write);
		if (r < 0)
			return r;
		done += part;
		i++;
	}
	return 0;
}

static struct extents_disk *to_extents(struct blk_disk *disk)
{
	return container_of(disk, struct extents_disk, disk);
}

static int extents_read(struct blk_disk *disk, struct iovec *iov, unsigned niov, uint64_t off)
{
	return extents_move(to_extents(disk), iov, niov, off, false);
}

static void extents_free(struct blk_disk *disk)
{
	struct extents_disk *d = to_extents(disk);

	for (size_t i = 0; i < d->n && d->own; i++)
		close_fd(d->extent[i].fd);
	free(d);
}

static const struct blk_disk_ops extents_ops = {
	.read = extents_read,
	.free = extents_free,
};

/* Writable ones, which have no gaps. */

static int pieces_write(struct blk_disk *disk, struct iovec *iov, unsigned niov, uint64_t off)
{
	return extents_move(to_extents(disk), iov, niov, off, true);
}

static int pieces_flush(struct blk_disk *disk)
{
	struct extents_disk *d = to_extents(disk);
	int r = 0;

	for (size_t i = 0; i < d->n && r == 0; i++)
		r = sync_fd(d->extent[i].fd);
	return r;
}

/* Discard (@zero false) or zero a range, piece by piece. */
static int pieces_clear(struct extents_disk *d, uint64_t off, uint64_t len, bool zero, bool unmap)
{
	int r = 0;

	for (size_t i = find_extent(d, off); len && r == 0; i++) {
		const struct blk_extent *e = &d->extent[i];
		uint64_t part = MIN(len, e->start + e->length - off);
		uint64_t at = e->offset + (off - e->start);

		r = zero ? zero_range(e->fd, at, part, unmap) : discard_range(e->fd, at, part);
		off += part;
		len -= part;
	}
	return r;
}

static int pieces_discard(struct blk_disk *disk, uint64_t off, uint64_t len)
{
	return pieces_clear(to_extents(disk), off, len, false, false);
}

static int pieces_write_zeroes(struct blk_disk *disk, uint64_t off, uint64_t len, bool unmap)
{
	return pieces_clear(to_extents(disk), off, len, true, unmap);
}

static const struct blk_disk_ops pieces_ops = {
	.read = extents_read,
	.write = pieces_write,
	.flush = pieces_flush,
	.discard = pieces_discard,
	.write_zeroes = pieces_write_zeroes,
	.free = extents_free,
};

static int check_extent(const struct blk_extent *e, size_t i, uint64_t after, uint64_t size,
			struct err *err)
{
	uint64_t end, file_end;
	struct stat st;

	if (!e->length || __builtin_add_overflow(e->start, e->length, &end) ||
	    __builtin_add_overflow(e->offset, e->length, &file_end) || end > size)
		return err_set(err, EINVAL, "piece %zu of the disk is empty or beyond its end", i);
	if (e->start < after)
		return err_set(err, EINVAL, "piece %zu of the disk is out of order", i);
	if (fstat(e->fd, &st) < 0)
		return err_errno(err, "cannot stat the file of piece %zu", i);
	if (!S_ISREG(st.st_mode))
		return err_set(err, EINVAL, "piece %zu of the disk is not in a regular file", i);
	if (file_end > (uint64_t)st.st_size)
		return err_set(err, ERR_CORRUPT, "the file of piece %zu is too short", i);
	return 0;
}

int blk_extents_new(const struct blk_extent *extents, size_t n, uint64_t size,
		    struct blk_disk **ret, struct err *err)
{
	struct extents_disk *d;
	uint64_t after = 0;

	if (!size || size > INT64_MAX - BLK_SECTOR)
		return err_set(err, EINVAL, "a disk cannot have %llu bytes",
			       (unsigned long long)size);
	size = (size + BLK_SECTOR - 1) / BLK_SECTOR * BLK_SECTOR;
	for (size_t i = 0; i < n; i++) {
		int r = check_extent(&extents[i], i, after, size, err);

		if (r < 0)
			return r;
		after = extents[i].start + extents[i].length;
	}
	if (n > (SIZE_MAX - sizeof(*d)) / sizeof(extents[0]))
		return err_set(err, ENOMEM, "a disk cannot have %zu pieces", n);
	d = malloc(sizeof(*d) + n * sizeof(extents[0]));
	if (!d)
		return err_set(err, ENOMEM, "cannot create a disk: out of memory");
	d->disk = (struct blk_disk){.ops = &extents_ops, .size = size, .read_only = true};
	d->own = false;
	d->n = n;
	if (n)
		memcpy(d->extent, extents, n * sizeof(extents[0]));
	*ret = &d->disk;
	return 0;
}

int blk_pieces_new(const struct blk_extent *extents, size_t n, uint64_t size, bool read_only,
		   struct blk_disk **ret, struct err *err)
{
	uint64_t end = 0;
	int r;

	for (size_t i = 0; i < n && !read_only; i++) {
		if (extents[i].start != end)
			break;
		end += extents[i].length;
	}
	if (!read_only && (end != size || size % BLK_SECTOR))
		return err_set(err, EINVAL, "a disk with gaps cannot be written");
	r = blk_extents_new(extents, n, size, ret, err);
	if (r < 0)
		return r;
	to_extents(*ret)->own = true;
	if (!read_only) {
		(*ret)->ops = &pieces_ops;
		(*ret)->read_only = false;
		for (size_t i = 0; i < n; i++)
			(*ret)->no_zeroes |= !has_holes(extents[i].fd);
	}
	return 0;
}

/* ---- one file ---- */

struct file_disk {
	struct blk_disk disk;
	int fd;
	bool no_flush, own_fd;
};

static struct file_disk *to_file(struct blk_disk *disk)
{
	return container_of(disk, struct file_disk, disk);
}

static int file_read(struct blk_disk *disk, struct iovec *iov, unsigned niov, uint64_t off)
{
	return transfer(to_file(disk)->fd, iov, niov, off, false);
}

static int file_write(struct blk_disk *disk, struct iovec *iov, unsigned niov, uint64_t off)
{
	return transfer(to_file(disk)->fd, iov, niov, off, true);
}

static int file_flush(struct blk_disk *disk)
{
	struct file_disk *d = to_file(disk);

	return d->no_flush ? 0 : sync_fd(d->fd);
}

static int file_discard(struct blk_disk *disk, uint64_t off, uint64_t len)
{
	return discard_range(to_file(disk)->fd, off, len);
}

static int file_write_zeroes(struct blk_disk *disk, uint64_t off, uint64_t len, bool unmap)
{
	return zero_range(to_file(disk)->fd, off, len, unmap);
}

static void file_free(struct blk_disk *disk)
{
	struct file_disk *d = to_file(disk);

	if (d->own_fd)
		close_fd(d->fd);
	free(d);
}

static const struct blk_disk_ops file_ops = {
	.read = file_read,
	.write = file_write,
	.flush = file_flush,
	.discard = file_discard,
	.write_zeroes = file_write_zeroes,
	.free = file_free,
};

int blk_file_new(int fd, const struct blk_file_options *options, struct blk_disk **ret,
		 struct err *err)
{
	struct file_disk *d;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_errno(err, "cannot stat the disk file");
	if (!S_ISREG(st.st_mode))
		return err_set(err, EINVAL, "a disk must be a regular file");
	if (st.st_size < BLK_SECTOR)
		return err_set(err, EINVAL, "the disk file is empty");
	d = malloc(sizeof(*d));
	if (!d)
		return err_set(err, ENOMEM, "cannot create a disk: out of memory");
	d->disk = (struct blk_disk){
		.ops = &file_ops,
		.size = (uint64_t)st.st_size / BLK_SECTOR * BLK_SECTOR,
		.read_only = options->read_only,
		.no_zeroes = !options->read_only && !has_holes(fd),
	};
	d->fd = fd;
	d->no_flush = options->no_flush;
	d->own_fd = options->own_fd;
	*ret = &d->disk;
	return 0;
}
