/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "gen.h"
#include "wire/frame.h"

static void test_golden(void **state)
{
	static const uint8_t expected[] = {
		0,    0,   0,	0x19, 0,   0,	0,   7,	  0,   0xa3, 0x61, 'v', 7,    0x61, 't',
		0x69, 'c', 'o', 'r',  'e', '.', 'p', 'i', 'n', 'g',  0x61, 'p', 0x41, 0xa0,
	};
	cleanup_buf struct buf b = BUF_INIT;
	struct msg_empty none = {0};

	(void)state;
	assert_int_equal(frame_put_msg(&b, 7, MSG_PING, &none), 0);
	assert_int_equal(buf_size(&b), sizeof(expected));
	assert_memory_equal(buf_ptr(&b), expected, sizeof(expected));
}

/* All four writers of data frames agree, and readers get the data back, at every size class. */
static void test_data_frames(void **state)
{
	static const size_t sizes[] = {0,	  1,	 23,	24,	255,	 256,
				       65535 - 6, 65535, 65536, 262144, 3 << 20, FRAME_DATA_MAX};
	cleanup_free uint8_t *data = malloc(FRAME_DATA_MAX);
	struct rng rng = {3};

	(void)state;
	for (size_t i = 0; i < FRAME_DATA_MAX; i++)
		data[i] = (uint8_t)rng_next(&rng);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		cleanup_buf struct buf a = BUF_INIT, b = BUF_INIT, c = BUF_INIT;
		struct msg_data m = {{data, sizes[i]}};
		uint8_t head[FRAME_DATA_HEAD_MAX];
		struct frame_data d;
		struct envelope e;
		struct frame f;
		const uint8_t *p;
		size_t n;

		assert_int_equal(frame_put_msg(&a, 9, MSG_EXEC_STDOUT, &m), 0);
		assert_int_equal(frame_put_data(&b, 9, MSG_EXEC_STDOUT, data, sizes[i]), 0);
		assert_int_equal(buf_size(&a), buf_size(&b));
		assert_memory_equal(buf_ptr(&a), buf_ptr(&b), buf_size(&a));
		n = frame_data_head(head, 9, MSG_EXEC_STDOUT, sizes[i]);
		assert_memory_equal(buf_ptr(&a), head, n);
		if (sizes[i]) {
			size_t max = MIN(sizes[i] * (1 + i % 3), (size_t)FRAME_DATA_MAX);
			uint8_t *to = frame_data_begin(&c, &d, 9, MSG_EXEC_STDOUT, max);

			memcpy(to, data, sizes[i]);
			frame_data_end(&c, &d, sizes[i]);
			assert_int_equal(buf_size(&a), buf_size(&c));
			assert_memory_equal(buf_ptr(&a), buf_ptr(&c), buf_size(&a));
		}
		assert_int_equal(frame_peek(&a, &f, NULL), 1);
		assert_int_equal(frame_open(&f, &e, NULL), 0);
		assert_int_equal(msg_kind_of(e.type), MSG_EXEC_STDOUT);
		assert_int_equal(frame_data(&e, &p, &n, NULL), 0);
		assert_int_equal(n, sizes[i]);
		assert_memory_equal(p, data, n);
	}
	{
		cleanup_buf struct buf b = BUF_INIT;

		assert_int_equal(frame_put_data(&b, 1, MSG_FS_DATA, data, FRAME_DATA_MAX + 1u),
				 -EMSGSIZE);
		assert_int_equal(buf_size(&b), 0);
	}
}

static void test_too_big(void **state)
{
	cleanup_free char *text = calloc(1, (4 << 20) + 1);
	struct msg_tcp_failed m = {.error = text};
	cleanup_buf struct buf b = BUF_INIT;

	(void)state;
	memset(text, 'x', 4 << 20);
	buf_add_str(&b, "before");
	assert_int_equal(frame_put_msg(&b, 1, MSG_TCP_FAILED, &m), -EMSGSIZE);
	assert_int_equal(buf_size(&b), 6);
}

/* Feed three frames split in two at every byte, and byte by byte. */
static void test_split(void **state)
{
	cleanup_buf struct buf all = BUF_INIT;
	struct msg_exec_exited exited = {.code = 3};
	struct msg_empty none = {0};
	size_t total;

	(void)state;
	frame_put_msg(&all, 1, MSG_PING, &none);
	frame_put_data(&all, 2, MSG_EXEC_STDIN, "hello", 5);
	frame_put_msg(&all, 3, MSG_EXEC_EXITED, &exited);
	total = buf_size(&all);
	for (size_t at = 0; at <= total; at++) {
		cleanup_buf struct buf in = BUF_INIT;
		size_t step = at ? at : 1, fed = 0;
		uint32_t id = 1;

		while (fed < total) {
			size_t n = MIN(step, total - fed);
			struct frame f;

			buf_add(&in, buf_ptr(&all) + fed, n);
			fed += n;
			while (frame_peek(&in, &f, NULL) == 1) {
				struct envelope e;

				assert_int_equal(f.id, id++);
				assert_int_equal(frame_open(&f, &e, NULL), 0);
				assert_int_equal(f.flags, e.type->flags);
				frame_consume(&in, &f);
			}
			if (fed < total)
				assert_true(frame_missing(&in) >= 1);
			if (at)
				step = total;
		}
		assert_int_equal(id, 4);
		assert_int_equal(buf_size(&in), 0);
	}
}

