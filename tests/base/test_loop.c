/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/loop.h"

#define MS 1000000u

static int loop_setup(void **state)
{
	return loop_new((struct loop **)state, NULL);
}

static int loop_teardown(void **state)
{
	loop_free(*state);
	return 0;
}

struct tick {
	struct loop_timer t;
	char name;
};
static char order[64];

static void note(struct loop_timer *t)
{
	size_t n = strlen(order);

	order[n] = container_of(t, struct tick, t)->name;
	order[n + 1] = '\0';
}

static void timers_fire_in_order(void **state)
{
	struct loop *l = *state;
	struct tick ticks[20] = {0};
	uint64_t base = now_ns() + 5 * MS;

	order[0] = '\0';
	/* Armed in a scrambled order: 7 is coprime to 20. */
	for (unsigned i = 0; i < 20; i++) {
		unsigned k = i * 7 % 20;

		ticks[k].t.fn = note;
		ticks[k].name = (char)('a' + k);
		assert_int_equal(loop_timer_at(l, &ticks[k].t, base + k), 0);
	}
	while (strlen(order) < 20)
		assert_int_equal(loop_turn(l, 100), 0);
	assert_string_equal(order, "abcdefghijklmnopqrst");
	for (unsigned i = 0; i < 20; i++)
		assert_false(loop_timer_armed(&ticks[i].t));
	assert_true(now_ns() >= base + 19);
}

static void timers_move_and_stop(void **state)
{
	struct loop *l = *state;
	struct tick t[6];

	order[0] = '\0';
	for (unsigned i = 0; i < 6; i++) {
		t[i] = (struct tick){.t.fn = note, .name = (char)('a' + i)};
		assert_int_equal(loop_timer_at(l, &t[i].t, 1000 + i), 0);
	}
	loop_timer_stop(&t[0].t);
	loop_timer_stop(&t[3].t);
	loop_timer_stop(&t[3].t);
	assert_int_equal(loop_timer_at(l, &t[1].t, 2000), 0);
	assert_int_equal(loop_timer_at(l, &t[5].t, 1), 0);
	assert_int_equal(loop_turn(l, 0), 0);
	assert_string_equal(order, "fceb");
}

/* The heap against a plain search, with random arming, moving and stopping. */
static void timers_agree_with_a_model(void **state)
{
	struct loop *l = *state;
	enum { N = 50 };
	static struct tick t[N];
	uint64_t due[N] = {0};
	unsigned seed = 42, armed;

	for (int round = 0; round < 5000; round++) {
		unsigned i = (seed = seed * 1103515245 + 12345) >> 16 & 0x7fff;

		if (i % 3) {
			t[i % N].t.fn = note;
			due[i % N] = now_ns() + 3600000000000u + i * 1000u;
			assert_int_equal(loop_timer_at(l, &t[i % N].t, due[i % N]), 0);
		} else {
			loop_timer_stop(&t[i % N].t);
			due[i % N] = 0;
		}
	}
	armed = 0;
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(loop_timer_armed(&t[i].t), due[i] != 0);
		armed += due[i] != 0;
	}
	/* Let them all fire now, each at a distinct time in the past. */
	order[0] = '\0';
	for (unsigned i = 0, k = 0; i < N; i++) {
		if (!due[i])
			continue;
		t[i].name = (char)('0' + k);
		assert_int_equal(loop_timer_at(l, &t[i].t, 1000 + k), 0);
		k++;
	}
	assert_int_equal(loop_turn(l, 0), 0);
	assert_int_equal(strlen(order), armed);
	for (unsigned k = 0; k < armed; k++)
		assert_int_equal(order[k], '0' + (int)k);
}

static struct tick again;
static unsigned again_count;

static void rearm(struct loop_timer *t)
{
	if (++again_count < 3)
		loop_timer_in(t->loop, t, 0);
	else
		loop_quit(t->loop, 17);
}

