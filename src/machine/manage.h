/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine's manager: what can be asked of it while it runs (control_msg.h), and when it is to end
 * by itself.
 *
 * Theory of operation. A request that the engine or the guest's agent has to carry out waits in a
 * list with a deadline; the answer that it waits for comes as an event (paused, pong, host.used,
 * host.cpus.set), or as steps that each give it more time (memory). One tick serves what is due
 * first: the maximum duration, which counts from the guest's readiness by the wall, the host's
 * sleep included, and the idle timeout, which counts from the last activity that the host has seen
 * while no session is open, and not while the guest is paused.
 *
 * All calls belong to the thread of the machine's loop.
 */
#ifndef MACHINE_MANAGE_H
#define MACHINE_MANAGE_H

#include "base/err.h"
#include "wire/frame.h"

struct machine;
struct manager;

/* Why a machine ended; what vm_report says. Other ends have a message instead. */
#define END_ASKED	  "stopped"
#define END_DRAINED	  "drained"
#define END_DRAIN_TIMEOUT "drain-timeout"
#define END_MAX_DURATION  "max-duration"
#define END_IDLE	  "idle"
#define END_LEFT	  "left"     /* the last client has gone, as CONTROL_LEAVE wants it */
#define END_GUEST	  "shutdown" /* the guest switched itself off */

/* End the machine in order, for @reason. */
typedef void manage_stop_fn(void *arg, const char *reason);

/* @listenfd becomes the manager's, also on failure. */
int manage_new(struct manager **ret, struct machine *m, int listenfd, manage_stop_fn *stop,
	       void *arg, struct err *err);
void manage_ready(struct manager *g);
/* From the engine; @paused is how it is now. */
void manage_paused(struct manager *g, bool paused);
/* The guest has so much memory beyond what it booted with. */
void manage_memory(struct manager *g, uint64_t bytes);
/* From the relay. */
void manage_active(struct manager *g);
void manage_gone(struct manager *g);
void manage_agent(struct manager *g, const struct envelope *e);
/* The machine is about to shut down: let the guest go on if it is paused. */
void manage_stopping(struct manager *g);
/* NULL is fine; returns NULL. Before the engine and the relay are gone. */
struct manager *manage_free(struct manager *g);

#endif
