/* SPDX-License-Identifier: Apache-2.0 */
/* States of sandboxes: what follows what, who may say so, and what many at once make of it. */
#include "../test.h"

#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sandbox/state.h"
#include "store/store.h"

static struct store *open_store(const char *home)
{
	struct store *s = NULL;
	struct err err = ERR_INIT;

	if (store_open(&s, home, &err) < 0)
		fail_msg("%s", err.msg);
	return s;
}

static int64_t number(struct store *s, const char *sql)
{
	cleanup_stmt sqlite3_stmt *st = NULL;

	assert_int_equal(store_prepare(s, &st, sql, NULL), 0);
	assert_int_equal(store_step(s, st, NULL), 1);
	return sqlite3_column_int64(st, 0);
}

static enum sandbox_state state_of(struct store *s, const char *name)
{
	cleanup_status struct sandbox_status now = {0};

	assert_int_equal(sandbox_state_read(s, name, &now, NULL), 0);
	return now.state;
}

/* Put it there, whatever it was. */
static void force(struct store *s, const char *name, enum sandbox_state to)
{
	cleanup_free char *sql = str_fmt("UPDATE sandboxes SET state = '%s' WHERE name = '%s'",
					 sandbox_state_name(to), name);

	assert_int_equal(store_exec(s, sql, NULL), 0);
}

/* The table as a drawing would have it, said once more. */
static bool expected(enum sandbox_state from, enum sandbox_state to)
{
	static const char *const lines[] = {
		"created>starting", "starting>running", "starting>stopping", "starting>stopped",
		"starting>crashed", "starting>failed",	"running>draining",  "running>paused",
		"running>stopping", "running>stopped",	"running>crashed",   "draining>stopping",
		"draining>stopped", "draining>crashed", "stopping>stopped",  "stopping>crashed",
		"stopped>starting", "paused>running",	"paused>stopping",   "paused>stopped",
		"paused>crashed",   "crashed>starting", "failed>starting",
	};
	char line[64];

	snprintf(line, sizeof(line), "%s>%s", sandbox_state_name(from), sandbox_state_name(to));
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		if (str_eq(lines[i], line))
			return true;
	}
	return false;
}

static void every_edge(void **state)
{
	struct store *s = open_store(*state);
	struct err err = ERR_INIT;

	assert_int_equal(sandbox_state_new(s, "box", false, 1, NULL, NULL), 0);
	for (int from = 0; from < SANDBOX_STATES; from++) {
		for (int to = 0; to < SANDBOX_STATES; to++) {
			int64_t before = number(s, "SELECT count(*) FROM events"), after;
			bool yes = expected(from, to);
			int r;

			force(s, "box", from);
			err_clear(&err);
			r = sandbox_state_change(s, "box", to, "why", &err);
			after = number(s, "SELECT count(*) FROM events");
			assert_int_equal(sandbox_state_allowed(from, to), yes);
			assert_int_equal(r, yes ? 0 : from == to ? 1 : -EBUSY);
			assert_int_equal(after - before, yes);
			assert_int_equal(state_of(s, "box"), yes ? to : from);
			if (r < 0)
				assert_non_null(strstr(err.msg, sandbox_state_name(from)));
		}
	}
	store_close(s);
}

