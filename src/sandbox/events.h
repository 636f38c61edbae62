/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happened to sandboxes, in order: the events that changes of their states leave (state.h).
 *
 * To follow them: watch first, read from where one is, poll the watch, read again. A notice comes
 * when the database's log is written, which is before the writer has committed; so a read waits for
 * who writes, by taking the writers' lock itself. Then whatever was noticed is either there or was
 * undone, and nobody has to look again after a while. One thread.
 */
#ifndef SANDBOX_EVENTS_H
#define SANDBOX_EVENTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct store;

struct sandbox_event {
	int64_t seq, at; /* at: Unix seconds */
	char *sandbox;
	char *old; /* state before; "" for a new one */
	char *new; /* state, or "removed" */
	char *reason;
	char *labels;  /* a JSON object */
	int exit_code; /* -1: none */
};

struct sandbox_events {
	struct sandbox_event *v;
	size_t n;
	int64_t first; /* the oldest that is kept; 0: there is none */
};
void sandbox_events_done(struct sandbox_events *l);
#define cleanup_events __attribute__((cleanup(sandbox_events_done)))

/* A descriptor that can be read when something may have happened; see sandbox_events_noticed(). */
int sandbox_events_watch(struct store *s, struct err *err);
/* Take what made it readable. -ERR_NOT_FOUND: the database was moved away or removed. */
int sandbox_events_noticed(int watch, struct err *err);

/* Those that came after number @after, at most @max. -EBUSY: somebody writes for long; again later.
 */
int sandbox_events_read(struct store *s, int64_t after, size_t max, struct sandbox_events *ret,
			struct err *err);

#endif
