/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest's CPUID instruction says: what KVM supports on this host, with a topology of our
 * own (one package of @n cores, one thread each), and nothing that would make a kernel calibrate,
 * probe or nest.
 */
#ifndef MACHINE_X86_CPUID_H
#define MACHINE_X86_CPUID_H

#include <stdint.h>

#include "base/err.h"

struct x86_cpuid;

/* Ask KVM on @dev. */
int x86_cpuid_new(struct x86_cpuid **ret, int dev, unsigned cpus, struct err *err);

/* Give it to vCPU @index. Belongs to one thread. */
int x86_cpuid_apply(struct x86_cpuid *c, unsigned index, int vcpu_fd, struct err *err);

/* The bits of a guest-physical address. */
unsigned x86_cpuid_address_bits(const struct x86_cpuid *c);

/* NULL is fine. Returns NULL. */
struct x86_cpuid *x86_cpuid_free(struct x86_cpuid *c);

#endif
