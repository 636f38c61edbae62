/* SPDX-License-Identifier: Apache-2.0 */
/* Connections to name servers over TLS, as far as they are ours; the test is msb-dot. */
#include "test.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "dot/dot.h"
#include "net/dns_stream.h"
#include "net/dns_tls.h"

/* A question is this long. */
enum { LEN = 40, SLOTS = 8 };

static struct {
	struct loop *loop;
	struct dns_tls *t;
	struct resolver_config config;
	int control, listener;
	int server, plain; /* of the connection that came last */
	struct dot_server to;
	struct buf heard;
	unsigned replies[SLOTS], failures[SLOTS];
	uint16_t id; /* of the last reply */
	size_t len;
	char why[64]; /* of the last complaint */
	unsigned news;
	bool drop; /* replies end the question */
} w;

static void on_reply(void *arg, unsigned slot, const uint8_t *m, size_t n)
{
	(void)arg;
	w.replies[slot]++;
	w.id = (uint16_t)(m[0] << 8 | m[1]);
	w.len = n;
	if (w.drop)
		dns_tls_drop(w.t, slot);
}

static void on_failed(void *arg, unsigned slot)
{
	(void)arg;
	w.failures[slot]++;
}

static void on_news(void *arg, const struct resolver_news *n)
{
	(void)arg;
	assert_int_equal(n->kind, RESOLVER_SERVER);
	assert_non_null(strstr(n->server, "#dns.example"));
	snprintf(w.why, sizeof(w.why), "%s", n->why);
	w.news++;
}

static const struct dns_tls_ops ops = {.reply = on_reply, .failed = on_failed, .news = on_news};

static int begin(void **state)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(in);
	char text[64];
	int p[2];

	(void)state;
	memset(&w, 0, sizeof(w));
	w.drop = true;
	w.server = w.plain = -1;
	assert_int_equal(loop_new(&w.loop, NULL), 0);
	w.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(w.listener, (void *)&in, sizeof(in)), 0);
	assert_int_equal(listen(w.listener, 16), 0);
	assert_int_equal(getsockname(w.listener, (void *)&in, &len), 0);
	snprintf(text, sizeof(text), "tls://127.0.0.1:%u#dns.example", ntohs(in.sin_port));
	assert_int_equal(resolver_add_server(&w.config, text, NULL), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p), 0);
	w.control = p[0];
	w.t = dns_tls_new(p[1], &w.config, w.loop, &ops, NULL);
	assert_non_null(w.t);
	return 0;
}

static int end(void **state)
{
	(void)state;
	dns_tls_free(w.t);
	loop_free(w.loop);
	buf_done(&w.heard);
	close_fd(w.control);
	close_fd(w.listener);
	close_fd(w.server);
	close_fd(w.plain);
	return 0;
}

/* Whatever there is to do now. */
static void turns(void)
{
	for (int i = 0; i < 20; i++)
		(void)loop_turn(w.loop, 0);
}

static int ask(unsigned slot, uint16_t id)
{
	uint8_t m[LEN] = {(uint8_t)(id >> 8), (uint8_t)id, [LEN - 1] = (uint8_t)slot};
	int r = dns_tls_ask(w.t, slot, 0, m, sizeof(m));

	turns();
	return r;
}

/* The next connection that is handed over; false when there is none. */
static bool take(void)
{
	union {
		struct cmsghdr align;
		char b[CMSG_SPACE(DOT_FDS * sizeof(int))];
	} control;
	struct iovec iov = {&w.to, sizeof(w.to)};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control)};
	int fds[DOT_FDS];

	turns();
	if (recvmsg(w.control, &m, MSG_DONTWAIT) != sizeof(w.to))
		return false;
	assert_int_equal(control.align.cmsg_len, CMSG_LEN(sizeof(fds)));
	memcpy(fds, CMSG_DATA(&control.align), sizeof(fds));
	close_fd(w.server);
	close_fd(w.plain);
	w.server = fds[DOT_FD_SERVER];
	w.plain = fds[DOT_FD_PLAIN];
	buf_reset(&w.heard);
	return true;
}

static void say(const void *p, size_t n)
{
	assert_int_equal(send(w.plain, p, n, MSG_NOSIGNAL), n);
	turns();
}

static void secured(void)
{
	assert_true(take());
	say("\0", 2);
}

/* The number of the next question on the wire, and whose it is; false when there is none. */
static bool hear(uint16_t *number, unsigned *slot)
{
	uint8_t m[DNS_MESSAGE_MAX];

	turns();
	(void)dns_stream_fetch(w.plain, &w.heard);
	if (dns_stream_have(&w.heard) < 0)
		return false;
	assert_int_equal(dns_stream_take(&w.heard, m), LEN);
	*number = (uint16_t)(m[0] << 8 | m[1]);
	*slot = m[LEN - 1];
	return true;
}

static void answer(uint16_t number, size_t n)
{
	cleanup_buf struct buf b = BUF_INIT;
	uint8_t m[DNS_MESSAGE_MAX] = {(uint8_t)(number >> 8), (uint8_t)number};

	dns_stream_put(&b, m, n);
	say(buf_ptr(&b), buf_size(&b));
}

