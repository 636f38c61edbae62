/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/seccomp.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "base/confine.h"
#include "base/sanitized.h"
#include "dot/dot.h"

enum { MEMORY_MAX = 256 << 20, FILES_MAX = 64 };

static const uint16_t conn_calls[] = {
	/* its two streams */
	SYS_read,
	SYS_write,
	SYS_recvfrom,
	SYS_sendto,
	SYS_close,
	/* memory, time, chance, the end */
	SYS_munmap,
	SYS_mremap,
	SYS_brk,
	SYS_madvise,
	SYS_futex,
	SYS_clock_gettime,
	SYS_getrandom,
	SYS_getpid,
	SYS_gettid,
	SYS_rt_sigprocmask,
	SYS_rt_sigreturn,
	SYS_restart_syscall,
	SYS_exit_group,
	SYS_ppoll,
#ifdef __x86_64__
	SYS_poll,
#endif
};

/* Of the process that never sees a server's bytes: to begin others, which then give this up. */
static const uint16_t main_calls[] = {
	SYS_recvmsg, SYS_clone,	  SYS_set_robust_list, SYS_rseq,
	SYS_prctl,   SYS_seccomp, SYS_getppid,	       SYS_wait4,
};

int dot_walls(bool may_fork)
{
	const struct confine_calls lists[] = {{conn_calls, ARRAY_SIZE(conn_calls)},
					      {main_calls, ARRAY_SIZE(main_calls)}};
	int r;

	/* The runtimes need what is taken away here. */
	if (SANITIZED)
		return 0;
	if (may_fork) {
		confine_limit(RLIMIT_FSIZE, 0);
		confine_limit(RLIMIT_AS, MEMORY_MAX);
		confine_limit(RLIMIT_NOFILE, FILES_MAX);
		r = confine_privileges();
		if (r < 0)
			return r;
		confine_names();
	}
	/* Libraries try things that they can do without: a file of settings, a random device. */
	return confine_to_calls(lists, may_fork ? 2 : 1, SECCOMP_RET_ERRNO | EPERM);
}
