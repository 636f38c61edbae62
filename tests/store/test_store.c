/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <sqlite3.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "store/store.h"

static void write_text(const char *dir, const char *name, const char *text)
{
	char path[500];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void test_open(void **state)
{
	char *home = *state;
	struct store *s = NULL, *t = NULL;
	struct err err = ERR_INIT;

	assert_int_equal(store_open(&s, home, &err), 0);
	/* A second one beside it. */
	assert_int_equal(store_open(&t, home, &err), 0);
	store_close(t);
	store_close(s);
	write_text(home, "version", "microsandbox-store 999\n");
	assert_int_equal(store_open(&s, home, &err), -ERR_UNSUPPORTED);
	assert_non_null(strstr(err.msg, "999"));
	assert_true(err.hint[0]);
	write_text(home, "version", "hello\n");
	assert_int_equal(store_open(&s, home, &err), -ERR_UNSUPPORTED);
}

static void test_foreign(void **state)
{
	struct store *s = NULL;
	struct err err = ERR_INIT;

	write_text(*state, "thesis.txt", "years of work\n");
	assert_int_equal(store_open(&s, *state, &err), -ERR_UNSUPPORTED);
	assert_null(s);
}

static void test_damaged(void **state)
{
	char *home = *state;
	struct store *s = NULL;
	struct err err = ERR_INIT;

	assert_int_equal(store_open(&s, home, &err), 0);
	store_close(s);
	s = NULL;
	write_text(home, "msb.db",
		   "this was a database once; now it is long enough to be noise\n"
		   "this was a database once; now it is long enough to be noise\n");
	assert_int_equal(store_open(&s, home, &err), -ERR_CORRUPT);
	assert_true(err.hint[0]);
}

static void test_temps(void **state)
{
	char *home = *state;
	struct store *s = NULL, *t = NULL;
	struct store_temp a = STORE_TEMP_INIT;
	struct stat st;

	assert_int_equal(store_open(&s, home, NULL), 0);
	assert_int_equal(store_temp_new(s, &a, NULL), 0);
	/* A dead writer's, and one that lives. */
	assert_int_equal(symlinkat("nowhere", store_dirfd(s, STORE_TMP), "link"), 0);
	char path[500];
	snprintf(path, sizeof(path), "%s/tmp", home);
	write_text(path, "dead", "x");
	assert_int_equal(store_open(&t, home, NULL), 0);
	assert_int_equal(fstatat(store_dirfd(s, STORE_TMP), a.name, &st, 0), 0);
	assert_int_not_equal(fstatat(store_dirfd(s, STORE_TMP), "dead", &st, 0), 0);
	store_close(t);
	assert_int_equal(write(a.fd, "x", 1), 1);
	assert_int_equal(store_temp_publish(&a, STORE_LAYERS, "blob", NULL), 0);
	assert_int_equal(fstatat(store_dirfd(s, STORE_LAYERS), "blob", &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0444);
	store_temp_done(&a);
	store_close(s);
}

static void test_gc_waits(void **state)
{
	struct store *s = NULL;
	struct store_gc_result res;
	struct store_lock l = STORE_LOCK_INIT;
	struct stat st;
	char path[500];
	int hold;

	assert_int_equal(store_open(&s, *state, NULL), 0);
	snprintf(path, sizeof(path), "%s/layers", (char *)*state);
	write_text(path, "garbage", "x");
	hold = store_hold(s, NULL);
	assert_true(hold >= 0);
	assert_int_equal(store_gc(s, &res, NULL), 0);
	assert_true(res.busy);
	close(hold);
	assert_int_equal(store_gc(s, &res, NULL), 0);
	assert_false(res.busy);
	assert_int_equal(res.files, 1);
	assert_int_equal(store_lock(s, "name", &l, NULL), 0);
	assert_int_equal(fstatat(store_dirfd(s, STORE_LOCKS), "name", &st, 0), 0);
	store_unlock(&l);
	assert_int_not_equal(fstatat(store_dirfd(s, STORE_LOCKS), "name", &st, 0), 0);
	assert_int_equal(store_use_image(s, "box", "sha256:none", NULL), -ERR_NOT_FOUND);
	store_close(s);
}

/* Many find no store, or one whose last user is just leaving: none of them fails. */
static void test_opened_by_many(void **state)
{
	enum { PROCESSES = 8, ROUNDS = 25 };

	for (int round = 0; round < ROUNDS; round++) {
		char home[600];
		pid_t pids[PROCESSES];

		snprintf(home, sizeof(home), "%s/%d", (char *)*state, round / 3);
		for (int i = 0; i < PROCESSES; i++) {
			struct store *s = NULL;

			pids[i] = fork();
			if (pids[i] == 0)
				_exit(-store_open(&s, home, NULL) || (store_close(s), 0));
		}
		for (int i = 0; i < PROCESSES; i++) {
			int status;

			assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
			assert_int_equal(status, 0);
		}
	}
}

/* What version 2 was, as it was written. */
static const char version_2[] =
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
	"CREATE INDEX image_refs_by_image ON image_refs(image_id);"
	"PRAGMA application_id=0x6d736263; PRAGMA user_version=2;";

static void make_version_2(const char *home)
{
	char path[500];
	sqlite3 *db;

	snprintf(path, sizeof(path), "%s/msb.db", home);
	write_text(home, "version", "microsandbox-store 2\n");
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, version_2, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db,
				      "INSERT INTO images VALUES('sha256:1', 'd', '{}', 'amd64',"
				      " 'linux', '', 1, 1, 1, 1, x'00');"
				      "INSERT INTO image_refs VALUES('box', 'sha256:1');",
				      NULL, NULL, NULL),
			 SQLITE_OK);
	sqlite3_close(db);
}

