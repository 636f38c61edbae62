/* SPDX-License-Identifier: Apache-2.0 */
/*
 * msb modify: change what a sandbox is, while it runs where that can be.
 *
 * What is asked for is compared with what is written down; each difference becomes a change with a
 * disposition. The record is written first: what cannot be done to the machine then is the next
 * one's.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/point.h"
#include "base/str.h"
#include "cli/background.h"
#include "cli/cli.h"
#include "cli/modify_net.h"
#include "image/image.h"
#include "sandbox/change.h"
#include "sandbox/control_client.h"
#include "sandbox/net_change.h"
#include "sandbox/record.h"
#include "sandbox/sandbox.h"
#include "sandbox/sandbox_dir.h"
#include "sandbox/state.h"
#include "store/store.h"

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
	FIELDS,
};

static const char *const field_names[FIELDS] = {
	"cpus", "max_cpus", "memory", "max_memory", "max_duration", "idle_timeout", "workdir",
	"env",	"labels",   "net",    "net_rules",  "net_limits",   "ports",
};

struct modify_args {
	struct sandbox_spec wishes; /* those that were named: */
	bool named[FIELDS];
	struct strv env_rm, label_rm, net_rule_rm, port_rm;
	const char *workdir;
	bool dry_run, next_start, restart, json, quiet;
};

static void args_done(struct modify_args *a)
{
	sandbox_spec_done(&a->wishes);
	strv_done(&a->env_rm);
	strv_done(&a->label_rm);
	strv_done(&a->net_rule_rm);
	strv_done(&a->port_rm);
}

/* "none" takes a limit away. */
static int set_limit(struct modify_args *a, enum field f, const char *value, struct err *err)
{
	bool idle = f == IDLE_TIMEOUT;

	if (str_eq(value, "none")) {
		*(idle ? &a->wishes.idle_timeout_ms : &a->wishes.max_duration_ms) = 0;
		return 0;
	}
	return idle ? sandbox_spec_idle_timeout(&a->wishes, value, err)
		    : sandbox_spec_max_duration(&a->wishes, value, err);
}

static int set_field(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct modify_args *a = target;
	enum field f = (enum field)o->number;

	a->named[f] = true;
	switch (f) {
	case CPUS:
		return sandbox_spec_cpus(&a->wishes, value, err);
	case MAX_CPUS:
		return sandbox_spec_max_cpus(&a->wishes, value, err);
	case MEMORY:
		return sandbox_spec_memory(&a->wishes, value, err);
	case MAX_MEMORY:
		return sandbox_spec_max_memory(&a->wishes, value, err);
	case MAX_DURATION:
	case IDLE_TIMEOUT:
		return set_limit(a, f, value, err);
	case WORKDIR:
		a->workdir = value;
		return 0;
	case ENV:
		return sandbox_spec_env(&a->wishes, value, err);
	default:
		return sandbox_spec_label(&a->wishes, value, err);
	}
}

static int remove_key(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct modify_args *a = target;
	bool env = o->number == ENV;

	if (!*value || strchr(value, '='))
		return err_set(err, ERR_USAGE, "\"%s\" is no name of a %s", value,
			       env ? "variable" : "label");
	a->named[o->number] = true;
	return strv_add(env ? &a->env_rm : &a->label_rm, value) < 0
		       ? err_set(err, ENOMEM, "out of memory")
		       : 0;
}

/* Said as for a new sandbox. */
static int set_net(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct modify_args *a = target;

	a->named[o->number] = true;
	return modify_net_set(&a->wishes, o->name, value, err);
}

static int remove_net(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct modify_args *a = target;

	a->named[o->number] = true;
	return strv_add(o->number == PORTS ? &a->port_rm : &a->net_rule_rm, value) < 0
		       ? err_set(err, ENOMEM, "out of memory")
		       : 0;
}

#define ARGS(f) offsetof(struct modify_args, f)
#define LIMIT(opt, arg, help)                                                                      \
	{                                                                                          \
		0, opt, arg "|none", help, set_net, 0, NET_LIMITS                                  \
	}

