/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/confine.h"
#include "base/sanitized.h"
#include "sandbox/sandbox_dir.h"
#include "ssh/ssh.h"

/* A connection with all its channels, windows full, has some 60 MiB; most of this is libraries. */
#define MEMORY_MAX (1u << 30)

static const uint16_t calls[] = {
	/* streams, and the loop they are on */
	SYS_read,
	SYS_write,
	SYS_recvfrom,
	SYS_sendto,
	SYS_recvmsg,
	SYS_close,
	SYS_shutdown,
	SYS_epoll_ctl,
	SYS_epoll_pwait,
	SYS_epoll_pwait2,
	SYS_ppoll,
	/* what libraries do with those */
	SYS_fcntl,
	SYS_getsockopt,
	SYS_setsockopt,
	SYS_getsockname,
	SYS_getpeername,
	/* memory, time, chance, the end */
	SYS_munmap,
	SYS_mremap,
	SYS_brk,
	SYS_madvise,
	SYS_futex,
	SYS_clock_gettime,
	SYS_gettimeofday,
	SYS_getrandom,
	SYS_getpid,
	SYS_gettid,
	SYS_rt_sigprocmask,
	SYS_rt_sigreturn,
	SYS_restart_syscall,
	SYS_exit_group,
#ifdef __x86_64__
	SYS_epoll_wait,
	SYS_poll,
	SYS_time,
#endif
};

int walls_up(void)
{
	const struct confine_calls list = {calls, ARRAY_SIZE(calls)};
	int r;

	/* The runtimes need what is taken away here. */
	if (SANITIZED)
		return 0;
	confine_limit(RLIMIT_NPROC, 0);
	confine_limit(RLIMIT_FSIZE, 0);
	confine_limit(RLIMIT_AS, MEMORY_MAX);
	confine_limit(RLIMIT_NOFILE, 2 * SSH_CHANNELS_MAX);
	r = confine_privileges();
	if (r < 0)
		return r;
	confine_names();
	/* Libraries try things that they can do without: a file of primes, a random device. */
	return confine_to_calls(&list, 1, SECCOMP_RET_ERRNO | EPERM);
}

bool agent_serve(int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = {0}, byte;
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c = (struct cmsghdr *)(void *)control;
	cleanup_close int agent = -1;

	if (recv(fd, &byte, 1, MSG_DONTWAIT) != 1)
		return false;
	agent = sandbox_socket_connect(SSH_FD_DIR, SANDBOX_AGENT_SOCKET, NULL);
	if (agent >= 0) {
		m.msg_control = control;
		m.msg_controllen = sizeof(control);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &agent, sizeof(int));
	}
	/* Who asks without taking the answers is none of ours. */
	return sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) == 1;
}

int agent_connect(int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 0;
	struct iovec iov = {&byte, 1};
	struct msghdr m = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	const struct cmsghdr *c;
	int agent;

	if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1 || recvmsg(fd, &m, MSG_CMSG_CLOEXEC) != 1)
		return -EPIPE;
	c = CMSG_FIRSTHDR(&m);
	if (!c || c->cmsg_type != SCM_RIGHTS)
		return -ECONNREFUSED;
	memcpy(&agent, CMSG_DATA(c), sizeof(int));
	return agent;
}
