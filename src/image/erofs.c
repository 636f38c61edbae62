/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing EROFS. Field names and values are those of the kernel's fs/erofs/erofs_fs.h; only what
 * Linux 5.4 already knew is used: extended inodes, plain and tail-inlined data, inline xattrs.
 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "image/crc32c.h"
#include "image/digest.h"
#include "image/erofs_internal.h"

#define EROFS_MAGIC	       0xe0f5e1e2u
#define EROFS_SUPER_OFFSET     1024u
#define EROFS_BLOCK_BITS       12
#define EROFS_COMPAT_SB_CHKSUM 1u
#define EROFS_COMPAT_MTIME     2u
#define EROFS_INODE_EXTENDED   1u
#define EROFS_LAYOUT_PLAIN     0u
#define EROFS_LAYOUT_INLINE    2u
#define EROFS_SLOT	       32u /* an inode number counts these */

/* Recent blocks that may still take an inode; and how many are kept before they are written. */
#define PACK_WINDOW 64u
#define WRITE_RING  256u
_Static_assert(PACK_WINDOW + EROFS_XATTR_SIZE_MAX / EROFS_BLOCK + 2 < WRITE_RING,
	       "the largest inode fits the ring behind the packing window");

struct erofs_super {
	uint32_t magic, checksum, feature_compat;
	uint8_t blkszbits, sb_extslots;
	uint16_t root_nid;
	uint64_t inos, build_time;
	uint32_t build_time_nsec, blocks, meta_blkaddr, xattr_blkaddr;
	uint8_t uuid[16], volume_name[16];
	uint32_t feature_incompat;
	uint16_t available_compr_algs, extra_devices, devt_slotoff;
	uint8_t reserved[38];
};
_Static_assert(sizeof(struct erofs_super) == 128, "EROFS superblock layout");

struct erofs_inode {
	uint16_t i_format, i_xattr_icount, i_mode, i_reserved;
	uint64_t i_size;
	uint32_t i_u; /* raw_blkaddr or rdev */
	uint32_t i_ino, i_uid, i_gid;
	uint64_t i_mtime;
	uint32_t i_mtime_nsec, i_nlink;
	uint8_t i_reserved2[16];
};
_Static_assert(sizeof(struct erofs_inode) == EROFS_INODE_SIZE, "EROFS inode layout");

struct erofs_dirent {
	uint64_t nid;
	uint16_t nameoff;
	uint8_t file_type, reserved;
} __attribute__((packed));
_Static_assert(sizeof(struct erofs_dirent) == 12, "EROFS directory entry layout");

struct writer {
	struct erofs_tree *tree;
	const struct erofs_options *o;
	int fd;
	uint64_t inodes, inode_blocks, meta_blocks;
	/* Layout: free bytes at the end of block `first + i`, for the last blocks. */
	uint32_t room[PACK_WINDOW];
	uint64_t first, frontier;
	/* Emission: blocks [base, base + WRITE_RING). */
	uint8_t *ring;
	uint64_t base, top;
};

static uint8_t dirent_type(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return 1;
	case S_IFDIR:
		return 2;
	case S_IFCHR:
		return 3;
	case S_IFBLK:
		return 4;
	case S_IFIFO:
		return 5;
	case S_IFSOCK:
		return 6;
	case S_IFLNK:
		return 7;
	default:
		return 0;
	}
}

static int by_name(const void *a, const void *b)
{
	const struct erofs_dentry *x = *(struct erofs_dentry *const *)a;
	const struct erofs_dentry *y = *(struct erofs_dentry *const *)b;
	int r = memcmp(x->name, y->name, MIN(x->len, y->len));

	return r ? r : (int)x->len - (int)y->len;
}

static struct erofs_dentry *dot_entry(struct erofs_tree *t, unsigned dots, struct erofs_node *node)
{
	struct erofs_dentry *d = erofs_tree_alloc(t, sizeof(*d) + dots + 1);

	if (!d)
		return NULL;
	memset(d->name, '.', dots);
	d->len = (uint16_t)dots;
	d->node = node;
	return d;
}

