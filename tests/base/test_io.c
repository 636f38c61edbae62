/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"

static unsigned entries(const char *path)
{
	cleanup_dir DIR *d = opendir(path);
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	return n - 2;
}

static void a_file_appears_whole_or_not_at_all(void **state)
{
	const char *dir = *state, *path = scratch_path(state, "f");
	cleanup_buf struct buf b = BUF_INIT;
	struct stat st;
	struct err e = ERR_INIT;

	assert_int_equal(io_write_file_atomic(path, "one", 3, 0640, &e), 0);
	assert_int_equal(io_write_file_atomic(path, "three", 5, 0600, &e), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(io_read_file(path, 100, &b, &e), 0);
	assert_int_equal(buf_size(&b), 5);
	assert_memory_equal(buf_ptr(&b), "three", 5);
	assert_int_equal(entries(dir), 1);
	/* A directory in the way: an error, and no leftover. */
	assert_int_equal(mkdir(scratch_path(state, "d"), 0700), 0);
	assert_int_equal(io_write_file_atomic(scratch_path(state, "d"), "x", 1, 0600, &e), -EISDIR);
	assert_int_equal(entries(dir), 2);
	assert_int_equal(io_write_file_atomic(scratch_path(state, "no/f"), "x", 1, 0600, &e),
			 -ENOENT);
	assert_true(e.msg[0]);
}

static void reading_is_limited(void **state)
{
	const char *path = scratch_path(state, "f");
	struct err e = ERR_INIT;
	size_t sizes[] = {0, 1, 65535, 65536, 65537, 200000};
	uint8_t *bytes = calloc(1, 200000);

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		cleanup_buf struct buf b = BUF_INIT;

		assert_int_equal(io_write_file_atomic(path, bytes, sizes[i], 0600, &e), 0);
		assert_int_equal(io_read_file(path, sizes[i], &b, &e), 0);
		assert_int_equal(buf_size(&b), sizes[i]);
		if (!sizes[i])
			continue;
		buf_reset(&b);
		assert_int_equal(io_read_file(path, sizes[i] - 1, &b, &e), -ERR_LIMIT);
	}
	free(bytes);
	assert_int_equal(io_read_file(scratch_path(state, "none"), 10, NULL, &e), -ENOENT);
	assert_non_null(strstr(e.msg, "none"));
}

