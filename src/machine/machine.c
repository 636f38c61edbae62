/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "base/str.h"
#include "machine/console.h"
#include "machine/disk_image.h"
#include "machine/engine.h"
#include "machine/exec_log.h"
#include "machine/initramfs.h"
#include "machine/jail/jail.h"
#include "machine/manage.h"
#include "machine/memory_plan.h"
#include "machine/net.h"
#include "machine/relay.h"
#include "machine/routes.h"
#include "virtio/balloon.h"
#include "virtio/blk.h"
#include "virtio/mem.h"
#include "virtio/rng.h"
#include "virtio/vsock.h"

/* The peer's limit; a guest under emulation on a loaded host may take many seconds. */
#define READY_TIMEOUT ((uint64_t)180 * 1000000000u)
/* After so long a guest that boots or shuts down is looked at; most have done it in less. */
#define LATE ((uint64_t)1 * 1000000000u)
/* The agent needs well under a second; after this the machine is ended by force. */
#define STOP_GRACE ((uint64_t)10 * 1000000000u)
/* Of the time that somebody waits for a machine to stop, what it needs itself, at most a quarter. */
#define STOP_OWN_MS 1500u
/* How long clients may take to fetch what a machine that ended left for them. */
#define DRAIN_MS 2000
/* What a file may grow to beyond the largest that is planned: logs have their own, lower ceilings.
 */
#define FILE_SLACK ((uint64_t)64 << 20)

/* The devices' backing: one more descriptor for each extent of each disk. */
struct backing {
	int *fds;
	size_t n;
};

struct run {
	struct machine m; /* first: machine_ended() gets it back from there */
	struct console *console;
	struct exec_log *log, *net_log;
	struct manager *manager;
	struct backing backing;
	uint64_t largest; /* disk image, when it is full */
	struct virtio_device *vsock, *net;
	struct routes *routes;
	int dot;	   /* to who speaks TLS to name servers; -1 */
	struct strv ports; /* published, in the report's words */
	int control_guest; /* the guest's end of the control connection, until it connects */
	struct loop_source parent, signals;
	struct loop_source resized; /* memory, by the guest */
	struct loop_timer deadline, late;
	uint64_t patience; /* until `late` strikes */
	int startup_fd;
	struct jail jail;
	atomic_uint breaches; /* of the devices' rules, by the guest */
	bool reported, ready, stopping, orphaned;
	const char *reason; /* for the end, when it was one of manage.h; static */
	enum machine_end end;
	char why[512];
};

const struct engine_ops *engine_find(const char *name)
{
	static const struct engine_ops *const engines[] = {
		&engine_kvm,
		&engine_qemu,
	};

	for (size_t i = 0; i < ARRAY_SIZE(engines); i++) {
		if (str_eq(engines[i]->name, name))
			return engines[i];
	}
	return NULL;
}

static void report(struct run *r, const struct err *err, const char *stage)
{
	cleanup_buf struct buf b = BUF_INIT, walls = BUF_INIT;
	struct vm_report rep = {
		.ok = err == NULL,
		.stage = (char *)(uintptr_t)(err ? stage : ""),
		.code = err ? (uint32_t)err->code : 0,
		.message = (char *)(uintptr_t)(err ? err->msg : ""),
		.hint = (char *)(uintptr_t)(err ? err->hint : ""),
		.ready_ns = now_ns(),
		.reason = (char *)(uintptr_t)r->reason,
	};

	if (r->startup_fd < 0)
		return;
	if (!r->reported) {
		jail_describe(&r->jail, &walls);
		rep.jail = buf_cstr(&walls);
		rep.ports = (struct wire_texts){r->ports.v, r->ports.n};
		r->reported = true;
	}
	vm_report_encode(&rep, &b);
	/* An owner that has gone will not read it. */
	if (!buf_failed(&b))
		(void)io_write_full(r->startup_fd, buf_ptr(&b), buf_size(&b));
}

void machine_ended(struct machine *m, enum machine_end how, const char *why)
{
	struct run *r = container_of(m, struct run, m);

	if (r->end != MACHINE_RUNNING)
		return;
	r->end = how;
	if (why)
		snprintf(r->why, sizeof(r->why), "%s", why);
	log_info("machine ended (%d): %s", how, why ? why : "-");
	loop_quit(m->loop, 0);
}

