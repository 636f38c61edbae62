/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec.log: what commands in the guest printed, whoever ran them, and what became of the machine.
 *
 * Lines of JSON: {"t": time, "s": "stdout", "stderr", "output" (of a terminal) or "system", "d":
 * the bytes as text, "id": the session's number}; {"e": "base64"} when the bytes are not UTF-8.
 *
 * Theory of operation. Each of the relay's clients has a tap, which is shown all the frames that
 * pass and picks those of commands' sessions out of them. It copies what they carry into a queue; a
 * thread writes that to the files. The queue has a ceiling: when the disk does not keep up, the
 * oldest gives way to the newest, is counted, and that is said in the log; the relay never waits.
 * The writer does not try to keep up with a flood, of which the ring would keep the last seconds
 * only: it writes a burst at once, and from then on so much in a second. Nothing the guest or a
 * client sends is trusted: a frame that is not what it should be is not logged.
 *
 * The files are a ring: exec.log, exec.log.1 and so on are filled in turn, each up to
 * their limit, and the oldest is emptied for the next. All are open before the jail closes, and
 * none is ever renamed. The first line of each has a "seq", by which readers know their order
 * (sandbox/log_reader.h).
 *
 * All calls belong to the main loop's thread; those of network.log to that of the network, as long
 * as it runs.
 */
#ifndef MACHINE_EXEC_LOG_H
#define MACHINE_EXEC_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "wire/frame.h"

/* The files: at most so many, one that is written and those that are kept. */
#define EXEC_LOG_FILES 4
/* What may wait for the disk. */
#define EXEC_LOG_QUEUE ((size_t)4 << 20)

struct exec_log_limits {
	const char *name; /* of the files, in logs/ */
	unsigned files;
	size_t file;   /* bytes of one */
	size_t burst;  /* bytes of output that are written without a pause */
	size_t rate;   /* and in a second, of more than that */
	uint64_t wait; /* ns from one writing to the next, for others to go along */
};
extern const struct exec_log_limits exec_log_default;
/* Of network.log, the same thing: what becomes of connections. "s" is "network", and there are more
 * members. */
extern const struct exec_log_limits net_log_default;

enum exec_log_source {
	EXEC_LOG_STDOUT,
	EXEC_LOG_STDERR,
	EXEC_LOG_OUTPUT,
	EXEC_LOG_SYSTEM,
	EXEC_LOG_NETWORK,
};

struct exec_log;
struct exec_tap;

/* Open the files in logs/ of directory @dir, and go on behind the last entry. */
int exec_log_new(struct exec_log **ret, const char *dir, const struct exec_log_limits *limits,
		 struct err *err);
/* Its thread's loop, for the jail. */
struct loop *exec_log_loop(struct exec_log *l);
/* Something that is no output, of session @id (0: of none). */
void exec_log_event(struct exec_log *l, uint32_t id, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/*
 * A line of network.log: @text, and members of a JSON object with a comma in front of each, as
 * net/flow_log.h makes them. One that is @urgent waits for no others.
 */
void exec_log_network(struct exec_log *l, const char *text, const char *members, bool urgent);
/* Write what is queued, and wait for that. NULL is fine; returns NULL. All taps must be gone. */
struct exec_log *exec_log_free(struct exec_log *l);

/* NULL when out of memory, or without a log; the functions below take that. */
struct exec_tap *exec_tap_new(struct exec_log *l);
/* What passed, each piece exactly once and in order: from the client, and to it. */
void exec_tap_asked(struct exec_tap *t, const struct frame_piece *p);
void exec_tap_answered(struct exec_tap *t, const struct frame_piece *p);
struct exec_tap *exec_tap_free(struct exec_tap *t);

#endif
