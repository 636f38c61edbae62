/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include <stdlib.h>
#include <time.h>

#include "base/cleanup.h"

/* The program is no library: what is tested is compiled in. */
#include "cli/when.c"

#define NS INT64_C(1000000000)

/* Of a place two hours ahead of UTC, or from the end of March on, three. */
static const char *const here = "HERE-2THERE,M3.5.0,M10.5.0";

static void dates(void **state)
{
	static const struct {
		const char *text;
		int64_t want;
	} good[] = {
		{"2026-01-31T12:00:00Z", 1769860800 * NS},
		{"2026-01-31T12:00:00.25z", 1769860800 * NS + NS / 4},
		{"2026-01-31T12:00:00.123456789999Z", 1769860800 * NS + 123456789},
		{"2026-01-31T14:00:00+02:00", 1769860800 * NS},
		{"2026-01-31T14:00:00+0200", 1769860800 * NS},
		{"2026-01-31 06:30:00-05:30", 1769860800 * NS},
		/* Here. */
		{"2026-01-31T14:00:00", 1769860800 * NS},
		{"2026-01-31T14:00:00.5", 1769860800 * NS + NS / 2},
		{"2026-01-31T14:00", 1769860800 * NS},
		{"2026-01-31 14:00", 1769860800 * NS},
		{"2026-01-31", (1769860800 - 14 * 3600) * NS},
		{"2026-07-01T03:00", 1782864000 * NS},
		{"2026-01-31Z", (1769860800 - 12 * 3600) * NS},
		{"@1769860800", 1769860800 * NS},
		{"@1769860800.5", 1769860800 * NS + NS / 2},
		{"@0", 0},
		{"1769860800", 1769860800 * NS},
		{"1769860800.000000001", 1769860800 * NS + 1},
	};
	static const char *const bad[] = {"",
					  "soon",
					  "yesterday",
					  "2026-02-30",
					  "2026-13-01",
					  "2026-01-31T",
					  "2026-01-31T12",
					  "2026-01-31T12:00:00.Z",
					  "2026-01-31T12:00:00+1",
					  "2026-01-31T12:00:00+24:00",
					  "2026-01-31T12:00 Z",
					  "@",
					  "@-1",
					  "@99999999999999999999",
					  "99999999999999999999",
					  "10x",
					  "-10m",
					  "1769860800s5"};
	struct err err = ERR_INIT;
	int64_t got;

	(void)state;
	setenv("TZ", here, 1);
	tzset();
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		got = -1;
		if (cli_past_time(good[i].text, &got, &err) != 0 || got != good[i].want)
			fail_msg("%s gave %lld", good[i].text, (long long)got);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		got = 77;
		if (cli_past_time(bad[i], &got, &err) != -ERR_USAGE)
			fail_msg("\"%s\" was taken for %lld", bad[i], (long long)got);
		assert_int_equal(got, 77);
		assert_non_null(strstr(err.msg, "is no time"));
		err_clear(&err);
	}
}

static void ago(void **state)
{
	static const struct {
		const char *text;
		int64_t seconds;
	} cases[] = {
		{"0s", 0}, {"90", 90}, {"10m", 600}, {"2h30m", 9000}, {"999999999", 999999999}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int64_t before = time(NULL), got = 0;

		assert_int_equal(cli_past_time(cases[i].text, &got, NULL), 0);
		got += cases[i].seconds * NS;
		assert_true(got >= before * NS && got <= (time(NULL) + 1) * NS);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(dates),
		cmocka_unit_test(ago),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
