/* SPDX-License-Identifier: Apache-2.0 */
#include "fs.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "users.h"

/* A handle's number is its place in the table and how often handles were opened before. */
enum { INDEX_BITS = 10 };
_Static_assert(1 << INDEX_BITS == FS_HANDLES_MAX, "handle numbers");

struct fs_handles {
	struct fs_handle *v[FS_HANDLES_MAX];
	uint64_t numbers[FS_HANDLES_MAX];
	uint64_t opened;
};

/* Replies */

void fs_reply(struct conn *c, uint32_t id, struct fs_result *result)
{
	struct msg_fs_response m = {.ok = true};

	if (result) {
		m.has_data = true;
		m.data = *result;
	}
	conn_send(c, id, MSG_FS_RESPONSE, &m);
	msg_free(MSG_FS_RESPONSE, &m);
}

void fs_fail(struct conn *c, uint32_t id, const char *fmt, ...)
{
	char text[512];
	struct msg_fs_response m = {.error = text};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	conn_send(c, id, MSG_FS_RESPONSE, &m);
}

void fs_fail_errno(struct conn *c, uint32_t id, const char *what, int error)
{
	error = abs(error);
	fs_fail(c, id, "%s: %s (os error %d)", what, strerror(error), error);
}

static void reply_path(struct conn *c, uint32_t id, const char *path)
{
	struct fs_result r = {.kind = FS_RESULT_PATH, .path = strdup(path)};

	fs_reply(c, id, &r);
}

static void reply_stat(struct conn *c, uint32_t id, const char *what, const char *path,
		       const struct stat *st)
{
	struct fs_result r = {.kind = FS_RESULT_STAT};

	if (fs_entry_fill(&r.stat, path, st) < 0)
		fs_fail_errno(c, id, what, ENOMEM);
	else
		fs_reply(c, id, &r);
}

/* Handles */

struct fs_handle *fs_handle_ref(struct fs_handle *h)
{
	h->refs++;
	return h;
}

struct fs_handle *fs_handle_unref(struct fs_handle *h)
{
	if (!h || --h->refs)
		return NULL;
	if (h->dir)
		closedir(h->dir);
	else
		close_fd(h->fd);
	free(h->path);
	free(h);
	return NULL;
}

static int handle_add(struct conn *c, struct fs_handle *h, uint64_t *ret)
{
	struct fs_handles *t = c->fs;

	if (!t)
		t = c->fs = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	for (unsigned i = 0; i < FS_HANDLES_MAX; i++) {
		if (t->v[i])
			continue;
		t->v[i] = h;
		t->numbers[i] = ++t->opened << INDEX_BITS | i;
		*ret = t->numbers[i];
		return 0;
	}
	return -EMFILE;
}

/* On failure an error was sent. */
static struct fs_handle *handle_get(struct conn *c, uint32_t id, const char *what, uint64_t number,
				    bool dir)
{
	unsigned i = number & (FS_HANDLES_MAX - 1);
	struct fs_handle *h = c->fs && c->fs->numbers[i] == number ? c->fs->v[i] : NULL;

	if (!h)
		fs_fail(c, id, "%s: invalid handle: %llu", what, (unsigned long long)number);
	else if (dir && !h->dir)
		fs_fail(c, id, "%s: handle %llu is a file", what, (unsigned long long)number);
	else
		return h;
	return NULL;
}

static void handle_drop(struct fs_handles *t, unsigned i)
{
	t->v[i] = fs_handle_unref(t->v[i]);
}

void fs_handles_free(struct conn *c)
{
	fs_close_range(c, 0, UINT32_MAX);
	free(c->fs);
	c->fs = NULL;
}

void fs_close_range(struct conn *c, uint32_t start, uint32_t end)
{
	for (unsigned i = 0; c->fs && i < FS_HANDLES_MAX; i++) {
		struct fs_handle *h = c->fs->v[i];

		if (h && h->owner >= start && h->owner <= end - (end != UINT32_MAX))
			handle_drop(c->fs, i);
	}
}

static void handle_reply(struct conn *c, uint32_t id, const char *what, struct fs_handle *h,
			 const char *path)
{
	struct fs_result res = {.kind = FS_RESULT_HANDLE};
	int r = -ENOMEM;

	h->refs = 1;
	h->owner = id;
	h->path = strdup(path);
	if (h->path)
		r = handle_add(c, h, &res.handle);
	if (r < 0) {
		fs_handle_unref(h);
		if (r == -EMFILE)
			fs_fail(c, id, "%s: too many open filesystem handles: %d", what,
				FS_HANDLES_MAX);
		else
			fs_fail_errno(c, id, what, r);
		return;
	}
	fs_reply(c, id, &res);
}

