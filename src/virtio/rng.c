/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/rng.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/cleanup.h"

enum {
	/* Linux asks for 64 bytes at a time and has one request under way. */
	QUEUE_SIZE = 8,
	/* Per request and per turn: 64 KiB take the host about a quarter of a millisecond. */
	REQUEST_MAX = 4096,
	SLICE = 16,
};

struct rng {
	struct virtio_device dev;
	struct iovec iov[VIRTQUEUE_CHAIN_MAX];
};

/* Straight into guest memory: the bytes written, 0 when the host has none. */
static uint32_t fill(const struct virtqueue_chain *c)
{
	uint32_t done = 0;

	for (unsigned i = 0; i < c->nwrite && done < REQUEST_MAX; i++) {
		size_t want = MIN(c->write[i].iov_len, (size_t)REQUEST_MAX - done);
		ssize_t n;

		do {
			n = getrandom(c->write[i].iov_base, want, 0);
		} while (n < 0 && errno == EINTR);
		if (n < 0)
			break;
		done += (uint32_t)n;
		if ((size_t)n < want)
			break;
	}
	return done;
}

static const char *rng_serve(struct virtio_queue *q, const struct virtqueue_chain *c,
			     uint32_t *written)
{
	(void)q;
	if (c->nread || !c->write_len)
		return "request without a place for random numbers, or with something to read";
	/* At least one byte is owed (5.4.6.2). */
	*written = fill(c);
	return *written ? NULL : "the host gives no random numbers";
}

static bool rng_process(struct virtio_queue *q)
{
	struct rng *g = container_of(q->dev, struct rng, dev);

	return virtio_queue_serve(q, g->iov, SLICE, UINT64_MAX, rng_serve, NULL);
}

static void rng_free(struct virtio_device *dev)
{
	free(container_of(dev, struct rng, dev));
}

static const struct virtio_device_ops rng_ops = {
	.name = "rng",
	.id = VIRTIO_ID_RNG,
	.process = rng_process,
	.free = rng_free,
};

int rng_device_new(struct virtio_device **ret, struct err *err)
{
	const struct virtio_device_params p = {
		.ops = &rng_ops,
		.nqueues = 1,
		.queue_size_max = QUEUE_SIZE,
	};
	struct rng *g = calloc(1, sizeof(*g));
	int r;

	if (!g)
		return err_set(err, ENOMEM,
			       "cannot create a source of random numbers: out of memory");
	r = virtio_device_init(&g->dev, &p, err);
	if (r < 0) {
		free(g);
		return r;
	}
	*ret = &g->dev;
	return 0;
}
