/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/frame.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "wire/cbor.h"

static uint32_t get_be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void set_be32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

int frame_peek(const struct buf *b, struct frame *f, struct err *err)
{
	const uint8_t *p;
	uint32_t len;

	if (buf_size(b) < FRAME_PREFIX)
		return 0;
	p = buf_ptr(b);
	len = get_be32(p);
	if (len < FRAME_LEN_MIN || len > FRAME_LEN_MAX)
		return err_set(err, ERR_PROTOCOL, "frame length %u is not within %d and %d", len,
			       FRAME_LEN_MIN, FRAME_LEN_MAX);
	if (buf_size(b) < FRAME_PREFIX + (size_t)len)
		return 0;
	f->id = get_be32(p + 4);
	f->flags = p[8];
	f->body = p + FRAME_HEADER;
	f->body_len = len - FRAME_LEN_MIN;
	f->wire_len = FRAME_PREFIX + (size_t)len;
	return 1;
}

void frame_consume(struct buf *b, const struct frame *f)
{
	buf_consume(b, f->wire_len);
}

size_t frame_missing(const struct buf *b)
{
	size_t have = buf_size(b), need = FRAME_HEADER;

	if (have >= FRAME_PREFIX)
		need = FRAME_PREFIX + (size_t)get_be32(buf_ptr(b));
	return need > have ? need - have : 1;
}

int frame_open(const struct frame *f, struct envelope *e, struct err *err)
{
	struct cur c = cur_make(f->body, f->body_len);
	struct envelope made = {0};
	struct cbor_head h, vh;
	bool has_v = false, has_p = false;
	uint64_t left;

	if (!cbor_read_head(&c, &h) || h.major != CBOR_MAP)
		return err_set(err, ERR_PROTOCOL, "the envelope is not a CBOR map");
	left = h.n;
	while (cbor_more(&c, &h, &left)) {
		struct cbor_head kh;
		const uint8_t *key;

		if (!cbor_read_head(&c, &kh))
			break;
		if (kh.major != CBOR_TEXT || kh.indefinite || kh.n > cur_left(&c))
			return err_set(err, ERR_PROTOCOL, "the envelope has a strange key");
		key = cur_bytes(&c, (size_t)kh.n);
		if (kh.n != 1 || !memchr("vtp", *key, 3)) {
			cbor_skip(&c);
			continue;
		}
		if (!cbor_read_head(&c, &vh))
			break;
		if (*key == 'v') {
			if (has_v || vh.major != CBOR_UINT || vh.n > UINT8_MAX)
				return err_set(err, ERR_PROTOCOL,
					       "envelope key 'v' is not a small integer");
			has_v = true;
			made.v = (uint8_t)vh.n;
			continue;
		}
		if (vh.indefinite || vh.n > cur_left(&c) ||
		    vh.major != (*key == 't' ? CBOR_TEXT : CBOR_BYTES))
			return err_set(err, ERR_PROTOCOL, "envelope key '%c' is not a %s string",
				       *key, *key == 't' ? "text" : "byte");
		if (*key == 't' ? !!made.name : has_p)
			return err_set(err, ERR_PROTOCOL, "envelope key '%c' comes twice", *key);
		if (*key == 't') {
			made.name = (const char *)cur_bytes(&c, (size_t)vh.n);
			made.name_len = (size_t)vh.n;
		} else {
			made.payload = cur_bytes(&c, (size_t)vh.n);
			made.payload_len = (size_t)vh.n;
			has_p = true;
		}
	}
	if (c.bad)
		return err_set(err, ERR_PROTOCOL, "the envelope is malformed or truncated CBOR");
	if (!has_v || !made.name || !has_p)
		return err_set(err, ERR_PROTOCOL, "the envelope lacks '%s'",
			       !has_v	    ? "v"
			       : !made.name ? "t"
					    : "p");
	if (cur_left(&c))
		return err_set(err, ERR_PROTOCOL, "bytes after the envelope");
	made.type = msg_find(made.name, made.name_len);
	*e = made;
	return 0;
}

int frame_payload(const struct envelope *e, void *msg, struct err *err)
{
	return wire_decode(e->type->table, e->payload, e->payload_len, msg, err);
}

/* A map of one key. */
#define DATA                                                                                       \
	"\xa1\x64"                                                                                 \
	"data"
