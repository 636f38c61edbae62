/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Start a program as somebody else, somewhere else, and know exactly what failed.
 *
 * The child shares our memory until it has executed the program (as vfork does): no page tables
 * are copied, and it reports a failure by writing into the request. Meanwhile we stand still. It is
 * born in the workload's control group, because moving it there later costs an RCU grace period.
 */
#ifndef GUEST_SPAWN_H
#define GUEST_SPAWN_H

#include <stdbool.h>
#include <sys/types.h>

#include "users.h"
#include "wire/agent_msg.h"

struct spawn {
	/* in */
	const char *cmd, *cwd;
	char *const *argv, *const *envp;
	const char *path; /* where to look for a @cmd without a slash */
	struct user user;
	/* Limits are set in this order: the sandbox's, then the request's. We ourselves have none.
	 */
	const struct wire_list *sandbox_rlimits, *rlimits;
	int stdio[3]; /* for 0, 1 and 2; close-on-exec */
	bool tty;     /* stdio[0] becomes the controlling terminal */
	bool restricted;
	int cgroup_fd; /* -1: stay in ours */
	/* out, on failure */
	const char *stage;
	int error; /* errno */
	enum exec_fail kind;
	const char *detail; /* may be NULL */
};

/* The pid, or -errno with the reason in the request. */
pid_t spawn_run(struct spawn *s);

const char *errno_name(int error);

#endif
