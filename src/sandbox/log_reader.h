/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What commands in a sandbox printed: the entries of exec.log, in the order they were written,
 * while they are (machine/exec_log.h has the format).
 *
 * Theory of operation. The log is a ring of files that are filled in turn; the number in the first
 * line of each says which came when. The reader goes from the oldest to the newest and waits at its
 * end. A file is only left when its successor exists and it has been read to its end once more. One
 * that is emptied under the reader has another number afterwards; what was in it is lost, and
 * log_reader_next() says so.
 *
 * Who wants the end alone begins some bytes before it, and further back if that was not enough.
 *
 * One thread.
 */
#ifndef SANDBOX_LOG_READER_H
#define SANDBOX_LOG_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

#define LOG_READER_FILES 4

enum log_source { LOG_STDOUT, LOG_STDERR, LOG_OUTPUT, LOG_SYSTEM, LOG_NETWORK };

struct log_entry {
	int64_t ns; /* Unix time */
	enum log_source source;
	uint32_t id; /* of its session; 0: none */
	const void *data;
	size_t n;
	const char *line; /* as it stands in the file, without its end */
	size_t line_n;
};

struct log_reader;

/*
 * @dirfd is the sandbox's directory, and stays the caller's. @log is "exec.log" or "network.log". A
 * sandbox without logs has none yet.
 */
int log_reader_new(struct log_reader **ret, int dirfd, const char *log, struct err *err);
/*
 * The next entry: 1, valid until the next call. 0: there is none now. -ENODATA: some are missing
 * here, go on. Lines that are none of ours are passed over.
 */
int log_reader_next(struct log_reader *r, struct log_entry *e);
/*
 * Begin anew with the first line that begins in the last @bytes of the log. 1: those are all there
 * are.
 */
int log_reader_back(struct log_reader *r, uint64_t bytes);
struct log_reader *log_reader_free(struct log_reader *r);

/* "2026-11-21T12:34:56.123456Z" and the like (RFC 3339): nanoseconds of Unix time, or -EINVAL. */
int log_time_parse(const char *s, size_t n, int64_t *ret);

#endif
