/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2 (QEMU's docs/interop/qcow2.txt): opening, the map, reading.
 *
 * Theory of operation. A disk is cut into clusters. The L1 table, which is held in memory, names L2
 * tables; an L2 entry says where a cluster is: in the file, compressed somewhere in the file,
 * nowhere (zeros), or in the image below. L2 tables and reference counts are read in slices through
 * one bounded cache.
 *
 * Each offset that comes from the file is checked where it is used: tables must lie inside of the
 * file, data must begin there (an image may end in the middle of its last cluster; what is missing
 * reads as zeros, as with QEMU). What does not fit is -EIO for that request alone.
 *
 * Requests run in parallel with the lock held shared; those that change the map hold it
 * exclusively (qcow2_write.c). A cluster's place can therefore not change under a transfer.
 */
#include <endian.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "base/iov.h"
#include "virtio/qcow2_impl.h"
#include "virtio/virtqueue.h"

#define QCOW2_MAGIC 0x514649fbu

enum {
	HEADER_V2 = 72,
	HEADER_V3 = 104,
	NAME_MAX_BYTES = 1023,
	/* Incompatible features. */
	INCOMPAT_DIRTY = 1 << 0,
	INCOMPAT_CORRUPT = 1 << 1,
	INCOMPAT_DATA_FILE = 1 << 2,
	INCOMPAT_COMPRESSION = 1 << 3,
	INCOMPAT_EXTENDED_L2 = 1 << 4,
	INCOMPAT_KNOWN = (1 << 5) - 1,
	SUBCLUSTERS = 32,
	/* QEMU's clusters of 2 MiB need 21; a larger window only costs memory. */
	ZSTD_WINDOW_LOG = 22,
};

struct header {
	uint32_t magic, version;
	uint64_t backing_off;
	uint32_t backing_len, cluster_bits;
	uint64_t size;
	uint32_t crypt, l1_n;
	uint64_t l1_off, reftable_off;
	uint32_t reftable_clusters, snapshots;
	uint64_t snapshots_off;
	/* Version 3. */
	uint64_t incompatible, compatible, autoclear;
	uint32_t refcount_order, length;
	uint8_t compression, padding[7];
} __attribute__((packed));
_Static_assert(sizeof(struct header) == 112, "qcow2 header layout");

/* ---- the file ---- */

/* Transfer everything; what a read finds behind the end of the file is zero. */
static int transfer(struct qcow2 *q, struct iovec *iov, unsigned niov, uint64_t off, bool write)
{
	int r = iov_transfer(q->fd, iov, niov, off, write);

	return r == -ENODATA ? 0 : r;
}

int qcow2_file_io(struct qcow2 *q, void *p, size_t n, uint64_t off, bool write)
{
	struct iovec iov = {p, n};

	return transfer(q, &iov, 1, off, write);
}

/* ---- the cache of tables ---- */

static struct qcow2_slice *slice_set(struct qcow2 *q, uint64_t off)
{
	/* Neighbours go to different sets; Fibonacci hashing spreads equal strides as well. */
	return q->slices[(off / q->slice * 0x9e3779b97f4a7c15ull) >> 58];
}
_Static_assert(QCOW2_SETS == 1 << (64 - 58), "the hash yields a set");

static struct qcow2_slice *slice_victim(struct qcow2_slice *set)
{
	struct qcow2_slice *best = NULL;

	for (int i = 0; i < QCOW2_WAYS; i++) {
		if (!set[i].dirty && (!best || set[i].used < best->used))
			best = &set[i];
	}
	return best;
}

int qcow2_slice(struct qcow2 *q, uint64_t off, struct qcow2_slice **ret)
{
	struct qcow2_slice *set, *s;
	int r;

	off -= off % q->slice;
	set = slice_set(q, off);
	for (int i = 0; i < QCOW2_WAYS; i++) {
		if (set[i].p && set[i].off == off) {
			set[i].used = ++q->clock;
			*ret = &set[i];
			return 0;
		}
	}
	if (off > q->file_end || q->file_end - off < q->slice)
		return -EIO;
	s = slice_victim(set);
	if (!s) {
		r = qcow2_write_back(q);
		if (r < 0)
			return r;
		s = slice_victim(set);
	}
	if (!s->p)
		s->p = malloc(q->slice);
	if (!s->p)
		return -ENOMEM;
	s->off = QCOW2_NONE;
	s->used = 0;
	r = qcow2_file_io(q, s->p, q->slice, off, false);
	if (r < 0)
		return r;
	s->off = off;
	s->used = ++q->clock;
	*ret = s;
	return 0;
}

void qcow2_slice_forget(struct qcow2 *q, uint64_t off)
{
	for (uint64_t at = off; at < off + q->cluster; at += q->slice) {
		struct qcow2_slice *set = slice_set(q, at);

		for (int i = 0; i < QCOW2_WAYS; i++) {
			if (set[i].off != at)
				continue;
			q->ndirty -= set[i].dirty;
			set[i].dirty = false;
			set[i].off = QCOW2_NONE;
			set[i].used = 0;
		}
	}
}

/* ---- the map ---- */

/* The L2 entry for @off, and its bitmap of subclusters if there are any. */
static int l2_entry(struct qcow2 *q, uint64_t table, uint64_t off, uint64_t *entry,
		    uint64_t *bitmap)
{
	uint64_t index = off >> q->cluster_bits & ((1ull << q->l2_bits) - 1);
	uint64_t at = table + index * q->entry_size, v[2] = {0};
	struct qcow2_slice *s;
	int r;

	pthread_mutex_lock(&q->cache_lock);
	r = qcow2_slice(q, at, &s);
	if (r == 0)
		memcpy(v, s->p + at % q->slice, q->entry_size);
	pthread_mutex_unlock(&q->cache_lock);
	*entry = be64toh(v[0]);
	*bitmap = be64toh(v[1]);
	return r;
}

/* Which subcluster @off is in, and what the next ones like it have in common with it. */
static int map_subclusters(struct qcow2 *q, uint64_t off, uint64_t bitmap, struct qcow2_map *m)
{
	uint32_t allocated = (uint32_t)bitmap, zero = (uint32_t)(bitmap >> 32);
	uint32_t size = q->cluster / SUBCLUSTERS, in = (uint32_t)(off & (q->cluster - 1));
	uint32_t i = in / size, end = i + 1;
	bool a = allocated >> i & 1, z = zero >> i & 1;

	if ((allocated & zero) || (allocated && !m->host))
		return -EIO;
	while (end < SUBCLUSTERS && (allocated >> end & 1) == a && (zero >> end & 1) == z)
		end++;
	m->kind = z ? QCOW2_IS_ZERO : a ? QCOW2_IS_DATA : QCOW2_IS_BACKING;
	m->len = (uint64_t)end * size - in;
	return 0;
}

int qcow2_map(struct qcow2 *q, uint64_t off, struct qcow2_map *m)
{
	unsigned span = q->cluster_bits + q->l2_bits;
	uint64_t in = off & (q->cluster - 1), table, bitmap;
	int r;

	*m = (struct qcow2_map){.kind = QCOW2_IS_BACKING, .len = q->cluster - in};
	if (off >> span >= q->l1_n)
		return -EIO;
	table = q->l1[off >> span] & QCOW2_OFFSET;
	if (!table) {
		m->len = (1ull << span) - (off & ((1ull << span) - 1));
		return 0;
	}
	if (table & (q->cluster - 1))
		return -EIO;
	r = l2_entry(q, table, off, &m->entry, &bitmap);
	if (r < 0)
		return r;
	if (m->entry & QCOW2_COMPRESSED) {
		m->kind = QCOW2_IS_COMPRESSED;
		return 0;
	}
	m->host = m->entry & QCOW2_OFFSET;
	if (m->host & (q->cluster - 1) || (m->host && m->host >= q->file_end))
		return -EIO;
	if (q->subclusters) {
		r = m->entry & QCOW2_ZERO ? -EIO : map_subclusters(q, off, bitmap, m);
	} else if (m->entry & QCOW2_ZERO) {
		m->kind = QCOW2_IS_ZERO;
		r = q->version < 3 ? -EIO : 0;
	} else if (m->host) {
		m->kind = QCOW2_IS_DATA;
	}
	if (m->kind == QCOW2_IS_DATA)
		m->host += in;
	return r;
}

int qcow2_map_run(struct qcow2 *q, uint64_t off, uint64_t max, struct qcow2_map *m)
{
	int r = qcow2_map(q, off, m);

	/* A compressed cluster stands for itself. */
	while (r == 0 && m->len < max && m->kind != QCOW2_IS_COMPRESSED) {
		struct qcow2_map next;

		/* What is wrong with the next cluster is said when it is its turn. */
		if (qcow2_map(q, off + m->len, &next) < 0 || next.kind != m->kind)
			break;
		if (m->kind == QCOW2_IS_DATA &&
		    (next.host != m->host + m->len || (next.entry ^ m->entry) & QCOW2_COPIED))
			break;
		m->len += next.len;
	}
	m->len = MIN(m->len, max);
	return r;
}

/* ---- compressed clusters ---- */

void qcow2_packed(const struct qcow2 *q, uint64_t entry, uint64_t *off, uint32_t *len)
{
	unsigned bits = 62 - (q->cluster_bits - 8);
	uint32_t sectors = (uint32_t)(entry >> bits & ((1u << (q->cluster_bits - 8)) - 1)) + 1;

	*off = entry & ((1ull << bits) - 1);
	*len = sectors * 512 - (uint32_t)(*off & 511);
}

static int inflate_zlib(const uint8_t *p, size_t n, uint8_t *to, size_t size)
{
	z_stream z = {
		.next_in = (uint8_t *)(uintptr_t)p,
		.avail_in = (uInt)n,
		.next_out = to,
		.avail_out = (uInt)size,
	};

	/* Raw deflate data with any window. */
	if (inflateInit2(&z, -15) != Z_OK)
		return -ENOMEM;
	inflate(&z, Z_FINISH);
	inflateEnd(&z);
	return z.avail_out ? -EIO : 0;
}

static int inflate_zstd(const uint8_t *p, size_t n, uint8_t *to, size_t size)
{
	ZSTD_DCtx *z = ZSTD_createDCtx();
	ZSTD_inBuffer in = {p, n, 0};
	ZSTD_outBuffer out = {to, size, 0};
	size_t r = 0, before;

	if (!z)
		return -ENOMEM;
	ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
	/* The sectors may hold more than the frame, so neither end tells the other's. */
	do {
		before = in.pos + out.pos;
		r = ZSTD_decompressStream(z, &out, &in);
	} while (!ZSTD_isError(r) && out.pos < size && in.pos + out.pos > before);
	ZSTD_freeDCtx(z);
	return out.pos == size ? 0 : -EIO;
}

/* The contents of a compressed cluster. With inflate_lock held; good until it is released. */
static int inflated(struct qcow2 *q, uint64_t entry, const uint8_t **ret)
{
	struct qcow2_inflated *c = &q->inflated[0];
	uint64_t off;
	uint32_t len;
	int r;

	for (int i = 0; i < QCOW2_INFLATED; i++) {
		struct qcow2_inflated *x = &q->inflated[i];

		if (x->entry == entry) {
			c = x;
			break;
		}
		if (x->used < c->used)
			c = x;
	}
	c->used = ++q->inflations;
	*ret = c->p;
	if (c->entry == entry)
		return 0;
	qcow2_packed(q, entry, &off, &len);
	if (off >= q->file_end)
		return -EIO;
	/* The most that a descriptor can say: sectors for twice the cluster. */
	if (!q->packed)
		q->packed = malloc(2 * (size_t)q->cluster);
	if (!c->p)
		c->p = malloc(q->cluster);
	if (!q->packed || !c->p)
		return -ENOMEM;
	c->entry = 0;
	r = qcow2_file_io(q, q->packed, len, off, false);
	if (r == 0)
		r = (q->zstd ? inflate_zstd : inflate_zlib)(q->packed, len, c->p, q->cluster);
	if (r < 0)
		return r;
	c->entry = entry;
	*ret = c->p;
	return 0;
}

static int read_compressed(struct qcow2 *q, uint64_t entry, const struct iovec *iov, unsigned niov,
			   size_t at, size_t in, size_t n)
{
	const uint8_t *p;
	int r;

	pthread_mutex_lock(&q->inflate_lock);
	r = inflated(q, entry, &p);
	if (r == 0)
		iov_write(iov, niov, at, p + in, n);
	pthread_mutex_unlock(&q->inflate_lock);
	return r;
}

/* ---- reading ---- */

static int read_backing(struct qcow2 *q, const struct iovec *iov, unsigned niov, size_t at,
			uint64_t off, size_t n)
{
	struct iovec cut[VIRTQUEUE_CHAIN_MAX];
	size_t there = 0;
	unsigned k;

	if (q->backing && off < q->backing->size)
		there = MIN(n, q->backing->size - off);
	iov_zero(iov, niov, at + there, n - there);
	if (!there)
		return 0;
	k = iov_slice(iov, niov, at, there, cut, VIRTQUEUE_CHAIN_MAX);
	return q->backing->ops->read(q->backing, cut, k, off);
}

int qcow2_read_locked(struct qcow2 *q, struct iovec *iov, unsigned niov, uint64_t off)
{
	size_t total = iov_size(iov, niov);

	for (size_t done = 0; done < total;) {
		struct iovec cut[VIRTQUEUE_CHAIN_MAX];
		struct qcow2_map m;
		unsigned k;
		int r = qcow2_map_run(q, off + done, total - done, &m);

		if (r < 0)
			return r;
		switch (m.kind) {
		case QCOW2_IS_ZERO:
			iov_zero(iov, niov, done, m.len);
			break;
		case QCOW2_IS_BACKING:
			r = read_backing(q, iov, niov, done, off + done, m.len);
			break;
		case QCOW2_IS_COMPRESSED:
			r = read_compressed(q, m.entry, iov, niov, done,
					    (off + done) & (q->cluster - 1), m.len);
			break;
		case QCOW2_IS_DATA:
			k = iov_slice(iov, niov, done, m.len, cut, VIRTQUEUE_CHAIN_MAX);
			r = transfer(q, cut, k, m.host, false);
			break;
		}
		if (r < 0)
			return r;
		done += m.len;
	}
	return 0;
}

static int qcow2_read(struct blk_disk *d, struct iovec *iov, unsigned niov, uint64_t off)
{
	struct qcow2 *q = container_of(d, struct qcow2, disk);
	int r;

	pthread_rwlock_rdlock(&q->lock);
	r = qcow2_read_locked(q, iov, niov, off);
	pthread_rwlock_unlock(&q->lock);
	return r;
}

/* ---- opening ---- */

static void release(struct qcow2 *q)
{
	for (int i = 0; i < QCOW2_SETS; i++) {
		for (int k = 0; k < QCOW2_WAYS; k++)
			free(q->slices[i][k].p);
	}
	for (int i = 0; i < QCOW2_INFLATED; i++)
		free(q->inflated[i].p);
	pthread_rwlock_destroy(&q->lock);
	pthread_mutex_destroy(&q->cache_lock);
	pthread_mutex_destroy(&q->inflate_lock);
	free(q->packed);
	free(q->bounce);
	free(q->l1);
	free(q->reftable);
	free(q);
}

static void qcow2_free(struct blk_disk *d)
{
	struct qcow2 *q = container_of(d, struct qcow2, disk);

	/* A guest that ended well has flushed; what is left are books to close. */
	if (!d->read_only && !q->no_flush)
		(void)qcow2_flush_all(q);
	blk_disk_free(q->backing);
	close_fd(q->fd);
	release(q);
}

static const struct blk_disk_ops qcow2_ops = {
	.read = qcow2_read,
	.write = qcow2_write,
	.flush = qcow2_flush,
	.discard = qcow2_discard,
	.write_zeroes = qcow2_write_zeroes,
	.free = qcow2_free,
};

static int check_features(const struct header *h, bool read_only, struct err *err)
{
	static const char repair[] = "repair it with `qemu-img check -r all FILE`";
	uint64_t f = be64toh(h->incompatible);

	if (f & ~(uint64_t)INCOMPAT_KNOWN)
		return err_set(err, ERR_UNSUPPORTED,
			       "it uses a feature of qcow2 that we do not know (bits %#llx)",
			       (unsigned long long)(f & ~(uint64_t)INCOMPAT_KNOWN));
	if (f & INCOMPAT_CORRUPT) {
		err_set(err, ERR_CORRUPT, "the image is marked corrupt");
		return err_hint(err, "%s", repair);
	}
	if (f & INCOMPAT_DATA_FILE) {
		err_set(err, ERR_UNSUPPORTED, "its data is in another file");
		return err_hint(err, "`qemu-img convert -O qcow2` makes one file of it");
	}
	if (h->crypt) {
		err_set(err, ERR_UNSUPPORTED, "the image is encrypted");
		return err_hint(err, "decrypt it with `qemu-img convert`");
	}
	if (read_only)
		return 0;
	if (f & INCOMPAT_DIRTY) {
		err_set(err, ERR_CORRUPT,
			"the image was not closed properly, so that its "
			"reference counts may be wrong");
		return err_hint(err, "%s, or use it without rw", repair);
	}
	if (f & INCOMPAT_EXTENDED_L2) {
		err_set(err, ERR_UNSUPPORTED,
			"images with extended L2 entries (subclusters) cannot be written");
		return err_hint(err, "use it without rw, or convert it with "
				     "`qemu-img convert -O qcow2 -o extended_l2=off`");
	}
	return 0;
}

/* A name out of the file, for a message. */
static void printable(char *s)
{
	for (; *s; s++) {
		if ((unsigned char)*s < ' ' || (unsigned char)*s >= 127)
			*s = '?';
	}
}

static int check_backing(struct qcow2 *q, const struct header *h, struct err *err)
{
	uint32_t len = be32toh(h->backing_len);
	uint64_t off = be64toh(h->backing_off);
	char name[NAME_MAX_BYTES + 1] = "";
	int r;

	if (!off && q->backing) {
		err_set(err, ERR_USAGE, "the image does not rest on another");
		return err_hint(err, "leave backing= out");
	}
	if (!off)
		return 0;
	if (len > NAME_MAX_BYTES || off > q->cluster || off + len > q->cluster)
		return err_set(err, ERR_CORRUPT, "the name of its backing file is out of bounds");
	if (q->backing)
		return 0;
	r = qcow2_file_io(q, name, len, off, false);
	if (r < 0)
		return err_set(err, r, "cannot read it: %s", err_name(r));
	printable(name);
	err_set(err, ERR_UNSUPPORTED, "the image rests on another, which it calls \"%s\"", name);
	return err_hint(err, "name that one yourself if you trust it: FILE:backing=PATH");
}

/* A table of 64-bit numbers: @n of them at @off. */
static int read_table(struct qcow2 *q, const char *what, uint64_t off, uint64_t n, uint64_t max,
		      uint64_t **ret, struct err *err)
{
	uint64_t *t;
	int r;

	if (n > max)
		return err_set(err, ERR_LIMIT, "its %s has %llu entries; %llu are the most", what,
			       (unsigned long long)n, (unsigned long long)max);
	if (!off || off & (q->cluster - 1) || off > q->file_end || n * 8 > q->file_end - off)
		return err_set(err, ERR_CORRUPT, "its %s is out of bounds", what);
	t = malloc(n * 8 + 8);
	if (!t)
		return err_set(err, ENOMEM, "out of memory");
	r = qcow2_file_io(q, t, n * 8, off, false);
	if (r < 0) {
		free(t);
		return err_set(err, r, "cannot read its %s: %s", what, err_name(r));
	}
	for (uint64_t i = 0; i < n; i++)
		t[i] = be64toh(t[i]);
	*ret = t;
	return 0;
}

static int read_geometry(struct qcow2 *q, const struct header *h, uint64_t file_size,
			 struct err *err)
{
	uint64_t f = be64toh(h->incompatible), size = be64toh(h->size);
	uint32_t bits = be32toh(h->cluster_bits), length = be32toh(h->length);

	if (bits < QCOW2_CLUSTER_BITS_MIN || bits > QCOW2_CLUSTER_BITS_MAX)
		return err_set(err, ERR_CORRUPT, "its clusters have 2^%u bytes", bits);
	q->cluster_bits = bits;
	q->cluster = 1u << bits;
	q->slice = MIN(q->cluster, (uint32_t)QCOW2_SLICE_MAX);
	q->subclusters = f & INCOMPAT_EXTENDED_L2;
	q->entry_size = q->subclusters ? 16 : 8;
	q->l2_bits = bits - (q->subclusters ? 4 : 3);
	q->refcount_order = be32toh(h->refcount_order);
	if (file_size > (uint64_t)INT64_MAX - q->cluster)
		return err_set(err, EFBIG, "it is too large");
	q->file_end = (file_size + q->cluster - 1) & ~(uint64_t)(q->cluster - 1);
	if (q->version == 3 && (length < HEADER_V3 || length > q->cluster))
		return err_set(err, ERR_CORRUPT, "its header has %u bytes", length);
	if (q->refcount_order > 6)
		return err_set(err, ERR_CORRUPT, "its reference counts have 2^%u bits",
			       q->refcount_order);
	if (q->subclusters && q->cluster / SUBCLUSTERS < BLK_SECTOR)
		return err_set(err, ERR_CORRUPT, "its clusters are too small for subclusters");
	if (f & INCOMPAT_COMPRESSION) {
		if (length <= HEADER_V3 || h->compression > 1)
			return err_set(err, ERR_UNSUPPORTED,
				       "it is compressed in a way that we do not know (%u)",
				       h->compression);
		q->zstd = h->compression == 1;
	}
	if (!size || size % BLK_SECTOR || size > INT64_MAX)
		return err_set(err, ERR_CORRUPT, "its disk has %llu bytes",
			       (unsigned long long)size);
	q->disk.size = size;
	return 0;
}

static int read_header(struct qcow2 *q, struct header *h, struct err *err)
{
	struct stat st;
	int r;

	if (fstat(q->fd, &st) < 0)
		return err_errno(err, "cannot stat it");
	if (!S_ISREG(st.st_mode))
		return err_set(err, EINVAL, "it is not a regular file");
	r = qcow2_file_io(q, h, sizeof(*h), 0, false);
	if (r < 0)
		return err_set(err, r, "cannot read it: %s", err_name(r));
	if (be32toh(h->magic) != QCOW2_MAGIC || st.st_size < HEADER_V2) {
		err_set(err, ERR_CORRUPT, "it is no qcow2 image");
		return err_hint(err, "if it holds the disk as it is, say so: FILE:format=raw");
	}
	q->version = be32toh(h->version);
	if (q->version != 2 && q->version != 3)
		return err_set(err, ERR_UNSUPPORTED,
			       "it is of version %u of qcow2; we know 2 and 3", q->version);
	if (q->version == 2) {
		memset((uint8_t *)h + HEADER_V2, 0, sizeof(*h) - HEADER_V2);
		h->refcount_order = htobe32(4);
	}
	r = check_features(h, q->disk.read_only, err);
	return r < 0 ? r : read_geometry(q, h, (uint64_t)st.st_size, err);
}

static int open_tables(struct qcow2 *q, const struct header *h, struct err *err)
{
	unsigned span = q->cluster_bits + q->l2_bits;
	uint64_t needed = (q->disk.size - 1) >> span;
	int r;

	q->l1_n = be32toh(h->l1_n);
	q->l1_off = be64toh(h->l1_off);
	if (q->l1_n <= needed)
		return err_set(err, ERR_CORRUPT, "its L1 table is too small for the disk");
	r = read_table(q, "L1 table", q->l1_off, q->l1_n, QCOW2_L1_MAX, &q->l1, err);
	if (r < 0 || q->disk.read_only)
		return r;
	q->reftable_off = be64toh(h->reftable_off);
	if (be32toh(h->reftable_clusters) > QCOW2_REFTABLE_MAX)
		return err_set(err, ERR_LIMIT, "its table of reference counts is too large");
	r = read_table(q, "table of reference counts", q->reftable_off,
		       (uint64_t)be32toh(h->reftable_clusters) << (q->cluster_bits - 3),
		       QCOW2_REFTABLE_MAX, &q->reftable, err);
	if (r < 0)
		return r;
	q->reftable_n = be32toh(h->reftable_clusters) << (q->cluster_bits - 3);
	return qcow2_open_writing(q, be64toh(h->autoclear), err);
}

int qcow2_open(int fd, const struct qcow2_options *o, struct blk_disk **ret, struct err *err)
{
	struct qcow2 *q = calloc(1, sizeof(*q));
	struct header h;
	int r;

	if (!q)
		return err_set(err, ENOMEM, "cannot open a disk image: out of memory");
	q->fd = fd;
	q->disk = (struct blk_disk){.ops = &qcow2_ops, .read_only = o->read_only};
	q->no_flush = o->no_flush;
	q->backing = o->backing;
	pthread_rwlock_init(&q->lock, NULL);
	pthread_mutex_init(&q->cache_lock, NULL);
	pthread_mutex_init(&q->inflate_lock, NULL);
	r = read_header(q, &h, err);
	if (r == 0)
		r = check_backing(q, &h, err);
	if (r == 0)
		r = open_tables(q, &h, err);
	if (r < 0) {
		release(q);
		return r;
	}
	*ret = &q->disk;
	return 0;
}

/* ---- making one ---- */

/* A header extension: type, length, data padded to 8 bytes. Returns where the next one goes. */
static size_t add_extension(uint8_t *at, uint32_t type, const char *text)
{
	uint32_t head[2] = {htobe32(type), htobe32((uint32_t)strlen(text))};

	memcpy(at, head, sizeof(head));
	memcpy(at + sizeof(head), text, strlen(text));
	return sizeof(head) + (strlen(text) + 7) / 8 * 8;
}

int qcow2_create(int fd, uint64_t size, const char *backing, const char *format, struct err *err)
{
	enum { BITS = 16, CLUSTER = 1 << BITS };
	const uint32_t backing_format = 0xe2792aca;
	/* Header, table of reference counts, one block of them, and the L1 table. */
	const uint64_t l1_n = ((size - 1) >> (BITS + BITS - 3)) + 1;
	const uint64_t clusters = 3 + (l1_n * 8 + CLUSTER - 1) / CLUSTER;
	cleanup_free uint8_t *p = calloc(1, (size_t)CLUSTER);
	struct header h = {
		.magic = htobe32(QCOW2_MAGIC),
		.version = htobe32(3),
		.cluster_bits = htobe32(BITS),
		.size = htobe64(size),
		.l1_n = htobe32((uint32_t)l1_n),
		.l1_off = htobe64(3 * CLUSTER),
		.reftable_off = htobe64(CLUSTER),
		.reftable_clusters = htobe32(1),
		.refcount_order = htobe32(4),
		.length = htobe32(sizeof(h)),
		.backing_len = htobe32((uint32_t)strlen(backing)),
	};
	uint64_t block = htobe64(2 * CLUSTER);
	size_t at = sizeof(h);
	int r;

	if (!size || size % BLK_SECTOR || l1_n > QCOW2_L1_MAX || clusters > CLUSTER / 2u)
		return err_set(err, EINVAL, "a disk cannot have %llu bytes",
			       (unsigned long long)size);
	if (strlen(backing) > NAME_MAX_BYTES)
		return err_set(err, ENAMETOOLONG, "the name %.60s… is too long for an overlay",
			       backing);
	if (!p)
		return err_set(err, ENOMEM, "cannot create an overlay: out of memory");
	/* From the back, so that there is a header only when all is there. */
	for (size_t i = 0; i < clusters; i++)
		p[2 * i + 1] = 1;
	if (fallocate(fd, 0, 0, (off_t)(clusters * CLUSTER)) < 0 && errno != EOPNOTSUPP)
		return err_errno(err, "cannot write an overlay");
	r = iov_transfer(fd, &(struct iovec){p, CLUSTER}, 1, 2 * CLUSTER, true);
	if (r == 0)
		r = iov_transfer(fd, &(struct iovec){&block, 8}, 1, CLUSTER, true);
	memset(p, 0, CLUSTER);
	at += add_extension(p + at, backing_format, format);
	at += add_extension(p + at, 0, ""); /* the end of extensions */
	h.backing_off = htobe64(at);
	memcpy(p, &h, sizeof(h));
	memcpy(p + at, backing, strlen(backing));
	if (r == 0)
		r = iov_transfer(fd, &(struct iovec){p, CLUSTER}, 1, 0, true);
	return r < 0 ? err_set(err, r, "cannot write an overlay: %s", err_name(r)) : 0;
}
