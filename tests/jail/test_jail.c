/* SPDX-License-Identifier: Apache-2.0 */
/* The jail's walls, each tried from inside, as the caller and as nobody; and what works there. */
#include "jail/inside.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/uio.h>

#include "base/proc.h"
#include "machine/console.h"
#include "machine/relay.h"
#include "machine/vm_config.h"

/* ---- privileges ---- */

static void privileges(struct inside *in)
{
	struct rlimit l;

	CHECK(setenv("SECRET_TOKEN", "x", 1) == 0 && setenv("MSB_QEMU_ARGS", "-d int", 1) == 0);
	CHECK(setenv("MSB_QEMU", "/usr/bin/../bin/env", 1) == 0);
	inside_begin(in, "qemu", false);
	CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
	CHECK(!getenv("SECRET_TOKEN") && !getenv("PATH") && !getenv("HOME"));
	CHECK(str_eq(getenv("MSB_QEMU_ARGS"), "-d int"));
	CHECK(!strstr(getenv("MSB_QEMU"), ".."));
	CHECK(getrlimit(RLIMIT_CORE, &l) == 0 && l.rlim_max == 0);
	CHECK(getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_max <= 16384 && l.rlim_cur >= 1024);
	CHECK(getrlimit(RLIMIT_NPROC, &l) == 0 && l.rlim_max <= 4096);
	CHECK(umask(077) == 077);
	inside_close(in);
	CHECK(getrlimit(RLIMIT_FSIZE, &l) == 0 && l.rlim_max == 2 << 20);
	REFUSED(pwrite(in->diskfd, "x", 1, 3 << 20), EFBIG);
	l.rlim_max = l.rlim_cur = RLIM_INFINITY;
	REFUSED(setrlimit(RLIMIT_FSIZE, &l), EPERM);
	REFUSED(setrlimit(RLIMIT_CORE, &l), EPERM);
}

static void test_privileges(void **state)
{
	inside_check(state, privileges);
}

/* ---- files ---- */

static void no_file_but_ours(struct inside *in)
{
	char other[192], path[256];

	snprintf(other, sizeof(other), "%s/other/secret", in->top);
	CHECK(open("/etc/passwd", O_RDONLY) < 0);
	CHECK(open("/../../etc/passwd", O_RDONLY) < 0);
	CHECK(open(other, O_RDONLY) < 0);
	CHECK(open("/proc/self/mem", O_RDWR) < 0);
	CHECK(open("/proc/1/environ", O_RDONLY) < 0);
	CHECK(open("/dev/mem", O_RDONLY) < 0);
	CHECK(open(in->kernel, O_WRONLY) < 0);
	CHECK(open(in->disk, O_RDWR) < 0); /* held already, and in no need of a name */
	snprintf(path, sizeof(path), "%s/new", in->dir);
	CHECK(open(path, O_WRONLY | O_CREAT, 0600) < 0);
	snprintf(path, sizeof(path), "%s/new", in->top);
	CHECK(open(path, O_WRONLY | O_CREAT, 0600) < 0);
	CHECK(open("/new", O_WRONLY | O_CREAT, 0600) < 0);
	CHECK(open("/usr/new", O_WRONLY | O_CREAT, 0600) < 0);
	CHECK(mkdir("/new", 0700) < 0);
	CHECK(unlink(in->kernel) < 0);
	CHECK(symlink("/etc/passwd", "/new") < 0);
	snprintf(path, sizeof(path), "%s/fifo", in->logs);
	CHECK(mkfifo(path, 0600) < 0);
	/* but: */
	CHECK(open(in->kernel, O_RDONLY) >= 0);
	snprintf(path, sizeof(path), "%s/kernel.log", in->logs);
	CHECK(touch(path, "text") == 0);
	strcpy(other, path);
	strcat(path, ".1");
	CHECK(rename(other, path) == 0 && access(path, R_OK) == 0);
}

