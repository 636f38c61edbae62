/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/manage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "machine/control.h"
#include "machine/engine.h"
#include "machine/machine.h"
#include "machine/net.h"
#include "machine/relay.h"
#include "virtio/blk.h"

#define SECOND UINT64_C(1000000000)

/* A tick is never further away, so that a host's sleep is noticed. */
#define TICK_MAX (60 * SECOND)
/* How long others may take: QEMU or the vCPUs to stop, an agent to answer, to count its memory, to
 * switch CPUs (its kernel gives a CPU that does not come up 10 s). */
#define PAUSE_PATIENCE (10 * SECOND)
#define PING_PATIENCE  (10 * SECOND)
#define USAGE_PATIENCE (SECOND / 2)
#define CPUS_PATIENCE  (60 * SECOND)
/* Between two steps of a guest whose memory changes, and for all of them. */
#define MEMORY_PATIENCE (10 * SECOND)
#define MEMORY_LIMIT	(60 * SECOND)
/* What memory comes and goes in. */
#define MEMORY_STEP ((uint64_t)2 << 20)
/* What a guest keeps that gives up all it can, with a sixteenth of what it uses. */
#define MEMORY_RESERVE ((uint64_t)16 << 20)

/* A call that waits for something. */
struct waiter {
	struct control_call *call; /* NULL: the slot is free */
	int32_t op;
	uint64_t since, deadline, number;
};

struct manager {
	struct machine *m;
	struct control *control;
	manage_stop_fn *stop;
	void *arg;
	bool ready, paused, pausing, draining, stopping;
	bool left, stays;  /* CONTROL_LEAVE, CONTROL_STAY */
	uint64_t ready_at; /* now_ns() */
	uint64_t began;	   /* CLOCK_BOOTTIME of the same moment */
	uint64_t active;   /* now_ns() of the last activity */
	uint64_t max_duration, idle_timeout;
	struct loop_timer tick, drain, patience;
	struct waiter waiters[CONTROL_CLIENTS_MAX];
	uint64_t pings, pongs;
	bool counting;		   /* host.usage is out */
	struct msg_host_used used; /* the last that came */
	bool has_used;
	uint32_t cpus;	    /* that the guest may run */
	uint32_t cpus_want; /* while a change is under way; else 0 */
	uint64_t memory;    /* bytes that the guest has */
	/*
	 * While a change is under way, else 0: what was asked for, of what, and how far it shall go
	 * now that this is known.
	 */
	uint64_t memory_asked, memory_from, memory_want;
};

