/* SPDX-License-Identifier: Apache-2.0 */
/* The host of sessions between clients and an agent that the test plays. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sandbox/sandbox_dir.h"
#include "sandbox/session.h"
#include "sandbox/session_msg.h"

enum { AGENTS = 160, AGENT_START = 1000 };

/* One end of a connection, and what has come through it. */
struct end {
	int fd;
	struct buf in;
};

struct world {
	char *dir;
	int dirfd;
	struct loop *loop;
	struct session_host *host;
	struct end agent[AGENTS]; /* by order of sessions */
	unsigned nagents, ended;
	int refuse; /* an errno */
	bool mute;  /* agents do not become ready */
	int code;
};

static int do_connect(void *arg, struct err *err)
{
	struct world *w = arg;
	struct msg_ready ready = {.agent_version = (char *)(uintptr_t) "test"};
	struct buf b = BUF_INIT;
	int p[2];

	if (w->refuse)
		return err_set(err, w->refuse, "there is no agent today");
	assert_true(w->nagents < AGENTS);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, p), 0);
	w->agent[w->nagents++] = (struct end){.fd = p[0]};
	buf_add_be32(&b, AGENT_START);
	buf_add_be32(&b, AGENT_START + 1000);
	if (!w->mute)
		frame_put_msg(&b, 0, MSG_READY, &ready);
	assert_int_equal(write(p[0], buf_ptr(&b), buf_size(&b)), buf_size(&b));
	buf_done(&b);
	return p[1];
}

static void on_ended(void *arg, const char *name, const struct session_end *end)
{
	struct world *w = arg;

	assert_true(!end->why || (end->code >= 125 && end->code <= 127));
	assert_int_equal(end->timed_out, end->code == 124);
	assert_non_null(name);
	w->ended++;
	w->code = end->code;
}

static const struct session_host_ops ops = {.connect = do_connect, .ended = on_ended};

static void turn(struct world *w)
{
	for (int i = 0; i < 8; i++)
		assert_int_equal(loop_turn(w->loop, 0), 0);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_int_equal(scratch_setup((void **)&w->dir), 0);
	w->dirfd = open(w->dir, O_RDONLY | O_DIRECTORY);
	assert_int_equal(loop_new(&w->loop, NULL), 0);
	assert_int_equal(session_host_new(&w->host, w->loop,
					  sandbox_socket_listen(w->dirfd, SESSION_SOCKET, NULL),
					  &ops, w, NULL),
			 0);
	*state = w;
	return 0;
}

static void end_done(struct end *e)
{
	close_fd(e->fd);
	buf_done(&e->in);
}

static int teardown(void **state)
{
	struct world *w = *state;

	session_host_free(w->host);
	loop_free(w->loop);
	for (unsigned i = 0; i < w->nagents; i++)
		end_done(&w->agent[i]);
	close(w->dirfd);
	scratch_teardown((void **)&w->dir);
	free(w);
	return 0;
}

static void receive(struct world *w, struct end *e)
{
	ssize_t n;

	turn(w);
	do {
		void *to = buf_reserve(&e->in, 65536);

		n = recv(e->fd, to, 65536, MSG_DONTWAIT);
		if (n > 0)
			buf_commit(&e->in, (size_t)n);
		turn(w);
	} while (n > 0);
}

static struct end client(struct world *w)
{
	struct end e = {.fd = sandbox_socket_connect(w->dirfd, SESSION_SOCKET, NULL)};
	struct frame f;

	assert_true(e.fd >= 0);
	receive(w, &e);
	assert_true(buf_size(&e.in) > 8);
	buf_consume(&e.in, 8);
	assert_int_equal(frame_peek(&e.in, &f, NULL), 1);
	frame_consume(&e.in, &f);
	assert_int_equal(buf_size(&e.in), 0);
	return e;
}

static void send_buf(struct world *w, struct end *e, struct buf *b)
{
	while (buf_size(b)) {
		ssize_t n = send(e->fd, buf_ptr(b), buf_size(b), MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n > 0)
			buf_consume(b, (size_t)n);
		else
			turn(w);
	}
	buf_done(b);
	turn(w);
}

static void say(struct world *w, struct end *e, uint32_t id, enum msg_kind kind, const void *msg)
{
	struct buf b = BUF_INIT;

	assert_int_equal(frame_put_msg(&b, id, kind, msg), 0);
	send_buf(w, e, &b);
}

