/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The empty root: a tmpfs that holds the places under their own names, so that whoever is inside
 * need not know that it is.
 *
 * The places are cloned as detached mounts with the flags they shall have, before the tmpfs hides
 * anything; it goes on top of the sandbox's directory, which is there anyway and ours. Then it
 * becomes the root, and a thread detaches the old one, until when it has a name in the working
 * directory; jail_seal() waits for it. What is still open of it stays open, but has no name.
 *
 * The sandbox's directory cannot be removed from within itself. For a sandbox that may have to be,
 * a detached clone of the directory above is kept: `..` leads nowhere from there, and the control
 * thread may not open files relative to it (roles.c), only remove.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "machine/jail/jail_impl.h"

/* sys/mount.h of glibc 2.36 and linux/mount.h both declare these; only numbers are needed here. */
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif

static int open_tree_clone(const char *path, unsigned flags)
{
	return (int)syscall(SYS_open_tree, AT_FDCWD, path,
			    OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | flags);
}

static int set_flags(int fd, const char *path, unsigned flags, uint64_t set)
{
	struct mount_attr attr = {.attr_set = set};

	return syscall(SYS_mount_setattr, fd, path, flags, &attr, sizeof(attr)) < 0 ? -errno : 0;
}

/* A place, ready to be put somewhere: a detached mount, or for a link its text. */
struct ready {
	int fd;
	bool dir;
	char link[256];
};

static int prepare(const struct jail_place *p, struct ready *ret)
{
	uint64_t flags = MOUNT_ATTR_NOSUID;
	struct stat st;
	ssize_t n;

	if (lstat(p->path, &st) < 0)
		return -errno;
	/* /lib and the like; a link to a file is replaced by what it leads to. */
	if (S_ISLNK(st.st_mode)) {
		n = readlink(p->path, ret->link, sizeof(ret->link) - 1);
		if (n < 0 || stat(p->path, &st) < 0)
			return -errno;
		ret->link[S_ISDIR(st.st_mode) ? n : 0] = '\0';
		if (*ret->link)
			return 0;
	}
	ret->dir = S_ISDIR(st.st_mode);
	/* All of it: in a user namespace, mounts on top of others cannot be left behind. */
	ret->fd = open_tree_clone(p->path, ret->dir ? AT_RECURSIVE : 0);
	if (ret->fd < 0)
		return -errno;
	if (!(p->access & (JAIL_WRITE | JAIL_MANAGE)))
		flags |= MOUNT_ATTR_RDONLY;
	if (!(p->access & JAIL_EXEC))
		flags |= MOUNT_ATTR_NOEXEC;
	if (!S_ISCHR(st.st_mode))
		flags |= MOUNT_ATTR_NODEV;
	return set_flags(ret->fd, "", AT_EMPTY_PATH | AT_RECURSIVE, flags);
}

/* Directories above @path, which is relative. */
static int make_parents(char *path)
{
	for (char *s = strchr(path, '/'); s; s = strchr(s + 1, '/')) {
		*s = '\0';
		/* Within another place it is there, and that may be read-only. */
		if (mkdir(path, 0755) < 0 && errno != EEXIST && errno != EROFS)
			return -errno;
		*s = '/';
	}
	return 0;
}

