/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes to the root that the user asked for, read from a disk (wire/patch.h).
 *
 * They are made when the root, /proc and /tmp are in place and before anything of the user's is
 * mounted or runs. Every path means what it means in the guest, links included. What is made
 * belongs to root.
 */
#include <dirent.h>
#include <endian.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "boot.h"
#include "wire/patch.h"

enum { MARK_SIZE = 17, CHUNK = 256 << 10, REMOVE_DEPTH_MAX = 512, PROFILE_MAX = 1 << 20 };

static bool scripts_there;

struct reader {
	int fd;
	uint8_t *chunk;
	char path[PATCH_PATH_MAX + 1], target[PATCH_PATH_MAX + 1];
	bool scripts, again;
	unsigned appends;
};

bool patch_scripts(void)
{
	return scripts_there;
}

void patch_find_scripts(void)
{
	struct stat st;

	scripts_there = !stat(PATCH_SCRIPTS_DIR, &st) && S_ISDIR(st.st_mode);
}

static int take(struct reader *p, void *to, size_t n, struct err *err)
{
	ssize_t r = io_read_full(p->fd, to, n);

	if (r < 0)
		return err_set(err, (int)r, "cannot read the patches: %s", err_name((int)r));
	return (size_t)r < n ? err_set(err, ERR_CORRUPT, "the patches are cut off") : 0;
}

static int cannot(const char *what, const char *path, struct err *err)
{
	if (errno == EEXIST)
		return err_set(err, EEXIST,
			       "cannot %s %.300s: it is there already, and is replaced only after "
			       "--rm",
			       what, path);
	return err_errno(err, "cannot %s %.300s", what, path);
}

static void make_parents(char *path)
{
	for (char *s = strchr(path + 1, '/'); s; s = strchr(s + 1, '/')) {
		*s = '\0';
		/* What goes wrong here is told by what comes next. */
		(void)mkdir(path, 0755);
		*s = '/';
	}
}