static void say_data(struct world *w, struct end *e, uint32_t id, enum msg_kind kind, const void *p,
		     size_t n)
{
	struct buf b = BUF_INIT;

	assert_int_equal(frame_put_data(&b, id, kind, p, n), 0);
	send_buf(w, e, &b);
}

static void say_session(struct world *w, struct end *e, uint32_t id, enum session_kind kind,
			const void *msg)
{
	struct buf b = BUF_INIT;

	assert_int_equal(frame_put_typed(&b, id, &session_types[kind], msg), 0);
	send_buf(w, e, &b);
}

static void start(struct world *w, struct end *e, uint32_t id, const char *name, bool tty,
		  bool detached)
{
	struct msg_exec_request m = {.cmd = (char *)(uintptr_t) "cmd", .tty = tty};
	struct session_start s = {.name = (char *)(uintptr_t)name, .detached = detached};
	struct buf b = BUF_INIT;

	wire_encode(msg_types[MSG_EXEC_REQUEST].table, &m, &b);
	s.request = (struct wire_bytes){buf_ptr(&b), buf_size(&b)};
	say_session(w, e, id, SESSION_START, &s);
	buf_done(&b);
}

static void attach(struct world *w, struct end *e, uint32_t id, const char *name)
{
	struct session_attach m = {.name = (char *)(uintptr_t)name};

	say_session(w, e, id, SESSION_ATTACH, &m);
}

/* The next frame of @e is of type @name, whatever its payload; output is compared with @text. */
static void expect(struct world *w, struct end *e, const char *name, const char *text)
{
	struct err err = ERR_INIT;
	struct envelope env;
	struct frame f;

	receive(w, e);
	if (frame_peek(&e->in, &f, &err) != 1)
		fail_msg("no %s: %s", name, err.msg);
	assert_int_equal(frame_open(&f, &env, &err), 0);
	if (env.name_len != strlen(name) || memcmp(env.name, name, env.name_len))
		fail_msg("%.*s in place of %s", (int)env.name_len, env.name, name);
	if (text && env.type && strstr(name, "std")) {
		const uint8_t *p;
		size_t n;

		assert_int_equal(frame_data(&env, &p, &n, &err), 0);
		assert_int_equal(n, strlen(text));
		assert_memory_equal(p, text, n);
	} else if (text) {
		/* Somewhere in what it says. */
		assert_non_null(memmem(env.payload, env.payload_len, text, strlen(text)));
	}
	frame_consume(&e->in, &f);
}

static void expect_nothing(struct world *w, struct end *e)
{
	receive(w, e);
	assert_int_equal(buf_size(&e->in), 0);
}

static void expect_end(struct world *w, struct end *e)
{
	char c;

	receive(w, e);
	assert_int_equal(recv(e->fd, &c, 1, MSG_DONTWAIT), 0);
}

static void started(struct world *w, unsigned i)
{
	struct msg_exec_started m = {.pid = 77};

	expect(w, &w->agent[i], "core.exec.request", "cmd");
	say(w, &w->agent[i], AGENT_START, MSG_EXEC_STARTED, &m);
}

static void exits(struct world *w, unsigned i, int code)
{
	struct msg_exec_exited m = {.code = code};

	say(w, &w->agent[i], AGENT_START, MSG_EXEC_EXITED, &m);
}

static void prints(struct world *w, unsigned i, const char *text)
{
	say_data(w, &w->agent[i], AGENT_START, MSG_EXEC_STDOUT, text, strlen(text));
}

static void test_in_the_foreground(void **state)
{
	struct world *w = *state;
	struct end c = client(w);
	struct msg_exec_resize size = {.rows = 3, .cols = 4};

	start(w, &c, 5, NULL, true, false);
	assert_int_equal(session_host_running(w->host), 1);
	expect_nothing(w, &c);
	started(w, 0);
	expect(w, &c, "session.started", "1");
	expect(w, &c, "core.exec.started", NULL);
	say_data(w, &c, 5, MSG_EXEC_STDIN, "typed", 5);
	say(w, &c, 5, MSG_EXEC_RESIZE, &size);
	expect(w, &w->agent[0], "core.exec.stdin", "typed");
	expect(w, &w->agent[0], "core.exec.resize", NULL);
	prints(w, 0, "out");
	say_data(w, &w->agent[0], AGENT_START, MSG_EXEC_STDERR, "err", 3);
	exits(w, 0, 9);
	expect(w, &c, "core.exec.stdout", "out");
	expect(w, &c, "core.exec.stderr", "err");
	expect(w, &c, "core.exec.exited", NULL);
	assert_int_equal(w->ended, 1);
	assert_int_equal(w->code, 9);
	assert_int_equal(session_host_running(w->host), 0);
	/* Its code was asked for: it is forgotten. */
	attach(w, &c, 6, "1");
	expect(w, &c, "core.error", "no session");
	end_done(&c);
}

