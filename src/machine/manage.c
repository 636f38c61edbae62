/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "machine/engine.h"
#include "machine/machine.h"
#include "machine/manage_impl.h"
#include "machine/net.h"
#include "machine/relay.h"
#include "virtio/blk.h"

/* A tick is never further away, so that a host's sleep is noticed. */
#define TICK_MAX (60 * SECOND)
/* How long others may take: QEMU or the vCPUs to stop, an agent to answer, to count its memory. */
#define PAUSE_PATIENCE (10 * SECOND)
#define PING_PATIENCE  (10 * SECOND)
#define USAGE_PATIENCE (SECOND / 2)

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

void manage_set_patience(struct manager *g)
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

struct waiter *manage_wait(struct manager *g, struct control_call *call, int32_t op,
			   uint64_t patience)
{
	struct waiter *w = g->waiters;

	/* There are as many as there can be calls. */
	while (w->call)
		w++;
	*w = (struct waiter){
		.call = call, .op = op, .since = now_ns(), .deadline = now_ns() + patience};
	manage_set_patience(g);
	return w;
}

struct control_call *manage_done(struct waiter *w)
{
	struct control_call *call = w->call;

	w->call = NULL;
	return call;
}

static void answer_stats(struct manager *g, struct control_call *call);

static void give_up(struct manager *g, struct waiter *w)
{
	struct err err = ERR_INIT;

	switch (w->op) {
	case CONTROL_STATS:
		answer_stats(g, manage_done(w));
		return;
	case CONTROL_PING:
		err_set(&err, ETIMEDOUT, "the guest's agent does not answer");
		break;
	case CONTROL_CPUS:
		manage_cpus_stand(g, w);
		return;
	case CONTROL_MEMORY:
		manage_memory_stands(g, w);
		return;
	default:
		g->pausing = false;
		err_set(&err, ETIMEDOUT, "the engine does not answer");
		break;
	}
	control_fail(manage_done(w), &err);
}

static void on_patience(struct loop_timer *t)
{
	struct manager *g = container_of(t, struct manager, patience);
	uint64_t now = now_ns();

	for (size_t i = 0; i < ARRAY_SIZE(g->waiters); i++) {
		if (g->waiters[i].call && g->waiters[i].deadline <= now)
			give_up(g, &g->waiters[i]);
	}
	manage_set_patience(g);
}

/* ---- pause ---- */

int manage_is_paused(const struct manager *g, struct err *err)
{
	err_set(err, EBUSY, "it is paused");
	return err_hint(err, "resume it first: `msb resume %s`", g->m->config->name);
}

/* A command would wait for as long as the guest does, and its client would not know why. */
static void refuse_clients(struct manager *g)
{
	struct err err = ERR_INIT;
	cleanup_free char *why = NULL;

	if (g->paused && manage_is_paused(g, &err) < 0)
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
			control_ok(manage_done(w));
	}
	manage_set_patience(g);
}

static void change_pause(struct manager *g, struct control_call *call, bool pause)
{
	struct err err = ERR_INIT;

	if (g->pausing || (pause && g->draining)) {
		err_set(&err, EBUSY, "it is %s",
			pause && g->draining ? "draining: what runs in it is let finish"
					     : "being paused or resumed just now");
		control_fail(call, &err);
		return;
	}
	if (g->paused == pause) {
		control_ok(call);
		return;
	}
	g->pausing = true;
	/* First: the answer may come before pause() returns. */
	manage_wait(g, call, pause ? CONTROL_PAUSE : CONTROL_RESUME, PAUSE_PATIENCE);
	if (g->m->ops->pause(g->m->engine, pause, &err) == 0)
		return;
	g->pausing = false;
	for (size_t i = 0; i < ARRAY_SIZE(g->waiters); i++) {
		if (g->waiters[i].call == call)
			control_fail(manage_done(&g->waiters[i]), &err);
	}
	manage_set_patience(g);
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
		s->net_lookups = u.lookups;
		s->net_lookups_denied = u.lookups_denied;
	}
	control_answer(call, &a);
}

int manage_ask_usage(struct manager *g)
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
	if (manage_ask_usage(g) == 0)
		manage_wait(g, call, CONTROL_STATS, USAGE_PATIENCE);
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
			answer_stats(g, manage_done(&g->waiters[i]));
	}
	manage_set_patience(g);
	manage_used_memory(g);
}

/* ---- ping ---- */

static void begin_ping(struct manager *g, struct control_call *call)
{
	struct err err = ERR_INIT;
	int r;

	if (g->paused) {
		manage_is_paused(g, &err);
		control_fail(call, &err);
		return;
	}
	r = relay_tell(g->m->relay, MSG_PING, &(struct msg_empty){0});
	if (r < 0) {
		err_set(&err, r, "the guest's agent is gone: %s", err_name(r));
		control_fail(call, &err);
		return;
	}
	manage_wait(g, call, CONTROL_PING, PING_PATIENCE)->number = ++g->pings;
}

static void on_pong(struct manager *g)
{
	uint64_t now = now_ns();

	g->pongs++;
	for (size_t i = 0; i < ARRAY_SIZE(g->waiters); i++) {
		struct waiter *w = &g->waiters[i];

		if (w->call && w->op == CONTROL_PING && w->number <= g->pongs) {
			const struct control_answer a = {.elapsed_ns = now - w->since};

			control_answer(manage_done(w), &a);
		}
	}
	manage_set_patience(g);
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
		manage_begin_cpus(g, call, q->cpus);
		return;
	case CONTROL_MEMORY:
		manage_begin_memory(g, call, q->memory);
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
		manage_cpus_set(g, e);
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
			control_fail(manage_done(&g->waiters[i]), &err);
	}
	loop_timer_stop(&g->tick);
	loop_timer_stop(&g->drain);
	loop_timer_stop(&g->patience);
	control_free(g->control);
	free(g);
	return NULL;
}
