/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes from one process to another through memory that both have: pieces in turn, with a socket
 * on which the number of bytes in the next one goes forth, and a byte back when it can be used
 * again. Either side may be hostile: nothing that the other one can do makes more of it than wrong
 * bytes, or an early end.
 *
 * One thread on either side. Zero-initialise with SLOTS_INIT; slots_done() is harmless on that.
 */
#ifndef IMAGE_SLOTS_H
#define IMAGE_SLOTS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* Small enough that what the one has written is in a cache when the other reads it. */
#define SLOT_SIZE   (128u << 10)
#define SLOTS_COUNT 8u

struct slots {
	uint8_t *p;
	int memory, socket; /* memory: -1 once it is mapped and nobody needs it any more */
	unsigned next;	    /* to be filled, or taken */
	unsigned used;	    /* of a writer: passed and not given back */
	bool held;	    /* of a reader: the one before `next` is in use */
};
#define SLOTS_INIT                                                                                 \
	{                                                                                          \
		.memory = -1, .socket = -1                                                         \
	}

/*
 * Make them. *ret_peer is the other side's socket, the caller's to close, and s->memory what goes
 * there with it. With @write this side fills them, and the other one cannot.
 */
int slots_make(struct slots *s, bool write, int *ret_peer, struct err *err);
/* The other side, with what it was given, which it takes over. */
int slots_join(struct slots *s, bool write, int memory, int socket, struct err *err);
void slots_done(struct slots *s);

/* SLOT_SIZE bytes to fill, or NULL when nobody reads any more. The same one until it is passed. */
uint8_t *slots_room(struct slots *s);
/* It has @n bytes now. False when nobody reads any more. */
bool slots_pass(struct slots *s, size_t n);
/* No more will come. */
void slots_end(struct slots *s);

/* The next one, valid until the next call: its size, or 0 at the end. */
size_t slots_take(struct slots *s, const uint8_t **ret);

#endif
