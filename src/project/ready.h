/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting until what runs in a sandbox answers. One thread. */
#ifndef PROJECT_READY_H
#define PROJECT_READY_H

#include "base/err.h"
#include "project/project.h"

struct store;

/*
 * Ask sandbox @name, which runs, until it answers as @ready says: 0. -ETIMEDOUT; -ESHUTDOWN: it
 * ended. @cancel is a descriptor that becomes readable when the user has had enough (-EINTR), or
 * -1.
 */
int project_wait_ready(struct store *s, const char *name, const struct project_ready *ready,
		       int cancel, struct err *err);

#endif
