/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where things are in the guest-physical address space of a PC that never had a BIOS.
 *
 * Below 1 MiB is what we leave for the kernel to find; the kernel goes to where it is linked
 * (16 MiB), the initramfs to the top of the memory below the hole.
 */
#ifndef MACHINE_X86_LAYOUT_H
#define MACHINE_X86_LAYOUT_H

enum {
	/*
	 * Where PC kernels tell the BIOS how to reset: a warm one is what ours asks for only after
	 * a panic (reboot=panic_warm).
	 */
	X86_RESET_FLAG = 0x472,
	X86_RESET_WARM = 0x1234,
	X86_GDT = 0x500,
	X86_ZERO_PAGE = 0x7000, /* struct boot_params */
	X86_SETUP_DATA = 0x8000,
	X86_PML4 = 0x9000,
	X86_PDPT = 0xa000,
	X86_PD = 0xb000,
	X86_STACK = 0xf000, /* grows down; the kernel has one of its own at once */
	X86_CMDLINE = 0x20000,

	/*
	 * MP table: the pointer in the last KiB of base memory, the second place where a kernel
	 * looks (the first is page 0, which Linux frees), the table in front of it.
	 */
	X86_MPTABLE = 0x9f000,
	X86_MPTABLE_POINTER = 0x9fc00,
	X86_BASE_END = 0xa0000,
	X86_HIGH_START = 0x100000,
};

/* Memory below 4 GiB ends here at the latest... */
#define X86_HOLE 0xc0000000ull
/* ...and here are the device windows, one page each... */
#define X86_MMIO	0xd0000000ull
#define X86_MMIO_STRIDE 0x1000ull
/* ...and the interrupt controllers, and what KVM needs on processors that cannot run real mode. */
#define X86_IOAPIC	 0xfec00000ull
#define X86_LAPIC	 0xfee00000ull
#define X86_IDENTITY_MAP 0xfffbc000ull
#define X86_TSS		 0xfffbd000ull

enum {
	X86_COM1 = 0x3f8,
	X86_COM1_IRQ = 4,
	X86_I8042 = 0x60,
};

#endif
