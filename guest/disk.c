/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks that somebody else made: which part of one holds a file system, and of what type.
 *
 * The kernel reads partition tables and makes the device nodes. File systems are told by the magic
 * numbers in their superblocks, known ones by name even where they cannot be mounted: "it holds
 * LVM" says more than "no".
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "boot.h"

enum { PARTITIONS_MAX = 128 };

static const struct magic {
	const char *type; /* as mount(2) calls it; NULL: no file system that could be a root */
	const char *name;
	const char *bytes;
	unsigned short n;
	unsigned off;
} magics[] = {
	/* ext2 and ext3 are ext4 to the kernel as well. */
	{"ext4", "ext4", "\x53\xef", 2, 1024 + 56},
	{"erofs", "erofs", "\xe2\xe1\xf5\xe0", 4, 1024},
	{"xfs", "xfs", "XFSB", 4, 0},
	{"btrfs", "btrfs", "_BHRfS_M", 8, 65536 + 64},
	{"squashfs", "squashfs", "hsqs", 4, 0},
	{"f2fs", "f2fs", "\x10\x20\xf5\xf2", 4, 1024},
	{NULL, "swap space", "SWAPSPACE2", 10, 4096 - 10},
	{NULL, "an encrypted volume (LUKS)", "LUKS\xba\xbe", 6, 0},
	{NULL, "a volume group (LVM)", "LABELONE", 8, 512},
	{NULL, "NTFS", "NTFS    ", 8, 3},
	{NULL, "FAT", "FAT32   ", 8, 82},
	{NULL, "FAT", "FAT16   ", 8, 54},
	{NULL, "FAT", "FAT12   ", 8, 54},
	{NULL, "a CD image", "CD001", 5, 32768 + 1},
};

static const struct magic *probe(const char *dev)
{
	cleanup_close int fd = open(dev, O_RDONLY | O_CLOEXEC);
	char b[16];

	for (size_t i = 0; fd >= 0 && i < ARRAY_SIZE(magics); i++) {
		const struct magic *m = &magics[i];

		if (pread(fd, b, m->n, m->off) == m->n && !memcmp(b, m->bytes, m->n))
			return m;
	}
	return NULL;
}

/* Does the kernel know this partition of the disk? @disk and the result are device paths. */
static bool partition(const char *disk, unsigned n, char ret[80])
{
	const char *name = strrchr(disk, '/') + 1;
	char path[200];

	snprintf(path, sizeof(path), "/sys/block/%.60s/%.60s%u", name, name, n);
	snprintf(ret, 80, "%.64s%u", disk, n);
	return !access(path, F_OK);
}

static int mount_device(const char *dev, const char *target, const char *type, unsigned long flags,
			struct err *err)
{
	int r = mount_at(dev, target, type, flags, NULL, err);

	if (r == -ENODEV)
		return err_set(err, ERR_UNSUPPORTED,
			       "%s holds %s, which the guest's kernel does not know", dev, type);
	if (r == -EINVAL || r == -EUCLEAN)
		return err_set(err, ERR_CORRUPT, "cannot mount %s: it is no good %s file system",
			       dev, type);
	return r;
}

/* The first partition that could be mounted, or why there is none. */
static int choose(const char *disk, const char **type, char ret[80], struct err *err)
{
	const char *other = NULL;
	unsigned seen = 0;

	for (unsigned n = 1; n <= PARTITIONS_MAX; n++) {
		const struct magic *m;

		if (!partition(disk, n, ret))
			continue;
		seen++;
		m = probe(ret);
		if (m && m->type) {
			*type = *type ? *type : m->type;
			return 0;
		}
		if (m)
			other = m->name;
	}
	if (!seen)
		return err_set(err, ERR_UNSUPPORTED,
			       "there is neither a file system nor a partition table on the disk");
	return err_set(err, ERR_UNSUPPORTED,
		       "none of the disk's %u partitions holds a file system for Linux%s%s", seen,
		       other ? "; found was " : "", other ? other : "");
}

int disk_mount(const char *spec, const char *target, const char *type, unsigned long flags,
	       struct err *err)
{
	const char *hash = strchr(spec, '#');
	char name[128], disk[64], dev[80];
	const struct magic *m;
	int r;

	if (type && !strcmp(type, "auto"))
		type = NULL;
	if (strlen(spec) >= sizeof(name))
		return err_set(err, ENAMETOOLONG, "device '%.64s…': the name is too long", spec);
	strcpy(name, spec);
	if (hash)
		name[hash - spec] = '\0';
	r = device_find(name, disk, sizeof(disk), err);
	if (r < 0)
		return r;
	/* Most often one of our own, which needs no looking at. */
	if (type && !hash) {
		r = mount_device(disk, target, type, flags, err);
		if (r != -ERR_CORRUPT)
			return r;
		err_clear(err);
	}
	if (hash) {
		unsigned n = (unsigned)strtoul(hash + 1, NULL, 10);

		if (!partition(disk, n, dev))
			return err_set(err, ERR_NOT_FOUND, "the disk has no partition %u", n);
	} else {
		strcpy(dev, disk);
	}
	m = probe(dev);
	if (m && !m->type)
		return err_set(err, ERR_UNSUPPORTED, "%s holds %s, not a root file system",
			       hash ? "the partition" : "the disk", m->name);
	if (m) {
		type = type ? type : m->type;
	} else if (!hash) {
		r = choose(disk, &type, dev, err);
		if (r < 0)
			return r;
	} else if (!type) {
		return err_set(err, ERR_UNSUPPORTED, "no file system that we know is on %s", dev);
	}
	return mount_device(dev, target, type, flags, err);
}
