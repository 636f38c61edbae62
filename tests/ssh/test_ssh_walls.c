/* SPDX-License-Identifier: Apache-2.0 */
/* What a process that serves an SSH connection can still do. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/sanitized.h"
#include "ssh/ssh.h"

static int pair[2];

static int can_open(void)
{
	return open("/dev/null", O_RDONLY);
}

static int can_write(void)
{
	return open("/tmp", O_TMPFILE | O_RDWR, 0600);
}

static int can_connect(void)
{
	return socket(AF_UNIX, SOCK_STREAM, 0);
}

static int can_go_out(void)
{
	return socket(AF_INET, SOCK_STREAM, 0);
}

static int can_fork(void)
{
	return fork();
}

static int can_exec(void)
{
	return execl("/bin/true", "true", NULL);
}

static int can_kill(void)
{
	return kill(getppid(), 0);
}

static int can_code(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
			       MAP_FAILED
		       ? -1
		       : 0;
}

static int can_talk(void)
{
	char c;

	return write(pair[0], "x", 1) == 1 && read(pair[1], &c, 1) == 1 ? 0 : -1;
}

static int can_allocate(void)
{
	void *p = malloc(8 << 20);

	if (p)
		memset(p, 1, 8 << 20);
	free(p);
	return p ? 0 : -1;
}

static void test_walls(void **state)
{
	static const struct {
		const char *name;
		int (*act)(void);
		int expect; /* 0: it works; an errno; or minus the signal it dies of */
	} walls[] = {
		{"open", can_open, EPERM},	 {"write", can_write, EPERM},
		{"connect", can_connect, EPERM}, {"go out", can_go_out, EPERM},
		{"fork", can_fork, EPERM},	 {"exec", can_exec, EPERM},
		{"kill", can_kill, EPERM},	 {"code", can_code, -SIGSYS},
		{"talk", can_talk, 0},		 {"allocate", can_allocate, 0},
	};

	(void)state;
	if (SANITIZED)
		skip();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	for (size_t i = 0; i < ARRAY_SIZE(walls); i++) {
		pid_t pid = fork();
		int status;

		assert_true(pid >= 0);
		if (pid == 0) {
			if (walls_up() < 0)
				_exit(255);
			errno = 0;
			_exit(walls[i].act() < 0 ? errno : 0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (walls[i].expect < 0
			    ? !WIFSIGNALED(status) || WTERMSIG(status) != -walls[i].expect
			    : !WIFEXITED(status) || WEXITSTATUS(status) != walls[i].expect)
			fail_msg("%s: status %x", walls[i].name, (unsigned)status);
	}
	close(pair[0]);
	close(pair[1]);
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
