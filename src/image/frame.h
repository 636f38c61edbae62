/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A zstd frame in a file, written and read as a stream. The frame carries zstd's own checksum of
 * what went in, and `crc` is the CRC-32C of what is in the file. One thread.
 */
#ifndef IMAGE_FRAME_H
#define IMAGE_FRAME_H

#include <stddef.h>
#include <stdint.h>
#include <zstd.h>

#include "base/err.h"

/* Zero-initialise both; frame_done() and unframe_done() are harmless on that. */
struct frame {
	ZSTD_CCtx *z;
	int fd; /* borrowed */
	uint8_t *out;
	uint64_t at; /* where in the file the next bytes go */
	uint64_t written;
	uint32_t crc;
};

/* The frame starts at @at of @fd. */
int frame_init(struct frame *f, int fd, uint64_t at, struct err *err);
void frame_done(struct frame *f);
int frame_add(struct frame *f, const void *p, size_t n, struct err *err);
/* Nothing can be added any more; `written` and `crc` are final. */
int frame_end(struct frame *f, struct err *err);

struct unframe {
	ZSTD_DCtx *z;
	int fd;		   /* borrowed */
	uint64_t at, left; /* of the file */
	uint8_t *in, *out;
	ZSTD_inBuffer zin;
	size_t out_at, out_len;
	uint64_t pos; /* uncompressed bytes delivered */
	uint32_t crc;
	size_t pending;
};

/* The frame is the @size bytes at @at of @fd. */
int unframe_init(struct unframe *u, int fd, uint64_t at, uint64_t size, struct err *err);
void unframe_done(struct unframe *u);
/* @n bytes, dropped when @p is NULL; -ERR_CORRUPT if there are fewer. */
int unframe_read(struct unframe *u, void *p, size_t n, struct err *err);
/* 1 if there are bytes left, 0 at the very end of a frame with CRC @crc, else -ERR_CORRUPT. */
int unframe_end(struct unframe *u, uint32_t crc, struct err *err);

#endif