static void test_detach_and_attach(void **state)
{
	struct world *w = *state;
	struct end a = client(w), b, c;

	start(w, &a, 5, "work", true, false);
	started(w, 0);
	prints(w, 0, "one");
	expect(w, &a, "session.started", "work");
	expect(w, &a, "core.exec.started", NULL);
	expect(w, &a, "core.exec.stdout", "one");
	say_session(w, &a, 5, SESSION_DETACH, &(struct msg_empty){0});
	end_done(&a);
	turn(w);
	expect_nothing(w, &w->agent[0]);
	prints(w, 0, "two");
	b = client(w);
	c = client(w);
	attach(w, &b, 1, "work");
	attach(w, &c, 2, NULL);
	expect(w, &b, "session.started", "work");
	expect(w, &b, "core.exec.started", NULL);
	expect(w, &b, "core.exec.stdout", "onetwo");
	expect(w, &c, "session.started", "work");
	expect(w, &c, "core.exec.started", NULL);
	expect(w, &c, "core.exec.stdout", "onetwo");
	prints(w, 0, "three");
	expect(w, &b, "core.exec.stdout", "three");
	expect(w, &c, "core.exec.stdout", "three");
	/* Both may type; one that only attached goes without harm. */
	say_data(w, &c, 2, MSG_EXEC_STDIN, "x", 1);
	say_data(w, &b, 1, MSG_EXEC_STDIN, "y", 1);
	expect(w, &w->agent[0], "core.exec.stdin", "x");
	expect(w, &w->agent[0], "core.exec.stdin", "y");
	end_done(&b);
	turn(w);
	expect_nothing(w, &w->agent[0]);
	exits(w, 0, 3);
	expect(w, &c, "core.exec.exited", NULL);
	end_done(&c);
}

static void test_a_client_that_vanishes_hangs_up(void **state)
{
	struct world *w = *state;
	struct end a = client(w);

	start(w, &a, 5, NULL, true, false);
	started(w, 0);
	end_done(&a);
	turn(w);
	expect(w, &w->agent[0], "core.exec.signal", NULL);
	expect_nothing(w, &w->agent[0]);
	assert_int_equal(session_host_running(w->host), 1);
	exits(w, 0, 129);
	assert_int_equal(session_host_running(w->host), 0);
}

static void test_in_the_background(void **state)
{
	struct world *w = *state;
	struct end a = client(w);

	start(w, &a, 5, NULL, false, true);
	started(w, 0);
	expect(w, &w->agent[0], "core.exec.stdin", "");
	expect(w, &a, "session.started", NULL);
	expect_nothing(w, &a);
	end_done(&a);
	turn(w);
	prints(w, 0, "kept\n");
	exits(w, 0, 4);
	expect_nothing(w, &w->agent[0]);
	/* Listed, and its code kept, until it is asked for. */
	a = client(w);
	say_session(w, &a, 1, SESSION_LIST, &(struct msg_empty){0});
	expect(w, &a, "session.listing", "cmd");
	attach(w, &a, 2, "1");
	expect(w, &a, "session.started", NULL);
	expect(w, &a, "core.exec.started", NULL);
	expect(w, &a, "core.exec.stdout", "kept\n");
	expect(w, &a, "core.exec.exited", NULL);
	attach(w, &a, 3, "1");
	expect(w, &a, "core.error", "no session");
	end_done(&a);
}

static void test_what_cannot_be_run(void **state)
{
	struct world *w = *state;
	struct msg_exec_failed m = {.kind = EXEC_NOT_FOUND,
				    .message = (char *)(uintptr_t) "not here"};
	struct end a = client(w);

	start(w, &a, 5, NULL, false, true);
	expect(w, &w->agent[0], "core.exec.request", NULL);
	say(w, &w->agent[0], AGENT_START, MSG_EXEC_FAILED, &m);
	expect(w, &a, "core.exec.failed", "not here");
	assert_int_equal(w->code, 127);
	/* The machine goes away under one. */
	start(w, &a, 6, NULL, false, false);
	started(w, 1);
	expect(w, &a, "session.started", NULL);
	expect(w, &a, "core.exec.started", NULL);
	shutdown(w->agent[1].fd, SHUT_RDWR);
	expect(w, &a, "core.exec.failed", "has ended");
	assert_int_equal(w->code, 125);
	/* It is not even there. */
	w->refuse = EMFILE;
	start(w, &a, 7, NULL, false, false);
	expect(w, &a, "core.error", "no agent today");
	w->refuse = 0;
	start(w, &a, 8, "no good", false, false);
	expect(w, &a, "core.error", "no good");
	start(w, &a, 9, "twice", false, true);
	started(w, 2);
	expect(w, &a, "session.started", NULL);
	start(w, &a, 10, "twice", false, true);
	expect(w, &a, "core.error", "twice");
	attach(w, &a, 11, "nobody");
	expect(w, &a, "core.error", "nobody");
	end_done(&a);
}

