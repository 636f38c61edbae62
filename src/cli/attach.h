/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One command in a sandbox, joined to our standard streams, terminal and signals until it ends.
 *
 * Theory of operation. A loop watches the agent's connection, msb-vm's reports and its end,
 * signals, and the three streams:
 *
 *	BOOTING ── ready ──► RUNNING ── exited/failed ──► FLUSHING ── all written ──► OVER
 *	   └──── machine failed, signal ──────┴──── timeout, second signal, broken pipe ────┘
 *
 * Signals reach the command; the second of a kind ends everything at once, as does the first
 * while there is no command to pass it to: before it has started, as in a paused sandbox. While the output's reader is slow, the agent's
 * connection is not read; while the command does not read, neither do we. A connection that ends
 * by itself is followed by msb-vm's report, which knows why, if the sandbox is ours.
 *
 * A sandbox of ours that is kept serves sessions on the same loop (sandbox/session.h) for as long
 * as our command runs. On one of somebody else's, we may be the client of a session: then the keys,
 * if they are typed, take us off it, and the command goes on.
 *
 * Main thread only: terminal and signal mask belong to the process.
 */
#ifndef CLI_ATTACH_H
#define CLI_ATTACH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "cli/keys.h"
#include "sandbox/agent_client.h"

struct sandbox;
struct store;

struct attach {
	struct agent_exec_start start; /* without the terminal's size and TERM */
	uint64_t timeout_ns;	       /* 0: none; counts from when it is asked for */
	struct sandbox *sb;	       /* ours, started; or NULL, and: */
	int fd;		  /* a connection into one that somebody else runs; becomes ours */
	const char *name; /* what that is called */

	enum attach_how {
		ATTACH_AGENT, /* @fd is the agent's: the command ends with us */
		ATTACH_START, /* that of the sandbox's sessions: one is started */
		ATTACH_TO,    /* one that is there; @start does not count */
	} how;
	const char *session; /* its name, or NULL: a number, or the only one */
	bool detached;	     /* only start it, and print its name */
	bool no_replay;	     /* without what it has printed so far */
	bool quiet;
	struct keys keys; /* that take us off it */
	/* That the sandbox has ended under us is an error; the caller can say why it has. */
	bool holds;

	/* By attach_run(): how it was. */
	enum attach_end {
		ATTACH_ENDED, /* with the command */
		ATTACH_LEFT,  /* by the keys, or the terminal hung up: a session goes on */
		ATTACH_CUT,   /* by a signal or a failure: nobody is to be left there */
	} end;
};

/*
 * Hold off the signals that attach_run() deals with, from here to the end of the process: as early
 * as there is something to clean up.
 */
void attach_block_signals(void);
/* The first such signal that has come meanwhile, or 0. */
int attach_pending_signal(void);

/*
 * The way into a sandbox that runs: its sessions, if @must or if a person types and there are any
 * (then the keys @keys work), else its agent. Sets @a's fd, how and keys; errors are those of
 * sandbox/reach.h.
 */
int attach_find(struct attach *a, struct store *s, bool must, const struct keys *keys,
		struct err *err);
/*
 * Run a command in a sandbox. Returns its exit code, or what stands for it (124, 126, 127,
 * 128 + N). Negative: our own failure; -EAGAIN when the sandbox has ended before anything was asked
 * of it. In *died the signal that we ought to die from once all is cleaned up (a broken pipe), else
 * 0.
 */
int attach_run(struct attach *a, int *died, struct err *err);

/*
 * Leave with what attach_run() and friends returned: an exit code, or -- after a message -- ours
 * for a failure. Does not return when it is a signal that we ought to die from.
 */
int attach_leave(int result, int died, const struct err *err);
/*
 * For subreapers: what our children leave behind when they are killed (an engine whose msb-vm is
 * gone) becomes our child and is on its way out. Afterwards nothing is left.
 */
void attach_reap(void);
/* Does a command get a terminal, with what --tty and --no-tty say? */
bool attach_want_tty(bool tty, bool no_tty);

#endif
