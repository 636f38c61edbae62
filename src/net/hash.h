/* SPDX-License-Identifier: Apache-2.0 */
/* SipHash-2-4 (Aumasson and Bernstein): for tables whose keys others choose. Any thread. */
#ifndef NET_HASH_H
#define NET_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t net_hash(const uint8_t seed[16], const void *p, size_t n);

#endif
