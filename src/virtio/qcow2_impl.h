/* SPDX-License-Identifier: Apache-2.0 */
/* What qcow2.c (opening, mapping, reading) and qcow2_write.c (the rest) share. */
#ifndef VIRTIO_QCOW2_IMPL_H
#define VIRTIO_QCOW2_IMPL_H

#include <pthread.h>

#include "virtio/qcow2.h"

/* Bits of L1 and L2 entries. */
#define QCOW2_COPIED	 (1ull << 63) /* exactly one reference: may be written in place */
#define QCOW2_COMPRESSED (1ull << 62)
#define QCOW2_ZERO	 1ull
#define QCOW2_OFFSET	 0x00fffffffffffe00ull

#define QCOW2_NONE UINT64_MAX

enum {
	QCOW2_CLUSTER_BITS_MIN = 9,
	QCOW2_CLUSTER_BITS_MAX = 21,
	/* Tables are cached in slices: small clusters whole, large ones in part. */
	QCOW2_SLICE_MAX = 4096,
	QCOW2_SETS = 64,
	QCOW2_WAYS = 8, /* with the above 2 MiB, the map of 16 GiB in clusters of 64 KiB */
	QCOW2_INFLATED = 4,
	QCOW2_FREES_MAX = 512,
	/* Both as QEMU has them: 2 EiB in clusters of 64 KiB. */
	QCOW2_L1_MAX = (32 << 20) / 8,
	QCOW2_REFTABLE_MAX = (8 << 20) / 8,
};

struct qcow2_slice {
	uint64_t off;
	uint64_t used; /* clock of its last use */
	bool dirty;
	uint8_t *p;
};

/* A decompressed cluster. */
struct qcow2_inflated {
	uint64_t entry, used;
	uint8_t *p;
};

/* Clusters whose last reference is gone from the tables in memory, but not yet from the file. */
struct qcow2_free {
	uint64_t cluster;
	uint32_t n;
};

struct qcow2 {
	struct blk_disk disk;
	int fd;
	bool no_flush, zstd, subclusters;
	unsigned version, cluster_bits, l2_bits, entry_size, refcount_order;
	uint32_t cluster, slice;
	struct blk_disk *backing;

	/* Shared to use the map (and what it points to), exclusive to change it. */
	pthread_rwlock_t lock;
	uint64_t file_end; /* bytes, a multiple of the cluster: all before it may be looked at */
	uint64_t *l1, l1_off;
	uint32_t l1_n;
	bool l1_dirty, corrupt;
	uint64_t *reftable, reftable_off;
	uint32_t reftable_n;
	uint64_t hint;	 /* no cluster before it is known to be free */
	uint8_t *bounce; /* one cluster, for whoever holds the lock exclusively */
	struct qcow2_free frees[QCOW2_FREES_MAX];
	unsigned nfrees;

	pthread_mutex_t cache_lock; /* inside of the above */
	struct qcow2_slice slices[QCOW2_SETS][QCOW2_WAYS];
	uint64_t clock;
	unsigned ndirty;

	pthread_mutex_t inflate_lock; /* inside of the above as well */
	struct qcow2_inflated inflated[QCOW2_INFLATED];
	uint64_t inflations;
	uint8_t *packed;
};

enum qcow2_kind { QCOW2_IS_ZERO, QCOW2_IS_DATA, QCOW2_IS_COMPRESSED, QCOW2_IS_BACKING };

/* What a stretch of the disk is made of. */
struct qcow2_map {
	enum qcow2_kind kind;
	uint64_t host;	/* data: where; zero: a cluster kept for it, or 0 */
	uint64_t entry; /* as in the table */
	uint64_t len;	/* bytes it holds for */
};

/* All of these with the lock held. 0 or -errno. */
int qcow2_map(struct qcow2 *q, uint64_t off, struct qcow2_map *m);
/* The same, as far as it goes on in one piece, up to @max bytes. */
int qcow2_map_run(struct qcow2 *q, uint64_t off, uint64_t max, struct qcow2_map *m);
int qcow2_read_locked(struct qcow2 *q, struct iovec *iov, unsigned niov, uint64_t off);
/* @n bytes of the file. */
int qcow2_file_io(struct qcow2 *q, void *p, size_t n, uint64_t off, bool write);
/*
 * The slice that holds byte @off of the file. Call with the cache locked; it stays until the next
 * call.
 */
int qcow2_slice(struct qcow2 *q, uint64_t off, struct qcow2_slice **ret);
/* Forget what is cached of a cluster that begins a new life. */
void qcow2_slice_forget(struct qcow2 *q, uint64_t off);
/* Compressed clusters: where the bytes are. */
void qcow2_packed(const struct qcow2 *q, uint64_t entry, uint64_t *off, uint32_t *len);

/* qcow2_write.c */
/* Dirty slices and the L1 table to the file, behind what they point to. With the cache locked. */
int qcow2_write_back(struct qcow2 *q);
int qcow2_open_writing(struct qcow2 *q, uint64_t autoclear, struct err *err);
int qcow2_flush_all(struct qcow2 *q);
int qcow2_write(struct blk_disk *d, struct iovec *iov, unsigned niov, uint64_t off);
int qcow2_flush(struct blk_disk *d);
int qcow2_discard(struct blk_disk *d, uint64_t off, uint64_t len);
int qcow2_write_zeroes(struct blk_disk *d, uint64_t off, uint64_t len, bool unmap);

#endif
