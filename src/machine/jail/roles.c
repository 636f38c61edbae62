/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which system calls each role may make, and for what.
 *
 * To add one: find the role whose code makes it, put it beside its purpose, and test from inside
 * that the role still cannot do what it should not (tests/jail).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "machine/jail/jail_impl.h"

#define CALL(name)                                                                                 \
	{                                                                                          \
		.nr = SYS_##name                                                                   \
	}
#define CALL_IF(name, test_, arg_, value_)                                                         \
	{                                                                                          \
		.nr = SYS_##name, .test = JAIL_##test_, .arg = (arg_), .value = (value_)           \
	}
#define SET_OPTION(level, option) CALL_IF(setsockopt, PAIR, 2, (level) << 16 | (option))

/* Of every thread: memory (never executable), locks, time, its own end. */
#define CALLS_OF_ALL                                                                               \
	CALL(futex), CALL(read), CALL(write), CALL(close), CALL(clock_gettime),                    \
		CALL(clock_nanosleep), CALL(nanosleep), CALL(gettimeofday), CALL(brk),             \
		CALL(munmap), CALL(mremap), CALL(madvise), CALL_IF(mmap, NONE, 2, PROT_EXEC),      \
		CALL_IF(mprotect, NONE, 2, PROT_EXEC), CALL(getpid), CALL(gettid),                 \
		CALL(sched_yield), CALL(getrandom), CALL(membarrier), CALL(rt_sigprocmask),        \
		CALL(rt_sigreturn), CALL(restart_syscall), CALL(set_robust_list),                  \
		CALL(rseq), /* assert() and abort(): a clear end is better than a strange one. */  \
		CALL_IF(tgkill, SELF, 0, 0), CALL(exit), CALL(exit_group)

#define EPOLL CALL(epoll_ctl), CALL(epoll_pwait), CALL(epoll_pwait2)

/*
 * What a machine needs at no time, in QEMU neither. The others' lists say it again by not naming
 * it; this one is for what is spawned, and for the time until the engine runs.
 */
static const struct jail_call child_calls[] = {
	/* another view of the file system, or another's */
	CALL(mount),
	CALL(umount2),
	CALL(pivot_root),
	CALL(chroot),
	CALL(open_tree),
	CALL(move_mount),
	CALL(fsopen),
	CALL(fsconfig),
	CALL(fsmount),
	CALL(fspick),
	CALL(mount_setattr),
	CALL(name_to_handle_at),
	CALL(open_by_handle_at),
	CALL(mknodat),
	CALL(unshare),
	CALL(setns),
	CALL(quotactl),
	CALL(fanotify_init),
	CALL(acct),
	CALL(swapon),
	CALL(swapoff),
	CALL_IF(clone, SOME, 0,
		CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
			CLONE_NEWCGROUP | CLONE_NEWPID),
	/* Its flags are out of sight. The C library then does without. */
	{.nr = SYS_clone3, .verdict = SECCOMP_RET_ERRNO | ENOSYS},
	/* other processes */
	CALL(ptrace),
	CALL(process_vm_readv),
	CALL(process_vm_writev),
	CALL(process_madvise),
	CALL(kcmp),
	CALL(pidfd_getfd),
	CALL(kill),
	CALL(tkill),
	CALL(rt_sigqueueinfo),
	CALL(rt_tgsigqueueinfo),
	CALL_IF(pidfd_send_signal, DIFFERS, 1, SIGKILL),
	/* other rights */
	CALL(setuid),
	CALL(setgid),
	CALL(setreuid),
	CALL(setregid),
	CALL(setresuid),
	CALL(setresgid),
	CALL(setfsuid),
	CALL(setfsgid),
	CALL(setgroups),
	CALL(capset),
	CALL(add_key),
	CALL(request_key),
	CALL(keyctl),
	/* the machine itself */
	CALL(bpf),
	CALL(perf_event_open),
	CALL(userfaultfd),
	CALL(io_uring_setup),
	CALL(io_uring_enter),
	CALL(io_uring_register),
	CALL(init_module),
	CALL(finit_module),
	CALL(delete_module),
	CALL(kexec_load),
	CALL(reboot),
	CALL(syslog),
	CALL(vhangup),
	CALL(settimeofday),
	CALL(clock_settime),
	CALL(clock_adjtime),
	CALL(adjtimex),
	CALL(sethostname),
	CALL(setdomainname),
	CALL(personality),
#ifdef __x86_64__
	CALL(mknod),
	CALL(iopl),
	CALL(ioperm),
	CALL(modify_ldt),
	CALL(kexec_file_load),
#endif
	/* a terminal that it was never given, fed with what is then typed */
	CALL_IF(ioctl, EQUAL, 1, TIOCSTI),
	/* QEMU is given all its sockets. */
	CALL_IF(socket, DIFFERS, 0, AF_UNIX),
};

/* Queues: vectors between files or sockets and guest memory, eventfds, its loop. */
static const struct jail_call device_calls[] = {
	CALLS_OF_ALL,
	EPOLL,
	/* blk: the disks, opened long ago */
	CALL(preadv),
	CALL(pwritev),
	CALL(fdatasync),
	CALL(fallocate),
	/* balloon, rng: madvise and getrandom, which are of all */
	/* interrupts of the guest, where the engine is kvm */
	CALL_IF(ioctl, EQUAL, 1, KVM_SIGNAL_MSI),
	/* vsock: connections are socketpairs handed in */
	CALL(sendmsg),
	CALL(recvmsg),
	CALL(shutdown),
	/* the log, when it is slow */
	CALL(poll),
	/* exec.log, whose oldest file is emptied for the next */
	CALL(ftruncate),
#ifdef __x86_64__
	CALL(epoll_wait),
#endif
};

