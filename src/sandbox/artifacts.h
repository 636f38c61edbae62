/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of an installation, which are where base/install.h says: the virtual machine program,
 * the guest kernel, the agent, the programs that do HTTP and convert layers, and the engine's own
 * program. Any thread.
 */
#ifndef SANDBOX_ARTIFACTS_H
#define SANDBOX_ARTIFACTS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

enum artifact {
	ARTIFACT_VM,
	ARTIFACT_AGENT,
	ARTIFACT_KERNEL,
	ARTIFACT_FETCH,
	ARTIFACT_CONVERT,
	ARTIFACTS
};

/* The absolute path, the caller's to free. ERR_NOT_FOUND says where it should be from. */
int artifact_find(enum artifact what, char **ret, struct err *err);

/* A program in $PATH or one of the system's directories; NULL when there is none. */
char *artifact_program(const char *name);

/* The QEMU that the qemu engine would start: $MSB_QEMU, or that of $PATH. The caller's to free. */
int artifact_qemu(char **ret, struct err *err);
/* Judge the first line of its --version. ERR_UNSUPPORTED when it is too old, or no QEMU. */
int artifact_qemu_version(const char *line, struct err *err);

/*
 * Decide what runs the CPU. @wanted is "auto" (KVM where it runs at the processor's speed, else
 * QEMU), "kvm" or "qemu"; *ret is a static string. @cache (may be NULL) is a file that keeps what
 * was found out about KVM for as long as the host is up. A negative code, with a hint, when it
 * cannot be had here.
 */
int artifact_engine(const char *wanted, const char *cache, const char **ret, struct err *err);

#endif
