/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of msb-vm that need no guest: messages, initramfs, console log. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"
#include "machine/console.h"
#include "machine/initramfs.h"
#include "machine/memory_plan.h"
#include "machine/vm_config.h"

static void test_config_round_trip(void **state)
{
	struct vm_extent extents[2] = {{(char *)"/a", 0, 5}, {(char *)"/b c", 8192, 1ull << 40}};
	struct vm_disk disk = {
		.serial = (char *)"msb-root", .extents = {extents, 2}, .read_only = true};
	struct vm_config c = {
		.name = (char *)"n",
		.dir = (char *)"/d",
		.engine = (char *)"qemu",
		.kernel = (char *)"/k",
		.agentd = (char *)"/a",
		.cmdline = (char *)"",
		.log_level = (char *)"info",
		.cpus = 3,
		.memory = 1ull << 39,
		.disks = {&disk, 1},
		.bootstrap = {(uint8_t *)(uintptr_t) "\0\1\2", 3},
		.owned = true,
	};
	struct vm_config d = {0};
	struct buf b = BUF_INIT;
	struct vm_disk *dd;
	struct vm_extent *de;

	(void)state;
	vm_config_encode(&c, &b);
	assert_false(buf_failed(&b));
	assert_int_equal(vm_config_decode(buf_ptr(&b), buf_size(&b), &d, NULL), 0);
	assert_string_equal(d.engine, "qemu");
	assert_int_equal(d.memory, c.memory);
	assert_true(d.owned && !d.remove_dir);
	assert_memory_equal(d.bootstrap.p, "\0\1\2", 3);
	dd = d.disks.v;
	de = dd->extents.v;
	assert_int_equal(dd->extents.n, 2);
	assert_string_equal(de[1].path, "/b c");
	assert_int_equal(de[1].blocks, 1ull << 40);
	vm_config_done(&d);
	for (size_t n = 0; n < buf_size(&b); n++)
		assert_true(vm_config_decode(buf_ptr(&b), n, &d, NULL) < 0);
	buf_done(&b);
}

static void test_reports_in_a_stream(void **state)
{
	struct vm_report ok = {.ok = true, .ready_ns = 7}, bad, got = {0};
	struct buf all = BUF_INIT, b = BUF_INIT;
	unsigned seen = 0;

	(void)state;
	bad = (struct vm_report){.stage = (char *)"boot",
				 .code = ERR_GUEST,
				 .message = (char *)"m",
				 .hint = (char *)"h"};
	vm_report_encode(&ok, &all);
	vm_report_encode(&bad, &all);
	for (size_t i = 0; i < buf_size(&all); i++) {
		buf_add_u8(&b, buf_ptr(&all)[i]);
		if (vm_report_decode(&b, &got, NULL) != 1)
			continue;
		seen++;
		assert_int_equal(got.ok, seen == 1);
		assert_string_equal(got.message, seen == 1 ? "" : "m");
		vm_report_done(&got);
	}
	assert_int_equal(seen, 2);
	buf_reset(&b);
	buf_add(&b, "\xff\xff\xff\xff", 4);
	assert_true(vm_report_decode(&b, &got, NULL) < 0);
	buf_done(&all);
	buf_done(&b);
}

