/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leaves are those of SDM volume 2A, CPUID, and of AMD's APM volume 3, appendix E; 0x400000xx are
 * KVM's own (Documentation/virt/kvm/x86/cpuid.rst).
 */
#include "machine/x86/cpuid.h"

#include <asm/kvm_para.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "machine/kvm/vm.h"

/* KVM's own limit (KVM_MAX_CPUID_ENTRIES). */
enum { ENTRIES_MAX = 256 };

#define LEAF_TIMING 0x40000010u
/* KVM's local APIC timer runs at 1 GHz. */
#define APIC_BUS_KHZ 1000000u

struct x86_cpuid {
	unsigned cpus, id_bits; /* an APIC id takes this many bits */
	bool shaped;
	uint32_t tsc_khz;
	struct kvm_cpuid2 *table; /* the last vCPU's */
};

#define BIT(n) (1u << (n))

static void set_bits(uint32_t *reg, unsigned low, unsigned n, uint32_t v)
{
	uint32_t mask = (n == 32 ? UINT32_MAX : BIT(n) - 1) << low;

	*reg = (*reg & ~mask) | (v << low & mask);
}

static struct kvm_cpuid_entry2 *find(const struct x86_cpuid *c, uint32_t leaf)
{
	for (uint32_t i = 0; i < c->table->nent; i++) {
		if (c->table->entries[i].function == leaf)
			return &c->table->entries[i];
	}
	return NULL;
}

/* Add leaf/index if it is missing and there is room; NULL if not. */
static struct kvm_cpuid_entry2 *need(struct x86_cpuid *c, uint32_t leaf, uint32_t index,
				     bool indexed)
{
	struct kvm_cpuid_entry2 *e;

	for (uint32_t i = 0; i < c->table->nent; i++) {
		e = &c->table->entries[i];
		if (e->function == leaf && (!indexed || e->index == index))
			return e;
	}
	if (c->table->nent == ENTRIES_MAX)
		return NULL;
	e = &c->table->entries[c->table->nent++];
	*e = (struct kvm_cpuid_entry2){
		.function = leaf,
		.index = index,
		.flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
	};
	return e;
}

static void drop(struct x86_cpuid *c, uint32_t leaf)
{
	struct kvm_cpuid_entry2 *e = c->table->entries;
	uint32_t kept = 0;

	for (uint32_t i = 0; i < c->table->nent; i++) {
		if (e[i].function != leaf)
			e[kept++] = e[i];
	}
	c->table->nent = kept;
}

/* ---- the same on every vCPU ---- */

static void shape_features(struct x86_cpuid *c)
{
	struct kvm_cpuid_entry2 *e = find(c, 1);

	if (e) {
		/* MONITOR, VMX (no nesting), PDCM */
		e->ecx &= ~(BIT(3) | BIT(5) | BIT(15));
		/* x2APIC, TSC deadline timer, hypervisor */
		e->ecx |= BIT(21) | BIT(24) | BIT(31);
		if (c->cpus > 1)
			e->edx |= BIT(28); /* more than one logical processor */
		else
			e->edx &= ~BIT(28);
		set_bits(&e->ebx, 16, 8, BIT(c->id_bits));
	}
	/* Power: only that the APIC timer never stops (ARAT). */
	e = need(c, 6, 0, false);
	if (e)
		*e = (struct kvm_cpuid_entry2){.function = 6, .eax = BIT(2)};
	/* No counters to profile with. */
	e = find(c, 0xa);
	if (e)
		e->eax = e->ebx = e->ecx = e->edx = 0;
	drop(c, 0x80000022);
	e = find(c, 0x80000001);
	if (e)
		e->ecx &= ~(BIT(2) | BIT(23) | BIT(24)); /* SVM, performance counters */
	drop(c, 0x8000000a);
	/* Kernels take the clock's rate from kvm-clock; this is for programs that ask. */
	e = find(c, KVM_CPUID_SIGNATURE);
	if (e && c->tsc_khz) {
		e->eax = MAX(e->eax, LEAF_TIMING);
		e = need(c, LEAF_TIMING, 0, false);
		if (e) {
			e->eax = c->tsc_khz;
			e->ebx = APIC_BUS_KHZ;
		}
	}
}

