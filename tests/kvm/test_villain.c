/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `kvm` engine with real devices against a guest that breaks every rule: the payload in
 * tests/kvm/villain/. What its cases (villain/cases.h) survive runs in one machine for each target,
 * what ends a machine in one of its own. Besides what the case itself expects, none may hang us,
 * harm a file, or keep a processor busy for nothing.
 *
 *	test_villain [NAME[@TARGET]...]		only these, each in a machine of its own
 *	test_villain PART/PARTS			one machine of so many, from this one on
 *
 * Stands in for machine.c: hence its own machine_ended().
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/str.h"
#include "machine/engine.h"
#include "machine/kvm/vm.h"
#include "machine/machine.h"
#include "machine/memory_plan.h"
#include "machine/net.h"
#include "test.h"
#include "villain/cases.h"
#include "virtio/balloon.h"
#include "virtio/blk.h"
#include "virtio/mem.h"
#include "virtio/rng.h"
#include "virtio/vsock.h"

enum {
	SMALL_MIB = 64,
	LARGE_MIB = 3 * 1024 + 64, /* some of it above 4 GiB */
	DISK_SIZE = 256 << 20,
	PATTERN = VILLAIN_SECTORS * BLK_SECTOR,
	CUT = 10000, /* the read-only disk changes from one file to the other here */
	HOST_ENDS = 128,
	DEADLINE_MS = 600000,
	IDLE_WINDOW_MS = 200,
	IDLE_WINDOWS = 100,
	LOOK_MS = 300, /* at machines that do something for ever */
};

struct row {
	const char *name;
	enum villain_target target;
	unsigned cpus;
	enum villain_fate fate;
	const char *words;
};

#define CASE(name, target, cpus, fate, words) {#name, target, cpus, fate, words},
static const struct row rows[] = {VILLAIN_CASES(CASE)};

/* A machine: one case, or all of a target that let it live. */
struct instance {
	const struct row *row; /* NULL: all */
	enum villain_target target;
	const char *on;
	unsigned cpus;
	char title[80];
};

struct world {
	struct machine m;
	const struct instance *i;
	struct vm_config config;
	struct engine *engine;
	char kernel[512], cmdline[256];
	int disk, first, second, log;
	struct loop_source out;
	struct loop_timer late, look;
	char line[128];
	size_t line_n;

	bool expects_end, timed_out, idle;
	char failure[512];
	unsigned ends, windows, verdicts;
	enum machine_end how;
	char why[512];
	uint64_t cpu_time;
	/* Of the case that runs: */
	unsigned breaks;
	char broken[160];
	/* Only the socket device's worker: */
	int host_end[HOST_ENDS];
	unsigned next_end;
};

static enum villain_fate fate(const struct world *w)
{
	return w->i->row ? w->i->row->fate : WORKS;
}

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

/* Into the console's pipe, so that it is in order with what the guest says. */
static void on_broken(struct virtio_device *dev, const char *why, void *arg)
{
	const struct world *w = arg;

	(void)dprintf(w->m.console, "\nbroken %s: %s\n", dev->ops->name, why);
}

static int on_accept(struct virtio_device *dev, uint32_t guest_port, uint32_t host_port, void *arg)
{
	struct world *w = arg;
	int p[2], *slot = &w->host_end[w->next_end++ % HOST_ENDS];

	(void)dev, (void)guest_port, (void)host_port;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p) < 0)
		return -errno;
	(void)!write(p[1], VILLAIN_GREETING, sizeof(VILLAIN_GREETING) - 1);
	close_fd(*slot);
	*slot = p[1];
	return p[0];
}

/*
 * Two devices may be told to use the same memory of the guest, and what makes one use come before
 * the other is the guest, which ThreadSanitizer does not see. So it leaves out the functions that
 * touch this memory, and watches everything else.
 */
const char *__tsan_default_suppressions(void) __attribute__((visibility("default")));

const char *__tsan_default_suppressions(void)
{
	return "race:^transfer$\nrace:^move$\nrace:^read_desc$\nrace:^load16$\n"
	       "race:^virtqueue_\nrace:^guest_memory_read$\n"
	       "race:^vsock_conn_read$\nrace:^socket_write$\nrace:^buf_add$\n";
}

/* ---- the machine ---- */

