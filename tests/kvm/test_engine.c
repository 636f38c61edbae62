/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `kvm` engine as the machine sees it, with kernels of a few bytes. Stands in for machine.c:
 * hence its own machine_ended().
 */
#include "tiny.h"
#include "tiny_kernel.h"

#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "machine/engine.h"
#include "machine/machine.h"
#include "virtio/balloon.h"
#include "virtio/blk.h"

/*
 * A host with faults: our ioctl() stands in front of the C library's. The main thread's calls are
 * counted; KVM_RUN is the vCPUs'.
 */
static struct {
	_Atomic bool nervous; /* each call fails with EINTR, then with EAGAIN, before it is made */
	unsigned calls, fail; /* the call with this number, from 1, fails for good */
	int error;
	unsigned long failed; /* what it was */
} faults;

static bool is_faulty(unsigned long request)
{
	static __thread unsigned turn;

	if (faults.nervous && ++turn % 3) {
		errno = turn % 3 == 1 ? EINTR : EAGAIN;
		return true;
	}
	/* A capability that is asked for and an answer of 0 are no failures. */
	if (request == KVM_RUN || request == KVM_CHECK_EXTENSION)
		return false;
	if (!faults.fail || ++faults.calls != faults.fail)
		return false;
	faults.failed = request;
	errno = faults.error;
	return true;
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	return is_faulty(request) ? -1 : (int)syscall(SYS_ioctl, fd, request, arg);
}

struct world {
	struct machine m;
	struct vm_config config;
	struct engine *engine;
	struct loop_timer late;
	unsigned looks;
	char kernel[256];
	int out, disk[2];
	unsigned ends;
	enum machine_end how;
	char why[512];
};

void machine_paused(struct machine *m, bool paused)
{
	(void)m, (void)paused;
}

void machine_ended(struct machine *m, enum machine_end how, const char *why)
{
	struct world *w = container_of(m, struct world, m);

	w->ends++;
	w->how = how;
	snprintf(w->why, sizeof(w->why), "%s", why);
	loop_quit(m->loop, 0);
}

static void world_init(struct world *w, void **state, const void *code, size_t n)
{
	struct err err = ERR_INIT;
	int p[2], dev = -1;

	if (kvm_open("/dev/kvm", &dev, NULL) < 0)
		skip();
	close_fd(dev);
	*w = (struct world){
		.config = {.name = w->kernel, .cpus = 1, .memory = (uint64_t)64 << 20},
		.disk = {-1, -1},
	};
	snprintf(w->kernel, sizeof(w->kernel), "%s", scratch_path(state, "kernel"));
	assert_int_equal(tiny_kernel_write(w->kernel, code, n), 0);
	w->config.kernel = w->kernel;
	w->m.config = &w->config;
	w->m.cmdline = w->kernel;
	assert_int_equal(loop_new(&w->m.loop, &err), 0);
	assert_int_equal(pipe2(p, O_CLOEXEC | O_NONBLOCK), 0);
	w->out = p[0];
	w->m.console = p[1];
	w->m.initramfs = io_memfd("initramfs", "x", 1, NULL);
	if (kernel_image_read(w->kernel, &w->m.kernel, &err) < 0)
		fail_msg("%s", err.msg);
}

#define world_init_code(w, state, ...)                                                             \
	do {                                                                                       \
		static const uint8_t code_[] = {__VA_ARGS__};                                      \
		world_init(w, state, code_, sizeof(code_));                                        \
	} while (0)

static void add_disk(struct world *w)
{
	const struct blk_options options = {.queues = 2};
	const struct blk_file_options file = {0};
	struct blk_disk *d;
	int fd = io_memfd("disk", NULL, 0, NULL);

	w->disk[w->m.ndevices] = fd;
	assert_int_equal(ftruncate(fd, 1 << 20), 0);
	assert_int_equal(blk_file_new(fd, &file, &d, NULL), 0);
	assert_int_equal(blk_device_new(d, &options, &w->m.devices[w->m.ndevices++], NULL), 0);
}

static void start(struct world *w)
{
	struct err err = ERR_INIT;

	if (engine_kvm.start(&w->engine, &w->m, &err) < 0)
		fail_msg("%s", err.msg);
	engine_kvm.run(w->engine);
}