static int remove_at(int dir, const char *name, unsigned depth)
{
	cleanup_close int fd = -1;
	cleanup_dir DIR *d = NULL;
	struct dirent *e;

	if (!unlinkat(dir, name, 0) || errno == ENOENT || errno == ENOTDIR)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	if (depth == REMOVE_DEPTH_MAX)
		return -ELOOP;
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	d = fdopendir(fd);
	if (!d)
		return -errno;
	(void)take_fd(&fd);
	while ((e = readdir(d))) {
		int r;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		r = remove_at(dirfd(d), e->d_name, depth + 1);
		if (r < 0)
			return r;
	}
	return unlinkat(dir, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

/* Whatever is there goes, if it may. */
static int clear_path(const char *path, struct err *err)
{
	int r = remove_at(AT_FDCWD, path, 0);

	return r < 0 ? err_set(err, r, "cannot replace %.300s: %s", path, err_name(r)) : 0;
}

static int fill(struct reader *p, int fd, uint64_t left, struct err *err)
{
	while (left) {
		size_t n = (size_t)MIN(left, (uint64_t)CHUNK);
		int r = take(p, p->chunk, n, err);

		if (r < 0)
			return r;
		r = io_write_full(fd, p->chunk, n);
		if (r < 0)
			return err_set(err, r, "cannot write %.300s: %s", p->path, err_name(r));
		left -= n;
	}
	return 0;
}

static int make_file(struct reader *p, const struct patch_step *s, struct err *err)
{
	const struct timespec times[2] = {
		{.tv_nsec = UTIME_NOW},
		{.tv_sec = (time_t)le64toh((uint64_t)s->mtime), .tv_nsec = le32toh(s->mtime_ns)},
	};
	cleanup_close int fd =
		open(p->path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	int r = fd < 0 ? cannot("copy to", p->path, err) : fill(p, fd, le64toh(s->size), err);

	if (r < 0)
		return r;
	if (fchmod(fd, le32toh(s->mode) & 07777) < 0 || futimens(fd, times) < 0)
		return cannot("finish", p->path, err);
	return 0;
}

static int make_directory(struct reader *p, const struct patch_step *s, struct err *err)
{
	if ((mkdir(p->path, 0700) < 0 && (errno != EEXIST || !p->again)) ||
	    chmod(p->path, le32toh(s->mode) & 07777) < 0)
		return cannot("copy to", p->path, err);
	return 0;
}

/* What a first try has added is taken back first. */
static int append_file(struct reader *p, const struct patch_step *s, struct err *err)
{
	const off_t at = MARK_SIZE + (off_t)sizeof(uint64_t) * p->appends++;
	cleanup_close int note = open(PATCH_MARK, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	cleanup_close int fd =
		open(p->path, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC, 0644);
	uint64_t size;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return cannot("add to", p->path, err);
	if (!S_ISREG(st.st_mode))
		return err_set(err, EINVAL, "cannot add to %.300s: it is no file", p->path);
	size = (uint64_t)st.st_size;
	if ((p->again && pread(note, &size, sizeof(size), at) == sizeof(size)
		     ? ftruncate(fd, (off_t)size) < 0
		     : pwrite(note, &size, sizeof(size), at) < 0) ||
	    fsync(note) < 0)
		return cannot("add to", p->path, err);
	return fill(p, fd, le64toh(s->size), err);
}

static int ensure_directory(struct reader *p, mode_t mode, struct err *err)
{
	struct stat st;

	if (!mkdir(p->path, 0755))
		return chmod(p->path, mode) < 0 ? cannot("make", p->path, err) : 0;
	if (errno == EEXIST && !stat(p->path, &st) && S_ISDIR(st.st_mode))
		return 0;
	if (errno == EEXIST)
		return err_set(err, ENOTDIR,
			       "cannot make the directory %.300s: it is something "
			       "else",
			       p->path);
	return cannot("make the directory", p->path, err);
}

static int step(struct reader *p, const struct patch_step *s, struct err *err)
{
	int r;

	if (le32toh(s->op) == PATCH_REMOVE) {
		r = remove_at(AT_FDCWD, p->path, 0);
		return r < 0 ? err_set(err, r, "cannot remove %.300s: %s", p->path, err_name(r))
			     : 0;
	}
	make_parents(p->path);
	switch (le32toh(s->op)) {
	case PATCH_REPLACE:
		p->scripts |=
			!strncmp(p->path, PATCH_SCRIPTS_DIR "/", sizeof(PATCH_SCRIPTS_DIR "/") - 1);
		r = clear_path(p->path, err);
		return r < 0 ? r : make_file(p, s, err);
	case PATCH_FILE:
		r = p->again ? clear_path(p->path, err) : 0;
		return r < 0 ? r : make_file(p, s, err);
	case PATCH_DIRECTORY:
		return make_directory(p, s, err);
	case PATCH_LINK:
		r = p->again ? clear_path(p->path, err) : 0;
		if (r < 0)
			return r;
		return symlink(p->target, p->path) < 0 ? cannot("copy to", p->path, err) : 0;
	case PATCH_MKDIR:
		return ensure_directory(p, le32toh(s->mode) & 07777, err);
	case PATCH_APPEND:
		return append_file(p, s, err);
	default:
		return err_set(err, ERR_CORRUPT, "the patches hold an unknown step");
	}
}

/* Login shells set a PATH of their own; there the scripts come back in through /etc/profile. */
static void mend_profile(void)
{
	static const char text[] = "\n# scripts of this sandbox\n"
				   "case \":$PATH:\" in\n"
				   "*:" PATCH_SCRIPTS_DIR ":*) ;;\n"
				   "*) PATH=" PATCH_SCRIPTS_DIR ":$PATH; export PATH ;;\n"
				   "esac\n";
	cleanup_buf struct buf b = BUF_INIT;
	cleanup_close int fd = -1;

	(void)mkdir("/etc", 0755);
	if (io_read_file("/etc/profile", PROFILE_MAX, &b, NULL) == 0 && buf_size(&b) &&
	    memmem(buf_ptr(&b), buf_size(&b), text, sizeof(text) - 1))
		return;
	fd = open("/etc/profile", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0644);
	if (fd < 0 || io_write_full(fd, text, sizeof(text) - 1) < 0)
		boot_log("cannot add the scripts to /etc/profile: %s", strerror(errno));
}

/* On the disk before anything that it speaks of can be. */
static int mark(const uint8_t id[16], char how, int flags, struct err *err)
{
	cleanup_close int fd = -1;
	char text[MARK_SIZE];

	(void)mkdir("/.msb", 0755);
	fd = open(PATCH_MARK, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC | flags, 0600);
	memcpy(text, id, 16);
	text[16] = how;
	if (fd < 0 || write(fd, text, sizeof(text)) != sizeof(text) || fsync(fd) < 0)
		return cannot("write", PATCH_MARK, err);
	return 0;
}

/* 1: it is all done already. */
static int begin(struct reader *p, const uint8_t id[16], struct err *err)
{
	cleanup_close int fd = open(PATCH_MARK, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	char text[MARK_SIZE];

	if (fd >= 0 && read(fd, text, sizeof(text)) == sizeof(text) && !memcmp(text, id, 16)) {
		if (text[16] == PATCH_DONE)
			return 1;
		p->again = true;
	}
	return mark(id, PATCH_BEGUN, p->again ? 0 : O_TRUNC, err);
}

static int apply(struct reader *p, struct err *err)
{
	struct patch_head head;
	struct patch_step s;
	int r = take(p, &head, sizeof(head), err);

	if (r == 0 && memcmp(head.magic, PATCH_MAGIC, sizeof(head.magic)) != 0)
		r = err_set(err, ERR_CORRUPT, "the patches begin with something else");
	if (r == 0)
		r = begin(p, head.id, err);
	if (r != 0)
		return r < 0 ? r : 0;
	while (r == 0) {
		uint32_t path, target;

		r = take(p, &s, sizeof(s), err);
		if (r < 0 || le32toh(s.op) == PATCH_END)
			break;
		path = le32toh(s.path_len);
		target = le32toh(s.target_len);
		if (!path || path > PATCH_PATH_MAX || target > PATCH_PATH_MAX)
			return err_set(err, ERR_CORRUPT, "the patches hold a bad path");
		r = take(p, p->path, path, err);
		if (r == 0)
			r = take(p, p->target, target, err);
		if (r < 0)
			break;
		p->path[path] = p->target[target] = '\0';
		if (p->path[0] != '/')
			return err_set(err, ERR_CORRUPT, "the patches hold a relative path");
		r = step(p, &s, err);
	}
	if (r == 0 && p->scripts)
		mend_profile();
	return r < 0 ? r : mark(head.id, PATCH_DONE, 0, err);
}

int patch_apply(const char *spec, struct err *err)
{
	struct reader *p = calloc(1, sizeof(*p));
	mode_t mask = umask(0);
	char dev[64];
	int r;

	if (!p || !(p->chunk = malloc(CHUNK))) {
		free(p);
		return err_set(err, ENOMEM, "out of memory");
	}
	r = device_find(spec, dev, sizeof(dev), err);
	p->fd = r < 0 ? -1 : open(dev, O_RDONLY | O_CLOEXEC);
	if (r == 0 && p->fd < 0)
		r = err_errno(err, "cannot open the patches");
	if (r == 0)
		r = apply(p, err);
	umask(mask);
	close_fd(p->fd);
	free(p->chunk);
	free(p);
	return r;
}
