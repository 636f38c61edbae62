/* SPDX-License-Identifier: Apache-2.0 */
/* A stream of bytes in pieces: frames come out the same as when it comes at once. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "wire/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static unsigned read_all(const uint8_t *p, size_t n, size_t step)
{
	cleanup_buf struct buf b = BUF_INIT;
	unsigned frames = 0;
	struct frame f;
	int r = 0;

	for (size_t at = 0; at < n && r >= 0; at += step) {
		buf_add(&b, p + at, MIN(step, n - at));
		while ((r = frame_peek(&b, &f, NULL)) == 1) {
			struct envelope e;
			struct err err = ERR_INIT;
			const uint8_t *data;
			size_t len;

			if (!frame_open(&f, &e, &err) && e.type)
				(void)frame_data(&e, &data, &len, &err);
			frame_consume(&b, &f);
			frames++;
		}
		if (!r && frame_missing(&b) == 0)
			abort();
	}
	return frames;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	if (n < 1)
		return 0;
	if (read_all(p + 1, n - 1, 1 + p[0] % 16) != read_all(p + 1, n - 1, n))
		abort();
	return 0;
}
