/* SPDX-License-Identifier: Apache-2.0 */
/* What can be wrong at a device's registers. */
#include "villain.h"

/* The device is as it was: it works without a reset. Only sockets do not show that simply. */
static void still_works(void)
{
	if (dev->id == 2)
		blk_verify(dev);
	else if (dev->id == 4)
		rng_verify(dev);
	else if (dev->id == 5)
		balloon_verify(dev);
	else if (dev->id == 24)
		mem_verify(dev);
	check(!is_broken(dev), "the device broke");
}

void case_queue_select_out_of_range(void)
{
	const uint32_t sel[] = {QUEUES + 1, 65, 66, 255, 65535, 0x10000, 0x7fffffff, UINT32_MAX};

	for (size_t i = 0; i < COUNT(sel); i++) {
		set(dev, QUEUE_SEL, sel[i]);
		check(get(dev, QUEUE_NUM_MAX) == 0, "a queue that is not there has a size");
		check(get(dev, QUEUE_READY) == 0, "a queue that is not there is ready");
		for (uint32_t reg = QUEUE_NUM; reg < CONFIG; reg += 4) {
			if (reg != STATUS)
				set(dev, reg, UINT32_MAX);
		}
		set(dev, QUEUE_READY, 1);
		check(get(dev, QUEUE_READY) == 0, "a queue that is not there is ready");
		set(dev, QUEUE_READY, 0);
	}
	still_works();
}

static void notify_wrong(void)
{
	for (uint32_t i = 0; i < 40; i++)
		notify(dev, i < 8 ? dev->nqueues + i : UINT32_MAX << (i - 8));
	write8(dev->at + QUEUE_NOTIFY, 0);
	write16(dev->at + QUEUE_NOTIFY, 0);
	write64(dev->at + QUEUE_NOTIFY, UINT64_MAX);
	write32(dev->at + QUEUE_NOTIFY + 1, 0);
}

void case_notify_out_of_range(void)
{
	notify_wrong();
	still_works();
}

void case_notify_before_anything(void)
{
	reset(dev);
	for (unsigned i = 0; i < 100; i++)
		notify(dev, i % 4);
	notify_wrong();
	bring_up(dev, 0);
	still_works();
}

void case_rewritten_after_driver_ok(void)
{
	for (unsigned q = 0; q < dev->nqueues; q++) {
		set(dev, QUEUE_SEL, q);
		set(dev, QUEUE_NUM, 32768);
		for (uint32_t reg = QUEUE_DESC; reg < QUEUE_USED + 8; reg += 4)
			set(dev, reg, 0xd0000000 + q);
		set(dev, QUEUE_READY, 1);
		set(dev, QUEUE_READY, 2);
		check(get(dev, QUEUE_READY), "a running queue was stopped");
	}
	set(dev, DRIVER_FEATURES_SEL, 1);
	set(dev, DRIVER_FEATURES, 0);
	still_works();
}

void case_config_widths_and_offsets(void)
{
	const uint64_t config = dev->at + CONFIG, end = dev->at + WINDOW_END;

	for (uint64_t at = config; at < end; at++) {
		(void)read8(at);
		if (at + 2 <= end)
			(void)read16(at);
		if (at + 4 <= end)
			(void)read32(at);
		if (at + 8 <= end)
			(void)read64(at);
	}
	/* Past the window: nothing is there, not even half of a value. */
	check(read32(end) == UINT32_MAX, "behind the window is something");
	check(read64(end - 4) >> 32 == UINT32_MAX, "behind the window is something");
	check(read64(end - 1) >> 32 == UINT32_MAX, "behind the window is something");
	check(read64(config) == read32(config) + ((uint64_t)read32(config + 4) << 32),
	      "widths disagree");
	/* A driver of the balloon says how much it holds; see case_balloon_config(). */
	for (uint64_t at = config + (dev->id == 5 ? 8 : 0); at < end; at += 3) {
		uint64_t before = read64(config);

		write8(at, 0xff);
		write16(at, 0xffff);
		write32(at, UINT32_MAX);
		write64(at, UINT64_MAX);
		check(read64(config) == before, "what is constant was written");
	}
	still_works();
}

