/* SPDX-License-Identifier: Apache-2.0 */
#include "base/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

/* Deeper than any tree we make ourselves; it keeps a hostile one from exhausting the stack. */
#define REMOVE_DEPTH_MAX 256

ssize_t io_read_full(int fd, void *p, size_t n)
{
	size_t done = 0;

	while (done < n) {
		ssize_t r = read(fd, (char *)p + done, n - done);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			break;
		done += (size_t)r;
	}
	return (ssize_t)done;
}

ssize_t io_pread_full(int fd, void *p, size_t n, uint64_t off)
{
	size_t done = 0;

	while (done < n) {
		ssize_t r = pread(fd, (char *)p + done, n - done, (off_t)(off + done));

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			break;
		done += (size_t)r;
	}
	return (ssize_t)done;
}

int io_write_full(int fd, const void *p, size_t n)
{
	while (n) {
		ssize_t r = write(fd, p, n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0 && errno == EAGAIN) {
			struct pollfd pfd = {.fd = fd, .events = POLLOUT};

			(void)poll(&pfd, 1, -1);
			continue;
		}
		if (r < 0)
			return -errno;
		p = (const char *)p + r;
		n -= (size_t)r;
	}
	return 0;
}

int io_pwrite_full(int fd, const void *p, size_t n, uint64_t off)
{
	while (n) {
		ssize_t r = pwrite(fd, p, n, (off_t)off);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		p = (const char *)p + r;
		n -= (size_t)r;
		off += (size_t)r;
	}
	return 0;
}

int io_set_nonblock(int fd, bool on)
{
	int fl = fcntl(fd, F_GETFL);

	if (fl < 0 || fcntl(fd, F_SETFL, on ? fl | O_NONBLOCK : fl & ~O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

int io_set_cloexec(int fd, bool on)
{
	return fcntl(fd, F_SETFD, on ? FD_CLOEXEC : 0) < 0 ? -errno : 0;
}

int io_read_fd(int fd, size_t max, struct buf *b)
{
	enum { STEP = 64 * 1024 };
	size_t got = 0;

	for (;;) {
		void *to = buf_reserve(b, STEP);
		ssize_t n;

		if (!to)
			return -ENOMEM;
		n = io_read_full(fd, to, STEP);
		if (n < 0)
			return (int)n;
		buf_commit(b, (size_t)n);
		got += (size_t)n;
		if (got > max)
			return -ERR_LIMIT;
		if (n < STEP)
			return 0;
	}
}

int io_read_file(const char *path, size_t max, struct buf *b, struct err *err)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	int r;

	if (fd < 0)
		return err_errno(err, "cannot open %s", path);
	r = io_read_fd(fd, max, b);
	if (r == -ERR_LIMIT)
		return err_set(err, ERR_LIMIT, "%s is larger than %zu bytes", path, max);
	if (r < 0)
		return err_set(err, r, "cannot read %s: %s", path, err_name(r));
	return 0;
}

int io_write_file_atomic(const char *path, const void *p, size_t n, mode_t mode, struct err *err)
{
	cleanup_free char *tmp = NULL;
	cleanup_close int fd = -1;
	int r;

	if (asprintf(&tmp, "%s.tmp.XXXXXX", path) < 0)
		return err_set(err, ENOMEM, "cannot write %s: out of memory", path);
	fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0)
		return err_errno(err, "cannot create a file beside %s", path);
	r = io_write_full(fd, p, n);
	if (r == 0 && (fchmod(fd, mode) < 0 || fsync(fd) < 0 || rename(tmp, path) < 0))
		r = -errno;
	if (r < 0) {
		unlink(tmp);
		return err_set(err, r, "cannot write %s: %s", path, err_name(r));
	}
	return 0;
}

/* The directory that @path is in; a new string. */
static char *parent_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		return strdup(".");
	return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

static int draft_temp(struct io_draft *d, struct err *err)
{
	const mode_t mask = umask(0);

	umask(mask);
	if (asprintf(&d->temp, "%s.XXXXXX", d->path) < 0) {
		d->temp = NULL;
		return err_set(err, ENOMEM, "cannot write %s: out of memory", d->path);
	}
	d->fd = mkostemp(d->temp, O_CLOEXEC);
	if (d->fd >= 0 && fchmod(d->fd, 0666 & ~mask) == 0)
		return 0;
	if (d->fd < 0) {
		free(d->temp);
		d->temp = NULL;
	}
	return err_errno(err, "cannot write %s", d->path);
}

int io_draft_open(struct io_draft *d, const char *path, struct err *err)
{
	cleanup_free char *parent = NULL;
	struct stat st;

	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
		d->direct = true;
		d->fd = open(path, O_WRONLY | O_CLOEXEC);
		return d->fd < 0 ? err_errno(err, "cannot write %s", path) : 0;
	}
	/* Through a link, the file it leads to is replaced and not the link. */
	d->path = realpath(path, NULL);
	if (!d->path)
		d->path = strdup(path);
	parent = d->path ? parent_of(d->path) : NULL;
	if (!parent)
		return err_set(err, ENOMEM, "cannot write %s: out of memory", path);
	d->fd = open(parent, O_WRONLY | O_TMPFILE | O_CLOEXEC, 0666);
	if (d->fd >= 0)
		return 0;
	if (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOSYS)
		return draft_temp(d, err);
	return err_errno(err, "cannot write %s", path);
}

