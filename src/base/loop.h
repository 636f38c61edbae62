/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop: file descriptors, timers and deferred work of one thread.
 *
 * A loop and everything registered with it belong to one thread; the only call another thread may
 * make is loop_call() (and loop_wake()). Sources are embedded in their owners. A callback may add
 * and remove any source, its own included: an event already fetched for a removed source is not
 * delivered, because the epoll cookie is (slot, generation), never a pointer.
 *
 * Times are CLOCK_MONOTONIC nanoseconds.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "base/err.h"

struct loop;
struct loop_source;
struct loop_timer;

typedef void loop_io_fn(struct loop_source *s, uint32_t events);
typedef void loop_timer_fn(struct loop_timer *t);

struct loop_source {
	loop_io_fn *fn; /* set by the owner before loop_add() */
	int fd;		/* borrowed */
	/* private */
	struct loop *loop;
	uint32_t slot, events;
};

struct loop_timer {
	loop_timer_fn *fn; /* set by the owner */
	/* private */
	struct loop *loop;
	uint64_t deadline;
	unsigned heap_pos; /* 0 = not armed */
};

/* More descriptors than this in one thread is a leak: a network's flows at their most fit. */
#define LOOP_SOURCES_MAX (1 << 17)

int loop_new(struct loop **ret, struct err *err);
/* All sources must have been removed, or their owners be gone for good. NULL is fine. */
struct loop *loop_free(struct loop *l);

/* Watch s->fd for @events (EPOLLIN, EPOLLOUT, EPOLLET...). -errno on failure. */
int loop_add(struct loop *l, struct loop_source *s, uint32_t events);
/* Change the watched events; a no-op when nothing changes. */
void loop_mod(struct loop_source *s, uint32_t events);
/* The same, and with EPOLLET: what is the case already is said once more. */
void loop_again(struct loop_source *s, uint32_t events);
/* Stop watching; a no-op on a source that is not registered. Call before closing the fd. */
void loop_del(struct loop_source *s);
/* The same, and close its fd, of which there is no other copy; it becomes -1. */
void loop_close(struct loop_source *s);
static inline bool loop_source_active(const struct loop_source *s)
{
	return s->loop != NULL;
}

/* Arm (or move) a timer; -ENOMEM on failure. */
int loop_timer_at(struct loop *l, struct loop_timer *t, uint64_t deadline_ns);
int loop_timer_in(struct loop *l, struct loop_timer *t, uint64_t delay_ns);
void loop_timer_stop(struct loop_timer *t);
static inline bool loop_timer_armed(const struct loop_timer *t)
{
	return t->heap_pos != 0;
}

/* Run until loop_quit(); returns the value given there, or -errno. */
int loop_run(struct loop *l);
void loop_quit(struct loop *l, int result);
/* One turn: wait at most @timeout_ms (-1 = no limit) and dispatch. -errno on failure. */
int loop_turn(struct loop *l, int timeout_ms);

/*
 * Run @fn(@arg) on the loop's thread and wait until it has returned. Called on the loop's own
 * thread it simply calls. The loop must be running (or be run later). Never call it from two
 * loops into each other.
 */
void loop_call(struct loop *l, void (*fn)(void *arg), void *arg);

/*
 * The same in two halves, so that several threads can be at it at once: ask, and wait. What is
 * asked of a loop is done in order. The call belongs to the loop until loop_wait() has returned.
 */
struct loop_call {
	/* private */
	void (*fn)(void *arg);
	void *arg;
	bool done;
	struct loop_call *next;
};
void loop_post(struct loop *l, struct loop_call *c, void (*fn)(void *arg), void *arg);
void loop_wait(struct loop *l, struct loop_call *c);

uint64_t now_ns(void);

/* A thread that runs a loop. */
struct worker {
	struct loop *loop;
	pthread_t thread;
	bool started;
	/*
	 * Set by the owner: who wakes it goes on (SCHED_BATCH). Where there is a processor free that
	 * changes nothing; on a shared one, what is to be done gathers until the other one waits.
	 */
	bool batch;
	char name[16];
};

/*
 * @name is shown by ps and top (15 bytes). Signals are blocked in the thread. @w stays where it is
 * until worker_stop().
 */
int worker_start(struct worker *w, const char *name, struct err *err);
/* Quit the loop, join the thread, free the loop. Harmless on one that never started. */
void worker_stop(struct worker *w);

#endif
