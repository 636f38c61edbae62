/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One virtual machine: its devices, its console, its relay and the engine that runs it.
 *
 * Theory of operation. machine_new() turns a vm_config into open files and devices, and
 * machine_run() boots and stays in the loop until the machine has ended:
 *
 *	agent says ready ──► a report to the owner, clients are connected
 *	control.sock     ──► manage.h: pause, statistics, limits, ...
 *	SIGTERM          ──► core.shutdown, and force after STOP_GRACE, or later if it says so
 *	owner gone       ──► the engine is ended at once (when the machine is owned)
 *	engine ended     ──► clients get what is left for them, a second report, return
 *	no ready, or no end after a shutdown, for LATE ──► the engine looks whether the CPUs
 *	                     still live, and again after twice as long each time
 *	no ready in time ──► reported with the console's last words, the engine is ended
 *
 * Threads: the main loop runs the relay, the engine's control channels and the transports; each
 * device has workers of its own (virtio/device.h).
 */
#ifndef MACHINE_MACHINE_H
#define MACHINE_MACHINE_H

#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "machine/kernel_image.h"
#include "machine/vm_config.h"
#include "machine/x86/tsc.h"
#include "virtio/device.h"

/* Root, upper and room for volumes. */
#define MACHINE_DISKS_MAX 26
/* ...and vsock, network, random numbers, balloon, memory. */
#define MACHINE_DEVICES_MAX (MACHINE_DISKS_MAX + 5)
#define MACHINE_MARKS_MAX   24
/* The guest's vsock address; each machine has its own bus, so all can have the same. */
#define MACHINE_GUEST_CID 3

enum machine_end {
	MACHINE_RUNNING,
	MACHINE_SHUTDOWN, /* the guest switched itself off or reset, as its agent does */
	MACHINE_PANIC,	  /* the guest's kernel gave up */
	MACHINE_HALTED,	  /* no CPU of the guest will ever run again */
	MACHINE_CRASH,	  /* the engine failed or was killed */
	MACHINE_BOOT,	  /* the guest came up, but its agent could not */
	MACHINE_KILLED,	  /* we ended it */
};

struct machine_net;

struct machine {
	struct loop *loop;
	const struct vm_config *config;
	/* For the engine: */
	struct virtio_device *devices[MACHINE_DEVICES_MAX];
	unsigned ndevices;
	struct machine_net *net;   /* belongs to its device; NULL: there is none */
	struct virtio_device *mem; /* one of them: virtio/mem.h; may be NULL */
	struct tsc_moment began;   /* when we began: a long span from here measures best */
	struct kernel_image kernel;
	int initramfs;		    /* memory file */
	const char *initramfs_path; /* its name for children; NULL: /proc/self/fd has it */
	const char *memory_path;    /* the same of an empty file in memory (jail.h); may be NULL */
	int console;		    /* what the guest prints goes here; the engine takes it */
	const struct engine_ops *ops;
	struct engine *engine; /* NULL until it was started */
	struct relay *relay;
	char *cmdline; /* of the kernel, without the engine's own parts */

	/* When which part of the start was done; for the log. */
	struct {
		const char *what;
		uint64_t ns;
	} mark[MACHINE_MARKS_MAX];
	unsigned nmarks;
};

/* @what is done. Static text. */
static inline void machine_mark(struct machine *m, const char *what)
{
	if (m->nmarks == MACHINE_MARKS_MAX)
		return;
	m->mark[m->nmarks].what = what;
	m->mark[m->nmarks++].ns = now_ns();
}

struct machine_start {
	const struct vm_config *config;
	/* Owned from here on; parent_fd may be -1. */
	int startup_fd, parent_fd, agent_fd, control_fd;
};

/* Run a machine from boot to end. 0 when it ended as it was asked to, negative otherwise. */
int machine_run(const struct machine_start *start, struct err *err);

/* For engines: the machine is over. @why may be NULL. */
void machine_ended(struct machine *m, enum machine_end how, const char *why);
/* For engines: the guest has so much memory beyond what it booted with. */
void machine_memory(struct machine *m, uint64_t bytes);
/* For engines: the guest has stopped, or goes on. */
void machine_paused(struct machine *m, bool paused);

#endif
