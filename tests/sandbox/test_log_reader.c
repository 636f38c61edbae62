/* SPDX-License-Identifier: Apache-2.0 */
/* The reader of the log beside its writer. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "machine/exec_log.h"
#include "sandbox/log_reader.h"

static int setup(void **state)
{
	int r = scratch_setup(state);

	return r < 0 ? r : mkdir(scratch_path(state, "logs"), 0700);
}

static struct log_reader *reader(void **state)
{
	cleanup_close int dir = open(*state, O_RDONLY | O_DIRECTORY);
	struct log_reader *r;

	assert_int_equal(log_reader_new(&r, dir, "exec.log", NULL), 0);
	return r;
}

/* Events @from to @to, written by a machine of their own each @each. */
static void write_events(void **state, int from, int to, int each)
{
	struct exec_log_limits limits = exec_log_default;
	struct exec_log *log = NULL;

	limits.file = 4000;
	for (int i = from; i < to; i++) {
		if (!log)
			assert_int_equal(exec_log_new(&log, *state, &limits, NULL), 0);
		exec_log_event(log, 3, "event %d", i);
		if ((i - from) % each == each - 1)
			log = exec_log_free(log);
	}
	exec_log_free(log);
}

static int number(const struct log_entry *e)
{
	char text[32] = "";
	int n;

	assert_int_equal(e->source, LOG_SYSTEM);
	assert_int_equal(e->id, 3);
	memcpy(text, e->data, MIN(e->n, sizeof(text) - 1));
	assert_int_equal(sscanf(text, "event %d", &n), 1);
	return n;
}

static void test_none_yet(void **state)
{
	struct log_reader *r = reader(state);
	struct log_entry e;

	assert_int_equal(log_reader_next(r, &e), 0);
	write_events(state, 0, 1, 1);
	assert_int_equal(log_reader_next(r, &e), 1);
	assert_int_equal(number(&e), 0);
	assert_int_equal(log_reader_next(r, &e), 0);
	log_reader_free(r);
}

static void test_follows_from_file_to_file(void **state)
{
	struct log_reader *r = reader(state);
	struct log_entry e;

	/* Some thirty entries a file: read before four of them are full again. */
	for (int i = 0; i < 1000; i += 50) {
		write_events(state, i, i + 50, 20);
		for (int k = 0; k < 50; k++) {
			assert_int_equal(log_reader_next(r, &e), 1);
			assert_int_equal(number(&e), i + k);
		}
		assert_int_equal(log_reader_next(r, &e), 0);
	}
	log_reader_free(r);
}

/* How many entries there are in the last @bytes, which end with number @last. */
static int count_back(struct log_reader *r, uint64_t bytes, int last, int *whole)
{
	struct log_entry e;
	int n = 0, first = -1;

	*whole = log_reader_back(r, bytes);
	while (log_reader_next(r, &e) == 1) {
		if (!n++)
			first = number(&e);
		assert_int_equal(number(&e), first + n - 1);
	}
	assert_true(!n || first + n - 1 == last);
	return n;
}

static void test_begins_at_the_end(void **state)
{
	struct log_reader *r = reader(state);
	struct log_entry e;
	int all, n, whole, before = 0;

	assert_int_equal(count_back(r, 1000, -1, &whole), 0);
	assert_int_equal(whole, 1);
	/* The files have gone round. */
	write_events(state, 0, 500, 500);
	all = count_back(r, UINT64_MAX, 499, &whole);
	assert_int_equal(whole, 1);
	assert_in_range(all, 80, 200);
	/* Less than a line more is at most a line more, in whichever file. */
	whole = 0;
	for (uint64_t bytes = 0; !whole; bytes += 37) {
		n = count_back(r, bytes, 499, &whole);
		assert_in_range(n, before, before + 1);
		before = n;
	}
	assert_int_equal(before, all);
	/* A line that begins exactly there is one of them. */
	log_reader_back(r, UINT64_MAX);
	for (n = 0; n < all; n++)
		assert_int_equal(log_reader_next(r, &e), 1);
	assert_int_equal(count_back(r, e.line_n + 1, 499, &whole), 1);
	assert_int_equal(count_back(r, e.line_n, 499, &whole), 0);
	log_reader_free(r);
}

static void test_tells_of_what_it_missed(void **state)
{
	struct log_reader *r = reader(state);
	struct log_entry e;
	int last = -1, n = 0;

	write_events(state, 0, 10, 10);
	assert_int_equal(log_reader_next(r, &e), 1);
	/* What was read ahead is still handed out; then the files have gone round. */
	write_events(state, 10, 500, 500);
	for (;;) {
		int got = log_reader_next(r, &e);

		if (got == 0)
			break;
		if (got == -ENODATA) {
			n++;
			continue;
		}
		assert_true(number(&e) > last);
		if (!n)
			assert_int_equal(number(&e), last < 0 ? 1 : last + 1);
		last = number(&e);
	}
	assert_int_equal(last, 499);
	assert_int_equal(n, 1);
	log_reader_free(r);
	/* From the start, there is no gap: only an old end. */
	r = reader(state);
	for (n = 0; log_reader_next(r, &e) == 1; n++)
		last = number(&e);
	assert_int_equal(last, 499);
	assert_in_range(n, 80, 200);
	assert_int_equal(log_reader_next(r, &e), 0);
	log_reader_free(r);
}

