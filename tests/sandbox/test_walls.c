/* SPDX-License-Identifier: Apache-2.0 */
/* What msb-vm reports about its walls, and what people are told about those that are missing. */
#include "test.h"

#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/io.h"
#include "machine/jail/jail.h"
#include "sandbox/artifacts.h"
#include "sandbox/record.h"
#include "sandbox/walls.h"

static void test_parse(void **state)
{
	struct wall w[WALLS_MAX];
	char many[4096] = "";

	(void)state;
	assert_int_equal(walls_parse(NULL, w), 0);
	assert_int_equal(walls_parse("", w), 0);
	assert_int_equal(walls_parse("no colon\n\n:\nx:\n", w), 0);
	assert_int_equal(walls_parse("root: 3 places\nlandlock: no: the kernel: none", w), 2);
	assert_string_equal(w[0].name, "root");
	assert_string_equal(w[0].detail, "3 places");
	assert_true(w[0].held);
	assert_string_equal(w[1].name, "landlock");
	assert_string_equal(w[1].detail, "the kernel: none");
	assert_false(w[1].held);
	for (int i = 0; i < 100; i++)
		strcat(many, "wall: of many\n");
	assert_int_equal(walls_parse(many, w), WALLS_MAX);
	/* Too long for its place, it is cut. */
	memset(many, 'x', sizeof(many) - 1);
	many[2000] = ':';
	many[sizeof(many) - 1] = '\0';
	assert_int_equal(walls_parse(many, w), 1);
	assert_int_equal(strlen(w[0].name), sizeof(w[0].name) - 1);
	assert_int_equal(strlen(w[0].detail), sizeof(w[0].detail) - 1);
}

/* What the jail says is what we read, and we have a word for the loss of each of its steps. */
static void test_all_steps(void **state)
{
	struct jail j = JAIL_INIT;
	const struct jail_params off = {.on = false, .dir = "/x", .kernel = "/k", .engine = "kvm"};
	struct wall w[WALLS_MAX];
	struct buf b = BUF_INIT;

	(void)state;
	jail_begin(&j, &off);
	jail_describe(&j, &b);
	assert_int_equal(walls_parse(buf_cstr(&b), w), JAIL_STEPS);
	for (int i = 0; i < JAIL_STEPS; i++) {
		assert_string_equal(w[i].name, jail_step_name((enum jail_step)i));
		assert_false(w[i].held);
		assert_string_equal(w[i].detail, "switched off");
		assert_true(wall_lost(w[i].name)[0] != '\0');
		assert_string_equal(wall_remedy(&w[i], "/proc"), "");
	}
	assert_string_equal(wall_lost("moat"), "");
	buf_done(&b);
}

static void setting(void **state, const char *name, const char *value)
{
	const char *path = scratch_path(state, name);

	assert_int_equal(io_write_file_atomic(path, value, strlen(value), 0600, NULL), 0);
}

static const char *remedy(void **state, const char *text)
{
	struct wall w[WALLS_MAX];

	assert_int_equal(walls_parse(text, w), 1);
	return wall_remedy(&w[0], *state);
}

