/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.sock: the agent protocol's frames with a few messages more.
 *
 * The greeting is the relay's. Then, on ids of the client's choice:
 *
 *	session.start    a command is run, and the client attached to it. Answered by
 *	                 session.started once it runs, or by core.exec.failed or core.error
 *	session.attach   to a session that is there. Answered likewise, followed by what it printed
 *	session.list     answered by session.listing
 *
 * Attached, client and host exchange core.exec.* as a client of the agent does; session.gap says
 * how many bytes of output are missing at this point. session.detach takes the client off without
 * any harm to the command, and is answered by the end of the connection. Nothing but this program's
 * two sides speaks this: no generations.
 */
#ifndef SANDBOX_SESSION_MSG_H
#define SANDBOX_SESSION_MSG_H

#include "wire/agent_msg.h"

#define SESSION_SOCKET "session.sock"
/* As those of sandboxes, and shorter. */
#define SESSION_NAME_MAX 64

enum session_kind {
	SESSION_START,
	SESSION_ATTACH,
	SESSION_STARTED,
	SESSION_GAP,
	SESSION_DETACH,
	SESSION_LIST,
	SESSION_LISTING,
	SESSION_KINDS,
};

extern const struct msg_type session_types[SESSION_KINDS];
/* The kind that a name stands for, or -1. */
int session_kind_find(const char *name, size_t n);

struct session_start {
	struct wire_bytes request; /* a core.exec.request */
	char *name;		   /* NULL: a number */
	bool detached;		   /* stay away: session.started is the last message */
	uint64_t timeout_ms;	   /* it is killed after so long, and ends with 124; 0: never */
};

struct session_attach {
	char *name; /* NULL: the only one there is */
	bool quiet; /* without what was printed so far */
};

struct session_started {
	char *name;
	bool tty;
};

struct session_gap {
	uint64_t bytes;
	bool before; /* ...printed before the client came, and not kept */
};

struct session_row {
	char *name, *command;
	bool tty, running;
	int32_t code; /* once it has ended */
	uint32_t clients;
	uint64_t printed, dropped;    /* bytes; of the first so many nothing is kept */
	int64_t started_at, ended_at; /* Unix seconds */
};

struct session_listing {
	struct wire_list rows; /* struct session_row, oldest first */
};

/*
 * Of a sandbox that does not run: the sessions of its last life that nobody has asked for, as
 * session_host_note() left them. -ENOENT when there are none.
 */
#define SESSION_PAST "sessions.cbor"
int session_past_read(int dirfd, struct session_listing *ret, struct err *err);

/* A letter or digit and then those and "._-". */
int session_name_check(const char *name, struct err *err);

#endif