static void files_qemu(struct inside *in)
{
	inside_enter(in, "qemu");
	if (lacks(in, JAIL_ROOT) || lacks(in, JAIL_LANDLOCK))
		return;
	no_file_but_ours(in);
	REFUSED(open("/etc/passwd", O_RDONLY), ENOENT);
	REFUSED(open("/proc/self/status", O_RDONLY), ENOENT);
	REFUSED(open("/usr/new", O_WRONLY | O_CREAT, 0600), EROFS);
	CHECK(open("/usr/bin/env", O_RDONLY) >= 0);
	CHECK(open("/dev/null", O_RDWR) >= 0);
}

static void files_kvm(struct inside *in)
{
	inside_enter(in, "kvm");
	if (lacks(in, JAIL_ROOT))
		return;
	no_file_but_ours(in);
	REFUSED(open("/usr/bin/env", O_RDONLY), ENOENT);
	REFUSED(open("/dev/null", O_RDWR), ENOENT);
}

/* A QEMU of one's own, installed in a folder that the sandbox is in as well. */
static void files_own_qemu(struct inside *in)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/bin", in->top);
	CHECK(mkdir(path, 0755) == 0);
	strcat(path, "/qemu");
	CHECK(touch(path, "#!/bin/sh\n") == 0 && setenv("MSB_QEMU", path, 1) == 0);
	inside_enter(in, "qemu");
	if (lacks(in, JAIL_ROOT))
		return;
	CHECK(open(path, O_RDONLY) >= 0);
	CHECK(open(path, O_WRONLY) < 0);
	CHECK(open(in->kernel, O_RDONLY) >= 0);
	CHECK(open(in->disk, O_RDWR) < 0);
	snprintf(path, sizeof(path), "%s/kernel.log", in->logs);
	CHECK(touch(path, "text") == 0);
}

static void test_files(void **state)
{
	inside_check(state, files_own_qemu);
	inside_check(state, files_qemu);
	inside_check(state, files_kvm);
}

/* What is kept of the directory above leads to no other sandbox. */
static void parent(struct inside *in)
{
	inside_begin(in, "qemu", true);
	inside_close(in);
	if (lacks(in, JAIL_ROOT))
		return;
	CHECK(in->jail.dir_parent == JAIL_PARENT_FD);
	REFUSED(openat(JAIL_PARENT_FD, "../../etc/passwd", O_RDONLY), ENOENT);
	REFUSED(openat(JAIL_PARENT_FD, "../../../../../etc/passwd", O_RDONLY), ENOENT);
	if (lacks(in, JAIL_LANDLOCK))
		return;
	REFUSED(openat(JAIL_PARENT_FD, "other/secret", O_RDONLY), EACCES);
	REFUSED(openat(JAIL_PARENT_FD, "new", O_WRONLY | O_CREAT, 0600), EACCES);
	REFUSED(unlinkat(JAIL_PARENT_FD, "other/secret", 0), EACCES);
	REFUSED(renameat(JAIL_PARENT_FD, "other", JAIL_PARENT_FD, "o"), EACCES);
}

static void test_parent(void **state)
{
	inside_check(state, parent);
}

static void mounting(struct inside *in)
{
	inside_enter(in, "qemu");
	CHECK(mount("x", in->logs, "tmpfs", 0, NULL) < 0);
	CHECK(mount(NULL, "/usr", NULL, MS_REMOUNT | MS_BIND, NULL) < 0);
	CHECK(umount2("/usr", MNT_DETACH) < 0);
	CHECK(unshare(CLONE_NEWUSER) < 0);
	CHECK(unshare(CLONE_NEWNS) < 0);
	CHECK(chroot(in->logs) < 0);
	CHECK(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0) < 0);
	if (!lacks(in, JAIL_SECCOMP))
		REFUSED(syscall(SYS_clone3, NULL, 0), ENOSYS);
}

static void test_mounting(void **state)
{
	inside_check(state, mounting);
}

/* ---- network ---- */

static int listener(uint16_t *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 1) < 0 ||
	    getsockname(fd, (struct sockaddr *)&a, &n) < 0)
		return -1;
	*port = ntohs(a.sin_port);
	return fd;
}

