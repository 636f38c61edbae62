/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2: writing.
 *
 * Theory of operation. A cluster that has exactly one reference is written in place, with the lock
 * held shared. Any other write gets a new cluster, with the lock held exclusively:
 *
 *	reference count of the new cluster    to the file at once
 *	its contents, old and new             to the file at once
 *	its L2 entry, the L1 entry of a new L2 table   in memory, marked dirty
 *	reference of what was there before    noted, to be dropped later
 *
 * A flush then syncs the file, writes the dirty entries, syncs again, and drops the noted
 * references. So at any moment the tables in the file name only clusters that are counted and
 * written: a crash of the process or the host loses what was not flushed, as with any disk that
 * has a cache, and at worst leaves clusters counted that nobody names. A dirty slice that has to
 * make room does the same in between.
 *
 * Where nothing outlives the machine (no_flush), there is no syncing, and flushes do nothing.
 *
 * Space is given back by punching holes into clusters, which keep their place; so is zeroing.
 *
 * The guest chooses what it writes and the image where: a cluster may be claimed to lie where the
 * header or a table is. Those are not written over (in_tables()); anything else that an image
 * claims twice is its own loss, since whatever is read back is checked again.
 */
#include <endian.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/iov.h"
#include "virtio/qcow2_impl.h"
#include "virtio/virtqueue.h"

enum {
	HEADER_REFTABLE = 48,
	HEADER_AUTOCLEAR = 88,
	/* After so many clusters in use, look behind the end of the file. */
	SCAN_MAX = 1 << 20,
};

