/* SPDX-License-Identifier: Apache-2.0 */
/* The balloon, its driver played by hand; what is left of the memory is asked of the kernel. */
#include "test.h"

#include <errno.h>
#include <linux/virtio_balloon.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/cleanup.h"
#include "driver.h"
#include "virtio/balloon.h"

#define FEATURES                                                                                   \
	(1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC |                        \
	 1ull << VIRTIO_RING_F_EVENT_IDX | 1ull << VIRTIO_BALLOON_F_DEFLATE_ON_OOM |               \
	 1ull << VIRTIO_BALLOON_F_REPORTING)

enum { INFLATE, DEFLATE, REPORTING, QUEUES };
enum { PAGE = 4096, LIST = 0x80000, DATA = 0x100000, PAGES = 512, LARGEST = 1 << 18 };

struct fixture {
	struct drv d;
	struct drvq q[QUEUES];
	struct virtio_device *dev;
	atomic_uint broken, changes;
	const char *why;
};

static void on_broken(struct virtio_device *dev, const char *why, void *arg)
{
	struct fixture *f = arg;

	(void)dev;
	f->why = why;
	atomic_fetch_add(&f->broken, 1);
}

static void on_config(struct virtio_device *dev, bool news, void *arg)
{
	struct fixture *f = arg;

	(void)dev;
	atomic_fetch_add(&f->changes, news);
}

static void start(struct fixture *f)
{
	assert_int_equal(virtio_device_activate(f->dev, FEATURES, &f->d.map), 0);
	for (unsigned i = 0; i < QUEUES; i++)
		assert_int_equal(
			virtio_queue_start(f->dev, i, &f->q[i].s, f->q[i].kick, f->q[i].call), 0);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	drv_init(&f->d);
	assert_int_equal(balloon_device_new(&f->dev, NULL), 0);
	virtio_device_on_broken(f->dev, on_broken, f);
	virtio_device_on_config(f->dev, on_config, f);
	for (unsigned i = 0; i < QUEUES; i++) {
		drvq_init(&f->q[i], &f->d, 32);
		f->q[i].event_idx = true;
	}
	start(f);
	memset(f->d.mem + DATA, 0x5a, PAGES * PAGE);
	memset(f->d.mem + DRV_LOW, 0x5a, DRV_HIGH);
	*state = f;
	return 0;
}