static void a_timer_may_rearm_itself(void **state)
{
	struct loop *l = *state;

	again_count = 0;
	again.t.fn = rearm;
	assert_int_equal(loop_timer_in(l, &again.t, MS), 0);
	assert_int_equal(loop_run(l), 17);
	assert_int_equal(again_count, 3);
	/* The loop can run again after quitting. */
	again_count = 2;
	assert_int_equal(loop_timer_in(l, &again.t, MS), 0);
	assert_int_equal(loop_run(l), 17);
}

struct event {
	struct loop_source s;
	unsigned fired;
	struct event *removes;
};

static void on_event(struct loop_source *s, uint32_t events)
{
	struct event *e = container_of(s, struct event, s);

	(void)events;
	e->fired++;
	if (e->removes)
		loop_del(&e->removes->s);
}

static void event_open(struct event *e)
{
	*e = (struct event){.s = {.fn = on_event, .fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK)}};
	assert_true(e->s.fd >= 0);
}

/* Both are ready in the same turn; the first to run removes the other, which must stay silent. */
static void a_removed_source_gets_no_stale_event(void **state)
{
	struct loop *l = *state;
	struct event a, b;

	event_open(&a);
	event_open(&b);
	a.removes = &b;
	b.removes = &a;
	assert_int_equal(loop_add(l, &a.s, EPOLLIN), 0);
	assert_int_equal(loop_add(l, &b.s, EPOLLIN), 0);
	assert_int_equal(loop_turn(l, 1000), 0);
	assert_int_equal(a.fired + b.fired, 1);
	loop_del(&a.s);
	loop_del(&b.s);
	assert_false(loop_source_active(&a.s));
	close(a.s.fd);
	close(b.s.fd);
}

static struct event *replace_old, *replace_new;

static void on_replace(struct loop_source *s, uint32_t events)
{
	struct loop *l = s->loop;

	(void)events;
	replace_old->fired++;
	if (replace_old->fired > 1)
		return;
	/* The slot of the removed source is taken by a newcomer, which is not ready. */
	loop_del(&replace_old[1].s);
	assert_int_equal(loop_add(l, &replace_new->s, EPOLLIN), 0);
}

static void a_reused_slot_gets_no_stale_event(void **state)
{
	struct loop *l = *state;
	struct event old[2], fresh;
	uint64_t n;

	event_open(&old[0]);
	event_open(&old[1]);
	event_open(&fresh);
	(void)!read(fresh.s.fd, &n, sizeof(n));
	replace_old = old;
	replace_new = &fresh;
	old[0].s.fn = on_replace;
	assert_int_equal(loop_add(l, &old[0].s, EPOLLIN), 0);
	assert_int_equal(loop_add(l, &old[1].s, EPOLLIN), 0);
	assert_int_equal(loop_turn(l, 1000), 0);
	assert_int_equal(old[0].fired, 1);
	assert_int_equal(fresh.fired, 0);
	loop_del(&old[0].s);
	loop_del(&fresh.s);
	for (int i = 0; i < 2; i++)
		close(old[i].s.fd);
	close(fresh.s.fd);
}

static void sources_change_and_leave(void **state)
{
	struct loop *l = *state;
	struct event e;

	event_open(&e);
	assert_int_equal(loop_add(l, &e.s, 0), 0);
	assert_int_equal(loop_turn(l, 0), 0);
	assert_int_equal(e.fired, 0);
	loop_mod(&e.s, EPOLLIN);
	assert_int_equal(loop_turn(l, 0), 0);
	assert_int_equal(e.fired, 1);
	loop_mod(&e.s, EPOLLOUT);
	assert_int_equal(loop_turn(l, 0), 0);
	assert_int_equal(e.fired, 2);
	loop_del(&e.s);
	loop_del(&e.s);
	assert_int_equal(loop_turn(l, 0), 0);
	assert_int_equal(e.fired, 2);
	close(e.s.fd);
	e.s.fd = -1;
	assert_int_equal(loop_add(l, &e.s, EPOLLIN), -EBADF);
	assert_false(loop_source_active(&e.s));
}

