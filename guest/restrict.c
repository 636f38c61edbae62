/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's part of the restricted profile, done once; what a command itself loses is in spawn.c.
 *
 * A user namespace would give back, inside of it, the capabilities that the bounding set takes
 * away, so there are none. The switches are then read-only for everybody: root needs no capability
 * to write them, but one to mount.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "boot.h"

static int set(const char *path, const char *value, struct err *err)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);

	/* A kernel without the feature has nothing to switch off. */
	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		return err_errno(err, "cannot restrict the guest: %s", path);
	return 0;
}

/* The mount at @path, or (@bind) what is there as a mount of its own, with these flags as well. */
static int limit(const char *path, bool bind, unsigned long flags, struct err *err)
{
	if (bind && mount(path, path, NULL, MS_BIND, NULL) < 0)
		return errno == ENOENT ? 0 : err_errno(err, "cannot restrict %s", path);
	if (mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | flags, NULL) < 0)
		return err_errno(err, "cannot restrict %s", path);
	return 0;
}

int restrict_guest(struct err *err)
{
	static const char *const switches[][2] = {
		{"/proc/sys/user/max_user_namespaces", "0"},
		{"/proc/sys/kernel/io_uring_disabled", "2"},
		{"/proc/sys/kernel/kptr_restrict", "2"},
		{"/proc/sys/kernel/dmesg_restrict", "1"},
		{"/proc/sys/kernel/perf_event_paranoid", "3"},
	};
	const unsigned long proc = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY;
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(switches) && r == 0; i++)
		r = set(switches[i][0], switches[i][1], err);
	if (r == 0)
		r = limit("/", false, MS_NOSUID | MS_NODEV, err);
	if (r == 0)
		r = limit("/dev", false, MS_NOSUID, err);
	if (r == 0)
		r = limit("/proc/sys", true, proc, err);
	if (r == 0)
		r = limit("/proc/sysrq-trigger", true, proc, err);
	return r;
}
