/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking images away.
 *
 * An image is in use by a sandbox that is kept, which has a row in image_refs, and by one that
 * runs, which holds a shared lock on the image's metadata file. Whoever removes an image takes
 * that lock alone, and keeps it until the image is gone.
 */
#include <fcntl.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"
#include "image/catalog.h"
#include "image/reference.h"
#include "store/store.h"

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

void image_removed_done(struct image_removed *r)
{
	str_list_free(r->untagged);
	free(r->id);
	*r = (struct image_removed){0};
}

void image_pruned_done(struct image_pruned *r)
{
	str_list_free(r->images);
	*r = (struct image_pruned){0};
}

static void meta_name(const char *id, char name[96])
{
	snprintf(name, 96, "%.64s.erofs", id + strlen("sha256:"));
}

int image_hold(struct store *s, const struct image_info *i, struct err *err)
{
	cleanup_close int fd = -1;
	char name[96];
	struct stat st, named;

	meta_name(i->id, name);
	fd = openat(store_dirfd(s, STORE_IMAGES), name, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno != ENOENT)
		return err_errno(err, "cannot open %s", name);
	if (fd >= 0 && io_flock(fd, false, false) < 0)
		return err_set(err, ERR_NOT_FOUND, "image %s is being removed", i->id);
	for (size_t k = 0; fd >= 0 && k < i->extent_count; k++) {
		const struct image_extent *x = &i->extents[k];
		const bool there = stat(x->path, &named) == 0;

		if (there && (uint64_t)named.st_size == x->file_offset + x->blocks * IMAGE_BLOCK)
			continue;
		if (!there && errno != ENOENT)
			return err_errno(err, "cannot open %s", x->path);
		err_set(err, ERR_CORRUPT, "image %s is damaged: %s %s", i->id,
			strrchr(x->path, '/') + 1, there ? "has a wrong length" : "is missing");
		return err_hint(err, "load the image again, which mends it");
	}
	/* It may have been replaced or removed before we had the lock. */
	if (fd < 0 || fstat(fd, &st) < 0 ||
	    fstatat(store_dirfd(s, STORE_IMAGES), name, &named, AT_SYMLINK_NOFOLLOW) < 0 ||
	    st.st_ino != named.st_ino) {
		err_set(err, ERR_CORRUPT, "image %s is damaged: %s is missing", i->id, name);
		return err_hint(err, "load the image again, which mends it");
	}
	return take_fd(&fd);
}

/* Nobody but us from now on: the lock in *ret, -1 if the file is gone; -EBUSY without a message. */
static int lock_alone(struct store *s, const char *id, int *ret, struct err *err)
{
	cleanup_close int fd = -1;
	char name[96];

	meta_name(id, name);
	fd = openat(store_dirfd(s, STORE_IMAGES), name, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno != ENOENT)
		return err_errno(err, "cannot open %s", name);
	if (fd >= 0 && io_flock(fd, true, false) < 0)
		return -EBUSY;
	*ret = take_fd(&fd);
	return 0;
}

static int delete_where(struct store *s, const char *sql, const char *arg, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = store_prepare(s, &st, sql, err);

	if (r < 0)
		return r;
	sqlite3_bind_text(st, 1, arg, -1, SQLITE_TRANSIENT);
	return store_step(s, st, err);
}

/* A kept sandbox that uses the image: 1 and its name, 0 if there is none. */
static int kept_user(struct store *s, const char *id, char name[160], struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = store_prepare(s, &st, "SELECT sandbox FROM image_refs WHERE image_id = ?1", err);

	if (r < 0)
		return r;
	sqlite3_bind_text(st, 1, id, -1, SQLITE_TRANSIENT);
	while ((r = store_step(s, st, err)) > 0) {
		snprintf(name, 160, "%s", (const char *)sqlite3_column_text(st, 0));
		/* The directory is there from before the row is until after it is. */
		if (faccessat(store_dirfd(s, STORE_SANDBOXES), name, F_OK, AT_SYMLINK_NOFOLLOW) ==
		    0)
			return 1;
	}
	return r;
}

/* -EBUSY while a sandbox uses the image, unless @force; else the lock is ours. */
static int claim(struct store *s, const char *id, bool force, int *ret_lock, struct err *err)
{
	char name[160];
	int r = force ? 0 : kept_user(s, id, name, err);

	if (r > 0) {
		err_set(err, EBUSY, "the image is used by the sandbox \"%s\"", name);
		return err_hint(err, "remove the sandbox first; with --force the image goes and "
				     "the sandbox cannot be started again");
	}
	if (r == 0)
		r = lock_alone(s, id, ret_lock, err);
	if (r == -EBUSY && force)
		return 0;
	if (r == -EBUSY) {
		err_set(err, EBUSY, "the image is used by a sandbox that is running");
		return err_hint(err, "wait for it or stop it; with --force the image goes and the "
				     "sandbox runs on to its end");
	}
	return r;
}

static int delete_image(struct store *s, const char *id, struct err *err)
{
	int r = delete_where(s, "DELETE FROM image_refs WHERE image_id = ?1", id, err);

	/* References and the list of layers go with it. */
	return r < 0 ? r : delete_where(s, "DELETE FROM images WHERE id = ?1", id, err);
}

