/* SPDX-License-Identifier: Apache-2.0 */
/* Events: what they say, and that who follows them misses none and need not look by the clock. */
#include "../test.h"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sandbox/events.h"
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

static void what_they_say(void **state)
{
	cleanup_store struct store *s = open_store(*state);
	const struct sandbox_end end = {.asked = true, .reason = "asked", .exit_code = 7};
	cleanup_strv struct strv labels = {0};
	cleanup_events struct sandbox_events l = {0};

	assert_int_equal(sandbox_events_read(s, 0, 10, &l, NULL), 0);
	assert_int_equal(l.n, 0);
	assert_int_equal(l.first, 0);
	assert_int_equal(strv_add(&labels, "team=\"core\""), 0);
	assert_int_equal(sandbox_state_new(s, "box", false, 1, &labels, NULL), 0);
	assert_int_equal(sandbox_state_change(s, "box", SANDBOX_STARTING, "", NULL), 0);
	assert_int_equal(sandbox_state_end(s, "box", &end, NULL, NULL), 0);
	assert_int_equal(sandbox_state_remove(s, "box", NULL, NULL), 0);
	assert_int_equal(sandbox_events_read(s, 0, 10, &l, NULL), 0);
	assert_int_equal(l.n, 4);
	assert_int_equal(l.first, 1);
	assert_string_equal(l.v[0].old, "");
	assert_string_equal(l.v[0].new, "created");
	assert_int_equal(l.v[0].exit_code, -1);
	assert_string_equal(l.v[2].reason, "asked");
	assert_int_equal(l.v[2].exit_code, 7);
	/* Though its labels are gone. */
	assert_string_equal(l.v[3].new, "removed");
	assert_string_equal(l.v[3].labels, "{\"team\":\"\\\"core\\\"\"}");
	sandbox_events_done(&l);
	assert_int_equal(sandbox_events_read(s, 1, 2, &l, NULL), 0);
	assert_int_equal(l.n, 2);
	assert_int_equal(l.v[0].seq, 2);
}

/* Writers as fast as they can; the follower waits for notices alone, without a limit of time. */
static void none_is_missed(void **state)
{
	enum { PROCESSES = 4, EACH = 60, ALL = PROCESSES * (2 * EACH) };
	cleanup_store struct store *s = open_store(*state);
	struct err err = ERR_INIT;
	cleanup_close int watch = sandbox_events_watch(s, &err);
	pid_t pids[PROCESSES];
	int64_t seq = 0;

	assert_true(watch >= 0);
	for (int i = 0; i < PROCESSES; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			struct store *mine = NULL;
			char name[16];

			snprintf(name, sizeof(name), "box%d", i);
			if (store_open(&mine, *state, NULL) < 0)
				_exit(1);
			for (int n = 0; n < EACH; n++) {
				if (sandbox_state_new(mine, name, false, 1, NULL, NULL) < 0 ||
				    sandbox_state_remove(mine, name, NULL, NULL) < 0)
					_exit(2);
			}
			store_close(mine);
			_exit(0);
		}
	}
	while (seq < ALL) {
		cleanup_events struct sandbox_events l = {0};
		struct pollfd p = {watch, POLLIN, 0};

		/* Minutes: a notice that is missed ends this as a failure and not as a hang. */
		assert_int_equal(poll(&p, 1, 120000), 1);
		assert_int_equal(sandbox_events_noticed(watch, &err), 0);
		assert_int_equal(sandbox_events_read(s, seq, 1000, &l, &err), 0);
		for (size_t i = 0; i < l.n; i++)
			assert_int_equal(l.v[i].seq, ++seq);
	}
	for (int i = 0; i < PROCESSES; i++) {
		int status;

		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_int_equal(status, 0);
	}
}

static void a_database_that_goes(void **state)
{
	cleanup_store struct store *s = open_store(*state);
	struct err err = ERR_INIT;
	cleanup_close int watch = sandbox_events_watch(s, &err);
	struct pollfd p = {watch, POLLIN, 0};
	cleanup_free char *from = str_fmt("%s/msb.db", (char *)*state);
	cleanup_free char *to = str_fmt("%s/old.db", (char *)*state);

	assert_int_equal(rename(from, to), 0);
	assert_int_equal(poll(&p, 1, 120000), 1);
	assert_int_equal(sandbox_events_noticed(watch, &err), -ERR_NOT_FOUND);
	assert_non_null(strstr(err.msg, "moved away"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_they_say, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(none_is_missed, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(a_database_that_goes, scratch_setup,
						scratch_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
