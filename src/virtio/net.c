/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/net.h"

#include <endian.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/iov.h"

enum {
	/* 64 KiB in receive buffers of 1.5 KiB are 44 of them: several such frames fit. */
	QUEUE_SIZE = 256,
	/* Frames from the guest before the others on the worker have their turn, and bytes. */
	TX_SLICE = 64,
	TX_SLICE_BYTES = 1 << 20,
	/* Bytes to the guest that need not wait for the turn's end: it can work on them meanwhile. */
	RX_AT_ONCE = 16384,
	HDR = sizeof(struct virtio_net_hdr_v1),
	/* What a GSO frame can be (5.1.6.3.1), and a datagram of 64 KiB in its headers. */
	FRAME_MAX = 65536 + 64,
	CHAINS_MAX = QUEUE_SIZE,
};

struct net {
	struct virtio_device dev;
	struct virtio_net_config config;
	const struct net_backend_ops *ops;
	void *arg;
	struct iovec tx_iov[VIRTQUEUE_CHAIN_MAX];

	/* A frame to the guest in the making. */
	struct iovec rx_iov[VIRTQUEUE_CHAIN_MAX];
	struct virtqueue_chain chains[CHAINS_MAX];
	unsigned nchains;
	bool dropping; /* it goes nowhere, as it fits none of the guest's buffers */
	uint8_t nowhere[HDR + FRAME_MAX];
};

#define BIT(n) (1ull << (n))
#define FEATURES                                                                                   \
	(BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM) |           \
	 BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_TSO6) |                               \
	 BIT(VIRTIO_NET_F_GUEST_TSO4) | BIT(VIRTIO_NET_F_GUEST_TSO6) |                             \
	 BIT(VIRTIO_NET_F_MRG_RXBUF))

static struct net *to_net(struct virtio_device *dev)
{
	return container_of(dev, struct net, dev);
}

/* ---- from the guest ---- */

static const char *tx_serve(struct virtio_queue *q, const struct virtqueue_chain *c,
			    uint32_t *written)
{
	struct net *net = to_net(q->dev);
	struct virtio_net_hdr_v1 h;
	unsigned n;

	*written = 0;
	if (c->nwrite || c->read_len < HDR)
		return "frame without a header, or with something to write";
	if (c->read_len > HDR + FRAME_MAX)
		return "frame longer than any can be";
	iov_read(c->read, c->nread, 0, &h, HDR);
	h.hdr_len = le16toh(h.hdr_len);
	h.gso_size = le16toh(h.gso_size);
	h.csum_start = le16toh(h.csum_start);
	h.csum_offset = le16toh(h.csum_offset);
	n = iov_slice(c->read, c->nread, HDR, c->read_len - HDR, c->read, c->nread);
	net->ops->input(net->arg, c->read, n, &h);
	return NULL;
}

static void tx_settle(struct virtio_queue *q)
{
	struct net *net = to_net(q->dev);

	net->ops->settle(net->arg);
}

static bool tx_process(struct virtio_queue *q)
{
	struct net *net = to_net(q->dev);
	unsigned left = TX_SLICE;
	bool more = true;

	while (more && left) {
		unsigned n = MIN(left, net->ops->frames(net->arg));

		/* What it has to wait with stays in the queue. */
		if (!n)
			more = false;
		else
			more = virtio_queue_serve(q, net->tx_iov, n, TX_SLICE_BYTES, tx_serve,
						  tx_settle);
		left -= n;
	}
	/* Of a driver that broke a rule, too. */
	net->ops->settle(net->arg);
	if (!virtio_device_broken(q->dev))
		net->ops->run(net->arg);
	return more;
}

void net_device_resume(struct virtio_device *dev)
{
	virtio_queue_schedule(&dev->queues[NET_QUEUE_TX]);
}

/* ---- to the guest ---- */

static void put_back(struct net *net, struct virtqueue *vq)
{
	virtqueue_rewind(vq, net->nchains);
	net->nchains = 0;
}

/* Take chains until there is room for @len bytes: 1, 0 when there are too few, -EIO. */
static int gather(struct net *net, struct virtio_queue *q, size_t len)
{
	const bool merge = q->dev->features & BIT(VIRTIO_NET_F_MRG_RXBUF);
	size_t have = 0;
	unsigned used = 0;

	while (have < len && net->nchains < CHAINS_MAX) {
		struct virtqueue_chain *c = &net->chains[net->nchains];
		int r = virtqueue_pop(&q->vq, c, net->rx_iov + used, VIRTQUEUE_CHAIN_MAX - used);

		if (r == -ENOBUFS)
			break;
		if (r <= 0)
			return r;
		net->nchains++;
		if (c->nread || c->write_len < HDR)
			return virtqueue_break(&q->vq, "receive buffer without room for a header, "
						       "or with something to read");
		used += c->nwrite;
		have += c->write_len;
		if (!merge)
			break;
	}
	/* Not for want of buffers: it fits none of what this guest offers. */
	net->dropping = have < len;
	return 1;
}

