/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into msb: makes the Nth change to a file fail, or ends the process there.
 *
 *	FAULT_AT=N		which change; 0: none
 *	FAULT=ENOSPC|EIO|KILL	what happens
 *	FAULT_FD=FD		one byte is written there when it has happened
 *	FAULT_LOG=FD		a line for each change: which call, on what
 *
 * Changes are what the program and SQLite do to regular files and directories. Those of all
 * threads are counted together.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_ulong count;

static unsigned long number(const char *name)
{
	const char *v = getenv(name);

	return v ? strtoul(v, NULL, 10) : 0;
}

/* Is this the one? Does not return when the process is to end. */
static bool fault(void)
{
	static const char done = '!';
	const char *kind = getenv("FAULT");
	unsigned long at = number("FAULT_AT"), fd = number("FAULT_FD");

	if (!at || !kind || atomic_fetch_add(&count, 1) + 1 != at)
		return false;
	if (fd)
		syscall(SYS_write, (int)fd, &done, 1);
	if (strcmp(kind, "KILL") == 0)
		raise(SIGKILL);
	errno = strcmp(kind, "EIO") == 0 ? EIO : ENOSPC;
	return true;
}

static void note(const char *call, const char *path)
{
	unsigned long fd = number("FAULT_LOG");
	char line[512];
	int n = snprintf(line, sizeof(line), "%s %s\n", call, path);

	if (fd && n < (int)sizeof(line))
		syscall(SYS_write, (int)fd, line, n);
}

static bool fault_fd(const char *call, int fd)
{
	int saved = errno;
	char link[32], path[400];
	struct stat st;
	bool file = fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode));
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = file ? readlink(link, path, sizeof(path) - 1) : -1;
	if (n >= 0) {
		path[n] = '\0';
		note(call, path);
	}
	errno = saved;
	return file && fault();
}

static bool fault_path(const char *call, const char *path)
{
	int saved = errno;

	note(call, path);
	errno = saved;
	return fault();
}

#define REAL(name)                                                                                 \
	static __typeof__(&name) real;                                                             \
	if (!real)                                                                                 \
	*(void **)&real = dlsym(RTLD_NEXT, #name)

#define EXPORT __attribute__((visibility("default")))

#define ON_FD(type, name, params, args)                                                            \
	EXPORT type name params                                                                    \
	{                                                                                          \
		REAL(name);                                                                        \
		return fault_fd(#name, fd) ? -1 : real args;                                       \
	}
#define ON_PATH(type, name, path, params, args)                                                    \
	EXPORT type name params                                                                    \
	{                                                                                          \
		REAL(name);                                                                        \
		return fault_path(#name, path) ? -1 : real args;                                   \
	}

ON_FD(ssize_t, write, (int fd, const void *p, size_t n), (fd, p, n))
ON_FD(ssize_t, pwrite, (int fd, const void *p, size_t n, off_t at), (fd, p, n, at))
ON_FD(ssize_t, pwrite64, (int fd, const void *p, size_t n, off64_t at), (fd, p, n, at))
ON_FD(int, fsync, (int fd), (fd))
ON_FD(int, fdatasync, (int fd), (fd))
ON_FD(int, ftruncate, (int fd, off_t n), (fd, n))
ON_FD(int, ftruncate64, (int fd, off64_t n), (fd, n))
ON_FD(int, fallocate, (int fd, int mode, off_t at, off_t n), (fd, mode, at, n))
ON_FD(int, fallocate64, (int fd, int mode, off64_t at, off64_t n), (fd, mode, at, n))
ON_FD(int, fchmod, (int fd, mode_t mode), (fd, mode))
ON_PATH(int, rename, b, (const char *a, const char *b), (a, b))
ON_PATH(int, renameat, b, (int d, const char *a, int e, const char *b), (d, a, e, b))
ON_PATH(int, linkat, b, (int d, const char *a, int e, const char *b, int f), (d, a, e, b, f))
ON_PATH(int, unlink, a, (const char *a), (a))
ON_PATH(int, unlinkat, a, (int d, const char *a, int f), (d, a, f))
ON_PATH(int, mkdir, a, (const char *a, mode_t m), (a, m))
ON_PATH(int, mkdirat, a, (int d, const char *a, mode_t m), (d, a, m))
