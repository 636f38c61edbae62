/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "registry/challenge.h"

static void one(const char *text, enum challenge_scheme scheme, const char *realm,
		const char *service, const char *scope)
{
	struct challenge c = {0};

	assert_int_equal(challenge_offer(text, &c, NULL), 1);
	assert_int_equal(c.scheme, scheme);
	assert_string_equal(c.realm, realm);
	assert_string_equal(c.service, service);
	assert_string_equal(c.scope, scope);
}

static void nothing(const char *text, int want)
{
	struct challenge c = {0};

	assert_int_equal(challenge_offer(text, &c, NULL), want);
	assert_int_equal(c.scheme, CHALLENGE_NONE);
}

static void test_what_registries_send(void **state)
{
	(void)state;
	one("Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\","
	    "scope=\"repository:library/python:pull\"",
	    CHALLENGE_BEARER, "https://auth.docker.io/token", "registry.docker.io",
	    "repository:library/python:pull");
	one("Basic realm=\"a realm\"", CHALLENGE_BASIC, "a realm", "", "");
	one("Basic", CHALLENGE_BASIC, "", "", "");
	one("bearer  realm = https://x/t , error=\"invalid_token\"", CHALLENGE_BEARER,
	    "https://x/t", "", "");
	one("BEARER realm=\"https://x/t\", scope=\"a:b:pull,push c:d:*\"", CHALLENGE_BEARER,
	    "https://x/t", "", "a:b:pull,push c:d:*");
	one("Bearer realm=\"quoted \\\"word\\\" and \\\\\"", CHALLENGE_BEARER,
	    "quoted \"word\" and \\", "", "");
}

static void test_several(void **state)
{
	struct challenge c = {0};

	(void)state;
	one("Basic realm=\"x\", Bearer realm=\"https://t\"", CHALLENGE_BEARER, "https://t", "", "");
	one("Bearer realm=\"https://t\", Basic realm=\"x\"", CHALLENGE_BEARER, "https://t", "", "");
	one("Negotiate, NTLM, Basic realm=x", CHALLENGE_BASIC, "x", "", "");
	assert_int_equal(challenge_offer("Basic realm=\"x\"", &c, NULL), 1);
	assert_int_equal(challenge_offer("Negotiate", &c, NULL), 0);
	assert_int_equal(challenge_offer("Bearer realm=\"https://t\"", &c, NULL), 1);
	assert_int_equal(challenge_offer("Basic realm=\"y\"", &c, NULL), 0);
	assert_int_equal(c.scheme, CHALLENGE_BEARER);
	assert_string_equal(c.realm, "https://t");
}

static void test_refused(void **state)
{
	char text[4096];

	(void)state;
	nothing("", 0);
	nothing(" ,, ,", 0);
	nothing("Negotiate", 0);
	/* A token service nobody names. */
	nothing("Bearer", 0);
	nothing("Bearer service=\"x\"", 0);
	nothing("realm=\"x\"", -ERR_CORRUPT);
	nothing("Bearer realm=\"no end", -ERR_CORRUPT);
	nothing("Bearer realm=\"no end\\", -ERR_CORRUPT);
	nothing("(comment)", -ERR_CORRUPT);
	nothing("\"quoted\"", -ERR_CORRUPT);
	nothing("a b c d e f g h i j", -ERR_LIMIT);
	memset(text, 'x', sizeof(text) - 1);
	memcpy(text, "Bearer realm=", 13);
	text[sizeof(text) - 1] = '\0';
	nothing(text, -ERR_LIMIT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_registries_send),
		cmocka_unit_test(test_several),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
