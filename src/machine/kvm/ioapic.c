/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/kvm/ioapic.h"

#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* The registers in memory: the number of one, and its value. */
enum { SELECT = 0x00, WINDOW = 0x10 };
/* Their numbers; from TABLE on two for each line. */
enum { ID = 0, VERSION = 1, ARBITRATION = 2, TABLE = 0x10 };
enum { CHIP = 0x11, ID_SHIFT = 24, ID_BITS = 0x0f, LINES_SHIFT = 16 };

/* An entry of the table. */
enum {
	VECTOR = 0xff,
	VECTOR_MIN = 0x10, /* those below are the processor's own */
	MODE = 0x700,
	MODE_FIXED = 0x000,
	MODE_LOWEST = 0x100,
	LOGICAL = 0x800,
	MASKED = 0x10000,
	/* All but the delivery status and a level's acknowledgement, which are never set. */
	WRITABLE = 0x1ffff & ~0x1000 & ~0x4000,
	DEST_SHIFT = 24, /* in the upper half */
};

/* A message. */
#define MSI_BASE 0xfee00000u
enum { MSI_DEST_SHIFT = 12, MSI_LOGICAL = 4 };

struct ioapic {
	ioapic_send_fn *send;
	void *arg;
	unsigned lines;
	pthread_mutex_t lock; /* guards all below, and sending; innermost */
	uint8_t select, id;
	struct {
		uint32_t low, high;
	} entry[];
};

void ioapic_raise(struct ioapic *io, unsigned line)
{
	uint32_t low, dest;

	pthread_mutex_lock(&io->lock);
	low = io->entry[line].low;
	dest = io->entry[line].high >> DEST_SHIFT;
	if (!(low & MASKED) && (low & VECTOR) >= VECTOR_MIN &&
	    ((low & MODE) == MODE_FIXED || (low & MODE) == MODE_LOWEST))
		io->send(io->arg,
			 MSI_BASE | dest << MSI_DEST_SHIFT | (low & LOGICAL ? MSI_LOGICAL : 0),
			 low & (MODE | VECTOR));
	pthread_mutex_unlock(&io->lock);
}

/* The half of an entry that is selected, or NULL. */
static uint32_t *selected(struct ioapic *io)
{
	unsigned n = io->select - TABLE;

	if (io->select < TABLE || n / 2 >= io->lines)
		return NULL;
	return n % 2 ? &io->entry[n / 2].high : &io->entry[n / 2].low;
}

static uint32_t get(struct ioapic *io)
{
	const uint32_t *half = selected(io);

	switch (io->select) {
	case ID:
	case ARBITRATION:
		return (uint32_t)io->id << ID_SHIFT;
	case VERSION:
		return CHIP | (io->lines - 1) << LINES_SHIFT;
	default:
		return half ? *half : 0;
	}
}

static void set(struct ioapic *io, uint32_t v)
{
	uint32_t *half = selected(io);

	if (io->select == ID)
		io->id = v >> ID_SHIFT & ID_BITS;
	else if (half)
		*half = v & (io->select % 2 ? UINT32_MAX << DEST_SHIFT : WRITABLE);
}

/* Its registers are words; what is no whole one is nothing. */
void ioapic_read(void *ioapic, uint64_t off, void *p, uint32_t len)
{
	struct ioapic *io = ioapic;
	uint32_t v = 0;

	memset(p, 0, len);
	if (len != sizeof(v))
		return;
	pthread_mutex_lock(&io->lock);
	if (off == SELECT)
		v = io->select;
	else if (off == WINDOW)
		v = get(io);
	pthread_mutex_unlock(&io->lock);
	v = htole32(v);
	memcpy(p, &v, sizeof(v));
}

void ioapic_write(void *ioapic, uint64_t off, const void *p, uint32_t len)
{
	struct ioapic *io = ioapic;
	uint32_t v;

	if (len != sizeof(v))
		return;
	memcpy(&v, p, sizeof(v));
	v = le32toh(v);
	pthread_mutex_lock(&io->lock);
	if (off == SELECT)
		io->select = (uint8_t)v;
	else if (off == WINDOW)
		set(io, v);
	pthread_mutex_unlock(&io->lock);
}

int ioapic_new(struct ioapic **ret, unsigned lines, ioapic_send_fn *send, void *arg,
	       struct err *err)
{
	struct ioapic *io;

	if (lines < 1 || lines > IOAPIC_LINES_MAX)
		return err_set(err, ERR_LIMIT, "%u interrupt lines: there can be 1 to %d", lines,
			       IOAPIC_LINES_MAX);
	io = calloc(1, sizeof(*io) + lines * sizeof(io->entry[0]));
	if (!io)
		return err_set(err, ENOMEM, "cannot create an interrupt controller: out of memory");
	io->send = send;
	io->arg = arg;
	io->lines = lines;
	pthread_mutex_init(&io->lock, NULL);
	for (unsigned i = 0; i < lines; i++)
		io->entry[i].low = MASKED;
	*ret = io;
	return 0;
}

struct ioapic *ioapic_free(struct ioapic *io)
{
	if (!io)
		return NULL;
	pthread_mutex_destroy(&io->lock);
	free(io);
	return NULL;
}
