/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include <jansson.h>

#include "base/cleanup.h"
#include "project/project.h"

static int load(const char *text, struct project *p, struct err *err)
{
	cleanup_conf_file struct conf_file f = {0};
	int r = conf_parse_yaml("Sandboxfile", "/dir", text, strlen(text), &f, err);

	*p = (struct project){0};
	return r < 0 ? r : project_load_file(&f, NULL, p, err);
}

static void loads(const char *text, struct project *p)
{
	struct err err = ERR_INIT;

	if (load(text, p, &err) < 0)
		fail_msg("%s\n  said: %s", text, err.msg);
}

/* What is wrong with a file, where, and a word of the reason and of the hint. */
static void refuses(void **state)
{
	static const struct {
		const char *text, *at, *reason, *hint;
	} bad[] = {
		{"sandbxes:\n", "1:1", "there is no key \"sandbxes\"", "did you mean sandboxes?"},
		{"sandboxes: [a]\n", "1:12", "sandboxes: a map is expected", ""},
		{"sandboxes:\n  a:\n", "2:5", "a: a map is expected", ""},
		{"sandboxes:\n  a: {cpus: 1}\n", "2:3", "a: \"image\" is missing", ""},
		{"sandboxes:\n  ../x: {image: y}\n", "2:3", "name", ""},
		{"sandboxes:\n  a:\n    image: x\n    memroy: 1G\n", "4:5", "\"memroy\"",
		 "did you mean memory?"},
		{"sandboxes:\n  a:\n    image: x\n    depend_on: [b]\n", "4:5", "\"depend_on\"",
		 "did you mean depends_on?"},
		{"sandboxes:\n  a: {image: x}\n  a: {image: y}\n", "3:3", "twice", ""},
		{"sandboxes:\n  a: {image: x, cpus: 0}\n", "2:23", "CPUs", ""},
		{"sandboxes:\n  a: {image: x, cpus: two}\n", "2:23", "a whole number", ""},
		{"sandboxes:\n  a: {image: x, memory: 5Q}\n", "2:25", "not a size", ""},
		{"sandboxes:\n  a: {image: x, envs: [A]}\n", "2:24", "KEY=VALUE", ""},
		{"sandboxes:\n  a: {image: x, envs: {A: b}}\n", "2:23", "a list", ""},
		{"sandboxes:\n  a: {image: x, env_file: none.env}\n", "2:27", "/dir/none.env", ""},
		{"sandboxes:\n  a: {image: x, ports: [99999]}\n", "2:25", "99999", ""},
		{"sandboxes:\n  a: {image: x, scope: group}\n", "2:24", "network in common",
		 "host.microsandbox.internal"},
		{"sandboxes:\n  a: {image: x, scope: local}\n", "2:24", "none, public or any", ""},
		{"sandboxes:\n  a: {image: x, network: {scop: any}}\n", "2:27", "\"network.scop\"",
		 "did you mean scope?"},
		{"sandboxes:\n  a: {image: x, command: sh}\n", "2:26", "a list", ""},
		{"sandboxes:\n  a:\n    image: x\n    volumes:\n      - .:/src\n", "4:5", "volumes",
		 "patches"},
		{"sandboxes:\n  a:\n    image: x\n    imports: {a: ./b}\n", "4:5", "volumes", ""},
		{"sandboxes:\n  a: {image: x, version: 1.2}\n", "2:26", "a version", ""},
		{"sandboxes:\n  a: {image: x, depends_on: b}\n", "2:29", "a list", ""},
		{"sandboxes:\n  dbs: {image: x}\n  a: {image: x, depends_on: [db]}\n", "3:30",
		 "no sandbox \"db\"", "did you mean dbs?"},
		{"sandboxes:\n  a: {image: x, depends_on: [a]}\n", "2:30", "a -> a", ""},
		{"sandboxes:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [c]}\n"
		 "  c: {image: x, depends_on: [b]}\n",
		 "4:30", "b -> c -> b", "leave one of them out"},
		{"sandboxes:\n  a: {image: x, ready: {}}\n", "2:24", "exec", ""},
		{"sandboxes:\n  a: {image: x, ready: {tcp: http}}\n", "2:30", "a port", ""},
		{"sandboxes:\n  a: {image: x, ready: {tcp: 1, timeout: soon}}\n", "2:42",
		 "not a duration", ""},
		{"sandboxes:\n  a: {image: x, ready: {exce: [a]}}\n", "2:25", "\"ready.exce\"",
		 "did you mean exec?"},
		{"sandboxes:\n  a: {image: x, groups: [g]}\n", "2:26", "no group \"g\"",
		 "groups: {g: {}}"},
		{"groups: {g: {network: {subnet: 10.0.0.0/8}}}\n", "1:14", "no network", ""},
		{"groups: {g: {}}\nsandboxes:\n  a: {image: x, groups: {g: {volumes: {v: /v}}}}\n",
		 "3:30", "no volumes", ""},
		{"modules: {./other: {db: {as: x}}}\n", "1:1", "modules", "copy the entry"},
		{"meta: {autors: [x]}\n", "1:8", "\"meta.autors\"", "did you mean authors?"},
		{"sandboxes:\n  a: {image: x, steps: {a: b}}\n", "2:17", "builds", ""},
		{"builds:\n  a: {image: x, depends_on: [a]}\n", "2:30", "a -> a", ""},
		{"builds:\n  a: {image: x, depends_on: [other]}\nsandboxes: {other: {image: a}}\n",
		 "2:30", "no build \"other\"", "\"builds\""},
		{"image: x\nmemroy: 1\n", "2:1", "\"memroy\"", "did you mean memory?"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct project p;
		struct err err = ERR_INIT;
		char want[64];

		if (load(bad[i].text, &p, &err) == 0)
			fail_msg("taken: %s", bad[i].text);
		snprintf(want, sizeof(want), "Sandboxfile:%s: ", bad[i].at);
		if (strncmp(err.msg, want, strlen(want)) != 0 || !strstr(err.msg, bad[i].reason) ||
		    !strstr(err.hint, bad[i].hint))
			fail_msg("%s\n  said: %s\n  hint: %s\n  want: %s%s", bad[i].text, err.msg,
				 err.hint, want, bad[i].reason);
		assert_null(p.v);
	}
}

static void fills_the_model(void **state)
{
	cleanup_project struct project p = {0};
	const struct project_sandbox *s;

	(void)state;
	loads("meta: {authors: [A], description: b}\n"
	      "groups: {back: {version: '1'}}\n"
	      "sandboxes:\n"
	      "  all:\n"
	      "    image: ./rootfs\n"
	      "    memory: 700\n"
	      "    cpus: 3\n"
	      "    volumes: []\n"
	      "    ports: ['8080:80', 90, '53/udp']\n"
	      "    envs: [A=1, 'B=x y', A=2]\n"
	      "    workdir: /srv\n"
	      "    shell: /bin/ash\n"
	      "    scripts: {start: 'exec serve', test: 'true'}\n"
	      "    command: [python3, -m, http.server]\n"
	      "    scope: any\n"
	      "    version: 1.2.3-rc.1\n"
	      "    meta: {tags: [x]}\n"
	      "    groups: {back: {}}\n"
	      "    ready: {tcp: 80, timeout: 2m, interval: 100ms}\n",
	      &p);
	assert_string_equal(p.dir, "/dir");
	assert_string_equal(p.file, "/dir/Sandboxfile");
	assert_string_equal(p.config, "Sandboxfile");
	assert_int_equal(p.n, 1);
	s = project_get(&p, "all", false);
	assert_non_null(s);
	assert_string_equal(s->model.image, "/dir/./rootfs");
	assert_int_equal(s->model.spec.memory, 700u << 20);
	assert_int_equal(s->model.spec.cpus, 3);
	assert_int_equal(s->model.spec.ports.n, 3);
	assert_string_equal(s->model.spec.ports.v[1], "90:90");
	assert_string_equal(s->model.spec.ports.v[2], "53:53/udp");
	assert_int_equal(s->model.spec.env.n, 2);
	assert_string_equal(s->model.spec.env.v[0], "A=2");
	assert_string_equal(s->model.spec.env.v[1], "B=x y");
	assert_string_equal(s->model.spec.net, "all");
	assert_int_equal(s->model.spec.entrypoint.n, 1);
	assert_int_equal(s->model.cmd.n, 2);
	assert_true(project_has_script(s, "start") && project_has_script(s, "test"));
	assert_false(project_has_script(s, "shell"));
	assert_true(project_in_group(s, "back"));
	assert_int_equal(s->ready.tcp, 80);
	assert_int_equal(s->ready.timeout_ms, 120000);
	assert_int_equal(s->ready.interval_ms, 100);
}

static void orders(void **state)
{
	cleanup_project struct project p = {0};

	(void)state;
	loads("sandboxes:\n"
	      "  web: {image: x, depends_on: [api, db]}\n"
	      "  api: {image: x, depends_on: [db]}\n"
	      "  db: {image: x}\n"
	      "  alone: {image: x}\n"
	      "builds:\n"
	      "  web: {image: x, steps: {one: 'true', two: 'false'}, depends_on: [base]}\n"
	      "  base: {image: x}\n",
	      &p);
	assert_int_equal(p.n, 6);
	assert_int_equal(p.levels, 3);
	assert_int_equal(project_get(&p, "web", false)->level, 2);
	assert_int_equal(project_get(&p, "api", false)->level, 1);
	assert_int_equal(project_get(&p, "db", false)->level, 0);
	assert_int_equal(project_get(&p, "alone", false)->level, 0);
	assert_int_equal(project_get(&p, "web", true)->nsteps, 2);
	assert_int_equal(project_get(&p, "web", true)->level, 1);
	assert_int_equal(project_get(&p, "base", true)->level, 0);
	assert_string_equal(project_get(&p, "web", true)->steps[1].name, "two");
}

static void empty_and_single(void **state)
{
	static const char *const empty[] = {"", "sandboxes:\n", "# fresh\nsandboxes: {}\n"};
	cleanup_project struct project p = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(empty); i++) {
		loads(empty[i], &p);
		assert_int_equal(p.n, 0);
		project_done(&p);
	}
	loads("image: x\ncpus: 2\n", &p);
	assert_int_equal(p.n, 1);
	assert_string_equal(p.v[0].name, "Sandboxfile");
	assert_int_equal(p.v[0].model.spec.cpus, 2);
}

