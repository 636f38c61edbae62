/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The jail: what msb-vm gives up before the guest's first instruction.
 *
 * Theory of operation. Whatever breaks out of the guest finds itself in a thread of msb-vm, or in
 * QEMU, its child. Both should have nothing there but what they already hold. The walls go up in
 * three calls, each as early as what comes after it allows:
 *
 *	jail_begin()  first thing, while the process has one thread
 *	  privileges    no_new_privs, no core dumps, limits, umask, an environment of two variables
 *	  namespaces    mount, ipc, uts, cgroup; a user namespace to get them where the caller has
 *	                no privileges; the bounding set of capabilities is emptied. The net
 *	                namespace, which takes longer than all others, is begun on a thread.
 *	                Still works: opening any file of the user's, starting threads.
 *	                No longer: SysV objects of others, gaining rights by exec.
 *	jail_close()  all files are open, all device threads exist, no engine yet
 *	  namespaces    net, empty, for each thread but the network's; pid, for children: QEMU is
 *	                the only process it can name
 *	  root          a read-only tmpfs holding the log directory (or the sandbox's, when it is
 *	                to be removed), the kernel file, and for QEMU /usr and the like, read-only.
 *	                The old root is gone, /proc with it.
 *	  landlock      the same places once more, with what may be done in each; no TCP, no signals
 *	                out. Where the root could not be changed, this is the wall around files.
 *	  capabilities  none left, none to be had
 *	  seccomp       for an engine in a child, and all until it runs: what no part of a machine
 *	                needs fails with EPERM. For device threads (jail_loop()): their own list.
 *	                Still works: an engine's start; kernel.log and its rotation; disk I/O.
 *	                No longer: opening files elsewhere, mounting, tracing, signals, new threads
 *	                and processes out of device threads.
 *	jail_seal()   the engine has started; one that can has the guest wait for this
 *	  seccomp       the control thread's list.
 *	                Still works: relay, QMP, vhost-user, rotation, killing QEMU through its
 *	                pidfd, removing the sandbox's directory.
 *	                No longer: exec, fork, threads, sockets other than pairs.
 *
 * Each thread that runs on behalf of the guest has a role, and each role a list of system calls
 * (roles.c). A call outside of it ends the process with SIGSYS.
 *
 * The network's thread (JAIL_NET) is the one that stays in the host's net namespace, where it may
 * make sockets of IPv4 and IPv6 and connect them; it has no file and cannot open one. Landlock
 * knows no TCP for all others.
 *
 * A wall that the host does not allow is left out and its step says why; the others still go up.
 * Only where a wall broke half-way is that an error, as the process is then of no use.
 *
 * With a sanitizer everything is left out: its runtime reads /proc and traces at exit.
 *
 * Threads: jail_thread() belongs to the thread it confines, everything else to the main thread.
 */
#ifndef MACHINE_JAIL_JAIL_H
#define MACHINE_JAIL_JAIL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"

enum jail_step {
	JAIL_PRIVILEGES,
	JAIL_NAMESPACES,
	JAIL_ROOT,
	JAIL_LANDLOCK,
	JAIL_CAPABILITIES,
	JAIL_SECCOMP,
	JAIL_STEPS,
};

enum jail_role {
	JAIL_CHILD,   /* children, QEMU that is: refuses what nobody needs */
	JAIL_DEVICE,  /* serves queues */
	JAIL_NET,     /* serves the network card: sockets to the world, and no files */
	JAIL_VCPU,    /* runs the guest */
	JAIL_CONTROL, /* the main loop: relay, console, transports, engine */
	JAIL_DIALER,  /* a child that connects to sockets of the host: see routes.h */
	JAIL_ROLES,
};

/* What the machine is, as far as it decides what stays in reach. Strings are borrowed. */
struct jail_params {
	bool on;
	const char *dir;    /* the sandbox's directory */
	bool remove_dir;    /* it may have to be removed */
	const char *kernel; /* named when the engine starts */
	const char *engine; /* "qemu", "kvm" */
};

struct jail {
	struct jail_params params;
	struct {
		bool held;
		char text[192]; /* what it consists of, or why it does not hold */
	} step[JAIL_STEPS];

	/* private */
	unsigned spaces;  /* CLONE_NEW* that are ours */
	unsigned missing; /* those that we could not have, the last of them because of... */
	int missing_why;
	pthread_t net_maker;
	bool net_making; /* that thread is to be joined */
	int net;	 /* the net namespace, until all threads are in; or -errno */
	bool bounded;	 /* the bounding set is empty */
	int ruleset;	 /* Landlock's, until jail_close() is through */
	int net_ruleset; /* the same for JAIL_NET: no files, but TCP */
	int dir_parent;	 /* a detached mount of what the sandbox's directory is in */
	bool rooted;	 /* the root is our own */
	pthread_t leaver;
	bool leaving;		      /* that thread is to be joined: it detaches the old root */
	int left;		      /* how that went */
	char qemu[512];		      /* absolute path of $MSB_QEMU, if it is one */
	struct jail_pending *pending; /* loops whose threads are being confined */
};

#define JAIL_INIT                                                                                  \
	{                                                                                          \
		.ruleset = -1, .net_ruleset = -1, .dir_parent = -1, .net = -1                      \
	}

/* Confine the process as far as goes before anything is opened. Call it with one thread only. */
void jail_begin(struct jail *j, const struct jail_params *params);

/* What an engine that is a child, and has no /proc, needs under a name. */
struct jail_files {
	int initramfs;	 /* a descriptor, read from its start */
	uint64_t memory; /* bytes of a file in memory to share with itself; 0: none */
};
struct jail_names {
	const char *initramfs, *memory; /* static; NULL: it has none */
};

/* Shut the process in. A file may grow to @file_max bytes. */
int jail_close(struct jail *j, const struct jail_files *files, uint64_t file_max,
	       struct jail_names *ret, struct err *err);

/*
 * Have the thread of @loop, which runs already, confine itself as @role, JAIL_DEVICE or JAIL_NET.
 * After jail_close(), once. It is confined once it does anything else that it is called for, all of
 * them after jail_wait(), before which no loop may be freed. -ENOMEM.
 */
int jail_loop(struct jail *j, struct loop *loop, enum jail_role role);
void jail_wait(struct jail *j);

/*
 * Confine the calling thread, one that an engine started after jail_close(): call it first thing.
 * Does nothing when the process has no jail. 0 or -errno.
 */
int jail_thread(enum jail_role role);

/* For that child, which was forked before all this. 0 or -errno. */
int jail_dialer(void);

/* Do system call filters hold, so that children can expect to be able to make their own? */
bool jail_filters(void);

/* The engine has started: wait for all that takes its time, then confine the main thread. */
int jail_seal(struct jail *j, struct err *err);

/* Remove the sandbox's directory and what is in it; works inside and outside of the jail. */
int jail_remove_dir(struct jail *j, struct err *err);

/* One line a step, "NAME: what holds" or "NAME: no: why". */
void jail_describe(const struct jail *j, struct buf *b);

/*
 * Go through all of it with nothing to protect, and append what jail_describe() says. The process
 * is good for little afterwards.
 */
int jail_try(const struct jail_params *params, struct buf *report, struct err *err);

const char *jail_step_name(enum jail_step step);

void jail_done(struct jail *j);

#endif