static int dial_loopback(uint16_t port)
{
	const struct sockaddr_in a = {.sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				      .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return fd < 0 ? -1 : connect(fd, (const struct sockaddr *)&a, sizeof(a));
}

struct dialled {
	uint16_t port;
	int tcp;
};

/* By the thread whose work it is. */
static void dial_from_net(void *arg)
{
	struct dialled *d = arg;

	d->tcp = dial_loopback(d->port);
}

static void network(struct inside *in)
{
	struct dialled from_net = {.tcp = -1};
	uint16_t port = 0;
	int fd = listener(&port);

	CHECK(fd >= 0 && dial_loopback(port) == 0);
	inside_begin(in, "qemu", false);
	inside_close(in);
	CHECK(dial_loopback(port) < 0);
	from_net.port = port;
	loop_call(in->net.loop, dial_from_net, &from_net);
	CHECK(from_net.tcp == 0);
	if (!lacks(in, JAIL_SECCOMP)) {
		REFUSED(socket(AF_INET, SOCK_STREAM, 0), EPERM);
		REFUSED(socket(AF_NETLINK, SOCK_RAW, 0), EPERM);
		REFUSED(socket(AF_PACKET, SOCK_RAW, 0), EPERM);
		REFUSED(socket(AF_VSOCK, SOCK_STREAM, 0), EPERM);
	}
	CHECK(socket(AF_UNIX, SOCK_STREAM, 0) >= 0);
}

static void test_network(void **state)
{
	inside_check(state, network);
}

/* ---- other processes ---- */

static void processes(struct inside *in)
{
	struct iovec v = {in, 1};

	inside_enter(in, "qemu");
	if (!lacks(in, JAIL_SECCOMP)) {
		REFUSED(kill(in->outside, 0), EPERM);
		REFUSED(ptrace(PTRACE_ATTACH, in->outside, 0, 0), EPERM);
		REFUSED(process_vm_readv(in->outside, &v, 1, &v, 1, 0), EPERM);
	}
	if (!lacks(in, JAIL_LANDLOCK) && strstr(in->jail.step[JAIL_LANDLOCK].text, "signals"))
		REFUSED(syscall(SYS_tgkill, in->outside, in->outside, 0), EPERM);
}

/* A child, as QEMU is: it sees no process but itself, and its parent's pidfd rules it. */
static void children(struct inside *in)
{
	static const char *const argv[] = {
		"sh",
		"-c",
		"test $$ = 1 && ! test -e /proc/self && ! test -e /etc/passwd && "
		"! (echo > /usr/x) 2> /dev/null && test -r /initramfs && exec sleep 1000",
		NULL,
	};
	static const char *const env[] = {"PATH=/usr/bin:/bin", NULL};
	struct proc_spec spec = {.path = "sh", .argv = argv, .envp = env, .die_with_parent = true};
	struct proc p = PROC_INIT;
	struct err err = ERR_INIT;

	inside_enter(in, "qemu");
	if (lacks(in, JAIL_NAMESPACES) || lacks(in, JAIL_ROOT))
		return;
	CHECK(proc_spawn(&p, &spec, &err) == 0);
	/* Were one of the conditions not met, it would end. */
	CHECK(proc_wait(&p, 300) == -ETIMEDOUT);
	(void)jail_seal(&in->jail, NULL);
	CHECK(proc_kill(&p, SIGKILL) == 0);
	CHECK(proc_wait(&p, -1) == 128 + SIGKILL);
}

static void test_processes(void **state)
{
	inside_check(state, processes);
	inside_check(state, children);
}

/* Killed, the jailed process takes its child along. */
static void leave_child(struct inside *in)
{
	static const char *const argv[] = {"sleep", "1000", NULL};
	static const char *const env[] = {"PATH=/usr/bin:/bin", NULL};
	const struct proc_spec spec = {.path = "sleep",
				       .argv = argv,
				       .envp = env,
				       .die_with_parent = true,
				       .fds = (struct proc_fd[]){{200, 5}},
				       .nfds = 1};
	struct proc p = PROC_INIT;

	inside_enter(in, "qemu");
	CHECK(proc_spawn(&p, &spec, NULL) == 0);
	if (in->failures)
		return;
	(void)raise(SIGKILL);
}

static void test_child_dies_too(void **state)
{
	char c;
	int p[2];

	if (SANITIZED)
		skip();
	assert_int_equal(pipe(p), 0);
	assert_int_equal(dup2(p[1], 200), 200);
	close(p[1]);
	for (int nobody = 0; nobody < 2; nobody++) {
		int status = inside_run(state, nobody, leave_child);

		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
	close(200);
	/* The end of the pipe: nobody holds its other end. */
	assert_int_equal(read(p[0], &c, 1), 0);
	close(p[0]);
}

/* ---- rights ---- */

static void no_capability(struct inside *in)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {{1, 1, 1}};

	CHECK(syscall(SYS_capget, &h, d) == 0);
	CHECK(!d[0].effective && !d[0].permitted && !d[0].inheritable);
	CHECK(!d[1].effective && !d[1].permitted && !d[1].inheritable);
}

static void capabilities(struct inside *in)
{
	inside_enter(in, "qemu");
	no_capability(in);
	if (in->jail.bounded) {
		CHECK(prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN, 0, 0, 0) == 0);
		CHECK(prctl(PR_CAPBSET_READ, CAP_DAC_OVERRIDE, 0, 0, 0) == 0);
		REFUSED(prctl(PR_SET_SECUREBITS, 0, 0, 0, 0), EPERM);
	}
	/* The library's would try in all threads at once. */
	CHECK(syscall(SYS_setuid, geteuid() ? 0 : 1) < 0);
	CHECK(syscall(SYS_setgid, 1) < 0);
	CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN, 0, 0) < 0);
}

