/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/kvm/loader.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/io.h"

/* The size of a large page, and cut where these begin, so that two threads never want the same one.
 */
#define CHUNK ((uint64_t)2 << 20)

struct loader {
	const struct kernel_image *kernel;
	const struct guest_memory *map;
	int fd;
	atomic_uint next; /* chunk that nobody has taken */
	atomic_int error; /* of the first that failed */
	pthread_t thread;
	bool started;
};

/* Find chunk @n of all segments: false when there are fewer. */
static bool find_chunk(const struct kernel_image *k, unsigned n, uint64_t *ret_gpa,
		       uint64_t *ret_off, uint64_t *ret_len)
{
	for (unsigned i = 0; i < k->nsegments; i++) {
		const struct kernel_segment *s = &k->segments[i];
		uint64_t first = s->paddr / CHUNK, last, from, to;

		if (!s->file_size)
			continue;
		last = (s->paddr + s->file_size - 1) / CHUNK;
		if (n > last - first) {
			n -= (unsigned)(last - first + 1);
			continue;
		}
		from = MAX(s->paddr, (first + n) * CHUNK);
		to = MIN(s->paddr + s->file_size, (first + n + 1) * CHUNK);
		*ret_gpa = from;
		*ret_off = s->file_offset + (from - s->paddr);
		*ret_len = to - from;
		return true;
	}
	return false;
}

static void set_error(struct loader *l, int error)
{
	int none = 0;

	atomic_compare_exchange_strong(&l->error, &none, error);
}

static void work(struct loader *l)
{
	uint64_t gpa, off, len;

	while (!atomic_load(&l->error) &&
	       find_chunk(l->kernel, atomic_fetch_add(&l->next, 1), &gpa, &off, &len)) {
		ssize_t n = io_pread_full(l->fd, guest_memory_ptr(l->map, gpa, len), len, off);

		if (n < 0)
			set_error(l, (int)n);
		else if ((uint64_t)n != len)
			set_error(l, -EIO);
	}
}

static void *loader_main(void *arg)
{
	work(arg);
	return NULL;
}

int loader_new(struct loader **ret, const struct kernel_image *kernel, int fd,
	       const struct guest_memory *map, struct err *err)
{
	struct loader *l;
	sigset_t all, old;

	for (unsigned i = 0; i < kernel->nsegments; i++) {
		const struct kernel_segment *s = &kernel->segments[i];

		if (s->file_size > s->memory || !guest_memory_ptr(map, s->paddr, s->memory))
			return err_set(err, EFAULT, "the kernel does not fit into the memory");
	}
	l = calloc(1, sizeof(*l));
	if (!l)
		return err_set(err, ENOMEM, "cannot load the kernel: out of memory");
	l->kernel = kernel;
	l->fd = fd;
	l->map = map;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	/* Without a thread, loader_finish() does all of it. */
	l->started = pthread_create(&l->thread, NULL, loader_main, l) == 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	*ret = l;
	return 0;
}

static void join(struct loader *l)
{
	if (l->started)
		pthread_join(l->thread, NULL);
	l->started = false;
}

int loader_finish(struct loader *l, struct err *err)
{
	int r;

	work(l);
	join(l);
	r = atomic_load(&l->error);
	if (r == -EIO)
		return err_set(err, EIO, "the kernel's file cannot be read, or has become shorter");
	return r < 0 ? err_set(err, r, "cannot read the kernel: %s", err_name(r)) : 0;
}

struct loader *loader_free(struct loader *l)
{
	if (!l)
		return NULL;
	set_error(l, -ECANCELED);
	join(l);
	free(l);
	return NULL;
}
