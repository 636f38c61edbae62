/* SPDX-License-Identifier: Apache-2.0 */
/* The interrupt controller of devices, register by register, and what it sends. */
#include "test.h"

#include <errno.h>
#include <pthread.h>

#include "machine/kvm/ioapic.h"

enum { LINES = 9, SELECT = 0, WINDOW = 0x10, MASKED = 0x10000 };

struct fixture {
	struct ioapic *io;
	unsigned sent;
	uint32_t address, data; /* of the last */
};

static void on_send(void *arg, uint32_t address, uint32_t data)
{
	struct fixture *f = arg;

	f->sent++;
	f->address = address;
	f->data = data;
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	return ioapic_new(&f->io, LINES, on_send, f, NULL);
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	ioapic_free(f->io);
	free(f);
	return 0;
}

static void wr(struct fixture *f, uint32_t reg, uint32_t v)
{
	ioapic_write(f->io, SELECT, &reg, 4);
	ioapic_write(f->io, WINDOW, &v, 4);
}

static uint32_t rd(struct fixture *f, uint32_t reg)
{
	uint32_t v = 0xdeadbeef;

	ioapic_write(f->io, SELECT, &reg, 4);
	ioapic_read(f->io, WINDOW, &v, 4);
	return v;
}

static void route(struct fixture *f, unsigned line, uint32_t high, uint32_t low)
{
	wr(f, 0x11 + 2 * line, high);
	wr(f, 0x10 + 2 * line, low);
}

/* Is a message sent for @line? */
static bool raises(struct fixture *f, unsigned line)
{
	unsigned before = f->sent;

	ioapic_raise(f->io, line);
	return f->sent != before;
}

static void test_identity(void **state)
{
	struct fixture *f = *state;
	uint32_t v = 0;

	assert_int_equal(rd(f, 1), 0x11 | (LINES - 1) << 16);
	assert_int_equal(rd(f, 0), 0);
	/* The kernel gives it a number, four bits of which are there. */
	wr(f, 0, 0xffffffff);
	assert_int_equal(rd(f, 0), 0x0f000000);
	assert_int_equal(rd(f, 2), 0x0f000000);
	wr(f, 1, 0);
	assert_int_equal(rd(f, 1), 0x11 | (LINES - 1) << 16);
	ioapic_write(f->io, SELECT, &(uint32_t){0x12345607}, 4);
	ioapic_read(f->io, SELECT, &v, 4);
	assert_int_equal(v, 7);
}

static void test_all_begin_masked(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < LINES; i++) {
		assert_int_equal(rd(f, 0x10 + 2 * i), MASKED);
		assert_int_equal(rd(f, 0x11 + 2 * i), 0);
		assert_false(raises(f, i));
	}
}

static void test_messages(void **state)
{
	struct fixture *f = *state;

	/* To the CPU whose local APIC is number 5. */
	route(f, 3, 5u << 24, 0x31);
	assert_true(raises(f, 3));
	assert_int_equal(f->address, 0xfee05000);
	assert_int_equal(f->data, 0x31);
	/* To any of a set of CPUs. */
	route(f, LINES - 1, 0xffu << 24, 0x9fe);
	assert_true(raises(f, LINES - 1));
	assert_int_equal(f->address, 0xfeeff004);
	assert_int_equal(f->data, 0x1fe);
	/* Each line has its own, and each edge is one message. */
	assert_false(raises(f, 4));
	assert_true(raises(f, 3) && raises(f, 3));
	assert_int_equal(f->sent, 4);
	/* Levels and polarity mean nothing, so neither do they need to be acknowledged. */
	route(f, 3, 0, 0xa031);
	assert_true(raises(f, 3) && raises(f, 3));
	assert_int_equal(f->data, 0x31);
	assert_int_equal(rd(f, 0x10 + 2 * 3), 0xa031);
}

