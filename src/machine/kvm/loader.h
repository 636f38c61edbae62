/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts a kernel's segments into guest memory.
 *
 * Segments that the kernel's file calls read-only (three quarters of ours: code and constants) are
 * mapped: all machines share the host's page cache, and a page takes memory of its own only where
 * the kernel patches it. The others are written to at once and copied, into large pages. Nothing
 * here trusts the file: what cannot be mapped is copied.
 */
#ifndef MACHINE_KVM_LOADER_H
#define MACHINE_KVM_LOADER_H

#include "base/err.h"
#include "machine/kernel_image.h"
#include "virtio/guest_memory.h"

/*
 * Load @kernel from @fd into @map, before KVM knows of the memory. -EFAULT if a segment lies
 * outside of the memory, -EIO if the file has become shorter. Afterwards the file must only be
 * replaced, never be changed.
 */
int loader_load(const struct kernel_image *kernel, int fd, const struct guest_memory *map,
		struct err *err);

#endif
