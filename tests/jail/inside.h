/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests of the jail share: a child process that goes in and tries.
 *
 * A test's function runs inside, as the user the test asks for; it says what was wrong with CHECK()
 * and leaves by returning. The parent gets the status. A wall that this host does not have is
 * reported with lacks(), and what depends on it is left out.
 */
#ifndef TESTS_JAIL_INSIDE_H
#define TESTS_JAIL_INSIDE_H

#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "base/str.h"
#include "machine/jail/jail.h"
#include "machine/jail/jail_impl.h"

#define NOBODY 65534u

struct inside {
	char top[128], dir[160], logs[192], kernel[160], disk[192];
	struct jail jail;
	struct worker worker; /* a device's thread, with @disk open */
	struct worker net;    /* the network's */
	int diskfd;
	pid_t outside; /* the test program */
	int failures;
};

typedef void inside_fn(struct inside *in);

#define CHECK(what)                                                                                \
	do {                                                                                       \
		if (!(what)) {                                                                     \
			fprintf(stderr, "%s:%d: not so inside: %s (%s)\n", __func__, __LINE__,     \
				#what, strerror(errno));                                           \
			in->failures++;                                                            \
		}                                                                                  \
	} while (0)

/* The call fails with that code. */
#define REFUSED(call, code)                                                                        \
	do {                                                                                       \
		errno = 0;                                                                         \
		CHECK((call) < 0 && errno == (code));                                              \
	} while (0)

static inline bool lacks(struct inside *in, enum jail_step s)
{
	if (in->jail.step[s].held)
		return false;
	fprintf(stderr, "left out, no %s: %s\n", jail_step_name(s), in->jail.step[s].text);
	return true;
}

static inline int touch(const char *path, const char *text)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	return fd < 0 ? -errno : io_write_full(fd, text, strlen(text));
}

/* The caller's part: a sandbox's directory beside another, a kernel, a disk. */
static inline void inside_furnish(struct inside *in, const char *top)
{
	char path[192];

	snprintf(in->top, sizeof(in->top), "%s", top);
	snprintf(in->dir, sizeof(in->dir), "%s/box", top);
	snprintf(in->logs, sizeof(in->logs), "%s/logs", in->dir);
	snprintf(in->kernel, sizeof(in->kernel), "%s/vmlinux", top);
	snprintf(in->disk, sizeof(in->disk), "%s/disk", in->dir);
	CHECK(mkdir(in->dir, 0700) == 0 && mkdir(in->logs, 0700) == 0);
	snprintf(path, sizeof(path), "%s/other", top);
	CHECK(mkdir(path, 0700) == 0);
	strcat(path, "/secret");
	CHECK(touch(path, "s") == 0 && touch(in->kernel, "kernel") == 0);
	CHECK(touch(in->disk, "disk") == 0 && truncate(in->disk, 1 << 20) == 0);
}

static inline void inside_begin(struct inside *in, const char *engine, bool remove_dir)
{
	const struct jail_params p = {
		.on = true,
		.dir = in->dir,
		.remove_dir = remove_dir,
		.kernel = in->kernel,
		.engine = engine,
	};

	in->jail = (struct jail)JAIL_INIT;
	jail_begin(&in->jail, &p);
	in->diskfd = open(in->disk, O_RDWR | O_CLOEXEC);
	CHECK(in->diskfd >= 0);
	CHECK(worker_start(&in->worker, "disk", NULL) == 0);
	CHECK(worker_start(&in->net, "net", NULL) == 0);
}

static inline void inside_close(struct inside *in)
{
	struct err err = ERR_INIT;
	struct jail_names names = {0};
	const struct jail_files files = {.initramfs = io_memfd("initramfs", "init", 4, NULL),
					 .memory = 64 << 20};

	CHECK(jail_close(&in->jail, &files, 2 << 20, &names, &err) == 0);
	if (in->jail.rooted && str_eq(in->jail.params.engine, "qemu")) {
		struct stat st;

		CHECK(names.initramfs && access(names.initramfs, R_OK) == 0);
		CHECK(names.memory && access(names.memory, R_OK | W_OK) == 0);
		CHECK(stat(names.memory, &st) == 0 && st.st_size == 64 << 20 && st.st_blocks == 0);
	}
	assert_int_equal(jail_loop(&in->jail, in->worker.loop, JAIL_DEVICE), 0);
	assert_int_equal(jail_loop(&in->jail, in->net.loop, JAIL_NET), 0);
	jail_wait(&in->jail);
	close(files.initramfs);
}

/* The usual way in, up to just before an engine would start. */
static inline void inside_enter(struct inside *in, const char *engine)
{
	inside_begin(in, engine, false);
	inside_close(in);
}

/* A filter that refuses a call with @code, as a host's does. Children inherit it. */
static inline void inside_refuse(struct inside *in, int nr, int code)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)code),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog p = {ARRAY_SIZE(f), f};

	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p) == 0);
}

static inline void child(const char *top, bool nobody, inside_fn *fn)
{
	static struct inside it;
	struct inside *in = &it;

	in->outside = getppid();
	if (nobody && geteuid() == 0) {
		CHECK(chown(top, NOBODY, NOBODY) == 0);
		CHECK(setgroups(0, NULL) == 0);
		CHECK(setresgid(NOBODY, NOBODY, NOBODY) == 0);
		CHECK(setresuid(NOBODY, NOBODY, NOBODY) == 0);
		/* The change of user made it one that /proc belongs to root for. */
		CHECK(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
	}
	inside_furnish(in, top);
	fn(in);
	/* Nothing of exit() is needed, and not all of it is allowed. */
	_exit(in->failures ? 1 : 0);
}

/* Run @fn in a process of its own; its wait status. */
static inline int inside_run(void **state, bool nobody, inside_fn *fn)
{
	char top[128];
	pid_t pid;
	int status = -1;

	snprintf(top, sizeof(top), "%s/XXXXXX", (const char *)*state);
	assert_non_null(mkdtemp(top));
	assert_int_equal(chmod(*state, 0755), 0);
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		child(top, nobody, fn);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

/* As the user of the test, and if that is root as nobody as well. */
static inline void inside_check(void **state, inside_fn *fn)
{
	if (SANITIZED)
		skip();
	for (int nobody = 0; nobody <= (geteuid() == 0); nobody++) {
		int status = inside_run(state, nobody, fn);

		if (status)
			fprintf(stderr, "as %s: status %#x\n", nobody ? "nobody" : "the caller",
				status);
		assert_int_equal(status, 0);
	}
}

#endif
