/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include <errno.h>

#include "base/err.h"

static void set_returns_the_negative_code(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(err_set(&e, ENOENT, "no %s", "file"), -ENOENT);
	assert_int_equal(e.code, ENOENT);
	assert_string_equal(e.msg, "no file");
	assert_int_equal(err_set(&e, -EPERM, "not allowed"), -EPERM);
	assert_int_equal(e.code, EPERM);
	assert_int_equal(err_set(NULL, EACCES, "nobody listens"), -EACCES);
}

static void a_lost_code_is_still_an_error(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	assert_true(err_set(&e, 0, "x") < 0);
	assert_true(e.code > 0);
	errno = 0;
	assert_true(err_errno(&e, "y") < 0);
	assert_true(err_errno(NULL, "y") < 0);
}

static void errno_is_told(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	errno = ENOSPC;
	assert_int_equal(err_errno(&e, "cannot write %s", "x"), -ENOSPC);
	assert_string_equal(e.msg, "cannot write x: No space left on device");
}

static void wrapping_puts_context_in_front(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	err_set(&e, ERR_CORRUPT, "bad digest");
	assert_int_equal(err_wrap(&e, "layer %d", 2), -ERR_CORRUPT);
	assert_int_equal(err_wrap(&e, "image x"), -ERR_CORRUPT);
	assert_string_equal(e.msg, "image x: layer 2: bad digest");
	assert_true(err_wrap(NULL, "x") < 0);
}

static void the_first_hint_stands(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	err_set(&e, ENOENT, "gone");
	assert_int_equal(err_hint(&e, "run %s", "a"), -ENOENT);
	assert_int_equal(err_hint(&e, "run b"), -ENOENT);
	err_wrap(&e, "outer");
	assert_string_equal(e.hint, "run a");
	/* A new error has no hint yet. */
	err_set(&e, EIO, "other");
	assert_string_equal(e.hint, "");
}

static void long_text_is_cut_not_spilled(void **state)
{
	struct err e = ERR_INIT;
	char big[4096];

	(void)state;
	memset(big, 'a', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	err_set(&e, EIO, "%s", big);
	assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
	for (int i = 0; i < 10; i++)
		err_wrap(&e, "%s", big);
	assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
	errno = EIO;
	err_errno(&e, "%s", big);
	assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
	err_hint(&e, "%s", big);
	assert_int_equal(strlen(e.hint), sizeof(e.hint) - 1);
}

static void copy_and_clear(void **state)
{
	struct err a = ERR_INIT, b = ERR_INIT;

	(void)state;
	err_set(&a, ERR_LIMIT, "too much");
	err_hint(&a, "less");
	assert_int_equal(err_copy(&b, &a), -ERR_LIMIT);
	assert_string_equal(b.msg, "too much");
	assert_string_equal(b.hint, "less");
	assert_int_equal(err_copy(NULL, &a), -ERR_LIMIT);
	assert_int_equal(err_copy(&a, &a), -ERR_LIMIT);
	err_clear(&b);
	assert_int_equal(b.code, 0);
	assert_string_equal(b.msg, "");
	err_clear(NULL);
}

static void every_code_has_a_name(void **state)
{
	(void)state;
	for (int c = ERR_CORRUPT; c <= ERR_GUEST; c++) {
		assert_string_not_equal(err_name(c), "unknown error");
		assert_string_equal(err_name(c), err_name(-c));
	}
	assert_string_equal(err_name(ENOENT), "No such file or directory");
	assert_string_equal(err_name(99999), "unknown error");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(set_returns_the_negative_code),
		cmocka_unit_test(a_lost_code_is_still_an_error),
		cmocka_unit_test(errno_is_told),
		cmocka_unit_test(wrapping_puts_context_in_front),
		cmocka_unit_test(the_first_hint_stands),
		cmocka_unit_test(long_text_is_cut_not_spilled),
		cmocka_unit_test(copy_and_clear),
		cmocka_unit_test(every_code_has_a_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