/*
 * Acting as a user: only our file system identity and directory change, and only until as_root().
 * -EIO when it did not take; an error was sent then.
 */
static int as_user(struct conn *c, uint32_t id, const char *what, const char *spec)
{
	struct user u;
	struct err err = ERR_INIT;

	if (!spec)
		return 0;
	if (user_lookup(spec, &u, &err) < 0) {
		fs_fail(c, id, "%s: %s", what, err.msg);
		return -EIO;
	}
	syscall(SYS_setgroups, u.ngroups, u.groups);
	setfsgid(u.gid);
	setfsuid(u.uid);
	/* As a login does: where there is none, it is the root. */
	(void)!chdir(u.home);
	return 0;
}

static void as_root(const char *spec)
{
	int saved = errno;

	if (spec) {
		(void)!chdir("/");
		setfsuid(geteuid());
		setfsgid(getegid());
		syscall(SYS_setgroups, 0, NULL);
	}
	errno = saved;
}

/* Operations */

static void op_real_path(struct conn *c, uint32_t id, const struct fs_op *op)
{
	cleanup_free char *path = realpath(op->path, NULL);

	if (path)
		reply_path(c, id, path);
	else
		fs_fail_errno(c, id, "realpath", errno);
}

static void op_stat(struct conn *c, uint32_t id, const struct fs_op *op)
{
	struct stat st;

	if ((op->follow_symlink ? stat(op->path, &st) : lstat(op->path, &st)) < 0)
		fs_fail_errno(c, id, "stat", errno);
	else
		reply_stat(c, id, "stat", op->path, &st);
}

static void set_failed(struct conn *c, uint32_t id, const char *op, const char *step, int r)
{
	char what[64];

	snprintf(what, sizeof(what), "%s: %s", op, step);
	fs_fail_errno(c, id, what, r);
}

static void op_set_stat(struct conn *c, uint32_t id, const struct fs_op *op)
{
	const char *step = "";
	int r = fs_set_path(op->path, op->follow_symlink, &op->attrs, &step);

	if (r < 0)
		set_failed(c, id, "setstat", step, r);
	else
		fs_reply(c, id, NULL);
}

/* Up to @limit entries of @d; what cannot be looked at is listed as unknown. */
static int list_dir(DIR *d, const char *path, size_t limit, struct wire_list *list)
{
	size_t bytes = 0, slash = strlen(path);
	struct fs_entry *v = NULL;
	struct dirent *e;

	while (list->n < limit && (errno = 0, e = readdir(d))) {
		char full[FS_PATH_MAX + 256];
		struct stat st = {0};

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		snprintf(full, sizeof(full), "%s%s%s", path,
			 slash && path[slash - 1] == '/' ? "" : "/", e->d_name);
		bytes += strlen(full) + 96;
		if (bytes > FS_LIST_BYTES_MAX || list->n >= WIRE_LIST_MAX)
			return -EOVERFLOW;
		if ((list->n & (list->n - 1)) == 0) {
			v = reallocarray(v, list->n ? list->n * 2 : 1, sizeof(*v));
			if (!v)
				return -ENOMEM;
			list->v = v;
		}
		(void)fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW);
		if (fs_entry_fill(&v[list->n], full, &st) < 0)
			return -ENOMEM;
		list->n++;
	}
	return list->n < limit ? -errno : 0;
}

static void reply_list(struct conn *c, uint32_t id, DIR *d, const char *path, size_t limit)
{
	struct fs_result res = {.kind = FS_RESULT_LIST};
	int r = list_dir(d, path, limit, &res.list);

	if (!r) {
		fs_reply(c, id, &res);
		return;
	}
	for (size_t i = 0; i < res.list.n; i++) {
		struct fs_entry *e = (struct fs_entry *)res.list.v + i;

		free(e->path);
		free(e->kind);
	}
	free(res.list.v);
	if (r == -EOVERFLOW)
		fs_fail(c, id,
			"readdir: too many entries for one answer; open it and read in parts");
	else
		fs_fail_errno(c, id, "readdir", r);
}

