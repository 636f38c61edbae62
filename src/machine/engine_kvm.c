/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `kvm` engine: our own virtual machine monitor on /dev/kvm.
 *
 * Theory of operation. The machine is a PC without firmware, PCI or ACPI: memory, local interrupt
 * controllers inside the kernel and the one for devices here (kvm/ioapic.h), one serial port, the
 * reset line of a keyboard controller, and a page of virtio-mmio registers for each device, which
 * the kernel's command line names. The kernel is entered directly (x86/boot.h).
 *
 *	guest ── KVM_RUN ── vCPU threads ──► ports: serial, reset     ──► registers of
 *	  │                                 mmio: virtio-mmio, I/O APIC   the device
 *	  ├── write to QueueNotify ── ioeventfd ──► the device's worker
 *	  ├── read of a register ──── a page of memory, which the transport writes
 *	  ◄── interrupt ───────────── message ───── the device's worker
 *
 * So nothing of a machine that runs passes the main loop; it only hears of the end, through an
 * eventfd, and reports it.
 */
#include "machine/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/virtio_mmio.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "machine/kvm/bus.h"
#include "machine/kvm/ioapic.h"
#include "machine/kvm/ram.h"
#include "machine/kvm/uart.h"
#include "machine/kvm/vcpu.h"
#include "machine/kvm/vm.h"
#include "machine/machine.h"
#include "machine/memory_plan.h"
#include "machine/x86/boot.h"
#include "machine/x86/cpuid.h"
#include "machine/x86/layout.h"
#include "machine/x86/registers.h"
#include "virtio/mem.h"
#include "virtio/mmio.h"

_Static_assert(MEMORY_HOLE == X86_HOLE, "memory is planned around the hole of this platform");

/* A device's page of registers. */
struct window {
	struct engine *e;
	struct virtio_mmio *t;
	unsigned line;
	const char *name;
	atomic_uint refused; /* queues, for the log */
};

struct engine {
	struct machine *m;
	struct kvm_vm vm;
	struct ram ram;
	struct bus ports, mmio;
	struct ioapic *ioapic;
	struct uart *uart;
	int acks; /* takes the acknowledgements that mean nothing; never read */
	struct window windows[MACHINE_DEVICES_MAX];
	uint8_t *shown; /* what they read as, as the guest sees it: a page each */
	struct x86_cpuid *cpuid;
	struct vcpus *vcpus;
	struct loop_source ended;
};

/* A device has an interrupt line of its own, as few as there are: from 1 on, around the console's. */
static unsigned device_line(unsigned index)
{
	return index + 1 + (index + 1 >= X86_COM1_IRQ);
}

static unsigned lines(const struct engine *e)
{
	return MAX(device_line(e->m->ndevices), X86_COM1_IRQ + 1u);
}

static uint64_t device_window(unsigned index)
{
	return X86_MMIO + index * X86_MMIO_STRIDE;
}

/* ---- the platform's ports ---- */

/* The keyboard controller: never busy, nothing to read. */
static void i8042_read(void *arg, uint64_t off, void *p, uint32_t len)
{
	(void)arg, (void)off;
	memset(p, 0, len);
}

static void i8042_write(void *arg, uint64_t off, const void *p, uint32_t len)
{
	struct engine *e = arg;
	uint16_t flag;

	/* Command 0xfe to port 0x64 pulses the reset line. */
	if (off != 4 || len != 1 || *(const uint8_t *)p != 0xfe)
		return;
	memcpy(&flag, (uint8_t *)e->ram.host + X86_RESET_FLAG, sizeof(flag));
	if (flag == X86_RESET_WARM)
		vcpus_end(e->vcpus, VCPUS_PANIC, VM_END_PANIC);
	else
		vcpus_end(e->vcpus, VCPUS_RESET, "the guest switched itself off");
}

static void uart_interrupt(void *arg)
{
	const struct engine *e = arg;

	ioapic_raise(e->ioapic, X86_COM1_IRQ);
}

static void send_message(void *arg, uint32_t address, uint32_t data)
{
	const struct engine *e = arg;

	kvm_vm_signal(&e->vm, address, data);
}

static int add_platform(struct engine *e, struct err *err)
{
	const struct bus_range i8042 = {X86_I8042, 5, i8042_read, i8042_write, e};
	struct bus_range com1 = {X86_COM1, UART_PORTS, uart_read, uart_write, NULL};
	struct bus_range ioapic = {X86_IOAPIC, IOAPIC_SIZE, ioapic_read, ioapic_write, NULL};
	int r;

	e->acks = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (e->acks < 0)
		return err_errno(err, "cannot create the platform");
	r = ioapic_new(&e->ioapic, lines(e), send_message, e, err);
	if (r == 0)
		r = uart_new(&e->uart, e->m->console, uart_interrupt, e, err);
	if (r < 0)
		return r;
	com1.arg = e->uart;
	ioapic.arg = e->ioapic;
	if (bus_add(&e->ports, &com1) < 0 || bus_add(&e->ports, &i8042) < 0 ||
	    bus_add(&e->mmio, &ioapic) < 0)
		return err_set(err, ENOSPC, "too many ports");
	return 0;
}

