/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Child processes: spawned with exactly the descriptors they are given, watched through a pidfd.
 */
#ifndef BASE_PROC_H
#define BASE_PROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"

struct proc_fd {
	int from; /* descriptor in this process */
	int to;	  /* its number in the child */
};

struct proc_spec {
	const char *path;	   /* absolute, or looked up in PATH */
	const char *const *argv;   /* NULL-terminated */
	const char *const *envp;   /* NULL: inherit */
	const struct proc_fd *fds; /* everything else is closed; 0-2 default to /dev/null */
	unsigned nfds;
	bool die_with_parent; /* SIGKILL when the thread that spawned it ends */
	bool new_session;     /* setsid(): out of reach of the terminal's signals */
};

struct proc {
	pid_t pid;
	int pidfd;
};

#define PROC_INIT                                                                                  \
	{                                                                                          \
		0, -1                                                                              \
	}
#define PROC_FDS_MAX 64

/* Start a child. A failing execve() is reported here, with its errno. */
int proc_spawn(struct proc *ret, const struct proc_spec *spec, struct err *err);

/*
 * Wait for the end; the exit code, or 128 + N after signal N. With @timeout_ms >= 0 -ETIMEDOUT
 * when it has not ended by then. Reaps and closes the pidfd.
 */
int proc_wait(struct proc *p, int timeout_ms);
int proc_kill(struct proc *p, int sig);
/*
 * Run a child to its end and append what it printed on stdout, at most @max bytes; more, or taking
 * longer than @timeout_ms, gets it killed. Its exit code, as with proc_wait(); -EMSGSIZE,
 * -ETIMEDOUT. @spec has no room for a descriptor 1.
 */
int proc_capture(const struct proc_spec *spec, size_t max, int timeout_ms, struct buf *out,
		 struct err *err);
/* SIGKILL, wait, close: harmless on one that never started. */
void proc_destroy(struct proc *p);

#endif
