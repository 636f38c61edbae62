/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store: everything that outlives a process, under one directory ($MSB_HOME).
 *
 *	version            what this directory is; written last when it is made
 *	msb.db             SQLite, WAL: images, references, layers, who uses what, sandboxes' states
 *	layers/HEX.data    file contents of one layer, named by diff_id   (see image/layer.h)
 *	layers/HEX.tails   last partial blocks of its files
 *	layers/HEX.tar     what else it takes to make its tar stream again
 *	layers/HEX.index   its entries; published last, so its presence means the layer is whole
 *	images/HEX.erofs   merged metadata of one image, named by image id
 *	locks/             advisory locks, present only while held
 *	cache/reserve      space that is given up when there is no other
 *	tmp/               files being written, each locked by its writer
 *	run.lock           shared by writers of blobs, exclusive for whoever removes them
 *
 * Crash safety. A file is written in tmp/ under a flock, synced and renamed into place, so a
 * reader sees a whole file or none. A row in the database is written after the files it names.
 * A process killed in between leaves an unlocked file in tmp/, deleted by the next store_open(),
 * or a file without a row, used by the next load or deleted by the next store_gc(). Nothing is
 * ever judged dead by its age.
 *
 * Lock order: run.lock, then named locks in ascending order of name, then a database transaction.
 *
 * A struct store may be used by one thread at a time. The calls marked [any thread] need only the
 * directory descriptors and may be made while another thread uses the database.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct store;
struct sqlite3;
struct sqlite3_stmt;

/*
 * The layout and schema this code reads and writes. A store of version STORE_VERSION_OLDEST or
 * later is brought up to it when it is opened; any other is refused, never touched.
 */
#define STORE_VERSION	     4
#define STORE_VERSION_OLDEST 2

enum store_dir {
	STORE_LAYERS,
	STORE_IMAGES,
	STORE_LOCKS,
	STORE_TMP,
	STORE_SANDBOXES, /* one directory per sandbox; owned by src/sandbox */
	STORE_CACHE,	 /* anything that can be made again: templates, probes */
	STORE_RUN,	 /* sockets and pid files */
	STORE_DIR_COUNT
};

/* Where the store is when nobody says: a new string, NULL with @err set. */
char *store_default_home(struct err *err);

/*
 * Open the store at @home (NULL: $MSB_HOME, else $XDG_DATA_HOME/microsandbox, else
 * ~/.local/share/microsandbox), making it when it does not exist. Errors worth telling apart:
 * ERR_UNSUPPORTED (newer or foreign), ERR_CORRUPT (database damaged), EROFS/EACCES.
 */
int store_open(struct store **ret, const char *home, struct err *err);
/* NULL is fine; returns NULL. */
struct store *store_close(struct store *s);
static inline void store_close_fn(struct store **s)
{
	store_close(*s);
}
#define cleanup_store __attribute__((cleanup(store_close_fn)))

/*
 * Closing the store, as the last who has it open, leaves the database's log for the next one to
 * work in: for commands that are in a hurry and write little, since that would wait for the disk.
 */
void store_leave_log(struct store *s);

/* Absolute path of the store; lives as long as the store. [any thread] */
const char *store_home(const struct store *s);
/* Borrowed O_PATH-like directory descriptor. [any thread] */
int store_dirfd(const struct store *s, enum store_dir dir);
/* "HOME/DIR/NAME" into @buf; -ENAMETOOLONG if it does not fit. [any thread] */
int store_path(const struct store *s, enum store_dir dir, const char *name, char *buf, size_t size,
	       struct err *err);

/*
 * Database. Plain SQLite with the schema of store.c; prepare through here to get our errors.
 */
struct sqlite3 *store_db(struct store *s);
int store_prepare(struct store *s, struct sqlite3_stmt **ret, const char *sql, struct err *err);
/* One step. 1 = a row, 0 = done. */
int store_step(struct store *s, struct sqlite3_stmt *st, struct err *err);
int store_exec(struct store *s, const char *sql, struct err *err);
void store_stmt_done_fn(struct sqlite3_stmt **st);
#define cleanup_stmt __attribute__((cleanup(store_stmt_done_fn)))
/* BEGIN IMMEDIATE ... COMMIT; store_rollback() after a failure, keeps @err untouched. */
int store_begin(struct store *s, struct err *err);
int store_commit(struct store *s, struct err *err);
/* What was committed until now is there after a power cut, too; without this, some time later. */
int store_sync(const struct store *s, struct err *err);
void store_rollback(struct store *s);

/*
 * A file being written. Zero-initialise, store_temp_new(), write to fd, then publish or done.
 */
struct store_temp {
	const struct store *store; /* NULL when unused */
	int fd;
	char name[40];
};
#define STORE_TEMP_INIT                                                                            \
	{                                                                                          \
		NULL, -1,                                                                          \
		{                                                                                  \
			0                                                                          \
		}                                                                                  \
	}

/* Sets @err for a write to the store that failed with @r, a negative errno. [any thread] */
int store_write_error(const struct store *s, int r, struct err *err);

/* [any thread] */
int store_temp_new(const struct store *s, struct store_temp *t, struct err *err);
/* Sync the file and give it its name, replacing what is there. The temp is empty after. [any
 * thread] */
int store_temp_publish(struct store_temp *t, enum store_dir dir, const char *name, struct err *err);
/*
 * The same for several files, whose ways to the disk overlap, and their names made durable as
 * well. None is named before all are synced. [any thread]
 */
struct store_publication {
	struct store_temp *temp;
	char name[80];
};
int store_publish(const struct store *s, enum store_dir dir, const struct store_publication *p,
		  size_t n, struct err *err);
/* Make renames in @dir durable. [any thread] */
int store_sync_dir(const struct store *s, enum store_dir dir, struct err *err);

/* Take the name away but keep the descriptor open: a spool that vanishes with its owner. */
void store_temp_unname(struct store_temp *t);
/* Drop an unpublished file. Harmless on an empty one. */
void store_temp_done(struct store_temp *t);
#define cleanup_temp __attribute__((cleanup(store_temp_done)))

/*
 * Named exclusive lock across processes and threads. Waits. Ends with the process at the latest.
 */
struct store_lock {
	int fd;
	int dirfd;
	char name[96];
};
#define STORE_LOCK_INIT                                                                            \
	{                                                                                          \
		-1, -1,                                                                            \
		{                                                                                  \
			0                                                                          \
		}                                                                                  \
	}
/* [any thread] */
int store_lock(const struct store *s, const char *name, struct store_lock *ret, struct err *err);
void store_unlock(struct store_lock *l);
#define cleanup_lock __attribute__((cleanup(store_unlock)))

/*
 * Hold off store_gc() while blobs are made and not yet in the database. Shared; waits for a
 * running gc. Returns a descriptor to close.
 */
int store_hold(const struct store *s, struct err *err);

struct store_gc_result {
	uint64_t files, bytes;
	bool busy; /* somebody was writing: nothing was deleted, the next gc will */
};
/* Delete every blob that no row names. Never waits for writers. */
int store_gc(struct store *s, struct store_gc_result *ret, struct err *err);
/* What that would delete; inside of a transaction that is undone afterwards. */
int store_gc_plan(struct store *s, struct store_gc_result *ret, struct err *err);

/*
 * Who uses which image. A sandbox that names an image keeps it from being removed.
 */
/* -ERR_NOT_FOUND if the image is gone; replaces an earlier image of the same sandbox. */
int store_use_image(struct store *s, const char *sandbox, const char *image_id, struct err *err);
int store_unuse_image(struct store *s, const char *sandbox, struct err *err);

#endif
