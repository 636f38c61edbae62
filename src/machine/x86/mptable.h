/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intel MultiProcessor Specification 1.4: how a kernel without ACPI learns of CPUs and interrupts.
 */
#ifndef MACHINE_X86_MPTABLE_H
#define MACHINE_X86_MPTABLE_H

#include <stdint.h>

/* The table for the most a machine can have fits between X86_MPTABLE and its pointer. */
#define MPTABLE_CPUS_MAX  64
#define MPTABLE_LINES_MAX 120

/*
 * Write pointer and table for @cpus and an interrupt controller with @lines, of which the first is
 * connected to nothing, into @base, guest memory from 0 to X86_BASE_END.
 */
void x86_mptable_write(uint8_t *base, unsigned cpus, unsigned lines);

#endif
