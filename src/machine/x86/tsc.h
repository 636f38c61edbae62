/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frequency of the host's time-stamp counter, for guests that see it and could otherwise only
 * find out by waiting.
 *
 * Nothing unprivileged tells it exactly, so it is measured against CLOCK_MONOTONIC_RAW between two
 * moments; a few milliseconds give some ten parts per million. A guest's clock is set by the agent,
 * its rate is as good as this.
 */
#ifndef MACHINE_X86_TSC_H
#define MACHINE_X86_TSC_H

#include <stdint.h>

struct tsc_moment {
	uint64_t tsc, ns;
};

/* Two moments closer than this measure mostly the noise of reading the clock. */
#define TSC_SPAN_MIN_NS 2000000u

/* Read both clocks as nearly at once as the host lets us. */
struct tsc_moment tsc_now(void);

/*
 * Frequency in kHz from @since until now, waiting until TSC_SPAN_MIN_NS have gone by; 0 when the
 * counter does not run at a constant rate.
 */
uint32_t tsc_khz_since(const struct tsc_moment *since);

#endif
