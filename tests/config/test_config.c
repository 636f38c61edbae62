/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include <errno.h>
#include <jansson.h>

#include "base/cleanup.h"
#include "config/global.h"
#include "config/load.h"
#include "config/schema.h"
#include "sandbox/patch.h"

static const char *const head = "t.yaml";

static int parse(bool json, const char *text, struct conf_file *f, struct err *err)
{
	*f = (struct conf_file){0};
	return (json ? conf_parse_json : conf_parse_yaml)(head, "/dir", text, strlen(text), f, err);
}

/* What is wrong with a file, where, and a word of the reason. */
struct bad {
	const char *text, *at, *reason;
};

static void refuses(bool json, const struct bad *bad, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct conf_file f;
		struct err err = ERR_INIT;
		char want[64];

		if (parse(json, bad[i].text, &f, &err) == 0)
			fail_msg("taken: %s", bad[i].text);
		snprintf(want, sizeof(want), "t.yaml:%s: ", bad[i].at);
		if (strncmp(err.msg, want, strlen(want)) != 0 || !strstr(err.msg, bad[i].reason))
			fail_msg("%s\n  said: %s\n  want: %s%s", bad[i].text, err.msg, want,
				 bad[i].reason);
		assert_null(f.root);
	}
}

static void yaml_refuses(void **state)
{
	static const struct bad bad[] = {
		{"a: 1\nb: 2\na: 3\n", "3:1", "\"a\" is there twice, first in line 1"},
		{"a: &x 1\n", "1:4", "anchors (&x)"},
		{"a: *x\n", "1:4", "aliases (*x)"},
		{"a: {b: 1}\nc:\n  <<: 5\n", "3:3", "merge keys"},
		{"a: !!str 5\n", "1:4", "tags"},
		{"a: !own 5\n", "1:4", "tags"},
		{"a: 1\n---\nb: 2\n", "2:1", "second document"},
		{"a: [1, 2\nb: 3\n", "2:2", ""},
		{"a:\n\t- b\n", "2:1", "cannot start any token"},
		{"? [a]\n: b\n", "1:3", "key must be a text"},
		{"a: \"x\\0y\"\n", "1:4", "NUL"},
		{"\"a\\0\": y\n", "1:1", "key with a NUL"},
		{"a: ok\nb: \xff\n", "2:4", "UTF-8"},
		{"a: ok\nb: \x01\n", "2:4", "control characters"},
		{"\xff\xfe"
		 "a",
		 "1:1", "UTF-8"},
		{"a: ${CONF_TEST_UNSET}\n", "1:4", "CONF_TEST_UNSET is not set"},
		{"a:\n  - x${}\n", "2:5", "${"},
		{"a: x${HOME\n", "1:4", "${"},
		{"a: x${1X}\n", "1:4", "${"},
	};
	struct conf_file f;
	struct err err = ERR_INIT;
	char deep[400] = "";

	(void)state;
	unsetenv("CONF_TEST_UNSET");
	refuses(false, bad, ARRAY_SIZE(bad));
	for (int i = 0; i < 65; i++)
		strcat(deep, "[");
	for (int i = 0; i < 65; i++)
		strcat(deep, "]");
	refuses(false, &(struct bad){deep, "1:65", "64 levels"}, 1);
	refuses(true, &(struct bad){deep, "1:65", "64 levels"}, 1);
	/* One level less is fine. */
	deep[64] = '\0';
	strcat(deep, "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]");
	assert_int_equal(parse(false, deep, &f, &err), 0);
	conf_file_done(&f);
	assert_int_equal(parse(true, deep, &f, &err), 0);
	conf_file_done(&f);
}

