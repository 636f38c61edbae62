/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tar reader for hostile archives: v7, ustar, GNU (long names, old sparse, base-256 numbers) and
 * pax (path, linkpath, size, uid, gid, mtime, SCHILY.xattr.*, GNU.sparse 0.0, 0.1, 1.0).
 *
 * Pulls bytes through a callback and hands file contents out in place, without copying. Memory is
 * bounded by TAR_EXTENDED_MAX, whatever the archive says. Where the formats leave room it reads as
 * Go's archive/tar does, since that is what writes and reads image layers elsewhere: only regular
 * files have data, global pax headers are skipped, an archive may end without trailer.
 *
 * Why not libarchive: container archives are read at random offsets, which it does not tell; its
 * decoding of pax names depends on the process's locale; and `save` will need the exact header
 * bytes. In the tests, Python's reader is the judge of what GNU tar and Python write.
 *
 * One thread. Pointers in an entry live until the next call of tar_next().
 */
#ifndef TREE_TAR_H
#define TREE_TAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* One pax header or GNU long name: 64 KiB of xattrs and two 4 KiB paths, with room to spare. */
#define TAR_EXTENDED_MAX (1u << 20)
/* Fragments of a sparse file. */
#define TAR_SPARSE_MAX 65536u
/* Attributes of one file; Linux lists 64 KiB of names, each at least "user.a". */
#define TAR_XATTRS_MAX 4096u

/*
 * The next bytes of the archive: 1 and a non-empty piece valid until the next call, 0 at the end,
 * negative on failure.
 */
typedef int tar_read_fn(void *arg, const uint8_t **ret, size_t *ret_len, struct err *err);
/* Optional: move @n bytes ahead without delivering them. */
typedef int tar_skip_fn(void *arg, uint64_t n, struct err *err);

enum tar_type {
	TAR_FILE,
	TAR_HARDLINK,
	TAR_SYMLINK,
	TAR_CHARDEV,
	TAR_BLOCKDEV,
	TAR_DIRECTORY,
	TAR_FIFO,
};

struct tar_xattr {
	const char *name;
	const uint8_t *value;
	size_t len;
};

struct tar_entry {
	enum tar_type type;
	const char *path; /* as written */
	const char *link;
	uint32_t mode; /* permission bits only */
	uint32_t uid, gid;
	uint32_t major, minor;
	int64_t mtime;
	uint32_t mtime_ns;
	uint64_t size;	 /* as the file system would show it */
	uint64_t offset; /* of the data in the archive, when not sparse */
	const struct tar_xattr *xattrs;
	size_t xattr_count;
};

struct tar;

/* @skip may be NULL. */
int tar_open(struct tar **ret, tar_read_fn *read, tar_skip_fn *skip, void *arg, struct err *err);
struct tar *tar_close(struct tar *t);
static inline void tar_close_fn(struct tar **t)
{
	tar_close(*t);
}
#define cleanup_tar __attribute__((cleanup(tar_close_fn)))

/* 1 and the next entry, 0 at the end; skips what is left of the last one's data. */
int tar_next(struct tar *t, struct tar_entry *ret, struct err *err);

/*
 * The next piece of the current file's data: 1 with *ret_off ascending, 0 at the end. What no
 * piece covers is a hole.
 */
int tar_data(struct tar *t, const uint8_t **ret, size_t *ret_len, uint64_t *ret_off,
	     struct err *err);

/* After tar_next() returned 0: did the archive end as such, rather than just stop? */
bool tar_complete(const struct tar *t);

#endif
