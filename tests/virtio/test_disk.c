/* SPDX-License-Identifier: Apache-2.0 */
/* Disks as the device's threads use them: side by side, and when the host has no more room. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "test.h"
#include "virtio/blk.h"
#include "virtio/qcow2.h"
#include "virtio/virtqueue.h"

#define MIB ((uint64_t)1 << 20)

static int memory_file(uint64_t size, uint8_t fill)
{
	cleanup_free uint8_t *p = malloc(size);
	int fd;

	memset(p, fill, size);
	fd = io_memfd("disk", p, size, NULL);
	assert_true(fd >= 0);
	return fd;
}

/* A copy-on-write disk over a raw one that is full of 0xaa. */
static struct blk_disk *overlay(uint64_t size, int *ret_fd)
{
	const struct blk_file_options raw = {.read_only = true, .own_fd = true};
	struct qcow2_options o = {0};
	struct blk_disk *disk;
	int fd = io_memfd("overlay", NULL, 0, NULL);

	assert_int_equal(blk_file_new(memory_file(size, 0xaa), &raw, &o.backing, NULL), 0);
	assert_int_equal(qcow2_create(fd, size, "base.raw", "raw", NULL), 0);
	assert_int_equal(qcow2_open(fd, &o, &disk, NULL), 0);
	if (ret_fd)
		*ret_fd = fd;
	return disk;
}

static int io(struct blk_disk *d, void *p, size_t n, uint64_t off, bool write)
{
	struct iovec iov = {p, n};

	return write ? d->ops->write(d, &iov, 1, off) : d->ops->read(d, &iov, 1, off);
}

static void expect(struct blk_disk *d, uint64_t off, size_t n, uint8_t v)
{
	cleanup_free uint8_t *p = malloc(n);

	assert_int_equal(io(d, p, n, off, false), 0);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(p[i], v);
}

/* ---- threads ---- */

enum { THREADS = 4, ROUNDS = 60 };

struct writer {
	struct blk_disk *disk;
	unsigned number;
	int failed;
};

/* Each has every fourth sector: all clusters are shared by all. */
static void *work(void *arg)
{
	struct writer *w = arg;
	uint64_t sectors = w->disk->size / BLK_SECTOR / THREADS, seed = w->number + 1;
	uint8_t p[BLK_SECTOR];

	for (unsigned round = 0; round < ROUNDS && !w->failed; round++) {
		for (unsigned i = 0; i < 20; i++) {
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			uint64_t at = ((seed >> 33) % sectors * THREADS + w->number) * BLK_SECTOR;

			memset(p, (int)w->number + 1, sizeof(p));
			if (i % 5 == 0)
				w->failed |=
					w->disk->ops->write_zeroes(w->disk, at, BLK_SECTOR, false);
			else
				w->failed |= io(w->disk, p, sizeof(p), at, true);
			w->failed |= io(w->disk, p, sizeof(p), at, false);
			if (p[0] != (i % 5 ? w->number + 1 : 0) || p[0] != p[BLK_SECTOR - 1])
				w->failed = 1;
		}
		if (round % 10 == w->number)
			w->failed |= w->disk->ops->flush(w->disk);
	}
	return NULL;
}