static void test_capabilities(void **state)
{
	inside_check(state, capabilities);
}

/* ---- on hosts that forbid a step ---- */

static void without_namespaces(struct inside *in)
{
	uint16_t port = 0;
	int fd = listener(&port);

	CHECK(fd >= 0);
	inside_refuse(in, SYS_unshare, EPERM);
	inside_begin(in, "qemu", true);
	inside_close(in);
	CHECK(!in->jail.step[JAIL_NAMESPACES].held && !in->jail.step[JAIL_ROOT].held);
	CHECK(strstr(in->jail.step[JAIL_NAMESPACES].text, "not permitted"));
	CHECK(in->jail.step[JAIL_CAPABILITIES].held && in->jail.step[JAIL_SECCOMP].held);
	no_capability(in);
	if (!lacks(in, JAIL_LANDLOCK)) {
		char path[256];

		snprintf(path, sizeof(path), "%s/other/secret", in->top);
		REFUSED(open(path, O_RDONLY), EACCES);
		REFUSED(open("/etc/passwd", O_RDONLY), EACCES);
		REFUSED(open(in->kernel, O_WRONLY), EACCES);
		CHECK(open(in->kernel, O_RDONLY) >= 0);
		snprintf(path, sizeof(path), "%s/kernel.log", in->logs);
		CHECK(touch(path, "text") == 0);
	}
	(void)jail_seal(&in->jail, NULL);
	CHECK(jail_remove_dir(&in->jail, NULL) == 0);
	REFUSED(stat(in->dir, &(struct stat){0}), ENOENT);
}

static void without_mount_calls(struct inside *in)
{
	/* A kernel before 5.12. */
	inside_refuse(in, SYS_mount_setattr, ENOSYS);
	inside_begin(in, "qemu", true);
	inside_close(in);
	CHECK(!in->jail.step[JAIL_ROOT].held && in->jail.step[JAIL_SECCOMP].held);
	if (!lacks(in, JAIL_LANDLOCK))
		REFUSED(open("/etc/passwd", O_RDONLY), EACCES);
	(void)jail_seal(&in->jail, NULL);
	CHECK(jail_remove_dir(&in->jail, NULL) == 0);
}

