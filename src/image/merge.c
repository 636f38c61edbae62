/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A dentry's tag is the number of the layer that last mentioned it or anything below it. So a name
 * whose tag is old can be dropped by a whiteout together with all it holds, and only directories
 * that the present layer has touched need to be looked into.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "image/crc32c.h"
#include "image/merge.h"

struct merge {
	struct erofs_tree *tree;
	const struct image_limits *limits;
	uint32_t layer;
	unsigned links; /* left to follow for the present path */
	/* The parent of the last entry; tar archives come directory by directory. */
	struct erofs_node *cached;
	size_t cached_len;
	char cached_path[IMAGE_PATH_MAX + 1];
};

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

static void cache_drop(struct merge *m)
{
	m->cached = NULL;
}

/* A new directory that nobody has described. */
static struct erofs_node *implied_directory(struct merge *m)
{
	return erofs_node_new(m->tree, S_IFDIR | 0755);
}

static int check_depth(struct merge *m, const struct erofs_node *dir, struct err *err)
{
	if (dir->depth >= m->limits->depth)
		return err_set(err, ERR_LIMIT, "a directory deeper than %u levels",
			       m->limits->depth);
	return 0;
}

/* Give @dir the directory @name in place of what is there. */
static int make_directory(struct merge *m, struct erofs_node *dir, struct erofs_dentry *d,
			  const char *name, size_t len, struct erofs_node **ret, struct err *err)
{
	struct erofs_node *n;
	int r = check_depth(m, dir, err);

	if (r < 0)
		return r;
	n = implied_directory(m);
	if (!n)
		return no_memory(err);
	if (d)
		erofs_unlink(m->tree, d);
	d = erofs_link(m->tree, dir, name, len, n);
	if (!d)
		return no_memory(err);
	d->tag = m->layer;
	*ret = n;
	return 0;
}

/*
 * The directory at @path below @cur. With @create, what is missing or in the way becomes a
 * directory, and all that is passed is marked as touched; without, -ENOENT with no message.
 */
static int walk(struct merge *m, struct erofs_node *cur, const char *path, size_t len, bool create,
		struct erofs_node **ret, struct err *err)
{
	for (size_t at = 0; at < len;) {
		const char *name = path + at;
		const char *slash = memchr(name, '/', len - at);
		size_t n = slash ? (size_t)(slash - name) : len - at;
		struct erofs_dentry *d;
		int r = 0;

		at += n + 1;
		if (n == 0 || (n == 1 && name[0] == '.'))
			continue;
		if (n == 2 && name[0] == '.' && name[1] == '.') {
			cur = cur->parent ? cur->parent : cur;
			continue;
		}
		if (n > EROFS_NAME_MAX)
			return create ? err_set(err, ERR_LIMIT,
						"a symbolic link leads to a name longer than %u "
						"bytes",
						EROFS_NAME_MAX)
				      : -ENOENT;
		d = erofs_lookup(m->tree, cur, name, n);
		if (d && S_ISLNK(d->node->mode)) {
			const char *target = d->node->target;

			if (m->links-- == 0)
				return err_set(err, ERR_CORRUPT,
					       "too many symbolic links on the way");
			r = walk(m, *target == '/' ? erofs_tree_root(m->tree) : cur, target,
				 strlen(target), create, &cur, err);
			if (r < 0)
				return r;
			continue;
		}
		if (d && S_ISDIR(d->node->mode)) {
			if (create)
				d->tag = m->layer;
			cur = d->node;
			continue;
		}
		if (!create)
			return -ENOENT;
		r = make_directory(m, cur, d, name, n, &cur, err);
		if (r < 0)
			return r;
	}
	*ret = cur;
	return 0;
}

/* The directory that holds @path, and the last component. */
static int walk_parent(struct merge *m, const char *path, bool create, struct erofs_node **ret,
		       const char **ret_name, struct err *err)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 0;
	struct erofs_node *dir = NULL;
	int r;

	*ret_name = slash ? slash + 1 : path;
	if (create && m->cached && m->cached_len == len && memcmp(m->cached_path, path, len) == 0) {
		*ret = m->cached;
		return 0;
	}
	m->links = MERGE_LINKS_MAX;
	r = walk(m, erofs_tree_root(m->tree), path, len, create, &dir, err);
	if (r < 0)
		return r == -ENOENT ? r : err_wrap(err, "%.300s", path);
	if (create) {
		m->cached = dir;
		m->cached_len = len;
		memcpy(m->cached_path, path, len);
	}
	*ret = dir;
	return 0;
}