static void threads_share_a_disk(void **state)
{
	struct blk_disk *d = overlay(4 * MIB, NULL);
	struct writer w[THREADS];
	pthread_t t[THREADS];
	uint8_t p[BLK_SECTOR];

	(void)state;
	for (unsigned i = 0; i < THREADS; i++) {
		w[i] = (struct writer){d, i, 0};
		assert_int_equal(pthread_create(&t[i], NULL, work, &w[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(t[i], NULL);
		assert_int_equal(w[i].failed, 0);
	}
	/* Nobody's sector holds anything of another's. */
	for (uint64_t s = 0; s < d->size / BLK_SECTOR; s++) {
		assert_int_equal(io(d, p, sizeof(p), s * BLK_SECTOR, false), 0);
		assert_true(p[0] == 0 || p[0] == 0xaa || p[0] == s % THREADS + 1);
	}
	blk_disk_free(d);
}

/* ---- no room ---- */

static void a_full_host_is_an_error_and_no_more(void **state)
{
	struct rlimit limit = {1 * MIB, RLIM_INFINITY}, old;
	struct blk_disk *d = overlay(16 * MIB, NULL);
	uint8_t *p = malloc(64 << 10);
	unsigned written = 0;
	int r = 0;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &old);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	memset(p, 0x55, 64 << 10);
	while (r == 0 && written < 256)
		r = io(d, p, 64 << 10, written++ * (64ull << 10), true);
	assert_int_equal(r, -EFBIG);
	written--;
	assert_true(written > 2 && written < 16);
	/* What was written stays, what was not has not changed. */
	expect(d, 0, written * (64u << 10), 0x55);
	expect(d, written * (64ull << 10), 64 << 10, 0xaa);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(io(d, p, 512, written * (64ull << 10) + 512, true), 0);
	expect(d, written * (64ull << 10), 512, 0xaa);
	expect(d, written * (64ull << 10) + 512, 512, 0x55);
	expect(d, written * (64ull << 10) + 1024, 63 << 10, 0xaa);
	assert_int_equal(d->ops->flush(d), 0);
	blk_disk_free(d);
	free(p);
}

/* What was flushed is in the file without the disk being closed. */
static void a_flush_is_a_flush(void **state)
{
	int fd, copy;
	struct blk_disk *d = overlay(2 * MIB, &fd), *again;
	uint8_t p[4096], *all = malloc(4 * MIB);
	ssize_t n;

	(void)state;
	memset(p, 7, sizeof(p));
	assert_int_equal(io(d, p, sizeof(p), 70000 / 512 * 512, true), 0);
	assert_int_equal(d->ops->write_zeroes(d, MIB, 65536, true), 0);
	assert_int_equal(d->ops->flush(d), 0);
	n = io_pread_full(fd, all, 4 * MIB, 0);
	assert_true(n > 0);
	copy = io_memfd("copy", all, (size_t)n, NULL);
	free(all);
	{
		const struct blk_file_options raw = {.read_only = true, .own_fd = true};
		struct qcow2_options o = {.read_only = true};

		assert_int_equal(blk_file_new(memory_file(2 * MIB, 0xaa), &raw, &o.backing, NULL),
				 0);
		assert_int_equal(qcow2_open(copy, &o, &again, NULL), 0);
	}
	expect(again, 70000 / 512 * 512, sizeof(p), 7);
	expect(again, 65536, 512, 0xaa);
	expect(again, MIB, 65536, 0);
	blk_disk_free(again);
	blk_disk_free(d);
}

static void pieces_are_written(void **state)
{
	int a = memory_file(8192, 'a'), b = memory_file(8192, 'b'), keep = dup(b);
	const struct blk_extent e[] = {{0, 4096, a, 4096}, {4096, 8192, b, 0}};
	const struct blk_extent gap[] = {{0, 4096, a, 4096}, {8192, 4096, b, 0}};
	struct blk_disk *d;
	uint8_t p[4096];

	(void)state;
	assert_int_equal(blk_pieces_new(gap, 2, 12288, false, &d, NULL), -EINVAL);
	assert_int_equal(blk_pieces_new(e, 2, 12288, false, &d, NULL), 0);
	memset(p, 'x', sizeof(p));
	assert_int_equal(io(d, p, 4096, 2048, true), 0);
	expect(d, 0, 2048, 'a');
	expect(d, 2048, 4096, 'x');
	expect(d, 6144, 6144, 'b');
	assert_int_equal(d->ops->write_zeroes(d, 3584, 1024, false), 0);
	expect(d, 3584, 1024, 0);
	expect(d, 4608, 512, 'x');
	assert_int_equal(d->ops->discard(d, 8192, 4096), 0);
	assert_int_equal(d->ops->flush(d), 0);
	/* The second file, from its own start. */
	assert_int_equal(io_pread_full(keep, p, 1024, 0), 1024);
	assert_int_equal(p[0], 0);
	assert_int_equal(p[512], 'x');
	close(keep);
	blk_disk_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(threads_share_a_disk),
		cmocka_unit_test(a_full_host_is_an_error_and_no_more),
		cmocka_unit_test(a_flush_is_a_flush),
		cmocka_unit_test(pieces_are_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
