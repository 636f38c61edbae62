/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything in the child runs on borrowed memory. The C library's setuid() family tells all
 * threads of "the process", which here would be ours, so ids, groups and limits are set by bare
 * system calls. Nothing here allocates or takes a lock.
 */
#include "spawn.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "rlimits.h"

enum { CHILD_STACK = 64 << 10 };

/* Where the child builds file names and keeps its stack: one spawn at a time. */
static char exec_path[PATH_MAX];
static char child_stack[CHILD_STACK] __attribute__((aligned(16)));

static int fail(struct spawn *s, const char *stage, enum exec_fail kind)
{
	s->error = errno ? errno : EIO;
	s->stage = stage;
	s->kind = kind;
	return 127;
}

/*
 * What a command of the restricted profile may still do as root: what containers may, but without
 * making devices.
 */
#define CAP(x) (1ull << CAP_##x)
static const uint64_t caps_kept = CAP(CHOWN) | CAP(DAC_OVERRIDE) | CAP(FOWNER) | CAP(FSETID) |
				  CAP(KILL) | CAP(SETGID) | CAP(SETUID) | CAP(SETPCAP) |
				  CAP(SETFCAP) | CAP(NET_BIND_SERVICE) | CAP(NET_RAW) |
				  CAP(SYS_CHROOT) | CAP(AUDIT_WRITE);

static int drop_privileges(struct spawn *s)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[2];

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return fail(s, "no_new_privs", EXEC_USER_SETUP_FAILED);
	/* Up to the last that this kernel knows. */
	for (unsigned long cap = 0; cap < 64; cap++) {
		if (caps_kept >> cap & 1)
			continue;
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
			if (errno == EINVAL && cap > CAP_AUDIT_WRITE)
				break;
			return fail(s, "capabilities", EXEC_USER_SETUP_FAILED);
		}
	}
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 ||
	    syscall(SYS_capget, &head, caps) < 0)
		return fail(s, "capabilities", EXEC_USER_SETUP_FAILED);
	for (int i = 0; i < 2; i++) {
		uint32_t kept = (uint32_t)(caps_kept >> (32 * i));

		caps[i].effective &= kept;
		caps[i].permitted &= kept;
		caps[i].inheritable = 0;
	}
	if (syscall(SYS_capset, &head, caps) < 0)
		return fail(s, "capabilities", EXEC_USER_SETUP_FAILED);
	return 0;
}

static int become(struct spawn *s)
{
	const struct user *u = &s->user;

	/* Nothing to change, and nothing that would need the right to. */
	if (u->uid == getuid() && u->gid == getgid() && !u->ngroups && u->uid)
		return 0;
	if (syscall(SYS_setgroups, u->ngroups, u->groups) < 0)
		return fail(s, "setgroups", EXEC_USER_SETUP_FAILED);
	if (syscall(SYS_setresgid, u->gid, u->gid, u->gid) < 0)
		return fail(s, "setgid", EXEC_USER_SETUP_FAILED);
	if (syscall(SYS_setresuid, u->uid, u->uid, u->uid) < 0)
		return fail(s, "setuid", EXEC_USER_SETUP_FAILED);
	return 0;
}

static enum exec_fail exec_kind(int error)
{
	switch (error) {
	case ENOENT:
	case ENOTDIR:
		return EXEC_NOT_FOUND;
	case EACCES:
	case EPERM:
		return EXEC_PERMISSION_DENIED;
	case ENOEXEC:
	case EISDIR:
	case ETXTBSY:
	case ELIBBAD:
		return EXEC_NOT_EXECUTABLE;
	case E2BIG:
	case ELOOP:
	case ENAMETOOLONG:
	case EFAULT:
		return EXEC_BAD_ARGS;
	case EMFILE:
	case ENFILE:
	case EAGAIN:
		return EXEC_RESOURCE_LIMIT;
	case ENOMEM:
		return EXEC_OUT_OF_MEMORY;
	default:
		return EXEC_OTHER;
	}
}

static int fail_exec(struct spawn *s, const char *path, int error)
{
	struct stat st;

	errno = error;
	fail(s, "exec", exec_kind(error));
	if (error == EACCES && !stat(path, &st) && S_ISDIR(st.st_mode)) {
		s->kind = EXEC_NOT_EXECUTABLE;
		s->detail = "it is a directory";
	} else if (error == ENOENT && !access(path, F_OK)) {
		s->detail = "its interpreter is missing";
	}
	return 127;
}