static void trees_go_and_links_are_not_followed(void **state)
{
	struct err e = ERR_INIT;
	cleanup_close int fd = -1;

	assert_int_equal(io_mkdir_p(scratch_path(state, "keep/deep"), 0755, &e), 0);
	assert_int_equal(io_write_file_atomic(scratch_path(state, "keep/deep/f"), "x", 1, 0600, &e),
			 0);
	assert_int_equal(io_mkdir_p(scratch_path(state, "t/a/b/c"), 0755, &e), 0);
	assert_int_equal(io_mkdir_p(scratch_path(state, "t/a/b/c"), 0755, &e), 0);
	assert_int_equal(symlink("../keep", scratch_path(state, "t/link")), 0);
	assert_int_equal(symlink("/", scratch_path(state, "t/a/root")), 0);
	assert_int_equal(symlink("loop", scratch_path(state, "t/a/loop")), 0);
	assert_int_equal(mkfifo(scratch_path(state, "t/a/fifo"), 0600), 0);
	assert_int_equal(chmod(scratch_path(state, "t/a/b"), 0500), 0);
	fd = open(scratch_path(state, "t/a/open"), O_CREAT | O_WRONLY | O_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(io_remove_tree(scratch_path(state, "t"), &e), geteuid() ? -EACCES : 0);
	if (geteuid()) {
		chmod(scratch_path(state, "t/a/b"), 0700);
		assert_int_equal(io_remove_tree(scratch_path(state, "t"), &e), 0);
	}
	assert_int_equal(access(scratch_path(state, "t"), F_OK), -1);
	assert_int_equal(access(scratch_path(state, "keep/deep/f"), F_OK), 0);
	/* A missing tree is fine, a link is removed as itself. */
	assert_int_equal(io_remove_tree(scratch_path(state, "t"), &e), 0);
	assert_int_equal(symlink("keep", scratch_path(state, "l")), 0);
	assert_int_equal(io_remove_tree(scratch_path(state, "l"), &e), 0);
	assert_int_equal(access(scratch_path(state, "keep/deep/f"), F_OK), 0);
}

static void a_bottomless_tree_is_refused(void **state)
{
	int at = open(*state, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct err e = ERR_INIT;

	for (int i = 0; i < 400; i++) {
		int next;

		assert_int_equal(mkdirat(at, "d", 0700), 0);
		next = openat(at, "d", O_PATH | O_DIRECTORY | O_CLOEXEC);
		assert_true(next >= 0);
		close(at);
		at = next;
	}
	close(at);
	assert_int_equal(io_remove_tree(*state, &e), -ELOOP);
	/* Halve it so that the teardown can finish: the upper part moves below a new root. */
	at = open(*state, O_PATH | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < 200; i++) {
		int next = openat(at, "d", O_PATH | O_DIRECTORY | O_CLOEXEC);

		close(at);
		at = next;
	}
	assert_int_equal(renameat(at, "d", AT_FDCWD, scratch_path(state, "rest")), 0);
	close(at);
}

static void making_directories_reports_what_is_in_the_way(void **state)
{
	struct err e = ERR_INIT;

	assert_int_equal(io_write_file_atomic(scratch_path(state, "f"), "", 0, 0600, &e), 0);
	assert_int_equal(io_mkdir_p(scratch_path(state, "f/g"), 0755, &e), -ENOTDIR);
	assert_non_null(strstr(e.msg, "f/g"));
}

static void memory_files(void **state)
{
	struct err e = ERR_INIT;
	cleanup_close int a = io_memfd("a", "hello", 5, &e), b = io_memfd("b", NULL, 4096, &e);
	struct stat st;
	char text[6] = "";

	(void)state;
	assert_int_equal(io_read_full(a, text, 10), 5);
	assert_string_equal(text, "hello");
	assert_int_equal(fstat(b, &st), 0);
	assert_int_equal(st.st_size, 4096);
	assert_true(fcntl(a, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(fcntl(a, F_ADD_SEALS, F_SEAL_WRITE), 0);
}

static void locks(void **state)
{
	cleanup_close int a = open(scratch_path(state, "l"), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	cleanup_close int b = open(scratch_path(state, "l"), O_RDWR | O_CLOEXEC);

	assert_int_equal(io_flock(a, false, false), 0);
	assert_int_equal(io_flock(b, false, false), 0);
	assert_int_equal(io_flock(b, true, false), -EWOULDBLOCK);
	close_fd(take_fd(&a));
	assert_int_equal(io_flock(b, true, false), 0);
	assert_int_equal(io_flock(-1, true, false), -EBADF);
}

enum { STREAM = 3 << 20 };

static void *drain(void *arg)
{
	uint8_t *p = malloc(STREAM);
	ssize_t n = io_read_full(*(int *)arg, p, STREAM);
	uintptr_t ok = n == STREAM;

	for (size_t i = 0; ok && i < STREAM; i++)
		ok = p[i] == (uint8_t)(i * 7);
	free(p);
	return (void *)ok;
}

/* More than a pipe holds, through a non-blocking end: every byte arrives, in order. */
static void writing_waits_for_room(void **state)
{
	int p[2];
	pthread_t t;
	void *ok;
	uint8_t *bytes = malloc(STREAM);

	(void)state;
	for (size_t i = 0; i < STREAM; i++)
		bytes[i] = (uint8_t)(i * 7);
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(io_set_nonblock(p[1], true), 0);
	assert_int_equal(pthread_create(&t, NULL, drain, &p[0]), 0);
	assert_int_equal(io_write_full(p[1], bytes, STREAM), 0);
	close(p[1]);
	pthread_join(t, &ok);
	assert_non_null(ok);
	close(p[0]);
	free(bytes);
}

static void writing_to_nobody_fails(void **state)
{
	int p[2];

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	close(p[0]);
	assert_int_equal(io_write_full(p[1], "x", 1), -EPIPE);
	close(p[1]);
	assert_int_equal(io_write_full(-1, "x", 1), -EBADF);
	assert_int_equal(io_read_full(-1, (char[1]){0}, 1), -EBADF);
	assert_int_equal(io_set_nonblock(-1, true), -EBADF);
}

static void reading_at_an_offset(void **state)
{
	struct err e = ERR_INIT;
	cleanup_close int fd = io_memfd("x", "0123456789", 10, &e);
	char b[8] = "";

	(void)state;
	assert_int_equal(io_pread_full(fd, b, 4, 3), 4);
	assert_string_equal(b, "3456");
	assert_int_equal(io_pread_full(fd, b, 4, 8), 2);
	assert_int_equal(io_pread_full(fd, b, 4, 10), 0);
}

#define scratch(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)

static void drafts(void **state)
{
	struct io_draft d = IO_DRAFT_INIT;
	struct err err = ERR_INIT;
	cleanup_buf struct buf b = BUF_INIT;
	const char *path = scratch_path(state, "file"), *link = scratch_path(state, "link");

	/* Dropped, it leaves nothing and what was there alone. */
	assert_int_equal(io_draft_open(&d, path, &err), 0);
	assert_int_equal(io_write_full(d.fd, "x", 1), 0);
	io_draft_done(&d);
	assert_int_equal(access(path, F_OK), -1);
	/* Kept, it has its name, and replaces what has that, through a link as well. */
	for (int i = 0; i < 2; i++) {
		assert_int_equal(io_draft_open(&d, i ? link : path, &err), 0);
		assert_int_equal(io_write_full(d.fd, i ? "two" : "one", 3), 0);
		assert_int_equal(io_draft_keep(&d, &err), 0);
		io_draft_done(&d);
		if (!i)
			assert_int_equal(symlink("file", link), 0);
	}
	assert_int_equal(io_read_file(path, 10, &b, &err), 0);
	assert_memory_equal(buf_ptr(&b), "two", 3);
	assert_int_equal(io_draft_open(&d, scratch_path(state, "no/such/file"), &err), -ENOENT);
	io_draft_done(&d);
	assert_int_equal(io_draft_open(&d, "/dev/full", &err), 0);
	assert_int_equal(io_write_full(d.fd, "x", 1), -ENOSPC);
	assert_int_equal(io_draft_keep(&d, &err), 0);
	io_draft_done(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		scratch(a_file_appears_whole_or_not_at_all),
		scratch(reading_is_limited),
		scratch(trees_go_and_links_are_not_followed),
		scratch(a_bottomless_tree_is_refused),
		scratch(making_directories_reports_what_is_in_the_way),
		cmocka_unit_test(memory_files),
		scratch(locks),
		cmocka_unit_test(writing_waits_for_room),
		cmocka_unit_test(writing_to_nobody_fails),
		scratch(drafts),
		cmocka_unit_test(reading_at_an_offset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