static void run(struct world *w)
{
	start(w);
	loop_run(w->m.loop);
	assert_int_equal(w->ends, 1);
}

static void world_done(struct world *w)
{
	/* As machine.c does it: the devices go before the memory. */
	if (w->engine)
		engine_kvm.stop(w->engine);
	for (unsigned i = 0; i < w->m.ndevices; i++)
		virtio_device_free(w->m.devices[i]);
	w->m.ndevices = 0;
	w->engine = engine_kvm.free(w->engine);
	loop_free(w->m.loop);
	close_fd(w->out);
	close_fd(w->disk[0]);
	close_fd(w->disk[1]);
	close_fd(w->m.console);
	close_fd(w->m.initramfs);
}

#define RESET 0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe /* mov al, 0xfe; out 0x64, al; jmp . */

static void test_reset(void **state)
{
	struct world w;

	world_init_code(&w, state, RESET);
	run(&w);
	assert_int_equal(w.how, MACHINE_SHUTDOWN);
	world_done(&w);
}

static void test_panic(void **state)
{
	struct world w;

	/* mov word [0x472], 0x1234 */
	world_init_code(&w, state, 0x66, 0xc7, 0x04, 0x25, 0x72, 0x04, 0, 0, 0x34, 0x12, RESET);
	run(&w);
	assert_int_equal(w.how, MACHINE_PANIC);
	assert_non_null(strstr(w.why, "panicked"));
	world_done(&w);
}

static void test_triple_fault(void **state)
{
	struct world w;

	world_init_code(&w, state, 0x0f, 0x0b); /* ud2 */
	run(&w);
	assert_int_equal(w.how, MACHINE_CRASH);
	assert_non_null(strstr(w.why, "triple fault"));
	world_done(&w);
}

static void look(struct loop_timer *t)
{
	struct world *w = container_of(t, struct world, late);

	engine_kvm.late(w->engine);
	if (++w->looks == 1000)
		loop_quit(w->m.loop, 0);
	else
		loop_timer_in(w->m.loop, t, 10000000);
}

/* No exit tells of it: KVM keeps a halted vCPU, and the others were never started. */
static void test_halted_for_good(void **state)
{
	struct world w;

	world_init_code(&w, state, 0xfa, 0xf4, 0xeb, 0xfc); /* again: cli; hlt; jmp again */
	w.config.cpus = 3;
	w.late.fn = look;
	start(&w);
	loop_timer_in(w.m.loop, &w.late, 1);
	loop_run(w.m.loop);
	assert_int_equal(w.ends, 1);
	assert_int_equal(w.how, MACHINE_HALTED);
	assert_non_null(strstr(w.why, "halted all its CPUs"));
	world_done(&w);
}

/* One that waits for an interrupt is left alone, and so is one that works. */
static void test_late_and_alive(void **state)
{
	static const uint8_t waits[] = {0xfb, 0xf4, 0xeb, 0xfc}; /* again: sti; hlt; jmp again */
	static const uint8_t works[] = {0xfa, 0xeb, 0xfe};	 /* cli; jmp . */

	for (unsigned i = 0; i < 2; i++) {
		struct world w;

		world_init(&w, state, i ? works : waits, i ? sizeof(works) : sizeof(waits));
		w.late.fn = look;
		w.looks = 980;
		start(&w);
		loop_timer_in(w.m.loop, &w.late, 1);
		loop_run(w.m.loop);
		assert_int_equal(w.looks, 1000);
		assert_int_equal(w.ends, 0);
		loop_timer_stop(&w.late);
		world_done(&w);
	}
}

/* Serial output, the zero page's address in RSI, other bytes to the keyboard controller ignored. */
static void test_console(void **state)
{
	struct world w;
	char b[16] = "";

	world_init_code(&w, state, 0xb0, 0xfd, 0xe6, 0x64,  /* mov al, 0xfd; out 0x64, al */
			0x66, 0xba, 0xf8, 0x03,		    /* mov dx, 0x3f8 */
			0xb0, 'h', 0xee, 0xb0, 'i', 0xee,   /* 'h', 'i' */
			0x8a, 0x86, 0xfe, 0x01, 0, 0, 0xee, /* mov al, [rsi+0x1fe]; out: 0x55 */
			RESET);
	run(&w);
	/* No line was complete: it comes out at the end. */
	w.engine = engine_kvm.free(w.engine);
	assert_int_equal(read(w.out, b, sizeof(b)), 3);
	assert_string_equal(b, "hiU");
	world_done(&w);
}

