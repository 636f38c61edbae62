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
 * by itself is followed by msb-vm's report, which knows why.
 *
 * Main thread only: terminal and signal mask belong to the process.
 */
#ifndef CLI_ATTACH_H
#define CLI_ATTACH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "sandbox/spec.h"

struct sandbox;

struct attach {
	const struct strv *argv;
	bool tty;
	uint64_t timeout_ns; /* 0: none; counts from the command's start */
};

/*
 * Hold off the signals that attach_run() deals with, from here to the end of the process: as early
 * as there is something to clean up.
 */
void attach_block_signals(void);
/* The first such signal that has come meanwhile, or 0. */
int attach_pending_signal(void);

/*
 * Run a command in @sb, which was started. Returns its exit code, or what stands for it (124,
 * 126, 127, 128 + N). Negative: our own failure. In *died the signal that we ought to die from once
 * all is cleaned up (a broken pipe), else 0.
 */
int attach_run(struct sandbox *sb, const struct attach *a, int *died, struct err *err);

#endif
