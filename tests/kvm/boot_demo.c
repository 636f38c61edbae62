/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For development: boot a kernel and an initramfs on the `kvm` engine, with nothing else around it.
 *
 *	boot_demo KERNEL INITRAMFS [CPUS [MIB [CMDLINE [DISK...]]]]
 *
 * The console goes to standard output; how the machine ended, and how long it lived, to standard
 * error. It takes the place of machine.c, hence its own machine_ended().
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "machine/engine.h"
#include "machine/machine.h"
#include "virtio/blk.h"

static enum machine_end ended;

void machine_paused(struct machine *m, bool paused)
{
	(void)m, (void)paused;
}

void machine_ended(struct machine *m, enum machine_end how, const char *why)
{
	ended = how;
	fprintf(stderr, "ended (%d): %s\n", how, why ? why : "-");
	loop_quit(m->loop, 0);
}

/* Guest memory that exists: what was touched, and what of it is the kernel file's alone. */
static void show_memory(void)
{
	char line[512];
	unsigned long from, to, kb, inode = 0, rss = 0, huge = 0, file = 0, copied = 0, f, t;
	FILE *s = fopen("/proc/self/smaps", "re");
	bool guest = false;

	while (s && fgets(line, sizeof(line), s)) {
		if (sscanf(line, "%lx-%lx %*s %*s %*s %lu", &f, &t, &inode) == 3) {
			from = f;
			to = t;
			guest = to - from >= (1 << 20) && !strstr(line, ".so") &&
				!strstr(line, "stack");
			continue;
		}
		if (!guest)
			continue;
		if (sscanf(line, "Rss: %lu", &kb) == 1)
			*(inode ? &file : &rss) += kb;
		else if (sscanf(line, "AnonHugePages: %lu", &kb) == 1)
			huge += kb;
		else if (inode && sscanf(line, "Anonymous: %lu", &kb) == 1)
			copied += kb;
	}
	fprintf(stderr,
		"memory: %lu KiB of its own, %lu in large pages; kernel file %lu KiB, %lu copied "
		"on write\n",
		rss, huge, file, copied);
	if (s)
		fclose(s);
}

static int fail(const struct err *err)
{
	fprintf(stderr, "%s%s%s\n", err->msg, err->hint[0] ? "\n" : "", err->hint);
	return 1;
}

static int add_disk(struct machine *m, const char *path, struct err *err)
{
	const struct blk_file_options file = {0};
	const struct blk_options options = {.queues = m->config->cpus};
	struct blk_disk *disk;
	int fd = open(path, O_RDWR | O_CLOEXEC), r;

	if (fd < 0)
		return err_errno(err, "cannot open %s", path);
	r = blk_file_new(fd, &file, &disk, err);
	if (r == 0)
		r = blk_device_new(disk, &options, &m->devices[m->ndevices], err);
	if (r == 0)
		m->ndevices++;
	return r;
}

/* KVM's counters of this machine, those that are not zero. */
static void show_statistics(void)
{
	char command[160];

	snprintf(command, sizeof(command),
		 "cd /sys/kernel/debug/kvm/%d-*/ && grep -v '^0$' *[a-z] vcpu*/* >&2 2>/dev/null",
		 getpid());
	(void)!system(command);
}

int main(int argc, char **argv)
{
	struct vm_config c = {.name = (char[]){"demo"}, .cpus = 1, .memory = (uint64_t)512 << 20};
	struct machine m = {.config = &c};
	struct engine *engine = NULL;
	struct err err = ERR_INIT;
	uint64_t begin, booted, end;

	if (argc < 3) {
		fprintf(stderr, "boot_demo KERNEL INITRAMFS [CPUS [MIB [CMDLINE [DISK...]]]]\n");
		return 2;
	}
	if (getenv("DEBUG"))
		log_open(2, LOG_DEBUG, NULL);
	c.kernel = argv[1];
	if (argc > 3)
		c.cpus = (uint32_t)atoi(argv[3]);
	if (argc > 4)
		c.memory = (uint64_t)atoi(argv[4]) << 20;
	m.cmdline = argc > 5 ? argv[5] : (char[]){"console=ttyS0 panic=-1"};
	m.console = dup(STDOUT_FILENO);
	m.initramfs = open(argv[2], O_RDONLY | O_CLOEXEC);
	if (m.initramfs < 0 || loop_new(&m.loop, &err) < 0)
		return fail(&err);
	for (int i = 6; i < argc; i++) {
		if (add_disk(&m, argv[i], &err) < 0)
			return fail(&err);
	}
	begin = now_ns();
	if (kernel_image_read(argv[1], &m.kernel, &err) < 0 ||
	    engine_kvm.start(&engine, &m, &err) < 0)
		return fail(&err);
	engine_kvm.run(engine);
	booted = now_ns();
	fprintf(stderr, "started in %" PRIu64 " us\n", (booted - begin) / 1000);
	loop_run(m.loop);
	end = now_ns();
	if (getenv("STATS")) {
		show_memory();
		show_statistics();
	}
	engine_kvm.free(engine);
	for (unsigned i = 0; i < m.ndevices; i++)
		virtio_device_free(m.devices[i]);
	fprintf(stderr, "ran %" PRIu64 " us, free %" PRIu64 " us\n", (end - booted) / 1000,
		(now_ns() - end) / 1000);
	close_fd(m.initramfs);
	close_fd(m.console);
	loop_free(m.loop);
	return ended == MACHINE_SHUTDOWN ? 0 : 1;
}
