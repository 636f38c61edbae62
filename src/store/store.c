/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/loop.h"
#include "base/str.h"
#include "store/store.h"
#include "store/store_internal.h"

/* "msbc", so that file(1) and we can tell our database from another. */
#define STORE_APPLICATION_ID 0x6d736263
/* SQLite's shared memory and a few pages of its log. */
#define STORE_RESERVE	   (UINT64_C(256) << 10)
#define STORE_RESERVE_FILE "reserve"
#define STORE_DB	   "msb.db"
#define STORE_VERSION_FILE "version"
#define STORE_VERSION_WORD "microsandbox-store "
/* How long a command waits for another's transaction; the longest of ours takes milliseconds. */
#define STORE_BUSY_MS  20000
#define STORE_RETRY_NS 2000000

#define STR_(x) #x
#define STR(x)	STR_(x)

static const char *const store_dir_names[STORE_DIR_COUNT] = {
	[STORE_LAYERS] = "layers", [STORE_IMAGES] = "images",	    [STORE_LOCKS] = "locks",
	[STORE_TMP] = "tmp",	   [STORE_SANDBOXES] = "sandboxes", [STORE_CACHE] = "cache",
	[STORE_RUN] = "run",
};

/*
 * images.disk is the extent list as written by image/catalog.c; the join over image_layers would
 * say the same, but finding an image is on the path of every `msb run`.
 */
static const char store_schema_2[] =
	"CREATE TABLE images(id TEXT PRIMARY KEY NOT NULL, manifest_digest TEXT NOT NULL,"
	" config TEXT NOT NULL, architecture TEXT NOT NULL, os TEXT NOT NULL,"
	" created TEXT NOT NULL, size INTEGER NOT NULL, stored INTEGER NOT NULL,"
	" meta_bytes INTEGER NOT NULL, loaded_at INTEGER NOT NULL, disk BLOB NOT NULL)"
	" STRICT, WITHOUT ROWID;"
	"CREATE TABLE refs(reference TEXT PRIMARY KEY NOT NULL,"
	" image_id TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE) STRICT, WITHOUT ROWID;"
	"CREATE INDEX refs_by_image ON refs(image_id);"
	"CREATE TABLE layers(diff_id TEXT PRIMARY KEY NOT NULL, bytes INTEGER NOT NULL,"
	" entries INTEGER NOT NULL, data_blocks INTEGER NOT NULL, stored INTEGER NOT NULL)"
	" STRICT, WITHOUT ROWID;"
	"CREATE TABLE image_layers(image_id TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,"
	" position INTEGER NOT NULL, diff_id TEXT NOT NULL REFERENCES layers(diff_id),"
	" digest TEXT NOT NULL, media_type TEXT NOT NULL, compressed INTEGER NOT NULL,"
	" PRIMARY KEY(image_id, position)) STRICT, WITHOUT ROWID;"
	"CREATE INDEX image_layers_by_layer ON image_layers(diff_id);"
	"CREATE TABLE image_refs(sandbox TEXT PRIMARY KEY NOT NULL,"
	" image_id TEXT NOT NULL REFERENCES images(id)) STRICT, WITHOUT ROWID;"
	"CREATE INDEX image_refs_by_image ON image_refs(image_id);";

/*
 * Version 3: what is said about sandboxes (sandbox/state.h). Events outlive the sandboxes they are
 * about.
 */
