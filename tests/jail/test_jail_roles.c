/* SPDX-License-Identifier: Apache-2.0 */
/* Each role's list of system calls: what is not on it ends the process, from the thread itself. */
#include "jail/inside.h"

#include <linux/kvm.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/uio.h>

#include "base/log.h"
#include "base/str.h"

static const struct attempt *current;
static struct inside *here;

struct attempt {
	const char *name;
	enum jail_role role;
	void (*fn)(void);
};

static void try_open(void)
{
	(void)syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDONLY);
}

static void try_socket(void)
{
	(void)syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
}

static void try_exec(void)
{
	(void)syscall(SYS_execve, "/bin/true", NULL, NULL);
}

static void try_fork(void)
{
	(void)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static void try_clone3(void)
{
	(void)syscall(SYS_clone3, NULL, 0);
}

static void try_code(void)
{
	(void)syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void try_protect(void)
{
	(void)syscall(SYS_mprotect, NULL, 4096, PROT_READ | PROT_EXEC);
}

static void try_kill(void)
{
	(void)syscall(SYS_kill, here->outside, 0);
}

static void try_thread_kill(void)
{
	(void)syscall(SYS_tgkill, here->outside, here->outside, 0);
}

static void try_terminate(void)
{
	(void)syscall(SYS_pidfd_send_signal, -1, SIGTERM, NULL, 0);
}

static void try_ptrace(void)
{
	(void)syscall(SYS_ptrace, 16 /* PTRACE_ATTACH */, here->outside, 0, 0);
}

static void try_limit(void)
{
	(void)syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, NULL);
}

static void try_prctl(void)
{
	(void)syscall(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static void try_setuid(void)
{
	(void)syscall(SYS_setuid, 0);
}

static void try_mount(void)
{
	(void)syscall(SYS_mount, "x", "/", "tmpfs", 0, NULL);
}

static void try_connect(void)
{
	(void)syscall(SYS_connect, -1, NULL, 0);
}

static void try_dup(void)
{
	(void)syscall(SYS_fcntl, 0, F_DUPFD_CLOEXEC, 0);
}

static void try_beside(void)
{
	(void)syscall(SYS_openat, JAIL_PARENT_FD, "other/secret", O_RDONLY);
}

static void try_ioctl(void)
{
	(void)syscall(SYS_ioctl, 0, TIOCSTI, "x");
}

static void try_create_vm(void)
{
	(void)syscall(SYS_ioctl, -1, KVM_CREATE_VM, 0);
}

static void try_accept(void)
{
	(void)syscall(SYS_accept4, -1, NULL, NULL, 0);
}

static void try_unlink(void)
{
	(void)syscall(SYS_unlinkat, AT_FDCWD, "/nothing", 0);
}

static void try_netlink(void)
{
	(void)syscall(SYS_socket, AF_NETLINK, SOCK_RAW, 0);
}

static void try_packet(void)
{
	(void)syscall(SYS_socket, AF_PACKET, SOCK_RAW, 0);
}

static void try_bind(void)
{
	(void)syscall(SYS_bind, -1, NULL, 0);
}

static void try_listen(void)
{
	(void)syscall(SYS_listen, -1, 1);
}

static void try_option(void)
{
	(void)syscall(SYS_setsockopt, -1, SOL_SOCKET, SO_BINDTODEVICE, "lo", 2);
}

static void try_setns(void)
{
	(void)syscall(SYS_setns, -1, 0);
}

#ifdef __x86_64__
static void try_x32(void)
{
	(void)syscall(0x40000000 | SYS_getpid);
}

static void try_i386(void)
{
	long nr = 20; /* getpid() there, writev() here */

	__asm__ volatile("int $0x80" : "+a"(nr) : : "memory");
}
#endif

static const struct attempt attempts[] = {
	{"open", JAIL_DEVICE, try_open},
	{"socket", JAIL_DEVICE, try_socket},
	{"exec", JAIL_DEVICE, try_exec},
	{"fork", JAIL_DEVICE, try_fork},
	{"clone3", JAIL_DEVICE, try_clone3},
	{"code", JAIL_DEVICE, try_code},
	{"protect", JAIL_DEVICE, try_protect},
	{"kill", JAIL_DEVICE, try_kill},
	{"tgkill", JAIL_DEVICE, try_thread_kill},
	{"ptrace", JAIL_DEVICE, try_ptrace},
	{"prlimit", JAIL_DEVICE, try_limit},
	{"accept", JAIL_DEVICE, try_accept},
	{"unlink", JAIL_DEVICE, try_unlink},
	{"ioctl", JAIL_DEVICE, try_create_vm},
	{"open", JAIL_NET, try_open},
	{"local socket", JAIL_NET, try_socket},
	{"netlink socket", JAIL_NET, try_netlink},
	{"packet socket", JAIL_NET, try_packet},
	{"bind", JAIL_NET, try_bind},
	{"listen", JAIL_NET, try_listen},
	{"option", JAIL_NET, try_option},
	{"exec", JAIL_NET, try_exec},
	{"fork", JAIL_NET, try_fork},
	{"clone3", JAIL_NET, try_clone3},
	{"code", JAIL_NET, try_code},
	{"protect", JAIL_NET, try_protect},
	{"kill", JAIL_NET, try_kill},
	{"tgkill", JAIL_NET, try_thread_kill},
	{"ptrace", JAIL_NET, try_ptrace},
	{"prlimit", JAIL_NET, try_limit},
	{"setns", JAIL_NET, try_setns},
	{"unlink", JAIL_NET, try_unlink},
	{"ioctl", JAIL_NET, try_create_vm},
	{"open", JAIL_VCPU, try_open},
	{"socket", JAIL_VCPU, try_socket},
	{"exec", JAIL_VCPU, try_exec},
	{"fork", JAIL_VCPU, try_fork},
	{"code", JAIL_VCPU, try_code},
	{"kill", JAIL_VCPU, try_kill},
	{"ptrace", JAIL_VCPU, try_ptrace},
	{"mount", JAIL_VCPU, try_mount},
	{"setuid", JAIL_VCPU, try_setuid},
	{"another VM", JAIL_VCPU, try_create_vm},
	{"another ioctl", JAIL_VCPU, try_ioctl},
	{"accept", JAIL_VCPU, try_accept},
	{"socket", JAIL_CONTROL, try_socket},
	{"connect", JAIL_CONTROL, try_connect},
	{"exec", JAIL_CONTROL, try_exec},
	{"fork", JAIL_CONTROL, try_fork},
	{"clone3", JAIL_CONTROL, try_clone3},
	{"code", JAIL_CONTROL, try_code},
	{"protect", JAIL_CONTROL, try_protect},
	{"kill", JAIL_CONTROL, try_kill},
	{"tgkill", JAIL_CONTROL, try_thread_kill},
	{"pidfd SIGTERM", JAIL_CONTROL, try_terminate},
	{"ptrace", JAIL_CONTROL, try_ptrace},
	{"prlimit", JAIL_CONTROL, try_limit},
	{"prctl", JAIL_CONTROL, try_prctl},
	{"setuid", JAIL_CONTROL, try_setuid},
	{"mount", JAIL_CONTROL, try_mount},
	{"dup", JAIL_CONTROL, try_dup},
	{"open beside the sandbox", JAIL_CONTROL, try_beside},
	{"ioctl", JAIL_CONTROL, try_ioctl},
#ifdef __x86_64__
	{"x32", JAIL_DEVICE, try_x32},
	{"x32", JAIL_VCPU, try_x32},
	{"x32", JAIL_CONTROL, try_x32},
	{"i386", JAIL_CONTROL, try_i386},
#endif
};

static void on_device(void *arg)
{
	(void)arg;
	current->fn();
}

static void *on_vcpu(void *arg)
{
	if (jail_thread(JAIL_VCPU) < 0)
		_exit(2);
	((void (*)(void))arg)();
	return NULL;
}

static void attempt(struct inside *in)
{
	pthread_t t;

	here = in;
	inside_enter(in, current->role == JAIL_VCPU ? "kvm" : "qemu");
	if (!in->jail.step[JAIL_SECCOMP].held)
		_exit(77);
	switch (current->role) {
	case JAIL_DEVICE:
		loop_call(in->worker.loop, on_device, NULL);
		break;
	case JAIL_NET:
		loop_call(in->net.loop, on_device, NULL);
		break;
	case JAIL_VCPU:
		CHECK(pthread_create(&t, NULL, on_vcpu, (void *)(uintptr_t)current->fn) == 0);
		pthread_join(t, NULL);
		break;
	default:
		(void)jail_seal(&in->jail, NULL);
		current->fn();
	}
}

static void test_what_is_not_listed_kills(void **state)
{
	static const char *const roles[] = {"child", "device", "net", "vcpu", "control"};

	if (SANITIZED)
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(attempts); i++) {
		int status;

		current = &attempts[i];
		status = inside_run(state, i % 2, attempt);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
			skip();
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
			fail_msg("%s by the %s role ended with status %#x", current->name,
				 roles[current->role], status);
	}
}

/* ---- what each role needs ---- */

static void device_work(void *arg)
{
	struct inside *in = arg;
	char b[8] = "written";
	struct iovec iov = {b, sizeof(b)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	void *mem;

	CHECK(pwritev(in->diskfd, &iov, 1, 4096) == sizeof(b));
	memset(b, 0, sizeof(b));
	CHECK(preadv(in->diskfd, &iov, 1, 4096) == sizeof(b) && str_eq(b, "written"));
	CHECK(fdatasync(in->diskfd) == 0);
	CHECK(fallocate(in->diskfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0);
	/* Sockets that are none: the call itself is what is asked for. */
	REFUSED(sendmsg(-1, &m, 0), EBADF);
	REFUSED(recvmsg(-1, &m, 0), EBADF);
	REFUSED(shutdown(-1, SHUT_WR), EBADF);
	REFUSED(ioctl(-1, KVM_SIGNAL_MSI, 0), EBADF);
	/* Guest memory given back, be it private or in a file, and random numbers. */
	for (int i = 0; i < 2; i++) {
		mem = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			   MAP_ANONYMOUS | (i ? MAP_SHARED : MAP_PRIVATE), -1, 0);
		CHECK(mem != MAP_FAILED);
		memset(mem, 1, 4096);
		CHECK(madvise(mem, 4096, i ? MADV_REMOVE : MADV_DONTNEED) == 0);
		CHECK(*(char *)mem == 0);
	}
	CHECK(getrandom(b, sizeof(b), 0) == sizeof(b));
	log_warn("of a device");
	mem = malloc(1 << 20);
	CHECK(mem);
	free(mem);
}

static void *vcpu_work(void *arg)
{
	struct inside *in = arg;
	uint64_t one = 1;
	void *mem;

	CHECK(jail_thread(JAIL_VCPU) == 0);
	REFUSED(ioctl(-1, KVM_RUN, 0), EBADF);
	REFUSED(ioctl(-1, KVM_SIGNAL_MSI, 0), EBADF);
	CHECK(write(in->diskfd, &one, sizeof(one)) == sizeof(one));
	/* The first line of this process: nothing may be left to find out for it. */
	log_warn("of a vCPU");
	mem = malloc(1 << 20);
	CHECK(mem);
	free(mem);
	return NULL;
}

static void lists_suffice(struct inside *in)
{
	pthread_t t;

	log_open(in->diskfd, LOG_WARN, NULL);
	inside_enter(in, "kvm");
	/* As an engine does, between jail_close() and jail_seal(). */
	CHECK(pthread_create(&t, NULL, vcpu_work, in) == 0);
	pthread_join(t, NULL);
	(void)jail_seal(&in->jail, NULL);
	loop_call(in->worker.loop, device_work, in);
	/* The kick of a vCPU is a signal to a thread of this process. */
	CHECK(syscall(SYS_tgkill, getpid(), gettid(), 0) == 0);
	worker_stop(&in->worker);
	worker_stop(&in->net);
}

static void test_what_is_listed_works(void **state)
{
	inside_check(state, lists_suffice);
}

/* ---- filters as such ---- */

static void test_compiler_keeps_to_its_room(void **state)
{
	struct sock_filter code[1024];

	(void)state;
	for (int role = 0; role < JAIL_ROLES; role++) {
		int n = jail_compile(&jail_lists[role], code, ARRAY_SIZE(code));

		assert_true(n > 0);
		for (int short_of = 0; short_of < n; short_of++)
			assert_int_equal(jail_compile(&jail_lists[role], code, (size_t)short_of),
					 -E2BIG);
		/* Every jump lands inside, and the last word is a verdict. */
		assert_int_equal(jail_compile(&jail_lists[role], code, (size_t)n), n);
		for (int i = 0; i < n; i++) {
			if (code[i].code == (BPF_JMP | BPF_JA))
				assert_true(i + 1 + (int)code[i].k < n);
			else if (BPF_CLASS(code[i].code) == BPF_JMP)
				assert_true(i + 1 + MAX(code[i].jt, code[i].jf) < n);
		}
		assert_int_equal(code[n - 1].code, BPF_RET | BPF_K);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_compiler_keeps_to_its_room),
		cmocka_unit_test_setup_teardown(test_what_is_not_listed_kills, scratch_setup,
						scratch_teardown),
		cmocka_unit_test_setup_teardown(test_what_is_listed_works, scratch_setup,
						scratch_teardown),
	};

	return cmocka_run_group_tests_name("jail_roles", tests, NULL, NULL);
}
