/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/x86/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "machine/kvm/vm.h"

#define MSR_TSC_DEADLINE 0x6e0u

static int failed(int r, const char *verb, const char *what, struct err *err)
{
	return err_set(err, r, "KVM cannot %s %s: %s", verb, what, err_name(r));
}

/* ---- model-specific registers ---- */

struct msr_list {
	uint32_t n, index[X86_STATE_MSRS_MAX];
};
_Static_assert(offsetof(struct msr_list, index) == offsetof(struct kvm_msr_list, indices),
	       "struct kvm_msr_list");

struct one_msr {
	uint32_t n, pad;
	struct kvm_msr_entry entry;
};
_Static_assert(offsetof(struct one_msr, entry) == offsetof(struct kvm_msrs, entries),
	       "struct kvm_msrs");

static bool get_msr(int fd, uint32_t index, uint64_t *ret)
{
	struct one_msr m = {.n = 1, .entry.index = index};

	if (kvm_call(fd, KVM_GET_MSRS, &m) != 1)
		return false;
	*ret = m.entry.data;
	return true;
}

/*
 * One by one: KVM stops at the first that this vCPU has not, which its CPUID decides. The deadline
 * comes last, because it means something only once TSC and APIC are what they were.
 */
static int save_msrs(int dev, int fd, struct x86_vcpu_state *s, struct err *err)
{
	struct msr_list list = {.n = X86_STATE_MSRS_MAX};
	uint64_t deadline = 0, value;
	int r = kvm_call(dev, KVM_GET_MSR_INDEX_LIST, &list);

	if (r < 0)
		return failed(r, "list", "model-specific registers", err);
	for (uint32_t i = 0; i < list.n; i++) {
		if (list.index[i] == MSR_TSC_DEADLINE || !get_msr(fd, list.index[i], &value))
			continue;
		s->msrs[s->nmsrs++] = (struct kvm_msr_entry){.index = list.index[i], .data = value};
	}
	if (s->nmsrs < X86_STATE_MSRS_MAX && get_msr(fd, MSR_TSC_DEADLINE, &deadline))
		s->msrs[s->nmsrs++] =
			(struct kvm_msr_entry){.index = MSR_TSC_DEADLINE, .data = deadline};
	return 0;
}

static int restore_msrs(int fd, const struct x86_vcpu_state *s, struct err *err)
{
	for (uint32_t i = 0; i < s->nmsrs; i++) {
		struct one_msr m = {.n = 1, .entry = s->msrs[i]};
		uint64_t now;

		if (kvm_call(fd, KVM_SET_MSRS, &m) == 1)
			continue;
		/* Some only describe the processor: they must be the same, and need no writing. */
		if (get_msr(fd, m.entry.index, &now) && now == m.entry.data)
			continue;
		return err_set(err, ERR_UNSUPPORTED,
			       "this host cannot restore the processor: register %#x refuses %#llx",
			       m.entry.index, (unsigned long long)m.entry.data);
	}
	return 0;
}

/* ---- a vCPU ---- */

struct part {
	unsigned long request;
	void *p;
	const char *name;
};

static int call_all(int fd, const struct part *parts, size_t n, const char *verb, struct err *err)
{
	for (size_t i = 0; i < n; i++) {
		int r = kvm_call(fd, parts[i].request, parts[i].p);

		if (r < 0)
			return failed(r, verb, parts[i].name, err);
	}
	return 0;
}

int x86_vcpu_save(int dev, int vcpu_fd, bool irqchip, struct x86_vcpu_state *ret, struct err *err)
{
	struct x86_vcpu_state *s = ret;
	/* The first makes KVM act on an INIT or SIPI that has arrived; api.rst, KVM_GET_MP_STATE */
	const struct part parts[] = {
		{KVM_GET_MP_STATE, &s->mp, "multiprocessor state"},
		{KVM_GET_REGS, &s->regs, "registers"},
		{KVM_GET_SREGS, &s->sregs, "system registers"},
		{KVM_GET_XSAVE, s->xsave, "extended state"},
		{KVM_GET_XCRS, &s->xcrs, "extended control registers"},
		{KVM_GET_DEBUGREGS, &s->debug, "debug registers"},
		{KVM_GET_VCPU_EVENTS, &s->events, "pending events"},
	};
	const struct part lapic = {KVM_GET_LAPIC, &s->lapic, "the local APIC"};
	int r;

	memset(s, 0, sizeof(*s));
	s->version = X86_STATE_VERSION;
	s->has_lapic = irqchip;
	/* Without interrupt controllers in the kernel there is no such state. */
	r = call_all(vcpu_fd, parts + !irqchip, ARRAY_SIZE(parts) - !irqchip, "save", err);
	if (r == 0 && irqchip)
		r = call_all(vcpu_fd, &lapic, 1, "save", err);
	if (r < 0)
		return r;
	r = kvm_call(vcpu_fd, KVM_GET_TSC_KHZ, NULL);
	s->tsc_khz = r > 0 ? (uint32_t)r : 0;
	return save_msrs(dev, vcpu_fd, s, err);
}