enum { DATA_KEY = sizeof(DATA) - 1 };

static bool literal(struct cur *c, const void *want, size_t n)
{
	const uint8_t *p = cur_bytes(c, n);

	return p && memcmp(p, want, n) == 0;
}

int frame_data(const struct envelope *e, const uint8_t **ret, size_t *ret_n, struct err *err)
{
	struct cur c = cur_make(e->payload, e->payload_len);
	struct cbor_head h;

	if (!literal(&c, DATA, DATA_KEY) || !cbor_read_head(&c, &h) || h.major != CBOR_BYTES ||
	    h.indefinite || h.n != cur_left(&c))
		return err_set(err, ERR_UNSUPPORTED, "not a plain data payload");
	*ret = cur_bytes(&c, (size_t)h.n);
	*ret_n = (size_t)h.n;
	return 0;
}

int frame_scan(struct frame_scan *s, const uint8_t **p, size_t *n, struct frame_piece *piece)
{
	size_t k;

	if (s->have < FRAME_HEADER) {
		uint32_t len;

		k = MIN(*n, (size_t)FRAME_HEADER - s->have);
		if (k)
			memcpy(s->head + s->have, *p, k);
		s->have += (unsigned)k;
		*p += k;
		*n -= k;
		if (s->have < FRAME_HEADER)
			return 0;
		len = get_be32(s->head);
		s->lost = len < FRAME_LEN_MIN || len > FRAME_LEN_MAX;
		s->at = 0;
		s->len = len - FRAME_LEN_MIN;
	}
	if (s->lost)
		return -ERR_PROTOCOL;
	if (!*n && s->at < s->len)
		return 0;
	k = MIN(*n, (size_t)(s->len - s->at));
	*piece = (struct frame_piece){
		.id = get_be32(s->head + 4),
		.flags = s->head[8],
		.at = s->at,
		.len = s->len,
		.p = *p,
		.n = k,
	};
	s->at += (uint32_t)k;
	*p += k;
	*n -= k;
	if (s->at == s->len)
		s->have = 0;
	return 1;
}

int frame_put(struct buf *b, uint32_t id, uint8_t flags, const void *body, size_t n)
{
	uint8_t *to;

	if (n > FRAME_LEN_MAX - FRAME_LEN_MIN)
		return -EMSGSIZE;
	to = buf_reserve(b, FRAME_HEADER + n);
	if (!to)
		return -ENOMEM;
	set_be32(to, (uint32_t)n + FRAME_LEN_MIN);
	set_be32(to + 4, id);
	to[8] = flags;
	if (n)
		memcpy(to + FRAME_HEADER, body, n);
	buf_commit(b, FRAME_HEADER + n);
	return 0;
}

static size_t put(uint8_t *out, size_t at, const void *p, size_t n)
{
	memcpy(out + at, p, n);
	return at + n;
}

bool frame_data_at(const uint8_t *body, size_t have, size_t len, const struct msg_type **type,
		   size_t *ret)
{
	struct cur c = cur_make(body, have);
	struct cbor_head h;
	const uint8_t *name;
	size_t name_len;

	if (!literal(&c, "\xa3\x61v", 3) || !cbor_read_head(&c, &h) || h.major != CBOR_UINT ||
	    !literal(&c, "\x61t", 2) || !cbor_read_head(&c, &h) || h.major != CBOR_TEXT ||
	    h.indefinite || h.n > cur_left(&c))
		return false;
	name_len = (size_t)h.n;
	name = cur_bytes(&c, name_len);
	if (!literal(&c, "\x61p", 2) || !cbor_read_head(&c, &h) || h.major != CBOR_BYTES ||
	    h.indefinite || h.n != len - (have - cur_left(&c)) || !literal(&c, DATA, DATA_KEY) ||
	    !cbor_read_head(&c, &h) || h.major != CBOR_BYTES || h.indefinite ||
	    h.n != len - (have - cur_left(&c)))
		return false;
	*type = msg_find((const char *)name, name_len);
	*ret = have - cur_left(&c);
	return *type;
}

