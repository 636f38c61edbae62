/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages are named in two ways. The reporting queue's buffers are the free blocks themselves, so
 * what virtqueue_pop() returns is inside guest memory already. The inflate queue's buffers hold
 * page numbers, 32 bits each, counted in pages of 4 KiB; they are copied, sorted and given back in
 * runs, because a system call for each page would cost more than the page.
 *
 * Large pages of the host: reported blocks cover them whole, so they go and come back whole. Single
 * pages split one; it goes when the last of its pages does.
 */
#include "virtio/balloon.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/iov.h"

/*
 * As drivers count them: without statistics and hinting the third queue is the reporting one. (The
 * specification numbers on as if all were there; Linux falls back to this.)
 */
enum { INFLATE, DEFLATE, REPORTING, QUEUES };

enum {
	/* Linux reports 32 blocks in one request and does without the queue if it holds fewer. */
	QUEUE_SIZE = 32,
	/* Requests per turn; each is bounded by PFNS_MAX or by the length of a chain, 4 GiB. */
	SLICE = 8,
	/* Linux sends 256 at a time. */
	PFNS_AT_ONCE = 256,
	/* 1 GiB of pages: more is no request of any driver. */
	PFNS_MAX = 1 << 18,
};

_Static_assert(VIRTIO_BALLOON_PFN_SHIFT == 12, "a page number counts 4 KiB (5.5.6)");

/* The part of the specification's that our features show (5.5.4). */
struct config {
	uint32_t num_pages; /* what the host wants */
	uint32_t actual;    /* what the driver has taken */
};

struct balloon {
	struct virtio_device dev;
	struct config config;
	struct iovec iov[VIRTQUEUE_CHAIN_MAX];
};

static struct balloon *to_balloon(struct virtio_device *dev)
{
	return container_of(dev, struct balloon, dev);
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* Give back @n pages: false if one is outside guest memory. */
static bool discard_pages(const struct guest_memory *m, uint32_t *pfn, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		pfn[i] = le32toh(pfn[i]);
	qsort(pfn, n, sizeof(pfn[0]), by_number);
	for (unsigned i = 0, next; i < n; i = next) {
		struct iovec iov[GUEST_MEMORY_REGIONS_MAX];
		uint64_t from = (uint64_t)pfn[i] << VIRTIO_BALLOON_PFN_SHIFT, to;
		int pieces;

		for (next = i + 1; next < n && pfn[next] - pfn[next - 1] <= 1; next++)
			;
		to = ((uint64_t)pfn[next - 1] + 1) << VIRTIO_BALLOON_PFN_SHIFT;
		pieces = guest_memory_iov(m, from, to - from, iov, ARRAY_SIZE(iov));
		if (pieces < 0)
			return false;
		guest_memory_discard(m, iov, (unsigned)pieces);
	}
	return true;
}

/* What is wrong with the request, or NULL. */
static const char *inflate(const struct balloon *b, const struct virtqueue_chain *c)
{
	uint32_t pfn[PFNS_AT_ONCE];

	if (c->read_len % sizeof(pfn[0]))
		return "page numbers of an odd length";
	if (c->read_len / sizeof(pfn[0]) > PFNS_MAX)
		return "more pages than a request may name";
	for (size_t off = 0; off < c->read_len; off += sizeof(pfn)) {
		size_t got = iov_read(c->read, c->nread, off, pfn, sizeof(pfn));

		if (!discard_pages(b->dev.mem, pfn, (unsigned)(got / sizeof(pfn[0]))))
			return "page outside guest memory";
	}
	return NULL;
}

/* What is wrong with the request, or NULL. */
static const char *serve(struct virtio_queue *q, const struct virtqueue_chain *c, uint32_t *written)
{
	const struct balloon *b = to_balloon(q->dev);

	*written = 0;
	switch (q->index) {
	case INFLATE:
		return inflate(b, c);
	case REPORTING:
		guest_memory_discard(b->dev.mem, c->write, c->nwrite);
		return NULL;
	default:
		/* Deflated pages come back by being touched. */
		return NULL;
	}
}

static bool balloon_process(struct virtio_queue *q)
{
	return virtio_queue_serve(q, to_balloon(q->dev)->iov, SLICE, UINT64_MAX, serve, NULL);
}

/* The driver says how many pages it has taken. */
static int balloon_write_config(struct virtio_device *dev, uint32_t off, const void *p,
				uint32_t len)
{
	if (off < offsetof(struct config, actual))
		return -EINVAL;
	memcpy((uint8_t *)&to_balloon(dev)->config + off, p, len);
	return 0;
}

/* A driver that starts over has all its memory again. */
static void balloon_reset(struct virtio_device *dev)
{
	const uint32_t none = 0;

	virtio_config_update(dev, offsetof(struct config, actual), &none, sizeof(none));
}

static void balloon_free(struct virtio_device *dev)
{
	free(to_balloon(dev));
}

static const struct virtio_device_ops balloon_ops = {
	.name = "balloon",
	.id = VIRTIO_ID_BALLOON,
	.process = balloon_process,
	.reset = balloon_reset,
	.write_config = balloon_write_config,
	.free = balloon_free,
};

void balloon_set_target(struct virtio_device *dev, uint64_t bytes)
{
	uint64_t pages = MIN(bytes >> VIRTIO_BALLOON_PFN_SHIFT, (uint64_t)UINT32_MAX);
	uint32_t v = htole32((uint32_t)pages);

	virtio_config_update(dev, offsetof(struct config, num_pages), &v, sizeof(v));
}

uint64_t balloon_size(struct virtio_device *dev)
{
	uint32_t v;

	virtio_config_read(dev, offsetof(struct config, actual), &v, sizeof(v));
	return (uint64_t)le32toh(v) << VIRTIO_BALLOON_PFN_SHIFT;
}

int balloon_device_new(struct virtio_device **ret, struct err *err)
{
	struct virtio_device_params p = {
		.ops = &balloon_ops,
		.features = 1ull << VIRTIO_BALLOON_F_DEFLATE_ON_OOM |
			    1ull << VIRTIO_BALLOON_F_REPORTING,
		.config_size = sizeof(struct config),
		.nqueues = QUEUES,
		.queue_size_max = QUEUE_SIZE,
	};
	struct balloon *b = calloc(1, sizeof(*b));
	int r;

	if (!b)
		return err_set(err, ENOMEM, "cannot create a memory balloon: out of memory");
	p.config = &b->config;
	r = virtio_device_init(&b->dev, &p, err);
	if (r < 0) {
		free(b);
		return r;
	}
	*ret = &b->dev;
	return 0;
}