void machine_paused(struct machine *m, bool paused)
{
	manage_paused(container_of(m, struct run, m)->manager, paused);
}

void machine_memory(struct machine *m, uint64_t bytes)
{
	manage_memory(container_of(m, struct run, m)->manager, bytes);
}

/* ---- the relay's events ---- */

static int dial(void *arg, int fd, struct err *err)
{
	struct run *r = arg;
	int e = vsock_connect(r->vsock, AGENT_PORT, fd, 0, NULL, NULL);

	if (e < 0)
		return err_set(err, e, "vsock port %d: %s", AGENT_PORT, err_name(e));
	return 0;
}

static void on_ready(void *arg)
{
	struct run *r = arg;

	r->ready = true;
	loop_timer_stop(&r->deadline);
	loop_timer_stop(&r->late);
	report(r, NULL, "");
	exec_log_event(r->log, 0, "the sandbox has started");
	log_info("guest ready");
	manage_ready(r->manager);
	if (r->m.ops->ready)
		r->m.ops->ready(r->m.engine);
}

static void on_agent_failed(void *arg, const char *why)
{
	struct run *r = arg;

	/* An agent that hangs up on its way down is about to reset the machine. */
	if (r->ready)
		return;
	machine_ended(&r->m, MACHINE_BOOT, why);
}

static void on_active(void *arg)
{
	struct run *r = arg;

	if (r->manager)
		manage_active(r->manager);
}

static void on_agent(void *arg, const struct envelope *e)
{
	struct run *r = arg;

	manage_agent(r->manager, e);
}

static void on_gone(void *arg)
{
	struct run *r = arg;

	if (r->manager)
		manage_gone(r->manager);
}

static const struct relay_ops relay_ops = {
	.dial = dial,
	.ready = on_ready,
	.failed = on_agent_failed,
	.active = on_active,
	.agent = on_agent,
	.gone = on_gone,
};

/* On the vsock worker. The agent connects once; nobody else in the guest may take its place. */
static int accept_control(struct virtio_device *dev, uint32_t guest_port, uint32_t host_port,
			  void *arg)
{
	struct run *r = arg;

	(void)dev, (void)guest_port, (void)host_port;
	return r->control_guest >= 0 ? take_fd(&r->control_guest) : -ECONNREFUSED;
}

/* ---- the loop's other events ---- */

static void on_deadline(struct loop_timer *t)
{
	struct run *r = container_of(t, struct run, deadline);

	if (r->stopping)
		machine_ended(&r->m, MACHINE_KILLED, "the guest did not shut down in time");
	else
		machine_ended(&r->m, MACHINE_BOOT, "the guest did not become ready in time");
}

static void expect(struct run *r, uint64_t within)
{
	r->patience = within;
	if (r->m.ops->late)
		loop_timer_in(r->m.loop, &r->late, within);
}

static void on_late(struct loop_timer *t)
{
	struct run *r = container_of(t, struct run, late);

	r->m.ops->late(r->m.engine);
	expect(r, r->patience * 2);
}

/* What runs in the guest has @guest_ms of the grace to end. */
static void stop_within(struct run *r, const char *reason, uint64_t grace, uint32_t guest_ms)
{
	/* Owner and others may ask at once; who is in a hurry has SIGKILL. */
	if (r->stopping)
		return;
	r->reason = reason;
	manage_stopping(r->manager);
	if (relay_shutdown_guest(r->m.relay, guest_ms) < 0) {
		machine_ended(&r->m, MACHINE_KILLED, "stopped by request");
		return;
	}
	r->stopping = true;
	loop_timer_in(r->m.loop, &r->deadline, grace);
	expect(r, LATE);
}

static void stop(void *arg, const char *reason)
{
	stop_within(arg, reason, STOP_GRACE, 0);
}

