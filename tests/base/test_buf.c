/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "base/buf.h"

static void appends_and_reads(void **state)
{
	cleanup_buf struct buf b = BUF_INIT;

	(void)state;
	buf_add_u8(&b, 1);
	buf_add_be32(&b, 0x02030405);
	buf_add_str(&b, "xyz");
	buf_add(&b, "\0\1", 2);
	buf_add(&b, NULL, 0);
	buf_addf(&b, "%d-%s", 42, "a");
	assert_false(buf_failed(&b));
	assert_int_equal(buf_size(&b), 14);
	assert_memory_equal(buf_ptr(&b), "\1\2\3\4\5xyz\0\00142-a", 14);
	buf_consume(&b, 5);
	assert_memory_equal(buf_ptr(&b), "xyz", 3);
	buf_consume(&b, 9);
	assert_int_equal(buf_size(&b), 0);
	assert_int_equal(b.head, 0);
}

static void the_ceiling_counts_unread_bytes(void **state)
{
	cleanup_buf struct buf b = {.max = 100};
	char bytes[100] = {0};

	(void)state;
	buf_add(&b, bytes, 100);
	assert_false(buf_failed(&b));
	buf_consume(&b, 60);
	buf_add(&b, bytes, 60);
	assert_false(buf_failed(&b));
	assert_int_equal(buf_size(&b), 100);
	buf_add_u8(&b, 0);
	assert_true(buf_failed(&b));
	/* The failure stays, and what was there stays. */
	buf_consume(&b, 50);
	buf_add_u8(&b, 0);
	assert_true(buf_failed(&b));
	assert_int_equal(buf_size(&b), 50);
	assert_null(buf_reserve(&b, 1));
	assert_null(buf_cstr(&b));
	buf_reset(&b);
	assert_false(buf_failed(&b));
	assert_int_equal(buf_size(&b), 0);
	buf_add(&b, bytes, 100);
	assert_false(buf_failed(&b));
}

static void absurd_sizes_are_refused(void **state)
{
	static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 1, SIZE_MAX / 2, BUF_MAX_DEFAULT + 1};

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		cleanup_buf struct buf b = BUF_INIT;

		buf_add_u8(&b, 7);
		assert_null(buf_reserve(&b, sizes[i]));
		assert_true(buf_failed(&b));
		assert_int_equal(buf_size(&b), 1);
	}
}

static void contents_survive_sliding_and_growing(void **state)
{
	cleanup_buf struct buf b = BUF_INIT;
	uint8_t in = 0, out = 0;
	unsigned seed = 1;

	(void)state;
	for (int round = 0; round < 20000; round++) {
		size_t n;

		seed = seed * 1103515245 + 12345;
		n = seed >> 16 & 127;
		for (size_t i = 0; i < n; i++)
			buf_add_u8(&b, in++);
		assert_false(buf_failed(&b));
		seed = seed * 1103515245 + 12345;
		n = seed >> 16 & 127;
		if (n > buf_size(&b))
			n = buf_size(&b);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(buf_ptr(&b)[i], out++);
		buf_consume(&b, n);
	}
	/* A queue that never grows long must not hold much. */
	assert_true(b.cap < 1 << 20);
}

static void nothing_added_to_an_empty_buffer(void **state)
{
	cleanup_buf struct buf b = BUF_INIT;

	(void)state;
	buf_add(&b, "", 0);
	buf_add(&b, NULL, 0);
	buf_add_str(&b, "");
	buf_addf(&b, "%s", "");
	buf_consume(&b, 0);
	assert_false(buf_failed(&b));
	assert_int_equal(buf_size(&b), 0);
}

static void a_string_has_an_uncounted_end(void **state)
{
	cleanup_buf struct buf b = BUF_INIT;

	(void)state;
	assert_string_equal(buf_cstr(&b), "");
	buf_add_str(&b, "ab");
	assert_string_equal(buf_cstr(&b), "ab");
	assert_int_equal(buf_size(&b), 2);
	buf_add_str(&b, "c");
	assert_string_equal(buf_cstr(&b), "abc");
}

static void formatting_reaches_the_ceiling(void **state)
{
	cleanup_buf struct buf b = {.max = 8};

	(void)state;
	buf_addf(&b, "%s", "1234567");
	assert_false(buf_failed(&b));
	buf_addf(&b, "%s", "89");
	assert_true(buf_failed(&b));
	assert_int_equal(buf_size(&b), 7);
}

static void cursor_reads_both_orders(void **state)
{
	static const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
	struct cur c = cur_make(bytes, sizeof(bytes));

	(void)state;
	assert_int_equal(cur_u8(&c), 1);
	assert_int_equal(cur_be16(&c), 0x0203);
	assert_int_equal(cur_be32(&c), 0x04050607);
	assert_true(cur_be64(&c) == 0x08090a0b0c0d0e0fu);
	assert_int_equal(cur_left(&c), 0);
	assert_false(c.bad);
	c = cur_make(bytes, sizeof(bytes));
	assert_int_equal(cur_le16(&c), 0x0201);
	assert_int_equal(cur_le32(&c), 0x06050403);
	assert_true(cur_le64(&c) == 0x0e0d0c0b0a090807u);
	assert_int_equal(*cur_bytes(&c, 1), 15);
	assert_false(c.bad);
}

static void cursor_stops_at_the_end(void **state)
{
	static const uint8_t bytes[] = {1, 2, 3};
	struct cur c = cur_make(bytes, sizeof(bytes));

	(void)state;
	assert_int_equal(cur_be32(&c), 0);
	assert_true(c.bad);
	/* It stays bad, even for what would fit, and does not move. */
	assert_int_equal(cur_left(&c), 3);
	assert_int_equal(cur_u8(&c), 0);
	assert_null(cur_bytes(&c, 1));
	assert_null(cur_bytes(&c, SIZE_MAX));
	c = cur_make(NULL, 0);
	assert_int_equal(cur_u8(&c), 0);
	assert_true(c.bad);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(appends_and_reads),
		cmocka_unit_test(the_ceiling_counts_unread_bytes),
		cmocka_unit_test(absurd_sizes_are_refused),
		cmocka_unit_test(contents_survive_sliding_and_growing),
		cmocka_unit_test(nothing_added_to_an_empty_buffer),
		cmocka_unit_test(a_string_has_an_uncounted_end),
		cmocka_unit_test(formatting_reaches_the_ceiling),
		cmocka_unit_test(cursor_reads_both_orders),
		cmocka_unit_test(cursor_stops_at_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
