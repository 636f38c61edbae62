/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes to a sandbox that are two steps, one of them in its row: to pause it, to modify it. One
 * at a time, and a mark in the directory says that somebody is at it; a mark without anybody is of
 * one that was killed, or could not write the row, and is what heal.c goes by. Any thread.
 *
 * Theory of operation. A kept sandbox's record (config.json) and its rows in the table of labels
 * say the same. Both are written only under the change lock, which is flock() of the directory:
 *
 *	made		record, row and labels from one record (sandbox.c)
 *	changed		labels from a record that was read, changed and written (modify), the
 *			record alone from one that was read (sandbox_set_main())
 *	healed		labels from the record that is there (heal.c)
 *	given up	the record goes, and the row, with which its labels do (sandbox_dir_hold())
 *
 * The last is done by who holds the sandbox's own lock as well; so what has a record once the change
 * lock is held keeps it, its directory and its name until that is let go of. An ephemeral one's is
 * there after its row, and both go without the lock: nobody else will have its name.
 *
 * Order of locks: the sandbox's own, change, sandboxes/, database. Who holds one of the latter two
 * may try the change lock, and not wait for it.
 */
#ifndef SANDBOX_CHANGE_H
#define SANDBOX_CHANGE_H

#include <stdbool.h>

#include "base/err.h"

struct store;

/* The directory of @name, locked; without @wait -EWOULDBLOCK when somebody else has. */
int sandbox_change_lock(struct store *s, const char *name, bool wait, struct err *err);

struct sandbox_change {
	int dir;     /* locked; -1: not begun */
	bool marked; /* by us, and not by one that was killed */
};
#define SANDBOX_CHANGE_INIT                                                                        \
	{                                                                                          \
		.dir = -1                                                                          \
	}

/* Waits for others. -ERR_NOT_FOUND: it is only being made, or removed. */
int sandbox_change_begin(struct store *s, const char *name, struct sandbox_change *ret,
			 struct err *err);
/*
 * @whole: all that belongs together says the same, as far as we know. The mark of one that was
 * killed meanwhile stays: what it left is not what we have made whole.
 */
void sandbox_change_end(struct sandbox_change *c, bool whole);

/* Is there a mark? */
bool sandbox_change_marked(int dirfd);
/*
 * Does nobody else change it? Then nobody will, as long as @dirfd is open. For who holds its lock,
 * or that on sandboxes/.
 */
bool sandbox_change_take(int dirfd);
void sandbox_change_unmark(int dirfd);

#endif
