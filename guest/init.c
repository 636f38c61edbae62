/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handing PID 1 over to an init of the image.
 *
 * agentd forks. The parent, which is PID 1, becomes the init; the child leads a session of its own
 * and serves as before. Two things make it last until the machine is off: it lives outside of all
 * control groups that the init makes, and the name of its process begins with '@', by which systemd
 * knows whom to spare when it stops everything. What orders the end is a signal to PID 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/loop.h"
#include "boot.h"
#include "shutdown.h"

enum {
	/* SIGRTMIN+4 of glibc, whose first real-time signal is 34: systemd powers off. */
	SIG_POWEROFF = 34 + 4,
	POWEROFF_MS = 7000, /* at least */
	TERMINATE_MS = 1500,
};

static const char *const known[] = {
	"/sbin/init",
	"/lib/systemd/systemd",
	"/usr/lib/systemd/systemd",
};

static bool executable(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISREG(st.st_mode) && st.st_mode & 0111;
}

static const char *find(const char *cmd, struct err *err)
{
	if (strcmp(cmd, "auto") != 0) {
		if (executable(cmd))
			return cmd;
		err_set(err, ERR_NOT_FOUND, "there is no init %.200s in the image", cmd);
		return NULL;
	}
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (executable(known[i]))
			return known[i];
	}
	err_set(err, ERR_NOT_FOUND, "there is no init in the image: neither %s nor %s", known[0],
		known[1]);
	return NULL;
}

static char *pair(const char *key, const char *value)
{
	size_t n = strlen(key) + strlen(value) + 2;
	char *s = malloc(n);

	if (s)
		snprintf(s, n, "%s=%s", key, value);
	return s;
}

/* The sandbox's environment, over it the init's own. */
static char **make_env(const struct msg_bootstrap *b)
{
	const struct wire_list *lists[] = {&b->default_env, &b->handoff_init.env};
	char **v = calloc(lists[0]->n + lists[1]->n + 4, sizeof(*v));
	size_t n = 0;

	if (!v)
		return NULL;
	v[n++] = (char *)"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	v[n++] = (char *)"TERM=linux";
	/* The console is the kernel's log: nobody logs in there, and without udev it never comes.
	 */
	v[n++] = (char *)"SYSTEMD_GETTY_AUTO=0";
	for (size_t k = 0; k < ARRAY_SIZE(lists); k++) {
		const struct boot_env *e = lists[k]->v;

		for (size_t i = 0; i < lists[k]->n; i++) {
			size_t len = strlen(e[i].key), at = 0;

			while (at < n && (strncmp(v[at], e[i].key, len) != 0 || v[at][len] != '='))
				at++;
			v[at] = pair(e[i].key, e[i].value);
			if (!v[at])
				return NULL;
			n += at == n;
		}
	}
	return v;
}

/* As PID 1. Comes back only to say why not. */
static int become(const struct msg_bootstrap *b, const char *path)
{
	const struct wire_texts *args = &b->handoff_init.args;
	const char *cwd = b->handoff_init.cwd ? b->handoff_init.cwd : "/";
	char **argv = calloc(args->n + 2, sizeof(*argv)), **env = make_env(b);
	int console;

	if (!argv || !env)
		return -ENOMEM;
	argv[0] = (char *)path;
	for (size_t i = 0; i < args->n; i++)
		argv[i + 1] = args->v[i];
	console = open("/dev/console", O_RDWR | O_NOCTTY);
	if (console < 0)
		console = open("/dev/null", O_RDWR);
	for (int fd = 0; fd < 3 && console >= 0; fd++) {
		if (console != fd)
			(void)dup2(console, fd);
	}
	if (console > 2)
		close(console);
	if (chdir(cwd) < 0)
		return -errno;
	execve(path, argv, env);
	return -errno;
}

int init_handoff(const struct msg_bootstrap *b, char *own_name, struct err *err)
{
	const char *path = find(b->handoff_init.cmd, err);
	int p[2], failed = 0;
	pid_t pid;
	ssize_t n;

	if (!path)
		return -ERR_NOT_FOUND;
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, "cannot hand over to %s", path);
	pid = fork();
	if (pid < 0)
		return err_errno(err, "cannot hand over to %s", path);
	if (pid) {
		close(p[0]);
		failed = become(b, path);
		(void)!write(p[1], &failed, sizeof(failed));
		/* The child ends the machine; PID 1 must not be gone before. */
		for (;;)
			pause();
	}
	close(p[1]);
	n = io_read_full(p[0], &failed, sizeof(failed));
	close(p[0]);
	if (n == (ssize_t)sizeof(failed))
		return err_set(err, failed, "cannot run the init %.200s: %s", path,
			       err_name(failed));
	setsid();
	own_name[0] = '@';
	return 0;
}

/* Whoever of ours is ended meanwhile must be gone before the init thinks that it is. */
static void wait_reaping(unsigned ms)
{
	const struct timespec step = {.tv_nsec = 10000000};
	uint64_t end = now_ns() + ms * 1000000ull;

	while (now_ns() < end) {
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		(void)clock_nanosleep(CLOCK_MONOTONIC, 0, &step, NULL);
	}
}

void init_shutdown(uint32_t grace_ms)
{
	sync();
	(void)kill(1, SIG_POWEROFF);
	wait_reaping(MAX(grace_ms, (uint32_t)POWEROFF_MS + TERMINATE_MS) - TERMINATE_MS);
	(void)kill(1, SIGTERM);
	wait_reaping(TERMINATE_MS);
	/* It does not listen. Nobody of us is PID 1, whom no signal stops: only this can end it. */
	boot_log("the init does not power off; ending without it");
	kill(-1, SIGKILL);
	sync();
	mount_seal();
	shutdown_now();
}