/* The first register of each device's window; the second window, then what is behind the last. */
static void test_device_windows(void **state)
{
	struct world w;
	uint8_t b[16];

	/* The boot tables end at 1 GiB: the guest adds 2 MiB at 0xd0000000 to them. */
	world_init_code(&w, state, 0xc7, 0x04, 0x25, 0x18, 0xa0, 0, 0, 0x03, 0xc0, 0, 0, 0xc7, 0x04,
			0x25, 0x00, 0xc4, 0, 0, 0x83, 0x00, 0x00, 0xd0, 0xbb, 0x00, 0x10, 0x00,
			0xd0,					  /* mov ebx, 0xd0001000 */
			0x66, 0xba, 0xf8, 0x03,			  /* mov dx, 0x3f8 */
			0x8b, 0x03, 0xee,			  /* mov eax, [rbx]: 'v' */
			0x8b, 0x43, 0x08, 0xee,			  /* mov eax, [rbx+8]: 2 */
			0x8b, 0x83, 0x00, 0x10, 0x00, 0x00, 0xee, /* mov eax, [rbx+0x1000]: ones */
			0xc7, 0x43, 0x50, 1, 0, 0, 0,		  /* notify queue 1 */
			0xc7, 0x43, 0x50, 0xff, 0xff, 0xff, 0xff, /* and one that is not there */
			RESET);
	add_disk(&w);
	add_disk(&w);
	run(&w);
	w.engine = engine_kvm.free(w.engine);
	assert_int_equal(read(w.out, b, sizeof(b)), 3);
	assert_int_equal(b[0], 'v');
	assert_int_equal(b[1], 2);
	assert_int_equal(b[2], 0xff);
	world_done(&w);
}

/*
 * A change of configuration is seen until it is acknowledged. Acknowledgements of used buffers stay
 * in the kernel; this one must not.
 */
static void test_config_change(void **state)
{
	struct world w;
	uint8_t b[16];

	world_init_code(&w, state, 0xc7, 0x04, 0x25, 0x18, 0xa0, 0, 0, 0x03, 0xc0, 0, 0, 0xc7, 0x04,
			0x25, 0x00, 0xc4, 0, 0, 0x83, 0x00, 0x00, 0xd0, /* as above */
			0xbb, 0x00, 0x00, 0x00, 0xd0,			/* mov ebx, 0xd0000000 */
			0x66, 0xba, 0xf8, 0x03,				/* mov dx, 0x3f8 */
			0x8b, 0x43, 0x60, 0xa8, 0x02, 0x74, 0xf9, 0xee, /* until status & 2: 3 */
			0xc7, 0x43, 0x64, 1, 0, 0, 0,			/* used buffers */
			0x8b, 0x43, 0x60, 0xee,				/* still 3 */
			0xc7, 0x43, 0x64, 2, 0, 0, 0,			/* the configuration */
			0x8b, 0x43, 0x60, 0xee,				/* 1 */
			0x8b, 0x83, 0x00, 0x01, 0, 0, 0xee,		/* num_pages: 5 */
			0xc7, 0x83, 0x04, 0x01, 0, 0, 7, 0, 0, 0,	/* actual = 7 */
			RESET);
	assert_int_equal(balloon_device_new(&w.m.devices[w.m.ndevices++], NULL), 0);
	start(&w);
	balloon_set_target(w.m.devices[0], 5 << 12);
	loop_run(w.m.loop);
	assert_int_equal(w.how, MACHINE_SHUTDOWN);
	assert_int_equal(balloon_size(w.m.devices[0]), 7 << 12);
	w.engine = engine_kvm.free(w.engine);
	assert_int_equal(read(w.out, b, sizeof(b)), 4);
	assert_memory_equal(b, "\3\3\1\5", 4);
	world_done(&w);
}

