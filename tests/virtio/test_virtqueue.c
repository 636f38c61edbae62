/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include <errno.h>

#include "base/cleanup.h"
#include "driver.h"
#include "base/iov.h"

#define FEATURES (1ull << VIRTIO_RING_F_INDIRECT_DESC | 1ull << VIRTIO_F_VERSION_1)
#define EVENTS	 (FEATURES | 1ull << VIRTIO_RING_F_EVENT_IDX)

struct fixture {
	struct drv d;
	struct drvq q;
	struct virtqueue vq;
	struct iovec iov[VIRTQUEUE_CHAIN_MAX];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	drv_init(&f->d);
	drvq_init(&f->q, &f->d, 8);
	*state = f;
	return virtqueue_start(&f->vq, &f->q.s, FEATURES, &f->d.map);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	drvq_done(&f->q);
	drv_done(&f->d);
	free(f);
	return 0;
}

static int pop(struct fixture *f, struct virtqueue_chain *c)
{
	return virtqueue_pop(&f->vq, c, f->iov, VIRTQUEUE_CHAIN_MAX);
}

static void memory_map_checks_every_range(void **state)
{
	struct guest_memory m = {0};
	static uint8_t a[4096], b[4096];
	struct iovec iov[4];
	uint8_t byte;

	(void)state;
	assert_int_equal(guest_memory_add(&m, 4096, 4096, b), 0);
	assert_int_equal(guest_memory_add(&m, 0, 4096, a), 0);
	assert_int_equal(guest_memory_add(&m, 4095, 2, a), -EEXIST);
	assert_int_equal(guest_memory_add(&m, 8191, 1, a), -EEXIST);
	assert_int_equal(guest_memory_add(&m, 1 << 20, 0, a), -EINVAL);
	assert_int_equal(guest_memory_add(&m, UINT64_MAX - 10, 12, a), -EINVAL);
	assert_int_equal(guest_memory_add(&m, UINT64_MAX - 4095, 4096, a), 0);
	assert_ptr_equal(guest_memory_ptr(&m, 4095, 1), a + 4095);
	assert_null(guest_memory_ptr(&m, 4095, 2));
	assert_null(guest_memory_ptr(&m, 8192, 0));
	assert_null(guest_memory_ptr(&m, 0, UINT64_MAX));
	assert_ptr_equal(guest_memory_ptr(&m, UINT64_MAX, 1), a + 4095);
	assert_int_equal(guest_memory_iov(&m, 4000, 200, iov, 4), 2);
	assert_ptr_equal(iov[1].iov_base, b);
	assert_int_equal(iov[0].iov_len, 96);
	assert_int_equal(guest_memory_iov(&m, 4000, 200, iov, 1), -ENOBUFS);
	assert_int_equal(guest_memory_iov(&m, 8000, 200, iov, 4), -EFAULT);
	/* Around the end of the address space and back to 0 is not contiguous. */
	assert_int_equal(guest_memory_iov(&m, UINT64_MAX, 2, iov, 4), -EFAULT);
	assert_int_equal(guest_memory_iov(&m, UINT64_MAX, 1, iov, 4), 1);
	assert_int_equal(guest_memory_read(&m, 9999, &byte, 1), -EFAULT);
	for (unsigned i = m.nregions; i < GUEST_MEMORY_REGIONS_MAX; i++)
		assert_int_equal(guest_memory_add(&m, (1 + i) << 20, 16, a), 0);
	assert_int_equal(guest_memory_add(&m, 1ull << 40, 16, a), -ENOSPC);
}

