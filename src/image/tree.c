/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file tree behind erofs.h: an arena, a list of nodes in order of birth, and one hash table of
 * names for all directories, keyed by (directory, name) and seeded at random so that nobody can
 * craft an image whose names collide.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "image/erofs_internal.h"

#define ARENA_CHUNK (256u << 10)
#define TABLE_FIRST 1024u

struct arena_chunk {
	struct arena_chunk *next;
	max_align_t data[];
};

/* Marks a slot whose name was taken away; probing goes on behind it. */
static struct erofs_dentry gone;

static const struct {
	const char *name;
	uint8_t len, index;
} xattr_prefixes[] = {
	{"user.", 5, 1},
	{"system.posix_acl_access", 23, 2},
	{"system.posix_acl_default", 24, 3},
	{"trusted.", 8, 4},
	{"security.", 9, 6},
};

uint8_t erofs_xattr_prefix(const char *name, size_t *ret_skip)
{
	for (size_t i = 0; i < ARRAY_SIZE(xattr_prefixes); i++) {
		const size_t len = xattr_prefixes[i].len;
		const bool whole = xattr_prefixes[i].name[len - 1] != '.';

		/* An ACL is a whole name, the others need something after the dot. */
		if (strncmp(name, xattr_prefixes[i].name, len) != 0 || (name[len] == 0) != whole)
			continue;
		*ret_skip = len;
		return xattr_prefixes[i].index;
	}
	return 0;
}

size_t erofs_xattr_size(const struct erofs_xattr *x, size_t n)
{
	size_t size = EROFS_XATTR_HEADER;

	for (size_t i = 0; i < n; i++)
		size += EROFS_XATTR_ENTRY_SIZE(&x[i]);
	return n ? size : 0;
}

void *erofs_tree_alloc(struct erofs_tree *t, size_t n)
{
	n = (n + 7) & ~(size_t)7;
	if (n > t->arena_left) {
		size_t room = MAX((size_t)ARENA_CHUNK, n);
		struct arena_chunk *c = calloc(1, sizeof(*c) + room);

		if (!c)
			return NULL;
		c->next = t->chunks;
		t->chunks = c;
		t->arena = (uint8_t *)c->data;
		t->arena_left = room;
	}
	t->arena += n;
	t->arena_left -= n;
	return t->arena - n;
}

int erofs_tree_new(struct erofs_tree **ret, struct err *err)
{
	cleanup_tree struct erofs_tree *t = calloc(1, sizeof(*t));

	if (!t)
		return err_set(err, ENOMEM, "out of memory");
	/* Without a seed the table still works; it is only easier to slow down. */
	if (getrandom(t->seed, sizeof(t->seed), 0) < 0)
		memset(t->seed, 0x5a, sizeof(t->seed));
	t->table_size = TABLE_FIRST;
	t->table = calloc(t->table_size, sizeof(*t->table));
	if (!t->table || !erofs_node_new(t, S_IFDIR | 0755))
		return err_set(err, ENOMEM, "out of memory");
	*ret = take_ptr(t);
	return 0;
}

struct erofs_tree *erofs_tree_free(struct erofs_tree *t)
{
	if (!t)
		return NULL;
	while (t->chunks) {
		struct arena_chunk *next = t->chunks->next;

		free(t->chunks);
		t->chunks = next;
	}
	free(t->table);
	free(t->nodes);
	free(t);
	return NULL;
}

struct erofs_node *erofs_tree_root(struct erofs_tree *t)
{
	return t->nodes[0];
}

struct erofs_node *erofs_node_new(struct erofs_tree *t, uint32_t mode)
{
	struct erofs_node *n;

	if (t->node_count == t->node_cap) {
		size_t cap = t->node_cap ? t->node_cap * 2 : 1024;
		struct erofs_node **nodes = NULL;

		if (cap <= UINT32_MAX / 2)
			nodes = realloc(t->nodes, cap * sizeof(*nodes));
		if (!nodes)
			return NULL;
		t->nodes = nodes;
		t->node_cap = cap;
	}
	n = erofs_tree_alloc(t, sizeof(*n));
	if (!n)
		return NULL;
	n->mode = mode;
	n->id = (uint32_t)t->node_count;
	t->nodes[t->node_count++] = n;
	return n;
}