static const struct opt modify_opts[] = {
	{'c', "cpus", "N", "CPUs; at once up to --max-cpus of its start", set_field, 0, CPUS},
	{0, "max-cpus", "N", "CPUs that it can be given while it runs", set_field, 0, MAX_CPUS},
	{'m', "memory", "SIZE", "Memory; at once up to --max-memory of its start", set_field, 0,
	 MEMORY},
	{0, "max-memory", "SIZE", "Memory that it can be given while it runs", set_field, 0,
	 MAX_MEMORY},
	{0, "max-duration", "TIME|none", "Stop it after this long, counted from its start",
	 set_field, 0, MAX_DURATION},
	{0, "idle-timeout", "TIME|none", "Stop it when nothing was done in it for so long",
	 set_field, 0, IDLE_TIMEOUT},
	{'w', "workdir", "PATH", "Working directory of commands to come", set_field, 0, WORKDIR},
	{'e', "env", "KEY[=VALUE]", "Set a variable for commands to come (repeatable)", set_field,
	 0, ENV},
	{0, "env-rm", "KEY", "No longer set a variable (repeatable)", remove_key, 0, ENV},
	{0, "label", "KEY[=VALUE]", "Attach a label (repeatable)", set_field, 0, LABELS},
	{0, "label-rm", "KEY", "Remove a label (repeatable)", remove_key, 0, LABELS},
	{'p', "port", "[BIND:]HOST:GUEST[/udp]",
	 "Publish a port of the guest, or a range (repeatable)", set_net, 0, PORTS},
	{0, "port-rm", "[BIND:]HOST:GUEST[/udp]", "No longer publish it (repeatable)", remove_net,
	 0, PORTS},
	{0, "net", "PROFILE[,...]", "What the guest may reach, in place of what was said", set_net,
	 0, NET},
	{0, "net-default", "allow|deny", "What no rule decides, both ways, in place of profiles",
	 set_net, 0, NET},
	{0, "net-default-egress", "allow|deny", "The same, what the guest begins", set_net, 0, NET},
	{0, "net-default-ingress", "allow|deny", "The same, what comes in", set_net, 0, NET},
	{0, "net-rule", "RULE[,...]", "A rule before those that there are (repeatable)", set_net, 0,
	 NET_RULES},
	{0, "net-rule-rm", "RULE[,...]", "Remove a rule, as it was said (repeatable)", remove_net,
	 0, NET_RULES},
	LIMIT("max-connections", "N", "Connections at a time"),
	LIMIT("max-connection-rate", "N[/TIME]", "New connections in a time"),
	LIMIT("net-egress-bandwidth", "SIZE[/TIME]", "Bytes from the guest in a time"),
	LIMIT("net-egress-bandwidth-burst", "SIZE", "Bytes above that, once"),
	LIMIT("net-egress-ops", "N[/TIME]", "Frames from the guest in a time"),
	LIMIT("net-egress-ops-burst", "N", "Frames above that, once"),
	LIMIT("net-ingress-bandwidth", "SIZE[/TIME]", "Bytes to the guest in a time"),
	LIMIT("net-ingress-bandwidth-burst", "SIZE", "Bytes above that, once"),
	LIMIT("net-ingress-ops", "N[/TIME]", "Frames to the guest in a time"),
	LIMIT("net-ingress-ops-burst", "N", "Frames above that, once"),
	{0, "dry-run", NULL, "Only show what would be done, and when", opt_set_flag, ARGS(dry_run),
	 0},
	{0, "next-start", NULL, "Leave the machine as it is; its next one is as asked for",
	 opt_set_flag, ARGS(next_start), 0},
	{0, "restart", NULL, "Restart it where a change needs that", opt_set_flag, ARGS(restart),
	 0},
	{0, "format", "json|table", "How to show the changes [table]", opt_set_format, ARGS(json),
	 0},
	{'q', "quiet", NULL, "Do not show the changes", opt_set_flag, ARGS(quiet), 0},
};

/* ---- what would be ---- */

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

