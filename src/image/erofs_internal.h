/* SPDX-License-Identifier: Apache-2.0 */
/* What tree.c and erofs.c share. */
#ifndef IMAGE_EROFS_INTERNAL_H
#define IMAGE_EROFS_INTERNAL_H

#include "image/erofs.h"

#define EROFS_XATTR_HEADER 12u
/* Entry header, name, value, to a multiple of four. */
#define EROFS_XATTR_ENTRY_SIZE(x) ((4u + (x)->name_len + (x)->value_len + 3u) & ~3u)

struct arena_chunk;

struct erofs_tree {
	struct arena_chunk *chunks;
	uint8_t *arena;
	size_t arena_left;

	struct erofs_node **nodes; /* in order of birth; [0] is the root */
	size_t node_count, node_cap;

	struct erofs_dentry **table; /* open addressing, size a power of two */
	size_t table_size, table_used;
	uint64_t seed[4];
};

#endif
