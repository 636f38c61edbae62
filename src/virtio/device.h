/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio device and its queues, whoever runs the CPU.
 *
 * A device is made of an operations table, a fixed configuration space, and queues. It runs on
 * worker threads of its own: one per queue, or one for all. A queue belongs to its worker; the
 * device's code only ever runs there and needs no locks.
 *
 * A transport (the vhost-user server, virtio-mmio) lives on another thread and drives the device
 * with the calls below, which hand over to the worker and wait for it. In order:
 *
 *	virtio_device_activate()   memory and negotiated features, while no queue runs
 *	virtio_queue_start()       addresses, indices and the two eventfds, per queue
 *	virtio_queue_stop()        returns the indices; afterwards the queue touches nothing
 *	virtio_device_reset()      stops what runs and forgets everything the driver set
 *
 * Kicks arrive on an eventfd in the worker's loop; interrupts leave through another, or through a
 * function of a transport that has one for all queues. Neither passes the transport's thread. A queue
 * is served in slices, so that a stop is never kept waiting by a driver that refills the ring.
 *
 * When the driver breaks the rules the device is "broken" (virtio 1.2, 2.1.2: DEVICE_NEEDS_RESET):
 * its queues are served no more, on_broken is called once, and only virtio_device_activate() or
 * virtio_device_reset() heals it.
 *
 * That, and a configuration that the device changed by itself, is what the driver must hear of
 * without having asked: the transport names a function for it with virtio_device_on_config().
 *
 * All transport calls of one device come from one thread at a time, and never from the device's
 * worker.
 */
#ifndef VIRTIO_DEVICE_H
#define VIRTIO_DEVICE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "virtio/guest_memory.h"
#include "virtio/virtqueue.h"

/* 64 vCPUs with a queue each, and one for control. */
#define VIRTIO_QUEUES_MAX 65

struct virtio_device;
struct virtio_queue;

struct virtio_device_ops {
	const char *name; /* "blk"; shown in messages and thread names */
	uint32_t id;	  /* virtio 1.2, 5 */

	/*
	 * Interrupts wait for the end of the loop's turn, so that what came of one turn is one
	 * interrupt for all queues. These are on one worker then.
	 */
	bool late;

	/*
	 * Serve the queue: it was kicked, has just been started, or had more than a slice. Returns
	 * true to be called again soon. Runs on the queue's worker.
	 */
	bool (*process)(struct virtio_queue *q);

	/* Optional; on the queue's worker. After stopping nothing may touch the queue's buffers. */
	void (*queue_started)(struct virtio_queue *q);
	void (*queue_stopping)(struct virtio_queue *q);

	/* Optional; on the first worker, with all queues stopped: forget the driver. */
	void (*reset)(struct virtio_device *dev);

	/*
	 * Optional; any thread, with the configuration's lock held. -errno if the driver may not
	 * write there. The range is valid.
	 */
	int (*write_config)(struct virtio_device *dev, uint32_t off, const void *p, uint32_t len);

	/* Optional; on the first worker, the last call there: let go of what is tied to its loop.
	 */
	void (*stop)(struct virtio_device *dev);

	/* Release the device itself. Its workers have stopped. */
	void (*free)(struct virtio_device *dev);
};

struct virtio_queue {
	struct virtio_device *dev;
	unsigned index;
	struct virtqueue vq;
	struct loop *loop; /* the worker that serves it */
	bool started;

	/* private */
	struct loop_source kick;
	struct loop_timer again;
	int callfd, errfd; /* borrowed */
	bool owes;	   /* an interrupt, with ops->late */
	bool paused;
	struct virtqueue_state paused_state;
};

/* Called once when the driver broke the rules; on a worker. Must not call back into the device. */
typedef void virtio_broken_fn(struct virtio_device *dev, const char *why, void *arg);

/*
 * The configuration is another one; with @news the driver is to look at it and at the status again.
 * Any thread, with the configuration's lock held: it must not call back into the device, nor wait
 * for whoever does.
 */
typedef void virtio_config_fn(struct virtio_device *dev, bool news, void *arg);

/* Interrupt the driver; on any worker. It must not call back into the device. */
typedef void virtio_interrupt_fn(void *arg);

struct virtio_device {
	const struct virtio_device_ops *ops;
	uint64_t offered; /* feature bits, VIRTIO_F_VERSION_1 and ring features included */
	void *config;	  /* little-endian; read and changed with config_lock held */
	uint32_t config_size;
	unsigned nqueues;
	uint16_t queue_size_max; /* what to offer the driver; any up to VIRTQUEUE_SIZE_MAX works */
	uint64_t features;	 /* negotiated; written only while no queue runs */
	const struct guest_memory *mem;

	/* private */
	atomic_bool broken;
	virtio_broken_fn *on_broken;
	void *broken_arg;
	pthread_mutex_t config_lock; /* innermost; config and what follows */
	uint32_t config_generation;
	virtio_config_fn *on_config;
	void *config_arg;
	virtio_interrupt_fn *interrupt;
	void *interrupt_arg;
	struct virtio_queue *queues;
	struct loop_timer late;
	struct worker *workers;
	unsigned nworkers;
};

/* ---- for transports and for whoever assembles a machine ---- */

/* Set before the first activation. */
void virtio_device_on_broken(struct virtio_device *dev, virtio_broken_fn *fn, void *arg);

/*
 * Called now, without news, and from here on when the configuration has changed or the device broke.
 * With NULL no such call is made, or still running, once this has returned. Any thread.
 */
