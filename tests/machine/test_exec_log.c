/* SPDX-License-Identifier: Apache-2.0 */
/* What the log makes of the bytes that pass between a client and the guest. */
#include "test.h"

#include <jansson.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "machine/exec_log.h"
#include "wire/cbor.h"
#include "wire/frame.h"

struct world {
	char *dir;
	struct exec_log *log;
	struct exec_tap *tap;
	struct frame_scan scan[2];
	struct buf b;
};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_int_equal(scratch_setup((void **)&w->dir), 0);
	assert_int_equal(mkdir(scratch_path((void **)&w->dir, "logs"), 0700), 0);
	assert_int_equal(exec_log_new(&w->log, w->dir, &exec_log_default, NULL), 0);
	w->tap = exec_tap_new(w->log);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	exec_tap_free(w->tap);
	exec_log_free(w->log);
	buf_done(&w->b);
	scratch_teardown((void **)&w->dir);
	free(w);
	return 0;
}

/* Hand over what is in w->b, in pieces of @step bytes. */
static void pass(struct world *w, bool asked, size_t step)
{
	while (buf_size(&w->b)) {
		size_t n = MIN(step, buf_size(&w->b)), rest = n;
		const uint8_t *p = buf_ptr(&w->b);
		struct frame_piece piece;

		while (frame_scan(&w->scan[asked], &p, &rest, &piece) > 0)
			(asked ? exec_tap_asked : exec_tap_answered)(w->tap, &piece);
		assert_int_equal(rest, 0);
		buf_consume(&w->b, n);
	}
	buf_reset(&w->b);
}

static void ask(struct world *w, uint32_t id, const char *cmd, bool tty, size_t step)
{
	struct msg_exec_request m = {.cmd = (char *)(uintptr_t)cmd, .tty = tty};

	assert_int_equal(frame_put_msg(&w->b, id, MSG_EXEC_REQUEST, &m), 0);
	pass(w, true, step);
}

static void say(struct world *w, uint32_t id, enum msg_kind kind, const void *p, size_t n,
		size_t step)
{
	assert_int_equal(frame_put_data(&w->b, id, kind, p, n), 0);
	pass(w, false, step);
}

