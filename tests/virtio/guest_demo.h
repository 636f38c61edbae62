/* SPDX-License-Identifier: Apache-2.0 */
/* What test_vhost_qemu.c and its guest agree on. */
#ifndef TESTS_VIRTIO_GUEST_DEMO_H
#define TESTS_VIRTIO_GUEST_DEMO_H

#include <stddef.h>
#include <stdint.h>

enum {
	DEMO_CHUNK = 256 << 10,
	DEMO_UPPER_CHUNKS = 64,
	DEMO_PORT_CONTROL = 5000,
	DEMO_PORT_SINK = 5001,
	DEMO_PORT_SOURCE = 5002,
	DEMO_PORT_ECHO = 5003,
	DEMO_PORT_NOBODY = 5999,
	DEMO_PORT_GUEST = 6000,
	DEMO_MANY = 200,
	DEMO_HOST_CONNECTS = 20,
};

static inline uint64_t demo_hash(uint64_t h, const void *p, size_t n)
{
	const uint64_t *w = p;

	for (size_t i = 0; i < n / 8; i++) {
		h = (h ^ w[i]) * 0x9e3779b97f4a7c15u;
		h ^= h >> 29;
	}
	return h;
}

static inline void demo_fill(uint64_t *seed, void *p, size_t n)
{
	uint64_t *w = p;

	for (size_t i = 0; i < n / 8; i++) {
		*seed = *seed * 6364136223846793005u + 1442695040888963407u;
		w[i] = *seed ^ *seed >> 32;
	}
}

#endif