/* Remove from @dir whatever this layer has not touched. Depth is bounded by check_depth(). */
static void remove_lower(struct merge *m, struct erofs_node *dir)
{
	struct erofs_dentry *next;

	for (struct erofs_dentry *d = dir->first; d; d = next) {
		next = d->next;
		if (d->tag != m->layer)
			erofs_unlink(m->tree, d);
		else if (S_ISDIR(d->node->mode))
			remove_lower(m, d->node);
	}
}

static int apply_whiteout(struct merge *m, const struct layer_entry *e, struct err *err)
{
	struct erofs_node *dir;
	struct erofs_dentry *d;
	const char *name;
	int r = walk_parent(m, e->path, false, &dir, &name, err);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	d = erofs_lookup(m->tree, dir, name, strlen(name));
	if (!d)
		return 0;
	cache_drop(m);
	if (d->tag != m->layer)
		erofs_unlink(m->tree, d);
	else if (S_ISDIR(d->node->mode))
		remove_lower(m, d->node);
	return 0;
}

static int apply_opaque(struct merge *m, const struct layer_entry *e, struct err *err)
{
	struct erofs_node *dir;
	int r;

	m->links = MERGE_LINKS_MAX;
	r = walk(m, erofs_tree_root(m->tree), e->path, strlen(e->path), false, &dir, err);
	if (r < 0)
		return r == -ENOENT ? 0 : err_wrap(err, "%.300s", e->path);
	cache_drop(m);
	remove_lower(m, dir);
	return 0;
}

static int set_attributes(struct merge *m, struct erofs_node *n, const struct layer_entry *e,
			  struct err *err)
{
	n->mode = (n->mode & S_IFMT) | e->mode;
	n->uid = e->uid;
	n->gid = e->gid;
	n->mtime = e->mtime;
	n->mtime_ns = e->mtime_ns;
	return erofs_node_set_xattrs(m->tree, n, e->xattrs, e->xattr_count) < 0 ? no_memory(err)
										: 0;
}

static int apply_directory(struct merge *m, const struct layer_entry *e, struct err *err)
{
	struct erofs_node *dir, *n;
	struct erofs_dentry *d;
	const char *name;
	int r;

	if (!e->path[0])
		return set_attributes(m, erofs_tree_root(m->tree), e, err);
	r = walk_parent(m, e->path, true, &dir, &name, err);
	if (r < 0)
		return r;
	d = erofs_lookup(m->tree, dir, name, strlen(name));
	if (d && S_ISDIR(d->node->mode)) {
		d->tag = m->layer;
		return set_attributes(m, d->node, e, err);
	}
	if (d)
		cache_drop(m);
	r = make_directory(m, dir, d, name, strlen(name), &n, err);
	return r < 0 ? err_wrap(err, "%.300s", e->path) : set_attributes(m, n, e, err);
}

/* @node becomes what @path names. */
static int put(struct merge *m, const char *path, struct erofs_node *node, struct err *err)
{
	struct erofs_node *dir;
	struct erofs_dentry *d;
	const char *name;
	int r = walk_parent(m, path, true, &dir, &name, err);

	if (r < 0)
		return r;
	d = erofs_lookup(m->tree, dir, name, strlen(name));
	if (d) {
		/* Directories and links may have been passed on the way to the cached one. */
		if (S_ISDIR(d->node->mode) || S_ISLNK(d->node->mode))
			cache_drop(m);
		d->node = node;
	} else {
		d = erofs_link(m->tree, dir, name, strlen(name), node);
		if (!d)
			return no_memory(err);
	}
	d->tag = m->layer;
	return 0;
}

static int apply_hardlink(struct merge *m, const struct layer_entry *e, struct err *err)
{
	struct erofs_node *dir;
	struct erofs_dentry *d = NULL;
	const char *name;
	int r = walk_parent(m, e->link, false, &dir, &name, err);

	if (r < 0 && r != -ENOENT)
		return r;
	if (r >= 0 && *name)
		d = erofs_lookup(m->tree, dir, name, strlen(name));
	if (!d && *e->link)
		return err_set(err, ERR_CORRUPT,
			       "the hard link %.200s leads to %.200s, which does not exist",
			       e->path, e->link);
	if (!d || S_ISDIR(d->node->mode))
		return err_set(err, ERR_CORRUPT,
			       "the hard link %.200s leads to the directory /%.200s", e->path,
			       e->link);
	return put(m, e->path, d->node, err);
}

static const uint32_t node_modes[LAYER_TYPE_END] = {
	[LAYER_FILE] = S_IFREG,	 [LAYER_SYMLINK] = S_IFLNK, [LAYER_CHAR] = S_IFCHR,
	[LAYER_BLOCK] = S_IFBLK, [LAYER_FIFO] = S_IFIFO,
};