static int restore_tsc_rate(int fd, uint32_t khz, struct err *err)
{
	int now = kvm_call(fd, KVM_GET_TSC_KHZ, NULL);

	if (!khz || (now > 0 && (uint32_t)now == khz) ||
	    kvm_call(fd, KVM_SET_TSC_KHZ, (void *)(uintptr_t)khz) >= 0)
		return 0;
	return err_set(err, ERR_UNSUPPORTED,
		       "this host's processor cannot count at the saved rate of %u kHz", khz);
}

int x86_vcpu_restore(int vcpu_fd, const struct x86_vcpu_state *s, struct err *err)
{
	/* KVM only reads them. */
	struct x86_vcpu_state *w = (struct x86_vcpu_state *)(uintptr_t)s;
	const struct part parts[] = {
		{KVM_SET_MP_STATE, &w->mp, "multiprocessor state"},
		{KVM_SET_REGS, &w->regs, "registers"},
		{KVM_SET_SREGS, &w->sregs, "system registers"},
		{KVM_SET_XCRS, &w->xcrs, "extended control registers"},
		{KVM_SET_XSAVE, w->xsave, "extended state"},
		{KVM_SET_DEBUGREGS, &w->debug, "debug registers"},
	};
	/* Timers start with the last of these. */
	const struct part lapic = {KVM_SET_LAPIC, &w->lapic, "the local APIC"};
	const struct part events = {KVM_SET_VCPU_EVENTS, &w->events, "pending events"};
	bool irqchip = s->has_lapic != 0;
	int r;

	if (s->version != X86_STATE_VERSION || s->nmsrs > X86_STATE_MSRS_MAX)
		return err_set(err, ERR_UNSUPPORTED, "vCPU state of version %u: this is %u",
			       s->version, X86_STATE_VERSION);
	r = restore_tsc_rate(vcpu_fd, s->tsc_khz, err);
	if (r == 0)
		r = call_all(vcpu_fd, parts + !irqchip, ARRAY_SIZE(parts) - !irqchip, "restore",
			     err);
	if (r == 0 && irqchip)
		r = call_all(vcpu_fd, &lapic, 1, "restore", err);
	if (r == 0)
		r = restore_msrs(vcpu_fd, s, err);
	if (r == 0)
		r = call_all(vcpu_fd, &events, 1, "restore", err);
	/* Tells the guest's watchdog that time stood still; refused when it has no such clock. */
	if (r == 0)
		(void)kvm_call(vcpu_fd, KVM_KVMCLOCK_CTRL, NULL);
	return r;
}

/* ---- the VM ---- */

int x86_vm_save(int vm_fd, bool irqchip, struct x86_vm_state *ret, struct err *err)
{
	int r;

	*ret = (struct x86_vm_state){.version = X86_STATE_VERSION};
	for (; irqchip && ret->nchips < X86_STATE_CHIPS; ret->nchips++) {
		ret->chips[ret->nchips].chip_id = ret->nchips;
		r = kvm_call(vm_fd, KVM_GET_IRQCHIP, &ret->chips[ret->nchips]);
		if (r < 0)
			return failed(r, "save", "interrupt controllers", err);
	}
	r = kvm_call(vm_fd, KVM_GET_CLOCK, &ret->clock);
	return r < 0 ? failed(r, "save", "the clock", err) : 0;
}

int x86_vm_restore(int vm_fd, const struct x86_vm_state *s, struct err *err)
{
	/* What else KVM_GET_CLOCK told was true of its host and moment. */
	struct kvm_clock_data clock = {.clock = s->clock.clock};
	int r;

	if (s->version != X86_STATE_VERSION || s->nchips > X86_STATE_CHIPS)
		return err_set(err, ERR_UNSUPPORTED, "machine state of version %u: this is %u",
			       s->version, X86_STATE_VERSION);
	for (uint32_t i = 0; i < s->nchips; i++) {
		struct kvm_irqchip chip = s->chips[i];

		r = kvm_call(vm_fd, KVM_SET_IRQCHIP, &chip);
		if (r < 0)
			return failed(r, "restore", "interrupt controllers", err);
	}
	r = kvm_call(vm_fd, KVM_SET_CLOCK, &clock);
	return r < 0 ? failed(r, "restore", "the clock", err) : 0;
}
