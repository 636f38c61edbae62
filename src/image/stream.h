/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layer's bytes in one pass.
 *
 * What is compressed goes through an unpacker, a process of its own (image/convert.h): a thread
 * reads the blob, hashes it and writes it there; the caller takes out what comes back, which
 * hashes that, and does its own work meanwhile. What is not is read by the caller. Nothing is read
 * twice and memory is a few buffers, whatever the size of the layer.
 *
 * All functions but the progress belong to one thread.
 */
#ifndef IMAGE_STREAM_H
#define IMAGE_STREAM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "image/digest.h"

struct stream;
typedef void stream_progress_fn(void *arg, uint64_t done);

struct stream_options {
	int fd; /* borrowed; read with pread() */
	uint64_t offset;
	uint64_t size; /* UINT64_MAX: until the end, sequentially with read() */
	bool hash_input, hash_output;
	/* From any thread, about every MiB of a file and more often of a pipe; may be NULL. */
	stream_progress_fn *progress;
	void *progress_arg;
};

int stream_open(struct stream **ret, const struct stream_options *o, struct err *err);
/* Stops the thread and the unpacker, wherever they are. NULL is fine. */
struct stream *stream_close(struct stream *s);
static inline void stream_close_fn(struct stream **s)
{
	stream_close(*s);
}
#define cleanup_stream __attribute__((cleanup(stream_close_fn)))

/* The next bytes, @max of them but at the end: how many, 0 after the last. A convert_fill_fn. */
ssize_t stream_fill(void *stream, uint8_t *p, size_t max, struct err *err);
/* The same in a buffer of the stream's: a tar_read_fn. */
int stream_next(void *stream, const uint8_t **ret, size_t *ret_len, struct err *err);

struct stream_result {
	uint64_t in, out;
	struct digest in_digest, out_digest; /* if asked for */
};
/* Read what is left, at most @max_out bytes in all, and say what it was. */
int stream_finish(struct stream *s, uint64_t max_out, struct stream_result *ret, struct err *err);

#endif
