/* SPDX-License-Identifier: Apache-2.0 */
/* What msb-dot can still do: the process that begins others, and one with a connection. */
#include "confined.h"

#include "dot/dot.h"

static int outer(void)
{
	return dot_walls(true);
}

static int inner(void)
{
	int r = dot_walls(true);

	return r < 0 ? r : dot_walls(false);
}

static void test_walls(void **state)
{
	(void)state;
	confined(outer, true);
	confined(inner, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_walls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
