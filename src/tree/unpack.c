/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"
#include "tree/tree.h"

enum { NAME_BESIDE = 32 };

/* A directory that still gets its owner, mode and time. */
struct pending {
	char *path; /* beneath the root */
	uint32_t mode, uid, gid, mtime_ns;
	int64_t mtime;
};

struct unpack {
	const struct tree_unpack *o;
	struct tree_notes *notes;
	struct tar *tar;
	bool owners;	 /* we may give files away */
	const char *top; /* what the top of a tree becomes; "" is the root itself */
	char *top_copy;
	bool top_new;
	int root, parent; /* parent: the directory of parent_path */
	char parent_path[TREE_PATH_MAX + 2], path[TREE_PATH_MAX + 2];
	struct pending *dirs; /* each within the one before it */
	size_t ndirs, cap;
};

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

static int cannot(const struct unpack *u, const char *what, const char *path, struct err *err)
{
	/* What was given is the path of the top itself, unless that is put into a directory. */
	size_t n = u->top_copy && str_starts(path, u->top) ? strlen(u->top) : 0;
	const char *rest = path + n + (path[n] == '/');
	const char *slash = *rest && !str_ends(u->o->path, "/") ? "/" : "";
	int r = err_errno(err, "cannot %s %s%s%s", what, u->o->path, slash, rest);

	if (r == -ENOSYS)
		err_hint(err, "Linux 5.6 or newer is needed to unpack safely");
	return r;
}

/* ---- names ---- */

/* Append the components of @s to @to; -EINVAL for "..", -ENAMETOOLONG. */
static int add_components(char *to, const char *s)
{
	size_t n = strlen(to);

	while (*s) {
		size_t len = strcspn(s, "/");

		if (len == 2 && s[0] == '.' && s[1] == '.')
			return -EINVAL;
		if (len && !(len == 1 && s[0] == '.')) {
			if (n + len + 1 > TREE_PATH_MAX)
				return -ENAMETOOLONG;
			if (n)
				to[n++] = '/';
			memcpy(to + n, s, len);
			n += len;
			to[n] = '\0';
		}
		s += len;
		s += *s == '/';
	}
	return 0;
}

/* Where @path of the stream belongs, beneath the root; "" is the root. */
static int map_path(const struct unpack *u, const char *path, char to[TREE_PATH_MAX + 2],
		    struct err *err)
{
	int r;

	to[0] = '\0';
	r = u->top ? add_components(to, u->top) : 0;
	if (r == 0)
		r = add_components(to, path);
	if (r < 0)
		return err_set(err, ERR_CORRUPT, "the archive holds the name '%.200s', which %s",
			       path, r == -EINVAL ? "leads out of it" : "is too long");
	return 0;
}

static int open_beneath(const struct unpack *u, const char *path, int flags)
{
	struct open_how how = {
		.flags = (uint64_t)flags | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};

	return (int)syscall(SYS_openat2, u->root, path[0] ? path : ".", &how, sizeof(how));
}

