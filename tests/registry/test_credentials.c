/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include <sys/stat.h>

#include "base/str.h"
#include "registry/config.h"
#include "registry/credentials.h"

static void parse(const char *json, const char *host, struct credential *c, char **helper)
{
	struct err err = ERR_INIT;

	*c = (struct credential){0};
	*helper = NULL;
	if (credential_parse(json, strlen(json), host, c, helper, &err) < 0)
		fail_msg("%s", err.msg);
}

static void expect(const char *json, const char *host, const char *user, const char *password)
{
	struct credential c;
	char *helper;

	parse(json, host, &c, &helper);
	if (user) {
		assert_non_null(c.username);
		assert_string_equal(c.username, user);
		assert_string_equal(c.password, password);
	} else {
		assert_true(credential_empty(&c));
	}
	credential_done(&c);
	free(helper);
}

static void test_dockers_file(void **state)
{
	/* user:secret, and a password with colons */
	static const char *json =
		"{\"auths\": {"
		"\"https://index.docker.io/v1/\": {\"auth\": \"dXNlcjpzZWNyZXQ=\"},"
		"\"ghcr.io\": {\"auth\": \"YTpiOmM6ZA==\"},"
		"\"https://old.example/v2/\": {\"auth\": \"dXNlcjpzZWNyZXQ=\"},"
		"\"plain.example\": {\"username\": \"u\", \"password\": \"p\"},"
		"\"empty.example\": {},"
		"\"a.example:5000\": {\"auth\": \"dXNlcjpzZWNyZXQ=\"}}}";

	(void)state;
	expect(json, "docker.io", "user", "secret");
	expect(json, "ghcr.io", "a", "b:c:d");
	expect(json, "old.example", "user", "secret");
	expect(json, "plain.example", "u", "p");
	expect(json, "empty.example", NULL, NULL);
	expect(json, "a.example:5000", "user", "secret");
	/* Another port is another registry, and so is the same name without one. */
	expect(json, "a.example", NULL, NULL);
	expect(json, "a.example:5001", NULL, NULL);
	expect(json, "evil-ghcr.io", NULL, NULL);
	expect("{}", "docker.io", NULL, NULL);
	expect("{\"auths\": []}", "docker.io", NULL, NULL);
}

static void test_tokens_and_helpers(void **state)
{
	struct credential c;
	char *helper;

	(void)state;
	parse("{\"auths\": {\"a.example\": {\"auth\": \"MDA6\", \"identitytoken\": \"tok\"}}}",
	      "a.example", &c, &helper);
	assert_string_equal(c.identity_token, "tok");
	assert_null(helper);
	credential_done(&c);
	parse("{\"credsStore\": \"all\", \"credHelpers\": {\"a.example\": \"one\"}}", "a.example",
	      &c, &helper);
	assert_true(credential_empty(&c));
	assert_string_equal(helper, "one");
	free(helper);
	parse("{\"credsStore\": \"all\", \"credHelpers\": {\"a.example\": \"one\"}}", "b.example",
	      &c, &helper);
	assert_string_equal(helper, "all");
	free(helper);
}

static void test_damaged_files(void **state)
{
	static const char *const bad[] = {
		"",
		"[]",
		"{",
		/* not base64; no colon; control characters; a NUL */
		"{\"auths\": {\"a.example\": {\"auth\": \"!!!!\"}}}",
		"{\"auths\": {\"a.example\": {\"auth\": \"dXNlcg\"}}}",
		"{\"auths\": {\"a.example\": {\"auth\": \"dXNlcg==\"}}}",
		"{\"auths\": {\"a.example\": {\"auth\": \"dXNlcjphDQpi\"}}}",
		"{\"auths\": {\"a.example\": {\"auth\": \"dXNlcjphAGI=\"}}}",
		"{\"auths\": {\"a.example\": {\"username\": \"u\", \"password\": \"a\\nb\"}}}",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct credential c = {0};
		char *helper = NULL;

		assert_true(credential_parse(bad[i], strlen(bad[i]), "a.example", &c, &helper,
					     NULL) < 0);
		assert_true(credential_empty(&c));
		assert_null(helper);
	}
}

