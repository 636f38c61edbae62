/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/kvm/loader.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/io.h"

#define PAGE ((uint64_t)4096)

static int copy(int fd, uint8_t *to, uint64_t off, uint64_t len)
{
	ssize_t n = io_pread_full(fd, to, len, off);

	if (n < 0)
		return (int)n;
	return (uint64_t)n == len ? 0 : -EIO;
}

/*
 * The pages at @to become the file's, privately. Advice for large pages helps where the page cache
 * has them. Returns how many bytes from the start of the segment need no copy.
 */
static uint64_t map_pages(const struct kernel_segment *s, int fd, uint8_t *to)
{
	uint64_t len = s->file_size & ~(PAGE - 1);

	if (s->writable || !len || (uintptr_t)to % PAGE || s->file_offset % PAGE)
		return 0;
	if (mmap(to, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd,
		 (off_t)s->file_offset) == MAP_FAILED)
		return 0;
	(void)madvise(to, len, MADV_HUGEPAGE);
	return len;
}

static int load(const struct kernel_segment *s, int fd, uint64_t size, uint8_t *to)
{
	uint64_t end, mapped;

	/* A mapping beyond the end would fault only when the guest gets there. */
	if (__builtin_add_overflow(s->file_offset, s->file_size, &end) || end > size)
		return -EIO;
	mapped = map_pages(s, fd, to);
	return copy(fd, to + mapped, s->file_offset + mapped, s->file_size - mapped);
}

int loader_load(const struct kernel_image *kernel, int fd, const struct guest_memory *map,
		struct err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_errno(err, "cannot read the kernel");
	for (unsigned i = 0; i < kernel->nsegments; i++) {
		const struct kernel_segment *s = &kernel->segments[i];
		uint8_t *to = guest_memory_ptr(map, s->paddr, s->memory);
		int r;

		if (s->file_size > s->memory || !to)
			return err_set(err, EFAULT, "the kernel does not fit into the memory");
		if (!s->file_size)
			continue;
		r = load(s, fd, (uint64_t)st.st_size, to);
		if (r == -EIO)
			return err_set(err, EIO,
				       "the kernel's file cannot be read, or has become shorter");
		if (r < 0)
			return err_set(err, r, "cannot read the kernel: %s", err_name(r));
	}
	return 0;
}
