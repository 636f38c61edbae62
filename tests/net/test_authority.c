/* SPDX-License-Identifier: Apache-2.0 */
/* Whom connections say they are for. */
#include "test.h"

#include "base/cleanup.h"
#include "net/authority.h"

/* A ClientHello with @name in it, in records of @each bytes; @twice: two names. */
static size_t hello(uint8_t *to, const char *name, size_t each, bool twice)
{
	uint8_t m[1000], *p = m + 4;
	size_t n = strlen(name), done = 0, len, out = 0;

	memset(m, 0, sizeof(m));
	*p++ = 3, *p++ = 3;
	p += 32;
	*p++ = 0;
	memcpy(p, "\0\2\x13\1\1\0", 6);
	p += 6;
	len = (size_t)(twice ? 2 : 1) * (n + 9) + 4;
	*p++ = (uint8_t)(len >> 8), *p++ = (uint8_t)len;
	memcpy(p, "\0\x2b\0\0", 4);
	p += 4;
	for (int i = 0; i < (twice ? 2 : 1); i++) {
		memcpy(p, "\0\0", 2);
		p[2] = 0, p[3] = (uint8_t)(n + 5);
		p[4] = 0, p[5] = (uint8_t)(n + 3);
		p[6] = 0, p[7] = 0, p[8] = (uint8_t)n;
		memcpy(p + 9, name, n);
		p += 9 + n;
	}
	len = (size_t)(p - m);
	m[0] = 1;
	m[2] = (uint8_t)((len - 4) >> 8), m[3] = (uint8_t)(len - 4);
	while (done < len) {
		size_t k = MIN(each, len - done);

		memcpy(to + out, "\x16\3\1\0", 4);
		to[out + 3] = (uint8_t)(k >> 8), to[out + 4] = (uint8_t)k;
		memcpy(to + out + 5, m + done, k);
		out += 5 + k;
		done += k;
	}
	return out;
}

static void tls(void **state)
{
	uint8_t m[4000];
	struct dns_name name;
	char text[DNS_NAME_TEXT];

	(void)state;
	for (size_t each = 1; each < 300; each += 37) {
		size_t n = hello(m, "Www.Example.com", each, false);

		assert_int_equal(authority_find(m, n, &name), AUTHORITY_FOUND);
		assert_string_equal(dns_name_text(&name, text), "www.example.com");
		for (size_t i = 0; i < n; i++)
			assert_int_equal(authority_find(m, i, &name), AUTHORITY_MORE);
	}
	assert_int_equal(authority_find(m, hello(m, "a.b", 1000, true), &name), AUTHORITY_NONE);
	assert_int_equal(authority_find(m, hello(m, "a b", 1000, false), &name), AUTHORITY_NONE);
	assert_int_equal(authority_find(m, hello(m, "", 1000, false), &name), AUTHORITY_NONE);
	assert_int_equal(authority_find(m, hello(m, ".", 1000, false), &name), AUTHORITY_NONE);
	/* Not a ClientHello; a length that is too much; a length of an extension that is. */
	hello(m, "a.b", 1000, false);
	m[5] = 2;
	assert_int_equal(authority_find(m, 300, &name), AUTHORITY_NONE);
	hello(m, "a.b", 1000, false);
	m[6] = 1;
	assert_int_equal(authority_find(m, 300, &name), AUTHORITY_NONE);
	{
		size_t n = hello(m, "a.b", 1000, false);

		m[n - 9]++;
		assert_int_equal(authority_find(m, n, &name), AUTHORITY_NONE);
	}
}

static void http(void **state)
{
	static const struct {
		const char *text, *name; /* NULL: none; "": more is needed */
	} rows[] = {
		{"GET / HTTP/1.1\r\nHost: www.Example.com\r\n\r\n", "www.example.com"},
		{"GET / HTTP/1.1\r\nA: b\r\nhost:www.example.com:8080 \r\nC: d\r\n\r\nbody",
		 "www.example.com"},
		{"OPTIONS * HTTP/1.1\nHost: a.b\n\n", "a.b"},
		{"GET http://A.b/x HTTP/1.1\r\nHost: a.b\r\n\r\n", "a.b"},
		{"GET http://a.c/x HTTP/1.1\r\nHost: a.b\r\n\r\n", NULL},
		{"GET http://a.b?host:a.c HTTP/1.1\r\nHost: a.b\r\n\r\n", "a.b"},
		{"GET http://a.c@a.b/ HTTP/1.1\r\nHost: a.b\r\n\r\n", NULL},
		{"CONNECT a.b:443 HTTP/1.1\r\nHost: a.b\r\n\r\n", NULL},
		{"GET / HTTP/1.1\r\nHost: a.b\r\nHost: a.c\r\n\r\n", NULL},
		{"GET / HTTP/1.1\r\nHost: a.b\r\nHost : a.c\r\n\r\n", NULL},
		{"GET / HTTP/1.1\r\nHost: a.b\r\n a.c\r\n\r\n", NULL},
		{"GET / HTTP/1.1\r\nX: y\rHost: a.c\r\nHost: a.b\r\n\r\n", NULL},
		{"GET / HTTP/1.1\r\n\r\n", NULL},
		{"GET / HTTP/1.0\r\nHost: \r\n\r\n", NULL},
		{"GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n", NULL},
		{"GET / HTTP/1.1\r\nHost: .\r\n\r\n", NULL},
		{"GET / HTTP/1.1\r\nHost: a.b:80:80\r\n\r\n", NULL},
		{"GET / HTTP/2.0\r\nHost: a.b\r\n\r\n", NULL},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NULL},
		{"GET /\r\nHost: a.b\r\n\r\n", NULL},
		{"SSH-2.0-x\r\n", NULL},
		{"\5\1\0", NULL},
		{"GET / HTTP/1.1\r\nHost: a.b\r\n", ""},
		{"G", ""},
		{"", ""},
	};
	char text[DNS_NAME_TEXT];
	static uint8_t all[AUTHORITY_MAX];
	struct dns_name name;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const uint8_t *p = (const uint8_t *)rows[i].text;
		enum authority want = !rows[i].name   ? AUTHORITY_NONE
				      : *rows[i].name ? AUTHORITY_FOUND
						      : AUTHORITY_MORE;

		if (authority_find(p, strlen(rows[i].text), &name) != want)
			fail_msg("%s", rows[i].text);
		if (want == AUTHORITY_FOUND)
			assert_string_equal(dns_name_text(&name, text), rows[i].name);
	}
	/* It has to come to an end. */
	memset(all, 'A', sizeof(all));
	assert_int_equal(authority_find(all, sizeof(all) - 1, &name), AUTHORITY_MORE);
	assert_int_equal(authority_find(all, sizeof(all), &name), AUTHORITY_NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(tls), cmocka_unit_test(http)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
