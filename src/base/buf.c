/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_done(struct buf *b)
{
	free(b->data);
	b->data = NULL;
	b->head = b->len = b->cap = 0;
	b->failed = false;
}

void buf_reset(struct buf *b)
{
	b->head = b->len = 0;
	b->failed = false;
}

void *buf_reserve(struct buf *b, size_t n)
{
	size_t used = b->len - b->head, max = b->max ? b->max : BUF_MAX_DEFAULT, want, cap;
	uint8_t *p;

	if (b->failed)
		return NULL;
	if (n > max || used > max - n) {
		b->failed = true;
		return NULL;
	}
	want = used + n;
	if (b->data && b->len + n <= b->cap)
		return b->data + b->len;
	/* Sliding down is cheaper than growing once at least half of the memory is dead. */
	if (b->data && want <= b->cap && b->head >= b->cap / 2) {
		memmove(b->data, b->data + b->head, used);
		b->head = 0;
		b->len = used;
		return b->data + b->len;
	}
	cap = b->cap ? b->cap : 256;
	while (cap < b->head + want)
		cap *= 2;
	p = realloc(b->data, cap);
	if (!p) {
		b->failed = true;
		return NULL;
	}
	b->data = p;
	b->cap = cap;
	return b->data + b->len;
}

void buf_commit(struct buf *b, size_t n)
{
	b->len += n;
}

void buf_add(struct buf *b, const void *p, size_t n)
{
	void *to = buf_reserve(b, n);

	if (to && n) {
		memcpy(to, p, n);
		b->len += n;
	}
}

void buf_add_str(struct buf *b, const char *s)
{
	buf_add(b, s, strlen(s));
}

void buf_add_u8(struct buf *b, uint8_t v)
{
	buf_add(b, &v, 1);
}

void buf_add_be32(struct buf *b, uint32_t v)
{
	uint8_t be[4] = {v >> 24, v >> 16, v >> 8, v};

	buf_add(b, be, sizeof(be));
}

void buf_addf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	int n;
	char *to;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0) {
		b->failed = true;
		return;
	}
	to = buf_reserve(b, (size_t)n + 1);
	if (!to)
		return;
	va_start(ap, fmt);
	vsnprintf(to, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n;
}

void buf_consume(struct buf *b, size_t n)
{
	b->head += n;
	if (b->head >= b->len)
		b->head = b->len = 0;
}

char *buf_cstr(struct buf *b)
{
	char *end = buf_reserve(b, 1);

	if (!end)
		return NULL;
	*end = '\0';
	return (char *)buf_ptr(b);
}

const uint8_t *cur_bytes(struct cur *c, size_t n)
{
	const uint8_t *p = c->p;

	if (c->bad || n > (size_t)(c->end - c->p)) {
		c->bad = true;
		return NULL;
	}
	c->p += n;
	return p;
}

static uint64_t read_be(struct cur *c, unsigned n)
{
	const uint8_t *p = cur_bytes(c, n);
	uint64_t v = 0;

	for (unsigned i = 0; p && i < n; i++)
		v = v << 8 | p[i];
	return v;
}

static uint64_t read_le(struct cur *c, unsigned n)
{
	const uint8_t *p = cur_bytes(c, n);
	uint64_t v = 0;

	for (unsigned i = 0; p && i < n; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

uint8_t cur_u8(struct cur *c)
{
	return (uint8_t)read_be(c, 1);
}
uint16_t cur_be16(struct cur *c)
{
	return (uint16_t)read_be(c, 2);
}
uint32_t cur_be32(struct cur *c)
{
	return (uint32_t)read_be(c, 4);
}
uint64_t cur_be64(struct cur *c)
{
	return read_be(c, 8);
}
uint16_t cur_le16(struct cur *c)
{
	return (uint16_t)read_le(c, 2);
}
uint32_t cur_le32(struct cur *c)
{
	return (uint32_t)read_le(c, 4);
}
uint64_t cur_le64(struct cur *c)
{
	return read_le(c, 8);
}
