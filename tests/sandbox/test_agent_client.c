/* SPDX-License-Identifier: Apache-2.0 */
/* The client against an agent played by the test, over a socketpair. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "sandbox/agent_client.h"
#include "wire/frame.h"

enum { START = 33554432, END = START + 33554431 };

struct world {
	struct loop *loop;
	struct agent_client *client;
	struct agent_exec *exec;
	int agent; /* the test's end */
	struct buf from_client;
	struct strv argv;
	/* What the client told us. */
	unsigned ready, closed, started, exited, failed, room, stdin_closed;
	int code;
	size_t out, err;
	bool pause_on_output, bad_bytes;
	struct err why;
};

static uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 13 >> 4);
}

static void on_ready(void *arg, const struct msg_ready *r)
{
	struct world *w = arg;

	assert_int_equal(r->init_time_ns, 77);
	w->ready++;
}

static void on_closed(void *arg, const struct err *why)
{
	struct world *w = arg;

	w->closed++;
	w->why = *why;
}

static void on_started(void *arg, uint32_t pid)
{
	((struct world *)arg)->started += pid == 9;
}

static void on_output(void *arg, int stream, const void *p, size_t n)
{
	struct world *w = arg;
	size_t *at = stream == 1 ? &w->out : &w->err;

	for (size_t i = 0; i < n; i++)
		w->bad_bytes |= ((const uint8_t *)p)[i] != pattern(*at + i);
	*at += n;
	if (w->pause_on_output)
		agent_client_pause(w->client, true);
}

static void on_room(void *arg)
{
	((struct world *)arg)->room++;
}

static void on_stdin_closed(void *arg)
{
	((struct world *)arg)->stdin_closed++;
}

static void on_exited(void *arg, int code)
{
	struct world *w = arg;

	w->exited++;
	w->code = code;
}

static void on_failed(void *arg, const struct msg_exec_failed *why)
{
	struct world *w = arg;

	w->failed++;
	w->code = why->kind;
}

static const struct agent_client_ops client_ops = {on_ready, on_closed};
static const struct agent_exec_ops exec_ops = {
	on_started, on_output, on_room, on_stdin_closed, on_exited, on_failed,
};

static void turns(struct world *w, int n)
{
	while (n--)
		assert_int_equal(loop_turn(w->loop, 0), 0);
}

static void send_raw(struct world *w, const void *p, size_t n)
{
	for (size_t done = 0; done < n;) {
		ssize_t k = write(w->agent, (const char *)p + done, n - done);

		if (k > 0)
			done += (size_t)k;
		else
			turns(w, 1);
	}
	turns(w, 3);
}

static void send_buf(struct world *w, struct buf *b)
{
	send_raw(w, buf_ptr(b), buf_size(b));
	buf_done(b);
}

static void send_msg(struct world *w, uint32_t id, enum msg_kind kind, const void *msg)
{
	struct buf b = BUF_INIT;

	assert_int_equal(frame_put_msg(&b, id, kind, msg), 0);
	send_buf(w, &b);
}

static void drain(struct world *w)
{
	for (;;) {
		void *to = buf_reserve(&w->from_client, 65536);
		ssize_t n = read(w->agent, to, 65536);

		if (n <= 0)
			return;
		buf_commit(&w->from_client, (size_t)n);
	}
}

static void set_up(struct world *w)
{
	int p[2];

	memset(w, 0, sizeof(*w));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p), 0);
	assert_int_equal(io_set_nonblock(p[0], true), 0);
	w->agent = p[0];
	assert_int_equal(loop_new(&w->loop, NULL), 0);
	assert_int_equal(agent_client_new(&w->client, w->loop, p[1], &client_ops, w, NULL), 0);
	assert_int_equal(strv_add(&w->argv, "cmd"), 0);
	assert_int_equal(strv_add(&w->argv, "arg"), 0);
}

static void tear_down(struct world *w)
{
	agent_client_free(w->client);
	loop_free(w->loop);
	close_fd(w->agent);
	buf_done(&w->from_client);
	strv_done(&w->argv);
}