static void op_list(struct conn *c, uint32_t id, const struct fs_op *op)
{
	cleanup_dir DIR *d = opendir(op->path);

	if (d)
		reply_list(c, id, d, op->path, SIZE_MAX);
	else
		fs_fail_errno(c, id, "readdir", errno);
}

static void op_read_link(struct conn *c, uint32_t id, const struct fs_op *op)
{
	char target[FS_PATH_MAX];
	ssize_t n = readlink(op->path, target, sizeof(target) - 1);

	if (n < 0) {
		fs_fail_errno(c, id, "readlink", errno);
		return;
	}
	target[n] = '\0';
	reply_path(c, id, target);
}

static void reply_status(struct conn *c, uint32_t id, const char *what, int r)
{
	if (r < 0)
		fs_fail_errno(c, id, what, errno);
	else
		fs_reply(c, id, NULL);
}

static void op_symlink(struct conn *c, uint32_t id, const struct fs_op *op)
{
	int r;

	if (as_user(c, id, "symlink", op->user) < 0)
		return;
	r = symlink(op->target, op->link_path);
	as_root(op->user);
	reply_status(c, id, "symlink", r);
}

static int mkdir_parents(char *path)
{
	struct stat st;

	if (!*path) {
		errno = ENOENT;
		return -1;
	}
	for (char *p = path + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(path, 0777) < 0 && errno != EEXIST)
			return -1;
		*p = '/';
	}
	if (!mkdir(path, 0777))
		return 0;
	if (errno != EEXIST)
		return -1;
	if (stat(path, &st) < 0)
		return -1;
	errno = EEXIST;
	return S_ISDIR(st.st_mode) ? 0 : -1;
}

static void op_mkdir(struct conn *c, uint32_t id, const struct fs_op *op)
{
	int r;

	if (as_user(c, id, "mkdir", op->user) < 0)
		return;
	r = mkdir_parents(op->path);
	if (!r && op->has_mode)
		r = chmod(op->path, op->mode & 07777);
	as_root(op->user);
	reply_status(c, id, "mkdir", r);
}

static void op_remove(struct conn *c, uint32_t id, const struct fs_op *op)
{
	reply_status(c, id, "remove", unlink(op->path));
}

static void op_remove_dir(struct conn *c, uint32_t id, const struct fs_op *op)
{
	if (op->recursive)
		fs_tree_remove(c, id, op->path);
	else
		reply_status(c, id, "remove_dir", rmdir(op->path));
}

static void op_copy(struct conn *c, uint32_t id, const struct fs_op *op)
{
	fs_tree_copy(c, id, op->src, op->dst);
}

static void op_rename(struct conn *c, uint32_t id, const struct fs_op *op)
{
	reply_status(c, id, "rename", rename(op->src, op->dst));
}

/* The open(2) flags of the options, or -EINVAL for a combination without meaning. */
static int open_flags(const struct fs_open_options *o)
{
	int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	bool write = o->write || o->append;

	if (!o->read && !write)
		return -EINVAL;
	if ((o->create || o->create_new || o->truncate) && !write)
		return -EINVAL;
	if (o->append && o->truncate && !o->create_new)
		return -EINVAL;
	flags |= o->read && write ? O_RDWR : write ? O_WRONLY : O_RDONLY;
	flags |= o->append ? O_APPEND : 0;
	if (o->create_new)
		return flags | O_CREAT | O_EXCL;
	return flags | (o->create ? O_CREAT : 0) | (o->truncate ? O_TRUNC : 0);
}

static void op_open_file(struct conn *c, uint32_t id, const struct fs_op *op)
{
	const struct fs_open_options *o = &op->options;
	int flags = open_flags(o);
	struct fs_handle *h;
	int fd;

	if (flags < 0) {
		fs_fail_errno(c, id, "open", flags);
		return;
	}
	h = calloc(1, sizeof(*h));
	if (!h) {
		fs_fail_errno(c, id, "open", ENOMEM);
		return;
	}
	if (as_user(c, id, "open", o->user) < 0) {
		free(h);
		return;
	}
	fd = open(op->path, flags, o->has_mode ? o->mode & 07777 : 0666);
	as_root(o->user);
	if (fd < 0) {
		free(h);
		fs_fail_errno(c, id, "open", errno);
		return;
	}
	h->fd = fd;
	h->read = o->read;
	h->write = o->write || o->append;
	h->append = o->append;
	handle_reply(c, id, "open", h, op->path);
}

