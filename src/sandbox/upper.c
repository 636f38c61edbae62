/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/upper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/proc.h"
#include "base/str.h"
#include "sandbox/artifacts.h"
#include "store/store.h"

/* Raise it when the options below change, so that old templates are not used. */
#define TEMPLATE_VERSION 1

/*
 * All features are named, so that the host's mke2fs.conf has no say. No metadata_csum: checksums
 * guard against a disk that lies, and cost every metadata block of a guest. uninit_bg lets empty
 * groups stay unwritten. Discarding (the default) punches the new file's holes, by which mke2fs
 * knows that the inode tables are zero and marks them so: otherwise the guest's kernel would
 * spend its first minutes writing 128 MiB of zeros into them.
 */
#define FEATURES                                                                                   \
	"none,extent,dir_index,ext_attr,filetype,flex_bg,sparse_super2,large_file,"                \
	"huge_file,extra_isize,dir_nlink,uninit_bg"
/* Metadata in one place and no copies of the superblock: fewer stretches to copy. */
#define EXTENDED "lazy_itable_init=1,packed_meta_blocks=1,num_backup_sb=0,root_owner=0:0"

static int make_template(struct store *s, const char *name, uint64_t mib, bool journal,
			 struct err *err)
{
	cleanup_temp struct store_temp temp = STORE_TEMP_INIT;
	cleanup_free char *mke2fs = artifact_program("mke2fs");
	const char *argv[28];
	size_t n = 0;
	struct proc child = PROC_INIT;
	int r;

	if (!mke2fs) {
		err_set(err, ERR_NOT_FOUND, "cannot make a root disk: mke2fs is not installed");
		return err_hint(err, "apt-get install e2fsprogs");
	}
	r = store_temp_new(s, &temp, err);
	if (r < 0)
		return r;
	if (ftruncate(temp.fd, (off_t)(mib << 20)) < 0)
		return err_errno(err, "cannot make a root disk of %llu MiB",
				 (unsigned long long)mib);
	argv[n++] = "mke2fs";
	argv[n++] = "-qF";
	argv[n++] = "-t";
	argv[n++] = "ext4";
	argv[n++] = "-b";
	argv[n++] = "4096";
	argv[n++] = "-I";
	argv[n++] = "256";
	argv[n++] = "-i";
	argv[n++] = "16384";
	argv[n++] = "-m";
	argv[n++] = "0";
	argv[n++] = "-G";
	argv[n++] = "64";
	argv[n++] = "-O";
	argv[n++] = journal ? FEATURES ",has_journal" : FEATURES;
	argv[n++] = "-E";
	argv[n++] = EXTENDED;
	if (journal) {
		argv[n++] = "-J";
		/* The smallest that ext4 takes; a sandbox's metadata fits many times. */
		argv[n++] = "size=4";
	}
	argv[n++] = "/proc/self/fd/3";
	argv[n] = NULL;
	r = proc_spawn(&child,
		       &(struct proc_spec){
			       .path = mke2fs,
			       .argv = argv,
			       .fds = &(struct proc_fd){temp.fd, 3},
			       .nfds = 1,
			       .die_with_parent = true,
		       },
		       err);
	if (r < 0)
		return r;
	r = proc_wait(&child, -1);
	if (r != 0) {
		err_set(err, EIO, "mke2fs could not make a root disk of %llu MiB (exit code %d)",
			(unsigned long long)mib, r);
		return err_hint(err, "is there space left in %s?", store_home(s));
	}
	return store_temp_publish(&temp, STORE_CACHE, name, err);
}

static int copy_range(int from, int to, off_t pos, off_t end)
{
	char chunk[64 * 1024];

	while (pos < end) {
		off_t in = pos, out = pos;
		ssize_t n = copy_file_range(from, &in, to, &out, (size_t)(end - pos), 0);

		if (n <= 0 && (n == 0 || errno == EXDEV || errno == EINVAL || errno == EOPNOTSUPP ||
			       errno == ENOSYS)) {
			size_t want = MIN((size_t)(end - pos), sizeof(chunk));

			n = io_pread_full(from, chunk, want, (uint64_t)pos);
			if (n == 0)
				return -EIO;
			if (n > 0)
				n = pwrite(to, chunk, (size_t)n, pos);
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		pos += n;
	}
	return 0;
}

static int copy_sparse(int from, int to, off_t size)
{
	off_t pos = 0;

	if (ioctl(to, FICLONE, from) == 0)
		return 0;
	if (ftruncate(to, size) < 0)
		return -errno;
	while (pos < size) {
		off_t data = lseek(from, pos, SEEK_DATA), hole;
		int r;

		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		hole = lseek(from, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		r = copy_range(from, to, data, hole);
		if (r < 0)
			return r;
		pos = hole;
	}
	return 0;
}

int upper_create(struct store *s, int dirfd, const char *name, uint64_t size, bool journal,
		 struct err *err)
{
	cleanup_close int from = -1, to = -1;
	char template[64], path[4096];
	uint64_t mib = size >> 20;
	struct stat st;
	int r;

	if (size < UPPER_SIZE_MIN || size > UPPER_SIZE_MAX) {
		char text[24];

		err_set(err, ERR_USAGE, "a root disk of %s is too %s", str_size(size, text),
			size < UPPER_SIZE_MIN ? "small" : "large");
		return err_hint(err, "choose between 16M and 16T");
	}
	snprintf(template, sizeof(template), "ext4-v%d-%llum%s.img", TEMPLATE_VERSION,
		 (unsigned long long)mib, journal ? "-journal" : "");
	from = openat(store_dirfd(s, STORE_CACHE), template, O_RDONLY | O_CLOEXEC);
	if (from < 0 && errno == ENOENT) {
		/* Two at once make it twice; the second replaces the first by an equal. */
		r = make_template(s, template, mib, journal, err);
		if (r < 0)
			return r;
		from = openat(store_dirfd(s, STORE_CACHE), template, O_RDONLY | O_CLOEXEC);
	}
	r = store_path(s, STORE_CACHE, template, path, sizeof(path), err);
	if (r < 0)
		return r;
	if (from < 0)
		return err_errno(err, "cannot open %s", path);
	if (fstat(from, &st) < 0 || st.st_size != (off_t)(mib << 20)) {
		err_set(err, ERR_CORRUPT, "the disk template %s is damaged", path);
		return err_hint(err, "delete it; it is made again");
	}
	to = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (to < 0)
		return err_errno(err, "cannot create the root disk %s", name);
	r = copy_sparse(from, to, st.st_size);
	if (r < 0) {
		unlinkat(dirfd, name, 0);
		err_set(err, r, "cannot write the root disk %s: %s", name, err_name(r));
		if (r == -ENOSPC)
			err_hint(err, "free some space in %s", store_home(s));
		return r;
	}
	return 0;
}