static void without_pivot(struct inside *in)
{
	/* An initramfs as root. */
	inside_refuse(in, SYS_pivot_root, EINVAL);
	inside_enter(in, "qemu");
	CHECK(!in->jail.step[JAIL_ROOT].held &&
	      strstr(in->jail.step[JAIL_ROOT].text, "pivot_root"));
	/* What had been put together is gone again. */
	CHECK(access(in->logs, F_OK) == 0 && access(in->disk, F_OK) == 0);
}

static void without_landlock(struct inside *in)
{
	inside_refuse(in, SYS_landlock_create_ruleset, ENOSYS);
	inside_enter(in, "qemu");
	CHECK(!in->jail.step[JAIL_LANDLOCK].held);
	if (!lacks(in, JAIL_ROOT))
		REFUSED(open("/etc/passwd", O_RDONLY), ENOENT);
}

static void without_seccomp(struct inside *in)
{
	inside_refuse(in, SYS_seccomp, ENOSYS);
	inside_enter(in, "qemu");
	CHECK(!in->jail.step[JAIL_SECCOMP].held);
	(void)jail_seal(&in->jail, NULL);
	CHECK(getppid() >= 0);
}

static void without_anything(struct inside *in)
{
	const struct jail_params p = {
		.on = false, .dir = in->dir, .kernel = in->kernel, .engine = "qemu"};
	struct buf b = BUF_INIT;
	struct jail_names names = {0};

	in->jail = (struct jail)JAIL_INIT;
	jail_begin(&in->jail, &p);
	CHECK(jail_close(&in->jail, &(struct jail_files){.initramfs = -1}, 0, &names, NULL) == 0 &&
	      !names.initramfs);
	(void)jail_seal(&in->jail, NULL);
	CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0 && getenv("PATH"));
	CHECK(access("/etc/passwd", R_OK) == 0);
	jail_describe(&in->jail, &b);
	CHECK(strstr(buf_cstr(&b), "root: no: switched off\n"));
	buf_done(&b);
	CHECK(jail_remove_dir(&in->jail, NULL) == 0);
}

static void test_degrades(void **state)
{
	inside_check(state, without_namespaces);
	inside_check(state, without_mount_calls);
	inside_check(state, without_pivot);
	inside_check(state, without_landlock);
	inside_check(state, without_seccomp);
	inside_check(state, without_anything);
}

/* ---- what still works ---- */

struct guest {
	int fd;
	bool ready;
};

static int dial(void *arg, int fd, struct err *err)
{
	(void)err;
	((struct guest *)arg)->fd = fd;
	return 0;
}

static void ready(void *arg)
{
	((struct guest *)arg)->ready = true;
}

static void failed(void *arg, const char *why)
{
	(void)arg, (void)why;
}

static void turns(struct inside *in, struct loop *l)
{
	for (int i = 0; i < 20; i++)
		CHECK(loop_turn(l, 0) == 0);
}

/* A client that connects from where it is, through a name of the file system. */
static int connect_to(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%.100s", path);
	return connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ? -1 : fd;
}

static int listen_on(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%.100s", path);
	return bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 4) < 0 ? -1 : fd;
}

