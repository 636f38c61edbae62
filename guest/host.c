/* SPDX-License-Identifier: Apache-2.0 */
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "helper.h"

/* The kernel has room for this many. */
enum { CPUS_MAX = 64 };

static const char cpu_dir[] = "/sys/devices/system/cpu";

/* A small file of the kernel's, as a string. */
static int read_line(const char *path, char *ret, size_t size)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -errno : io_read_full(fd, ret, size - 1);

	if (n < 0)
		return (int)n;
	ret[n] = '\0';
	return 0;
}

unsigned host_count_cpus(const char *list)
{
	unsigned n = 0;

	while (*list >= '0' && *list <= '9') {
		char *end;
		unsigned long first = strtoul(list, &end, 10), last = first;

		if (*end == '-')
			last = strtoul(end + 1, &end, 10);
		if (last < first || last >= 65536)
			return 0;
		n += (unsigned)(last - first + 1);
		list = *end == ',' ? end + 1 : end;
	}
	return n;
}

static unsigned online_cpus(void)
{
	char path[64], text[256];

	snprintf(path, sizeof(path), "%s/online", cpu_dir);
	return read_line(path, text, sizeof(text)) < 0 ? 0 : host_count_cpus(text);
}

static uint64_t meminfo(const char *text, const char *key)
{
	const char *at = strstr(text, key);

	return at ? strtoull(at + strlen(key), NULL, 10) << 10 : 0;
}

void host_usage(struct conn *c, uint32_t id)
{
	struct msg_host_used m = {.cpus = online_cpus()};
	struct statvfs fs;
	char text[1024];

	if (read_line("/proc/meminfo", text, sizeof(text)) == 0) {
		m.memory_total = meminfo(text, "MemTotal:");
		m.memory_available = meminfo(text, "MemAvailable:");
	}
	if (statvfs("/", &fs) == 0) {
		m.root_total = (uint64_t)fs.f_blocks * fs.f_frsize;
		m.root_free = (uint64_t)fs.f_bavail * fs.f_frsize;
	}
	conn_send(c, id, MSG_HOST_USED, &m);
}

/* ---- CPUs: the kernel may take seconds ---- */

static struct {
	struct helper helper;
	struct server *sv;
	uint32_t id;
	uint32_t want;
	bool busy;
} cpus;

static int set_online(unsigned cpu, bool on)
{
	char path[64], was[8];
	cleanup_close int fd = -1;

	snprintf(path, sizeof(path), "%s/cpu%u/online", cpu_dir, cpu);
	/* The first has none: it cannot be switched off. */
	if (read_line(path, was, sizeof(was)) < 0)
		return cpu ? -ENOENT : 0;
	if ((was[0] == '1') == on)
		return 0;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? -errno : write(fd, on ? "1" : "0", 1) == 1 ? 0 : -errno;
}

/* In the helper. Its answer is why it did not work, or nothing. */
static void switch_cpus(void *arg, int fd)
{
	char why[128];

	(void)arg;
	/* On from below, off from above: what is on is always the first so many. */
	for (unsigned k = 0; k < CPUS_MAX; k++) {
		bool on = k < cpus.want;
		unsigned i = on ? k : CPUS_MAX - 1 - (k - cpus.want);
		int r = set_online(i, on), n;

		/* Those that there never were need not be switched off. */
		if (r == 0 || (r == -ENOENT && !on))
			continue;
		n = snprintf(why, sizeof(why), "the guest's kernel does not switch CPU %u %s: %s",
			     i, on ? "on" : "off", strerror(-r));
		(void)!write(fd, why, (size_t)n);
		return;
	}
}

static void tell_cpus(const char *error)
{
	struct msg_host_cpus_set m = {.online = online_cpus(), .error = (char *)error};

	for (struct conn *c = cpus.sv->conns; c; c = c->next) {
		if (c->control && !c->dead)
			conn_send(c, cpus.id, MSG_HOST_CPUS_SET, &m);
	}
}

static void on_switched(struct helper *h)
{
	char why[129];
	size_t n = MIN(h->len, sizeof(why) - 1);

	memcpy(why, h->answer, n);
	why[n] = '\0';
	helper_stop(h);
	cpus.busy = false;
	tell_cpus(n ? why : NULL);
}

void host_cpus(struct conn *c, uint32_t id, const struct msg_host_cpus *m)
{
	int r;

	if (cpus.busy) {
		conn_error(c, id, CORE_INVALID_PAYLOAD, "host.cpus",
			   "the last change is under way");
		return;
	}
	cpus.sv = c->sv;
	cpus.id = id;
	cpus.want = m->online;
	r = helper_start(&cpus.helper, c->sv->loop, -1, switch_cpus, NULL, on_switched);
	cpus.busy = r == 0;
	if (r < 0)
		tell_cpus(err_name(r));
}

void host_defaults(struct server *sv, struct msg_host_defaults *m)
{
	/* The texts of before may be in use by nobody: a session copies what it gets. */
	msg_free(MSG_HOST_DEFAULTS, &sv->own);
	sv->own = *m;
	memset(m, 0, sizeof(*m));
	sv->defaults.env = &sv->own.env;
	sv->defaults.cwd = sv->own.cwd;
}
