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
 * while there is no command to pass it to. While the output's reader is slow, the agent's
 * connection is not read; while the command does not read, neither do we. A connection that ends
 * by itself is followed by msb-vm's report, which knows why, if the sandbox is ours.
 *
 * Main thread only: terminal and signal mask belong to the process.
 */
#ifndef CLI_ATTACH_H
#define CLI_ATTACH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "sandbox/agent_client.h"

struct sandbox;

struct attach {
	struct agent_exec_start start; /* without the terminal's size and TERM */
	uint64_t timeout_ns;	       /* 0: none; counts from the command's start */
	struct sandbox *sb;	       /* ours, started; or NULL, and: */
	int fd;		  /* a connection to the agent of a sandbox that somebody else */
	const char *name; /* runs, and what that is called; it becomes ours */
};

/*
 * Hold off the signals that attach_run() deals with, from here to the end of the process: as early
 * as there is something to clean up.
 */
void attach_block_signals(void);
/* The first such signal that has come meanwhile, or 0. */
int attach_pending_signal(void);

/*
 * Run a command in a sandbox. Returns its exit code, or what stands for it (124, 126, 127,
 * 128 + N). Negative: our own failure. In *died the signal that we ought to die from once all is
 * cleaned up (a broken pipe), else 0.
 */
int attach_run(const struct attach *a, int *died, struct err *err);

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
