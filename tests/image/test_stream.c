/* SPDX-License-Identifier: Apache-2.0 */
/* Decompression, with zlib as the judge of what gzip data is good. */
#include "../test.h"

#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "image/stream.h"
#include "image/unpack.h"

/* More than the rings of a stream hold, so that both of its threads come to wait. */
#define LARGE (5u << 20)

static uint32_t seed;

static uint32_t rnd(uint32_t n)
{
	seed = seed * 1664525 + 1013904223;
	return (seed >> 8) % n;
}

/* Something that deflates to about a third. */
static void fill(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(i % 64 < 20 ? rnd(256) : i >> 9);
}

struct member {
	const uint8_t *p;
	size_t n;
	int level;
	gz_header *header;
};

static void gzip_add(struct buf *out, const struct member *m)
{
	z_stream z = {0};
	size_t room = compressBound(m->n) + 1024;
	uint8_t *to = buf_reserve(out, room);

	assert_non_null(to);
	assert_int_equal(deflateInit2(&z, m->level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY),
			 Z_OK);
	if (m->header)
		assert_int_equal(deflateSetHeader(&z, m->header), Z_OK);
	z.next_in = (Bytef *)(uintptr_t)m->p;
	z.avail_in = (uInt)m->n;
	z.next_out = to;
	z.avail_out = (uInt)room;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	buf_commit(out, room - z.avail_out);
	deflateEnd(&z);
}

/* What zlib makes of it, members back to back and zeros between them allowed. */
static bool judge(const uint8_t *p, size_t n, struct buf *out)
{
	z_stream z = {.next_in = (Bytef *)(uintptr_t)p, .avail_in = (uInt)n};
	bool in_member = true, ok = true;

	assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
	while (ok && (z.avail_in || in_member)) {
		uint8_t *to;
		int r;

		if (!in_member) {
			if (*z.next_in == 0) {
				z.next_in++;
				z.avail_in--;
				continue;
			}
			inflateReset(&z);
			in_member = true;
		}
		to = buf_reserve(out, 65536);
		assert_non_null(to);
		z.next_out = to;
		z.avail_out = 65536;
		r = inflate(&z, Z_NO_FLUSH);
		buf_commit(out, 65536 - z.avail_out);
		in_member = r != Z_STREAM_END;
		ok = r == Z_STREAM_END || r == Z_OK;
	}
	inflateEnd(&z);
	return ok && !in_member;
}

/* The same through a stream; digests are checked on the way. */
static int through_stream(const uint8_t *p, size_t n, bool sequential, struct buf *out,
			  struct err *err)
{
	cleanup_close int fd = memfd_create("stream", MFD_CLOEXEC);
	cleanup_stream struct stream *s = NULL;
	struct stream_options o = {
		.fd = fd, .size = n, .offset = 3, .hash_input = true, .hash_output = true};
	struct stream_result res;
	struct digest in_digest, out_digest;
	const uint8_t *piece;
	size_t len;
	int r;

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, p, n, 3), n);
	if (sequential) {
		o.size = UINT64_MAX;
		assert_int_equal(lseek(fd, 3, SEEK_SET), 3);
	}
	assert_int_equal(stream_open(&s, &o, err), 0);
	while ((r = stream_next(s, &piece, &len, err)) > 0)
		buf_add(out, piece, len);
	if (r < 0)
		return r;
	assert_int_equal(stream_finish(s, UINT64_MAX, &res, err), 0);
	assert_int_equal(res.in, n);
	assert_int_equal(res.out, buf_size(out));
	assert_int_equal(digest_of(p, n, &in_digest, NULL), 0);
	assert_int_equal(digest_of(buf_ptr(out), buf_size(out), &out_digest, NULL), 0);
	assert_true(digest_equal(&res.in_digest, &in_digest));
	assert_true(digest_equal(&res.out_digest, &out_digest));
	return 0;
}

/* And without its process, whose start takes longer than all of this. */
struct memory {
	const uint8_t *p;
	size_t left, step;
	struct buf *out;
};

static size_t next_input(void *arg, const uint8_t **ret)
{
	struct memory *m = arg;
	size_t n = MIN(m->left, m->step);

	*ret = m->p;
	m->p += n;
	m->left -= n;
	return n;
}

static uint8_t *room(void *arg)
{
	return buf_reserve(((struct memory *)arg)->out, UNPACK_ROOM);
}

static int pass(void *arg, size_t n)
{
	buf_commit(((struct memory *)arg)->out, n);
	return 0;
}

static int in_memory(const uint8_t *p, size_t n, struct buf *out, struct err *err)
{
	struct memory m = {p, n, n % 3 ? n : 1 + n % 1000, out};
	const struct unpack_io io = {next_input, room, pass, &m};

	/* What it is has to be seen from the first piece. */
	m.step = MAX(m.step, (size_t)18);
	return unpack(&io, err);
}

/* Both must agree, on the verdict and on the bytes. */
static bool compare(const uint8_t *p, size_t n, bool process)
{
	struct buf want = BUF_INIT, have = BUF_INIT;
	struct err err = ERR_INIT;
	bool good = judge(p, n, &want);
	int r = process ? through_stream(p, n, n % 2, &have, &err) : in_memory(p, n, &have, &err);

	if (good) {
		assert_int_equal(r, 0);
		assert_int_equal(buf_size(&have), buf_size(&want));
		if (buf_size(&want))
			assert_memory_equal(buf_ptr(&have), buf_ptr(&want), buf_size(&want));
	} else {
		assert_int_equal(r, -ERR_CORRUPT);
		assert_non_null(strstr(err.msg, "gzip"));
	}
	buf_done(&want);
	buf_done(&have);
	return good;
}