static void on_signal(struct loop_source *s, uint32_t events)
{
	struct run *r = container_of(s, struct run, signals);
	struct signalfd_siginfo si;
	uint64_t grace = STOP_GRACE;
	uint32_t waits, guest_ms = 0;

	(void)events;
	if (read(s->fd, &si, sizeof(si)) != sizeof(si))
		return;
	log_info("signal %u from process %u", si.ssi_signo, si.ssi_pid);
	/* Who asks may say for how long it waits, and uses force then. */
	if (si.ssi_code == SI_QUEUE && si.ssi_int > 0) {
		waits = (uint32_t)si.ssi_int;
		grace = MAX(grace, (uint64_t)waits * 1000000 + LATE);
		guest_ms = waits - MIN(waits / 4, STOP_OWN_MS);
	}
	stop_within(r, END_ASKED, grace, guest_ms);
}

static void on_parent(struct loop_source *s, uint32_t events)
{
	struct run *r = container_of(s, struct run, parent);

	(void)events;
	r->orphaned = true;
	machine_ended(&r->m, MACHINE_KILLED, "its owner has gone");
}

/* ---- set-up ---- */

static int open_extent(struct run *r, const struct vm_extent *x, bool read_only, struct err *err)
{
	int fd = open(x->path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);

	if (fd < 0)
		return err_errno(err, "cannot open disk %s", x->path);
	/* Whoever removes images looks whether somebody has such a lock on them. */
	if (read_only)
		(void)io_flock(fd, false, false);
	r->backing.fds[r->backing.n++] = fd;
	return fd;
}

static int read_only_disk(struct run *r, const struct vm_disk *d, struct blk_disk **ret,
			  struct err *err)
{
	const struct vm_extent *x = d->extents.v;
	cleanup_free struct blk_extent *e = calloc(d->extents.n, sizeof(*e));
	uint64_t start = 0;

	if (!e)
		return err_set(err, ENOMEM, "cannot describe disk %s: out of memory", d->serial);
	for (size_t i = 0; i < d->extents.n; i++) {
		uint64_t length;
		int fd = open_extent(r, &x[i], true, err);

		if (fd < 0)
			return fd;
		if (__builtin_mul_overflow(x[i].blocks, 4096u, &length))
			return err_set(err, EINVAL, "disk %s: extent %s is too long", d->serial,
				       x[i].path);
		e[i] = (struct blk_extent){start, length, fd, x[i].offset};
		start += length;
	}
	return blk_extents_new(e, d->extents.n, start, ret, err);
}

static int add_disk(struct run *r, const struct vm_disk *d, struct err *err)
{
	const struct blk_options options = {
		.serial = d->serial,
		.queues = MIN(r->m.config->cpus, 4u),
	};
	struct blk_disk *disk;
	int e;

	if (d->images.n) {
		e = disk_image_open(d, &disk, err);
		if (e >= 0)
			r->largest = MAX(r->largest, disk_image_file_max(disk));
	} else if (d->read_only) {
		e = read_only_disk(r, d, &disk, err);
	} else {
		const struct vm_extent *x = d->extents.v;
		const struct blk_file_options file = {.no_flush = d->volatile_data};

		if (d->extents.n != 1 || x->offset)
			return err_set(err, EINVAL, "disk %s: a writable disk is one file",
				       d->serial);
		e = open_extent(r, x, false, err);
		if (e >= 0)
			e = blk_file_new(e, &file, &disk, err);
	}
	if (e < 0)
		return e;
	e = blk_device_new(disk, &options, &r->m.devices[r->m.ndevices], err);
	if (e < 0) {
		blk_disk_free(disk);
		return e;
	}
	r->m.ndevices++;
	return 0;
}

static int add_disks(struct run *r, struct err *err)
{
	const struct vm_disk *d = r->m.config->disks.v;
	size_t n = r->m.config->disks.n, files = 0;

	if (n > MACHINE_DISKS_MAX)
		return err_set(err, ERR_LIMIT, "%zu disks are more than the %d a machine takes", n,
			       MACHINE_DISKS_MAX);
	for (size_t i = 0; i < n; i++)
		files += d[i].extents.n;
	r->backing.fds = calloc(files, sizeof(int));
	if (files && !r->backing.fds)
		return err_set(err, ENOMEM, "cannot open %zu disk files: out of memory", files);
	for (size_t i = 0; i < n; i++) {
		int e = add_disk(r, &d[i], err);

		if (e < 0)
			return e;
	}
	return 0;
}

static void on_broken(struct virtio_device *dev, const char *why, void *arg)
{
	struct run *r = arg;

	if (log_allow(&r->breaches))
		log_warn("virtio-%s: the guest broke the rules, the device has stopped: %s",
			 dev->ops->name, why);
}

