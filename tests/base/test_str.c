/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include <errno.h>

#include "base/cleanup.h"
#include "base/str.h"

static void sizes(void **state)
{
	static const struct {
		const char *text;
		uint64_t unit, want;
	} good[] = {
		{"0", 1, 0},
		{"512M", 1, 512ull << 20},
		{"512", 1 << 20, 512ull << 20},
		{"512", 1, 512},
		{"1G", 1, 1ull << 30},
		{"1g", 1, 1ull << 30},
		{"1.5G", 1, 3ull << 29},
		{"0.5", 1 << 20, 1 << 19},
		{"4096K", 1, 4096 << 10},
		{"1GiB", 1, 1ull << 30},
		{"1GB", 1, 1ull << 30},
		{"1Gb", 1, 1ull << 30},
		{"2T", 1, 2ull << 40},
		{"1P", 1, 1ull << 50},
		{"17B", 1 << 20, 17},
		{"8388607T", 1, 8388607ull << 40},
		{"0.000000001G", 1, 1},
		{"1.00000000000000000000G", 1, 1ull << 30},
	};
	static const char *const bad[] = {
		"",    "M",  "-1",    " 1",  "1 ",  "1 M", "1MM", "1.M",  ".5M", "1,5G", "0x10",
		"1e3", "+1", "1KiBs", "1iB", "1BB", "G1",  "1Z",  "1..5", "inf", "nan",
	};
	static const char *const large[] = {"8388608T", "9223372036854775808",
					    "18446744073709551616",
					    "99999999999999999999999999999G", "8192P"};
	struct err e = ERR_INIT;
	uint64_t v;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		v = 77;
		if (str_to_size(good[i].text, good[i].unit, "memory", &v, &e) || v != good[i].want)
			fail_msg("%s gave %llu", good[i].text, (unsigned long long)v);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		v = 77;
		if (str_to_size(bad[i], 1, "memory", &v, &e) != -ERR_USAGE || v != 77)
			fail_msg("\"%s\" was taken", bad[i]);
		assert_non_null(strstr(e.msg, "memory"));
		assert_non_null(strstr(e.msg, "not a size"));
		assert_true(e.hint[0]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(large); i++) {
		if (str_to_size(large[i], 1, "memory", &v, &e) != -ERR_USAGE)
			fail_msg("\"%s\" was taken", large[i]);
		assert_non_null(strstr(e.msg, "too large"));
	}
}

static void durations(void **state)
{
	static const struct {
		const char *text;
		uint64_t want;
	} good[] = {
		{"0", 0},
		{"90", 90000000000},
		{"500ms", 500000000},
		{"1.5s", 1500000000},
		{"5m", 300000000000},
		{"2h", 7200000000000},
		{"1d", 86400000000000},
		{"0.001", 1000000},
		{"20us", 20000},
		{"0.000000001s", 1},
		{"2h30m", 9000000000000},
		{"1d1s1us", 86401000001000},
		{"1m1.5s", 61500000000},
	};
	static const char *const bad[] = {"",	  "s",	  "-1s", "1 s",	 "1sec",   "1.s",  ".5",
					  "1h30", "1M",	  "1ns", "ms",	 "1s ",	   "1e3",  "1ss",
					  "1m1m", "1s1m", "1hm", "90 m", "1h 30m", "1h-1m"};
	struct err e = ERR_INIT;
	uint64_t v;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		v = 77;
		if (str_to_duration(good[i].text, "timeout", &v, &e) || v != good[i].want)
			fail_msg("%s gave %llu", good[i].text, (unsigned long long)v);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		v = 77;
		if (str_to_duration(bad[i], "timeout", &v, &e) != -ERR_USAGE || v != 77)
			fail_msg("\"%s\" was taken", bad[i]);
		assert_non_null(strstr(e.msg, "not a duration"));
	}
	assert_int_equal(str_to_duration("9999999999999d", "timeout", &v, &e), -ERR_USAGE);
	assert_int_equal(str_to_duration("106751d24h", "timeout", &v, &e), -ERR_USAGE);
	/* 2^64 - 1 of a unit, which wraps around to something short. */
	assert_int_equal(str_to_duration("18446744073709551615d", "timeout", &v, &e), -ERR_USAGE);
	assert_non_null(strstr(e.msg, "too long"));
}

