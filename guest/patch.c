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

enum { CHUNK = 256 << 10, REMOVE_DEPTH_MAX = 512 };

static bool scripts_there;

struct reader {
	int fd;
	uint8_t *chunk;
	char path[PATCH_PATH_MAX + 1], target[PATCH_PATH_MAX + 1];
	bool scripts;
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

static int make_file(struct reader *p, const struct patch_step *s, struct err *err)
{
	const struct timespec times[2] = {
		{.tv_nsec = UTIME_NOW},
		{.tv_sec = (time_t)le64toh((uint64_t)s->mtime), .tv_nsec = le32toh(s->mtime_ns)},
	};
	uint64_t left = le64toh(s->size);
	cleanup_close int fd =
		open(p->path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return cannot("copy to", p->path, err);
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
	if (fchmod(fd, le32toh(s->mode) & 07777) < 0 || futimens(fd, times) < 0)
		return cannot("finish", p->path, err);
	return 0;
}

static int make_directory(struct reader *p, const struct patch_step *s, struct err *err)
{
	if (mkdir(p->path, 0700) < 0 || chmod(p->path, le32toh(s->mode) & 07777) < 0)
		return cannot("copy to", p->path, err);
	return 0;
}

static int ensure_directory(struct reader *p, struct err *err)
{
	struct stat st;

	if (!mkdir(p->path, 0755))
		return chmod(p->path, 0755) < 0 ? cannot("make", p->path, err) : 0;
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
		r = remove_at(AT_FDCWD, p->path, 0);
		if (r < 0)
			return err_set(err, r, "cannot replace %.300s: %s", p->path, err_name(r));
		return make_file(p, s, err);
	case PATCH_FILE:
		return make_file(p, s, err);
	case PATCH_DIRECTORY:
		return make_directory(p, s, err);
	case PATCH_LINK:
		return symlink(p->target, p->path) < 0 ? cannot("copy to", p->path, err) : 0;
	case PATCH_MKDIR:
		return ensure_directory(p, err);
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
	cleanup_close int fd = -1;

	(void)mkdir("/etc", 0755);
	fd = open("/etc/profile", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0644);
	if (fd < 0 || io_write_full(fd, text, sizeof(text) - 1) < 0)
		boot_log("cannot add the scripts to /etc/profile: %s", strerror(errno));
}

static int apply(struct reader *p, struct err *err)
{
	char magic[PATCH_MAGIC_SIZE];
	struct patch_step s;
	int r = take(p, magic, sizeof(magic), err);

	if (r == 0 && memcmp(magic, PATCH_MAGIC, sizeof(magic)) != 0)
		r = err_set(err, ERR_CORRUPT, "the patches begin with something else");
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
	return r;
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
	if (r == 0 && p->scripts)
		mend_profile();
	close_fd(p->fd);
	free(p->chunk);
	free(p);
	return r;
}
