/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Children: every one of ours has an entry here, and as PID 1 we reap everybody else's as well.
 * One thread.
 */
#ifndef GUEST_REAPER_H
#define GUEST_REAPER_H

#include <sys/types.h>

enum { REAP_BUDGET = 64 /* children per turn */ };

struct child {
	pid_t pid;				     /* 0 when not watched */
	void (*exited)(struct child *c, int status); /* no longer watched when called */
	struct child *next;
};

void reaper_watch(struct child *c, pid_t pid, void (*exited)(struct child *c, int status));
void reaper_forget(struct child *c);
/* Reap what has exited. 1: the budget is used up, call again. -ECHILD: there are no children. */
int reaper_run(void);

#endif
