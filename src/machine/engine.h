/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What runs the CPUs.
 *
 * An engine takes a machine whose devices exist and boots it: `qemu` starts a QEMU and serves it
 * the devices over vhost-user, `kvm` runs the CPUs itself. The rest of msb-vm does not know
 * which one it is. All calls belong to the thread of the machine's loop; an engine reports the end
 * of the machine through machine_ended(), exactly once, from that loop.
 */
#ifndef MACHINE_ENGINE_H
#define MACHINE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct machine;
struct engine;

/* What a machine costs its host. */
struct engine_usage {
	uint64_t cpu_ns; /* of the threads that run the guest's CPUs */
	uint64_t memory; /* bytes that are behind the guest's memory */
};

struct engine_ops {
	const char *name;
	/* It brings devices for memory of its own: a balloon, and one for what comes later. */
	bool own_memory;
	/* Boot. On failure everything the engine had made is gone again. */
	int (*start)(struct engine **ret, struct machine *m, struct err *err);
	/* Let the guest go, which has run nothing yet. NULL: start() did. */
	void (*run)(struct engine *e);
	/* The guest's agent is ready: the boot is over. May be NULL. */
	void (*ready)(struct engine *e);
	/*
	 * The guest is late. Where it is because none of its CPUs will ever run again, which no
	 * engine is told, report that as its end. May be NULL.
	 */
	void (*late)(struct engine *e);
	/*
	 * Stop the guest between two instructions, or let it go on. machine_paused() is called when
	 * it has, perhaps in here. Nothing happens when it is so already.
	 */
	int (*pause)(struct engine *e, bool pause, struct err *err);
	void (*usage)(struct engine *e, struct engine_usage *ret);
	/*
	 * CPUs from the @n-th on do not run, whatever the guest does. NULL: what the guest switches
	 * off is off for as long as it wants.
	 */
	void (*allow_cpus)(struct engine *e, unsigned n);
	/*
	 * Ask the guest to have @bytes beyond what it booted with. Each step on the way there, and
	 * back from a wish of before, is told by machine_memory().
	 */
	int (*want_memory)(struct engine *e, uint64_t bytes, struct err *err);
	/*
	 * End it at once; harmless after the machine has ended. When it returns no guest runs and
	 * the devices are nobody's but the machine's.
	 */
	void (*stop)(struct engine *e);
	/* Release what is left once it is stopped: the guest's memory, which takes its time. */
	struct engine *(*free)(struct engine *e);
};

extern const struct engine_ops engine_kvm;
extern const struct engine_ops engine_qemu;

/* NULL when there is no such engine. */
const struct engine_ops *engine_find(const char *name);

#endif
