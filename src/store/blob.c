/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of the store: temporary names, publication, locks, collection.
 *
 * A temporary file is alive exactly as long as somebody holds its flock. Its writer locks it right
 * after creation; a cleaner that gets in between wins the lock, unlinks the file, and the writer,
 * who then cannot lock or finds its name gone, takes another name.
 *
 * A lock file is unlinked by its holder before release. Whoever waited for it then holds a lock on
 * a file without that name, notices, and starts over with the new file.
 */
#include <dirent.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "store/store.h"
#include "store/store_internal.h"

#define STORE_RUN_LOCK "run.lock"
/* Collisions of 64 random bits do not happen; cleaners winning a race do, once in a blue moon. */
#define STORE_TEMP_TRIES 16

static int flock_wait(int fd, int how)
{
	int r;

	do
		r = flock(fd, how);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

static bool same_file(int fd, int dirfd, const char *name)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && fstatat(dirfd, name, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
	       a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

int store_temp_new(const struct store *s, struct store_temp *t, struct err *err)
{
	for (int i = 0; i < STORE_TEMP_TRIES; i++) {
		uint64_t random;
		char name[sizeof(t->name)];
		int fd;

		if (getrandom(&random, sizeof(random), 0) != sizeof(random))
			return err_errno(err, "cannot name a temporary file");
		snprintf(name, sizeof(name), "%016llx", (unsigned long long)random);
		fd = openat(s->dirs[STORE_TMP], name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0) {
			if (errno == EEXIST)
				continue;
			return store_write_error(s, -errno, err);
		}
		if (flock(fd, LOCK_EX | LOCK_NB) < 0 || !same_file(fd, s->dirs[STORE_TMP], name)) {
			close(fd);
			continue;
		}
		t->store = s;
		t->fd = fd;
		memcpy(t->name, name, sizeof(name));
		return 0;
	}
	return err_set(err, EAGAIN, "cannot make a temporary file in %s/tmp", s->home);
}

void store_temp_unname(struct store_temp *t)
{
	if (t->store && t->name[0])
		unlinkat(t->store->dirs[STORE_TMP], t->name, 0);
	t->name[0] = 0;
}

void store_temp_done(struct store_temp *t)
{
	store_temp_unname(t);
	if (t->store)
		close_fd(t->fd);
	*t = (struct store_temp)STORE_TEMP_INIT;
}

static int temp_sync(const struct store_temp *t, struct err *err)
{
	/* Blobs never change; say so to whoever looks, and to our own mistakes. */
	if (fchmod(t->fd, 0444) < 0 || fdatasync(t->fd) < 0)
		return store_write_error(t->store, -errno, err);
	return 0;
}

static int temp_rename_at(struct store_temp *t, int dirfd, const char *name, struct err *err)
{
	const struct store *s = t->store;

	if (renameat(s->dirs[STORE_TMP], t->name, dirfd, name) < 0)
		return store_write_error(s, -errno, err);
	t->name[0] = 0;
	store_temp_done(t);
	return 0;
}

static int temp_rename(struct store_temp *t, enum store_dir dir, const char *name, struct err *err)
{
	return temp_rename_at(t, t->store->dirs[dir], name, err);
}

int store_temp_publish_root(struct store_temp *t, const char *name, struct err *err)
{
	const int root = t->store->root;
	int r = temp_sync(t, err);

	if (r >= 0)
		r = temp_rename_at(t, root, name, err);
	if (r >= 0 && fsync(root) < 0)
		r = err_errno(err, "cannot sync the store");
	return r;
}

int store_temp_publish(struct store_temp *t, enum store_dir dir, const char *name, struct err *err)
{
	int r = temp_sync(t, err);

	return r < 0 ? r : temp_rename(t, dir, name, err);
}

int store_publish(const struct store *s, enum store_dir dir, const struct store_publication *p,
		  size_t n, struct err *err)
{
	int r = 0;

	/* A hint: the syncs wait for what has not got there, and report errors. */
	for (size_t i = 0; i < n; i++)
		sync_file_range(p[i].temp->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
	for (size_t i = 0; r >= 0 && i < n; i++)
		r = temp_sync(p[i].temp, err);
	for (size_t i = 0; r >= 0 && i < n; i++)
		r = temp_rename(p[i].temp, dir, p[i].name, err);
	return r < 0 ? r : store_sync_dir(s, dir, err);
}

int store_sync_dir(const struct store *s, enum store_dir dir, struct err *err)
{
	if (fsync(s->dirs[dir]) < 0)
		return store_write_error(s, -errno, err);
	return 0;
}

void store_clean_temps(const struct store *s)
{
	int copy = openat(s->dirs[STORE_TMP], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_dir DIR *d = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;

	if (!d) {
		close_fd(copy);
		return;
	}
	while ((e = readdir(d))) {
		cleanup_close int fd = -1;

		if (e->d_name[0] == '.')
			continue;
		fd = openat(s->dirs[STORE_TMP], e->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 &&
		    same_file(fd, s->dirs[STORE_TMP], e->d_name))
			unlinkat(s->dirs[STORE_TMP], e->d_name, 0);
	}
}

int store_lock(const struct store *s, const char *name, struct store_lock *ret, struct err *err)
{
	if (strlen(name) >= sizeof(ret->name))
		return err_set(err, ENAMETOOLONG, "lock name too long: %s", name);
	for (;;) {
		cleanup_close int fd =
			openat(s->dirs[STORE_LOCKS], name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		int r;

		if (fd < 0)
			return err_errno(err, "cannot lock %s in the store at %s", name, s->home);
		r = flock_wait(fd, LOCK_EX);
		if (r < 0)
			return err_set(err, r, "cannot lock %s: %s", name, err_name(-r));
		if (!same_file(fd, s->dirs[STORE_LOCKS], name))
			continue;
		ret->fd = take_fd(&fd);
		ret->dirfd = s->dirs[STORE_LOCKS];
		snprintf(ret->name, sizeof(ret->name), "%s", name);
		return 0;
	}
}

void store_unlock(struct store_lock *l)
{
	if (l->fd >= 0) {
		unlinkat(l->dirfd, l->name, 0);
		close(l->fd);
	}
	*l = (struct store_lock)STORE_LOCK_INIT;
}

static int open_run_lock(const struct store *s, struct err *err)
{
	int fd = openat(s->root, STORE_RUN_LOCK, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		return err_errno(err, "cannot lock the store at %s", s->home);
	return fd;
}

int store_hold(const struct store *s, struct err *err)
{
	cleanup_close int fd = open_run_lock(s, err);
	int r;

	if (fd < 0)
		return fd;
	r = flock_wait(fd, LOCK_SH);
	if (r < 0)
		return err_set(err, r, "cannot lock the store at %s: %s", s->home, err_name(-r));
	return take_fd(&fd);
}

/* Is the blob HEX.suffix in @dir named by a row? */
static int blob_wanted(struct store *s, sqlite3_stmt *st, const char *name, struct err *err)
{
	char id[72];
	const char *dot = strchr(name, '.');
	int r;

	if (!dot || dot - name != 64)
		return 0;
	snprintf(id, sizeof(id), "sha256:%.64s", name);
	sqlite3_reset(st);
	sqlite3_bind_text(st, 1, id, -1, SQLITE_TRANSIENT);
	r = store_step(s, st, err);
	sqlite3_reset(st);
	return r;
}

static int gc_dir(struct store *s, enum store_dir dir, const char *sql, bool plan,
		  struct store_gc_result *res, struct err *err)
{
	int copy = openat(s->dirs[dir], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_dir DIR *d = copy < 0 ? NULL : fdopendir(copy);
	cleanup_stmt sqlite3_stmt *st = NULL;
	struct dirent *e;
	int r;

	if (!d) {
		close_fd(copy);
		return err_errno(err, "cannot read a directory of the store at %s", s->home);
	}
	r = store_prepare(s, &st, sql, err);
	if (r < 0)
		return r;
	while ((e = readdir(d))) {
		struct stat sb;

		if (e->d_name[0] == '.')
			continue;
		r = blob_wanted(s, st, e->d_name, err);
		if (r < 0)
			return r;
		if (r > 0 || fstatat(s->dirs[dir], e->d_name, &sb, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (!plan && unlinkat(s->dirs[dir], e->d_name, 0) < 0)
			return err_errno(err, "cannot delete %s in the store at %s", e->d_name,
					 s->home);
		res->files++;
		res->bytes += (uint64_t)sb.st_blocks * 512;
	}
	return 0;
}

static int gc(struct store *s, bool plan, struct store_gc_result *ret, struct err *err)
{
	cleanup_close int fd = open_run_lock(s, err);
	struct store_gc_result res = {0};
	int r;

	if (fd < 0)
		return fd;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK)
			return err_errno(err, "cannot lock the store at %s", s->home);
		res.busy = true;
		*ret = res;
		return 0;
	}
	r = store_exec(s,
		       "DELETE FROM layers WHERE NOT EXISTS"
		       " (SELECT 1 FROM image_layers l WHERE l.diff_id = layers.diff_id)",
		       err);
	if (r >= 0)
		r = gc_dir(s, STORE_IMAGES, "SELECT 1 FROM images WHERE id = ?1", plan, &res, err);
	if (r >= 0)
		r = gc_dir(s, STORE_LAYERS, "SELECT 1 FROM layers WHERE diff_id = ?1", plan, &res,
			   err);
	if (r < 0)
		return r;
	*ret = res;
	return 0;
}

int store_gc(struct store *s, struct store_gc_result *ret, struct err *err)
{
	return gc(s, false, ret, err);
}

int store_gc_plan(struct store *s, struct store_gc_result *ret, struct err *err)
{
	return gc(s, true, ret, err);
}
