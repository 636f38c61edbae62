/* SPDX-License-Identifier: Apache-2.0 */
/* The memory device, its driver played by hand. Its region is the guest's memory above the hole. */
#include "test.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_mem.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/cleanup.h"
#include "driver.h"
#include "virtio/mem.h"

#define FEATURES                                                                                   \
	(1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC |                        \
	 1ull << VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE)

enum { BLOCKS = 70, REQUEST = 0x80000, ANSWER = 0x81000, PAGE = 4096 };

#define REGION (BLOCKS * MEM_BLOCK)
#define AT     (UINT64_C(8) << 30)
#define OFF(f) offsetof(struct virtio_mem_config, f)

struct fixture {
	struct drv d;
	struct drvq q;
	struct virtio_device *dev;
	uint8_t *region;
	atomic_uint changes, told, broken;
	const char *why;
};

static void on_changed(void *arg)
{
	atomic_fetch_add(&((struct fixture *)arg)->changes, 1);
}

static void on_config(struct virtio_device *dev, bool news, void *arg)
{
	(void)dev;
	atomic_fetch_add(&((struct fixture *)arg)->told, news);
}

static void on_broken(struct virtio_device *dev, const char *why, void *arg)
{
	struct fixture *f = arg;

	(void)dev;
	f->why = why;
	atomic_fetch_add(&f->broken, 1);
}

