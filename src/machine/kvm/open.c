/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "machine/kvm/vm.h"

/* The first version that was ever stable, and still the only one. */
#define API_VERSION 12
/* A CPU's flags are in the first few KiB of it. */
#define CPUINFO_MAX ((size_t)4 << 20)

static int check_version(int dev, struct err *err)
{
	static const struct {
		int cap;
		const char *name;
	} needed[] = {
		{KVM_CAP_USER_MEMORY, "user memory"},
		{KVM_CAP_IOEVENTFD, "ioeventfd"},
		{KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
		{KVM_CAP_MP_STATE, "multiprocessor state"},
		{KVM_CAP_READONLY_MEM, "read-only memory"},
#ifdef __x86_64__
		{KVM_CAP_SPLIT_IRQCHIP, "local interrupt controllers"},
		{KVM_CAP_SIGNAL_MSI, "interrupts by message"},
		{KVM_CAP_EXT_CPUID, "CPUID"},
		{KVM_CAP_SET_TSS_ADDR, "TSS address"},
		{KVM_CAP_SET_IDENTITY_MAP_ADDR, "identity map address"},
		{KVM_CAP_TSC_DEADLINE_TIMER, "TSC deadline timer"},
		{KVM_CAP_IOEVENTFD_ANY_LENGTH, "ioeventfd of any length"},
#endif
	};
	int v = kvm_call(dev, KVM_GET_API_VERSION, NULL);

	if (v < 0)
		return err_set(err, v, "/dev/kvm does not answer: %s", err_name(v));
	if (v != API_VERSION)
		return err_set(err, ERR_UNSUPPORTED, "KVM speaks version %d, not %d", v,
			       API_VERSION);
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
		if (kvm_call(dev, KVM_CHECK_EXTENSION, (void *)(uintptr_t)needed[i].cap) <= 0) {
			err_set(err, ERR_UNSUPPORTED, "this KVM is too old: it lacks \"%s\"",
				needed[i].name);
			return err_hint(err, "Linux 5.10 or newer is needed on the host");
		}
	}
	return 0;
}

/* Is @word among the first CPU's flags? */
static bool cpu_has(const struct buf *info, const char *word)
{
	const char *p = memmem(buf_ptr(info), buf_size(info), "\nflags", 6), *end;
	size_t n = strlen(word);

	if (!p)
		return false;
	end = strchr(p + 1, '\n');
	for (p = strstr(p, word); p && (!end || p < end); p = strstr(p + n, word)) {
		if (isspace((unsigned char)p[-1]) && (isspace((unsigned char)p[n]) || !p[n]))
			return true;
	}
	return false;
}

static int explain_no_virtualisation(bool nested, struct err *err)
{
	if (nested) {
		err_set(err, ENXIO,
			"there is no KVM: this host is itself a virtual machine, and "
			"nested virtualisation is off");
		err_hint(err, "turn it on for this virtual machine where it is managed");
		return -ENXIO;
	}
	err_set(err, ENODEV, "there is no KVM: the processor offers no virtualisation");
	err_hint(err, "turn on VT-x or AMD-V in the firmware's settings");
	return -ENODEV;
}

static bool read_proc(const char *proc, const char *name, struct buf *b)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", proc, name);
	return io_read_file(path, CPUINFO_MAX, b, NULL) >= 0 && buf_cstr(b);
}

static int explain_missing(const char *path, const char *proc, struct err *err)
{
	cleanup_buf struct buf info = BUF_INIT, misc = BUF_INIT;

	/* Devices that drivers have made, "NUMBER NAME" a line. */
	if (read_proc(proc, "misc", &misc) && strstr(buf_cstr(&misc), " kvm\n")) {
		err_set(err, ENOENT, "KVM is loaded, but there is no %s here", path);
		err_hint(err, "in a container, have it given the device (--device %s)", path);
		return -ENOENT;
	}
	err_set(err, ENOENT, "KVM is not loaded: there is no %s", path);
	if (!read_proc(proc, "cpuinfo", &info))
		return -ENOENT;
	if (cpu_has(&info, "vmx"))
		err_hint(err, "load it: modprobe kvm_intel");
	else if (cpu_has(&info, "svm"))
		err_hint(err, "load it: modprobe kvm_amd");
	else
		return explain_no_virtualisation(cpu_has(&info, "hypervisor"), err);
	return -ENOENT;
}

/* From the file alone: other sources than that are plugins of the C library. */
static bool group_name(gid_t gid, char name[256])
{
	FILE *f = fopen("/etc/group", "re");
	char text[4096];
	struct group g, *found = NULL;

	if (!f)
		return false;
	while (fgetgrent_r(f, &g, text, sizeof(text), &found) == 0 && g.gr_gid != gid)
		found = NULL;
	fclose(f);
	return found && snprintf(name, 256, "%s", g.gr_name) < 256;
}

static int explain_denied(const char *path, struct err *err)
{
	struct stat st;
	char name[256];

	err_set(err, EACCES, "this user may not use %s", path);
	if (stat(path, &st) < 0 || !(st.st_mode & S_IWGRP))
		err_hint(err, "give this user read and write access to %s", path);
	else if (group_name(st.st_gid, name))
		err_hint(err, "join the group \"%s\" (usermod -aG %s USER) and log in again", name,
			 name);
	else
		err_hint(err, "join the group with number %u and log in again",
			 (unsigned)st.st_gid);
	return -EACCES;
}

int kvm_explain(int error, const char *path, const char *proc, struct err *err)
{
	if (error == -ENOENT || error == -ENODEV || error == -ENXIO)
		return explain_missing(path, proc, err);
	if (error == -EACCES || error == -EPERM)
		return explain_denied(path, err);
	return err_set(err, error, "cannot open %s: %s", path, err_name(error));
}

int kvm_open(const char *path, int *ret, struct err *err)
{
	cleanup_close int fd = open(path, O_RDWR | O_CLOEXEC);
	int r;

	if (fd < 0)
		return kvm_explain(-errno, path, "/proc", err);
	r = check_version(fd, err);
	if (r < 0)
		return r;
	*ret = take_fd(&fd);
	return 0;
}
