/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "sandbox/record.h"
#include "sandbox/sandbox_dir.h"
#include "store/store.h"

/* A record as another version may have written it: @config beside what each has. */
static int decode(const char *config, struct sandbox_record *ret, struct err *err)
{
	char text[2048];
	int n = snprintf(
		text, sizeof(text),
		"{\"version\":1,\"name\":\"box\",\"image\":\"i\",\"image_id\":\"sha256:0\","
		"\"created_at\":1,\"ephemeral\":false,\"later\":[1],\"config\":{%s}}",
		config);

	return record_decode(text, (size_t)n, ret, err);
}

#define GOOD "\"cpus\":2,\"memory\":134217728,\"root_disk\":\"disk\",\"root_size\":8589934592"

/* Written again, and read. */
static void again(struct sandbox_record *r)
{
	struct buf b = BUF_INIT;
	struct sandbox_record got = {0};

	assert_int_equal(record_encode(r, &b), 0);
	assert_int_equal(record_decode(buf_ptr(&b), buf_size(&b), &got, NULL), 0);
	record_done(r);
	*r = got;
	buf_done(&b);
}

static void what_is_not_understood_stays(void **state)
{
	static const struct {
		const char *config, *key, *value;
	} cases[] = {
		{"\"teleport\":{\"to\":7}", "teleport", "{\"to\":7}"},
		{"\"user\":7", "user", "7"},
		{"\"cpus\":0", "cpus", "0"},
		{"\"cpus\":1000", "cpus", "1000"},
		{"\"cpus\":\"2\"", "cpus", "\"2\""},
		{"\"memory\":-1", "memory", "-1"},
		{"\"memory\":134217729", "memory", "134217729"},
		{"\"max_memory\":1", "max_memory", "1"},
		{"\"idle_timeout_ms\":-5", "idle_timeout_ms", "-5"},
		{"\"max_duration_ms\":9223372036855", "max_duration_ms", "9223372036855"},
		{"\"session_history\":99999999999", "session_history", "99999999999"},
		{"\"labels\":[\"k\"]", "labels", "[\"k\"]"},
		{"\"ports\":{\"a\":1}", "ports", "{\"a\":1}"},
		{"\"env\":[\"A=1\",7]", "env", "[\"A=1\",7]"},
		{"\"rlimits\":[{\"resource\":\"love\",\"soft\":1,\"hard\":1}]", "rlimits",
		 "[{\"resource\":\"love\",\"soft\":1,\"hard\":1}]"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct sandbox_record r = {0};
		struct err err = ERR_INIT;
		char config[512], *text;
		json_t *written;

		snprintf(config, sizeof(config), GOOD ",%s", cases[i].config);
		assert_int_equal(decode(config, &r, NULL), 0);
		again(&r);
		again(&r);
		assert_int_equal(json_object_size(r.odd), 1);
		text = json_dumps(json_object_get(r.odd, cases[i].key),
				  JSON_ENCODE_ANY | JSON_COMPACT);
		assert_string_equal(text, cases[i].value);
		free(text);
		written = record_written(&r);
		assert_true(json_equal(json_object_get(written, cases[i].key),
				       json_object_get(r.odd, cases[i].key)));
		json_decref(written);
		assert_int_equal(json_object_size(r.beside), 1);
		/* No machine is started of it, until it is taken away. */
		assert_int_equal(record_check(&r, &err), -ERR_UNSUPPORTED);
		assert_non_null(strstr(err.msg, cases[i].key));
		assert_non_null(strstr(err.hint, "--reset "));
		assert_int_equal(record_reset(&r, cases[i].key, NULL), 0);
		again(&r);
		assert_null(r.odd);
		assert_int_equal(record_check(&r, NULL), 0);
		record_done(&r);
	}
}

/* What was taken once, as words, and is refused now. */
static void what_is_refused_now_is_told(void **state)
{
	static const struct {
		const char *config, *key;
	} cases[] = {
		{"\"net\":\"none,public\"", "net"},
		{"\"net_rules\":[\"allow@host\",\"allow@dns:tcp:80\"]", "net_rules"},
		{"\"net_egress\":\"perhaps\"", "net_egress"},
		{"\"net_limits\":[\"max-love=1\"]", "net_limits"},
		{"\"net_names\":[\"x=y\"]", "net_names"},
		{"\"ports\":[\"80\"]", "ports"},
		{"\"dns_servers\":[\"nobody\"]", "dns_servers"},
		{"\"dns_hosts\":[\"nobody\"]", "dns_hosts"},
		{"\"proxy\":\"gopher://x\"", "proxy"},
		{"\"vsock\":[\"/a\"]", "vsock"},
		{"\"security\":\"total\"", "security"},
		{"\"init\":\"relative\"", "init"},
		{"\"workdir\":\"relative\"", "workdir"},
		{"\"max_cpus\":1", "max_cpus"},
		{"\"hostname\":\"\"", "hostname"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct sandbox_record r = {0};
		struct err err = ERR_INIT;
		char config[512];

		snprintf(config, sizeof(config), GOOD ",%s", cases[i].config);
		assert_int_equal(decode(config, &r, NULL), 0);
		assert_null(r.odd);
		assert_true(record_check(&r, &err) < 0);
		assert_non_null(strstr(err.msg, "\"box\""));
		assert_non_null(strstr(err.hint, "modify"));
		assert_int_equal(record_reset(&r, cases[i].key, NULL), 0);
		assert_int_equal(record_check(&r, NULL), 0);
		record_done(&r);
	}
}

static void what_is_not_there_is_the_default(void **state)
{
	struct sandbox_record r = {0};
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(decode("\"root_disk\":\"disk\"", &r, NULL), 0);
	assert_int_equal(r.spec.cpus, SANDBOX_CPUS_DEFAULT);
	assert_true(r.spec.memory == SANDBOX_MEMORY_DEFAULT);
	assert_int_equal(record_check(&r, NULL), 0);
	assert_int_equal(record_reset(&r, "uzer", &err), -ERR_NOT_FOUND);
	/* What its disk is cannot be forgotten. */
	assert_int_equal(record_reset(&r, "root_disk", &err), -ERR_USAGE);
	record_done(&r);
	assert_int_equal(decode("\"root_disk\":\"moon\"", &r, NULL), 0);
	assert_int_equal(record_check(&r, NULL), -ERR_UNSUPPORTED);
	record_done(&r);
	assert_int_equal(decode("\"root_disk\":\"file\"", &r, NULL), 0);
	assert_int_equal(record_check(&r, NULL), -ERR_UNSUPPORTED);
	record_done(&r);
	assert_int_equal(decode("", &r, NULL), 0);
	assert_int_equal(record_check(&r, NULL), -ERR_UNSUPPORTED);
	record_done(&r);
}

static void put(const struct sandbox_dir *d, const char *text)
{
	struct buf b = BUF_INIT;

	buf_add_str(&b, text);
	assert_int_equal(record_put(d->fd, RECORD_KEPT, &b), 0);
	buf_done(&b);
}

/* It is there, is listed, and can be removed; that is all that is known. */
static void what_cannot_be_read_is_listed(void **state)
{
	static const char *const texts[] = {
		"", "{", "[]", "{\"version\":2}",
		"{\"version\":2,\"name\":\"box\",\"image\":\"i\","
		"\"image_id\":\"\",\"created_at\":1,\"ephemeral\":false,"
		"\"config\":{}}"};
	struct store *s = NULL;

	assert_int_equal(store_open(&s, scratch_path(state, "home"), NULL), 0);
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct sandbox_dir d = SANDBOX_DIR_INIT;
		struct sandbox_list l = {0};

		assert_int_equal(sandbox_dir_take(s, "box", true, &d, NULL), 0);
		put(&d, texts[i]);
		sandbox_dir_done(&d);
		sandbox_dir_heal(s, true);
		assert_int_equal(sandbox_dir_list(s, "box", &l, NULL), 0);
		assert_int_equal(l.count, 1);
		assert_string_equal(l.items[0].record->name, "box");
		assert_non_null(l.items[0].unreadable);
		assert_false(l.items[0].running);
		sandbox_list_done(&l);
		assert_int_equal(sandbox_dir_take(s, "box", false, &d, NULL), 0);
		assert_true(d.kept);
		assert_int_equal(sandbox_dir_remove(&d, NULL), 0);
	}
	store_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_not_understood_stays),
		cmocka_unit_test(what_is_refused_now_is_told),
		cmocka_unit_test(what_is_not_there_is_the_default),
		cmocka_unit_test_setup_teardown(what_cannot_be_read_is_listed, scratch_setup,
						scratch_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
