/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HEX.tar: what makes a layer's tar stream again, byte for byte.
 *
 * One zstd frame of spans. A span is its header, some bytes of the stream (headers, padding, the
 * end of the archive and what stands behind it, contents that no file in the store has), and then
 * a range of a file's contents, which are in HEX.data and HEX.tails and not repeated here.
 *
 * One thread.
 */
#ifndef IMAGE_LAYER_TAR_H
#define IMAGE_LAYER_TAR_H

#include "image/frame.h"
#include "image/layer.h"

struct layer_span {
	uint32_t literal; /* bytes that follow this header */
	uint32_t file;	  /* number among the regular files of the index, ascending */
	uint64_t offset;  /* of its contents */
	uint64_t length;  /* 0: none, file and offset mean nothing */
};
_Static_assert(sizeof(struct layer_span) == 24, "layer span layout");

/* Bytes of the stream in one span. */
#define LAYER_LITERAL_MAX (64u << 10)

/* --- Writing (layer_recorder.c) --- */

/* Zero-initialise, set frame. */
struct layer_recorder {
	struct frame frame;
	uint8_t *literal;
	uint32_t literal_len;
	struct layer_span span; /* what follows the literal, once it has a length */
	/* The piece of the stream that the tar reader is in, and how much of it is dealt with. */
	const uint8_t *piece;
	size_t piece_len, piece_done;
	uint64_t bytes; /* of the stream */
};

int layer_recorder_init(struct layer_recorder *r, int fd, struct err *err);
void layer_recorder_done(struct layer_recorder *r);
/* The tar reader has finished with the present piece; it must still be readable. */
int layer_recorder_leave(struct layer_recorder *r, struct err *err);
/* It gets this one; NULL at the end. */
void layer_recorder_enter(struct layer_recorder *r, const uint8_t *p, size_t n);
/* @n bytes at @p, in the present piece, are contents of file @file at @offset. */
int layer_recorder_content(struct layer_recorder *r, const uint8_t *p, size_t n, uint32_t file,
			   uint64_t offset, struct err *err);
int layer_recorder_end(struct layer_recorder *r, struct err *err);

/* --- Reading (layer_tar.c) --- */

struct layer_tar;

int layer_tar_open(struct layer_tar **ret, const struct store *s, const struct digest *diff_id,
		   struct err *err);
/* The same from parts: takes @r over, borrows @fd, in which is one frame of @size bytes. */
int layer_tar_from(struct layer_tar **ret, struct layer_reader *r, int fd, uint64_t size,
		   uint32_t crc, uint64_t bytes, struct err *err);
struct layer_tar *layer_tar_close(struct layer_tar *t);
static inline void layer_tar_close_fn(struct layer_tar **t)
{
	layer_tar_close(*t);
}
#define cleanup_layer_tar __attribute__((cleanup(layer_tar_close_fn)))

/* A tar_read_fn: the next bytes, 0 when all have come and the frame was whole. */
int layer_tar_next(void *t, const uint8_t **ret, size_t *ret_len, struct err *err);

#endif
