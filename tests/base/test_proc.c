/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"

enum { LONG = 30000 };

static int spawn(struct proc *p, const char *script, const struct proc_fd *fds, unsigned n)
{
	const char *argv[] = {"sh", "-c", script, NULL};
	struct err e = ERR_INIT;

	*p = (struct proc)PROC_INIT;
	return proc_spawn(
		p, &(struct proc_spec){.path = "/bin/sh", .argv = argv, .fds = fds, .nfds = n}, &e);
}

static int run(const char *script)
{
	struct proc p;

	assert_int_equal(spawn(&p, script, NULL, 0), 0);
	return proc_wait(&p, LONG);
}

static void exit_codes(void **state)
{
	(void)state;
	assert_int_equal(run("exit 0"), 0);
	assert_int_equal(run("exit 77"), 77);
	assert_int_equal(run("kill -9 $$"), 128 + SIGKILL);
	assert_int_equal(run("kill -TERM $$"), 128 + SIGTERM);
}

/* What the child writes to fd @from_child lands in @text. */
static void read_all(int fd, char *text, size_t n)
{
	ssize_t got = io_read_full(fd, text, n - 1);

	assert_true(got >= 0);
	text[got] = '\0';
}

static void descriptors_are_placed(void **state)
{
	int in[2], out[2], swap[2];
	struct proc p;
	char text[64];

	(void)state;
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	assert_int_equal(pipe2(swap, O_CLOEXEC), 0);
	assert_int_equal(write(in[1], "word\n", 5), 5);
	close(in[1]);
	/* The targets collide with the sources on purpose: each gets the other's number. */
	assert_int_equal(
		spawn(&p, "read x; echo $x >&7; echo err >&2; echo nine >&9",
		      (struct proc_fd[]){{in[0], 0}, {out[1], 7}, {swap[1], 9}, {swap[1], 2}}, 4),
		0);
	close(in[0]);
	close(out[1]);
	close(swap[1]);
	read_all(out[0], text, sizeof(text));
	assert_string_equal(text, "word\n");
	read_all(swap[0], text, sizeof(text));
	assert_string_equal(text, "err\nnine\n");
	assert_int_equal(proc_wait(&p, LONG), 0);
	close(out[0]);
	close(swap[0]);
}

static void descriptors_may_change_places(void **state)
{
	int a[2], b[2];
	struct proc p;
	char text[16], script[64];

	(void)state;
	assert_int_equal(pipe2(a, O_CLOEXEC), 0);
	assert_int_equal(pipe2(b, O_CLOEXEC), 0);
	/* dash knows one-digit descriptors only. */
	if (a[1] > 9 || b[1] > 9)
		skip();
	snprintf(script, sizeof(script), "echo A >&%d; echo B >&%d", a[1], b[1]);
	assert_int_equal(spawn(&p, script, (struct proc_fd[]){{a[1], b[1]}, {b[1], a[1]}}, 2), 0);
	close(a[1]);
	close(b[1]);
	read_all(a[0], text, sizeof(text));
	assert_string_equal(text, "B\n");
	read_all(b[0], text, sizeof(text));
	assert_string_equal(text, "A\n");
	assert_int_equal(proc_wait(&p, LONG), 0);
	close(a[0]);
	close(b[0]);
}

static void nothing_else_is_inherited(void **state)
{
	int leak = open("/dev/null", O_RDONLY), high = fcntl(leak, F_DUPFD, 200), out[2];
	struct proc p;
	char text[256];

	(void)state;
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	assert_int_equal(
		spawn(&p, "cd /proc/self/fd && echo *", (struct proc_fd[]){{out[1], 1}}, 1), 0);
	close(out[1]);
	read_all(out[0], text, sizeof(text));
	/* The shell itself may hold the directory it lists. */
	if (strcmp(text, "0 1 2\n") && strcmp(text, "0 1 2 3\n"))
		fail_msg("child has descriptors %s", text);
	assert_int_equal(proc_wait(&p, LONG), 0);
	assert_int_equal(
		run("test /proc/self/fd/0 -ef /dev/null && test /proc/self/fd/2 -ef /dev/null"), 0);
	close(out[0]);
	close(leak);
	close(high);
}

static void the_environment_is_as_given(void **state)
{
	const char *argv[] = {"sh", "-c", "test \"$A\" = 1 && test -z \"$HOME\"", NULL};
	const char *envp[] = {"A=1", NULL};
	struct proc p = PROC_INIT;

	(void)state;
	setenv("HOME", "/x", 1);
	assert_int_equal(
		proc_spawn(&p, &(struct proc_spec){.path = "/bin/sh", .argv = argv, .envp = envp},
			   NULL),
		0);
	assert_int_equal(proc_wait(&p, LONG), 0);
}

