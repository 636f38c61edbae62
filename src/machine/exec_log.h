/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec.log: what commands in the guest printed, whoever ran them, and what became of the machine.
 *
 * Lines of JSON: {"t": time, "s": "stdout", "stderr", "output" (of a terminal) or "system", "d":
 * the bytes as text, "id": the session's number}; {"e": "base64"} when the bytes are not UTF-8.
 *
 * Theory of operation. Each of the relay's clients has a tap, which is shown all the bytes that
 * pass and picks the frames of commands' sessions out of them. It copies what they carry into a
 * queue; a thread writes that to the files. The queue has a ceiling: what the disk does not take in
 * time is lost, counted, and said in the log, and the relay never waits. Nothing the guest or a
 * client sends is trusted: a frame that is not what it should be is not logged.
 *
 * The files are a ring: exec.log, exec.log.1 and so on are filled in turn, each up to
 * EXEC_LOG_FILE, and the oldest is emptied for the next. All are open before the jail closes, and
 * none is ever renamed. The first line of each has a "seq", by which readers know their order
 * (sandbox/log_reader.h).
 *
 * All calls belong to the main loop's thread.
 */
#ifndef MACHINE_EXEC_LOG_H
#define MACHINE_EXEC_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"

/* The peer's figures: one that is written and three that are kept. */
#define EXEC_LOG_FILE  ((size_t)10 << 20)
#define EXEC_LOG_FILES 4
/* What may wait for the disk. */
#define EXEC_LOG_QUEUE ((size_t)4 << 20)

enum exec_log_source { EXEC_LOG_STDOUT, EXEC_LOG_STDERR, EXEC_LOG_OUTPUT, EXEC_LOG_SYSTEM };

struct exec_log;
struct exec_tap;

/*
 * Open the files in logs/ of directory @dir, @files of them with up to @max bytes each, and go on
 * behind the last entry.
 */
int exec_log_new(struct exec_log **ret, const char *dir, unsigned files, size_t max,
		 struct err *err);
/* Its thread's loop, for the jail. */
struct loop *exec_log_loop(struct exec_log *l);
/* Something that is no output, of session @id (0: of none). */
void exec_log_event(struct exec_log *l, uint32_t id, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Write what is queued, and wait for that. NULL is fine; returns NULL. All taps must be gone. */
struct exec_log *exec_log_free(struct exec_log *l);

/* NULL when out of memory, or without a log; the functions below take that. */
struct exec_tap *exec_tap_new(struct exec_log *l);
/* The bytes that passed, each exactly once and in order: from the client, and to it. */
void exec_tap_asked(struct exec_tap *t, const void *p, size_t n);
void exec_tap_answered(struct exec_tap *t, const void *p, size_t n);
struct exec_tap *exec_tap_free(struct exec_tap *t);

#endif
