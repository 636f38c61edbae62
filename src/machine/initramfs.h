/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's initramfs: the agent as /init and the boot message as /msb-boot, in the kernel's
 * "newc" cpio format (Documentation/driver-api/early-userspace/buffer-format.rst).
 */
#ifndef MACHINE_INITRAMFS_H
#define MACHINE_INITRAMFS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* An agent is under 200 KiB; anything near this is the wrong file. */
#define INITRAMFS_AGENT_MAX ((size_t)16 << 20)

/* Build it in a memory file: a descriptor, or negative. */
int initramfs_build(const char *agent_path, const uint8_t *boot, size_t boot_n, struct err *err);

#endif
