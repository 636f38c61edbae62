/* SPDX-License-Identifier: Apache-2.0 */
/* URLs as far as they decide who gets credentials, and the messages of msb-fetch. */
#include "test.h"

#include <errno.h>

#include "fetch/fetch_msg.h"
#include "registry/http.h"

static void is_origin(const char *url, bool tls, const char *host, unsigned port)
{
	struct http_origin o;

	assert_int_equal(http_origin(url, &o), 0);
	assert_int_equal(o.tls, tls);
	assert_string_equal(o.host, host);
	assert_int_equal(o.port, port);
}

static void no_origin(const char *url)
{
	struct http_origin o;

	assert_int_equal(http_origin(url, &o), -EINVAL);
}

static void test_origin(void **state)
{
	(void)state;
	is_origin("https://registry.example", true, "registry.example", 443);
	is_origin("HTTPS://Registry.Example:5000/v2/", true, "registry.example", 5000);
	is_origin("http://127.0.0.1?x", false, "127.0.0.1", 80);
	is_origin("http://[::1]:5000/x", false, "[::1]", 5000);
	is_origin("https://x#@evil.example", true, "x", 443);
	/* Who reads these differently from curl sends secrets elsewhere. */
	no_origin("https://user@registry.example/");
	no_origin("https://registry.example@evil.example/");
	no_origin("https://registry.example\\@evil.example/");
	no_origin("https://registry.example:99999/");
	no_origin("https://registry.example:5000x/");
	no_origin("https://registry.example /");
	no_origin("https://");
	no_origin("https://[::1/");
	no_origin("https://[::1]x/");
	no_origin("ftp://registry.example/");
	no_origin("file:///etc/passwd");
	no_origin("//registry.example/");
	no_origin("");
}

static bool same(const char *a, const char *b)
{
	struct http_origin x, y;

	assert_int_equal(http_origin(a, &x), 0);
	assert_int_equal(http_origin(b, &y), 0);
	return http_same_origin(&x, &y);
}

static void test_same_origin(void **state)
{
	(void)state;
	assert_true(same("https://a/x", "https://A:443/y"));
	assert_false(same("https://a", "http://a"));
	assert_false(same("https://a", "https://a:444"));
	assert_false(same("https://a", "https://b"));
	assert_false(same("https://a", "https://a.b"));
}

static bool loopback(const char *url)
{
	struct http_origin o;

	assert_int_equal(http_origin(url, &o), 0);
	return http_is_loopback(&o);
}

static void test_loopback(void **state)
{
	(void)state;
	assert_true(loopback("http://localhost:5000"));
	assert_true(loopback("http://127.0.0.1"));
	assert_true(loopback("http://127.3.4.5"));
	assert_true(loopback("http://[::1]:1"));
	assert_false(loopback("http://localhost.example"));
	assert_false(loopback("http://127.example"));
	assert_false(loopback("http://128.0.0.1"));
	assert_false(loopback("http://[::2]"));
}

static void test_messages(void **state)
{
	char *headers[] = {(char *)(uintptr_t) "Accept: x", (char *)(uintptr_t) "Authorization: y"};
	struct fetch_request req = {.url = (char *)(uintptr_t) "https://a/b",
				    .headers = {headers, 2},
				    .from = 7,
				    .size = FETCH_UNKNOWN,
				    .max = 1 << 20,
				    .connect_ms = 1,
				    .stall_ms = 2};
	struct fetch_request got;
	struct fetch_result res = {.outcome = FETCH_NETWORK, .delivered = 5}, back;
	struct buf b = BUF_INIT;

	(void)state;
	fetch_request_encode(&req, &b);
	assert_int_equal(fetch_request_decode(buf_ptr(&b), buf_size(&b), &got, NULL), 0);
	assert_string_equal(got.url, req.url);
	assert_int_equal(got.headers.n, 2);
	assert_string_equal(got.headers.v[1], "Authorization: y");
	assert_int_equal(got.from, 7);
	assert_true(got.size == FETCH_UNKNOWN);
	fetch_request_done(&got);

	/* A header that would become two. */
	headers[1] = (char *)(uintptr_t) "Authorization: y\r\nHost: evil";
	buf_reset(&b);
	fetch_request_encode(&req, &b);
	assert_int_equal(fetch_request_decode(buf_ptr(&b), buf_size(&b), &got, NULL),
			 -ERR_PROTOCOL);
	headers[1] = (char *)(uintptr_t) "no colon";
	buf_reset(&b);
	fetch_request_encode(&req, &b);
	assert_int_equal(fetch_request_decode(buf_ptr(&b), buf_size(&b), &got, NULL),
			 -ERR_PROTOCOL);

	buf_reset(&b);
	fetch_result_encode(&res, &b);
	assert_int_equal(fetch_result_decode(buf_ptr(&b), buf_size(&b), &back, NULL), 0);
	assert_int_equal(back.outcome, FETCH_NETWORK);
	assert_int_equal(back.delivered, 5);
	fetch_result_done(&back);
	res.outcome = FETCH_OUTCOMES;
	buf_reset(&b);
	fetch_result_encode(&res, &b);
	assert_int_equal(fetch_result_decode(buf_ptr(&b), buf_size(&b), &back, NULL),
			 -ERR_PROTOCOL);
	buf_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_origin),
		cmocka_unit_test(test_same_origin),
		cmocka_unit_test(test_loopback),
		cmocka_unit_test(test_messages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