/* ---- devices ---- */

static void window_read(void *arg, uint64_t off, void *p, uint32_t len)
{
	const struct window *w = arg;

	virtio_mmio_read(w->t, off, p, len);
}

static void window_write(void *arg, uint64_t off, const void *p, uint32_t len)
{
	struct window *w = arg;
	int r = virtio_mmio_write(w->t, off, p, len);

	if (r < 0 && log_allow(&w->refused))
		log_warn("virtio-%s: the guest set up a queue that cannot work: %s", w->name,
			 r == -EFAULT	? "outside guest memory"
			 : r == -EINVAL ? "its size or alignment"
					: err_name(r));
}

static void window_interrupt(void *arg)
{
	const struct window *w = arg;

	ioapic_raise(w->e->ioapic, w->line);
}

static int add_device(struct engine *e, unsigned index, struct err *err)
{
	const uint32_t ack_used = MMIO_ACK_USED;
	uint64_t at = device_window(index);
	struct window *w = &e->windows[index];
	struct bus_range range = {at, MMIO_SIZE, window_read, window_write, w};
	struct virtio_mmio *t;
	int r;

	w->e = e;
	w->line = device_line(index);
	w->name = e->m->devices[index]->ops->name;
	r = virtio_mmio_new(e->m->devices[index], &e->ram.map, window_interrupt, w, &w->t, err);
	if (r < 0)
		return r;
	t = w->t;
	for (uint32_t q = 0; r == 0 && q < virtio_mmio_queues(t); q++)
		r = kvm_vm_ioeventfd(&e->vm, at + MMIO_QUEUE_NOTIFY, 4, &q,
				     virtio_mmio_kick_fd(t, q), err);
	if (r == 0)
		r = kvm_vm_ioeventfd(&e->vm, at + MMIO_INTERRUPT_ACK, 4, &ack_used, e->acks, err);
	if (r < 0)
		return r;
	virtio_mmio_show(t, e->shown + index * X86_MMIO_STRIDE);
	if (bus_add(&e->mmio, &range) < 0)
		return err_set(err, ENOSPC, "too many devices");
	return 0;
}

/* ---- start ---- */

/* The kernel's command line, with what only this engine can say. */
static char *cmdline(const struct engine *e)
{
	cleanup_buf struct buf b = BUF_INIT;

	/*
	 * Through the keyboard controller, so that a triple fault is never meant, and with a mark
	 * (X86_RESET_FLAG) after a panic.
	 */
	buf_addf(&b, "%s reboot=k,panic_warm swiotlb=noforce", e->m->cmdline);
	for (unsigned i = 0; i < e->m->ndevices; i++)
		buf_addf(&b, " virtio_mmio.device=%d@%#llx:%u", MMIO_SIZE,
			 (unsigned long long)device_window(i), device_line(i));
	return buf_cstr(&b) ? strdup((char *)buf_ptr(&b)) : NULL;
}

static int load_kernel(struct engine *e, struct err *err)
{
	const struct vm_config *c = e->m->config;
	cleanup_close int kernel = open(c->kernel, O_RDONLY | O_CLOEXEC);
	cleanup_free char *line = cmdline(e);
	const struct x86_boot boot = {
		.kernel = &e->m->kernel,
		.kernel_fd = kernel,
		.initramfs_fd = e->m->initramfs,
		.cmdline = line,
		.cpus = c->cpus,
		.lines = lines(e),
	};

	if (kernel < 0)
		return err_errno(err, "cannot open kernel %s", c->kernel);
	if (!line)
		return err_set(err, ENOMEM,
			       "cannot build the kernel's command line: out of memory");
	log_debug("kernel command line: %s", line);
	return x86_boot_load(&e->ram, &boot, err);
}

/*
 * Filling the guest's memory takes as long as it takes the kernel to create a VM and to tell what
 * its CPUs support, so a thread does it beside that.
 */
struct load {
	struct engine *e;
	pthread_t thread;
	bool started;
	int r;
	struct err err;
};

static void *load_main(void *arg)
{
	struct load *l = arg;

	l->r = load_kernel(l->e, &l->err);
	return NULL;
}

