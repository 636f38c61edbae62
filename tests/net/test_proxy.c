/* SPDX-License-Identifier: Apache-2.0 */
/* Dialogues with proxies: what is said and heard, in pieces of any size, and what is left alone. */
#include "test.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "net/proxy.h"

struct exchange {
	const char *url, *user, *password, *to;
	struct {
		const char *say; /* what is expected from us */
		size_t nsay;
		const char *hear;
		size_t nhear;
	} turn[3];
	int result; /* 1, or -errno */
};

#define TURN(say, hear)                                                                            \
	{                                                                                          \
		say, sizeof(say) - 1, hear, sizeof(hear) - 1                                       \
	}

#define SOCKS5	"socks5://127.0.0.1:1080"
#define REQUEST "\5\1\0\1\1\2\3\4\0\x50"
#define REPLY	"\5\0\0\1\x7f\0\0\1\x30\x39"
#define CONNECT "CONNECT 1.2.3.4:80 HTTP/1.1\r\nHost: 1.2.3.4:80\r\n\r\n"

static const struct exchange exchanges[] = {
	{SOCKS5, "", "", "1.2.3.4", {TURN("\5\1\0", "\5\0"), TURN(REQUEST, REPLY)}, 1},
	{SOCKS5,
	 "u",
	 "pw",
	 "1.2.3.4",
	 {TURN("\5\2\0\2", "\5\2"), TURN("\1\1u\2pw", "\1\0"), TURN(REQUEST, REPLY)},
	 1},
	{SOCKS5, "u", "pw", "1.2.3.4", {TURN("\5\2\0\2", "\5\0"), TURN(REQUEST, REPLY)}, 1},
	{SOCKS5,
	 "u",
	 "no",
	 "1.2.3.4",
	 {TURN("\5\2\0\2", "\5\2"), TURN("\1\1u\2no", "\1\1")},
	 -EACCES},
	{SOCKS5, "", "", "1.2.3.4", {TURN("\5\1\0", "\5\xff")}, -EACCES},
	{SOCKS5, "", "", "1.2.3.4", {TURN("\5\1\0", "\5\2")}, -EACCES},
	{SOCKS5, "", "", "1.2.3.4", {TURN("\5\1\0", "\4\0")}, -EPROTO},
	{SOCKS5,
	 "",
	 "",
	 "2001:db8::1",
	 {TURN("\5\1\0", "\5\0"),
	  TURN("\5\1\0\4\x20\1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\1\0\x50", "\5\0\0\3\4name\0\1")},
	 1},
	{SOCKS5, "", "", "1.2.3.4", {TURN("\5\1\0", "\5\0"), TURN(REQUEST, "\5\2")}, -EACCES},
	{SOCKS5, "", "", "1.2.3.4", {TURN("\5\1\0", "\5\0"), TURN(REQUEST, "\5\4")}, -EHOSTUNREACH},
	{SOCKS5,
	 "",
	 "",
	 "1.2.3.4",
	 {TURN("\5\1\0", "\5\0"), TURN(REQUEST, "\5\x63")},
	 -ECONNREFUSED},
	{SOCKS5, "", "", "1.2.3.4", {TURN("\5\1\0", "\5\0"), TURN(REQUEST, "\5\0\0\7\0")}, -EPROTO},
	{"socks4://127.0.0.1:1080",
	 "me",
	 "",
	 "1.2.3.4",
	 {TURN("\4\1\0\x50\1\2\3\4me\0", "\0\x5a\0\0\0\0\0\0")},
	 1},
	{"socks4://127.0.0.1:1080",
	 "",
	 "",
	 "1.2.3.4",
	 {TURN("\4\1\0\x50\1\2\3\4\0", "\0\x5b\0\0\0\0\0\0")},
	 -ECONNREFUSED},
	{"socks4://127.0.0.1:1080", "", "", "2001:db8::1", {{0}}, -ENETUNREACH},
	{"http://[::1]:3128",
	 "",
	 "",
	 "1.2.3.4",
	 {TURN(CONNECT, "HTTP/1.1 200 fine\r\nX: y\r\n\r\n")},
	 1},
	{"http://127.0.0.1:3128/",
	 "u",
	 "p",
	 "2001:db8::1",
	 {TURN("CONNECT [2001:db8::1]:80 HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n"
	       "Proxy-Authorization: Basic dTpw\r\n\r\n",
	       "HTTP/1.0 204\r\n\r\n")},
	 1},
	{"http://127.0.0.1:1",
	 "",
	 "",
	 "1.2.3.4",
	 {TURN(CONNECT, "HTTP/1.1 407 who\r\n\r\n")},
	 -EACCES},
	{"http://127.0.0.1:1",
	 "",
	 "",
	 "1.2.3.4",
	 {TURN(CONNECT, "HTTP/1.1 504 \r\n\r\n")},
	 -ETIMEDOUT},
	{"http://127.0.0.1:1",
	 "",
	 "",
	 "1.2.3.4",
	 {TURN(CONNECT, "HTTP/1.1 2x0 \r\n\r\n")},
	 -EPROTO},
	{"http://127.0.0.1:1", "", "", "1.2.3.4", {TURN(CONNECT, "SSH-2.0-x\r\n")}, -EPROTO},
};

