/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The relay: agent.sock for any number of clients, each with a vsock connection of its own.
 *
 *	client ── agent.sock ── relay ── vsock connection ── agentd
 *
 * A client gets [id_start u32 BE][id_end u32 BE][ready frame] and from then on speaks the agent
 * protocol. Since no two clients share a connection, vsock's own credit reaches from the command
 * in the guest to the client that reads it, and a client that stops reading stops only itself.
 * The relay checks that a client's frames are well-formed in length and stay in its id range;
 * bodies pass through unread, except that the log is shown a copy (exec_log.h).
 *
 * The agent's own connection, the control connection, brings the ready frame first (or a
 * core.error that says why the guest could not boot) and takes core.shutdown, core.clock.sync and
 * what relay_tell() sends; what the agent answers goes to agent().
 *
 * The relay knows which sessions are open, by the flags of frames: one begins with a client's frame
 * that says so, and is over when the guest says so or the client has gone. That, and what clients
 * send for sessions, is what counts as activity.
 *
 * All calls belong to the thread of the loop.
 */
#ifndef MACHINE_RELAY_H
#define MACHINE_RELAY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "wire/frame.h"

#define RELAY_CLIENTS_MAX FRAME_CLIENTS_MAX
/* Bytes held for one direction of one client before reading stops. */
#define RELAY_QUEUE_MAX ((size_t)512 << 10)

struct relay;

struct relay_ops {
	/* Connect @fd (now owned by the callee) to AGENT_PORT in the guest. */
	int (*dial)(void *arg, int fd, struct err *err);
	/* The guest is ready. */
	void (*ready)(void *arg);
	/* The guest reported that it cannot go on, or broke the protocol: @why says so. */
	void (*failed)(void *arg, const char *why);
	/* Clients are active: they sent something for a session, or one began or ended. */
	void (*active)(void *arg);
	/* The agent said something on the control connection, after it was ready. */
	void (*agent)(void *arg, const struct envelope *e);
	/* A client has gone; may be NULL. */
	void (*gone)(void *arg);
};

/*
 * @listenfd: a listening unix stream socket, @control: the host's end of the control connection;
 * both become the relay's, also on failure.
 */
int relay_new(struct relay **ret, struct loop *loop, int listenfd, int control,
	      const struct relay_ops *ops, void *arg, struct err *err);
/* Show what passes to @log, which outlives the relay. Before the first client. */
struct exec_log;
void relay_set_log(struct relay *r, struct exec_log *log);
/*
 * Ask the guest to shut down: 0, or -ENOTCONN when it never became ready. What runs in it has
 * @grace_ms to end; 0: not long.
 */
int relay_shutdown_guest(struct relay *r, uint32_t grace_ms);
/* Send the agent a message without an id: 0, -ENOTCONN before it is ready or after its end. */
int relay_tell(struct relay *r, enum msg_kind kind, const void *msg);
/* Tell it what time it is. */
void relay_sync_clock(struct relay *r);
unsigned relay_sessions(const struct relay *r);
unsigned relay_clients(const struct relay *r);
/* Nobody comes in any more: who tries is refused, and can tell that nothing was done for it. */
void relay_shut(struct relay *r);
/* The same if nobody is in or at the door, which it says. */
bool relay_shut_if_empty(struct relay *r);
/* Who comes in is told @why and sent away, until that is NULL. Who is in stays. */
void relay_refuse(struct relay *r, const char *why);
/* Deliver what clients have not yet read, for at most @timeout_ms, then drop them. */
void relay_finish(struct relay *r, int timeout_ms);
struct relay *relay_free(struct relay *r);

#endif
