/* SPDX-License-Identifier: Apache-2.0 */
#include "base/loop.h"

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

enum {
	EVENTS_PER_TURN = 64,
	WAKE_SLOT = 0, /* the loop's own eventfd */
};

struct slot {
	struct loop_source *source;
	uint32_t generation;
	uint32_t next; /* of the unused ones; 0: the last */
};

struct loop {
	int epfd, wakefd;
	struct slot *slots;
	uint32_t nslots, unused;  /* the first unused one, or 0: that of wakefd */
	struct loop_timer **heap; /* heap[1] is the earliest; heap[0] unused */
	unsigned heap_len, heap_cap;
	bool quit;
	int result;
	/* Who runs the loop; written once, before `running` is set. */
	pthread_t thread;
	atomic_bool running;

	/* Guards calls; `called` is signalled when one is done. */
	pthread_mutex_t lock;
	pthread_cond_t called;
	struct loop_call *calls, **calls_tail;
};

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int loop_new(struct loop **ret, struct err *err)
{
	struct loop *l = calloc(1, sizeof(*l));
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = WAKE_SLOT};

	if (!l)
		return err_set(err, ENOMEM, "cannot create an event loop: out of memory");
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->called, NULL);
	l->calls_tail = &l->calls;
	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	l->wakefd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->epfd < 0 || l->wakefd < 0 || epoll_ctl(l->epfd, EPOLL_CTL_ADD, l->wakefd, &ev) < 0) {
		int r = err_errno(err, "cannot create an event loop");
		loop_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

struct loop *loop_free(struct loop *l)
{
	if (!l)
		return NULL;
	close_fd(l->epfd);
	close_fd(l->wakefd);
	pthread_mutex_destroy(&l->lock);
	pthread_cond_destroy(&l->called);
	free(l->slots);
	free(l->heap);
	free(l);
	return NULL;
}

static int more_slots(struct loop *l)
{
	uint32_t n = l->nslots ? l->nslots * 2 : 16;
	struct slot *p;

	if (n > LOOP_SOURCES_MAX)
		return -EMFILE;
	p = reallocarray(l->slots, n, sizeof(*p));
	if (!p)
		return -ENOMEM;
	memset(p + l->nslots, 0, (n - l->nslots) * sizeof(*p));
	for (uint32_t i = n; i-- > MAX(l->nslots, 1u);) {
		p[i].next = l->unused;
		l->unused = i;
	}
	l->slots = p;
	l->nslots = n;
	return 0;
}

static uint64_t cookie(const struct loop *l, uint32_t slot)
{
	return (uint64_t)l->slots[slot].generation << 32 | slot;
}

int loop_add(struct loop *l, struct loop_source *s, uint32_t events)
{
	struct epoll_event ev = {.events = events};
	uint32_t slot;
	int r = l->unused ? 0 : more_slots(l);

	if (r < 0)
		return r;
	slot = l->unused;
	ev.data.u64 = cookie(l, slot);
	if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, s->fd, &ev) < 0)
		return -errno;
	l->unused = l->slots[slot].next;
	l->slots[slot].source = s;
	s->loop = l;
	s->slot = slot;
	s->events = events;
	return 0;
}

void loop_again(struct loop_source *s, uint32_t events)
{
	struct epoll_event ev = {.events = events};

	if (!s->loop)
		return;
	s->events = events;
	ev.data.u64 = cookie(s->loop, s->slot);
	/* It cannot fail: the fd is registered and no memory is needed. */
	(void)epoll_ctl(s->loop->epfd, EPOLL_CTL_MOD, s->fd, &ev);
}

void loop_mod(struct loop_source *s, uint32_t events)
{
	if (s->events != events)
		loop_again(s, events);
}

static void forget(struct loop_source *s)
{
	struct loop *l = s->loop;

	l->slots[s->slot].source = NULL;
	l->slots[s->slot].generation++;
	l->slots[s->slot].next = l->unused;
	l->unused = s->slot;
	s->loop = NULL;
}

void loop_del(struct loop_source *s)
{
	if (!s->loop)
		return;
	(void)epoll_ctl(s->loop->epfd, EPOLL_CTL_DEL, s->fd, NULL);
	forget(s);
}

void loop_close(struct loop_source *s)
{
	if (s->loop)
		forget(s);
	s->fd = close_fd(s->fd);
}

static void heap_place(struct loop *l, unsigned pos, struct loop_timer *t)
{
	l->heap[pos] = t;
	t->heap_pos = pos;
}

static void heap_up(struct loop *l, unsigned pos, struct loop_timer *t)
{
	for (; pos > 1 && l->heap[pos / 2]->deadline > t->deadline; pos /= 2)
		heap_place(l, pos, l->heap[pos / 2]);
	heap_place(l, pos, t);
}

static void heap_down(struct loop *l, unsigned pos, struct loop_timer *t)
{
	for (unsigned child; (child = pos * 2) <= l->heap_len; pos = child) {
		if (child < l->heap_len && l->heap[child + 1]->deadline < l->heap[child]->deadline)
			child++;
		if (l->heap[child]->deadline >= t->deadline)
			break;
		heap_place(l, pos, l->heap[child]);
	}
	heap_place(l, pos, t);
}

void loop_timer_stop(struct loop_timer *t)
{
	struct loop *l = t->loop;
	unsigned pos = t->heap_pos;
	struct loop_timer *last;

	if (!pos)
		return;
	t->heap_pos = 0;
	last = l->heap[l->heap_len--];
	if (last == t)
		return;
	if (pos > 1 && l->heap[pos / 2]->deadline > last->deadline)
		heap_up(l, pos, last);
	else
		heap_down(l, pos, last);
}

