/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include <errno.h>
#include <stdatomic.h>

#include "driver.h"
#include "echo.h"

#define FEATURES (1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_EVENT_IDX)
#define MERGE	 (1ull << VIRTIO_NET_F_MRG_RXBUF)

enum { OUT = 0x100000, IN = 0x200000, HDR = sizeof(struct virtio_net_hdr_v1) };

struct fixture {
	struct drv d;
	struct drvq rx, tx;
	struct echo echo;
	atomic_uint broken;
};

static void on_broken(struct virtio_device *dev, const char *why, void *arg)
{
	struct fixture *f = arg;

	(void)dev, (void)why;
	atomic_fetch_add(&f->broken, 1);
}

static void start(struct fixture *f, uint64_t features)
{
	assert_int_equal(virtio_device_activate(f->echo.dev, features, &f->d.map), 0);
	assert_int_equal(
		virtio_queue_start(f->echo.dev, NET_QUEUE_RX, &f->rx.s, f->rx.kick, f->rx.call), 0);
	assert_int_equal(
		virtio_queue_start(f->echo.dev, NET_QUEUE_TX, &f->tx.s, f->tx.kick, f->tx.call), 0);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	drv_init(&f->d);
	drvq_init(&f->rx, &f->d, 64);
	drvq_init(&f->tx, &f->d, 64);
	f->rx.event_idx = f->tx.event_idx = true;
	assert_int_equal(net_device_new(echo_mac, &echo_ops, &f->echo, &f->echo.dev, NULL), 0);
	virtio_device_on_broken(f->echo.dev, on_broken, f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	virtio_device_free(f->echo.dev);
	assert_int_equal(f->echo.stops, 1);
	drvq_done(&f->rx);
	drvq_done(&f->tx);
	drv_done(&f->d);
	free(f);
	return 0;
}

/* Wait until the worker has served what it was kicked for. */
static void nothing(void *arg)
{
	(void)arg;
}

static void settle(struct fixture *f)
{
	for (int i = 0; i < 4; i++)
		loop_call(virtio_queue_loop(f->echo.dev, 0), nothing, NULL);
}

static void send_frame(struct fixture *f, uint32_t len)
{
	struct drvbuf b[2] = {{OUT, HDR + 7, false}, {OUT + HDR + 7, len - 7, false}};
	uint8_t *p = drv_at(&f->d, OUT);
	uint32_t head, n;

	memset(p, 0, HDR);
	for (uint32_t i = 0; i < len; i++)
		p[HDR + i] = (uint8_t)(i * 7 + len);
	drvq_add(&f->tx, b, 2);
	drvq_kick(&f->tx);
	settle(f);
	assert_true(drvq_take(&f->tx, &head, &n));
	assert_int_equal(n, 0);
}

static void add_rx(struct fixture *f, unsigned n, uint32_t len)
{
	for (unsigned i = 0; i < n; i++) {
		struct drvbuf b = {IN + f->rx.avail_idx * 0x1000u, len, true};

		drvq_add(&f->rx, &b, 1);
	}
	drvq_kick(&f->rx);
	settle(f);
}

static void config_and_features(void **state)
{
	struct fixture *f = *state;
	uint8_t mac[8];

	assert_int_equal(f->echo.dev->ops->id, 1);
	virtio_config_read(f->echo.dev, 0, mac, sizeof(mac));
	assert_memory_equal(mac, echo_mac, 6);
	assert_int_equal(mac[6] | mac[7], 0);
	start(f, FEATURES | MERGE);
	assert_int_equal(f->echo.features, FEATURES | MERGE);
}

static void a_frame_comes_back(void **state)
{
	struct fixture *f = *state;
	struct virtio_net_hdr_v1 *h = drv_at(&f->d, IN);
	uint32_t head, n;

	start(f, FEATURES | MERGE);
	add_rx(f, 4, 2048);
	send_frame(f, 100);
	assert_true(drvq_take(&f->rx, &head, &n));
	assert_int_equal(n, HDR + 100);
	assert_int_equal(h->num_buffers, 1);
	assert_memory_equal((uint8_t *)drv_at(&f->d, IN) + HDR, (uint8_t *)drv_at(&f->d, OUT) + HDR,
			    100);
	assert_false(drvq_take(&f->rx, &head, &n));
}

/* What was taken and what came of it, on queues that share an interrupt as with virtio-mmio. */
static void a_turn_is_one_interrupt(void **state)
{
	struct fixture *f = *state;
	const int call = f->rx.call;
	uint64_t n = 0;

	assert_int_equal(virtio_device_activate(f->echo.dev, FEATURES | MERGE, &f->d.map), 0);
	assert_int_equal(virtio_queue_start(f->echo.dev, NET_QUEUE_RX, &f->rx.s, f->rx.kick, call),
			 0);
	assert_int_equal(virtio_queue_start(f->echo.dev, NET_QUEUE_TX, &f->tx.s, f->tx.kick, call),
			 0);
	add_rx(f, 4, 2048);
	send_frame(f, 100);
	assert_int_equal(read(call, &n, sizeof(n)), sizeof(n));
	assert_int_equal(n, 1);
}

/* A queue that stops, say for a pause, owes nothing afterwards. */
static void an_interrupt_is_not_lost(void **state)
{
	struct fixture *f = *state;
	struct drvbuf b = {OUT, HDR + 60, false};

	start(f, FEATURES | MERGE);
	for (int i = 0; i < 100; i++) {
		drvq_add(&f->tx, &b, 1);
		drvq_kick(&f->tx);
		virtio_device_pause(f->echo.dev);
		assert_int_equal(virtio_device_resume(f->echo.dev), 0);
		assert_true(drvq_wait(&f->tx, 60000));
		while (drvq_take(&f->tx, &(uint32_t){0}, &(uint32_t){0}))
			;
	}
}

static void a_long_one_takes_several(void **state)
{
	struct fixture *f = *state;
	struct virtio_net_hdr_v1 *h = drv_at(&f->d, IN);
	const uint8_t *sent = drv_at(&f->d, OUT);
	uint32_t head, n = 0, at = 0;

	start(f, FEATURES | MERGE);
	add_rx(f, 3, 1000);
	send_frame(f, 3500);
	/* Too few: nothing is taken, and the next one makes the card try again. */
	assert_true(f->echo.no_room);
	assert_false(drvq_take(&f->rx, &head, &n));
	add_rx(f, 1, 1000);
	assert_false(f->echo.no_room);
	assert_int_equal(h->num_buffers, 4);
	for (unsigned i = 0; i < 4; i++) {
		uint32_t skip = i ? 0 : HDR;

		assert_true(drvq_take(&f->rx, &head, &n));
		assert_int_equal(n, i < 3 ? 1000 : 512);
		assert_memory_equal((uint8_t *)drv_at(&f->d, IN + i * 0x1000) + skip,
				    sent + HDR + at, n - skip);
		at += n - skip;
	}
	assert_int_equal(at, 3500);
}

static void what_fits_nowhere_is_dropped(void **state)
{
	struct fixture *f = *state;
	uint32_t head, n;

	start(f, FEATURES);
	add_rx(f, 2, 1526);
	send_frame(f, 3000);
	assert_false(f->echo.no_room);
	assert_false(drvq_take(&f->rx, &head, &n));
	send_frame(f, 1514);
	assert_true(drvq_take(&f->rx, &head, &n));
	assert_int_equal(n, 1526);
}

static void a_frame_waits_for_buffers(void **state)
{
	struct fixture *f = *state;
	uint32_t head, n;

	start(f, FEATURES | MERGE);
	send_frame(f, 60);
	assert_true(f->echo.no_room);
	add_rx(f, 1, 2048);
	assert_true(drvq_take(&f->rx, &head, &n));
	assert_int_equal(n, HDR + 60);
}

static void refused(struct fixture *f, struct drvq *q, const struct drvbuf *b, unsigned n)
{
	f->echo.len = 60;
	start(f, FEATURES | MERGE);
	drvq_add(q, b, n);
	drvq_kick(q);
	settle(f);
	assert_int_equal(f->broken, 1);
	assert_true(virtio_device_broken(f->echo.dev));
}

static void short_frames_break_it(void **state)
{
	struct fixture *f = *state;
	struct drvbuf b = {OUT, HDR - 1, false};

	refused(f, &f->tx, &b, 1);
	assert_int_equal(f->echo.inputs, 0);
}

static void frames_to_write_break_it(void **state)
{
	struct fixture *f = *state;
	struct drvbuf b[2] = {{OUT, 64, false}, {OUT + 64, 64, true}};

	refused(f, &f->tx, b, 2);
}

static void buffers_to_read_break_it(void **state)
{
	struct fixture *f = *state;
	struct drvbuf b = {IN, 2048, false};

	refused(f, &f->rx, &b, 1);
}

static void buffers_without_room_break_it(void **state)
{
	struct fixture *f = *state;
	struct drvbuf b = {IN, HDR - 1, true};

	refused(f, &f->rx, &b, 1);
}

static void one_by_one(void *arg)
{
	((struct fixture *)arg)->echo.one_by_one = true;
}

static void hold(void *arg)
{
	((struct fixture *)arg)->echo.held = true;
}

/* Asked for in turn: for it to send on, or to wait. */
static void let_go(void *arg)
{
	struct fixture *f = arg;

	f->echo.held = false;
	net_device_resume(f->echo.dev);
}

/* What the back-end does not want yet stays with the driver, and comes in order after. */
static void a_held_frame_waits(void **state)
{
	struct fixture *f = *state;
	struct drvbuf b = {OUT, HDR + 60, false};
	uint32_t head, n;

	start(f, FEATURES | MERGE);
	loop_call(virtio_queue_loop(f->echo.dev, 0), one_by_one, f);
	send_frame(f, 100);
	assert_int_equal(f->echo.inputs, 1);
	loop_call(virtio_queue_loop(f->echo.dev, 0), hold, f);
	memset(drv_at(&f->d, OUT), 0, HDR);
	for (int i = 0; i < 3; i++) {
		drvq_add(&f->tx, &b, 1);
		drvq_kick(&f->tx);
		settle(f);
		assert_false(drvq_take(&f->tx, &head, &n));
	}
	assert_int_equal(f->echo.inputs, 1);
	loop_call(virtio_queue_loop(f->echo.dev, 0), let_go, f);
	settle(f);
	for (int i = 0; i < 3; i++)
		assert_true(drvq_take(&f->tx, &head, &n));
	assert_int_equal(f->echo.inputs, 4);
	/* And the next kick is heard. */
	send_frame(f, 100);
	assert_int_equal(f->echo.inputs, 5);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(config_and_features),	     TEST(a_frame_comes_back),
		TEST(a_turn_is_one_interrupt),	     TEST(an_interrupt_is_not_lost),
		TEST(a_long_one_takes_several),	     TEST(what_fits_nowhere_is_dropped),
		TEST(a_frame_waits_for_buffers),     TEST(short_frames_break_it),
		TEST(frames_to_write_break_it),	     TEST(buffers_to_read_break_it),
		TEST(buffers_without_room_break_it), TEST(a_held_frame_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
