/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/artifacts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/install.h"
#include "base/str.h"
#include "machine/kvm/probe.h"

/* Whose microvm machine can be without PCI and USB. */
#define QEMU_MAJOR 6

static const struct {
	const char *name;
	int mode; /* for access(2) */
	const char *hint;
} artifacts[ARTIFACTS] = {
	[ARTIFACT_VM] = {"msb-vm", X_OK, INSTALL_HINT},
	[ARTIFACT_AGENT] = {"guest/agentd", R_OK, INSTALL_HINT},
	[ARTIFACT_FETCH] = {"msb-fetch", X_OK, INSTALL_HINT},
	[ARTIFACT_CONVERT] = {"msb-convert", X_OK, INSTALL_HINT},
	[ARTIFACT_KERNEL] = {"vmlinux", R_OK, "run `make kernel`, or name one with --kernel PATH"},
};

int artifact_find(enum artifact what, char **ret, struct err *err)
{
	return install_find(artifacts[what].name, artifacts[what].mode, artifacts[what].hint, ret,
			    err);
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
			path = install_usable(str_fmt("%.*s/%s", (int)(end - p), p, name), X_OK);
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
		path = strchr(own, '/') ? install_usable(strdup(own), X_OK) : artifact_program(own);
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