/* What is too much of anything, with a place where that can be said. */
static void ceilings(void **state)
{
	const size_t big = CONF_BYTES_MAX + 1;
	struct conf_file f = {0};
	struct err err = ERR_INIT;
	char *text = malloc(big + 64), *p = text;

	(void)state;
	assert_non_null(text);
	/* One scalar as large as a file may be, and a file that is larger. */
	memset(text, 'x', big);
	memcpy(text, "a: ", 3);
	assert_int_equal(conf_parse_yaml(head, "/", text, CONF_BYTES_MAX, &f, &err), 0);
	assert_int_equal(strlen(conf_get(f.root, "a")->text), CONF_BYTES_MAX - 3);
	conf_file_done(&f);
	for (int json = 0; json < 2; json++) {
		err_clear(&err);
		assert_int_equal((json ? conf_parse_json : conf_parse_yaml)(head, "/", text, big,
									    &f, &err),
				 -ERR_LIMIT);
		assert_string_equal(err.msg, "t.yaml: more than 16 MiB");
	}
	/* More values than are counted; the list itself is one. */
	*p++ = '[';
	for (unsigned i = 0; i < CONF_NODES_MAX; i++)
		p += snprintf(p, 4, "%s1", i ? "," : "");
	*p++ = ']';
	for (int json = 0; json < 2; json++) {
		err_clear(&err);
		assert_true((json ? conf_parse_json : conf_parse_yaml)(
				    head, "/", text, (size_t)(p - text), &f, &err) < 0);
		assert_string_equal(err.msg, "t.yaml:1:200000: more than 100000 values");
	}
	/* What a variable brings counts as well. */
	memset(text, 'x', 1 << 20);
	text[1 << 20] = '\0';
	setenv("CONF_TEST", text, 1);
	p = text + sprintf(text, "a: ");
	for (int i = 0; i < 17; i++)
		p += sprintf(p, "${CONF_TEST}");
	err_clear(&err);
	assert_true(conf_parse_yaml(head, "/", text, (size_t)(p - text), &f, &err) < 0);
	assert_string_equal(err.msg, "t.yaml:1:4: more than 16 MiB of text");
	unsetenv("CONF_TEST");
	free(text);
}

static void json_refuses(void **state)
{
	static const struct bad bad[] = {
		{"", "1:1", "the file ends where a value"},
		{"{\"a\": 1,\n \"b\": 2,\n \"a\": 3}", "3:2", "twice, first in line 1"},
		{"{\"a\": 1,}", "1:9", "'}' where a text in double quotes"},
		{"[1 2]", "1:4", "'2' where ',' or ']'"},
		{"{\"a\" 1}", "1:6", "':'"},
		{"[01]", "1:2", "a value"},
		{"[1.]", "1:2", "a value"},
		{"[-]", "1:2", "a value"},
		{"[yes]", "1:2", "a value"},
		{"[\"a\nb\"]", "1:4", "0x0a"},
		{"[\"\\x\"]", "1:4", "one of"},
		{"[\"\\ud800\"]", "1:9", "half of a pair"},
		{"[\"\\u00zz\"]", "1:7", "hexadecimal"},
		{"[\"\\u\020000\"]", "1:5", "hexadecimal"},
		{"[\"\xc0\x80\"]", "1:3", "0xc0"},
		{"[\"\xed\xa0\x80\"]", "1:3", "0xed"},
		{"[\"\\u0000\"]", "1:2", "NUL"},
		{"{\"\\u0000\":1}", "1:2", "NUL"},
		{"[1] x", "1:5", "the end of the file"},
		{"// no\n1", "1:1", "a value"},
		{"[\"\xc3\xa4\", x]", "1:7", "a value"},
	};

	(void)state;
	refuses(true, bad, ARRAY_SIZE(bad));
}

static void values(void **state)
{
	struct conf_file f;
	const struct conf_node *n;

	(void)state;
	setenv("CONF_TEST", "a value", 1);
	assert_int_equal(parse(false,
			       "a: no\nb: \"\"\nc: ~\nd: [1.0, 0x10]\ne: |\n  x\n  y\n"
			       "f: \"${CONF_TEST}\"\ng: a$b$${CONF_TEST}-${CONF_TEST}$\nh: null\n",
			       &f, NULL),
			 0);
	n = conf_get(f.root, "a");
	assert_string_equal(n->text, "no");
	assert_int_equal(n->at.line, 1);
	assert_int_equal(n->at.column, 4);
	assert_int_equal(conf_get(f.root, "b")->kind, CONF_TEXT);
	assert_true(conf_get(f.root, "b")->quoted);
	assert_int_equal(conf_get(f.root, "c")->kind, CONF_NULL);
	assert_int_equal(conf_get(f.root, "h")->kind, CONF_NULL);
	assert_string_equal(conf_get(f.root, "d")->first->text, "1.0");
	assert_string_equal(conf_get(f.root, "e")->text, "x\ny\n");
	assert_string_equal(conf_get(f.root, "f")->text, "a value");
	assert_false(conf_get(f.root, "f")->quoted);
	assert_string_equal(conf_get(f.root, "g")->text, "a$b${CONF_TEST}-a value$");
	assert_null(conf_get(f.root, "i"));
	conf_file_done(&f);

	assert_int_equal(
		parse(true,
		      " {\"a\": [1, -2.5e+3, true, null],\n  \"\\u00e4\\ud83d\\ude00\\/\": "
		      "\"x\\n\"} ",
		      &f, NULL),
		0);
	n = conf_get(f.root, "a")->first;
	assert_string_equal(n->next->text, "-2.5e+3");
	assert_false(n->quoted);
	assert_string_equal(n->next->next->text, "true");
	assert_int_equal(n->next->next->next->kind, CONF_NULL);
	n = conf_get(f.root, "\xc3\xa4\xf0\x9f\x98\x80/");
	assert_non_null(n);
	assert_string_equal(n->text, "x\n");
	assert_int_equal(n->name.line, 2);
	assert_int_equal(n->name.column, 3);
	conf_file_done(&f);

	/* An empty file says nothing. */
	assert_int_equal(parse(false, "# nothing\n", &f, NULL), 0);
	assert_int_equal(f.root->kind, CONF_NULL);
	conf_file_done(&f);
}

