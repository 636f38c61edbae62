/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our own standard streams on a loop, without ever blocking it and without setting O_NONBLOCK on
 * descriptions that other processes share: a shell would find its terminal changed.
 *
 * Output. Pipes, FIFOs and terminals are opened anew through /proc, which gives a description of
 * our own that may be non-blocking; sockets have MSG_DONTWAIT; files never block for long. Where
 * opening anew is refused, output goes in pieces that a pipe takes whole once it polls writable.
 * What a stream does not take at once is kept, and its owner told to stop supplying.
 *
 * Input is read only after it polled readable; files, which do not poll, at any time.
 *
 * Everything belongs to the loop's thread.
 */
#ifndef CLI_STREAM_H
#define CLI_STREAM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"

/* More than this kept back: stop supplying. Less than half: go on. */
#define OUT_QUEUE_HIGH ((size_t)256 << 10)

struct out_stream {
	struct loop_source source;
	struct loop *loop;
	struct buf queue;
	bool own, socket, careful; /* own: opened anew; careful: small pieces, see above */
	int error;		   /* first failure, an errno; nothing is written after it */
	/* The queue went below the mark or became empty, or error was set. Not from write(). */
	void (*changed)(struct out_stream *o);
};

/* @fd is borrowed and stays open. */
int out_stream_init(struct out_stream *o, struct loop *loop, int fd,
		    void (*changed)(struct out_stream *o), struct err *err);
void out_stream_done(struct out_stream *o);
/* Write or keep: 0, or the error as -errno. */
int out_stream_write(struct out_stream *o, const void *p, size_t n);
static inline size_t out_stream_kept(const struct out_stream *o)
{
	return buf_size(&o->queue);
}

struct in_stream {
	struct loop_source source;
	struct loop_timer again; /* the next turn of what does not poll */
	struct loop *loop;
	bool polls, on, done;
	/* Read once into a place of yours with in_stream_read(). */
	void (*readable)(struct in_stream *i);
	int error; /* why it ended, if not by itself */
};

int in_stream_init(struct in_stream *i, struct loop *loop, int fd,
		   void (*readable)(struct in_stream *i), struct err *err);
void in_stream_done(struct in_stream *i);
/* Let readable() be called, or not. */
void in_stream_enable(struct in_stream *i, bool on);
/* Bytes read; 0 at the end (or after an error that comes to the same); -EAGAIN: nothing now. */
long in_stream_read(struct in_stream *i, void *p, size_t n);

#endif
