/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From layers to the metadata of one image.
 *
 * The layers' indexes are applied in order to one tree, as the OCI image specification ("Applying
 * Changesets") says: a later entry replaces an earlier one, a directory keeps what it has, a
 * whiteout or opaque marker takes away what *lower* layers brought, wherever in its layer it
 * stands. Where an entry lies below a symbolic link, the link is followed within the tree, as
 * containerd and umoci do; nothing ever touches the host's file system. Parents that no layer
 * mentions appear as root:root 0755, time stamp 0.
 *
 * Contents stay where they are: only block numbers and tails are taken from a layer.
 */
#ifndef IMAGE_MERGE_H
#define IMAGE_MERGE_H

#include "image/layer.h"

/* As the kernel: more links than this in one path are a loop. */
#define MERGE_LINKS_MAX 40

struct merge_result {
	uint64_t meta_blocks, inodes;
	uint32_t crc; /* of the metadata */
};

/* @uuid identifies the file system. Writes to @fd from offset 0. */
int merge_layers(const struct store *s, const struct digest *diff_ids, size_t count,
		 const struct image_limits *l, const uint8_t uuid[16], int fd,
		 struct merge_result *ret, struct err *err);

/* The tree part alone, for tests: apply one open layer to @t as number @layer. */
int merge_apply(struct erofs_tree *t, struct layer_reader *r, uint32_t layer, uint64_t first_block,
		const struct image_limits *l, struct err *err);

#endif
