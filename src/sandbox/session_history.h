/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last bytes that a command printed, and which stream each came from. Bytes have numbers that
 * count up from the command's start, so that a reader's place is one of them. One thread.
 */
#ifndef SANDBOX_SESSION_HISTORY_H
#define SANDBOX_SESSION_HISTORY_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/*
 * How much is kept, unless told otherwise and at least: 256 KiB behind a reader that is slow but
 * still waited for (session.c), and the largest piece that the agent sends at once. At most: some
 * 64 sessions have one each.
 */
#define SESSION_HISTORY_DEFAULT ((size_t)512 << 10)
#define SESSION_HISTORY_MIN	SESSION_HISTORY_DEFAULT
#define SESSION_HISTORY_MAX	((size_t)16 << 20)

struct session_history {
	size_t max;
	struct buf data;  /* bytes [end - size, end) */
	struct buf marks; /* struct session_mark, the first at or before the first byte */
	uint64_t end;
};

/* @max bytes are kept; 0: SESSION_HISTORY_DEFAULT. */
void history_init(struct session_history *h, size_t max);
void history_done(struct session_history *h);

/* The first byte that is still there. */
static inline uint64_t history_first(const struct session_history *h)
{
	return h->end - buf_size(&h->data);
}
/* Add output of @stream (1 or 2), dropping what is oldest. -ENOMEM: it is dropped itself. */
int history_add(struct session_history *h, int stream, const void *p, size_t n);
/*
 * The piece at byte @at, which must be within [first, end): how long it is, at most @max and of one
 * stream.
 */
size_t history_at(const struct session_history *h, uint64_t at, size_t max, int *stream,
		  const void **p);
/* The first byte from which on a person can read: the beginning, else behind an end of line. */
uint64_t history_start(const struct session_history *h);

#endif
