/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sandboxes that run without a terminal in front of them: their owner is a keeper, `msb` once more
 * under the hidden verb `keep`.
 *
 * Theory of operation. A command that starts one opens it (sandbox.h) and hands it over: the keeper
 * inherits the lock, so that the name is held without a gap, reads what the sandbox is from its
 * directory, and boots it. It is in a session of its own and holds none of the caller's descriptors
 * but a pipe, on which it says "ready" or how it failed. Until then the caller counts: should it
 * go, the sandbox does as well.
 *
 *	caller                         keeper                        msb-vm
 *	sandbox_open()
 *	keeper_start() ──── lock ────► sandbox_adopt(), _start() ──► boots
 *	keeper_wait()  ◄── "ready" ─── its command has started  ◄──── ready
 *	(goes)                         sessions; waits
 *	                               sandbox_end()            ◄──── ended
 *
 * A keeper can also be for the time being: of a sandbox that a command has started for itself. That
 * one goes when it is ready, too, but holds on to the connection. When it lets go of that, or dies,
 * the machine is told to stop with its last client (CONTROL_LEAVE), which is the caller's own
 * session if a person has left it. So nobody ends a sandbox under others, whoever came first.
 *
 * The keeper is one thread and one loop. It hosts the sandbox's sessions (session.h); the command
 * of `run` is the first of them, MAIN_SESSION, and when that ends the sandbox is stopped. Killed
 * with -9 it leaves a machine that ends by itself, as any owner does.
 */
#ifndef SANDBOX_KEEPER_H
#define SANDBOX_KEEPER_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/proc.h"

struct sandbox;
struct store;

#define KEEPER_VERB  "keep"
#define MAIN_SESSION "main"

enum keeper_fd {
	KEEPER_FD_LOCK = 3, /* the sandbox's, locked */
	KEEPER_FD_REPORT,   /* socket to the caller */
};

/* Until when the sandbox runs, if nobody stops it. */
enum keeper_until {
	KEEPER_STOPPED, /* until then */
	KEEPER_MAIN,	/* the command it has (sandbox_set_main()), if any, has ended */
	KEEPER_LEFT,	/* the caller and everybody else has left */
	KEEPER_SESSION, /* the same, or the session MAIN_SESSION, which the caller begins, has ended
			 */
};

/* A keeper that was started and has not said yet how that went. */
struct keeper {
	struct sandbox *sb; /* the caller's hold on it until then */
	struct proc proc;
	int report;
	struct buf in; /* from there */
};
#define KEEPER_INIT                                                                                \
	{                                                                                          \
		.proc = PROC_INIT, .report = -1, .in = BUF_INIT                                    \
	}

/* Start one for @sb, which is the keeper's from here on, also on failure. */
int keeper_start(struct keeper *k, struct sandbox *sb, enum keeper_until until, struct err *err);
/*
 * Wait until the sandbox is ready: 0. Negative: it is not, as @err says, with what the machine said
 * in @logs. A positive number is the exit code (125 to 127) of a command that could not be run.
 */
int keeper_wait(struct keeper *k, struct buf *logs, struct err *err);
/* Give up on one that was not waited for: it ends, and so does its sandbox. */
void keeper_done(struct keeper *k);
/*
 * From KEEPER_LEFT on: let go of one that is ready. @end: end the sandbox, whoever is in it.
 * keeper_last() waits until it has ended, or it is clear that it goes on for others. Negative: its
 * machine has failed, as @err says, with what it said in @logs. It ends with keeper_forget().
 */
void keeper_leave(struct keeper *k, bool end);
int keeper_last(struct keeper *k, struct buf *logs, struct err *err);
void keeper_forget(struct keeper *k);

/*
 * Be the keeper of @name, with the descriptors above. @fresh: the sandbox is new, and goes if it
 * does not come up. Returns when it has ended; what there was to say has been said.
 */
int keeper_run(struct store *s, const char *name, bool fresh, enum keeper_until until);

#endif
