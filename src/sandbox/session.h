/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host of a sandbox's sessions: commands that outlive the client that asked for them, and to
 * which any number of clients attach and detach (session_msg.h has what they say).
 *
 * Theory of operation. The host is the agent's client, with a connection for each session, and
 * always reads: what a command prints goes into the session's history (session_history.h), and each
 * attached client has its place in that. A session goes at the pace of its fastest client and,
 * without any, at its own; a client that falls out of the history is told how much it missed. All
 * clients of a session with a terminal may type; the last to say how large its terminal is decides.
 * Others have no input.
 *
 *	session.start ──► asked ── core.exec.started ──► running ── exited ──► ended
 *	                    └────────── failed ───────────────────────────────────┘
 *
 * One that has a deadline is killed then, and ends with 124.
 *
 * One that ended waits for somebody to ask for its exit code, or until SESSION_ENDED_MAX others
 * have. A client that asked for a session and goes without saying so takes it along, as a terminal
 * that hangs up does: the command gets SIGHUP.
 *
 * A client whose session could not even be asked for, because the sandbox was ending, is told by
 * having its connection closed without a word: it may start the sandbox anew, and try again.
 *
 * Everything a client sends is checked; what is wrong ends its connection or gets core.error.
 *
 * All calls belong to the loop's thread. The callbacks may call anything but session_host_free().
 */
#ifndef SANDBOX_SESSION_H
#define SANDBOX_SESSION_H

#include <stddef.h>

#include "base/err.h"
#include "base/loop.h"
#include "sandbox/agent_client.h"

/* Those that run; each has a connection to the relay, which takes 128. */
#define SESSION_RUNNING_MAX 64
#define SESSION_ENDED_MAX   64
#define SESSION_CLIENTS_MAX 128

struct session_host;

struct session_end {
	int code; /* what `msb run` would end with */
	bool timed_out;
	const struct msg_exec_failed *why; /* unless NULL: it could not be run, or was lost */
};

struct session_host_ops {
	/* A connection to the sandbox's agent. */
	int (*connect)(void *arg, struct err *err);
	/* Both may be NULL. A session's command runs. */
	void (*started)(void *arg, const char *name);
	void (*ended)(void *arg, const char *name, const struct session_end *end);
};

/* @listenfd, a listening unix stream socket, becomes the host's (also on failure). */
int session_host_new(struct session_host **ret, struct loop *loop, int listenfd,
		     const struct session_host_ops *ops, void *arg, struct err *err);
/*
 * The sandbox ends: nobody comes in any more, and sessions that are not over are lost, for the
 * reason @why. Then, for as long as it takes, let those who are there have what is left for them.
 */
void session_host_close(struct session_host *h, const char *why);
void session_host_finish(struct session_host *h);
/*
 * Leave word in @dirfd, the directory of a sandbox that ends, of the sessions whose exit codes nobody
 * has got (session_past_read()). Those that run end with it.
 */
void session_host_note(const struct session_host *h, int dirfd);
/* Ends all sessions. NULL is fine; returns NULL. */
struct session_host *session_host_free(struct session_host *h);

/* What sessions that begin from now on keep of what they print: bytes; 0: the default. */
void session_host_set_history(struct session_host *h, size_t bytes);
/* Start a session of the owner's own; @name may be NULL, @timeout_ms 0. */
int session_host_start(struct session_host *h, const char *name,
		       const struct agent_exec_start *start, uint64_t timeout_ms, struct err *err);
/* How many there are that have not ended. */
size_t session_host_running(const struct session_host *h);

#endif
