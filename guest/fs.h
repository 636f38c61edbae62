/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filesystem operations: core.fs.*.
 *
 * They run as the guest's root, unless the request names a user, on the guest's paths as the guest
 * sees them: the client may do anything inside the sandbox, so links are followed where the
 * protocol says so and nothing is confined. Reads and writes are streams; what may take long
 * (copying, removing trees) runs in a helper process. Handles belong to their connection.
 *
 * fs.c: the table and handles; fs_attr.c: metadata; fs_stream.c: reads and writes; fs_tree.c:
 * copying and removing; fs_archive.c: trees as tar streams.
 */
#ifndef GUEST_FS_H
#define GUEST_FS_H

#include <dirent.h>
#include <sys/stat.h>

#include "server.h"

enum {
	FS_READ_CHUNK = 256 << 10, /* one turn's share of a read */
	/* A listing larger than this would not fit a frame. */
	FS_LIST_BYTES_MAX = 3 << 20,
	FS_PATH_MAX = 4096,
};

struct fs_handle {
	unsigned refs; /* the table's and each running transfer's */
	int fd;
	DIR *dir; /* directories; then fd is borrowed from it */
	bool read, write, append;
	uint32_t owner; /* the id that opened it */
	char *path;
};

void fs_request(struct conn *c, uint32_t id, const struct msg_fs_request *req);
/* core.fs.data for a running write. False when @s is none. */
bool fs_data(struct stream *s, const uint8_t *p, size_t n);

void fs_handles_free(struct conn *c);
void fs_close_range(struct conn *c, uint32_t start, uint32_t end);

/* Inside the module. */
struct fs_handle *fs_handle_ref(struct fs_handle *h);
struct fs_handle *fs_handle_unref(struct fs_handle *h);

void fs_reply(struct conn *c, uint32_t id, struct fs_result *result); /* takes the contents */
void fs_fail(struct conn *c, uint32_t id, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* "what: reason (os error N)" for errno or a negative code. */
void fs_fail_errno(struct conn *c, uint32_t id, const char *what, int error);

void fs_read_start(struct conn *c, uint32_t id, struct fs_handle *h, const struct fs_op *op);
void fs_write_start(struct conn *c, uint32_t id, struct fs_handle *h, const struct fs_op *op);

/* Fill @e from @st; -ENOMEM. */
int fs_entry_fill(struct fs_entry *e, const char *path, const struct stat *st);
/* 0, or -errno with the step that failed. */
int fs_set_path(const char *path, bool follow, const struct fs_attrs *a, const char **step);
int fs_set_fd(int fd, const struct fs_attrs *a, const char **step);

/* fs_archive.c */
void fs_pack(struct conn *c, uint32_t id, const struct fs_op *op);
void fs_unpack(struct conn *c, uint32_t id, const struct fs_op *op);
bool fs_unpack_data(struct stream *s, const uint8_t *p, size_t n);

void fs_tree_copy(struct conn *c, uint32_t id, const char *src, const char *dst);
void fs_tree_remove(struct conn *c, uint32_t id, const char *path);

#endif
