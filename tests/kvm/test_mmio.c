/* SPDX-License-Identifier: Apache-2.0 */
/* The virtio-mmio transport, driven register by register against a small device. */
#include "test.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "virtio/mmio.h"

enum {
	QUEUES = 2,
	SIZE = 8,
	MEMORY = 0x10000,
	DESC = 0x1000,
	AVAIL = 0x2000,
	USED = 0x3000,
	DATA = 0x4000
};

#define STATUS_UP                                                                                  \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK)

/* Returns every chain with one byte written into it. */
struct echo {
	struct virtio_device dev;
	uint8_t config[6];
	atomic_uint served, started, stopped;
	atomic_bool hold; /* take nothing */
};

static bool echo_process(struct virtio_queue *q)
{
	struct echo *e = container_of(q->dev, struct echo, dev);
	struct iovec iov[VIRTQUEUE_CHAIN_MAX];
	struct virtqueue_chain c;
	int r;

	if (e->hold)
		return false;
	while ((r = virtqueue_pop(&q->vq, &c, iov, VIRTQUEUE_CHAIN_MAX)) > 0) {
		if (c.nwrite)
			*(uint8_t *)c.write[0].iov_base = 0x42;
		virtqueue_push(&q->vq, c.head, c.nwrite ? 1 : 0);
		e->served++;
		virtio_queue_notify(q);
	}
	if (r < 0)
		virtio_queue_broken(q, q->vq.why);
	return false;
}

static void echo_started(struct virtio_queue *q)
{
	container_of(q->dev, struct echo, dev)->started++;
}

static void echo_stopping(struct virtio_queue *q)
{
	container_of(q->dev, struct echo, dev)->stopped++;
}

static int echo_write_config(struct virtio_device *dev, uint32_t off, const void *p, uint32_t len)
{
	memcpy(container_of(dev, struct echo, dev)->config + off, p, len);
	return 0;
}

static void echo_free(struct virtio_device *dev)
{
	(void)dev;
}

static const struct virtio_device_ops echo_ops = {
	.name = "echo",
	.id = 42,
	.process = echo_process,
	.queue_started = echo_started,
	.queue_stopping = echo_stopping,
	.write_config = echo_write_config,
	.free = echo_free,
};

struct fixture {
	struct echo e;
	uint8_t *memory;
	struct guest_memory map;
	struct virtio_mmio *t;
	int irq;
	uint32_t page[MMIO_SIZE / 4];
};

static void on_interrupt(void *arg)
{
	const struct fixture *f = arg;
	const uint64_t one = 1;

	(void)!write(f->irq, &one, sizeof(one));
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const struct virtio_device_params p = {
		.ops = &echo_ops,
		.features = 1ull << 5,
		.config = f->e.config,
		.config_size = sizeof(f->e.config),
		.nqueues = QUEUES,
		.queue_size_max = SIZE,
		.worker_per_queue = true,
	};

	f->memory = calloc(1, MEMORY);
	f->irq = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (virtio_device_init(&f->e.dev, &p, NULL) < 0 ||
	    guest_memory_add(&f->map, 0, MEMORY, f->memory) < 0 ||
	    virtio_mmio_new(&f->e.dev, &f->map, on_interrupt, f, &f->t, NULL) < 0)
		return -1;
	memcpy(f->e.config, "config", 6);
	virtio_mmio_show(f->t, f->page);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	virtio_mmio_free(f->t);
	virtio_device_free(&f->e.dev);
	close_fd(f->irq);
	free(f->memory);
	free(f);
	return 0;
}

static uint32_t rd(struct fixture *f, uint64_t off)
{
	const uint64_t until = now_ns() + 60000000000u;
	uint32_t v, seen;

	/* What a guest sees without asking is the same, or will be when the device's thread says so. */
	do {
		v = 0xdeadbeef;
		virtio_mmio_read(f->t, off, &v, 4);
		seen = off % 4 || off >= MMIO_SIZE
			       ? v
			       : __atomic_load_n(&f->page[off / 4], __ATOMIC_SEQ_CST);
	} while (seen != v && now_ns() < until);
	assert_int_equal(seen, v);
	return v;
}

