/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/kvm/uart.h"

#include <errno.h>
#include <linux/serial_reg.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"

/* A write(2) for each line, or for this much of a longer one. */
enum { LINE = 256 };

struct uart {
	int out;
	uart_interrupt_fn *interrupt;
	void *arg;
	pthread_mutex_t lock; /* guards all below; innermost but for the interrupt */
	uint8_t ier, lcr, mcr, scr, dll, dlm;
	bool fifo, thr_interrupt;
	char line[LINE];
	size_t n;
	uint64_t lost;
};

/* ---- output ---- */

static void note_loss(struct uart *u)
{
	char note[64];
	int n = snprintf(note, sizeof(note), "\n[%llu bytes of console output lost]\n",
			 (unsigned long long)u->lost);

	if (write(u->out, note, (size_t)n) == n)
		u->lost = 0;
}

static void flush(struct uart *u)
{
	ssize_t w;

	if (!u->n)
		return;
	if (u->lost)
		note_loss(u);
	w = u->lost ? -1 : write(u->out, u->line, u->n);
	if (w < (ssize_t)u->n)
		u->lost += u->n - (w > 0 ? (size_t)w : 0);
	u->n = 0;
}

static void put(struct uart *u, uint8_t c)
{
	u->line[u->n++] = (char)c;
	if (c == '\n' || u->n == LINE)
		flush(u);
}

/* ---- registers ---- */

/* The transmitter just became empty, or its interrupt was just allowed. */
static void thr_empty(struct uart *u)
{
	if (!(u->ier & UART_IER_THRI))
		return;
	u->thr_interrupt = true;
	u->interrupt(u->arg);
}

static uint8_t interrupt_id(struct uart *u)
{
	uint8_t id = u->fifo ? 0xc0 : 0;

	if (!u->thr_interrupt)
		return id | UART_IIR_NO_INT;
	/* Telling the reason is what takes it back. */
	u->thr_interrupt = false;
	return id | UART_IIR_THRI;
}

static uint8_t modem_status(const struct uart *u)
{
	if (!(u->mcr & UART_MCR_LOOP))
		return UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS;
	/* The outputs come back as inputs. */
	return (u->mcr & UART_MCR_DTR ? UART_MSR_DSR : 0) |
	       (u->mcr & UART_MCR_RTS ? UART_MSR_CTS : 0) |
	       (u->mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0) |
	       (u->mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0);
}

static uint8_t get(struct uart *u, uint64_t off)
{
	bool dlab = u->lcr & UART_LCR_DLAB;

	switch (off) {
	case UART_RX:
		return dlab ? u->dll : 0;
	case UART_IER:
		return dlab ? u->dlm : u->ier;
	case UART_IIR:
		return interrupt_id(u);
	case UART_LCR:
		return u->lcr;
	case UART_MCR:
		return u->mcr;
	case UART_LSR:
		return UART_LSR_TEMT | UART_LSR_THRE;
	case UART_MSR:
		return modem_status(u);
	default:
		return u->scr;
	}
}

static void set(struct uart *u, uint64_t off, uint8_t v)
{
	bool dlab = u->lcr & UART_LCR_DLAB;

	switch (off) {
	case UART_TX:
		if (dlab) {
			u->dll = v;
		} else {
			if (!(u->mcr & UART_MCR_LOOP))
				put(u, v);
			thr_empty(u);
		}
		return;
	case UART_IER:
		if (dlab) {
			u->dlm = v;
		} else {
			bool on = (v & UART_IER_THRI) && !(u->ier & UART_IER_THRI);

			u->ier = v & 0x0f;
			if (on)
				thr_empty(u);
			else if (!(v & UART_IER_THRI))
				u->thr_interrupt = false;
		}
		return;
	case UART_FCR:
		u->fifo = v & UART_FCR_ENABLE_FIFO;
		return;
	case UART_LCR:
		u->lcr = v;
		return;
	case UART_MCR:
		u->mcr = v & 0x1f;
		return;
	case UART_SCR:
		u->scr = v;
		return;
	}
}

/* Its registers are bytes; a wider access reaches several, as on the ISA bus. */
void uart_read(void *uart, uint64_t off, void *p, uint32_t len)
{
	struct uart *u = uart;

	pthread_mutex_lock(&u->lock);
	for (uint32_t i = 0; i < len; i++)
		((uint8_t *)p)[i] = get(u, off + i);
	pthread_mutex_unlock(&u->lock);
}

void uart_write(void *uart, uint64_t off, const void *p, uint32_t len)
{
	struct uart *u = uart;

	pthread_mutex_lock(&u->lock);
	for (uint32_t i = 0; i < len; i++)
		set(u, off + i, ((const uint8_t *)p)[i]);
	pthread_mutex_unlock(&u->lock);
}

int uart_new(struct uart **ret, int out, uart_interrupt_fn *interrupt, void *arg, struct err *err)
{
	struct uart *u = calloc(1, sizeof(*u));
	int r;

	if (!u)
		return err_set(err, ENOMEM, "cannot create the serial port: out of memory");
	r = io_set_nonblock(out, true);
	if (r < 0) {
		free(u);
		return err_set(err, r, "cannot write to the console: %s", err_name(r));
	}
	u->out = out;
	u->interrupt = interrupt;
	u->arg = arg;
	pthread_mutex_init(&u->lock, NULL);
	*ret = u;
	return 0;
}

struct uart *uart_free(struct uart *u)
{
	if (!u)
		return NULL;
	flush(u);
	pthread_mutex_destroy(&u->lock);
	free(u);
	return NULL;
}
