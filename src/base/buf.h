/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growable byte buffer with a ceiling, and a reading cursor over bytes.
 *
 * A buf remembers its first failure (out of memory, ceiling), after which appends do nothing:
 * write a whole message, then check buf_failed() once. Bytes before `head` have been consumed.
 * Neither type is thread-safe.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
	uint8_t *data;
	size_t head; /* first unread byte */
	size_t len;  /* end of valid bytes, counted from data */
	size_t cap;
	size_t max; /* ceiling for len - head; 0 means BUF_MAX_DEFAULT */
	bool failed;
};

/* No caller without an explicit ceiling has a reason to hold more than this in memory. */
#define BUF_MAX_DEFAULT ((size_t)256 << 20)

#define BUF_INIT                                                                                   \
	{                                                                                          \
		0                                                                                  \
	}

void buf_done(struct buf *b);
static inline void buf_done_fn(struct buf *b)
{
	buf_done(b);
}
#define cleanup_buf __attribute__((cleanup(buf_done_fn)))

static inline size_t buf_size(const struct buf *b)
{
	return b->len - b->head;
}
/* NULL while nothing was ever put in. */
static inline uint8_t *buf_ptr(const struct buf *b)
{
	return b->data ? b->data + b->head : NULL;
}
static inline bool buf_failed(const struct buf *b)
{
	return b->failed;
}

/* Drop the contents, keep the memory. */
void buf_reset(struct buf *b);
/* Room for @n more bytes; returns where to put them, NULL on failure. Follow with buf_commit(). */
void *buf_reserve(struct buf *b, size_t n);
void buf_commit(struct buf *b, size_t n);
void buf_add(struct buf *b, const void *p, size_t n);
void buf_add_str(struct buf *b, const char *s);
void buf_add_u8(struct buf *b, uint8_t v);
void buf_add_be32(struct buf *b, uint32_t v);
void buf_addf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Mark @n bytes as read. */
void buf_consume(struct buf *b, size_t n);
/* Append a NUL that is not counted and return the string; NULL if the buffer failed. */
char *buf_cstr(struct buf *b);

/*
 * The one accessor for bytes that came from outside. A read past the end sets `bad`, yields zeros
 * and leaves the cursor where it is; check `bad` once after the last read.
 */
struct cur {
	const uint8_t *p, *end;
	bool bad;
};

static inline struct cur cur_make(const void *p, size_t n)
{
	return (struct cur){p, (const uint8_t *)p + n, false};
}
static inline size_t cur_left(const struct cur *c)
{
	return (size_t)(c->end - c->p);
}
/* @n bytes in place, or NULL. */
const uint8_t *cur_bytes(struct cur *c, size_t n);
uint8_t cur_u8(struct cur *c);
uint16_t cur_be16(struct cur *c);
uint32_t cur_be32(struct cur *c);
uint64_t cur_be64(struct cur *c);
uint16_t cur_le16(struct cur *c);
uint32_t cur_le32(struct cur *c);
uint64_t cur_le64(struct cur *c);

#endif
