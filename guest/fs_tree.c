/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying and removing trees, in a helper process. Directories are walked by descriptor and
 * never through links, so a tree that changes underneath cannot lead us out of it. The answer is
 * empty for success, else the error text. The depth is bounded by the descriptors we may open;
 * running out is an error like others.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fs.h"
#include "helper.h"

enum { TREE_DEPTH_MAX = 512 };

struct tree_job {
	struct stream st;
	struct helper helper;
	bool copy;
	const char *src, *dst; /* for the child, which has its own copy of all memory */
};

static int remove_at(int dirfd, const char *name, int depth);

static int remove_entries(DIR *d, int depth)
{
	struct dirent *e;

	while ((errno = 0, e = readdir(d))) {
		int r;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		r = remove_at(dirfd(d), e->d_name, depth + 1);
		if (r < 0)
			return r;
	}
	return -errno;
}

static int remove_at(int dirfd, const char *name, int depth)
{
	int fd, r;
	DIR *d;

	if (!unlinkat(dirfd, name, 0))
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	if (depth > TREE_DEPTH_MAX)
		return -ELOOP;
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	d = fdopendir(fd);
	if (!d) {
		close(fd);
		return -ENOMEM;
	}
	r = remove_entries(d, depth);
	closedir(d);
	if (r < 0)
		return r;
	return unlinkat(dirfd, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

static int copy_data(int from, int to)
{
	for (;;) {
		ssize_t n = copy_file_range(from, NULL, to, NULL, 16 << 20, 0);

		if (n < 0 && (errno == EXDEV || errno == EINVAL || errno == ENOSYS ||
			      errno == EOPNOTSUPP || errno == EBADF))
			n = sendfile(to, from, NULL, 1 << 20);
		if (n < 0)
			return -errno;
		if (!n)
			return 0;
	}
}

static int copy_file(int from, const char *name, int to, const char *dst, const struct stat *st)
{
	cleanup_close int in = openat(from, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	cleanup_close int out = -1;
	int r;

	if (in < 0)
		return -errno;
	out = openat(to, dst, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK,
		     st->st_mode & 0777);
	if (out < 0)
		return -errno;
	r = copy_data(in, out);
	if (!r && fchmod(out, st->st_mode & 07777) < 0)
		r = -errno;
	return r;
}

static int copy_link(int from, const char *name, int to, const char *dst)
{
	char target[FS_PATH_MAX];
	ssize_t n = readlinkat(from, name, target, sizeof(target) - 1);

	if (n < 0)
		return -errno;
	target[n] = '\0';
	return symlinkat(target, to, dst) < 0 ? -errno : 0;
}

static int copy_at(int from, const char *name, int to, const char *dst, int depth);

static int copy_dir(int from, const char *name, int to, const char *dst, const struct stat *st,
		    int depth)
{
	int fd = openat(from, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	cleanup_dir DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	cleanup_close int out = -1;
	struct dirent *e;

	if (!d) {
		r = -errno;
		close_fd(fd);
		return r;
	}
	if (mkdirat(to, dst, 0700) < 0 && errno != EEXIST)
		return -errno;
	out = openat(to, dst, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (out < 0)
		return -errno;
	while (!r && (errno = 0, e = readdir(d))) {
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			r = copy_at(dirfd(d), e->d_name, out, e->d_name, depth + 1);
	}
	if (!r && errno)
		r = -errno;
	if (!r && fchmod(out, st->st_mode & 07777) < 0)
		r = -errno;
	return r;
}

static int copy_at(int from, const char *name, int to, const char *dst, int depth)
{
	struct stat st;
	int r;

	if (depth > TREE_DEPTH_MAX)
		return -ELOOP;
	/* The top is what the client named: a link there stands for its target. */
	if (fstatat(from, name, &st, depth ? AT_SYMLINK_NOFOLLOW : 0) < 0)
		return -errno;
	switch (st.st_mode & S_IFMT) {
	case S_IFREG:
		return copy_file(from, name, to, dst, &st);
	case S_IFDIR:
		r = copy_dir(from, name, to, dst, &st, depth);
		return r;
	case S_IFLNK:
		return copy_link(from, name, to, dst);
	case S_IFSOCK:
		return 0;
	default:
		return mknodat(to, dst, st.st_mode, st.st_rdev) < 0 ? -errno : 0;
	}
}

static int copy_top(const char *src, const char *dst)
{
	char inside[FS_PATH_MAX], real_src[FS_PATH_MAX];
	size_t n;

	/* Copying a directory into itself would never end. */
	if (realpath(src, real_src) && strlen(dst) < sizeof(inside)) {
		char *slash;

		strcpy(inside, dst);
		slash = strrchr(inside, '/');
		if (slash && slash != inside) {
			char real_parent[FS_PATH_MAX];

			*slash = '\0';
			n = strlen(real_src);
			if (realpath(inside, real_parent) && !strncmp(real_parent, real_src, n) &&
			    (real_parent[n] == '/' || !real_parent[n]))
				return -EINVAL;
		}
	}
	return copy_at(AT_FDCWD, src, AT_FDCWD, dst, 0);
}

static void child_job(void *arg, int fd)
{
	struct tree_job *j = arg;
	char text[256];
	struct stat st;
	int r;

	if (j->copy)
		r = copy_top(j->src, j->dst);
	else if (lstat(j->src, &st) < 0)
		r = -errno;
	else
		r = S_ISDIR(st.st_mode) ? remove_at(AT_FDCWD, j->src, 0) : -ENOTDIR;
	if (r < 0) {
		int n = snprintf(text, sizeof(text), "%s: %s (os error %d)",
				 j->copy ? "copy" : "remove_dir", strerror(-r), -r);

		(void)!write(fd, text, (size_t)n);
	} else {
		(void)!write(fd, "ok", 2);
	}
}

static void job_free(struct tree_job *j)
{
	stream_close(&j->st);
	helper_stop(&j->helper);
	free(j);
}

static void abandon(struct stream *s)
{
	job_free(container_of(s, struct tree_job, st));
}

static const struct stream_ops tree_ops = {.abandon = abandon};

static void job_done(struct helper *h)
{
	struct tree_job *j = container_of(h, struct tree_job, helper);
	struct conn *c = j->st.conn;
	uint32_t id = j->st.id;
	char text[HELPER_ANSWER_MAX + 1];
	size_t n = h->len;

	memcpy(text, h->answer, n);
	text[n] = '\0';
	job_free(j);
	if (!strcmp(text, "ok"))
		fs_reply(c, id, NULL);
	else
		fs_fail(c, id, "%s", n ? text : "the helper process died");
}

static void tree_start(struct conn *c, uint32_t id, bool copy, const char *src, const char *dst)
{
	struct tree_job *j = calloc(1, sizeof(*j));
	int r = j ? stream_open(c, &j->st, id, &tree_ops) : -ENOMEM;

	if (r < 0) {
		free(j);
		fs_fail_errno(c, id, copy ? "copy" : "remove_dir", r);
		return;
	}
	j->copy = copy;
	j->src = src;
	j->dst = dst;
	r = helper_start(&j->helper, c->sv->loop, -1, child_job, j, job_done);
	j->src = j->dst = NULL;
	if (r < 0) {
		job_free(j);
		fs_fail_errno(c, id, copy ? "copy" : "remove_dir", r);
	}
}

void fs_tree_copy(struct conn *c, uint32_t id, const char *src, const char *dst)
{
	tree_start(c, id, true, src, dst);
}

void fs_tree_remove(struct conn *c, uint32_t id, const char *path)
{
	tree_start(c, id, false, path, NULL);
}
