/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A struct of a table on a stream between programs of ours: [length u32 BE][CBOR]. Any thread.
 */
#ifndef WIRE_PACKET_H
#define WIRE_PACKET_H

#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"
#include "wire/codec.h"

/* Append @obj. Failure is the buffer's. */
void packet_put(const struct wire_table *t, const void *obj, struct buf *b);
/*
 * Take the first complete one, of at most @max bytes, out of @b: 1 when there was one, 0 when more
 * bytes are needed, negative when it is none. What *ret points to is freed with wire_free().
 */
int packet_take(const struct wire_table *t, size_t max, struct buf *b, void *ret, struct err *err);

#endif
