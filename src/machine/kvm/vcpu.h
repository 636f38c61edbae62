/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtual CPUs of a machine, one thread each.
 *
 * Theory of operation. All vCPUs of a machine want the same, `target`:
 *
 *	             resume                     a vCPU ends the machine,
 *	  PAUSED ◄──────────► RUNNING ────────► or vcpus_end() ──► ENDED ──► free
 *	             pause         └─ PAUSED goes to ENDED, too
 *
 * A thread that may run is in KVM_RUN or handles what made it return: accesses to ports and
 * devices, which are looked up on a bus and answered on the spot. A thread that may not run waits on
 * a condition variable. To bring a thread from KVM_RUN to that wait, `immediate_exit` of its shared
 * page is set and a signal sent: the signal ends a KVM_RUN that has begun, the flag one that has
 * not (api.rst, "immediate_exit"). The flag is set, and cleared, only with the lock held and in
 * keeping with `target`, so that no request is lost; and a thread leaves only by way of KVM_RUN
 * returning EINTR, because that is what completes the access it has just handled. A paused vCPU is
 * therefore between two instructions.
 *
 * What ends the machine (reset, triple fault, all CPUs halted for good, an error) is written down
 * once, stops the other vCPUs, and makes an eventfd readable. Nobody else is called.
 *
 * With interrupt controllers in the kernel a halted vCPU stays there, and one that halts with its
 * interrupts off tells nobody. Watching for it would wake healthy guests, so somebody has to ask:
 * vcpus_end_if_halted(), when a guest is late with what is expected of it.
 *
 * Threads: new, create, pause, resume, end_if_halted and free belong to one thread, which is none
 * of the vCPUs'. The other calls may come from any.
 */
#ifndef MACHINE_KVM_VCPU_H
#define MACHINE_KVM_VCPU_H

#include <stdint.h>

#include "base/err.h"
#include "machine/kvm/bus.h"
#include "machine/kvm/vm.h"

/* The kernel of ours has room for this many, and so has the MP table. */
#define VCPUS_MAX 64

struct vcpus;

enum vcpus_end_kind {
	VCPUS_NOT_ENDED,
	VCPUS_RESET,  /* the guest asked for it */
	VCPUS_PANIC,  /* the guest's kernel gave up, and asked for it */
	VCPUS_HALTED, /* no vCPU will ever run again */
	VCPUS_CRASH,  /* the guest stopped by a fault that nothing handles */
	VCPUS_ERROR,  /* KVM or the host failed */
};

struct vcpus_end {
	enum vcpus_end_kind kind;
	char why[384];
};

struct vcpus_params {
	struct kvm_vm *vm;
	const struct bus *ports, *mmio;
	/* On the caller's thread, for each vCPU in turn, before any runs. */
	int (*set_up)(void *arg, unsigned index, int vcpu_fd, struct err *err);
	void *arg;
};

/*
 * The threads of @n vCPUs that are to be, which confine themselves (jail.h) while the caller makes
 * the machine. Then the vCPUs, paused; what the params point to must outlive them.
 */
int vcpus_new(struct vcpus **ret, unsigned n, struct err *err);
int vcpus_create(struct vcpus *g, const struct vcpus_params *p, struct err *err);

/* Harmless when they are in that state or have ended. A pause returns when no vCPU runs. */
void vcpus_pause(struct vcpus *g);
void vcpus_resume(struct vcpus *g);

/* Those from the @n-th on do not run from now on, or until more are allowed. Any thread. */
void vcpus_allow(struct vcpus *g, unsigned n);
/* CPU time of their threads, in ns. */
uint64_t vcpus_time(const struct vcpus *g);

/* Make a vCPU return from the guest once, and go on. */
void vcpus_kick(struct vcpus *g, unsigned index);

/* End the machine; the first reason stands. Does not wait: for devices, on a vCPU's thread too. */
void vcpus_end(struct vcpus *g, enum vcpus_end_kind kind, const char *why);

/* Look, between a pause and a resume, whether no vCPU will ever run again; then that is the end. */
void vcpus_end_if_halted(struct vcpus *g);

/* Readable from the end on. */
int vcpus_end_fd(const struct vcpus *g);
/* The kind is VCPUS_NOT_ENDED until then. */
struct vcpus_end vcpus_get_end(struct vcpus *g);

unsigned vcpus_count(const struct vcpus *g);
/* For the state of a paused vCPU. Borrowed. */
int vcpus_fd(const struct vcpus *g, unsigned index);

/* End and join them, at any time. NULL is fine. Returns NULL. */
struct vcpus *vcpus_free(struct vcpus *g);

#endif
