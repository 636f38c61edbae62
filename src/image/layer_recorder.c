/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/layer_tar.h"

int layer_recorder_init(struct layer_recorder *r, int fd, struct err *err)
{
	r->literal = malloc(LAYER_LITERAL_MAX);
	if (!r->literal)
		return err_set(err, ENOMEM, "out of memory");
	return frame_init(&r->frame, fd, 0, err);
}

void layer_recorder_done(struct layer_recorder *r)
{
	frame_done(&r->frame);
	free(r->literal);
}

static int emit(struct layer_recorder *r, struct err *err)
{
	const struct layer_span s = {
		.literal = htole32(r->literal_len),
		.file = htole32(r->span.file),
		.offset = htole64(r->span.offset),
		.length = htole64(r->span.length),
	};
	int rc = frame_add(&r->frame, &s, sizeof(s), err);

	if (rc >= 0)
		rc = frame_add(&r->frame, r->literal, r->literal_len, err);
	r->literal_len = 0;
	r->span = (struct layer_span){0};
	return rc;
}

static int literal(struct layer_recorder *r, const uint8_t *p, size_t n, struct err *err)
{
	int rc = 0;

	if (n && r->span.length)
		rc = emit(r, err);
	r->bytes += n;
	while (n && rc >= 0) {
		size_t piece = MIN(n, LAYER_LITERAL_MAX - r->literal_len);

		memcpy(r->literal + r->literal_len, p, piece);
		r->literal_len += (uint32_t)piece;
		p += piece;
		n -= piece;
		if (r->literal_len == LAYER_LITERAL_MAX)
			rc = emit(r, err);
	}
	return rc;
}

int layer_recorder_leave(struct layer_recorder *r, struct err *err)
{
	const size_t left = r->piece_len - r->piece_done;
	const uint8_t *p = left ? r->piece + r->piece_done : NULL;

	r->piece = NULL;
	r->piece_len = r->piece_done = 0;
	return literal(r, p, left, err);
}

void layer_recorder_enter(struct layer_recorder *r, const uint8_t *p, size_t n)
{
	r->piece = p;
	r->piece_len = n;
	r->piece_done = 0;
}

int layer_recorder_content(struct layer_recorder *r, const uint8_t *p, size_t n, uint32_t file,
			   uint64_t offset, struct err *err)
{
	const size_t at = (size_t)(p - r->piece);
	int rc = literal(r, r->piece + r->piece_done, at - r->piece_done, err);

	r->piece_done = at + n;
	r->bytes += n;
	if (rc < 0)
		return rc;
	if (r->span.length && r->span.file == file && r->span.offset + r->span.length == offset) {
		r->span.length += n;
		return 0;
	}
	if (r->span.length)
		rc = emit(r, err);
	r->span = (struct layer_span){0, file, offset, n};
	return rc;
}

int layer_recorder_end(struct layer_recorder *r, struct err *err)
{
	int rc = layer_recorder_leave(r, err);

	if (rc >= 0 && (r->literal_len || r->span.length))
		rc = emit(r, err);
	return rc < 0 ? rc : frame_end(&r->frame, err);
}