/* How many bytes of output have come, with none left out. */
static size_t take_output(struct end *e)
{
	struct envelope env;
	struct frame f;
	size_t seen = 0;

	while (frame_peek(&e->in, &f, NULL) == 1) {
		const uint8_t *p;
		size_t n;

		assert_int_equal(frame_open(&f, &env, NULL), 0);
		assert_int_not_equal(session_kind_find(env.name, env.name_len), SESSION_GAP);
		if (env.type && msg_kind_of(env.type) == MSG_EXEC_STDOUT) {
			assert_int_equal(frame_data(&env, &p, &n, NULL), 0);
			seen += n;
		}
		frame_consume(&e->in, &f);
	}
	return seen;
}

static void test_a_slow_client_delays_nobody(void **state)
{
	enum { PIECE = 100000, ALL = 5000000 };
	struct world *w = *state;
	struct end slow = client(w), fast = client(w);
	char *text = calloc(1, PIECE);
	size_t seen = 0, sent = 0;
	struct envelope env;
	struct frame f;
	bool gap = false;

	start(w, &slow, 5, NULL, false, false);
	started(w, 0);
	receive(w, &slow);
	attach(w, &fast, 6, NULL);
	for (; sent < ALL; sent += PIECE) {
		say_data(w, &w->agent[0], AGENT_START, MSG_EXEC_STDOUT, text, PIECE);
		receive(w, &fast);
	}
	seen = take_output(&fast);
	assert_int_equal(seen, ALL);
	/* The other one finds out what it has missed: all adds up. */
	end_done(&fast);
	receive(w, &slow);
	for (seen = 0; frame_peek(&slow.in, &f, NULL) == 1; frame_consume(&slow.in, &f)) {
		const uint8_t *p;
		size_t n;

		assert_int_equal(frame_open(&f, &env, NULL), 0);
		if (session_kind_find(env.name, env.name_len) == SESSION_GAP) {
			struct session_gap m;

			assert_int_equal(wire_decode(session_types[SESSION_GAP].table, env.payload,
						     env.payload_len, &m, NULL),
					 0);
			seen += m.bytes;
			gap = true;
		} else if (env.type && msg_kind_of(env.type) == MSG_EXEC_STDOUT) {
			assert_int_equal(frame_data(&env, &p, &n, NULL), 0);
			seen += n;
		}
	}
	assert_true(gap);
	assert_int_equal(seen, ALL);
	free(text);
	end_done(&slow);
}

static void test_a_command_waits_for_its_only_client(void **state)
{
	enum { PIECE = 100000, ALL = 20000000 };
	struct world *w = *state;
	struct end c = client(w);
	char *text = calloc(1, PIECE);
	struct buf b = BUF_INIT;
	size_t sent = 0, seen;

	start(w, &c, 5, NULL, false, false);
	started(w, 0);
	/* Until nobody takes any more. */
	for (int idle = 0; idle < 20 && sent < ALL; turn(w)) {
		ssize_t n;

		if (!buf_size(&b))
			frame_put_data(&b, AGENT_START, MSG_EXEC_STDOUT, text, PIECE);
		n = send(w->agent[0].fd, buf_ptr(&b), buf_size(&b), MSG_DONTWAIT);
		idle = n > 0 ? 0 : idle + 1;
		if (n > 0) {
			buf_consume(&b, (size_t)n);
			sent += (size_t)n;
		}
	}
	assert_true(sent < ALL);
	/* Then it goes on, and nothing is missing. */
	for (int i = 0; i < 400; i++) {
		receive(w, &c);
		if (buf_size(&b)) {
			ssize_t n = send(w->agent[0].fd, buf_ptr(&b), buf_size(&b), MSG_DONTWAIT);

			if (n > 0)
				buf_consume(&b, (size_t)n);
		}
	}
	assert_int_equal(buf_size(&b), 0);
	exits(w, 0, 0);
	receive(w, &c);
	seen = take_output(&c);
	assert_int_equal(seen % PIECE, 0);
	assert_in_range(seen, sent - sent / 50 - PIECE, sent + PIECE);
	assert_int_equal(w->ended, 1);
	buf_done(&b);
	free(text);
	end_done(&c);
}

