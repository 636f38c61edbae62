/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked of msb modify, and what that comes to: modify.c and modify_plan.c. */
#ifndef CLI_MODIFY_IMPL_H
#define CLI_MODIFY_IMPL_H

#include <stdbool.h>

#include "base/buf.h"
#include "sandbox/change.h"
#include "sandbox/record.h"
#include "sandbox/spec.h"

struct store;

enum field {
	CPUS,
	MAX_CPUS,
	MEMORY,
	MAX_MEMORY,
	MAX_DURATION,
	IDLE_TIMEOUT,
	WORKDIR,
	ENV,
	LABELS,
	NET,
	NET_RULES,
	NET_LIMITS,
	PORTS,
	RESET, /* what is none of those */
	FIELDS,
};

/* What a field is in record_config(). */
#define MODIFY_KEYS 3
extern const char *const modify_keys[FIELDS][MODIFY_KEYS];

struct modify_args {
	struct sandbox_spec wishes; /* those that were named: */
	bool named[FIELDS];
	struct strv env_rm, label_rm, net_rule_rm, port_rm, reset;
	const char *workdir;
	bool dry_run, next_start, restart, json, quiet;
};

enum disposition { LIVE, NEXT_START, NEEDS_RESTART };

struct change {
	enum field field;
	struct buf from, to;
	enum disposition when;
	const char *state; /* static */
	struct err why;
};

struct subject {
	struct store *store;
	const char *name;
	int dir;
	struct sandbox_record old, new;
	struct sandbox_change changing;
	bool torn; /* some of what is written down may be, and some not */
	bool running;
	int control; /* -1: it does not run */
	/* Of the machine: what it has, and can have. */
	uint32_t cpus, machine_cpus;
	uint64_t memory, least_memory, most_memory;
	uint64_t max_duration_ms, idle_timeout_ms;
	struct change changes[FIELDS];
	size_t n;
};

void modify_done(struct subject *s);
/* What there is: what is written down, and what the machine has, if there is one. */
int modify_look(struct subject *s, struct err *err);
/* Put the wishes into the new record. */
int modify_apply(struct subject *s, const struct modify_args *a, struct err *err);
/* Then the changes are the differences. */
void modify_plan(struct subject *s, const struct modify_args *a);

#endif
