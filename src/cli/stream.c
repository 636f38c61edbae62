/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"

static ssize_t write_some(struct out_stream *o, const void *p, size_t n)
{
	ssize_t r;

	if (o->careful) {
		struct pollfd pfd = {.fd = o->source.fd, .events = POLLOUT};

		if (poll(&pfd, 1, 0) == 0) {
			errno = EAGAIN;
			return -1;
		}
		n = MIN(n, (size_t)PIPE_BUF);
	}
	do
		r = o->socket ? send(o->source.fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL)
			      : write(o->source.fd, p, n);
	while (r < 0 && errno == EINTR);
	return r;
}

/* Write as much as goes: bytes written, with o->error set after a failure. */
static size_t write_most(struct out_stream *o, const uint8_t *p, size_t n)
{
	size_t done = 0;

	while (done < n) {
		ssize_t r = write_some(o, p + done, n - done);

		if (r < 0 && errno != EAGAIN)
			o->error = errno;
		if (r < 0)
			break;
		done += (size_t)r;
	}
	return done;
}

static void on_writable(struct loop_source *s, uint32_t events)
{
	struct out_stream *o = container_of(s, struct out_stream, source);
	size_t before = buf_size(&o->queue), after;

	(void)events;
	buf_consume(&o->queue, write_most(o, buf_ptr(&o->queue), before));
	if (o->error)
		buf_reset(&o->queue);
	after = buf_size(&o->queue);
	if (!after)
		loop_del(&o->source);
	if (o->error || !after || (before > OUT_QUEUE_HIGH / 2 && after <= OUT_QUEUE_HIGH / 2))
		o->changed(o);
}

int out_stream_init(struct out_stream *o, struct loop *loop, int fd,
		    void (*changed)(struct out_stream *o), struct err *err)
{
	struct stat st;

	*o = (struct out_stream){.loop = loop, .changed = changed};
	o->source.fn = on_writable;
	o->source.fd = fd;
	o->queue.max = SIZE_MAX / 2;
	if (fstat(fd, &st) < 0)
		return err_errno(err, "cannot use output %d", fd);
	o->socket = S_ISSOCK(st.st_mode);
	if (S_ISFIFO(st.st_mode) || isatty(fd)) {
		char path[32];
		int own;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		o->own = own >= 0;
		o->careful = own < 0;
		if (own >= 0)
			o->source.fd = own;
	}
	return 0;
}

void out_stream_done(struct out_stream *o)
{
	if (!o->loop)
		return;
	loop_del(&o->source);
	if (o->own)
		close_fd(o->source.fd);
	buf_done(&o->queue);
	o->loop = NULL;
}

int out_stream_write(struct out_stream *o, const void *p, size_t n)
{
	size_t done = 0;

	if (o->error)
		return -o->error;
	if (!buf_size(&o->queue))
		done = write_most(o, p, n);
	if (o->error)
		return -o->error;
	if (done == n)
		return 0;
	buf_add(&o->queue, (const uint8_t *)p + done, n - done);
	if (buf_failed(&o->queue))
		o->error = ENOMEM;
	else if (!loop_source_active(&o->source))
		o->error = -loop_add(o->loop, &o->source, EPOLLOUT);
	return -o->error;
}

static void on_readable(struct loop_source *s, uint32_t events)
{
	struct in_stream *i = container_of(s, struct in_stream, source);

	(void)events;
	i->readable(i);
}

static void on_again(struct loop_timer *t)
{
	struct in_stream *i = container_of(t, struct in_stream, again);

	if (!i->on)
		return;
	i->readable(i);
	/* No memory for one timer: the loop is about to fail anyway. */
	if (i->on)
		(void)loop_timer_in(i->loop, t, 0);
}

int in_stream_init(struct in_stream *i, struct loop *loop, int fd,
		   void (*readable)(struct in_stream *i), struct err *err)
{
	int r;

	*i = (struct in_stream){.loop = loop, .readable = readable, .polls = true};
	i->source.fn = on_readable;
	i->source.fd = fd;
	i->again.fn = on_again;
	r = loop_add(loop, &i->source, EPOLLIN);
	if (r == -EPERM)
		i->polls = false;
	else if (r < 0)
		return err_set(err, r, "cannot use the standard input: %s", err_name(r));
	loop_del(&i->source);
	return 0;
}

void in_stream_done(struct in_stream *i)
{
	if (i->loop)
		in_stream_enable(i, false);
	i->done = true;
}

void in_stream_enable(struct in_stream *i, bool on)
{
	if (i->on == on || i->done)
		return;
	i->on = on;
	if (!i->polls && on)
		(void)loop_timer_in(i->loop, &i->again, 0);
	else if (!i->polls)
		loop_timer_stop(&i->again);
	else if (on)
		/* Removed, not masked, when off: a hang-up is reported whatever the mask. */
		(void)loop_add(i->loop, &i->source, EPOLLIN);
	else
		loop_del(&i->source);
}

long in_stream_read(struct in_stream *i, void *p, size_t n)
{
	ssize_t r;

	do
		r = read(i->source.fd, p, n);
	while (r < 0 && errno == EINTR);
	if (r < 0 && errno == EAGAIN)
		return -EAGAIN;
	/* EIO is a terminal that was hung up. */
	if (r < 0 && errno != EIO)
		i->error = errno;
	return r < 0 ? 0 : (long)r;
}
