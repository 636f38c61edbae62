/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames: [len u32 BE][id u32 BE][flags u8][body], len counting id, flags and body. The body is a
 * CBOR map {v: generation, t: message type, p: the payload's CBOR in a byte string}. The header
 * never changes, so a relay routes by id and flags without looking at bodies.
 *
 * Reading: bytes are appended to a struct buf as they come; frame_peek() shows the first complete
 * frame in place, frame_consume() drops it. A broken length cannot be resynchronised: close the
 * connection. Everything else wrong with a frame concerns that frame alone.
 *
 * Data frames (payload {"data": bytes}) have a path of their own with one copy or none.
 *
 * No state is shared: any thread, on its own buffers.
 */
#ifndef WIRE_FRAME_H
#define WIRE_FRAME_H

#include "base/buf.h"
#include "base/err.h"
#include "wire/agent_msg.h"

enum {
	FRAME_PREFIX = 4,	 /* bytes of `len` itself */
	FRAME_HEADER = 9,	 /* bytes on the wire before the body */
	FRAME_LEN_MIN = 5,	 /* smallest `len` */
	FRAME_LEN_MAX = 4 << 20, /* largest `len` */
	FRAME_WIRE_MAX = FRAME_PREFIX + FRAME_LEN_MAX,
	/* More than everything that a data frame has in front of its data. */
	FRAME_DATA_HEAD_MAX = 80,
	/* Largest data that fits a data frame with any head. */
	FRAME_DATA_MAX = FRAME_LEN_MAX - FRAME_DATA_HEAD_MAX,
};

enum frame_flags {
	FRAME_TERMINAL = 1,	 /* the last message of this id */
	FRAME_SESSION_START = 2, /* the first message of a session */
	FRAME_SHUTDOWN = 4,	 /* asks the sandbox to stop */
};

/*
 * Relay clients: each owns a range of ids. 0 and every exact multiple of the width belong to
 * nobody, so that arithmetic across a border shows as an error.
 */
enum {
	FRAME_CLIENTS_MAX = 128,
	FRAME_CLIENT_WIDTH = 33554431, /* UINT32_MAX / 128 */
};
static inline uint32_t frame_client_start(unsigned client)
{
	return client * FRAME_CLIENT_WIDTH + 1u;
}
static inline uint32_t frame_client_end(unsigned client) /* exclusive */
{
	return client * FRAME_CLIENT_WIDTH + (uint32_t)FRAME_CLIENT_WIDTH;
}

struct frame {
	uint32_t id;
	uint8_t flags;
	const uint8_t *body; /* in place; valid until the buffer changes */
	size_t body_len;
	size_t wire_len; /* the frame with its prefix */
};

/* 1: @f is the first frame. 0: more bytes are needed. ERR_PROTOCOL: broken length. */
int frame_peek(const struct buf *b, struct frame *f, struct err *err);
void frame_consume(struct buf *b, const struct frame *f);
/* How many more bytes complete the first frame; at least 1 when frame_peek() returned 0. */
size_t frame_missing(const struct buf *b);

/* The envelope of a frame, in place. */
struct envelope {
	uint8_t v;
	const struct msg_type *type; /* NULL when we do not know it */
	const char *name;	     /* the type as sent, not terminated */
	size_t name_len;
	const uint8_t *payload;
	size_t payload_len;
};

/* ERR_PROTOCOL with a reason when the body is no envelope. */
int frame_open(const struct frame *f, struct envelope *e, struct err *err);
/* Decode the payload into e->type's struct; free it with msg_free(). */
int frame_payload(const struct envelope *e, void *msg, struct err *err);
/* The bytes of a data frame in place. ERR_UNSUPPORTED: well-formed perhaps, but not in one piece;
 * use frame_payload(). */
int frame_data(const struct envelope *e, const uint8_t **ret, size_t *ret_n, struct err *err);

/*
 * What stands in front of the data of a data frame in its shortest form, as frame_put_data() writes
 * it: its type, and the data's place in the body. @body is the beginning of a body of @len bytes,
 * of which FRAME_DATA_HEAD_MAX or all are there. False for everything else.
 */
bool frame_data_at(const uint8_t *body, size_t have, size_t len, const struct msg_type **type,
		   size_t *ret);

/*
 * Frames in passing: of a stream that arrives in pieces of any size, the pieces of bodies, without
 * a copy. Start with zeros.
 */
struct frame_scan {
	uint8_t head[FRAME_HEADER];
	unsigned have;
	uint32_t at, len; /* in the body */
	bool lost;
};
struct frame_piece {
	uint32_t id;
	uint8_t flags;
	uint32_t at, len; /* where it stands in a body of so many bytes */
	const uint8_t *p;
	size_t n;
};
/*
 * The next piece of what @p and @n say, which move behind it. 1: @piece; an empty body is one piece
 * without bytes. 0: that was all. -ERR_PROTOCOL, from then on: a broken length.
 */
int frame_scan(struct frame_scan *s, const uint8_t **p, size_t *n, struct frame_piece *piece);
static inline bool frame_piece_last(const struct frame_piece *p)
{
	return p->at + p->n == p->len;
}

/* Append bytes as a frame. -EMSGSIZE (nothing appended) or -ENOMEM. */
int frame_put(struct buf *b, uint32_t id, uint8_t flags, const void *body, size_t n);
/*
 * Append @msg as a frame of type @kind, with that type's flags. -EMSGSIZE when it does not fit a
 * frame (nothing is appended), -ENOMEM when the buffer failed.
 */
int frame_put_msg(struct buf *b, uint32_t id, enum msg_kind kind, const void *msg);
/* The same of a type that is not in msg_types[]; its name has 32 bytes at most. */
int frame_put_typed(struct buf *b, uint32_t id, const struct msg_type *type, const void *msg);
/* Append a data frame of at most FRAME_DATA_MAX bytes: one copy. */
int frame_put_data(struct buf *b, uint32_t id, enum msg_kind kind, const void *p, size_t n);
/* Only what stands before the data, for writev(): returns its length. */
size_t frame_data_head(uint8_t out[FRAME_DATA_HEAD_MAX], uint32_t id, enum msg_kind kind, size_t n);

/*
 * Read straight into a data frame: frame_data_begin() returns room for @max bytes (NULL when out
 * of memory), frame_data_end() keeps @n of them; n == 0 drops the frame again.
 */
struct frame_data {
	uint32_t id;
	enum msg_kind kind;
	size_t head, max;
};
uint8_t *frame_data_begin(struct buf *b, struct frame_data *d, uint32_t id, enum msg_kind kind,
			  size_t max);
void frame_data_end(struct buf *b, const struct frame_data *d, size_t n);

#endif