static int put(const struct jail_place *p, const struct ready *ready)
{
	char path[sizeof(p->path)];
	int r;

	snprintf(path, sizeof(path), "%s", p->path + 1);
	r = make_parents(path);
	if (r < 0)
		return r;
	if (*ready->link)
		return symlink(ready->link, path) < 0 && errno != EEXIST ? -errno : 0;
	if (ready->dir) {
		if (mkdir(path, 0755) < 0 && errno != EEXIST && errno != EROFS)
			return -errno;
	} else if (faccessat(AT_FDCWD, path, F_OK, 0) < 0) {
		cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

		if (fd < 0)
			return -errno;
	}
	return syscall(SYS_move_mount, ready->fd, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0
		       ? -errno
		       : 0;
}

static int put_initramfs(int from)
{
	cleanup_close int to = open(&JAIL_INITRAMFS[1], O_WRONLY | O_CREAT | O_CLOEXEC, 0444);
	struct stat st;
	off_t off = 0;

	if (to < 0 || fstat(from, &st) < 0)
		return -errno;
	while (off < st.st_size) {
		ssize_t n = sendfile(to, from, &off, (size_t)(st.st_size - off));

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
	}
	return 0;
}

/* In a room of its own, as the root's is small and becomes read-only. */
static int put_memory(uint64_t size)
{
	cleanup_close int fd = -1;
	char options[64];

	snprintf(options, sizeof(options), "mode=0700,size=%llu,nr_inodes=4",
		 (unsigned long long)size);
	if (mkdir(&JAIL_MEMORY_ROOM[1], 0700) < 0 ||
	    mount("jail", &JAIL_MEMORY_ROOM[1], "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
		  options) < 0)
		return -errno;
	fd = open(&JAIL_MEMORY[1], O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	return fd < 0 || ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
}

static int keep_parent(struct jail *j)
{
	cleanup_close int fd = -1;
	char path[1024];
	char *slash;

	snprintf(path, sizeof(path), "%s", j->params.dir);
	slash = strrchr(path, '/');
	if (!slash || slash == path)
		return -EINVAL;
	*slash = '\0';
	fd = open_tree_clone(path, 0);
	if (fd < 0)
		fd = open_tree_clone(path, AT_RECURSIVE);
	if (fd < 0)
		return -errno;
	j->dir_parent = fcntl(fd, F_DUPFD_CLOEXEC, JAIL_PARENT_FD);
	if (j->dir_parent != JAIL_PARENT_FD)
		return j->dir_parent < 0 ? -errno : -EMFILE;
	return set_flags(j->dir_parent, "", AT_EMPTY_PATH | AT_RECURSIVE,
			 MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
}

/* Everything that can fail and leaves the old root in place. */
static int furnish(struct jail *j, const struct jail_place *places, unsigned n,
		   const struct jail_files *files, struct ready *ready, const char **what)
{
	int r = 0;

	*what = "/";
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -errno;
	if (j->params.remove_dir)
		r = keep_parent(j);
	for (unsigned i = 0; i < n && r == 0; i++) {
		*what = places[i].path;
		r = prepare(&places[i], &ready[i]);
	}
	if (r < 0)
		return r;
	*what = "tmpfs";
	if (mount("jail", j->params.dir, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
		  "mode=0755,size=16m,nr_inodes=256") < 0)
		return -errno;
	if (chdir(j->params.dir) < 0)
		return -errno;
	for (unsigned i = 0; i < n && r == 0; i++) {
		*what = places[i].path;
		r = put(&places[i], &ready[i]);
	}
	if (r == 0 && files) {
		*what = JAIL_INITRAMFS;
		r = put_initramfs(files->initramfs);
	}
	if (r == 0 && files && files->memory) {
		*what = JAIL_MEMORY;
		r = put_memory(files->memory);
	}
	*what = "pivot_root";
	/* Stacked on the new root, the old one is reached as "." until it is detached. */
	if (r == 0 && syscall(SYS_pivot_root, ".", ".") < 0)
		r = -errno;
	if (r < 0) {
		(void)!chdir("/");
		(void)umount2(j->params.dir, MNT_DETACH);
	}
	return r;
}

/* The working directory, which all threads share, is the old root until then. */
static void *leave(void *arg)
{
	struct jail *j = arg;

	j->left = umount2(".", MNT_DETACH) < 0 || chdir("/") < 0 ? -errno : 0;
	return NULL;
}

int jail_left(struct jail *j, struct err *err)
{
	if (j->leaving)
		pthread_join(j->leaver, NULL);
	j->leaving = false;
	if (j->left < 0)
		return err_set(err, j->left, "cannot leave the host's file system: %s",
			       err_name(j->left));
	return 0;
}

int jail_root(struct jail *j, const struct jail_place *places, unsigned n,
	      const struct jail_files *files, struct err *err)
{
	struct ready ready[JAIL_PLACES_MAX] = {{0}};
	const char *what = NULL;
	int r;

	for (unsigned i = 0; i < n; i++)
		ready[i].fd = -1;
	r = furnish(j, places, n, files, ready, &what);
	for (unsigned i = 0; i < n; i++)
		close_fd(ready[i].fd);
	if (r < 0) {
		j->dir_parent = close_fd(j->dir_parent);
		jail_degrade(j, JAIL_ROOT, "%s: %s", what, err_name(r));
		return 0;
	}
	/* The kernel waits here until no CPU can be in the old mounts: that is somebody else's
	 * time. */
	j->leaving = pthread_create(&j->leaver, NULL, leave, j) == 0;
	if (!j->leaving)
		leave(j);
	j->rooted = true;
	/* Not of what is mounted below. */
	r = set_flags(AT_FDCWD, "/", 0, MOUNT_ATTR_RDONLY);
	if (r < 0)
		return err_set(err, r, "cannot make the empty root read-only: %s", err_name(r));
	jail_hold(j, JAIL_ROOT, "%u places", n);
	return 0;
}
