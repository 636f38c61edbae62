/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of a sandbox's agent: one connection to agent.sock, commands run over it, and other
 * sessions (files, TCP connections) as raw streams of messages.
 *
 * Theory of operation. The relay greets with the client's range of session ids and the agent's
 * core.ready frame as soon as the guest is up; commands may be started from then on. Each is a
 * session with an id of its own. Memory is bounded in both directions: output is
 * handed over frame by frame straight from the receive buffer, and the owner stops the flow with
 * agent_client_pause(); input is written into the send queue, and agent_exec_stdin_room() says
 * when its owner should stop reading.
 *
 * Failures of the connection end it: closed() is called once, and no other callback after it.
 * Whatever a guest sends is an ordinary error.
 *
 * All calls belong to the loop's thread. A callback may call anything here but
 * agent_client_free().
 */
#ifndef SANDBOX_AGENT_CLIENT_H
#define SANDBOX_AGENT_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "base/str.h"
#include "sandbox/spec.h"
#include "wire/agent_msg.h"
#include "wire/frame.h"

/* Commands at once of one client; `msb` needs one, an SDK a few. */
#define AGENT_EXECS_MAX 64
/* Streams at once: what the agent allows. */
#define AGENT_STREAMS_MAX 1024
/* Largest piece of standard input sent at once: what a pipe holds. */
#define AGENT_STDIN_CHUNK ((size_t)64 << 10)
/* Bytes queued towards the agent from which on there is no room for more input. */
#define AGENT_QUEUE_HIGH ((size_t)256 << 10)

struct agent_client;
struct agent_exec;
struct agent_stream;
struct envelope;

struct agent_client_ops {
	/* The guest is up. */
	void (*ready)(void *arg, const struct msg_ready *ready);
	/* The connection is over; @why says how. */
	void (*closed)(void *arg, const struct err *why);
};

struct agent_exec_ops {
	void (*started)(void *arg, uint32_t pid);
	/* @stream is 1 or 2. The bytes are valid during the call only. */
	void (*output)(void *arg, int stream, const void *p, size_t n);
	/* There is room for input again. */
	void (*stdin_room)(void *arg);
	/* The command no longer reads its input. */
	void (*stdin_closed)(void *arg);
	/* One of these two comes last; the session is gone when it returns. */
	void (*exited)(void *arg, int code);
	void (*failed)(void *arg, const struct msg_exec_failed *why);
	/* A message that the agent protocol does not know; may be NULL. */
	void (*other)(void *arg, const struct envelope *env);
};

/* @fd, a connected stream socket, becomes the client's (also on failure). */
int agent_client_new(struct agent_client **ret, struct loop *loop, int fd,
		     const struct agent_client_ops *ops, void *arg, struct err *err);
/* Ends the connection and, with it, its commands. NULL is fine; returns NULL. */
struct agent_client *agent_client_free(struct agent_client *c);

/* Stop or go on receiving. */
void agent_client_pause(struct agent_client *c, bool pause);

struct agent_exec_start {
	const struct strv *argv;    /* not empty */
	const struct strv *env;	    /* on top of the sandbox's; NULL: nothing */
	const char *user, *workdir; /* NULL: the sandbox's */
	const struct sandbox_rlimit *rlimits;
	size_t nrlimits;
	bool tty;
	uint16_t rows, cols;
};
/* -ENOTCONN before ready(). */
int agent_exec_new(struct agent_exec **ret, struct agent_client *c,
		   const struct agent_exec_start *start, const struct agent_exec_ops *ops,
		   void *arg, struct err *err);

/*
 * A session that begins with another message than core.exec.request, where something else than the
 * agent listens. It ends with any message that is said to be the last.
 */
int agent_exec_open(struct agent_exec **ret, struct agent_client *c, const struct msg_type *type,
		    const void *msg, const struct agent_exec_ops *ops, void *arg, struct err *err);
/* Send such a message. */
void agent_exec_send(struct agent_exec *e, const struct msg_type *type, const void *msg);
/* Make the core.exec.request of @start; to be freed also after a failure. */
int agent_exec_request(const struct agent_exec_start *start, struct msg_exec_request *m,
		       struct err *err);

/*
 * Why @cmd could not be run, for a person, and the exit code that stands for it: 125 to 127, as
 * shells have them.
 */
int agent_exec_why(const struct msg_exec_failed *m, const char *cmd, struct err *why);

/* May input be added? When not, stdin_room() is called once it may. */
bool agent_exec_stdin_room(struct agent_exec *e);
/*
 * Room for AGENT_STDIN_CHUNK bytes of input, NULL when out of memory; then say how many were put
 * there, with nothing else sent in between. Zero leaves everything as it was.
 */
void *agent_exec_stdin_begin(struct agent_exec *e);
void agent_exec_stdin_end(struct agent_exec *e, size_t n);
/* End of input. */
void agent_exec_stdin_eof(struct agent_exec *e);
void agent_exec_resize(struct agent_exec *e, uint16_t rows, uint16_t cols);
void agent_exec_signal(struct agent_exec *e, int sig);

/* Any session that one message starts and a terminal one ends. */
struct agent_stream_ops {
	/*
	 * A message of this session, valid during the call. The @last one ends it, and the stream
	 * is gone when this returns; core.error is always the last.
	 */
	void (*message)(void *arg, const struct envelope *env, bool last);
	/* There is room to send again. */
	void (*room)(void *arg);
};
/* -ENOTCONN before ready(). @msg is of type @kind, which starts a session. */
int agent_stream_new(struct agent_stream **ret, struct agent_client *c, enum msg_kind kind,
		     const void *msg, const struct agent_stream_ops *ops, void *arg,
		     struct err *err);
/* Forget it: nothing more is reported. The other side is not told. NULL is fine. */
void agent_stream_drop(struct agent_stream *s);
/* Whether the queue has room for data; when not, room() is called once it has. */
bool agent_stream_room(struct agent_stream *s);
void agent_stream_send(struct agent_stream *s, enum msg_kind kind, const void *msg);
/* A data message of at most FRAME_DATA_MAX bytes; they are copied. */
void agent_stream_data(struct agent_stream *s, enum msg_kind kind, const void *p, size_t n);
/* The bytes of a data message, in place if possible, else in @owned (msg_free() it). */
int agent_stream_bytes(const struct envelope *env, struct msg_data *owned, const uint8_t **ret,
		       size_t *n, struct err *err);

#endif
