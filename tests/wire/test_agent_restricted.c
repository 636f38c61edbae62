/* SPDX-License-Identifier: Apache-2.0 */
/* The restricted security profile: what a command may no longer do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "harness.h"

static int up(void **state)
{
	(void)state;
	harness_start(true);
	return 0;
}

static int down(void **state)
{
	(void)state;
	harness_stop();
	return 0;
}

static uint64_t field(const char *text, const char *name, int base)
{
	const char *at = strstr(text, name);

	assert_non_null(at);
	return strtoull(at + strlen(name), NULL, base);
}

static void test_restricted(void **state)
{
	const uint64_t sys_admin = 1u << 21;
	struct collected r;
	struct client c;
	const char *text;

	(void)state;
	if (getuid())
		skip();
	client_open(&c);
	client_sh(&c, 1, "cat /proc/self/status", false);
	client_collect(&c, 1, &r);
	assert_int_equal(r.code, 0);
	text = (const char *)buf_ptr(&r.out);
	assert_int_equal(field(text, "NoNewPrivs:", 10), 1);
	assert_int_equal(field(text, "CapBnd:", 16) & sys_admin, 0);
	assert_int_equal(field(text, "CapEff:", 16) & sys_admin, 0);
	assert_int_equal(field(text, "CapPrm:", 16) & sys_admin, 0);
	assert_int_equal(field(text, "CapAmb:", 16), 0);
	collected_done(&r);
	client_close(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_restricted)};

	return cmocka_run_group_tests(tests, up, down);
}
