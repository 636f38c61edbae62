/* SPDX-License-Identifier: Apache-2.0 */
#include "boot.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "rlimits.h"
#include "wire/frame.h"

static const char cgroup_dir[] = "/sys/fs/cgroup/workload";

void boot_log(const char *fmt, ...)
{
	char text[900];
	cleanup_close int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	size_t n;
	va_list ap;

	memcpy(text, "<3>agentd: ", 11);
	va_start(ap, fmt);
	vsnprintf(text + 11, sizeof(text) - 12, fmt, ap);
	va_end(ap);
	n = strlen(text);
	text[n++] = '\n';
	if (fd >= 0)
		(void)!write(fd, text, n);
	else
		(void)!write(2, text + 3, n - 3);
}

int boot_read(const char *path, struct msg_bootstrap *ret, struct err *err)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	cleanup_buf struct buf b = BUF_INIT;
	struct envelope e;
	struct stat st;
	struct frame f;
	ssize_t n;
	void *to;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(err, "cannot read the boot message %s", path);
	if (st.st_size > FRAME_WIRE_MAX)
		return err_set(err, ERR_LIMIT, "the boot message is too long");
	to = buf_reserve(&b, (size_t)st.st_size + 1);
	if (!to)
		return err_set(err, ENOMEM, "cannot read the boot message: out of memory");
	n = read(fd, to, (size_t)st.st_size);
	if (n < 0)
		return err_errno(err, "cannot read the boot message %s", path);
	buf_commit(&b, (size_t)n);
	r = frame_peek(&b, &f, err);
	if (r == 0)
		r = err_set(err, ERR_PROTOCOL, "the boot message is truncated");
	if (r < 0)
		return r;
	r = frame_open(&f, &e, err);
	if (r < 0)
		return err_wrap(err, "the boot message");
	if (!e.type || msg_kind_of(e.type) != MSG_BOOTSTRAP)
		return err_set(err, ERR_PROTOCOL, "the boot message is '%.*s', not core.bootstrap",
			       (int)MIN(e.name_len, (size_t)64), e.name);
	return frame_payload(&e, ret, err);
}

static int set_clock(const struct msg_bootstrap *b, struct err *err)
{
	struct timespec ts = {
		.tv_sec = (time_t)(b->unix_time_nanos / 1000000000u),
		.tv_nsec = (long)(b->unix_time_nanos % 1000000000u),
	};

	if (b->has_unix_time_nanos && clock_settime(CLOCK_REALTIME, &ts) < 0)
		return err_errno(err, "cannot set the clock");
	return 0;
}

int boot_guest(const struct msg_bootstrap *b, struct err *err)
{
	int r;

	r = set_clock(b, err);
	if (!r)
		r = mount_root(b, err);
	if (!r)
		r = mount_system(b, err);
	if (!r && b->patch)
		r = patch_apply(b->patch, err);
	if (!r)
		patch_find_scripts();
	if (!r)
		r = mount_volumes(b, err);
	if (!r && b->hostname && sethostname(b->hostname, strlen(b->hostname)) < 0)
		r = err_errno(err, "cannot set the host name '%.64s'", b->hostname);
	if (!r)
		r = net_loopback(err);
	if (!r && b->has_network)
		r = net_configure(&b->network, err);
	if (!r)
		r = rlimits_check(&b->rlimits, err);
	if (r < 0)
		return r;
	rlimit_raise_files();
	etc_write(b);
	return b->security_profile == BOOT_SECURITY_RESTRICTED ? restrict_guest(err) : 0;
}

int boot_cgroup(void)
{
	if (mkdir(cgroup_dir, 0755) < 0 && errno != EEXIST)
		return -1;
	return open(cgroup_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

void boot_late(const struct msg_bootstrap *b)
{
	/* As container runtimes do: inside, low ports and ping need no privilege. */
	static const char *const sysctls[][2] = {
		{"/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"},
		{"/proc/sys/net/ipv4/ping_group_range", "0 2147483647"},
	};

	if (b->security_profile == BOOT_SECURITY_RESTRICTED)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(sysctls); i++) {
		cleanup_close int fd = open(sysctls[i][0], O_WRONLY | O_CLOEXEC);

		if (fd >= 0)
			(void)!write(fd, sysctls[i][1], strlen(sysctls[i][1]));
	}
}
