/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/kvm/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/loop.h"
#include "machine/kvm/vcpu.h"
#include "machine/kvm/vm.h"
#include "machine/x86/cpuid.h"
#include "machine/x86/registers.h"

/* 7 us on a processor; 9 ms on an emulating host that was measured. */
#define TURNS 20000u
/*
 * The fastest counts: on a busy host, above all on one that is itself a virtual machine and does
 * not see what is stolen from it, some may be disturbed. Not all of these few microseconds.
 */
#define LOOPS 3
/* Slower than this against the host is emulation: entering and leaving the guest is in the slack.
 */
#define SLOWER	 10u
#define SLACK_NS 1000000u
/* After this long the loops that are done are enough, if there are any... */
#define WAIT_MS 40
/* ...and if not, the host is very busy: this long. */
#define BUSY_MS 3000

/* The guest writes to MARK before, between and after its loops. */
enum { CODE = 0x2000, MEMORY = 0x10000, MARK = 0x10, MARKS = LOOPS + 1 };

/* What identifies an occasion: a boot's number and a few of a file's. */
enum { OCCASION = 160 };

struct marks {
	uint64_t at[MARKS]; /* processor time of the vCPU's thread */
	atomic_uint n;	    /* entries that are there */
};

static const char *const names[] = {
	[KVM_GOOD] = "good",
	[KVM_NO_MODULE] = "no-module",
	[KVM_NO_VIRTUALISATION] = "no-virtualisation",
	[KVM_NESTED_OFF] = "nested-off",
	[KVM_NO_PERMISSION] = "no-permission",
	[KVM_TOO_OLD] = "too-old",
	[KVM_EMULATING] = "emulating",
	[KVM_FAILING] = "failing",
};

const char *kvm_verdict_name(enum kvm_verdict v)
{
	return (unsigned)v < ARRAY_SIZE(names) ? names[v] : "unknown";
}

/* ---- the loop, here and there ---- */

static uint64_t thread_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t native_loop(void)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < LOOPS; i++) {
		uint64_t begin = thread_ns();
		uint32_t turns = TURNS;

		__asm__ volatile("1: decl %0; jnz 1b" : "+r"(turns) : : "cc");
		best = MIN(best, thread_ns() - begin);
	}
	return best;
}

static int enter(void *arg, unsigned index, int vcpu_fd, struct err *err)
{
	/* KVM lets a CPU into 64-bit mode only if its CPUID says that it has one. */
	int r = x86_cpuid_apply(arg, index, vcpu_fd, err);

	return r < 0 ? r : x86_enter_long_mode(vcpu_fd, CODE, 0, err);
}

/* On the vCPU's thread: its clock stands still while others have the processor. */
static void on_mark(void *arg, uint64_t off, const void *p, uint32_t len)
{
	struct marks *m = arg;
	unsigned n = m->n;

	(void)off, (void)p, (void)len;
	if (n < MARKS) {
		m->at[n] = thread_ns();
		m->n = n + 1;
	}
}

static void no_mark(void *arg, uint64_t off, void *p, uint32_t len)
{
	(void)arg, (void)off;
	memset(p, 0, len);
}

static void write_guest(uint8_t *memory)
{
	static const uint8_t code[] = {
		0xbb,
		LOOPS,
		0,
		0,
		0, /* mov ebx, LOOPS */
		0xe6,
		MARK, /* 1: out MARK, al */
		0xb9,
		TURNS & 0xff,
		TURNS >> 8 & 0xff,
		TURNS >> 16,
		0, /* mov ecx, TURNS */
		0xff,
		0xc9, /* 2: dec ecx */
		0x75,
		0xfc, /* jnz 2b */
		0xff,
		0xcb, /* dec ebx */
		0x75,
		0xf1, /* jnz 1b */
		0xe6,
		MARK, /* out MARK, al */
		0xf4, /* hlt */
	};

	x86_write_tables(memory);
	memcpy(memory + CODE, code, sizeof(code));
}

/* The fastest loop so far; false before the first is done. */
static bool fastest(const struct marks *m, uint64_t *ret_ns)
{
	unsigned n = m->n;
	uint64_t best = UINT64_MAX;

	for (unsigned i = 1; i < n; i++)
		best = MIN(best, m->at[i] - m->at[i - 1]);
	if (n < 2)
		return false;
	*ret_ns = best;
	return true;
}

/* Run the guest to its end, or for as long as it needs to show what it can do. */
static int run_guest(struct vcpus *v, const struct marks *m, uint64_t *ret_ns, struct err *err)
{
	struct pollfd p = {.fd = vcpus_end_fd(v), .events = POLLIN};
	struct vcpus_end end;

	vcpus_resume(v);
	if (poll(&p, 1, WAIT_MS) == 0 && m->n < 2)
		(void)poll(&p, 1, BUSY_MS);
	end = vcpus_get_end(v);
	if (end.kind != VCPUS_NOT_ENDED && end.kind != VCPUS_HALTED)
		return err_set(err, EIO, "KVM cannot run a guest: %s", end.why);
	if (!fastest(m, ret_ns))
		return err_set(err, ETIMEDOUT, "KVM did not get to run a guest");
	return 0;
}

