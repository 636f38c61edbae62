/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/device.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

#define COMMON_FEATURES                                                                            \
	(1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC |                        \
	 1ull << VIRTIO_RING_F_EVENT_IDX)

static void signal_fd(int fd)
{
	uint64_t one = 1;

	/* A full counter means that the signal is pending already. */
	if (fd >= 0)
		(void)!write(fd, &one, sizeof(one));
}

/* With the configuration's lock held. */
static void tell_transport(struct virtio_device *dev, bool news)
{
	if (dev->on_config)
		dev->on_config(dev, news, dev->config_arg);
}

/* ---- on the queue's worker ---- */

static void interrupt(const struct virtio_queue *q)
{
	if (q->dev->interrupt)
		q->dev->interrupt(q->dev->interrupt_arg);
	else
		signal_fd(q->callfd);
}

void virtio_queue_notify(struct virtio_queue *q)
{
	struct virtio_device *dev = q->dev;

	if (!dev->ops->late) {
		if (virtqueue_should_notify(&q->vq))
			interrupt(q);
		return;
	}
	q->owes = true;
	if (!loop_timer_armed(&dev->late) && loop_timer_at(q->loop, &dev->late, 0) < 0)
		virtio_device_notify(dev);
}

void virtio_device_notify(struct virtio_device *dev)
{
	const struct virtio_queue *said = NULL;

	/* With virtio-mmio the queues share an interrupt, and each is looked at then. */
	for (unsigned i = 0; i < dev->nqueues; i++) {
		struct virtio_queue *q = &dev->queues[i];

		if (!q->owes)
			continue;
		q->owes = false;
		if (!virtqueue_should_notify(&q->vq) || (said && said->callfd == q->callfd))
			continue;
		said = q;
		interrupt(q);
	}
}

static void on_late(struct loop_timer *t)
{
	virtio_device_notify(container_of(t, struct virtio_device, late));
}

void virtio_queue_broken(struct virtio_queue *q, const char *why)
{
	struct virtio_device *dev = q->dev;

	virtqueue_break(&q->vq, why);
	signal_fd(q->errfd);
	if (atomic_exchange(&dev->broken, true))
		return;
	if (dev->on_broken)
		dev->on_broken(dev, why, dev->broken_arg);
	pthread_mutex_lock(&dev->config_lock);
	tell_transport(dev, true);
	pthread_mutex_unlock(&dev->config_lock);
}

void virtio_queue_schedule(struct virtio_queue *q)
{
	if (!q->started || virtio_device_broken(q->dev) || loop_timer_armed(&q->again))
		return;
	if (loop_timer_in(q->loop, &q->again, 0) < 0)
		virtio_queue_broken(q, "out of memory");
}

static void queue_run(struct virtio_queue *q)
{
	if (q->started && !virtio_device_broken(q->dev) && q->dev->ops->process(q))
		virtio_queue_schedule(q);
}

/*
 * The kick source is edge-triggered and never read: every write to an eventfd is an edge, and the
 * counter cannot fill up in the lifetime of a machine (2^64 kicks).
 */
static void on_kick(struct loop_source *s, uint32_t events)
{
	(void)events;
	queue_run(container_of(s, struct virtio_queue, kick));
}

static void on_again(struct loop_timer *t)
{
	queue_run(container_of(t, struct virtio_queue, again));
}

struct queue_call {
	struct virtio_queue *q;
	const struct virtqueue_state *start;
	struct virtqueue_state state;
	int kickfd, callfd, errfd;
	int result;
};

static void start_on_worker(void *arg)
{
	struct queue_call *c = arg;
	struct virtio_queue *q = c->q;
	struct virtqueue vq;

	c->result = virtqueue_start(&vq, c->start, q->dev->features, q->dev->mem);
	if (c->result < 0)
		return;
	q->kick.fd = c->kickfd;
	c->result = loop_add(q->loop, &q->kick, EPOLLIN | EPOLLET);
	if (c->result < 0)
		return;
	q->vq = vq;
	q->callfd = c->callfd;
	q->started = true;
	if (q->dev->ops->queue_started)
		q->dev->ops->queue_started(q);
	/* What was made available before the kick fd was watched needs no kick. */
	c->result = loop_timer_in(q->loop, &q->again, 0);
}

static void stop_on_worker(void *arg)
{
	struct queue_call *c = arg;
	struct virtio_queue *q = c->q;

	if (q->dev->ops->queue_stopping)
		q->dev->ops->queue_stopping(q);
	if (q->owes)
		virtio_device_notify(q->dev);
	loop_del(&q->kick);
	loop_timer_stop(&q->again);
	q->started = false;
	c->state = virtqueue_save(&q->vq);
	memset(&q->vq, 0, sizeof(q->vq));
}

