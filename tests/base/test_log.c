/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/log.h"

static void lines_are_whole_and_stamped(void **state)
{
	int p[2];
	char text[8192], big[4000];
	ssize_t n;

	(void)state;
	assert_int_equal(pipe2(p, O_CLOEXEC | O_NONBLOCK), 0);
	log_error("before opening");
	log_open(p[1], LOG_INFO, "vm");
	log_info("a %d", 1);
	log_debug("hidden");
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	log_warn("%s", big);
	n = read(p[0], text, sizeof(text) - 1);
	assert_true(n > 0);
	text[n] = '\0';
	/* 2026-11-21T06:30:00.123Z info  vm: a 1 */
	assert_int_equal(text[10], 'T');
	assert_int_equal(text[23], 'Z');
	assert_non_null(strstr(text, " info  vm: a 1\n"));
	assert_null(strstr(text, "hidden"));
	assert_null(strstr(text, "before"));
	assert_int_equal(text[n - 1], '\n');
	assert_true(n < 1200);
	log_open(-1, LOG_OFF, NULL);
	close(p[0]);
	close(p[1]);
}

static void levels(void **state)
{
	enum log_level l;

	(void)state;
	for (int i = LOG_OFF; i <= LOG_TRACE; i++) {
		assert_int_equal(log_level_parse(log_level_name((enum log_level)i), &l), 0);
		assert_int_equal(l, i);
	}
	assert_int_equal(log_level_parse("loud", &l), -EINVAL);
	assert_int_equal(log_level_parse("", &l), -EINVAL);
}

static void what_repeats_is_logged_so_often(void **state)
{
	static char text[1 << 16];
	atomic_uint count = 0;
	unsigned allowed = 0, lines = 0;
	int p[2];
	ssize_t n;

	(void)state;
	assert_int_equal(pipe2(p, O_CLOEXEC | O_NONBLOCK), 0);
	log_open(p[1], LOG_WARN, NULL);
	for (unsigned i = 0; i < 10000; i++)
		allowed += log_allow(&count);
	assert_int_equal(allowed, LOG_LIMIT);
	n = read(p[0], text, sizeof(text));
	for (ssize_t i = 0; i < n; i++)
		lines += text[i] == '\n';
	assert_int_equal(lines, 1);
	log_open(-1, LOG_OFF, NULL);
	close(p[0]);
	close(p[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_are_whole_and_stamped),
		cmocka_unit_test(levels),
		cmocka_unit_test(what_repeats_is_logged_so_often),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