/* Header and envelope up to and with the head of `p`; @payload bytes follow. */
static size_t put_envelope(uint8_t *out, uint32_t id, const struct msg_type *t, size_t payload)
{
	size_t at = FRAME_HEADER, name = strlen(t->name);

	at = put(out, at, "\xa3\x61v", 3);
	at += cbor_head_encode(out + at, CBOR_UINT, AGENT_GENERATION);
	at = put(out, at, "\x61t", 2);
	at += cbor_head_encode(out + at, CBOR_TEXT, name);
	at = put(out, at, t->name, name);
	at = put(out, at, "\x61p", 2);
	at += cbor_head_encode(out + at, CBOR_BYTES, payload);
	set_be32(out, (uint32_t)(at + payload - FRAME_PREFIX));
	set_be32(out + 4, id);
	out[8] = t->flags;
	return at;
}

enum {
	/* Header, envelope, the longest type name and the widest heads. */
	ENVELOPE_MAX = FRAME_HEADER + 3 + 1 + 2 + 2 + 32 + 2 + CBOR_HEAD_MAX,
};
static_assert(FRAME_DATA_HEAD_MAX >= ENVELOPE_MAX + DATA_KEY + CBOR_HEAD_MAX, "data head");

int frame_put_msg(struct buf *b, uint32_t id, enum msg_kind kind, const void *msg)
{
	return frame_put_typed(b, id, &msg_types[kind], msg);
}

int frame_put_typed(struct buf *b, uint32_t id, const struct msg_type *t, const void *msg)
{
	uint8_t head[ENVELOPE_MAX];
	size_t start = buf_size(b), n, head_len;
	uint8_t *at;

	/* The payload is written behind room for the widest head, which then moves up to it. */
	if (!buf_reserve(b, ENVELOPE_MAX))
		return -ENOMEM;
	buf_commit(b, ENVELOPE_MAX);
	wire_encode(t->table, msg, b);
	if (buf_failed(b))
		return -ENOMEM;
	n = buf_size(b) - start - ENVELOPE_MAX;
	if (n + ENVELOPE_MAX > FRAME_LEN_MAX) {
		b->len = b->head + start;
		return -EMSGSIZE;
	}
	head_len = put_envelope(head, id, t, n);
	at = buf_ptr(b) + start;
	memmove(at + head_len, at + ENVELOPE_MAX, n);
	memcpy(at, head, head_len);
	b->len = b->head + start + head_len + n;
	return 0;
}

size_t frame_data_head(uint8_t out[FRAME_DATA_HEAD_MAX], uint32_t id, enum msg_kind kind, size_t n)
{
	size_t at = put_envelope(out, id, &msg_types[kind], DATA_KEY + cbor_head_size(n) + n);

	at = put(out, at, DATA, DATA_KEY);
	at += cbor_head_encode(out + at, CBOR_BYTES, n);
	return at;
}

int frame_put_data(struct buf *b, uint32_t id, enum msg_kind kind, const void *p, size_t n)
{
	uint8_t *to;
	size_t head;

	if (n > FRAME_DATA_MAX)
		return -EMSGSIZE;
	to = buf_reserve(b, FRAME_DATA_HEAD_MAX + n);
	if (!to)
		return -ENOMEM;
	head = frame_data_head(to, id, kind, n);
	if (n)
		memcpy(to + head, p, n);
	buf_commit(b, head + n);
	return 0;
}

uint8_t *frame_data_begin(struct buf *b, struct frame_data *d, uint32_t id, enum msg_kind kind,
			  size_t max)
{
	uint8_t head[FRAME_DATA_HEAD_MAX], *to;

	d->id = id;
	d->kind = kind;
	d->max = MIN(max, (size_t)FRAME_DATA_MAX);
	to = buf_reserve(b, FRAME_DATA_HEAD_MAX + d->max);
	if (!to)
		return NULL;
	/* Bet on a full read: only a shorter one has another head, and then little moves. */
	d->head = frame_data_head(head, id, kind, d->max);
	return to + d->head;
}

void frame_data_end(struct buf *b, const struct frame_data *d, size_t n)
{
	uint8_t head[FRAME_DATA_HEAD_MAX];
	uint8_t *to = b->data + b->len;
	size_t len;

	if (!n)
		return;
	len = frame_data_head(head, d->id, d->kind, n);
	if (len != d->head)
		memmove(to + len, to + d->head, n);
	memcpy(to, head, len);
	buf_commit(b, len + n);
}
