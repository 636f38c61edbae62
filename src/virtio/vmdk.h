/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMDK disks made of flat extents: a descriptor (text) and files that hold the disk as it is.
 *
 * The descriptor is a stranger's. It may name files only by a bare name, which is looked up in the
 * directory that the caller has opened, and links are not followed. Sparse, compressed and
 * differencing disks are refused by name.
 */
#ifndef VIRTIO_VMDK_H
#define VIRTIO_VMDK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "virtio/blk.h"

/* Descriptors have some hundred bytes, and 50 more an extent. */
#define VMDK_DESCRIPTOR_MAX 65536u
/* In files of 2 GiB, 1 TiB. */
#define VMDK_EXTENTS_MAX 512u
#define VMDK_NAME_MAX	 255u

struct vmdk_extent {
	uint64_t sectors;
	char file[VMDK_NAME_MAX + 1]; /* "": zeros */
	uint64_t offset;	      /* bytes in the file */
	bool read_only;
};

struct vmdk {
	struct vmdk_extent *extents; /* free() it */
	size_t n;
	uint64_t sectors; /* of all */
};

int vmdk_parse(const void *text, size_t len, struct vmdk *ret, struct err *err);

typedef int vmdk_lock_fn(void *arg, int fd, bool exclusive, struct err *err);

/*
 * The disk that the descriptor in @fd (borrowed) describes; extents are opened in @dirfd. @lock is
 * called for each of them and may refuse.
 */
int vmdk_open(int fd, int dirfd, bool read_only, vmdk_lock_fn *lock, void *arg,
	      struct blk_disk **ret, struct err *err);

#endif