/* Sort the names of a directory, "." and ".." among them, and compute its size. */
static int dir_prepare(struct erofs_tree *t, struct erofs_node *dir)
{
	const size_t n = dir->children + 2;
	struct erofs_dentry **v = erofs_tree_alloc(t, n * sizeof(struct erofs_dentry *));
	size_t i = 2, used = 0;

	if (!v)
		return -ENOMEM;
	v[0] = dot_entry(t, 1, dir);
	v[1] = dot_entry(t, 2, dir->parent ? dir->parent : dir);
	if (!v[0] || !v[1])
		return -ENOMEM;
	for (struct erofs_dentry *d = dir->first; d; d = d->next)
		v[i++] = d;
	qsort(v, n, sizeof(struct erofs_dentry *), by_name);
	dir->sorted = v;
	dir->dir_size = 0;
	for (i = 0; i < n; i++) {
		size_t need = sizeof(struct erofs_dirent) + v[i]->len;

		if (used + need > EROFS_BLOCK) {
			dir->dir_size += EROFS_BLOCK;
			used = 0;
		}
		used += need;
	}
	dir->dir_size += used;
	return 0;
}

/* Count links and reach every living directory, breadth first: depth is the caller's affair. */
static int tree_prepare(struct writer *w, struct err *err)
{
	struct erofs_tree *t = w->tree;
	cleanup_free struct erofs_node **queue =
		malloc(t->node_count * sizeof(struct erofs_node *));
	size_t head = 0, tail = 0;

	if (!queue)
		return err_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < t->node_count; i++)
		t->nodes[i]->nlink = 0;
	queue[tail++] = t->nodes[0];
	t->nodes[0]->nlink = 2;
	t->nodes[0]->parent = NULL;
	while (head < tail) {
		struct erofs_node *dir = queue[head++];

		if (dir_prepare(t, dir) < 0)
			return err_set(err, ENOMEM, "out of memory");
		for (struct erofs_dentry *d = dir->first; d; d = d->next) {
			if (S_ISDIR(d->node->mode)) {
				if (d->node->nlink)
					return err_set(err, EINVAL, "a directory has two names");
				d->node->nlink = 2;
				dir->nlink++;
				queue[tail++] = d->node;
			} else {
				d->node->nlink++;
			}
		}
	}
	return 0;
}

static uint64_t node_size(const struct erofs_node *n)
{
	if (S_ISDIR(n->mode))
		return n->dir_size;
	return S_ISREG(n->mode) || S_ISLNK(n->mode) ? n->size : 0;
}

/* Bytes after inode and attributes. */
static uint32_t node_inline(const struct erofs_node *n)
{
	uint32_t tail;

	if (S_ISREG(n->mode))
		return n->tail_len;
	tail = (uint32_t)(node_size(n) % EROFS_BLOCK);
	return EROFS_INODE_SIZE + n->xattr_size + tail <= EROFS_BLOCK ? tail : 0;
}

/* Blocks in the metadata: of directories and of links too long to be inlined. */
static uint64_t node_meta_blocks(const struct erofs_node *n)
{
	if (!S_ISDIR(n->mode) && !S_ISLNK(n->mode))
		return 0;
	return (node_size(n) - node_inline(n) + EROFS_BLOCK - 1) / EROFS_BLOCK;
}

static void window_push(struct writer *w, uint32_t room)
{
	w->room[w->frontier % PACK_WINDOW] = room;
	w->frontier++;
	if (w->frontier - w->first > PACK_WINDOW)
		w->first = w->frontier - PACK_WINDOW;
}