static void forget_on_worker(void *arg)
{
	struct queue_call *c = arg;

	if (c->q->started)
		stop_on_worker(c);
	c->q->callfd = c->q->errfd = -1;
}

static void set_call_on_worker(void *arg)
{
	struct queue_call *c = arg;

	c->q->callfd = c->callfd;
	/* Whoever listens on the new one may have missed a signal on the old. */
	if (c->q->started)
		signal_fd(c->callfd);
}

static void set_err_on_worker(void *arg)
{
	struct queue_call *c = arg;

	c->q->errfd = c->errfd;
}

/* ---- for transports ---- */

void virtio_device_on_broken(struct virtio_device *dev, virtio_broken_fn *fn, void *arg)
{
	dev->on_broken = fn;
	dev->broken_arg = arg;
}

void virtio_device_on_interrupt(struct virtio_device *dev, virtio_interrupt_fn *fn, void *arg)
{
	dev->interrupt = fn;
	dev->interrupt_arg = arg;
}

void virtio_device_on_config(struct virtio_device *dev, virtio_config_fn *fn, void *arg)
{
	pthread_mutex_lock(&dev->config_lock);
	dev->on_config = fn;
	dev->config_arg = arg;
	tell_transport(dev, false);
	pthread_mutex_unlock(&dev->config_lock);
}

bool virtio_device_broken(const struct virtio_device *dev)
{
	return atomic_load_explicit(&dev->broken, memory_order_relaxed);
}

static bool any_running(const struct virtio_device *dev)
{
	for (unsigned i = 0; i < dev->nqueues; i++) {
		if (dev->queues[i].started)
			return true;
	}
	return false;
}

int virtio_device_activate(struct virtio_device *dev, uint64_t features,
			   const struct guest_memory *mem)
{
	if (features & ~dev->offered)
		return -EINVAL;
	if (any_running(dev))
		return -EBUSY;
	dev->features = features;
	dev->mem = mem;
	atomic_store(&dev->broken, false);
	return 0;
}

int virtio_queue_start(struct virtio_device *dev, unsigned index, const struct virtqueue_state *s,
		       int kickfd, int callfd)
{
	struct queue_call c = {.start = s, .kickfd = kickfd, .callfd = callfd};

	if (index >= dev->nqueues || kickfd < 0 || !dev->mem ||
	    !(dev->features & (1ull << VIRTIO_F_VERSION_1)))
		return -EINVAL;
	if (virtio_device_broken(dev))
		return -EPIPE;
	c.q = &dev->queues[index];
	if (c.q->started)
		return -EALREADY;
	loop_call(c.q->loop, start_on_worker, &c);
	if (c.result < 0 && c.q->started)
		virtio_queue_stop(dev, index, NULL);
	if (c.result == 0)
		c.q->paused = false;
	return c.result;
}

int virtio_queue_stop(struct virtio_device *dev, unsigned index, struct virtqueue_state *ret)
{
	struct queue_call c = {0};

	if (index < dev->nqueues && dev->queues[index].paused) {
		dev->queues[index].paused = false;
		if (ret)
			*ret = dev->queues[index].paused_state;
		return 0;
	}
	if (!virtio_queue_running(dev, index))
		return -EINVAL;
	c.q = &dev->queues[index];
	loop_call(c.q->loop, stop_on_worker, &c);
	if (ret)
		*ret = c.state;
	return 0;
}

bool virtio_queue_running(const struct virtio_device *dev, unsigned index)
{
	return index < dev->nqueues && dev->queues[index].started;
}

void virtio_queue_set_call(struct virtio_device *dev, unsigned index, int callfd)
{
	struct queue_call c = {.callfd = callfd};

	if (index >= dev->nqueues)
		return;
	c.q = &dev->queues[index];
	loop_call(c.q->loop, set_call_on_worker, &c);
}

void virtio_queue_set_err(struct virtio_device *dev, unsigned index, int errfd)
{
	struct queue_call c = {.errfd = errfd};

	if (index >= dev->nqueues)
		return;
	c.q = &dev->queues[index];
	loop_call(c.q->loop, set_err_on_worker, &c);
}

void virtio_device_pause(struct virtio_device *dev)
{
	for (unsigned i = 0; i < dev->nqueues; i++) {
		struct virtio_queue *q = &dev->queues[i];

		if (q->started && virtio_queue_stop(dev, i, &q->paused_state) == 0)
			q->paused = true;
	}
}

