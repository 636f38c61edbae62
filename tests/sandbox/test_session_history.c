/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "base/cleanup.h"
#include "sandbox/session_history.h"

static void test_pieces(void **state)
{
	struct session_history h;
	const void *p;
	int stream;

	(void)state;
	history_init(&h, 0);
	assert_int_equal(history_start(&h), 0);
	history_add(&h, 1, "abc", 3);
	history_add(&h, 1, "def", 3);
	history_add(&h, 2, "X", 1);
	history_add(&h, 1, "gh", 2);
	assert_int_equal(h.end, 9);
	assert_int_equal(history_at(&h, 0, 100, &stream, &p), 6);
	assert_int_equal(stream, 1);
	assert_memory_equal(p, "abcdef", 6);
	assert_int_equal(history_at(&h, 0, 4, &stream, &p), 4);
	assert_int_equal(history_at(&h, 5, 100, &stream, &p), 1);
	assert_memory_equal(p, "f", 1);
	assert_int_equal(history_at(&h, 6, 100, &stream, &p), 1);
	assert_int_equal(stream, 2);
	assert_int_equal(history_at(&h, 7, 100, &stream, &p), 2);
	assert_int_equal(stream, 1);
	assert_memory_equal(p, "gh", 2);
	history_done(&h);
}

/* Against a plain array of everything there was. */
static void test_the_last_bytes_are_kept(void **state)
{
	enum { ALL = 4 << 20 };
	uint8_t *bytes = malloc(ALL), *streams = malloc(ALL);
	struct session_history h;
	uint32_t seed = 1;
	size_t total = 0;

	(void)state;
	history_init(&h, 0);
	for (;;) {
		size_t n;
		uint8_t stream;

		seed = seed * 1664525 + 1013904223;
		n = 1 + seed % (seed >> 8 & 7 ? 40 : 90000);
		stream = 1 + (seed >> 20 & 1);

		if (total + n > ALL)
			break;
		for (size_t i = 0; i < n; i++) {
			bytes[total + i] = (uint8_t)(seed >> (i % 24));
			streams[total + i] = stream;
		}
		assert_int_equal(history_add(&h, stream, bytes + total, n), 0);
		total += n;
		assert_int_equal(h.end, total);
		assert_true(h.end - history_first(&h) <= SESSION_HISTORY_DEFAULT);
		for (uint64_t at = history_first(&h); at < h.end && total % 16 == 0;) {
			const void *p;
			int got;
			size_t k = history_at(&h, at, 10000, &got, &p);

			assert_in_range(k, 1, 10000);
			assert_memory_equal(p, bytes + at, k);
			for (size_t i = 0; i < k; i++)
				assert_int_equal(got, streams[at + i]);
			at += k;
		}
	}
	history_done(&h);
	free(bytes);
	free(streams);
}

static void test_too_many_changes_and_too_long_a_piece(void **state)
{
	struct session_history h;
	char *big = calloc(1, 2 * SESSION_HISTORY_DEFAULT);
	const void *p;
	int stream;

	(void)state;
	history_init(&h, 0);
	for (unsigned i = 0; i < 3 * (SESSION_HISTORY_DEFAULT / 64); i++)
		assert_int_equal(history_add(&h, 1 + (i & 1), "x", 1), 0);
	assert_int_equal(h.end - history_first(&h), (SESSION_HISTORY_DEFAULT / 64));
	for (uint64_t at = history_first(&h); at < h.end; at++) {
		assert_int_equal(history_at(&h, at, 9, &stream, &p), 1);
		assert_int_equal(stream, 1 + (at & 1));
	}
	big[2 * SESSION_HISTORY_DEFAULT - 5] = '\n';
	assert_int_equal(history_add(&h, 2, big, 2 * SESSION_HISTORY_DEFAULT), 0);
	assert_int_equal(h.end - history_first(&h), SESSION_HISTORY_DEFAULT);
	assert_int_equal(history_at(&h, history_first(&h), 9, &stream, &p), 9);
	assert_int_equal(stream, 2);
	/* People begin to read at the beginning of a line. */
	assert_int_equal(history_start(&h), h.end - 4);
	history_done(&h);
	free(big);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_the_last_bytes_are_kept),
		cmocka_unit_test(test_too_many_changes_and_too_long_a_piece),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