/*
 * The network: sockets to the world (net/host.c), and guest memory. Ports that lead in were bound
 * before. No files, of local sockets those that have no name, and of options those that it sets.
 */
static const struct jail_call net_calls[] = {
	CALLS_OF_ALL,
	EPOLL,
	CALL_IF(socket, EQUAL, 0, AF_INET),
	CALL_IF(socket, EQUAL, 0, AF_INET6),
	/* interrupts of the guest, where the engine is kvm */
	CALL_IF(ioctl, EQUAL, 1, KVM_SIGNAL_MSI),
	/* the guest's connections to the name service */
	CALL_IF(socketpair, EQUAL, 0, AF_UNIX),
	CALL(connect),
	CALL(accept4),
	CALL(sendmsg),
	CALL(recvmsg),
	CALL(recvfrom),
	CALL(shutdown),
	CALL(getsockname),
	CALL(getsockopt),
	SET_OPTION(IPPROTO_TCP, TCP_NODELAY),
	SET_OPTION(SOL_SOCKET, SO_LINGER),
	SET_OPTION(SOL_SOCKET, SO_OOBINLINE),
	SET_OPTION(SOL_SOCKET, SO_PEEK_OFF),
	SET_OPTION(IPPROTO_IP, IP_RECVERR),
	SET_OPTION(IPPROTO_IPV6, IPV6_RECVERR),
	/* the log, when it is slow */
	CALL(poll),
#ifdef __x86_64__
	CALL(epoll_wait),
#endif
};

/* The guest's CPU: KVM_RUN, and what its exits lead to: interrupts, the console, calls to workers. */
static const struct jail_call vcpu_calls[] = {
	CALLS_OF_ALL,
	CALL_IF(ioctl, EQUAL, 1, KVM_RUN),
	CALL_IF(ioctl, EQUAL, 1, KVM_SIGNAL_MSI),
	/* where the guest was, for the message when it crashes */
	CALL_IF(ioctl, EQUAL, 1, KVM_GET_REGS),
	CALL_IF(ioctl, EQUAL, 1, KVM_GET_SREGS),
};

/* The main loop. */
static const struct jail_call control_calls[] = {
	CALLS_OF_ALL,
	EPOLL,
	/* the relay's clients and their connections into the guest; vhost-user, QMP */
	CALL(accept4),
	CALL_IF(socketpair, EQUAL, 0, AF_UNIX),
	CALL_IF(getsockopt, EQUAL, 2, SO_PEERCRED),
	CALL(sendto),
	CALL(recvfrom),
	CALL(sendmsg),
	CALL(recvmsg),
	CALL(shutdown),
	CALL(poll),
	CALL(ppoll),
	/* and no F_DUPFD */
	CALL_IF(fcntl, EQUAL, 1, F_GETFL),
	CALL_IF(fcntl, EQUAL, 1, F_SETFL),
	CALL_IF(fcntl, EQUAL, 1, F_GETFD),
	CALL_IF(fcntl, EQUAL, 1, F_SETFD),
	/* devices: a queue's eventfds come with messages or are made on demand */
	CALL(eventfd2),
	CALL(fstat),
	CALL(newfstatat),
	CALL(lseek),
	/* statistics, and who asks for them */
	CALL(mincore),
	CALL_IF(getsockopt, EQUAL, 1, SOL_SOCKET),
	/* kernel.log: see JAIL_PARENT_FD for what it may not be opened beside */
	CALL_IF(openat, DIFFERS, 0, JAIL_PARENT_FD),
	CALL(renameat),
	CALL(renameat2),
	/* the sandbox's directory, when nobody else is left to remove it */
	CALL(getdents64),
	CALL(unlinkat),
	/* disk images, when they are closed: what their tables still lack (virtio/qcow2_write.c) */
	CALL(preadv),
	CALL(pwritev),
	CALL(fdatasync),
	/* the engine: QEMU's end, the vCPUs' pause, registers and kick */
	CALL_IF(pidfd_send_signal, EQUAL, 1, SIGKILL),
	CALL(waitid),
	CALL(wait4),
	CALL_IF(ioctl, KIND, 1, KVMIO),
#ifdef __x86_64__
	CALL(epoll_wait),
	CALL(open),
	CALL(rename),
	CALL(unlink),
	CALL(rmdir),
#endif
};

/* Sockets of the host: connections to them, handed on; its own are removed at the end. */
static const struct jail_call dialer_calls[] = {
	CALLS_OF_ALL,	CALL_IF(socket, EQUAL, 0, AF_UNIX),
	CALL(connect),	CALL(sendmsg),
	CALL(recvfrom), CALL(newfstatat),
	CALL(unlinkat),
#ifdef __x86_64__
	CALL(lstat),	CALL(unlink),
#endif
};

#define LIST(calls_, matched_, other_)                                                             \
	{                                                                                          \
		.calls = calls_, .n = ARRAY_SIZE(calls_), .matched = matched_, .other = other_     \
	}

const struct jail_list jail_lists[JAIL_ROLES] = {
	[JAIL_CHILD] = LIST(child_calls, SECCOMP_RET_ERRNO | EPERM, SECCOMP_RET_ALLOW),
	[JAIL_DEVICE] = LIST(device_calls, SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS),
	[JAIL_NET] = LIST(net_calls, SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS),
	[JAIL_VCPU] = LIST(vcpu_calls, SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS),
	[JAIL_DIALER] = LIST(dialer_calls, SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS),
	[JAIL_CONTROL] = LIST(control_calls, SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS),
};
