/* SPDX-License-Identifier: Apache-2.0 */
/* What sandbox_dir.c and heal.c know of each other. */
#ifndef SANDBOX_SANDBOX_DIR_IMPL_H
#define SANDBOX_SANDBOX_DIR_IMPL_H

#include "sandbox/sandbox_dir.h"

#define SANDBOX_LOCK "lock"

struct sandbox_record;

/* The lock on sandboxes/ itself, a descriptor of that directory; see sandbox_dir.h. */
int sandbox_names_lock(struct store *s, bool wait);
/* The directory of an entry of sandboxes/, and its lock's file; -1 when it is none. */
int sandbox_entry_open(int at, const char *name, int *lock);
/* Has it a config.json? */
bool sandbox_dir_kept(int dirfd);
/* Has it that, or an ephemeral.json? */
bool sandbox_dir_known(int dirfd);
/* Remove sockets that nobody listens on any more. */
void sandbox_dir_clean(int dirfd);
/* "There is no such sandbox.", and a name that it may have been meant to be. */
int sandbox_none(struct store *s, const char *name, struct err *err);
/*
 * State and reason of a sandbox that is not running and whose row is missing or says otherwise: by
 * what is known of its machine.
 */
void sandbox_state_guess(int dirfd, struct sandbox_status *s);
/* Set right the row of a kept sandbox whose lock is ours, as is that on changes (change.h). */
int sandbox_heal_row(struct store *s, int dirfd, const struct sandbox_record *record,
		     struct err *err);

#endif