static void ends(void **state)
{
	static const struct {
		enum sandbox_state from, to;
		bool asked, ready;
	} cases[] = {
		{SANDBOX_STARTING, SANDBOX_FAILED, false, false},
		{SANDBOX_STARTING, SANDBOX_CRASHED, false, true},
		{SANDBOX_STARTING, SANDBOX_STOPPED, true, false},
		{SANDBOX_RUNNING, SANDBOX_CRASHED, false, true},
		{SANDBOX_RUNNING, SANDBOX_CRASHED, false, false},
		{SANDBOX_RUNNING, SANDBOX_STOPPED, true, true},
		{SANDBOX_DRAINING, SANDBOX_STOPPED, true, true},
		{SANDBOX_PAUSED, SANDBOX_CRASHED, false, true},
		{SANDBOX_STOPPING, SANDBOX_STOPPED, false, true},
		{SANDBOX_STOPPING, SANDBOX_STOPPED, false, false},
		/* Of what is over nothing changes. */
		{SANDBOX_CRASHED, SANDBOX_CRASHED, true, true},
		{SANDBOX_STOPPED, SANDBOX_STOPPED, false, true},
	};
	struct store *s = open_store(*state);

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct sandbox_end end = {cases[i].asked, cases[i].ready, "it broke", 7};
		cleanup_status struct sandbox_status now = {0};
		int64_t since = 0;
		bool clean = false;
		int code = -2;

		assert_int_equal(sandbox_state_new(s, "box", true, 1, NULL, NULL), 0);
		assert_int_equal(sandbox_events_last(s, &since, NULL), 0);
		force(s, "box", cases[i].from);
		assert_int_equal(sandbox_state_end(s, "box", &end, NULL, NULL), 0);
		assert_int_equal(sandbox_state_read(s, "box", &now, NULL), 0);
		assert_int_equal(now.state, cases[i].to);
		if (!sandbox_state_alive(cases[i].from)) {
			assert_int_equal(sandbox_events_end(s, "box", since, &code, &clean, NULL),
					 0);
			continue;
		}
		assert_int_equal(now.exit_code, 7);
		assert_string_equal(now.reason, "it broke");
		assert_int_equal(sandbox_events_end(s, "box", since, &code, &clean, NULL), 1);
		assert_int_equal(code, 7);
		assert_int_equal(clean, cases[i].to == SANDBOX_STOPPED);
		assert_int_equal(sandbox_events_end(s, "other", since, &code, &clean, NULL), 0);

		/* The same of one that is gone with it. */
		force(s, "box", cases[i].from);
		assert_int_equal(sandbox_events_last(s, &since, NULL), 0);
		assert_int_equal(sandbox_state_remove(s, "box", &end, NULL), 0);
		assert_int_equal(sandbox_events_end(s, "box", since, &code, &clean, NULL), 1);
		assert_int_equal(code, 7);
		assert_int_equal(sandbox_state_read(s, "box", &now, NULL), -ERR_NOT_FOUND);
		/* Who asks later hears the same. */
		code = -2;
		clean = cases[i].to != SANDBOX_STOPPED;
		assert_int_equal(sandbox_events_past(s, "box", &code, &clean, NULL), 1);
		assert_int_equal(code, 7);
		assert_int_equal(clean, cases[i].to == SANDBOX_STOPPED);
		assert_int_equal(sandbox_events_past(s, "other", &code, &clean, NULL), 0);
	}
	/* One that is there again, or was never more than made, says nothing of who had its name. */
	{
		bool clean;
		int code;

		assert_int_equal(sandbox_state_new(s, "box", false, 1, NULL, NULL), 0);
		assert_int_equal(sandbox_events_past(s, "box", &code, &clean, NULL), 0);
		assert_int_equal(sandbox_state_remove(s, "box", NULL, NULL), 0);
		assert_int_equal(sandbox_events_past(s, "box", &code, &clean, NULL), 0);
	}
	/* Who asked it to stop knows why. */
	assert_int_equal(sandbox_state_new(s, "box", false, 1, NULL, NULL), 0);
	force(s, "box", SANDBOX_RUNNING);
	assert_int_equal(sandbox_state_change(s, "box", SANDBOX_STOPPING, "asked", NULL), 0);
	assert_int_equal(sandbox_state_end(s, "box", &(struct sandbox_end){.reason = "gone"}, NULL,
					   NULL),
			 0);
	{
		cleanup_status struct sandbox_status now = {0};

		assert_int_equal(sandbox_state_read(s, "box", &now, NULL), 0);
		assert_string_equal(now.reason, "asked");
	}
	store_close(s);
}

