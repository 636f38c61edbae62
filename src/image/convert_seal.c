/* SPDX-License-Identifier: Apache-2.0 */
#include <linux/seccomp.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "base/confine.h"
#include "base/sanitized.h"
#include "image/convert.h"

/* Most of it address space: libraries, 128 MiB for a zstd window, the writer's table of files. */
#define MEMORY_MAX (512u << 20)

static const uint16_t common[] = {
	SYS_read,	  SYS_write,	       SYS_close,      SYS_munmap,	  SYS_mremap,
	SYS_brk,	  SYS_madvise,	       SYS_futex,      SYS_clock_gettime, SYS_getrandom,
	SYS_rt_sigreturn, SYS_restart_syscall, SYS_exit_group, SYS_sendto,	  SYS_recvfrom,
};
static const uint16_t to_files[] = {SYS_pread64, SYS_pwrite64, SYS_ftruncate, SYS_sync_file_range};

int convert_seal(bool writes, uint64_t file_max, struct err *err)
{
	const struct confine_calls calls[] = {
		{common, ARRAY_SIZE(common)},
		{to_files, writes ? ARRAY_SIZE(to_files) : 0},
	};
	int r;

	/* The runtimes need files, threads and half of the address space. */
	if (SANITIZED)
		return 0;
	confine_limit(RLIMIT_NPROC, 0);
	confine_limit(RLIMIT_NOFILE, 0);
	confine_limit(RLIMIT_AS, MEMORY_MAX);
	confine_limit(RLIMIT_FSIZE, writes ? file_max : 0);
	r = confine_privileges();
	if (r == 0)
		r = confine_to_calls(calls, ARRAY_SIZE(calls), SECCOMP_RET_KILL_PROCESS);
	if (r < 0) {
		err_set(err, r, "cannot confine msb-convert: %s", err_name(-r));
		return err_hint(err, "the host's kernel has to have seccomp filters");
	}
	return 0;
}