/* Greet byte by byte or at once, and start a command; its id is checked. */
static void greet(struct world *w, bool slowly)
{
	struct agent_exec_start start = {.argv = &w->argv, .tty = true, .rows = 5, .cols = 6};
	struct msg_ready ready = {.init_time_ns = 77, .agent_version = (char *)(uintptr_t) "1"};
	struct msg_exec_request req = {0};
	struct buf b = BUF_INIT;
	struct frame f;
	struct envelope e;

	assert_int_equal(agent_exec_new(&w->exec, w->client, &start, &exec_ops, w, NULL),
			 -ENOTCONN);
	buf_add_be32(&b, START);
	buf_add_be32(&b, END);
	assert_int_equal(frame_put_msg(&b, 0, MSG_READY, &ready), 0);
	for (size_t i = 0; slowly && i < buf_size(&b); i++)
		send_raw(w, buf_ptr(&b) + i, 1);
	if (slowly)
		buf_done(&b);
	else
		send_buf(w, &b);
	assert_int_equal(w->ready, 1);
	assert_int_equal(agent_exec_new(&w->exec, w->client, &start, &exec_ops, w, NULL), 0);
	turns(w, 2);
	drain(w);
	assert_int_equal(frame_peek(&w->from_client, &f, NULL), 1);
	assert_int_equal(f.id, START);
	assert_int_equal(f.flags, FRAME_SESSION_START);
	assert_int_equal(frame_open(&f, &e, NULL), 0);
	assert_true(frame_payload(&e, &req, NULL) >= 0);
	assert_string_equal(req.cmd, "cmd");
	assert_int_equal(req.args.n, 1);
	assert_string_equal(req.args.v[0], "arg");
	assert_true(req.tty);
	assert_int_equal(req.cols, 6);
	assert_null(req.user);
	msg_free(MSG_EXEC_REQUEST, &req);
	frame_consume(&w->from_client, &f);
	send_msg(w, START, MSG_EXEC_STARTED, &(struct msg_exec_started){.pid = 9});
	assert_int_equal(w->started, 1);
}

static void a_command(void **state)
{
	struct world w;
	uint8_t data[1000];
	struct buf b = BUF_INIT;

	(void)state;
	for (int slowly = 0; slowly < 2; slowly++) {
		set_up(&w);
		greet(&w, slowly);
		for (size_t i = 0; i < sizeof(data); i++)
			data[i] = pattern(i);
		assert_int_equal(frame_put_data(&b, START, MSG_EXEC_STDOUT, data, 1000), 0);
		assert_int_equal(frame_put_data(&b, START, MSG_EXEC_STDERR, data, 10), 0);
		/* Of a session that we do not have. */
		assert_int_equal(frame_put_data(&b, START + 5, MSG_EXEC_STDERR, data, 10), 0);
		send_buf(&w, &b);
		assert_int_equal(w.out, 1000);
		assert_int_equal(w.err, 10);
		assert_false(w.bad_bytes);
		send_msg(&w, START, MSG_EXEC_EXITED, &(struct msg_exec_exited){.code = 130});
		assert_int_equal(w.exited, 1);
		assert_int_equal(w.code, 130);
		close(w.agent);
		w.agent = -1;
		turns(&w, 2);
		assert_int_equal(w.closed, 1);
		tear_down(&w);
	}
}

static void failures(void **state)
{
	struct world w;
	static const uint8_t broken[] = {0, 0, 0, 1, 0, 0, 0, 0, 0};

	(void)state;
	set_up(&w);
	greet(&w, false);
	send_msg(&w, START, MSG_EXEC_FAILED,
		 &(struct msg_exec_failed){.kind = EXEC_NOT_EXECUTABLE,
					   .message = (char *)(uintptr_t) "m",
					   .stage = (char *)(uintptr_t) "exec"});
	assert_int_equal(w.failed, 1);
	assert_int_equal(w.code, EXEC_NOT_EXECUTABLE);
	send_raw(&w, broken, sizeof(broken));
	assert_int_equal(w.closed, 1);
	assert_int_equal(w.why.code, ERR_PROTOCOL);
	tear_down(&w);

	set_up(&w);
	greet(&w, false);
	send_msg(&w, START, MSG_ERROR,
		 &(struct msg_error){.kind = CORE_INVALID_PAYLOAD,
				     .message = (char *)(uintptr_t) "what?",
				     .offending_type = (char *)(uintptr_t) "core.exec.request"});
	assert_int_equal(w.failed, 1);
	assert_int_equal(w.closed, 0);
	tear_down(&w);

	/* An id range that is none. */
	set_up(&w);
	send_raw(&w, "\0\0\0\0\0\0\0\1", 8);
	assert_int_equal(w.closed, 1);
	tear_down(&w);

	/* Gone before it was there. */
	set_up(&w);
	close(w.agent);
	w.agent = -1;
	turns(&w, 2);
	assert_int_equal(w.closed, 1);
	assert_int_equal(w.why.code, ECONNRESET);
	tear_down(&w);
}

