/* SPDX-License-Identifier: Apache-2.0 */
/* agentd's server natively: command sessions, flow control, and hostile frames. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "gen.h"
#include "harness.h"

static struct client c;

static int group_up(void **state)
{
	(void)state;
	harness_start(false);
	return 0;
}

static int group_down(void **state)
{
	(void)state;
	harness_stop();
	return 0;
}

static int up(void **state)
{
	(void)state;
	client_open(&c);
	return 0;
}

static int down(void **state)
{
	(void)state;
	client_close(&c);
	return 0;
}

static void expect_sh(const char *script, int code, const char *out, const char *err)
{
	static uint32_t id = 1000;
	struct collected r;

	client_sh(&c, ++id, script, false);
	client_collect(&c, id, &r);
	assert_int_equal(r.code, code);
	assert_string_equal(buf_size(&r.out) ? (char *)buf_ptr(&r.out) : "", out);
	assert_string_equal(buf_size(&r.err) ? (char *)buf_ptr(&r.err) : "", err);
	collected_done(&r);
}

static void test_simple(void **state)
{
	(void)state;
	expect_sh("echo out; echo err >&2; exit 7", 7, "out\n", "err\n");
	expect_sh("kill -9 $$", 137, "", "");
	expect_sh("kill -TERM $$", 143, "", "");
	expect_sh("echo $FROM_BOOT; pwd", 0, "yes\n/tmp\n", "");
	expect_sh("read -r x < /proc/$$/stat; set -- $x; test $6 = $$ && echo leader", 0,
		  "leader\n", "");
	/* Nothing leaks into the command: its descriptors are 0, 1 and 2 (3 is ls's own). */
	expect_sh("ls /proc/self/fd | tr '\\n' ' '", 0, "0 1 2 3 ", "");
	/* The lower 31 signals: libc keeps 32 and 33 to itself and passes on what it inherited. */
	expect_sh(
		"sed -n 's/^\\(Sig[BI][lg][kn]\\):.*\\(........\\)$/\\1 \\2/p' /proc/self/status |"
		"while read -r k v; do echo $k $((0x$v & 0x7fffffff)); done",
		0, "SigBlk 0\nSigIgn 0\n", "");
}

static void test_failures(void **state)
{
	static const struct {
		const char *cmd, *cwd, *user;
		enum exec_fail kind;
	} cases[] = {
		{"no-such-command-here", NULL, NULL, EXEC_NOT_FOUND},
		{"/no/such/file", NULL, NULL, EXEC_NOT_FOUND},
		{"/etc/passwd", NULL, NULL, EXEC_PERMISSION_DENIED},
		{"/etc", NULL, NULL, EXEC_NOT_EXECUTABLE},
		{"true", "/no/such/dir", NULL, EXEC_BAD_CWD},
		{"true", "/etc/passwd", NULL, EXEC_BAD_CWD},
		{"true", NULL, "nobody-of-that-name", EXEC_USER_SETUP_FAILED},
		{"", NULL, NULL, EXEC_BAD_ARGS},
	};
	struct collected r;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct msg_exec_request req = {.cmd = (char *)cases[i].cmd,
					       .cwd = (char *)cases[i].cwd,
					       .user = (char *)cases[i].user};

		client_send(&c, (uint32_t)i + 1, MSG_EXEC_REQUEST, &req);
		client_collect(&c, (uint32_t)i + 1, &r);
		if (r.code != -1 - (int)cases[i].kind)
			fail_msg("case %zu: %d (%s)", i, r.code, r.message);
		assert_true(r.message[0]);
		collected_done(&r);
	}
}

static void test_user(void **state)
{
	char *args[] = {(char *)"-c", (char *)"id -u; id -g; echo $HOME; ulimit -n"};
	struct exec_rlimit limit = {(char *)"nofile", 123, 456};
	struct msg_exec_request req = {.cmd = (char *)"sh",
				       .args = {args, 2},
				       .user = (char *)"12345:54321",
				       .cwd = (char *)"/",
				       .rlimits = {&limit, 1}};
	struct collected r;

	(void)state;
	if (getuid())
		skip();
	client_send(&c, 1, MSG_EXEC_REQUEST, &req);
	client_collect(&c, 1, &r);
	assert_int_equal(r.code, 0);
	assert_string_equal(buf_ptr(&r.out), "12345\n54321\n/\n123\n");
	collected_done(&r);
}