/* What is known from elsewhere goes in, unless somebody was faster. */
static void put(void **state)
{
	struct store *s = open_store(*state);
	struct sandbox_status is = {.state = SANDBOX_PAUSED,
				    .reason = (char[]){"why"},
				    .created_at = 5,
				    .started_at = 6,
				    .exit_code = -1};
	cleanup_status struct sandbox_status now = {0};
	cleanup_strv struct strv labels = {0}, found = {0};

	strv_add(&labels, "team=red");
	assert_int_equal(sandbox_state_put(s, "box", NULL, &is, &labels, NULL), 0);
	assert_int_equal(sandbox_state_put(s, "box", NULL, &is, &labels, NULL), 1);
	assert_int_equal(sandbox_state_read(s, "box", &now, NULL), 0);
	assert_int_equal(now.state, SANDBOX_PAUSED);
	assert_string_equal(now.reason, "why");
	assert_int_equal(now.created_at, 5);
	assert_int_equal(now.started_at, 6);
	assert_int_equal(now.exit_code, -1);
	assert_int_equal(sandbox_state_select(s, &labels, &found, NULL), 0);
	assert_int_equal(found.n, 1);
	/* Over what was seen, though that may not follow; not over anything else. */
	is.state = SANDBOX_CREATED;
	assert_int_equal(sandbox_state_put(s, "box", &now, &is, NULL, NULL), 0);
	assert_int_equal(sandbox_state_put(s, "box", &now, &is, NULL, NULL), 1);
	assert_int_equal(sandbox_state_put(s, "none", &now, &is, NULL, NULL), 1);
	sandbox_status_done(&now);
	assert_int_equal(sandbox_state_read(s, "box", &now, NULL), 0);
	assert_int_equal(now.state, SANDBOX_CREATED);
	assert_int_equal(now.started_at, 6);
	store_close(s);
}

static void rows_and_labels(void **state)
{
	struct store *s = open_store(*state);
	cleanup_strv struct strv labels = {0}, found = {0}, want = {0};
	cleanup_states struct sandbox_states all = {0};

	strv_add(&labels, "team=red");
	strv_add(&labels, "ci=");
	assert_int_equal(sandbox_state_new(s, "b", false, 5, &labels, NULL), 0);
	assert_int_equal(sandbox_state_new(s, "a", true, 6, &labels, NULL), 0);
	assert_int_equal(sandbox_state_new(s, "c", false, 7, NULL, NULL), 0);
	assert_int_equal(sandbox_states_read(s, &all, NULL), 0);
	assert_int_equal(all.n, 3);
	assert_string_equal(all.rows[0].name, "a");
	assert_true(all.rows[0].status.ephemeral);
	assert_int_equal(sandbox_states_find(&all, "b")->created_at, 5);
	assert_int_equal(sandbox_states_find(&all, "b")->exit_code, -1);
	assert_null(sandbox_states_find(&all, "d"));

	strv_add(&want, "team");
	assert_int_equal(sandbox_state_select(s, &want, &found, NULL), 0);
	assert_int_equal(found.n, 2);
	assert_string_equal(found.v[0], "a");
	strv_done(&found);
	strv_add(&want, "ci=no");
	assert_int_equal(sandbox_state_select(s, &want, &found, NULL), 0);
	assert_int_equal(found.n, 0);
	strv_done(&want);
	strv_add(&want, "team=red");
	strv_add(&want, "ci=");
	assert_int_equal(sandbox_state_select(s, &want, &found, NULL), 0);
	assert_int_equal(found.n, 2);
	strv_done(&found);
	strv_done(&labels);
	strv_add(&labels, "team=blue");
	assert_int_equal(sandbox_state_labels(s, "a", &labels, NULL), 0);
	assert_int_equal(sandbox_state_labels(s, "none", &labels, NULL), -ERR_NOT_FOUND);
	assert_int_equal(sandbox_state_select(s, &want, &found, NULL), 0);
	assert_int_equal(found.n, 1);
	assert_string_equal(found.v[0], "b");
	/* None at all: everything. */
	strv_done(&want);
	strv_done(&found);
	assert_int_equal(sandbox_state_select(s, &want, &found, NULL), 0);
	assert_int_equal(found.n, 3);

	assert_int_equal(sandbox_state_remove(s, "a", NULL, NULL), 0);
	assert_int_equal(sandbox_state_remove(s, "a", NULL, NULL), 0);
	assert_int_equal(number(s, "SELECT count(*) FROM labels"), 2);
	/* A row that makes no sense is named, and can be removed. */
	assert_int_equal(store_exec(s, "UPDATE sandboxes SET state = 'odd' WHERE name = 'b'", NULL),
			 0);
	{
		cleanup_status struct sandbox_status now = {0};
		struct err err = ERR_INIT;

		assert_int_equal(sandbox_state_read(s, "b", &now, &err), -ERR_CORRUPT);
		assert_non_null(strstr(err.msg, "odd"));
		assert_int_equal(sandbox_state_remove(s, "b", NULL, NULL), 0);
		assert_int_equal(sandbox_state_read(s, "b", &now, NULL), -ERR_NOT_FOUND);
	}
	store_close(s);
}

