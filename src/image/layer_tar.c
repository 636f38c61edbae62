/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/layer_tar.h"

#define SPAN_LITERAL_MAX (64u << 10)

/* --- Writing --- */

int layer_recorder_init(struct layer_recorder *r, const struct store *s, int fd, struct err *err)
{
	r->literal = malloc(SPAN_LITERAL_MAX);
	if (!r->literal)
		return err_set(err, ENOMEM, "out of memory");
	return frame_init(&r->frame, s, fd, 0, err);
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
		size_t piece = MIN(n, SPAN_LITERAL_MAX - r->literal_len);

		memcpy(r->literal + r->literal_len, p, piece);
		r->literal_len += (uint32_t)piece;
		p += piece;
		n -= piece;
		if (r->literal_len == SPAN_LITERAL_MAX)
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

/* --- Reading --- */

struct layer_tar {
	struct layer_reader *layer;
	struct unframe spans;
	uint32_t crc;
	uint64_t bytes, delivered;
	uint32_t literal; /* left of the present span */
	struct layer_span span;
	/* The file that spans are in. */
	bool in_file;
	uint32_t file;
	struct layer_entry entry;
	bool has_tail;
	uint8_t tail[EROFS_BLOCK];
	uint8_t buf[SPAN_LITERAL_MAX];
};

static int damaged(const char *what, struct err *err)
{
	return err_set(err, ERR_CORRUPT, "what the layer's tar stream was is damaged: %s", what);
}

int layer_tar_from(struct layer_tar **ret, struct layer_reader *r, int fd, uint64_t size,
		   uint32_t crc, uint64_t bytes, struct err *err)
{
	cleanup_layer_tar struct layer_tar *t = malloc(sizeof(*t));
	int rc;

	if (!t) {
		layer_close(r);
		return err_set(err, ENOMEM, "out of memory");
	}
	memset(t, 0, offsetof(struct layer_tar, tail));
	t->layer = r;
	t->crc = crc;
	t->bytes = bytes;
	rc = unframe_init(&t->spans, fd, 0, size, err);
	if (rc < 0)
		return rc;
	*ret = take_ptr(t);
	return 0;
}

struct layer_tar *layer_tar_close(struct layer_tar *t)
{
	if (!t)
		return NULL;
	layer_close(t->layer);
	unframe_done(&t->spans);
	free(t);
	return NULL;
}

uint64_t layer_tar_bytes(const struct layer_tar *t)
{
	return t->bytes;
}

/* Move on to regular file number @n. */
static int seek_file(struct layer_tar *t, uint32_t n, struct err *err)
{
	if (t->in_file && n < t->file)
		return damaged("files out of order", err);
	while (!t->in_file || t->file < n) {
		int rc;

		do {
			rc = layer_next(t->layer, &t->entry, err);
			if (rc < 0)
				return rc;
			if (rc == 0)
				return damaged("a file that is not in the index", err);
		} while (t->entry.type != LAYER_FILE);
		t->file += t->in_file;
		t->in_file = true;
		t->has_tail = false;
	}
	return 0;
}

/* The next span that delivers anything: 1, 0 at the end. */
static int next_span(struct layer_tar *t, struct err *err)
{
	struct layer_span s;
	int rc;

	if (t->delivered == t->bytes)
		return unframe_end(&t->spans, t->crc, err) != 0 ? damaged("its end", err) : 0;
	rc = unframe_read(&t->spans, &s, sizeof(s), err);
	if (rc < 0)
		return rc;
	t->literal = le32toh(s.literal);
	t->span.file = le32toh(s.file);
	t->span.offset = le64toh(s.offset);
	t->span.length = le64toh(s.length);
	if (!t->literal && !t->span.length)
		return damaged("an empty span", err);
	if (t->literal > t->bytes - t->delivered ||
	    t->span.length > t->bytes - t->delivered - t->literal)
		return damaged("its length", err);
	if (!t->span.length)
		return 1;
	rc = seek_file(t, t->span.file, err);
	if (rc < 0)
		return rc;
	if (t->span.offset > t->entry.size || t->span.length > t->entry.size - t->span.offset)
		return damaged("a range outside of its file", err);
	return 1;
}

/* Contents of the present file at span.offset: at most *n bytes. */
static int read_content(struct layer_tar *t, size_t *n, struct err *err)
{
	const uint64_t block_end = t->entry.size - t->entry.tail_len;
	int rc;

	if (t->span.offset < block_end) {
		*n = (size_t)MIN((uint64_t)*n, block_end - t->span.offset);
		return layer_read_blocks(t->layer, &t->entry, t->span.offset, t->buf, *n, err);
	}
	if (!t->has_tail) {
		rc = layer_read_tail(t->layer, t->entry.tail_at, t->tail, t->entry.tail_len, err);
		if (rc < 0)
			return rc;
		t->has_tail = true;
	}
	memcpy(t->buf, t->tail + (t->span.offset - block_end), *n);
	return 0;
}

int layer_tar_next(void *arg, const uint8_t **ret, size_t *ret_len, struct err *err)
{
	struct layer_tar *t = arg;
	size_t n;
	int rc;

	if (!t->literal && !t->span.length) {
		rc = next_span(t, err);
		if (rc <= 0)
			return rc;
	}
	if (t->literal) {
		n = MIN(t->literal, SPAN_LITERAL_MAX);
		rc = unframe_read(&t->spans, t->buf, n, err);
		t->literal -= (uint32_t)n;
	} else {
		n = (size_t)MIN(t->span.length, (uint64_t)SPAN_LITERAL_MAX);
		rc = read_content(t, &n, err);
		t->span.offset += n;
		t->span.length -= n;
	}
	if (rc < 0)
		return rc;
	t->delivered += n;
	*ret = t->buf;
	*ret_len = n;
	return 1;
}
