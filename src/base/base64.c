/* SPDX-License-Identifier: Apache-2.0 */
#include "base/base64.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(const void *p, size_t n, struct buf *b)
{
	const uint8_t *in = p;
	size_t groups = (n + 2) / 3;
	char *to = buf_reserve(b, groups * 4);

	if (!to)
		return;
	for (size_t i = 0; i < n; i += 3, to += 4) {
		uint32_t v = (uint32_t)in[i] << 16;

		if (i + 1 < n)
			v |= (uint32_t)in[i + 1] << 8;
		if (i + 2 < n)
			v |= in[i + 2];
		to[0] = digits[v >> 18];
		to[1] = digits[v >> 12 & 63];
		to[2] = i + 1 < n ? digits[v >> 6 & 63] : '=';
		to[3] = i + 2 < n ? digits[v & 63] : '=';
	}
	buf_commit(b, groups * 4);
}

int base64_decode(const char *text, size_t n, struct buf *b)
{
	if (n % 4)
		return -EINVAL;
	for (size_t i = 0; i < n; i += 4) {
		size_t given = 4;
		uint32_t v = 0;

		/* Padding only at the end of all, and of one or two digits. */
		if (i + 4 == n && text[i + 3] == '=')
			given = text[i + 2] == '=' ? 2 : 3;
		for (size_t k = 0; k < 4; k++) {
			const char *at = k < given ? memchr(digits, text[i + k], 64) : digits;

			if (!at)
				return -EINVAL;
			v = v << 6 | (uint32_t)(at - digits);
		}
		/* Bits that stand for nothing must be none: one text for the same bytes. */
		if (v & ((1u << 8 * (4 - given)) - 1))
			return -EINVAL;
		for (size_t k = 0; k + 1 < given; k++)
			buf_add_u8(b, (uint8_t)(v >> (16 - 8 * k)));
	}
	return b->failed ? -ENOMEM : 0;
}