static void test_members(void **state)
{
	uint8_t *data = malloc(LARGE);
	struct buf z = BUF_INIT;
	gz_header header = {.extra = (Bytef *)"extra",
			    .extra_len = 5,
			    .name = (Bytef *)"layer.tar",
			    .comment = (Bytef *)"a comment",
			    .hcrc = 1,
			    .os = 3};

	(void)state;
	assert_non_null(data);
	fill(data, LARGE);
	gzip_add(&z, &(struct member){data, LARGE, 6, &header});
	assert_true(compare(buf_ptr(&z), buf_size(&z), true));
	/* Many small ones: heads and trailers fall on every side of a buffer's end. */
	for (unsigned i = 0; i < 3000; i++) {
		size_t n = rnd(700);

		gzip_add(&z, &(struct member){data + rnd(4096), n, (int)rnd(10),
					      rnd(4) ? NULL : &header});
		if (!rnd(8))
			buf_add(&z, "\0\0\0\0\0\0\0\0\0", 1 + rnd(9));
	}
	gzip_add(&z, &(struct member){data, 0, 9, NULL});
	assert_true(compare(buf_ptr(&z), buf_size(&z), true));
	buf_add(&z, "garbage", 7);
	assert_false(compare(buf_ptr(&z), buf_size(&z), true));
	buf_done(&z);
	free(data);
}

static void test_truncated(void **state)
{
	uint8_t data[3000];
	struct buf z = BUF_INIT;
	gz_header header = {.name = (Bytef *)"name", .hcrc = 1};
	size_t first;

	(void)state;
	fill(data, sizeof(data));
	gzip_add(&z, &(struct member){data, sizeof(data), 6, &header});
	first = buf_size(&z);
	gzip_add(&z, &(struct member){data, 10, 0, NULL});
	/* Fewer than three bytes are no gzip data yet. */
	for (size_t n = 3; n < buf_size(&z); n++)
		assert_int_equal(compare(buf_ptr(&z), n, n % 50 == 3), n == first);
	buf_done(&z);
}

static void test_flipped(void **state)
{
	uint8_t data[2000];
	struct buf z = BUF_INIT;
	unsigned harmless = 0;

	(void)state;
	fill(data, sizeof(data));
	gzip_add(&z, &(struct member){data, sizeof(data), 6, NULL});
	for (size_t bit = 8 * 10; bit < 8 * buf_size(&z); bit++) {
		buf_ptr(&z)[bit / 8] ^= (uint8_t)(1u << bit % 8);
		harmless += compare(buf_ptr(&z), buf_size(&z), bit % 1000 == 0);
		buf_ptr(&z)[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	/* The bits between the last code and the trailer mean nothing. */
	assert_in_range(harmless, 0, 7);
	assert_true(compare(buf_ptr(&z), buf_size(&z), true));
	buf_done(&z);
}

/* Code tables, distances and stored lengths that no compressor writes. */
static void test_noise(void **state)
{
	static const uint8_t head[10] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3};

	(void)state;
	for (unsigned i = 0; i < 3000; i++) {
		uint8_t noise[300];

		memcpy(noise, head, sizeof(head));
		for (size_t k = sizeof(head); k < sizeof(noise); k++)
			noise[k] = (uint8_t)rnd(256);
		assert_false(compare(noise, sizeof(noise), i % 100 == 0));
	}
}

/* The consumer leaves while thread and process are at work, wherever that is. */
static void test_abandoned(void **state)
{
	uint8_t *data = malloc(LARGE);
	struct buf z = BUF_INIT;

	(void)state;
	assert_non_null(data);
	fill(data, LARGE);
	gzip_add(&z, &(struct member){data, LARGE, 1, NULL});
	for (unsigned take = 0; take < 40; take += 3) {
		cleanup_close int fd = memfd_create("stream", MFD_CLOEXEC);
		cleanup_stream struct stream *s = NULL;
		struct stream_options o = {.fd = fd, .size = buf_size(&z), .hash_input = true};
		const uint8_t *p;
		size_t n;

		assert_int_equal(write(fd, buf_ptr(&z), buf_size(&z)), buf_size(&z));
		assert_int_equal(stream_open(&s, &o, NULL), 0);
		for (unsigned i = 0; i < take; i++)
			assert_int_equal(stream_next(s, &p, &n, NULL), 1);
	}
	buf_done(&z);
	free(data);
}

static void test_plain(void **state)
{
	uint8_t *data = malloc(LARGE);

	(void)state;
	assert_non_null(data);
	fill(data, LARGE);
	for (size_t n = LARGE; n; n /= 7) {
		struct buf out = BUF_INIT;

		assert_int_equal(through_stream(data, n, n % 2, &out, NULL), 0);
		assert_int_equal(buf_size(&out), n);
		assert_memory_equal(buf_ptr(&out), data, n);
		buf_done(&out);
	}
	free(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_members),	  cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_flipped),	  cmocka_unit_test(test_noise),
		cmocka_unit_test(test_abandoned), cmocka_unit_test(test_plain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
