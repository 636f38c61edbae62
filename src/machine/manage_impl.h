/* SPDX-License-Identifier: Apache-2.0 */
/* What manage.c and manage_resize.c share: the manager, and the calls that wait in it. */
#ifndef MACHINE_MANAGE_IMPL_H
#define MACHINE_MANAGE_IMPL_H

#include "machine/control.h"
#include "machine/manage.h"

#define SECOND UINT64_C(1000000000)

/* A call that waits for something. */
struct waiter {
	struct control_call *call; /* NULL: the slot is free */
	int32_t op;
	uint64_t since, deadline, number;
};

struct manager {
	struct machine *m;
	struct control *control;
	manage_stop_fn *stop;
	void *arg;
	bool ready, paused, pausing, draining, stopping;
	bool left, stays;  /* CONTROL_LEAVE, CONTROL_STAY */
	uint64_t ready_at; /* now_ns() */
	uint64_t began;	   /* CLOCK_BOOTTIME of the same moment */
	uint64_t active;   /* now_ns() of the last activity */
	uint64_t max_duration, idle_timeout;
	struct loop_timer tick, drain, patience;
	struct waiter waiters[CONTROL_CLIENTS_MAX];
	uint64_t pings, pongs;
	bool counting;		   /* host.usage is out */
	struct msg_host_used used; /* the last that came */
	bool has_used;
	uint32_t cpus;	    /* that the guest may run */
	uint32_t cpus_want; /* while a change is under way; else 0 */
	uint64_t memory;    /* bytes that the guest has */
	/*
	 * While a change is under way, else 0: what was asked for, of what, and how far it shall go
	 * now that this is known.
	 */
	uint64_t memory_asked, memory_from, memory_want;
};

/* A place for @call until @patience (ns) is over. */
struct waiter *manage_wait(struct manager *g, struct control_call *call, int32_t op,
			   uint64_t patience);
/* The call, for an answer; the place is free. */
struct control_call *manage_done(struct waiter *w);
/* After deadlines changed, or places became free. */
void manage_set_patience(struct manager *g);
/* Ask the agent for what its kernel says of memory: manage_used_memory() follows. */
int manage_ask_usage(struct manager *g);
/* The error for what a paused machine cannot do. */
int manage_is_paused(const struct manager *g, struct err *err);

/* ---- manage_resize.c ---- */

void manage_begin_cpus(struct manager *g, struct control_call *call, uint32_t n);
void manage_cpus_set(struct manager *g, const struct envelope *e);
void manage_begin_memory(struct manager *g, struct control_call *call, uint64_t n);
void manage_used_memory(struct manager *g);
/* A call's patience is over. */
void manage_cpus_stand(struct manager *g, struct waiter *w);
void manage_memory_stands(struct manager *g, struct waiter *w);

#endif