static uint64_t now_boot(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

/* ---- when to end ---- */

static uint64_t left(uint64_t limit, uint64_t gone)
{
	return limit > gone ? limit - gone : 0;
}

static void end(struct manager *g, const char *reason)
{
	if (g->stopping)
		return;
	log_info("ending: %s", reason);
	g->stop(g->arg, reason);
}

/* What is due? Then sleep until the next. */
static void check_limits(struct manager *g)
{
	uint64_t next = TICK_MAX, now = now_ns();

	if (!g->ready || g->stopping)
		return;
	if (g->max_duration) {
		uint64_t l = left(g->max_duration, now_boot() - g->began);

		if (!l) {
			end(g, END_MAX_DURATION);
			return;
		}
		next = MIN(next, l);
	}
	if (g->idle_timeout && !g->paused) {
		if (relay_sessions(g->m->relay))
			g->active = now;
		uint64_t l = left(g->idle_timeout, now - g->active);

		if (!l) {
			end(g, END_IDLE);
			return;
		}
		next = MIN(next, l);
	}
	if (g->max_duration || g->idle_timeout)
		(void)loop_timer_in(g->m->loop, &g->tick, next);
	else
		loop_timer_stop(&g->tick);
}

static void on_tick(struct loop_timer *t)
{
	check_limits(container_of(t, struct manager, tick));
}

static void check_drained(struct manager *g)
{
	if (g->draining && !relay_sessions(g->m->relay))
		end(g, END_DRAINED);
}

static void on_drain(struct loop_timer *t)
{
	end(container_of(t, struct manager, drain), END_DRAIN_TIMEOUT);
}

void manage_active(struct manager *g)
{
	/* The tick finds out how much later it has to come back. */
	g->active = now_ns();
	check_drained(g);
}

/* Whoever comes too late finds nobody there: nothing is begun that this would end. */
static void check_left(struct manager *g)
{
	if (g->left && !g->stays && !g->stopping && relay_shut_if_empty(g->m->relay))
		end(g, END_LEFT);
}

void manage_gone(struct manager *g)
{
	check_left(g);
}

/* ---- calls that wait ---- */

static void set_patience(struct manager *g)
{
	uint64_t next = UINT64_MAX;

	for (size_t i = 0; i < ARRAY_SIZE(g->waiters); i++) {
		if (g->waiters[i].call)
			next = MIN(next, g->waiters[i].deadline);
	}
	if (next == UINT64_MAX)
		loop_timer_stop(&g->patience);
	else
		(void)loop_timer_at(g->m->loop, &g->patience, next);
}

static struct waiter *wait_for(struct manager *g, struct control_call *call, int32_t op,
			       uint64_t patience)
{
	struct waiter *w = g->waiters;

	/* There are as many as there can be calls. */
	while (w->call)
		w++;
	*w = (struct waiter){
		.call = call, .op = op, .since = now_ns(), .deadline = now_ns() + patience};
	set_patience(g);
	return w;
}

static struct control_call *done(struct waiter *w)
{
	struct control_call *call = w->call;

	w->call = NULL;
	return call;
}

static void answer_stats(struct manager *g, struct control_call *call);
static void memory_stands(struct manager *g, struct waiter *w);
static void on_used_memory(struct manager *g);

static void give_up(struct manager *g, struct waiter *w)
{
	struct err err = ERR_INIT;

	switch (w->op) {
	case CONTROL_STATS:
		answer_stats(g, done(w));
		return;
	case CONTROL_PING:
		err_set(&err, ETIMEDOUT, "the guest's agent does not answer");
		break;
	case CONTROL_CPUS:
		/* It may have switched them on: better too many that may run than one that cannot.
		 */
		g->cpus = MAX(g->cpus, g->cpus_want);
		g->cpus_want = 0;
		err_set(&err, ETIMEDOUT, "the guest does not say that it has changed its CPUs");
		break;
	case CONTROL_MEMORY:
		memory_stands(g, w);
		return;
	default:
		g->pausing = false;
		err_set(&err, ETIMEDOUT, "the engine does not answer");
		break;
	}
	control_fail(done(w), &err);
}

static void on_patience(struct loop_timer *t)
{
	struct manager *g = container_of(t, struct manager, patience);
	uint64_t now = now_ns();

	for (size_t i = 0; i < ARRAY_SIZE(g->waiters); i++) {
		if (g->waiters[i].call && g->waiters[i].deadline <= now)
			give_up(g, &g->waiters[i]);
	}
	set_patience(g);
}

/* ---- pause ---- */

static int is_paused(const struct manager *g, struct err *err)
{
	err_set(err, EBUSY, "it is paused");
	return err_hint(err, "resume it first: `msb resume %s`", g->m->config->name);
}

/* A command would wait for as long as the guest does, and its client would not know why. */
static void refuse_clients(struct manager *g)
{
	struct err err = ERR_INIT;
	cleanup_free char *why = NULL;

	if (g->paused && is_paused(g, &err) < 0)
		why = str_fmt("%s; %s", err.msg, err.hint);
	relay_refuse(g->m->relay, why);
}

void manage_paused(struct manager *g, bool paused)
{
	if (g->paused != paused) {
		log_info("%s", paused ? "paused" : "resumed");
		g->paused = paused;
		g->active = now_ns();
		refuse_clients(g);
		if (!paused)
			relay_sync_clock(g->m->relay);
		check_limits(g);
	}
	g->pausing = false;
	for (size_t i = 0; i < ARRAY_SIZE(g->waiters); i++) {
		struct waiter *w = &g->waiters[i];

		if (w->call && w->op == (paused ? CONTROL_PAUSE : CONTROL_RESUME))
			control_ok(done(w));
	}
	set_patience(g);
}

static void change_pause(struct manager *g, struct control_call *call, bool pause)
{
	struct err err = ERR_INIT;

	if (g->pausing) {
		err_set(&err, EBUSY, "it is being paused or resumed just now");
		control_fail(call, &err);
		return;
	}
	if (g->paused == pause) {
		control_ok(call);
		return;
	}
	g->pausing = true;
	/* First: the answer may come before pause() returns. */
	wait_for(g, call, pause ? CONTROL_PAUSE : CONTROL_RESUME, PAUSE_PATIENCE);
	if (g->m->ops->pause(g->m->engine, pause, &err) == 0)
		return;
	g->pausing = false;
	for (size_t i = 0; i < ARRAY_SIZE(g->waiters); i++) {
		if (g->waiters[i].call == call)
			control_fail(done(&g->waiters[i]), &err);
	}
	set_patience(g);
}

static void let_go(struct manager *g)
{
	if ((g->paused || g->pausing) && g->m->engine)
		(void)g->m->ops->pause(g->m->engine, false, NULL);
}

void manage_stopping(struct manager *g)
{
	g->stopping = true;
	relay_shut(g->m->relay);
	loop_timer_stop(&g->tick);
	loop_timer_stop(&g->drain);
	let_go(g);
}

/* ---- statistics ---- */

static void answer_stats(struct manager *g, struct control_call *call)
{
	const struct vm_config *c = g->m->config;
	uint64_t now = now_ns();
	struct control_answer a = {.cpus = g->cpus, .memory = g->memory, .has_stats = true};
	struct control_stats *s = &a.stats;
	struct engine_usage usage = {0};

	if (g->m->engine)
		g->m->ops->usage(g->m->engine, &usage);
	*s = (struct control_stats){
		.paused = g->paused,
		.draining = g->draining,
		.cpus = g->cpus,
		.cpus_max = c->cpus,
		.memory = g->memory,
		.memory_max = vm_config_memory_max(c),
		.memory_min = c->memory,
		.uptime_ns = g->ready ? now - g->ready_at : 0,
		.idle_ns = g->ready && !relay_sessions(g->m->relay) ? now - g->active : 0,
		.max_duration_ns = g->max_duration,
		.idle_timeout_ns = g->idle_timeout,
		.vcpu_time_ns = usage.cpu_ns,
		.memory_resident = usage.memory,
		.clients = relay_clients(g->m->relay),
		.sessions = relay_sessions(g->m->relay),
		.has_guest = g->has_used,
		.guest_memory_total = g->used.memory_total,
		.guest_memory_available = g->used.memory_available,
		.guest_root_total = g->used.root_total,
		.guest_root_free = g->used.root_free,
		.guest_cpus = g->used.cpus,
	};
	for (unsigned i = 0; i < g->m->ndevices; i++) {
		const struct virtio_device *d = g->m->devices[i];
		struct blk_usage u;

		if (!str_eq(d->ops->name, "blk"))
			continue;
		blk_device_usage(d, &u);
		s->disk_read_bytes += u.read_bytes;
		s->disk_read_ops += u.read_ops;
		s->disk_write_bytes += u.write_bytes;
		s->disk_write_ops += u.write_ops;
	}
	if (g->m->net) {
		struct machine_net_usage u;

		machine_net_usage(g->m->net, &u);
		s->net_rx_bytes = u.rx_bytes;
		s->net_rx_packets = u.rx_packets;
		s->net_tx_bytes = u.tx_bytes;
		s->net_tx_packets = u.tx_packets;
		s->net_flows = u.opened;
		s->net_flows_open = u.flows;
		s->net_flows_denied = u.denied;
	}
	control_answer(call, &a);
}

static int ask_usage(struct manager *g)
{
	int r = 0;

	if (!g->counting)
		r = relay_tell(g->m->relay, MSG_HOST_USAGE, &(struct msg_empty){0});
	g->counting |= r == 0;
	return r;
}

static void begin_stats(struct manager *g, struct control_call *call)
{
	/* A guest that does not run says nothing new. */
	if (!g->ready || g->paused || g->stopping) {
		answer_stats(g, call);
		return;
	}
	if (ask_usage(g) == 0)
		wait_for(g, call, CONTROL_STATS, USAGE_PATIENCE);
	else
		answer_stats(g, call);
}

static void on_used(struct manager *g, const struct envelope *e)
{
	struct msg_host_used m;

	if (frame_payload(e, &m, NULL) < 0)
		return;
	g->counting = false;
	g->has_used = true;
	g->used = m;
	for (size_t i = 0; i < ARRAY_SIZE(g->waiters); i++) {
		if (g->waiters[i].call && g->waiters[i].op == CONTROL_STATS)
			answer_stats(g, done(&g->waiters[i]));
	}
	set_patience(g);
	on_used_memory(g);
}

/* ---- ping ---- */

static void begin_ping(struct manager *g, struct control_call *call)
{
	struct err err = ERR_INIT;
	int r;

	if (g->paused) {
		is_paused(g, &err);
		control_fail(call, &err);
		return;
	}
	r = relay_tell(g->m->relay, MSG_PING, &(struct msg_empty){0});
	if (r < 0) {
		err_set(&err, r, "the guest's agent is gone: %s", err_name(r));
		control_fail(call, &err);
		return;
	}
	wait_for(g, call, CONTROL_PING, PING_PATIENCE)->number = ++g->pings;
}

static void on_pong(struct manager *g)
{
	uint64_t now = now_ns();

	g->pongs++;
	for (size_t i = 0; i < ARRAY_SIZE(g->waiters); i++) {
		struct waiter *w = &g->waiters[i];

		if (w->call && w->op == CONTROL_PING && w->number <= g->pongs) {
			const struct control_answer a = {.elapsed_ns = now - w->since};

			control_answer(done(w), &a);
		}
	}
	set_patience(g);
}

/* ---- CPUs ---- */

static void allow_cpus(struct manager *g, uint32_t n)
{
	if (g->m->ops->allow_cpus)
		g->m->ops->allow_cpus(g->m->engine, n);
}

static int check_cpus(const struct manager *g, uint32_t n, struct err *err)
{
	if (n < 1 || n > g->m->config->cpus) {
		err_set(err, ERR_LIMIT, "%u CPUs: it can have 1 to %u while it runs", n,
			g->m->config->cpus);
		return err_hint(err, "more are there from a start with --max-cpus on");
	}
	if (g->paused)
		return is_paused(g, err);
	return g->cpus_want ? err_set(err, EBUSY, "its CPUs are changed just now") : 0;
}

/*
 * More may run before the guest is asked to use them, and the rest may not any more once it has let
 * go of them.
 */
static void begin_cpus(struct manager *g, struct control_call *call, uint32_t n)
{
	const struct msg_host_cpus m = {.online = n};
	const struct control_answer same = {.cpus = n};
	struct err err = ERR_INIT;
	int r = check_cpus(g, n, &err);

	if (r == 0 && n == g->cpus) {
		control_answer(call, &same);
		return;
	}
	if (r == 0) {
		if (n > g->cpus)
			allow_cpus(g, n);
		r = relay_tell(g->m->relay, MSG_HOST_CPUS, &m);
		if (r < 0)
			err_set(&err, r, "the guest's agent is gone: %s", err_name(r));
	}
	if (r < 0) {
		control_fail(call, &err);
		return;
	}
	g->cpus_want = n;
	wait_for(g, call, CONTROL_CPUS, CPUS_PATIENCE);
}

static void on_cpus_set(struct manager *g, const struct envelope *e)
{
	struct msg_host_cpus_set m;
	struct control_answer a = {0};
	struct err err = ERR_INIT;
	uint32_t from = g->cpus, to = g->cpus_want;

	if (!to || frame_payload(e, &m, NULL) < 0)
		return;
	/* Those that are on are the first so many; a guest that lies has fewer. */
	if (!m.error)
		g->cpus = to;
	else if (to > from)
		g->cpus = MAX(from, MIN(m.online, to));
	else
		g->cpus = MAX(to, MIN(m.online, from));
	g->cpus_want = 0;
	allow_cpus(g, g->cpus);
	a.cpus = g->cpus;
	if (m.error) {
		err_set(&err, ERR_GUEST, "%.200s", m.error);
		err_hint(&err, "it has %u now", g->cpus);
	}
	log_info("CPUs: %u, asked for %u%s%s", g->cpus, to, m.error ? ": " : "",
		 m.error ? err.msg : "");
	for (size_t i = 0; i < ARRAY_SIZE(g->waiters); i++) {
		struct waiter *w = &g->waiters[i];

		if (!w->call || w->op != CONTROL_CPUS)
			continue;
		if (m.error)
			control_fail(done(w), &err);
		else
			control_answer(done(w), &a);
	}
	set_patience(g);
	msg_free(MSG_HOST_CPUS_SET, &m);
}

/* ---- memory ---- */

/* It has what was wanted, or will not be waited for any longer: then that is how far it got. */
static void end_memory(struct manager *g, const struct err *err)
{
	const struct control_answer a = {.memory = g->memory};
	char text[24];

	log_info("memory: %s%s%s", str_size(g->memory, text), err ? ": " : "", err ? err->msg : "");
	g->memory_asked = g->memory_want = 0;
	for (size_t i = 0; i < ARRAY_SIZE(g->waiters); i++) {
		struct waiter *w = &g->waiters[i];

		if (!w->call || w->op != CONTROL_MEMORY)
			continue;
		if (err)
			control_fail(done(w), err);
		else
			control_answer(done(w), &a);
	}
	set_patience(g);
}

static void end_memory_early(struct manager *g)
{
	const bool less = g->memory_asked < g->memory_from;
	const uint64_t from = g->memory_from, to = g->memory_asked, now = g->memory;
	char did[24], asked[24], has[24];
	struct err err = ERR_INIT;

	err_set(&err, ERR_GUEST, "the guest %s %s of %s, and no more", less ? "gave up" : "took",
		str_size(less ? from - MIN(now, from) : MAX(now, from) - from, did),
		str_size(less ? from - to : to - from, asked));
	err_hint(&err, "it has %s now%s", str_size(now, has),
		 less ? "; end what uses its memory, and ask again" : "");
	end_memory(g, &err);
}

static void no_answer(struct manager *g)
{
	struct err err = ERR_INIT;

	err_set(&err, ETIMEDOUT, "the guest's agent does not answer");
	end_memory(g, &err);
}

/* No step for as long as we wait for one. */
static void memory_stands(struct manager *g, struct waiter *w)
{
	if (g->paused || g->pausing) {
		w->deadline = now_ns() + MEMORY_PATIENCE;
		return;
	}
	if (!g->memory_want) {
		no_answer(g);
		return;
	}
	/* What it could not do now it is not to do at a moment that nobody expects. */
	(void)g->m->ops->want_memory(g->m->engine, g->memory - g->m->config->memory, NULL);
	end_memory_early(g);
}

void manage_memory(struct manager *g, uint64_t bytes)
{
	const uint64_t before = g->memory, now = now_ns();

	g->memory = g->m->config->memory + bytes;
	if (!g->memory_want || g->memory == before)
		return;
	if (g->memory == g->memory_want) {
		if (g->memory_want == g->memory_asked)
			end_memory(g, NULL);
		else
			end_memory_early(g);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(g->waiters); i++) {
		struct waiter *w = &g->waiters[i];

		if (!w->call || w->op != CONTROL_MEMORY)
			continue;
		/* It is on its way, and goes on without us. */
		if (now - w->since > MEMORY_LIMIT) {
			end_memory(g, NULL);
			return;
		}
		w->deadline = now + MEMORY_PATIENCE;
	}
	set_patience(g);
}

/* The guest may be asked for it now. */
static void set_memory(struct manager *g, uint64_t n)
{
	struct err err = ERR_INIT;

	if (n == g->memory) {
		end_memory_early(g);
		return;
	}
	g->memory_want = n;
	for (size_t i = 0; i < ARRAY_SIZE(g->waiters); i++) {
		if (g->waiters[i].call && g->waiters[i].op == CONTROL_MEMORY)
			g->waiters[i].deadline = now_ns() + MEMORY_PATIENCE;
	}
	set_patience(g);
	if (g->m->ops->want_memory(g->m->engine, n - g->m->config->memory, &err) < 0)
		end_memory(g, &err);
}

/*
 * A kernel gives up its last free page if it is asked to, and then ends programs for want of
 * memory. So it is asked for no more than what it says it can spare, and keeps some of that.
 */
static void on_used_memory(struct manager *g)
{
	const uint64_t spare = MIN(g->used.memory_available, g->memory), used = g->memory - spare;
	uint64_t least = used + used / 16 + MEMORY_RESERVE;

	if (!g->memory_asked || g->memory_want)
		return;
	least = (least + MEMORY_STEP - 1) / MEMORY_STEP * MEMORY_STEP;
	set_memory(g, MIN(MAX(g->memory_asked, least), g->memory));
}

static int check_memory(const struct manager *g, uint64_t n, struct err *err)
{
	const uint64_t least = g->m->config->memory, most = vm_config_memory_max(g->m->config);
	char asked[24], from[24], to[24];

	if (n < least || n > most) {
		err_set(err, ERR_LIMIT, "%s of memory: it can have %s to %s while it runs",
			str_size(n, asked), str_size(least, from), str_size(most, to));
		return n > most ? err_hint(err, "more is there from a start with --max-memory on")
				: err_hint(err, "less than it began with takes a restart");
	}
	if (g->paused)
		return is_paused(g, err);
	return g->memory_asked ? err_set(err, EBUSY, "its memory is changed just now") : 0;
}

static void begin_memory(struct manager *g, struct control_call *call, uint64_t n)
{
	const struct control_answer same = {.memory = g->memory};
	struct err err = ERR_INIT;

	n = n / MEMORY_STEP * MEMORY_STEP;
	if (check_memory(g, n, &err) < 0) {
		control_fail(call, &err);
		return;
	}
	if (n == g->memory) {
		control_answer(call, &same);
		return;
	}
	g->memory_asked = n;
	g->memory_from = g->memory;
	wait_for(g, call, CONTROL_MEMORY, MEMORY_PATIENCE);
	if (n > g->memory)
		set_memory(g, n);
	else if (ask_usage(g) < 0)
		no_answer(g);
}

/* ---- what sessions get ---- */

static int to_defaults(const struct control_request *q, struct msg_host_defaults *m)
{
	struct boot_env *env = calloc(q->env.n + 1, sizeof(*env));

	if (!env)
		return -ENOMEM;
	m->env = (struct wire_list){env, q->env.n};
	for (size_t i = 0; i < q->env.n; i++) {
		const char *text = q->env.v[i];
		size_t key = strcspn(text, "=");

		env[i].key = strndup(text, key);
		env[i].value = strdup(text[key] ? text + key + 1 : "");
		if (!env[i].key || !env[i].value)
			return -ENOMEM;
	}
	m->cwd = q->workdir ? strdup(q->workdir) : NULL;
	return q->workdir && !m->cwd ? -ENOMEM : 0;
}

static void set_defaults(struct manager *g, struct control_call *call,
			 const struct control_request *q)
{
	struct msg_host_defaults m = {0};
	struct err err = ERR_INIT;
	int r = to_defaults(q, &m);

	if (r == 0)
		r = relay_tell(g->m->relay, MSG_HOST_DEFAULTS, &m);
	msg_free(MSG_HOST_DEFAULTS, &m);
	if (r == 0) {
		control_ok(call);
		return;
	}
	err_set(&err, r, "cannot tell the guest's agent: %s", err_name(r));
	control_fail(call, &err);
}

/* ---- the network ---- */

static void change_net(struct manager *g, struct control_call *call,
		       const struct control_request *q)
{
	struct err err = ERR_INIT;
	int r = 0;

	if (!g->m->net)
		r = err_set(&err, ERR_UNSUPPORTED, "it has no network");
	else if (q->op == CONTROL_NET && q->has_net)
		r = machine_net_change(g->m->net, &q->net, &err);
	else if (q->op == CONTROL_PORTS && q->ports_add.n != q->nfds)
		r = err_set(&err, EINVAL, "%zu ports came with %u sockets", q->ports_add.n,
			    q->nfds);
	else if (q->op == CONTROL_PORTS)
		r = machine_net_ports(g->m->net, &q->ports_add, q->fds, true, &err);
	if (r == 0 && q->op == CONTROL_PORTS)
		r = machine_net_ports(g->m->net, &q->ports_rm, NULL, false, &err);
	if (r < 0)
		control_fail(call, &err);
	else
		control_ok(call);
}

/* ---- the rest ---- */

static void begin_drain(struct manager *g, struct control_call *call, uint64_t timeout)
{
	if (!g->draining)
		(void)relay_tell(g->m->relay, MSG_HOST_DRAIN, &(struct msg_empty){0});
	g->draining = true;
	if (timeout)
		(void)loop_timer_in(g->m->loop, &g->drain, timeout);
	let_go(g);
	control_ok(call);
	check_drained(g);
}

static void set_limits(struct manager *g, struct control_call *call,
		       const struct control_request *q)
{
	if (q->has_max_duration_ns)
		g->max_duration = q->max_duration_ns;
	if (q->has_idle_timeout_ns)
		g->idle_timeout = q->idle_timeout_ns;
	control_ok(call);
	check_limits(g);
}

static void begin_leave(struct manager *g, struct control_call *call)
{
	struct control_answer a = {0};

	g->left = true;
	check_left(g);
	if (!g->stopping)
		a.clients = MAX(relay_clients(g->m->relay), 1u);
	control_answer(call, &a);
}

static int check_state(struct manager *g, int32_t op, struct err *err)
{
	if (g->stopping)
		return err_set(err, ESHUTDOWN, "it is stopping");
	if (!g->ready && op != CONTROL_STATS && op != CONTROL_STATE && op != CONTROL_LIMITS &&
	    op != CONTROL_TOUCH)
		return err_set(err, EAGAIN, "it is still starting");
	return 0;
}

static void on_call(void *arg, struct control_call *call, const struct control_request *q)
{
	struct manager *g = arg;
	struct err err = ERR_INIT;

	if (check_state(g, q->op, &err) < 0) {
		control_fail(call, &err);
		return;
	}
	switch (q->op) {
	case CONTROL_PING:
		begin_ping(g, call);
		return;
	case CONTROL_STATS:
		begin_stats(g, call);
		return;
	case CONTROL_STATE:
		answer_stats(g, call);
		return;
	case CONTROL_PAUSE:
	case CONTROL_RESUME:
		change_pause(g, call, q->op == CONTROL_PAUSE);
		return;
	case CONTROL_DRAIN:
		begin_drain(g, call, q->timeout_ns);
		return;
	case CONTROL_TOUCH:
		manage_active(g);
		control_ok(call);
		return;
	case CONTROL_LIMITS:
		set_limits(g, call, q);
		return;
	case CONTROL_CPUS:
		begin_cpus(g, call, q->cpus);
		return;
	case CONTROL_MEMORY:
		begin_memory(g, call, q->memory);
		return;
	case CONTROL_DEFAULTS:
		set_defaults(g, call, q);
		return;
	case CONTROL_LEAVE:
		begin_leave(g, call);
		return;
	case CONTROL_STAY:
		g->stays = true;
		control_ok(call);
		return;
	case CONTROL_NET:
	case CONTROL_PORTS:
		change_net(g, call, q);
		return;
	default:
		err_set(&err, ERR_UNSUPPORTED, "this machine cannot do \"%s\"",
			control_op_name(q->op));
		control_fail(call, &err);
		return;
	}
}

void manage_agent(struct manager *g, const struct envelope *e)
{
	switch (msg_kind_of(e->type)) {
	case MSG_PONG:
		on_pong(g);
		return;
	case MSG_HOST_USED:
		on_used(g, e);
		return;
	case MSG_HOST_CPUS_SET:
		on_cpus_set(g, e);
		return;
	default:
		log_debug("the agent sent %s", e->type->name);
		return;
	}
}

void manage_ready(struct manager *g)
{
	g->ready = true;
	g->ready_at = g->active = now_ns();
	g->began = now_boot();
	check_limits(g);
}

int manage_new(struct manager **ret, struct machine *m, int listenfd, manage_stop_fn *stop,
	       void *arg, struct err *err)
{
	struct manager *g = calloc(1, sizeof(*g));
	int r;

	if (!g) {
		close_fd(listenfd);
		return err_set(err, ENOMEM, "cannot manage the machine: out of memory");
	}
	*g = (struct manager){
		.m = m,
		.stop = stop,
		.arg = arg,
		.max_duration = m->config->max_duration_ns,
		.idle_timeout = m->config->idle_timeout_ns,
		.tick = {.fn = on_tick},
		.drain = {.fn = on_drain},
		.patience = {.fn = on_patience},
		.cpus = vm_config_cpus_on(m->config),
		.memory = m->config->memory,
	};
	r = control_new(&g->control, m->loop, listenfd, on_call, g, err);
	if (r < 0) {
		free(g);
		return r;
	}
	*ret = g;
	return 0;
}

struct manager *manage_free(struct manager *g)
{
	struct err err = ERR_INIT;

	if (!g)
		return NULL;
	g->stopping = true;
	err_set(&err, ESHUTDOWN, "it has ended");
	for (size_t i = 0; i < ARRAY_SIZE(g->waiters); i++) {
		if (g->waiters[i].call)
			control_fail(done(&g->waiters[i]), &err);
	}
	loop_timer_stop(&g->tick);
	loop_timer_stop(&g->drain);
	loop_timer_stop(&g->patience);
	control_free(g->control);
	free(g);
	return NULL;
}
