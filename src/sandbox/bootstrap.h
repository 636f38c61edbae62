/* SPDX-License-Identifier: Apache-2.0 */
/* The boot message of a sandbox: what its agent needs before anything else. Any thread. */
#ifndef SANDBOX_BOOTSTRAP_H
#define SANDBOX_BOOTSTRAP_H

#include "base/buf.h"
#include "base/err.h"
#include "sandbox/source.h"
#include "sandbox/spec.h"

/* By what the guest finds the disks. */
#define SANDBOX_DISK_ROOT  "msb-root"
#define SANDBOX_DISK_UPPER "msb-upper"
#define SANDBOX_DISK_PATCH "msb-patch"

/*
 * Append the core.bootstrap frame of sandbox @name, with the root that @src is; @patch: there is a
 * disk with changes to it; @ipv6: its network speaks that, too. @command supplies the defaults of
 * commands: user, working directory, environment.
 */
int sandbox_bootstrap(const struct sandbox_spec *s, const char *name,
		      const struct sandbox_source *src, const struct sandbox_command *command,
		      bool patch, bool ipv6, struct buf *b, struct err *err);

#endif