static int open_body(const void *body, size_t n)
{
	cleanup_buf struct buf b = BUF_INIT;
	struct err err = ERR_INIT;
	struct envelope e;
	struct frame f;
	int r;

	frame_put(&b, 1, 0, body, n);
	assert_int_equal(frame_peek(&b, &f, NULL), 1);
	r = frame_open(&f, &e, &err);
	if (r < 0)
		assert_true(err.msg[0]);
	return r;
}

static void test_broken(void **state)
{
	static const uint8_t lengths[][4] = {
		{0, 0, 0, 4}, {0, 0x40, 0, 1}, {0xff, 0xff, 0xff, 0xff}};
	struct rng rng = {5};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		cleanup_buf struct buf b = BUF_INIT;
		struct frame f;

		buf_add(&b, lengths[i], 4);
		assert_int_equal(frame_peek(&b, &f, NULL), -ERR_PROTOCOL);
	}
	assert_true(open_body("", 0) < 0);
	assert_true(open_body("\xa0", 1) < 0);
	assert_true(open_body("\xa3\x61v\x07\x61t\x61x\x61p\x41", 11) < 0);
	assert_true(open_body("\xa3\x61v\x07\x61t\x61x\x61p\x40", 11) == 0);
	assert_true(open_body("\xa4\x61v\x07\x61t\x61x\x61p\x40\x61v\x07", 14) < 0);
	assert_true(open_body("\xa3\x61v\x07\x61t\x61x\x61p\x40\x00", 12) < 0);
	assert_true(open_body("\xa4\x61v\x07\x61q\x81\x01\x61t\x61x\x61p\x40", 15) == 0);
	for (int i = 0; i < 20000; i++) {
		uint8_t junk[64];
		size_t n = rng_below(&rng, sizeof(junk));

		for (size_t k = 0; k < n; k++)
			junk[k] = (uint8_t)rng_next(&rng);
		open_body(junk, n);
	}
}

/* Frames seen in passing are those that were sent, however the stream is cut. */
static void test_scan(void **state)
{
	static const size_t sizes[] = {0, 1, 80, 5000, 0, 70000};
	cleanup_buf struct buf b = BUF_INIT;
	cleanup_free uint8_t *data = calloc(1, 70000);
	struct rng rng = {5};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		frame_put(&b, (uint32_t)i + 1, (uint8_t)i, data, sizes[i]);
		frame_put_data(&b, 9, MSG_EXEC_STDERR, data, sizes[i]);
	}
	for (int round = 0; round < 50; round++) {
		const uint8_t *p = buf_ptr(&b), *end = p + buf_size(&b), *head = NULL;
		struct frame_scan scan = {0};
		const struct msg_type *type;
		struct frame_piece piece;
		size_t frames = 0, at;

		while (p < end) {
			size_t step = MIN((size_t)rng_below(&rng, round < 25 ? 30 : 9000) + 1,
					  (size_t)(end - p));

			while (frame_scan(&scan, &p, &step, &piece) > 0) {
				size_t size = sizes[frames / 2];

				if (piece.at == 0)
					head = piece.p;
				assert_true(piece.at + piece.n <= piece.len);
				if (!frame_piece_last(&piece))
					continue;
				if (frames % 2) {
					assert_int_equal(piece.id, 9);
					assert_true(frame_data_at(
						head, MIN(piece.len, (uint32_t)FRAME_DATA_HEAD_MAX),
						piece.len, &type, &at));
					assert_int_equal(msg_kind_of(type), MSG_EXEC_STDERR);
					assert_int_equal(piece.len - at, size);
				} else {
					assert_int_equal(piece.id, frames / 2 + 1);
					assert_int_equal(piece.flags, frames / 2);
					assert_int_equal(piece.len, size);
					assert_false(frame_data_at(
						head, MIN(piece.len, (uint32_t)FRAME_DATA_HEAD_MAX),
						piece.len, &type, &at));
				}
				frames++;
			}
			assert_int_equal(step, 0);
		}
		assert_int_equal(frames, 2 * ARRAY_SIZE(sizes));
	}
}

static void test_scan_of_no_frames(void **state)
{
	static const uint8_t broken[] = {0, 0, 0, 4, 0, 0, 0, 1, 0, 1, 2, 3};
	struct frame_scan scan = {0};
	struct frame_piece piece;

	(void)state;
	for (int i = 0; i < 2; i++) {
		const uint8_t *p = broken;
		size_t n = sizeof(broken);

		assert_int_equal(frame_scan(&scan, &p, &n, &piece), -ERR_PROTOCOL);
	}
}

static void test_ranges(void **state)
{
	(void)state;
	assert_int_equal(frame_client_start(0), 1);
	for (unsigned i = 1; i < FRAME_CLIENTS_MAX; i++)
		assert_true(frame_client_start(i) > frame_client_end(i - 1));
	assert_true(frame_client_end(FRAME_CLIENTS_MAX - 1) >
		    frame_client_start(FRAME_CLIENTS_MAX - 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_golden),	cmocka_unit_test(test_data_frames),
		cmocka_unit_test(test_too_big), cmocka_unit_test(test_split),
		cmocka_unit_test(test_broken),	cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_scan),	cmocka_unit_test(test_scan_of_no_frames),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