/* Close the log and read a file of it: the entries behind the first line. */
static json_t *written(struct world *w, const char *name)
{
	cleanup_buf struct buf b = BUF_INIT;
	json_t *all = json_array();
	char *line, *rest = NULL;

	w->tap = exec_tap_free(w->tap);
	w->log = exec_log_free(w->log);
	assert_int_equal(io_read_file(scratch_path((void **)&w->dir, name), 64 << 20, &b, NULL), 0);
	for (line = strtok_r(buf_cstr(&b), "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		json_t *j = json_loads(line, JSON_ALLOW_NUL, NULL);

		assert_non_null(j);
		if (json_object_get(j, "seq"))
			json_decref(j);
		else
			json_array_append_new(all, j);
	}
	return all;
}

static void expect(const json_t *all, size_t i, const char *source, const char *text, int id)
{
	json_t *j = json_array_get(all, i);

	assert_non_null(j);
	assert_string_equal(json_string_value(json_object_get(j, "s")), source);
	assert_string_equal(json_string_value(json_object_get(j, "d")), text);
	assert_int_equal(json_integer_value(json_object_get(j, "id")), id);
	assert_int_equal(json_string_length(json_object_get(j, "t")), 27);
}

static void test_sessions(void **state)
{
	struct world *w = *state;
	struct msg_exec_exited exited = {.code = 5};
	json_t *all;

	for (size_t step = 1; step < 200; step += 66) {
		ask(w, 7, "sh", false, step);
		ask(w, 8, "vi", true, step);
		say(w, 7, MSG_EXEC_STDOUT, "out\n", 4, step);
		say(w, 7, MSG_EXEC_STDERR, "\"err\\\"\x01\x7f", 8, step);
		say(w, 8, MSG_EXEC_STDOUT, "tty", 3, step);
		say(w, 7, MSG_EXEC_STDOUT, "\0\xff", 2, step);
		say(w, 7, MSG_EXEC_STDOUT, "\0", 1, step);
		frame_put_msg(&w->b, 7, MSG_EXEC_EXITED, &exited);
		frame_put_msg(&w->b, 8, MSG_EXEC_EXITED, &exited);
		pass(w, false, step);
	}
	all = written(w, "logs/exec.log");
	assert_int_equal(json_array_size(all), 4 * 9);
	for (int round = 0; round < 4; round++) {
		size_t at = 9 * (size_t)round;
		int id = 2 * round + 1;

		expect(all, at, "system", "asked to run sh", id);
		expect(all, at + 1, "system", "asked to run vi", id + 1);
		expect(all, at + 2, "stdout", "out\n", id);
		expect(all, at + 3, "stderr", "\"err\\\"\x01\x7f", id);
		expect(all, at + 4, "output", "tty", id + 1);
		expect(all, at + 5, "stdout", "AP8=", id);
		assert_string_equal(
			json_string_value(json_object_get(json_array_get(all, at + 5), "e")),
			"base64");
		assert_null(json_object_get(json_array_get(all, at + 4), "e"));
		assert_int_equal(
			json_string_length(json_object_get(json_array_get(all, at + 6), "d")), 1);
		expect(all, at + 7, "system", "ended with exit code 5", id);
	}
	json_decref(all);
}

static void test_what_is_no_session_is_passed_over(void **state)
{
	struct world *w = *state;
	static const uint8_t junk[] = "no CBOR at all, but for certain longer than the name of it";
	json_t *all;

	frame_put(&w->b, 3, FRAME_SESSION_START, junk, sizeof(junk));
	frame_put(&w->b, 3, 0, junk, sizeof(junk));
	frame_put(&w->b, 3, FRAME_SESSION_START, NULL, 0);
	pass(w, true, 5);
	frame_put(&w->b, 3, 0, junk, sizeof(junk));
	frame_put(&w->b, 3, 0, NULL, 0);
	frame_put_data(&w->b, 3, MSG_FS_DATA, junk, sizeof(junk));
	frame_put_data(&w->b, 3, MSG_TCP_DATA, junk, sizeof(junk));
	frame_put_data(&w->b, 3, MSG_EXEC_STDOUT, NULL, 0);
	pass(w, false, 5);
	/* A session that nobody was seen to ask for, as after a request of monstrous length. */
	say(w, 9, MSG_EXEC_STDOUT, "x", 1, 4096);
	all = written(w, "logs/exec.log");
	expect(all, 0, "stdout", "x", 1);
	expect(all, 1, "system", "ended with its client", 1);
	assert_int_equal(json_array_size(all), 2);
	json_decref(all);
}

static void test_long_output_is_cut_between_characters(void **state)
{
	struct world *w = *state;
	enum { N = 200001 };
	cleanup_free char *text = malloc(N + 1);
	cleanup_buf struct buf got = BUF_INIT;
	json_t *all;

	for (size_t i = 0; i < N; i += 3)
		memcpy(text + i, "\xe2\x82\xac", 3);
	say(w, 1, MSG_EXEC_STDOUT, text, N, 100000);
	all = written(w, "logs/exec.log");
	for (size_t i = 0; i + 1 < json_array_size(all); i++) {
		json_t *j = json_array_get(all, i), *d = json_object_get(j, "d");

		assert_null(json_object_get(j, "e"));
		buf_add(&got, json_string_value(d), json_string_length(d));
	}
	assert_int_equal(buf_size(&got), N);
	assert_memory_equal(buf_ptr(&got), text, N);
	json_decref(all);
}

/* Frames of output, but with the envelope's keys in another order. */
static void say_otherwise(struct world *w, const char *text, size_t n)
{
	cleanup_buf struct buf payload = BUF_INIT, body = BUF_INIT;

	cbor_put_head(&payload, CBOR_MAP, 1);
	cbor_put_text(&payload, "data");
	cbor_put_bytes(&payload, text, n);
	cbor_put_head(&body, CBOR_MAP, 3);
	cbor_put_text(&body, "t");
	cbor_put_text(&body, "core.exec.stdout");
	cbor_put_text(&body, "v");
	cbor_put_head(&body, CBOR_UINT, AGENT_GENERATION);
	cbor_put_text(&body, "p");
	cbor_put_bytes(&body, buf_ptr(&payload), buf_size(&payload));
	assert_int_equal(frame_put(&w->b, 1, 0, buf_ptr(&body), buf_size(&body)), 0);
	pass(w, false, 8192);
}

static void test_frames_as_others_write_them(void **state)
{
	struct world *w = *state;
	enum { N = 3 << 20 };
	cleanup_free char *text = calloc(1, N);
	json_t *all;

	say_otherwise(w, "hello", 5);
	say_otherwise(w, text, N);
	say(w, 1, MSG_FS_DATA, text, N, 8192);
	all = written(w, "logs/exec.log");
	assert_int_equal(json_array_size(all), 3);
	expect(all, 0, "stdout", "hello", 1);
	assert_non_null(strstr(json_string_value(json_object_get(json_array_get(all, 1), "d")),
			       "bytes of output are not in the log"));
	expect(all, 2, "system", "ended with its client", 1);
	json_decref(all);
}

/* The newest stays; what gave way is counted. */
static void test_a_flood(void **state)
{
	const struct exec_log_limits limits = {
		.name = "exec.log", .files = 1, .file = 64 << 20, .burst = 1 << 20, .rate = 1};
	struct world *w = *state;
	enum { LINE = 1 << 16, LINES = 160 };
	cleanup_free char *line = malloc(LINE);
	uint64_t lost = 0;
	size_t kept = 0;
	json_t *all;

	w->tap = exec_tap_free(w->tap);
	exec_log_free(w->log);
	assert_int_equal(exec_log_new(&w->log, w->dir, &limits, NULL), 0);
	w->tap = exec_tap_new(w->log);
	for (int i = 0; i < LINES; i++) {
		memset(line, 'a' + i % 26, LINE);
		say(w, 1, MSG_EXEC_STDOUT, line, LINE, LINE);
	}
	all = written(w, "logs/exec.log");
	for (size_t i = 0; i < json_array_size(all); i++) {
		json_t *j = json_array_get(all, i);
		const char *d = json_string_value(json_object_get(j, "d"));

		if (strcmp(json_string_value(json_object_get(j, "s")), "stdout") == 0)
			kept += strlen(d);
		else if (strstr(d, "faster than it is written"))
			lost += strtoull(d, NULL, 10);
	}
	assert_in_range(kept, EXEC_LOG_QUEUE - LINE, EXEC_LOG_QUEUE + (2 << 20));
	assert_int_equal(kept + lost, (uint64_t)LINE * LINES);
	/* The last of all is "ended with its client". */
	assert_int_equal(json_string_value(json_object_get(
				 json_array_get(all, json_array_size(all) - 2), "d"))[0],
			 'a' + (LINES - 1) % 26);
	json_decref(all);
}

static void test_the_ring_goes_on_after_a_restart(void **state)
{
	struct world *w = *state;
	static const char *const names[] = {"logs/exec.log", "logs/exec.log.1", "logs/exec.log.2"};
	const struct exec_log_limits limits = {
		.name = "exec.log", .files = 3, .file = 2000, .burst = 1000, .rate = 1};
	json_t *all;
	size_t seen = 0;

	w->tap = exec_tap_free(w->tap);
	exec_log_free(w->log);
	for (int i = 0; i < 50; i++) {
		assert_int_equal(exec_log_new(&w->log, w->dir, &limits, NULL), 0);
		exec_log_event(w->log, 0, "event %d, and so on until this line has some length", i);
		exec_log_free(w->log);
	}
	w->log = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct stat st;

		assert_int_equal(stat(scratch_path((void **)&w->dir, names[i]), &st), 0);
		assert_in_range(st.st_size, 1, 2000);
		all = written(w, names[i]);
		seen += json_array_size(all);
		for (size_t k = 0; k < json_array_size(all); k++) {
			json_t *j = json_array_get(all, k);

			/* The last is in one of them. */
			if (strstr(json_string_value(json_object_get(j, "d")), "event 49,"))
				seen += 1000;
		}
		json_decref(all);
	}
	assert_in_range(seen, 1025, 1050);
}

