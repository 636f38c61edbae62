/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile guest at the registers of the interrupt controller.
 *
 * The input's first byte is the number of lines; the rest is a program of 8-byte instructions:
 *	op u8 (low 2 bits), width u8, offset u16, value u32
 * ops: 0 write, 1 read, 2 select register @offset and write it, 3 raise line @offset.
 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "machine/kvm/ioapic.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Nothing but vectors that may be, to local APICs. */
static void on_send(void *arg, uint32_t address, uint32_t data)
{
	(void)arg;
	if ((address & ~0x000ff004u) != 0xfee00000 || (data & 0xff) < 16 || (data & ~0xffu) > 0x100)
		abort();
}

static void step(struct ioapic *io, unsigned lines, const uint8_t *p)
{
	static const uint32_t widths[] = {4, 4, 4, 4, 4, 1, 2, 8};
	uint32_t width = widths[p[1] % ARRAY_SIZE(widths)], reg;
	uint16_t offset;
	uint8_t b[8] = {0};

	memcpy(&offset, p + 2, 2);
	offset = le16toh(offset);
	memcpy(b, p + 4, 4);
	reg = htole32(offset);
	switch (p[0] & 3) {
	case 0:
		ioapic_write(io, MIN((uint32_t)offset % IOAPIC_SIZE, IOAPIC_SIZE - width), b,
			     width);
		return;
	case 1:
		ioapic_read(io, MIN((uint32_t)offset % IOAPIC_SIZE, IOAPIC_SIZE - width), b, width);
		return;
	case 2:
		ioapic_write(io, 0, &reg, 4);
		ioapic_write(io, 0x10, b, 4);
		return;
	default:
		ioapic_raise(io, offset % lines);
		return;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ioapic *io;
	unsigned lines;

	if (!size)
		return 0;
	lines = 1 + *data++ % IOAPIC_LINES_MAX;
	size--;
	if (ioapic_new(&io, lines, on_send, NULL, NULL) < 0)
		abort();
	for (; size >= 8; data += 8, size -= 8)
		step(io, lines, data);
	ioapic_free(io);
	return 0;
}
