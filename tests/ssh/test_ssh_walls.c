/* SPDX-License-Identifier: Apache-2.0 */
/* What a process that serves an SSH connection can still do. */
#include "confined.h"

#include "ssh/ssh.h"

static void test_walls(void **state)
{
	(void)state;
	confined(walls_up, false);
}

/* Connections come by another process, which is asked byte by byte. */
static void test_agents(void **state)
{
	int p[2];
	char c;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, p), 0);
	assert_false(agent_serve(p[0]));
	/* There is no sandbox at the descriptor where its directory would be. */
	assert_int_equal(write(p[1], "x", 1), 1);
	assert_true(agent_serve(p[0]));
	assert_int_equal(recv(p[1], &c, 1, MSG_DONTWAIT), 1);
	close(p[0]);
	assert_int_equal(agent_connect(p[1]), -EPIPE);
	close(p[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_walls),
		cmocka_unit_test(test_agents),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