/* Which of its names @ref takes away: all for an id, one for a reference. */
static int remove_rows(struct store *s, const char *ref, bool force, struct image_removed *res,
		       int *lock, struct err *err)
{
	cleanup_image_info struct image_info i = IMAGE_INFO_INIT;
	char full[IMAGE_REFERENCE_MAX];
	cleanup_strv struct strv gone = {0};
	size_t left = 0;
	bool named = false;
	int r = catalog_find_any(s, ref, &i, err);

	if (r < 0)
		return r;
	if (reference_normalise(ref, full, NULL) >= 0)
		for (char **p = i.references; *p; p++)
			named |= str_eq(*p, full);
	for (char **p = i.references; *p; p++) {
		if (named && !str_eq(*p, full))
			left++;
		else if (strv_add(&gone, *p) < 0)
			return no_memory(err);
	}
	if (!left)
		r = claim(s, i.id, force, lock, err);
	for (size_t k = 0; r >= 0 && k < gone.n; k++)
		r = delete_where(s, "DELETE FROM refs WHERE reference = ?1", gone.v[k], err);
	if (r >= 0 && !left)
		r = delete_image(s, i.id, err);
	if (r < 0)
		return r;
	if (!left)
		res->id = take_ptr(i.id);
	res->untagged = gone.v ? take_ptr(gone.v) : calloc(1, sizeof(*res->untagged));
	gone.n = 0;
	return res->untagged ? 0 : no_memory(err);
}

int image_remove(struct store *s, const char *ref, bool force, struct image_removed *ret,
		 struct err *err)
{
	struct image_removed res = {0};
	struct store_gc_result gc = {0};
	cleanup_close int lock = -1;
	int r = store_begin(s, err);

	if (r < 0)
		return r;
	r = remove_rows(s, ref, force, &res, &lock, err);
	if (r >= 0)
		r = store_commit(s, err);
	if (r < 0)
		store_rollback(s);
	/* The image is gone for everyone now; its files go as soon as nobody writes. */
	if (r >= 0 && res.id)
		r = store_gc(s, &gc, err);
	if (r < 0) {
		image_removed_done(&res);
		return r;
	}
	res.bytes = gc.bytes;
	res.busy = gc.busy;
	*ret = res;
	return 0;
}

/* --- Pruning --- */

struct prune {
	struct strv ids, names;
	int *locks; /* as many as ids */
	size_t lock_count;
};

static void prune_done(struct prune *p)
{
	for (size_t i = 0; i < p->lock_count; i++)
		close_fd(p->locks[i]);
	free(p->locks);
	strv_done(&p->ids);
	strv_done(&p->names);
}

static int candidates(struct store *s, bool all, struct prune *p, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = store_prepare(s, &st,
			      "SELECT i.id, ifnull((SELECT min(reference) FROM refs"
			      " WHERE image_id = i.id), i.id) AS name FROM images i"
			      " WHERE ?1 OR name = i.id ORDER BY name",
			      err);

	if (r < 0)
		return r;
	sqlite3_bind_int(st, 1, all);
	while ((r = store_step(s, st, err)) > 0)
		if (strv_add(&p->ids, (const char *)sqlite3_column_text(st, 0)) < 0 ||
		    strv_add(&p->names, (const char *)sqlite3_column_text(st, 1)) < 0)
			return no_memory(err);
	return r;
}

static int prune_rows(struct store *s, bool all, struct prune *p, struct image_pruned *res,
		      struct err *err)
{
	cleanup_strv struct strv gone = {0};
	int r = candidates(s, all, p, err);

	if (r < 0)
		return r;
	p->locks = calloc(p->ids.n + 1, sizeof(*p->locks));
	if (!p->locks)
		return no_memory(err);
	for (size_t i = 0; r >= 0 && i < p->ids.n; i++) {
		int *lock = &p->locks[p->lock_count++];

		*lock = -1;
		r = claim(s, p->ids.v[i], false, lock, err);
		if (r == -EBUSY) {
			err_clear(err);
			r = 0;
			continue;
		}
		if (r >= 0)
			r = delete_image(s, p->ids.v[i], err);
		if (r >= 0 && strv_add(&gone, p->names.v[i]) < 0)
			return no_memory(err);
	}
	if (r < 0)
		return r;
	res->images = gone.v ? take_ptr(gone.v) : calloc(1, sizeof(*res->images));
	gone.n = 0;
	return res->images ? 0 : no_memory(err);
}

int image_prune(struct store *s, bool all, bool dry_run, struct image_pruned *ret, struct err *err)
{
	struct image_pruned res = {0};
	struct store_gc_result gc = {0};
	struct prune p = {0};
	int r = store_begin(s, err);

	if (r < 0)
		return r;
	r = prune_rows(s, all, &p, &res, err);
	/* What would go is asked of the state in which it would. */
	if (r >= 0 && dry_run)
		r = store_gc_plan(s, &gc, err);
	if (r >= 0 && !dry_run)
		r = store_commit(s, err);
	if (r < 0 || dry_run)
		store_rollback(s);
	if (r >= 0 && !dry_run)
		r = store_gc(s, &gc, err);
	prune_done(&p);
	if (r < 0) {
		image_pruned_done(&res);
		return r;
	}
	res.files = gc.files;
	res.bytes = gc.bytes;
	res.busy = gc.busy;
	*ret = res;
	return 0;
}
