/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include "image/crc32c.h"
#include "image/digest.h"
#include "image/reference.h"

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_normalise(void **state)
{
	static const struct {
		const char *text, *want;
	} cases[] = {
		{"python", "docker.io/library/python:latest"},
		{"python:3.12", "docker.io/library/python:3.12"},
		{"user/app", "docker.io/user/app:latest"},
		{"docker.io/python", "docker.io/library/python:latest"},
		{"index.docker.io/a/b:c", "docker.io/a/b:c"},
		{"localhost/x", "localhost/x:latest"},
		{"host:5000/a/b/c:T_1.x-y", "host:5000/a/b/c:T_1.x-y"},
		{"[::1]:5000/x", "[::1]:5000/x:latest"},
		{"ghcr.io/a__b/c.d-e--f", "ghcr.io/a__b/c.d-e--f:latest"},
		{"x@sha256:" HEX, "docker.io/library/x@sha256:" HEX},
		{"x:1@sha256:" HEX, "docker.io/library/x:1@sha256:" HEX},
	};
	static const char *const bad[] = {
		"",	  ":",	    "@",	   "/",		 "a/",	 "/a",		"a//b",
		"A",	  "a/B",    "a:",	   "a:b:c",	 "a b",	 "a..b",	"a___b",
		"-a",	  "a-",	    "a@sha256:12", "a@md5:" HEX, "a:-x", "host:port/a", "host:/a",
		"-h.x/a", "[::1/x", "a@",	   "a\nb",	 "\xff",
	};
	char out[IMAGE_REFERENCE_MAX];
	char big[1200];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(reference_normalise(cases[i].text, out, NULL), 0);
		assert_string_equal(out, cases[i].want);
		/* What is normal stays as it is. */
		assert_int_equal(reference_normalise(cases[i].want, out, NULL), 0);
		assert_string_equal(out, cases[i].want);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct err err = ERR_INIT;

		assert_int_equal(reference_normalise(bad[i], out, &err), -ERR_USAGE);
		assert_true(err.msg[0] && err.hint[0]);
	}
	for (size_t n = 200; n < sizeof(big); n++) {
		memset(big, 'a', n);
		big[n] = 0;
		if (reference_normalise(big, out, NULL) == 0)
			assert_true(n < 255);
	}
}

static void test_digest(void **state)
{
	/* RFC 3720 B.4, with the inversions the iSCSI CRC has. */
	uint8_t zeros[32] = {0};
	struct digest d;
	char text[IMAGE_DIGEST_LEN + 1];

	(void)state;
	assert_int_equal(~crc32c(~0u, zeros, sizeof(zeros)), 0x8a9136aa);
	assert_int_equal(crc32c(crc32c(~0u, "abc", 3), "defghijklmnop", 13),
			 crc32c(~0u, "abcdefghijklmnop", 16));
	assert_int_equal(digest_parse("sha256:" HEX, "x", &d, NULL), 0);
	assert_string_equal(digest_text(&d, text), "sha256:" HEX);
	assert_int_equal(digest_parse("sha512:00", "x", &d, NULL), -ERR_UNSUPPORTED);
	assert_int_equal(digest_parse("sha256:00", "x", &d, NULL), -ERR_CORRUPT);
	assert_int_equal(digest_parse("", "x", &d, NULL), -ERR_CORRUPT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_normalise),
		cmocka_unit_test(test_digest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
