/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layer's bytes in one pass.
 *
 * A thread reads the blob and decompresses it into a ring of buffers; the caller takes the buffers
 * out, which hashes them, and does its own work meanwhile. What was read is hashed by whichever of
 * the two has nothing better to do. Nothing is read twice and memory is the rings, whatever the
 * size of the layer. Compression is told by content, never by
 * media type: registries are known to mix them up.
 *
 * stream_next() and stream_finish() belong to one thread.
 */
#ifndef IMAGE_STREAM_H
#define IMAGE_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "image/digest.h"

enum compression { COMPRESSION_NONE, COMPRESSION_GZIP, COMPRESSION_ZSTD };

/* By the first bytes; COMPRESSION_NONE for anything unknown. */
enum compression compression_of(const uint8_t *p, size_t n);
/* For messages: a known format we do not read ("xz", "bzip2"), or NULL. */
const char *compression_unsupported(const uint8_t *p, size_t n);

struct stream;
typedef void stream_progress_fn(void *arg, uint64_t done);

struct stream_options {
	int fd; /* borrowed; read with pread() */
	uint64_t offset;
	uint64_t size; /* UINT64_MAX: until the end, sequentially with read() */
	bool hash_input, hash_output;
	/* From the thread, about every MiB of a file and more often of a pipe; may be NULL. */
	stream_progress_fn *progress;
	void *progress_arg;
};

int stream_open(struct stream **ret, const struct stream_options *o, struct err *err);
/* Stops the thread, wherever it is. NULL is fine. */
struct stream *stream_close(struct stream *s);
static inline void stream_close_fn(struct stream **s)
{
	stream_close(*s);
}
#define cleanup_stream __attribute__((cleanup(stream_close_fn)))

/* A tar_read_fn with a struct stream as its argument. */
int stream_next(void *stream, const uint8_t **ret, size_t *ret_len, struct err *err);

struct stream_result {
	uint64_t in, out;
	struct digest in_digest, out_digest; /* if asked for */
};
/* Read what is left, at most @max_out bytes in all, and say what it was. */
int stream_finish(struct stream *s, uint64_t max_out, struct stream_result *ret, struct err *err);

#endif