void case_register_widths(void)
{
	/* To read they are memory. */
	check(read8(dev->at) == 0x76 && read16(dev->at) == 0x6976, "half of a register is not");
	check(read64(dev->at) == 0x274726976, "two registers are not together");
	check(read32(dev->at + 2) == 0x27472, "halves of two registers are not together");
	for (uint64_t at = dev->at; at < dev->at + CONFIG; at++) {
		(void)read8(at);
		(void)read16(at);
		(void)read64(at);
		write8(at, 0);
		write16(at, 0);
		if (at % 4)
			(void)read32(at), write32(at, 0);
	}
	/* No eight-byte access takes the status to zero. */
	for (uint64_t at = dev->at; at < dev->at + CONFIG; at += 4)
		write64(at, 0);
	check(get(dev, STATUS) & DRIVER_OK, "an access of the wrong width was one of a register");
	still_works();
}

void case_read_only_registers(void)
{
	const uint32_t regs[] = {MAGIC_VALUE,
				 4,
				 DEVICE_ID,
				 12,
				 DEVICE_FEATURES,
				 QUEUE_NUM_MAX,
				 INTERRUPT_STATUS,
				 0xb0,
				 0xb4,
				 0xb8,
				 0xbc,
				 0xfc};

	for (size_t i = 0; i < COUNT(regs); i++) {
		uint32_t before = get(dev, regs[i]);

		set(dev, regs[i], ~before);
		check(get(dev, regs[i]) == before, "a register that can only be read was written");
	}
	still_works();
}

