/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2 images, versions 2 and 3, as disks.
 *
 * Read: all cluster sizes, compressed clusters (zlib, zstd), zero clusters, extended L2 entries,
 * images with internal snapshots (of which the present state is what one sees). Refused by name:
 * encryption, external data files, unknown incompatible features, images marked corrupt, and an
 * image that rests on another unless the caller brings that.
 *
 * Written: the same except extended L2 entries and images marked dirty. Snapshots stay intact.
 *
 * Everything in the file is hostile. Names in it are never followed: a caller who wants a backing
 * file opens it.
 */
#ifndef VIRTIO_QCOW2_H
#define VIRTIO_QCOW2_H

#include <stdbool.h>
#include <stdint.h>

#include "virtio/blk.h"

struct qcow2_options {
	bool read_only;
	/* Nothing of it outlives the machine: flushes are answered at once, no order is kept. */
	bool no_flush;
	/* What the image rests on; must be given exactly if the image names something. */
	struct blk_disk *backing;
};

/* Owns @fd (a regular file) and the backing disk from a successful return on. */
int qcow2_open(int fd, const struct qcow2_options *o, struct blk_disk **ret, struct err *err);

/*
 * Make @fd, an empty file, an image of @size bytes without contents of its own, resting on
 * @backing ("raw", "qcow2" or "vmdk" being its @format). For qcow2_open() the name only says that
 * there is one; other tools can follow it.
 */
int qcow2_create(int fd, uint64_t size, const char *backing, const char *format, struct err *err);

#endif
