/* SPDX-License-Identifier: Apache-2.0 */
#include "image/crc32c.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/io.h"

/* Stays in the first-level cache's neighbourhood between the copy and the sum. */
#define CRC_FILE_BUFFER (64u << 10)
/* Reflected Castagnoli polynomial. */
#define CRC32C_POLY 0x82f63b78u

static uint32_t crc_table[8][256];
static pthread_once_t crc_once = PTHREAD_ONCE_INIT;

static void crc_init(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;

		for (int k = 0; k < 8; k++)
			c = c & 1 ? c >> 1 ^ CRC32C_POLY : c >> 1;
		crc_table[0][i] = c;
	}
	for (uint32_t i = 0; i < 256; i++)
		for (int t = 1; t < 8; t++)
			crc_table[t][i] =
				crc_table[t - 1][i] >> 8 ^ crc_table[0][crc_table[t - 1][i] & 0xff];
}

static uint32_t crc32c_soft(uint32_t crc, const uint8_t *p, size_t n)
{
	pthread_once(&crc_once, crc_init);
	for (; n >= 8; n -= 8, p += 8) {
		uint32_t a, b;

		memcpy(&a, p, 4);
		memcpy(&b, p + 4, 4);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
		a = __builtin_bswap32(a);
		b = __builtin_bswap32(b);
#endif
		a ^= crc;
		crc = crc_table[7][a & 0xff] ^ crc_table[6][a >> 8 & 0xff] ^
		      crc_table[5][a >> 16 & 0xff] ^ crc_table[4][a >> 24] ^
		      crc_table[3][b & 0xff] ^ crc_table[2][b >> 8 & 0xff] ^
		      crc_table[1][b >> 16 & 0xff] ^ crc_table[0][b >> 24];
	}
	while (n--)
		crc = crc >> 8 ^ crc_table[0][(crc ^ *p++) & 0xff];
	return crc;
}

#ifdef __x86_64__
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const uint8_t *p,
							       size_t n)
{
	uint64_t c = crc;

	for (; n >= 8; n -= 8, p += 8) {
		uint64_t v;

		memcpy(&v, p, 8);
		c = __builtin_ia32_crc32di(c, v);
	}
	while (n--)
		c = __builtin_ia32_crc32qi((uint32_t)c, *p++);
	return (uint32_t)c;
}
#endif

uint32_t crc32c(uint32_t crc, const void *p, size_t n)
{
#ifdef __x86_64__
	if (__builtin_cpu_supports("sse4.2"))
		return crc32c_sse42(crc, p, n);
#endif
	return crc32c_soft(crc, p, n);
}

int crc32c_file(int fd, uint64_t size, uint32_t *ret)
{
	cleanup_free uint8_t *buf = malloc(CRC_FILE_BUFFER);
	uint32_t crc = ~0u;

	if (!buf)
		return -ENOMEM;
	for (uint64_t at = 0; at < size;) {
		size_t want = (size_t)MIN(size - at, (uint64_t)CRC_FILE_BUFFER);
		ssize_t n = io_pread_full(fd, buf, want, at);

		if (n < 0)
			return (int)n;
		if ((size_t)n < want)
			return -ERR_CORRUPT;
		crc = crc32c(crc, buf, want);
		at += want;
	}
	*ret = crc;
	return 0;
}
