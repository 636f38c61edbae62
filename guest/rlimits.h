/* SPDX-License-Identifier: Apache-2.0 */
/* Resource limits by the protocol's names. */
#ifndef GUEST_RLIMITS_H
#define GUEST_RLIMITS_H

#include <sys/types.h>

#include "base/err.h"
#include "wire/agent_msg.h"

/* The RLIMIT_ number of a name, -1 if there is none. */
int rlimit_find(const char *name);
/* Check the names and that soft <= hard. */
int rlimits_check(const struct wire_list *limits, struct err *err);
/* Set one for this process by a bare system call: usable where memory is shared with a parent. */
int rlimit_set(const struct exec_rlimit *l);

/*
 * Descriptors: our own clients may need many, whatever the sandbox's limit is; a command starts
 * with what programs expect, soft 1024 and a hard limit that lets them ask for more.
 */
void rlimit_raise_files(void);
void rlimit_default_files(void);

#endif
