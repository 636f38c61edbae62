/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of a machine's processors and of what KVM emulates for it, as plain data: taken while
 * the vCPUs are paused (kvm/vcpu.h), put into a new machine of the same shape. Memory and devices
 * are others' to keep.
 *
 * The structs hold KVM's own, whose layout is the kernel's ABI, and no pointers or descriptors, so
 * their bytes are the saved form. @version changes with them.
 */
#ifndef MACHINE_X86_STATE_H
#define MACHINE_X86_STATE_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define X86_STATE_VERSION 1u
/* KVM lists about 100, a quarter of them performance counters. */
#define X86_STATE_MSRS_MAX 384u

struct x86_vcpu_state {
	uint32_t version, nmsrs, tsc_khz, has_lapic;
	struct kvm_mp_state mp;
	uint32_t reserved;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	uint8_t xsave[4096]; /* struct kvm_xsave, which has no certain end */
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debug;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	struct kvm_msr_entry msrs[X86_STATE_MSRS_MAX];
};

/* PIC, PIC, IOAPIC */
#define X86_STATE_CHIPS 3u

struct x86_vm_state {
	uint32_t version, nchips; /* 0 chips: a machine without */
	struct kvm_clock_data clock;
	struct kvm_irqchip chips[X86_STATE_CHIPS];
};

/* @dev is /dev/kvm. The vCPU is paused; @irqchip says that the VM has interrupt controllers. */
int x86_vcpu_save(int dev, int vcpu_fd, bool irqchip, struct x86_vcpu_state *ret, struct err *err);
/*
 * Into a vCPU that has its CPUID and has not run, after x86_vm_restore(). -ERR_UNSUPPORTED for
 * another version or a host that cannot hold it.
 */
int x86_vcpu_restore(int vcpu_fd, const struct x86_vcpu_state *s, struct err *err);

int x86_vm_save(int vm_fd, bool irqchip, struct x86_vm_state *ret, struct err *err);
/* Into a VM whose vCPUs exist and have not run. The guest's clock goes on from where it was. */
int x86_vm_restore(int vm_fd, const struct x86_vm_state *s, struct err *err);

#endif