static void test_lines_that_are_none(void **state)
{
	static const char text[] =
		"{\"t\":\"2026-01-31T12:00:00Z\",\"s\":\"system\",\"d\":\"\",\"seq\":1}\n"
		"nonsense\n\n{}\n[1]\n"
		"{\"t\":\"yesterday\",\"s\":\"stdout\",\"d\":\"x\"}\n"
		"{\"t\":\"2026-01-31T12:00:00Z\",\"s\":\"elsewhere\",\"d\":\"x\"}\n"
		"{\"t\":\"2026-01-31T12:00:00Z\",\"s\":\"stdout\",\"d\":\"x\",\"e\":\"rot13\"}\n"
		"{\"t\":\"2026-01-31T12:00:00Z\",\"s\":\"stdout\",\"d\":\"x\",\"e\":\"base64\"}\n"
		"{\"t\":\"1970-01-01T01:00:01.5+01:00\",\"s\":\"stderr\",\"d\":\"AP8=\","
		"\"e\":\"base64\",\"id\":9}\n"
		"{\"t\":\"2026-01-31T12:00:00Z\",\"s\":\"std";
	cleanup_free char *longer = malloc(300001);
	struct log_reader *r = reader(state);
	struct log_entry e;
	int fd = open(scratch_path(state, "logs/exec.log"), O_WRONLY | O_CREAT, 0600);

	assert_int_equal(io_write_full(fd, text, strlen(text)), 0);
	assert_int_equal(log_reader_next(r, &e), 1);
	assert_int_equal(e.ns, 1500000000);
	assert_int_equal(e.source, LOG_STDERR);
	assert_int_equal(e.id, 9);
	assert_int_equal(e.n, 2);
	assert_memory_equal(e.data, "\0\xff", 2);
	assert_int_equal(log_reader_next(r, &e), 0);
	/* The rest of the half line, one that is far too long, and a good one. */
	memset(longer, 'x', 300000);
	assert_int_equal(io_write_full(fd, "out\",\"d\":\"late\"}\n", 17), 0);
	assert_int_equal(io_write_full(fd, longer, 300000), 0);
	assert_int_equal(log_reader_next(r, &e), 1);
	assert_memory_equal(e.data, "late", 4);
	assert_int_equal(log_reader_next(r, &e), 0);
	assert_int_equal(io_write_full(fd, longer, 300000), 0);
	assert_int_equal(log_reader_next(r, &e), 0);
	assert_int_equal(io_write_full(fd, "\n", 1), 0);
	assert_int_equal(io_write_full(fd, text + strlen(text) - 41, 41), 0);
	assert_int_equal(io_write_full(fd, "out\",\"d\":\"good\"}\n", 17), 0);
	assert_int_equal(log_reader_next(r, &e), 1);
	assert_memory_equal(e.data, "good", 4);
	close(fd);
	log_reader_free(r);
}

static void test_times(void **state)
{
	static const struct {
		const char *text;
		int64_t ns;
	} good[] = {
		{"1970-01-01T00:00:00Z", 0},
		{"2026-11-21T12:34:56.123456Z", 1795264496123456000},
		{"2026-11-21T12:34:56.123456789Z", 1795264496123456789},
		{"2026-11-21T14:34:56+02:00", 1795264496000000000},
		{"2026-11-21T11:04:56-01:30", 1795264496000000000},
	};
	static const char *const bad[] = {
		"",
		"now",
		"2026-11-21",
		"2026-11-21T12:34:56",
		"2026-11-21T12:34:56.Z",
		"2026-11-21T12:34:56Zx",
		"2026-11-21T12:34:56+0200",
		"2026-13-21T12:34:56Z",
		"2026-11-21T12:34:56+99:00",
		"2026-11-21T12:34:56.123456789123456789123456789123456789Z",
	};
	int64_t ns;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(log_time_parse(good[i].text, strlen(good[i].text), &ns), 0);
		assert_int_equal(ns, good[i].ns);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (log_time_parse(bad[i], strlen(bad[i]), &ns) != -EINVAL)
			fail_msg("\"%s\" was taken", bad[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_none_yet, setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(test_follows_from_file_to_file, setup,
						scratch_teardown),
		cmocka_unit_test_setup_teardown(test_tells_of_what_it_missed, setup,
						scratch_teardown),
		cmocka_unit_test_setup_teardown(test_begins_at_the_end, setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(test_lines_that_are_none, setup, scratch_teardown),
		cmocka_unit_test(test_times),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
