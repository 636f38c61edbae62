/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/kvm/vcpu.h"

#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "machine/jail/jail.h"
#include "machine/x86/registers.h"

/* Interrupts a thread's KVM_RUN; its handler does nothing. */
#define KICK_SIGNAL SIGRTMIN

enum target { PAUSED, RUNNING, ENDED };

struct vcpu {
	struct vcpus *group;
	unsigned index;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	bool started;
};

struct vcpus {
	struct kvm_vm *vm;
	const struct bus *ports, *mmio;
	int endfd;

	pthread_mutex_t lock; /* guards all below, and setting immediate_exit; innermost */
	pthread_cond_t changed;
	enum target target;
	bool quit;
	unsigned parked, halted, allowed;
	struct vcpus_end end;

	unsigned n;
	struct vcpu vcpu[];
};

/* ---- from thread to thread ---- */

/* With the lock held. */
static void kick(struct vcpu *c)
{
	if (c->run)
		__atomic_store_n(&c->run->immediate_exit, 1, __ATOMIC_RELEASE);
	if (c->started)
		pthread_kill(c->thread, KICK_SIGNAL);
}

static void kick_all(struct vcpus *g)
{
	for (unsigned i = 0; i < g->n; i++)
		kick(&g->vcpu[i]);
	pthread_cond_broadcast(&g->changed);
}

void vcpus_kick(struct vcpus *g, unsigned index)
{
	pthread_mutex_lock(&g->lock);
	kick(&g->vcpu[index]);
	pthread_mutex_unlock(&g->lock);
}

void vcpus_pause(struct vcpus *g)
{
	pthread_mutex_lock(&g->lock);
	if (g->target == RUNNING) {
		g->target = PAUSED;
		kick_all(g);
	}
	while (g->parked < g->n)
		pthread_cond_wait(&g->changed, &g->lock);
	pthread_mutex_unlock(&g->lock);
}

void vcpus_resume(struct vcpus *g)
{
	pthread_mutex_lock(&g->lock);
	if (g->target == PAUSED) {
		g->target = RUNNING;
		pthread_cond_broadcast(&g->changed);
	}
	pthread_mutex_unlock(&g->lock);
}

void vcpus_allow(struct vcpus *g, unsigned n)
{
	pthread_mutex_lock(&g->lock);
	g->allowed = n;
	for (unsigned i = n; i < g->n; i++)
		kick(&g->vcpu[i]);
	pthread_cond_broadcast(&g->changed);
	pthread_mutex_unlock(&g->lock);
}

uint64_t vcpus_time(const struct vcpus *g)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < g->n; i++) {
		struct timespec ts;
		clockid_t clock;

		if (g->vcpu[i].started && !pthread_getcpuclockid(g->vcpu[i].thread, &clock) &&
		    clock_gettime(clock, &ts) == 0)
			sum += (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
	}
	return sum;
}

void vcpus_end(struct vcpus *g, enum vcpus_end_kind kind, const char *why)
{
	const uint64_t one = 1;

	pthread_mutex_lock(&g->lock);
	if (g->end.kind == VCPUS_NOT_ENDED) {
		g->end.kind = kind;
		snprintf(g->end.why, sizeof(g->end.why), "%s", why);
		g->target = ENDED;
		kick_all(g);
		(void)!write(g->endfd, &one, sizeof(one));
	}
	pthread_mutex_unlock(&g->lock);
}

void vcpus_end_if_halted(struct vcpus *g)
{
	bool running;
	unsigned n = 0;

	pthread_mutex_lock(&g->lock);
	running = g->target == RUNNING;
	pthread_mutex_unlock(&g->lock);
	if (!running)
		return;
	vcpus_pause(g);
	while (n < g->n && x86_sleeps_for_good(g->vcpu[n].fd))
		n++;
	if (n == g->n)
		vcpus_end(g, VCPUS_HALTED, "the guest halted all its CPUs with interrupts off");
	else
		vcpus_resume(g);
}

struct vcpus_end vcpus_get_end(struct vcpus *g)
{
	struct vcpus_end end;

	pthread_mutex_lock(&g->lock);
	end = g->end;
	pthread_mutex_unlock(&g->lock);
	return end;
}

int vcpus_end_fd(const struct vcpus *g)
{
	return g->endfd;
}

unsigned vcpus_count(const struct vcpus *g)
{
	return g->n;
}

int vcpus_fd(const struct vcpus *g, unsigned index)
{
	return g->vcpu[index].fd;
}

/* ---- what made KVM_RUN return ---- */

static void on_port(struct vcpu *c)
{
	const struct kvm_run *run = c->run;
	uint8_t *p = (uint8_t *)run + run->io.data_offset;

	for (uint32_t i = 0; i < run->io.count; i++, p += run->io.size) {
		if (run->io.direction == KVM_EXIT_IO_OUT)
			bus_write(c->group->ports, run->io.port, p, run->io.size);
		else
			bus_read(c->group->ports, run->io.port, p, run->io.size);
	}
}

