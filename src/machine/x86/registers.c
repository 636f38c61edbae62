/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/x86/registers.h"

#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "machine/kvm/vm.h"
#include "machine/x86/layout.h"

/* SDM volume 3A, 2.5 and 4.5; volume 4 for the registers. */
enum {
	CR0_PE = 1 << 0,
	CR0_ET = 1 << 4,
	CR4_PAE = 1 << 5,
	EFER_LME = 1 << 8,
	EFER_LMA = 1 << 10,
	RFLAGS_IF = 1 << 9,
	PAGE_PRESENT = 1 << 0,
	PAGE_WRITE = 1 << 1,
	PAGE_LARGE = 1 << 7,
	MSR_MISC_ENABLE = 0x1a0,
	MISC_FAST_STRINGS = 1 << 0,
	MSR_MTRR_DEF_TYPE = 0x2ff,
	MTRR_ENABLE_WRITE_BACK = 1 << 11 | 6,
};
#define CR0_PG 0x80000000ull

/* Selectors of the boot protocol: __BOOT_CS and __BOOT_DS. */
enum { SELECTOR_CODE = 0x10, SELECTOR_DATA = 0x18, SELECTOR_TSS = 0x20 };

void x86_write_tables(uint8_t *base)
{
	/* Base 0, limit 4 GiB; code is 64-bit (SDM volume 3A, 3.4.5). */
	const uint64_t gdt[] = {0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00008b000000ffff,
				0};
	const uint64_t pml4 = X86_PDPT | PAGE_PRESENT | PAGE_WRITE;
	const uint64_t pdpt = X86_PD | PAGE_PRESENT | PAGE_WRITE;

	memcpy(base + X86_GDT, gdt, sizeof(gdt));
	memcpy(base + X86_PML4, &pml4, sizeof(pml4));
	memcpy(base + X86_PDPT, &pdpt, sizeof(pdpt));
	for (uint64_t i = 0; i < 512; i++) {
		uint64_t pd = i << 21 | PAGE_PRESENT | PAGE_WRITE | PAGE_LARGE;

		memcpy(base + X86_PD + i * sizeof(pd), &pd, sizeof(pd));
	}
}

static void set_segments(struct kvm_sregs *s)
{
	const struct kvm_segment data = {
		.limit = UINT32_MAX,
		.selector = SELECTOR_DATA,
		.type = 3,
		.present = 1,
		.db = 1,
		.s = 1,
		.g = 1,
	};
	struct kvm_segment code = data;

	code.selector = SELECTOR_CODE;
	code.type = 11;
	code.db = 0;
	code.l = 1;
	s->cs = code;
	s->ds = s->es = s->fs = s->gs = s->ss = data;
	s->tr = (struct kvm_segment){
		.limit = 0xffff, .selector = SELECTOR_TSS, .type = 11, .present = 1};
	s->gdt.base = X86_GDT;
	s->gdt.limit = 6 * 8 - 1;
	s->idt.base = 0;
	s->idt.limit = 0;
}

int x86_enter_long_mode(int vcpu_fd, uint64_t entry, uint64_t rsi, struct err *err)
{
	struct kvm_regs regs = {
		.rflags = 2, /* the bit that is always one */
		.rip = entry,
		.rsi = rsi,
		.rsp = X86_STACK,
		.rbp = X86_STACK,
	};
	struct kvm_sregs s;
	int r = kvm_call(vcpu_fd, KVM_GET_SREGS, &s);

	if (r >= 0) {
		set_segments(&s);
		s.cr3 = X86_PML4;
		s.cr4 |= CR4_PAE;
		s.cr0 = CR0_PE | CR0_ET | CR0_PG;
		s.efer |= EFER_LME | EFER_LMA;
		r = kvm_call(vcpu_fd, KVM_SET_SREGS, &s);
	}
	if (r >= 0)
		r = kvm_call(vcpu_fd, KVM_SET_REGS, &regs);
	return r < 0 ? err_set(err, r, "KVM refuses the boot registers: %s", err_name(r)) : 0;
}

int x86_set_msrs(int vcpu_fd, struct err *err)
{
	static const struct kvm_msr_entry entries[] = {
		{.index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLE_WRITE_BACK},
		{.index = MSR_MISC_ENABLE, .data = MISC_FAST_STRINGS},
	};
	union {
		struct kvm_msrs m;
		char room[sizeof(struct kvm_msrs) + sizeof(entries)];
	} u = {.m.nmsrs = ARRAY_SIZE(entries)};
	int r;

	memcpy(u.m.entries, entries, sizeof(entries));
	r = kvm_call(vcpu_fd, KVM_SET_MSRS, &u);
	return r < 0 ? err_set(err, r, "KVM refuses model-specific registers: %s", err_name(r)) : 0;
}

bool x86_sleeps_for_good(int vcpu_fd)
{
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp;
	struct kvm_regs g;

	if (kvm_call(vcpu_fd, KVM_GET_MP_STATE, &mp) < 0)
		return false;
	if (mp.mp_state == KVM_MP_STATE_UNINITIALIZED || mp.mp_state == KVM_MP_STATE_INIT_RECEIVED)
		return true;
	return mp.mp_state == KVM_MP_STATE_HALTED && kvm_call(vcpu_fd, KVM_GET_REGS, &g) >= 0 &&
	       !(g.rflags & RFLAGS_IF) && kvm_call(vcpu_fd, KVM_GET_VCPU_EVENTS, &events) >= 0 &&
	       !events.nmi.pending && !events.nmi.injected;
}

void x86_describe(int vcpu_fd, char text[128])
{
	struct kvm_sregs s;
	struct kvm_regs g;

	if (kvm_call(vcpu_fd, KVM_GET_REGS, &g) < 0 || kvm_call(vcpu_fd, KVM_GET_SREGS, &s) < 0) {
		snprintf(text, 128, "registers unknown");
		return;
	}
	snprintf(text, 128, "rip %#llx rsp %#llx cr2 %#llx cr3 %#llx efer %#llx",
		 (unsigned long long)g.rip, (unsigned long long)g.rsp, (unsigned long long)s.cr2,
		 (unsigned long long)s.cr3, (unsigned long long)s.efer);
}