static void subject_done(struct subject *s)
{
	close_fd(s->dir);
	sandbox_change_end(&s->changing, !s->torn);
	close_fd(s->control);
	record_done(&s->old);
	record_done(&s->new);
	for (size_t i = 0; i < s->n; i++) {
		buf_done(&s->changes[i].from);
		buf_done(&s->changes[i].to);
	}
}

static void without(struct strv *v, const struct strv *keys)
{
	size_t kept = 0;

	for (size_t i = 0; i < v->n; i++) {
		size_t len = strcspn(v->v[i], "=");
		bool drop = false;

		for (size_t k = 0; k < keys->n && !drop; k++)
			drop = strlen(keys->v[k]) == len && !memcmp(keys->v[k], v->v[i], len);
		if (drop)
			free(v->v[i]);
		else
			v->v[kept++] = v->v[i];
	}
	v->n = kept;
	if (v->v)
		v->v[kept] = NULL;
}

static int with(struct strv *v, const struct strv *more)
{
	int r = 0;

	for (size_t i = 0; i < more->n; i++)
		r |= strv_env_set(v, more->v[i]);
	return r;
}

/* Put the wishes into the new record. */
static int apply(struct subject *s, const struct modify_args *a, struct err *err)
{
	struct sandbox_spec *to = &s->new.spec;
	const struct sandbox_spec *w = &a->wishes;
	int r = 0;

	if (a->named[MAX_CPUS])
		to->max_cpus = w->max_cpus;
	/* Fewer are not to mean that it can never have as many again. */
	else if (a->named[CPUS] && !to->max_cpus && w->cpus < to->cpus)
		to->max_cpus = to->cpus;
	if (a->named[CPUS])
		to->cpus = w->cpus;
	if (a->named[MEMORY])
		to->memory = w->memory;
	if (a->named[MAX_MEMORY])
		to->max_memory = w->max_memory;
	if (a->named[MAX_DURATION])
		to->max_duration_ms = w->max_duration_ms;
	if (a->named[IDLE_TIMEOUT])
		to->idle_timeout_ms = w->idle_timeout_ms;
	if (a->workdir) {
		free(to->workdir);
		to->workdir = strdup(a->workdir);
		r |= to->workdir ? 0 : -ENOMEM;
	}
	without(&to->env, &a->env_rm);
	without(&to->labels, &a->label_rm);
	r |= with(&to->env, &w->env);
	r |= with(&to->labels, &w->labels);
	if (r)
		return err_set(err, ENOMEM, "out of memory");
	r = modify_net_apply(to, w, &a->net_rule_rm, &a->port_rm, err);
	return r < 0 ? r : sandbox_spec_check(to, err);
}

static void add_ms(struct buf *b, uint64_t ms)
{
	if (!ms)
		buf_addf(b, "none");
	else if (ms % 1000)
		buf_addf(b, "%" PRIu64 "ms", ms);
	else
		buf_addf(b, "%" PRIu64 "s", ms / 1000);
}

static void add_list(struct buf *b, const struct strv *v)
{
	for (size_t i = 0; i < v->n; i++)
		buf_addf(b, "%s%s", i ? " " : "", v->v[i]);
}

static void describe(const struct sandbox_spec *s, enum field f, struct buf *b)
{
	char size[24];

	switch (f) {
	case CPUS:
		buf_addf(b, "%u", s->cpus);
		break;
	case MAX_CPUS:
		buf_addf(b, "%u", MAX(s->cpus, s->max_cpus));
		break;
	case MEMORY:
		buf_addf(b, "%s", str_size(s->memory, size));
		break;
	case MAX_MEMORY:
		if (s->max_memory)
			buf_addf(b, "%s", str_size(s->max_memory, size));
		break;
	case MAX_DURATION:
		add_ms(b, s->max_duration_ms);
		break;
	case IDLE_TIMEOUT:
		add_ms(b, s->idle_timeout_ms);
		break;
	case WORKDIR:
		buf_addf(b, "%s", s->workdir ? s->workdir : "");
		break;
	case ENV:
		add_list(b, &s->env);
		break;
	case NET:
		buf_addf(b, "%s", s->net ? s->net : s->net_egress ? "" : "public");
		if (s->net_egress)
			buf_addf(b, "egress %s", s->net_egress);
		if (s->net_ingress)
			buf_addf(b, "%singress %s", buf_size(b) ? ", " : "", s->net_ingress);
		break;
	case NET_RULES:
		add_list(b, &s->net_rules);
		break;
	case NET_LIMITS:
		add_list(b, &s->net_limits);
		break;
	case PORTS:
		add_list(b, &s->ports);
		break;
	default:
		add_list(b, &s->labels);
		break;
	}
	(void)buf_cstr(b);
}

