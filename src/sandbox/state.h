/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is said about sandboxes: their states, in the database.
 *
 *	created ──► starting ──► running ◄──► paused
 *	               │            │└► draining
 *	               ▼            ▼
 *	            failed       stopping ──► stopped      (and crashed, from any that is alive)
 *
 * Theory of operation. Whether a sandbox lives is what its lock says (sandbox_dir.h); a row here
 * says what kind of life, or of death, that is. A row is written by whoever holds the lock, that is
 * the sandbox's owner, or by a command that changes how it lives: `stop` says "stopping", `pause`
 * says "paused". Each change is one transaction that checks the table of allowed changes, writes
 * the row, and adds one event.
 *
 * The owner takes the lock before it writes "starting" and writes the end before it lets go. So
 * whoever gets a sandbox's lock and finds a row that says it lives knows that its owner was killed,
 * and that is how rows heal (sandbox_dir_heal()). Rows are never asked for processes.
 *
 * An ephemeral sandbox has a row while it lives; how it ended is in the events.
 *
 * Any thread, with its own store.
 */
#ifndef SANDBOX_STATE_H
#define SANDBOX_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct store;

enum sandbox_state {
	SANDBOX_CREATED,
	SANDBOX_STARTING,
	SANDBOX_RUNNING,
	SANDBOX_DRAINING, /* runs, takes no new commands, stops after the last one */
	SANDBOX_STOPPING,
	SANDBOX_STOPPED,
	SANDBOX_PAUSED,
	SANDBOX_CRASHED, /* it ran and ended without being asked to */
	SANDBOX_FAILED,	 /* it did not come up */
};
#define SANDBOX_STATES (SANDBOX_FAILED + 1)

const char *sandbox_state_name(enum sandbox_state s);
/* -ERR_CORRUPT when it is none. */
int sandbox_state_parse(const char *name, enum sandbox_state *ret);
/* Has it a machine, or is it about to? */
bool sandbox_state_alive(enum sandbox_state s);
/* May it go from one to the other? */
bool sandbox_state_allowed(enum sandbox_state from, enum sandbox_state to);

/* Events kept; older ones go. */
#define SANDBOX_EVENTS_MAX 10000

struct sandbox_status {
	enum sandbox_state state;
	char *reason; /* of the last change; may be empty */
	bool ephemeral;
	int64_t created_at, started_at, changed_at; /* Unix seconds; 0: not yet */
	int exit_code; /* of its own command, when that has ended; else -1 */
};
void sandbox_status_done(struct sandbox_status *s);
#define cleanup_status __attribute__((cleanup(sandbox_status_done)))

/*
 * A new sandbox: "created". Its holder calls this with the lock; a row that is there is of a
 * sandbox that is not, and goes.
 */
int sandbox_state_new(struct store *s, const char *name, bool ephemeral, int64_t created_at,
		      const struct strv *labels, struct err *err);
/* -ERR_NOT_FOUND when there is no row. */
int sandbox_state_read(struct store *s, const char *name, struct sandbox_status *ret,
		       struct err *err);
/*
 * Go to @to. -ERR_NOT_FOUND: no row. -EBUSY: not from the state it is in (which the message names).
 * 1: it is in that state already; nothing changes, and there is no event.
 */
int sandbox_state_change(struct store *s, const char *name, enum sandbox_state to,
			 const char *reason, struct err *err);

/*
 * Say what it is as is known from elsewhere (its machine, its files), whatever may follow what.
 * @seen is the row as it was read, NULL for none: 1, and nothing changes, when it is another by
 * now. A row that is missing is made, of @is with @labels.
 */
int sandbox_state_put(struct store *s, const char *name, const struct sandbox_status *seen,
		      const struct sandbox_status *is, const struct strv *labels, struct err *err);

/* How a life ended, as its owner (or, after its owner's, whoever heals) saw it. */
struct sandbox_end {
	bool asked; /* by us or by the guest itself, rather than for some failure */
	bool was_ready;
	const char *reason;
	int exit_code; /* -1: none */
};
/*
 * "stopped", "crashed" or "failed": a machine that ends while its row says "stopping" ended by
 * request, however that looks from outside, and the reason of that stays. Which it was goes to
 * *became, also when it could not be written.
 */
int sandbox_state_end(struct store *s, const char *name, const struct sandbox_end *end,
		      enum sandbox_state *became, struct err *err);
/* The sandbox is gone: so is its row, with labels and claim to an image. Fine when there is none.
 */
int sandbox_state_remove(struct store *s, const char *name, const struct sandbox_end *end,
			 struct err *err);
/* The same in a transaction of the caller's. */
int sandbox_state_drop(struct store *s, const char *name, const struct sandbox_end *end,
		       struct err *err);

/* Put @labels ("K=V") in the place of those it has. */
int sandbox_state_labels(struct store *s, const char *name, const struct strv *labels,
			 struct err *err);
/* Names of the sandboxes that have all of @labels ("K" for any value, "K=V"), in order. */
int sandbox_state_select(struct store *s, const struct strv *labels, struct strv *ret,
			 struct err *err);

/* All rows, by name. */
struct sandbox_states {
	struct sandbox_state_row {
		char *name;
		struct sandbox_status status;
	} * rows;
	size_t n;
};
int sandbox_states_read(struct store *s, struct sandbox_states *ret, struct err *err);
void sandbox_states_done(struct sandbox_states *l);
#define cleanup_states __attribute__((cleanup(sandbox_states_done)))
/* NULL when there is none. */
struct sandbox_status *sandbox_states_find(const struct sandbox_states *l, const char *name);

/* The number of the newest event, 0 when there is none. */
int sandbox_events_last(struct store *s, int64_t *ret, struct err *err);
/*
 * How @name ended after event @since: 1 with its exit code (-1: none) and in *clean whether it was
 * asked to, 0 when it has not. Ephemeral ones are found as well.
 */
int sandbox_events_end(struct store *s, const char *name, int64_t since, int *exit_code,
		       bool *clean, struct err *err);
/* The same of its last life, if that is over; 0 when it is not, or too long ago to be known. */
int sandbox_events_past(struct store *s, const char *name, int *exit_code, bool *clean,
			struct err *err);

#endif