/* Where an inode of @need bytes goes. */
static uint64_t place(struct writer *w, size_t need)
{
	uint64_t best = UINT64_MAX, at;
	uint32_t best_room = UINT32_MAX;

	need = (need + EROFS_SLOT - 1) & ~(size_t)(EROFS_SLOT - 1);
	if (need > EROFS_BLOCK) {
		at = w->frontier * EROFS_BLOCK;
		for (; need > EROFS_BLOCK; need -= EROFS_BLOCK)
			window_push(w, 0);
		window_push(w, EROFS_BLOCK - (uint32_t)need);
		return at;
	}
	for (uint64_t b = w->first; b < w->frontier; b++) {
		uint32_t room = w->room[b % PACK_WINDOW];

		if (room >= need && room < best_room) {
			best = b;
			best_room = room;
		}
	}
	if (best == UINT64_MAX) {
		best = w->frontier;
		window_push(w, EROFS_BLOCK);
	}
	at = best * EROFS_BLOCK + EROFS_BLOCK - w->room[best % PACK_WINDOW];
	w->room[best % PACK_WINDOW] -= (uint32_t)need;
	return at;
}

static int layout(struct writer *w, struct err *err)
{
	struct erofs_tree *t = w->tree;
	uint64_t next;

	window_push(w, EROFS_BLOCK - EROFS_SUPER_OFFSET - (uint32_t)sizeof(struct erofs_super));
	for (size_t i = 0; i < t->node_count; i++) {
		struct erofs_node *n = t->nodes[i];

		if (!n->nlink)
			continue;
		w->inodes++;
		n->xattr_size = (uint32_t)erofs_xattr_size(n->xattrs, n->xattr_count);
		if (S_ISREG(n->mode) && n->tail_len &&
		    (EROFS_INODE_SIZE + n->xattr_size + n->tail_len > EROFS_BLOCK ||
		     n->tail_len != n->size % EROFS_BLOCK))
			return err_set(err, EINVAL, "a tail of %u bytes cannot be inlined",
				       n->tail_len);
		n->nid = place(w, EROFS_INODE_SIZE + n->xattr_size + node_inline(n)) / EROFS_SLOT;
	}
	w->inode_blocks = w->frontier;
	next = w->frontier;
	for (size_t i = 0; i < t->node_count; i++) {
		struct erofs_node *n = t->nodes[i];

		if (!n->nlink)
			continue;
		n->dir_block = next;
		next += node_meta_blocks(n);
	}
	w->meta_blocks = next;
	if (next + w->o->data_blocks > UINT32_MAX)
		return err_set(err, ERR_LIMIT, "the image is larger than EROFS can address");
	return 0;
}

static int write_all(int fd, const uint8_t *p, size_t n, uint64_t at, struct err *err)
{
	int r = io_pwrite_full(fd, p, n, at);

	return r < 0 ? err_set(err, r, "cannot write the image: %s", err_name(-r)) : 0;
}

/* Write blocks [base, until) and make room for later ones. */
static int ring_flush(struct writer *w, uint64_t until, struct err *err)
{
	while (w->base < until) {
		const uint64_t slot = w->base % WRITE_RING;
		const uint64_t n = MIN(until - w->base, WRITE_RING - slot);
		uint8_t *p = w->ring + slot * EROFS_BLOCK;
		int r = write_all(w->fd, p, n * EROFS_BLOCK, w->base * EROFS_BLOCK, err);

		if (r < 0)
			return r;
		memset(p, 0, n * EROFS_BLOCK);
		w->base += n;
	}
	return 0;
}

/* See to it that bytes [at, at + n) are in the ring. */
static int ring_reach(struct writer *w, uint64_t at, size_t n, struct err *err)
{
	uint64_t end = (at + n + EROFS_BLOCK - 1) / EROFS_BLOCK;
	int r = 0;

	if (end > w->top)
		w->top = end;
	/* place() never goes back behind the window. */
	if (end > w->base + WRITE_RING && w->top > PACK_WINDOW)
		r = ring_flush(w, MIN(w->top - PACK_WINDOW, at / EROFS_BLOCK), err);
	return r;
}

static void ring_put(struct writer *w, uint64_t at, const void *p, size_t n)
{
	const uint8_t *from = p;

	while (n) {
		size_t off = at % EROFS_BLOCK, piece = MIN(n, EROFS_BLOCK - off);

		memcpy(w->ring + at / EROFS_BLOCK % WRITE_RING * EROFS_BLOCK + off, from, piece);
		from += piece;
		at += piece;
		n -= piece;
	}
}