static void any_order(void **state)
{
	uint16_t number[4];
	unsigned slot;

	(void)state;
	/* The same of their own each; on the connection they differ. */
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(ask(i, 0x1234), 0);
	assert_true(take());
	assert_string_equal(w.to.name, "dns.example");
	assert_string_equal(w.to.address, "127.0.0.1");
	/* Nothing is said before it is known who it is. */
	assert_false(hear(number, &slot));
	say("\0", 1);
	assert_false(hear(number, &slot));
	say("\0", 1);
	for (unsigned i = 0; i < 4; i++) {
		assert_true(hear(&number[i], &slot));
		assert_int_equal(slot, i);
		for (unsigned k = 0; k < i; k++)
			assert_int_not_equal(number[i], number[k]);
	}
	for (unsigned i = 4; i-- > 0;) {
		answer(number[i], 100 + i);
		assert_int_equal(w.replies[i], 1);
		assert_int_equal(w.id, 0x1234);
		assert_int_equal(w.len, 100 + i);
	}
	/* One that nobody asked for, one twice, one without a header: nobody's. */
	answer(0x7777, 50);
	answer(number[0], 50);
	answer(number[0], 0);
	assert_int_equal(w.replies[0], 1);
	/* The connection is used again. */
	assert_int_equal(ask(5, 9), 0);
	assert_false(take());
	assert_true(hear(&number[0], &slot));
	answer(number[0], DNS_MESSAGE_MAX);
	assert_int_equal(w.replies[5], 1);
	assert_int_equal(w.len, DNS_MESSAGE_MAX);
}

static void in_pieces(void **state)
{
	static const uint8_t m[] = {0, 20, 0, 0, [21] = 7};
	uint16_t number;
	unsigned slot;

	(void)state;
	assert_int_equal(ask(0, 5), 0);
	secured();
	assert_true(hear(&number, &slot));
	assert_int_equal(number, 0);
	for (size_t i = 0; i < sizeof(m); i++) {
		assert_int_equal(w.replies[0], 0);
		say(m + i, 1);
	}
	assert_int_equal(w.replies[0], 1);
	assert_int_equal(w.len, 20);
}

/* An answer to what was given up is not one to what came in its place. */
static void late(void **state)
{
	uint16_t first, second;
	unsigned slot;

	(void)state;
	assert_int_equal(ask(0, 5), 0);
	secured();
	assert_true(hear(&first, &slot));
	dns_tls_drop(w.t, 0);
	assert_int_equal(ask(0, 6), 0);
	assert_true(hear(&second, &slot));
	answer(first, 30);
	assert_int_equal(w.replies[0], 0);
	answer(second, 30);
	assert_int_equal(w.replies[0], 1);
	assert_int_equal(w.id, 6);
}

/* What was asked when a connection that worked ended is asked once more, and only once. */
static void again(void **state)
{
	uint16_t number;
	unsigned slot;

	(void)state;
	assert_int_equal(ask(0, 1), 0);
	secured();
	assert_true(hear(&number, &slot));
	answer(number, 30);
	/* While nothing is asked its end is no news. */
	w.plain = close_fd(w.plain);
	turns();
	assert_int_equal(ask(1, 2), 0);
	assert_int_equal(ask(2, 3), 0);
	secured();
	assert_true(hear(&number, &slot));
	answer(number, 30);
	assert_int_equal(w.replies[slot], 1);
	assert_true(hear(&number, &slot));
	w.plain = close_fd(w.plain);
	turns();
	assert_int_equal(w.failures[slot], 0);
	secured();
	assert_int_equal(ask(3, 4), 0);
	assert_true(hear(&number, &slot));
	assert_int_equal(slot, 2);
	assert_true(hear(&number, &slot));
	assert_int_equal(slot, 3);
	answer(number, 30);
	w.plain = close_fd(w.plain);
	turns();
	assert_int_equal(w.failures[2], 1);
	assert_int_equal(w.replies[2], 0);
	/* All of that is what servers do. */
	assert_int_equal(w.news, 0);
	assert_false(take());
}

/* Who is not who he should be fails all at once, and is left in peace for a while. */
static void refused(void **state)
{
	static const char words[] = "\0\12not\x1b[7m me";

	(void)state;
	assert_int_equal(ask(0, 1), 0);
	assert_int_equal(ask(1, 2), 0);
	assert_true(take());
	say(words, sizeof(words) - 1);
	assert_int_equal(w.failures[0], 1);
	assert_int_equal(w.failures[1], 1);
	assert_int_equal(w.news, 1);
	assert_string_equal(w.why, "not?[7m me");
	assert_true(ask(2, 3) < 0);
	assert_false(take());
}

/* The same for one that ends without a word, at any time before it has answered. */
static void ended(void **state)
{
	(void)state;
	assert_int_equal(ask(0, 1), 0);
	assert_true(take());
	w.plain = close_fd(w.plain);
	turns();
	assert_int_equal(w.failures[0], 1);
	assert_true(ask(0, 1) < 0);
}

static void nobody(void **state)
{
	(void)state;
	w.listener = close_fd(w.listener);
	/* On loopback that is known at once, or a moment later. */
	if (ask(0, 1) == 0)
		assert_int_equal(w.failures[0], 1);
	assert_false(take());
}

static void gone(void **state)
{
	uint16_t number;
	unsigned slot;

	(void)state;
	assert_int_equal(ask(0, 1), 0);
	secured();
	assert_true(hear(&number, &slot));
	w.control = close_fd(w.control);
	w.plain = close_fd(w.plain);
	turns();
	assert_int_equal(w.failures[0], 1);
	assert_int_equal(ask(0, 1), -EPIPE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(any_order), TEST(in_pieces), TEST(late),	TEST(again),
		TEST(refused),	 TEST(ended),	  TEST(nobody), TEST(gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
