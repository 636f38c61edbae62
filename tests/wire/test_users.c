/* SPDX-License-Identifier: Apache-2.0 */
/* User resolution and the composition of environments. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "exec.h"
#include "gen.h"
#include "rlimits.h"
#include "users.h"

static const char passwd[] = "root:x:0:0:root:/root:/bin/sh\n"
			     "# a comment\n"
			     "broken\n"
			     "alice:x:1000:100:Alice:/home/alice:/bin/bash\n"
			     "1234:x:77:77::/n:/bin/sh\n"
			     "nohome:x:5:5:::";
static const char group[] = "root:x:0:\nusers:x:100:\nwheel:x:10:bob,alice\nvideo:x:44:alice\n"
			    "almost:x:45:alicex\nnum:x:notanumber:alice\n";

static int look(const char *spec, struct user *u, struct err *err)
{
	return user_parse(spec, passwd, strlen(passwd), group, strlen(group), u, err);
}

static void test_users(void **state)
{
	struct err err = ERR_INIT;
	struct user u;

	(void)state;
	assert_int_equal(look(NULL, &u, &err), 0);
	assert_int_equal(u.uid, 0);
	assert_string_equal(u.home, "/root");
	assert_int_equal(look("alice", &u, &err), 0);
	assert_int_equal(u.uid, 1000);
	assert_int_equal(u.gid, 100);
	assert_int_equal(u.ngroups, 2);
	assert_int_equal(u.groups[0], 10);
	assert_int_equal(u.groups[1], 44);
	assert_string_equal(u.home, "/home/alice");
	assert_int_equal(look("1000", &u, &err), 0);
	assert_int_equal(u.gid, 100);
	assert_int_equal(u.ngroups, 2);
	assert_int_equal(look("alice:video", &u, &err), 0);
	assert_int_equal(u.gid, 44);
	assert_int_equal(u.ngroups, 0);
	assert_int_equal(look("alice:0", &u, &err), 0);
	assert_int_equal(u.gid, 0);
	/* A name made of digits wins over the number; an unknown number is fine. */
	assert_int_equal(look("1234", &u, &err), 0);
	assert_int_equal(u.uid, 77);
	assert_int_equal(look("4321", &u, &err), 0);
	assert_int_equal(u.uid, 4321);
	assert_int_equal(u.gid, 0);
	assert_string_equal(u.home, "/");
	assert_int_equal(look("nohome", &u, &err), 0);
	assert_string_equal(u.home, "/");
	assert_int_equal(look("bob", &u, &err), -ERR_NOT_FOUND);
	assert_non_null(strstr(err.msg, "bob"));
	assert_int_equal(look("alice:nogroup", &u, &err), -ERR_NOT_FOUND);
	assert_int_equal(look("4294967295", &u, &err), -ERR_NOT_FOUND);
	assert_int_equal(look("-1", &u, &err), -ERR_NOT_FOUND);
	assert_int_equal(user_parse("root", "", 0, "", 0, &u, &err), -ERR_NOT_FOUND);
	assert_int_equal(user_parse("0", "", 0, "", 0, &u, &err), 0);
}

static void test_junk(void **state)
{
	static const char alphabet[] = "a0:,\n9x";
	struct rng rng = {11};

	(void)state;
	for (int i = 0; i < 50000; i++) {
		char text[48], spec[8] = "";
		size_t n = rng_below(&rng, sizeof(text)), m = rng_below(&rng, sizeof(spec));
		cleanup_free char *exact = malloc(n + 1);
		struct err err = ERR_INIT;
		struct user u;

		for (size_t k = 0; k < n; k++)
			exact[k] = alphabet[rng_below(&rng, sizeof(alphabet) - 1)];
		for (size_t k = 0; k < m; k++)
			spec[k] = k + 1 < sizeof(spec) ? alphabet[rng_below(&rng, 7)] : '\0';
		spec[sizeof(spec) - 1] = '\0';
		user_parse(spec, exact, n, exact, n, &u, &err);
	}
}

static const char *get(char **env, const char *key)
{
	for (; *env; env++) {
		if (!strncmp(*env, key, strlen(key)) && (*env)[strlen(key)] == '=')
			return *env + strlen(key) + 1;
	}
	return NULL;
}

static void test_environment(void **state)
{
	struct boot_env d[] = {{(char *)"A", (char *)"1"}, {(char *)"B", (char *)"2"}};
	struct wire_list defaults = {d, 2};
	char *set[] = {(char *)"B=3", (char *)"C=x=y", (char *)"junk", (char *)"=odd",
		       (char *)"D="};
	struct wire_texts env = {set, 5};
	char **v = exec_environment(&defaults, &env, "/home/u", true);

	(void)state;
	assert_string_equal(get(v, "A"), "1");
	assert_string_equal(get(v, "B"), "3");
	assert_string_equal(get(v, "C"), "x=y");
	assert_string_equal(get(v, "D"), "");
	assert_string_equal(get(v, "HOME"), "/home/u");
	assert_string_equal(get(v, "TERM"), "xterm");
	assert_non_null(get(v, "PATH"));
	free(v);
	v = exec_environment(&(struct wire_list){0}, &(struct wire_texts){0}, "/", false);
	assert_null(get(v, "TERM"));
	free(v);
}

static void test_rlimits(void **state)
{
	struct exec_rlimit bad = {(char *)"nofiles", 1, 1}, upside = {(char *)"nofile", 2, 1};
	struct wire_list l = {&bad, 1};

	(void)state;
	assert_true(rlimits_check(&l, NULL) < 0);
	l.v = &upside;
	assert_true(rlimits_check(&l, NULL) < 0);
	assert_true(rlimit_find("rttime") >= 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_users),
		cmocka_unit_test(test_junk),
		cmocka_unit_test(test_environment),
		cmocka_unit_test(test_rlimits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