/* ---- the model ---- */

static int load(struct model *m, const char *opt, const char *text, struct err *err)
{
	cleanup_conf_file struct conf_file f = {0};
	int r = parse(false, text, &f, err);

	for (size_t i = 0; i < nconf_scopes && r == 0; i++) {
		if (str_eq(conf_scopes[i].opt, opt))
			return conf_load_file(&conf_scopes[i], &f, m, err);
	}
	return r < 0 ? r : -ENOENT;
}

static void fills(void **state)
{
	static const char text[] =
		"image: ./rootfs\n"
		"cmd: [serve, --now]\n"
		"cpus: 2\n"
		"memory: 1G\n"
		"root_disk: tmpfs:256M\n"
		"entrypoint: [/bin/app, -x]\n"
		"user: 1000\n"
		"env: {A: no, B: \"2\"}\n"
		"labels:\n  team: core\n"
		"rlimits:\n  - {resource: nofile, soft: 10, hard: 20}\n  - cpu=5\n"
		"kernel: boot/vmlinux\n"
		"engine: qemu\n"
		"pull_policy: if-missing\n"
		"patches:\n  - copy_file: {src: a.conf, dst: /etc/a.conf}\n"
		"  - mkdir: {path: /data}\n  - remove: {path: /x}\n"
		"scripts:\n  hi: |\n    echo hi\n";
	cleanup_model struct model m = {0};
	struct err err = ERR_INIT;

	(void)state;
	model_init(&m);
	if (load(&m, "conf", text, &err) < 0)
		fail_msg("%s", err.msg);
	assert_string_equal(m.image, "/dir/./rootfs");
	assert_int_equal(m.cmd.n, 2);
	assert_string_equal(m.cmd.v[1], "--now");
	assert_int_equal(m.spec.cpus, 2);
	assert_int_equal(m.spec.memory, 1u << 30);
	assert_int_equal(m.spec.root, SANDBOX_ROOT_TMPFS);
	assert_int_equal(m.spec.entrypoint.n, 2);
	assert_string_equal(m.spec.entrypoint.v[1], "-x");
	assert_string_equal(m.spec.user, "1000");
	assert_string_equal(m.spec.env.v[0], "A=no");
	assert_string_equal(m.spec.labels.v[0], "team=core");
	assert_int_equal(m.spec.nrlimits, 2);
	assert_int_equal(m.spec.rlimits[0].hard, 20);
	assert_string_equal(m.spec.kernel, "/dir/boot/vmlinux");
	assert_string_equal(m.spec.engine, "qemu");
	assert_int_equal(m.spec.npatches, 4);
	assert_string_equal(m.spec.patches[0].src, "/dir/a.conf");
	assert_int_equal(m.spec.patches[2].kind, SANDBOX_RM);
	assert_string_equal(m.spec.patches[3].src, "echo hi\n");
	assert_string_equal(m.said[0].from, "t.yaml:1");

	/* Another file: lists and values are replaced, maps joined. Options add to lists. */
	assert_int_equal(load(&m, "conf",
			      "cpus: 3\nenv: {B: x, C: y}\nrlimits: [core=1]\n"
			      "patches: [{mkdir: {path: /only}}]\nscripts: {ho: x}\n"
			      "entrypoint: sh\ncmd: [one]\n",
			      &err),
			 0);
	assert_int_equal(m.spec.cpus, 3);
	assert_int_equal(m.spec.env.n, 3);
	assert_string_equal(m.spec.env.v[1], "B=x");
	assert_int_equal(m.spec.nrlimits, 1);
	assert_int_equal(m.spec.entrypoint.n, 1);
	assert_int_equal(m.cmd.n, 1);
	assert_int_equal(m.spec.npatches, 3); /* two scripts */
	assert_int_equal(field_set(field_by_opt("rlimit"), &m, "nofile=9", "command line", &err),
			 0);
	assert_int_equal(m.spec.nrlimits, 2);
	for (size_t i = 0; i < m.nsaid; i++)
		assert_string_not_equal(m.said[i].text, "/data");
}

