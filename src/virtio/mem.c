/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request names a run of blocks, all of which have to be in the state that it changes (5.15.6.1);
 * the answer says whether they were. So a driver that is wrong is told so and nothing has changed;
 * only a request that cannot be answered breaks the device.
 *
 * The state is the worker's. What others may look at is in the configuration, behind its lock: how
 * much is wanted, which the host writes, and how much is plugged, which the worker does.
 */
#include "virtio/mem.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mem.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/iov.h"

enum {
	/* One request is out at a time; each is bounded by what 16 bits can count of blocks. */
	QUEUE_SIZE = 16,
	SLICE = 8,
	BITS = 64,
};

#ifndef VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE
#define VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE 1
#endif

struct mem {
	struct virtio_device dev;
	struct virtio_mem_config config;
	void (*changed)(void *arg);
	void *arg;
	struct iovec iov[VIRTQUEUE_CHAIN_MAX];
	struct mem_state *state;
};

static struct mem *to_mem(const struct virtio_device *dev)
{
	return container_of(dev, struct mem, dev);
}

static uint64_t words(uint64_t size)
{
	return (size / MEM_BLOCK + BITS - 1) / BITS;
}

static bool is_plugged(const struct mem_state *s, uint64_t block)
{
	return s->blocks[block / BITS] >> block % BITS & 1;
}

/* How many of @n blocks from @first on are plugged. */
static uint64_t count(const struct mem_state *s, uint64_t first, uint64_t n)
{
	uint64_t sum = 0;

	for (uint64_t i = first; i < first + n; i++)
		sum += is_plugged(s, i);
	return sum;
}

static void mark(struct mem_state *s, uint64_t first, uint64_t n, bool plugged)
{
	for (uint64_t i = first; i < first + n; i++) {
		uint64_t bit = UINT64_C(1) << i % BITS;

		if (plugged)
			s->blocks[i / BITS] |= bit;
		else
			s->blocks[i / BITS] &= ~bit;
	}
}

/* The blocks that a request names: false if they are not all of the region. */
static bool find_blocks(const struct mem_state *s, uint64_t gpa, uint16_t n, uint64_t *first)
{
	uint64_t off = gpa - s->gpa;

	if (!n || gpa < s->gpa || off % MEM_BLOCK || off / MEM_BLOCK >= s->size / MEM_BLOCK ||
	    n > s->size / MEM_BLOCK - off / MEM_BLOCK)
		return false;
	*first = off / MEM_BLOCK;
	return true;
}

static uint64_t wanted(struct mem *m)
{
	uint64_t v;

	virtio_config_read(&m->dev, offsetof(struct virtio_mem_config, requested_size), &v,
			   sizeof(v));
	return le64toh(v);
}

static void set_plugged(struct mem *m, uint64_t bytes)
{
	uint64_t v = htole64(bytes);

	if (m->state->plugged == bytes)
		return;
	m->state->plugged = bytes;
	virtio_config_set(&m->dev, offsetof(struct virtio_mem_config, plugged_size), &v, sizeof(v));
	if (m->changed)
		m->changed(m->arg);
}

/* Give back what is behind them, which the map has or has not: then there is nothing. */
static void discard(const struct mem *m, uint64_t first, uint64_t n)
{
	struct iovec iov[GUEST_MEMORY_REGIONS_MAX];
	int pieces = guest_memory_iov(m->dev.mem, m->state->gpa + first * MEM_BLOCK, n * MEM_BLOCK,
				      iov, ARRAY_SIZE(iov));

	if (pieces > 0)
		guest_memory_discard(m->dev.mem, iov, (unsigned)pieces);
}

static uint16_t plug(struct mem *m, uint64_t gpa, uint16_t n)
{
	uint64_t first, more = n * MEM_BLOCK;

	if (!find_blocks(m->state, gpa, n, &first) || count(m->state, first, n))
		return VIRTIO_MEM_RESP_ERROR;
	if (m->state->plugged + more > wanted(m))
		return VIRTIO_MEM_RESP_NACK;
	mark(m->state, first, n, true);
	set_plugged(m, m->state->plugged + more);
	return VIRTIO_MEM_RESP_ACK;
}

static uint16_t unplug(struct mem *m, uint64_t gpa, uint16_t n)
{
	uint64_t first;

	if (!find_blocks(m->state, gpa, n, &first) || count(m->state, first, n) != n)
		return VIRTIO_MEM_RESP_ERROR;
	discard(m, first, n);
	mark(m->state, first, n, false);
	set_plugged(m, m->state->plugged - n * MEM_BLOCK);
	return VIRTIO_MEM_RESP_ACK;
}

static uint16_t unplug_all(struct mem *m)
{
	discard(m, 0, m->state->size / MEM_BLOCK);
	memset(m->state->blocks, 0, words(m->state->size) * sizeof(m->state->blocks[0]));
	set_plugged(m, 0);
	return VIRTIO_MEM_RESP_ACK;
}

static uint16_t query(const struct mem *m, uint64_t gpa, uint16_t n, uint16_t *state)
{
	uint64_t first, plugged;

	if (!find_blocks(m->state, gpa, n, &first))
		return VIRTIO_MEM_RESP_ERROR;
	plugged = count(m->state, first, n);
	*state = plugged == n	? VIRTIO_MEM_STATE_PLUGGED
		 : plugged == 0 ? VIRTIO_MEM_STATE_UNPLUGGED
				: VIRTIO_MEM_STATE_MIXED;
	return VIRTIO_MEM_RESP_ACK;
}

