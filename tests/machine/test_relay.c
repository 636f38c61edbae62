/* SPDX-License-Identifier: Apache-2.0 */
/* The relay between clients on a unix socket and a guest that the test plays. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "machine/relay.h"

struct world {
	struct loop *loop;
	struct relay *relay;
	char dir[64], path[96];
	int agent; /* the guest's end of the control connection */
	int guest[RELAY_CLIENTS_MAX + 8];
	unsigned dialled, readies, actives;
	enum msg_kind said;
	char failed[256];
};

static int dial(void *arg, int fd, struct err *err)
{
	struct world *w = arg;

	(void)err;
	assert_true(w->dialled < ARRAY_SIZE(w->guest));
	w->guest[w->dialled++] = fd;
	return 0;
}

static void ready(void *arg)
{
	((struct world *)arg)->readies++;
}

static void failed(void *arg, const char *why)
{
	snprintf(((struct world *)arg)->failed, 256, "%s", why);
}

static void active(void *arg)
{
	((struct world *)arg)->actives++;
}

static void agent_said(void *arg, const struct envelope *e)
{
	((struct world *)arg)->said = msg_kind_of(e->type);
}

static const struct relay_ops ops = {dial, ready, failed, active, agent_said};

static void turn(struct world *w)
{
	for (int i = 0; i < 20; i++)
		assert_int_equal(loop_turn(w->loop, 0), 0);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int p[2], l;

	strcpy(w->dir, "/tmp/msb-relay-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	snprintf(w->path, sizeof(w->path), "%s/agent.sock", w->dir);
	strcpy(sun.sun_path, w->path);
	l = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(l, (struct sockaddr *)&sun, sizeof(sun)), 0);
	assert_int_equal(listen(l, 200), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p), 0);
	w->agent = p[1];
	assert_int_equal(loop_new(&w->loop, NULL), 0);
	assert_int_equal(relay_new(&w->relay, w->loop, l, p[0], &ops, w, NULL), 0);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	relay_free(w->relay);
	loop_free(w->loop);
	close_fd(w->agent);
	for (unsigned i = 0; i < w->dialled; i++)
		close_fd(w->guest[i]);
	io_remove_tree(w->dir, NULL);
	free(w);
	return 0;
}

static int client(struct world *w)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	strcpy(sun.sun_path, w->path);
	assert_int_equal(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	return fd;
}

static void say_ready(struct world *w)
{
	struct buf b = BUF_INIT;
	struct msg_ready m = {.boot_time_ns = 1, .agent_version = (char *)"test"};

	assert_int_equal(frame_put_msg(&b, 0, MSG_READY, &m), 0);
	assert_int_equal(write(w->agent, buf_ptr(&b), buf_size(&b)), buf_size(&b));
	buf_done(&b);
	turn(w);
}

/* The greeting: id range, then the ready frame. Returns the first id. */
static uint32_t greeting(struct world *w, int fd)
{
	uint8_t b[4096];
	ssize_t n;
	struct cur c;
	uint32_t start, end;

	turn(w);
	n = read(fd, b, sizeof(b));
	assert_true(n > 8);
	c = cur_make(b, (size_t)n);
	start = cur_be32(&c);
	end = cur_be32(&c);
	assert_int_equal(start % FRAME_CLIENT_WIDTH, 1);
	assert_int_equal(end, start - 1 + FRAME_CLIENT_WIDTH);
	assert_int_equal(cur_be32(&c), n - 12);
	return start;
}

static void put(int fd, uint32_t id, uint8_t flags, const void *p, size_t n)
{
	struct buf b = BUF_INIT;

	assert_int_equal(frame_put(&b, id, flags, p, n), 0);
	assert_int_equal(io_write_full(fd, buf_ptr(&b), buf_size(&b)), 0);
	buf_done(&b);
}

static bool at_eof(struct world *w, int fd)
{
	char b[512];
	ssize_t n;

	turn(w);
	while ((n = read(fd, b, sizeof(b))) > 0)
		;
	return n == 0 || errno == ECONNRESET;
}

static void test_waits_for_ready(void **state)
{
	struct world *w = *state;
	int early = client(w), late;
	uint32_t a, b;
	char x;

	turn(w);
	assert_int_equal(read(early, &x, 1), -1);
	assert_int_equal(w->dialled, 0);
	say_ready(w);
	assert_int_equal(w->readies, 1);
	a = greeting(w, early);
	late = client(w);
	b = greeting(w, late);
	assert_int_equal(w->dialled, 2);
	assert_int_not_equal(a, b);
	assert_int_not_equal(a, 0);
	close(early);
	close(late);
}