static void bad_rings_do_not_start(void **state)
{
	struct fixture *f = *state;
	static const struct {
		struct virtqueue_state s;
		int result;
	} bad[] = {
		{{0x1000, 0x2000, 0x3000, 0, 0, 0}, -EINVAL},
		{{0x1000, 0x2000, 0x3000, 3, 0, 0}, -EINVAL},
		{{0x1000, 0x2000, 0x3000, 2048, 0, 0}, -EINVAL},
		{{0x1008, 0x2000, 0x3000, 8, 0, 0}, -EINVAL},
		{{0x1000, 0x2001, 0x3000, 8, 0, 0}, -EINVAL},
		{{0x1000, 0x2000, 0x3002, 8, 0, 0}, -EINVAL},
		{{DRV_LOW - 16, 0x2000, 0x3000, 8, 0, 0}, -EFAULT},
		{{0x1000, DRV_LOW - 4, 0x3000, 8, 0, 0}, -EFAULT},
		{{0x1000, 0x2000, DRV_LOW, 8, 0, 0}, -EFAULT},
		{{UINT64_MAX - 15, 0x2000, 0x3000, 8, 0, 0}, -EFAULT},
		{{0x1000, UINT64_MAX - 1, 0x3000, 8, 0, 0}, -EFAULT},
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(virtqueue_start(&f->vq, &bad[i].s, EVENTS, &f->d.map),
				 bad[i].result);
}

static void chains_come_as_they_were_made(void **state)
{
	struct fixture *f = *state;
	struct virtqueue_chain c;
	uint16_t head;

	assert_int_equal(pop(f, &c), 0);
	/* Far enough for all 16-bit indices to wrap. */
	for (unsigned i = 0; i < 70000; i++) {
		struct drvbuf b[3] = {{0x10000 + i % 512, 16, false},
				      {DRV_LOW - 8, 8, false},
				      {DRV_HIGH_AT, 100 + i % 7, true}};
		uint32_t id, len;

		head = drvq_add(&f->q, b, 3);
		assert_int_equal(pop(f, &c), 1);
		assert_int_equal(c.head, head);
		assert_int_equal(c.nread, 2);
		assert_int_equal(c.nwrite, 1);
		assert_int_equal(c.read_len, 24);
		assert_int_equal(c.write_len, 100 + i % 7);
		assert_ptr_equal(c.read[0].iov_base, f->d.mem + 0x10000 + i % 512);
		assert_ptr_equal(c.write[0].iov_base, f->d.mem + DRV_LOW);
		assert_int_equal(pop(f, &c), 0);
		virtqueue_push(&f->vq, head, i);
		assert_true(drvq_take(&f->q, &id, &len));
		assert_int_equal(id, head);
		assert_int_equal(len, i);
		assert_false(drvq_take(&f->q, &id, &len));
	}
}

static void rewound_chains_come_again(void **state)
{
	struct fixture *f = *state;
	struct drvbuf b = {0x10000, 4, true};
	struct virtqueue_chain c;
	uint16_t first = drvq_add(&f->q, &b, 1), second = drvq_add(&f->q, &b, 1);

	assert_int_equal(pop(f, &c), 1);
	assert_int_equal(pop(f, &c), 1);
	virtqueue_rewind(&f->vq, 2);
	assert_int_equal(pop(f, &c), 1);
	assert_int_equal(c.head, first);
	assert_int_equal(pop(f, &c), 1);
	assert_int_equal(c.head, second);
	assert_int_equal(virtqueue_save(&f->vq).last_avail, 2);
}

static void a_short_vector_leaves_the_chain(void **state)
{
	struct fixture *f = *state;
	struct drvbuf b[3] = {{0x10000, 4, false}, {0x11000, 4, false}, {0x12000, 4, true}};
	struct virtqueue_chain c;

	drvq_add(&f->q, b, 3);
	assert_int_equal(virtqueue_pop(&f->vq, &c, f->iov, 2), -ENOBUFS);
	assert_false(f->vq.broken);
	assert_int_equal(virtqueue_pop(&f->vq, &c, f->iov, 3), 1);
}

static void indirect(struct fixture *f, const struct vring_desc *table, unsigned n, uint32_t len)
{
	memcpy(drv_at(&f->d, 0x20000), table, n * sizeof(*table));
	drvq_set(&f->q, 0, 0x20000, len, VRING_DESC_F_INDIRECT, 0);
	drvq_publish(&f->q, 0);
}

static void indirect_tables_work(void **state)
{
	struct fixture *f = *state;
	struct vring_desc t[600];
	struct virtqueue_chain c;

	for (unsigned i = 0; i < 600; i++)
		t[i] = (struct vring_desc){0x30000 + i, 1,
					   (uint16_t)((i < 599 ? VRING_DESC_F_NEXT : 0) |
						      (i >= 300 ? VRING_DESC_F_WRITE : 0)),
					   (uint16_t)(i + 1)};
	indirect(f, t, 600, sizeof(t));
	assert_int_equal(pop(f, &c), 1);
	assert_int_equal(c.nread, 300);
	assert_int_equal(c.nwrite, 300);
	/* A direct buffer may stand in front of a table. */
	drvq_set(&f->q, 1, 0x40000, 9, VRING_DESC_F_NEXT, 0);
	drvq_publish(&f->q, 1);
	assert_int_equal(pop(f, &c), 1);
	assert_int_equal(c.read_len, 309);
}

/* ---- one function per way to break the rules ---- */

static void head_out_of_range(struct fixture *f)
{
	drvq_publish(&f->q, 8);
}

static void head_far_out(struct fixture *f)
{
	drvq_publish(&f->q, 0xffff);
}

static void index_jump(struct fixture *f)
{
	f->q.avail_idx = 8;
	drvq_publish(&f->q, 0);
}

static void index_back(struct fixture *f)
{
	f->q.avail_idx = (uint16_t)-2;
	drvq_publish(&f->q, 0);
}

static void self_loop(struct fixture *f)
{
	drvq_set(&f->q, 0, 0x10000, 1, VRING_DESC_F_NEXT, 0);
	drvq_publish(&f->q, 0);
}

static void ring_loop(struct fixture *f)
{
	for (unsigned i = 0; i < 8; i++)
		drvq_set(&f->q, i, 0x10000, 0, VRING_DESC_F_NEXT, (uint16_t)((i + 1) % 8));
	drvq_publish(&f->q, 3);
}

static void next_out_of_range(struct fixture *f)
{
	drvq_set(&f->q, 0, 0x10000, 1, VRING_DESC_F_NEXT, 8);
	drvq_publish(&f->q, 0);
}

static void buffer(struct fixture *f, uint64_t gpa, uint32_t len)
{
	drvq_set(&f->q, 0, gpa, len, 0, 0);
	drvq_publish(&f->q, 0);
}

static void buffer_past_the_end(struct fixture *f)
{
	buffer(f, DRV_LOW - 4, 5);
}

static void buffer_in_the_hole(struct fixture *f)
{
	buffer(f, 1 << 30, 1);
}

static void buffer_wraps(struct fixture *f)
{
	buffer(f, UINT64_MAX - 3, 8);
}

static void buffer_huge(struct fixture *f)
{
	buffer(f, 0, UINT32_MAX);
}

static void readable_after_writable(struct fixture *f)
{
	struct drvbuf b[2] = {{0x10000, 4, true}, {0x11000, 4, false}};

	drvq_add(&f->q, b, 2);
}

static void sum_overflows(struct fixture *f)
{
	struct vring_desc t[1024];

	for (unsigned i = 0; i < 1024; i++)
		t[i] = (struct vring_desc){0, 7 << 20, VRING_DESC_F_NEXT, (uint16_t)(i + 1)};
	indirect(f, t, 1024, sizeof(t));
}

static void table_in_table(struct fixture *f)
{
	struct vring_desc t = {0x20000, 16, VRING_DESC_F_INDIRECT, 0};

	indirect(f, &t, 1, 16);
}

static void table_with_successor(struct fixture *f)
{
	drvq_set(&f->q, 0, 0x20000, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, 1);
	drvq_publish(&f->q, 0);
}

static void table_of_odd_length(struct fixture *f)
{
	struct vring_desc t = {0x10000, 4, 0, 0};

	indirect(f, &t, 1, 17);
}

static void table_of_no_length(struct fixture *f)
{
	struct vring_desc t = {0x10000, 4, 0, 0};

	indirect(f, &t, 1, 0);
}

static void table_outside(struct fixture *f)
{
	drvq_set(&f->q, 0, 2u << 30, 16, VRING_DESC_F_INDIRECT, 0);
	drvq_publish(&f->q, 0);
}

static void table_wraps(struct fixture *f)
{
	drvq_set(&f->q, 0, UINT64_MAX - 15, 32, VRING_DESC_F_INDIRECT, 0);
	drvq_publish(&f->q, 0);
}

static void table_loop(struct fixture *f)
{
	struct vring_desc t[2] = {{0x10000, 4, VRING_DESC_F_NEXT, 1},
				  {0x10000, 4, VRING_DESC_F_NEXT, 0}};

	indirect(f, t, 2, 32);
}

static void table_next_outside(struct fixture *f)
{
	struct vring_desc t[2] = {{0x10000, 4, VRING_DESC_F_NEXT, 2}, {0, 0, 0, 0}};

	indirect(f, t, 2, 32);
}

static void table_too_long(struct fixture *f)
{
	for (unsigned i = 0; i < 1025; i++)
		*((struct vring_desc *)drv_at(&f->d, 0x20000) + i) =
			(struct vring_desc){0, 0, VRING_DESC_F_NEXT, (uint16_t)(i + 1)};
	drvq_set(&f->q, 0, 0x20000, 1025 * 16, VRING_DESC_F_INDIRECT, 0);
	drvq_publish(&f->q, 0);
}

static void broken_rules_break_only_the_queue(void **state)
{
	static const struct {
		void (*make)(struct fixture *f);
		const char *why;
	} cases[] = {
		{head_out_of_range, "available entry out of range"},
		{head_far_out, "available entry out of range"},
		{index_jump, "available index jumped"},
		{index_back, "available index jumped"},
		{self_loop, "descriptor loop"},
		{ring_loop, "descriptor loop"},
		{next_out_of_range, "descriptor index out of range"},
		{buffer_past_the_end, "buffer outside guest memory"},
		{buffer_in_the_hole, "buffer outside guest memory"},
		{buffer_wraps, "buffer outside guest memory"},
		{buffer_huge, "buffer outside guest memory"},
		{readable_after_writable, "readable buffer after a writable one"},
		{sum_overflows, "chain longer than 4 GiB"},
		{table_in_table, "indirect table inside an indirect table"},
		{table_with_successor, "indirect descriptor with a successor"},
		{table_of_odd_length, "indirect table of a bad length"},
		{table_of_no_length, "indirect table of a bad length"},
		{table_outside, "indirect table outside guest memory"},
		{table_wraps, "indirect table outside guest memory"},
		{table_loop, "descriptor loop"},
		{table_next_outside, "descriptor index out of range"},
		{table_too_long, "chain of too many buffers"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct virtqueue_chain c = {.head = 77};
		struct fixture *f;

		assert_int_equal(setup((void **)&f), 0);
		cases[i].make(f);
		assert_int_equal(pop(f, &c), -EIO);
		assert_true(f->vq.broken);
		assert_string_equal(f->vq.why, cases[i].why);
		assert_int_equal(c.head, 77);
		assert_int_equal(pop(f, &c), -EIO);
		teardown((void **)&f);
	}
}

static void indirect_needs_the_feature(void **state)
{
	struct fixture *f = *state;
	struct vring_desc t = {0x10000, 4, 0, 0};
	struct virtqueue_chain c;

	assert_int_equal(virtqueue_start(&f->vq, &f->q.s, 0, &f->d.map), 0);
	indirect(f, &t, 1, 16);
	assert_int_equal(pop(f, &c), -EIO);
}

static void flags_suppress_notifications(void **state)
{
	struct fixture *f = *state;
	struct drvbuf b = {0x10000, 4, true};

	assert_true(virtqueue_should_notify(&f->vq));
	drvq_avail(&f->q)->flags = VRING_AVAIL_F_NO_INTERRUPT;
	assert_false(virtqueue_should_notify(&f->vq));
	virtqueue_disable_kick(&f->vq);
	assert_int_equal(drvq_used(&f->q)->flags, VRING_USED_F_NO_NOTIFY);
	drvq_add(&f->q, &b, 1);
	assert_true(virtqueue_enable_kick(&f->vq));
	assert_int_equal(drvq_used(&f->q)->flags, 0);
}

static void event_indices_suppress_notifications(void **state)
{
	struct fixture *f = *state;
	struct drvbuf b = {0x10000, 4, true};
	struct virtqueue_chain c;
	__virtio16 *used_event = &drvq_avail(&f->q)->ring[8];
	__virtio16 *avail_event = (__virtio16 *)&drvq_used(&f->q)->ring[8];

	assert_int_equal(virtqueue_start(&f->vq, &f->q.s, EVENTS, &f->d.map), 0);
	*used_event = 2;
	for (unsigned i = 0; i < 5; i++) {
		drvq_add(&f->q, &b, 1);
		assert_int_equal(pop(f, &c), 1);
		virtqueue_push(&f->vq, c.head, 0);
		/* The first asks anyway, the third passes the event. */
		assert_int_equal(virtqueue_should_notify(&f->vq), i == 0 || i == 2);
	}
	drvq_add(&f->q, &b, 1);
	assert_true(virtqueue_enable_kick(&f->vq));
	assert_int_equal(pop(f, &c), 1);
	assert_false(virtqueue_enable_kick(&f->vq));
	assert_int_equal(*avail_event, 6);
}

/*
 * Random rings against a second, plain reading of the specification: where that finds a valid
 * chain we must find the same bytes, elsewhere we must refuse.
 */
struct model {
	uint64_t read, write; /* bytes */
	bool ok;
};

static bool model_inside(uint64_t gpa, uint64_t len)
{
	return !len || (gpa < DRV_LOW && len <= DRV_LOW - gpa) ||
	       (gpa >= DRV_HIGH_AT && gpa - DRV_HIGH_AT < DRV_HIGH &&
		len <= DRV_HIGH_AT + DRV_HIGH - gpa);
}

static void model_table(struct fixture *f, uint64_t table, unsigned n, unsigned i, bool inner,
			struct model *m)
{
	for (unsigned steps = 0; steps < n; steps++) {
		const struct vring_desc *d;

		if (i >= n || !model_inside(table + i * 16, 16))
			return;
		d = drv_at(&f->d, table + i * 16);
		if (d->flags & VRING_DESC_F_INDIRECT) {
			if (!inner && !(d->flags & VRING_DESC_F_NEXT) && d->len && d->len % 16 == 0)
				model_table(f, d->addr, d->len / 16, 0, true, m);
			return;
		}
		if (!model_inside(d->addr, d->len))
			return;
		if (d->flags & VRING_DESC_F_WRITE)
			m->write += d->len;
		else if (m->write)
			return;
		else
			m->read += d->len;
		if (!(d->flags & VRING_DESC_F_NEXT)) {
			m->ok = true;
			return;
		}
		i = d->next;
	}
}

static uint64_t random_gpa(uint64_t *seed)
{
	static const uint64_t base[] = {0x10000,      0x20000,	   0x20000,
					DRV_LOW - 64, DRV_HIGH_AT, DRV_HIGH_AT + DRV_HIGH - 64};
	uint64_t r = drv_random(seed);

	return r % 64 == 0 ? drv_random(seed) : base[r % 6] + r % 3 * 16;
}

static void random_desc(struct vring_desc *d, uint64_t *seed)
{
	uint64_t r = drv_random(seed);

	/* Never empty: a writable one of no bytes leaves no trace for the order of the others. */
	*d = (struct vring_desc){random_gpa(seed), (uint32_t)(16 + r % 3 * 16), 0,
				 (uint16_t)(r >> 8 & 7)};
	if (r >> 16 & 1)
		d->flags |= VRING_DESC_F_NEXT;
	if (r >> 17 & 1)
		d->flags |= VRING_DESC_F_WRITE;
	if ((r >> 18 & 7) == 0)
		d->flags |= VRING_DESC_F_INDIRECT;
	if ((r >> 21 & 63) == 0)
		d->next = (uint16_t)drv_random(seed);
}

static void random_rings_match_the_model(void **state)
{
	uint64_t seed = 0x1234567;
	unsigned valid = 0, refused = 0;

	(void)state;
	for (unsigned round = 0; round < 20000; round++) {
		static struct fixture *f;
		struct virtqueue_chain c;
		struct model m = {0};
		int r;

		if (!f)
			assert_int_equal(setup((void **)&f), 0);
		f->q.avail_idx = 0;
		assert_int_equal(virtqueue_start(&f->vq, &f->q.s, FEATURES, &f->d.map), 0);
		for (unsigned i = 0; i < 8; i++) {
			random_desc(drvq_desc(&f->q, i), &seed);
			random_desc((struct vring_desc *)drv_at(&f->d, 0x20000) + i, &seed);
		}
		drvq_publish(&f->q, (uint16_t)(drv_random(&seed) % 8));
		model_table(f, f->q.s.desc, 8, drvq_avail(&f->q)->ring[0], false, &m);
		r = pop(f, &c);
		assert_int_equal(r, m.ok ? 1 : -EIO);
		if (m.ok) {
			assert_int_equal(c.read_len, m.read);
			assert_int_equal(c.write_len, m.write);
			assert_int_equal(iov_size(c.read, c.nread), m.read);
			assert_int_equal(iov_size(c.write, c.nwrite), m.write);
		}
		valid += m.ok;
		refused += !m.ok;
		if (round == 19999)
			teardown((void **)&f);
	}
	/* Both sides must have been tried in earnest. */
	assert_true(valid > 1000 && refused > 1000);
}

static void vectors_are_cut_right(void **state)
{
	uint64_t seed = 99;
	uint8_t data[64], copy[64];

	(void)state;
	for (unsigned round = 0; round < 5000; round++) {
		struct iovec iov[6], cut[6];
		size_t used = 0, off = drv_random(&seed) % 70, len = drv_random(&seed) % 70, want;
		unsigned n = 0, k;

		for (; n < 6; n++) {
			size_t part = drv_random(&seed) % 12;

			iov[n] = (struct iovec){data + used, MIN(part, sizeof(data) - used)};
			used += iov[n].iov_len;
		}
		for (unsigned i = 0; i < 64; i++)
			data[i] = (uint8_t)drv_random(&seed);
		want = off >= used ? 0 : MIN(len, used - off);
		assert_int_equal(iov_size(iov, n), used);
		k = iov_slice(iov, n, off, len, cut, 6);
		assert_int_equal(iov_size(cut, k), want);
		assert_int_equal(iov_read(iov, n, off, copy, MIN(len, sizeof(copy))),
				 MIN(want, sizeof(copy)));
		if (want)
			assert_memory_equal(copy, data + off, MIN(want, sizeof(copy)));
		assert_int_equal(iov_zero(iov, n, off, len), want);
		for (size_t i = 0; i < want; i++)
			assert_int_equal(data[off + i], 0);
		assert_int_equal(iov_write(iov, n, off, copy, want), want);
		if (want)
			assert_memory_equal(copy, data + off, want);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_map_checks_every_range),
		cmocka_unit_test_setup_teardown(bad_rings_do_not_start, setup, teardown),
		cmocka_unit_test_setup_teardown(chains_come_as_they_were_made, setup, teardown),
		cmocka_unit_test_setup_teardown(rewound_chains_come_again, setup, teardown),
		cmocka_unit_test_setup_teardown(a_short_vector_leaves_the_chain, setup, teardown),
		cmocka_unit_test_setup_teardown(indirect_tables_work, setup, teardown),
		cmocka_unit_test(broken_rules_break_only_the_queue),
		cmocka_unit_test_setup_teardown(indirect_needs_the_feature, setup, teardown),
		cmocka_unit_test_setup_teardown(flags_suppress_notifications, setup, teardown),
		cmocka_unit_test_setup_teardown(event_indices_suppress_notifications, setup,
						teardown),
		cmocka_unit_test(random_rings_match_the_model),
		cmocka_unit_test(vectors_are_cut_right),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