static int apply_node(struct merge *m, const struct layer_entry *e, uint64_t first_block,
		      struct err *err)
{
	struct erofs_node *n = erofs_node_new(m->tree, node_modes[e->type]);
	int r;

	if (!n)
		return no_memory(err);
	r = set_attributes(m, n, e, err);
	if (r < 0)
		return r;
	if (e->type == LAYER_SYMLINK) {
		char *target = erofs_tree_alloc(m->tree, e->size + 1);

		if (!target)
			return no_memory(err);
		memcpy(target, e->link, e->size + 1);
		n->target = target;
	}
	n->size = e->size;
	n->block = first_block + e->data_block;
	n->tail_len = e->tail_len;
	n->source = m->layer;
	n->tail_offset = e->tail_at;
	n->rdev_major = e->major;
	n->rdev_minor = e->minor;
	return put(m, e->path, n, err);
}

int merge_apply(struct erofs_tree *t, struct layer_reader *r, uint32_t layer, uint64_t first_block,
		const struct image_limits *l, struct err *err)
{
	cleanup_free struct merge *m = calloc(1, sizeof(*m));
	struct layer_entry e;
	int rc;

	if (!m)
		return no_memory(err);
	m->tree = t;
	m->limits = l;
	/* Zero is the tag of nothing. */
	m->layer = layer + 1;
	while ((rc = layer_next(r, &e, err)) > 0) {
		if (!e.path[0] && e.type != LAYER_DIRECTORY && e.type != LAYER_OPAQUE)
			return err_set(err, ERR_CORRUPT, "the layer replaces its own root");
		switch (e.type) {
		case LAYER_WHITEOUT:
			rc = apply_whiteout(m, &e, err);
			break;
		case LAYER_OPAQUE:
			rc = apply_opaque(m, &e, err);
			break;
		case LAYER_DIRECTORY:
			rc = apply_directory(m, &e, err);
			break;
		case LAYER_HARDLINK:
			rc = apply_hardlink(m, &e, err);
			break;
		default:
			rc = apply_node(m, &e, first_block, err);
			break;
		}
		if (rc < 0)
			return rc;
	}
	return rc;
}

/* Where tails come from: one layer open at a time, since nodes come layer by layer. */
struct tails {
	const struct store *store;
	const struct digest *diff_ids;
	uint32_t source; /* as in the nodes; 0: none open */
	struct layer_reader *reader;
};

static int read_tail(void *arg, const struct erofs_node *n, void *p, struct err *err)
{
	struct tails *t = arg;

	if (t->source != n->source) {
		int r;

		t->reader = layer_close(t->reader);
		t->source = 0;
		r = layer_open(&t->reader, t->store, &t->diff_ids[n->source - 1], err);
		if (r < 0)
			return r;
		t->source = n->source;
	}
	return layer_read_tail(t->reader, n->tail_offset, p, n->tail_len, err);
}

int merge_layers(const struct store *s, const struct digest *diff_ids, size_t count,
		 const struct image_limits *l, const uint8_t uuid[16], int fd,
		 struct merge_result *ret, struct err *err)
{
	cleanup_tree struct erofs_tree *t = NULL;
	struct tails tails = {s, diff_ids, 0, NULL};
	struct erofs_options o = {.tail = read_tail, .tail_arg = &tails};
	struct erofs_result res;
	uint64_t entries = 0;
	uint32_t crc = 0;
	int r = erofs_tree_new(&t, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < count; i++) {
		cleanup_layer struct layer_reader *reader = NULL;

		r = layer_open(&reader, s, &diff_ids[i], err);
		if (r < 0)
			return r;
		entries += layer_info(reader)->entries;
		if (entries > l->image_entries)
			return err_set(err, ERR_LIMIT, "more than %llu entries in all layers",
				       (unsigned long long)l->image_entries);
		r = merge_apply(t, reader, (uint32_t)i, o.data_blocks, l, err);
		if (r < 0)
			return err_wrap(err, "layer %zu of %zu", i + 1, count);
		o.data_blocks += layer_info(reader)->data_blocks;
	}
	memcpy(o.uuid, uuid, sizeof(o.uuid));
	r = erofs_write(t, fd, &o, &res, err);
	layer_close(tails.reader);
	if (r >= 0)
		r = crc32c_file(fd, res.blocks * EROFS_BLOCK, &crc);
	/* Neither reading layers nor the tree fails with these; writing does. */
	if (r == -ENOSPC || r == -EDQUOT || r == -EROFS || r == -EFBIG)
		return store_write_error(s, r, err);
	if (r < 0)
		return err && err->code ? r : err_set(err, r, "cannot read the image back");
	*ret = (struct merge_result){res.blocks, res.inodes, crc};
	return 0;
}