/* busybox is the oracle. */
static void test_initramfs_is_cpio(void **state)
{
	char dir[] = "/tmp/msb-initramfs-XXXXXX", cmd[512], boot[512];
	struct buf b = BUF_INIT;
	struct stat st;
	int fd;

	(void)state;
	assert_non_null(mkdtemp(dir));
	memset(boot, 'x', sizeof(boot));
	fd = initramfs_build("/proc/self/exe", (uint8_t *)boot, 333, NULL);
	assert_true(fd >= 0);
	snprintf(cmd, sizeof(cmd), "cd %s && busybox cpio -i < /proc/%d/fd/%d", dir, getpid(), fd);
	assert_int_equal(system(cmd), 0);
	snprintf(cmd, sizeof(cmd), "cmp %s/init /proc/%d/exe", dir, getpid());
	assert_int_equal(system(cmd), 0);
	snprintf(cmd, sizeof(cmd), "%s/msb-boot", dir);
	assert_int_equal(io_read_file(cmd, 1000, &b, NULL), 0);
	assert_int_equal(buf_size(&b), 333);
	snprintf(cmd, sizeof(cmd), "%s/init", dir);
	assert_int_equal(stat(cmd, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	buf_done(&b);
	close(fd);
	io_remove_tree(dir, NULL);
}

/* Whatever the agent's length, what follows it is found. */
static void test_initramfs_padding(void **state)
{
	for (size_t n = 4; n < 12; n++) {
		char path[] = "/tmp/msb-agent-XXXXXX", data[12] = "\177ELFelf";
		struct buf b = BUF_INIT;
		int agent = mkstemp(path), fd;
		char *at;

		(void)state;
		assert_int_equal(write(agent, data, n), n);
		fd = initramfs_build(path, (const uint8_t *)"boot", 4, NULL);
		assert_true(fd >= 0);
		assert_int_equal(io_read_fd(fd, 4096, &b), 0);
		at = memmem(buf_ptr(&b), buf_size(&b), "msb-boot", 8);
		assert_non_null(at);
		/* 110 bytes of header in front of the name, aligned to four. */
		assert_int_equal((size_t)(at - (char *)buf_ptr(&b) - 110) % 4, 0);
		assert_memory_equal(at - 110, "070701", 6);
		buf_done(&b);
		close(fd);
		close(agent);
		unlink(path);
	}
}

static void test_initramfs_wants_a_program(void **state)
{
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(initramfs_build("/etc/passwd", NULL, 0, &err), -ENOEXEC);
	assert_non_null(strstr(err.msg, "/etc/passwd"));
	assert_int_equal(initramfs_build("/nonexistent", NULL, 0, &err), -ENOENT);
}

static void test_console_rotates_and_remembers(void **state)
{
	char dir[] = "/tmp/msb-console-XXXXXX", path[128], block[65536];
	struct console *c;
	struct loop *l;
	struct stat st;
	int fd;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/logs", dir);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(loop_new(&l, NULL), 0);
	assert_int_equal(console_new(&c, l, dir, &fd, NULL), 0);
	assert_null(console_last_words(c));
	memset(block, 'a', sizeof(block));
	block[80] = '\n';
	for (size_t i = 0; i < CONSOLE_LOG_MAX + (1 << 20); i += sizeof(block)) {
		assert_int_equal(io_write_full(fd, block, sizeof(block)), 0);
		console_drain(c);
	}
	assert_int_equal(
		io_write_full(fd, "\n[1.0] Kernel panic - not \033[1msyncing\r\nmore\n", 44), 0);
	loop_turn(l, 100);
	assert_string_equal(console_last_words(c), "[1.0] Kernel panic - not ?[1msyncing");
	snprintf(path, sizeof(path), "%s/logs/kernel.log", dir);
	assert_int_equal(stat(path, &st), 0);
	assert_true((size_t)st.st_size < CONSOLE_LOG_MAX);
	snprintf(path, sizeof(path), "%s/logs/kernel.log.1", dir);
	assert_int_equal(stat(path, &st), 0);
	assert_true((size_t)st.st_size <= CONSOLE_LOG_MAX);
	close(fd);
	console_free(c);
	loop_free(l);
	io_remove_tree(dir, NULL);
}

/* The bytes in @dir/logs, and how many files they are in. */
static size_t logged(const char *dir, unsigned *ret_files)
{
	cleanup_free char *path = str_fmt("%s/logs", dir);
	cleanup_dir DIR *d = opendir(path);
	struct dirent *de;
	struct stat st;
	size_t sum = 0;

	assert_non_null(d);
	*ret_files = 0;
	while ((de = readdir(d))) {
		assert_int_equal(fstatat(dirfd(d), de->d_name, &st, 0), 0);
		if (S_ISREG(st.st_mode)) {
			sum += (size_t)st.st_size;
			++*ret_files;
		}
	}
	return sum;
}

/*
 * Megabytes of everything a guest can print, from a log that an earlier machine has nearly filled:
 * at no time more than two files of the ceiling's size, and the last words are in the newer one.
 */
static void flood(const char *dir, unsigned files)
{
	cleanup_free char *path = str_fmt("%s/logs/kernel.log", dir), *block = malloc(65536);
	char tail[8] = "";
	struct console *c;
	struct loop *l;
	struct stat st;
	int fd, log;
	unsigned n;

	log = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(log, CONSOLE_LOG_MAX - 10), 0);
	close_fd(log);
	assert_int_equal(loop_new(&l, NULL), 0);
	assert_int_equal(console_new(&c, l, dir, &fd, NULL), 0);
	for (size_t i = 0; i < 4 * CONSOLE_LOG_MAX; i += 65536) {
		for (unsigned k = 0; k < 65536; k++)
			block[k] = (char)(i >> 20 & 1 ? 'x' : i >> 20 & 2 ? '\n' : (int)(k * 13));
		assert_int_equal(io_write_full(fd, block, 65536), 0);
		console_drain(c);
		assert_true(logged(dir, &n) <= files * CONSOLE_LOG_MAX);
		assert_int_equal(n, files);
		assert_int_equal(stat(path, &st), 0);
		assert_true((size_t)st.st_size <= CONSOLE_LOG_MAX);
	}
	assert_int_equal(io_write_full(fd, "the end", 7), 0);
	close_fd(fd);
	console_drain(c);
	assert_int_equal(stat(path, &st), 0);
	log = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(pread(log, tail, 7, st.st_size - 7), 7);
	assert_string_equal(tail, "the end");
	close_fd(log);
	console_free(c);
	loop_free(l);
}

static void test_console_keeps_its_ceiling(void **state)
{
	char dir[] = "/tmp/msb-console-XXXXXX", path[128];

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/logs", dir);
	assert_int_equal(mkdir(path, 0700), 0);
	flood(dir, 2);
	/* Where the old log cannot be kept, it is given up. */
	snprintf(path, sizeof(path), "%s/logs/kernel.log.1", dir);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	flood(dir, 1);
	io_remove_tree(dir, NULL);
}

#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)

static void test_where_memory_is(void **state)
{
	static const struct {
		uint64_t boot, most, end, more, size;
	} rows[] = {
		{512 * MIB, 0, 512 * MIB, 0, 0},
		{512 * MIB, 512 * MIB, 512 * MIB, 0, 0},
		{512 * MIB, 514 * MIB, 512 * MIB, 512 * MIB, 128 * MIB},
		{200 * MIB, 702 * MIB, 200 * MIB, 256 * MIB, 512 * MIB},
		/* Up to the hole, or all of it behind. */
		{512 * MIB, 3 * GIB, 512 * MIB, 512 * MIB, 2560 * MIB},
		{512 * MIB, 3 * GIB + 2 * MIB, 512 * MIB, 4 * GIB, 2688 * MIB},
		{514 * MIB, 3 * GIB, 514 * MIB, 4 * GIB, 2560 * MIB},
		{3 * GIB, 4 * GIB, 3 * GIB, 4 * GIB, GIB},
		{3 * GIB - 2 * MIB, 4 * GIB, 3 * GIB - 2 * MIB, 4 * GIB, GIB + 128 * MIB},
		{3 * GIB + 2 * MIB, 4 * GIB, 4 * GIB + 2 * MIB, 4 * GIB + 128 * MIB, GIB},
		{8 * GIB, 16 * GIB, 9 * GIB, 9 * GIB, 8 * GIB},
		/* A kernel of that much memory takes more at once. */
		{63 * GIB - 2 * MIB, 64 * GIB, 64 * GIB - 2 * MIB, 64 * GIB, GIB + 128 * MIB},
		{64 * GIB, 65 * GIB, 65 * GIB, 66 * GIB, 2 * GIB},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct memory_plan p = memory_plan(rows[i].boot, rows[i].most);

		if (p.end != rows[i].end || p.more != rows[i].more || p.more_size != rows[i].size)
			fail_msg("row %zu: %llx %llx %llx", i, (unsigned long long)p.end,
				 (unsigned long long)p.more, (unsigned long long)p.more_size);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_where_memory_is),
		cmocka_unit_test(test_config_round_trip),
		cmocka_unit_test(test_reports_in_a_stream),
		cmocka_unit_test(test_initramfs_is_cpio),
		cmocka_unit_test(test_initramfs_padding),
		cmocka_unit_test(test_initramfs_wants_a_program),
		cmocka_unit_test(test_console_rotates_and_remembers),
		cmocka_unit_test(test_console_keeps_its_ceiling),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
