/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include <errno.h>

#include "base/base64.h"
#include "base/cleanup.h"

/* The vectors of RFC 4648, section 10, and two that use the last digits. */
static const struct {
	const char *plain, *coded;
} vectors[] = {
	{"", ""},
	{"f", "Zg=="},
	{"fo", "Zm8="},
	{"foo", "Zm9v"},
	{"foob", "Zm9vYg=="},
	{"fooba", "Zm9vYmE="},
	{"foobar", "Zm9vYmFy"},
	{"\xff\xff\xfe", "///+"},
	{"\xfb\xf0", "+/A="},
};

static void test_vectors(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
		struct buf coded = BUF_INIT, plain = BUF_INIT;
		const char *p = vectors[i].plain, *c = vectors[i].coded;

		base64_encode(p, strlen(p), &coded);
		assert_string_equal(buf_cstr(&coded), c);
		assert_int_equal(base64_decode(c, strlen(c), &plain), 0);
		assert_string_equal(buf_cstr(&plain), p);
		buf_done(&coded);
		buf_done(&plain);
	}
}

static void test_refusals(void **state)
{
	static const char *const bad[] = {
		"Z",	  "Zg",	  "Zg=",  "Zg=a", "=Zg=",     "Z===",  "====",
		"Zm9v\n", "Zm9*", "Zh==", "Zm9=", "Zg==Zg==", "Zm9vA",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct buf b = BUF_INIT;

		if (base64_decode(bad[i], strlen(bad[i]), &b) != -EINVAL)
			fail_msg("\"%s\" was taken", bad[i]);
		buf_done(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