static void test_the_sandbox_ends(void **state)
{
	struct world *w = *state;
	struct end a = client(w), b = client(w), c = client(w), d = client(w);

	start(w, &a, 5, NULL, false, false);
	started(w, 0);
	prints(w, 0, "said");
	expect(w, &a, "session.started", NULL);
	expect(w, &a, "core.exec.started", NULL);
	start(w, &b, 5, NULL, false, false);
	expect(w, &w->agent[1], "core.exec.request", "cmd");
	/* Not asked for: the agent has gone before it said that it was ready. Then not even that.
	 */
	w->mute = true;
	start(w, &c, 5, NULL, false, false);
	shutdown(w->agent[2].fd, SHUT_RDWR);
	expect_end(w, &c);
	w->refuse = ECONNREFUSED;
	start(w, &d, 5, NULL, false, false);
	expect_end(w, &d);
	/* What the others have still to hear is said when nobody else can come any more. */
	session_host_close(w->host, "it is over");
	assert_int_equal(sandbox_socket_connect(w->dirfd, SESSION_SOCKET, NULL), -ECONNREFUSED);
	assert_int_equal(session_host_running(w->host), 0);
	session_host_finish(w->host);
	expect(w, &a, "core.exec.stdout", "said");
	expect(w, &a, "core.exec.failed", "it is over");
	expect(w, &b, "core.exec.failed", "it is over");
	end_done(&a);
	end_done(&b);
	end_done(&c);
	end_done(&d);
}

static void test_a_deadline(void **state)
{
	struct world *w = *state;
	char *words[] = {(char *)(uintptr_t) "cmd", NULL};
	struct strv argv = {words, 1};
	struct agent_exec_start s = {.argv = &argv};
	struct end c = client(w);

	/* One that goes when it is told, with its last words. */
	assert_int_equal(session_host_start(w->host, "slow", &s, 20, NULL), 0);
	started(w, 0);
	expect(w, &w->agent[0], "core.exec.stdin", "");
	attach(w, &c, 1, "slow");
	expect(w, &c, "session.started", "slow");
	expect(w, &c, "core.exec.started", NULL);
	while (buf_size(&w->agent[0].in) == 0) {
		assert_int_equal(loop_turn(w->loop, 1000), 0);
		receive(w, &w->agent[0]);
	}
	expect(w, &w->agent[0], "core.exec.signal", NULL);
	prints(w, 0, "last");
	exits(w, 0, 137);
	expect(w, &c, "core.exec.stdout", "last");
	expect(w, &c, "core.exec.exited", NULL);
	assert_int_equal(w->code, 124);
	/* One whose agent has nothing more to say, and one that makes it in time. */
	assert_int_equal(session_host_start(w->host, "deaf", &s, 1, NULL), 0);
	started(w, 1);
	assert_int_equal(session_host_start(w->host, "fast", &s, 3600000, NULL), 0);
	started(w, 2);
	exits(w, 2, 3);
	assert_int_equal(w->code, 3);
	while (session_host_running(w->host))
		assert_int_equal(loop_turn(w->loop, 5000), 0);
	assert_int_equal(w->code, 124);
	assert_int_equal(w->ended, 3);
	end_done(&c);
}

static void test_what_is_not_kept(void **state)
{
	enum { KEPT = 1 << 20, PIECE = 64 << 10 };
	struct world *w = *state;
	struct end a = client(w), c;
	char *text = malloc(PIECE + 1);

	session_host_set_history(w->host, KEPT);
	start(w, &a, 5, NULL, false, true);
	started(w, 0);
	expect(w, &a, "session.started", NULL);
	memset(text, 'x', PIECE);
	text[PIECE - 1] = '\n';
	text[PIECE] = '\0';
	for (size_t i = 0; i < KEPT / PIECE + 3; i++) {
		prints(w, 0, text);
		turn(w);
	}
	exits(w, 0, 0);
	turn(w);
	say_session(w, &a, 6, SESSION_LIST, &(struct msg_empty){0});
	expect(w, &a, "session.listing", "dropped");
	c = client(w);
	attach(w, &c, 1, "1");
	/* First of all what is missing, then whole lines. */
	expect(w, &c, "session.gap", "before");
	free(text);
	end_done(&a);
	end_done(&c);
}