static void fill(uint8_t pattern[PATTERN])
{
	for (unsigned i = 0; i < PATTERN; i++)
		pattern[i] = (uint8_t)(i / BLK_SECTOR * 7 + i % BLK_SECTOR);
}

static int make_file(const void *p, size_t n, off_t size)
{
	int fd = io_memfd("disk", p, n, NULL);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	return fd;
}

static void add(struct world *w, struct virtio_device *dev)
{
	virtio_device_on_broken(dev, on_broken, w);
	w->m.devices[w->m.ndevices++] = dev;
}

static void add_disks(struct world *w)
{
	const struct blk_options options = {.queues = 2};
	const struct blk_file_options file = {0};
	struct virtio_device *dev;
	struct blk_extent extents[2];
	struct blk_disk *d;
	uint8_t pattern[PATTERN];

	fill(pattern);
	w->disk = make_file(pattern, PATTERN, DISK_SIZE);
	w->first = make_file(pattern, CUT, CUT);
	w->second = make_file(pattern + CUT - 5, PATTERN - CUT + 5, PATTERN - CUT + 5);
	extents[0] = (struct blk_extent){0, CUT, w->first, 0};
	extents[1] = (struct blk_extent){CUT, PATTERN - CUT, w->second, 5};
	assert_int_equal(blk_file_new(w->disk, &file, &d, NULL), 0);
	assert_int_equal(blk_device_new(d, &options, &dev, NULL), 0);
	add(w, dev);
	assert_int_equal(blk_extents_new(extents, 2, DISK_SIZE, &d, NULL), 0);
	assert_int_equal(blk_device_new(d, &options, &dev, NULL), 0);
	add(w, dev);
}

static void add_vsock(struct world *w)
{
	const struct vsock_options options = {.max_connections = 64};
	struct virtio_device *dev;

	for (unsigned i = 0; i < HOST_ENDS; i++)
		w->host_end[i] = -1;
	assert_int_equal(vsock_device_new(&options, &dev, NULL), 0);
	assert_int_equal(vsock_listen(dev, VILLAIN_PORT, on_accept, w), 0);
	add(w, dev);
}

/* What its gateway stands for is all that the guest may reach. */
static void add_net(struct world *w)
{
	static char profiles[] = "host";
	/* Where its rows are about the network, more is sent than may be. */
	static char connections[] = "max-connections=64", rate[] = "max-connection-rate=100/1s",
		    frames[] = "egress-ops=64/100ms";
	static char *limits[] = {connections, rate, frames};
	struct strv published = {0};
	struct machine_net *net;
	struct virtio_device *dev;

	w->config.net.profiles = profiles;
	if (w->i->target == NET)
		w->config.net.limits = (struct wire_texts){limits, ARRAY_SIZE(limits)};
	assert_int_equal(machine_net_new(&w->config, &dev, &net, &published, NULL), 0);
	strv_done(&published);
	add(w, dev);
}

static void on_line(struct world *w);

static void on_console(struct loop_source *s, uint32_t events)
{
	struct world *w = container_of(s, struct world, out);
	char b[65536];
	ssize_t n = read(s->fd, b, sizeof(b));

	(void)events;
	for (ssize_t i = 0; i < n; i++) {
		if (b[i] == '\n') {
			w->line[w->line_n] = '\0';
			on_line(w);
			w->line_n = 0;
		} else if (w->line_n < sizeof(w->line) - 1) {
			w->line[w->line_n++] = b[i];
		}
	}
}

static void on_late(struct loop_timer *t)
{
	struct world *w = container_of(t, struct world, late);

	w->timed_out = true;
	loop_quit(w->m.loop, 0);
}

