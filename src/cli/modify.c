/* SPDX-License-Identifier: Apache-2.0 */
/*
 * msb modify: change what a sandbox is, while it runs where that can be.
 *
 * What is asked for is compared with what is written down; each difference becomes a change with a
 * disposition. The record is written first: what cannot be done to the machine then is the next
 * one's.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/point.h"
#include "base/str.h"
#include "cli/background.h"
#include "cli/cli.h"
#include "cli/modify_impl.h"
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

static const char *const field_names[FIELDS] = {
	"cpus", "max_cpus", "memory", "max_memory", "max_duration", "idle_timeout", "workdir",
	"env",	"labels",   "net",    "net_rules",  "net_limits",   "ports",	    "reset",
};

static void args_done(struct modify_args *a)
{
	sandbox_spec_done(&a->wishes);
	strv_done(&a->env_rm);
	strv_done(&a->label_rm);
	strv_done(&a->net_rule_rm);
	strv_done(&a->port_rm);
	strv_done(&a->reset);
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

static int reset(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct modify_args *a = target;

	a->named[o->number] = true;
	return strv_add(&a->reset, value) < 0 ? err_set(err, ENOMEM, "out of memory") : 0;
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
	{0, "reset", "KEY", "Forget what was said of a key of its configuration (repeatable)",
	 reset, 0, RESET},
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

/* The machine has what is written down of this field. */
static void take_field(json_t *has, const json_t *all, enum field f)
{
	for (size_t k = 0; k < MODIFY_KEYS && modify_keys[f][k]; k++) {
		const char *key = modify_keys[f][k];
		json_t *value = json_object_get(all, key);

		if (value)
			json_object_set(has, key, value);
		else
			json_object_del(has, key);
	}
	/* Fewer CPUs at once may have set that, too. */
	if (f == CPUS)
		take_field(has, all, MAX_CPUS);
}

/* What the machine has from now on, should that not be all that is written down: for `inspect`. */
static void note_active(const struct subject *s, bool defaults)
{
	json_t *all = record_config(&s->new.spec), *has = record_active_read(s->dir);

	if (!has)
		has = record_config(&s->old.spec);
	for (size_t i = 0; i < s->n; i++) {
		const struct change *c = &s->changes[i];

		if (str_eq(c->state, "applied") || str_eq(c->state, "converging"))
			take_field(has, all, c->field);
	}
	if (defaults) {
		take_field(has, all, ENV);
		take_field(has, all, WORKDIR);
	}
	/* Not being able to tell is no reason to fail. */
	(void)record_active_put(s->dir, json_equal(all, has) ? NULL : has);
	json_decref(all);
	json_decref(has);
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

/* What can be known to fail, before anything is written down. */
static int try_changes(const struct subject *s, struct err *err)
{
	for (size_t i = 0; i < s->n; i++) {
		if (s->running && s->changes[i].field == PORTS && s->changes[i].when == LIVE)
			return sandbox_net_ports_try(s->dir, &s->old.spec, &s->new.spec, err);
	}
	return 0;
}

static int modify_one(struct cli *cli, struct subject *s, const struct modify_args *a,
		      struct err *err)
{
	bool worked = true;
	int r = modify_look(s, err), code, restarted = 0;

	if (r == 0)
		r = modify_apply(s, a, err);
	if (r < 0)
		return cli_fail(err, EXIT_FAILURE);
	modify_plan(s, a);
	if (!a->dry_run) {
		r = a->restart ? 0 : check_restart(s, err);
		if (r == 0)
			r = try_changes(s, err);
		if (r == 0 && s->n)
			r = write_down(s, err);
		if (r < 0)
			return cli_fail(err, EXIT_FAILURE);
		if (needs_restart(s))
			restarted = restart(cli, s, err);
		else
			worked = carry_out(s, a);
		/* Without a change the machine may have been told what it did not know. */
		if (s->running && !needs_restart(s))
			note_active(s, !s->n && worked && !a->next_start &&
					       (a->named[ENV] || a->named[WORKDIR]));
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
	__attribute__((cleanup(modify_done))) struct subject s = {
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
