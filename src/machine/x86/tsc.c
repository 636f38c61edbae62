/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/x86/tsc.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <x86intrin.h>

#include "base/cleanup.h"

/* The best of this many readings: one may be torn apart by the scheduler, eight hardly. */
enum { TRIES = 8 };

static uint64_t raw_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

struct tsc_moment tsc_now(void)
{
	struct tsc_moment best = {0};
	uint64_t shortest = UINT64_MAX;

	for (int i = 0; i < TRIES; i++) {
		uint64_t before = __rdtsc(), ns = raw_ns(), after = __rdtsc();

		if (after - before < shortest) {
			shortest = after - before;
			best = (struct tsc_moment){before + shortest / 2, ns};
		}
	}
	return best;
}

/* The flags of the first processor; under a hypervisor CPUID may hide what the kernel knows. */
static bool is_constant(void)
{
	cleanup_file FILE *f = fopen("/proc/cpuinfo", "re");
	cleanup_free char *line = NULL;
	size_t cap = 0;

	while (f && getline(&line, &cap, f) > 0) {
		if (strncmp(line, "flags", 5) == 0)
			return strstr(line, " constant_tsc") && strstr(line, " nonstop_tsc");
	}
	return false;
}

uint32_t tsc_khz_since(const struct tsc_moment *since)
{
	struct tsc_moment now;

	if (!is_constant())
		return 0;
	do
		now = tsc_now();
	while (now.ns - since->ns < TSC_SPAN_MIN_NS);
	return (uint32_t)((unsigned __int128)(now.tsc - since->tsc) * 1000000u /
			  (now.ns - since->ns));
}