static void test_limits(void **state)
{
	struct world *w = *state;
	struct end a = client(w), many[SESSION_CLIENTS_MAX];

	for (unsigned i = 0; i < SESSION_RUNNING_MAX; i++) {
		start(w, &a, 5, NULL, false, true);
		started(w, i);
		expect(w, &a, "session.started", NULL);
	}
	start(w, &a, 5, NULL, false, true);
	expect(w, &a, "core.error", "run already");
	for (unsigned i = 0; i < SESSION_RUNNING_MAX; i++)
		exits(w, i, 0);
	/* As many that ended are remembered as may be, the younger ones. */
	for (unsigned i = 0; i < 10; i++) {
		start(w, &a, 5, NULL, false, true);
		started(w, SESSION_RUNNING_MAX + i);
		exits(w, SESSION_RUNNING_MAX + i, 0);
		expect(w, &a, "session.started", NULL);
	}
	attach(w, &a, 6, "10");
	expect(w, &a, "core.error", "no session");
	attach(w, &a, 6, "11");
	expect(w, &a, "session.started", NULL);
	for (unsigned i = 0; i < SESSION_CLIENTS_MAX - 1; i++)
		many[i] = client(w);
	many[SESSION_CLIENTS_MAX - 1] =
		(struct end){.fd = sandbox_socket_connect(w->dirfd, SESSION_SOCKET, NULL)};
	expect_nothing(w, &many[SESSION_CLIENTS_MAX - 1]);
	end_done(&many[0]);
	receive(w, &many[SESSION_CLIENTS_MAX - 1]);
	assert_true(buf_size(&many[SESSION_CLIENTS_MAX - 1].in) > 8);
	for (unsigned i = 1; i < SESSION_CLIENTS_MAX; i++)
		end_done(&many[i]);
	end_done(&a);
}

static void test_clients_that_break_the_rules(void **state)
{
	static const uint8_t length[] = {0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0};
	struct world *w = *state;

	for (int i = 0; i < 5; i++) {
		struct end a = client(w);
		struct buf b = BUF_INIT;

		if (i == 0)
			buf_add(&b, length, sizeof(length));
		else if (i == 1)
			frame_put(&b, 1, 0, "rubbish", 7);
		else if (i == 2)
			frame_put_typed(&b, 1, &session_types[SESSION_STARTED],
					&(struct session_started){0});
		else if (i == 3)
			frame_put_typed(&b, 1, &session_types[SESSION_START],
					&(struct session_start){
						.request = {(uint8_t *)(uintptr_t) "x", 1}});
		else
			start(w, &a, 1, NULL, false, false), start(w, &a, 2, NULL, false, false);
		if (buf_size(&b))
			send_buf(w, &a, &b);
		expect_end(w, &a);
		end_done(&a);
	}
	/* Frames for what is not there are no crime: it may just have ended. */
	struct end a = client(w);

	say_data(w, &a, 1, MSG_EXEC_STDIN, "x", 1);
	say_session(w, &a, 1, SESSION_DETACH, &(struct msg_empty){0});
	say_session(w, &a, 1, SESSION_LIST, &(struct msg_empty){0});
	expect(w, &a, "session.listing", NULL);
	end_done(&a);
}

static void test_of_the_owner(void **state)
{
	struct world *w = *state;
	char *words[] = {(char *)(uintptr_t) "cmd", (char *)(uintptr_t) "arg", NULL};
	struct strv argv = {words, 2};
	struct agent_exec_start s = {.argv = &argv};

	assert_int_equal(session_host_start(w->host, "main", &s, 0, NULL), 0);
	started(w, 0);
	assert_int_equal(session_host_start(w->host, "main", &s, 0, NULL), -EEXIST);
	exits(w, 0, 12);
	turn(w);
	assert_int_equal(w->code, 12);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_in_the_foreground),
		TEST(test_detach_and_attach),
		TEST(test_a_client_that_vanishes_hangs_up),
		TEST(test_in_the_background),
		TEST(test_what_cannot_be_run),
		TEST(test_a_slow_client_delays_nobody),
		TEST(test_a_command_waits_for_its_only_client),
		TEST(test_the_sandbox_ends),
		TEST(test_a_deadline),
		TEST(test_what_is_not_kept),
		TEST(test_limits),
		TEST(test_clients_that_break_the_rules),
		TEST(test_of_the_owner),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
