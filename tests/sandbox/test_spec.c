/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include <errno.h>

#include "image/image.h"
#include "sandbox/bootstrap.h"
#include "sandbox/spec.h"
#include "wire/frame.h"

static char *none[] = {NULL};

static struct image_config image_of(char **entrypoint, char **cmd)
{
	static char *env[] = {"PATH=/bin", "A=image", NULL};

	return (struct image_config){
		.entrypoint = entrypoint,
		.cmd = cmd,
		.env = env,
		.user = (char *)(uintptr_t) "app",
		.workdir = (char *)(uintptr_t) "srv",
	};
}

static void expect_argv(const struct strv *got, const char *want)
{
	char text[256] = "";

	for (size_t i = 0; i < got->n; i++) {
		strcat(text, i ? " " : "");
		strcat(text, got->v[i]);
	}
	assert_string_equal(text, want);
}

static void command_follows_oci(void **state)
{
	char *entry[] = {"/entry", "-x", NULL}, *cmd[] = {"serve", "now", NULL};
	const char *const args[] = {"other"};
	static const struct {
		bool entry, cmd, own;
		size_t nargs;
		const char *want;
	} cases[] = {
		{true, true, false, 0, "/entry -x serve now"},
		{true, true, false, 1, "/entry -x other"},
		{true, false, false, 0, "/entry -x"},
		{false, true, false, 0, "serve now"},
		{false, true, false, 1, "other"},
		{false, false, false, 1, "other"},
		{false, false, false, 0, ""},
		{true, true, true, 0, "/mine"},
		{true, true, true, 1, "/mine other"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct image_config image =
			image_of(cases[i].entry ? entry : none, cases[i].cmd ? cmd : none);
		struct sandbox_spec s;
		struct sandbox_command c;

		sandbox_spec_init(&s);
		if (cases[i].own)
			assert_int_equal(sandbox_spec_entrypoint(&s, "/mine", NULL), 0);
		assert_int_equal(
			sandbox_command_resolve(&s, &image, args, cases[i].nargs, &c, NULL), 0);
		expect_argv(&c.argv, cases[i].want);
		sandbox_command_done(&c);
		sandbox_spec_done(&s);
	}
}

static void sandbox_overrides_image(void **state)
{
	struct image_config image = image_of(none, none);
	struct sandbox_spec s;
	struct sandbox_command c;

	(void)state;
	sandbox_spec_init(&s);
	assert_int_equal(sandbox_command_resolve(&s, &image, NULL, 0, &c, NULL), 0);
	assert_string_equal(c.user, "app");
	assert_string_equal(c.workdir, "/srv");
	assert_string_equal(c.env.v[1], "A=image");
	sandbox_command_done(&c);

	assert_int_equal(sandbox_spec_env(&s, "A=box", NULL), 0);
	assert_int_equal(sandbox_spec_env(&s, "B=", NULL), 0);
	s.user = strdup("0:0");
	s.workdir = strdup("/tmp");
	assert_int_equal(sandbox_command_resolve(&s, &image, NULL, 0, &c, NULL), 0);
	assert_string_equal(c.user, "0:0");
	assert_string_equal(c.workdir, "/tmp");
	assert_int_equal(c.env.n, 3);
	assert_string_equal(c.env.v[1], "A=box");
	assert_string_equal(c.env.v[2], "B=");
	sandbox_command_done(&c);
	sandbox_spec_done(&s);
}

static void text_must_be_utf8(void **state)
{
	struct image_config image = image_of(none, none);
	const char *const args[] = {"\xff\xfe"};
	struct sandbox_spec s;
	struct sandbox_command c;
	struct err err = ERR_INIT;

	(void)state;
	sandbox_spec_init(&s);
	assert_int_equal(sandbox_command_resolve(&s, &image, args, 1, &c, &err), -ERR_UNSUPPORTED);
	assert_non_null(strstr(err.msg, "UTF-8"));
	sandbox_spec_done(&s);
}

static void env_from_host(void **state)
{
	struct sandbox_spec s;
	struct err err = ERR_INIT;

	(void)state;
	sandbox_spec_init(&s);
	setenv("MSB_TEST_ENV", "here=1", 1);
	unsetenv("MSB_TEST_NOT");
	assert_int_equal(sandbox_spec_env(&s, "MSB_TEST_ENV", NULL), 0);
	assert_string_equal(s.env.v[0], "MSB_TEST_ENV=here=1");
	assert_int_equal(sandbox_spec_env(&s, "MSB_TEST_NOT", &err), -ERR_USAGE);
	assert_non_null(strstr(err.msg, "MSB_TEST_NOT"));
	assert_int_equal(sandbox_spec_env(&s, "=x", &err), -ERR_USAGE);
	assert_int_equal(sandbox_spec_env(&s, "", &err), -ERR_USAGE);
	assert_int_equal(s.env.n, 1);
	sandbox_spec_done(&s);
}

static void sizes(void **state)
{
	struct sandbox_spec s;
	static const char *const bad[] = {"", "x", "63M", "-1", "1X", "99999999999999999999"};
	struct err err = ERR_INIT;

	(void)state;
	sandbox_spec_init(&s);
	assert_int_equal(sandbox_spec_memory(&s, "1.5G", NULL), 0);
	assert_int_equal(s.memory, (uint64_t)1536 << 20);
	assert_int_equal(sandbox_spec_memory(&s, "65", NULL), 0);
	assert_int_equal(s.memory, (uint64_t)66 << 20);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(sandbox_spec_memory(&s, bad[i], &err), -ERR_USAGE);
	assert_int_equal(s.memory, (uint64_t)66 << 20);

	assert_int_equal(sandbox_spec_root(&s, "tmpfs", NULL), 0);
	assert_int_equal(s.root, SANDBOX_ROOT_TMPFS);
	assert_int_equal(s.root_size, 0);
	assert_int_equal(sandbox_spec_root(&s, "tmpfs:32M", NULL), 0);
	assert_int_equal(s.root_size, 32 << 20);
	assert_int_equal(sandbox_spec_root(&s, "tmpfs:", &err), -ERR_USAGE);
	assert_int_equal(sandbox_spec_root(&s, "1M", &err), -ERR_USAGE);
	assert_int_equal(sandbox_spec_root(&s, "disk.img", &err), -ERR_USAGE);
	assert_int_equal(s.root, SANDBOX_ROOT_TMPFS);
	assert_int_equal(sandbox_spec_root(&s, "64M", NULL), 0);
	assert_int_equal(s.root, SANDBOX_ROOT_DISK);

	assert_int_equal(sandbox_spec_cpus(&s, "0", &err), -ERR_USAGE);
	assert_int_equal(sandbox_spec_cpus(&s, "1000", &err), -ERR_USAGE);
	assert_int_equal(sandbox_spec_cpus(&s, "2", NULL), 0);
	assert_int_equal(s.cpus, 2);
	sandbox_spec_done(&s);
}

static void rlimits(void **state)
{
	struct sandbox_spec s;
	struct err err = ERR_INIT;
	static const char *const bad[] = {"nofile", "nofile=",	 "nofile=x",	"nofile=2:1",
					  "=1",	    "nofile=1:", "nofile=1:2:3"};

	(void)state;
	sandbox_spec_init(&s);
	assert_int_equal(sandbox_spec_rlimit(&s, "nofile=10:20", NULL), 0);
	assert_int_equal(sandbox_spec_rlimit(&s, "core=unlimited", NULL), 0);
	assert_int_equal(sandbox_spec_rlimit(&s, "nofile=5", NULL), 0);
	assert_int_equal(s.nrlimits, 2);
	assert_int_equal(s.rlimits[0].soft, 5);
	assert_int_equal(s.rlimits[0].hard, 5);
	assert_true(s.rlimits[1].hard == UINT64_MAX);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(sandbox_spec_rlimit(&s, bad[i], &err), -ERR_USAGE);
	assert_int_equal(sandbox_spec_rlimit(&s, "nofiles=1", &err), -ERR_USAGE);
	assert_non_null(strstr(err.hint, "nofile"));
	assert_int_equal(s.nrlimits, 2);
	sandbox_spec_done(&s);
}

static void labels(void **state)
{
	static const char *const bad[] = {"",	"=v",	  " a=b",   "a b",    "a\n",
					  ".a", "a=b\nc", "a=\x7f", "a=\xff", "\xc3\xa9=1"};
	char longest[SANDBOX_LABEL_MAX + 4];
	struct sandbox_spec s;
	struct err err = ERR_INIT;

	(void)state;
	sandbox_spec_init(&s);
	assert_int_equal(sandbox_spec_label(&s, "team=a=b", NULL), 0);
	assert_int_equal(sandbox_spec_label(&s, "ex.org/ci", NULL), 0);
	assert_int_equal(sandbox_spec_label(&s, "team=\xc3\xa9 x", NULL), 0);
	assert_int_equal(s.labels.n, 2);
	assert_string_equal(s.labels.v[0], "team=\xc3\xa9 x");
	assert_string_equal(s.labels.v[1], "ex.org/ci=");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(sandbox_spec_label(&s, bad[i], &err), -ERR_USAGE);
	memset(longest, 'v', sizeof(longest));
	memcpy(longest, "k=", 2);
	longest[SANDBOX_LABEL_MAX + 2] = 0;
	assert_int_equal(sandbox_spec_label(&s, longest, NULL), 0);
	longest[SANDBOX_LABEL_MAX + 2] = 'v';
	longest[SANDBOX_LABEL_MAX + 3] = 0;
	assert_int_equal(sandbox_spec_label(&s, longest, &err), -ERR_USAGE);
	assert_int_equal(s.labels.n, 3);
	assert_int_equal(sandbox_spec_check(&s, NULL), 0);
	for (int i = 0; i < SANDBOX_LABELS_MAX; i++) {
		snprintf(longest, sizeof(longest), "l%d", i);
		assert_int_equal(sandbox_spec_label(&s, longest, NULL), 0);
	}
	assert_int_equal(sandbox_spec_check(&s, &err), -ERR_USAGE);
	sandbox_spec_done(&s);
}

static void limits_and_init(void **state)
{
	struct sandbox_spec s;
	struct err err = ERR_INIT;

	(void)state;
	sandbox_spec_init(&s);
	assert_int_equal(sandbox_spec_max_duration(&s, "90", NULL), 0);
	assert_true(s.max_duration_ms == 90000);
	assert_int_equal(sandbox_spec_idle_timeout(&s, "1.5s", NULL), 0);
	assert_true(s.idle_timeout_ms == 1500);
	assert_int_equal(sandbox_spec_max_duration(&s, "0", &err), -ERR_USAGE);
	assert_int_equal(sandbox_spec_idle_timeout(&s, "0.1ms", &err), -ERR_USAGE);
	assert_int_equal(sandbox_spec_idle_timeout(&s, "soon", &err), -ERR_USAGE);
	assert_int_equal(sandbox_spec_session_history(&s, "512K", &err), 0);
	assert_int_equal(sandbox_spec_session_history(&s, "16", &err), 0);
	assert_int_equal(sandbox_spec_session_history(&s, "511K", &err), -ERR_USAGE);
	assert_int_equal(sandbox_spec_session_history(&s, "17M", &err), -ERR_USAGE);
	assert_int_equal(s.session_history, 16 << 20);
	assert_int_equal(sandbox_spec_max_cpus(&s, "0", &err), -ERR_USAGE);
	assert_int_equal(sandbox_spec_max_cpus(&s, "2", NULL), 0);
	assert_int_equal(sandbox_spec_max_memory(&s, "511M", NULL), 0);
	assert_true(s.max_memory == (uint64_t)512 << 20);
	assert_int_equal(sandbox_spec_security(&s, "lax", &err), -ERR_USAGE);
	assert_int_equal(sandbox_spec_security(&s, "restricted", NULL), 0);
	assert_int_equal(sandbox_spec_check(&s, NULL), 0);
	assert_int_equal(sandbox_spec_cpus(&s, "3", NULL), 0);
	assert_int_equal(sandbox_spec_check(&s, &err), -ERR_USAGE);
	assert_non_null(strstr(err.hint, "--max-cpus"));
	assert_int_equal(sandbox_spec_cpus(&s, "2", NULL), 0);
	assert_int_equal(sandbox_spec_memory(&s, "1G", NULL), 0);
	assert_int_equal(sandbox_spec_check(&s, &err), -ERR_USAGE);
	assert_int_equal(sandbox_spec_memory(&s, "256M", NULL), 0);
	assert_int_equal(sandbox_spec_check(&s, NULL), 0);
	s.huge_pages = strdup("on");
	assert_int_equal(sandbox_spec_check(&s, &err), -ERR_USAGE);
	assert_non_null(strstr(err.msg, "huge pages"));
	assert_int_equal(sandbox_spec_memory(&s, "512M", NULL), 0);
	assert_int_equal(sandbox_spec_init_arg(&s, "--debug", NULL), 0);
	assert_int_equal(sandbox_spec_init_env(&s, "container=vm", NULL), 0);
	assert_int_equal(sandbox_spec_check(&s, &err), -ERR_USAGE);
	assert_int_equal(sandbox_spec_init_program(&s, "sbin/init", &err), -ERR_USAGE);
	assert_int_equal(sandbox_spec_init_program(&s, "auto", NULL), 0);
	assert_int_equal(sandbox_spec_init_program(&s, "/sbin/init", NULL), 0);
	assert_int_equal(sandbox_spec_check(&s, &err), -ERR_USAGE);
	assert_non_null(strstr(err.msg, "restricted"));
	assert_int_equal(sandbox_spec_security(&s, "default", NULL), 0);
	assert_int_equal(sandbox_spec_check(&s, NULL), 0);
	sandbox_spec_done(&s);
}

static void names(void **state)
{
	char longest[130], random[16], host[SANDBOX_HOSTNAME_MAX + 1];
	static const char *const good[] = {"a", "0", "a.b_c-d", "msb-00ff"};
	static const char *const bad[] = {"",	".a",  "-a",	   "_a", "a/b",
					  "..", "a b", "\xc3\xa9", "a\n"};
	struct sandbox_spec s;
	struct err err = ERR_INIT;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_int_equal(sandbox_name_check(good[i], NULL), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(sandbox_name_check(bad[i], &err), -ERR_USAGE);
	memset(longest, 'a', sizeof(longest));
	longest[129] = '\0';
	assert_int_equal(sandbox_name_check(longest, &err), -ERR_USAGE);
	longest[128] = '\0';
	assert_int_equal(sandbox_name_check(longest, NULL), 0);

	assert_int_equal(sandbox_name_random(random, NULL), 0);
	assert_int_equal(strlen(random), 12);
	assert_int_equal(strncmp(random, "msb-", 4), 0);

	sandbox_spec_init(&s);
	sandbox_hostname(&s, "my_box.", host);
	assert_string_equal(host, "my-box");
	sandbox_hostname(&s, longest, host);
	assert_int_equal(strlen(host), SANDBOX_HOSTNAME_MAX);
	s.hostname = strdup("given");
	sandbox_hostname(&s, "name", host);
	assert_string_equal(host, "given");
	sandbox_spec_done(&s);
}

static void checks(void **state)
{
	static const struct {
		size_t at;
		const char *text;
	} bad[] = {
		{offsetof(struct sandbox_spec, workdir), "relative"},
		{offsetof(struct sandbox_spec, user), ":1"},
		{offsetof(struct sandbox_spec, hostname), "-x"},
		{offsetof(struct sandbox_spec, hostname), "a b"},
		{offsetof(struct sandbox_spec, name), "a/b"},
	};

	struct sandbox_spec no_entrypoint;

	(void)state;
	sandbox_spec_init(&no_entrypoint);
	assert_int_equal(sandbox_spec_entrypoint(&no_entrypoint, "", NULL), 0);
	assert_int_equal(sandbox_spec_check(&no_entrypoint, NULL), -ERR_USAGE);
	sandbox_spec_done(&no_entrypoint);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct sandbox_spec s;
		struct err err = ERR_INIT;

		sandbox_spec_init(&s);
		assert_int_equal(sandbox_spec_check(&s, NULL), 0);
		*(char **)((char *)&s + bad[i].at) = strdup(bad[i].text);
		assert_int_equal(sandbox_spec_check(&s, &err), -ERR_USAGE);
		assert_true(err.hint[0]);
		sandbox_spec_done(&s);
	}
}

static void bootstrap_says_it_all(void **state)
{
	struct image_config image = image_of(none, none);
	struct sandbox_spec s;
	struct sandbox_command c;
	struct buf b = BUF_INIT;
	struct frame f;
	struct envelope e;
	struct msg_bootstrap m = {0};
	const struct boot_env *env;
	const struct exec_rlimit *limit;

	(void)state;
	sandbox_spec_init(&s);
	assert_int_equal(sandbox_spec_rlimit(&s, "nofile=7:unlimited", NULL), 0);
	assert_int_equal(sandbox_spec_env(&s, "K=a=b", NULL), 0);
	assert_int_equal(sandbox_command_resolve(&s, &image, NULL, 0, &c, NULL), 0);
	assert_int_equal(sandbox_bootstrap(&s, "box", &(struct sandbox_source){0}, &c, false, true,
					   &b, NULL),
			 0);
	assert_int_equal(frame_peek(&b, &f, NULL), 1);
	assert_int_equal(frame_open(&f, &e, NULL), 0);
	assert_ptr_equal(e.type, &msg_types[MSG_BOOTSTRAP]);
	assert_true(frame_payload(&e, &m, NULL) >= 0);
	assert_string_equal(m.hostname, "box");
	assert_string_equal(m.user, "app");
	assert_string_equal(m.default_cwd, "/srv");
	assert_int_equal(m.block_root.kind, BOOT_ROOT_OCI_EROFS);
	assert_string_equal(m.block_root.lower, "serial:msb-root");
	assert_string_equal(m.block_root.upper.device, "serial:msb-upper");
	env = m.default_env.v;
	assert_int_equal(m.default_env.n, 3);
	assert_string_equal(env[2].key, "K");
	assert_string_equal(env[2].value, "a=b");
	limit = m.rlimits.v;
	assert_int_equal(m.rlimits.n, 1);
	assert_int_equal(limit->soft, 7);
	assert_true(limit->hard == UINT64_MAX);
	msg_free(MSG_BOOTSTRAP, &m);

	buf_reset(&b);
	assert_int_equal(sandbox_spec_root(&s, "tmpfs", NULL), 0);
	assert_int_equal(sandbox_bootstrap(&s, "box", &(struct sandbox_source){0}, &c, false, true,
					   &b, NULL),
			 0);
	assert_int_equal(frame_peek(&b, &f, NULL), 1);
	assert_int_equal(frame_open(&f, &e, NULL), 0);
	assert_true(frame_payload(&e, &m, NULL) >= 0);
	assert_int_equal(m.block_root.upper.kind, BOOT_UPPER_TMPFS);
	assert_int_equal(m.block_root.upper.size_mib, 256);
	msg_free(MSG_BOOTSTRAP, &m);
	buf_done(&b);
	sandbox_command_done(&c);
	sandbox_spec_done(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(command_follows_oci),
		cmocka_unit_test(sandbox_overrides_image),
		cmocka_unit_test(text_must_be_utf8),
		cmocka_unit_test(env_from_host),
		cmocka_unit_test(sizes),
		cmocka_unit_test(rlimits),
		cmocka_unit_test(labels),
		cmocka_unit_test(limits_and_init),
		cmocka_unit_test(names),
		cmocka_unit_test(checks),
		cmocka_unit_test(bootstrap_says_it_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
