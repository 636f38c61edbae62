/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/kvm/bus.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

/* The first range that begins above @addr. */
static unsigned above(const struct bus *b, uint64_t addr)
{
	unsigned lo = 0, hi = b->nranges;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (b->range[mid].base <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

int bus_add(struct bus *b, const struct bus_range *r)
{
	unsigned pos = above(b, r->base);
	uint64_t last;

	if (!r->size || __builtin_add_overflow(r->base, r->size - 1, &last))
		return -EINVAL;
	if (b->nranges == BUS_RANGES_MAX)
		return -ENOSPC;
	if (pos < b->nranges && b->range[pos].base <= last)
		return -EEXIST;
	if (pos > 0 && r->base - b->range[pos - 1].base < b->range[pos - 1].size)
		return -EEXIST;
	memmove(&b->range[pos + 1], &b->range[pos], (b->nranges - pos) * sizeof(*r));
	b->range[pos] = *r;
	b->nranges++;
	return 0;
}

static const struct bus_range *find(const struct bus *b, uint64_t addr, uint32_t len)
{
	unsigned pos = above(b, addr);
	const struct bus_range *r;
	uint64_t off;

	if (pos == 0)
		return NULL;
	r = &b->range[pos - 1];
	off = addr - r->base;
	return off < r->size && len <= r->size - off ? r : NULL;
}

void bus_read(const struct bus *b, uint64_t addr, void *p, uint32_t len)
{
	const struct bus_range *r = find(b, addr, len);

	if (r)
		r->read(r->arg, addr - r->base, p, len);
	else
		memset(p, 0xff, len);
}

void bus_write(const struct bus *b, uint64_t addr, const void *p, uint32_t len)
{
	const struct bus_range *r = find(b, addr, len);

	if (r)
		r->write(r->arg, addr - r->base, p, len);
}
