/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "image/blocks.h"
#include "image/erofs.h"

#define BLOCKS_BUFFER (1u << 20)
/* Ask the kernel to begin writing back this much at a time, so that the final sync is short. */
#define BLOCKS_WRITEBACK (8u << 20)
#define BLOCKS_COMPARE	 (64u << 10)
#define BLOCKS_SLOTS	 1024u
/* CRCs are easily forged: whoever fills a stretch of the table only loses the sharing. */
#define BLOCKS_PROBES 16u

int blocks_init(struct blocks *b, int fd, struct err *err)
{
	b->fd = fd;
	b->buf = malloc(BLOCKS_BUFFER);
	return b->buf ? 0 : err_set(err, ENOMEM, "out of memory");
}

void blocks_done(struct blocks *b)
{
	free(b->buf);
	free(b->files);
}

uint64_t blocks_count(const struct blocks *b)
{
	return (b->at + b->len) / EROFS_BLOCK;
}

static bool is_zero(const uint8_t *p, size_t n)
{
	return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

/* Write out the whole blocks of the buffer, leaving holes for those that are zero. */
static int flush(struct blocks *b, struct err *err)
{
	size_t start = 0;

	for (size_t at = 0; at <= b->len; at += EROFS_BLOCK) {
		int r = 0;

		if (at < b->len && !is_zero(b->buf + at, EROFS_BLOCK))
			continue;
		if (at > start)
			r = io_pwrite_full(b->fd, b->buf + start, at - start, b->at + start);
		if (r < 0)
			return err_set(err, r, "cannot write: %s", err_name(-r));
		start = at + EROFS_BLOCK;
	}
	b->at += b->len;
	b->len = 0;
	if (b->at - b->written_back >= BLOCKS_WRITEBACK) {
		/* A hint; the sync before publication reports errors. */
		sync_file_range(b->fd, (off_t)b->written_back, (off_t)(b->at - b->written_back),
				SYNC_FILE_RANGE_WRITE);
		b->written_back = b->at;
	}
	return 0;
}

int blocks_add(struct blocks *b, const uint8_t *p, size_t n, struct err *err)
{
	while (n) {
		size_t piece = MIN(n, BLOCKS_BUFFER - b->len);

		memcpy(b->buf + b->len, p, piece);
		b->len += piece;
		p += piece;
		n -= piece;
		if (b->len == BLOCKS_BUFFER) {
			int r = flush(b, err);

			if (r < 0)
				return r;
		}
	}
	return 0;
}

static int add_zeros(struct blocks *b, size_t n, struct err *err)
{
	static const uint8_t zero[EROFS_BLOCK];

	return blocks_add(b, zero, n, err);
}

int blocks_pad(struct blocks *b, struct err *err)
{
	return add_zeros(b, -b->len & (EROFS_BLOCK - 1), err);
}

int blocks_hole(struct blocks *b, uint64_t n, struct err *err)
{
	uint64_t head = MIN(n, (uint64_t)(-b->len & (EROFS_BLOCK - 1)));
	int r = add_zeros(b, head, err);

	n -= head;
	if (r >= 0 && n >= EROFS_BLOCK) {
		r = flush(b, err);
		b->at += n & ~(uint64_t)(EROFS_BLOCK - 1);
	}
	return r < 0 ? r : add_zeros(b, n & (EROFS_BLOCK - 1), err);
}

/* Bytes at @off, up to *n of them, from the file or the buffer. */
static const uint8_t *view(const struct blocks *b, uint64_t off, size_t *n, uint8_t *scratch,
			   struct err *err)
{
	ssize_t got;

	if (off >= b->at)
		return b->buf + (off - b->at);
	*n = (size_t)MIN((uint64_t)*n, b->at - off);
	got = io_pread_full(b->fd, scratch, *n, off);
	if (got < 0) {
		err_set(err, (int)got, "cannot read a layer back: %s", err_name((int)-got));
		return NULL;
	}
	/* A hole that nothing follows yet. */
	memset(scratch + got, 0, *n - (size_t)got);
	return scratch;
}

/* 1 if @n bytes at @a equal those at @c. */
static int equal(const struct blocks *b, uint64_t a, uint64_t c, uint64_t n, struct err *err)
{
	cleanup_free uint8_t *scratch = malloc(2 * BLOCKS_COMPARE);

	if (!scratch)
		return err_set(err, ENOMEM, "out of memory");
	while (n) {
		size_t piece = (size_t)MIN(n, (uint64_t)BLOCKS_COMPARE);
		const uint8_t *p, *q;

		/* Whatever shortens the piece for the second shortens it for both. */
		p = view(b, a, &piece, scratch, err);
		q = p ? view(b, c, &piece, scratch + BLOCKS_COMPARE, err) : NULL;
		if (!q)
			return err ? -err->code : -EIO;
		if (memcmp(p, q, piece) != 0)
			return 0;
		a += piece;
		c += piece;
		n -= piece;
	}
	return 1;
}

static int grow(struct blocks *b, struct err *err)
{
	uint32_t slots = b->file_slots ? b->file_slots * 2 : BLOCKS_SLOTS;
	struct blocks_file *files = calloc(slots, sizeof(*files));

	if (!files)
		return err_set(err, ENOMEM, "out of memory");
	for (uint32_t i = 0; i < b->file_slots; i++) {
		const struct blocks_file *f = &b->files[i];

		for (uint32_t k = 0; f->count && k < BLOCKS_PROBES; k++) {
			struct blocks_file *to = &files[(f->crc + k) & (slots - 1)];

			if (to->count)
				continue;
			*to = *f;
			break;
		}
	}
	free(b->files);
	b->files = files;
	b->file_slots = slots;
	return 0;
}

/* The place of such a file, which may be free; NULL when there is none. */
static struct blocks_file *find(const struct blocks *b, uint32_t crc, uint32_t count)
{
	for (uint32_t k = 0; k < BLOCKS_PROBES; k++) {
		struct blocks_file *f = &b->files[(crc + k) & (b->file_slots - 1)];

		if (!f->count || (f->crc == crc && f->count == count))
			return f;
	}
	return NULL;
}

static int take_back(struct blocks *b, uint64_t off, struct err *err)
{
	if (off >= b->at) {
		b->len = off - b->at;
		return 0;
	}
	/* What is written later must find holes where it has zeros. */
	if (ftruncate(b->fd, (off_t)off) < 0)
		return err_errno(err, "cannot write");
	b->at = off;
	b->len = 0;
	b->written_back = MIN(b->written_back, off);
	return 0;
}

int blocks_share(struct blocks *b, uint64_t first, uint32_t crc, uint64_t *ret_first,
		 struct err *err)
{
	const uint32_t count = (uint32_t)(blocks_count(b) - first);
	struct blocks_file *f;
	int r;

	if (!count)
		return 0;
	if (b->file_count * 2 >= b->file_slots && b->file_count < BLOCKS_FILES_MAX) {
		r = grow(b, err);
		if (r < 0)
			return r;
	}
	f = find(b, crc, count);
	if (!f)
		return 0;
	if (!f->count) {
		if (b->file_count < BLOCKS_FILES_MAX) {
			*f = (struct blocks_file){crc, (uint32_t)first, count};
			b->file_count++;
		}
		return 0;
	}
	r = equal(b, (uint64_t)f->first * EROFS_BLOCK, first * EROFS_BLOCK,
		  (uint64_t)count * EROFS_BLOCK, err);
	if (r <= 0)
		return r;
	r = take_back(b, first * EROFS_BLOCK, err);
	if (r < 0)
		return r;
	*ret_first = f->first;
	return 1;
}

int blocks_finish(struct blocks *b, struct err *err)
{
	int r = flush(b, err);

	if (r >= 0 && ftruncate(b->fd, (off_t)b->at) < 0)
		r = err_errno(err, "cannot write");
	return r;
}