static void test_masking(void **state)
{
	struct fixture *f = *state;

	route(f, 2, 0, 0x41);
	assert_true(raises(f, 2));
	wr(f, 0x14, 0x41 | MASKED);
	assert_false(raises(f, 2));
	/* What came while it was masked is lost. */
	f->sent = 0;
	wr(f, 0x14, 0x41);
	assert_int_equal(f->sent, 0);
	assert_true(raises(f, 2));
}

static void test_what_is_not_sent(void **state)
{
	struct fixture *f = *state;

	/* Anything but an interrupt with a vector: SMI, NMI, INIT, the others. */
	for (uint32_t mode = 2; mode < 8; mode++) {
		route(f, 1, 0, mode << 8 | 0x41);
		assert_false(raises(f, 1));
	}
	/* Vectors of the processor's own. */
	for (uint32_t vector = 0; vector < 16; vector++) {
		route(f, 1, 0, vector);
		assert_false(raises(f, 1));
	}
	route(f, 1, 0, 16);
	assert_true(raises(f, 1));
}

static void test_nonsense(void **state)
{
	struct fixture *f = *state;
	uint8_t b[8];

	/* Bits that are not the driver's. */
	route(f, 0, 0xffffffff, 0xffffffff);
	assert_int_equal(rd(f, 0x10), 0x1afff);
	assert_int_equal(rd(f, 0x11), 0xff000000);
	/* Numbers without a register behind them. */
	for (uint32_t reg = 3; reg < 256; reg++) {
		if (reg >= 0x10 && reg < 0x10 + 2 * LINES)
			continue;
		wr(f, reg, 0xffffffff);
		assert_int_equal(rd(f, reg), 0);
	}
	/* Offsets and widths. */
	route(f, 0, 0, MASKED | 0x55);
	ioapic_write(f->io, SELECT, &(uint32_t){0x10}, 4);
	for (uint32_t len = 1; len <= 8; len *= 2) {
		for (uint64_t off = 0; off + len <= IOAPIC_SIZE; off++) {
			if (len == 4 && (off == SELECT || off == WINDOW))
				continue;
			memset(b, 0xff, sizeof(b));
			ioapic_write(f->io, off, b, len);
			ioapic_read(f->io, off, b, len);
			for (uint32_t i = 0; i < len; i++)
				assert_int_equal(b[i], 0);
		}
	}
	assert_int_equal(rd(f, 0x10), MASKED | 0x55);
}

static void test_sizes(void **state)
{
	struct ioapic *io = NULL;

	(void)state;
	assert_int_equal(ioapic_new(&io, 0, on_send, NULL, NULL), -ERR_LIMIT);
	assert_int_equal(ioapic_new(&io, IOAPIC_LINES_MAX + 1, on_send, NULL, NULL), -ERR_LIMIT);
	assert_int_equal(ioapic_new(&io, IOAPIC_LINES_MAX, on_send, NULL, NULL), 0);
	assert_null(ioapic_free(io));
	assert_null(ioapic_free(NULL));
}

static void *raise_all(void *arg)
{
	struct fixture *f = arg;

	for (unsigned i = 0; i < 100000; i++)
		ioapic_raise(f->io, i % LINES);
	return NULL;
}

/* Once a write that masks a line has returned, no message of it is sent. */
static void test_threads(void **state)
{
	struct fixture *f = *state;
	pthread_t t;

	assert_int_equal(pthread_create(&t, NULL, raise_all, f), 0);
	for (unsigned i = 0; i < 2000; i++) {
		for (unsigned n = 0; n < LINES; n++)
			route(f, n, i << 24, 0x40 + n);
		for (unsigned n = 0; n < LINES; n++)
			wr(f, 0x10 + 2 * n, MASKED);
		f->sent = 0;
		for (unsigned n = 0; n < 10; n++)
			assert_int_equal(f->sent, 0);
	}
	pthread_join(t, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_identity, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_all_begin_masked, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_messages, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_masking, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_what_is_not_sent, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_nonsense, set_up, tear_down),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test_setup_teardown(test_threads, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