static int64_t number(struct store *s, const char *sql)
{
	cleanup_stmt sqlite3_stmt *st = NULL;

	assert_int_equal(store_prepare(s, &st, sql, NULL), 0);
	assert_int_equal(store_step(s, st, NULL), 1);
	return sqlite3_column_int64(st, 0);
}

static void expect_current(const char *home)
{
	struct store *s = NULL;
	struct err err = ERR_INIT;
	char path[500], text[64] = "";
	FILE *f;

	if (store_open(&s, home, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(number(s, "PRAGMA user_version"), STORE_VERSION);
	assert_int_equal(number(s, "SELECT count(*) FROM image_refs"), 1);
	assert_int_equal(number(s, "SELECT count(*) FROM sandboxes"), 0);
	assert_int_equal(number(s, "SELECT count(*) FROM events"), 0);
	snprintf(path, sizeof(path), "%s/version", home);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_non_null(fgets(text, sizeof(text), f));
	fclose(f);
	assert_string_equal(text, "microsandbox-store 4\n");
	store_close(s);
}

static void test_upgrade(void **state)
{
	make_version_2(*state);
	expect_current(*state);
	expect_current(*state);
	/* Killed between the database and the word of it. */
	write_text(*state, "version", "microsandbox-store 2\n");
	expect_current(*state);
	/* A newer database below our word, and the other way round. */
	for (int i = 0; i < 2; i++) {
		struct store *s = NULL;
		struct err err = ERR_INIT;

		assert_int_equal(store_open(&s, *state, NULL), 0);
		if (i == 0)
			assert_int_equal(store_exec(s, "PRAGMA user_version=5", NULL), 0);
		else
			write_text(*state, "version", "microsandbox-store 5\n");
		store_close(s);
		assert_int_equal(store_open(&s, *state, &err), -ERR_UNSUPPORTED);
		assert_non_null(strstr(err.msg, " 5"));
		assert_non_null(strstr(err.hint, "update"));
		if (i == 0) {
			char path[500];
			sqlite3 *db;

			snprintf(path, sizeof(path), "%s/msb.db", (char *)*state);
			assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
			sqlite3_exec(db, "PRAGMA user_version=4", NULL, NULL, NULL);
			sqlite3_close(db);
		}
	}
	write_text(*state, "version", "microsandbox-store 1\n");
	struct store *s = NULL;
	struct err err = ERR_INIT;
	assert_int_equal(store_open(&s, *state, &err), -ERR_UNSUPPORTED);
	assert_non_null(strstr(err.msg, "earlier"));
}

/* Several at once find an old one: it is brought up to date once, and all go on. */
static void test_upgraded_by_many(void **state)
{
	enum { PROCESSES = 8, ROUNDS = 6 };

	for (int round = 0; round < ROUNDS; round++) {
		char home[600];
		pid_t pids[PROCESSES];

		snprintf(home, sizeof(home), "%s/%d", (char *)*state, round);
		assert_int_equal(mkdir(home, 0700), 0);
		make_version_2(home);
		for (int i = 0; i < PROCESSES; i++) {
			struct store *s = NULL;

			pids[i] = fork();
			if (pids[i] == 0)
				_exit(-store_open(&s, home, NULL) || (store_close(s), 0));
		}
		for (int i = 0; i < PROCESSES; i++) {
			int status;

			assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
			assert_int_equal(status, 0);
		}
		expect_current(home);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_open, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(test_opened_by_many, scratch_setup,
						scratch_teardown),
		cmocka_unit_test_setup_teardown(test_upgrade, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(test_upgraded_by_many, scratch_setup,
						scratch_teardown),
		cmocka_unit_test_setup_teardown(test_foreign, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(test_damaged, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(test_temps, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(test_gc_waits, scratch_setup, scratch_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
