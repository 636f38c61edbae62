/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The root: the layers are mounted in the initramfs, where nobody will see them again, and the
 * result is moved over "/". /dev and /sys move with it; everything else is mounted once, in place.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "boot.h"

static const char root_dir[] = "/root";
static int upper_fd = -1; /* the upper layer's directory, for mount_seal() */

/* mkdir -p of the parents and the directory itself. */
static int make_dirs(const char *path, mode_t mode)
{
	char part[PATH_MAX];

	if (!mkdir(path, mode) || errno == EEXIST)
		return 0;
	if (errno != ENOENT || strlen(path) >= sizeof(part))
		return -errno;
	strcpy(part, path);
	for (char *p = part + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		if (mkdir(part, 0755) < 0 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return mkdir(path, mode) < 0 && errno != EEXIST ? -errno : 0;
}

int mount_at(const char *source, const char *target, const char *type, unsigned long flags,
	     const char *options, struct err *err)
{
	int r;

	if (!mount(source, target, type, flags, options))
		return 0;
	r = -errno;
	if (r == -ENOENT) {
		r = make_dirs(target, 0755);
		if (!r)
			r = mount(source, target, type, flags, options) < 0 ? -errno : 0;
	}
	if (r < 0)
		return err_set(err, r, "cannot mount %s (%s) on %s: %s", source,
			       type ? type : "bind", target, err_name(r));
	return 0;
}

static int mount_upper(const struct boot_upper *u, struct err *err)
{
	char options[32];

	if (u->kind == BOOT_UPPER_DEVICE)
		return disk_mount(u->device, "/upper", u->fstype, MS_NOATIME, err);
	strcpy(options, "mode=0755");
	if (u->has_size_mib)
		snprintf(options, sizeof(options), "mode=0755,size=%um", u->size_mib);
	return mount_at("tmpfs", "/upper", "tmpfs", MS_NOATIME, options, err);
}

/* Over what is mounted on /lower. */
static int mount_overlay(const struct boot_upper *upper, struct err *err)
{
	int r = mount_upper(upper, err);

	if (r < 0)
		return r;
	upper_fd = open("/upper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if ((mkdir("/upper/upper", 0755) < 0 && errno != EEXIST) ||
	    (mkdir("/upper/work", 0755) < 0 && errno != EEXIST))
		return err_errno(err, "cannot make the overlay's directories on the upper layer");
	return mount_at("overlay", root_dir, "overlay", MS_NOATIME,
			"lowerdir=/lower,upperdir=/upper/upper,workdir=/upper/work", err);
}

/*
 * A disk image is the root itself. One whose file system cannot be written at all (an EROFS) gets
 * changes of its own in memory.
 */
static int mount_image(const struct boot_root *root, struct err *err)
{
	static const struct boot_upper memory = {.kind = BOOT_UPPER_TMPFS};
	struct statvfs st;
	int r = disk_mount(root->device, "/lower", root->fstype, MS_NOATIME, err);

	if (r < 0)
		return r;
	if (statvfs("/lower", &st) < 0)
		return err_errno(err, "cannot look at the root file system");
	if (st.f_flag & ST_RDONLY)
		return mount_overlay(&memory, err);
	return mount_at("/lower", root_dir, NULL, MS_MOVE, NULL, err);
}

static int move_mount_in(const char *name, struct err *err)
{
	char target[64];

	snprintf(target, sizeof(target), "%s%s", root_dir, name);
	return mount_at(name, target, NULL, MS_MOVE, NULL, err);
}

int mount_root(const struct msg_bootstrap *b, struct err *err)
{
	const struct boot_root *root = &b->block_root;
	int r = mount_at("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755", err);

	if (!r)
		r = mount_at("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL, err);
	if (r < 0 || !b->has_block_root)
		return r;
	if (root->kind == BOOT_ROOT_DISK_IMAGE) {
		r = mount_image(root, err);
	} else {
		r = disk_mount(root->lower, "/lower", "erofs", MS_RDONLY | MS_NOATIME, err);
		if (!r)
			r = mount_overlay(&root->upper, err);
	}
	if (!r)
		r = move_mount_in("/dev", err);
	if (!r)
		r = move_mount_in("/sys", err);
	if (r < 0)
		return r;
	/* Hidden from now on: give the memory back. What we run from stays until we end. */
	unlink("/init");
	unlink("/msb-boot");
	if (chdir(root_dir) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
	    chdir("/") < 0)
		return err_errno(err, "cannot make %s the root", root_dir);
	return 0;
}

static int mount_tmp(const struct msg_bootstrap *b, struct err *err)
{
	const struct boot_tmpfs_mount *own = b->tmpfs_mounts.v;
	unsigned long long mib;
	struct sysinfo info;
	char options[32];

	for (size_t i = 0; i < b->tmpfs_mounts.n; i++) {
		if (!strcmp(own[i].path, "/tmp"))
			return 0;
	}
	if (b->has_tmp_size_mib) {
		mib = b->tmp_size_mib;
		if (!mib)
			return 0;
	} else {
		if (sysinfo(&info) < 0)
			return err_errno(err, "cannot learn the size of memory");
		mib = ((unsigned long long)info.totalram * info.mem_unit >> 20) / 4;
		mib = MIN(MAX(mib, 1ull), 512ull);
	}
	snprintf(options, sizeof(options), "mode=1777,size=%llum", mib);
	return mount_at("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, options, err);
}

int mount_system(const struct msg_bootstrap *b, struct err *err)
{
	static const struct {
		const char *type, *target, *options;
		unsigned long flags;
		bool may_lack; /* when the kernel was built without it */
	} mounts[] = {
		{"proc", "/proc", NULL, MS_NOSUID | MS_NOEXEC | MS_NODEV, false},
		{"cgroup2", "/sys/fs/cgroup", "nsdelegate", MS_NOSUID | MS_NOEXEC | MS_NODEV, true},
		{"devpts", "/dev/pts", "mode=620,ptmxmode=666,gid=5", MS_NOSUID | MS_NOEXEC, false},
		{"tmpfs", "/dev/shm", "mode=1777", MS_NOSUID | MS_NODEV, false},
		{"mqueue", "/dev/mqueue", NULL, MS_NOSUID | MS_NOEXEC | MS_NODEV, true},
	};
	static const char *const links[][2] = {
		{"/proc/self/fd", "/dev/fd"},
		{"/proc/self/fd/0", "/dev/stdin"},
		{"/proc/self/fd/1", "/dev/stdout"},
		{"/proc/self/fd/2", "/dev/stderr"},
	};
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
		r = mount_at(mounts[i].type, mounts[i].target, mounts[i].type, mounts[i].flags,
			     mounts[i].options, err);
		if (r < 0 && !(mounts[i].may_lack && r == -ENODEV))
			return r;
		err_clear(err);
	}
	for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
		if (symlink(links[i][0], links[i][1]) < 0 && errno != EEXIST)
			return err_errno(err, "cannot make %s", links[i][1]);
	}
	return mount_tmp(b, err);
}

static unsigned long flags_of(const struct boot_flags *f)
{
	return (f->readonly ? MS_RDONLY : 0) | (f->noexec ? MS_NOEXEC : 0) |
	       (f->nosuid ? MS_NOSUID : 0) | (f->nodev ? MS_NODEV : 0);
}

/* The restricted profile takes set-id programs and devices away from all of them. */
static unsigned long volume_flags(const struct msg_bootstrap *b, const struct boot_flags *f)
{
	unsigned long flags = flags_of(f);

	if (b->security_profile == BOOT_SECURITY_RESTRICTED)
		flags |= MS_NOSUID | MS_NODEV;
	return flags;
}

static int mount_file(const struct msg_bootstrap *b, const struct boot_file_mount *m,
		      struct err *err)
{
	unsigned long flags = volume_flags(b, &m->flags);
	char stage[128], source[PATH_MAX], *slash;
	int fd, r;

	if (strchr(m->tag, '/') || strchr(m->filename, '/') || m->guest_path[0] != '/' ||
	    strlen(m->guest_path) >= sizeof(source))
		return err_set(err, EINVAL, "file mount '%.64s': bad tag, name or path", m->tag);
	snprintf(stage, sizeof(stage), "/.msb/file-mounts/%.64s", m->tag);
	r = mount_at(m->tag, stage, "virtiofs", flags, NULL, err);
	if (r < 0)
		return r;
	strcpy(source, m->guest_path);
	slash = strrchr(source, '/');
	if (slash != source) {
		*slash = '\0';
		make_dirs(source, 0755);
	}
	fd = open(m->guest_path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644);
	if (fd < 0)
		return err_errno(err, "cannot make the mount point %.200s", m->guest_path);
	close(fd);
	snprintf(source, sizeof(source), "%s/%s", stage, m->filename);
	r = mount_at(source, m->guest_path, NULL, MS_BIND, NULL, err);
	if (!r && flags && mount(NULL, m->guest_path, NULL, MS_BIND | MS_REMOUNT | flags, NULL) < 0)
		r = err_errno(err, "cannot restrict the mount on %.200s", m->guest_path);
	return r;
}

/* Make a whole file system read-only, by descriptor: its mount may be hidden, /proc may be gone. */
static void seal(int fd)
{
	/* From <linux/mount.h>, which cannot stand beside <sys/mount.h>. */
	enum { EMPTY_PATH = 8, SET_FLAG = 0, RECONFIGURE = 7, CLOEXEC = 1 };
	int fs = (int)syscall(SYS_fspick, fd, "", EMPTY_PATH | CLOEXEC);

	if (fs < 0)
		return;
	(void)syscall(SYS_fsconfig, fs, SET_FLAG, "ro", NULL, 0);
	(void)syscall(SYS_fsconfig, fs, RECONFIGURE, NULL, NULL, 0);
	close(fs);
}

void mount_seal(void)
{
	int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	seal(fd);
	close_fd(fd);
	if (upper_fd >= 0)
		seal(upper_fd);
}

int mount_volumes(const struct msg_bootstrap *b, struct err *err)
{
	const struct boot_dir_mount *dirs = b->dir_mounts.v;
	const struct boot_file_mount *files = b->file_mounts.v;
	const struct boot_disk_mount *disks = b->disk_mounts.v;
	const struct boot_tmpfs_mount *tmps = b->tmpfs_mounts.v;
	int r = 0;

	for (size_t i = 0; i < b->tmpfs_mounts.n && !r; i++) {
		char options[64];
		size_t n;

		n = (size_t)snprintf(options, sizeof(options), "mode=%04o",
				     tmps[i].has_mode ? tmps[i].mode & 07777 : 01777);
		if (tmps[i].has_size_mib)
			snprintf(options + n, sizeof(options) - n, ",size=%um", tmps[i].size_mib);
		r = mount_at("tmpfs", tmps[i].path, "tmpfs", volume_flags(b, &tmps[i].flags),
			     options, err);
	}
	for (size_t i = 0; i < b->dir_mounts.n && !r; i++)
		r = mount_at(dirs[i].tag, dirs[i].guest_path, "virtiofs",
			     volume_flags(b, &dirs[i].flags), NULL, err);
	for (size_t i = 0; i < b->disk_mounts.n && !r; i++)
		r = disk_mount(disks[i].id, disks[i].guest_path, disks[i].fstype,
			       volume_flags(b, &disks[i].flags), err);
	for (size_t i = 0; i < b->file_mounts.n && !r; i++)
		r = mount_file(b, &files[i], err);
	return r;
}