static void test_remedies(void **state)
{
	static const char denied[] =
		"namespaces: no: the host does not allow any: operation not permitted";

	assert_int_equal(mkdir(scratch_path(state, "sys"), 0700), 0);
	assert_int_equal(mkdir(scratch_path(state, "sys/user"), 0700), 0);
	assert_int_equal(mkdir(scratch_path(state, "sys/kernel"), 0700), 0);
	assert_non_null(strstr(remedy(state, denied), "container"));
	setting(state, "sys/kernel/apparmor_restrict_unprivileged_userns", "1\n");
	assert_non_null(strstr(remedy(state, denied), "AppArmor"));
	setting(state, "sys/kernel/unprivileged_userns_clone", "0\n");
	assert_non_null(strstr(remedy(state, denied), "unprivileged_userns_clone=1"));
	setting(state, "sys/user/max_user_namespaces", "0\n");
	assert_non_null(strstr(remedy(state, denied), "max_user_namespaces="));
	setting(state, "sys/user/max_user_namespaces", "100\n");
	assert_null(strstr(remedy(state, denied), "max_user_namespaces="));
	assert_non_null(strstr(remedy(state, "root: no: needs a mount namespace"), "namespaces"));
	assert_non_null(strstr(remedy(state, "root: no: /usr: Function not implemented"), "5.12"));
	assert_non_null(
		strstr(remedy(state, "root: no: pivot_root: Invalid argument"), "initramfs"));
	assert_non_null(strstr(remedy(state, "landlock: no: disabled at the host's boot"), "lsm="));
	assert_non_null(strstr(remedy(state, "landlock: no: the host's kernel has none"), "5.13"));
	assert_non_null(strstr(remedy(state, "seccomp: no: not there"), "SECCOMP"));
	assert_non_null(strstr(remedy(state, "seccomp: no: built with a sanitizer"), "sanitizers"));
	assert_string_equal(remedy(state, "landlock: ABI 7"), "");
}

static void test_qemu_versions(void **state)
{
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(artifact_qemu_version("QEMU emulator version 7.2.22 (Debian 1:7.2)", &err),
			 0);
	assert_int_equal(artifact_qemu_version("QEMU emulator version 10.0.0", &err), 0);
	assert_int_equal(artifact_qemu_version("QEMU emulator version 5.2.0", &err),
			 -ERR_UNSUPPORTED);
	assert_string_equal(err.msg, "QEMU 5.2 is too old");
	assert_non_null(strstr(err.hint, "6"));
	assert_int_equal(artifact_qemu_version("", &err), -ERR_UNSUPPORTED);
	assert_int_equal(artifact_qemu_version("QEMU emulator version x", &err), -ERR_UNSUPPORTED);
	assert_non_null(strstr(err.msg, "no QEMU"));
}

static void test_machine_record(void **state)
{
	struct sandbox_machine m = {.engine = (char *)"kvm", .started_at = 5}, got = {0};
	struct buf b = BUF_INIT;

	(void)state;
	/* One that has only just been started. */
	assert_int_equal(record_machine_encode(&m, &b), 0);
	assert_int_equal(record_machine_decode(buf_ptr(&b), buf_size(&b), &got, NULL), 0);
	assert_string_equal(got.engine, "kvm");
	assert_null(got.jail);
	assert_null(got.end);
	assert_int_equal(got.started_at, 5);
	assert_int_equal(got.ended_at, 0);
	record_machine_done(&got);
	buf_reset(&b);
	m.jail = (char *)"root: 3 places\n";
	m.end = (char *)"stopped";
	m.ended_at = 7;
	m.ready_ms = 100;
	m.ports = (struct strv){
		(char *[]){(char *)"127.0.0.1:80->80/tcp", (char *)"[::1]:9->9/udp"}, 2};
	assert_int_equal(record_machine_encode(&m, &b), 0);
	for (size_t n = 0; n + 2 < buf_size(&b); n++)
		assert_true(record_machine_decode(buf_ptr(&b), n, &got, NULL) < 0);
	assert_int_equal(record_machine_decode(buf_ptr(&b), buf_size(&b), &got, NULL), 0);
	assert_string_equal(got.jail, m.jail);
	assert_string_equal(got.end, m.end);
	assert_int_equal(got.ended_at, 7);
	assert_int_equal(got.ready_ms, 100);
	assert_int_equal(got.ports.n, 2);
	assert_string_equal(got.ports.v[1], m.ports.v[1]);
	record_machine_done(&got);
	buf_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_all_steps),
		cmocka_unit_test_setup_teardown(test_remedies, scratch_setup, scratch_teardown),
		cmocka_unit_test(test_qemu_versions),
		cmocka_unit_test(test_machine_record),
	};

	return cmocka_run_group_tests_name("walls", tests, NULL, NULL);
}
