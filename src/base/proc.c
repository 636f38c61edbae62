/* SPDX-License-Identifier: Apache-2.0 */
#include "base/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/loop.h"

extern char **environ;

/*
 * In the child, between fork and exec: only async-signal-safe calls. Descriptors are first moved
 * above every target so that none is overwritten before it has been placed.
 */
static void child(const struct proc_spec *spec, pid_t parent, int report)
{
	int src[PROC_FDS_MAX], base = 3, keep, null;
	sigset_t none;
	bool given[3] = {false};

	for (int sig = 1; sig < NSIG; sig++) {
		if (sig != SIGKILL && sig != SIGSTOP)
			signal(sig, SIG_DFL);
	}
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (spec->new_session)
		setsid();
	if (spec->die_with_parent) {
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
			goto fail;
		/* The parent may have gone before the call. In a pid namespace it has no number. */
		if (getppid() != parent && getppid() != 0)
			_exit(127);
	}
	for (unsigned i = 0; i < spec->nfds; i++)
		base = MAX(base, spec->fds[i].to + 1);
	for (unsigned i = 0; i < spec->nfds; i++) {
		src[i] = fcntl(spec->fds[i].from, F_DUPFD_CLOEXEC, base);
		if (src[i] < 0)
			goto fail;
	}
	keep = fcntl(report, F_DUPFD_CLOEXEC, base);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (keep < 0 || null < 0)
		goto fail;
	report = keep;
	for (unsigned i = 0; i < spec->nfds; i++) {
		if (dup2(src[i], spec->fds[i].to) < 0)
			goto fail;
		if (spec->fds[i].to < 3)
			given[spec->fds[i].to] = true;
	}
	for (int fd = 0; fd < 3; fd++) {
		if (!given[fd] && dup2(null, fd) < 0)
			goto fail;
	}
	/* What is not in the table is closed by exec; this also covers descriptors of libraries. */
	for (int fd = 3; fd < base; fd++) {
		bool wanted = false;

		for (unsigned i = 0; i < spec->nfds; i++)
			wanted |= spec->fds[i].to == fd;
		if (!wanted && fd != report)
			close(fd);
	}
	if (syscall(SYS_close_range, base, ~0u, CLOSE_RANGE_CLOEXEC) < 0 && errno != ENOSYS &&
	    errno != EINVAL)
		goto fail;
	if (spec->envp)
		environ = (char **)(uintptr_t)spec->envp;
	execvp(spec->path, (char *const *)(uintptr_t)spec->argv);
fail:
	keep = errno;
	(void)!write(report, &keep, sizeof(keep));
	_exit(127);
}

int proc_spawn(struct proc *ret, const struct proc_spec *spec, struct err *err)
{
	cleanup_close int rd = -1, wr = -1;
	pid_t self = getpid(), pid;
	int p[2], failed = 0, pidfd;
	sigset_t all, old;

	if (spec->nfds > PROC_FDS_MAX)
		return err_set(err, E2BIG, "cannot start %s: too many descriptors", spec->path);
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, "cannot start %s", spec->path);
	rd = p[0];
	wr = p[1];
	/* No handler of ours may run in the child. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	pid = fork();
	if (pid == 0)
		child(spec, self, wr);
	sigprocmask(SIG_SETMASK, &old, NULL);
	if (pid < 0)
		return err_errno(err, "cannot start %s", spec->path);
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0)
		failed = errno;
	wr = close_fd(wr);
	if (!failed && io_read_full(rd, &failed, sizeof(failed)) != sizeof(failed))
		failed = 0;
	if (failed) {
		close_fd(pidfd);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		return err_set(err, failed, "cannot start %s: %s", spec->path, err_name(failed));
	}
	ret->pid = pid;
	ret->pidfd = pidfd;
	return 0;
}

int proc_wait(struct proc *p, int timeout_ms)
{
	struct pollfd pfd = {.fd = p->pidfd, .events = POLLIN};
	siginfo_t si = {0};
	int r;

	if (p->pidfd < 0)
		return -ECHILD;
	do
		r = poll(&pfd, 1, timeout_ms);
	while (r < 0 && errno == EINTR && timeout_ms < 0);
	if (r < 0)
		return -errno;
	if (r == 0)
		return -ETIMEDOUT;
	while (waitid(P_PID, (id_t)p->pid, &si, WEXITED) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	p->pidfd = close_fd(p->pidfd);
	p->pid = 0;
	return si.si_code == CLD_EXITED ? si.si_status : 128 + si.si_status;
}

int proc_kill(struct proc *p, int sig)
{
	if (p->pidfd < 0)
		return -ESRCH;
	return syscall(SYS_pidfd_send_signal, p->pidfd, sig, NULL, 0) < 0 ? -errno : 0;
}

void proc_destroy(struct proc *p)
{
	if (p->pidfd < 0)
		return;
	proc_kill(p, SIGKILL);
	proc_wait(p, -1);
}

/* To the end of what comes from @fd: 0 then. */
static int read_all(int fd, size_t max, int timeout_ms, struct buf *out)
{
	enum { CHUNK = 4096 };
	uint64_t end = now_ns() + (uint64_t)timeout_ms * 1000000u;
	struct pollfd p = {.fd = fd, .events = POLLIN};

	for (;;) {
		uint64_t now = now_ns();
		void *to = buf_reserve(out, CHUNK);
		ssize_t n;

		if (!to)
			return -ENOMEM;
		if (now >= end || poll(&p, 1, (int)((end - now) / 1000000u) + 1) == 0)
			return -ETIMEDOUT;
		n = read(fd, to, CHUNK);
		if (n == 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			buf_commit(out, (size_t)n);
		if (buf_size(out) > max)
			return -EMSGSIZE;
	}
}

int proc_capture(const struct proc_spec *spec, size_t max, int timeout_ms, struct buf *out,
		 struct err *err)
{
	cleanup_close int rd = -1, wr = -1;
	struct proc_fd fds[PROC_FDS_MAX];
	struct proc_spec with = *spec;
	struct proc child = PROC_INIT;
	int p[2], r;

	if (spec->nfds == PROC_FDS_MAX)
		return err_set(err, E2BIG, "cannot start %s: too many descriptors", spec->path);
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, "cannot start %s", spec->path);
	rd = p[0];
	wr = p[1];
	if (spec->nfds)
		memcpy(fds, spec->fds, spec->nfds * sizeof(fds[0]));
	fds[with.nfds++] = (struct proc_fd){wr, STDOUT_FILENO};
	with.fds = fds;
	r = proc_spawn(&child, &with, err);
	if (r < 0)
		return r;
	wr = close_fd(wr);
	r = read_all(rd, max, timeout_ms, out);
	if (r == 0)
		r = proc_wait(&child, timeout_ms);
	proc_destroy(&child);
	return r < 0 ? err_set(err, r, "%s: %s", spec->path, err_name(r)) : r;
}