static void list_is(const struct strv *v, const char *want)
{
	char have[512] = "";

	for (size_t i = 0; i < v->n; i++)
		snprintf(have + strlen(have), sizeof(have) - strlen(have), "%s%s", i ? " " : "",
			 v->v[i]);
	assert_string_equal(have, want);
}

static void by_hand(struct model *m, const char *opt, const char *text)
{
	assert_int_equal(field_set(field_by_opt(opt), m, text, SAID_BY_HAND, NULL), 0);
}

/* Which rules a file's network has, and in which order. */
static void network(void **state)
{
	static const char text[] = "ports: [\"1:1\"]\n"
				   "network:\n"
				   "  allow: [10.0.0.0/8, \"any@host:tcp:80\"]\n"
				   "  deny: [10.1.0.0/16]\n"
				   "  policy: public\n"
				   "  rules: [allow@meta]\n"
				   "  ports: [\"2:2/udp\"]\n"
				   "  max_connections: 9\n"
				   "  egress_bandwidth: 10M/1s\n";
	cleanup_model struct model m = {0}, n = {0};
	struct err err = ERR_INIT;

	(void)state;
	model_init(&m);
	if (load(&m, "conf", text, &err) < 0)
		fail_msg("%s", err.msg);
	by_hand(&m, "net-rule", "deny@1.1.1.1");
	list_is(&m.spec.net_rules, "deny@1.1.1.1 allow@meta deny@10.1.0.0/16 allow@10.0.0.0/8 "
				   "allow:any@host:tcp:80");
	/* What is allowed so is all. */
	assert_string_equal(m.spec.net, "none");
	list_is(&m.spec.ports, "1:1 2:2/udp");
	list_is(&m.spec.net_limits, "max-connections=9 egress-bandwidth=10M/1s");
	assert_int_equal(sandbox_spec_check(&m.spec, &err), 0);
	/* Another file: lists are replaced, each by its own. */
	assert_int_equal(load(&m, "net-conf", "allow: []\nports: [\"3:3\"]\n", &err), 0);
	assert_string_equal(m.spec.net, "public");
	list_is(&m.spec.ports, "1:1 3:3");
	assert_int_equal(load(&m, "conf", "network: open\n", &err), 0);
	assert_string_equal(m.spec.net, "all");
	by_hand(&m, "net", "private");
	assert_string_equal(m.spec.net, "private");
	/* One more by hand is added to it. */
	by_hand(&m, "net", "host");
	assert_string_equal(m.spec.net, "private,host");
	by_hand(&m, "net-default-ingress", "deny");
	assert_int_equal(sandbox_spec_check(&m.spec, &err), 0);
	by_hand(&m, "net-default-egress", "deny");
	assert_int_equal(sandbox_spec_check(&m.spec, &err), -ERR_USAGE);
	/* And none is no part of a sum. */
	assert_int_equal(field_set(field_by_opt("net"), &m, "none", SAID_BY_HAND, NULL),
			 -ERR_USAGE);

	model_init(&n);
	by_hand(&n, "net-default", "deny");
	assert_string_equal(n.spec.net_ingress, "deny");
	assert_int_equal(load(&n, "net-conf", "allow: [any]\ndefault_egress: allow\n", &err), 0);
	assert_null(n.spec.net);
	assert_string_equal(n.spec.net_egress, "allow");
	by_hand(&n, "net-egress-ops-burst", "5");
	assert_int_equal(sandbox_spec_check(&n.spec, &err), -ERR_USAGE);
	by_hand(&n, "net-egress-ops", "5");
	by_hand(&n, "port", "1000-1511:1-512");
	by_hand(&n, "port", "0:1-512/udp");
	assert_int_equal(sandbox_spec_check(&n.spec, &err), 0);
	by_hand(&n, "port", "0:1");
	assert_int_equal(sandbox_spec_check(&n.spec, &err), -ERR_LIMIT);
}

