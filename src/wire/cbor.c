/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/cbor.h"

#include <string.h>

size_t cbor_head_size(uint64_t n)
{
	if (n < 24)
		return 1;
	if (n <= UINT8_MAX)
		return 2;
	if (n <= UINT16_MAX)
		return 3;
	return n <= UINT32_MAX ? 5 : 9;
}

size_t cbor_head_encode(uint8_t *out, enum cbor_major major, uint64_t n)
{
	size_t size = cbor_head_size(n);
	unsigned info = (unsigned)n;

	if (size > 1)
		info = size == 2 ? 24 : size == 3 ? 25 : size == 5 ? 26 : 27;
	out[0] = (uint8_t)((unsigned)major << 5 | info);
	for (size_t i = size - 1; i > 0; i--, n >>= 8)
		out[i] = (uint8_t)n;
	return size;
}

void cbor_put_head(struct buf *b, enum cbor_major major, uint64_t n)
{
	uint8_t head[CBOR_HEAD_MAX];

	buf_add(b, head, cbor_head_encode(head, major, n));
}

void cbor_put_int(struct buf *b, int64_t v)
{
	if (v < 0)
		cbor_put_head(b, CBOR_NINT, ~(uint64_t)v);
	else
		cbor_put_head(b, CBOR_UINT, (uint64_t)v);
}

void cbor_put_bool(struct buf *b, bool v)
{
	cbor_put_head(b, CBOR_SIMPLE, v ? CBOR_TRUE : CBOR_FALSE);
}

void cbor_put_null(struct buf *b)
{
	cbor_put_head(b, CBOR_SIMPLE, CBOR_NULL);
}

void cbor_put_bytes(struct buf *b, const void *p, size_t n)
{
	cbor_put_head(b, CBOR_BYTES, n);
	buf_add(b, p, n);
}

/* Length of the valid UTF-8 sequence at @p, 0 if there is none (RFC 3629 table). */
static size_t utf8_len(const uint8_t *p, size_t n)
{
	uint8_t lo = 0x80, hi = 0xbf;
	size_t len;

	if (p[0] < 0x80)
		return 1;
	if (p[0] >= 0xc2 && p[0] <= 0xdf)
		len = 2;
	else if (p[0] >= 0xe0 && p[0] <= 0xef)
		len = 3;
	else if (p[0] >= 0xf0 && p[0] <= 0xf4)
		len = 4;
	else
		return 0;
	if (len > n)
		return 0;
	if (p[0] == 0xe0)
		lo = 0xa0;
	else if (p[0] == 0xed)
		hi = 0x9f;
	else if (p[0] == 0xf0)
		lo = 0x90;
	else if (p[0] == 0xf4)
		hi = 0x8f;
	if (p[1] < lo || p[1] > hi)
		return 0;
	for (size_t i = 2; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	}
	return len;
}

bool cbor_utf8_valid(const uint8_t *p, size_t n)
{
	for (size_t i = 0, len; i < n; i += len) {
		len = utf8_len(p + i, n - i);
		if (!len)
			return false;
	}
	return true;
}

void cbor_put_text(struct buf *b, const char *s)
{
	static const uint8_t replacement[] = {0xef, 0xbf, 0xbd};
	const uint8_t *p = (const uint8_t *)s;
	size_t n = strlen(s), out = 0, len;

	if (cbor_utf8_valid(p, n)) {
		cbor_put_head(b, CBOR_TEXT, n);
		buf_add(b, s, n);
		return;
	}
	for (size_t i = 0; i < n; i += len ? len : 1) {
		len = utf8_len(p + i, n - i);
		out += len ? len : sizeof(replacement);
	}
	cbor_put_head(b, CBOR_TEXT, out);
	for (size_t i = 0; i < n; i += len ? len : 1) {
		len = utf8_len(p + i, n - i);
		if (len)
			buf_add(b, p + i, len);
		else
			buf_add(b, replacement, sizeof(replacement));
	}
}

