/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the first instruction to a guest that can run commands: the steps, in order.
 *
 * Each reports a failure with the step, the thing and the reason. They run once, as PID 1.
 */
#ifndef GUEST_BOOT_H
#define GUEST_BOOT_H

#include <stdbool.h>

#include "base/err.h"
#include "wire/agent_msg.h"

/* boot.c */
int boot_read(const char *path, struct msg_bootstrap *ret, struct err *err);
/* All of it: clock, root, mounts, names, limits, network. */
int boot_guest(const struct msg_bootstrap *b, struct err *err);
/* What nobody waits for; failures are only logged. */
void boot_late(const struct msg_bootstrap *b);
/* Directory fd of the workload's control group, or -1. */
int boot_cgroup(void);

/* mount.c */
int mount_root(const struct msg_bootstrap *b, struct err *err);
int mount_system(const struct msg_bootstrap *b, struct err *err);
int mount_volumes(const struct msg_bootstrap *b, struct err *err);
/* At the end: the root and the layer under it read-only, so that no journal is left to replay. */
void mount_seal(void);
/* mount(2), making the mount point when it is missing. */
int mount_at(const char *source, const char *target, const char *type, unsigned long flags,
	     const char *options, struct err *err);

/* device.c: "/dev/vda", "serial:msb-root" or a bare serial to a device path. */
int device_find(const char *spec, char *ret, size_t size, struct err *err);

/*
 * disk.c: mount a disk, found as above; "#N" behind it picks partition N. With no @type (NULL or
 * "auto") it is told by what is on the disk, and on a disk with partitions the first is taken that
 * holds a file system for Linux.
 */
int disk_mount(const char *spec, const char *target, const char *type, unsigned long flags,
	       struct err *err);

/* patch.c: do what the disk @spec says to the root; look whether there are scripts; are there? */
int patch_apply(const char *spec, struct err *err);
void patch_find_scripts(void);
bool patch_scripts(void);

/* net.c */
int net_loopback(struct err *err);
int net_configure(const struct boot_network *n, struct err *err);

/* etc.c: /etc/hostname, /etc/hosts, /etc/resolv.conf */
void etc_write(const struct msg_bootstrap *b);

/* restrict.c: what the restricted profile changes for the whole guest. */
int restrict_guest(struct err *err);

/*
 * init.c: let the init that @b names become PID 1. Returns in a child, which serves from now on and
 * whose @own_name (argv[0]) it changes; later that one has the init end the machine.
 */
int init_handoff(const struct msg_bootstrap *b, char *own_name, struct err *err);
void init_shutdown(uint32_t grace_ms) __attribute__((noreturn));

/* One line to the kernel log (or the console while there is none). */
void boot_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