static void refuses_in_words(void **state)
{
	static const struct {
		const char *opt, *text, *said, *hint;
	} bad[] = {
		{"conf", "memroy: 1G\n", "t.yaml:1:1: there is no key \"memroy\"",
		 "did you mean memory?"},
		{"conf", "x: 1\n", "t.yaml:1:1: there is no key \"x\"", "msb schema"},
		{"conf", "[1]\n", "t.yaml:1:1: this file: a map is expected, not a list", ""},
		{"conf", "cpus: [1]\n", "t.yaml:1:7: cpus: a whole number is expected, not a list",
		 ""},
		{"conf", "cpus: \"2\"\n",
		 "t.yaml:1:7: cpus: a whole number is expected, not \"2\" in quotes", ""},
		{"conf", "cpus: 1.5\n", "cpus: a whole number is expected, not \"1.5\"", ""},
		{"conf", "cpus: 0\n", "t.yaml:1:7: cpus: \"0\" is not a number of CPUs", "between"},
		{"conf", "memory: lots\n", "t.yaml:1:9: memory: ", ""},
		{"conf", "user:\n", "t.yaml:1:6: user: a text is expected, not nothing", ""},
		{"conf", "engine: steam\n", "t.yaml:1:9: engine: there is no engine \"steam\"",
		 "auto, kvm, qemu"},
		{"conf", "env: [A=b]\n", "t.yaml:1:6: env: a map of names", ""},
		{"conf", "env:\n  A:\n", "t.yaml:2:5: env.A: a text is expected, not nothing",
		 "${NAME}"},
		{"conf", "env: {\"A=B\": c}\n", "t.yaml:1:7: env.A=B: this is not a name", ""},
		{"conf", "cmd: ls\n", "t.yaml:1:6: cmd: a list is expected", ""},
		{"conf", "cmd: [ls, [x]]\n", "t.yaml:1:11: cmd[1]: a text is expected, not a list",
		 ""},
		{"conf", "rlimits:\n- {resource: nofile}\n",
		 "t.yaml:2:3: rlimits[0]: \"soft\" is missing", ""},
		{"conf", "rlimits:\n- {resource: nofile, sotf: 1}\n",
		 "t.yaml:2:22: there is no key \"rlimits[0].sotf\"", "did you mean soft?"},
		{"conf", "rlimits: [x=1]\n", "t.yaml:1:11: rlimits[0]: there is no resource", ""},
		{"conf", "patches: [{mkdri: {path: /x}}]\n", "there is no key \"patches[0].mkdri\"",
		 "did you mean mkdir?"},
		{"conf", "patches: [{text: {path: /x}}]\n",
		 "t.yaml:1:18: patches[0].text: \"content\" is missing", ""},
		{"conf", "patches: [{text: {path: /x, content: y, mode: 644}}]\n",
		 "t.yaml:1:47: patches[0].text: a mode in octal digits is expected, not \"644\"",
		 "\"0644\""},
		{"conf", "patches: [{mkdir: {path: /x, mode: \"0888\"}}]\n", "a mode in octal", ""},
		{"conf", "patches: [{mkdir: {path: /x, replace: true}}]\n",
		 "there is no key \"patches[0].mkdir.replace\"", ""},
		{"conf", "patches: [{copy: {src: a, dst: /x, mode: \"0644\"}}]\n",
		 "there is no key \"patches[0].copy.mode\"", ""},
		{"conf", "patches: [{symlink: {link: /x, target: y, replace: yes}}]\n",
		 "patches[0].symlink: true or false is expected, not \"yes\"", ""},
		{"conf", "patches: [{symlink: {link: /x, target: \"\"}}]\n",
		 "t.yaml:1:21: patches[0].symlink: a link must lead", ""},
		{"conf", "patches: [{file: {path: /x, content_base64: \"a\"}}]\n",
		 "t.yaml:1:45: patches[0].file: this is not base64", ""},
		{"conf", "patches: [{append: {path: /x/../y, content: a}}]\n", "contains \"..\"",
		 ""},
		{"conf", "patches: [text]\n", "t.yaml:1:11: patches[0]: a map with one key", ""},
		{"conf", "registry: {username: me, password: x}\n",
		 "there is no key \"registry.password\"", "msb schema"},
		{"conf", "registry: me\n", "t.yaml:1:11: registry: a map is expected", ""},
		{"conf", "registry: {password_env: \"A=b\"}\n", "no name of a variable", ""},
		{"conf", "entrypoint: []\n", "t.yaml:1:13: entrypoint: a program, or a list", ""},
		{"conf", "entrypoint: [a, [b]]\n", "t.yaml:1:13: entrypoint: a program, or a list",
		 ""},
		{"conf", "patches: [{mkdir: {}}]\n", "patches[0].mkdir: \"path\" is missing", ""},
		{"conf", "patches: [{mkdir: {path: x}}]\n", "patches[0].mkdir: the path \"x\"", ""},
		{"conf", "image: {oci: a, disk: b}\n", "image: one of", ""},
		{"conf", "image: {bind: a, fstype: ext4}\n", "\"fstype\"", ""},
		{"conf", "image: {snapshot: a}\n", "snapshots are not there yet", ""},
		{"conf", "description: x\n", "t.yaml:1:1: description: there is nothing", ""},
		{"conf", "network:\n  profiles: nobody\n", "there is no network profile", "public"},
		{"conf", "network: nobody\n", "t.yaml:1:10: network: there is no", "public"},
		{"conf", "network: [a]\n", "network: a map is expected, not a list", ""},
		{"conf", "network: {policy: [a]}\n", "network.policy: a text is expected", ""},
		{"conf", "network: {deny: [nowhere]}\n", "network.deny[0]: ", "domain=nowhere"},
		{"conf", "network: {alow: [any]}\n", "there is no key \"network.alow\"",
		 "did you mean allow?"},
		{"conf", "network: {default: maybe}\n", "network.default: ", "allow or deny"},
		{"conf", "network: {tls: {}}\n", "network.tls: looking into TLS", ""},
		{"conf", "network: {egress_ops: fast}\n", "network.egress_ops: ", "1000/1s"},
		{"net-conf", "cpus: 1\n", "there is no key \"network.cpus\"", ""},
		{"conf", "ports: [\"80-90:80-91\"]\n", "11 ports of this host", ""},
		{"conf", "sandboxes: {}\n", "t.yaml:1:1: sandboxes: this file describes one", ""},
		{"conf", "name: x\n", "t.yaml:1:1: name: ", ""},
		{"resource-conf", "env: {A: b}\n", "does not belong into a file of --resource-conf",
		 "--conf"},
		{"script-conf", "- x\n", "t.yaml:1:1: scripts: a map of names", ""},
		{"script-conf", "a/b: x\n", "t.yaml:1:6: scripts.a/b: ", ""},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		cleanup_model struct model m = {0};
		struct err err = ERR_INIT;

		model_init(&m);
		if (load(&m, bad[i].opt, bad[i].text, &err) == 0)
			fail_msg("taken: %s", bad[i].text);
		if (!strstr(err.msg, bad[i].said) || !strstr(err.hint, bad[i].hint))
			fail_msg("%s\n  said: %s (%s)\n  want: %s (%s)", bad[i].text, err.msg,
				 err.hint, bad[i].said, bad[i].hint);
		if (strncmp(err.msg, "t.yaml:", 7) != 0)
			fail_msg("no position: %s", err.msg);
	}
}

