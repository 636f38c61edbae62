/* SPDX-License-Identifier: Apache-2.0 */
#include "reaper.h"

#include <errno.h>
#include <stddef.h>
#include <sys/wait.h>

enum { BUCKETS = 64 };
static struct child *watched[BUCKETS];

void reaper_watch(struct child *c, pid_t pid, void (*exited)(struct child *c, int status))
{
	c->pid = pid;
	c->exited = exited;
	c->next = watched[pid % BUCKETS];
	watched[pid % BUCKETS] = c;
}

void reaper_forget(struct child *c)
{
	struct child **p = &watched[c->pid % BUCKETS];

	while (*p && *p != c)
		p = &(*p)->next;
	if (*p)
		*p = c->next;
	c->pid = 0;
}

int reaper_run(void)
{
	for (int i = 0; i < REAP_BUDGET; i++) {
		int status;
		pid_t pid = waitpid(-1, &status, WNOHANG);
		struct child *c;

		if (pid == 0)
			return 0;
		if (pid < 0)
			return -errno;
		for (c = watched[pid % BUCKETS]; c && c->pid != pid; c = c->next)
			;
		if (!c)
			continue;
		reaper_forget(c);
		c->exited(c, status);
	}
	return 1;
}