static int load_begin(struct load *l, struct err *err)
{
	const struct vm_config *c = l->e->m->config;
	const struct memory_plan plan = memory_plan(c->memory, vm_config_memory_max(c));
	int r = ram_check_host(vm_config_memory_max(c), err);

	if (r == 0)
		r = ram_init(&l->e->ram, c->memory, X86_HOLE,
			     c->huge_pages ? RAM_HUGE : RAM_PRIVATE, err);
	if (r == 0 && plan.more_size)
		r = ram_more(&l->e->ram, plan.more, plan.more_size, err);
	if (r < 0)
		return r;
	l->started = pthread_create(&l->thread, NULL, load_main, l) == 0;
	if (!l->started)
		load_main(l);
	return 0;
}

static int load_end(struct load *l, struct err *err)
{
	if (l->started)
		pthread_join(l->thread, NULL);
	l->started = false;
	if (l->r < 0)
		*err = l->err;
	return l->r;
}

static int create_vm(struct engine *e, struct err *err)
{
	uint64_t identity_map = X86_IDENTITY_MAP;
	int dev = -1, r = kvm_open("/dev/kvm", &dev, err);

	if (r == 0)
		r = kvm_vm_init(&e->vm, dev, err);
	if (r < 0)
		return r;
	r = kvm_call(e->vm.fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map);
	if (r >= 0)
		r = kvm_call(e->vm.fd, KVM_SET_TSS_ADDR, (void *)(uintptr_t)X86_TSS);
	return r < 0 ? err_set(err, r, "KVM refuses the platform: %s", err_name(r)) : 0;
}

static size_t windows_size(const struct engine *e)
{
	return e->m->ndevices * X86_MMIO_STRIDE;
}