static void env_files(void **state)
{
	cleanup_project struct project p = {0};
	struct err err = ERR_INIT;
	cleanup_free char *yaml =
		str_fmt("sandboxes:\n  a:\n    image: x\n    env_file: %s\n    envs: [D=yaml]\n",
			scratch_path(state, "good.env"));
	cleanup_free char *bad = str_fmt("sandboxes:\n  a: {image: x, env_file: [%s]}\n",
					 scratch_path(state, "bad.env"));
	const char good[] = "# comment\n\nA=1\n export B=\"two words\"\r\nC='x\"y'\nD=file";

	assert_int_equal(io_write_file_atomic(scratch_path(state, "good.env"), good,
					      sizeof(good) - 1, 0600, NULL),
			 0);
	assert_int_equal(
		io_write_file_atomic(scratch_path(state, "bad.env"), "A=1\nB\n", 6, 0600, NULL), 0);
	loads(yaml, &p);
	assert_int_equal(p.v[0].model.spec.env.n, 4);
	assert_string_equal(p.v[0].model.spec.env.v[0], "A=1");
	assert_string_equal(p.v[0].model.spec.env.v[1], "B=two words");
	assert_string_equal(p.v[0].model.spec.env.v[2], "C=x\"y");
	assert_string_equal(p.v[0].model.spec.env.v[3], "D=yaml");
	project_done(&p);
	assert_true(load(bad, &p, &err) < 0);
	assert_non_null(strstr(err.msg, "bad.env:2: KEY=VALUE is expected"));
}

static void schema_has_all(void **state)
{
	cleanup_buf struct buf b = BUF_INIT;
	json_t *root, *keys;

	(void)state;
	assert_int_equal(project_schema(&b), 0);
	root = json_loadb((const char *)buf_ptr(&b), buf_size(&b), JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(root);
	keys = json_object_get(json_object_get(root, "properties"), "sandboxes");
	keys = json_object_get(json_object_get(keys, "additionalProperties"), "properties");
	for (size_t i = 0; i < nfields; i++) {
		if (fields[i].key && !strchr(fields[i].key, '.'))
			assert_non_null(json_object_get(keys, fields[i].key));
	}
	for (size_t i = 0; i < project_scope.nmore; i++) {
		if (!strchr(project_scope.more[i].key, '.'))
			assert_non_null(json_object_get(keys, project_scope.more[i].key));
	}
	json_decref(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refuses),
		cmocka_unit_test(fills_the_model),
		cmocka_unit_test(orders),
		cmocka_unit_test(empty_and_single),
		cmocka_unit_test_setup_teardown(env_files, scratch_setup, scratch_teardown),
		cmocka_unit_test(schema_has_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
