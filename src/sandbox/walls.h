/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walls around a machine as msb-vm reports them (jail_describe()), for people: one by one, and
 * what to do where one is missing. Any thread.
 */
#ifndef SANDBOX_WALLS_H
#define SANDBOX_WALLS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

/* More than there are steps. */
#define WALLS_MAX 16

struct wall {
	char name[32];
	bool held;
	char detail[224]; /* what it consists of, or why it does not hold */
};

/* Read a report; returns how many walls it had, at most WALLS_MAX. NULL has none. */
size_t walls_parse(const char *text, struct wall walls[WALLS_MAX]);

/* What a sandbox is without it, in a clause; "" for one we do not know. Static. */
const char *wall_lost(const char *name);
/*
 * What to change on the host so that a wall that does not hold does, judged by its detail and by
 * the settings below @proc ("/proc" but in tests). "" when nothing is known. Static.
 */
const char *wall_remedy(const struct wall *w, const char *proc);

/*
 * Build the walls of @engine around a process, as this user in this store, and append its report.
 * Nothing is left behind.
 */
struct store;
int walls_try(struct store *s, const char *engine, struct buf *report, struct err *err);

#endif