static void test_free_while_it_runs(void **state)
{
	for (unsigned i = 0; i < 12; i++) {
		struct world w;

		world_init_code(&w, state, 0xeb, 0xfe); /* jmp . */
		w.config.cpus = 1 + i % 4 * 5;
		start(&w);
		if (i % 2)
			usleep(i * 300);
		world_done(&w);
		assert_int_equal(w.ends, 0);
	}
}

static void refused(struct world *w, int code, const char *word)
{
	struct err err = ERR_INIT;

	assert_int_equal(engine_kvm.start(&w->engine, &w->m, &err), code);
	assert_null(w->engine);
	if (!strstr(err.msg, word))
		fail_msg("\"%s\" is not in \"%s\"", word, err.msg);
	assert_int_equal(w->ends, 0);
}

static unsigned entries(const char *dir)
{
	DIR *d = opendir(dir);
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* EINTR and EAGAIN, from every call there is, change nothing. */
static void test_nervous_host(void **state)
{
	struct world w;

	world_init_code(&w, state, RESET);
	w.config.cpus = 3;
	add_disk(&w);
	faults.nervous = true;
	run(&w);
	faults.nervous = false;
	assert_int_equal(w.how, MACHINE_SHUTDOWN);
	world_done(&w);
}

/*
 * One call after the other fails for good: the start says so and leaves neither descriptor nor
 * thread, or does not need it and works.
 */
static void sweep(void **state, int error)
{
	unsigned refused_starts = 0, n = 0;
	struct world w;
	bool more;

	do {
		struct err err = ERR_INIT;
		unsigned fds;

		world_init_code(&w, state, RESET);
		w.config.cpus = 2;
		add_disk(&w);
		fds = entries("/proc/self/fd");
		faults.calls = 0;
		faults.fail = ++n;
		faults.error = error;
		if (engine_kvm.start(&w.engine, &w.m, &err) < 0) {
			refused_starts++;
			assert_null(w.engine);
			assert_int_equal(entries("/proc/self/fd"), fds);
			if (!strstr(err.msg, "KVM") && !strstr(err.msg, "kvm"))
				fail_msg("call %u: \"%s\" does not say what failed", n, err.msg);
			if (error == EBUSY && faults.failed == KVM_CREATE_VM)
				assert_non_null(strstr(err.hint, "another hypervisor"));
		} else {
			engine_kvm.run(w.engine);
			loop_run(w.m.loop);
			assert_int_equal(w.how, MACHINE_SHUTDOWN);
		}
		more = faults.calls >= n;
		faults.fail = 0;
		world_done(&w);
		assert_true(n < 200);
	} while (more);
	/* The VM, its memory, controllers, vCPUs and their registers, interrupts, notifications. */
	assert_true(refused_starts >= 20);
}

static void test_every_call_fails(void **state)
{
	sweep(state, EBUSY);
	sweep(state, ENOMEM);
}

static void test_refusals(void **state)
{
	static char line[4096];
	struct world w;

	world_init_code(&w, state, RESET);
	w.config.cpus = 65;
	refused(&w, -ERR_LIMIT, "65 vCPUs");
	w.config.cpus = 1;
	w.config.memory = (uint64_t)1 << 50;
	assert_true(engine_kvm.start(&w.engine, &w.m, NULL) < 0);
	w.config.memory = (uint64_t)16 << 20;
	refused(&w, -ENOMEM, "17 MiB");
	w.config.memory = (uint64_t)64 << 20;
	memset(line, 'x', sizeof(line) - 1);
	w.m.cmdline = line;
	refused(&w, -ERR_LIMIT, "command line");
	w.m.cmdline = w.kernel;
	assert_int_equal(truncate(w.kernel, 100), 0);
	refused(&w, -EIO, "shorter");
	assert_int_equal(unlink(w.kernel), 0);
	refused(&w, -ENOENT, "kernel");
	world_done(&w);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)
	const struct CMUnitTest tests[] = {
		T(test_halted_for_good), T(test_late_and_alive),     T(test_reset),
		T(test_panic),		 T(test_triple_fault),	     T(test_console),
		T(test_device_windows),	 T(test_free_while_it_runs), T(test_refusals),
		T(test_nervous_host),	 T(test_every_call_fails),   T(test_config_change),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
