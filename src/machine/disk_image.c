/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/disk_image.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"
#include "virtio/qcow2.h"
#include "virtio/vmdk.h"

enum {
	/* QEMU's bytes: 100 and on for what a user does with an image, 200 and on for what it does
	 * not let others do; second in each is writing. */
	LOCK_FIRST = 100,
	LOCK_DOES_WRITE = 101,
	LOCK_NO_WRITERS = 201,
	LOCK_END = 204,
	/* An image that rests on an image that rests on...; each level costs every read. */
	STACK_MAX = 17,
};

static int busy(struct err *err)
{
	err_set(err, EBUSY, "it is in use by another sandbox or program");
	return err_hint(err, "a disk that is written has one user at a time");
}

/* Keep others out for as long as @fd is open. */
static int lock_image(int fd, bool exclusive, struct err *err)
{
	struct flock l = {
		.l_type = exclusive ? F_WRLCK : F_RDLCK,
		.l_whence = SEEK_SET,
		.l_start = exclusive ? LOCK_FIRST : LOCK_NO_WRITERS,
		.l_len = exclusive ? LOCK_END - LOCK_FIRST : 1,
	};

	if (fcntl(fd, F_OFD_SETLK, &l) < 0) {
		if (errno == EAGAIN || errno == EACCES)
			return busy(err);
		/* Where there are no locks, readers do without. */
		if (!exclusive && (errno == ENOLCK || errno == EOPNOTSUPP || errno == ENOSYS))
			return 0;
		return err_errno(err, "cannot lock it");
	}
	if (exclusive)
		return 0;
	l = (struct flock){
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_DOES_WRITE, .l_len = 1};
	return fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK ? busy(err) : 0;
}

/* ---- what an overlay rests on ---- */

/* FNV-1a over what changes when a file's contents do. */
struct stamp {
	uint64_t hash;
};

static void stamp_number(struct stamp *s, uint64_t v)
{
	for (int i = 0; i < 64; i += 8)
		s->hash = (s->hash ^ (v >> i & 0xff)) * 0x100000001b3u;
}

static int lock_and_stamp(void *arg, int fd, bool exclusive, struct err *err)
{
	struct stamp *s = arg;
	struct stat st;
	int r = lock_image(fd, exclusive, err);

	if (r < 0 || exclusive)
		return r;
	if (fstat(fd, &st) < 0)
		return err_errno(err, "cannot stat it");
	stamp_number(s, st.st_ino);
	stamp_number(s, (uint64_t)st.st_size);
	stamp_number(s, (uint64_t)st.st_mtim.tv_sec);
	stamp_number(s, (uint64_t)st.st_mtim.tv_nsec);
	return 0;
}

static int check_base(const char *overlay, bool fresh, const struct stamp *s, struct err *err)
{
	cleanup_free char *path = str_fmt("%s.base", overlay), *now = NULL;
	cleanup_buf struct buf b = BUF_INIT;
	int r;

	now = str_fmt("%016llx\n", (unsigned long long)s->hash);
	if (!path || !now)
		return err_set(err, ENOMEM, "out of memory");
	if (fresh)
		return io_write_file_atomic(path, now, strlen(now), 0600, err);
	r = io_read_file(path, 64, &b, err);
	if (r < 0)
		return r;
	if (buf_size(&b) == strlen(now) && memcmp(buf_ptr(&b), now, strlen(now)) == 0)
		return 0;
	err_set(err, ERR_CORRUPT, "the disk image below has changed since this sandbox was made");
	return err_hint(err, "what the sandbox wrote no longer fits; remove it with `msb rm`");
}

/* ---- opening ---- */

/* The overlay @im in @fd on top of @below, of which the first is @base. */
static int open_overlay(int fd, const struct vm_image *im, const struct vm_image *base,
			const struct stamp *s, const struct qcow2_options *o, struct blk_disk **ret,
			struct err *err)
{
	struct stat st;
	int r;

	if (!o->backing)
		return err_set(err, EINVAL, "an overlay needs something below");
	if (fstat(fd, &st) < 0)
		return err_errno(err, "cannot stat it");
	r = check_base(im->path, st.st_size == 0, s, err);
	if (r == 0 && st.st_size == 0)
		r = qcow2_create(fd, o->backing->size, base->path, base->format, err);
	return r < 0 ? r : qcow2_open(fd, o, ret, err);
}

static int open_vmdk(int fd, const char *path, bool read_only, struct stamp *s,
		     struct blk_disk **ret, struct err *err)
{
	cleanup_free char *copy = strdup(path);
	cleanup_close int dir = -1;
	int r;

	if (!copy)
		return err_set(err, ENOMEM, "out of memory");
	dir = open(dirname(copy), O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return err_errno(err, "cannot open its directory");
	r = vmdk_open(fd, dir, read_only, lock_and_stamp, s, ret, err);
	/* The descriptor has been read and is of no more use. */
	if (r == 0)
		close(fd);
	return r;
}

/* Open images[i] on top of @below, which becomes the new disk's. */
static int open_one(const struct vm_disk *d, size_t i, struct stamp *s, struct blk_disk *below,
		    struct blk_disk **ret, struct err *err)
{
	const struct vm_image *im = (const struct vm_image *)d->images.v + i;
	bool write = i == 0 && !d->read_only;
	cleanup_close int fd = -1;
	int r;

	fd = open(im->path, (write ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(err, "cannot open it");
	r = lock_and_stamp(s, fd, write, err);
	if (r < 0)
		return r;
	if (str_eq(im->format, "qcow2")) {
		const struct qcow2_options o = {
			.read_only = !write,
			.no_flush = d->volatile_data,
			.backing = below,
		};

		r = im->overlay ? open_overlay(fd, im, im + 1, s, &o, ret, err)
				: qcow2_open(fd, &o, ret, err);
	} else if (below) {
		err_set(err, ERR_USAGE, "a %s disk does not rest on another", im->format);
		r = err_hint(err, "leave backing= out");
	} else if (str_eq(im->format, "vmdk")) {
		r = open_vmdk(fd, im->path, !write, s, ret, err);
	} else if (str_eq(im->format, "raw")) {
		const struct blk_file_options o = {
			.read_only = !write,
			.no_flush = d->volatile_data,
			.own_fd = true,
		};

		r = blk_file_new(fd, &o, ret, err);
	} else {
		r = err_set(err, EINVAL, "there is no disk format \"%s\"", im->format);
	}
	if (r == 0)
		(void)take_fd(&fd);
	return r;
}

int disk_image_open(const struct vm_disk *d, struct blk_disk **ret, struct err *err)
{
	const struct vm_image *im = d->images.v;
	struct stamp s = {0xcbf29ce484222325u};
	struct blk_disk *disk = NULL;

	if (d->images.n > STACK_MAX)
		return err_set(err, ERR_LIMIT, "a disk cannot rest on more than %d images",
			       STACK_MAX - 1);
	for (size_t i = d->images.n; i-- > 0;) {
		int r = open_one(d, i, &s, disk, &disk, err);

		if (r < 0) {
			blk_disk_free(disk);
			return err_wrap(err, "disk image %s", im[i].path);
		}
	}
	*ret = disk;
	return 0;
}

uint64_t disk_image_file_max(const struct blk_disk *disk)
{
	/* qcow2 with the smallest clusters and the widest counts: 16 bytes for every 512. */
	return disk->size + disk->size / 16;
}
