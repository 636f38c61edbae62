/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include <errno.h>
#include <stdatomic.h>

#include "base/cleanup.h"
#include "driver.h"
#include "virtio/rng.h"

#define FEATURES                                                                                   \
	(1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC |                        \
	 1ull << VIRTIO_RING_F_EVENT_IDX)

enum { DATA = 0x100000, REQUEST_MAX = 4096 };

struct fixture {
	struct drv d;
	struct drvq q;
	struct virtio_device *dev;
	atomic_uint broken;
};

static void on_broken(struct virtio_device *dev, const char *why, void *arg)
{
	struct fixture *f = arg;

	(void)dev, (void)why;
	atomic_fetch_add(&f->broken, 1);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	drv_init(&f->d);
	drvq_init(&f->q, &f->d, 64);
	f->q.event_idx = true;
	assert_int_equal(rng_device_new(&f->dev, NULL), 0);
	virtio_device_on_broken(f->dev, on_broken, f);
	assert_int_equal(virtio_device_activate(f->dev, FEATURES, &f->d.map), 0);
	assert_int_equal(virtio_queue_start(f->dev, 0, &f->q.s, f->q.kick, f->q.call), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	virtio_device_free(f->dev);
	drvq_done(&f->q);
	drv_done(&f->d);
	free(f);
	return 0;
}

static unsigned zeros(const uint8_t *p, size_t n)
{
	unsigned sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += p[i] == 0;
	return sum;
}

static void a_request_is_filled(void **state)
{
	struct fixture *f = *state;
	struct drvbuf b = {DATA, 64, true};
	uint8_t *p = drv_at(&f->d, DATA), first[64];

	assert_int_equal(f->dev->ops->id, 4);
	drvq_add(&f->q, &b, 1);
	assert_int_equal(drvq_finish(&f->q), 64);
	memcpy(first, p, 64);
	/* 16 zeros among 64 random bytes: once in 10^23. */
	assert_true(zeros(first, 64) < 16);
	assert_int_equal(zeros(p + 64, 64), 64);
	drvq_add(&f->q, &b, 1);
	assert_int_equal(drvq_finish(&f->q), 64);
	assert_memory_not_equal(first, p, 64);
}

static void buffers_of_a_chain_are_filled_in_order(void **state)
{
	struct fixture *f = *state;
	struct drvbuf b[4] = {{DATA, 1, true},
			      {DRV_HIGH_AT + 5, 31, true},
			      {DATA + 100, 0, true},
			      {DATA + 8192, 1000, true}};

	drvq_add(&f->q, b, 4);
	assert_int_equal(drvq_finish(&f->q), 1032);
	assert_true(zeros(drv_at(&f->d, DRV_HIGH_AT + 5), 31) < 10);
	assert_int_equal(zeros(drv_at(&f->d, DRV_HIGH_AT), 5), 5);
	assert_true(zeros(drv_at(&f->d, DATA + 8192), 1000) < 100);
	assert_int_equal(zeros(drv_at(&f->d, DATA + 1), 8191), 8191);
}

static void a_greedy_request_gets_a_page(void **state)
{
	struct fixture *f = *state;
	struct drvbuf b[2] = {{DATA, 4000, true}, {DATA + 65536, 1 << 20, true}};

	drvq_add(&f->q, b, 2);
	assert_int_equal(drvq_finish(&f->q), REQUEST_MAX);
	assert_true(zeros(drv_at(&f->d, DATA + 65536), 96) < 20);
	assert_int_equal(zeros(drv_at(&f->d, DATA + 65536 + 96), 8192), 8192);
}

static void more_than_a_slice_is_served(void **state)
{
	struct fixture *f = *state;
	struct drvbuf b = {DATA, 4096, true};
	uint32_t head, len;

	for (unsigned round = 0; round < 50; round++) {
		for (unsigned i = 0; i < 64; i++)
			drvq_add(&f->q, &b, 1);
		drvq_kick(&f->q);
		if (round % 5 == 0) {
			virtio_device_pause(f->dev);
			assert_int_equal(virtio_device_resume(f->dev), 0);
		}
		for (unsigned i = 0; i < 64; i++) {
			while (!drvq_take(&f->q, &head, &len))
				assert_true(drvq_wait(&f->q, 60000));
			assert_int_equal(len, 4096);
		}
	}
	assert_int_equal(f->broken, 0);
}

static void broken_after(struct fixture *f, const struct drvbuf *b, unsigned n)
{
	uint32_t head, len;

	drvq_add(&f->q, b, n);
	drvq_kick(&f->q);
	for (unsigned i = 0; !f->broken; i++) {
		assert_true(i < 60000);
		usleep(1000);
	}
	assert_true(virtio_device_broken(f->dev));
	assert_false(drvq_take(&f->q, &head, &len));
}

static void nowhere_to_put_them(void **state)
{
	broken_after(*state, &(struct drvbuf){DATA, 0, true}, 1);
}

static void something_to_read(void **state)
{
	const struct drvbuf b[2] = {{DATA, 16, false}, {DATA + 64, 16, true}};

	broken_after(*state, b, 2);
}

static void outside_memory(void **state)
{
	broken_after(*state, &(struct drvbuf){DRV_LOW - 8, 16, true}, 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_request_is_filled),
		T(buffers_of_a_chain_are_filled_in_order),
		T(a_greedy_request_gets_a_page),
		T(more_than_a_slice_is_served),
		T(nowhere_to_put_them),
		T(something_to_read),
		T(outside_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