/* One block's worth of @dir starting with name @i: fills @out, returns the next name. */
static size_t dir_block(const struct erofs_node *dir, size_t i, uint8_t *out)
{
	const size_t n = dir->children + 2, start = i;
	size_t end = i, used = 0, name;

	while (end < n) {
		size_t need = sizeof(struct erofs_dirent) + dir->sorted[end]->len;

		if (used + need > EROFS_BLOCK)
			break;
		used += need;
		end++;
	}
	memset(out, 0, EROFS_BLOCK);
	name = (end - start) * sizeof(struct erofs_dirent);
	for (; i < end; i++) {
		const struct erofs_dentry *d = dir->sorted[i];
		struct erofs_dirent de = {
			.nid = htole64(d->node->nid),
			.nameoff = htole16((uint16_t)name),
			.file_type = dirent_type(d->node->mode),
		};

		memcpy(out + (i - start) * sizeof(de), &de, sizeof(de));
		memcpy(out + name, d->name, d->len);
		name += d->len;
	}
	return end;
}

/* The kernel's new_encode_dev(). */
static uint32_t encode_dev(uint32_t major, uint32_t minor)
{
	return (minor & 0xff) | major << 8 | (minor & ~0xffu) << 12;
}

/* Bytes [from, from + EROFS_BLOCK) of a directory or link, zero-padded. */
static void meta_block(const struct erofs_node *n, uint64_t index, size_t *name, uint8_t *out)
{
	if (S_ISDIR(n->mode)) {
		*name = dir_block(n, *name, out);
		return;
	}
	memset(out, 0, EROFS_BLOCK);
	memcpy(out, n->target + index * EROFS_BLOCK,
	       MIN((uint64_t)EROFS_BLOCK, n->size - index * EROFS_BLOCK));
}

static int emit_inode(struct writer *w, const struct erofs_node *n, uint32_t ino, struct err *err)
{
	const uint32_t tail = node_inline(n);
	const uint64_t at = n->nid * EROFS_SLOT, size = node_size(n);
	struct erofs_inode di = {
		.i_format =
			htole16((uint16_t)(EROFS_INODE_EXTENDED |
					   (tail ? EROFS_LAYOUT_INLINE : EROFS_LAYOUT_PLAIN) << 1)),
		.i_xattr_icount = htole16(
			n->xattr_size ? (uint16_t)((n->xattr_size - EROFS_XATTR_HEADER) / 4 + 1)
				      : 0),
		.i_mode = htole16((uint16_t)n->mode),
		.i_size = htole64(size),
		.i_ino = htole32(ino),
		.i_uid = htole32(n->uid),
		.i_gid = htole32(n->gid),
		.i_mtime = htole64((uint64_t)n->mtime),
		.i_mtime_nsec = htole32(n->mtime_ns),
		.i_nlink = htole32(n->nlink),
	};
	uint8_t block[EROFS_BLOCK];
	uint64_t x = at + sizeof(di) + EROFS_XATTR_HEADER;
	int r = ring_reach(w, at, EROFS_INODE_SIZE + n->xattr_size + tail, err);

	if (r < 0)
		return r;
	if (S_ISCHR(n->mode) || S_ISBLK(n->mode))
		di.i_u = htole32(encode_dev(n->rdev_major, n->rdev_minor));
	else if (S_ISREG(n->mode) && size > tail)
		di.i_u = htole32((uint32_t)(w->meta_blocks + n->block));
	else if (node_meta_blocks(n))
		di.i_u = htole32((uint32_t)n->dir_block);
	ring_put(w, at, &di, sizeof(di));
	for (uint32_t i = 0; i < n->xattr_count; i++) {
		const struct erofs_xattr *xa = &n->xattrs[i];
		const uint8_t head[4] = {xa->name_len, xa->prefix, (uint8_t)xa->value_len,
					 (uint8_t)(xa->value_len >> 8)};

		ring_put(w, x, head, sizeof(head));
		ring_put(w, x + 4, xa->name, xa->name_len);
		ring_put(w, x + 4 + xa->name_len, xa->value, xa->value_len);
		x += EROFS_XATTR_ENTRY_SIZE(xa);
	}
	if (!tail)
		return 0;
	if (S_ISREG(n->mode)) {
		r = w->o->tail(w->o->tail_arg, n, block, err);
		if (r < 0)
			return r;
	} else {
		size_t name = 0;

		for (uint64_t i = 0; i <= node_meta_blocks(n); i++)
			meta_block(n, i, &name, block);
	}
	ring_put(w, at + EROFS_INODE_SIZE + n->xattr_size, block, tail);
	return 0;
}