/* Wait until the first file has @n lines, which nothing but the writer can bring about. */
static void wait_lines(struct world *w, const char *name, unsigned n)
{
	for (unsigned i = 0;; i++) {
		cleanup_buf struct buf b = BUF_INIT;
		unsigned have = 0;

		assert_int_equal(
			io_read_file(scratch_path((void **)&w->dir, name), 1 << 20, &b, NULL), 0);
		for (const char *c = buf_cstr(&b); (c = strchr(c, '\n')); c++)
			have++;
		if (have == n)
			return;
		assert_true(have < n && i < 2000);
		usleep(10000);
	}
}

/* What is rare is written at once, and so is what is urgent, with all that was before it. */
static void test_what_does_not_wait(void **state)
{
	const struct exec_log_limits limits = {
		.name = "network.log",
		.files = 1,
		.file = 1 << 20,
		.burst = 1 << 20,
		.rate = 1 << 20,
		.wait = UINT64_C(3600) * 1000000000,
	};
	struct world *w = *state;
	json_t *all;

	w->tap = exec_tap_free(w->tap);
	exec_log_free(w->log);
	assert_int_equal(exec_log_new(&w->log, w->dir, &limits, NULL), 0);
	exec_log_network(w->log, "opened", "", false);
	wait_lines(w, "logs/network.log", 2);
	exec_log_network(w->log, "closed", "", false);
	exec_log_network(w->log, "denied", "", true);
	wait_lines(w, "logs/network.log", 4);
	exec_log_network(w->log, "denied once more", "", true);
	wait_lines(w, "logs/network.log", 5);
	all = written(w, "logs/network.log");
	expect(all, 0, "network", "opened", 0);
	expect(all, 1, "network", "closed", 0);
	expect(all, 2, "network", "denied", 0);
	json_decref(all);
}

static void test_a_full_disk_loses_and_says_so(void **state)
{
	struct world *w = *state;
	struct rlimit was, little = {.rlim_cur = 3000};
	json_t *all;
	size_t n;

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
	little.rlim_max = was.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &little), 0);
	for (int i = 0; i < 100; i++)
		say(w, 1, MSG_EXEC_STDOUT, "0123456789", 10, 64);
	/* As a session of its own, so that all of the above has been tried. */
	w->tap = exec_tap_free(w->tap);
	w->log = exec_log_free(w->log);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
	all = written(w, "logs/exec.log");
	n = json_array_size(all);
	assert_in_range(n, 10, 60);
	json_decref(all);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_sessions, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_is_no_session_is_passed_over, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_long_output_is_cut_between_characters, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_frames_as_others_write_them, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_flood, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_ring_goes_on_after_a_restart, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_what_does_not_wait, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_full_disk_loses_and_says_so, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
