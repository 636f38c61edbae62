/* SPDX-License-Identifier: Apache-2.0 */
/* What stands in the place of IMAGE, and the words of patches. */
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sandbox/patch.h"
#include "sandbox/source.h"
#include "sandbox/spec.h"
#include "test.h"

static char top[PATH_MAX];

static void touch(const char *name)
{
	cleanup_close int fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
}

static int setup(void **state)
{
	char made[] = "/tmp/msb-source-XXXXXX";

	(void)state;
	assert_non_null(mkdtemp(made));
	assert_non_null(realpath(made, top));
	assert_int_equal(chdir(top), 0);
	touch("a.qcow2");
	touch("b.RAW");
	touch("odd.bin");
	touch("with:colon.img");
	return mkdir("tree", 0700);
}

static int teardown(void **state)
{
	(void)state;
	return chdir("/") < 0 ? -1 : io_remove_tree(top, NULL);
}

static void what_is_a_path(void **state)
{
	(void)state;
	assert_true(sandbox_source_is_path("/x"));
	assert_true(sandbox_source_is_path("./x"));
	assert_true(sandbox_source_is_path("../x"));
	assert_true(sandbox_source_is_path("."));
	assert_false(sandbox_source_is_path("x.qcow2"));
	assert_false(sandbox_source_is_path("a/b"));
	assert_false(sandbox_source_is_path(".x"));
	assert_false(sandbox_source_is_path(""));
}

/* @rest is what comes of it behind the directory; it must come of itself again. */
static struct sandbox_source parsed(const char *text, const char *rest)
{
	struct sandbox_source s = {0}, again = {0};
	cleanup_free char *want = str_fmt("%s/%s", top, rest);

	assert_int_equal(sandbox_source_parse(text, &s, NULL), 0);
	assert_string_equal(s.text, want);
	assert_int_equal(sandbox_source_parse(s.text, &again, NULL), 0);
	assert_string_equal(again.text, want);
	assert_int_equal(again.kind, s.kind);
	assert_int_equal(again.writable, s.writable);
	assert_int_equal(again.partition, s.partition);
	sandbox_source_done(&again);
	return s;
}

static void paths_and_options(void **state)
{
	struct sandbox_source s;

	(void)state;
	s = parsed("./a.qcow2", "a.qcow2");
	assert_int_equal(s.kind, SOURCE_DISK);
	assert_string_equal(s.format, "qcow2");
	assert_false(s.writable);
	sandbox_source_done(&s);
	s = parsed("./tree/../b.RAW:rw,partition=3,fstype=ext4",
		   "b.RAW:rw,fstype=ext4,partition=3");
	assert_string_equal(s.format, "raw");
	assert_true(s.writable);
	assert_int_equal(s.partition, 3);
	assert_string_equal(s.fstype, "ext4");
	sandbox_source_done(&s);
	s = parsed("./odd.bin:format=vmdk", "odd.bin:format=vmdk");
	assert_string_equal(s.format, "vmdk");
	sandbox_source_done(&s);
	/* What is said goes before what it is called. */
	s = parsed("./a.qcow2:format=raw", "a.qcow2:format=raw");
	assert_string_equal(s.format, "raw");
	sandbox_source_done(&s);
	s = parsed("./with:colon.img", "with:colon.img");
	sandbox_source_done(&s);
	s = parsed("./with:colon.img:rw", "with:colon.img:rw");
	assert_true(s.writable);
	sandbox_source_done(&s);
	s = parsed("./tree", "tree");
	assert_int_equal(s.kind, SOURCE_DIRECTORY);
	sandbox_source_done(&s);
	assert_int_equal(sandbox_source_parse("./a.qcow2:backing=b.RAW", &s, NULL), 0);
	assert_int_equal(s.backing.n, 1);
	assert_true(str_starts(s.backing.v[0], top));
	sandbox_source_done(&s);
	assert_int_equal(sandbox_source_parse("a.qcow2", &s, NULL), 0);
	assert_int_equal(s.kind, SOURCE_IMAGE);
	assert_null(s.path);
	sandbox_source_done(&s);
}

static void refusals(void **state)
{
	static const char *const bad[] = {
		"./odd.bin",
		"./a.qcow2:rw=1",
		"./a.qcow2:format",
		"./a.qcow2:format=x",
		"./a.qcow2:",
		"./a.qcow2:rw,,rw",
		"./a.qcow2:partition=129",
		"./a.qcow2:fstype=",
		"./a.qcow2:fstype=a/b",
		"./a.qcow2:backing=odd.bin",
		"./tree:rw",
		"/dev/null",
		"./a.qcow2:raw",
	};
	struct sandbox_source s = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct err err = ERR_INIT;

		assert_int_equal(sandbox_source_parse(bad[i], &s, &err), -ERR_USAGE);
		assert_true(err.msg[0]);
		assert_null(s.text);
	}
	assert_int_equal(sandbox_source_parse("./none.img", &s, NULL), -ERR_NOT_FOUND);
	assert_int_equal(sandbox_source_parse("./a.qcow2:backing=none.img", &s, NULL),
			 -ERR_NOT_FOUND);
}

static void words_of_patches(void **state)
{
	struct sandbox_spec s;

	(void)state;
	sandbox_spec_init(&s);
	assert_int_equal(sandbox_patch_add(&s, SANDBOX_COPY, "a:/b:c:/opt/d", NULL), 0);
	assert_string_equal(s.patches[0].src, "a:/b:c");
	assert_string_equal(s.patches[0].dst, "/opt/d");
	assert_int_equal(sandbox_patch_add(&s, SANDBOX_SCRIPT, "x=a\\n\\t\\\\\\\"\\'\\d\\", NULL),
			 0);
	assert_string_equal(s.patches[1].src, "a\n\t\\\"'\\d\\");
	assert_int_equal(sandbox_patch_add(&s, SANDBOX_SCRIPT_RAW, "x=a=\\n", NULL), 0);
	assert_string_equal(s.patches[2].src, "a=\\n");
	assert_string_equal(s.patches[2].dst, "/.msb/scripts/x");
	assert_int_equal(sandbox_patch_add(&s, SANDBOX_RM, "//..x/...", NULL), 0);
	assert_int_equal(sandbox_patch_add(&s, SANDBOX_RM, "/a/..", NULL), -ERR_USAGE);
	assert_int_equal(sandbox_patch_add(&s, SANDBOX_RM, "/../a", NULL), -ERR_USAGE);
	assert_int_equal(sandbox_patch_add(&s, SANDBOX_MKDIR, "//", NULL), -ERR_USAGE);
	assert_int_equal(sandbox_patch_add(&s, SANDBOX_COPY, ":/x", NULL), -ERR_USAGE);
	assert_int_equal(sandbox_patch_add(&s, SANDBOX_SCRIPT_PATH, "x=y", NULL), -ERR_USAGE);
	assert_int_equal(s.npatches, 4);
	sandbox_spec_done(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_a_path),
		cmocka_unit_test(paths_and_options),
		cmocka_unit_test(refusals),
		cmocka_unit_test(words_of_patches),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
