/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Upper disks: the writable ext4 file system on top of an image.
 *
 * A disk is sparse and starts as a copy of a template, made once per size by mke2fs and kept in
 * the store's cache. Only the template's data blocks are copied (some 200 KiB for 8 GiB), or none
 * at all where the file system can share them. Throw-away disks have no journal: nobody mounts
 * them twice.
 */
#ifndef SANDBOX_UPPER_H
#define SANDBOX_UPPER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct store;

/* Its name in a sandbox's directory. */
#define UPPER_FILE "upper.ext4"

#define UPPER_SIZE_MIN ((uint64_t)16 << 20)
/* What ext4 with 4 KiB blocks and no 64bit feature can hold. */
#define UPPER_SIZE_MAX ((uint64_t)16 << 40)

/*
 * Create the file @name in directory @dirfd (it must not exist) as an empty file system of @size
 * bytes, rounded down to MiB. Nothing is left behind on failure.
 */
int upper_create(struct store *s, int dirfd, const char *name, uint64_t size, bool journal,
		 struct err *err);

#endif
