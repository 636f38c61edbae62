/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interrupt controller between the lines of devices and the CPUs: an I/O APIC (82093AA).
 *
 * KVM has one of its own. But an interrupt that a device's thread raises through that one waits for
 * a worker of the host's kernel, and each of its registers is there for 24 lines, which a boot
 * walks through. This one is asked where the interrupt arises, and what the guest wrote for the
 * line goes to KVM's local APICs as a message, at once.
 *
 * Lines are edges: one raised while it is masked is lost, as with the original, and what the guest
 * says of levels and polarity means nothing, as no line stays raised. Of delivery modes there are
 * the two that name a vector.
 *
 * Every function may be called by any thread.
 */
#ifndef MACHINE_KVM_IOAPIC_H
#define MACHINE_KVM_IOAPIC_H

#include <stdint.h>

#include "base/err.h"

/* Bytes of registers in the guest's memory, and what the numbers of registers have room for. */
#define IOAPIC_SIZE	 0x100
#define IOAPIC_LINES_MAX 120

struct ioapic;

/* Send the message @data to @address (Intel SDM 3, 11.11). It must not call back. */
typedef void ioapic_send_fn(void *arg, uint32_t address, uint32_t data);

/* All lines are masked. */
int ioapic_new(struct ioapic **ret, unsigned lines, ioapic_send_fn *send, void *arg,
	       struct err *err);

/* An edge on @line, which it has. */
void ioapic_raise(struct ioapic *io, unsigned line);

/* bus_read_fn and bus_write_fn of its registers. */
void ioapic_read(void *io, uint64_t off, void *p, uint32_t len);
void ioapic_write(void *io, uint64_t off, const void *p, uint32_t len);

/* NULL is fine. Returns NULL. */
struct ioapic *ioapic_free(struct ioapic *io);

#endif