int loop_timer_at(struct loop *l, struct loop_timer *t, uint64_t deadline_ns)
{
	loop_timer_stop(t);
	if (l->heap_len + 2 > l->heap_cap) {
		unsigned cap = l->heap_cap ? l->heap_cap * 2 : 16;
		struct loop_timer **p = reallocarray(l->heap, cap, sizeof(*p));

		if (!p)
			return -ENOMEM;
		l->heap = p;
		l->heap_cap = cap;
	}
	t->loop = l;
	t->deadline = deadline_ns;
	heap_up(l, ++l->heap_len, t);
	return 0;
}

int loop_timer_in(struct loop *l, struct loop_timer *t, uint64_t delay_ns)
{
	return loop_timer_at(l, t, now_ns() + delay_ns);
}

static void run_timers(struct loop *l)
{
	uint64_t now;

	if (!l->heap_len)
		return;
	now = now_ns();
	while (l->heap_len && l->heap[1]->deadline <= now) {
		struct loop_timer *t = l->heap[1];

		loop_timer_stop(t);
		t->fn(t);
	}
}

static void run_calls(struct loop *l)
{
	uint64_t n;
	struct loop_call *c;

	(void)!read(l->wakefd, &n, sizeof(n));
	pthread_mutex_lock(&l->lock);
	while ((c = l->calls)) {
		l->calls = c->next;
		if (!l->calls)
			l->calls_tail = &l->calls;
		pthread_mutex_unlock(&l->lock);
		c->fn(c->arg);
		pthread_mutex_lock(&l->lock);
		c->done = true;
		pthread_cond_broadcast(&l->called);
	}
	pthread_mutex_unlock(&l->lock);
}

static int timeout_for(const struct loop *l, int timeout_ms)
{
	uint64_t now, left;

	if (!l->heap_len)
		return timeout_ms;
	now = now_ns();
	if (l->heap[1]->deadline <= now)
		return 0;
	/* Round up: waking early would spin until the deadline. */
	left = (l->heap[1]->deadline - now + 999999) / 1000000;
	if (timeout_ms >= 0 && left > (uint64_t)timeout_ms)
		return timeout_ms;
	return left > 3600000 ? 3600000 : (int)left;
}

int loop_turn(struct loop *l, int timeout_ms)
{
	struct epoll_event ev[EVENTS_PER_TURN];
	int n;

	if (!atomic_load_explicit(&l->running, memory_order_relaxed)) {
		l->thread = pthread_self();
		atomic_store_explicit(&l->running, true, memory_order_release);
	}
	n = epoll_wait(l->epfd, ev, EVENTS_PER_TURN, timeout_for(l, timeout_ms));
	if (n < 0 && errno != EINTR)
		return -errno;
	for (int i = 0; i < n; i++) {
		uint32_t slot = (uint32_t)ev[i].data.u64;
		uint32_t generation = (uint32_t)(ev[i].data.u64 >> 32);
		struct loop_source *s;

		if (slot == WAKE_SLOT) {
			run_calls(l);
			continue;
		}
		s = l->slots[slot].source;
		if (s && l->slots[slot].generation == generation)
			s->fn(s, ev[i].events);
	}
	run_timers(l);
	return 0;
}

int loop_run(struct loop *l)
{
	while (!l->quit) {
		int r = loop_turn(l, -1);

		if (r < 0)
			return r;
	}
	l->quit = false;
	return l->result;
}

void loop_quit(struct loop *l, int result)
{
	l->quit = true;
	l->result = result;
}

void loop_post(struct loop *l, struct loop_call *c, void (*fn)(void *arg), void *arg)
{
	uint64_t one = 1;

	*c = (struct loop_call){.fn = fn, .arg = arg};
	pthread_mutex_lock(&l->lock);
	*l->calls_tail = c;
	l->calls_tail = &c->next;
	pthread_mutex_unlock(&l->lock);
	(void)!write(l->wakefd, &one, sizeof(one));
}

void loop_wait(struct loop *l, struct loop_call *c)
{
	pthread_mutex_lock(&l->lock);
	while (!c->done)
		pthread_cond_wait(&l->called, &l->lock);
	pthread_mutex_unlock(&l->lock);
}

void loop_call(struct loop *l, void (*fn)(void *arg), void *arg)
{
	struct loop_call c;

	if (atomic_load_explicit(&l->running, memory_order_acquire) &&
	    pthread_equal(l->thread, pthread_self())) {
		fn(arg);
		return;
	}
	loop_post(l, &c, fn, arg);
	loop_wait(l, &c);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	/* By itself: for another thread the C library goes through /proc. */
	(void)prctl(PR_SET_NAME, w->name);
	/* Not where somebody chose another policy for all of us. */
	if (w->batch && sched_getscheduler(0) == SCHED_OTHER)
		(void)sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0});
	loop_run(w->loop);
	return NULL;
}

int worker_start(struct worker *w, const char *name, struct err *err)
{
	sigset_t all, old;
	int r = loop_new(&w->loop, err);

	if (r < 0)
		return r;
	snprintf(w->name, sizeof(w->name), "%s", name);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&w->thread, NULL, worker_main, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r) {
		w->loop = loop_free(w->loop);
		return err_set(err, r, "cannot start thread %s: %s", name, err_name(r));
	}
	w->started = true;
	return 0;
}

static void worker_quit(void *arg)
{
	loop_quit(arg, 0);
}

void worker_stop(struct worker *w)
{
	if (!w->started)
		return;
	loop_call(w->loop, worker_quit, w->loop);
	pthread_join(w->thread, NULL);
	w->loop = loop_free(w->loop);
	w->started = false;
}