static void many_sources(void **state)
{
	struct loop *l = *state;
	enum { N = 600 };
	static struct event e[N];
	unsigned fired = 0;

	for (unsigned i = 0; i < N; i++) {
		event_open(&e[i]);
		assert_int_equal(loop_add(l, &e[i].s, EPOLLIN | EPOLLET), 0);
		/* Holes on the way: every third leaves again. */
		if (i % 3 == 0)
			loop_del(&e[i].s);
	}
	for (int turn = 0; turn < 50; turn++)
		assert_int_equal(loop_turn(l, 0), 0);
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(e[i].fired, i % 3 ? 1 : 0);
		fired += e[i].fired;
		loop_del(&e[i].s);
		close(e[i].s.fd);
	}
	assert_int_equal(fired, 400);
}

struct seen {
	pthread_t thread;
	unsigned count;
};

static void see(void *arg)
{
	struct seen *s = arg;

	s->thread = pthread_self();
	s->count++;
}

static void calls_run_on_the_loops_thread(void **state)
{
	struct worker w = {0};
	struct seen s = {0};
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(worker_start(&w, "test", &e), 0);
	for (int i = 0; i < 1000; i++)
		loop_call(w.loop, see, &s);
	assert_int_equal(s.count, 1000);
	assert_true(pthread_equal(s.thread, w.thread));
	worker_stop(&w);
	worker_stop(&w);
}

static void see_policy(void *arg)
{
	*(int *)arg = sched_getscheduler(0);
}

static void workers_can_be_patient(void **state)
{
	struct worker w = {.batch = true};
	int policy = -1;

	(void)state;
	assert_int_equal(worker_start(&w, "test", NULL), 0);
	loop_call(w.loop, see_policy, &policy);
	assert_int_equal(policy, sched_getscheduler(0) == SCHED_OTHER ? SCHED_BATCH
								      : sched_getscheduler(0));
	worker_stop(&w);
}

struct edge {
	struct loop_source s;
	unsigned events;
};

static void on_edge(struct loop_source *s, uint32_t events)
{
	(void)events;
	container_of(s, struct edge, s)->events++;
}

static void edges_are_said_again(void **state)
{
	const uint64_t one = 1;
	struct loop *l = *state;
	struct edge e = {.s = {.fn = on_edge, .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)}};

	assert_int_equal(write(e.s.fd, &one, sizeof(one)), sizeof(one));
	assert_int_equal(loop_add(l, &e.s, EPOLLIN | EPOLLET), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(loop_turn(l, 0), 0);
	assert_int_equal(e.events, 1);
	loop_mod(&e.s, EPOLLIN | EPOLLET);
	assert_int_equal(loop_turn(l, 0), 0);
	assert_int_equal(e.events, 1);
	loop_again(&e.s, EPOLLIN | EPOLLET);
	assert_int_equal(loop_turn(l, 0), 0);
	assert_int_equal(e.events, 2);
	loop_close(&e.s);
	assert_int_equal(e.s.fd, -1);
	assert_false(loop_source_active(&e.s));
	loop_again(&e.s, EPOLLIN);
	loop_close(&e.s);
	assert_int_equal(loop_turn(l, 0), 0);
	assert_int_equal(e.events, 2);
}

enum { CALLERS = 4, CALLS = 500 };
struct caller {
	struct loop *l;
	unsigned *sum;
	pthread_t thread;
};

static void count(void *arg)
{
	++*(unsigned *)arg;
}

static void *call_often(void *arg)
{
	struct caller *c = arg;

	for (int i = 0; i < CALLS; i++)
		loop_call(c->l, count, c->sum);
	return NULL;
}

/* The sum is not atomic: only the loop's thread touches it, which is what the sanitizer checks. */
static void calls_from_many_threads(void **state)
{
	struct worker w = {0};
	struct caller c[CALLERS];
	unsigned sum = 0;

	(void)state;
	assert_int_equal(worker_start(&w, "test", NULL), 0);
	for (int i = 0; i < CALLERS; i++) {
		c[i] = (struct caller){.l = w.loop, .sum = &sum};
		assert_int_equal(pthread_create(&c[i].thread, NULL, call_often, &c[i]), 0);
	}
	for (int i = 0; i < CALLERS; i++)
		pthread_join(c[i].thread, NULL);
	worker_stop(&w);
	assert_int_equal(sum, CALLERS * CALLS);
}

