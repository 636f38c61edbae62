/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. The registers fill in a `struct setup` per queue; QueueReady hands it to the
 * device. What the driver may do when follows from the status register (3.1.1): features until
 * FEATURES_OK, queues between FEATURES_OK and reset. Everything else is ignored, as a device that
 * gets nonsense may do, and a queue's registers mean nothing once it is ready: the device has its
 * own copy. A write of 0 to the status register resets; so does freeing the transport.
 *
 * Two things reach the driver unasked (2.1.2, 2.2): a configuration that changed and a device that
 * needs a reset. Both come from a thread of the device's while the lock may be held by a vCPU that
 * waits for that very thread. So they touch nothing but two atomics: `changed` is set before
 * `driver_ok` is looked at, and set_status() does it the other way round; one of them interrupts.
 *
 * The page that is shown changes with each write of the driver's, and with the device: the latter adds
 * bits to it that the former puts in once more if they came meanwhile. Its configuration space is
 * written with the configuration's lock held, so that the latest wins.
 */
#include "virtio/mmio.h"

#include <errno.h>
#include <endian.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"

#define MAGIC  0x74726976u /* "virt" */
#define VENDOR 0x4d534230u /* "0BSM" */

/* What a driver may say of itself (2.1). DEVICE_NEEDS_RESET is the device's. */
#define DRIVER_STATUS                                                                              \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK |        \
	 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_FAILED)

_Static_assert(MMIO_QUEUE_NOTIFY == VIRTIO_MMIO_QUEUE_NOTIFY &&
		       MMIO_INTERRUPT_ACK == VIRTIO_MMIO_INTERRUPT_ACK &&
		       MMIO_ACK_USED == VIRTIO_MMIO_INT_VRING,
	       "registers (4.2.2)");

struct virtio_mmio {
	struct virtio_device *dev;
	const struct guest_memory *mem;
	atomic_bool changed;   /* the driver has yet to acknowledge a change... */
	atomic_bool driver_ok; /* ...and may be interrupted for it */
	pthread_mutex_t lock;  /* everything below; innermost but for the device's own calls */
	uint32_t status, features_sel, driver_features_sel, queue_sel;
	uint64_t driver_features;
	bool activated;
	struct virtqueue_state setup[VIRTIO_QUEUES_MAX];
	uint8_t *page; /* NULL: nobody looks */
	virtio_interrupt_fn *interrupt;
	void *arg;
	int kickfd[VIRTIO_QUEUES_MAX];
};

static uint32_t read_register(struct virtio_mmio *t, uint64_t off);

/* ---- the page ---- */

static uint32_t *shown(const struct virtio_mmio *t, uint64_t off)
{
	return (uint32_t *)(void *)(t->page + off);
}

/* What is not the driver's doing. */
static void show_news(const struct virtio_mmio *t)
{
	if (atomic_load(&t->changed))
		__atomic_or_fetch(shown(t, VIRTIO_MMIO_INTERRUPT_STATUS),
				  htole32(VIRTIO_MMIO_INT_CONFIG), __ATOMIC_SEQ_CST);
	if (virtio_device_broken(t->dev))
		__atomic_or_fetch(shown(t, VIRTIO_MMIO_STATUS),
				  htole32(VIRTIO_CONFIG_S_NEEDS_RESET), __ATOMIC_SEQ_CST);
}

/* With the configuration's lock held. */
static void show_config(const struct virtio_mmio *t)
{
	if (t->dev->config_size)
		memcpy(t->page + VIRTIO_MMIO_CONFIG, t->dev->config,
		       MIN(t->dev->config_size, (uint32_t)(MMIO_SIZE - VIRTIO_MMIO_CONFIG)));
	/* What was read in between is read once more when the interrupt is there. */
	__atomic_store_n(shown(t, VIRTIO_MMIO_CONFIG_GENERATION),
			 htole32(t->dev->config_generation), __ATOMIC_SEQ_CST);
}

static void show(struct virtio_mmio *t, uint64_t off)
{
	__atomic_store_n(shown(t, off), htole32(read_register(t, off)), __ATOMIC_SEQ_CST);
}

/* After a write. With the lock held. */
static void show_changes(struct virtio_mmio *t)
{
	if (!t->page)
		return;
	show(t, VIRTIO_MMIO_DEVICE_FEATURES);
	show(t, VIRTIO_MMIO_QUEUE_NUM_MAX);
	show(t, VIRTIO_MMIO_QUEUE_READY);
	show(t, VIRTIO_MMIO_INTERRUPT_STATUS);
	show(t, VIRTIO_MMIO_STATUS);
	show_news(t);
}

/* virtio_config_fn: any thread. */
static void on_config(struct virtio_device *dev, bool news, void *arg)
{
	struct virtio_mmio *t = arg;

	(void)dev;
	if (t->page)
		show_config(t);
	if (!news)
		return;
	atomic_store(&t->changed, true);
	if (t->page)
		show_news(t);
	if (atomic_load(&t->driver_ok))
		t->interrupt(t->arg);
}