static void relaying(struct inside *in)
{
	static const struct relay_ops ops = {dial, ready, failed};
	struct msg_ready m = {.boot_time_ns = 1, .agent_version = (char *)"test"};
	struct guest g = {.fd = -1};
	struct buf b = BUF_INIT;
	struct relay *relay = NULL;
	struct loop *loop = NULL;
	char path[192], got[4096];
	int p[2], l, client;

	inside_begin(in, "qemu", true);
	snprintf(path, sizeof(path), "%s/agent.sock", in->dir);
	l = listen_on(path);
	CHECK(l >= 0 && loop_new(&loop, NULL) == 0);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p) == 0);
	CHECK(relay_new(&relay, loop, l, p[0], &ops, &g, NULL) == 0);
	client = connect_to(path);
	inside_close(in);
	(void)jail_seal(&in->jail, NULL);
	CHECK(frame_put_msg(&b, 0, MSG_READY, &m) == 0);
	CHECK(write(p[1], buf_ptr(&b), buf_size(&b)) == (ssize_t)buf_size(&b));
	turns(in, loop);
	CHECK(g.ready && g.fd >= 0);
	CHECK(read(client, got, sizeof(got)) > 8);
	CHECK(write(g.fd, "from the guest", 14) == 14);
	turns(in, loop);
	CHECK(read(client, got, sizeof(got)) == 14);
	relay_finish(relay, 0);
	relay_free(relay);
	loop_free(loop);
	/* The owner has gone: the directory goes, too, and nothing beside it. */
	worker_stop(&in->worker);
	CHECK(jail_remove_dir(&in->jail, NULL) == 0);
}

static void console(struct inside *in)
{
	static char text[65536];
	struct console *c = NULL;
	struct loop *loop = NULL;
	char path[256];
	struct stat st;
	int fd = -1;

	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\n';
	inside_begin(in, "kvm", false);
	CHECK(loop_new(&loop, NULL) == 0);
	CHECK(console_new(&c, loop, in->dir, &fd, NULL) == 0);
	/* Files of this size do not fit the limit that the others set. */
	CHECK(jail_close(&in->jail, &(struct jail_files){.initramfs = -1},
			 CONSOLE_LOG_MAX + (1 << 20), &(struct jail_names){0}, NULL) == 0);
	(void)jail_seal(&in->jail, NULL);
	for (size_t n = 0; n < CONSOLE_LOG_MAX + sizeof(text); n += sizeof(text)) {
		CHECK(io_write_full(fd, text, sizeof(text)) == 0);
		console_drain(c);
	}
	snprintf(path, sizeof(path), "%s/kernel.log", in->logs);
	CHECK(stat(path, &st) == 0 && st.st_size > 0 && st.st_size < 1 << 20);
	strcat(path, ".1");
	CHECK(stat(path, &st) == 0 && st.st_size > 1 << 20);
	console_free(c);
}

static void test_relay_and_removal(void **state)
{
	char path[512];
	DIR *d;
	struct dirent *de;
	unsigned others = 0;

	inside_check(state, relaying);
	d = opendir(*state);
	assert_non_null(d);
	while ((de = readdir(d))) {
		if (de->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s/box", (char *)*state, de->d_name);
		assert_int_equal(access(path, F_OK), -1);
		snprintf(path, sizeof(path), "%s/%s/other/secret", (char *)*state, de->d_name);
		assert_int_equal(access(path, F_OK), 0);
		others++;
	}
	closedir(d);
	assert_true(others > 0);
}

static void test_console(void **state)
{
	inside_check(state, console);
}

/* ---- words ---- */

static void test_messages(void **state)
{
	struct vm_report r = {.ok = true, .jail = (char *)"root: 3 places\n"}, got = {0};
	struct vm_config c = {.jail = (char *)"off"}, back = {0};
	struct buf b = BUF_INIT;

	(void)state;
	vm_report_encode(&r, &b);
	assert_int_equal(vm_report_decode(&b, &got, NULL), 1);
	assert_string_equal(got.jail, "root: 3 places\n");
	vm_report_done(&got);
	buf_reset(&b);
	vm_config_encode(&c, &b);
	assert_int_equal(vm_config_decode(buf_ptr(&b), buf_size(&b), &back, NULL), 0);
	assert_string_equal(back.jail, "off");
	vm_config_done(&back);
	buf_done(&b);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_privileges),	   TEST(test_files),
		TEST(test_parent),	   TEST(test_mounting),
		TEST(test_network),	   TEST(test_processes),
		TEST(test_child_dies_too), TEST(test_capabilities),
		TEST(test_degrades),	   TEST(test_relay_and_removal),
		TEST(test_console),	   cmocka_unit_test(test_messages),
	};

	return cmocka_run_group_tests_name("jail", tests, NULL, NULL);
}
