/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fs.h"

int fs_entry_fill(struct fs_entry *e, const char *path, const struct stat *st)
{
	struct fs_entry made = {0};
	const char *kind = "other";

	if (S_ISREG(st->st_mode))
		kind = "file";
	else if (S_ISDIR(st->st_mode))
		kind = "dir";
	else if (S_ISLNK(st->st_mode))
		kind = "symlink";
	made.path = strdup(path);
	made.kind = strdup(kind);
	if (!made.path || !made.kind) {
		free(made.path);
		free(made.kind);
		return -ENOMEM;
	}
	made.size = (uint64_t)st->st_size;
	made.mode = st->st_mode & 07777;
	made.uid = st->st_uid;
	made.gid = st->st_gid;
	made.has_modified = made.has_mtime = made.has_atime = true;
	made.modified = made.mtime = st->st_mtime;
	made.atime = st->st_atime;
	*e = made;
	return 0;
}

static void make_times(const struct fs_attrs *a, struct timespec t[2])
{
	t[0] = (struct timespec){a->atime, a->has_atime ? 0 : UTIME_OMIT};
	t[1] = (struct timespec){a->mtime, a->has_mtime ? 0 : UTIME_OMIT};
}

int fs_set_path(const char *path, bool follow, const struct fs_attrs *a, const char **step)
{
	uid_t uid = a->has_uid ? a->uid : (uid_t)-1;
	gid_t gid = a->has_gid ? a->gid : (gid_t)-1;
	int at = follow ? 0 : AT_SYMLINK_NOFOLLOW;
	struct timespec t[2];
	struct stat st;

	if (a->has_size) {
		cleanup_close int fd =
			open(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK | (follow ? 0 : O_NOFOLLOW));

		*step = "truncate";
		if (fd < 0 || ftruncate(fd, (off_t)a->size) < 0)
			return -errno;
	}
	/* Before the mode: a change of owner clears set-id bits. */
	*step = "chown";
	if ((a->has_uid || a->has_gid) && fchownat(AT_FDCWD, path, uid, gid, at) < 0)
		return -errno;
	*step = "chmod";
	if (a->has_mode) {
		if (!follow && !lstat(path, &st) && S_ISLNK(st.st_mode))
			return -EOPNOTSUPP;
		if (chmod(path, a->mode & 07777) < 0)
			return -errno;
	}
	*step = "utimensat";
	make_times(a, t);
	if ((a->has_atime || a->has_mtime) && utimensat(AT_FDCWD, path, t, at) < 0)
		return -errno;
	return 0;
}

int fs_set_fd(int fd, const struct fs_attrs *a, const char **step)
{
	uid_t uid = a->has_uid ? a->uid : (uid_t)-1;
	gid_t gid = a->has_gid ? a->gid : (gid_t)-1;
	struct timespec t[2];

	*step = "truncate";
	if (a->has_size && ftruncate(fd, (off_t)a->size) < 0)
		return -errno;
	*step = "fchown";
	if ((a->has_uid || a->has_gid) && fchown(fd, uid, gid) < 0)
		return -errno;
	*step = "fchmod";
	if (a->has_mode && fchmod(fd, a->mode & 07777) < 0)
		return -errno;
	*step = "futimens";
	make_times(a, t);
	if ((a->has_atime || a->has_mtime) && futimens(fd, t) < 0)
		return -errno;
	return 0;
}
