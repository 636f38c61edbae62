/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/kvm/ram.h"

#include <errno.h>
#include <string.h>
#include <linux/mman.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"

#define FOUR_GIB ((uint64_t)4 << 30)

int ram_check_host(uint64_t size, struct err *err)
{
	char want[24], have[24];
	struct sysinfo si;
	uint64_t total;

	if (sysinfo(&si) < 0)
		return 0;
	total = ((uint64_t)si.totalram + si.totalswap) * si.mem_unit;
	if (size <= total)
		return 0;
	err_set(err, ENOMEM, "%s of memory is more than this host has (%s)", str_size(size, want),
		str_size(total, have));
	return err_hint(err, "give the sandbox less memory");
}

static int map(const struct ram *m, enum ram_kind kind, uint64_t size, struct ram_area *area,
	       void **ret, struct err *err)
{
	static const int flags[] = {
		[RAM_PRIVATE] = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		[RAM_SHARED] = MAP_SHARED | MAP_NORESERVE,
		[RAM_HUGE] = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB,
	};
	uintptr_t at;
	void *host;

	/* Alignment of address and file offset lets the kernel use large pages. */
	area->size = size + RAM_ALIGN;
	area->at = mmap(NULL, area->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			-1, 0);
	if (area->at == MAP_FAILED) {
		area->at = NULL;
		return err_errno(err, "cannot map the guest's memory");
	}
	at = ((uintptr_t)area->at + RAM_ALIGN - 1) & ~(uintptr_t)(RAM_ALIGN - 1);
	host = mmap((void *)at, size, PROT_READ | PROT_WRITE, flags[kind] | MAP_FIXED,
		    kind == RAM_SHARED ? m->fd : -1, 0);
	if (host == MAP_FAILED) {
		int r = -errno;

		err_set(err, r, "cannot map the guest's memory%s: %s",
			kind == RAM_HUGE ? " in huge pages" : "", err_name(r));
		if (kind == RAM_HUGE)
			err_hint(err, "set some aside: sysctl vm.nr_hugepages=N, of 2 MiB each");
		return r;
	}
	/* Advice: without it core dumps are larger, and so is an idle guest on many hosts. */
	(void)madvise(host, size, MADV_DONTDUMP);
	(void)madvise(host, size, MADV_NOHUGEPAGE);
	*ret = host;
	return 0;
}

static int make_file(struct ram *m, struct err *err)
{
	m->fd = io_memfd("guest-memory", NULL, 0, err);
	if (m->fd < 0)
		return m->fd;
	if (ftruncate(m->fd, (off_t)m->size) < 0)
		return err_errno(err, "cannot make %llu MiB of guest memory",
				 (unsigned long long)(m->size >> 20));
	return 0;
}

int ram_init(struct ram *m, uint64_t size, uint64_t hole, enum ram_kind kind, struct err *err)
{
	int r = 0;

	*m = (struct ram)RAM_INIT;
	if (!size || size % RAM_ALIGN)
		return err_set(err, EINVAL, "memory must be a multiple of 2 MiB");
	m->size = size;
	m->low = MIN(size, hole);
	m->kind = kind;
	m->map.shared = kind == RAM_SHARED;
	if (kind == RAM_SHARED)
		r = make_file(m, err);
	if (r == 0)
		r = map(m, kind, size, &m->area, &m->host, err);
	if (r == 0)
		r = guest_memory_add(&m->map, 0, m->low, m->host);
	if (r == 0 && size > m->low)
		r = guest_memory_add(&m->map, FOUR_GIB, size - m->low, (char *)m->host + m->low);
	m->boot = m->map.nregions;
	if (r < 0)
		ram_done(m);
	return r;
}

int ram_more(struct ram *m, uint64_t gpa, uint64_t size, struct err *err)
{
	void *host;
	int r = map(m, RAM_PRIVATE, size, &m->more, &host, err);

	if (r < 0)
		return r;
	r = guest_memory_add(&m->map, gpa, size, host);
	return r < 0 ? err_set(err, r, "memory cannot be added at %#llx", (unsigned long long)gpa)
		     : 0;
}

void ram_want_large(struct ram *m, uint64_t gpa, uint64_t len)
{
	uint64_t from = gpa / RAM_ALIGN * RAM_ALIGN;
	uint64_t to = (gpa + len + RAM_ALIGN - 1) / RAM_ALIGN * RAM_ALIGN;
	void *p = guest_memory_ptr(&m->map, from, to - from);

	/* Advice: without it the guest runs as well, only slower. */
	if (p)
		(void)madvise(p, to - from, MADV_HUGEPAGE);
}

void ram_done(struct ram *m)
{
	if (m->area.at)
		munmap(m->area.at, m->area.size);
	if (m->more.at)
		munmap(m->more.at, m->more.size);
	m->area.at = m->more.at = m->host = NULL;
	m->fd = close_fd(m->fd);
	m->map = (struct guest_memory){0};
}
