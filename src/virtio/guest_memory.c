/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/guest_memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"

int guest_memory_add(struct guest_memory *m, uint64_t gpa, uint64_t size, void *host)
{
	unsigned pos = 0;
	uint64_t last;

	if (!size || __builtin_add_overflow(gpa, size - 1, &last) ||
	    size > UINTPTR_MAX - (uintptr_t)host)
		return -EINVAL;
	if (m->nregions == GUEST_MEMORY_REGIONS_MAX)
		return -ENOSPC;
	while (pos < m->nregions && m->region[pos].gpa < gpa)
		pos++;
	if (pos < m->nregions && m->region[pos].gpa <= last)
		return -EEXIST;
	if (pos > 0 && gpa - m->region[pos - 1].gpa < m->region[pos - 1].size)
		return -EEXIST;
	memmove(&m->region[pos + 1], &m->region[pos], (m->nregions - pos) * sizeof(m->region[0]));
	m->region[pos] = (struct guest_region){gpa, size, host};
	m->nregions++;
	return 0;
}

/* The region that holds @gpa, or NULL. Few regions: a scan beats a search. */
static const struct guest_region *find(const struct guest_memory *m, uint64_t gpa)
{
	for (unsigned i = 0; i < m->nregions; i++) {
		const struct guest_region *r = &m->region[i];

		if (gpa >= r->gpa && gpa - r->gpa < r->size)
			return r;
	}
	return NULL;
}

void *guest_memory_ptr(const struct guest_memory *m, uint64_t gpa, uint64_t len)
{
	const struct guest_region *r = find(m, gpa);

	if (!r || len > r->size - (gpa - r->gpa))
		return NULL;
	return r->host + (gpa - r->gpa);
}

int guest_memory_iov(const struct guest_memory *m, uint64_t gpa, uint64_t len, struct iovec *iov,
		     unsigned max)
{
	unsigned n = 0;

	while (len) {
		const struct guest_region *r = find(m, gpa);
		uint64_t part;

		if (!r)
			return -EFAULT;
		if (n == max)
			return -ENOBUFS;
		part = MIN(len, r->size - (gpa - r->gpa));
		iov[n++] = (struct iovec){r->host + (gpa - r->gpa), part};
		len -= part;
		/* The last region may end at 2^64; then len tells, not the wrapped address. */
		if (len && __builtin_add_overflow(gpa, part, &gpa))
			return -EFAULT;
	}
	return (int)n;
}

int guest_memory_read(const struct guest_memory *m, uint64_t gpa, void *dst, size_t len)
{
	struct iovec iov[GUEST_MEMORY_REGIONS_MAX];
	int n = guest_memory_iov(m, gpa, len, iov, GUEST_MEMORY_REGIONS_MAX);
	size_t done = 0;

	if (n < 0)
		return n;
	for (int i = 0; i < n; i++) {
		memcpy((char *)dst + done, iov[i].iov_base, iov[i].iov_len);
		done += iov[i].iov_len;
	}
	return 0;
}

uint64_t guest_memory_discard(const struct guest_memory *m, const struct iovec *iov, unsigned n)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	/* A private page is gone when we let go of it, a file's when nobody has it: make a hole. */
	int advice = m->shared ? MADV_REMOVE : MADV_DONTNEED;
	uint64_t done = 0;

	for (unsigned i = 0; i < n; i++) {
		uintptr_t from = ((uintptr_t)iov[i].iov_base + page - 1) & ~(page - 1);
		uintptr_t to = ((uintptr_t)iov[i].iov_base + iov[i].iov_len) & ~(page - 1);

		if (from < to && madvise((void *)from, to - from, advice) == 0)
			done += to - from;
	}
	return done;
}

uint64_t guest_memory_resident(const struct guest_memory *m)
{
	/* Pieces that fit the stack, and that let others at the tables in between. */
	enum { PAGES = 16384 };
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	unsigned char in[PAGES];
	uint64_t n = 0;

	for (unsigned i = 0; i < m->nregions; i++) {
		const struct guest_region *r = &m->region[i];

		for (uint64_t off = 0; off < r->size; off += PAGES * page) {
			size_t len = (size_t)MIN(r->size - off, (uint64_t)(PAGES * page));

			if (mincore(r->host + off, len, in) < 0)
				break;
			for (size_t k = 0; k < (len + page - 1) / page; k++)
				n += in[k] & 1;
		}
	}
	return n * page;
}