static void a_failing_exec_is_reported(void **state)
{
	static const struct {
		const char *path;
		int code;
	} cases[] = {
		{"/nonexistent/x", ENOENT},
		{"/etc/passwd", EACCES},
		{"/", EACCES},
		{"no-such-command-here", ENOENT},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *argv[] = {cases[i].path, NULL};
		struct proc p = PROC_INIT;
		struct err e = ERR_INIT;

		assert_int_equal(
			proc_spawn(&p, &(struct proc_spec){.path = cases[i].path, .argv = argv},
				   &e),
			-cases[i].code);
		assert_non_null(strstr(e.msg, cases[i].path));
		assert_int_equal(p.pidfd, -1);
	}
	/* No child remains. */
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

static void a_bad_descriptor_is_reported(void **state)
{
	struct proc p;

	(void)state;
	assert_int_equal(spawn(&p, "exit 0", (struct proc_fd[]){{999, 3}}, 1), -EBADF);
	assert_int_equal(spawn(&p, "exit 0", NULL, PROC_FDS_MAX + 1), -E2BIG);
}

static void waiting_has_a_deadline(void **state)
{
	struct proc p;

	(void)state;
	assert_int_equal(spawn(&p, "exec sleep 1000", NULL, 0), 0);
	assert_int_equal(proc_wait(&p, 0), -ETIMEDOUT);
	assert_int_equal(proc_wait(&p, 20), -ETIMEDOUT);
	assert_int_equal(proc_kill(&p, SIGTERM), 0);
	assert_int_equal(proc_wait(&p, LONG), 128 + SIGTERM);
	assert_int_equal(proc_wait(&p, 0), -ECHILD);
	assert_int_equal(proc_kill(&p, SIGTERM), -ESRCH);
	proc_destroy(&p);
	assert_int_equal(spawn(&p, "exec sleep 1000", NULL, 0), 0);
	proc_destroy(&p);
	assert_int_equal(p.pidfd, -1);
	proc_destroy(&p);
}

static void signals_start_afresh(void **state)
{
	sigset_t block, old;

	(void)state;
	signal(SIGTERM, SIG_IGN);
	sigemptyset(&block);
	sigaddset(&block, SIGTERM);
	sigprocmask(SIG_BLOCK, &block, &old);
	assert_int_equal(run("kill -TERM $$; exit 3"), 128 + SIGTERM);
	sigprocmask(SIG_SETMASK, &old, NULL);
	signal(SIGTERM, SIG_DFL);
}

static void a_session_of_its_own(void **state)
{
	const char *argv[] = {"sh", "-c", "test $(ps -o sid= -p $$) = $$", NULL};
	struct proc p = PROC_INIT;

	(void)state;
	if (access("/bin/ps", X_OK) < 0)
		skip();
	assert_int_equal(proc_spawn(&p,
				    &(struct proc_spec){
					    .path = "/bin/sh", .argv = argv, .new_session = true},
				    NULL),
			 0);
	assert_int_equal(proc_wait(&p, LONG), 0);
}

/* A middle process spawns a grandchild and is killed: the grandchild must end too. */
static void a_child_dies_with_its_parent(void **state)
{
	const char *argv[] = {"sleep", "1000", NULL};
	int life[2], ready[2];
	pid_t middle;
	char c;

	(void)state;
	assert_int_equal(pipe2(life, O_CLOEXEC), 0);
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	middle = fork();
	if (middle == 0) {
		struct proc p = PROC_INIT;
		struct proc_fd fd = {life[1], 9};
		int r = proc_spawn(&p,
				   &(struct proc_spec){.path = "sleep",
						       .argv = argv,
						       .fds = &fd,
						       .nfds = 1,
						       .die_with_parent = true},
				   NULL);

		(void)!write(ready[1], r == 0 ? "y" : "n", 1);
		pause();
		_exit(0);
	}
	close(life[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	assert_int_equal(c, 'y');
	kill(middle, SIGKILL);
	waitpid(middle, NULL, 0);
	/* The grandchild holds the last write end; this returns when it is gone. */
	assert_int_equal(read(life[0], &c, 1), 0);
	close(life[0]);
	close(ready[0]);
	close(ready[1]);
}

static int capture(const char *script, size_t max, int timeout_ms, struct buf *out)
{
	const char *const argv[] = {"sh", "-c", script, NULL};
	const struct proc_spec spec = {.path = "sh", .argv = argv};
	struct err err = ERR_INIT;

	buf_reset(out);
	return proc_capture(&spec, max, timeout_ms, out, &err);
}

static void output_is_captured(void **state)
{
	struct buf b = BUF_INIT;

	(void)state;
	assert_int_equal(capture("echo one; echo not this >&2; echo two; exit 3", 100, 60000, &b),
			 3);
	assert_string_equal(buf_cstr(&b), "one\ntwo\n");
	assert_int_equal(capture("kill -9 $$", 100, 60000, &b), 128 + SIGKILL);
	assert_int_equal(buf_size(&b), 0);
	assert_int_equal(capture("while :; do echo endless; done", 1000, 60000, &b), -EMSGSIZE);
	assert_int_equal(capture("echo; exec sleep 1000", 100, 100, &b), -ETIMEDOUT);
	assert_int_equal(capture("exec >&-; exec sleep 1000", 100, 100, &b), -ETIMEDOUT);
	buf_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exit_codes),
		cmocka_unit_test(descriptors_are_placed),
		cmocka_unit_test(descriptors_may_change_places),
		cmocka_unit_test(nothing_else_is_inherited),
		cmocka_unit_test(the_environment_is_as_given),
		cmocka_unit_test(a_failing_exec_is_reported),
		cmocka_unit_test(a_bad_descriptor_is_reported),
		cmocka_unit_test(waiting_has_a_deadline),
		cmocka_unit_test(signals_start_afresh),
		cmocka_unit_test(a_session_of_its_own),
		cmocka_unit_test(a_child_dies_with_its_parent),
		cmocka_unit_test(output_is_captured),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
