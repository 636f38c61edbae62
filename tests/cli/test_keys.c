/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "base/cleanup.h"
/* The module is part of a program, not of a library. */
#include "cli/keys.c"

static void test_parse(void **state)
{
	static const char *const bad[] = {"ctrl-",   "ctrl-1", "ab",
					  "a,",	     ",a",     " ",
					  "ctrl-]]", "\x80",   "a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a"};
	struct keys k, init = KEYS_INIT;

	(void)state;
	assert_int_equal(keys_parse("ctrl-]", &k, NULL), 0);
	assert_memory_equal(&k, &init, sizeof(k));
	assert_int_equal(keys_parse("ctrl-p,CTRL-Q,x,~,ctrl-@", &k, NULL), 0);
	assert_int_equal(k.n, 5);
	assert_memory_equal(k.seq, "\x10\x11x~\0", 5);
	assert_int_equal(keys_parse("", &k, NULL), 0);
	assert_int_equal(k.n, 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (keys_parse(bad[i], &k, NULL) != -ERR_USAGE)
			fail_msg("\"%s\" was taken", bad[i]);
	}
}

/* Type @in in pieces of @step; what is passed on, up to the keys. */
static bool type(const char *keys, const char *in, size_t step, char *out)
{
	struct keys k;
	bool done = false;
	size_t put = 0, n = strlen(in);

	assert_int_equal(keys_parse(keys, &k, NULL), 0);
	for (size_t i = 0; i < n && !done; i += step)
		put += keys_filter(&k, (const uint8_t *)in + i, MIN(step, n - i),
				   (uint8_t *)out + put, &done);
	out[put] = '\0';
	return done;
}

static void test_filter(void **state)
{
	static const struct {
		const char *keys, *in, *out;
		bool done;
	} cases[] = {
		{"ctrl-]", "abc", "abc", false},
		{"ctrl-]",
		 "ab\x1d"
		 "c",
		 "ab", true},
		{"",
		 "ab\x1d"
		 "c",
		 "ab\x1d"
		 "c",
		 false},
		{"ctrl-p,ctrl-q",
		 "a\x10"
		 "b\x10\x10\x11z",
		 "a\x10"
		 "b\x10",
		 true},
		{"ctrl-p,ctrl-q", "\x11\x10", "\x11", false},
		/* The end of what did not fit may be the beginning of what does. */
		{"a,a,b", "aaab", "a", true},
		{"a,b,a,c", "ababac", "ab", true},
		{"a,b,a,c", "ababab", "abab", false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		for (size_t step = 1; step < 8; step++) {
			char out[64];

			assert_int_equal(type(cases[i].keys, cases[i].in, step, out),
					 cases[i].done);
			assert_string_equal(out, cases[i].out);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_filter),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