static int create_windows(struct engine *e, struct err *err)
{
	void *p;

	if (!e->m->ndevices)
		return 0;
	p = mmap(NULL, windows_size(e), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return err_errno(err, "cannot create the devices' registers");
	/* Behind a device's window is nothing. */
	e->shown = memset(p, 0xff, windows_size(e));
	return kvm_vm_add_memory(&e->vm, X86_MMIO, windows_size(e), p, true, err);
}

static int create_memory(struct engine *e, struct err *err)
{
	const struct guest_memory *map = &e->ram.map;
	unsigned bits = x86_cpuid_address_bits(e->cpuid);
	const struct guest_region *top = &map->region[map->nregions - 1];
	int r = 0;

	if (top->gpa + top->size > UINT64_C(1) << MIN(bits, 52u)) {
		char text[24];

		return err_set(
			err, ERR_LIMIT,
			"%s of memory is more than this host's CPU can give a guest (%u bits)",
			str_size(vm_config_memory_max(e->m->config), text), bits);
	}
	for (unsigned i = 0; r == 0 && i < map->nregions; i++)
		r = kvm_vm_add_memory(&e->vm, map->region[i].gpa, map->region[i].size,
				      map->region[i].host, false, err);
	if (r == 0)
		r = create_windows(e, err);
	if (r < 0)
		return r;
	/*
	 * Only now: both wait for the kernel's readers of the VM's tables (SRCU), and memory after
	 * interrupt controllers waits for some timer ticks (7 ms measured, 0.3 the other way
	 * round).
	 */
	machine_mark(e->m, "memory");
	r = kvm_vm_local_apics(&e->vm, err);
	machine_mark(e->m, "interrupt controllers");
	return r;
}

static int set_up_vcpu(void *arg, unsigned index, int fd, struct err *err)
{
	struct engine *e = arg;
	int r = x86_cpuid_apply(e->cpuid, index, fd, err);

	if (r == 0)
		r = x86_set_msrs(fd, err);
	/* The others wait for the first to start them. */
	if (r == 0 && index == 0)
		r = x86_enter_long_mode(fd, e->m->kernel.entry, X86_ZERO_PAGE, err);
	return r;
}

static void on_end(struct loop_source *s, uint32_t events)
{
	static const enum machine_end ends[] = {
		[VCPUS_RESET] = MACHINE_SHUTDOWN, [VCPUS_PANIC] = MACHINE_PANIC,
		[VCPUS_HALTED] = MACHINE_HALTED,  [VCPUS_CRASH] = MACHINE_CRASH,
		[VCPUS_ERROR] = MACHINE_CRASH,
	};
	struct engine *e = container_of(s, struct engine, ended);
	struct vcpus_end end = vcpus_get_end(e->vcpus);

	(void)events;
	loop_del(s);
	machine_ended(e->m, ends[end.kind], end.why);
}

static int create_vcpus(struct engine *e, struct err *err)
{
	const struct vcpus_params p = {
		.vm = &e->vm,
		.ports = &e->ports,
		.mmio = &e->mmio,
		.set_up = set_up_vcpu,
		.arg = e,
	};
	int r = vcpus_create(e->vcpus, &p, err);

	vcpus_allow(e->vcpus, vm_config_cpus_on(e->m->config));
	machine_mark(e->m, "vCPUs");
	if (r < 0)
		return r;
	e->ended.fd = vcpus_end_fd(e->vcpus);
	r = loop_add(e->m->loop, &e->ended, EPOLLIN);
	if (r < 0)
		return err_set(err, r, "cannot watch the vCPUs: %s", err_name(r));
	return 0;
}

static void engine_kvm_run(struct engine *e)
{
	vcpus_resume(e->vcpus);
}

static void engine_kvm_ready(struct engine *e)
{
	for (unsigned i = 0; i < e->ram.map.nregions; i++)
		ram_want_large(&e->ram, e->ram.map.region[i].gpa, e->ram.map.region[i].size);
}

static void engine_kvm_late(struct engine *e)
{
	vcpus_end_if_halted(e->vcpus);
}

static int engine_kvm_pause(struct engine *e, bool pause, struct err *err)
{
	(void)err;
	if (pause) {
		vcpus_pause(e->vcpus);
	} else {
		/* It shall not take the time that is missing for a CPU that hangs. */
		for (unsigned i = 0; i < vcpus_count(e->vcpus); i++)
			(void)kvm_call(vcpus_fd(e->vcpus, i), KVM_KVMCLOCK_CTRL, NULL);
		vcpus_resume(e->vcpus);
	}
	machine_paused(e->m, pause);
	return 0;
}

static void engine_kvm_usage(struct engine *e, struct engine_usage *ret)
{
	*ret = (struct engine_usage){
		.cpu_ns = vcpus_time(e->vcpus),
		.memory = guest_memory_resident(&e->ram.map),
	};
}

static void engine_kvm_allow_cpus(struct engine *e, unsigned n)
{
	vcpus_allow(e->vcpus, n);
}

static int engine_kvm_want_memory(struct engine *e, uint64_t bytes, struct err *err)
{
	if (!e->m->mem)
		return err_set(err, ERR_UNSUPPORTED, "this machine has no memory device");
	mem_want(e->m->mem, bytes);
	return 0;
}

static void engine_kvm_stop(struct engine *e)
{
	loop_del(&e->ended);
	e->vcpus = vcpus_free(e->vcpus);
	for (unsigned i = 0; i < e->m->ndevices; i++)
		e->windows[i].t = virtio_mmio_free(e->windows[i].t);
	e->uart = uart_free(e->uart);
	e->ioapic = ioapic_free(e->ioapic);
}

static struct engine *engine_kvm_free(struct engine *e)
{
	if (!e)
		return NULL;
	engine_kvm_stop(e);
	x86_cpuid_free(e->cpuid);
	/* The VM first: memory that it still maps is unmapped page by page. */
	kvm_vm_done(&e->vm);
	ram_done(&e->ram);
	if (e->shown)
		munmap(e->shown, windows_size(e));
	close_fd(e->acks);
	free(e);
	return NULL;
}

static int engine_kvm_start(struct engine **ret, struct machine *m, struct err *err)
{
	struct engine *e = calloc(1, sizeof(*e));
	struct load load = {.e = e, .err = ERR_INIT};
	int r;

	if (!e)
		return err_set(err, ENOMEM, "cannot start the machine: out of memory");
	*e = (struct engine){
		.m = m,
		.vm = KVM_VM_INIT,
		.ram = RAM_INIT,
		.acks = -1,
		.ended = {.fn = on_end, .fd = -1},
	};
	/* First: while its thread is confined, the rest is made. */
	r = vcpus_new(&e->vcpus, m->config->cpus, err);
	if (r == 0)
		r = load_begin(&load, err);
	if (r == 0)
		r = create_vm(e, err);
	machine_mark(m, "VM");
	if (r == 0)
		r = x86_cpuid_new(&e->cpuid, e->vm.dev, m->config->cpus, err);
	machine_mark(m, "CPUID");
	if (r == 0)
		r = load_end(&load, err);
	machine_mark(m, "kernel loaded");
	if (r == 0)
		r = create_memory(e, err);
	if (r == 0)
		r = add_platform(e, err);
	machine_mark(m, "platform");
	for (unsigned i = 0; r == 0 && i < m->ndevices; i++)
		r = add_device(e, i, err);
	machine_mark(m, "device windows");
	if (r == 0)
		r = create_vcpus(e, err);
	if (r < 0) {
		struct err ignored = ERR_INIT;

		(void)load_end(&load, &ignored);
		engine_kvm_free(e);
		return r;
	}
	*ret = e;
	return 0;
}

const struct engine_ops engine_kvm = {
	.name = "kvm",
	.start = engine_kvm_start,
	.run = engine_kvm_run,
	.ready = engine_kvm_ready,
	.late = engine_kvm_late,
	.pause = engine_kvm_pause,
	.usage = engine_kvm_usage,
	.allow_cpus = engine_kvm_allow_cpus,
	.want_memory = engine_kvm_want_memory,
	.stop = engine_kvm_stop,
	.free = engine_kvm_free,
};