static void test_stdin(void **state)
{
	struct collected r;

	(void)state;
	client_sh(&c, 1, "cat; echo end", false);
	client_data(&c, 1, MSG_EXEC_STDIN, "hello ", 6);
	client_data(&c, 1, MSG_EXEC_STDIN, "world\n", 6);
	client_data(&c, 1, MSG_EXEC_STDIN, "", 0);
	client_collect(&c, 1, &r);
	assert_int_equal(r.code, 0);
	assert_string_equal(buf_ptr(&r.out), "hello world\nend\n");
	collected_done(&r);
	/* A reader that closes early is reported once, and the session goes on. */
	client_sh(&c, 2, "exec <&-; echo closed; sleep 0.3; echo done", false);
	do {
		struct got g;

		client_next(&c, &g);
		if (g.kind == MSG_EXEC_STDOUT) {
			got_done(&g);
			break;
		}
		got_done(&g);
	} while (true);
	client_data(&c, 2, MSG_EXEC_STDIN, "x", 1);
	client_data(&c, 2, MSG_EXEC_STDIN, "y", 1);
	client_collect(&c, 2, &r);
	assert_int_equal(r.code, 0);
	assert_int_equal(r.stdin_errors, 1);
	assert_string_equal(buf_ptr(&r.out), "done\n");
	collected_done(&r);
}

static void test_terminal(void **state)
{
	struct msg_exec_resize size = {50, 132};
	struct collected r;
	struct got g;

	(void)state;
	client_sh(&c, 1, "tty -s && stty size; read x; stty size; echo \"[$x]\"; cat; echo over",
		  true);
	client_next(&c, &g);
	assert_int_equal(g.kind, MSG_EXEC_STARTED);
	client_next(&c, &g);
	assert_int_equal(g.kind, MSG_EXEC_STDOUT);
	assert_memory_equal(g.data, "24 80\r\n", 7);
	client_send(&c, 1, MSG_EXEC_RESIZE, &size);
	client_data(&c, 1, MSG_EXEC_STDIN, "line\n", 5);
	client_data(&c, 1, MSG_EXEC_STDIN, "", 0);
	client_collect(&c, 1, &r);
	assert_int_equal(r.code, 0);
	assert_non_null(strstr((char *)buf_ptr(&r.out), "50 132"));
	assert_non_null(strstr((char *)buf_ptr(&r.out), "[line]"));
	assert_non_null(strstr((char *)buf_ptr(&r.out), "over"));
	collected_done(&r);
	/* Ctrl-C goes through the line discipline. */
	client_sh(&c, 2, "stty -echo; echo go; exec cat", true);
	client_next(&c, &g);
	client_next(&c, &g);
	assert_memory_equal(g.data, "go\r\n", 4);
	/* A shell keeps one that comes while it starts a program to itself. */
	client_data(&c, 2, MSG_EXEC_STDIN, "x\n", 2);
	client_next(&c, &g);
	assert_memory_equal(g.data, "x\r\n", 3);
	client_data(&c, 2, MSG_EXEC_STDIN, "\x03", 1);
	client_collect(&c, 2, &r);
	assert_int_equal(r.code, 130);
	collected_done(&r);
}

/* A slow client still gets all of a terminal's output, and a daemon on it holds nobody up. */
static void test_terminal_end(void **state)
{
	struct collected r;

	(void)state;
	client_sh(&c, 1, "stty -opost; head -c 6000000 /dev/zero | tr '\\0' x; printf END", true);
	usleep(700000);
	client_collect(&c, 1, &r);
	assert_int_equal(r.code, 0);
	assert_int_equal(buf_size(&r.out), 6000003);
	collected_done(&r);
	client_sh(&c, 2, "(trap '' HUP; sleep 8) & echo end; exit 6", true);
	client_collect(&c, 2, &r);
	assert_int_equal(r.code, 6);
	assert_string_equal(buf_ptr(&r.out), "end\r\n");
	collected_done(&r);
}

static void test_signal(void **state)
{
	struct msg_exec_signal term = {SIGTERM}, bad = {4711};
	struct collected r;
	struct got g;

	(void)state;
	client_sh(&c, 1,
		  "trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.05; done",
		  false);
	client_next(&c, &g);
	client_next(&c, &g);
	assert_int_equal(g.kind, MSG_EXEC_STDOUT);
	client_send(&c, 1, MSG_EXEC_SIGNAL, &bad);
	client_next(&c, &g);
	assert_int_equal(g.kind, MSG_ERROR);
	got_done(&g);
	client_send(&c, 1, MSG_EXEC_SIGNAL, &term);
	client_collect(&c, 1, &r);
	assert_int_equal(r.code, 5);
	assert_string_equal(buf_ptr(&r.out), "caught\n");
	collected_done(&r);
}

