/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is this host's KVM fit to run a sandbox?
 *
 * A /dev/kvm that opens may still be an emulator that interprets the guest's kernel a thousand
 * times slower than the processor would, and fails on instructions it does not know. So a tiny
 * guest runs a counting loop in ring 0, in 64-bit mode with paging on, and the processor time it
 * took is compared with that of the same loop outside. Under 3 ms where KVM is what it should be.
 */
#ifndef MACHINE_KVM_PROBE_H
#define MACHINE_KVM_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum kvm_verdict {
	KVM_GOOD,
	KVM_NO_MODULE,	       /* /dev/kvm does not exist, though the processor could */
	KVM_NO_VIRTUALISATION, /* the processor cannot, or the firmware has it off */
	KVM_NESTED_OFF,	       /* the host is a virtual machine that may not make others */
	KVM_NO_PERMISSION,
	KVM_TOO_OLD,
	KVM_EMULATING, /* it works, at the speed of an interpreter */
	KVM_FAILING,   /* opens, but no machine can be made or run */
};

struct kvm_probe {
	enum kvm_verdict verdict;
	bool cached;
	uint64_t guest_ns, native_ns; /* what the loop took; 0 when it was not run */
	struct err why;		      /* for people, with a hint; empty if KVM_GOOD */
};

/*
 * Find out. @cache (may be NULL) is a file that keeps the outcome of the loop for as long as the
 * host is up; whether /dev/kvm can be opened is looked at each time.
 */
void kvm_probe(const char *cache, struct kvm_probe *ret);

/* "good", "no-module", ...: for machines to read. */
const char *kvm_verdict_name(enum kvm_verdict v);

#endif