static void scopes(void **state)
{
	cleanup_model struct model m = {0};
	struct err err = ERR_INIT;

	(void)state;
	model_init(&m);
	assert_int_equal(load(&m, "resource-conf", "cpus: 4\nrlimits: [nofile=3]\n", &err), 0);
	assert_int_equal(load(&m, "runtime-conf", "workdir: /w\nenv: {A: b}\n", &err), 0);
	assert_int_equal(load(&m, "fs-conf", "patches: [{remove: {path: /x}}]\n", &err), 0);
	assert_int_equal(load(&m, "script-conf", "go: \"echo \\\\n\"\n", &err), 0);
	assert_int_equal(m.spec.cpus, 4);
	assert_string_equal(m.spec.workdir, "/w");
	assert_int_equal(m.spec.npatches, 2);
	assert_string_equal(m.spec.patches[1].src, "echo \\n");
}

/* Whatever a file says about a patch, and the same in one line. */
static void patches(void **state)
{
	cleanup_model struct model m = {0};
	const struct sandbox_patch *p;
	struct err err = ERR_INIT;

	(void)state;
	model_init(&m);
	assert_int_equal(load(&m, "conf",
			      "patches:\n"
			      "  - text: {path: /t, content: \"a\\nb\", mode: \"0600\", replace: "
			      "true}\n"
			      "  - file: {path: /f, content_base64: AAEC}\n"
			      "  - append: {path: /a, content: \"\"}\n"
			      "  - symlink: {target: ../x, link: /l}\n"
			      "  - copy_file: {src: f, dst: /c, mode: \"4755\"}\n"
			      "  - mkdir: {path: /d, mode: 0700}\n",
			      NULL),
			 0);
	assert_int_equal(m.spec.npatches, 6);
	p = m.spec.patches;
	assert_int_equal(p[0].kind, SANDBOX_TEXT);
	assert_string_equal(p[0].src, "a\nb");
	assert_int_equal(p[0].mode, 0600);
	assert_true(p[0].replace);
	assert_int_equal(p[1].len, 3);
	assert_memory_equal(p[1].src, "\0\1\2", 3);
	assert_int_equal(p[1].mode, SANDBOX_PATCH_MODE_NONE);
	assert_int_equal(p[2].len, 0);
	assert_string_equal(p[3].src, "../x");
	assert_string_equal(p[4].src, "/dir/f");
	assert_int_equal(p[4].mode, 04755);
	assert_int_equal(p[5].mode, 0700);
	assert_string_equal(m.said[4].text, "copy_file /dir/f:/c");
	assert_string_equal(m.said[4].from, "t.yaml:6");

	/* Options add. */
	assert_int_equal(field_set(field_by_opt("patch"), &m,
				   "{text: {path: /v, content: \"${HOME} $${X}\"}}", "command line",
				   &err),
			 0);
	assert_int_equal(m.spec.npatches, 7);
	assert_string_equal(m.spec.patches[6].src, "${HOME} $${X}");
	assert_true(field_set(field_by_opt("patch"), &m, "{txt: {}}", "command line", &err) < 0);
	assert_non_null(strstr(err.msg, "there is no key \"txt\""));
	assert_non_null(strstr(err.hint, "text"));
	assert_int_equal(m.spec.npatches, 7);

	assert_int_equal(
		field_set(field_by_opt("entrypoint"), &m, "[sh, \"-c\", \"a b\"]", "x", &err), 0);
	assert_int_equal(m.spec.entrypoint.n, 3);
	assert_string_equal(m.spec.entrypoint.v[2], "a b");
	assert_int_equal(field_set(field_by_opt("entrypoint"), &m, "[", "x", &err), 0);
	assert_int_equal(m.spec.entrypoint.n, 1);
	assert_true(field_set(field_by_opt("entrypoint"), &m, "[[a]]", "x", &err) < 0);
}