static uint64_t cpu_time(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000u +
	       (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* Has the last window been one in which we did nothing? */
static void on_look(struct loop_timer *t)
{
	struct world *w = container_of(t, struct world, look);
	uint64_t used = cpu_time() - w->cpu_time;

	w->idle = used < IDLE_WINDOW_MS * 1000u / 4;
	if (fate(w) == STAYS && !w->idle && ++w->windows < IDLE_WINDOWS) {
		w->cpu_time = cpu_time();
		loop_timer_in(w->m.loop, t, IDLE_WINDOW_MS * 1000000ull);
		return;
	}
	loop_quit(w->m.loop, 0);
}

static void on_expected_end(struct world *w)
{
	unsigned ms = fate(w) == STAYS ? IDLE_WINDOW_MS : LOOK_MS;

	w->expects_end = true;
	w->cpu_time = cpu_time();
	if (fate(w) != ENDS)
		loop_timer_in(w->m.loop, &w->look, ms * 1000000ull);
}

static void note_failure(struct world *w, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* The first counts. */
static void note_failure(struct world *w, const char *fmt, ...)
{
	va_list ap;

	if (w->failure[0])
		return;
	va_start(ap, fmt);
	vsnprintf(w->failure, sizeof(w->failure), fmt, ap);
	va_end(ap);
}

static void check_case(struct world *w, const struct row *c)
{
	w->verdicts++;
	if (c->fate == WORKS && w->breaks)
		note_failure(w, "%s: broken: %s", c->name, w->broken);
	if (c->fate == BREAKS && !w->breaks)
		note_failure(w, "%s: nobody was told that the device is broken", c->name);
	if (c->fate == BREAKS && !strstr(w->broken, c->words))
		note_failure(w, "%s: \"%s\" is not in \"%s\"", c->name, c->words, w->broken);
	w->breaks = 0;
	w->broken[0] = '\0';
}

static void on_line(struct world *w)
{
	const struct row *c = NULL;
	char mark[BLK_SECTOR];
	const char *rest;

	if (strncmp(w->line, "exception ", 10) == 0)
		note_failure(w, "%s", w->line);
	if (strncmp(w->line, "broken ", 7) == 0) {
		w->breaks++;
		snprintf(w->broken, sizeof(w->broken), "%s", w->line + 7);
	}
	if (strncmp(w->line, "villain ", 8) != 0)
		return;
	if (strcmp(w->line, "villain wait") == 0) {
		memset(mark, 'x', sizeof(mark));
		(void)!pwrite(w->disk, mark, sizeof(mark), (off_t)VILLAIN_MAILBOX * BLK_SECTOR);
		return;
	}
	rest = strchr(w->line, ':');
	for (size_t i = 0; rest && i < ARRAY_SIZE(rows); i++) {
		size_t n = strlen(rows[i].name);

		if (w->line + 8 + n == rest && memcmp(rows[i].name, w->line + 8, n) == 0)
			c = &rows[i];
	}
	if (c && strcmp(rest, ": ok") == 0)
		check_case(w, c);
	else if (c && strcmp(rest, ": expect-end") == 0)
		on_expected_end(w);
	else
		note_failure(w, "%s", w->line);
}

static uint64_t memory_for(const struct instance *i)
{
	struct sysinfo si;

	/* Only what a case touches is ever taken from the host. */
	if ((i->target == EACH_QUEUE || i->target == BALLOON) && sysinfo(&si) == 0 &&
	    ((uint64_t)si.totalram * si.mem_unit >> 20) > LARGE_MIB)
		return (uint64_t)LARGE_MIB << 20;
	return (uint64_t)SMALL_MIB << 20;
}

/* Only where it is wanted: it adds to what there is of memory. */
static bool wants_mem(const struct instance *i)
{
	return i->target == MEMORY || str_eq(i->on, "mem");
}

static void add_mem(struct world *w)
{
	const struct memory_plan p =
		memory_plan(w->config.memory, vm_config_memory_max(&w->config));
	const struct mem_options o = {.gpa = p.more, .size = p.more_size};
	struct virtio_device *dev;

	if (!p.more_size)
		return;
	assert_true(p.more_size == MEM_BLOCKS * MEM_BLOCK);
	assert_int_equal(mem_device_new(&o, &dev, NULL), 0);
	mem_want(dev, MEM_GIVEN * MEM_BLOCK);
	add(w, dev);
}

static void world_init(struct world *w, const struct instance *i)
{
	const char *build = getenv("MSB_BUILD");
	struct virtio_device *dev;
	struct err err = ERR_INIT;
	int p[2];

	*w = (struct world){.i = i};
	snprintf(w->kernel, sizeof(w->kernel), "%s/tests/villain", build ? build : "build");
	snprintf(w->cmdline, sizeof(w->cmdline), "villain=%s kind=%u on=%s%s",
		 i->row ? i->row->name : "all", i->target, i->on,
		 getenv("MSB_BOX") ? " few=1" : "");
	w->config = (struct vm_config){
		.name = w->kernel, .kernel = w->kernel, .cpus = i->cpus, .memory = memory_for(i)};
	if (wants_mem(i))
		w->config.memory_max = w->config.memory + MEM_BLOCKS * MEM_BLOCK;
	w->m.config = &w->config;
	w->m.cmdline = w->cmdline;
	assert_int_equal(loop_new(&w->m.loop, &err), 0);
	assert_int_equal(pipe2(p, O_CLOEXEC | O_NONBLOCK), 0);
	if (i->target == MACHINE)
		assert_in_range(fcntl(p[1], F_SETPIPE_SZ, VILLAIN_CONSOLE), 1, VILLAIN_CONSOLE);
	w->out = (struct loop_source){.fn = on_console, .fd = p[0]};
	assert_int_equal(loop_add(w->m.loop, &w->out, EPOLLIN), 0);
	w->late.fn = on_late;
	w->look.fn = on_look;
	w->m.console = p[1];
	w->log = make_file("", 0, 0);
	log_open(w->log, LOG_WARN, NULL);
	w->m.initramfs = io_memfd("initramfs", "x", 1, NULL);
	if (kernel_image_read(w->kernel, &w->m.kernel, &err) < 0)
		fail_msg("%s", err.msg);
	add_disks(w);
	add_vsock(w);
	assert_int_equal(rng_device_new(&dev, NULL), 0);
	add(w, dev);
	assert_int_equal(balloon_device_new(&dev, NULL), 0);
	add(w, dev);
	add_mem(w);
	add_net(w);
	/* A new device: here. */
}

static void check_file(int fd, const uint8_t *want, size_t n)
{
	uint8_t have[PATTERN];

	assert_int_equal(io_pread_full(fd, have, n, 0), n);
	assert_memory_equal(have, want, n);
}

static void check_files(const struct world *w)
{
	uint8_t pattern[PATTERN];

	fill(pattern);
	check_file(w->disk, pattern, PATTERN);
	check_file(w->first, pattern, CUT);
	check_file(w->second, pattern + CUT - 5, PATTERN - CUT + 5);
}

/* A queue that cannot work is told of, and not for ever. */
static void check_log(const struct world *w)
{
	char log[65536] = "";
	unsigned n = 0;

	assert_in_range(pread(w->log, log, sizeof(log) - 1, 0), 0, sizeof(log) - 2);
	for (const char *p = log; (p = strstr(p, "set up a queue that cannot work")); p++)
		n++;
	if (w->i->target != EACH_QUEUE || (w->i->row && !str_eq(w->i->row->name, "areas_refused")))
		return;
	assert_int_equal(n, LOG_LIMIT);
	assert_non_null(strstr(log, ": outside guest memory"));
	assert_non_null(strstr(log, ": its size or alignment"));
}

static void world_done(struct world *w)
{
	w->engine = engine_kvm.free(w->engine);
	/* What was still in the pipe when the machine ended. */
	on_console(&w->out, 0);
	for (unsigned i = 0; i < w->m.ndevices; i++)
		virtio_device_free(w->m.devices[i]);
	check_files(w);
	log_open(-1, LOG_OFF, NULL);
	check_log(w);
	loop_del(&w->out);
	loop_timer_stop(&w->late);
	loop_timer_stop(&w->look);
	loop_free(w->m.loop);
	for (unsigned i = 0; i < HOST_ENDS; i++)
		close_fd(w->host_end[i]);
	close_fd(w->out.fd);
	close_fd(w->disk);
	close_fd(w->first);
	close_fd(w->second);
	close_fd(w->log);
	close_fd(w->m.console);
	close_fd(w->m.initramfs);
}

/* ---- the verdict ---- */

static unsigned cases_of(const struct instance *i)
{
	unsigned n = 0;

	for (size_t k = 0; k < ARRAY_SIZE(rows); k++)
		n += rows[k].target == i->target && rows[k].fate <= SURVIVES;
	return i->row ? 1 : n;
}

static void check_verdict(struct world *w)
{
	const struct row *c = w->i->row;

	if (w->timed_out)
		note_failure(w, "nothing came of it in %d s; last line: %s, broken: %s",
			     DEADLINE_MS / 1000, w->line, w->broken);
	switch (fate(w)) {
	case WORKS:
	case BREAKS:
	case SURVIVES:
		if (w->how != MACHINE_SHUTDOWN || w->verdicts != cases_of(w->i))
			note_failure(w, "ended after %u cases: %s", w->verdicts, w->why);
		break;
	case ENDS:
		if (!w->expects_end || w->how != MACHINE_CRASH || !strstr(w->why, c->words))
			note_failure(w, "should have ended by %s: %s", c->words, w->why);
		break;
	case STAYS:
		if (!w->expects_end || w->ends || !w->idle)
			note_failure(w, "should do nothing: %s", w->ends ? w->why : "it is busy");
		break;
	case SPINS:
	case ANYHOW:
		if (!w->expects_end || (w->ends && (fate(w) == SPINS || !w->why[0])))
			note_failure(w, "should have gone on: %s", w->why);
		break;
	}
	if (w->failure[0])
		fail_msg("%s", w->failure);
	if (fate(w) == ANYHOW)
		print_message("%s: %s\n", c->name, w->ends ? w->why : "goes on");
}

static void run_case(void **state)
{
	struct err err = ERR_INIT;
	struct world w;
	int dev = -1;

	if (kvm_open("/dev/kvm", &dev, NULL) < 0)
		skip();
	close_fd(dev);
	world_init(&w, *state);
	if (engine_kvm.start(&w.engine, &w.m, &err) < 0)
		fail_msg("%s", err.msg);
	engine_kvm.run(w.engine);
	loop_timer_in(w.m.loop, &w.late, DEADLINE_MS * 1000000ull);
	loop_run(w.m.loop);
	world_done(&w);
	check_verdict(&w);
}

/* ---- the list ---- */

static struct instance instances[512];
static struct CMUnitTest tests[512];
static size_t ntests;

static void add_test(const struct row *row, enum villain_target target, const char *on,
		     unsigned cpus)
{
	static const char *const all[] = {
		[MACHINE] = "machine", [EACH_DEVICE] = "registers", [EACH_QUEUE] = "queue",
		[BLK] = "disks",       [VSOCK] = "sockets",	    [RNG] = "random",
		[BALLOON] = "balloon", [MEMORY] = "memory",	    [NET] = "network",
	};
	struct instance *i = &instances[ntests];

	*i = (struct instance){row, target, on, cpus, ""};
	snprintf(i->title, sizeof(i->title), "%s%s%s", row ? row->name : all[target],
		 *on ? "@" : "", on);
	tests[ntests++] = (struct CMUnitTest){
		.name = i->title,
		.test_func = run_case,
		.initial_state = i,
	};
}

static bool wanted(const char *name, const char *on, int argc, char **argv)
{
	char title[80];

	snprintf(title, sizeof(title), "%s@%s", name, on);
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], name) == 0 || strcmp(argv[i], title) == 0)
			return true;
	}
	return false;
}

