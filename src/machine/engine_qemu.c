/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `qemu` engine: QEMU's software CPU runs the guest, our devices serve it over vhost-user.
 *
 * Theory of operation. QEMU is a child of the main thread and dies with it (PR_SET_PDEATHSIG), so
 * no order of kills leaves one behind. It gets everything as descriptors: initramfs, console, one
 * end of a socketpair for QMP and for each device; nothing of it has a name in the file system.
 * Guest memory is a memfd of QEMU's, which vhost-user hands to our devices.
 *
 * The end of the machine is the end of the process. QMP tells why: its SHUTDOWN event arrives
 * before the process goes, with the reason. With -no-reboot a guest that resets ends the machine,
 * which is how the agent leaves and also how the kernel does after a panic (panic=-1); the
 * console's last words tell these apart.
 *
 * Memory that comes later. The microvm machine has no place for it, and QEMU's virtio-mem maps
 * nothing itself: it keeps the account, and gives back what is behind blocks that are given up. So
 * the region is ordinary memory of the machine, made of "NUMA nodes" of which the guest hears
 * nothing; "mem=" keeps the kernel from using it, or the filler in front of it, at the boot. The
 * same file is mapped a second time for the device, which thereby gives back the right pages.
 *
 * What a disk writes. QEMU keeps what it has translated of a page until the guest's CPU writes to
 * that page; what our devices write it does not see. A page of the guest's page cache that held a
 * program and gets another one from a disk would be run as the first. So disks do not write to
 * where it is wanted: with "iommu_platform" the kernel of the guest gives them pages of a pool
 * (swiotlb), from where its CPU copies. What other devices write is data, which it copies anyway.
 */
#include "machine/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/str.h"
#include "machine/jail/jail.h"
#include "machine/machine.h"
#include "machine/memory_plan.h"
#include "machine/qmp.h"
#include "virtio/mem.h"
#include "virtio/vhost_user.h"

/* Descriptor numbers in QEMU. */
enum {
	FD_STDERR = 2,
	FD_INITRAMFS = 10,
	FD_CONSOLE,
	FD_QMP,
	FD_MEMORY,
	FD_DEVICE, /* and on, one a device */
};

/* The pool for disks. A request, of at most 256 KiB, that finds no room in it waits. */
#define POOL_MIN  (4ull << 20)
#define POOL_MAX  (8ull << 20)
#define POOL_SLAB 2048 /* the kernel's unit */

struct engine {
	struct machine *m;
	struct proc proc;
	struct loop_source exited, errors;
	struct loop_timer look; /* how much memory has come by now */
	uint64_t look_in, plugged, want;
	int memory; /* the region's file, where it has no name; else -1 */
	struct qmp *qmp;
	struct vhost_user *servers[MACHINE_DEVICES_MAX];
	struct loop_source listener; /* for the network card's connection; see listen_for_net() */
	char net_name[40];
	unsigned net;		/* the card's index */
	atomic_uint complaints; /* of QEMU, some of which a guest can cause */
	bool reset;		/* SHUTDOWN said the guest did it */
	char last_error[400];	/* of what QEMU printed */
};

static void note_error(struct engine *e, char *line)
{
	if (!*line)
		return;
	if (log_allow(&e->complaints))
		log_warn("qemu: %s", line);
	snprintf(e->last_error, sizeof(e->last_error), "%.*s", (int)sizeof(e->last_error) - 1,
		 line);
}

static void on_stderr(struct loop_source *s, uint32_t events)
{
	struct engine *e = container_of(s, struct engine, errors);
	char b[4096], *line = b, *end;
	ssize_t n = read(s->fd, b, sizeof(b) - 1);

	(void)events;
	if (n <= 0) {
		if (n == 0 || (errno != EAGAIN && errno != EINTR))
			loop_del(s);
		return;
	}
	b[n] = '\0';
	while ((end = strchr(line, '\n'))) {
		*end = '\0';
		note_error(e, line);
		line = end + 1;
	}
	note_error(e, line);
}

