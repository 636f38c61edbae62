/* SPDX-License-Identifier: Apache-2.0 */
#include "helper.h"

#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

static void on_answer(struct loop_source *src, uint32_t events)
{
	struct helper *h = container_of(src, struct helper, src);
	ssize_t n = read(src->fd, h->answer + h->len, sizeof(h->answer) - h->len);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0) {
		h->len += (size_t)n;
		if (h->len < sizeof(h->answer))
			return;
	}
	helper_stop(h);
	h->done(h);
}

static void on_exited(struct child *c, int status)
{
	/* The end of the pipe says it all. */
	(void)c;
	(void)status;
}

/* The answer's pipe becomes 3, what is kept HELPER_KEPT, and nothing else stays open. */
static void keep_only(int answer, int keep)
{
	/* A connection must not stay open because we hold a copy of it. */
	if (keep >= 0) {
		int high = fcntl(keep, F_DUPFD, HELPER_KEPT + 1);

		if (answer == HELPER_KEPT)
			answer = fcntl(answer, F_DUPFD, HELPER_KEPT + 1);
		if (high < 0 || answer < 0 || dup2(high, HELPER_KEPT) < 0)
			_exit(1);
	}
	if (dup2(answer, 3) == 3)
		syscall(SYS_close_range, keep >= 0 ? HELPER_KEPT + 1u : 4u, ~0u, 0u);
}

int helper_start(struct helper *h, struct loop *l, int keep, void (*job)(void *arg, int fd),
		 void *arg, void (*done)(struct helper *h))
{
	int p[2], r;
	pid_t pid;

	h->src.fd = -1;
	h->len = 0;
	if (pipe2(p, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	pid = fork();
	if (pid < 0) {
		r = -errno;
		close(p[0]);
		close(p[1]);
		return r;
	}
	if (pid == 0) {
		sigset_t none;

		keep_only(p[1], keep);
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		job(arg, 3);
		_exit(0);
	}
	close(p[1]);
	h->src.fd = p[0];
	h->src.fn = on_answer;
	h->done = done;
	reaper_watch(&h->child, pid, on_exited);
	r = loop_add(l, &h->src, EPOLLIN);
	if (r < 0)
		helper_stop(h);
	return r;
}

void helper_stop(struct helper *h)
{
	loop_del(&h->src);
	h->src.fd = close_fd(h->src.fd);
	if (h->child.pid) {
		kill(h->child.pid, SIGKILL);
		reaper_forget(&h->child);
	}
}

void helper_leave(struct helper *h)
{
	loop_del(&h->src);
	h->src.fd = close_fd(h->src.fd);
	if (h->child.pid)
		reaper_forget(&h->child);
}