int main(int argc, char **argv)
{
#define ON_QUEUE(name, id, nth, queue)	{EACH_QUEUE, #name},
#define ON_DEVICE(name, id, nth, queue) {EACH_DEVICE, #name},
	static const struct {
		enum villain_target target;
		const char *on;
	} targets[] = {
		VILLAIN_QUEUES(ON_QUEUE) VILLAIN_DEVICES(ON_DEVICE){BLK, ""},
		{VSOCK, ""},
		{RNG, ""},
		{BALLOON, ""},
		{MEMORY, ""},
		{NET, ""},
		{MACHINE, ""},
	};
	unsigned part = 1, parts = 1;
	size_t n = 0;

	if (argc == 2 && sscanf(argv[1], "%u/%u", &part, &parts) == 2) {
		if (!part || part > parts) {
			fprintf(stderr, "there is no part %s\n", argv[1]);
			return 2;
		}
		argc = 1;
	}
	for (size_t t = 0; t < ARRAY_SIZE(targets); t++) {
		if (argc < 2)
			add_test(NULL, targets[t].target, targets[t].on, 4);
		for (size_t c = 0; c < ARRAY_SIZE(rows); c++) {
			const struct row *r = &rows[c];

			if (r->target == targets[t].target &&
			    (argc < 2 ? r->fate > SURVIVES
				      : wanted(r->name, targets[t].on, argc, argv)))
				add_test(r, r->target, targets[t].on, r->cpus);
		}
	}
	for (size_t i = part - 1; i < ntests; i += parts)
		tests[n++] = tests[i];
	return _cmocka_run_group_tests("villain", tests, n, NULL, NULL);
}
