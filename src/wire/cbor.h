/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CBOR (RFC 8949) as the agent protocol uses it.
 *
 * The writer emits definite lengths and the shortest integer heads (§4.2.1). The reader accepts
 * any width of head and indefinite lengths, and never allocates except in cbor_read_string().
 * Readers work on a struct cur: after a failure `bad` is set and what was read is meaningless.
 * Nothing here is shared between threads.
 */
#ifndef WIRE_CBOR_H
#define WIRE_CBOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum cbor_major {
	CBOR_UINT = 0,
	CBOR_NINT = 1, /* the value is -1 - n */
	CBOR_BYTES = 2,
	CBOR_TEXT = 3,
	CBOR_ARRAY = 4,
	CBOR_MAP = 5,
	CBOR_TAG = 6,
	CBOR_SIMPLE = 7, /* false, true, null, undefined, floats, break */
};

enum {
	CBOR_FALSE = 20,
	CBOR_TRUE = 21,
	CBOR_NULL = 22,
	CBOR_UNDEFINED = 23,
	CBOR_BREAK = 31,
	CBOR_HEAD_MAX = 9, /* longest head in bytes */
	/* Values nested deeper than this are refused: our own messages stop at 6. */
	CBOR_DEPTH_MAX = 32,
};

struct cbor_head {
	enum cbor_major major;
	uint8_t info; /* additional information: for CBOR_SIMPLE tells floats from simple values */
	bool indefinite; /* `n` says nothing; for strings and containers */
	uint64_t n;
};

/* Encode a head into @out, which holds CBOR_HEAD_MAX bytes; returns its length. */
size_t cbor_head_encode(uint8_t *out, enum cbor_major major, uint64_t n);
size_t cbor_head_size(uint64_t n);

void cbor_put_head(struct buf *b, enum cbor_major major, uint64_t n);
void cbor_put_int(struct buf *b, int64_t v);
void cbor_put_bool(struct buf *b, bool v);
void cbor_put_null(struct buf *b);
void cbor_put_bytes(struct buf *b, const void *p, size_t n);
/* Bytes that are not UTF-8 are written as U+FFFD: a text string must not break the peer's reader.
 */
void cbor_put_text(struct buf *b, const char *s);

/* Read one head. Tags are stepped over. False on malformed input (and c->bad is set). */
bool cbor_read_head(struct cur *c, struct cbor_head *h);
/* Is the next byte a break (or the input bad)? Consumes a break. */
bool cbor_at_break(struct cur *c);
/* Step over one complete value, whatever it is. */
bool cbor_skip(struct cur *c);
/*
 * The content of a string whose head @h has just been read: in place for a definite one, else
 * collected into @scratch (which the caller owns). False on malformed input or no memory.
 */
bool cbor_read_string(struct cur *c, const struct cbor_head *h, struct buf *scratch,
		      const uint8_t **ret, size_t *ret_n);
/* Loop helper for containers: is there an item left? @left starts as h->n. */
bool cbor_more(struct cur *c, const struct cbor_head *h, uint64_t *left);

bool cbor_utf8_valid(const uint8_t *p, size_t n);

#endif