static const char store_schema_3[] =
	"CREATE TABLE sandboxes(name TEXT PRIMARY KEY NOT NULL, state TEXT NOT NULL,"
	" reason TEXT NOT NULL, ephemeral INTEGER NOT NULL, created_at INTEGER NOT NULL,"
	" started_at INTEGER NOT NULL, changed_at INTEGER NOT NULL, exit_code INTEGER)"
	" STRICT, WITHOUT ROWID;"
	"CREATE TABLE labels(sandbox TEXT NOT NULL REFERENCES sandboxes(name) ON DELETE CASCADE,"
	" key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY(sandbox, key))"
	" STRICT, WITHOUT ROWID;"
	"CREATE INDEX labels_by_key ON labels(key, value);"
	"CREATE TABLE events(seq INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL,"
	" sandbox TEXT NOT NULL, old TEXT NOT NULL, new TEXT NOT NULL, reason TEXT NOT NULL,"
	" exit_code INTEGER) STRICT;"
	"CREATE INDEX events_by_sandbox ON events(sandbox, seq);";

/* Version 4: events know the labels, which a sandbox that is gone has no more. */
static const char store_schema_4[] =
	"ALTER TABLE events ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';";

static const char store_schema_mark[] = "PRAGMA application_id=" STR(
	STORE_APPLICATION_ID) ";"
			      "PRAGMA user_version=" STR(STORE_VERSION) ";";

/* What makes a database of version N one of N + 1; 0 is an empty one. */
static const struct {
	int from, to;
	const char *sql;
} store_steps[] = {
	{0, 2, store_schema_2},
	{2, 3, store_schema_3},
	{3, 4, store_schema_4},
};

const char *store_home(const struct store *s)
{
	return s->home;
}

int store_dirfd(const struct store *s, enum store_dir dir)
{
	return s->dirs[dir];
}

struct sqlite3 *store_db(struct store *s)
{
	return s->db;
}

int store_path(const struct store *s, enum store_dir dir, const char *name, char *buf, size_t size,
	       struct err *err)
{
	int n = snprintf(buf, size, "%s/%s/%s", s->home, store_dir_names[dir], name);

	if (n < 0 || (size_t)n >= size)
		return err_set(err, ENAMETOOLONG, "path too long: %s/%s/%s", s->home,
			       store_dir_names[dir], name);
	return 0;
}

char *store_default_home(struct err *err)
{
	static const struct {
		const char *variable, *below;
	} places[] = {
		{"MSB_HOME", ""},
		{"XDG_DATA_HOME", "/microsandbox"},
		{"HOME", "/.local/share/microsandbox"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		const char *v = getenv(places[i].variable);
		char *home;

		if (!v || !*v)
			continue;
		/* The XDG specification wants relative values ignored; for MSB_HOME they are fine.
		 */
		if (i > 0 && *v != '/')
			continue;
		home = str_fmt("%s%s", v, places[i].below);
		if (!home)
			err_set(err, ENOMEM, "out of memory");
		return home;
	}
	err_set(err, ERR_USAGE, "cannot tell where to keep images: HOME is not set");
	err_hint(err, "set MSB_HOME to a directory of your own");
	return NULL;
}

static int store_home_error(const char *home, int code, const char *doing, struct err *err)
{
	err_set(err, code, "cannot %s the store at %s: %s", doing, home, err_name(code));
	if (code == EROFS || code == EACCES || code == EPERM || code == ENOSPC)
		err_hint(err, "set MSB_HOME to a directory you can write, with space for images");
	return -code;
}

int store_write_error(const struct store *s, int r, struct err *err)
{
	return store_home_error(s->home, -r, "write to", err);
}

/* SQLite does not always keep the errno, and tells ENOSPC of its shared memory as an I/O error. */
static int store_why(struct store *s)
{
	int code = sqlite3_system_errno(s->db);
	struct statvfs fs;

	if (fstatvfs(s->root, &fs) < 0)
		return code;
	if (fs.f_flag & ST_RDONLY)
		return EROFS;
	return fs.f_bavail == 0 || code == EDQUOT ? ENOSPC : code;
}

/* Is @fd an empty directory, as far as we are concerned? */
static bool store_dir_is_fresh(int fd)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_dir DIR *d = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;

	if (!d) {
		close_fd(copy);
		return false;
	}
	while ((e = readdir(d))) {
		bool ours = str_eq(e->d_name, ".") || str_eq(e->d_name, "..") ||
			    str_eq(e->d_name, "run.lock") || str_eq(e->d_name, "lost+found") ||
			    /* What a person may put there first. */
			    str_eq(e->d_name, "config.json") || str_starts(e->d_name, STORE_DB) ||
			    str_starts(e->d_name, STORE_VERSION_FILE);

		for (size_t i = 0; i < STORE_DIR_COUNT && !ours; i++)
			ours = str_eq(e->d_name, store_dir_names[i]);
		if (!ours)
			return false;
	}
	return true;
}