static void reset(struct virtio_mmio *t)
{
	atomic_store(&t->driver_ok, false);
	virtio_device_reset(t->dev);
	/* A change after this is told once the driver is there again. */
	atomic_store(&t->changed, false);
	t->status = 0;
	t->features_sel = t->driver_features_sel = t->queue_sel = 0;
	t->driver_features = 0;
	t->activated = false;
	memset(t->setup, 0, sizeof(t->setup));
}

static void set_status(struct virtio_mmio *t, uint32_t v)
{
	if (v == 0) {
		reset(t);
		return;
	}
	/* Bits only ever come on; a driver that takes one away gets no new meaning from it. */
	v = (v & DRIVER_STATUS) | t->status;
	if ((v & VIRTIO_CONFIG_S_FEATURES_OK) && !t->activated) {
		if (virtio_device_activate(t->dev, t->driver_features, t->mem) < 0)
			v &= ~(uint32_t)VIRTIO_CONFIG_S_FEATURES_OK;
		else
			t->activated = true;
	}
	t->status = v;
	if ((v & VIRTIO_CONFIG_S_DRIVER_OK) && !atomic_exchange(&t->driver_ok, true) &&
	    atomic_load(&t->changed))
		t->interrupt(t->arg);
}

static uint32_t get_status(const struct virtio_mmio *t)
{
	return t->status | (virtio_device_broken(t->dev) ? VIRTIO_CONFIG_S_NEEDS_RESET : 0);
}

static struct virtqueue_state *selected(struct virtio_mmio *t)
{
	return t->queue_sel < t->dev->nqueues ? &t->setup[t->queue_sel] : NULL;
}

/* -errno if the queue cannot work; one that runs already, or of a broken device, is no news. */
static int set_ready(struct virtio_mmio *t, uint32_t v)
{
	struct virtqueue_state *s = selected(t);
	int r = 0;

	if (!s)
		return 0;
	if (!v)
		(void)virtio_queue_stop(t->dev, t->queue_sel, NULL);
	else if (t->activated)
		r = virtio_queue_start(t->dev, t->queue_sel, s, t->kickfd[t->queue_sel], -1);
	return r == -EALREADY || r == -EPIPE ? 0 : r;
}

static uint32_t half(uint64_t v, uint32_t sel)
{
	return sel == 0 ? (uint32_t)v : sel == 1 ? (uint32_t)(v >> 32) : 0;
}

static void set_half(uint64_t *v, bool high, uint32_t to)
{
	*v = high ? (*v & UINT32_MAX) | (uint64_t)to << 32 : (*v & ~(uint64_t)UINT32_MAX) | to;
}

static uint32_t read_register(struct virtio_mmio *t, uint64_t off)
{
	switch (off) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		return MAGIC;
	case VIRTIO_MMIO_VERSION:
		return 2;
	case VIRTIO_MMIO_DEVICE_ID:
		return t->dev->ops->id;
	case VIRTIO_MMIO_VENDOR_ID:
		return VENDOR;
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return half(t->dev->offered, t->features_sel);
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
		return selected(t) ? t->dev->queue_size_max : 0;
	case VIRTIO_MMIO_QUEUE_READY:
		return virtio_queue_running(t->dev, t->queue_sel);
	case VIRTIO_MMIO_INTERRUPT_STATUS:
		return VIRTIO_MMIO_INT_VRING |
		       (atomic_load(&t->changed) ? VIRTIO_MMIO_INT_CONFIG : 0);
	case VIRTIO_MMIO_STATUS:
		return get_status(t);
	case VIRTIO_MMIO_CONFIG_GENERATION:
		return virtio_config_generation(t->dev);
	case VIRTIO_MMIO_SHM_LEN_LOW:
	case VIRTIO_MMIO_SHM_LEN_HIGH:
	case VIRTIO_MMIO_SHM_BASE_LOW:
	case VIRTIO_MMIO_SHM_BASE_HIGH:
		return UINT32_MAX; /* no such region (4.2.2) */
	}
	return 0;
}

