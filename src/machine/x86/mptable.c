/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/x86/mptable.h"

#include <string.h>

#include "machine/x86/layout.h"

enum {
	ENTRY_PROCESSOR,
	ENTRY_BUS,
	ENTRY_IOAPIC,
	ENTRY_INTERRUPT,
	ENTRY_LOCAL_INTERRUPT,
};

enum { INT_VECTORED, INT_NMI, INT_SMI, INT_EXTINT };
enum { CPU_ENABLED = 1, CPU_BOOT = 2, IOAPIC_ENABLED = 1, APIC_VERSION = 0x14, ALL_APICS = 0xff };

struct pointer {
	char signature[4]; /* "_MP_" */
	uint32_t table;
	uint8_t paragraphs, revision, checksum, features[5];
} __attribute__((packed));

struct header {
	char signature[4]; /* "PCMP" */
	uint16_t length;
	uint8_t revision, checksum;
	char oem[8], product[12];
	uint32_t oem_table;
	uint16_t oem_size, entries;
	uint32_t lapic;
	uint16_t extended_length;
	uint8_t extended_checksum, reserved;
} __attribute__((packed));

struct processor {
	uint8_t type, apic, version, flags;
	uint32_t signature, features, reserved[2];
} __attribute__((packed));

struct bus_entry {
	uint8_t type, id;
	char name[6];
} __attribute__((packed));

struct ioapic {
	uint8_t type, id, version, flags;
	uint32_t address;
} __attribute__((packed));

struct interrupt {
	uint8_t type, kind;
	uint16_t flags; /* 0: as is usual for the bus, which for ISA is edge and active high */
	uint8_t bus, irq, apic, pin;
} __attribute__((packed));

_Static_assert(sizeof(struct pointer) == 16 && sizeof(struct header) == 44 &&
		       sizeof(struct processor) == 20 && sizeof(struct interrupt) == 8,
	       "MP specification 1.4, chapter 4");
_Static_assert(X86_MPTABLE + sizeof(struct header) + MPTABLE_CPUS_MAX * sizeof(struct processor) +
			       sizeof(struct bus_entry) + sizeof(struct ioapic) +
			       (MPTABLE_LINES_MAX + 2) * sizeof(struct interrupt) <=
		       X86_MPTABLE_POINTER,
	       "the MP table overlaps its pointer");

struct writer {
	uint8_t *p;
	uint16_t entries;
};

static void add(struct writer *w, const void *entry, size_t size)
{
	memcpy(w->p, entry, size);
	w->p += size;
	w->entries++;
}

static uint8_t checksum(const void *p, size_t n)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += ((const uint8_t *)p)[i];
	return (uint8_t)-sum;
}

static void add_interrupts(struct writer *w, uint8_t ioapic, unsigned lines)
{
	const struct interrupt extint = {ENTRY_LOCAL_INTERRUPT, INT_EXTINT, 0, 0, 0, ALL_APICS, 0};
	const struct interrupt nmi = {ENTRY_LOCAL_INTERRUPT, INT_NMI, 0, 0, 0, ALL_APICS, 1};

	/*
	 * All lines are called ISA ones, those above 15 as well: that is what makes them edges and
	 * gives each the number that virtio_mmio.device= states. Number 0 would be the PC's timer.
	 */
	for (unsigned i = 1; i < lines; i++) {
		const struct interrupt e = {ENTRY_INTERRUPT, INT_VECTORED, 0,	      0,
					    (uint8_t)i,	     ioapic,	   (uint8_t)i};

		add(w, &e, sizeof(e));
	}
	add(w, &extint, sizeof(extint));
	add(w, &nmi, sizeof(nmi));
}

void x86_mptable_write(uint8_t *base, unsigned cpus, unsigned lines)
{
	struct header h = {
		.signature = {'P', 'C', 'M', 'P'},
		.revision = 4,
		.oem = {'M', 'S', 'B', ' ', ' ', ' ', ' ', ' '},
		.product = {'M', 'I', 'C', 'R', 'O', 'V', 'M', ' ', ' ', ' ', ' ', ' '},
		.lapic = (uint32_t)X86_LAPIC,
	};
	struct pointer p = {
		.signature = {'_', 'M', 'P', '_'},
		.table = X86_MPTABLE,
		.paragraphs = 1,
		.revision = 4,
	};
	const struct bus_entry isa = {ENTRY_BUS, 0, {'I', 'S', 'A', ' ', ' ', ' '}};
	const struct ioapic ioapic = {
		.type = ENTRY_IOAPIC,
		.id = (uint8_t)cpus,
		.version = APIC_VERSION,
		.flags = IOAPIC_ENABLED,
		.address = (uint32_t)X86_IOAPIC,
	};
	struct writer w = {.p = base + X86_MPTABLE + sizeof(h)};

	for (unsigned i = 0; i < cpus; i++) {
		const struct processor cpu = {
			.type = ENTRY_PROCESSOR,
			.apic = (uint8_t)i,
			.version = APIC_VERSION,
			.flags = CPU_ENABLED | (i == 0 ? CPU_BOOT : 0),
			.signature = 0x600,
			.features = 0x201, /* FPU and APIC */
		};

		add(&w, &cpu, sizeof(cpu));
	}
	add(&w, &isa, sizeof(isa));
	add(&w, &ioapic, sizeof(ioapic));
	add_interrupts(&w, ioapic.id, lines);
	h.entries = w.entries;
	h.length = (uint16_t)(w.p - (base + X86_MPTABLE));
	memcpy(base + X86_MPTABLE, &h, sizeof(h));
	h.checksum = checksum(base + X86_MPTABLE, h.length);
	memcpy(base + X86_MPTABLE, &h, sizeof(h));
	p.checksum = checksum(&p, sizeof(p));
	memcpy(base + X86_MPTABLE_POINTER, &p, sizeof(p));
}