/* A grandchild keeps the pipe: the session ends before it, with all the command's output. */
static void test_daemon(void **state)
{
	struct collected r;

	(void)state;
	client_sh(&c, 1, "sleep 1000 & echo $! >&2; head -c 300000 /dev/zero; exit 3", false);
	client_collect(&c, 1, &r);
	assert_int_equal(r.code, 3);
	assert_int_equal(buf_size(&r.out), 300000);
	assert_int_equal(kill(atoi((const char *)buf_ptr(&r.err)), SIGKILL), 0);
	collected_done(&r);
}

static void test_many(void **state)
{
	int left = 50, codes[51] = {0};
	struct got g;

	(void)state;
	for (uint32_t i = 1; i <= 50; i++) {
		char script[64];

		snprintf(script, sizeof(script), "sleep 0.2; echo %u; exit %u", i, i);
		client_sh(&c, i, script, false);
	}
	while (left) {
		client_next(&c, &g);
		if (g.kind == MSG_EXEC_STDOUT) {
			assert_int_equal(atoi((const char *)g.data), g.id);
		} else if (g.kind == MSG_EXEC_EXITED) {
			codes[g.id] = g.u.exited.code;
			left--;
		}
		got_done(&g);
	}
	for (int i = 1; i <= 50; i++)
		assert_int_equal(codes[i], i);
}

enum { BULK = 64 << 20 };

static uint64_t sum(uint64_t h, const uint8_t *p, size_t n)
{
	while (n--)
		h = (h ^ *p++) * 0x100000001b3u;
	return h;
}

static void *feed(void *arg)
{
	uint8_t *data = arg;

	for (size_t at = 0; at < BULK; at += 1 << 18)
		client_data(&c, 1, MSG_EXEC_STDIN, data + at, 1 << 18);
	client_data(&c, 1, MSG_EXEC_STDIN, "", 0);
	return NULL;
}

/* 64 MiB in through stdin and out again through stdout, both at once. */
static void test_bulk(void **state)
{
	cleanup_free uint8_t *data = malloc(BULK);
	uint64_t expected, h = 1, start;
	struct rng rng = {77};
	size_t total = 0;
	pthread_t feeder;
	bool over = false;

	(void)state;
	for (size_t i = 0; i < BULK; i += 8)
		memcpy(data + i, &(uint64_t){rng_next(&rng)}, 8);
	expected = sum(1, data, BULK);
	start = now_ns();
	client_sh(&c, 1, "exec cat", false);
	pthread_create(&feeder, NULL, feed, data);
	while (!over) {
		struct got g;

		client_next(&c, &g);
		if (g.kind == MSG_EXEC_STDOUT) {
			h = sum(h, g.data, g.data_len);
			total += g.data_len;
		}
		over = g.kind == MSG_EXEC_EXITED;
		got_done(&g);
	}
	pthread_join(feeder, NULL);
	assert_int_equal(total, BULK);
	assert_true(h == expected);
	print_message("cat 64 MiB: %u ms\n", (unsigned)((now_ns() - start) / 1000000));
}