static void start(struct fixture *f)
{
	assert_int_equal(virtio_device_activate(f->dev, FEATURES, &f->d.map), 0);
	assert_int_equal(virtio_queue_start(f->dev, 0, &f->q.s, f->q.kick, f->q.call), 0);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const struct mem_options o = {.gpa = AT, .size = REGION, .changed = on_changed, .arg = f};

	drv_init(&f->d);
	/* As in a machine: private and in no file. */
	f->d.map.shared = false;
	f->region = mmap(NULL, REGION, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_true(f->region != MAP_FAILED);
	(void)madvise(f->region, REGION, MADV_NOHUGEPAGE);
	assert_int_equal(guest_memory_add(&f->d.map, AT, REGION, f->region), 0);
	assert_int_equal(mem_device_new(&o, &f->dev, NULL), 0);
	virtio_device_on_config(f->dev, on_config, f);
	virtio_device_on_broken(f->dev, on_broken, f);
	drvq_init(&f->q, &f->d, 16);
	start(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	virtio_device_free(f->dev);
	drvq_done(&f->q);
	munmap(f->region, REGION);
	drv_done(&f->d);
	free(f);
	return 0;
}

static uint64_t config(struct fixture *f, uint32_t off)
{
	uint64_t v;

	virtio_config_read(f->dev, off, &v, sizeof(v));
	return le64toh(v);
}

static struct virtio_mem_resp answer(struct fixture *f)
{
	struct virtio_mem_resp r;

	memcpy(&r, drv_at(&f->d, ANSWER), sizeof(r));
	return r;
}

/* The answer's type. */
static int ask_at(struct fixture *f, uint16_t type, uint64_t gpa, uint16_t n)
{
	const struct virtio_mem_req req = {
		.type = htole16(type), .u.plug = {.addr = htole64(gpa), .nb_blocks = htole16(n)}};
	const struct drvbuf b[] = {{REQUEST, sizeof(req), false},
				   {ANSWER, sizeof(struct virtio_mem_resp), true}};

	memcpy(drv_at(&f->d, REQUEST), &req, sizeof(req));
	memset(drv_at(&f->d, ANSWER), 0xff, sizeof(struct virtio_mem_resp));
	drvq_add(&f->q, b, 2);
	assert_int_equal(drvq_finish(&f->q), sizeof(struct virtio_mem_resp));
	return le16toh(answer(f).type);
}

static int ask(struct fixture *f, uint16_t type, unsigned block, uint16_t n)
{
	return ask_at(f, type, AT + block * MEM_BLOCK, n);
}

static int state_of(struct fixture *f, unsigned block, uint16_t n)
{
	assert_int_equal(ask(f, VIRTIO_MEM_REQ_STATE, block, n), VIRTIO_MEM_RESP_ACK);
	return le16toh(answer(f).u.state.state);
}

/* How many pages of a block the host has memory for. */
static unsigned resident(const struct fixture *f, unsigned block)
{
	uint8_t in[MEM_BLOCK / PAGE];
	unsigned sum = 0;

	assert_int_equal(mincore(f->region + block * MEM_BLOCK, MEM_BLOCK, in), 0);
	for (size_t i = 0; i < sizeof(in); i++)
		sum += in[i] & 1;
	return sum;
}

#define PLUG   VIRTIO_MEM_REQ_PLUG
#define UNPLUG VIRTIO_MEM_REQ_UNPLUG
#define ALL    VIRTIO_MEM_REQ_UNPLUG_ALL
#define ACK    VIRTIO_MEM_RESP_ACK
#define NACK   VIRTIO_MEM_RESP_NACK
#define ERROR  VIRTIO_MEM_RESP_ERROR

static void what_is_offered(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(f->dev->ops->id, 24);
	assert_true(f->dev->offered & 1ull << VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE);
	assert_false(f->dev->offered & 1ull << VIRTIO_MEM_F_ACPI_PXM);
	assert_true(config(f, OFF(block_size)) == MEM_BLOCK);
	assert_true(config(f, OFF(addr)) == AT);
	assert_true(config(f, OFF(region_size)) == REGION);
	assert_true(config(f, OFF(usable_region_size)) == REGION);
	assert_true(config(f, OFF(plugged_size)) == 0 && config(f, OFF(requested_size)) == 0);
	/* None of it is the driver's to write. */
	for (uint32_t off = 0; off < sizeof(struct virtio_mem_config); off++)
		assert_int_equal(virtio_config_write(f->dev, off, "\1", 1), -EINVAL);
}

static void regions_that_are_none(void **state)
{
	static const struct mem_options bad[] = {
		{.gpa = AT, .size = 0},
		{.gpa = AT, .size = MEM_BLOCK + PAGE},
		{.gpa = AT + PAGE, .size = MEM_BLOCK},
		{.gpa = 0 - MEM_BLOCK, .size = 2 * MEM_BLOCK},
	};
	struct virtio_device *dev;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(mem_device_new(&bad[i], &dev, NULL), -EINVAL);
}

static void as_much_as_is_wanted(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(ask(f, PLUG, 0, 1), NACK);
	mem_want(f->dev, 5 * MEM_BLOCK + PAGE);
	assert_int_equal(f->told, 1);
	assert_true(config(f, OFF(requested_size)) == 5 * MEM_BLOCK);
	assert_int_equal(ask(f, PLUG, 0, 6), NACK);
	assert_int_equal(ask(f, PLUG, 66, 4), ACK);
	assert_int_equal(ask(f, PLUG, 0, 2), NACK);
	assert_int_equal(ask(f, PLUG, 3, 1), ACK);
	assert_int_equal(ask(f, PLUG, 0, 1), NACK);
	assert_true(mem_plugged(f->dev) == 5 * MEM_BLOCK);
	assert_true(config(f, OFF(plugged_size)) == 5 * MEM_BLOCK);
	assert_int_equal(f->changes, 2);
	/* Its own doing is no news to the driver. */
	assert_int_equal(f->told, 1);
	/* Less is wanted: nothing happens by itself. */
	mem_want(f->dev, MEM_BLOCK);
	assert_true(mem_plugged(f->dev) == 5 * MEM_BLOCK);
	assert_int_equal(ask(f, UNPLUG, 67, 3), ACK);
	assert_int_equal(ask(f, PLUG, 67, 1), NACK);
	assert_int_equal(ask(f, UNPLUG, 66, 1), ACK);
	assert_true(mem_plugged(f->dev) == MEM_BLOCK);
	/* More than there is room for. */
	mem_want(f->dev, UINT64_MAX);
	assert_true(config(f, OFF(requested_size)) == REGION);
	assert_int_equal(ask(f, PLUG, 4, BLOCKS - 4), ACK);
	assert_int_equal(ask(f, PLUG, 0, 3), ACK);
	assert_true(mem_plugged(f->dev) == REGION);
	assert_int_equal(f->broken, 0);
}

static void blocks_in_another_state(void **state)
{
	struct fixture *f = *state;

	mem_want(f->dev, REGION);
	assert_int_equal(ask(f, PLUG, 62, 4), ACK);
	for (unsigned first = 59; first < 66; first++)
		assert_int_equal(ask(f, PLUG, first, 4), ERROR);
	assert_int_equal(ask(f, UNPLUG, 61, 2), ERROR);
	assert_int_equal(ask(f, UNPLUG, 65, 2), ERROR);
	assert_int_equal(ask(f, UNPLUG, 0, 1), ERROR);
	assert_true(mem_plugged(f->dev) == 4 * MEM_BLOCK);
	assert_int_equal(state_of(f, 62, 4), VIRTIO_MEM_STATE_PLUGGED);
	assert_int_equal(state_of(f, 0, 62), VIRTIO_MEM_STATE_UNPLUGGED);
	assert_int_equal(state_of(f, 61, 2), VIRTIO_MEM_STATE_MIXED);
	assert_int_equal(state_of(f, 0, BLOCKS), VIRTIO_MEM_STATE_MIXED);
	assert_int_equal(ask(f, UNPLUG, 63, 2), ACK);
	assert_int_equal(state_of(f, 62, 4), VIRTIO_MEM_STATE_MIXED);
	assert_int_equal(ask(f, UNPLUG, 63, 1), ERROR);
}

static void blocks_that_are_none(void **state)
{
	static const struct {
		uint64_t gpa;
		uint16_t n;
	} bad[] = {
		{AT, 0},
		{AT, BLOCKS + 1},
		{AT, UINT16_MAX},
		{AT + PAGE, 1},
		{AT - MEM_BLOCK, 1},
		{AT - MEM_BLOCK, 2},
		{AT + REGION, 1},
		{AT + REGION - MEM_BLOCK, 2},
		{0, 1},
		{UINT64_MAX, 1},
		{0 - MEM_BLOCK, 1},
		{UINT64_MAX / MEM_BLOCK * MEM_BLOCK, UINT16_MAX},
	};
	struct fixture *f = *state;

	mem_want(f->dev, REGION);
	assert_int_equal(ask(f, PLUG, 0, BLOCKS), ACK);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(ask_at(f, UNPLUG, bad[i].gpa, bad[i].n), ERROR);
		assert_int_equal(ask_at(f, PLUG, bad[i].gpa, bad[i].n), ERROR);
		assert_int_equal(ask_at(f, VIRTIO_MEM_REQ_STATE, bad[i].gpa, bad[i].n), ERROR);
	}
	for (unsigned type = 4; type < 65536; type = type * 2 + 1)
		assert_int_equal(ask(f, (uint16_t)type, 0, 1), ERROR);
	assert_true(mem_plugged(f->dev) == REGION);
	assert_int_equal(f->broken, 0);
}

static void what_is_given_up_goes_back(void **state)
{
	struct fixture *f = *state;

	mem_want(f->dev, REGION);
	assert_int_equal(ask(f, PLUG, 0, 8), ACK);
	memset(f->region, 0x5a, 8 * MEM_BLOCK);
	assert_int_equal(ask(f, UNPLUG, 2, 3), ACK);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(resident(f, i), i >= 2 && i < 5 ? 0 : MEM_BLOCK / PAGE);
	/* It comes again as new. */
	assert_int_equal(ask(f, PLUG, 3, 1), ACK);
	assert_int_equal(f->region[3 * MEM_BLOCK], 0);
	assert_int_equal(f->region[2 * MEM_BLOCK - 1], 0x5a);
	assert_int_equal(f->region[5 * MEM_BLOCK], 0x5a);
	/* All of it, with what was used without having been given. */
	f->region[60 * MEM_BLOCK] = 1;
	assert_int_equal(ask(f, ALL, 0, 0), ACK);
	for (unsigned i = 0; i < BLOCKS; i++)
		assert_int_equal(resident(f, i), 0);
	assert_true(mem_plugged(f->dev) == 0);
	assert_int_equal(state_of(f, 0, BLOCKS), VIRTIO_MEM_STATE_UNPLUGGED);
	assert_int_equal(ask(f, ALL, 0, 0), ACK);
}

/* In a descriptor such a block is memory like any other. */
static void requests_in_blocks_that_are_not_plugged(void **state)
{
	struct fixture *f = *state;
	const struct drvbuf b[] = {{AT, sizeof(struct virtio_mem_req), false},
				   {AT + MEM_BLOCK, sizeof(struct virtio_mem_resp), true}};

	/* A request of zeros: to plug no blocks at 0. */
	drvq_add(&f->q, b, 2);
	assert_int_equal(drvq_finish(&f->q), sizeof(struct virtio_mem_resp));
	assert_int_equal(f->region[MEM_BLOCK], ERROR);
	assert_int_equal(f->broken, 0);
}

static void wait_broken(struct fixture *f, const char *why)
{
	for (unsigned i = 0; !f->broken; i++) {
		assert_true(i < 60000);
		usleep(1000);
	}
	assert_string_equal(f->why, why);
}

static void a_request_too_short(void **state)
{
	struct fixture *f = *state;
	const struct drvbuf b[] = {{REQUEST, sizeof(struct virtio_mem_req) - 1, false},
				   {ANSWER, 64, true}};

	drvq_add(&f->q, b, 2);
	drvq_kick(&f->q);
	wait_broken(f, "request that is too short");
}

static void an_answer_without_a_place(void **state)
{
	struct fixture *f = *state;
	const struct drvbuf b[] = {{REQUEST, sizeof(struct virtio_mem_req), false},
				   {ANSWER, sizeof(struct virtio_mem_resp) - 1, true}};

	mem_want(f->dev, REGION);
	memset(drv_at(&f->d, REQUEST), 0, sizeof(struct virtio_mem_req));
	drvq_add(&f->q, b, 2);
	drvq_kick(&f->q);
	wait_broken(f, "request without a place for the answer");
	assert_true(mem_plugged(f->dev) == 0);
}

static void in_pieces(void **state)
{
	struct fixture *f = *state;
	const struct virtio_mem_req req = {
		.type = htole16(PLUG), .u.plug = {.addr = htole64(AT), .nb_blocks = htole16(2)}};
	const struct drvbuf b[] = {{REQUEST, 1, false},
				   {REQUEST + 1, 8, false},
				   {REQUEST + 9, 90, false},
				   {ANSWER, 1, true},
				   {ANSWER + 1, 100, true}};

	mem_want(f->dev, REGION);
	memcpy(drv_at(&f->d, REQUEST), &req, sizeof(req));
	drvq_add(&f->q, b, ARRAY_SIZE(b));
	assert_int_equal(drvq_finish(&f->q), sizeof(struct virtio_mem_resp));
	assert_int_equal(answer(f).type, ACK);
	assert_true(mem_plugged(f->dev) == 2 * MEM_BLOCK);
}

/* A driver that starts over finds what it had. */
static void a_reset_changes_nothing(void **state)
{
	struct fixture *f = *state;

	mem_want(f->dev, 4 * MEM_BLOCK);
	assert_int_equal(ask(f, PLUG, 7, 4), ACK);
	memset(f->region + 7 * MEM_BLOCK, 1, MEM_BLOCK);
	virtio_device_reset(f->dev);
	f->q.s.last_avail = f->q.avail_idx;
	f->q.s.last_used = f->q.used_seen;
	start(f);
	assert_true(mem_plugged(f->dev) == 4 * MEM_BLOCK);
	assert_true(config(f, OFF(requested_size)) == 4 * MEM_BLOCK);
	assert_int_equal(state_of(f, 7, 4), VIRTIO_MEM_STATE_PLUGGED);
	assert_int_equal(f->region[7 * MEM_BLOCK], 1);
}

static void saved_and_restored(void **state)
{
	struct fixture *f = *state;
	const struct mem_options o = {.gpa = AT, .size = REGION};
	const size_t n = mem_state_size(f->dev);
	cleanup_free struct mem_state *s = calloc(1, n), *bad = calloc(1, n), *again = calloc(1, n);
	struct virtio_device *other;

	mem_want(f->dev, 9 * MEM_BLOCK);
	assert_int_equal(ask(f, PLUG, 60, 8), ACK);
	virtio_device_pause(f->dev);
	mem_save(f->dev, s);
	assert_int_equal(s->version, MEM_STATE_VERSION);
	assert_int_equal(mem_device_new(&o, &other, NULL), 0);
	assert_int_equal(mem_restore(other, s, n), 0);
	mem_save(other, again);
	assert_memory_equal(s, again, n);
	assert_true(mem_plugged(other) == 8 * MEM_BLOCK);
	/* Bits of no block are dropped; all else that is not right is refused. */
	memcpy(bad, s, n);
	bad->blocks[1] |= UINT64_C(1) << 63;
	assert_int_equal(mem_restore(other, bad, n), 0);
	mem_save(other, again);
	assert_memory_equal(s, again, n);
	assert_int_equal(mem_restore(other, s, n - 1), -EINVAL);
#define BAD(change)                                                                                \
	(memcpy(bad, s, n), (change), assert_int_equal(mem_restore(other, bad, n), -EINVAL))
	BAD(bad->version++);
	BAD(bad->gpa += MEM_BLOCK);
	BAD(bad->size -= MEM_BLOCK);
	BAD(bad->plugged += MEM_BLOCK);
	BAD(bad->blocks[0] = 0);
	BAD(bad->requested = REGION + MEM_BLOCK);
	BAD(bad->requested = PAGE);
	mem_save(other, again);
	assert_memory_equal(s, again, n);
	virtio_device_free(other);
	assert_int_equal(virtio_device_resume(f->dev), 0);
}

static void *change_wishes(void *arg)
{
	struct fixture *f = arg;

	for (unsigned i = 0; i < 2000; i++)
		mem_want(f->dev, i % (BLOCKS + 1) * MEM_BLOCK);
	return NULL;
}

/* The host changes its mind while the driver is at it, and others look. */
static void wishes_from_another_thread(void **state)
{
	struct fixture *f = *state;
	uint64_t seed = 7, plugged = 0;
	pthread_t t;

	assert_int_equal(pthread_create(&t, NULL, change_wishes, f), 0);
	for (unsigned i = 0; i < 1000; i++) {
		unsigned block = (unsigned)(drv_random(&seed) % BLOCKS);
		uint16_t n = (uint16_t)(1 + drv_random(&seed) % 3);
		bool more = drv_random(&seed) % 2;
		int r = ask(f, more ? PLUG : UNPLUG, block, n);

		if (r == ACK)
			plugged = more ? plugged + n : plugged - n;
		assert_true(mem_plugged(f->dev) == plugged * MEM_BLOCK);
	}
	pthread_join(t, NULL);
	assert_int_equal(f->broken, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(what_is_offered),
		T(regions_that_are_none),
		T(as_much_as_is_wanted),
		T(blocks_in_another_state),
		T(blocks_that_are_none),
		T(what_is_given_up_goes_back),
		T(requests_in_blocks_that_are_not_plugged),
		T(a_request_too_short),
		T(an_answer_without_a_place),
		T(in_pieces),
		T(a_reset_changes_nothing),
		T(saved_and_restored),
		T(wishes_from_another_thread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