/* What is wrong with the request, or NULL. */
static const char *serve(struct virtio_queue *q, const struct virtqueue_chain *c, uint32_t *written)
{
	struct mem *m = to_mem(q->dev);
	struct virtio_mem_req req = {0};
	struct virtio_mem_resp resp = {0};
	uint16_t type, n, state = 0;
	uint64_t gpa;

	if (iov_read(c->read, c->nread, 0, &req, sizeof(req)) != sizeof(req))
		return "request that is too short";
	if (c->write_len < sizeof(resp))
		return "request without a place for the answer";
	/* All kinds of request name blocks in the same way. */
	gpa = le64toh(req.u.plug.addr);
	n = le16toh(req.u.plug.nb_blocks);
	switch (le16toh(req.type)) {
	case VIRTIO_MEM_REQ_PLUG:
		type = plug(m, gpa, n);
		break;
	case VIRTIO_MEM_REQ_UNPLUG:
		type = unplug(m, gpa, n);
		break;
	case VIRTIO_MEM_REQ_UNPLUG_ALL:
		type = unplug_all(m);
		break;
	case VIRTIO_MEM_REQ_STATE:
		type = query(m, gpa, n, &state);
		break;
	default:
		type = VIRTIO_MEM_RESP_ERROR;
		break;
	}
	resp.type = htole16(type);
	resp.u.state.state = htole16(state);
	iov_write(c->write, c->nwrite, 0, &resp, sizeof(resp));
	*written = sizeof(resp);
	return NULL;
}

static bool mem_process(struct virtio_queue *q)
{
	return virtio_queue_serve(q, to_mem(q->dev)->iov, SLICE, UINT64_MAX, serve, NULL);
}

static void mem_free(struct virtio_device *dev)
{
	struct mem *m = to_mem(dev);

	free(m->state);
	free(m);
}

/* A reset changes nothing: a driver that starts over asks what is plugged (5.15.6.2). */
static const struct virtio_device_ops mem_ops = {
	.name = "mem",
	.id = VIRTIO_ID_MEM,
	.process = mem_process,
	.free = mem_free,
};

void mem_want(struct virtio_device *dev, uint64_t bytes)
{
	struct mem *m = to_mem(dev);
	uint64_t v = htole64(MIN(bytes, m->state->size) / MEM_BLOCK * MEM_BLOCK);

	virtio_config_update(dev, offsetof(struct virtio_mem_config, requested_size), &v,
			     sizeof(v));
}

uint64_t mem_plugged(struct virtio_device *dev)
{
	uint64_t v;

	virtio_config_read(dev, offsetof(struct virtio_mem_config, plugged_size), &v, sizeof(v));
	return le64toh(v);
}

size_t mem_state_size(const struct virtio_device *dev)
{
	const struct mem *m = to_mem(dev);

	return sizeof(*m->state) + words(m->state->size) * sizeof(m->state->blocks[0]);
}

void mem_save(struct virtio_device *dev, struct mem_state *ret)
{
	struct mem *m = to_mem(dev);

	m->state->requested = wanted(m);
	memcpy(ret, m->state, mem_state_size(dev));
}

int mem_restore(struct virtio_device *dev, const struct mem_state *s, size_t n)
{
	struct mem *m = to_mem(dev);
	uint64_t blocks = m->state->size / MEM_BLOCK, sum;

	if (n != mem_state_size(dev) || s->version != MEM_STATE_VERSION ||
	    s->gpa != m->state->gpa || s->size != m->state->size)
		return -EINVAL;
	sum = count(s, 0, blocks);
	if (s->plugged != sum * MEM_BLOCK || s->requested > s->size || s->requested % MEM_BLOCK)
		return -EINVAL;
	memcpy(m->state->blocks, s->blocks, words(s->size) * sizeof(s->blocks[0]));
	if (blocks % BITS)
		m->state->blocks[blocks / BITS] &= (UINT64_C(1) << blocks % BITS) - 1;
	set_plugged(m, s->plugged);
	mem_want(dev, s->requested);
	return 0;
}

int mem_device_new(const struct mem_options *o, struct virtio_device **ret, struct err *err)
{
	struct virtio_device_params p = {
		.ops = &mem_ops,
		.features = UINT64_C(1) << VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE,
		.config_size = sizeof(struct virtio_mem_config),
		.nqueues = 1,
		.queue_size_max = QUEUE_SIZE,
	};
	struct mem_state *s;
	struct mem *m;
	int r;

	if (!o->size || o->size % MEM_BLOCK || o->gpa % MEM_BLOCK || o->gpa > UINT64_MAX - o->size)
		return err_set(err, EINVAL, "memory cannot be added at %#llx",
			       (unsigned long long)o->gpa);
	m = calloc(1, sizeof(*m));
	s = calloc(1, sizeof(*s) + words(o->size) * sizeof(s->blocks[0]));
	if (!m || !s) {
		free(m);
		free(s);
		return err_set(err, ENOMEM, "cannot create a memory device: out of memory");
	}
	s->version = MEM_STATE_VERSION;
	s->gpa = o->gpa;
	s->size = o->size;
	m->state = s;
	m->changed = o->changed;
	m->arg = o->arg;
	m->config = (struct virtio_mem_config){
		.block_size = htole64(MEM_BLOCK),
		.addr = htole64(o->gpa),
		.region_size = htole64(o->size),
		.usable_region_size = htole64(o->size),
	};
	p.config = &m->config;
	r = virtio_device_init(&m->dev, &p, err);
	if (r < 0) {
		free(s);
		free(m);
		return r;
	}
	*ret = &m->dev;
	return 0;
}