/* Output stops while nobody takes it, whatever else the agent sends, and then goes on. */
static void paused_output(void **state)
{
	enum { PIECE = 50000, PIECES = 200 };
	struct world w;
	struct buf b = BUF_INIT;
	uint8_t *data = malloc(PIECE);
	size_t sent = 0, made = 0;

	(void)state;
	set_up(&w);
	greet(&w, false);
	w.pause_on_output = true;
	while (w.out < (size_t)PIECE * PIECES) {
		size_t before = w.out;
		ssize_t n;

		if (!buf_size(&b) && made < PIECES) {
			for (size_t i = 0; i < PIECE; i++)
				data[i] = pattern(made * PIECE + i);
			assert_int_equal(frame_put_data(&b, START, MSG_EXEC_STDOUT, data, PIECE),
					 0);
			made++;
		}
		n = buf_size(&b) ? write(w.agent, buf_ptr(&b), buf_size(&b)) : -1;
		if (n > 0) {
			buf_consume(&b, (size_t)n);
			sent += (size_t)n;
			continue;
		}
		/* The socket is full: at most one frame has come through since the last pause. */
		turns(&w, 4);
		assert_true(w.out - before <= PIECE);
		agent_client_pause(w.client, false);
	}
	assert_false(w.bad_bytes);
	assert_true(sent > w.out);
	/* A hang-up while paused is found when it is time. */
	send_msg(&w, START, MSG_EXEC_EXITED, &(struct msg_exec_exited){.code = 3});
	agent_client_pause(w.client, true);
	close(w.agent);
	w.agent = -1;
	turns(&w, 5);
	assert_int_equal(w.closed, 0);
	agent_client_pause(w.client, false);
	turns(&w, 5);
	assert_int_equal(w.exited, 1);
	assert_int_equal(w.closed, 1);
	tear_down(&w);
	buf_done(&b);
	free(data);
}

/* Input is taken up to a limit, arrives whole and in order, and room is announced. */
static void input_with_limits(void **state)
{
	enum { TOTAL = 3 << 20 };
	struct world w;
	size_t put = 0, got = 0, held = 0;
	bool eof = false, ended = false;
	struct frame f;
	struct envelope e;
	const uint8_t *p;
	size_t n;

	(void)state;
	set_up(&w);
	greet(&w, true);
	while (!eof) {
		while (put < TOTAL && agent_exec_stdin_room(w.exec)) {
			uint8_t *to = agent_exec_stdin_begin(w.exec);

			assert_non_null(to);
			n = MIN(AGENT_STDIN_CHUNK - 1, (size_t)TOTAL - put);
			for (size_t i = 0; i < n; i++)
				to[i] = pattern(put + i);
			agent_exec_stdin_end(w.exec, n);
			put += n;
			held = MAX(held, put - got);
		}
		if (put == TOTAL && !ended) {
			agent_exec_stdin_eof(w.exec);
			agent_exec_signal(w.exec, 15);
			agent_exec_resize(w.exec, 1, 2);
			ended = true;
		}
		turns(&w, 1);
		drain(&w);
		while (frame_peek(&w.from_client, &f, NULL) == 1) {
			assert_int_equal(f.id, START);
			assert_int_equal(frame_open(&f, &e, NULL), 0);
			assert_ptr_equal(e.type, &msg_types[MSG_EXEC_STDIN]);
			assert_int_equal(frame_data(&e, &p, &n, NULL), 0);
			for (size_t i = 0; i < n; i++)
				assert_int_equal(p[i], pattern(got + i));
			got += n;
			eof = n == 0;
			frame_consume(&w.from_client, &f);
			if (eof)
				break;
		}
	}
	assert_int_equal(got, TOTAL);
	assert_true(w.room > 0);
	/* The queue, and what fits a socket pair's buffers. */
	assert_true(held < AGENT_QUEUE_HIGH + AGENT_STDIN_CHUNK + (1 << 20));
	turns(&w, 2);
	drain(&w);
	assert_int_equal(frame_peek(&w.from_client, &f, NULL), 1);
	assert_int_equal(frame_open(&f, &e, NULL), 0);
	assert_ptr_equal(e.type, &msg_types[MSG_EXEC_SIGNAL]);
	frame_consume(&w.from_client, &f);
	assert_int_equal(frame_peek(&w.from_client, &f, NULL), 1);
	assert_int_equal(frame_open(&f, &e, NULL), 0);
	assert_ptr_equal(e.type, &msg_types[MSG_EXEC_RESIZE]);
	send_msg(&w, START, MSG_EXEC_STDIN_ERROR,
		 &(struct msg_exec_stdin_error){.message = (char *)(uintptr_t) "closed"});
	assert_int_equal(w.stdin_closed, 1);
	tear_down(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_command),
		cmocka_unit_test(failures),
		cmocka_unit_test(paused_output),
		cmocka_unit_test(input_with_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