static int guest_loop(struct kvm_vm *vm, uint64_t *ret_ns, struct err *err)
{
	static const struct bus nothing;
	struct marks marks = {.n = 0};
	struct bus ports = {0};
	const struct bus_range mark = {MARK, 1, no_mark, on_mark, &marks};
	struct vcpus_params params = {.vm = vm, .ports = &ports, .mmio = &nothing, .set_up = enter};
	struct x86_cpuid *cpuid = NULL;
	struct vcpus *v = NULL;
	void *memory =
		mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int r;

	if (memory == MAP_FAILED)
		return err_errno(err, "cannot make memory for a guest");
	write_guest(memory);
	r = bus_add(&ports, &mark);
	if (r == 0)
		r = kvm_vm_add_memory(vm, 0, MEMORY, memory, false, err);
	if (r == 0)
		r = x86_cpuid_new(&cpuid, vm->dev, 1, err);
	params.arg = cpuid;
	if (r == 0)
		r = vcpus_new(&v, 1, err);
	if (r == 0)
		r = vcpus_create(v, &params, err);
	if (r == 0)
		r = run_guest(v, &marks, ret_ns, err);
	vcpus_free(v);
	x86_cpuid_free(cpuid);
	munmap(memory, MEMORY);
	return r;
}

/* ---- what is remembered ---- */

static bool boot_id(char id[40])
{
	cleanup_close int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? io_read_full(fd, id, 36) : -1;

	id[n == 36 ? 36 : 0] = '\0';
	return n == 36;
}

/*
 * What an answer holds for: this boot of the host, and this /dev/kvm, which is another file after
 * its module was loaded anew, and a changed one when its permissions were.
 */
static bool occasion(int dev, char text[OCCASION])
{
	struct stat st;
	char id[40];

	if (!boot_id(id) || fstat(dev, &st) < 0)
		return false;
	snprintf(text, OCCASION, "%s-%llu-%llu-%lld.%09ld-%o", id, (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino, (long long)st.st_ctim.tv_sec, st.st_ctim.tv_nsec,
		 st.st_mode);
	return true;
}

static bool cache_get(const char *path, int dev, struct kvm_probe *p)
{
	cleanup_buf struct buf b = BUF_INIT;
	char now[OCCASION], then[OCCASION], verdict[16];
	unsigned long long guest, native;

	_Static_assert(OCCASION == 160, "as the format has it");
	if (!path || !occasion(dev, now) || io_read_file(path, 512, &b, NULL) < 0 ||
	    !buf_cstr(&b) ||
	    sscanf((char *)buf_ptr(&b), "%159s %15s %llu %llu", then, verdict, &guest, &native) !=
		    4 ||
	    strcmp(now, then))
		return false;
	if (!strcmp(verdict, names[KVM_GOOD]))
		p->verdict = KVM_GOOD;
	else if (!strcmp(verdict, names[KVM_EMULATING]))
		p->verdict = KVM_EMULATING;
	else
		return false;
	p->guest_ns = guest;
	p->native_ns = native;
	return true;
}

/* Losing it only costs another probe. */
static void cache_put(const char *path, const char *now, const struct kvm_probe *p)
{
	char text[OCCASION + 64];
	cleanup_close int fd = -1;
	int n;

	if (!path || !*now)
		return;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	n = snprintf(text, sizeof(text), "%s %s %llu %llu\n", now, names[p->verdict],
		     (unsigned long long)p->guest_ns, (unsigned long long)p->native_ns);
	if (fd >= 0)
		(void)!write(fd, text, (size_t)n);
}

/* ---- the verdict ---- */

static enum kvm_verdict verdict_of(int error)
{
	switch (error) {
	case -ENOENT:
		return KVM_NO_MODULE;
	case -ENXIO:
		return KVM_NESTED_OFF;
	case -ENODEV:
		return KVM_NO_VIRTUALISATION;
	case -EACCES:
		return KVM_NO_PERMISSION;
	case -ERR_UNSUPPORTED:
		return KVM_TOO_OLD;
	default:
		return KVM_FAILING;
	}
}

static int measure(int dev, struct kvm_probe *p)
{
	struct kvm_vm vm;
	int r = kvm_vm_init(&vm, dev, &p->why);

	if (r < 0)
		return r;
	p->native_ns = native_loop();
	r = guest_loop(&vm, &p->guest_ns, &p->why);
	kvm_vm_done(&vm);
	if (r == 0)
		p->verdict =
			p->guest_ns > p->native_ns * SLOWER + SLACK_NS ? KVM_EMULATING : KVM_GOOD;
	return r;
}

void kvm_probe(const char *cache, struct kvm_probe *ret)
{
	char now[OCCASION];
	int dev = -1, r;

	*ret = (struct kvm_probe){.why = ERR_INIT};
	r = kvm_open("/dev/kvm", &dev, &ret->why);
	if (r < 0) {
		ret->verdict = verdict_of(r);
		return;
	}
	/* While it is open: measure() closes it. */
	if (!occasion(dev, now))
		*now = '\0';
	ret->cached = cache_get(cache, dev, ret);
	if (ret->cached) {
		close_fd(dev);
	} else {
		r = measure(dev, ret);
		if (r < 0) {
			ret->verdict = KVM_FAILING;
			return;
		}
		cache_put(cache, now, ret);
	}
	if (ret->verdict == KVM_EMULATING) {
		err_set(&ret->why, ERR_UNSUPPORTED,
			"this host's KVM only emulates: a loop that takes %llu us outside took "
			"%llu us in a guest",
			(unsigned long long)ret->native_ns / 1000,
			(unsigned long long)ret->guest_ns / 1000);
		err_hint(&ret->why,
			 "use --engine qemu here, or a host with hardware virtualisation");
	}
}