static int write_register(struct virtio_mmio *t, uint64_t off, uint32_t v)
{
	struct virtqueue_state *s = selected(t);

	switch (off) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		t->features_sel = v;
		return 0;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		t->driver_features_sel = v;
		return 0;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		if (!(t->status & VIRTIO_CONFIG_S_FEATURES_OK) && t->driver_features_sel < 2)
			set_half(&t->driver_features, t->driver_features_sel, v);
		return 0;
	case VIRTIO_MMIO_QUEUE_SEL:
		t->queue_sel = v;
		return 0;
	case VIRTIO_MMIO_QUEUE_READY:
		return set_ready(t, v);
	case VIRTIO_MMIO_STATUS:
		set_status(t, v);
		return 0;
	case VIRTIO_MMIO_INTERRUPT_ACK:
		if (v & VIRTIO_MMIO_INT_CONFIG)
			atomic_store(&t->changed, false);
		return 0;
	}
	if (!s)
		return 0;
	switch (off) {
	case VIRTIO_MMIO_QUEUE_NUM:
		/* More than QueueNumMax becomes 0, which the device refuses. */
		s->size = v <= t->dev->queue_size_max ? (uint16_t)v : 0;
		return 0;
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
		set_half(&s->desc, off == VIRTIO_MMIO_QUEUE_DESC_HIGH, v);
		return 0;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
		set_half(&s->avail, off == VIRTIO_MMIO_QUEUE_AVAIL_HIGH, v);
		return 0;
	case VIRTIO_MMIO_QUEUE_USED_LOW:
	case VIRTIO_MMIO_QUEUE_USED_HIGH:
		set_half(&s->used, off == VIRTIO_MMIO_QUEUE_USED_HIGH, v);
		return 0;
	}
	return 0;
}

void virtio_mmio_read(struct virtio_mmio *t, uint64_t off, void *p, uint32_t len)
{
	memset(p, 0, len);
	pthread_mutex_lock(&t->lock);
	if (off >= VIRTIO_MMIO_CONFIG) {
		virtio_config_read(t->dev, off - VIRTIO_MMIO_CONFIG, p, len);
	} else if (len == 4 && off % 4 == 0) {
		uint32_t v = htole32(read_register(t, off));

		memcpy(p, &v, sizeof(v));
	}
	pthread_mutex_unlock(&t->lock);
}

static void kick(const struct virtio_mmio *t, uint32_t queue)
{
	uint64_t one = 1;

	if (queue < t->dev->nqueues)
		(void)!write(t->kickfd[queue], &one, sizeof(one));
}

int virtio_mmio_write(struct virtio_mmio *t, uint64_t off, const void *p, uint32_t len)
{
	uint32_t v;
	int r = 0;

	if (off < VIRTIO_MMIO_CONFIG && (len != 4 || off % 4))
		return 0;
	pthread_mutex_lock(&t->lock);
	if (off >= VIRTIO_MMIO_CONFIG) {
		(void)virtio_config_write(t->dev, off - VIRTIO_MMIO_CONFIG, p, len);
	} else {
		memcpy(&v, p, sizeof(v));
		v = le32toh(v);
		/* Only where no ioeventfd took it, as for a queue that does not exist. */
		if (off == VIRTIO_MMIO_QUEUE_NOTIFY)
			kick(t, v);
		else
			r = write_register(t, off, v);
	}
	show_changes(t);
	pthread_mutex_unlock(&t->lock);
	return r;
}

void virtio_mmio_show(struct virtio_mmio *t, void *page)
{
	pthread_mutex_lock(&t->lock);
	t->page = page;
	for (uint64_t off = 0; off < VIRTIO_MMIO_CONFIG; off += 4)
		show(t, off);
	memset(t->page + VIRTIO_MMIO_CONFIG, 0, MMIO_SIZE - VIRTIO_MMIO_CONFIG);
	virtio_device_on_config(t->dev, on_config, t);
	pthread_mutex_unlock(&t->lock);
}

unsigned virtio_mmio_queues(const struct virtio_mmio *t)
{
	return t->dev->nqueues;
}

int virtio_mmio_kick_fd(const struct virtio_mmio *t, unsigned queue)
{
	return t->kickfd[queue];
}

int virtio_mmio_new(struct virtio_device *dev, const struct guest_memory *mem,
		    virtio_interrupt_fn *interrupt, void *arg, struct virtio_mmio **ret,
		    struct err *err)
{
	struct virtio_mmio *t = calloc(1, sizeof(*t));
	bool ok = true;

	if (!t)
		return err_set(err, ENOMEM, "cannot attach a %s device: out of memory",
			       dev->ops->name);
	t->dev = dev;
	t->mem = mem;
	pthread_mutex_init(&t->lock, NULL);
	t->interrupt = interrupt;
	t->arg = arg;
	for (unsigned i = 0; i < dev->nqueues; i++) {
		t->kickfd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		ok &= t->kickfd[i] >= 0;
	}
	if (!ok) {
		int r = err_errno(err, "cannot attach a %s device", dev->ops->name);

		virtio_mmio_free(t);
		return r;
	}
	virtio_device_on_interrupt(dev, interrupt, arg);
	virtio_device_on_config(dev, on_config, t);
	*ret = t;
	return 0;
}

struct virtio_mmio *virtio_mmio_free(struct virtio_mmio *t)
{
	if (!t)
		return NULL;
	virtio_device_on_config(t->dev, NULL, NULL);
	reset(t);
	virtio_device_on_interrupt(t->dev, NULL, NULL);
	for (unsigned i = 0; i < t->dev->nqueues; i++)
		close_fd(t->kickfd[i]);
	pthread_mutex_destroy(&t->lock);
	free(t);
	return NULL;
}
