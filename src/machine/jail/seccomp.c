/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a list of system calls to a filter, and onto the calling thread.
 *
 * A filter looks at the architecture first, so that the numbers mean what they say, then searches
 * the list by number. On installing one the kernel runs it for every number there is, to remember
 * those that go whatever their arguments: with a search tree that is several times faster than with
 * a row of comparisons, and most calls later cost nothing.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "machine/jail/jail_impl.h"

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
#error "which architecture is this?"
#endif

/* Of x32, which shares x86-64's architecture word. */
#define X32_BIT 0x40000000u

/* A leaf of the tree compares this many numbers in turn. */
enum { PROGRAM_MAX = 1024, CALLS_MAX = 192, LEAF = 3 };

struct program {
	struct sock_filter *p;
	size_t n, max;
};

static void put(struct program *p, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf)
{
	if (p->n < p->max)
		p->p[p->n] = (struct sock_filter){code, jt, jf, k};
	p->n++;
}

static void load(struct program *p, size_t offset)
{
	put(p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

/* Go on to the verdict when the test holds, else past it. */
static void put_test(struct program *p, const struct jail_call *c)
{
	size_t low = offsetof(struct seccomp_data, args) + c->arg * sizeof(uint64_t);

	if (c->test == JAIL_EQUAL) {
		load(p, low + sizeof(uint32_t));
		put(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 3);
	}
	if (c->test == JAIL_PAIR) {
		load(p, low - sizeof(uint64_t));
		put(p, BPF_JMP | BPF_JEQ | BPF_K, c->value >> 16, 0, 3);
	}
	load(p, low);
	switch (c->test) {
	case JAIL_ANY:
		break;
	case JAIL_EQUAL:
		put(p, BPF_JMP | BPF_JEQ | BPF_K, c->value, 0, 1);
		break;
	case JAIL_PAIR:
		put(p, BPF_JMP | BPF_JEQ | BPF_K, c->value & 0xffff, 0, 1);
		break;
	case JAIL_DIFFERS:
		put(p, BPF_JMP | BPF_JEQ | BPF_K, c->value, 1, 0);
		break;
	case JAIL_NONE:
		put(p, BPF_JMP | BPF_JSET | BPF_K, c->value, 1, 0);
		break;
	case JAIL_SOME:
		put(p, BPF_JMP | BPF_JSET | BPF_K, c->value, 0, 1);
		break;
	case JAIL_KIND:
		put(p, BPF_ALU | BPF_RSH | BPF_K, 8, 0, 0);
		put(p, BPF_ALU | BPF_AND | BPF_K, 0xff, 0, 0);
		put(p, BPF_JMP | BPF_JEQ | BPF_K, c->value, 0, 1);
		break;
	case JAIL_SELF:
		put(p, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)getpid(), 0, 1);
		break;
	}
}

/* The entries of one call: if it is that call, the first whose test holds, or none, decides. */
static void put_call(struct program *p, const struct jail_list *list,
		     const struct jail_call *const *calls, size_t n)
{
	size_t jump = p->n;

	put(p, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)calls[0]->nr, 0, 0);
	for (size_t i = 0; i < n; i++) {
		const struct jail_call *c = calls[i];

		if (c->test != JAIL_ANY)
			put_test(p, c);
		put(p, BPF_RET | BPF_K, c->verdict ? c->verdict : list->matched, 0, 0);
	}
	if (calls[n - 1]->test != JAIL_ANY)
		put(p, BPF_RET | BPF_K, list->other, 0, 0);
	if (jump < p->max)
		p->p[jump].jf = (uint8_t)(p->n - jump - 1);
}

/* How many of the @n calls, of which there is at least one, are the same as the first. */
static size_t same(const struct jail_call *const *calls, size_t n)
{
	size_t i = 1;

	while (i < n && calls[i]->nr == calls[0]->nr)
		i++;
	return i;
}

/* A search tree over calls in order of their numbers. With the number in A; always decides. */
static void put_calls(struct program *p, const struct jail_list *list,
		      const struct jail_call *const *calls, size_t n)
{
	size_t half = n / 2, jump;

	while (half < n && half && calls[half]->nr == calls[half - 1]->nr)
		half++;
	if (n <= LEAF || half == n) {
		for (size_t i = 0, k; i < n; i += k) {
			k = same(calls + i, n - i);
			put_call(p, list, calls + i, k);
		}
		put(p, BPF_RET | BPF_K, list->other, 0, 0);
		return;
	}
	/* The far jump has more room than a conditional one. */
	put(p, BPF_JMP | BPF_JGE | BPF_K, (uint32_t)calls[half]->nr, 0, 1);
	jump = p->n;
	put(p, BPF_JMP | BPF_JA, 0, 0, 0);
	put_calls(p, list, calls, half);
	if (jump < p->max)
		p->p[jump].k = (uint32_t)(p->n - jump - 1);
	put_calls(p, list, calls + half, n - half);
}

int jail_compile(const struct jail_list *list, struct sock_filter *out, size_t max)
{
	const struct jail_call *sorted[CALLS_MAX];
	struct program p = {out, 0, max};

	if (list->n > CALLS_MAX)
		return -E2BIG;
	for (size_t i = 0, at; i < list->n; i++) {
		for (at = i; at && sorted[at - 1]->nr > list->calls[i].nr; at--)
			sorted[at] = sorted[at - 1];
		sorted[at] = &list->calls[i];
	}
	load(&p, offsetof(struct seccomp_data, arch));
	put(&p, BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
	put(&p, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
	load(&p, offsetof(struct seccomp_data, nr));
#ifdef __x86_64__
	put(&p, BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1);
	put(&p, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
#endif
	put_calls(&p, list, sorted, list->n);
	return p.n <= max && p.n <= BPF_MAXINSNS ? (int)p.n : -E2BIG;
}

int jail_filter(enum jail_role role)
{
	struct sock_filter code[PROGRAM_MAX];
	int n = jail_compile(&jail_lists[role], code, PROGRAM_MAX);
	struct sock_fprog prog = {.len = (unsigned short)n, .filter = code};

	unsigned flags = 0;

	if (n < 0)
		return n;
	/* A call that kills is news: it goes to the kernel's log as well. */
	if (jail_lists[role].other == SECCOMP_RET_KILL_PROCESS)
		flags |= SECCOMP_FILTER_FLAG_LOG;
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog) < 0 ? -errno : 0;
}