static void op_open_dir(struct conn *c, uint32_t id, const struct fs_op *op)
{
	struct fs_handle *h = calloc(1, sizeof(*h));

	if (h)
		h->dir = opendir(op->path);
	if (!h || !h->dir) {
		fs_fail_errno(c, id, "opendir", h ? errno : ENOMEM);
		free(h);
		return;
	}
	h->fd = dirfd(h->dir);
	handle_reply(c, id, "opendir", h, op->path);
}

static void op_close_handle(struct conn *c, uint32_t id, const struct fs_op *op)
{
	if (!handle_get(c, id, "close", op->handle, false))
		return;
	handle_drop(c->fs, op->handle & (FS_HANDLES_MAX - 1));
	fs_reply(c, id, NULL);
}

static void op_read(struct conn *c, uint32_t id, const struct fs_op *op)
{
	struct fs_handle *h = handle_get(c, id, "read", op->handle, false);

	if (!h)
		return;
	if (h->dir || !h->read)
		fs_fail(c, id, "read: handle %llu is %s", (unsigned long long)op->handle,
			h->dir ? "a directory" : "not open for reading");
	else
		fs_read_start(c, id, h, op);
}

static void op_write(struct conn *c, uint32_t id, const struct fs_op *op)
{
	struct fs_handle *h = handle_get(c, id, "write", op->handle, false);

	if (!h)
		return;
	if (h->dir || !h->write)
		fs_fail(c, id, "write: handle %llu is %s", (unsigned long long)op->handle,
			h->dir ? "a directory" : "not open for writing");
	else
		fs_write_start(c, id, h, op);
}

static void op_read_dir(struct conn *c, uint32_t id, const struct fs_op *op)
{
	struct fs_handle *h = handle_get(c, id, "readdir", op->handle, true);
	size_t limit = op->has_limit ? MAX(op->limit, 1u) : FS_READDIR_DEFAULT;

	if (h)
		reply_list(c, id, h->dir, h->path, limit);
}

static void op_fstat(struct conn *c, uint32_t id, const struct fs_op *op)
{
	struct fs_handle *h = handle_get(c, id, "fstat", op->handle, false);
	struct stat st;

	if (!h)
		return;
	if (fstat(h->fd, &st) < 0)
		fs_fail_errno(c, id, "fstat", errno);
	else
		reply_stat(c, id, "fstat", h->path, &st);
}

static void op_fset_stat(struct conn *c, uint32_t id, const struct fs_op *op)
{
	struct fs_handle *h = handle_get(c, id, "fsetstat", op->handle, false);
	const char *step = "";
	int r;

	if (!h)
		return;
	r = fs_set_fd(h->fd, &op->attrs, &step);
	if (r < 0)
		set_failed(c, id, "fsetstat", step, r);
	else
		fs_reply(c, id, NULL);
}

static void (*const ops[FS_OPS])(struct conn *c, uint32_t id, const struct fs_op *op) = {
	[FS_REAL_PATH] = op_real_path,
	[FS_STAT] = op_stat,
	[FS_SET_STAT] = op_set_stat,
	[FS_LIST] = op_list,
	[FS_READ_LINK] = op_read_link,
	[FS_SYMLINK] = op_symlink,
	[FS_MKDIR] = op_mkdir,
	[FS_REMOVE] = op_remove,
	[FS_REMOVE_DIR] = op_remove_dir,
	[FS_COPY] = op_copy,
	[FS_RENAME] = op_rename,
	[FS_OPEN_FILE] = op_open_file,
	[FS_OPEN_DIR] = op_open_dir,
	[FS_CLOSE_HANDLE] = op_close_handle,
	[FS_READ] = op_read,
	[FS_WRITE] = op_write,
	[FS_READ_DIR] = op_read_dir,
	[FS_FSTAT] = op_fstat,
	[FS_FSET_STAT] = op_fset_stat,
	[FS_PACK_TREE] = fs_pack,
	[FS_UNPACK_TREE] = fs_unpack,
};

void fs_request(struct conn *c, uint32_t id, const struct msg_fs_request *req)
{
	const char *user = req->user;

	c->sv->activity_seq++;
	if (user && !*user)
		user = c->sv->defaults.boot->user ? c->sv->defaults.boot->user : "";
	if (as_user(c, id, "user", user) < 0)
		return;
	ops[req->op.kind](c, id, &req->op);
	as_root(user);
}