static void call_inside(void *arg)
{
	struct caller *c = arg;

	loop_call(c->l, count, c->sum);
	count(c->sum);
}

static void a_call_on_the_own_thread_just_runs(void **state)
{
	struct worker w = {0};
	unsigned sum = 0;
	struct caller c = {.sum = &sum};

	(void)state;
	assert_int_equal(worker_start(&w, "test", NULL), 0);
	c.l = w.loop;
	loop_call(w.loop, call_inside, &c);
	worker_stop(&w);
	assert_int_equal(sum, 2);
}

static void meet(void *arg)
{
	pthread_barrier_wait(arg);
}

static void name_of(void *arg)
{
	(void)prctl(PR_GET_NAME, arg);
}

/* None returns before all are at it. */
static void calls_run_side_by_side(void **state)
{
	struct worker w[3] = {0};
	struct loop_call c[3], after;
	pthread_barrier_t all;
	char name[17] = "";

	(void)state;
	pthread_barrier_init(&all, NULL, 3);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(worker_start(&w[i], "a name of 18 bytes", NULL), 0);
		loop_post(w[i].loop, &c[i], meet, &all);
	}
	loop_post(w[2].loop, &after, name_of, name);
	loop_wait(w[2].loop, &after);
	assert_string_equal(name, "a name of 18 by");
	for (int i = 0; i < 3; i++) {
		loop_wait(w[i].loop, &c[i]);
		worker_stop(&w[i]);
	}
	pthread_barrier_destroy(&all);
}

static sigset_t worker_mask;

static void get_mask(void *arg)
{
	(void)arg;
	pthread_sigmask(SIG_SETMASK, NULL, &worker_mask);
}

static void signals_are_blocked_in_a_worker(void **state)
{
	struct worker w = {0};
	sigset_t before, after;

	(void)state;
	pthread_sigmask(SIG_SETMASK, NULL, &before);
	assert_int_equal(worker_start(&w, "test", NULL), 0);
	loop_call(w.loop, get_mask, NULL);
	worker_stop(&w);
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	assert_true(sigismember(&worker_mask, SIGTERM));
	assert_true(sigismember(&worker_mask, SIGCHLD));
	assert_int_equal(sigismember(&after, SIGTERM), sigismember(&before, SIGTERM));
}

static void no_descriptors_is_an_error(void **state)
{
	struct rlimit old, low;
	struct loop *l = NULL;
	struct err e = ERR_INIT;

	(void)state;
	getrlimit(RLIMIT_NOFILE, &old);
	low = old;
	low.rlim_cur = 0;
	setrlimit(RLIMIT_NOFILE, &low);
	assert_int_equal(loop_new(&l, &e), -EMFILE);
	setrlimit(RLIMIT_NOFILE, &old);
	assert_null(l);
	assert_true(e.msg[0]);
	assert_null(loop_free(NULL));
}

#define with_loop(f) cmocka_unit_test_setup_teardown(f, loop_setup, loop_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_loop(timers_fire_in_order),
		with_loop(timers_move_and_stop),
		with_loop(timers_agree_with_a_model),
		with_loop(a_timer_may_rearm_itself),
		with_loop(a_removed_source_gets_no_stale_event),
		with_loop(a_reused_slot_gets_no_stale_event),
		with_loop(sources_change_and_leave),
		with_loop(many_sources),
		cmocka_unit_test(calls_run_on_the_loops_thread),
		cmocka_unit_test(workers_can_be_patient),
		with_loop(edges_are_said_again),
		cmocka_unit_test(calls_from_many_threads),
		cmocka_unit_test(a_call_on_the_own_thread_just_runs),
		cmocka_unit_test(calls_run_side_by_side),
		cmocka_unit_test(signals_are_blocked_in_a_worker),
		cmocka_unit_test(no_descriptors_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
