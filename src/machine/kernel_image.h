/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's kernel file: an uncompressed x86-64 ELF with a PVH entry point (Xen's
 * XEN_ELFNOTE_PHYS32_ENTRY note), which both engines boot without firmware.
 *
 * Reading one trusts nothing in it: every offset is checked against the file, counts are capped.
 */
#ifndef MACHINE_KERNEL_IMAGE_H
#define MACHINE_KERNEL_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* vmlinux has four or five loadable segments. */
#define KERNEL_SEGMENTS_MAX 16

struct kernel_segment {
	uint64_t paddr;	 /* guest-physical */
	uint64_t memory; /* bytes there, at least file_size; the rest is zero */
	uint64_t file_offset, file_size;
	bool writable;
};

struct kernel_image {
	uint64_t pvh_entry; /* 32-bit physical address */
	uint64_t entry;	    /* of the ELF header: the 64-bit entry, physical as Linux has it */
	uint64_t end;	    /* first physical byte after the highest segment */
	struct kernel_segment segments[KERNEL_SEGMENTS_MAX];
	unsigned nsegments;
};

/* Parse the headers of the file in @data; @size bytes. For callers that have it mapped. */
int kernel_image_parse(const void *data, size_t size, struct kernel_image *ret, struct err *err);

/* Map @path for the length of the call and parse it. */
int kernel_image_read(const char *path, struct kernel_image *ret, struct err *err);

#endif
