/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMAGE_CRC32C_H
#define IMAGE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Castagnoli CRC without pre- or post-inversion: start with ~0, chain results. Any thread. */
uint32_t crc32c(uint32_t crc, const void *p, size_t n);
/* Of the first @size bytes of @fd: 0, -ERR_CORRUPT if there are fewer, or -errno. */
int crc32c_file(int fd, uint64_t size, uint32_t *ret);

#endif
