/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decompression of a layer or an archive, gzip or zstd. What it is is told by content, never by
 * media type: registries are known to mix them up.
 *
 * Part of msb-convert (image/convert.h): it works on nothing but two functions. One thread.
 */
#ifndef IMAGE_UNPACK_H
#define IMAGE_UNPACK_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum compression { COMPRESSION_NONE, COMPRESSION_GZIP, COMPRESSION_ZSTD };

/* By the first bytes; COMPRESSION_NONE for anything unknown. */
enum compression compression_of(const uint8_t *p, size_t n);
/* For messages: a known format we do not read ("xz", "bzip2"), or NULL. */
const char *compression_unsupported(const uint8_t *p, size_t n);

struct unpack_io {
	/* The next input, valid until the next call: its size, 0 at the end. */
	size_t (*next)(void *arg, const uint8_t **ret);
	/* UNPACK_ROOM bytes for output; NULL ends it with EPIPE. */
	uint8_t *(*room)(void *arg);
	/* There are @n bytes in it, all of it but at the end. A negative code ends it. */
	int (*pass)(void *arg, size_t n);
	void *arg;
};
#define UNPACK_ROOM (128u << 10)

/* Everything that read() delivers. ERR_CORRUPT when it is not compressed. */
int unpack(const struct unpack_io *io, struct err *err);

#endif