/* One head as it stands, tags and breaks included. */
static bool read_raw_head(struct cur *c, struct cbor_head *h)
{
	uint8_t first = cur_u8(c);

	h->major = (enum cbor_major)(first >> 5);
	h->info = first & 31;
	h->indefinite = false;
	h->n = h->info;
	switch (h->info) {
	case 24:
		h->n = cur_u8(c);
		/* §3.3: two-byte simple values below 32 are not well-formed. */
		if (h->major == CBOR_SIMPLE && h->n < 32)
			c->bad = true;
		break;
	case 25:
		h->n = cur_be16(c);
		break;
	case 26:
		h->n = cur_be32(c);
		break;
	case 27:
		h->n = cur_be64(c);
		break;
	case 28:
	case 29:
	case 30:
		c->bad = true;
		break;
	case 31:
		if (h->major == CBOR_SIMPLE)
			break;
		if (h->major < CBOR_BYTES || h->major == CBOR_TAG)
			c->bad = true;
		h->indefinite = true;
		h->n = 0;
		break;
	}
	return !c->bad;
}

bool cbor_read_head(struct cur *c, struct cbor_head *h)
{
	for (unsigned tags = 0; tags < CBOR_DEPTH_MAX; tags++) {
		if (!read_raw_head(c, h))
			return false;
		if (h->major != CBOR_TAG) {
			if (h->major == CBOR_SIMPLE && h->info == CBOR_BREAK)
				c->bad = true;
			return !c->bad;
		}
	}
	c->bad = true;
	return false;
}

bool cbor_at_break(struct cur *c)
{
	if (c->bad || !cur_left(c)) {
		c->bad = true;
		return true;
	}
	if (*c->p != 0xff)
		return false;
	c->p++;
	return true;
}

bool cbor_more(struct cur *c, const struct cbor_head *h, uint64_t *left)
{
	if (c->bad)
		return false;
	if (h->indefinite)
		return !cbor_at_break(c);
	return (*left)-- > 0;
}

bool cbor_read_string(struct cur *c, const struct cbor_head *h, struct buf *scratch,
		      const uint8_t **ret, size_t *ret_n)
{
	if (!h->indefinite) {
		const uint8_t *p;

		if (h->n > cur_left(c)) {
			c->bad = true;
			return false;
		}
		p = cur_bytes(c, (size_t)h->n);
		if (!p)
			return false;
		*ret = p;
		*ret_n = (size_t)h->n;
		return true;
	}
	buf_reset(scratch);
	while (!cbor_at_break(c)) {
		struct cbor_head part;
		const uint8_t *p;

		/* §3.2.3: chunks are definite strings of the same kind, without tags. */
		if (!read_raw_head(c, &part) || part.major != h->major || part.indefinite ||
		    part.n > cur_left(c)) {
			c->bad = true;
			return false;
		}
		p = cur_bytes(c, (size_t)part.n);
		if (!p)
			return false;
		buf_add(scratch, p, (size_t)part.n);
	}
	if (c->bad || buf_failed(scratch)) {
		c->bad = true;
		return false;
	}
	*ret = buf_size(scratch) ? buf_ptr(scratch) : (const uint8_t *)"";
	*ret_n = buf_size(scratch);
	return true;
}

static bool skip_at(struct cur *c, unsigned depth)
{
	struct cbor_head h;
	uint64_t left;

	if (depth > CBOR_DEPTH_MAX)
		c->bad = true;
	if (c->bad || !cbor_read_head(c, &h))
		return false;
	switch (h.major) {
	case CBOR_BYTES:
	case CBOR_TEXT:
		if (!h.indefinite) {
			if (h.n > cur_left(c))
				c->bad = true;
			else
				cur_bytes(c, (size_t)h.n);
			break;
		}
		while (!cbor_at_break(c)) {
			struct cbor_head part;

			if (!read_raw_head(c, &part) || part.major != h.major || part.indefinite ||
			    part.n > cur_left(c))
				c->bad = true;
			else
				cur_bytes(c, (size_t)part.n);
		}
		break;
	case CBOR_ARRAY:
	case CBOR_MAP:
		/* Each item takes at least one byte, so the input bounds the loop. */
		left = h.n;
		while (cbor_more(c, &h, &left)) {
			if (h.major == CBOR_MAP)
				skip_at(c, depth + 1);
			skip_at(c, depth + 1);
		}
		break;
	default:
		break;
	}
	return !c->bad;
}

bool cbor_skip(struct cur *c)
{
	return skip_at(c, 0);
}