static int sync_file(struct qcow2 *q)
{
	while (!q->no_flush && fdatasync(q->fd) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

/* ---- reference counts ---- */

/* Clusters a block of reference counts covers, as a power of two. */
static unsigned block_bits(const struct qcow2 *q)
{
	return q->cluster_bits + 3 - q->refcount_order;
}

static uint64_t count_get(const struct qcow2 *q, const uint8_t *p, uint64_t index)
{
	switch (q->refcount_order) {
	case 3:
		return p[index];
	case 4:
		return (uint64_t)p[2 * index] << 8 | p[2 * index + 1];
	case 5:
		return be32toh(((const uint32_t *)(const void *)p)[index]);
	case 6:
		return be64toh(((const uint64_t *)(const void *)p)[index]);
	default: {
		unsigned bits = 1u << q->refcount_order, at = (unsigned)(index * bits % 8);

		return p[index * bits / 8] >> at & ((1u << bits) - 1);
	}
	}
}

static void count_set(const struct qcow2 *q, uint8_t *p, uint64_t index, uint64_t v)
{
	switch (q->refcount_order) {
	case 3:
		p[index] = (uint8_t)v;
		break;
	case 4:
		p[2 * index] = (uint8_t)(v >> 8);
		p[2 * index + 1] = (uint8_t)v;
		break;
	case 5:
		((uint32_t *)(void *)p)[index] = htobe32((uint32_t)v);
		break;
	case 6:
		((uint64_t *)(void *)p)[index] = htobe64(v);
		break;
	default: {
		unsigned bits = 1u << q->refcount_order, at = (unsigned)(index * bits % 8);
		uint8_t *b = &p[index * bits / 8];

		*b = (uint8_t)((*b & ~(((1u << bits) - 1) << at)) | v << at);
	}
	}
}

/* The block that counts cluster @c: its offset, 0 if there is none, QCOW2_NONE if none can be. */
static int find_block(const struct qcow2 *q, uint64_t c, uint64_t *ret)
{
	uint64_t i = c >> block_bits(q);

	*ret = i < q->reftable_n ? q->reftable[i] & ~511ull : QCOW2_NONE;
	if (*ret != QCOW2_NONE && *ret & (q->cluster - 1))
		return -EIO;
	return 0;
}

/* Where in its slice the count of cluster @c in @block is. */
static int count_slice(struct qcow2 *q, uint64_t block, uint64_t c, struct qcow2_slice **s,
		       uint64_t *index)
{
	uint64_t per_slice = (uint64_t)q->slice * 8 >> q->refcount_order;
	uint64_t i = c & ((1ull << block_bits(q)) - 1);

	*index = i % per_slice;
	return qcow2_slice(q, block + i / per_slice * q->slice, s);
}

static int count_read(struct qcow2 *q, uint64_t block, uint64_t c, uint64_t *ret)
{
	struct qcow2_slice *s;
	uint64_t index;
	int r;

	pthread_mutex_lock(&q->cache_lock);
	r = count_slice(q, block, c, &s, &index);
	if (r == 0)
		*ret = count_get(q, s->p, index);
	pthread_mutex_unlock(&q->cache_lock);
	return r;
}

static int count_write(struct qcow2 *q, uint64_t c, uint64_t v)
{
	struct qcow2_slice *s;
	uint64_t block, index;
	int r = find_block(q, c, &block);

	if (r < 0 || !block || block == QCOW2_NONE)
		return r < 0 ? r : -EIO;
	pthread_mutex_lock(&q->cache_lock);
	r = count_slice(q, block, c, &s, &index);
	if (r == 0) {
		uint64_t at = (index << q->refcount_order) / 8;
		size_t n = q->refcount_order > 3 ? 1u << (q->refcount_order - 3) : 1;

		count_set(q, s->p, index, v);
		r = qcow2_file_io(q, s->p + at, n, s->off + at, true);
	}
	pthread_mutex_unlock(&q->cache_lock);
	return r;
}

/* One reference less. */
static int count_drop(struct qcow2 *q, uint64_t c)
{
	uint64_t block, n;
	int r = find_block(q, c, &block);

	if (r < 0 || !block || block == QCOW2_NONE)
		return r < 0 ? r : -EIO;
	r = count_read(q, block, c, &n);
	if (r < 0 || !n)
		return r < 0 ? r : -EIO;
	if (n == 1)
		q->hint = MIN(q->hint, c);
	return count_write(q, c, n - 1);
}

static void grow_to(struct qcow2 *q, uint64_t end)
{
	q->file_end = MAX(q->file_end, end);
}

/* Does [off, off + len) touch the header, the L1 table or that of the reference counts? */
static bool in_tables(const struct qcow2 *q, uint64_t off, uint64_t len)
{
	return off < q->cluster || (off < q->l1_off + q->l1_n * 8ull && q->l1_off < off + len) ||
	       (off < q->reftable_off + q->reftable_n * 8ull && q->reftable_off < off + len);
}

/* A table for twice as many clusters, behind all that the old one can count. */
static int grow_reftable(struct qcow2 *q)
{
	const uint64_t per_block = 1ull << block_bits(q), first = q->reftable_n * per_block;
	const uint64_t per_cluster = q->cluster / 8u;
	uint64_t n = (q->reftable_n * 2ull + per_cluster) / per_cluster * per_cluster;
	uint64_t table = n / per_cluster, blocks = 1, old = q->reftable_off >> q->cluster_bits;
	uint64_t old_clusters = q->reftable_n / per_cluster, head[2] = {0};
	cleanup_free uint64_t *t = NULL, *disk = NULL;
	int r = 0;

	while (blocks * per_block < blocks + table)
		blocks++;
	if (n > QCOW2_REFTABLE_MAX || first > (uint64_t)INT64_MAX >> (q->cluster_bits + 1))
		return -EFBIG;
	if (in_tables(q, first << q->cluster_bits, (blocks + table) << q->cluster_bits))
		return -EIO;
	t = calloc(n, 8);
	disk = calloc(n, 8);
	if (!t || !disk)
		return -ENOMEM;
	memcpy(t, q->reftable, q->reftable_n * 8ull);
	for (uint64_t b = 0; b < blocks && r == 0; b++) {
		uint64_t counted = MIN(per_block, blocks + table - b * per_block);

		t[q->reftable_n + b] = (first + b) << q->cluster_bits;
		memset(q->bounce, 0, q->cluster);
		for (uint64_t i = 0; i < counted; i++)
			count_set(q, q->bounce, i, 1);
		qcow2_slice_forget(q, (first + b) << q->cluster_bits);
		r = qcow2_file_io(q, q->bounce, q->cluster, (first + b) << q->cluster_bits, true);
	}
	for (uint64_t i = 0; i < n; i++)
		disk[i] = htobe64(t[i]);
	if (r == 0)
		r = qcow2_file_io(q, disk, n * 8, (first + blocks) << q->cluster_bits, true);
	if (r == 0)
		r = sync_file(q);
	if (r < 0)
		return r;
	head[0] = htobe64((first + blocks) << q->cluster_bits);
	((uint32_t *)head)[2] = htobe32((uint32_t)table);
	r = qcow2_file_io(q, head, 12, HEADER_REFTABLE, true);
	if (r == 0)
		r = sync_file(q);
	if (r < 0)
		return r;
	grow_to(q, (first + blocks + table) << q->cluster_bits);
	free(q->reftable);
	q->reftable = take_ptr(t);
	q->reftable_off = (first + blocks) << q->cluster_bits;
	q->reftable_n = (uint32_t)n;
	for (uint64_t i = 0; i < old_clusters && r == 0; i++)
		r = count_drop(q, old + i);
	return r;
}

/* A block for the counts of cluster @c and those around it, which are all free: it takes @c. */
static int add_block(struct qcow2 *q, uint64_t c)
{
	uint64_t i = c >> block_bits(q), off = c << q->cluster_bits, be = htobe64(off);
	int r;

	if (in_tables(q, off, q->cluster))
		return -EIO;
	memset(q->bounce, 0, q->cluster);
	count_set(q, q->bounce, c & ((1ull << block_bits(q)) - 1), 1);
	qcow2_slice_forget(q, off);
	r = qcow2_file_io(q, q->bounce, q->cluster, off, true);
	if (r == 0)
		r = sync_file(q);
	if (r == 0)
		r = qcow2_file_io(q, &be, 8, q->reftable_off + i * 8, true);
	if (r < 0)
		return r;
	q->reftable[i] = off;
	grow_to(q, off + q->cluster);
	return 0;
}

/* A free cluster, counted once from now on. */
static int alloc_cluster(struct qcow2 *q, uint64_t *ret)
{
	uint64_t end = q->file_end >> q->cluster_bits, c = q->hint, block, n;

	for (uint64_t seen = 0;; seen++) {
		int r = find_block(q, c, &block);

		if (r == 0 && block == QCOW2_NONE) {
			r = grow_reftable(q);
			if (r < 0)
				return r;
			continue;
		}
		if (r == 0 && !block) {
			r = add_block(q, c);
			if (r < 0)
				return r;
			c++;
			continue;
		}
		if (r == 0)
			r = count_read(q, block, c, &n);
		if (r < 0)
			return r;
		if (n == 0)
			break;
		/* Nothing can be in use behind the end; someone who says so would have us search.
		 */
		if (c >= end && seen >= SCAN_MAX)
			return -EIO;
		c = seen == SCAN_MAX && c < end ? end : c + 1;
	}
	if (in_tables(q, c << q->cluster_bits, q->cluster)) {
		/* The counts are wrong: whatever we take may be somebody's. */
		q->corrupt = true;
		return -EIO;
	}
	q->hint = c + 1;
	*ret = c << q->cluster_bits;
	grow_to(q, *ret + q->cluster);
	return count_write(q, c, 1);
}

/* ---- entries ---- */

int qcow2_write_back(struct qcow2 *q)
{
	int r = 0;

	if (!q->ndirty && !q->l1_dirty)
		return 0;
	r = sync_file(q);
	for (int i = 0; i < QCOW2_SETS && r == 0; i++) {
		for (int k = 0; k < QCOW2_WAYS && r == 0; k++) {
			struct qcow2_slice *s = &q->slices[i][k];

			if (!s->dirty)
				continue;
			r = qcow2_file_io(q, s->p, q->slice, s->off, true);
			if (r == 0) {
				s->dirty = false;
				q->ndirty--;
			}
		}
	}
	if (r == 0 && q->l1_dirty) {
		cleanup_free uint64_t *t = malloc(q->l1_n * 8ull);

		if (!t)
			return -ENOMEM;
		for (uint32_t i = 0; i < q->l1_n; i++)
			t[i] = htobe64(q->l1[i]);
		r = qcow2_file_io(q, t, q->l1_n * 8ull, q->l1_off, true);
		q->l1_dirty = r < 0;
	}
	return r;
}

/* With the lock held exclusively: entries to the file, and then old references dropped. */
static int flush_entries(struct qcow2 *q)
{
	int r;

	pthread_mutex_lock(&q->cache_lock);
	r = qcow2_write_back(q);
	pthread_mutex_unlock(&q->cache_lock);
	if (r == 0)
		r = sync_file(q);
	for (unsigned i = 0; i < q->nfrees && r == 0; i++) {
		for (uint32_t k = 0; k < q->frees[i].n && r == 0; k++)
			r = count_drop(q, q->frees[i].cluster + k);
	}
	q->nfrees = 0;
	return r;
}

int qcow2_flush_all(struct qcow2 *q)
{
	int r;

	pthread_rwlock_wrlock(&q->lock);
	r = flush_entries(q);
	pthread_rwlock_unlock(&q->lock);
	return r;
}

static int drop_later(struct qcow2 *q, uint64_t off, uint64_t len)
{
	uint64_t first = off >> q->cluster_bits, last = (off + len - 1) >> q->cluster_bits;

	if (q->nfrees == QCOW2_FREES_MAX) {
		int r = flush_entries(q);

		if (r < 0)
			return r;
	}
	q->frees[q->nfrees++] = (struct qcow2_free){first, (uint32_t)(last - first + 1)};
	return 0;
}

/* The L2 table for @off, which may be written: a new one if there is none or it is shared. */
static int own_table(struct qcow2 *q, uint64_t off, uint64_t *ret)
{
	uint64_t *l1 = &q->l1[off >> (q->cluster_bits + q->l2_bits)];
	uint64_t old = *l1 & QCOW2_OFFSET, table;
	int r;

	if (old && *l1 & QCOW2_COPIED) {
		*ret = old;
		return old & (q->cluster - 1) || in_tables(q, old, q->cluster) ? -EIO : 0;
	}
	r = alloc_cluster(q, &table);
	if (r < 0)
		return r;
	memset(q->bounce, 0, q->cluster);
	/* A shared table is never dirty in the cache. */
	if (old)
		r = old >= q->file_end ? -EIO : qcow2_file_io(q, q->bounce, q->cluster, old, false);
	if (r == 0)
		r = qcow2_file_io(q, q->bounce, q->cluster, table, true);
	if (r < 0) {
		(void)count_drop(q, table >> q->cluster_bits);
		return r;
	}
	pthread_mutex_lock(&q->cache_lock);
	qcow2_slice_forget(q, table);
	pthread_mutex_unlock(&q->cache_lock);
	*l1 = table | QCOW2_COPIED;
	q->l1_dirty = true;
	*ret = table;
	return old ? drop_later(q, old, q->cluster) : 0;
}

static int set_entry(struct qcow2 *q, uint64_t table, uint64_t off, uint64_t entry)
{
	uint64_t index = off >> q->cluster_bits & ((1ull << q->l2_bits) - 1);
	uint64_t at = table + index * 8, be = htobe64(entry);
	struct qcow2_slice *s;
	int r;

	pthread_mutex_lock(&q->cache_lock);
	r = qcow2_slice(q, at, &s);
	if (r == 0) {
		memcpy(s->p + at % q->slice, &be, 8);
		q->ndirty += !s->dirty;
		s->dirty = true;
	}
	pthread_mutex_unlock(&q->cache_lock);
	return r;
}

/* What the table said of a cluster before is no longer true. */
static int drop_old(struct qcow2 *q, const struct qcow2_map *old, uint64_t host)
{
	uint64_t off = old->entry & QCOW2_OFFSET;
	uint32_t len;

	if (old->kind == QCOW2_IS_COMPRESSED) {
		qcow2_packed(q, old->entry, &off, &len);
		return drop_later(q, off, len);
	}
	return off && off != host ? drop_later(q, off, q->cluster) : 0;
}

/* ---- writing ---- */

static bool in_place(const struct qcow2 *q, const struct qcow2_map *m)
{
	return m->kind == QCOW2_IS_DATA && m->entry & QCOW2_COPIED &&
	       !in_tables(q, m->host, m->len);
}

/* Fill the part of new cluster @host that [in, in + n) leaves out with what the disk has there. */
static int fill_around(struct qcow2 *q, uint64_t off, uint64_t host, size_t in, size_t n)
{
	const size_t cut[2][2] = {{0, in}, {in + n, q->cluster - in - n}};
	int r = 0;

	for (int i = 0; i < 2 && r == 0; i++) {
		struct iovec iov = {q->bounce, cut[i][1]};

		if (!iov.iov_len)
			continue;
		r = qcow2_read_locked(q, &iov, 1, off - in + cut[i][0]);
		if (r == 0)
			r = qcow2_file_io(q, q->bounce, cut[i][1], host + cut[i][0], true);
	}
	return r;
}

/* Give the cluster of @off a place of its own and write @n bytes, which stay inside of it. */
static int write_new(struct qcow2 *q, const struct qcow2_map *old, struct iovec *iov, unsigned niov,
		     uint64_t off, size_t n)
{
	size_t in = off & (q->cluster - 1);
	uint64_t table, host = old->entry & QCOW2_OFFSET, end;
	/* Zeros may have a cluster kept for them. */
	bool kept = old->kind == QCOW2_IS_ZERO && host && old->entry & QCOW2_COPIED &&
		    !in_tables(q, host, q->cluster);
	int r = own_table(q, off, &table);

	end = q->file_end;
	if (r == 0 && !kept)
		r = alloc_cluster(q, &host);
	if (r < 0)
		return r;
	/* Behind the end of the file are zeros already. */
	if (n < q->cluster && (kept || host < end || q->backing || old->kind != QCOW2_IS_BACKING))
		r = fill_around(q, off, host, in, n);
	if (r == 0)
		r = iov_transfer(q->fd, iov, niov, host + in, true);
	if (r == 0)
		r = set_entry(q, table, off, host | QCOW2_COPIED);
	if (r < 0) {
		if (!kept)
			(void)count_drop(q, host >> q->cluster_bits);
		return r;
	}
	return drop_old(q, old, host);
}

/* With the lock held exclusively: one cluster's part. */
static int write_cluster(struct qcow2 *q, struct iovec *iov, unsigned niov, uint64_t off, size_t n)
{
	struct qcow2_map m;
	int r = q->corrupt ? -EIO : qcow2_map(q, off, &m);

	if (r < 0)
		return r;
	/* Another thread may have been here meanwhile. */
	if (in_place(q, &m))
		return iov_transfer(q->fd, iov, niov, m.host, true);
	if (m.kind == QCOW2_IS_DATA && m.entry & QCOW2_COPIED)
		return -EIO;
	return write_new(q, &m, iov, niov, off, n);
}

int qcow2_write(struct blk_disk *d, struct iovec *iov, unsigned niov, uint64_t off)
{
	struct qcow2 *q = container_of(d, struct qcow2, disk);
	size_t total = iov_size(iov, niov), done = 0;
	int r = 0;

	while (done < total && r == 0) {
		struct iovec cut[VIRTQUEUE_CHAIN_MAX];
		size_t left = total - done, part = 0;
		struct qcow2_map m;

		pthread_rwlock_rdlock(&q->lock);
		r = qcow2_map_run(q, off + done, left, &m);
		if (r == 0 && in_place(q, &m)) {
			unsigned k = iov_slice(iov, niov, done, m.len, cut, VIRTQUEUE_CHAIN_MAX);

			part = m.len;
			r = iov_transfer(q->fd, cut, k, m.host, true);
		}
		pthread_rwlock_unlock(&q->lock);
		if (r == 0 && !part) {
			unsigned k;

			part = MIN(left, q->cluster - ((off + done) & (q->cluster - 1)));
			k = iov_slice(iov, niov, done, part, cut, VIRTQUEUE_CHAIN_MAX);
			pthread_rwlock_wrlock(&q->lock);
			r = write_cluster(q, cut, k, off + done, part);
			pthread_rwlock_unlock(&q->lock);
		}
		done += part;
	}
	return r;
}

int qcow2_flush(struct blk_disk *d)
{
	struct qcow2 *q = container_of(d, struct qcow2, disk);
	bool clean;

	if (q->no_flush)
		return 0;
	pthread_rwlock_rdlock(&q->lock);
	pthread_mutex_lock(&q->cache_lock);
	clean = !q->ndirty && !q->l1_dirty && !q->nfrees;
	pthread_mutex_unlock(&q->cache_lock);
	pthread_rwlock_unlock(&q->lock);
	return clean ? sync_file(q) : qcow2_flush_all(q);
}

/* ---- giving space back, zeroing ---- */

static int punch(struct qcow2 *q, uint64_t off, uint64_t len)
{
	while (fallocate(q->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off,
			 (off_t)len) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

int qcow2_discard(struct blk_disk *d, uint64_t off, uint64_t len)
{
	struct qcow2 *q = container_of(d, struct qcow2, disk);
	int r = 0;

	pthread_rwlock_rdlock(&q->lock);
	while (len && r == 0) {
		struct qcow2_map m;

		r = qcow2_map_run(q, off, len, &m);
		if (r < 0)
			break;
		/* Advice: what would need work on the map is left as it is. */
		if (in_place(q, &m))
			r = punch(q, m.host, m.len);
		if (r == -EOPNOTSUPP)
			r = 0;
		off += m.len;
		len -= m.len;
	}
	pthread_rwlock_unlock(&q->lock);
	return r;
}

static int write_zero_bytes(struct qcow2 *q, uint64_t off, uint64_t len)
{
	static const uint8_t zeros[65536];
	int r = 0;

	while (len && r == 0) {
		struct iovec iov = {(void *)(uintptr_t)zeros, MIN(len, sizeof(zeros))};
		uint64_t n = iov.iov_len;

		r = qcow2_write(&q->disk, &iov, 1, off);
		off += n;
		len -= n;
	}
	return r;
}

/* A whole cluster becomes zeros by its entry alone. */
static int zero_entry(struct qcow2 *q, uint64_t off)
{
	struct qcow2_map m;
	uint64_t table;
	int r;

	pthread_rwlock_wrlock(&q->lock);
	r = q->corrupt ? -EIO : qcow2_map(q, off, &m);
	if (r == 0 && m.kind != QCOW2_IS_ZERO) {
		r = own_table(q, off, &table);
		if (r == 0)
			r = set_entry(q, table, off, QCOW2_ZERO);
		if (r == 0)
			r = drop_old(q, &m, 0);
	}
	pthread_rwlock_unlock(&q->lock);
	return r;
}

/* What can be done without touching the map. 1: it needs more. */
static int zero_run(struct qcow2 *q, uint64_t off, uint64_t len, struct qcow2_map *m)
{
	int r;

	pthread_rwlock_rdlock(&q->lock);
	r = qcow2_map_run(q, off, len, m);
	if (r == 0 && m->kind != QCOW2_IS_ZERO && (m->kind != QCOW2_IS_BACKING || q->backing)) {
		r = 1;
		if (in_place(q, m))
			r = punch(q, m->host, m->len);
		if (r == -EOPNOTSUPP)
			r = 1;
	}
	pthread_rwlock_unlock(&q->lock);
	return r;
}

int qcow2_write_zeroes(struct blk_disk *d, uint64_t off, uint64_t len, bool unmap)
{
	struct qcow2 *q = container_of(d, struct qcow2, disk);

	(void)unmap;
	while (len) {
		struct qcow2_map m;
		uint64_t in = off & (q->cluster - 1), n;
		int r = zero_run(q, off, len, &m);

		n = r == 0 ? m.len : MIN(len, q->cluster - in);
		/* Data in place stays there: an entry of its own would have to be dropped first. */
		if (r == 1 && n == q->cluster && q->version >= 3 &&
		    !(m.kind == QCOW2_IS_DATA && m.entry & QCOW2_COPIED))
			r = zero_entry(q, off);
		else if (r == 1)
			r = write_zero_bytes(q, off, n);
		if (r < 0)
			return r;
		off += n;
		len -= n;
	}
	return 0;
}

int qcow2_open_writing(struct qcow2 *q, uint64_t autoclear, struct err *err)
{
	uint64_t none = 0;
	int r = 0;

	q->bounce = malloc(q->cluster);
	if (!q->bounce)
		return err_set(err, ENOMEM, "out of memory");
	if (!q->reftable_n || q->reftable_off < q->cluster || q->l1_off < q->cluster)
		return err_set(err, ERR_CORRUPT, "its tables lie where they cannot be");
	/* Features that hold only as long as nobody writes who does not know them. */
	if (autoclear)
		r = qcow2_file_io(q, &none, sizeof(none), HEADER_AUTOCLEAR, true);
	return r < 0 ? err_set(err, r, "cannot write to it: %s", err_name(r)) : 0;
}