int erofs_node_set_xattrs(struct erofs_tree *t, struct erofs_node *n, const struct erofs_xattr *x,
			  size_t count)
{
	struct erofs_xattr *copy = NULL;

	if (erofs_xattr_size(x, count) > EROFS_XATTR_SIZE_MAX)
		return -E2BIG;
	if (count) {
		copy = erofs_tree_alloc(t, count * sizeof(*copy));
		if (!copy)
			return -ENOMEM;
	}
	for (size_t i = 0; i < count; i++) {
		char *p = erofs_tree_alloc(t, (size_t)x[i].name_len + x[i].value_len);

		if (!p)
			return -ENOMEM;
		copy[i] = x[i];
		copy[i].name = p;
		copy[i].value = (uint8_t *)p + x[i].name_len;
		memcpy(p, x[i].name, x[i].name_len);
		if (x[i].value_len)
			memcpy(p + x[i].name_len, x[i].value, x[i].value_len);
	}
	n->xattrs = copy;
	n->xattr_count = (uint32_t)count;
	return 0;
}

static uint64_t mix(uint64_t a, uint64_t b)
{
	unsigned __int128 p = (unsigned __int128)a * b;

	return (uint64_t)p ^ (uint64_t)(p >> 64);
}

static uint32_t name_hash(const struct erofs_tree *t, const struct erofs_node *dir,
			  const char *name, size_t len)
{
	uint64_t h = mix(t->seed[0] ^ dir->id, t->seed[1] ^ len);

	while (len) {
		size_t piece = MIN(len, sizeof(uint64_t));
		uint64_t v = 0;

		memcpy(&v, name, piece);
		h = mix(h ^ v ^ t->seed[2], t->seed[3] | 1);
		name += piece;
		len -= piece;
	}
	return (uint32_t)(h ^ h >> 32);
}

struct erofs_dentry *erofs_lookup(struct erofs_tree *t, const struct erofs_node *dir,
				  const char *name, size_t len)
{
	const uint32_t hash = name_hash(t, dir, name, len);

	for (size_t i = hash & (t->table_size - 1); t->table[i];
	     i = (i + 1) & (t->table_size - 1)) {
		struct erofs_dentry *d = t->table[i];

		if (d != &gone && d->hash == hash && d->dir == dir && d->len == len &&
		    memcmp(d->name, name, len) == 0)
			return d;
	}
	return NULL;
}

static void table_insert(struct erofs_dentry **table, size_t size, struct erofs_dentry *d)
{
	size_t i = d->hash & (size - 1);

	while (table[i])
		i = (i + 1) & (size - 1);
	table[i] = d;
}

static int table_grow(struct erofs_tree *t)
{
	size_t size = t->table_size * 2;
	struct erofs_dentry **table = calloc(size, sizeof(*table));

	if (!table)
		return -ENOMEM;
	t->table_used = 0;
	for (size_t i = 0; i < t->table_size; i++) {
		if (!t->table[i] || t->table[i] == &gone)
			continue;
		table_insert(table, size, t->table[i]);
		t->table_used++;
	}
	free(t->table);
	t->table = table;
	t->table_size = size;
	return 0;
}

struct erofs_dentry *erofs_link(struct erofs_tree *t, struct erofs_node *dir, const char *name,
				size_t len, struct erofs_node *node)
{
	struct erofs_dentry *d;

	if (len == 0 || len > EROFS_NAME_MAX)
		return NULL;
	/* Tombstones count: they lengthen probing just as names do. */
	if (t->table_used * 2 >= t->table_size && table_grow(t) < 0)
		return NULL;
	d = erofs_tree_alloc(t, sizeof(*d) + len + 1);
	if (!d)
		return NULL;
	d->dir = dir;
	d->node = node;
	d->hash = name_hash(t, dir, name, len);
	d->len = (uint16_t)len;
	memcpy(d->name, name, len);
	d->next = dir->first;
	if (d->next)
		d->next->prev = d;
	dir->first = d;
	dir->children++;
	if (S_ISDIR(node->mode)) {
		node->parent = dir;
		node->depth = dir->depth + 1;
	}
	table_insert(t->table, t->table_size, d);
	t->table_used++;
	return d;
}

void erofs_unlink(struct erofs_tree *t, struct erofs_dentry *d)
{
	size_t i = d->hash & (t->table_size - 1);

	while (t->table[i] != d)
		i = (i + 1) & (t->table_size - 1);
	t->table[i] = &gone;
	if (d->prev)
		d->prev->next = d->next;
	else
		d->dir->first = d->next;
	if (d->next)
		d->next->prev = d->prev;
	d->dir->children--;
}