static enum disposition when(const struct subject *s, enum field f, bool next_start)
{
	/* Labels are ours alone. */
	if (f == LABELS)
		return LIVE;
	if (!s->running || next_start)
		return NEXT_START;
	switch (f) {
	case CPUS:
		return s->new.spec.cpus <= s->machine_cpus ? LIVE : NEEDS_RESTART;
	case MAX_CPUS:
		/* The machine has as many as it was made with. */
		return MAX(s->new.spec.cpus, s->new.spec.max_cpus) == s->machine_cpus
			       ? LIVE
			       : NEEDS_RESTART;
	case MEMORY:
		return s->new.spec.memory >= s->least_memory && s->new.spec.memory <= s->most_memory
			       ? LIVE
			       : NEEDS_RESTART;
	case MAX_MEMORY:
		return MAX(s->new.spec.memory, s->new.spec.max_memory) == s->most_memory
			       ? LIVE
			       : NEEDS_RESTART;
	default:
		return LIVE;
	}
}

/* It was asked for before, and the machine could not, or was not told. */
static bool is_due(const struct subject *s, const struct modify_args *a, enum field f)
{
	if (!s->running || a->next_start || !a->named[f])
		return false;
	return (f == CPUS && s->cpus != s->new.spec.cpus) ||
	       (f == MEMORY && s->memory != s->new.spec.memory) ||
	       (f == MAX_DURATION && s->max_duration_ms != s->new.spec.max_duration_ms) ||
	       (f == IDLE_TIMEOUT && s->idle_timeout_ms != s->new.spec.idle_timeout_ms);
}

static bool is_same(const struct subject *s, const struct change *c)
{
	const struct sandbox_spec *old = &s->old.spec, *new = &s->new.spec;

	/* In words two sizes may be one. */
	if (c->field == MEMORY)
		return old->memory == new->memory;
	if (c->field == MAX_MEMORY)
		return old->max_memory == new->max_memory;
	return buf_size(&c->from) == buf_size(&c->to) &&
	       !memcmp(buf_ptr(&c->from), buf_ptr(&c->to), buf_size(&c->from));
}

static void plan(struct subject *s, const struct modify_args *a)
{
	const struct sandbox_spec machine = {
		.cpus = s->cpus,
		.memory = s->memory,
		.max_duration_ms = s->max_duration_ms,
		.idle_timeout_ms = s->idle_timeout_ms,
	};

	for (enum field f = 0; f < FIELDS; f++) {
		struct change *c = &s->changes[s->n];

		*c = (struct change){.field = f};
		describe(&s->old.spec, f, &c->from);
		describe(&s->new.spec, f, &c->to);
		if (is_same(s, c)) {
			buf_reset(&c->from);
			if (is_due(s, a, f)) {
				describe(&machine, f, &c->from);
			} else {
				buf_done(&c->from);
				buf_done(&c->to);
				continue;
			}
		}
		c->when = when(s, f, a->next_start);
		c->state = "planned";
		s->n++;
	}
}