static void test_bytes_pass_both_ways(void **state)
{
	struct world *w = *state;
	enum { N = 3 << 20 };
	uint8_t *big = malloc(N), *got = malloc(N + 64);
	int fd = client(w);
	size_t sent = 0, received = 0;
	struct buf b = BUF_INIT;
	uint32_t id;

	say_ready(w);
	id = greeting(w, fd);
	for (size_t i = 0; i < N; i++)
		big[i] = (uint8_t)(i * 31 + i / 997);
	assert_int_equal(frame_put(&b, id, FRAME_SESSION_START, big, N), 0);
	for (int way = 0; way < 2; way++) {
		int from = way ? w->guest[0] : fd, to = way ? fd : w->guest[0];

		for (sent = received = 0; received < buf_size(&b);) {
			ssize_t n = write(from, buf_ptr(&b) + sent, buf_size(&b) - sent);

			if (n > 0)
				sent += (size_t)n;
			turn(w);
			n = read(to, got + received, N + 64 - received);
			if (n > 0)
				received += (size_t)n;
		}
		assert_memory_equal(got, buf_ptr(&b), received);
	}
	buf_done(&b);
	free(big);
	free(got);
	close(fd);
}

static void test_header_in_pieces(void **state)
{
	struct world *w = *state;
	int fd = client(w);
	struct buf b = BUF_INIT;
	uint8_t got[64];
	uint32_t id;

	say_ready(w);
	id = greeting(w, fd);
	frame_put(&b, id, 0, "hello", 5);
	for (size_t i = 0; i < buf_size(&b); i++) {
		assert_int_equal(write(fd, buf_ptr(&b) + i, 1), 1);
		turn(w);
	}
	assert_int_equal(read(w->guest[0], got, sizeof(got)), buf_size(&b));
	assert_memory_equal(got, buf_ptr(&b), buf_size(&b));
	buf_done(&b);
	close(fd);
}

static void test_refuses_foreign_ids(void **state)
{
	struct world *w = *state;
	int a = client(w), b = client(w), c = client(w), d = client(w), e = client(w);
	uint32_t id_a, id_b;
	static const uint8_t oversized[] = {0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0};

	say_ready(w);
	id_a = greeting(w, a);
	id_b = greeting(w, b);
	greeting(w, c);
	greeting(w, d);
	/* A multiple of the width, just behind the range, is nobody's. */
	put(e, greeting(w, e) - 1 + FRAME_CLIENT_WIDTH, 0, "x", 1);
	assert_true(at_eof(w, e));
	put(a, id_b, 0, "x", 1);
	assert_true(at_eof(w, a));
	put(b, 0, 0, "x", 1);
	assert_true(at_eof(w, b));
	assert_int_equal(write(c, oversized, sizeof(oversized)), sizeof(oversized));
	assert_true(at_eof(w, c));
	/* A shutdown may come from anyone, with id 0. */
	put(d, 0, FRAME_SHUTDOWN, "x", 1);
	assert_false(at_eof(w, d));
	(void)id_a;
	close(a), close(b), close(c), close(d), close(e);
}

static void test_slow_client_stops_only_itself(void **state)
{
	struct world *w = *state;
	int slow = client(w), quick = client(w);
	static uint8_t junk[1 << 16];
	uint32_t id;
	size_t pushed = 0;
	ssize_t n;

	say_ready(w);
	greeting(w, slow);
	id = greeting(w, quick);
	while ((n = write(w->guest[0], junk, sizeof(junk))) > 0) {
		pushed += (size_t)n;
		turn(w);
		assert_true(pushed < (8 << 20));
	}
	put(quick, id, 0, "ping", 4);
	turn(w);
	assert_true(read(w->guest[1], junk, sizeof(junk)) > 0);
	close(slow);
	close(quick);
}

static void test_guest_end_delivers_everything(void **state)
{
	struct world *w = *state;
	int fd = client(w);
	static uint8_t junk[4096];
	size_t pushed = 0, got = 0;
	ssize_t n;

	say_ready(w);
	greeting(w, fd);
	while ((n = write(w->guest[0], junk, sizeof(junk))) > 0) {
		pushed += (size_t)n;
		turn(w);
	}
	w->guest[0] = close_fd(w->guest[0]);
	for (int i = 0; i < 10000; i++) {
		turn(w);
		n = read(fd, junk, sizeof(junk));
		if (n == 0)
			break;
		if (n > 0)
			got += (size_t)n;
	}
	assert_int_equal(got, pushed);
	assert_int_equal(n, 0);
	close(fd);
}

static void test_client_end_closes_guest(void **state)
{
	struct world *w = *state;
	int fd = client(w);

	say_ready(w);
	greeting(w, fd);
	close(fd);
	assert_true(at_eof(w, w->guest[0]));
}