static void on_child_exit(struct loop_source *s, uint32_t events)
{
	struct engine *e = container_of(s, struct engine, exited);
	char why[512];
	int code;

	(void)events;
	loop_del(s);
	if (loop_source_active(&e->errors))
		on_stderr(&e->errors, EPOLLIN);
	code = proc_wait(&e->proc, -1);
	if (e->reset || (code == 0 && !e->last_error[0])) {
		machine_ended(e->m, MACHINE_SHUTDOWN, "the guest switched itself off");
		return;
	}
	if (code > 128)
		snprintf(why, sizeof(why), "QEMU was killed by signal %d", code - 128);
	else
		snprintf(why, sizeof(why), "QEMU ended with status %d%s%s", code,
			 e->last_error[0] ? ": " : "", e->last_error);
	machine_ended(e->m, MACHINE_CRASH, why);
}

/* ---- memory that comes later ---- */

/*
 * How soon to look again while it is on its way, and at most while it does not move. Nothing else
 * tells: the event is the PCI device's.
 */
#define LOOK_AGAIN ((uint64_t)50 * 1000000)
#define LOOK_LATER ((uint64_t)1000 * 1000000)

static int ask_memory(struct engine *e, const char *command, const char *property,
		      const char *value)
{
	char arguments[128];

	snprintf(arguments, sizeof(arguments),
		 "{\"path\":\"/machine/peripheral/more\",\"property\":\"%s\"%s%s}", property,
		 value ? ",\"value\":" : "", value ? value : "");
	return qmp_execute(e->qmp, command, arguments);
}

static void on_look(struct loop_timer *t)
{
	(void)ask_memory(container_of(t, struct engine, look), "qom-get", "size", NULL);
}

static void on_memory(struct engine *e, uint64_t bytes)
{
	e->look_in = bytes == e->plugged ? MIN(e->look_in * 2, LOOK_LATER) : LOOK_AGAIN;
	e->plugged = bytes;
	if (bytes != e->want)
		(void)loop_timer_in(e->m->loop, &e->look, e->look_in);
	machine_memory(e->m, bytes);
}

static int qemu_want_memory(struct engine *e, uint64_t bytes, struct err *err)
{
	char value[24];
	int r;

	snprintf(value, sizeof(value), "%llu", (unsigned long long)bytes);
	e->want = bytes;
	e->look_in = LOOK_AGAIN;
	r = ask_memory(e, "qom-set", "requested-size", value);
	if (r == 0)
		r = loop_timer_in(e->m->loop, &e->look, e->look_in);
	return r < 0 ? err_set(err, r, "QEMU takes no commands: %s", err_name(r)) : 0;
}

static void on_qmp_event(void *arg, const char *event, json_t *data)
{
	struct engine *e = arg;
	const char *reason = json_string_value(json_object_get(data, "reason"));

	if (!event) {
		on_memory(e, (uint64_t)json_integer_value(data));
		return;
	}
	log_debug("qemu event %s%s%s", event, reason ? ": " : "", reason ? reason : "");
	if (str_eq(event, "SHUTDOWN") && reason && str_starts(reason, "guest-"))
		e->reset = true;
	else if (str_eq(event, "STOP") || str_eq(event, "RESUME"))
		machine_paused(e->m, event[0] == 'S');
}

static void on_server_end(struct vhost_user *vu, const struct err *err, void *arg)
{
	struct engine *e = arg;

	(void)vu;
	if (err->code)
		machine_ended(e->m, MACHINE_CRASH, err->msg);
}

/* ---- start ---- */

/* Two ends of a connection: ours, and QEMU's as descriptor number @to. */
static int connect_child(struct proc_fd *f, int to, int *ours, struct err *err)
{
	int p[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p) < 0)
		return err_errno(err, "cannot create a connection to QEMU");
	*ours = p[0];
	*f = (struct proc_fd){p[1], to};
	return 0;
}

/*
 * QEMU takes no descriptor for a network card's vhost-user connection: it wants a name to connect
 * to. It gets an abstract one, which in the jail exists in a net namespace that nobody else is in.
 * Without a jail the name is hard to guess, and only QEMU is listened to.
 */
