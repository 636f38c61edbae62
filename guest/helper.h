/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs that would hold up the loop (copying trees, asking DNS) run in a forked copy of ours,
 * which answers through a pipe.
 */
#ifndef GUEST_HELPER_H
#define GUEST_HELPER_H

#include <sys/types.h>

#include "base/loop.h"
#include "reaper.h"

enum { HELPER_ANSWER_MAX = 2048, HELPER_KEPT = 4 };

struct helper {
	struct loop_source src;
	struct child child;
	size_t len;
	char answer[HELPER_ANSWER_MAX];
	/* The job is over; its answer is in place. May free the owner. */
	void (*done)(struct helper *h);
};

/*
 * Fork. In the child @job(@arg, fd) runs and the process ends; it writes its answer to fd. All
 * other descriptors are closed there but @keep (-1: none), which is HELPER_KEPT.
 */
int helper_start(struct helper *h, struct loop *l, int keep, void (*job)(void *arg, int fd),
		 void *arg, void (*done)(struct helper *h));
/* Kill it if it still runs. A no-op on a zeroed one with src.fd == -1. */
void helper_stop(struct helper *h);
/* Let it go on by itself: nobody waits for its answer. */
void helper_leave(struct helper *h);

#endif