int virtio_device_resume(struct virtio_device *dev)
{
	int result = 0;

	for (unsigned i = 0; i < dev->nqueues; i++) {
		struct virtio_queue *q = &dev->queues[i];
		int r;

		/* A broken device stays as it is until the driver resets it. */
		if (!q->paused || virtio_device_broken(dev))
			continue;
		r = virtio_queue_start(dev, i, &q->paused_state, q->kick.fd, q->callfd);
		if (r < 0 && result == 0)
			result = r;
	}
	return result;
}

int virtio_queue_paused_state(const struct virtio_device *dev, unsigned index,
			      struct virtqueue_state *ret)
{
	if (index >= dev->nqueues || !dev->queues[index].paused)
		return -EINVAL;
	*ret = dev->queues[index].paused_state;
	return 0;
}

static void reset_on_worker(void *arg)
{
	struct virtio_device *dev = arg;

	dev->ops->reset(dev);
}

void virtio_device_reset(struct virtio_device *dev)
{
	for (unsigned i = 0; i < dev->nqueues; i++) {
		struct queue_call c = {.q = &dev->queues[i]};

		/* Waking a worker costs more than all else here: only where it holds something. */
		if (c.q->started || c.q->callfd >= 0 || c.q->errfd >= 0)
			loop_call(c.q->loop, forget_on_worker, &c);
		c.q->paused = false;
	}
	if (dev->ops->reset)
		loop_call(dev->queues[0].loop, reset_on_worker, dev);
	dev->features = 0;
	dev->mem = NULL;
	atomic_store(&dev->broken, false);
}

void virtio_config_read(struct virtio_device *dev, uint64_t off, void *p, uint32_t len)
{
	uint32_t n = 0;

	if (off < dev->config_size)
		n = MIN(len, dev->config_size - (uint32_t)off);
	if (n) {
		pthread_mutex_lock(&dev->config_lock);
		memcpy(p, (const uint8_t *)dev->config + off, n);
		pthread_mutex_unlock(&dev->config_lock);
	}
	memset((uint8_t *)p + n, 0, len - n);
}

int virtio_config_write(struct virtio_device *dev, uint64_t off, const void *p, uint32_t len)
{
	int r;

	if (!dev->ops->write_config || off > dev->config_size || len > dev->config_size - off)
		return -EINVAL;
	pthread_mutex_lock(&dev->config_lock);
	r = dev->ops->write_config(dev, (uint32_t)off, p, len);
	if (r == 0)
		tell_transport(dev, false);
	pthread_mutex_unlock(&dev->config_lock);
	return r;
}

void virtio_config_update(struct virtio_device *dev, uint32_t off, const void *p, uint32_t len)
{
	uint8_t *at = (uint8_t *)dev->config + off;

	pthread_mutex_lock(&dev->config_lock);
	if (memcmp(at, p, len) != 0) {
		memcpy(at, p, len);
		dev->config_generation++;
		tell_transport(dev, true);
	}
	pthread_mutex_unlock(&dev->config_lock);
}

void virtio_config_set(struct virtio_device *dev, uint32_t off, const void *p, uint32_t len)
{
	pthread_mutex_lock(&dev->config_lock);
	memcpy((uint8_t *)dev->config + off, p, len);
	tell_transport(dev, false);
	pthread_mutex_unlock(&dev->config_lock);
}

uint32_t virtio_config_generation(struct virtio_device *dev)
{
	uint32_t generation;

	pthread_mutex_lock(&dev->config_lock);
	generation = dev->config_generation;
	pthread_mutex_unlock(&dev->config_lock);
	return generation;
}

struct loop *virtio_queue_loop(const struct virtio_device *dev, unsigned index)
{
	return index < dev->nqueues ? dev->queues[index].loop : NULL;
}

/* ---- life ---- */

static void stop_device_on_worker(void *arg)
{
	struct virtio_device *dev = arg;

	dev->ops->stop(dev);
}

static void release(struct virtio_device *dev)
{
	for (unsigned i = 0; i < dev->nworkers; i++)
		worker_stop(&dev->workers[i]);
	free(dev->workers);
	free(dev->queues);
	dev->workers = NULL;
	dev->queues = NULL;
	dev->nworkers = 0;
}

int virtio_device_init(struct virtio_device *dev, const struct virtio_device_params *p,
		       struct err *err)
{
	unsigned nworkers = p->worker_per_queue ? p->nqueues : 1;

