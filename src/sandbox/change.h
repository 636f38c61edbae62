/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes to a sandbox that are two steps, one of them in its row: to pause it, to modify it. One
 * at a time, and a mark in the directory says that somebody is at it; a mark without anybody is of
 * one that was killed, or could not write the row, and is what heal.c goes by. Any thread.
 */
#ifndef SANDBOX_CHANGE_H
#define SANDBOX_CHANGE_H

#include <stdbool.h>

#include "base/err.h"

struct store;
struct strv;

struct sandbox_change {
	int dir;     /* locked; -1: not begun */
	bool marked; /* by us, and not by one that was killed */
};
#define SANDBOX_CHANGE_INIT                                                                        \
	{                                                                                          \
		.dir = -1                                                                          \
	}

/* Waits for others. */
int sandbox_change_begin(struct store *s, const char *name, struct sandbox_change *ret,
			 struct err *err);
/*
 * @whole: all that belongs together says the same, as far as we know. The mark of one that was
 * killed meanwhile stays: what it left is not what we have made whole.
 */
void sandbox_change_end(struct sandbox_change *c, bool whole);

/*
 * What the row says of labels, for the sandbox whose directory @dirfd is. ERR_NOT_FOUND when it was
 * removed meanwhile, be there another one of its name or not.
 */
int sandbox_change_labels(struct store *s, const char *name, int dirfd, const struct strv *labels,
			  struct err *err);
/* Is there a mark? */
bool sandbox_change_marked(int dirfd);
/* Does nobody else change it? Then nobody will, as long as @dirfd is open. */
bool sandbox_change_take(int dirfd);
void sandbox_change_unmark(int dirfd);

#endif