/* The same with the memory a KVM engine has: private, in no file. */
static int setup_private(void **state)
{
	struct fixture *f;

	if (setup(state))
		return -1;
	f = *state;
	virtio_device_reset(f->dev);
	if (mmap(f->d.mem, DRV_LOW + DRV_HIGH, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		return -1;
	f->d.map.shared = false;
	memset(f->d.mem, 0x5a, DRV_LOW + DRV_HIGH);
	for (unsigned i = 0; i < QUEUES; i++) {
		struct virtqueue_state *s = &f->q[i].s;

		memset(drv_at(&f->d, s->desc), 0, 16u * s->size);
		memset(drv_at(&f->d, s->avail), 0, 6 + 2u * s->size);
		memset(drv_at(&f->d, s->used), 0, 6 + 8u * s->size);
	}
	start(f);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	virtio_device_free(f->dev);
	for (unsigned i = 0; i < QUEUES; i++)
		drvq_done(&f->q[i]);
	drv_done(&f->d);
	free(f);
	return 0;
}

/* Of @n pages from @p on: how many the host still has memory for. */
static unsigned resident(const uint8_t *p, unsigned n)
{
	uint8_t there[PAGES];
	unsigned sum = 0;

	assert_true(n <= PAGES);
	assert_int_equal(mincore((void *)(uintptr_t)p, (size_t)n * PAGE, there), 0);
	for (unsigned i = 0; i < n; i++)
		sum += there[i] & 1;
	return sum;
}

static bool all(const uint8_t *p, size_t n, uint8_t what)
{
	for (size_t i = 0; i < n; i++) {
		if (p[i] != what)
			return false;
	}
	return true;
}

static void send_pages(struct fixture *f, unsigned queue, const uint32_t *pfn, unsigned n)
{
	const struct drvbuf b = {LIST, n * 4, false};

	memcpy(drv_at(&f->d, LIST), pfn, n * sizeof(*pfn));
	drvq_add(&f->q[queue], &b, 1);
}

static void wait_broken(struct fixture *f, const char *why)
{
	for (unsigned i = 0; !f->broken; i++) {
		assert_true(i < 60000);
		usleep(1000);
	}
	assert_string_equal(f->why, why);
	/* Told to the transport too: the driver is to look at the status. */
	for (unsigned i = 0; !f->changes; i++) {
		assert_true(i < 60000);
		usleep(1000);
	}
}

/* ---- giving back ---- */

static void inflated_pages_are_gone(void **state)
{
	struct fixture *f = *state;
	/* Unsorted, twice, in a run, alone, and in the memory above the hole. */
	const uint32_t pfn[] = {DATA / PAGE + 7,    DATA / PAGE + 3,
				DATA / PAGE + 2,    DATA / PAGE + 3,
				DRV_HIGH_AT / PAGE, (DRV_HIGH_AT + DRV_HIGH) / PAGE - 1};
	uint8_t *p = f->d.mem + DATA, *high = f->d.mem + DRV_LOW;

	assert_int_equal(resident(p, 16), 16);
	send_pages(f, INFLATE, pfn, ARRAY_SIZE(pfn));
	assert_int_equal(drvq_finish(&f->q[INFLATE]), 0);
	assert_int_equal(resident(p, 16), 13);
	assert_int_equal(resident(high, DRV_HIGH / PAGE), DRV_HIGH / PAGE - 2);
	assert_true(all(p + 2 * PAGE, 2 * PAGE, 0));
	assert_true(all(p + 7 * PAGE, PAGE, 0));
	assert_true(all(p, 2 * PAGE, 0x5a));
	assert_true(all(p + 4 * PAGE, 3 * PAGE, 0x5a));
	assert_true(all(p + 8 * PAGE, PAGE, 0x5a));
	assert_true(all(high + PAGE, DRV_HIGH - 2 * PAGE, 0x5a));
	/* Taken back by being used. */
	send_pages(f, DEFLATE, pfn, ARRAY_SIZE(pfn));
	assert_int_equal(drvq_finish(&f->q[DEFLATE]), 0);
	memset(p, 0x77, 16 * PAGE);
	assert_true(all(p, 16 * PAGE, 0x77));
}

static void a_long_list_in_odd_buffers(void **state)
{
	struct fixture *f = *state;
	uint32_t pfn[PAGES];
	struct drvbuf b[4] = {{LIST, 3, false},
			      {LIST + 3, 1022, false},
			      {LIST + 1025, 0, false},
			      {LIST + 1025, PAGES * 4 - 1025, false}};

	for (unsigned i = 0; i < PAGES; i++)
		pfn[i] = DATA / PAGE + PAGES - 1 - i;
	memcpy(drv_at(&f->d, LIST), pfn, sizeof(pfn));
	drvq_add(&f->q[INFLATE], b, 4);
	assert_int_equal(drvq_finish(&f->q[INFLATE]), 0);
	assert_int_equal(resident(f->d.mem + DATA, PAGES), 0);
}

static void an_empty_list_is_nothing(void **state)
{
	struct fixture *f = *state;
	const struct drvbuf b = {LIST, 0, false};

	for (unsigned i = 0; i < QUEUES; i++) {
		drvq_add(&f->q[i], &b, 1);
		assert_int_equal(drvq_finish(&f->q[i]), 0);
	}
	assert_int_equal(resident(f->d.mem + DATA, PAGES), PAGES);
	assert_int_equal(f->broken, 0);
}

static void reported_blocks_are_gone(void **state)
{
	struct fixture *f = *state;
	const struct drvbuf b[] = {
		{DATA, 8 * PAGE, true},
		/* Only whole pages: 17 to 19, then none. */
		{DATA + 16 * PAGE + 1, 4 * PAGE - 1 + 100, true},
		{DATA + 40 * PAGE + 10, PAGE, true},
		{DRV_HIGH_AT, DRV_HIGH, true},
	};
	uint8_t *p = f->d.mem + DATA;

	drvq_add(&f->q[REPORTING], b, ARRAY_SIZE(b));
	assert_int_equal(drvq_finish(&f->q[REPORTING]), 0);
	assert_int_equal(resident(p, 8), 0);
	assert_int_equal(resident(p + 8 * PAGE, 9), 9);
	assert_int_equal(resident(p + 17 * PAGE, 3), 0);
	assert_int_equal(resident(p + 20 * PAGE, PAGES - 20), PAGES - 20);
	assert_true(all(p + 16 * PAGE, PAGE, 0x5a));
	assert_true(all(p + 20 * PAGE, 30 * PAGE, 0x5a));
	assert_int_equal(resident(f->d.mem + DRV_LOW, DRV_HIGH / PAGE), 0);
}

static void many_requests_and_pauses(void **state)
{
	struct fixture *f = *state;
	uint32_t head, len;

	for (unsigned round = 0; round < 40; round++) {
		for (unsigned i = 0; i < 32; i++) {
			struct drvbuf b = {DATA + i * 16 * PAGE, 16 * PAGE, true};

			drvq_add(&f->q[REPORTING], &b, 1);
		}
		drvq_kick(&f->q[REPORTING]);
		if (round % 4 == 0) {
			virtio_device_pause(f->dev);
			assert_int_equal(virtio_device_resume(f->dev), 0);
		}
		for (unsigned i = 0; i < 32; i++) {
			while (!drvq_take(&f->q[REPORTING], &head, &len))
				assert_true(drvq_wait(&f->q[REPORTING], 60000));
		}
		assert_int_equal(resident(f->d.mem + DATA, PAGES), 0);
		memset(f->d.mem + DATA, 1, PAGES * PAGE);
	}
}

/* ---- a driver that lies hurts itself at most ---- */

static void pages_outside_memory(void **state)
{
	static const uint32_t bad[] = {
		DRV_LOW / PAGE,
		(DRV_HIGH_AT / PAGE) - 1,
		(DRV_HIGH_AT + DRV_HIGH) / PAGE,
		0x7fffffff,
		UINT32_MAX,
	};
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		f->broken = f->changes = 0;
		send_pages(f, INFLATE, &bad[i], 1);
		drvq_kick(&f->q[INFLATE]);
		wait_broken(f, "page outside guest memory");
		virtio_device_reset(f->dev);
		f->q[INFLATE].s.last_avail = f->q[INFLATE].avail_idx;
		f->q[INFLATE].s.last_used = f->q[INFLATE].used_seen;
		start(f);
	}
	assert_int_equal(resident(f->d.mem + DATA, PAGES), PAGES);
	assert_true(all(f->d.mem + DRV_LOW, DRV_HIGH, 0x5a));
}

static void a_list_of_an_odd_length(void **state)
{
	struct fixture *f = *state;
	const struct drvbuf b = {LIST, 7, false};

	drvq_add(&f->q[INFLATE], &b, 1);
	drvq_kick(&f->q[INFLATE]);
	wait_broken(f, "page numbers of an odd length");
}

static void a_list_that_never_ends(void **state)
{
	struct fixture *f = *state;
	const struct drvbuf b[2] = {{DATA, LARGEST * 4, false}, {DATA, 4, false}};

	drvq_add(&f->q[INFLATE], b, 2);
	drvq_kick(&f->q[INFLATE]);
	wait_broken(f, "more pages than a request may name");
}

/* Its own rings become zeros under our hands. */
static void the_rings_themselves(void **state)
{
	struct fixture *f = *state;

	for (unsigned round = 0; round < 20; round++) {
		const struct drvbuf b = {0, DATA, true};

		drvq_add(&f->q[REPORTING], &b, 1);
		drvq_kick(&f->q[REPORTING]);
		drvq_kick(&f->q[INFLATE]);
		(void)drvq_wait(&f->q[REPORTING], 20);
		virtio_device_reset(f->dev);
		memset(f->d.mem, 0, DATA);
		for (unsigned i = 0; i < QUEUES; i++)
			f->q[i].avail_idx = f->q[i].used_seen = f->q[i].next_desc = 0;
		start(f);
	}
	assert_true(all(f->d.mem + DATA, PAGES * PAGE, 0x5a));
}

/* ---- target and size ---- */

static void the_target_is_told(void **state)
{
	struct fixture *f = *state;
	uint32_t v, generation = virtio_config_generation(f->dev);

	balloon_set_target(f->dev, 5 * PAGE + 100);
	assert_int_equal(f->changes, 1);
	assert_int_not_equal(virtio_config_generation(f->dev), generation);
	virtio_config_read(f->dev, 0, &v, 4);
	assert_int_equal(v, 5);
	/* The same again is no news. */
	balloon_set_target(f->dev, 5 * PAGE);
	assert_int_equal(f->changes, 1);
	balloon_set_target(f->dev, UINT64_MAX);
	virtio_config_read(f->dev, 0, &v, 4);
	assert_int_equal(v, UINT32_MAX);
	balloon_set_target(f->dev, 0);
	assert_int_equal(f->changes, 3);
	/* Nobody listens: nothing happens. */
	virtio_device_on_config(f->dev, NULL, NULL);
	balloon_set_target(f->dev, 1 << 20);
	assert_int_equal(f->changes, 3);
	virtio_config_read(f->dev, 0, &v, 4);
	assert_int_equal(v, 256);
}

static void the_driver_tells_its_size(void **state)
{
	struct fixture *f = *state;
	uint32_t v = 0x1234;

	assert_int_equal(balloon_size(f->dev), 0);
	assert_int_equal(virtio_config_write(f->dev, 4, &v, 4), 0);
	assert_int_equal(balloon_size(f->dev), 0x1234 * PAGE);
	assert_int_equal(virtio_config_write(f->dev, 6, "\1", 1), 0);
	assert_int_equal(balloon_size(f->dev), (uint64_t)0x11234 * PAGE);
	/* Its own words, and not ours. */
	assert_int_equal(virtio_config_write(f->dev, 0, &v, 4), -EINVAL);
	assert_int_equal(virtio_config_write(f->dev, 3, &v, 4), -EINVAL);
	assert_int_equal(virtio_config_write(f->dev, 5, &v, 4), -EINVAL);
	assert_int_equal(virtio_config_write(f->dev, 8, &v, 1), -EINVAL);
	assert_int_equal(virtio_config_write(f->dev, UINT64_MAX, &v, 4), -EINVAL);
	assert_int_equal(f->changes, 0);
	virtio_config_read(f->dev, 0, &v, 4);
	assert_int_equal(v, 0);
	virtio_device_reset(f->dev);
	assert_int_equal(balloon_size(f->dev), 0);
}

static void *set_targets(void *arg)
{
	struct fixture *f = arg;

	for (uint64_t i = 1; i <= 2000; i++)
		balloon_set_target(f->dev, i << 12);
	return NULL;
}

/* The host changes its mind while transport and worker are at it. */
static void targets_from_another_thread(void **state)
{
	struct fixture *f = *state;
	pthread_t t;
	uint32_t v = 0, last = 0;

	assert_int_equal(pthread_create(&t, NULL, set_targets, f), 0);
	while (v < 2000) {
		virtio_config_read(f->dev, 0, &v, 4);
		assert_true(v >= last);
		last = v;
		(void)virtio_config_write(f->dev, 4, &v, 4);
		if (v % 10 == 3) {
			virtio_device_pause(f->dev);
			assert_int_equal(virtio_device_resume(f->dev), 0);
		}
	}
	pthread_join(t, NULL);
	assert_int_equal(f->changes, 2000);
	assert_int_equal(balloon_size(f->dev), 2000 << 12);
}

static void what_is_offered(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(f->dev->ops->id, 5);
	assert_int_equal(f->dev->nqueues, QUEUES);
	/* A driver that sees less than its batch goes without reporting. */
	assert_true(f->dev->queue_size_max >= 32);
	/* These have queues or fields that are not there. */
	assert_false(f->dev->offered &
		     (1u << VIRTIO_BALLOON_F_STATS_VQ | 1u << VIRTIO_BALLOON_F_FREE_PAGE_HINT |
		      1u << VIRTIO_BALLOON_F_PAGE_POISON));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define BOTH(name)                                                                                 \
	T(name),                                                                                   \
	{                                                                                          \
#name "_private", name, setup_private, teardown, NULL                              \
	}
	const struct CMUnitTest tests[] = {
		BOTH(inflated_pages_are_gone),
		BOTH(a_long_list_in_odd_buffers),
		BOTH(reported_blocks_are_gone),
		BOTH(many_requests_and_pauses),
		BOTH(the_rings_themselves),
		BOTH(pages_outside_memory),
		T(an_empty_list_is_nothing),
		T(a_list_of_an_odd_length),
		T(a_list_that_never_ends),
		T(the_target_is_told),
		T(the_driver_tells_its_size),
		T(targets_from_another_thread),
		T(what_is_offered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