static int store_foreign(const char *home, struct err *err)
{
	err_set(err, ERR_UNSUPPORTED, "%s is not a store of this program", home);
	return err_hint(err, "set MSB_HOME to an empty directory, or to one that `msb` made");
}

/* Layers of another format cannot be made into ours: what their tar streams were is lost. */
static int store_old(const struct store *s, long long version, struct err *err)
{
	err_set(err, ERR_UNSUPPORTED,
		"the store at %s has version %lld, made by an earlier msb; this one needs %d",
		s->home, version, STORE_VERSION);
	return err_hint(err, "delete it, or set MSB_HOME to another directory, and load the images "
			     "again");
}

/* 0: it is of our version; 1: there is no version file, or one to bring up to date. */
static int store_check_version(const struct store *s, struct err *err)
{
	cleanup_close int fd = openat(s->root, STORE_VERSION_FILE, O_RDONLY | O_CLOEXEC);
	char text[64] = {0};
	const size_t word = sizeof(STORE_VERSION_WORD) - 1;
	uint64_t version;

	if (fd < 0) {
		if (errno == ENOENT)
			return 1;
		return store_home_error(s->home, errno, "read the version of", err);
	}
	if (io_read_full(fd, text, sizeof(text) - 1) < 0 ||
	    strncmp(text, STORE_VERSION_WORD, word) != 0)
		return store_foreign(s->home, err);
	text[word + strcspn(text + word, "\n")] = 0;
	if (str_to_u64(text + word, UINT32_MAX, &version) < 0)
		return store_foreign(s->home, err);
	if (version > STORE_VERSION) {
		err_set(err, ERR_UNSUPPORTED,
			"the store at %s has version %llu, this program knows %d", s->home,
			(unsigned long long)version, STORE_VERSION);
		return err_hint(err, "update microsandbox, or set MSB_HOME to another directory");
	}
	if (version < STORE_VERSION_OLDEST)
		return store_old(s, (long long)version, err);
	return version < STORE_VERSION;
}

static int store_write_version(const struct store *s, struct err *err)
{
	static const char text[] = STORE_VERSION_WORD STR(STORE_VERSION) "\n";
	cleanup_temp struct store_temp t = STORE_TEMP_INIT;
	int r = store_temp_new(s, &t, err);

	if (r < 0)
		return r;
	r = io_write_full(t.fd, text, sizeof(text) - 1);
	if (r < 0)
		return store_write_error(s, r, err);
	return store_temp_publish_root(&t, STORE_VERSION_FILE, err);
}

