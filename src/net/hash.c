/* SPDX-License-Identifier: Apache-2.0 */
#include "net/hash.h"

#include <endian.h>
#include <string.h>

static uint64_t rotl(uint64_t x, unsigned n)
{
	return x << n | x >> (64 - n);
}

static void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[2] += v[3];
	v[1] = rotl(v[1], 13) ^ v[0];
	v[3] = rotl(v[3], 16) ^ v[2];
	v[0] = rotl(v[0], 32) + v[3];
	v[2] += v[1];
	v[1] = rotl(v[1], 17) ^ v[2];
	v[3] = rotl(v[3], 21) ^ v[0];
	v[2] = rotl(v[2], 32);
}

static void sip_word(uint64_t v[4], uint64_t m)
{
	v[3] ^= m;
	sip_round(v);
	sip_round(v);
	v[0] ^= m;
}

uint64_t net_hash(const uint8_t seed[16], const void *p, size_t n)
{
	const uint8_t *b = p;
	uint64_t k0, k1, m, v[4];
	size_t i = 0;

	memcpy(&k0, seed, 8);
	memcpy(&k1, seed + 8, 8);
	k0 = le64toh(k0);
	k1 = le64toh(k1);
	v[0] = k0 ^ 0x736f6d6570736575;
	v[1] = k1 ^ 0x646f72616e646f6d;
	v[2] = k0 ^ 0x6c7967656e657261;
	v[3] = k1 ^ 0x7465646279746573;
	for (; n - i >= 8; i += 8) {
		memcpy(&m, b + i, 8);
		sip_word(v, le64toh(m));
	}
	m = (uint64_t)n << 56;
	for (size_t k = 0; i + k < n; k++)
		m |= (uint64_t)b[i + k] << (8 * k);
	sip_word(v, m);
	v[2] ^= 0xff;
	for (int k = 0; k < 4; k++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}