/* Each row can be reached from a file, or says why not; and from the command line, or is a file's.
 */
static void rows(void **state)
{
	(void)state;
	for (size_t i = 0; i < nfields; i++) {
		const struct field *f = &fields[i];
		const char *what = f->opt ? f->opt : f->key;

		if (!f->key == !f->why)
			fail_msg("%s: a key, or a reason why it has none", what);
		if (!f->help || !f->arg)
			fail_msg("%s: no help", what);
		if (f->opt && f->kind == FIELD_LIST && f->key && !f->clear && !f->after)
			fail_msg("%s: files replace lists, and this one cannot be cleared", what);
		if (f->load && !f->schema && f->kind != FIELD_LIST)
			fail_msg("%s: a form of its own has a schema of its own", what);
		if (f->opt)
			assert_ptr_equal(field_by_opt(f->opt), f);
		if (f->key)
			assert_ptr_equal(field_by_key(f->key), f);
	}
}

/* All keys are in the schema, below those of their levels. */
static void schema(void **state)
{
	cleanup_buf struct buf b = BUF_INIT;
	json_t *root;

	(void)state;
	assert_int_equal(conf_schema(&b), 0);
	root = json_loadb((char *)buf_ptr(&b), buf_size(&b), JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(root);
	for (size_t i = 0; i < nfields; i++) {
		cleanup_free char *key = fields[i].key ? strdup(fields[i].key) : NULL;
		json_t *at = root;
		char *save = NULL;

		for (char *p = key ? strtok_r(key, ".", &save) : NULL; p;
		     p = strtok_r(NULL, ".", &save))
			at = json_object_get(json_object_get(at, "properties"), p);
		if (key && (!json_object_get(at, "description") ||
			    (!json_object_get(at, "type") && !json_object_get(at, "enum") &&
			     !json_object_get(at, "oneOf"))))
			fail_msg("%s is not in the schema", fields[i].key);
	}
	json_decref(root);
}

static void global(void **state)
{
	static const struct {
		const char *text, *said, *hint;
	} bad[] = {
		{"[]", "g.json:1:1: an object", ""},
		{"{\"sandbx_defaults\": {}}", "g.json:1:2: there is no key", "sandbox_defaults"},
		{"{\"sandbox_defaults\": []}", "g.json:1:22: sandbox_defaults: an object", ""},
		{"{\"sandbox_defaults\": {\"cpu\": 1}}", "g.json:1:23: there is no key \"cpu\"",
		 "cpus"},
		{"{\"sandbox_defaults\": {\"cpus\": \"1\"}}", "g.json:1:31: cpus: a whole number",
		 ""},
		{"{\"sandbox_defaults\": {\"env\": {}}}",
		 "sandbox_defaults.env: this has no default", ""},
		{"{\"sandbox_defaults\": {\"image\": \"x\"}}",
		 "sandbox_defaults.image: this has no", ""},
		{"{\"home\": \"/x\"}", "g.json:1:2: home: set MSB_HOME", ""},
	};
	cleanup_model struct model m = {0};
	const char good[] = "{\"registries\": {\"x\": \"${y}\"}, \"sandbox_defaults\": "
			    "{\"memory_mib\": 256, \"shell\": \"/bin/$${x}\"}}";
	struct conf_file f;
	struct err err = ERR_INIT;

	(void)state;
	model_init(&m);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(conf_parse_json("g.json", "/", bad[i].text, strlen(bad[i].text),
						 &f, &err),
				 0);
		err_clear(&err);
		if (conf_load_global_file(&f, &m, &err) == 0 || !strstr(err.msg, bad[i].said) ||
		    !strstr(err.hint, bad[i].hint))
			fail_msg("%s: %s (%s)", bad[i].text, err.msg, err.hint);
		conf_file_done(&f);
	}
	assert_int_equal(conf_parse_json("g.json", "/", good, strlen(good), &f, &err), 0);
	if (conf_load_global_file(&f, &m, &err) < 0)
		fail_msg("%s", err.msg);
	conf_file_done(&f);
	assert_int_equal(m.spec.memory, 256u << 20);
	assert_string_equal(m.spec.shell, "/bin/$${x}");
	assert_false(m.creates);
	/* Any later word wins. */
	assert_int_equal(load(&m, "conf", "memory: 1G\n", &err), 0);
	assert_int_equal(m.spec.memory, 1u << 30);
	assert_true(m.creates);
}