static void test_our_file(void **state)
{
	const char *home = *state;
	const struct registries_config none = {0};
	struct credential c = {.username = (char *)(uintptr_t) "me",
			       .password = (char *)(uintptr_t) "pass:word \xc3\xa9"};
	struct credential got = {0};
	struct credential_list list;
	struct err err = ERR_INIT;
	struct stat st;

	setenv("DOCKER_CONFIG", scratch_path(state, "nowhere"), 1);
	assert_int_equal(credential_find(home, &none, "a.example", &got, &err), 0);
	assert_true(credential_empty(&got));
	assert_int_equal(credential_erase(home, &none, "a.example", &err), 0);
	umask(0);
	assert_int_equal(credential_store(home, &none, "a.example", &c, &err), 0);
	assert_int_equal(credential_store(home, &none, "docker.io", &c, &err), 0);
	assert_int_equal(stat(scratch_path(state, "registry-auth.json"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(credential_find(home, &none, "a.example", &got, &err), 0);
	assert_string_equal(got.username, "me");
	assert_string_equal(got.password, c.password);
	credential_done(&got);
	assert_int_equal(credential_find(home, &none, "b.example", &got, &err), 0);
	assert_true(credential_empty(&got));
	assert_int_equal(credential_list(home, &none, &list, &err), 0);
	assert_int_equal(list.count, 2);
	assert_string_equal(list.items[0].host, "a.example");
	assert_string_equal(list.items[1].host, "docker.io");
	credential_list_done(&list);
	assert_int_equal(credential_erase(home, &none, "a.example", &err), 1);
	assert_int_equal(credential_erase(home, &none, "a.example", &err), 0);
	assert_int_equal(credential_find(home, &none, "docker.io", &got, &err), 0);
	assert_string_equal(got.username, "me");
	credential_done(&got);
	/* A name with a colon would come back as another one. */
	c.username = (char *)(uintptr_t) "m:e";
	assert_int_equal(credential_store(home, &none, "a.example", &c, &err), -ERR_USAGE);
	c.username = (char *)(uintptr_t) "m\ne";
	assert_int_equal(credential_store(home, &none, "a.example", &c, &err), -ERR_USAGE);
}

static int config(const char *json, struct registries_config *c, struct err *err)
{
	return registries_config_parse(json, strlen(json), c, err);
}

static void test_config(void **state)
{
	struct registries_config c;
	struct err err = ERR_INIT;
	const struct host_config *h;

	(void)state;
	assert_int_equal(config("{\"log_level\": \"info\"}", &c, &err), 0);
	registries_config_done(&c);
	assert_int_equal(config("{\"registries\": {\"ca_certs\": [\"/a\", \"/b\"],"
				" \"stall_timeout_secs\": 5, \"credential_helper\": \"pass\","
				" \"hosts\": {\"r.example:5000\": {\"insecure\": true,"
				" \"mirrors\": [\"https://m.example/x//\", \"http://n.example\"],"
				" \"auth\": {\"username\": \"u\", \"password_env\": \"E\"}}}}}",
				&c, &err),
			 0);
	assert_int_equal(c.ca_certs.n, 2);
	assert_int_equal(c.stall_secs, 5);
	assert_string_equal(c.credential_helper, "pass");
	h = registries_config_host(&c, "r.example:5000");
	assert_non_null(h);
	assert_true(h->insecure);
	assert_int_equal(h->mirrors.n, 2);
	assert_string_equal(h->mirrors.v[0], "https://m.example/x");
	assert_null(registries_config_host(&c, "r.example"));
	registries_config_done(&c);
}

static void test_bad_config(void **state)
{
	static const char *const bad[] = {
		"",
		"[]",
		"{\"registries\": []}",
		"{\"registries\": {\"ca_cert\": \"/a\"}}",
		"{\"registries\": {\"ca_certs\": 1}}",
		"{\"registries\": {\"ca_certs\": [\"\"]}}",
		"{\"registries\": {\"stall_timeout_secs\": 0}}",
		"{\"registries\": {\"hosts\": {\"a\": {\"insecure\": \"yes\"}}}}",
		"{\"registries\": {\"hosts\": {\"a\": {\"mirror\": []}}}}",
		"{\"registries\": {\"hosts\": {\"a\": {\"mirrors\": [\"m.example\"]}}}}",
		"{\"registries\": {\"hosts\": {\"a\": {\"mirrors\": [\"https://u@m.example\"]}}}}",
		"{\"registries\": {\"hosts\": {\"a\": {\"auth\": {\"password\": \"p\"}}}}}",
		"{\"registries\": {\"hosts\": {\"a\": {\"auth\": {\"password_env\": \"P\"}}}}}",
		"{\"registries\": {}, \"registries\": {}}",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct registries_config c;
		struct err err = ERR_INIT;

		if (config(bad[i], &c, &err) >= 0)
			fail_msg("accepted: %s", bad[i]);
		assert_true(err.msg[0]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dockers_file),
		cmocka_unit_test(test_tokens_and_helpers),
		cmocka_unit_test(test_damaged_files),
		cmocka_unit_test_setup_teardown(test_our_file, scratch_setup, scratch_teardown),
		cmocka_unit_test(test_config),
		cmocka_unit_test(test_bad_config),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