static void numbers(void **state)
{
	uint64_t v = 77;

	(void)state;
	assert_int_equal(str_to_u64("0", 10, &v), 0);
	assert_true(v == 0);
	assert_int_equal(str_to_u64("18446744073709551615", UINT64_MAX, &v), 0);
	assert_true(v == UINT64_MAX);
	v = 77;
	assert_int_equal(str_to_u64("18446744073709551616", UINT64_MAX, &v), -ERANGE);
	assert_int_equal(str_to_u64("11", 10, &v), -ERANGE);
	assert_int_equal(str_to_u64("", 10, &v), -EINVAL);
	assert_int_equal(str_to_u64("-1", 10, &v), -EINVAL);
	assert_int_equal(str_to_u64(" 1", 10, &v), -EINVAL);
	assert_int_equal(str_to_u64("1x", 10, &v), -EINVAL);
	assert_int_equal(str_to_u64("+1", 10, &v), -EINVAL);
	assert_true(v == 77);
}

static void sizes_as_people_read_them(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *want;
	} cases[] = {
		{0, "0 B"},
		{1023, "1023 B"},
		{1024, "1.0 KiB"},
		{1536, "1.5 KiB"},
		{100 << 20, "100 MiB"},
		{1ull << 30, "1.0 GiB"},
		{UINT64_MAX, "16.0 EiB"},
	};
	char b[24];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_string_equal(str_size(cases[i].bytes, b), cases[i].want);
}

static void hexadecimal(void **state)
{
	static const char *const bad[] = {"", "0", "0g", "000", "-1", " 1", "0x"};
	uint8_t out[4], one;
	char text[9];

	(void)state;
	str_hex("\x00\xff\x1a\x80", 4, text);
	assert_string_equal(text, "00ff1a80");
	assert_int_equal(str_unhex("00FF1a80", out, 4), 0);
	assert_memory_equal(out, "\x00\xff\x1a\x80", 4);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(str_unhex(bad[i], &one, 1), -EINVAL);
}

static void suggestions(void **state)
{
	static const char *const verbs[] = {"run", "load", "image", "inspect"};

	(void)state;
	assert_string_equal(str_suggest("rn", verbs, 4), "run");
	assert_string_equal(str_suggest("imge", verbs, 4), "image");
	assert_string_equal(str_suggest("inspekt", verbs, 4), "inspect");
	assert_null(str_suggest("zzzzzz", verbs, 4));
	assert_null(str_suggest("frobnicate", verbs, 4));
	assert_null(str_suggest("x", verbs, 0));
	assert_null(str_suggest("a-word-far-longer-than-anything-that-anybody-would-mistype-here-"
				"and-then-some",
				verbs, 4));
}

static void prefixes_and_suffixes(void **state)
{
	(void)state;
	assert_true(str_starts("sha256:ab", "sha256:"));
	assert_true(str_starts("a", ""));
	assert_false(str_starts("sha", "sha256:"));
	assert_true(str_ends("x.tar", ".tar"));
	assert_false(str_ends("tar", ".tar"));
	assert_true(str_ends("", ""));
}

static void vectors(void **state)
{
	cleanup_strv struct strv s = {0};

	(void)state;
	assert_int_equal(strv_add(&s, "PATH=/bin"), 0);
	assert_int_equal(strv_addf(&s, "N=%d", 4), 0);
	assert_int_equal(strv_env_set(&s, "PATH=/usr/bin"), 0);
	assert_int_equal(strv_env_set(&s, "PA=1"), 0);
	assert_int_equal(strv_env_set(&s, "N="), 0);
	assert_int_equal(s.n, 3);
	assert_string_equal(s.v[0], "PATH=/usr/bin");
	assert_string_equal(s.v[1], "N=");
	assert_string_equal(s.v[2], "PA=1");
	assert_null(s.v[3]);
	assert_int_equal(strv_find(&s, "N="), 1);
	assert_int_equal(strv_find(&s, "N"), 3);
	assert_true(strv_has(&s, "PA=1"));
	strv_remove(&s, 1);
	assert_int_equal(s.n, 2);
	assert_string_equal(s.v[1], "PA=1");
	assert_null(s.v[2]);
	strv_remove(&s, 1);
	strv_remove(&s, 0);
	assert_int_equal(s.n, 0);
	assert_null(s.v[0]);
	assert_false(strv_has(&s, "PA=1"));
	assert_int_equal(strv_add(&s, "again"), 0);
	assert_string_equal(s.v[0], "again");
	strv_done(&s);
	assert_int_equal(s.n, 0);
	strv_done(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes),
		cmocka_unit_test(durations),
		cmocka_unit_test(numbers),
		cmocka_unit_test(sizes_as_people_read_them),
		cmocka_unit_test(hexadecimal),
		cmocka_unit_test(suggestions),
		cmocka_unit_test(prefixes_and_suffixes),
		cmocka_unit_test(vectors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