static void files(void **state)
{
	cleanup_model struct model m = {0};
	struct err err = ERR_INIT;
	const char *main = scratch_path(state, "main.yaml"), *more = scratch_path(state, "p.yaml");
	const char text[] = "patch_files: [p.yaml]\npatches: [{mkdir: {path: /b}}]\n";
	const char patches[] = "patches: [{copy: {src: x, dst: /a}}]\n";

	model_init(&m);
	assert_int_equal(conf_load(&conf_scopes[0], main, &m, &err), -ENOENT);
	assert_int_equal(io_write_file_atomic(main, text, strlen(text), 0600, NULL), 0);
	assert_true(conf_load(&conf_scopes[0], main, &m, &err) < 0);
	assert_non_null(strstr(err.msg, "main.yaml:1:15: patch_files: cannot open"));
	assert_int_equal(io_write_file_atomic(more, patches, strlen(patches), 0600, NULL), 0);
	if (conf_load(&conf_scopes[0], main, &m, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(m.spec.npatches, 2);
	assert_string_equal(m.spec.patches[0].dst, "/a");
	assert_string_equal(m.spec.patches[0].src, scratch_path(state, "x"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(yaml_refuses),
		cmocka_unit_test(ceilings),
		cmocka_unit_test(json_refuses),
		cmocka_unit_test(values),
		cmocka_unit_test(fills),
		cmocka_unit_test(network),
		cmocka_unit_test(refuses_in_words),
		cmocka_unit_test(scopes),
		cmocka_unit_test(patches),
		cmocka_unit_test(rows),
		cmocka_unit_test(schema),
		cmocka_unit_test(global),
		cmocka_unit_test_setup_teardown(files, scratch_setup, scratch_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