static int store_open_dirs(struct store *s, struct err *err)
{
	for (size_t i = 0; i < STORE_DIR_COUNT; i++) {
		const char *name = store_dir_names[i];

		s->dirs[i] = openat(s->root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (s->dirs[i] < 0 && errno == ENOENT) {
			if (mkdirat(s->root, name, 0700) < 0 && errno != EEXIST)
				return store_home_error(s->home, errno, "make a directory in", err);
			s->dirs[i] = openat(s->root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		}
		if (s->dirs[i] < 0)
			return store_home_error(s->home, errno, "open a directory of", err);
	}
	return 0;
}

/* Turn SQLite's verdict into ours. */
int store_db_error(struct store *s, const char *doing, struct err *err)
{
	int rc = sqlite3_errcode(s->db), why;

	switch (rc & 0xff) {
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		err_set(err, ERR_CORRUPT, "the database %s/" STORE_DB " is damaged: %s", s->home,
			sqlite3_errmsg(s->db));
		return err_hint(err,
				"move it away (with its -wal and -shm) and load the images again; "
				"layers that are still good are reused, sandboxes found again");
	case SQLITE_READONLY:
	case SQLITE_CANTOPEN:
	case SQLITE_PERM:
		why = store_why(s);
		return store_home_error(s->home, why == EROFS || why == ENOSPC ? why : EACCES,
					"write the database of", err);
	case SQLITE_FULL:
		return store_home_error(s->home, ENOSPC, "write the database of", err);
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		err_set(err, EBUSY, "the store at %s is busy", s->home);
		return err_hint(err, "another msb command holds its database; try again");
	case SQLITE_NOMEM:
		return err_set(err, ENOMEM, "out of memory");
	default:
		why = store_why(s);
		if (why == EROFS || why == ENOSPC)
			return store_home_error(s->home, why, "write the database of", err);
		return err_set(err, EIO, "cannot %s the database %s/" STORE_DB ": %s", doing,
			       s->home, sqlite3_errmsg(s->db));
	}
}

static int store_pragma_int(struct store *s, const char *sql, int64_t *ret, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = store_prepare(s, &st, sql, err);

	if (r < 0)
		return r;
	r = store_step(s, st, err);
	if (r < 0)
		return r;
	*ret = r ? sqlite3_column_int64(st, 0) : 0;
	return 0;
}

/* The version of the database into *ret; 0 if there is nothing in it yet. */
static int store_check_schema(struct store *s, int64_t *ret, struct err *err)
{
	int64_t version = 0, app = 0, tables = 0;
	int r = store_pragma_int(s, "PRAGMA user_version", &version, err);

	if (r >= 0 && version != STORE_VERSION)
		r = store_pragma_int(s, "SELECT count(*) FROM sqlite_schema", &tables, err);
	if (r >= 0 && version != STORE_VERSION)
		r = store_pragma_int(s, "PRAGMA application_id", &app, err);
	if (r < 0)
		return r;
	if (version == STORE_VERSION || (tables == 0 && version == 0)) {
		*ret = version;
		return 0;
	}
	if (app != STORE_APPLICATION_ID)
		return store_foreign(s->home, err);
	/* Three looks are not one: another process may have made it between the first and the last.
	 */
	r = store_pragma_int(s, "PRAGMA user_version", &version, err);
	if (r < 0)
		return r;
	if (version >= STORE_VERSION_OLDEST && version <= STORE_VERSION) {
		*ret = version;
		return 0;
	}
	if (version < STORE_VERSION)
		return store_old(s, (long long)version, err);
	err_set(err, ERR_UNSUPPORTED, "the database of %s has schema %lld, this program knows %d",
		s->home, (long long)version, STORE_VERSION);
	return err_hint(err, "update microsandbox, or set MSB_HOME to another directory");
}

/* In a transaction: all steps from @version on, or none. */
static int store_upgrade(struct store *s, int64_t version, struct err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(store_steps); i++) {
		int r = 0;

		if (store_steps[i].from != version)
			continue;
		r = store_exec(s, store_steps[i].sql, err);
		if (r < 0)
			return r;
		version = store_steps[i].to;
	}
	return store_exec(s, store_schema_mark, err);
}

static int store_try_db(struct store *s, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/" STORE_DB, s->home);
	int64_t version = 0;
	int r;

	if (!path)
		return err_set(err, ENOMEM, "out of memory");
	errno = 0;
	if (sqlite3_open_v2(path, &s->db,
			    SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
				    SQLITE_OPEN_EXRESCODE,
			    NULL) != SQLITE_OK) {
		if (!s->db)
			return err_set(err, ENOMEM, "out of memory");
		return store_db_error(s, "open", err);
	}
	sqlite3_busy_timeout(s->db, STORE_BUSY_MS);
	/* A lost last transaction after a power cut costs a repeated load, not consistency. */
	r = store_exec(s,
		       "PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;"
		       "PRAGMA trusted_schema=OFF;",
		       err);
	if (r < 0)
		return r;
	r = store_check_schema(s, &version, err);
	if (r < 0 || version == STORE_VERSION)
		return r;

	r = store_exec(s, "PRAGMA journal_mode=WAL", err);
	if (r >= 0)
		r = store_begin(s, err);
	if (r < 0)
		return r;
	/* Another process may have made it while we waited for the write lock. */
	r = store_check_schema(s, &version, err);
	if (r >= 0 && version != STORE_VERSION)
		r = store_upgrade(s, version, err);
	if (r >= 0)
		r = store_commit(s, err);
	if (r < 0)
		store_rollback(s);
	return r;
}

/*
 * SQLite's own waiting covers neither the switch to WAL nor the moment in which another process,
 * the last to have the database open, cleans up behind itself: both are short.
 */
static int store_open_db(struct store *s, struct err *err)
{
	uint64_t end = now_ns() + STORE_BUSY_MS * UINT64_C(1000000);

	for (;;) {
		int r = store_try_db(s, err);

		if (r != -EBUSY || now_ns() >= end)
			return r;
		sqlite3_close(s->db);
		s->db = NULL;
		nanosleep(&(struct timespec){.tv_nsec = STORE_RETRY_NS}, NULL);
	}
}

/*
 * Removing something takes some space in the database first. So that a full disk does not keep us
 * from making room, a file holds a little back and goes when that is needed; best effort.
 */
static void store_keep_reserve(const struct store *s)
{
	const int cache = s->dirs[STORE_CACHE];
	cleanup_close int fd = -1;
	struct statvfs fs;
	uint64_t room;

	if (fstatvfs(s->root, &fs) < 0)
		return;
	room = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (room < STORE_RESERVE) {
		unlinkat(cache, STORE_RESERVE_FILE, 0);
		return;
	}
	/* Not as soon as that much is free again: whoever makes room is still at it. */
	if (room < 64 * STORE_RESERVE || faccessat(cache, STORE_RESERVE_FILE, F_OK, 0) == 0)
		return;
	fd = openat(cache, STORE_RESERVE_FILE, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd >= 0 && fallocate(fd, 0, 0, STORE_RESERVE) < 0)
		unlinkat(cache, STORE_RESERVE_FILE, 0);
}

int store_open(struct store **ret, const char *home, struct err *err)
{
	cleanup_store struct store *s = NULL;
	cleanup_free char *chosen = NULL;
	char real[PATH_MAX];
	int r, stale;

	if (!home) {
		chosen = store_default_home(err);
		if (!chosen)
			return err ? -err->code : -ERR_USAGE;
		home = chosen;
	}
	s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(err, ENOMEM, "out of memory");
	s->root = -1;
	for (size_t i = 0; i < STORE_DIR_COUNT; i++)
		s->dirs[i] = -1;

	s->root = open(home, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->root < 0 && errno == ENOENT) {
		r = io_mkdir_p(home, 0700, err);
		if (r < 0)
			return store_home_error(home, -r, "make", err);
		s->root = open(home, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	if (s->root < 0)
		return store_home_error(home, errno, "open", err);
	if (!realpath(home, real))
		return store_home_error(home, errno, "open", err);
	s->home = strdup(real);
	if (!s->home)
		return err_set(err, ENOMEM, "out of memory");

	stale = store_check_version(s, err);
	if (stale < 0)
		return stale;
	if (stale && faccessat(s->root, STORE_VERSION_FILE, F_OK, 0) < 0 &&
	    !store_dir_is_fresh(s->root))
		return store_foreign(s->home, err);
	/* Else it would depend on what the last one left behind how far we get. */
	if (faccessat(s->root, ".", W_OK, AT_EACCESS) < 0)
		return store_home_error(s->home, errno, "write to", err);
	r = store_open_dirs(s, err);
	if (r < 0)
		return r;
	store_keep_reserve(s);
	r = store_open_db(s, err);
	if (r < 0)
		return r;
	/* Last: killed before this, it is done again. */
	if (stale) {
		r = store_write_version(s, err);
		if (r < 0)
			return r;
	}
	store_clean_temps(s);
	*ret = take_ptr(s);
	return 0;
}

void store_leave_log(struct store *s)
{
	(void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
}

struct store *store_close(struct store *s)
{
	if (!s)
		return NULL;
	sqlite3_close_v2(s->db);
	for (size_t i = 0; i < STORE_DIR_COUNT; i++)
		close_fd(s->dirs[i]);
	close_fd(s->root);
	free(s->home);
	free(s);
	return NULL;
}

int store_prepare(struct store *s, sqlite3_stmt **ret, const char *sql, struct err *err)
{
	sqlite3_stmt *st = NULL;

	errno = 0;
	if (sqlite3_prepare_v2(s->db, sql, -1, &st, NULL) != SQLITE_OK)
		return store_db_error(s, "query", err);
	*ret = st;
	return 0;
}

int store_step(struct store *s, sqlite3_stmt *st, struct err *err)
{
	errno = 0;
	switch (sqlite3_step(st)) {
	case SQLITE_ROW:
		return 1;
	case SQLITE_DONE:
		return 0;
	default:
		return store_db_error(s, "query", err);
	}
}

int store_exec(struct store *s, const char *sql, struct err *err)
{
	errno = 0;
	if (sqlite3_exec(s->db, sql, NULL, NULL, NULL) != SQLITE_OK)
		return store_db_error(s, "change", err);
	return 0;
}

void store_stmt_done_fn(sqlite3_stmt **st)
{
	sqlite3_finalize(*st);
}

int store_begin(struct store *s, struct err *err)
{
	return store_exec(s, "BEGIN IMMEDIATE", err);
}

int store_commit(struct store *s, struct err *err)
{
	return store_exec(s, "COMMIT", err);
}

int store_sync(const struct store *s, struct err *err)
{
	/* What is no longer in the log was synced before it was taken out. */
	cleanup_close int wal = openat(s->root, STORE_DB "-wal", O_RDONLY | O_CLOEXEC);

	if (wal < 0)
		return errno == ENOENT ? 0 : store_write_error(s, -errno, err);
	return fdatasync(wal) < 0 ? store_write_error(s, -errno, err) : 0;
}

void store_rollback(struct store *s)
{
	/* Fails only when there is no transaction left to undo. */
	if (!sqlite3_get_autocommit(s->db))
		sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
}

int store_use_image(struct store *s, const char *sandbox, const char *image_id, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = store_prepare(s, &st,
			      "INSERT INTO image_refs SELECT ?1, id FROM images WHERE id = ?2"
			      " ON CONFLICT(sandbox) DO UPDATE SET image_id = excluded.image_id",
			      err);

	if (r < 0)
		return r;
	sqlite3_bind_text(st, 1, sandbox, -1, SQLITE_STATIC);
	sqlite3_bind_text(st, 2, image_id, -1, SQLITE_STATIC);
	r = store_step(s, st, err);
	if (r < 0)
		return r;
	if (sqlite3_changes(s->db) == 0)
		return err_set(err, ERR_NOT_FOUND, "image %s is gone", image_id);
	return 0;
}

int store_unuse_image(struct store *s, const char *sandbox, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = store_prepare(s, &st, "DELETE FROM image_refs WHERE sandbox = ?1", err);

	if (r < 0)
		return r;
	sqlite3_bind_text(st, 1, sandbox, -1, SQLITE_STATIC);
	return store_step(s, st, err);
}