static int exec_program(struct spawn *s)
{
	const char *p = s->path, *end;
	size_t cmd_len = strlen(s->cmd);
	int error = ENOENT;

	if (!cmd_len || strchr(s->cmd, '/')) {
		execve(s->cmd, s->argv, s->envp);
		return fail_exec(s, s->cmd, errno);
	}
	for (;; p = end + 1) {
		size_t n;

		end = strchrnul(p, ':');
		n = (size_t)(end - p);
		if (n + 1 + cmd_len + 1 <= sizeof(exec_path)) {
			memcpy(exec_path, p, n);
			if (n)
				exec_path[n++] = '/';
			memcpy(exec_path + n, s->cmd, cmd_len + 1);
			execve(exec_path, s->argv, s->envp);
			if (errno == EACCES || errno == EPERM)
				error = errno; /* a later directory may have one that works */
			else if (errno != ENOENT && errno != ENOTDIR)
				return fail_exec(s, exec_path, errno);
			else if (errno == ENOENT && !access(exec_path, F_OK))
				return fail_exec(s, exec_path, ENOENT);
		}
		if (!*end)
			break;
	}
	return fail_exec(s, s->cmd, error);
}

static int set_limits(struct spawn *s, const struct wire_list *limits)
{
	const struct exec_rlimit *l = limits->v;

	for (size_t i = 0; i < limits->n; i++) {
		if (rlimit_set(&l[i]) == 0)
			continue;
		s->detail = l[i].resource;
		return fail(s, "rlimit", EXEC_RESOURCE_LIMIT);
	}
	return 0;
}

static int child(void *arg)
{
	struct spawn *s = arg;
	struct sigaction dfl = {.sa_handler = SIG_DFL};
	sigset_t none;

	sigaction(SIGPIPE, &dfl, NULL);
	setsid();
	if (s->tty && ioctl(s->stdio[0], TIOCSCTTY, 0) < 0)
		return fail(s, "controlling terminal", EXEC_PTY_SETUP_FAILED);
	for (int i = 0; i < 3; i++) {
		if (dup2(s->stdio[i], i) < 0)
			return fail(s, "stdio", EXEC_OTHER);
	}
	rlimit_default_files();
	if (set_limits(s, s->sandbox_rlimits) || set_limits(s, s->rlimits))
		return 127;
	if (s->restricted && drop_privileges(s))
		return 127;
	if (become(s))
		return 127;
	if (chdir(s->cwd) < 0)
		return fail(s, "chdir", EXEC_BAD_CWD);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	return exec_program(s);
}

#ifdef __x86_64__
/* clone3() on a stack of the child's own; the C libraries do not offer it. */
static long clone_child(struct clone_args *a, size_t size, int (*fn)(void *), void *arg)
{
	register int (*r8)(void *) __asm__("r8") = fn;
	register void *r9 __asm__("r9") = arg;
	long ret;

	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "mov %%r9, %%rdi\n\t"
			 "call *%%r8\n\t"
			 "mov %%eax, %%edi\n\t"
			 "mov %[exit], %%eax\n\t"
			 "syscall\n\t"
			 "hlt\n\t"
			 "1:"
			 : "=a"(ret)
			 : "0"((long)SYS_clone3), "D"(a), "S"(size), "r"(r8),
			   "r"(r9), [exit] "i"(SYS_exit)
			 : "rcx", "r11", "memory", "cc");
	return ret;
}

static long start(struct spawn *s)
{
	struct clone_args a = {
		.flags = CLONE_VM | CLONE_VFORK,
		.exit_signal = SIGCHLD,
		.stack = (uintptr_t)child_stack,
		.stack_size = sizeof(child_stack),
	};

	if (s->cgroup_fd >= 0) {
		a.flags |= CLONE_INTO_CGROUP;
		a.cgroup = (uint64_t)s->cgroup_fd;
	}
	return clone_child(&a, sizeof(a), child, s);
}
#else
static long start(struct spawn *s)
{
	int pid = clone(child, child_stack + sizeof(child_stack), CLONE_VM | CLONE_VFORK | SIGCHLD,
			s);

	return pid < 0 ? -errno : pid;
}
#endif

pid_t spawn_run(struct spawn *s)
{
	long pid;

	s->error = 0;
	s->detail = NULL;
	pid = start(s);
	if (pid < 0) {
		errno = (int)-pid;
		fail(s, "fork", exec_kind((int)-pid));
		return (pid_t)pid;
	}
	if (s->error) {
		/* It never became a program: nobody else may see it. */
		while (waitpid((pid_t)pid, NULL, 0) < 0 && errno == EINTR)
			;
		return -s->error;
	}
	return (pid_t)pid;
}

const char *errno_name(int error)
{
	static const struct {
		int error;
		const char *name;
	} names[] = {
#define E(x) {x, #x}
		E(E2BIG),   E(EACCES), E(EAGAIN),	E(EBADF),  E(EBUSY),   E(EEXIST),
		E(EFAULT),  E(EINTR),  E(EINVAL),	E(EIO),	   E(EISDIR),  E(ELIBBAD),
		E(ELOOP),   E(EMFILE), E(ENAMETOOLONG), E(ENFILE), E(ENODEV),  E(ENOENT),
		E(ENOEXEC), E(ENOMEM), E(ENOSPC),	E(ENOSYS), E(ENOTDIR), E(ENOTTY),
		E(ENXIO),   E(EPERM),  E(EPIPE),	E(EROFS),  E(ETXTBSY),
#undef E
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (names[i].error == error)
			return names[i].name;
	}
	return NULL;
}
