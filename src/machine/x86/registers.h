/* SPDX-License-Identifier: Apache-2.0 */
/* A vCPU's registers at the start, and what they say when it stopped. */
#ifndef MACHINE_X86_REGISTERS_H
#define MACHINE_X86_REGISTERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/*
 * Write page tables (the first GiB, identical) and descriptor table into @base, guest memory from 0
 * on: what x86_enter_long_mode() relies on.
 */
void x86_write_tables(uint8_t *base);

/*
 * Put a vCPU into 64-bit mode with paging on, interrupts off, at @entry with @rsi, as Linux'
 * 64-bit boot protocol asks for (Documentation/arch/x86/boot.rst).
 */
int x86_enter_long_mode(int vcpu_fd, uint64_t entry, uint64_t rsi, struct err *err);

/* Model-specific registers that firmware would have set. */
int x86_set_msrs(int vcpu_fd, struct err *err);

/*
 * Whether a paused vCPU will not run again unless another one wakes it: halted with interrupts off,
 * or never started.
 */
bool x86_sleeps_for_good(int vcpu_fd);

/* Where a vCPU that does not run stands, in words. */
void x86_describe(int vcpu_fd, char text[128]);

#endif
