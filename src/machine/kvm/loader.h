/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies a kernel's segments into guest memory while something else is being done.
 *
 * Reading 14 MiB takes longer than all other steps of a start together. A thread begins at once,
 * and whoever finishes the loading lends a hand. Copying beats mapping the file: the kernel patches
 * most pages of its own code, and large pages save the guest thousands of faults.
 */
#ifndef MACHINE_KVM_LOADER_H
#define MACHINE_KVM_LOADER_H

#include "base/err.h"
#include "machine/kernel_image.h"
#include "virtio/guest_memory.h"

struct loader;

/*
 * Begin to copy @kernel from @fd into @map; all three are borrowed until the loader is gone.
 * -EFAULT if a segment lies outside of the memory.
 */
int loader_new(struct loader **ret, const struct kernel_image *kernel, int fd,
	       const struct guest_memory *map, struct err *err);

/* Return when all is there, or cannot be: -EIO if the file has become shorter. */
int loader_finish(struct loader *l, struct err *err);

/* Wait for the thread to end, soon, and release it. NULL is fine. Returns NULL. */
struct loader *loader_free(struct loader *l);

#endif