void case_features_not_offered(void)
{
	reset(dev);
	set(dev, STATUS, ACKNOWLEDGE | DRIVER);
	for (uint32_t sel = 0; sel < 4; sel++) {
		set(dev, DRIVER_FEATURES_SEL, sel);
		set(dev, DRIVER_FEATURES, UINT32_MAX);
	}
	set(dev, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
	check(!(get(dev, STATUS) & FEATURES_OK), "features were accepted that are not there");
	check(!queue_good(dev, 0), "a queue is ready without features");
	set(dev, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
	check(!queue_good(dev, 0), "a queue is ready without features");
	notify(dev, 0);
}

void case_features_ok_skipped(void)
{
	reset(dev);
	check(!queue_good(dev, 0), "a queue is ready before anything");
	set(dev, STATUS, ACKNOWLEDGE | DRIVER | DRIVER_OK);
	check(!queue_good(dev, 0), "a queue is ready before FEATURES_OK");
	publish(dev->ring, 0);
	notify(dev, 0);
	reset(dev);
	set(dev, STATUS, DRIVER_OK);
	check(!queue_good(dev, 0), "a queue is ready before FEATURES_OK");
	notify(dev, 0);
}

void case_features_after_ok(void)
{
	set(dev, DRIVER_FEATURES_SEL, 0);
	set(dev, DRIVER_FEATURES, UINT32_MAX);
	for (unsigned i = 0; i < 3; i++)
		set(dev, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
	check(get(dev, STATUS) & FEATURES_OK, "FEATURES_OK was lost");
	still_works();
}

void case_version_1_refused(void)
{
	reset(dev);
	set(dev, STATUS, ACKNOWLEDGE | DRIVER);
	set(dev, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
	check(!queue_good(dev, 0), "a queue is ready for a driver of an older version");
	set(dev, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
	notify(dev, 0);
}

void case_driver_ok_without_queues(void)
{
	reset(dev);
	negotiate(dev, 0);
	set(dev, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
	for (unsigned i = 0; i < 4; i++)
		notify(dev, i);
	check(!is_broken(dev), "the device broke");
	/* Late, but a queue. */
	check(queue_good(dev, 0), "a good queue is not ready");
}

void case_status_bits_cleared(void)
{
	set(dev, STATUS, DRIVER_OK);
	set(dev, STATUS, ACKNOWLEDGE);
	set(dev, STATUS, FAILED);
	set(dev, STATUS, 0xffffff00);
	set(dev, STATUS, NEEDS_RESET);
	still_works();
}

void case_reset_storm(void)
{
	/* Leaves a good request behind. */
	still_works();
	for (unsigned i = 0; i < turns(100); i++) {
		bring_up(dev, i % 2 ? F_INDIRECT : F_EVENT_IDX);
		publish(dev->ring, 0);
		for (unsigned q = 0; q < dev->nqueues; q++)
			notify(dev, q);
		for (unsigned k = 0; k < 5; k++)
			set(dev, STATUS, 0);
	}
}

/* Break, reset, break again: each time it says so, and the host's log does not grow with it. */
void case_break_storm(void)
{
	for (unsigned i = 0; i < 200; i++) {
		bring_up(dev, F_INDIRECT);
		publish(ring, UINT16_MAX);
		notify(dev, target->queue);
		check(settle(dev, ring), "the device does not break");
	}
}

/* ---- several CPUs ---- */

static void notify_much(unsigned cpu)
{
	for (unsigned i = 0; i < turns(2000); i++)
		notify(dev, (cpu + i) % 4);
}

void case_notify_storm(void)
{
	start_on_others(3, notify_much);
	notify_much(0);
	still_works();
	join_others();
	still_works();
}

static void acknowledge_much(unsigned cpu)
{
	for (unsigned i = 0; i < turns(2000); i++) {
		set(dev, INTERRUPT_ACK, cpu + i);
		if (i % 8 == 0)
			(void)get(dev, INTERRUPT_STATUS);
	}
}

void case_acknowledge_storm(void)
{
	start_on_others(3, acknowledge_much);
	acknowledge_much(0);
	still_works();
	join_others();
}

static void notify_for_ever(unsigned cpu)
{
	while (!others_stop)
		notify(dev, cpu % 4);
}

void case_reset_against_notify(void)
{
	start_on_others(3, notify_for_ever);
	for (unsigned i = 0; i < turns(100); i++) {
		bring_up(dev, F_INDIRECT);
		if (dev->id == 2)
			blk_verify(dev);
	}
	stop_others();
}

static void play(unsigned turns)
{
	const uint32_t values[] = {0,  1,  2,	   3,	    8,		11,	    15,
				   64, 66, 0xffff, 0x10000, UINT32_MAX, 0xd0000000, 128};
	const uint32_t regs[] = {STATUS,      QUEUE_SEL,  QUEUE_NUM,	       QUEUE_READY,
				 QUEUE_READY, QUEUE_DESC, QUEUE_NOTIFY,	       DRIVER_FEATURES,
				 QUEUE_AVAIL, QUEUE_USED, DRIVER_FEATURES_SEL, QUEUE_DESC + 4};

	for (unsigned i = 0; i < turns; i++) {
		uint32_t reg = random32() % 4 ? regs[random32() % COUNT(regs)]
					      : random32() % (WINDOW_END / 4) * 4;

		if (random32() % 64 == 0 && dev->nqueues)
			(void)queue_good(dev, random32() % dev->nqueues);
		else if (random32() % 4 == 0)
			(void)get(dev, reg);
		else
			set(dev, reg, values[random32() % COUNT(values)]);
	}
}

void case_random_registers(void)
{
	for (unsigned i = 0; i < 20; i++) {
		play(100);
		reset(dev);
		negotiate(dev, F_INDIRECT);
		(void)queue_good(dev, 0);
		play(100);
	}
}

static void play_alone(unsigned cpu)
{
	(void)cpu;
	play(1000);
}

void case_random_registers_by_all(void)
{
	start_on_others(3, play_alone);
	play(1000);
	join_others();
}