static int listen_for_net(struct engine *e, struct err *err)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	uint64_t r[2];
	size_t n;

	if (fd < 0 || getrandom(r, sizeof(r), 0) != sizeof(r))
		return err_errno(err, "cannot create a connection to QEMU");
	n = (size_t)snprintf(e->net_name, sizeof(e->net_name), "msb%016llx%016llx",
			     (unsigned long long)r[0], (unsigned long long)r[1]);
	memcpy(sa.sun_path + 1, e->net_name, n);
	if (bind(fd, (const void *)&sa,
		 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n)) < 0 ||
	    listen(fd, 1) < 0)
		return err_errno(err, "cannot create a connection to QEMU");
	e->listener.fd = take_fd(&fd);
	return 0;
}

static void on_net_connection(struct loop_source *s, uint32_t events)
{
	struct engine *e = container_of(s, struct engine, listener);
	cleanup_close int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);
	struct ucred peer = {0};
	socklen_t n = sizeof(peer);
	struct err err = ERR_INIT;

	(void)events;
	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0 ||
	    peer.pid != e->proc.pid)
		return;
	loop_del(s);
	s->fd = close_fd(s->fd);
	if (vhost_user_new(e->m->devices[e->net], e->m->loop, fd, on_server_end, e,
			   &e->servers[e->net], &err) < 0)
		machine_ended(e->m, MACHINE_CRASH, err.msg);
	else
		take_fd(&fd);
}

/*
 * The guest sees the host's time-stamp counter and QEMU's APIC timer, which runs at 1 GHz. Told
 * both frequencies its kernel calibrates nothing, and needs neither PIT nor PIC. Without the first
 * one it has to measure against the PIT, some 50 ms.
 */
static char *cmdline(const struct machine *m, uint32_t tsc_khz)
{
	cleanup_free char *tsc =
		tsc_khz ? str_fmt(" tsc=reliable tsc_early_khz=%u", tsc_khz) : strdup("");

	const struct vm_config *c = m->config;
	const struct memory_plan plan = memory_plan(c->memory, vm_config_memory_max(c));
	const uint64_t pool = MIN(MAX(c->memory / 128, POOL_MIN), POOL_MAX);
	char mem[40] = "";

	if (plan.more_size)
		snprintf(mem, sizeof(mem), " mem=%llu", (unsigned long long)plan.end);
	return tsc ? str_fmt("%s no_timer_check lapic_timer_khz=1000000 swiotlb=%d,force%s%s",
			     m->cmdline, (int)(pool / POOL_SLAB), tsc, mem)
		   : NULL;
}

/* Under -icount time is counted in instructions, one a nanosecond. */
static uint32_t guest_tsc_khz(const struct machine *m, const char *extra)
{
	return extra && strstr(extra, "-icount") ? 1000000 : tsc_khz_since(&m->began);
}

