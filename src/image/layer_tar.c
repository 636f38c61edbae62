/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/layer_tar.h"

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
	uint8_t buf[LAYER_LITERAL_MAX];
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
		n = MIN(t->literal, LAYER_LITERAL_MAX);
		rc = unframe_read(&t->spans, t->buf, n, err);
		t->literal -= (uint32_t)n;
	} else {
		n = (size_t)MIN(t->span.length, (uint64_t)LAYER_LITERAL_MAX);
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