static int add_vsock(struct run *r, int *ret_control, struct err *err)
{
	const struct vsock_options options = {
		.guest_cid = MACHINE_GUEST_CID,
		.accept = accept_control,
		.port = AGENT_CONTROL_PORT,
		.arg = r,
	};
	int p[2], e;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, p) < 0)
		return err_errno(err, "cannot create the control connection");
	*ret_control = p[0];
	r->control_guest = p[1];
	e = vsock_device_new(&options, &r->vsock, err);
	if (e < 0)
		return e;
	r->m.devices[r->m.ndevices++] = r->vsock;
	return r->routes ? routes_start(r->routes, r->vsock, r->m.loop, err) : 0;
}

static int add_net(struct run *r, struct err *err)
{
	int e;

	if (!r->m.config->has_net)
		return 0;
	e = exec_log_new(&r->net_log, r->m.config->dir, &net_log_default, err);
	if (e == 0)
		e = machine_net_new(r->m.config, &r->net, &r->m.net, &r->ports, err);
	if (e < 0)
		return e;
	r->m.devices[r->m.ndevices++] = r->net;
	machine_net_log(r->m.net, r->net_log);
	e = r->dot < 0 ? 0 : machine_net_tls(r->m.net, r->dot, err);
	if (e == 0)
		r->dot = -1;
	return e;
}

/* On the device's worker. */
static void tell_resized(void *arg)
{
	const uint64_t one = 1;

	(void)!write(((struct run *)arg)->resized.fd, &one, sizeof(one));
}

static void on_resized(struct loop_source *s, uint32_t events)
{
	struct run *r = container_of(s, struct run, resized);
	uint64_t n;

	(void)events;
	(void)!read(s->fd, &n, sizeof(n));
	machine_memory(&r->m, mem_plugged(r->m.mem));
}

/* What memory that comes later is asked for with. */
static int add_mem(struct run *r, struct err *err)
{
	const struct vm_config *c = r->m.config;
	const struct memory_plan plan = memory_plan(c->memory, vm_config_memory_max(c));
	const struct mem_options options = {
		.gpa = plan.more, .size = plan.more_size, .changed = tell_resized, .arg = r};
	int e;

	if (!plan.more_size)
		return 0;
	r->resized.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r->resized.fd < 0)
		return err_errno(err, "cannot watch the machine's memory");
	e = loop_add(r->m.loop, &r->resized, EPOLLIN);
	if (e < 0)
		return err_set(err, e, "cannot watch the machine's memory: %s", err_name(e));
	e = mem_device_new(&options, &r->m.mem, err);
	if (e == 0)
		r->m.devices[r->m.ndevices++] = r->m.mem;
	return e;
}

/* What every machine has besides: random numbers, and a way to give memory back. */
static int add_helpers(struct run *r, struct err *err)
{
	int e = rng_device_new(&r->m.devices[r->m.ndevices], err);

	if (e < 0)
		return e;
	r->m.ndevices++;
	if (r->m.ops->own_memory)
		return 0;
	e = balloon_device_new(&r->m.devices[r->m.ndevices], err);
	if (e < 0)
		return e;
	r->m.ndevices++;
	return add_mem(r, err);
}

static int watch_signals(struct run *r, struct err *err)
{
	sigset_t set;
	int e;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	/* main() blocked them before any thread began. */
	r->signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (r->signals.fd < 0)
		return err_errno(err, "cannot watch signals");
	r->signals.fn = on_signal;
	e = loop_add(r->m.loop, &r->signals, EPOLLIN);
	if (e == 0 && r->parent.fd >= 0) {
		r->parent.fn = on_parent;
		e = loop_add(r->m.loop, &r->parent, 0);
	}
	return e < 0 ? err_set(err, e, "cannot watch events: %s", err_name(e)) : 0;
}