static void hold(const struct exchange *x, size_t piece)
{
	struct net_dialogue *d;
	struct net_proxy p;
	struct net_addr to;
	size_t heard = 0;
	int s[2], r = 0;
	char b[1000];

	assert_int_equal(net_proxy_parse(x->url, &p, NULL), 0);
	assert_int_equal(net_proxy_login(&p, x->user, x->password, NULL), 0);
	assert_true(net_addr_parse(x->to, &to));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s), 0);
	d = net_dialogue_new(&p, &to, 80);
	assert_non_null(d);
	for (size_t i = 0; i < ARRAY_SIZE(x->turn) && x->turn[i].nsay; i++) {
		const char *hear = x->turn[i].hear;
		bool last = i + 1 == ARRAY_SIZE(x->turn) || !x->turn[i + 1].nsay;

		assert_int_equal(net_dialogue_run(d, s[0]), 0);
		assert_int_equal(read(s[1], b, sizeof(b)), x->turn[i].nsay);
		assert_memory_equal(b, x->turn[i].say, x->turn[i].nsay);
		for (size_t at = 0, n; at < x->turn[i].nhear; at += n) {
			n = MIN(piece, x->turn[i].nhear - at);
			assert_int_equal(write(s[1], hear + at, n), n);
			/* What follows is not the proxy's. */
			if (last && at + n == x->turn[i].nhear)
				assert_int_equal(write(s[1], "guest", 5), 5);
			r = at + n < x->turn[i].nhear || last ? net_dialogue_run(d, s[0]) : 0;
			if (r < 0)
				break;
			if (!last || at + n < x->turn[i].nhear)
				assert_int_equal(r, 0);
		}
		heard += x->turn[i].nhear;
	}
	if (!x->turn[0].nsay)
		r = net_dialogue_run(d, s[0]);
	assert_int_equal(r, x->result);
	if (r == 1) {
		assert_int_equal(net_dialogue_taken(d), heard);
		assert_int_equal(read(s[0], b, sizeof(b)), 5);
		assert_memory_equal(b, "guest", 5);
	}
	net_dialogue_free(d);
	close(s[0]);
	close(s[1]);
}

static void test_dialogues(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(exchanges); i++) {
		for (size_t piece = 1; piece < 100; piece += 33)
			hold(&exchanges[i], piece);
	}
}

/* Where datagrams go: what the proxy says, if that can be meant. */
static void test_relays(void **state)
{
#define SAYS(reply) reply, sizeof(reply) - 1
	static const struct {
		const char *url, *reply;
		size_t n;
		const char *relay; /* NULL: none */
		unsigned port;
		int result;
	} rows[] = {
		{"socks5://10.0.0.1:1080", SAYS("\5\0\0\1\x0a\0\0\2\x30\x39"), "10.0.0.2", 12345,
		 1},
		{"socks5://10.0.0.1:1080", SAYS("\5\0\0\1\0\0\0\0\x30\x39"), "10.0.0.1", 12345, 1},
		{"socks5://[fd00::1]:1080",
		 SAYS("\5\0\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x30\x39"), "fd00::1", 12345, 1},
		{"socks5://10.0.0.1:1080", SAYS("\5\0\0\3\2me\x30\x39"), "10.0.0.1", 12345, 1},
		/* its loopback is not ours */
		{"socks5://10.0.0.1:1080", SAYS("\5\0\0\1\x7f\0\0\1\x30\x39"), "10.0.0.1", 12345,
		 1},
		{"socks5://127.0.0.1:1080", SAYS("\5\0\0\1\x7f\0\0\2\x30\x39"), "127.0.0.2", 12345,
		 1},
		{"socks5://10.0.0.1:1080", SAYS("\5\0\0\1\xa9\xfe\xa9\xfe\x30\x39"), NULL, 0,
		 -EPROTO},
		{"socks5://10.0.0.1:1080", SAYS("\5\0\0\1\xe0\0\0\1\x30\x39"), NULL, 0, -EPROTO},
		{"socks5://10.0.0.1:1080", SAYS("\5\0\0\1\x0a\0\0\2\0\0"), NULL, 0, -EPROTO},
		/* it does not do that */
		{"socks5://10.0.0.1:1080", SAYS("\5\7"), NULL, 0, -EACCES},
		{"socks5://10.0.0.1:1080", SAYS("\5\1"), NULL, 0, -EACCES},
	};
#undef SAYS

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct net_dialogue *d;
		struct net_addr at, want;
		struct net_proxy p;
		uint16_t port;
		char b[100];
		int s[2];

		assert_int_equal(net_proxy_parse(rows[i].url, &p, NULL), 0);
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s), 0);
		d = net_dialogue_new(&p, NULL, 0);
		assert_int_equal(net_dialogue_run(d, s[0]), 0);
		assert_int_equal(write(s[1], "\5\0", 2), 2);
		assert_int_equal(net_dialogue_run(d, s[0]), 0);
		assert_int_equal(read(s[1], b, sizeof(b)), 3 + 10);
		assert_memory_equal(b + 3, "\5\3\0\1\0\0\0\0\0\0", 10);
		assert_int_equal(write(s[1], rows[i].reply, rows[i].n), rows[i].n);
		assert_int_equal(net_dialogue_run(d, s[0]), rows[i].result);
		net_dialogue_relay(d, &at, &port);
		if (rows[i].relay) {
			assert_true(net_addr_parse(rows[i].relay, &want));
			assert_true(net_addr_equal(&at, &want));
			assert_int_equal(port, rows[i].port);
		}
		net_dialogue_free(d);
		close(s[0]);
		close(s[1]);
	}
}

