/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Put a Linux kernel into guest memory, ready to be entered: Documentation/arch/x86/boot.rst, the
 * 64-bit boot protocol, for an uncompressed ELF file. There is no firmware and no loader.
 */
#ifndef MACHINE_X86_BOOT_H
#define MACHINE_X86_BOOT_H

#include "base/err.h"
#include "machine/kernel_image.h"
#include "machine/kvm/ram.h"

struct x86_boot {
	const struct kernel_image *kernel;
	int kernel_fd, initramfs_fd; /* borrowed; regular files */
	const char *cmdline;
	unsigned cpus, lines;
};

/*
 * Fill @ram, before KVM knows of it. A vCPU then starts at kernel->entry with the zero page's
 * address in RSI (x86_enter_long_mode()). -ENOMEM when the memory is too small, -ENOEXEC for a
 * kernel that would lie where it cannot, -ERR_LIMIT when the command line is too long, -EIO when a
 * file is shorter than it was.
 */
int x86_boot_load(struct ram *ram, const struct x86_boot *b, struct err *err);

#endif