/* What the kernel is told whichever engine runs it; kernel/README.md has the measurements. */
static char *kernel_cmdline(const struct vm_config *c)
{
	const bool grows = vm_config_memory_max(c) > c->memory;
	char some[24] = "";

	/* The others can be switched on later. */
	if (vm_config_cpus_on(c) < c->cpus)
		snprintf(some, sizeof(some), " maxcpus=%u", c->cpus_on);
	/* As much of what comes as can be had for things that move goes to those: it can go again.
	 */
	return str_fmt("console=ttyS0 %s panic=-1 reboot=t noreplace-smp%s%s%s%s",
		       c->verbose_kernel ? "ignore_loglevel" : "quiet", some,
		       grows ? " memory_hotplug.online_policy=auto-movable" : "",
		       c->cmdline[0] ? " " : "", c->cmdline);
}

/* Everything is open and nothing has run yet; see machine/jail/jail.h. */
static int confine(struct run *r, struct err *err)
{
	const uint64_t memory = vm_config_memory_max(r->m.config);
	const struct jail_files files = {
		.initramfs = r->m.initramfs,
		.memory = r->m.ops->own_memory ? memory_plan(r->m.config->memory, memory).more_size
					       : 0,
	};
	struct jail_names names = {0};
	uint64_t largest = MAX(memory + files.memory, r->largest);
	struct stat st;
	int e;

	for (size_t i = 0; i < r->backing.n; i++) {
		if (fstat(r->backing.fds[i], &st) == 0)
			largest = MAX(largest, (uint64_t)st.st_size);
	}
	e = jail_close(&r->jail, &files, largest + FILE_SLACK, &names, err);
	if (e < 0)
		return e;
	r->m.initramfs_path = names.initramfs;
	r->m.memory_path = names.memory;
	for (unsigned i = 0; i < r->m.ndevices; i++) {
		const struct virtio_device *d = r->m.devices[i];

		for (unsigned q = 0; q < d->nqueues; q++) {
			struct loop *l = virtio_queue_loop(d, q);

			if (q && l == virtio_queue_loop(d, q - 1))
				continue;
			e = jail_loop(&r->jail, l, d == r->net ? JAIL_NET : JAIL_DEVICE);
			if (e < 0)
				return err_set(err, e, "cannot confine a device: %s", err_name(e));
		}
	}
	e = jail_loop(&r->jail, exec_log_loop(r->log), JAIL_DEVICE);
	if (e == 0 && r->net_log)
		e = jail_loop(&r->jail, exec_log_loop(r->net_log), JAIL_DEVICE);
	if (e < 0)
		return err_set(err, e, "cannot confine the log: %s", err_name(e));
	/* An engine that can hold the guest back is made meanwhile. */
	if (!r->m.ops->run)
		jail_wait(&r->jail);
	return 0;
}

/* Once every thread's walls stand, or do not. */
static void log_walls(const struct jail *j)
{
	cleanup_buf struct buf walls = BUF_INIT;
	char *rest = NULL, *line;

	jail_describe(j, &walls);
	line = buf_cstr(&walls);
	for (line = line ? strtok_r(line, "\n", &rest) : NULL; line;
	     line = strtok_r(NULL, "\n", &rest))
		log_info("jail: %s", line);
}

/* How long each part of the start took, in us, from msb's word to start us. */
static void log_marks(const struct machine *m)
{
	cleanup_buf struct buf b = BUF_INIT;
	uint64_t last = m->config->spawned_ns;
	const char *text;

	if (!log_on(LOG_DEBUG))
		return;
	for (unsigned i = 0; i < m->nmarks; i++) {
		buf_addf(&b, "%s%s %llu", i ? "; " : "", m->mark[i].what,
			 (unsigned long long)(m->mark[i].ns - last) / 1000);
		last = m->mark[i].ns;
	}
	text = buf_cstr(&b);
	log_debug("start in us: %s; in all %llu from %llu", text ? text : "-",
		  (unsigned long long)(last - m->config->spawned_ns) / 1000,
		  (unsigned long long)m->config->spawned_ns);
}

static int set_up(struct run *r, const struct machine_start *start, const char **stage,
		  struct err *err)
{
	const struct vm_config *c = start->config;
	cleanup_close int control = -1, control_fd = start->control_fd;
	int agent_fd = start->agent_fd, e;
	struct exec_log_limits limits = exec_log_default;

