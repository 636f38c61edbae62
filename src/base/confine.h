/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walls for a process that reads what strangers made and needs nothing but the descriptors it
 * holds. All of it is for ever, and for the calling thread and what it starts. A machine has walls
 * of its own (machine/jail).
 */
#ifndef BASE_CONFINE_H
#define BASE_CONFINE_H

#include <stddef.h>
#include <stdint.h>

/* Lower a limit of resources (RLIMIT_*); one that is lower already stays. */
void confine_limit(int what, uint64_t max);
/* No new privileges, no core, no debugger: before the next two. -errno. */
int confine_privileges(void);
/*
 * Nothing can be opened, made or removed by its name any more, no TCP connection made, no process
 * outside told anything: as far as the kernel's Landlock has that; without one, nothing happens.
 */
void confine_names(void);

struct confine_calls {
	const uint16_t *v; /* SYS_* */
	size_t n;
};
/*
 * Of system calls only these, and mmap() and mprotect() of memory that cannot be executed; @other
 * is the verdict on the rest (SECCOMP_RET_*). -errno.
 */
int confine_to_calls(const struct confine_calls *lists, size_t n, uint32_t other);

#endif