static int look(struct subject *s, struct err *err)
{
	cleanup_sandbox_list struct sandbox_list l = {0};
	cleanup_answer struct control_answer a = {0};
	int r = sandbox_dir_list(s->store, s->name, &l, err);

	if (r < 0)
		return r;
	r = sandbox_change_begin(s->store, s->name, &s->changing, err);
	if (r < 0)
		return r;
	/* Of its own, as the lock goes with whatever is duplicated. */
	s->dir = openat(s->changing.dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dir < 0)
		return err_errno(err, "cannot open sandbox \"%s\"", s->name);
	r = record_read(s->dir, &s->old, err);
	if (r == 0)
		r = record_read(s->dir, &s->new, err);
	if (r < 0)
		return err_wrap(err, "sandbox \"%s\"", s->name);
	if (!l.items[0].running)
		return 0;
	s->control = control_connect(s->store, s->name, err);
	if (s->control == -ENOTCONN) {
		err_clear(err);
		return 0;
	}
	if (s->control < 0)
		return s->control;
	s->running = true;
	r = control_ask(s->control, &(struct control_request){.op = CONTROL_STATS},
			CONTROL_TIMEOUT_MS, &a, err);
	s->cpus = a.stats.cpus;
	s->machine_cpus = a.stats.cpus_max;
	s->max_duration_ms = a.stats.max_duration_ns / 1000000;
	s->idle_timeout_ms = a.stats.idle_timeout_ns / 1000000;
	s->memory = a.stats.memory;
	s->least_memory = a.stats.memory_min;
	s->most_memory = a.stats.memory_max;
	return r < 0 ? err_wrap(err, "sandbox \"%s\"", s->name) : 0;
}

/* ---- and doing it ---- */

static int write_down(struct subject *s, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;
	const char *file = s->new.ephemeral ? RECORD_EPHEMERAL : RECORD_KEPT;
	int r = record_encode(&s->new, &b);

	point("modify:read");
	s->torn = true;
	if (r == 0)
		r = record_put(s->dir, file, &b);
	if (r < 0)
		return err_set(err, r, "cannot write down sandbox \"%s\": %s", s->name,
			       err_name(r));
	point("modify:record");
	r = sandbox_state_labels(s->store, s->name, &s->new.spec.labels, err);
	s->torn = r < 0;
	return r;
}

static int ask_defaults(struct subject *s, struct err *err)
{
	struct image_info image = IMAGE_INFO_INIT;
	cleanup_command struct sandbox_command c = {0};
	struct control_request q = {.op = CONTROL_DEFAULTS};
	int r = s->new.image_id[0] ? image_find(s->store, s->new.image_id, &image, err) : 0;

	if (r == 0)
		r = sandbox_command_resolve(&s->new.spec, &image.config, NULL, 0, &c, err);
	if (r == 0) {
		q.env = (struct wire_texts){c.env.v, c.env.n};
		q.workdir = c.workdir;
		r = control_ask(s->control, &q, CONTROL_TIMEOUT_MS, NULL, err);
	}
	image_info_done(&image);
	return r;
}

/* 1 when it is on the way there, and we no longer wait. */
static int ask_live(struct subject *s, enum field f, struct err *err)
{
	const struct sandbox_spec *to = &s->new.spec;
	cleanup_answer struct control_answer a = {0};
	struct control_request q = {.op = CONTROL_LIMITS};
	int r;

	switch (f) {
	case CPUS:
		q.op = CONTROL_CPUS;
		q.cpus = to->cpus;
		break;
	case MEMORY:
		q.op = CONTROL_MEMORY;
		q.memory = to->memory;
		break;
	case MAX_DURATION:
		q.has_max_duration_ns = true;
		q.max_duration_ns = to->max_duration_ms * 1000000;
		break;
	case IDLE_TIMEOUT:
		q.has_idle_timeout_ns = true;
		q.idle_timeout_ns = to->idle_timeout_ms * 1000000;
		break;
	case WORKDIR:
	case ENV:
		return ask_defaults(s, err);
	case NET:
	case NET_RULES:
	case NET_LIMITS:
		return sandbox_net_tell(s->control, to, err);
	case PORTS:
		return sandbox_net_ports(s->control, s->dir, &s->old.spec, to, err);
	default:
		return 0;
	}
	r = control_ask(s->control, &q, CONTROL_TIMEOUT_MS, &a, err);
	return r == 0 && f == MEMORY ? a.memory != to->memory : r;
}

