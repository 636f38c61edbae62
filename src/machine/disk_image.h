/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks in image files: opening, locking, stacking.
 *
 * A stack's top is what the guest writes to, unless the disk is read-only; everything below is only
 * read. An overlay (vm_image.overlay) is a qcow2 file of ours: an empty one is made into the
 * differences to what is below, and a note beside it ("PATH.base") says what that was, so that an
 * overlay is never put on a disk that has changed since.
 *
 * Formats are what the configuration says, never what a file looks like: a guest that could write
 * another format's header into its raw disk would otherwise choose what is opened next time.
 *
 * Locks are on open file descriptions (they go with the process) and on the bytes QEMU uses: who
 * writes keeps out everybody, who reads keeps out writers, QEMU's tools included.
 */
#ifndef MACHINE_DISK_IMAGE_H
#define MACHINE_DISK_IMAGE_H

#include "base/err.h"
#include "machine/vm_config.h"
#include "virtio/blk.h"

/* The disk made of d->images; it owns all descriptors. */
int disk_image_open(const struct vm_disk *d, struct blk_disk **ret, struct err *err);

/* What a file that holds all of @disk may grow to. */
uint64_t disk_image_file_max(const struct blk_disk *disk);

#endif