static unsigned pieces(struct net *net, size_t len, struct iovec *iov, unsigned max)
{
	size_t skip = HDR;
	unsigned n = 0;

	for (unsigned i = 0; i < net->nchains && len; i++) {
		const struct virtqueue_chain *c = &net->chains[i];
		size_t k = MIN(len, (size_t)c->write_len - skip);
		unsigned got = iov_slice(c->write, c->nwrite, skip, k, iov + n, max - n);

		if (iov_size(iov + n, got) < k)
			return 0;
		n += got;
		len -= k;
		skip = 0;
	}
	return n;
}

unsigned net_device_reserve(struct virtio_device *dev, size_t len, struct iovec *iov, unsigned max)
{
	struct virtio_queue *q = &dev->queues[NET_QUEUE_RX];
	struct net *net = to_net(dev);
	unsigned n = 0;
	bool more;
	int r = 0;

	if (len > FRAME_MAX || !q->started || virtio_device_broken(dev))
		return 0;
	net->dropping = false;
	/* A second time if buffers came just before their kick was asked for. */
	for (int tries = 0; tries < 2 && r == 0; tries++) {
		r = gather(net, q, HDR + len);
		if (r > 0)
			break;
		if (r < 0)
			virtio_queue_broken(q, q->vq.why);
		/* Before they go back: what is there already is no reason for a kick. */
		more = r == 0 && virtqueue_enable_kick(&q->vq);
		put_back(net, &q->vq);
		if (!more)
			return 0;
	}
	if (r <= 0)
		return 0;
	virtqueue_disable_kick(&q->vq);
	if (!net->dropping)
		n = pieces(net, len, iov, max);
	if (n)
		return n;
	net->dropping = true;
	iov[0] = (struct iovec){net->nowhere, len};
	return 1;
}

void net_device_commit(struct virtio_device *dev, size_t len, const struct virtio_net_hdr_v1 *hdr)
{
	struct virtio_queue *q = &dev->queues[NET_QUEUE_RX];
	struct net *net = to_net(dev);
	struct virtio_net_hdr_v1 h;
	unsigned used = 0;

	if (!len || net->dropping) {
		put_back(net, &q->vq);
		return;
	}
	for (size_t left = HDR + len; left; used++) {
		const struct virtqueue_chain *c = &net->chains[used];
		uint32_t k = (uint32_t)MIN(left, (size_t)c->write_len);

		virtqueue_put(&q->vq, c->head, k);
		left -= k;
	}
	h = *hdr;
	h.hdr_len = htole16(h.hdr_len);
	h.gso_size = htole16(h.gso_size);
	h.csum_start = htole16(h.csum_start);
	h.csum_offset = htole16(h.csum_offset);
	h.num_buffers = htole16(used);
	iov_write(net->chains[0].write, net->chains[0].nwrite, 0, &h, HDR);
	/* Popped last, so these are what a rewind puts back. */
	virtqueue_rewind(&q->vq, net->nchains - used);
	net->nchains = 0;
	/* A driver that saw some of them would miss the rest. */
	virtqueue_publish(&q->vq);
	virtio_queue_notify(q);
	if (len >= RX_AT_ONCE)
		virtio_device_notify(dev);
}

/* ---- the device ---- */

static bool net_process(struct virtio_queue *q)
{
	struct net *net = to_net(q->dev);

	if (q->index == NET_QUEUE_TX)
		return tx_process(q);
	virtqueue_disable_kick(&q->vq);
	net->ops->run(net->arg);
	return false;
}

static void net_started(struct virtio_queue *q)
{
	struct net *net = to_net(q->dev);

	net->ops->features(net->arg, q->dev->features);
}

static void net_stop(struct virtio_device *dev)
{
	struct net *net = to_net(dev);

	net->ops->stop(net->arg);
}

static void net_free(struct virtio_device *dev)
{
	free(to_net(dev));
}

static const struct virtio_device_ops net_ops = {
	.name = "net",
	.id = VIRTIO_ID_NET,
	.late = true,
	.process = net_process,
	.queue_started = net_started,
	.stop = net_stop,
	.free = net_free,
};

int net_device_new(const uint8_t mac[6], const struct net_backend_ops *ops, void *arg,
		   struct virtio_device **ret, struct err *err)
{
	struct net *net = calloc(1, sizeof(*net));
	struct virtio_device_params p = {
		.ops = &net_ops,
		.features = FEATURES,
		.nqueues = NET_QUEUES,
		.queue_size_max = QUEUE_SIZE,
		/* An acknowledgement and the request behind it are one kick then, and one interrupt. */
		.batch = true,
	};
	int r;

	if (!net)
		return err_set(err, ENOMEM, "cannot create a network card: out of memory");
	net->ops = ops;
	net->arg = arg;
	memcpy(net->config.mac, mac, 6);
	p.config = &net->config;
	/* What follows the MAC belongs to features that are not offered. */
	p.config_size = sizeof(net->config.mac);
	r = virtio_device_init(&net->dev, &p, err);
	if (r < 0) {
		free(net);
		return r;
	}
	*ret = &net->dev;
	return 0;
}