/* False when one of them did not work. */
static bool carry_out(struct subject *s, const struct modify_args *a)
{
	struct err lost = ERR_INIT;
	bool all = true;

	point("modify:machine");
	/*
	 * What sessions get cannot be asked for. It may be written down and not have been told, by
	 * one that was killed here.
	 */
	if (!s->n && s->running && !a->next_start && (a->named[ENV] || a->named[WORKDIR]) &&
	    ask_defaults(s, &lost) < 0) {
		cli_error(&lost);
		return false;
	}

	for (size_t i = 0; i < s->n; i++) {
		struct change *c = &s->changes[i];
		int r;

		if (c->when != LIVE) {
			c->state = "accepted";
			continue;
		}
		r = s->running ? ask_live(s, c->field, &c->why) : 0;
		c->state = r == 0	     ? "applied"
			   : r > 0	     ? "converging"
			   : r == -ERR_GUEST ? "guest-refused"
					     : "failed";
		all &= r >= 0;
	}
	return all;
}

/* Its next machine has everything, what could have been done to this one too. */
static int restart(struct cli *cli, struct subject *s, struct err *err)
{
	char *name = (char *)(uintptr_t)s->name;
	int r;

	/* Who holds it now would wait for us otherwise; and all that can be is written down. */
	sandbox_change_end(&s->changing, true);
	r = sandbox_stop(s->store, s->name, false, SANDBOX_STOP_TIMEOUT_MS, err);
	if (r == -ETIMEDOUT) {
		cli_warn("%s", err->msg);
		err_clear(err);
	} else if (r < 0) {
		return cli_fail(err, EXIT_FAILURE);
	}
	r = background_start_all(cli, s->store, &name, 1, true);
	for (size_t i = 0; i < s->n; i++)
		s->changes[i].state = r ? "accepted" : "applied";
	return r;
}

/* ---- showing it ---- */

static const char *const dispositions[] = {
	[LIVE] = "live",
	[NEXT_START] = "next start",
	[NEEDS_RESTART] = "requires restart",
};

static int show_json(const struct subject *s, const struct modify_args *a)
{
	json_t *changes = json_array();

	for (size_t i = 0; i < s->n; i++) {
		const struct change *c = &s->changes[i];
		json_t *o = json_pack("{s:s,s:s%,s:s%,s:s,s:s}", "field", field_names[c->field],
				      "from", buf_ptr(&c->from), buf_size(&c->from), "to",
				      buf_ptr(&c->to), buf_size(&c->to), "disposition",
				      dispositions[c->when], "state", c->state);

		if (c->why.code)
			json_object_set_new(o, "message", json_string(c->why.msg));
		json_array_append_new(changes, o);
	}
	return cli_json(json_pack("{s:s,s:b,s:o}", "name", s->name, "dry_run", a->dry_run,
				  "changes", changes));
}

static int show(const struct subject *s, const struct modify_args *a)
{
	enum { COLUMNS = 5 };
	const char *cells[(FIELDS + 1) * COLUMNS] = {"FIELD", "FROM", "TO", "WHEN", "STATE"};
	size_t n = COLUMNS;

	if (a->quiet)
		return 0;
	if (a->json)
		return show_json(s, a);
	if (!s->n) {
		printf("%s is as asked for already\n", s->name);
		return cli_finish();
	}
	for (size_t i = 0; i < s->n; i++) {
		const struct change *c = &s->changes[i];

		cells[n++] = field_names[c->field];
		cells[n++] = buf_size(&c->from) ? (const char *)buf_ptr(&c->from) : "-";
		cells[n++] = buf_size(&c->to) ? (const char *)buf_ptr(&c->to) : "-";
		cells[n++] = dispositions[c->when];
		cells[n++] = c->state;
	}
	cli_table(cells, COLUMNS, n / COLUMNS);
	return cli_finish();
}

