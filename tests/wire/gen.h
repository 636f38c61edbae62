/* SPDX-License-Identifier: Apache-2.0 */
/* Random messages from their tables, reproducible by seed. */
#ifndef TEST_GEN_H
#define TEST_GEN_H

#include "wire/codec.h"

struct rng {
	uint64_t s;
};
uint64_t rng_next(struct rng *r);
static inline uint64_t rng_below(struct rng *r, uint64_t n)
{
	return rng_next(r) % n;
}

/* Fill a zeroed object; wire_free() releases it. */
void gen_message(struct rng *r, const struct wire_table *t, void *obj);

#endif