static void on_mmio(struct vcpu *c)
{
	struct kvm_run *run = c->run;

	if (run->mmio.is_write)
		bus_write(c->group->mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
	else
		bus_read(c->group->mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
}

/* Seen only without interrupt controllers in the kernel: nothing can wake this vCPU. */
static void on_halt(struct vcpu *c)
{
	struct vcpus *g = c->group;
	bool last;

	pthread_mutex_lock(&g->lock);
	last = ++g->halted == g->n;
	pthread_mutex_unlock(&g->lock);
	if (last) {
		vcpus_end(g, VCPUS_HALTED, "the guest halted all its CPUs");
		return;
	}
	/* As good as paused, whatever the target. */
	pthread_mutex_lock(&g->lock);
	g->parked++;
	pthread_cond_broadcast(&g->changed);
	while (!g->quit)
		pthread_cond_wait(&g->changed, &g->lock);
	g->parked--;
	pthread_mutex_unlock(&g->lock);
}

static void end(struct vcpu *c, enum vcpus_end_kind kind, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* End the machine, saying where the guest was. */
static void end(struct vcpu *c, enum vcpus_end_kind kind, const char *fmt, ...)
{
	char why[192], all[sizeof(((struct vcpus_end *)NULL)->why)], where[128];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	x86_describe(c->fd, where);
	snprintf(all, sizeof(all), "vCPU %u: %s (%s)", c->index, why, where);
	vcpus_end(c->group, kind, all);
}

static void on_internal_error(struct vcpu *c)
{
	static const char *const names[] = {
		[KVM_INTERNAL_ERROR_EMULATION] = "an instruction KVM cannot emulate",
		[KVM_INTERNAL_ERROR_SIMUL_EX] = "exceptions while delivering an exception",
		[KVM_INTERNAL_ERROR_DELIVERY_EV] = "a fault while delivering an event",
		[KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON] = "an exit KVM does not expect",
	};
	uint32_t sub = c->run->internal.suberror;
	const char *name = sub < ARRAY_SIZE(names) ? names[sub] : NULL;

	end(c, VCPUS_ERROR, "KVM internal error %u: %s", sub, name ? name : "unknown");
}

static void on_system_event(struct vcpu *c)
{
	switch (c->run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
	case KVM_SYSTEM_EVENT_RESET:
		vcpus_end(c->group, VCPUS_RESET, "the guest switched itself off");
		return;
	default:
		end(c, VCPUS_CRASH, "the guest reported a crash (event %u)",
		    c->run->system_event.type);
		return;
	}
}

static void dispatch(struct vcpu *c)
{
	switch (c->run->exit_reason) {
	case KVM_EXIT_IO:
		on_port(c);
		return;
	case KVM_EXIT_MMIO:
		on_mmio(c);
		return;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		return;
	case KVM_EXIT_HLT:
		on_halt(c);
		return;
	case KVM_EXIT_SHUTDOWN:
		end(c, VCPUS_CRASH, "triple fault");
		return;
	case KVM_EXIT_SYSTEM_EVENT:
		on_system_event(c);
		return;
	case KVM_EXIT_INTERNAL_ERROR:
		on_internal_error(c);
		return;
	case KVM_EXIT_FAIL_ENTRY:
		end(c, VCPUS_ERROR, "the processor refuses to enter the guest: reason %#llx",
		    (unsigned long long)c->run->fail_entry.hardware_entry_failure_reason);
		return;
	default:
		end(c, VCPUS_ERROR, "unexpected exit reason %u", c->run->exit_reason);
		return;
	}
}

/* ---- the thread ---- */

/* With the lock held. */
static bool wanted(const struct vcpu *c)
{
	return c->group->target == RUNNING && c->index < c->group->allowed;
}

/* Wait until the vCPU may run: false when it never may again. */
static bool may_run(struct vcpu *c)
{
	struct vcpus *g = c->group;
	bool go;

	pthread_mutex_lock(&g->lock);
	if (!wanted(c)) {
		g->parked++;
		pthread_cond_broadcast(&g->changed);
		while (!wanted(c) && !g->quit)
			pthread_cond_wait(&g->changed, &g->lock);
		g->parked--;
	}
	go = !g->quit;
	if (go)
		__atomic_store_n(&c->run->immediate_exit, 0, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&g->lock);
	return go;
}

static void run_until_kicked(struct vcpu *c)
{
	for (;;) {
		if (ioctl(c->fd, KVM_RUN, 0) == 0) {
			dispatch(c);
			continue;
		}
		/* EAGAIN: a vCPU that waits to be started was woken (KVM_MP_STATE_UNINITIALIZED).
		 */
		if (errno == EINTR || errno == EAGAIN) {
			if (__atomic_load_n(&c->run->immediate_exit, __ATOMIC_ACQUIRE))
				return;
			continue;
		}
		end(c, VCPUS_ERROR, "KVM_RUN: %s", err_name(errno));
		return;
	}
}

static void *vcpu_main(void *arg)
{
	struct vcpu *c = arg;
	char name[16];

	snprintf(name, sizeof(name), "vcpu-%u", c->index);
	(void)prctl(PR_SET_NAME, name);
	if (jail_thread(JAIL_VCPU) < 0) {
		vcpus_end(c->group, VCPUS_ERROR, "a vCPU's thread cannot be confined");
		return NULL;
	}
	if (may_run(c)) {
		log_debug("vCPU %u enters the guest at %llu", c->index,
			  (unsigned long long)now_ns());
		run_until_kicked(c);
	}
	while (may_run(c))
		run_until_kicked(c);
	return NULL;
}

static void on_kick_signal(int number)
{
	(void)number;
}

static void install_handler(void)
{
	struct sigaction sa = {.sa_handler = on_kick_signal};

	sigaction(KICK_SIGNAL, &sa, NULL);
}

static int start_thread(struct vcpu *c, struct err *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	sigset_t mask, old;
	int r;

	pthread_once(&once, install_handler);
	sigfillset(&mask);
	sigdelset(&mask, KICK_SIGNAL);
	pthread_sigmask(SIG_SETMASK, &mask, &old);
	r = pthread_create(&c->thread, NULL, vcpu_main, c);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r)
		return err_set(err, r, "cannot start the thread of vCPU %u: %s", c->index,
			       err_name(r));
	c->started = true;
	return 0;
}

/* ---- life ---- */

static int create(struct vcpu *c, const struct vcpus_params *p, struct err *err)
{
	void *run;

	c->fd = kvm_vm_create_vcpu(p->vm, c->index, err);
	if (c->fd < 0)
		return c->fd;
	run = mmap(NULL, p->vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
	if (run == MAP_FAILED)
		return err_errno(err, "cannot map vCPU %u", c->index);
	pthread_mutex_lock(&c->group->lock);
	c->run = run;
	pthread_mutex_unlock(&c->group->lock);
	return p->set_up ? p->set_up(p->arg, c->index, c->fd, err) : 0;
}

static int too_many(unsigned n, unsigned limit, struct err *err)
{
	err_set(err, ERR_LIMIT, "%u vCPUs: KVM takes 1 to %u on this host", n, limit);
	return err_hint(err, "give the sandbox fewer CPUs");
}

int vcpus_new(struct vcpus **ret, unsigned n, struct err *err)
{
	struct vcpus *g;
	int r = 0;

	if (n < 1 || n > VCPUS_MAX)
		return too_many(n, VCPUS_MAX, err);
	g = calloc(1, sizeof(*g) + n * sizeof(g->vcpu[0]));
	if (!g)
		return err_set(err, ENOMEM, "cannot create vCPUs: out of memory");
	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->changed, NULL);
	g->n = g->allowed = n;
	for (unsigned i = 0; i < n; i++)
		g->vcpu[i] = (struct vcpu){.group = g, .index = i, .fd = -1};
	g->endfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (g->endfd < 0)
		r = err_errno(err, "cannot create vCPUs");
	for (unsigned i = 0; r == 0 && i < n; i++)
		r = start_thread(&g->vcpu[i], err);
	if (r < 0) {
		vcpus_free(g);
		return r;
	}
	*ret = g;
	return 0;
}

int vcpus_create(struct vcpus *g, const struct vcpus_params *p, struct err *err)
{
	int max = kvm_call(p->vm->dev, KVM_CHECK_EXTENSION, (void *)(uintptr_t)KVM_CAP_MAX_VCPUS);
	int r = 0;

	if (max > 0 && g->n > (unsigned)max)
		return too_many(g->n, (unsigned)max, err);
	/* The threads look at none of this before the lock says that they may run. */
	g->vm = p->vm;
	g->ports = p->ports;
	g->mmio = p->mmio;
	for (unsigned i = 0; r == 0 && i < g->n; i++)
		r = create(&g->vcpu[i], p, err);
	return r;
}

struct vcpus *vcpus_free(struct vcpus *g)
{
	if (!g)
		return NULL;
	pthread_mutex_lock(&g->lock);
	g->target = ENDED;
	g->quit = true;
	for (unsigned i = 0; i < g->n; i++) {
		kick(&g->vcpu[i]);
	}
	pthread_cond_broadcast(&g->changed);
	pthread_mutex_unlock(&g->lock);
	for (unsigned i = 0; i < g->n; i++) {
		struct vcpu *c = &g->vcpu[i];

		if (c->started)
			pthread_join(c->thread, NULL);
		if (c->run)
			munmap(c->run, g->vm->run_size);
		close_fd(c->fd);
	}
	close_fd(g->endfd);
	pthread_cond_destroy(&g->changed);
	pthread_mutex_destroy(&g->lock);
	free(g);
	return NULL;
}