static void test_sends_away_while_it_refuses(void **state)
{
	struct world *w = *state;
	int in = client(w), out, late;
	uint8_t got[512];
	uint32_t id;
	ssize_t n;

	say_ready(w);
	id = greeting(w, in);
	relay_refuse(w->relay, "it sleeps");
	out = client(w);
	turn(w);
	n = read(out, got, sizeof(got));
	assert_true(n > 0);
	assert_non_null(memmem(got, (size_t)n, "core.error", 10));
	assert_non_null(memmem(got, (size_t)n, "it sleeps", 9));
	assert_true(at_eof(w, out));
	assert_int_equal(w->dialled, 1);
	assert_int_equal(relay_clients(w->relay), 1);
	/* Who is in does not notice. */
	put(in, id, 0, "x", 1);
	turn(w);
	assert_true(read(w->guest[0], got, sizeof(got)) > 0);
	relay_refuse(w->relay, NULL);
	late = client(w);
	greeting(w, late);
	assert_int_equal(w->dialled, 2);
	close(in), close(out), close(late);
}

static void test_slots_are_reused_and_capped(void **state)
{
	struct world *w = *state;
	int fd[RELAY_CLIENTS_MAX], extra, again;
	uint32_t third = 0;
	char x;

	say_ready(w);
	for (unsigned i = 0; i < RELAY_CLIENTS_MAX; i++) {
		uint32_t id;

		fd[i] = client(w);
		id = greeting(w, fd[i]);
		if (i == 3)
			third = id;
	}
	extra = client(w);
	turn(w);
	assert_int_equal(read(extra, &x, 1), -1);
	close(fd[3]);
	turn(w);
	assert_int_equal(greeting(w, extra), third);
	again = client(w);
	turn(w);
	assert_int_equal(read(again, &x, 1), -1);
	for (unsigned i = 0; i < RELAY_CLIENTS_MAX; i++) {
		if (i != 3)
			close(fd[i]);
	}
	close(extra);
	close(again);
}

static void test_boot_failure_is_told(void **state)
{
	struct world *w = *state;
	struct buf b = BUF_INIT;
	struct msg_error m = {.kind = CORE_INITIALIZATION_FAILED,
			      .message = (char *)"cannot mount the root"};

	frame_put_msg(&b, 0, MSG_ERROR, &m);
	assert_int_equal(write(w->agent, buf_ptr(&b), buf_size(&b)), buf_size(&b));
	buf_done(&b);
	turn(w);
	assert_string_equal(w->failed, "cannot mount the root");
	assert_int_equal(w->readies, 0);
}

static void test_broken_agent_is_told_once(void **state)
{
	struct world *w = *state;
	static const uint8_t junk[] = {0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5};

	assert_int_equal(write(w->agent, junk, sizeof(junk)), sizeof(junk));
	turn(w);
	assert_string_equal(w->failed, "the guest agent broke the protocol");
	strcpy(w->failed, "once");
	w->agent = close_fd(w->agent);
	turn(w);
	assert_string_equal(w->failed, "once");
}

static void test_shutdown_request(void **state)
{
	struct world *w = *state;
	struct buf b = BUF_INIT;
	struct frame f;
	struct envelope e;

	assert_int_equal(relay_shutdown_guest(w->relay, 0), -ENOTCONN);
	say_ready(w);
	assert_int_equal(relay_shutdown_guest(w->relay, 8500), 0);
	turn(w);
	buf_commit(&b, (size_t)read(w->agent, buf_reserve(&b, 4096), 4096));
	assert_int_equal(frame_peek(&b, &f, NULL), 1);
	assert_int_equal(frame_open(&f, &e, NULL), 0);
	assert_int_equal(msg_kind_of(e.type), MSG_CLOCK_SYNC);
	frame_consume(&b, &f);
	assert_int_equal(frame_peek(&b, &f, NULL), 1);
	assert_int_equal(frame_open(&f, &e, NULL), 0);
	assert_int_equal(msg_kind_of(e.type), MSG_SHUTDOWN);
	assert_int_equal(f.flags, FRAME_SHUTDOWN);
	buf_done(&b);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_waits_for_ready),
		TEST(test_bytes_pass_both_ways),
		TEST(test_header_in_pieces),
		TEST(test_refuses_foreign_ids),
		TEST(test_slow_client_stops_only_itself),
		TEST(test_guest_end_delivers_everything),
		TEST(test_client_end_closes_guest),
		TEST(test_sends_away_while_it_refuses),
		TEST(test_slots_are_reused_and_capped),
		TEST(test_boot_failure_is_told),
		TEST(test_broken_agent_is_told_once),
		TEST(test_shutdown_request),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
