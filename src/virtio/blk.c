/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request is one chain: a 16-byte header, data, and a last writable byte for the status. How the
 * driver cuts it into buffers means nothing (2.7.4.3), so header and status are found by counting
 * bytes. The used length always covers all writable bytes: what a request did not fill is zeroed
 * first, so that neither a lie about the length nor stale memory reaches the driver.
 */
#include "virtio/blk.h"

#include <endian.h>
#include <linux/virtio_blk.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/iov.h"

enum {
	QUEUE_SIZE_DEFAULT = 256,
	/*
	 * A slice of requests: a stop waits for this many at most, or for these bytes and the
	 * request that passes them.
	 */
	SLICE = 64,
	SLICE_BYTES = 4 << 20,
	/* Header and status take two buffers of a 128-entry ring; the shape QEMU offers too. */
	SEG_MAX = 126,
	/* With SEG_MAX this bounds a request, and so the time it takes, to 126 MiB. */
	SIZE_MAX_BYTES = 1 << 20,
	RANGE_SEGS_MAX = 16,
};

#define REQUEST_MAX ((uint64_t)SEG_MAX * SIZE_MAX_BYTES)
/* A discard may cover any disk of today in a few requests. */
#define RANGE_SECTORS_MAX (1u << 30)

_Static_assert(sizeof(struct virtio_blk_outhdr) == 16, "request header (5.2.6)");
_Static_assert(sizeof(struct virtio_blk_discard_write_zeroes) == 16, "range (5.2.6)");

struct blk {
	struct virtio_device dev;
	struct blk_disk *disk;
	struct virtio_blk_config config;
	char serial[VIRTIO_BLK_ID_BYTES];
	struct iovec (*iov)[VIRTQUEUE_CHAIN_MAX]; /* one per queue */
	_Atomic uint64_t read_bytes, read_ops, write_bytes, write_ops;
};

static struct blk *to_blk(struct virtio_device *dev)
{
	return container_of(dev, struct blk, dev);
}

struct blk_disk *blk_disk_free(struct blk_disk *d)
{
	if (d)
		d->ops->free(d);
	return NULL;
}

struct request {
	struct blk *b;
	const struct virtqueue_chain *c;
	uint32_t type;
	uint64_t sector;
	uint32_t in_len;  /* writable bytes before the status */
	uint32_t out_len; /* readable bytes after the header */
};

/* Is [sector, sector + len bytes) inside the disk, and whole sectors? */
static bool in_disk(const struct blk *b, uint64_t sector, uint64_t len)
{
	uint64_t sectors = b->disk->size / BLK_SECTOR;

	return len % BLK_SECTOR == 0 && sector <= sectors && len / BLK_SECTOR <= sectors - sector;
}

static uint8_t status_of(int r)
{
	return r == 0		  ? VIRTIO_BLK_S_OK
	       : r == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP
				  : VIRTIO_BLK_S_IOERR;
}