static int wr(struct fixture *f, uint64_t off, uint32_t v)
{
	return virtio_mmio_write(f->t, off, &v, 4);
}

static void wr64(struct fixture *f, uint64_t low, uint64_t v)
{
	wr(f, low, (uint32_t)v);
	wr(f, low + 4, (uint32_t)(v >> 32));
}

static void negotiate(struct fixture *f)
{
	wr(f, VIRTIO_MMIO_STATUS, 0);
	wr(f, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	wr(f, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	wr(f, VIRTIO_MMIO_DRIVER_FEATURES, 1); /* VERSION_1 */
	wr(f, VIRTIO_MMIO_STATUS, STATUS_UP);
	assert_int_equal(rd(f, VIRTIO_MMIO_STATUS), STATUS_UP);
}

static void set_queue(struct fixture *f, uint32_t n)
{
	wr(f, VIRTIO_MMIO_QUEUE_SEL, n);
	wr(f, VIRTIO_MMIO_QUEUE_NUM, SIZE);
	wr64(f, VIRTIO_MMIO_QUEUE_DESC_LOW, DESC);
	wr64(f, VIRTIO_MMIO_QUEUE_AVAIL_LOW, AVAIL);
	wr64(f, VIRTIO_MMIO_QUEUE_USED_LOW, USED);
	wr(f, VIRTIO_MMIO_QUEUE_READY, 1);
}

static void drive(struct fixture *f)
{
	negotiate(f);
	set_queue(f, 0);
	assert_int_equal(rd(f, VIRTIO_MMIO_QUEUE_READY), 1);
	wr(f, VIRTIO_MMIO_STATUS, STATUS_UP | VIRTIO_CONFIG_S_DRIVER_OK);
}

/* Make one writable buffer available as entry number @n and kick the way an engine would. */
static void submit(struct fixture *f, uint16_t n)
{
	const struct vring_desc d = {.addr = DATA, .len = 16, .flags = VRING_DESC_F_WRITE};
	struct vring_avail *avail = (void *)(f->memory + AVAIL);

	memcpy(f->memory + DESC, &d, sizeof(d));
	avail->ring[n % SIZE] = 0;
	__atomic_store_n(&avail->idx, n + 1, __ATOMIC_RELEASE);
	wr(f, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
}

static bool interrupted(struct fixture *f, int ms)
{
	struct pollfd p = {.fd = f->irq, .events = POLLIN};
	uint64_t n;

	return poll(&p, 1, ms) == 1 && read(p.fd, &n, sizeof(n)) == sizeof(n);
}

/* ---- tests ---- */

static void test_identity(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(rd(f, VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
	assert_int_equal(rd(f, VIRTIO_MMIO_VERSION), 2);
	assert_int_equal(rd(f, VIRTIO_MMIO_DEVICE_ID), 42);
	assert_int_equal(rd(f, VIRTIO_MMIO_QUEUE_NUM_MAX), SIZE);
	assert_int_equal(rd(f, VIRTIO_MMIO_CONFIG_GENERATION), 0);
	assert_int_equal(rd(f, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
	/* No shared memory: length of all ones. */
	wr(f, VIRTIO_MMIO_SHM_SEL, 0);
	assert_int_equal(rd(f, VIRTIO_MMIO_SHM_LEN_LOW), UINT32_MAX);
	assert_int_equal(rd(f, VIRTIO_MMIO_SHM_LEN_HIGH), UINT32_MAX);
	/* A register that is only written reads as nothing. */
	assert_int_equal(rd(f, VIRTIO_MMIO_QUEUE_NOTIFY), 0);
}

static void test_features(void **state)
{
	struct fixture *f = *state;

	wr(f, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	assert_true(rd(f, VIRTIO_MMIO_DEVICE_FEATURES) & 1u << 5);
	wr(f, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	assert_int_equal(rd(f, VIRTIO_MMIO_DEVICE_FEATURES) & 1, 1);
	for (uint32_t sel = 2; sel; sel <<= 3) {
		wr(f, VIRTIO_MMIO_DEVICE_FEATURES_SEL, sel);
		assert_int_equal(rd(f, VIRTIO_MMIO_DEVICE_FEATURES), 0);
	}
	negotiate(f);
	assert_true(f->e.dev.features == 1ull << VIRTIO_F_VERSION_1);
	/* Too late to change one's mind. */
	wr(f, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	wr(f, VIRTIO_MMIO_DRIVER_FEATURES, 1u << 5);
	wr(f, VIRTIO_MMIO_STATUS, STATUS_UP);
	assert_true(f->e.dev.features == 1ull << VIRTIO_F_VERSION_1);
}

static void test_features_not_offered(void **state)
{
	struct fixture *f = *state;

	wr(f, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	wr(f, VIRTIO_MMIO_DRIVER_FEATURES, 1u << 6);
	wr(f, VIRTIO_MMIO_STATUS, STATUS_UP);
	assert_false(rd(f, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_FEATURES_OK);
	/* Selectors beyond 64 bits change nothing. */
	wr(f, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 2);
	wr(f, VIRTIO_MMIO_DRIVER_FEATURES, UINT32_MAX);
	wr(f, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	wr(f, VIRTIO_MMIO_DRIVER_FEATURES, 0);
	negotiate(f);
}

static void test_request(void **state)
{
	struct fixture *f = *state;

	drive(f);
	for (uint16_t i = 0; i < 20; i++) {
		f->memory[DATA] = 0;
		submit(f, i);
		assert_true(interrupted(f, 60000));
		assert_int_equal(f->memory[DATA], 0x42);
		wr(f, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
	}
	assert_int_equal(f->e.served, 20);
	assert_int_equal(virtio_mmio_queues(f->t), QUEUES);
}

static void test_queues_need_features_first(void **state)
{
	struct fixture *f = *state;

	set_queue(f, 0);
	assert_int_equal(rd(f, VIRTIO_MMIO_QUEUE_READY), 0);
	wr(f, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER_OK);
	set_queue(f, 0);
	assert_int_equal(f->e.started, 0);
	/* A legacy driver, without VERSION_1, gets no queue either. */
	wr(f, VIRTIO_MMIO_STATUS, STATUS_UP);
	set_queue(f, 0);
	assert_int_equal(f->e.started, 0);
}

/* CVE-2026-5747's class: what is running does not follow registers written afterwards. */
static void test_registers_rewritten_while_running(void **state)
{
	struct fixture *f = *state;

	drive(f);
	wr(f, VIRTIO_MMIO_QUEUE_SEL, 0);
	wr(f, VIRTIO_MMIO_QUEUE_NUM, 0);
	wr64(f, VIRTIO_MMIO_QUEUE_DESC_LOW, UINT64_MAX);
	wr64(f, VIRTIO_MMIO_QUEUE_AVAIL_LOW, MEMORY - 1);
	wr64(f, VIRTIO_MMIO_QUEUE_USED_LOW, 0xfffffffffffff000);
	assert_int_equal(wr(f, VIRTIO_MMIO_QUEUE_READY, 1), 0);
	wr(f, VIRTIO_MMIO_STATUS, STATUS_UP | VIRTIO_CONFIG_S_DRIVER_OK);
	submit(f, 0);
	assert_true(interrupted(f, 60000));
	assert_int_equal(f->memory[DATA], 0x42);
	assert_int_equal(f->e.started, 1);
	/* They count when the queue starts anew, and then they are refused. */
	wr(f, VIRTIO_MMIO_QUEUE_READY, 0);
	assert_int_equal(rd(f, VIRTIO_MMIO_QUEUE_READY), 0);
	wr(f, VIRTIO_MMIO_QUEUE_READY, 1);
	assert_int_equal(rd(f, VIRTIO_MMIO_QUEUE_READY), 0);
}

static void test_bad_queue_setups(void **state)
{
	static const struct {
		uint32_t size;
		uint64_t desc, avail, used;
	} bad[] = {
		{0, DESC, AVAIL, USED},		  {3, DESC, AVAIL, USED},
		{SIZE * 2, DESC, AVAIL, USED},	  {0x10000 | SIZE, DESC, AVAIL, USED},
		{UINT32_MAX, DESC, AVAIL, USED},  {SIZE, DESC + 1, AVAIL, USED},
		{SIZE, DESC, AVAIL + 1, USED},	  {SIZE, DESC, AVAIL, USED + 2},
		{SIZE, MEMORY, AVAIL, USED},	  {SIZE, DESC, MEMORY - 2, USED},
		{SIZE, DESC, AVAIL, MEMORY - 16}, {SIZE, 0xfffffffffffffff0, AVAIL, USED},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		negotiate(f);
		wr(f, VIRTIO_MMIO_QUEUE_SEL, 1);
		wr(f, VIRTIO_MMIO_QUEUE_NUM, bad[i].size);
		wr64(f, VIRTIO_MMIO_QUEUE_DESC_LOW, bad[i].desc);
		wr64(f, VIRTIO_MMIO_QUEUE_AVAIL_LOW, bad[i].avail);
		wr64(f, VIRTIO_MMIO_QUEUE_USED_LOW, bad[i].used);
		if (wr(f, VIRTIO_MMIO_QUEUE_READY, 1) != (i < 8 ? -EINVAL : -EFAULT) ||
		    rd(f, VIRTIO_MMIO_QUEUE_READY))
			fail_msg("set-up %zu was accepted", i);
	}
	assert_int_equal(f->e.started, 0);
}

/* kvmtool 31e0eac's class. */
static void test_queue_selection_out_of_range(void **state)
{
	static const uint32_t bad[] = {QUEUES, QUEUES + 1, VIRTIO_QUEUES_MAX, 0x7fffffff,
				       UINT32_MAX};
	struct fixture *f = *state;

	drive(f);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		set_queue(f, bad[i]);
		assert_int_equal(rd(f, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
		assert_int_equal(rd(f, VIRTIO_MMIO_QUEUE_READY), 0);
		wr(f, VIRTIO_MMIO_QUEUE_READY, 0);
		wr(f, VIRTIO_MMIO_QUEUE_NOTIFY, bad[i]);
	}
	assert_int_equal(f->e.started, 1);
	submit(f, 0);
	assert_true(interrupted(f, 60000));
}

static void test_widths_and_offsets(void **state)
{
	static const uint32_t widths[] = {1, 2, 8};
	struct fixture *f = *state;
	uint8_t b[8];

	for (size_t i = 0; i < ARRAY_SIZE(widths); i++) {
		memset(b, 0xaa, sizeof(b));
		virtio_mmio_read(f->t, VIRTIO_MMIO_MAGIC_VALUE, b, widths[i]);
		for (uint32_t k = 0; k < widths[i]; k++)
			assert_int_equal(b[k], 0);
	}
	memset(b, 0xff, sizeof(b));
	virtio_mmio_write(f->t, VIRTIO_MMIO_STATUS, b, 1);
	virtio_mmio_write(f->t, VIRTIO_MMIO_STATUS, b, 8);
	virtio_mmio_write(f->t, VIRTIO_MMIO_STATUS + 1, b, 4);
	assert_int_equal(rd(f, VIRTIO_MMIO_STATUS), 0);
	/* The configuration takes any, and ends where it ends. */
	virtio_mmio_read(f->t, VIRTIO_MMIO_CONFIG + 1, b, 1);
	assert_int_equal(b[0], 'o');
	virtio_mmio_read(f->t, VIRTIO_MMIO_CONFIG + 4, b, 4);
	assert_memory_equal(b, "ig\0\0", 4);
	virtio_mmio_read(f->t, MMIO_SIZE - 8, b, 8);
	assert_memory_equal(b, "\0\0\0\0\0\0\0\0", 8);
	virtio_mmio_write(f->t, VIRTIO_MMIO_CONFIG + 3, "abcd", 4); /* one byte too many */
	virtio_mmio_write(f->t, MMIO_SIZE - 4, "abcd", 4);
	assert_memory_equal(f->e.config, "config", 6);
	virtio_mmio_write(f->t, VIRTIO_MMIO_CONFIG + 2, "abcd", 4);
	assert_memory_equal(f->e.config, "coabcd", 6);
}

/* A driver that breaks the rules is told; a reset heals. */
static void test_broken_and_reset(void **state)
{
	struct fixture *f = *state;
	struct vring_avail *avail = (void *)(f->memory + AVAIL);

	drive(f);
	__atomic_store_n(&avail->idx, SIZE + 1, __ATOMIC_RELEASE); /* more than the ring holds */
	wr(f, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	for (int i = 0; !(rd(f, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET); i++) {
		assert_true(i < 60000);
		usleep(1000);
	}
	/* It serves nobody until then. */
	wr(f, VIRTIO_MMIO_QUEUE_READY, 0);
	set_queue(f, 1);
	assert_int_equal(rd(f, VIRTIO_MMIO_QUEUE_READY), 0);
	memset(f->memory, 0, MEMORY);
	drive(f);
	assert_false(rd(f, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	submit(f, 0);
	assert_true(interrupted(f, 60000));
}

/* Whether a device needs a reset is not for the driver to say, and other bits there are none. */
static void test_status_bits_of_the_device(void **state)
{
	const uint32_t up = STATUS_UP | VIRTIO_CONFIG_S_DRIVER_OK;
	struct fixture *f = *state;

	drive(f);
	wr(f, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(rd(f, VIRTIO_MMIO_STATUS), up);
	wr(f, VIRTIO_MMIO_STATUS, 0xffffff30);
	assert_int_equal(rd(f, VIRTIO_MMIO_STATUS), up);
	wr(f, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_FAILED);
	assert_int_equal(rd(f, VIRTIO_MMIO_STATUS), up | VIRTIO_CONFIG_S_FAILED);
	submit(f, 0);
	assert_true(interrupted(f, 60000));
}

/* 2.1.2: a driver that is up is not left to find out by itself that its device is broken. */
static void test_needs_reset_interrupts(void **state)
{
	struct fixture *f = *state;
	struct vring_avail *avail = (void *)(f->memory + AVAIL);

	drive(f);
	assert_int_equal(rd(f, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
	__atomic_store_n(&avail->idx, SIZE + 1, __ATOMIC_RELEASE);
	wr(f, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	assert_true(interrupted(f, 60000));
	assert_true(rd(f, VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_CONFIG);
	assert_true(rd(f, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	wr(f, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_CONFIG);
	assert_int_equal(rd(f, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
	/* Nothing of it is left after a reset. */
	memset(f->memory, 0, MEMORY);
	drive(f);
	assert_int_equal(rd(f, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
	assert_false(interrupted(f, 0));
}

/* Nor interrupted before it is up (3.1.1): one that broke on the way there hears of it then. */
static void test_needs_reset_waits_for_the_driver(void **state)
{
	struct fixture *f = *state;
	struct vring_avail *avail = (void *)(f->memory + AVAIL);

	negotiate(f);
	set_queue(f, 0);
	__atomic_store_n(&avail->idx, SIZE + 1, __ATOMIC_RELEASE);
	wr(f, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	for (int i = 0; !(rd(f, VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_CONFIG); i++) {
		assert_true(i < 60000);
		usleep(1000);
	}
	assert_false(interrupted(f, 0));
	wr(f, VIRTIO_MMIO_STATUS, STATUS_UP | VIRTIO_CONFIG_S_DRIVER_OK);
	assert_true(interrupted(f, 0));
	/* Once. */
	wr(f, VIRTIO_MMIO_STATUS, STATUS_UP | VIRTIO_CONFIG_S_DRIVER_OK);
	assert_false(interrupted(f, 0));
}

static void test_config_change(void **state)
{
	struct fixture *f = *state;
	uint32_t generation = rd(f, VIRTIO_MMIO_CONFIG_GENERATION);

	/* What changes before the driver is there needs no telling, and does no harm. */
	virtio_config_update(&f->e.dev, 0, "C", 1);
	assert_false(interrupted(f, 0));
	drive(f);
	assert_false(interrupted(f, 0));
	generation = rd(f, VIRTIO_MMIO_CONFIG_GENERATION);
	virtio_config_update(&f->e.dev, 5, "G", 1);
	assert_true(interrupted(f, 0));
	assert_int_equal(rd(f, VIRTIO_MMIO_INTERRUPT_STATUS),
			 VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG);
	assert_int_not_equal(rd(f, VIRTIO_MMIO_CONFIG_GENERATION), generation);
	/* Acknowledging something else is not enough. */
	wr(f, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
	assert_true(rd(f, VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_CONFIG);
	wr(f, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG);
	assert_int_equal(rd(f, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
	assert_memory_equal(f->e.config, "ConfiG", 6);
	/* The driver's own writes are no news to it, nor is what stays the same. */
	generation = rd(f, VIRTIO_MMIO_CONFIG_GENERATION);
	virtio_mmio_write(f->t, VIRTIO_MMIO_CONFIG, "c", 1);
	virtio_config_update(&f->e.dev, 5, "G", 1);
	assert_int_equal(rd(f, VIRTIO_MMIO_CONFIG_GENERATION), generation);
	assert_false(interrupted(f, 0));
}

/* CVE-2026-45782's class: nothing of a device that was reset goes on. */
static void test_reset_with_requests_in_flight(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 50; i++) {
		memset(f->memory, 0, MEMORY);
		drive(f);
		f->e.hold = i % 2;
		submit(f, 0);
		wr(f, VIRTIO_MMIO_STATUS, 0);
		assert_int_equal(f->e.started, f->e.stopped);
		assert_int_equal(rd(f, VIRTIO_MMIO_STATUS), 0);
		f->e.hold = false;
		memset(f->memory, 0, MEMORY);
		usleep((unsigned)i * 10);
		assert_int_equal(f->memory[DATA], 0);
		(void)interrupted(f, 0);
	}
	drive(f);
	submit(f, 0);
	assert_true(interrupted(f, 60000));
}

struct stormer {
	struct fixture *f;
	unsigned seed;
	atomic_bool *stop;
};

static void *storm(void *arg)
{
	static const uint32_t registers[] = {
		VIRTIO_MMIO_STATUS,
		VIRTIO_MMIO_QUEUE_SEL,
		VIRTIO_MMIO_QUEUE_READY,
		VIRTIO_MMIO_QUEUE_NUM,
		VIRTIO_MMIO_DRIVER_FEATURES_SEL,
		VIRTIO_MMIO_DRIVER_FEATURES,
		VIRTIO_MMIO_QUEUE_DESC_LOW,
		VIRTIO_MMIO_INTERRUPT_ACK,
		VIRTIO_MMIO_QUEUE_NOTIFY,
	};
	struct stormer *s = arg;

	while (!*s->stop) {
		uint32_t r = (uint32_t)rand_r(&s->seed);

		if (r % 7 == 0)
			wr(s->f, VIRTIO_MMIO_STATUS, STATUS_UP);
		wr(s->f, registers[r % ARRAY_SIZE(registers)], r >> 16 & 0xf);
		(void)rd(s->f, r >> 8 & 0x1fc);
	}
	return NULL;
}

/* All vCPUs at it, while the queue is kicked without pause. */
static void test_storm(void **state)
{
	struct fixture *f = *state;
	atomic_bool stop = false;
	struct stormer s[3];
	pthread_t threads[3];

	for (unsigned i = 0; i < 3; i++) {
		s[i] = (struct stormer){f, i, &stop};
		assert_int_equal(pthread_create(&threads[i], NULL, storm, &s[i]), 0);
	}
	for (unsigned i = 0; i < 20000; i++) {
		const uint64_t one = 1;

		if (i % 100 == 0)
			virtio_config_update(&f->e.dev, 0, &i, sizeof(i));

		assert_int_equal(write(virtio_mmio_kick_fd(f->t, i % QUEUES), &one, sizeof(one)),
				 sizeof(one));
	}
	stop = true;
	for (unsigned i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	memset(f->memory, 0, MEMORY);
	drive(f);
	(void)interrupted(f, 0);
	submit(f, 0);
	assert_true(interrupted(f, 60000));
	assert_int_equal(f->memory[DATA], 0x42);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(test_identity),
		T(test_features),
		T(test_features_not_offered),
		T(test_request),
		T(test_queues_need_features_first),
		T(test_registers_rewritten_while_running),
		T(test_bad_queue_setups),
		T(test_queue_selection_out_of_range),
		T(test_widths_and_offsets),
		T(test_broken_and_reset),
		T(test_status_bits_of_the_device),
		T(test_needs_reset_interrupts),
		T(test_needs_reset_waits_for_the_driver),
		T(test_config_change),
		T(test_reset_with_requests_in_flight),
		T(test_storm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