/* All the memory the machine has... */
static int add_memory(struct strv *v, const struct engine *e)
{
	const struct vm_config *c = e->m->config;
	const struct memory_plan plan = memory_plan(c->memory, vm_config_memory_max(c));
	const uint64_t hole = plan.end < MEMORY_HOLE_END && plan.more >= MEMORY_HOLE_END
				      ? MEMORY_HOLE_END - MEMORY_HOLE
				      : 0;
	const uint64_t filler = plan.more_size ? plan.more - plan.end - hole : 0;
	char path[64];
	int r = 0;

#define ARG(...) (r |= strv_addf(v, __VA_ARGS__))
	ARG("-object"), ARG("memory-backend-memfd,id=mem,size=%lluM,share=on%s",
			    (unsigned long long)(c->memory >> 20),
			    c->huge_pages ? ",hugetlb=on,hugetlbsize=2M" : "");
	ARG("-m"), ARG("%lluM", (unsigned long long)((c->memory + filler + plan.more_size) >> 20));
	if (!plan.more_size)
		return r;
	ARG("-numa"), ARG("node,memdev=mem");
	if (filler) {
		ARG("-object"), ARG("memory-backend-ram,id=filler,size=%lluM",
				    (unsigned long long)(filler >> 20));
		ARG("-numa"), ARG("node,memdev=filler");
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", FD_MEMORY);
	for (unsigned i = 0; i < 2; i++) {
		ARG("-object");
		ARG("memory-backend-file,id=more%u,size=%lluM,share=on,mem-path=%s", i,
		    (unsigned long long)(plan.more_size >> 20),
		    e->m->memory_path ? e->m->memory_path : path);
	}
	ARG("-numa"), ARG("node,memdev=more0");
	ARG("-device"), ARG("virtio-mem,id=more,memdev=more1,memaddr=%llu,block-size=%llu",
			    (unsigned long long)plan.more, (unsigned long long)MEM_BLOCK);
#undef ARG
	return r;
}

static int add_arguments(struct strv *v, const struct engine *e)
{
	const struct machine *m = e->m;
	const struct vm_config *c = m->config;
	const char *qemu = getenv("MSB_QEMU"), *extra = getenv("MSB_QEMU_ARGS");
	uint32_t tsc_khz = guest_tsc_khz(m, extra);
	cleanup_free char *append = cmdline(m, tsc_khz);
	int r = append ? 0 : -ENOMEM;

	r |= strv_add(v, qemu && *qemu ? qemu : "qemu-system-x86_64");
#define ARG(...) (r |= strv_addf(v, __VA_ARGS__))
	ARG("-name"), ARG("%s", c->name);
	ARG("-M"), ARG("microvm,acpi=off,x-option-roms=off,pcie=off,usb=off,rtc=on,isa-serial=on,"
		       "pit=%s,pic=%s%s",
		       tsc_khz ? "off" : "on", tsc_khz ? "off" : "on",
		       vm_config_memory_max(c) > c->memory ? "" : ",memory-backend=mem");
	ARG("-accel"), ARG("tcg,thread=multi");
	/* "max" for RDRAND, without which the kernel spins for entropy; erms is one byte at a time
	 * in the emulator. kernel/README.md has the measurements. */
	ARG("-cpu"), ARG("max,-erms");
	ARG("-smp"), ARG("%u", c->cpus);
	r |= add_memory(v, e);
	ARG("-nodefaults"), ARG("-no-user-config"), ARG("-no-reboot");
	ARG("-display"), ARG("none");
	ARG("-global"), ARG("virtio-mmio.force-legacy=false");
	ARG("-kernel"), ARG("%s", c->kernel);
	ARG("-initrd");
	if (m->initramfs_path)
		ARG("%s", m->initramfs_path);
	else
		ARG("/proc/self/fd/%d", FD_INITRAMFS);
	ARG("-append"), ARG("%s", append ? append : "");
	/* By number, as the jail has no /proc; appending, as a pipe cannot be truncated. */
	ARG("-add-fd"), ARG("fd=%d,set=1", FD_CONSOLE);
	ARG("-chardev"), ARG("file,id=console,path=/dev/fdset/1,append=on");
	ARG("-serial"), ARG("chardev:console");
	ARG("-chardev"), ARG("socket,id=qmp,fd=%d", FD_QMP);
	ARG("-mon"), ARG("chardev=qmp,mode=control");
	/* Inside of ours, which could not refuse what starts a program: exec among it. */
	if (jail_filters()) {
		ARG("-sandbox");
		ARG("on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	}
	for (unsigned i = 0; i < m->ndevices; i++) {
		const struct virtio_device *d = m->devices[i];

		if (str_eq(d->ops->name, "net")) {
			ARG("-chardev"), ARG("socket,id=d%u,path=%s,abstract=on", i, e->net_name);
			ARG("-netdev"), ARG("vhost-user,id=n%u,chardev=d%u", i, i);
			ARG("-device"), ARG("virtio-net-device,netdev=n%u,ctrl_vq=off,ctrl_rx=off,"
					    "ctrl_rx_extra=off,ctrl_vlan=off,ctrl_mac_addr=off,"
					    "ctrl_guest_offloads=off,guest_announce=off",
					    i);
			continue;
		}
		ARG("-chardev"), ARG("socket,id=d%u,fd=%d", i, FD_DEVICE + (int)i);
		ARG("-device");
		if (str_eq(d->ops->name, "blk"))
			ARG("vhost-user-blk,chardev=d%u,num-queues=%u,iommu_platform=on", i,
			    d->nqueues);
		else if (str_eq(d->ops->name, "rng"))
			ARG("vhost-user-rng,chardev=d%u", i);
		else
			ARG("vhost-user-%s-device,chardev=d%u", d->ops->name, i);
	}
	/* QEMU has no vhost-user front-end for this one. */
	ARG("-device"), ARG("virtio-balloon-device,deflate-on-oom=on,free-page-reporting=on");
#undef ARG
	/* For benchmarks and bug hunts, as in MSB_QEMU_ARGS="-icount shift=0,sleep=off". */
	if (extra && *extra) {
		cleanup_free char *copy = strdup(extra);
		char *save = NULL;

		for (char *w = copy ? strtok_r(copy, " ", &save) : NULL; w;
		     w = strtok_r(NULL, " ", &save))
			r |= strv_add(v, w);
	}
	return r ? -ENOMEM : 0;
}

/* The file for memory that comes later, if it has no name that QEMU can open. */
static int make_memory(struct engine *e, struct err *err)
{
	const struct vm_config *c = e->m->config;
	const struct memory_plan plan = memory_plan(c->memory, vm_config_memory_max(c));

	if (!plan.more_size || e->m->memory_path)
		return 0;
	e->memory = io_memfd("guest-memory", NULL, 0, err);
	if (e->memory < 0)
		return e->memory;
	return ftruncate(e->memory, (off_t)plan.more_size) < 0
		       ? err_errno(err, "cannot make room for the guest's memory")
		       : 0;
}

static int spawn(struct engine *e, struct err *err)
{
	struct machine *m = e->m;
	struct proc_fd fds[FD_DEVICE + MACHINE_DEVICES_MAX];
	static const char *const env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
					  NULL};
	cleanup_strv struct strv argv = {0};
	struct proc_spec spec = {
		.fds = fds,
		.envp = env,
		.die_with_parent = true,
	};
	int ours[MACHINE_DEVICES_MAX], qmp = -1, errors[2], r;
	unsigned n = 0, made = 0;

	if (pipe2(errors, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_errno(err, "cannot start QEMU");
	e->errors.fd = errors[0];
	fds[n++] = (struct proc_fd){errors[1], FD_STDERR};
	r = connect_child(&fds[n], FD_QMP, &qmp, err);
	if (r < 0)
		goto out;
	n++;
	r = make_memory(e, err);
	if (r < 0)
		goto out;
	for (; made < m->ndevices; made++) {
		ours[made] = -1;
		if (str_eq(m->devices[made]->ops->name, "net")) {
			e->net = made;
			r = listen_for_net(e, err);
			if (r < 0)
				goto out;
			continue;
		}
		r = connect_child(&fds[n], FD_DEVICE + (int)made, &ours[made], err);
		if (r < 0)
			goto out;
		n++;
	}
	if (add_arguments(&argv, e) < 0) {
		r = err_set(err, ENOMEM, "cannot start QEMU: out of memory");
		goto out;
	}
	spec.path = argv.v[0];
	spec.argv = (const char *const *)argv.v;
	fds[n] = (struct proc_fd){m->initramfs, FD_INITRAMFS};
	fds[n + 1] = (struct proc_fd){m->console, FD_CONSOLE};
	spec.nfds = n + 2;
	if (e->memory >= 0)
		fds[spec.nfds++] = (struct proc_fd){e->memory, FD_MEMORY};
	r = proc_spawn(&e->proc, &spec, err);
	if (r == -ENOENT) {
		err_set(err, ENOENT, "QEMU is not installed: there is no %s", argv.v[0]);
		err_hint(err, "install it: apt-get install qemu-system-x86");
	}
	if (r < 0)
		goto out;
	m->console = close_fd(m->console);
	e->memory = close_fd(e->memory);
	r = qmp_new(&e->qmp, m->loop, take_fd(&qmp), on_qmp_event, e, err);
	for (unsigned i = 0; r == 0 && i < m->ndevices; i++) {
		if (ours[i] < 0)
			continue;
		r = vhost_user_new(m->devices[i], m->loop, ours[i], on_server_end, e,
				   &e->servers[i], err);
		if (r == 0)
			ours[i] = -1;
	}
out:
	/* Whether it worked or not: what QEMU inherited, and what nobody took. */
	for (unsigned i = 0; i < n; i++)
		close_fd(fds[i].from);
	for (unsigned i = 0; i < made; i++)
		close_fd(ours[i]);
	close_fd(qmp);
	return r;
}

static int qemu_pause(struct engine *e, bool pause, struct err *err)
{
	int r = qmp_execute(e->qmp, pause ? "stop" : "cont", NULL);

	return r < 0 ? err_set(err, r, "QEMU takes no commands: %s", err_name(r)) : 0;
}

static void qemu_usage(struct engine *e, struct engine_usage *ret)
{
	/* clock_getcpuclockid() without asking whether there is such a process: it is our child. */
	clockid_t clock = (clockid_t)(~(unsigned)e->proc.pid << 3 | 2);
	struct timespec ts = {0};

	(void)clock_gettime(clock, &ts);
	ret->cpu_ns = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
	/*
	 * All devices were given the same memory; the first there is knows it. The network card's
	 * server is there once QEMU has connected.
	 */
	ret->memory = 0;
	for (unsigned i = 0; i < e->m->ndevices && !ret->memory; i++)
		ret->memory = e->servers[i] ? vhost_user_resident(e->servers[i]) : 0;
}

static void qemu_stop(struct engine *e)
{
	loop_del(&e->exited);
	loop_del(&e->errors);
	loop_del(&e->listener);
	loop_timer_stop(&e->look);
	e->listener.fd = close_fd(e->listener.fd);
	proc_destroy(&e->proc);
	e->qmp = qmp_free(e->qmp);
	for (unsigned i = 0; i < e->m->ndevices; i++)
		e->servers[i] = vhost_user_free(e->servers[i]);
}

static struct engine *qemu_free(struct engine *e)
{
	if (!e)
		return NULL;
	qemu_stop(e);
	close_fd(e->errors.fd);
	close_fd(e->memory);
	free(e);
	return NULL;
}

static int qemu_start(struct engine **ret, struct machine *m, struct err *err)
{
	struct engine *e = calloc(1, sizeof(*e));
	int r;

	if (!e)
		return err_set(err, ENOMEM, "cannot start QEMU: out of memory");
	e->m = m;
	e->proc = (struct proc)PROC_INIT;
	e->memory = -1;
	e->look.fn = on_look;
	e->errors = (struct loop_source){.fn = on_stderr, .fd = -1};
	e->listener = (struct loop_source){.fn = on_net_connection, .fd = -1};
	r = spawn(e, err);
	if (r == 0) {
		e->exited = (struct loop_source){.fn = on_child_exit, .fd = e->proc.pidfd};
		r = loop_add(m->loop, &e->exited, EPOLLIN);
		if (r == 0)
			r = loop_add(m->loop, &e->errors, EPOLLIN);
		if (r == 0 && e->listener.fd >= 0)
			r = loop_add(m->loop, &e->listener, EPOLLIN);
		if (r < 0)
			err_set(err, r, "cannot watch QEMU: %s", err_name(r));
	}
	if (r < 0) {
		qemu_free(e);
		return r;
	}
	*ret = e;
	return 0;
}

const struct engine_ops engine_qemu = {
	.name = "qemu",
	.own_memory = true,
	.start = qemu_start,
	.pause = qemu_pause,
	.usage = qemu_usage,
	.want_memory = qemu_want_memory,
	.stop = qemu_stop,
	.free = qemu_free,
};