/* What the server has done so far: unlike the clock, others on this machine do not count. */
static uint64_t server_time(void)
{
	struct timespec t;
	clockid_t clock;

	assert_int_equal(clock_getcpuclockid(harness_pid(), &clock), 0);
	assert_int_equal(clock_gettime(clock, &t), 0);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* One session floods and nobody reads it for a while; another connection stays quick. */
static void test_flood(void **state)
{
	struct client other;
	struct got g;
	uint64_t worst = 0;

	(void)state;
	client_sh(&c, 1, "exec cat /dev/zero", false);
	client_sh(&c, 2, "exec yes", false);
	client_next(&c, &g);
	client_open(&other);
	for (int i = 0; i < 200; i++) {
		struct msg_empty none = {0};
		uint64_t t;

		/* Read a little of the flood, then nothing. */
		if (i < 100)
			for (int k = 0; k < 4; k++)
				client_next(&c, &g);
		t = server_time();
		client_send(&other, (uint32_t)i + 1, MSG_PING, &none);
		client_next(&other, &g);
		assert_int_equal(g.kind, MSG_PONG);
		worst = MAX(worst, server_time() - t);
	}
	print_message("worst ping beside a flood: %u us\n", (unsigned)(worst / 1000));
	assert_true(worst < 500000000u);
	/* In one connection too: both floods get their share. */
	{
		size_t bytes[3] = {0};

		for (int i = 0; i < 2000; i++) {
			client_next(&c, &g);
			if (g.kind == MSG_EXEC_STDOUT)
				bytes[g.id] += g.data_len;
		}
		assert_true(bytes[1] > 1 << 20);
		assert_true(bytes[2] > 1 << 20);
	}
	client_close(&other);
}

/* A reader that never reads: its stdin is bounded, and the connection can be dropped. */
static void test_stdin_bounded(void **state)
{
	static uint8_t block[1 << 18];
	struct client other;
	struct got g;
	size_t sent = 0;

	(void)state;
	client_open(&other);
	client_sh(&other, 1, "exec sleep 300", false);
	for (;;) {
		uint8_t head[FRAME_DATA_HEAD_MAX];
		size_t n = frame_data_head(head, 1, MSG_EXEC_STDIN, sizeof(block));
		struct timeval tv = {0, 300000};

		setsockopt(other.fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
		if (send(other.fd, head, n, MSG_NOSIGNAL) != (ssize_t)n ||
		    send(other.fd, block, sizeof(block), MSG_NOSIGNAL) != sizeof(block))
			break;
		sent += sizeof(block);
		assert_true(sent < 16 << 20);
	}
	client_next(&other, &g);
	assert_int_equal(g.kind, MSG_EXEC_STARTED);
	client_close(&other);
	/* It was killed with its connection. */
	for (int i = 0; i < 6000; i++) {
		if (kill((pid_t)g.u.started.pid, 0) < 0)
			return;
		usleep(10000);
	}
	fail_msg("the command survived its client");
}

static void expect_error(uint32_t id, enum core_error kind)
{
	struct got g;

	client_next(&c, &g);
	if (g.kind != MSG_ERROR)
		fail_msg("%s instead of core.error", msg_types[g.kind].name);
	assert_int_equal(g.id, id);
	if (g.u.error.kind != (int)kind)
		fail_msg("%s: %s", core_error_names[g.u.error.kind], g.u.error.message);
	got_done(&g);
}

static void put_envelope(struct buf *b, uint32_t id, uint8_t flags, uint8_t v, const char *type,
			 const char *payload, size_t n)
{
	cleanup_buf struct buf body = BUF_INIT;

	buf_add(&body, "\xa3\x61v", 3);
	buf_add_u8(&body, v);
	buf_add(&body, "\x61t\x78", 3);
	buf_add_u8(&body, (uint8_t)strlen(type));
	buf_add_str(&body, type);
	buf_add(&body, "\x61p\x58", 3);
	buf_add_u8(&body, (uint8_t)n);
	buf_add(&body, payload, n);
	frame_put(b, id, flags, buf_ptr(&body), buf_size(&body));
}

static void bad(uint32_t id, uint8_t flags, uint8_t v, const char *type, const char *payload,
		size_t n, enum core_error kind)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_envelope(&b, id, flags, v, type, payload, n);
	client_raw(&c, buf_ptr(&b), buf_size(&b));
	expect_error(id, kind);
}

static void test_malformed(void **state)
{
	cleanup_buf struct buf b = BUF_INIT;
	struct rng rng = {1};
	struct msg_empty none = {0};
	struct client other;
	struct got g;

	(void)state;
	bad(1, 0, 7, "core.nonsense", "\xa0", 1, CORE_UNSUPPORTED_MESSAGE_TYPE);
	bad(2, 0, 7, "core.ready", "\xa0", 1, CORE_UNSUPPORTED_MESSAGE_TYPE);
	bad(3, 1, 7, "core.ping", "\xa0", 1, CORE_INVALID_FLAGS);
	bad(4, 0, 5, "core.ping", "\xa0", 1, CORE_UNSUPPORTED_PROTOCOL_GENERATION);
	bad(5, 2, 7, "core.exec.request", "\xa0", 1, CORE_INVALID_PAYLOAD);
	bad(6, 0, 7, "core.exec.stdin",
	    "\xa1\x64"
	    "data\x40",
	    7, CORE_INVALID_SESSION);
	bad(7, 0, 7, "core.tcp.close", "\xa0", 1, CORE_INVALID_SESSION);
	frame_put(&b, 8, 0, "junk", 4);
	client_raw(&c, buf_ptr(&b), buf_size(&b));
	expect_error(8, CORE_MALFORMED_MESSAGE);
	/* Unknown keys and a missing payload are no errors. */
	buf_reset(&b);
	put_envelope(&b, 9, 0, 9, "core.ping", "", 0);
	client_raw(&c, buf_ptr(&b), buf_size(&b));
	client_next(&c, &g);
	assert_int_equal(g.kind, MSG_PONG);
	/* An id in use. */
	client_sh(&c, 10, "sleep 1000", false);
	client_sh(&c, 10, "sleep 1000", false);
	client_next(&c, &g);
	assert_int_equal(g.kind, MSG_EXEC_STARTED);
	expect_error(10, CORE_INVALID_SESSION);
	/* Well-framed junk by the thousand: each gets an answer or nothing, and we live. */
	client_open(&other);
	for (int i = 0; i < 3000; i++) {
		uint8_t junk[48];
		size_t n = rng_below(&rng, sizeof(junk));

		for (size_t k = 0; k < n; k++)
			junk[k] = (uint8_t)rng_next(&rng);
		buf_reset(&b);
		frame_put(&b, (uint32_t)i, 0, junk, n);
		client_raw(&other, buf_ptr(&b), buf_size(&b));
		client_next(&other, &g);
		assert_int_equal(g.kind, MSG_ERROR);
		got_done(&g);
	}
	/* A broken length closes the connection, and only this one. */
	client_raw(&other, "\xff\xff\xff\xff\x00\x00", 6);
	assert_true(client_eof(&other));
	client_close(&other);
	client_send(&c, 11, MSG_PING, &none);
	client_next(&c, &g);
	assert_int_equal(g.kind, MSG_PONG);
}

/* Requests without end from a client that reads nothing: bounded, then served. */
static void test_reply_flood(void **state)
{
	struct msg_empty none = {0};
	cleanup_buf struct buf b = BUF_INIT;
	struct timeval tv = {0, 300000};
	size_t sent = 0;
	struct got g;

	(void)state;
	for (int i = 0; i < 1000; i++)
		frame_put_msg(&b, 5, MSG_PING, &none);
	setsockopt(c.fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	while (sent < (256u << 20)) {
		ssize_t n = send(c.fd, buf_ptr(&b) + sent % buf_size(&b),
				 buf_size(&b) - sent % buf_size(&b), MSG_NOSIGNAL);

		if (n <= 0)
			break;
		sent += (size_t)n;
	}
	assert_true(sent < 64u << 20);
	for (size_t i = 0; i < sent / (buf_size(&b) / 1000); i++) {
		client_next(&c, &g);
		assert_int_equal(g.kind, MSG_PONG);
	}
}

static void test_touch(void **state)
{
	struct msg_empty none = {0};
	struct got g;
	uint64_t seq;

	(void)state;
	client_send(&c, 1, MSG_TOUCH, &none);
	client_next(&c, &g);
	assert_int_equal(g.kind, MSG_TOUCHED);
	seq = g.u.touched.activity_seq;
	client_send(&c, 2, MSG_PING, &none);
	client_next(&c, &g);
	client_send(&c, 3, MSG_TOUCH, &none);
	client_next(&c, &g);
	assert_true(g.u.touched.activity_seq == seq + 1);
}

static void test_relay_disconnect(void **state)
{
	struct msg_relay_client_disconnected gone = {1, 100};
	struct msg_empty none = {0};
	struct collected r;
	struct got g;

	(void)state;
	client_sh(&c, 5, "sleep 60", false);
	client_sh(&c, 200, "sleep 0.3; exit 9", false);
	client_next(&c, &g);
	client_send(&c, 0, MSG_RELAY_CLIENT_DISCONNECTED, &gone);
	client_collect(&c, 200, &r);
	assert_int_equal(r.code, 9);
	collected_done(&r);
	client_send(&c, 201, MSG_PING, &none);
	client_next(&c, &g);
	assert_int_equal(g.id, 201);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, up, down)
	const struct CMUnitTest tests[] = {
		T(test_simple),	       T(test_failures),
		T(test_user),	       T(test_stdin),
		T(test_terminal),      T(test_signal),
		T(test_daemon),	       T(test_many),
		T(test_bulk),	       T(test_flood),
		T(test_stdin_bounded), T(test_malformed),
		T(test_reply_flood),   T(test_touch),
		T(test_terminal_end),  T(test_relay_disconnect),
	};

	return cmocka_run_group_tests(tests, group_up, group_down);
}
