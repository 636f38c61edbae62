/* SPDX-License-Identifier: Apache-2.0 */
/* What msb modify would do: the differences, and when each can be made. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "cli/modify_impl.h"
#include "cli/modify_net.h"
#include "sandbox/control_client.h"
#include "sandbox/sandbox_dir.h"
#include "store/store.h"

const char *const modify_keys[FIELDS][MODIFY_KEYS] = {
	[CPUS] = {"cpus"},
	[MAX_CPUS] = {"max_cpus"},
	[MEMORY] = {"memory"},
	[MAX_MEMORY] = {"max_memory"},
	[MAX_DURATION] = {"max_duration_ms"},
	[IDLE_TIMEOUT] = {"idle_timeout_ms"},
	[WORKDIR] = {"workdir"},
	[ENV] = {"env"},
	[LABELS] = {"labels"},
	[NET] = {"net", "net_egress", "net_ingress"},
	[NET_RULES] = {"net_rules"},
	[NET_LIMITS] = {"net_limits"},
	[PORTS] = {"ports"},
};

void modify_done(struct subject *s)
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
int modify_apply(struct subject *s, const struct modify_args *a, struct err *err)
{
	struct sandbox_spec *to = &s->new.spec;
	const struct sandbox_spec *w = &a->wishes;
	int r = 0;

	for (size_t i = 0; i < a->reset.n && r == 0; i++)
		r = record_reset(&s->new, a->reset.v[i], err);
	if (r < 0)
		return r;
	/* What was not understood of what is said anew goes. */
	for (enum field f = 0; f < FIELDS; f++) {
		for (size_t k = 0; a->named[f] && k < MODIFY_KEYS && modify_keys[f][k]; k++)
			json_object_del(s->new.odd, modify_keys[f][k]);
	}
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
	case LABELS:
		add_list(b, &s->labels);
		break;
	default:
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
	case RESET:
		return NEEDS_RESTART;
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

static bool is_field(const char *key)
{
	for (enum field f = 0; f < FIELDS; f++) {
		for (size_t k = 0; k < MODIFY_KEYS && modify_keys[f][k]; k++) {
			if (str_eq(modify_keys[f][k], key))
				return true;
		}
	}
	return false;
}

static void add_json(struct buf *b, const char *key, const json_t *v)
{
	cleanup_free char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);

	buf_addf(b, "%s%s=%s", buf_size(b) ? " " : "", key, text ? text : "");
	(void)buf_cstr(b);
}

/* Of a field, or of what is none, that which was not understood and goes, or is forgotten. */
static void describe_odd(const struct subject *s, enum field f, const struct strv *reset,
			 struct buf *b)
{
	json_t *config = f == RESET ? record_written(&s->old) : NULL;

	for (size_t i = 0; config && i < reset->n; i++) {
		const char *key = reset->v[i];
		const json_t *v = json_object_get(str_eq(key, "main") ? s->old.odd : config, key);

		if (v && !is_field(key))
			add_json(b, key, v);
	}
	json_decref(config);
	for (size_t k = 0; k < MODIFY_KEYS && modify_keys[f][k]; k++) {
		const char *key = modify_keys[f][k];
		const json_t *v = json_object_get(s->old.odd, key);

		if (v && !json_object_get(s->new.odd, key)) {
			buf_reset(b);
			add_json(b, key, v);
		}
	}
}

static bool is_same(const struct subject *s, const struct change *c)
{
	const struct sandbox_spec *old = &s->old.spec, *new = &s->new.spec;

	for (size_t k = 0; k < MODIFY_KEYS && modify_keys[c->field][k]; k++) {
		const char *key = modify_keys[c->field][k];

		if (!json_object_get(s->old.odd, key) != !json_object_get(s->new.odd, key))
			return false;
	}

	/* In words two sizes may be one. */
	if (c->field == MEMORY)
		return old->memory == new->memory;
	if (c->field == MAX_MEMORY)
		return old->max_memory == new->max_memory;
	return buf_size(&c->from) == buf_size(&c->to) &&
	       !memcmp(buf_ptr(&c->from), buf_ptr(&c->to), buf_size(&c->from));
}

void modify_plan(struct subject *s, const struct modify_args *a)
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
		describe_odd(s, f, &a->reset, &c->from);
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

int modify_look(struct subject *s, struct err *err)
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