	*stage = "config";
	r->m.ops = engine_find(c->engine);
	if (!r->m.ops) {
		close_fd(agent_fd);
		return err_set(err, ERR_USAGE, "there is no engine \"%s\"", c->engine);
	}
	machine_mark(&r->m, "begin");
	e = loop_new(&r->m.loop, err);
	if (e == 0)
		e = watch_signals(r, err);
	if (e == 0)
		e = console_new(&r->console, r->m.loop, c->dir, &r->m.console, err);
	/* One that is thrown away soon has less to tell. */
	if (c->remove_dir)
		limits.files = 2;
	if (e == 0)
		e = exec_log_new(&r->log, c->dir, &limits, err);
	if (e == 0) {
		*stage = "disk";
		e = add_disks(r, err);
	}
	if (e == 0)
		e = add_vsock(r, &control, err);
	if (e == 0) {
		*stage = "network";
		e = add_net(r, err);
	}
	if (e == 0)
		e = add_helpers(r, err);
	if (e < 0) {
		close_fd(agent_fd);
		return e;
	}
	e = manage_new(&r->manager, &r->m, take_fd(&control_fd), stop, r, err);
	if (e < 0) {
		close_fd(agent_fd);
		return e;
	}
	e = relay_new(&r->m.relay, r->m.loop, agent_fd, take_fd(&control), &relay_ops, r, err);
	if (e < 0)
		return e;
	relay_set_log(r->m.relay, r->log);
	for (unsigned i = 0; i < r->m.ndevices; i++)
		virtio_device_on_broken(r->m.devices[i], on_broken, r);
	machine_mark(&r->m, "devices");
	*stage = "kernel";
	e = kernel_image_read(c->kernel, &r->m.kernel, err);
	if (e < 0)
		return e;
	r->m.cmdline = kernel_cmdline(c);
	if (!r->m.cmdline)
		return err_set(err, ENOMEM, "out of memory");
	r->m.initramfs = initramfs_build(c->agentd, c->bootstrap.p, c->bootstrap.n, err);
	if (r->m.initramfs < 0)
		return r->m.initramfs;
	machine_mark(&r->m, "kernel, initramfs");
	*stage = "jail";
	e = confine(r, err);
	if (e < 0)
		return e;
	machine_mark(&r->m, "jail");
	*stage = "engine";
	loop_timer_in(r->m.loop, &r->deadline, READY_TIMEOUT);
	e = r->m.ops->start(&r->m.engine, &r->m, err);
	if (e < 0)
		return e;
	e = jail_seal(&r->jail, err);
	if (e < 0)
		return e;
	log_walls(&r->jail);
	machine_mark(&r->m, "seal");
	if (r->m.ops->run)
		r->m.ops->run(r->m.engine);
	expect(r, LATE);
	log_marks(&r->m);
	return 0;
}

/* Of an end that is no failure. */
static const char *end_in_words(const struct run *r)
{
	if (r->stopping && r->end == MACHINE_SHUTDOWN)
		return "it was asked to";
	return r->why[0] ? r->why : "its guest switched itself off";
}

/* No guest, and everybody has got what it left for them. */
static void wind_up(struct run *r, const char *why)
{
	jail_wait(&r->jail);
	loop_timer_stop(&r->late);
	loop_del(&r->resized);
	r->manager = manage_free(r->manager);
	if (r->m.engine)
		r->m.ops->stop(r->m.engine);
	r->routes = routes_free(r->routes);
	/* The devices deliver what they hold before the relay's clients are cut off. */
	for (unsigned i = 0; i < r->m.ndevices; i++)
		virtio_device_free(r->m.devices[i]);
	r->m.ndevices = 0;
	r->m.net = NULL;
	if (r->m.relay && r->ready && !r->orphaned)
		relay_finish(r->m.relay, DRAIN_MS);
	r->m.relay = relay_free(r->m.relay);
	if (r->ready)
		exec_log_event(r->log, 0, "the sandbox has ended: %s", why);
	r->log = exec_log_free(r->log);
	r->net_log = exec_log_free(r->net_log);
	r->console = console_free(r->console);
	for (size_t i = 0; i < r->backing.n; i++)
		close_fd(r->backing.fds[i]);
	r->backing.n = 0;
}

