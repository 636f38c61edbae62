/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An in-memory file tree, and EROFS metadata made from it.
 *
 * The tree knows nothing of OCI. A node is an inode; a dentry is a name of it. A node's blocks lie
 * outside of what is written here, in `device` units after the metadata; its last partial block
 * may be inlined after the inode and is fetched through a callback while writing.
 *
 * erofs_write() is deterministic: nodes are laid out in the order they were made, whatever the
 * hash table did. Dead nodes (no dentry leads to them) are left out.
 *
 * On disk: block 0 holds the superblock, inodes follow it directly, directory blocks and long
 * symbolic links after the last inode. All inodes are extended (64 bytes: 32-bit owners, time
 * stamps). Those with a tail never cross a block, as the kernel demands; they are packed best-fit
 * into a window of recent blocks, which lets the image be written front to back with bounded
 * memory and without seeking.
 *
 * Memory: an arena, freed as a whole. One thread.
 */
#ifndef IMAGE_EROFS_H
#define IMAGE_EROFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define EROFS_BLOCK	 4096u
#define EROFS_INODE_SIZE 64u
#define EROFS_NAME_MAX	 255u
/* i_xattr_icount is 16 bits of 4-byte units. */
#define EROFS_XATTR_SIZE_MAX ((65535u - 1) * 4 + 12)

struct erofs_xattr {
	uint8_t prefix; /* EROFS name index */
	uint8_t name_len;
	uint16_t value_len;
	const char *name; /* after the prefix, not terminated */
	const uint8_t *value;
};

/*
 * EROFS index of the prefix of @name, and where the rest starts. 0: a name EROFS cannot hold.
 */
uint8_t erofs_xattr_prefix(const char *name, size_t *ret_skip);
/* Bytes the attributes take after the inode, header included; 0 for none. */
size_t erofs_xattr_size(const struct erofs_xattr *x, size_t n);

struct erofs_dentry;

struct erofs_node {
	uint32_t mode; /* with the file type */
	uint32_t uid, gid;
	uint32_t rdev_major, rdev_minor;
	uint32_t mtime_ns;
	int64_t mtime;
	uint64_t size;	      /* of files and links */
	uint64_t block;	      /* of files: first block, counted from the end of the metadata */
	uint32_t tail_len;    /* of files: bytes inlined */
	uint32_t source;      /* of files with a tail: whose, for the callback */
	uint64_t tail_offset; /* of files with a tail: where, for the callback */
	const char *target;   /* of symbolic links */
	const struct erofs_xattr *xattrs; /* in the arena */
	uint32_t xattr_count;

	/* Kept by the tree. */
	uint32_t id;
	uint32_t nlink;
	uint32_t children; /* of directories */
	uint32_t depth;	   /* of directories; the root has 0 */
	struct erofs_dentry *first;
	struct erofs_node *parent;
	/* Kept by erofs_write(). */
	uint32_t xattr_size;
	uint64_t nid;
	uint64_t dir_size, dir_block;
	struct erofs_dentry **sorted;
};

struct erofs_dentry {
	struct erofs_dentry *next, *prev; /* in the directory */
	struct erofs_node *dir, *node;
	uint32_t tag; /* the caller's */
	uint32_t hash;
	uint16_t len;
	char name[];
};

struct erofs_tree;

/* A tree with an empty root directory, mode 0755, owned by 0:0, time stamp 0. */
int erofs_tree_new(struct erofs_tree **ret, struct err *err);
struct erofs_tree *erofs_tree_free(struct erofs_tree *t);
static inline void erofs_tree_free_fn(struct erofs_tree **t)
{
	erofs_tree_free(*t);
}
#define cleanup_tree __attribute__((cleanup(erofs_tree_free_fn)))

struct erofs_node *erofs_tree_root(struct erofs_tree *t);
/* Zeroed memory that lives as long as the tree; NULL when out of memory. */
void *erofs_tree_alloc(struct erofs_tree *t, size_t n);
struct erofs_node *erofs_node_new(struct erofs_tree *t, uint32_t mode);
/* Copies names and values into the arena; replaces what the node had. */
int erofs_node_set_xattrs(struct erofs_tree *t, struct erofs_node *n, const struct erofs_xattr *x,
			  size_t count);

struct erofs_dentry *erofs_lookup(struct erofs_tree *t, const struct erofs_node *dir,
				  const char *name, size_t len);
/* The name must be free. NULL when out of memory. */
struct erofs_dentry *erofs_link(struct erofs_tree *t, struct erofs_node *dir, const char *name,
				size_t len, struct erofs_node *node);
/* Take a name away; what hangs below goes with the last one. */
void erofs_unlink(struct erofs_tree *t, struct erofs_dentry *d);

/*
 * @n bytes of the tail of @node. Called once per node with a tail, in the order in which the nodes
 * were made.
 */
typedef int erofs_tail_fn(void *arg, const struct erofs_node *node, void *p, struct err *err);

struct erofs_options {
	uint8_t uuid[16];
	uint64_t build_time;
	uint64_t data_blocks; /* following the metadata on the device */
	erofs_tail_fn *tail;
	void *tail_arg;
};

struct erofs_result {
	uint64_t blocks; /* of metadata */
	uint64_t inodes;
};

/* Write the metadata to the start of @fd. A tree can be written once. */
int erofs_write(struct erofs_tree *t, int fd, const struct erofs_options *o,
		struct erofs_result *ret, struct err *err);

#endif
