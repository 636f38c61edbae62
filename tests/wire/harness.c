/* SPDX-License-Identifier: Apache-2.0 */
#include "harness.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "reaper.h"
#include "server.h"

static struct sockaddr_un address = {.sun_family = AF_UNIX};
static char dir[64];
static pid_t server_pid;

/* In the server's process */

static struct server sv;
static struct loop_source signals;
static struct work reap_work;

static void reap(struct work *w)
{
	if (reaper_run() == 1)
		server_defer(&sv, w);
}

static void on_signal(struct loop_source *src, uint32_t events)
{
	struct signalfd_siginfo info[8];
	ssize_t n = read(src->fd, info, sizeof(info));

	(void)events;
	for (ssize_t i = 0; i < n / (ssize_t)sizeof(info[0]); i++) {
		if (info[i].ssi_signo == SIGCHLD)
			server_defer(&sv, &reap_work);
		else
			sv.quit = true;
	}
}

static int serve(int listener, bool restricted)
{
	static struct boot_env env[] = {{(char *)"FROM_BOOT", (char *)"yes"}};
	static struct msg_bootstrap boot = {.default_env = {env, 1}, .default_cwd = (char *)"/tmp"};
	sigset_t set;

	/* As init finds them, whatever whoever runs the tests ignores. */
	for (int i = 1; i < NSIG; i++)
		(void)signal(i, SIG_DFL);
	/* What the test runner left open must not look like a leak of ours. */
	syscall(SYS_close_range, 3u, ~0u, 4u /* CLOSE_RANGE_CLOEXEC */);
	if (restricted)
		boot.security_profile = BOOT_SECURITY_RESTRICTED;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (server_init(&sv, &boot, NULL) < 0 || server_listen(&sv, listener, NULL) < 0)
		return 2;
	signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	signals.fn = on_signal;
	reap_work.fn = reap;
	if (loop_add(sv.loop, &signals, EPOLLIN) < 0)
		return 3;
	server_run(&sv);
	loop_del(&signals);
	close(signals.fd);
	work_cancel(&reap_work);
	server_done(&sv);
	return 0;
}

void harness_start(bool restricted)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	strcpy(dir, "/tmp/agent-test-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/sock", dir);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 64), 0);
	server_pid = fork();
	if (!server_pid)
		exit(serve(fd, restricted));
	close(fd);
}

void harness_stop(void)
{
	int status;

	kill(server_pid, SIGTERM);
	waitpid(server_pid, &status, 0);
	unlink(address.sun_path);
	rmdir(dir);
	/* Sanitizers and leak checks of the server's process count. */
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

pid_t harness_pid(void)
{
	return server_pid;
}

/* The client */

void client_open(struct client *c)
{
	memset(c, 0, sizeof(*c));
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(c->fd, (struct sockaddr *)&address, sizeof(address)), 0);
}

void client_close(struct client *c)
{
	c->fd = close_fd(c->fd);
	buf_done(&c->in);
}

void client_raw(struct client *c, const void *p, size_t n)
{
	while (n) {
		ssize_t w = send(c->fd, p, n, MSG_NOSIGNAL);

		assert_true(w > 0);
		p = (const char *)p + w;
		n -= (size_t)w;
	}
}

void client_send(struct client *c, uint32_t id, enum msg_kind kind, const void *msg)
{
	cleanup_buf struct buf b = BUF_INIT;

	assert_int_equal(frame_put_msg(&b, id, kind, msg), 0);
	client_raw(c, buf_ptr(&b), buf_size(&b));
}

void client_data(struct client *c, uint32_t id, enum msg_kind kind, const void *p, size_t n)
{
	uint8_t head[FRAME_DATA_HEAD_MAX];

	client_raw(c, head, frame_data_head(head, id, kind, n));
	client_raw(c, p, n);
}

static bool fill(struct client *c, int timeout)
{
	struct pollfd p = {.fd = c->fd, .events = POLLIN};
	void *to = buf_reserve(&c->in, 256 << 10);
	ssize_t n;

	if (poll(&p, 1, timeout) <= 0)
		fail_msg("no message within %d ms", timeout);
	n = recv(c->fd, to, 256 << 10, 0);
	if (n <= 0)
		return false;
	buf_commit(&c->in, (size_t)n);
	return true;
}

bool client_eof(struct client *c)
{
	while (fill(c, 60000)) {
		struct frame f;

		if (frame_peek(&c->in, &f, NULL) == 1)
			return false;
	}
	return true;
}

void client_next(struct client *c, struct got *g)
{
	struct err err = ERR_INIT;
	struct envelope e;
	struct frame f;

	buf_consume(&c->in, c->pending);
	c->pending = 0;
	while (frame_peek(&c->in, &f, &err) != 1) {
		assert_int_equal(err.code, 0);
		if (!fill(c, 60000))
			fail_msg("the server closed the connection");
	}
	memset(g, 0, sizeof(*g));
	assert_int_equal(frame_open(&f, &e, &err), 0);
	assert_non_null(e.type);
	assert_int_equal(f.flags, e.type->flags);
	g->id = f.id;
	g->flags = f.flags;
	g->kind = msg_kind_of(e.type);
	assert_true(e.type->table->size <= sizeof(g->u));
	if (frame_data(&e, &g->data, &g->data_len, NULL) < 0)
		assert_int_equal(frame_payload(&e, &g->u, &err), 0);
	c->pending = f.wire_len;
}

void got_done(struct got *g)
{
	if (!g->data)
		msg_free(g->kind, &g->u);
}

void client_sh(struct client *c, uint32_t id, const char *script, bool tty)
{
	char *args[] = {(char *)"-c", (char *)script};
	struct msg_exec_request req = {
		.cmd = (char *)"sh", .args = {args, 2}, .tty = tty, .rows = 24, .cols = 80};

	client_send(c, id, MSG_EXEC_REQUEST, &req);
}

void client_collect(struct client *c, uint32_t id, struct collected *r)
{
	bool over = false;
	struct got g;

	memset(r, 0, sizeof(*r));
	while (!over) {
		client_next(c, &g);
		if (g.id != id) {
			got_done(&g);
			continue;
		}
		switch (g.kind) {
		case MSG_EXEC_STDOUT:
			buf_add(&r->out, g.data, g.data_len);
			break;
		case MSG_EXEC_STDERR:
			buf_add(&r->err, g.data, g.data_len);
			break;
		case MSG_EXEC_STDIN_ERROR:
			r->stdin_errors++;
			break;
		case MSG_EXEC_EXITED:
			r->code = g.u.exited.code;
			over = true;
			break;
		case MSG_EXEC_FAILED:
			r->code = -1 - g.u.failed.kind;
			snprintf(r->message, sizeof(r->message), "%s", g.u.failed.message);
			over = true;
			break;
		case MSG_ERROR:
			fail_msg("core.error: %s", g.u.error.message);
			break;
		default:
			break;
		}
		got_done(&g);
	}
	buf_cstr(&r->out);
	buf_cstr(&r->err);
}

void collected_done(struct collected *r)
{
	buf_done(&r->out);
	buf_done(&r->err);
}
