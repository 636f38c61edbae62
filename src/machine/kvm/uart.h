/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A serial port (16550A) that only sends: where the guest's kernel prints.
 *
 * Lines go to a pipe. A vCPU never waits for its reader: what does not fit is dropped and counted,
 * and the count appears in the output as soon as there is room again. The transmitter is always
 * ready, so its interrupt follows at once when the guest asks for it; nothing is ever received.
 *
 * uart_read() and uart_write() may be called by any vCPU thread.
 */
#ifndef MACHINE_KVM_UART_H
#define MACHINE_KVM_UART_H

#include <stdint.h>

#include "base/err.h"

#define UART_PORTS 8

struct uart;

/* Make an interrupt, an edge. On a vCPU's thread, with a lock held: it must not call back. */
typedef void uart_interrupt_fn(void *arg);

/* @out is borrowed, and becomes non-blocking. */
int uart_new(struct uart **ret, int out, uart_interrupt_fn *interrupt, void *arg, struct err *err);

/* bus_read_fn and bus_write_fn of its registers. */
void uart_read(void *uart, uint64_t off, void *p, uint32_t len);
void uart_write(void *uart, uint64_t off, const void *p, uint32_t len);

/* Write out what is still held, and release it. NULL is fine. Returns NULL. */
struct uart *uart_free(struct uart *u);

#endif
