/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels of a few bytes, as files that the `kvm` engine boots: entered in 64-bit mode. */
#ifndef TESTS_KVM_TINY_KERNEL_H
#define TESTS_KVM_TINY_KERNEL_H

#include <elf.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "base/io.h"

#define TINY_KERNEL_AT 0x1000000u

/* An ELF file that is its headers, a PVH note, and @code. */
static inline int tiny_kernel_write(const char *path, const void *code, size_t n)
{
	struct {
		Elf64_Ehdr e;
		Elf64_Phdr load, note;
		Elf64_Nhdr n;
		char name[4];
		uint32_t entry;
		uint8_t code[256];
	} f = {
		.e =
			{
				.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64,
					    ELFDATA2LSB, EV_CURRENT},
				.e_type = ET_EXEC,
				.e_machine = EM_X86_64,
				.e_entry = TINY_KERNEL_AT,
				.e_phoff = sizeof(Elf64_Ehdr),
				.e_phentsize = sizeof(Elf64_Phdr),
				.e_phnum = 2,
			},
		.n = {.n_namesz = 4, .n_descsz = 4, .n_type = 18},
		.name = "Xen",
		.entry = TINY_KERNEL_AT,
	};

	if (n > sizeof(f.code))
		return -EINVAL;
	memcpy(f.code, code, n);
	f.load = (Elf64_Phdr){
		.p_type = PT_LOAD,
		.p_offset = (uint64_t)((char *)f.code - (char *)&f),
		.p_paddr = TINY_KERNEL_AT,
		.p_filesz = sizeof(f.code),
		.p_memsz = 4096,
	};
	f.note = (Elf64_Phdr){
		.p_type = PT_NOTE,
		.p_offset = (uint64_t)((char *)&f.n - (char *)&f),
		.p_filesz = sizeof(f.n) + 8,
	};
	return io_write_file_atomic(path, &f, sizeof(f), 0600, NULL);
}

#endif