static void count(_Atomic uint64_t *c, uint64_t n)
{
	atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

static uint8_t do_read(const struct request *rq)
{
	struct blk *b = rq->b;
	struct iovec iov[VIRTQUEUE_CHAIN_MAX];
	unsigned n;

	if (rq->in_len > REQUEST_MAX || !in_disk(b, rq->sector, rq->in_len))
		return VIRTIO_BLK_S_IOERR;
	if (!rq->in_len)
		return VIRTIO_BLK_S_OK;
	n = iov_slice(rq->c->write, rq->c->nwrite, 0, rq->in_len, iov, VIRTQUEUE_CHAIN_MAX);
	count(&b->read_ops, 1);
	count(&b->read_bytes, rq->in_len);
	return status_of(b->disk->ops->read(b->disk, iov, n, rq->sector * BLK_SECTOR));
}

static uint8_t do_write(const struct request *rq)
{
	struct blk *b = rq->b;
	struct iovec iov[VIRTQUEUE_CHAIN_MAX];
	unsigned n;

	if (b->disk->read_only || rq->out_len > REQUEST_MAX || !in_disk(b, rq->sector, rq->out_len))
		return VIRTIO_BLK_S_IOERR;
	if (!rq->out_len)
		return VIRTIO_BLK_S_OK;
	n = iov_slice(rq->c->read, rq->c->nread, sizeof(struct virtio_blk_outhdr), rq->out_len, iov,
		      VIRTQUEUE_CHAIN_MAX);
	count(&b->write_ops, 1);
	count(&b->write_bytes, rq->out_len);
	return status_of(b->disk->ops->write(b->disk, iov, n, rq->sector * BLK_SECTOR));
}

static uint8_t do_flush(const struct request *rq)
{
	struct blk_disk *d = rq->b->disk;

	return d->ops->flush ? status_of(d->ops->flush(d)) : VIRTIO_BLK_S_OK;
}

static uint8_t do_get_id(const struct request *rq)
{
	iov_write(rq->c->write, rq->c->nwrite, 0, rq->b->serial,
		  MIN(rq->in_len, (uint32_t)sizeof(rq->b->serial)));
	return VIRTIO_BLK_S_OK;
}

/* DISCARD and WRITE_ZEROES: up to RANGE_SEGS_MAX ranges, all checked before any is carried out. */
static uint8_t do_ranges(const struct request *rq)
{
	struct blk_disk *d = rq->b->disk;
	bool zero = rq->type == VIRTIO_BLK_T_WRITE_ZEROES;
	struct virtio_blk_discard_write_zeroes seg[RANGE_SEGS_MAX];
	unsigned n = rq->out_len / sizeof(seg[0]);

	if (d->read_only)
		return VIRTIO_BLK_S_IOERR;
	if (rq->out_len % sizeof(seg[0]) || !n || n > RANGE_SEGS_MAX)
		return VIRTIO_BLK_S_IOERR;
	iov_read(rq->c->read, rq->c->nread, sizeof(struct virtio_blk_outhdr), seg, rq->out_len);
	for (unsigned i = 0; i < n; i++) {
		uint32_t flags = le32toh(seg[i].flags), sectors = le32toh(seg[i].num_sectors);

		/* Unknown flags, and unmap on a discard, are unsupported (5.2.6.2). */
		if (flags & ~(zero ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0u))
			return VIRTIO_BLK_S_UNSUPP;
		if (sectors > RANGE_SECTORS_MAX ||
		    !in_disk(rq->b, le64toh(seg[i].sector), (uint64_t)sectors * BLK_SECTOR))
			return VIRTIO_BLK_S_IOERR;
	}
	for (unsigned i = 0; i < n; i++) {
		uint64_t off = le64toh(seg[i].sector) * BLK_SECTOR;
		uint64_t len = (uint64_t)le32toh(seg[i].num_sectors) * BLK_SECTOR;
		int r = 0;

		if (len && zero)
			r = d->ops->write_zeroes(d, off, len, le32toh(seg[i].flags) != 0);
		else if (len)
			r = d->ops->discard(d, off, len);
		if (r < 0)
			return status_of(r);
	}
	return VIRTIO_BLK_S_OK;
}

/* The request types: what each does, and whether it fills the writable buffers itself. */
static const struct {
	uint32_t type;
	uint8_t (*run)(const struct request *rq);
	bool fills;
} request_types[] = {
	{VIRTIO_BLK_T_IN, do_read, true},	  {VIRTIO_BLK_T_OUT, do_write, false},
	{VIRTIO_BLK_T_FLUSH, do_flush, false},	  {VIRTIO_BLK_T_GET_ID, do_get_id, false},
	{VIRTIO_BLK_T_DISCARD, do_ranges, false}, {VIRTIO_BLK_T_WRITE_ZEROES, do_ranges, false},
};

static void serve(struct blk *b, const struct virtqueue_chain *c,
		  const struct virtio_blk_outhdr *hdr)
{
	struct request rq = {
		.b = b,
		.c = c,
		.type = le32toh(hdr->type),
		.sector = le64toh(hdr->sector),
		.in_len = c->write_len - 1,
		.out_len = c->read_len - (uint32_t)sizeof(*hdr),
	};
	uint8_t status = VIRTIO_BLK_S_UNSUPP;
	bool filled = false;

	for (size_t i = 0; i < ARRAY_SIZE(request_types); i++) {
		if (request_types[i].type != rq.type)
			continue;
		if (!request_types[i].fills)
			iov_zero(c->write, c->nwrite, 0, MIN(rq.in_len, REQUEST_MAX));
		status = request_types[i].run(&rq);
		filled = !request_types[i].fills || status == VIRTIO_BLK_S_OK;
		break;
	}
	if (!filled)
		iov_zero(c->write, c->nwrite, 0, MIN(rq.in_len, REQUEST_MAX));
	iov_write(c->write, c->nwrite, rq.in_len, &status, 1);
}

static const char *blk_serve(struct virtio_queue *q, const struct virtqueue_chain *c,
			     uint32_t *written)
{
	struct virtio_blk_outhdr hdr;

	if (c->read_len < sizeof(hdr) || !c->write_len)
		return "request without a header or a status byte";
	iov_read(c->read, c->nread, 0, &hdr, sizeof(hdr));
	serve(to_blk(q->dev), c, &hdr);
	*written = c->write_len > REQUEST_MAX ? 0 : c->write_len;
	return NULL;
}

static bool blk_process(struct virtio_queue *q)
{
	return virtio_queue_serve(q, to_blk(q->dev)->iov[q->index], SLICE, SLICE_BYTES, blk_serve,
				  NULL);
}

static void blk_free(struct virtio_device *dev)
{
	struct blk *b = to_blk(dev);

	blk_disk_free(b->disk);
	free(b->iov);
	free(b);
}

static const struct virtio_device_ops blk_ops = {
	.name = "blk",
	.id = 2,
	.process = blk_process,
	.free = blk_free,
};

int blk_device_new(struct blk_disk *disk, const struct blk_options *options,
		   struct virtio_device **ret, struct err *err)
{
	unsigned queues = options->queues ? options->queues : 1;
	uint32_t block = options->block_size ? options->block_size : BLK_SECTOR;
	struct virtio_device_params p = {
		.ops = &blk_ops,
		.features = 1ull << VIRTIO_BLK_F_SIZE_MAX | 1ull << VIRTIO_BLK_F_SEG_MAX |
			    1ull << VIRTIO_BLK_F_BLK_SIZE | 1ull << VIRTIO_BLK_F_TOPOLOGY |
			    1ull << VIRTIO_BLK_F_FLUSH | 1ull << VIRTIO_BLK_F_MQ,
		.config_size = sizeof(struct virtio_blk_config),
		.nqueues = queues,
		.queue_size_max = options->queue_size ? options->queue_size : QUEUE_SIZE_DEFAULT,
		.worker_per_queue = true,
		.tag = options->serial,
	};
	struct blk *b;
	int r;

	if (block < BLK_SECTOR || block > 4096 || (block & (block - 1)))
		return err_set(err, EINVAL, "a disk cannot have blocks of %u bytes", block);
	if (queues >= VIRTIO_QUEUES_MAX)
		return err_set(err, EINVAL, "a disk cannot have %u queues", queues);
	b = calloc(1, sizeof(*b));
	if (b)
		b->iov = calloc(queues, sizeof(*b->iov));
	if (!b || !b->iov) {
		free(b);
		return err_set(err, ENOMEM, "cannot create a disk: out of memory");
	}
	b->config = (struct virtio_blk_config){
		.capacity = htole64(disk->size / BLK_SECTOR),
		.size_max = htole32(SIZE_MAX_BYTES),
		.seg_max = htole32(SEG_MAX),
		.blk_size = htole32(block),
		.num_queues = htole16((uint16_t)queues),
		.max_discard_sectors = htole32(RANGE_SECTORS_MAX),
		.max_discard_seg = htole32(RANGE_SEGS_MAX),
		.discard_sector_alignment = htole32(4096 / BLK_SECTOR),
		.max_write_zeroes_sectors = htole32(RANGE_SECTORS_MAX),
		.max_write_zeroes_seg = htole32(RANGE_SEGS_MAX),
		.write_zeroes_may_unmap = 1,
	};
	/* Files are kept in pages: say so, and the guest's file systems align to it. */
	while (block << b->config.physical_block_exp < 4096)
		b->config.physical_block_exp++;
	b->config.min_io_size = htole16((uint16_t)(4096 / block));
	if (options->serial)
		memcpy(b->serial, options->serial, strnlen(options->serial, sizeof(b->serial)));
	if (disk->read_only)
		p.features |= 1ull << VIRTIO_BLK_F_RO;
	else
		p.features |= 1ull << VIRTIO_BLK_F_DISCARD |
			      (disk->no_zeroes ? 0 : 1ull << VIRTIO_BLK_F_WRITE_ZEROES);
	p.config = &b->config;
	r = virtio_device_init(&b->dev, &p, err);
	if (r < 0) {
		free(b->iov);
		free(b);
		return r;
	}
	b->disk = disk;
	*ret = &b->dev;
	return 0;
}

void blk_device_usage(const struct virtio_device *dev, struct blk_usage *ret)
{
	const struct blk *b = container_of(dev, const struct blk, dev);

	*ret = (struct blk_usage){
		.read_bytes = atomic_load_explicit(&b->read_bytes, memory_order_relaxed),
		.read_ops = atomic_load_explicit(&b->read_ops, memory_order_relaxed),
		.write_bytes = atomic_load_explicit(&b->write_bytes, memory_order_relaxed),
		.write_ops = atomic_load_explicit(&b->write_ops, memory_order_relaxed),
	};
}
