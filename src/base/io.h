/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files, directories and descriptors: the calls everyone needs, with EINTR and short transfers
 * dealt with once.
 *
 * Functions without an error object return -errno.
 */
#ifndef BASE_IO_H
#define BASE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"

/* Read until @n bytes or end of file; returns the count. */
ssize_t io_read_full(int fd, void *p, size_t n);
ssize_t io_pread_full(int fd, void *p, size_t n, uint64_t off);
/* Write all of it: 0 or -errno. Blocks on a non-blocking descriptor by polling it. */
int io_write_full(int fd, const void *p, size_t n);
int io_pwrite_full(int fd, const void *p, size_t n, uint64_t off);

int io_set_nonblock(int fd, bool on);
int io_set_cloexec(int fd, bool on);

/* The whole file at @path into @b (appended); ERR_LIMIT if it is longer than @max. */
int io_read_file(const char *path, size_t max, struct buf *b, struct err *err);
int io_read_fd(int fd, size_t max, struct buf *b);

/*
 * Publish a file atomically: write to a temporary name in the same directory, fsync, rename.
 * Nothing is left behind on failure.
 */
int io_write_file_atomic(const char *path, const void *p, size_t n, mode_t mode, struct err *err);

/*
 * A file for the user in the making: unnamed while it is written where the file system can do that,
 * so that nothing is left of one that was not finished. What is no regular file (a pipe, a device)
 * is written as it is. Zero-initialise with IO_DRAFT_INIT, write to fd, keep or not, done.
 */
struct io_draft {
	int fd;
	char *path, *temp; /* temp: its name, if it has one that is not path */
	bool direct;
};
#define IO_DRAFT_INIT                                                                              \
	{                                                                                          \
		.fd = -1                                                                           \
	}
int io_draft_open(struct io_draft *d, const char *path, struct err *err);
/* Sync it and give it its name, replacing what has that. */
int io_draft_keep(struct io_draft *d, struct err *err);
void io_draft_done(struct io_draft *d);
#define cleanup_draft __attribute__((cleanup(io_draft_done)))

/* mkdir -p; existing directories are fine. */
int io_mkdir_p(const char *path, mode_t mode, struct err *err);

/* Remove a tree without following links or leaving its device; a missing one is fine. */
int io_remove_tree(const char *path, struct err *err);

/* An anonymous file, close-on-exec, seals allowed, holding @n bytes of @p (which may be NULL). */
int io_memfd(const char *name, const void *p, size_t n, struct err *err);

/* Take a lock on an open file description: -EWOULDBLOCK when another holds it and !wait. */
int io_flock(int fd, bool exclusive, bool wait);

/*
 * Mark this process as the one that @fd, open for writing, belongs to, until it ends or closes any
 * descriptor of that file. Independent of io_flock(). -EWOULDBLOCK when it is another's.
 */
int io_own(int fd);
/* Whose mark that is, as the kernel knows it: never one that has ended. 0 when nobody's. */
pid_t io_owner(int fd);

#endif
