/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/artifacts.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "machine/kvm/probe.h"

/* Whose microvm machine can be without PCI and USB. */
#define QEMU_MAJOR 6

static const struct {
	const char *name;
	int mode; /* for access(2) */
	const char *hint;
} artifacts[ARTIFACTS] = {
	[ARTIFACT_VM] = {"msb-vm", X_OK, "run `make`, or set MSB_LIBDIR to where it is"},
	[ARTIFACT_AGENT] = {"guest/agentd", R_OK, "run `make`, or set MSB_LIBDIR to where it is"},
	[ARTIFACT_FETCH] = {"msb-fetch", X_OK, "run `make`, or set MSB_LIBDIR to where it is"},
	[ARTIFACT_KERNEL] = {"vmlinux", R_OK, "run `make kernel`, or name one with --kernel PATH"},
};

const char *artifact_name(enum artifact what)
{
	return artifacts[what].name;
}

static char *usable(char *path, int mode)
{
	if (path && access(path, mode) == 0)
		return path;
	free(path);
	return NULL;
}

int artifact_find(enum artifact what, char **ret, struct err *err)
{
	/* Relative to the executable's directory. */
	static const char *const places[] = {"", "../", "../lib/microsandbox/"};
	const char *name = artifacts[what].name, *libdir = getenv("MSB_LIBDIR");
	int mode = artifacts[what].mode;
	char exe[PATH_MAX], *found = NULL, *slash;
	ssize_t n;

	if (libdir && *libdir) {
		found = usable(str_fmt("%s/%s", libdir, name), mode);
		if (!found) {
			err_set(err, ERR_NOT_FOUND, "%s is not in MSB_LIBDIR (%s)", name, libdir);
			return err_hint(err, "correct MSB_LIBDIR, or unset it");
		}
	}
	n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (n < 0 && !found)
		return err_errno(err, "cannot find the running program in /proc");
	exe[n < 0 ? 0 : n] = '\0';
	slash = strrchr(exe, '/');
	if (slash)
		slash[1] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(places) && !found; i++)
		found = usable(str_fmt("%s%s%s", exe, places[i], name), mode);
	if (!found) {
		err_set(err, ERR_NOT_FOUND, "%s is missing (looked in %s and %s%s)", name, exe, exe,
			places[ARRAY_SIZE(places) - 1]);
		return err_hint(err, "%s", artifacts[what].hint);
	}
	*ret = found;
	return 0;
}

char *artifact_program(const char *name)
{
	/* Root's PATH is often a user's, without sbin. */
	static const char system_dirs[] = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
	const char *env = getenv("PATH");
	const char *const lists[] = {env ? env : "", system_dirs};

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		for (const char *p = lists[i], *end; *p; p = *end ? end + 1 : end) {
			char *path;

			end = strchrnul(p, ':');
			/* An empty entry means the working directory: nothing to trust. */
			if (*p != '/')
				continue;
			path = usable(str_fmt("%.*s/%s", (int)(end - p), p, name), X_OK);
			if (path)
				return path;
		}
	}
	return NULL;
}

int artifact_qemu(char **ret, struct err *err)
{
	const char *own = getenv("MSB_QEMU");
	char *path;

	if (own && *own) {
		path = strchr(own, '/') ? usable(strdup(own), X_OK) : artifact_program(own);
		if (!path) {
			err_set(err, ERR_NOT_FOUND, "QEMU is not where MSB_QEMU says: %s", own);
			return err_hint(err, "correct MSB_QEMU, or unset it");
		}
	} else {
		path = artifact_program("qemu-system-x86_64");
		if (!path) {
			err_set(err, ERR_NOT_FOUND,
				"QEMU is not installed: no qemu-system-x86_64 in PATH");
			return err_hint(err,
					"apt-get install --no-install-recommends qemu-system-x86");
		}
	}
	*ret = path;
	return 0;
}

int artifact_qemu_version(const char *line, struct err *err)
{
	const char *at = strstr(line, "QEMU emulator version ");
	unsigned major = 0, minor = 0;

	if (!at || sscanf(at, "QEMU emulator version %u.%u", &major, &minor) != 2) {
		err_set(err, ERR_UNSUPPORTED, "it is no QEMU: it calls itself \"%.100s\"", line);
		return err_hint(err, "install QEMU %d or newer", QEMU_MAJOR);
	}
	if (major >= QEMU_MAJOR)
		return 0;
	err_set(err, ERR_UNSUPPORTED, "QEMU %u.%u is too old", major, minor);
	return err_hint(err, "install QEMU %d or newer", QEMU_MAJOR);
}

int artifact_engine(const char *wanted, const char *cache, const char **ret, struct err *err)
{
	bool automatic = str_eq(wanted, "auto");
	cleanup_free char *qemu = NULL;
	struct kvm_probe probe;
	int r;

	if (!automatic && !str_eq(wanted, "kvm") && !str_eq(wanted, "qemu")) {
		err_set(err, ERR_USAGE, "there is no engine \"%s\"", wanted);
		return err_hint(err, "it is one of auto, kvm, qemu");
	}
	if (!str_eq(wanted, "qemu")) {
		kvm_probe(cache, &probe);
		if (probe.verdict == KVM_GOOD) {
			*ret = "kvm";
			return 0;
		}
		if (!automatic)
			return err_copy(err, &probe.why);
	}
	r = artifact_qemu(&qemu, err);
	if (r == 0)
		*ret = "qemu";
	return r;
}
