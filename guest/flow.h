/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two ways data flows between a stream's descriptor and its connection.
 *
 * An inlet reads a descriptor straight into data frames, waits while the connection is full, and
 * reads a bounded amount at a time. An outlet writes what the client sent, keeps what the
 * descriptor does not take yet, and blocks its connection above OUTLET_HIGH. Both own their
 * descriptor and are embedded in a stream.
 */
#ifndef GUEST_FLOW_H
#define GUEST_FLOW_H

#include "server.h"

enum {
	INLET_FIRST = 16 << 10, /* size of the first read: most commands say little */
	OUTLET_HIGH = 512 << 10,
	OUTLET_LOW = 64 << 10,
	PIPE_SIZE = 1 << 20, /* what a pipe grows to once it has been full */
};

struct inlet {
	struct stream *st;
	struct loop_source src; /* src.fd is -1 when closed */
	struct work room;
	enum msg_kind kind;
	size_t chunk, chunk_max;
	bool pipe, grown;
	uint64_t total; /* bytes read so far */
	/* End of file (0) or -errno; the descriptor is closed. May free the stream. */
	void (*ended)(struct inlet *in, int error);
	/* Bytes were read; may be NULL. */
	void (*moved)(struct inlet *in);
};

/* Take over @fd, non-blocking. On failure the fd is closed. */
int inlet_start(struct inlet *in, struct stream *st, int fd, enum msg_kind kind, size_t chunk_max);
void inlet_stop(struct inlet *in);
static inline bool inlet_open(const struct inlet *in)
{
	return in->src.fd >= 0;
}
/* Is it held back because the connection is full? */
static inline bool inlet_waiting(const struct inlet *in)
{
	return in->room.next != NULL;
}

struct outlet {
	struct conn *conn;
	struct loop_source src;
	struct buf q;
	bool eof, blocked, pipe, grown;
	/*
	 * Everything up to the end of file was written (0), or writing failed (-errno). The
	 * descriptor is still open; the callee decides. May free the stream.
	 */
	void (*ended)(struct outlet *o, int error);
};

void outlet_start(struct outlet *o, struct conn *c, int fd);
/* @p is copied when it cannot be written at once. */
void outlet_write(struct outlet *o, const void *p, size_t n);
void outlet_eof(struct outlet *o);
/* Close and forget what is queued. */
void outlet_stop(struct outlet *o);
static inline bool outlet_open(const struct outlet *o)
{
	return o->src.fd >= 0;
}

#endif