void virtio_device_on_config(struct virtio_device *dev, virtio_config_fn *fn, void *arg);

/* From here on interrupts are calls of @fn, not the queues' eventfds; NULL. While no queue runs. */
void virtio_device_on_interrupt(struct virtio_device *dev, virtio_interrupt_fn *fn, void *arg);

/* Any thread. */
bool virtio_device_broken(const struct virtio_device *dev);

/*
 * Accept the driver's @features (bits not offered: -EINVAL) and the guest's memory, which is
 * borrowed until the next activation or reset. -EBUSY while a queue runs.
 */
int virtio_device_activate(struct virtio_device *dev, uint64_t features,
			   const struct guest_memory *mem);

/*
 * Serve queue @index. The eventfds are borrowed until the queue has stopped; @callfd may be -1.
 * -EINVAL for a bad index, size or alignment or a driver without VIRTIO_F_VERSION_1, -EFAULT for
 * areas outside memory, -EALREADY when it runs, -EPIPE when the device is broken.
 */
int virtio_queue_start(struct virtio_device *dev, unsigned index, const struct virtqueue_state *s,
		       int kickfd, int callfd);

/*
 * Stop queue @index. @ret (may be NULL) gets the state to resume from. A paused queue will then not
 * be resumed. -EINVAL if it is neither running nor paused.
 */
int virtio_queue_stop(struct virtio_device *dev, unsigned index, struct virtqueue_state *ret);

bool virtio_queue_running(const struct virtio_device *dev, unsigned index);

/* Replace the fd that is signalled on use, or on an error, of a queue; -1 for none. */
void virtio_queue_set_call(struct virtio_device *dev, unsigned index, int callfd);
void virtio_queue_set_err(struct virtio_device *dev, unsigned index, int errfd);

/*
 * Stop every running queue with nothing in flight, and start those again. Guest memory is
 * untouched in between, and virtio_queue_paused_state() of each queue tells where it is.
 */
void virtio_device_pause(struct virtio_device *dev);
int virtio_device_resume(struct virtio_device *dev);

/* The indices of a paused queue; -EINVAL otherwise. */
int virtio_queue_paused_state(const struct virtio_device *dev, unsigned index,
			      struct virtqueue_state *ret);

/* Stop everything and return to the state after creation. Never fails. */
void virtio_device_reset(struct virtio_device *dev);

/*
 * Access to the configuration space at any offset and width; any thread. Bytes beyond its end read
 * as zero. A write the device does not accept is -EINVAL and has no effect.
 */
void virtio_config_read(struct virtio_device *dev, uint64_t off, void *p, uint32_t len);
int virtio_config_write(struct virtio_device *dev, uint64_t off, const void *p, uint32_t len);

/* Differs when the device changed its configuration in between. Any thread. */
uint32_t virtio_config_generation(struct virtio_device *dev);

/* The loop that serves queue @index: to run something on that thread with loop_call(). */
struct loop *virtio_queue_loop(const struct virtio_device *dev, unsigned index);

/* Reset, stop the workers, release everything. NULL is fine. Returns NULL. */
struct virtio_device *virtio_device_free(struct virtio_device *dev);

/* ---- for devices ---- */

struct virtio_device_params {
	const struct virtio_device_ops *ops;
	uint64_t features; /* device bits; version 1 and ring features are added */
	void *config;	   /* of the device, which embeds struct virtio_device */
	uint32_t config_size;
	unsigned nqueues;
	uint16_t queue_size_max; /* a power of two */
	bool worker_per_queue;
	bool batch;	 /* see struct worker */
	const char *tag; /* tells devices of one kind apart in thread names */
};

/* Fill @dev, which the device allocated, and start its workers. */
int virtio_device_init(struct virtio_device *dev, const struct virtio_device_params *p,
		       struct err *err);

/*
 * Change @len bytes of the configuration at @off, which must be inside, and tell the driver; says
 * nothing where it changes nothing. Any thread.
 */
void virtio_config_update(struct virtio_device *dev, uint32_t off, const void *p, uint32_t len);
/* The same without a word: for what the driver has brought about itself. */
void virtio_config_set(struct virtio_device *dev, uint32_t off, const void *p, uint32_t len);

/* On the queue's worker: interrupt the driver if it wants to know. */
void virtio_queue_notify(struct virtio_queue *q);
/* On the worker of a device with ops->late: do not wait for the turn's end. */
void virtio_device_notify(struct virtio_device *dev);

/*
 * On the queue's worker: have the queue served (again) at the end of this turn of the loop, as if
 * it had been kicked. Harmless on a queue that is not running.
 */
void virtio_queue_schedule(struct virtio_queue *q);

/* On the queue's worker: the driver broke the rules. */
void virtio_queue_broken(struct virtio_queue *q, const char *why);

/*
 * process() of a device that serves one request after the other: take chains, have each served, and
 * give it back with *@written. @serve returns what is wrong with the request, or NULL. At most
 * @requests, or as many as pass @bytes together, in one call: a stop waits for no more.
 *
 * With @settle what was served is given back some requests at a time, after a call of it; the rest,
 * when the device breaks, never.
 */
typedef const char *virtio_serve_fn(struct virtio_queue *q, const struct virtqueue_chain *c,
				    uint32_t *written);
typedef void virtio_settle_fn(struct virtio_queue *q);
bool virtio_queue_serve(struct virtio_queue *q, struct iovec iov[VIRTQUEUE_CHAIN_MAX],
			unsigned requests, uint64_t bytes, virtio_serve_fn *serve,
			virtio_settle_fn *settle);

#endif