/* One package of cores, each a thread with caches of its own up to the last level. */
static void shape_caches(struct x86_cpuid *c)
{
	for (uint32_t i = 0; i < c->table->nent; i++) {
		struct kvm_cpuid_entry2 *e = &c->table->entries[i];

		if ((e->function != 4 && e->function != 0x8000001d) || !(e->eax & 0x1f))
			continue;
		set_bits(&e->eax, 14, 12, (e->eax >> 5 & 7) >= 3 ? c->cpus - 1 : 0);
		if (e->function == 4)
			set_bits(&e->eax, 26, 6, BIT(c->id_bits) - 1);
	}
}

static void shape_topology(struct x86_cpuid *c)
{
	struct kvm_cpuid_entry2 *e;

	drop(c, 0x1f);
	drop(c, 0x80000026);
	drop(c, 0xb);
	/* Level 0, threads of a core; level 1, cores of the package; level 2 ends the list. */
	for (uint32_t level = 0; level < 3; level++) {
		e = need(c, 0xb, level, true);
		if (!e)
			continue;
		e->eax = level == 1 ? c->id_bits : 0;
		e->ebx = level == 0 ? 1 : level == 1 ? c->cpus : 0;
		e->ecx = level | (level == 0 ? 1u << 8 : level == 1 ? 2u << 8 : 0);
	}
	e = find(c, 0x80000008);
	if (e) {
		set_bits(&e->ecx, 0, 8, c->cpus - 1);
		set_bits(&e->ecx, 12, 4, c->id_bits);
	}
}

/* ---- a vCPU's own ---- */

static void set_id(struct x86_cpuid *c, unsigned id)
{
	for (uint32_t i = 0; i < c->table->nent; i++) {
		struct kvm_cpuid_entry2 *e = &c->table->entries[i];

		switch (e->function) {
		case 1:
			set_bits(&e->ebx, 24, 8, id);
			break;
		case 0xb:
			e->edx = id;
			break;
		case 0x8000001e:
			e->eax = id;
			set_bits(&e->ebx, 0, 8, id); /* core */
			set_bits(&e->ebx, 8, 8, 0);  /* one thread each */
			e->ecx = 0;		     /* one node */
			break;
		}
	}
}

int x86_cpuid_apply(struct x86_cpuid *c, unsigned index, int vcpu_fd, struct err *err)
{
	int r;

	if (!c->shaped) {
		/* The rate is the host's for all; only a vCPU can be asked. */
		r = kvm_call(vcpu_fd, KVM_GET_TSC_KHZ, NULL);
		c->tsc_khz = r > 0 ? (uint32_t)r : 0;
		shape_features(c);
		shape_caches(c);
		shape_topology(c);
		c->shaped = true;
	}
	set_id(c, index);
	r = kvm_call(vcpu_fd, KVM_SET_CPUID2, c->table);
	return r < 0 ? err_set(err, r, "KVM refuses the CPUID of vCPU %u: %s", index, err_name(r))
		     : 0;
}

unsigned x86_cpuid_address_bits(const struct x86_cpuid *c)
{
	const struct kvm_cpuid_entry2 *e = find(c, 0x80000008);

	return e && (e->eax & 0xff) ? e->eax & 0xff : 36;
}

int x86_cpuid_new(struct x86_cpuid **ret, int dev, unsigned cpus, struct err *err)
{
	struct x86_cpuid *c = calloc(1, sizeof(*c));
	int r;

	if (c)
		c->table =
			calloc(1, sizeof(*c->table) + ENTRIES_MAX * sizeof(c->table->entries[0]));
	if (!c || !c->table) {
		x86_cpuid_free(c);
		return err_set(err, ENOMEM, "cannot shape CPUID: out of memory");
	}
	c->table->nent = ENTRIES_MAX;
	r = kvm_call(dev, KVM_GET_SUPPORTED_CPUID, c->table);
	if (r < 0) {
		x86_cpuid_free(c);
		return err_set(err, r, "KVM does not say what the CPU supports: %s", err_name(r));
	}
	c->cpus = cpus;
	while (BIT(c->id_bits) < cpus)
		c->id_bits++;
	*ret = c;
	return 0;
}

struct x86_cpuid *x86_cpuid_free(struct x86_cpuid *c)
{
	if (c)
		free(c->table);
	free(c);
	return NULL;
}
