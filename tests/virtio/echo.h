/* SPDX-License-Identifier: Apache-2.0 */
/* A back-end of a network card that sends every frame back, or as long a one as it is told to. */
#ifndef TESTS_VIRTIO_ECHO_H
#define TESTS_VIRTIO_ECHO_H

#include <string.h>

#include "base/cleanup.h"
#include "base/iov.h"
#include "virtio/net.h"

enum { ECHO_MAX = 66000, ECHO_PIECES = 64 };

struct echo {
	struct virtio_device *dev;
	uint8_t frame[ECHO_MAX];
	size_t len, longer; /* what is to be sent, and how much more than came */
	struct virtio_net_hdr_v1 h;
	uint64_t features;
	unsigned inputs, settled, runs, stops;
	bool no_room;
	bool one_by_one; /* frames are taken singly, and @held: none */
	bool held;
};

static void echo_features(void *arg, uint64_t features)
{
	((struct echo *)arg)->features = features;
}

static void echo_input(void *arg, const struct iovec *iov, unsigned n,
		       const struct virtio_net_hdr_v1 *h)
{
	struct echo *e = arg;

	e->inputs++;
	e->h = *h;
	e->len = iov_read(iov, n, 0, e->frame, sizeof(e->frame));
	e->len = MIN(e->len + e->longer, sizeof(e->frame));
}

static void echo_settle(void *arg)
{
	((struct echo *)arg)->settled = ((struct echo *)arg)->inputs;
}

static void echo_run(void *arg)
{
	struct echo *e = arg;
	struct iovec iov[ECHO_PIECES];
	unsigned n;

	e->runs++;
	if (e->settled != e->inputs)
		__builtin_trap();
	if (!e->len)
		return;
	/* Giving it back changes nothing. */
	if (net_device_reserve(e->dev, e->len / 2 + 1, iov, ECHO_PIECES))
		net_device_commit(e->dev, 0, NULL);
	n = net_device_reserve(e->dev, e->len, iov, ECHO_PIECES);
	e->no_room = !n;
	if (!n)
		return;
	if (iov_write(iov, n, 0, e->frame, e->len) != e->len)
		__builtin_trap();
	net_device_commit(e->dev, e->len, &e->h);
	e->len = 0;
}

static void echo_stop(void *arg)
{
	((struct echo *)arg)->stops++;
}

static unsigned echo_frames(void *arg)
{
	struct echo *e = arg;

	return e->held ? 0 : e->one_by_one ? 1 : UINT32_MAX;
}

static const struct net_backend_ops echo_ops = {
	.features = echo_features,
	.frames = echo_frames,
	.input = echo_input,
	.settle = echo_settle,
	.run = echo_run,
	.stop = echo_stop,
};

static const uint8_t echo_mac[6] = {2, 0x6d, 0x73, 0, 0, 2};

#endif
