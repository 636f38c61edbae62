/* SPDX-License-Identifier: Apache-2.0 */
#include "net/look.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/iov.h"
#include "net/authority.h"

struct look {
	struct stack *s;
	struct flow *f;
	struct loop *loop;
	struct loop_timer timer;
	void (*ran)(void *arg);
	void *arg;
	int fd;
	struct buf held;
	bool agreed, shut;
};

void look_flush(struct look *l)
{
	while (l && l->agreed && buf_size(&l->held)) {
		struct iovec v = {buf_ptr(&l->held), buf_size(&l->held)};
		struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
		ssize_t n = sendmsg(l->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);

		/* A connection that broke says so itself. */
		if (n < 0)
			return;
		buf_consume(&l->held, (size_t)n);
		if (!buf_size(&l->held) && l->shut)
			(void)shutdown(l->fd, SHUT_WR);
	}
}

static bool agree(struct look *l, const struct dns_name *name)
{
	loop_timer_stop(&l->timer);
	l->agreed = stack_agrees(l->s, l->f, name, now_ns());
	if (!l->agreed)
		return false;
	look_flush(l);
	stack_event(l->s, l->f, STACK_READABLE, 0, now_ns());
	return true;
}

static void on_timer(struct loop_timer *t)
{
	struct look *l = container_of(t, struct look, timer);
	void (*ran)(void *arg) = l->ran;
	void *arg = l->arg;

	/* This ends the flow, and with it the look. */
	if (!agree(l, NULL))
		stack_event(l->s, l->f, STACK_FAILED, EACCES, now_ns());
	else if (l->shut && !buf_size(&l->held))
		(void)shutdown(l->fd, SHUT_WR);
	ran(arg);
}

struct look *look_new(struct stack *s, struct flow *f, int fd, struct loop *loop,
		      void (*ran)(void *arg), void *arg)
{
	struct look *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	*l = (struct look){.s = s, .f = f, .fd = fd, .loop = loop, .ran = ran, .arg = arg};
	l->timer.fn = on_timer;
	l->held.max = AUTHORITY_MAX;
	if (loop_timer_in(loop, &l->timer, (uint64_t)LOOK_S * 1000000000) < 0)
		return look_free(l);
	return l;
}

struct look *look_free(struct look *l)
{
	if (!l)
		return NULL;
	loop_timer_stop(&l->timer);
	buf_done(&l->held);
	free(l);
	return NULL;
}

bool look_holds(const struct look *l)
{
	return l && (!l->agreed || buf_size(&l->held));
}

bool look_agreed(const struct look *l)
{
	return !l || l->agreed;
}

size_t look_room(const struct look *l)
{
	return l->agreed ? 0 : AUTHORITY_MAX - buf_size(&l->held);
}

ssize_t look_send(struct look *l, const struct iovec *iov, unsigned n)
{
	size_t len = MIN(iov_size(iov, n), look_room(l));
	uint8_t *p = len ? buf_reserve(&l->held, len) : NULL;
	struct dns_name name;
	enum authority found;

	if (!p)
		return -EAGAIN;
	iov_read(iov, n, 0, p, len);
	buf_commit(&l->held, len);
	found = authority_find(buf_ptr(&l->held), buf_size(&l->held), &name);
	if (found != AUTHORITY_MORE && !agree(l, found == AUTHORITY_FOUND ? &name : NULL))
		return -EACCES;
	return (ssize_t)len;
}

bool look_shut(struct look *l)
{
	if (!look_holds(l))
		return false;
	l->shut = true;
	/* Not from here, as it may end the flow. */
	if (!l->agreed)
		(void)loop_timer_at(l->loop, &l->timer, now_ns());
	return true;
}