static int emit_meta(struct writer *w, const struct erofs_node *n, struct err *err)
{
	const uint64_t blocks = node_meta_blocks(n);
	size_t name = 0;

	for (uint64_t i = 0; i < blocks; i++) {
		const uint64_t at = (n->dir_block + i) * EROFS_BLOCK;
		int r = ring_reach(w, at, EROFS_BLOCK, err);

		if (r < 0)
			return r;
		meta_block(n, i, &name, w->ring + (n->dir_block + i) % WRITE_RING * EROFS_BLOCK);
	}
	return 0;
}

/* The superblock shares its block with the first inodes, whose bytes its checksum covers. */
static int emit_super(struct writer *w, struct err *err)
{
	struct erofs_super sb = {
		.magic = htole32(EROFS_MAGIC),
		.feature_compat = htole32(EROFS_COMPAT_SB_CHKSUM | EROFS_COMPAT_MTIME),
		.blkszbits = EROFS_BLOCK_BITS,
		.root_nid = htole16((uint16_t)w->tree->nodes[0]->nid),
		.inos = htole64(w->inodes),
		.build_time = htole64(w->o->build_time),
		.blocks = htole32((uint32_t)(w->meta_blocks + w->o->data_blocks)),
	};
	uint8_t block[EROFS_BLOCK];
	ssize_t n;

	n = io_pread_full(w->fd, block, sizeof(block), 0);
	if (n != sizeof(block))
		return err_set(err, n < 0 ? (int)n : EIO, "cannot read the image back");
	memcpy(sb.uuid, w->o->uuid, sizeof(sb.uuid));
	memcpy(block + EROFS_SUPER_OFFSET, &sb, sizeof(sb));
	sb.checksum =
		htole32(crc32c(~0u, block + EROFS_SUPER_OFFSET, EROFS_BLOCK - EROFS_SUPER_OFFSET));
	return write_all(w->fd, (const uint8_t *)&sb, sizeof(sb), EROFS_SUPER_OFFSET, err);
}

static int emit(struct writer *w, struct err *err)
{
	struct erofs_tree *t = w->tree;
	uint32_t ino = 1;
	int r = 0;

	for (size_t i = 0; i < t->node_count && r >= 0; i++)
		if (t->nodes[i]->nlink)
			r = emit_inode(w, t->nodes[i], ino++, err);
	if (r >= 0)
		r = ring_flush(w, w->inode_blocks, err);
	for (size_t i = 0; i < t->node_count && r >= 0; i++)
		if (t->nodes[i]->nlink)
			r = emit_meta(w, t->nodes[i], err);
	if (r >= 0)
		r = ring_flush(w, w->meta_blocks, err);
	return r < 0 ? r : emit_super(w, err);
}

int erofs_write(struct erofs_tree *t, int fd, const struct erofs_options *o,
		struct erofs_result *ret, struct err *err)
{
	cleanup_free uint8_t *ring = calloc(WRITE_RING, EROFS_BLOCK);
	struct writer w = {.tree = t, .o = o, .fd = fd, .ring = ring};
	int r;

	if (!ring)
		return err_set(err, ENOMEM, "out of memory");
	r = tree_prepare(&w, err);
	if (r >= 0)
		r = layout(&w, err);
	if (r >= 0)
		r = emit(&w, err);
	if (r < 0)
		return r;
	*ret = (struct erofs_result){w.meta_blocks, w.inodes};
	return 0;
}
