/* SPDX-License-Identifier: Apache-2.0 */
#include "base/confine.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
#error "which architecture is this?"
#endif

void confine_limit(int what, uint64_t max)
{
	struct rlimit l;

	/* Never more than there was; what it cannot be lowered to is a limit already. */
	if (getrlimit(what, &l) == 0) {
		l.rlim_max = MIN(l.rlim_max, (rlim_t)max);
		l.rlim_cur = MIN(l.rlim_cur, l.rlim_max);
		(void)setrlimit(what, &l);
	}
}

int confine_privileges(void)
{
	confine_limit(RLIMIT_CORE, 0);
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return 0;
}

void confine_names(void)
{
	/* Newer than the headers of Linux 6.1: network from ABI 4, scopes from 6. */
	struct {
		uint64_t fs, net, scoped;
	} attr = {.net = 3, .scoped = 3};
	int abi =
		(int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	cleanup_close int set = -1;

	if (abi < 1)
		return;
	attr.fs = (UINT64_C(1) << (abi >= 5 ? 16 : abi >= 3 ? 15 : abi >= 2 ? 14 : 13)) - 1;
	set = (int)syscall(SYS_landlock_create_ruleset, &attr,
			   abi >= 6   ? sizeof(attr)
			   : abi >= 4 ? 16
				      : 8,
			   0);
	if (set >= 0)
		(void)syscall(SYS_landlock_restrict_self, set, 0);
}

struct program {
	struct sock_filter *p;
	unsigned short n;
};

static void put(struct program *p, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf)
{
	p->p[p->n++] = (struct sock_filter){code, jt, jf, k};
}

int confine_to_calls(const struct confine_calls *lists, size_t n, uint32_t other)
{
	/* Their third argument says what the memory is for. */
	static const uint16_t memory[] = {SYS_mmap, SYS_mprotect};
	const size_t prot = offsetof(struct seccomp_data, args) + 2 * sizeof(uint64_t);
	struct program p = {.n = 0};
	struct sock_fprog prog;
	size_t calls = 0;
	long r;

	for (size_t i = 0; i < n; i++)
		calls += lists[i].n;
	p.p = calloc(2 * calls + 5 * ARRAY_SIZE(memory) + 5, sizeof(*p.p));
	if (!p.p)
		return -ENOMEM;
	put(&p, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch), 0, 0);
	put(&p, BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
	put(&p, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
	/* A number of x32 is none of these. */
	put(&p, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), 0, 0);
	for (size_t i = 0; i < n; i++) {
		for (size_t j = 0; j < lists[i].n; j++) {
			put(&p, BPF_JMP | BPF_JEQ | BPF_K, lists[i].v[j], 0, 1);
			put(&p, BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(memory); i++) {
		put(&p, BPF_JMP | BPF_JEQ | BPF_K, memory[i], 0, 4);
		put(&p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)prot, 0, 0);
		put(&p, BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 1, 0);
		put(&p, BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
		put(&p, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
	}
	put(&p, BPF_RET | BPF_K, other, 0, 0);
	prog = (struct sock_fprog){.len = p.n, .filter = p.p};
	r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_LOG, &prog) < 0
		    ? -errno
		    : 0;
	free(p.p);
	return (int)r;
}
