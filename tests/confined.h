/* SPDX-License-Identifier: Apache-2.0 */
/* What a process can still do that has nothing but its descriptors. */
#ifndef TESTS_CONFINED_H
#define TESTS_CONFINED_H

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

static int confined_pair[2];

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

	return write(confined_pair[0], "x", 1) == 1 && read(confined_pair[1], &c, 1) == 1 ? 0 : -1;
}

static int can_allocate(void)
{
	void *p = malloc(8 << 20);

	if (p)
		memset(p, 1, 8 << 20);
	free(p);
	return p ? 0 : -1;
}

/* Behind what @up builds; some may begin others. */
static inline void confined(int (*up)(void), bool may_fork)
{
	const struct {
		const char *name;
		int (*act)(void);
		int expect; /* 0: it works; an errno; or minus the signal it dies of */
	} walls[] = {
		{"open", can_open, EPERM},
		{"write", can_write, EPERM},
		{"connect", can_connect, EPERM},
		{"go out", can_go_out, EPERM},
		{"fork", can_fork, may_fork ? 0 : EPERM},
		{"exec", can_exec, EPERM},
		{"kill", can_kill, EPERM},
		{"code", can_code, -SIGSYS},
		{"talk", can_talk, 0},
		{"allocate", can_allocate, 0},
	};

	if (SANITIZED)
		skip();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, confined_pair), 0);
	for (size_t i = 0; i < ARRAY_SIZE(walls); i++) {
		pid_t pid = fork();
		int status;

		assert_true(pid >= 0);
		if (pid == 0) {
			if (up() < 0)
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
	close(confined_pair[0]);
	close(confined_pair[1]);
}

#endif