	if (!p->nqueues || p->nqueues > VIRTIO_QUEUES_MAX)
		return err_set(err, EINVAL, "a %s device cannot have %u queues", p->ops->name,
			       p->nqueues);
	if (!p->queue_size_max || p->queue_size_max > VIRTQUEUE_SIZE_MAX ||
	    (p->queue_size_max & (p->queue_size_max - 1)))
		return err_set(err, EINVAL, "a queue cannot have %u entries", p->queue_size_max);
	*dev = (struct virtio_device){
		.ops = p->ops,
		.offered = p->features | COMMON_FEATURES,
		.config = p->config,
		.config_size = p->config_size,
		.nqueues = p->nqueues,
		.queue_size_max = p->queue_size_max,
		.late.fn = on_late,
		.config_lock = PTHREAD_MUTEX_INITIALIZER,
	};
	dev->queues = calloc(p->nqueues, sizeof(*dev->queues));
	dev->workers = calloc(nworkers, sizeof(*dev->workers));
	if (!dev->queues || !dev->workers) {
		release(dev);
		return err_set(err, ENOMEM, "cannot create a %s device: out of memory",
			       p->ops->name);
	}
	for (unsigned i = 0; i < nworkers; i++) {
		char name[16];
		int r;

		if (nworkers > 1)
			snprintf(name, sizeof(name), "%s-%.6s-%u", p->ops->name,
				 p->tag ? p->tag : "", i);
		else
			snprintf(name, sizeof(name), "%s-%.9s", p->ops->name,
				 p->tag ? p->tag : "0");
		dev->workers[i].batch = p->batch;
		r = worker_start(&dev->workers[i], name, err);
		if (r < 0) {
			release(dev);
			return err_wrap(err, "cannot create a %s device", p->ops->name);
		}
		dev->nworkers++;
	}
	for (unsigned i = 0; i < p->nqueues; i++) {
		struct virtio_queue *q = &dev->queues[i];

		q->dev = dev;
		q->index = i;
		q->loop = dev->workers[nworkers > 1 ? i : 0].loop;
		q->kick = (struct loop_source){.fn = on_kick, .fd = -1};
		q->again = (struct loop_timer){.fn = on_again};
		q->callfd = q->errfd = -1;
	}
	return 0;
}

struct virtio_device *virtio_device_free(struct virtio_device *dev)
{
	if (!dev)
		return NULL;
	virtio_device_reset(dev);
	if (dev->ops->stop)
		loop_call(dev->queues[0].loop, stop_device_on_worker, dev);
	release(dev);
	pthread_mutex_destroy(&dev->config_lock);
	dev->ops->free(dev);
	return NULL;
}

static void give_back(struct virtio_queue *q, virtio_settle_fn *settle)
{
	if (settle) {
		settle(q);
		virtqueue_publish(&q->vq);
	}
	virtio_queue_notify(q);
}

bool virtio_queue_serve(struct virtio_queue *q, struct iovec iov[VIRTQUEUE_CHAIN_MAX],
			unsigned requests, uint64_t bytes, virtio_serve_fn *serve,
			virtio_settle_fn *settle)
{
	/* Give back at least this often while more requests wait. */
	enum { NOTIFY_EVERY = 16 };
	uint64_t moved = 0;
	unsigned done = 0;

	virtqueue_disable_kick(&q->vq);
	for (;;) {
		struct virtqueue_chain c;
		const bool full = done >= requests || moved >= bytes;
		int r = full ? 0 : virtqueue_pop(&q->vq, &c, iov, VIRTQUEUE_CHAIN_MAX);
		uint32_t written = 0;
		const char *wrong;

		if (r < 0) {
			virtio_queue_broken(q, q->vq.why);
			return false;
		}
		if (r == 0) {
			if (done)
				give_back(q, settle);
			if (full)
				return true;
			if (!virtqueue_enable_kick(&q->vq))
				return false;
			virtqueue_disable_kick(&q->vq);
			continue;
		}
		wrong = serve(q, &c, &written);
		if (wrong) {
			virtio_queue_broken(q, wrong);
			return false;
		}
		/* What was served may have broken another queue: then nothing happens any more. */
		if (virtio_device_broken(q->dev))
			return false;
		moved += (uint64_t)c.read_len + c.write_len;
		virtqueue_put(&q->vq, c.head, written);
		if (!settle)
			virtqueue_publish(&q->vq);
		if (++done % NOTIFY_EVERY == 0)
			give_back(q, settle);
	}
}