static void test_datagrams(void **state)
{
	static const char *const to[] = {"1.2.3.4", "2001:db8::1"};
	uint8_t b[NET_DATAGRAM_HEAD + 5];
	struct net_addr a, from;
	uint16_t port;
	size_t n;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		assert_true(net_addr_parse(to[i], &a));
		n = net_datagram_head(b, &a, 0x1234);
		assert_int_equal(n, i ? 22 : 10);
		for (size_t k = 0; k < n; k++)
			assert_int_equal(net_datagram_open(b, k, &from, &port), 0);
		assert_int_equal(net_datagram_open(b, n, &from, &port), n);
		assert_int_equal(net_datagram_open(b, n + 5, &from, &port), n);
		assert_true(net_addr_equal(&a, &from) && port == 0x1234);
		/* A part of one, or from a name. */
		b[2] = 1;
		assert_int_equal(net_datagram_open(b, n + 5, &from, &port), 0);
		b[2] = 0;
		b[3] = 3;
		assert_int_equal(net_datagram_open(b, n + 5, &from, &port), 0);
	}
}

static void test_a_proxy_that_goes_away(void **state)
{
	struct net_dialogue *d;
	struct net_addr to;
	struct net_proxy p;
	static char junk[5000];
	int s[2];

	(void)state;
	for (int how = 0; how < 2; how++) {
		assert_int_equal(net_proxy_parse("http://127.0.0.1:1", &p, NULL), 0);
		assert_true(net_addr_parse("1.2.3.4", &to));
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s), 0);
		d = net_dialogue_new(&p, &to, 80);
		assert_int_equal(net_dialogue_run(d, s[0]), 0);
		/* Nothing at all, or no end of a head. */
		if (how) {
			memset(junk, 'x', sizeof(junk));
			memcpy(junk, "HTTP/1.1 200 ", 13);
			assert_int_equal(write(s[1], junk, sizeof(junk)), sizeof(junk));
		}
		assert_int_equal(shutdown(s[1], SHUT_WR), 0);
		assert_int_equal(net_dialogue_run(d, s[0]), how ? -EPROTO : -ECONNREFUSED);
		net_dialogue_free(d);
		close(s[0]);
		close(s[1]);
	}
}

static void test_names_of_proxies(void **state)
{
	static const char *const bad[] = {
		"",
		"socks5://",
		"socks5://127.0.0.1",
		"socks5://127.0.0.1:",
		"socks5://127.0.0.1:0",
		"socks5://127.0.0.1:65536",
		"socks5://proxy.example:1080",
		"socks5://::1:1080",
		"socks5://[::1:1080",
		"socks5://[]:1080",
		"ftp://127.0.0.1:1",
		"127.0.0.1:1080",
	};
	char word[NET_PROXY_WORD_MAX + 2];
	struct net_proxy p;
	struct net_addr a;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(net_proxy_parse(bad[i], &p, NULL), -ERR_USAGE);
	assert_int_equal(net_proxy_parse("socks4://10.0.0.1:1", &p, NULL), 0);
	assert_int_equal(net_proxy_login(&p, "u", "p", NULL), -ERR_USAGE);
	assert_int_equal(net_proxy_parse("http://10.0.0.1:1", &p, NULL), 0);
	assert_int_equal(net_proxy_login(&p, "a:b", "", NULL), -ERR_USAGE);
	assert_int_equal(net_proxy_login(&p, "", "p", NULL), -ERR_USAGE);
	memset(word, 'x', sizeof(word));
	word[sizeof(word) - 1] = '\0';
	assert_int_equal(net_proxy_login(&p, word, "", NULL), -ERR_USAGE);
	assert_true(net_addr_parse("127.0.0.1", &a));
	assert_false(net_proxy_serves(&p, &a));
	assert_true(net_addr_parse("10.0.0.2", &a));
	assert_true(net_proxy_serves(&p, &a));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dialogues),
		cmocka_unit_test(test_relays),
		cmocka_unit_test(test_datagrams),
		cmocka_unit_test(test_a_proxy_that_goes_away),
		cmocka_unit_test(test_names_of_proxies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
