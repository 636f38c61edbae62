/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One client of the sandbox's agent, and one attempt at a time: the command, then the port. When an
 * attempt fails, the next one begins an interval later, until the time is over.
 */
#include "project/ready.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "sandbox/agent_client.h"
#include "sandbox/reach.h"

/* Of what a failing command said, for the error. */
enum { LAST_MAX = 200 };

struct probe {
	const struct project_ready *want;
	struct loop *loop;
	struct agent_client *agent;
	struct agent_stream *tcp;
	struct loop_timer next, end;
	struct loop_source cancel;
	char last[LAST_MAX + 1];
	size_t n;
};

enum { READY = 0, OVER = 1, LATE = 2, CANCELLED = 3 };

static void note(struct probe *p, const char *text, size_t n)
{
	n = MIN(n, (size_t)LAST_MAX);
	memcpy(p->last, text, n);
	while (n && (p->last[n - 1] == '\n' || p->last[n - 1] == '\r'))
		n--;
	p->last[n] = '\0';
	/* One line, and nothing that moves a cursor. */
	for (size_t i = 0; i < n; i++) {
		if ((unsigned char)p->last[i] < ' ' || p->last[i] == 0x7f)
			p->last[i] = ' ';
	}
}

static void again(struct probe *p)
{
	if (loop_timer_in(p->loop, &p->next, p->want->interval_ms * 1000000) < 0)
		loop_quit(p->loop, -ENOMEM);
}

/* ---- a port ---- */

static void tcp_message(void *arg, const struct envelope *env, bool last)
{
	struct probe *p = arg;

	if (last)
		p->tcp = NULL;
	if (msg_kind_of(env->type) == MSG_TCP_CONNECTED) {
		if (p->tcp)
			agent_stream_drop(p->tcp);
		p->tcp = NULL;
		loop_quit(p->loop, READY);
		return;
	}
	if (last) {
		char text[64];

		snprintf(text, sizeof(text), "nobody listens on port %u", p->want->tcp);
		note(p, text, strlen(text));
		again(p);
	}
}

static const struct agent_stream_ops tcp_ops = {.message = tcp_message};

static void try_port(struct probe *p)
{
	struct msg_tcp_connect m = {.host = (char *)(uintptr_t) "127.0.0.1", .port = p->want->tcp};

	if (!p->want->tcp)
		loop_quit(p->loop, READY);
	else if (agent_stream_new(&p->tcp, p->agent, MSG_TCP_CONNECT, &m, &tcp_ops, p, NULL) < 0)
		again(p);
}

/* ---- a command ---- */

static void on_output(void *arg, int stream, const void *data, size_t n)
{
	(void)stream;
	if (n)
		note(arg, data, n);
}

static void on_exited(void *arg, int code)
{
	struct probe *p = arg;

	if (code == 0) {
		p->last[0] = '\0';
		try_port(p);
		return;
	}
	if (!p->last[0])
		snprintf(p->last, sizeof(p->last), "%s ended with %d", p->want->exec.v[0], code);
	again(p);
}

static void on_failed(void *arg, const struct msg_exec_failed *why)
{
	struct probe *p = arg;
	struct err e = ERR_INIT;

	(void)agent_exec_why(why, p->want->exec.v[0], &e);
	note(p, e.msg, strlen(e.msg));
	again(p);
}

static void ignore_pid(void *arg, uint32_t pid)
{
	(void)arg, (void)pid;
}

static void ignore(void *arg)
{
	(void)arg;
}

static const struct agent_exec_ops exec_ops = {
	.started = ignore_pid,
	.output = on_output,
	.stdin_room = ignore,
	.stdin_closed = ignore,
	.exited = on_exited,
	.failed = on_failed,
};

static void attempt(struct loop_timer *t)
{
	struct probe *p = container_of(t, struct probe, next);
	const struct agent_exec_start start = {.argv = &p->want->exec};
	struct agent_exec *e;

	if (!p->want->exec.n) {
		try_port(p);
		return;
	}
	p->last[0] = '\0';
	if (agent_exec_new(&e, p->agent, &start, &exec_ops, p, NULL) < 0)
		again(p);
	else
		agent_exec_stdin_eof(e);
}

/* ---- around them ---- */

static void on_ready(void *arg, const struct msg_ready *ready)
{
	(void)ready;
	attempt(&((struct probe *)arg)->next);
}

static void on_closed(void *arg, const struct err *why)
{
	(void)why;
	loop_quit(((struct probe *)arg)->loop, OVER);
}

static const struct agent_client_ops agent_ops = {.ready = on_ready, .closed = on_closed};

static void on_end(struct loop_timer *t)
{
	loop_quit(container_of(t, struct probe, end)->loop, LATE);
}

static void on_cancel(struct loop_source *s, uint32_t events)
{
	(void)events;
	loop_quit(container_of(s, struct probe, cancel)->loop, CANCELLED);
}

static int run(struct probe *p, int fd, int cancel, struct err *err)
{
	int r = agent_client_new(&p->agent, p->loop, fd, &agent_ops, p, err);

	if (r < 0)
		return r;
	p->next.fn = attempt;
	p->end.fn = on_end;
	p->cancel = (struct loop_source){.fn = on_cancel, .fd = cancel};
	r = loop_timer_in(p->loop, &p->end, p->want->timeout_ms * 1000000);
	if (r == 0 && cancel >= 0)
		r = loop_add(p->loop, &p->cancel, EPOLLIN);
	if (r == 0)
		r = loop_run(p->loop);
	loop_del(&p->cancel);
	loop_timer_stop(&p->next);
	loop_timer_stop(&p->end);
	return r < 0 ? err_set(err, r, "cannot wait for it: %s", err_name(r)) : r;
}

int project_wait_ready(struct store *s, const char *name, const struct project_ready *ready,
		       int cancel, struct err *err)
{
	struct probe p = {.want = ready};
	int fd, r;

	if (!ready->exec.n && !ready->tcp)
		return 0;
	fd = sandbox_reach(s, name, err);
	if (fd < 0)
		return fd;
	r = loop_new(&p.loop, err);
	if (r < 0) {
		close_fd(fd);
		return r;
	}
	r = run(&p, fd, cancel, err);
	agent_client_free(p.agent);
	loop_free(p.loop);
	switch (r) {
	case OVER:
		return err_set(err, ESHUTDOWN, "it ended before it was ready%s%s",
			       p.last[0] ? ": " : "", p.last);
	case LATE:
		return err_set(err, ETIMEDOUT, "it was not ready within %llu ms%s%s",
			       (unsigned long long)ready->timeout_ms, p.last[0] ? ": " : "",
			       p.last);
	case CANCELLED:
		return err_set(err, EINTR, "interrupted");
	default:
		return r;
	}
}
