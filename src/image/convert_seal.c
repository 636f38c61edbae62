/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/sanitized.h"
#include "image/convert.h"

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
#error "which architecture is this?"
#endif

/* Most of it address space: libraries, 128 MiB for a zstd window, the writer's table of files. */
#define MEMORY_MAX (512u << 20)

static const uint16_t common[] = {
	SYS_read,	  SYS_write,	       SYS_close,      SYS_munmap,	  SYS_mremap,
	SYS_brk,	  SYS_madvise,	       SYS_futex,      SYS_clock_gettime, SYS_getrandom,
	SYS_rt_sigreturn, SYS_restart_syscall, SYS_exit_group, SYS_sendto,	  SYS_recvfrom,
};
static const uint16_t to_files[] = {SYS_pread64, SYS_pwrite64, SYS_ftruncate, SYS_sync_file_range};
/* Never memory to execute: their third argument says. */
static const uint16_t memory[] = {SYS_mmap, SYS_mprotect};

struct program {
	struct sock_filter p[128];
	unsigned short n;
};

static void put(struct program *p, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf)
{
	p->p[p->n++] = (struct sock_filter){code, jt, jf, k};
}

static void allow(struct program *p, const uint16_t *calls, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		put(p, BPF_JMP | BPF_JEQ | BPF_K, calls[i], 0, 1);
		put(p, BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
	}
}

static int filter(bool writes)
{
	const size_t prot = offsetof(struct seccomp_data, args) + 2 * sizeof(uint64_t);
	struct program p = {.n = 0};
	struct sock_fprog prog = {.filter = p.p};

	put(&p, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch), 0, 0);
	put(&p, BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
	put(&p, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
	/* A number of x32 is none of these. */
	put(&p, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), 0, 0);
	allow(&p, common, ARRAY_SIZE(common));
	if (writes)
		allow(&p, to_files, ARRAY_SIZE(to_files));
	for (size_t i = 0; i < ARRAY_SIZE(memory); i++) {
		put(&p, BPF_JMP | BPF_JEQ | BPF_K, memory[i], 0, 4);
		put(&p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)prot, 0, 0);
		put(&p, BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 1, 0);
		put(&p, BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
		put(&p, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
	}
	put(&p, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
	prog.len = p.n;
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_LOG, &prog) < 0
		       ? -errno
		       : 0;
}

static void limit(int what, uint64_t max)
{
	struct rlimit l;

	/* Never more than there was; what it cannot be lowered to is a limit already. */
	if (getrlimit(what, &l) == 0) {
		l.rlim_max = MIN(l.rlim_max, (rlim_t)max);
		l.rlim_cur = MIN(l.rlim_cur, l.rlim_max);
		(void)setrlimit(what, &l);
	}
}

int convert_seal(bool writes, uint64_t file_max, struct err *err)
{
	int r;

	/* The runtimes need files, threads and half of the address space. */
	if (SANITIZED)
		return 0;
	limit(RLIMIT_CORE, 0);
	limit(RLIMIT_NPROC, 0);
	limit(RLIMIT_NOFILE, 0);
	limit(RLIMIT_AS, MEMORY_MAX);
	limit(RLIMIT_FSIZE, writes ? file_max : 0);
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_errno(err, "cannot confine msb-convert");
	r = filter(writes);
	if (r < 0) {
		err_set(err, r, "cannot confine msb-convert: %s", err_name(-r));
		return err_hint(err, "the host's kernel has to have seccomp filters");
	}
	return 0;
}