static bool needs_restart(const struct subject *s)
{
	for (size_t i = 0; i < s->n; i++) {
		if (s->changes[i].when == NEEDS_RESTART)
			return true;
	}
	return false;
}

static int check_restart(const struct subject *s, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;

	for (size_t i = 0; i < s->n; i++) {
		if (s->changes[i].when == NEEDS_RESTART)
			buf_addf(&b, "%s%s", buf_size(&b) ? ", " : "",
				 field_names[s->changes[i].field]);
	}
	if (!buf_size(&b))
		return 0;
	err_set(err, EBUSY, "sandbox \"%s\" runs, and needs a restart for a change of %s", s->name,
		buf_cstr(&b));
	return err_hint(err, "--restart does that, --next-start leaves it for the next one");
}

static int modify_one(struct cli *cli, struct subject *s, const struct modify_args *a,
		      struct err *err)
{
	bool worked = true;
	int r = look(s, err), code, restarted = 0;

	if (r == 0)
		r = apply(s, a, err);
	if (r < 0)
		return cli_fail(err, EXIT_FAILURE);
	plan(s, a);
	if (!a->dry_run) {
		r = a->restart ? 0 : check_restart(s, err);
		if (r == 0 && s->n)
			r = write_down(s, err);
		if (r < 0)
			return cli_fail(err, EXIT_FAILURE);
		if (needs_restart(s))
			restarted = restart(cli, s, err);
		else
			worked = carry_out(s, a);
	}
	code = show(s, a);
	for (size_t i = 0; i < s->n; i++) {
		struct change *c = &s->changes[i];

		if (!c->why.code)
			continue;
		err_wrap(&c->why, "sandbox \"%s\": %s", s->name, field_names[c->field]);
		cli_error(&c->why);
	}
	return restarted ? restarted : worked ? code : EXIT_FAILURE;
}

static int modify(struct cli *cli, int argc, char **argv)
{
	__attribute__((cleanup(args_done))) struct modify_args a = {0};
	__attribute__((cleanup(subject_done))) struct subject s = {
		.dir = -1, .changing = SANDBOX_CHANGE_INIT, .control = -1};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	struct err err = ERR_INIT;
	bool any = false;
	int code;

	if (cli_parse_operands(cli, &a, argc, argv, 1, 1, &words, &code))
		return code;
	for (size_t i = 0; i < FIELDS; i++)
		any |= a.named[i];
	if (!any) {
		err_set(&err, ERR_USAGE, "change what?");
		err_hint(&err, "`msb modify --help` shows what can be changed");
		return cli_fail(&err, EXIT_USAGE);
	}
	if (a.next_start && a.restart) {
		err_set(&err, ERR_USAGE, "--next-start and --restart exclude each other");
		return cli_fail(&err, EXIT_USAGE);
	}
	if (store_open(&store, NULL, &err) < 0)
		return cli_fail(&err, EXIT_FAILURE);
	sandbox_dir_heal(store, true);
	s.store = store;
	s.name = words.words[0];
	return modify_one(cli, &s, &a, &err);
}

const struct verb verb_modify = {
	.name = "modify",
	.alias = "mod",
	.group = "Sandboxes",
	.args = "[OPTIONS] NAME",
	.summary = "Change what a sandbox is, while it runs where that can be",
	.details =
		"CPUs come and go while it runs, up to those that it was started with "
		"(--max-cpus); those\n"
		"beyond do not run, whatever the guest does. Memory comes up to --max-memory of "
		"its start, and\n"
		"goes again as far as the guest does not use it. Limits, labels and the network "
		"change at once, and\n"
		"connections that are denied now are cut; environment and\n"
		"working directory for commands to come. Without --next-start, nothing is changed "
		"at all where\n"
		"something needs a restart.",
	.examples = "msb modify box --max-duration 2h --label reviewed\n"
		    "msb modify box -c 4 --restart\n"
		    "msb modify box -m 2G --dry-run  # what would that take?",
	.opts = modify_opts,
	.nopts = ARRAY_SIZE(modify_opts),
	.run = modify,
};
