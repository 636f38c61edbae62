/* SPDX-License-Identifier: Apache-2.0 */
/* CPUs and memory of a machine that runs. */
#include <errno.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "machine/engine.h"
#include "machine/machine.h"
#include "machine/manage_impl.h"
#include "machine/relay.h"

/* How long a guest may take to switch CPUs: its kernel gives one that does not come up 10 s. */
#define CPUS_PATIENCE (60 * SECOND)
/* Between two steps of a guest whose memory changes, and for all of them. */
#define MEMORY_PATIENCE (10 * SECOND)
#define MEMORY_LIMIT	(60 * SECOND)
/* What memory comes and goes in. */
#define MEMORY_STEP ((uint64_t)2 << 20)
/* What a guest keeps that gives up all it can, with a sixteenth of what it uses. */
#define MEMORY_RESERVE ((uint64_t)16 << 20)

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
		return manage_is_paused(g, err);
	return g->cpus_want ? err_set(err, EBUSY, "its CPUs are changed just now") : 0;
}

/*
 * More may run before the guest is asked to use them, and the rest may not any more once it has let
 * go of them.
 */
void manage_begin_cpus(struct manager *g, struct control_call *call, uint32_t n)
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
	manage_wait(g, call, CONTROL_CPUS, CPUS_PATIENCE);
}

void manage_cpus_set(struct manager *g, const struct envelope *e)
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
			control_fail(manage_done(w), &err);
		else
			control_answer(manage_done(w), &a);
	}
	manage_set_patience(g);
	msg_free(MSG_HOST_CPUS_SET, &m);
}

void manage_cpus_stand(struct manager *g, struct waiter *w)
{
	struct err err = ERR_INIT;

	/* It may have switched them on: better too many that may run than one that cannot. */
	g->cpus = MAX(g->cpus, g->cpus_want);
	g->cpus_want = 0;
	err_set(&err, ETIMEDOUT, "the guest does not say that it has changed its CPUs");
	control_fail(manage_done(w), &err);
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
			control_fail(manage_done(w), err);
		else
			control_answer(manage_done(w), &a);
	}
	manage_set_patience(g);
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
void manage_memory_stands(struct manager *g, struct waiter *w)
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
	manage_set_patience(g);
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
	manage_set_patience(g);
	if (g->m->ops->want_memory(g->m->engine, n - g->m->config->memory, &err) < 0)
		end_memory(g, &err);
}

/*
 * A kernel gives up its last free page if it is asked to, and then ends programs for want of
 * memory. So it is asked for no more than what it says it can spare, and keeps some of that.
 */
void manage_used_memory(struct manager *g)
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
		return manage_is_paused(g, err);
	return g->memory_asked ? err_set(err, EBUSY, "its memory is changed just now") : 0;
}

void manage_begin_memory(struct manager *g, struct control_call *call, uint64_t n)
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
	manage_wait(g, call, CONTROL_MEMORY, MEMORY_PATIENCE);
	if (n > g->memory)
		set_memory(g, n);
	else if (manage_ask_usage(g) < 0)
		no_answer(g);
}