static void release(struct run *r)
{
	if (r->m.engine)
		r->m.engine = r->m.ops->free(r->m.engine);
	free(r->backing.fds);
	loop_del(&r->signals);
	loop_del(&r->parent);
	loop_timer_stop(&r->deadline);
	close_fd(r->signals.fd);
	close_fd(r->resized.fd);
	close_fd(r->parent.fd);
	close_fd(r->control_guest);
	close_fd(r->dot);
	close_fd(r->m.initramfs);
	close_fd(r->m.console);
	free(r->m.cmdline);
	loop_free(r->m.loop);
}

/* What the end means to the owner: 0 when it is what somebody asked for. */
static int judge(struct run *r, struct err *err)
{
	const char *words = NULL;

	if (r->console) {
		console_drain(r->console);
		words = console_last_words(r->console);
	}
	/* To QEMU the reset that a panic ends with is one like others. */
	if (r->end == MACHINE_SHUTDOWN && words && strstr(words, "Kernel panic")) {
		r->end = MACHINE_PANIC;
		snprintf(r->why, sizeof(r->why), "%s", VM_END_PANIC);
	}
	switch (r->end) {
	case MACHINE_SHUTDOWN:
		if (!r->reason)
			r->reason = END_GUEST;
		if (r->ready)
			return 0;
		err_set(err, ERR_GUEST, "the guest switched itself off before its agent was ready");
		break;
	case MACHINE_KILLED:
		if (r->ready || r->orphaned || r->stopping)
			return 0;
		err_set(err, ECANCELED, "stopped before the guest was ready");
		return -ECANCELED;
	case MACHINE_PANIC:
		err_set(err, ERR_GUEST, "%s", VM_END_PANIC);
		break;
	case MACHINE_HALTED:
		if (r->stopping)
			return 0;
		err_set(err, ERR_GUEST, "%s", r->why);
		break;
	default:
		err_set(err, ERR_GUEST, "%s", r->why[0] ? r->why : "the machine ended");
		break;
	}
	if (words && r->end != MACHINE_BOOT)
		err_set(err, ERR_GUEST, "%s (last words: %s)",
			r->why[0] ? r->why : "the guest died", words);
	return err_hint(err, "see %s/logs/kernel.log and vm.log", r->m.config->dir);
}

int machine_run(const struct machine_start *start, struct err *err)
{
	struct run r = {
		.m = {.config = start->config, .began = tsc_now(), .initramfs = -1, .console = -1},
		.control_guest = -1,
		.dot = -1,
		.parent = {.fd = start->parent_fd},
		.signals = {.fd = -1},
		.resized = {.fn = on_resized, .fd = -1},
		.deadline = {.fn = on_deadline},
		.late = {.fn = on_late},
		.startup_fd = start->startup_fd,
		.jail = JAIL_INIT,
	};
	const struct jail_params walls = {
		.on = !start->config->jail || !str_eq(start->config->jail, "off"),
		.dir = start->config->dir,
		.remove_dir = start->config->remove_dir,
		.kernel = start->config->kernel,
		.engine = start->config->engine,
	};
	const char *stage = "config";
	int e;

	/* The last moment with a single thread is the first. */
	machine_mark(&r.m, "exec, configuration");
	e = routes_begin(start->config, &r.routes, err);
	if (e == 0)
		e = machine_net_begin(start->config, &r.dot, err);
	jail_begin(&r.jail, &walls);
	if (e == 0)
		e = set_up(&r, start, &stage, err);

	if (e == 0) {
		e = loop_run(r.m.loop);
		if (e < 0)
			err_set(err, e, "the event loop failed: %s", err_name(e));
		else
			e = judge(&r, err);
		stage = r.ready ? "guest" : "boot";
	}
	if (e < 0) {
		log_error("%s: %s", stage, err->msg);
		report(&r, err, stage);
	}
	wind_up(&r, e < 0 ? err->msg : end_in_words(&r));
	/* Its owner need not wait for the memory to be freed. */
	if (e == 0 && !r.orphaned)
		report(&r, NULL, "");
	close_fd(r.startup_fd);
	release(&r);
	if (start->config->remove_dir && r.orphaned) {
		struct err ignored = ERR_INIT;

		if (jail_remove_dir(&r.jail, &ignored) < 0)
			log_warn("%s", ignored.msg);
	}
	strv_done(&r.ports);
	jail_done(&r.jail);
	return e;
}