static void events_are_bounded(void **state)
{
	struct store *s = open_store(*state);

	assert_int_equal(sandbox_state_new(s, "box", false, 1, NULL, NULL), 0);
	assert_int_equal(store_exec(s,
				    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
				    " WHERE i < 12000) INSERT INTO events(at, sandbox, old, new,"
				    " reason) SELECT 1, 'x', '', '', '' FROM n",
				    NULL),
			 0);
	assert_int_equal(sandbox_state_change(s, "box", SANDBOX_STARTING, "", NULL), 0);
	assert_int_equal(number(s, "SELECT count(*) FROM events"), SANDBOX_EVENTS_MAX);
	assert_int_equal(number(s, "SELECT count(*) FROM events WHERE new = 'starting'"), 1);
	store_close(s);
}

/*
 * Many processes change the same rows as they like: each change that succeeded is one event, and
 * the events of a name make an unbroken chain that ends in its row.
 */
static void racing(void **state)
{
	enum { PROCESSES = 12, CHANGES = 60, NAMES = 3 };
	static const char *const names[NAMES] = {"a", "b", "c"};
	struct store *s = open_store(*state);
	pid_t pids[PROCESSES];
	int pipes[2];
	int64_t done = 0, seq = 0;

	assert_int_equal(pipe(pipes), 0);
	for (int i = 0; i < NAMES; i++)
		assert_int_equal(sandbox_state_new(s, names[i], false, 1, NULL, NULL), 0);
	store_close(s);
	for (int i = 0; i < PROCESSES; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			unsigned seed = (unsigned)i;
			int64_t mine = 0;

			if (store_open(&s, *state, NULL) < 0)
				_exit(1);
			for (int n = 0; n < CHANGES; n++) {
				const char *name = names[rand_r(&seed) % NAMES];
				enum sandbox_state to = (unsigned)rand_r(&seed) % SANDBOX_STATES;
				int r = sandbox_state_change(s, name, to, "", NULL);

				if (r < 0 && r != -EBUSY)
					_exit(2);
				mine += r == 0;
			}
			if (write(pipes[1], &mine, sizeof(mine)) != sizeof(mine))
				_exit(3);
			_exit(0);
		}
	}
	for (int i = 0; i < PROCESSES; i++) {
		int status;
		int64_t n;

		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_int_equal(status, 0);
		assert_int_equal(read(pipes[0], &n, sizeof(n)), sizeof(n));
		done += n;
	}
	s = open_store(*state);
	assert_int_equal(sandbox_events_last(s, &seq, NULL), 0);
	assert_true(done > 0);
	assert_int_equal(seq, done + NAMES);
	assert_int_equal(number(s, "SELECT count(*) FROM events"), seq);
	for (int i = 0; i < NAMES; i++) {
		cleanup_stmt sqlite3_stmt *st = NULL;
		enum sandbox_state at = SANDBOX_CREATED, old = 0, new = 0;
		bool first = true;

		assert_int_equal(store_prepare(s, &st,
					       "SELECT old, new FROM events WHERE sandbox = ?1"
					       " ORDER BY seq",
					       NULL),
				 0);
		sqlite3_bind_text(st, 1, names[i], -1, SQLITE_STATIC);
		while (store_step(s, st, NULL) > 0) {
			if (!first) {
				assert_int_equal(sandbox_state_parse(
							 (const char *)sqlite3_column_text(st, 0),
							 &old),
						 0);
				assert_int_equal(old, at);
			}
			assert_int_equal(
				sandbox_state_parse((const char *)sqlite3_column_text(st, 1), &new),
				0);
			if (!first)
				assert_true(sandbox_state_allowed(old, new));
			at = new;
			first = false;
		}
		assert_int_equal(state_of(s, names[i]), at);
	}
	close(pipes[0]);
	close(pipes[1]);
	store_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_edge, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(ends, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(put, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(rows_and_labels, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(events_are_bounded, scratch_setup,
						scratch_teardown),
		cmocka_unit_test_setup_teardown(racing, scratch_setup, scratch_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