static const char *base_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* Make the directories on the way to @path that are missing, and none through a link. */
static int make_parents(struct unpack *u, char *path)
{
	cleanup_close int at = open_beneath(u, "", O_PATH | O_DIRECTORY);
	char *s = path;

	while (at >= 0 && *s) {
		size_t n = strcspn(s, "/");
		bool more = s[n] == '/';
		int next = -1;

		s[n] = '\0';
		if (mkdirat(at, s, 0755) == 0 || errno == EEXIST)
			next = openat(at, s, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		close(at);
		at = next;
		if (more)
			s[n] = '/';
		s += n + more;
	}
	return at < 0 ? -errno : 0;
}

/* u->parent becomes the directory of u->path. */
static int enter_parent(struct unpack *u, struct err *err)
{
	char dir[TREE_PATH_MAX + 2];
	const char *base = base_of(u->path);
	size_t n = base > u->path ? (size_t)(base - u->path - 1) : 0;
	int fd;

	if (u->parent >= 0 && !strncmp(u->parent_path, u->path, n) && !u->parent_path[n])
		return 0;
	memcpy(dir, u->path, n);
	dir[n] = '\0';
	fd = open_beneath(u, dir, O_PATH | O_DIRECTORY);
	if (fd < 0 && errno == ENOENT && make_parents(u, dir) == 0)
		fd = open_beneath(u, dir, O_PATH | O_DIRECTORY);
	if (fd < 0)
		return cannot(u, "enter the directory", dir, err);
	close_fd(u->parent);
	u->parent = fd;
	strcpy(u->parent_path, dir);
	return 0;
}

/* ---- what an entry is like ---- */

static uint32_t mode_of(struct unpack *u, uint32_t mode, uint32_t uid)
{
	bool keep = u->o->rights && (u->owners || uid == geteuid());

	if (!keep && mode & 06000) {
		u->notes->rights++;
		mode &= ~06000u;
	}
	return mode;
}

static bool give_away(struct unpack *u, uint32_t uid)
{
	if (!u->owners && uid != geteuid())
		u->notes->owners++;
	return u->owners;
}

/* What an attribute of this name does is ours to decide. */
static bool attribute_allowed(const struct unpack *u, const char *name)
{
	return u->o->attributes && (u->o->rights || str_starts(name, "user."));
}

static void set_attributes(struct unpack *u, int fd, const struct tar_entry *e)
{
	for (size_t i = 0; i < e->xattr_count; i++) {
		const struct tar_xattr *x = &e->xattrs[i];

		if (!u->o->attributes)
			continue;
		if (!attribute_allowed(u, x->name))
			u->notes->rights++;
		else if (fsetxattr(fd, x->name, x->value, x->len, 0) < 0)
			u->notes->attributes++;
	}
}

static void times_of(int64_t mtime, uint32_t ns, struct timespec t[2])
{
	t[0] = (struct timespec){.tv_nsec = UTIME_OMIT};
	t[1] = (struct timespec){.tv_sec = (time_t)mtime, .tv_nsec = (long)ns};
}

/* Owner before mode: a change of owner clears set-id bits. */
static int set_fd(struct unpack *u, int fd, uint32_t mode, uint32_t uid, uint32_t gid,
		  int64_t mtime, uint32_t mtime_ns)
{
	struct timespec t[2];

	times_of(mtime, mtime_ns, t);
	if (give_away(u, uid) && fchown(fd, uid, gid) < 0)
		return -errno;
	if (fchmod(fd, mode_of(u, mode, uid)) < 0 || futimens(fd, t) < 0)
		return -errno;
	return 0;
}

/* The same for what is not opened: links, devices. */
static int set_name(struct unpack *u, const struct tar_entry *e)
{
	const char *name = base_of(u->path);
	struct timespec t[2];

	times_of(e->mtime, e->mtime_ns, t);
	if (give_away(u, e->uid) &&
	    fchownat(u->parent, name, e->uid, e->gid, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (e->type != TAR_SYMLINK && fchmodat(u->parent, name, e->mode & 01777, 0) < 0)
		return -errno;
	return utimensat(u->parent, name, t, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

/* ---- directories ---- */

static int finish_dir(struct unpack *u, struct err *err)
{
	struct pending *d = &u->dirs[--u->ndirs];
	cleanup_close int fd = open_beneath(u, d->path, O_RDONLY | O_DIRECTORY);
	int r = fd < 0 ? -errno : set_fd(u, fd, d->mode, d->uid, d->gid, d->mtime, d->mtime_ns);

	if (r < 0) {
		errno = -r;
		r = cannot(u, "set owner, mode and time of", d->path, err);
	}
	free(d->path);
	return r;
}

static bool is_within(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return !n || (!strncmp(path, dir, n) && path[n] == '/');
}

/* Deal with the directories that @path is not in; NULL: with all. */
static int leave_dirs(struct unpack *u, const char *path, struct err *err)
{
	int r = 0;

	while (r == 0 && u->ndirs && !(path && is_within(path, u->dirs[u->ndirs - 1].path)))
		r = finish_dir(u, err);
	return r;
}

static int make_dir(struct unpack *u, const struct tar_entry *e, struct err *err)
{
	cleanup_close int fd = -1;

	/* The root was there before: it stays as it is. */
	if (!u->path[0])
		return 0;
	if (mkdirat(u->parent, base_of(u->path), 0700) < 0 && errno != EEXIST)
		return cannot(u, "make the directory", u->path, err);
	fd = openat(u->parent, base_of(u->path), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) {
		if (errno == ENOTDIR || errno == ELOOP)
			errno = EEXIST;
		return cannot(u, "make the directory", u->path, err);
	}
	set_attributes(u, fd, e);
	if (u->ndirs == u->cap) {
		size_t cap = u->cap ? u->cap * 2 : 16;
		struct pending *d = reallocarray(u->dirs, cap, sizeof(*d));

		if (!d)
			return no_memory(err);
		u->dirs = d;
		u->cap = cap;
	}
	u->dirs[u->ndirs] = (struct pending){
		.path = strdup(u->path),
		.mode = e->mode,
		.uid = e->uid,
		.gid = e->gid,
		.mtime = e->mtime,
		.mtime_ns = e->mtime_ns,
	};
	return u->dirs[u->ndirs++].path ? 0 : no_memory(err);
}

/* ---- everything else ---- */

/* Do it; once more when something that may be replaced was in the way. */
static int replacing(struct unpack *u, int (*make)(struct unpack *u, const struct tar_entry *e),
		     const struct tar_entry *e)
{
	int r = make(u, e);

	if (r != -EEXIST)
		return r;
	if (unlinkat(u->parent, base_of(u->path), 0) < 0 && errno != ENOENT)
		return errno == EPERM ? -EISDIR : -errno;
	return make(u, e);
}

static int create_file(struct unpack *u, const char *name)
{
	int fd =
		openat(u->parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	return fd < 0 ? -errno : fd;
}

static int create_link(struct unpack *u, const struct tar_entry *e)
{
	return symlinkat(e->link, u->parent, base_of(u->path)) < 0 ? -errno : 0;
}

static int create_special(struct unpack *u, const struct tar_entry *e)
{
	mode_t type = e->type == TAR_FIFO ? S_IFIFO : e->type == TAR_CHARDEV ? S_IFCHR : S_IFBLK;

	return mknodat(u->parent, base_of(u->path), type | 0600, makedev(e->major, e->minor)) < 0
		       ? -errno
		       : 0;
}

static int write_data(struct unpack *u, int fd, uint64_t size, struct err *err)
{
	const uint8_t *p;
	uint64_t off, end = 0;
	size_t n;
	int r;

	while ((r = tar_data(u->tar, &p, &n, &off, err)) > 0) {
		int w = io_pwrite_full(fd, p, n, off);

		if (w < 0) {
			errno = -w;
			return cannot(u, "write", u->path, err);
		}
		end = off + n;
	}
	if (r == 0 && end < size && ftruncate(fd, (off_t)size) < 0)
		return cannot(u, "write", u->path, err);
	return r;
}

/* Give what is behind @fd a name: by descriptor, so nothing can have taken its place. */
static int link_fd(struct unpack *u, int fd, const char *name)
{
	char proc[40];

	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	return linkat(AT_FDCWD, proc, u->parent, name, AT_SYMLINK_FOLLOW);
}

/*
 * A file where there is one already: of another name, and where the file system has files without
 * any (*unnamed), it gets that at the end only, so that nothing of it stays if we are killed.
 */
static int create_beside(struct unpack *u, const char *name, char beside[NAME_BESIDE],
			 bool *unnamed)
{
	struct stat st;
	uint64_t v;
	int fd;

	if (fstatat(u->parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
		return -EISDIR;
	if (getrandom(&v, sizeof(v), 0) < 0)
		return -errno;
	snprintf(beside, NAME_BESIDE, ".msb-cp-%016llx", (unsigned long long)v);
	fd = openat(u->parent, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	*unnamed = fd >= 0;
	return fd >= 0 ? fd : create_file(u, beside);
}

static int fill_file(struct unpack *u, int fd, const struct tar_entry *e, struct err *err)
{
	int r = write_data(u, fd, e->size, err);

	if (r < 0)
		return r;
	r = set_fd(u, fd, e->mode, e->uid, e->gid, e->mtime, e->mtime_ns);
	if (r < 0) {
		errno = -r;
		return cannot(u, "set owner, mode and time of", u->path, err);
	}
	/* After the owner, whose change takes file capabilities away. */
	set_attributes(u, fd, e);
	return 0;
}

/* What is to be replaced stays until there is all of what replaces it. */
static int make_file(struct unpack *u, const struct tar_entry *e, struct err *err)
{
	const char *name = base_of(u->path), *at = name;
	cleanup_close int fd = create_file(u, name);
	char beside[NAME_BESIDE];
	bool unnamed = false;
	int r;

	if (fd == -EEXIST) {
		at = beside;
		fd = create_beside(u, name, beside, &unnamed);
	}
	if (fd < 0) {
		errno = -fd;
		return cannot(u, "make the file", u->path, err);
	}
	r = fill_file(u, fd, e, err);
	if (r == 0 && at != name &&
	    ((unnamed && link_fd(u, fd, at) < 0) || renameat(u->parent, at, u->parent, name) < 0))
		r = cannot(u, "make the file", u->path, err);
	/* No half of one stays. */
	if (r < 0)
		(void)unlinkat(u->parent, at, 0);
	return r;
}

static int make_hardlink(struct unpack *u, const struct tar_entry *e, struct err *err)
{
	char target[TREE_PATH_MAX + 2];
	cleanup_close int fd = -1;
	int r = map_path(u, e->link, target, err);

	if (r < 0)
		return r;
	/* A file linked to itself would be removed first. */
	if (str_eq(target, u->path))
		return 0;
	fd = open_beneath(u, target, O_PATH | O_NOFOLLOW);
	for (int again = 0; fd >= 0; again++) {
		if (link_fd(u, fd, base_of(u->path)) == 0)
			return 0;
		if (errno != EEXIST || again ||
		    (unlinkat(u->parent, base_of(u->path), 0) < 0 && errno != ENOENT))
			break;
	}
	return cannot(u, "link", u->path, err);
}

static int make_special(struct unpack *u, const struct tar_entry *e, struct err *err)
{
	bool device = e->type == TAR_CHARDEV || e->type == TAR_BLOCKDEV;
	/* Of a tree one may be left out, but not where it is all there is. */
	bool alone = u->o->name && u->top[0] && str_eq(u->path, u->top);
	int r;

	if (device && !u->o->rights && alone) {
		err_set(err, ERR_UNSUPPORTED,
			"what is to be copied is a device, and stays in its sandbox");
		return err_hint(err, "-a copies devices, too");
	}
	if (device && !u->o->rights) {
		u->notes->rights++;
		return 0;
	}
	r = replacing(u, e->type == TAR_SYMLINK ? create_link : create_special, e);
	if (device && r == -EPERM && !alone) {
		u->notes->devices++;
		return 0;
	}
	if (r == 0)
		r = set_name(u, e);
	if (r < 0) {
		errno = -r;
		return cannot(u, "make", u->path, err);
	}
	return 0;
}

static int unpack_entry(struct unpack *u, const struct tar_entry *e, struct err *err)
{
	int r = map_path(u, e->path, u->path, err);

	if (r == 0)
		r = leave_dirs(u, u->path, err);
	if (r == 0 && u->path[0])
		r = enter_parent(u, err);
	if (r < 0)
		return r;
	if (!u->path[0] && e->type != TAR_DIRECTORY)
		return err_set(err, ERR_CORRUPT, "the archive has no name for a file");
	switch (e->type) {
	case TAR_DIRECTORY:
		return make_dir(u, e, err);
	case TAR_FILE:
		return make_file(u, e, err);
	case TAR_HARDLINK:
		return make_hardlink(u, e, err);
	default:
		return make_special(u, e, err);
	}
}

/* ---- where to ---- */

static int open_root(struct unpack *u, const char *path, const char *top, struct err *err)
{
	struct stat st;

	u->root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (u->root < 0) {
		err_errno(err, "cannot copy to %s", u->o->path);
		return err_hint(err, "the directory it is to be in must exist");
	}
	u->top = top;
	u->top_new = top && top[0] && fstatat(u->root, top, &st, AT_SYMLINK_NOFOLLOW) < 0;
	return 0;
}

/* The rules of `cp` for one tree whose top has come. */
static int choose_place(struct unpack *u, bool directory, struct err *err)
{
	const char *path = u->o->path;
	size_t n = strlen(path);
	bool slash = n && path[n - 1] == '/', there;
	char *base;
	struct stat st;

	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return open_root(u, path, u->o->name, err);
	there = lstat(path, &st) == 0;
	if (!there && errno != ENOENT)
		return err_errno(err, "cannot copy to %s", path);
	if (there && directory)
		return err_set(err, ENOTDIR, "cannot copy a directory to %s, which is a file",
			       path);
	if (there && !S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
		return err_set(err, EEXIST, "%s is no ordinary file, and is not replaced", path);
	if (slash && !directory) {
		err_set(err, ENOENT, "there is no directory %s", path);
		return err_hint(err, "make it first, or leave out the slash");
	}
	u->top_copy = strdup(path);
	if (!u->top_copy)
		return no_memory(err);
	while (n > 1 && u->top_copy[n - 1] == '/')
		u->top_copy[--n] = '\0';
	base = strrchr(u->top_copy, '/');
	if (!base)
		return open_root(u, ".", u->top_copy, err);
	*base = '\0';
	return open_root(u, base == u->top_copy ? "/" : u->top_copy, base + 1, err);
}

/* What was not there before is not there afterwards. */
static void take_back(struct unpack *u)
{
	char path[TREE_PATH_MAX + 64];

	if (!u->top_new || u->root < 0)
		return;
	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", u->root, u->top);
	(void)io_remove_tree(path, NULL);
}

static int unpack_all(struct unpack *u, struct err *err)
{
	struct tar_entry e;
	int r;

	if (!u->o->name) {
		r = open_root(u, u->o->path, NULL, err);
		if (r < 0)
			return r;
	}
	while ((r = tar_next(u->tar, &e, err)) > 0) {
		r = u->root < 0 ? choose_place(u, e.type == TAR_DIRECTORY, err) : 0;
		if (r == 0)
			r = unpack_entry(u, &e, err);
		if (r < 0)
			return r;
	}
	if (r == 0 && u->o->name && (!tar_complete(u->tar) || u->root < 0))
		return err_set(err, ERR_PROTOCOL, "the copy broke off in the middle");
	return r < 0 ? r : leave_dirs(u, NULL, err);
}

int tree_unpack(const struct tree_unpack *o, tar_read_fn *read, void *arg, struct tree_notes *notes,
		struct err *err)
{
	struct unpack u = {.o = o, .notes = notes, .root = -1, .parent = -1};
	int r = tar_open(&u.tar, read, NULL, arg, err);

	u.owners = geteuid() == 0;
	if (r == 0)
		r = unpack_all(&u, err);
	if (r < 0)
		take_back(&u);
	while (u.ndirs)
		free(u.dirs[--u.ndirs].path);
	free(u.dirs);
	free(u.top_copy);
	close_fd(u.parent);
	close_fd(u.root);
	tar_close(u.tar);
	return r;
}

const char *tree_notes_text(const struct tree_notes *n, char *b, size_t size)
{
	const struct {
		uint64_t n;
		const char *text;
	} notes[] = {
		{n->sockets, "left out (sockets)"},
		{n->vanished, "gone before they were read"},
		{n->owners, "not given to their owners (that takes root)"},
		{n->rights, "without set-id bits, devices or security attributes"},
		{n->devices, "devices not made (not permitted)"},
		{n->attributes, "attributes not kept"},
	};
	size_t len = 0;

	b[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(notes) && len < size; i++) {
		if (notes[i].n)
			len += (size_t)snprintf(b + len, size - len, "%s%llu %s", len ? "; " : "",
						(unsigned long long)notes[i].n, notes[i].text);
	}
	return b;
}