/* A file without a name gets one: its own, or one to be renamed from. */
static int draft_link(struct io_draft *d)
{
	char self[40], *temp;

	snprintf(self, sizeof(self), "/proc/self/fd/%d", d->fd);
	if (linkat(AT_FDCWD, self, AT_FDCWD, d->path, AT_SYMLINK_FOLLOW) == 0)
		return 0;
	if (errno != EEXIST)
		return -errno;
	if (asprintf(&temp, "%s.%d.tmp", d->path, getpid()) < 0)
		return -ENOMEM;
	if (linkat(AT_FDCWD, self, AT_FDCWD, temp, AT_SYMLINK_FOLLOW) < 0) {
		int r = -errno;

		free(temp);
		return r;
	}
	d->temp = temp;
	return 0;
}

int io_draft_keep(struct io_draft *d, struct err *err)
{
	int r = 0;

	if (d->direct)
		return 0;
	if (fsync(d->fd) < 0)
		r = -errno;
	if (r == 0 && !d->temp)
		r = draft_link(d);
	if (r == 0 && d->temp && rename(d->temp, d->path) < 0)
		r = -errno;
	if (r < 0)
		return err_set(err, r, "cannot write %s: %s", d->path, err_name(r));
	free(d->temp);
	d->temp = NULL;
	return 0;
}

void io_draft_done(struct io_draft *d)
{
	if (d->temp)
		unlink(d->temp);
	free(d->temp);
	free(d->path);
	close_fd(d->fd);
	*d = (struct io_draft)IO_DRAFT_INIT;
}

int io_mkdir_p(const char *path, mode_t mode, struct err *err)
{
	cleanup_free char *copy = strdup(path);

	if (!copy)
		return err_set(err, ENOMEM, "cannot create %s: out of memory", path);
	for (char *s = copy + 1;; s++) {
		char c = *s;

		if (c != '/' && c != '\0')
			continue;
		*s = '\0';
		if (mkdir(copy, mode) < 0 && errno != EEXIST)
			return err_errno(err, "cannot create directory %s", copy);
		*s = c;
		if (c == '\0')
			return 0;
	}
}

static int remove_at(int at, const char *name, dev_t dev, unsigned depth)
{
	cleanup_close int fd = -1;
	cleanup_dir DIR *dir = NULL;
	struct stat st;
	struct dirent *de;

	if (unlinkat(at, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	if (depth >= REMOVE_DEPTH_MAX)
		return -ELOOP;
	fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (dev && st.st_dev != dev)
		return -EXDEV;
	dir = fdopendir(fd);
	if (!dir)
		return -errno;
	fd = -1;
	while ((errno = 0, de = readdir(dir))) {
		int r;

		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		r = remove_at(dirfd(dir), de->d_name, st.st_dev, depth + 1);
		if (r < 0)
			return r;
	}
	if (errno)
		return -errno;
	return unlinkat(at, name, AT_REMOVEDIR) < 0 && errno != ENOENT ? -errno : 0;
}

int io_remove_tree(const char *path, struct err *err)
{
	int r = remove_at(AT_FDCWD, path, 0, 0);

	return r < 0 ? err_set(err, r, "cannot remove %s: %s", path, err_name(r)) : 0;
}

int io_memfd(const char *name, const void *p, size_t n, struct err *err)
{
	cleanup_close int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int r = 0;

	if (fd < 0)
		return err_errno(err, "cannot create memory file %s", name);
	if (p)
		r = io_write_full(fd, p, n);
	else if (ftruncate(fd, (off_t)n) < 0)
		r = -errno;
	if (r == 0 && lseek(fd, 0, SEEK_SET) < 0)
		r = -errno;
	if (r < 0)
		return err_set(err, r, "cannot fill memory file %s: %s", name, err_name(r));
	return take_fd(&fd);
}

int io_flock(int fd, bool exclusive, bool wait)
{
	int op = (exclusive ? LOCK_EX : LOCK_SH) | (wait ? 0 : LOCK_NB);

	while (flock(fd, op) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

int io_own(int fd)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	if (fcntl(fd, F_SETLK, &l) == 0)
		return 0;
	return errno == EACCES || errno == EAGAIN ? -EWOULDBLOCK : -errno;
}

pid_t io_owner(int fd)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	return fcntl(fd, F_GETLK, &l) == 0 && l.l_type != F_UNLCK ? l.l_pid : 0;
}
