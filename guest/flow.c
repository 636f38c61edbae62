/* SPDX-License-Identifier: Apache-2.0 */
#include "flow.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/cleanup.h"

static void finish_inlet(struct inlet *in, int error)
{
	inlet_stop(in);
	in->ended(in, error);
}

static void on_readable(struct loop_source *src, uint32_t events)
{
	struct inlet *in = container_of(src, struct inlet, src);
	struct conn *c = in->st->conn;
	struct frame_data d;
	uint8_t *to;
	ssize_t n;

	(void)events;
	if (conn_full(c)) {
		/* Not merely masked: epoll reports a hang-up whatever was asked for. */
		loop_del(src);
		conn_wait_room(c, &in->room);
		return;
	}
	to = frame_data_begin(&c->out, &d, in->st->id, in->kind, in->chunk);
	if (!to) {
		conn_close(c);
		return;
	}
	n = read(src->fd, to, d.max);
	if (n > 0) {
		frame_data_end(&c->out, &d, (size_t)n);
		conn_produced(c);
		if (c->dead)
			return;
		c->sv->activity_seq++;
		in->total += (size_t)n;
		if ((size_t)n == in->chunk && in->chunk < in->chunk_max)
			in->chunk *= 2;
		if (in->pipe && !in->grown && n >= (64 << 10)) {
			in->grown = true;
			(void)fcntl(src->fd, F_SETPIPE_SZ, PIPE_SIZE);
		}
		if (in->moved)
			in->moved(in);
		return;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	/* A terminal whose last user has gone reads as EIO. */
	finish_inlet(in, n == 0 || errno == EIO ? 0 : -errno);
}

static void on_room(struct work *w)
{
	struct inlet *in = container_of(w, struct inlet, room);
	int r = loop_add(in->st->conn->sv->loop, &in->src, EPOLLIN);

	if (r < 0)
		finish_inlet(in, r);
}

int inlet_start(struct inlet *in, struct stream *st, int fd, enum msg_kind kind, size_t chunk_max)
{
	int r;

	in->st = st;
	in->src.fd = fd;
	in->src.fn = on_readable;
	in->room.fn = on_room;
	in->kind = kind;
	in->chunk = MIN((size_t)INLET_FIRST, chunk_max);
	in->chunk_max = chunk_max;
	r = loop_add(st->conn->sv->loop, &in->src, EPOLLIN);
	if (r < 0)
		in->src.fd = close_fd(fd);
	return r;
}

void inlet_stop(struct inlet *in)
{
	work_cancel(&in->room);
	loop_del(&in->src);
	in->src.fd = close_fd(in->src.fd);
}

static void set_blocked(struct outlet *o, bool on)
{
	if (o->blocked == on)
		return;
	o->blocked = on;
	conn_block(o->conn, on);
}

/* Bytes written, 0 when the descriptor is full, -errno. */
static ssize_t try_write(struct outlet *o, const void *p, size_t n)
{
	ssize_t r;

	do {
		r = write(o->src.fd, p, n);
	} while (r < 0 && errno == EINTR);
	if (r >= 0)
		return r;
	if (errno != EAGAIN)
		return -errno;
	if (o->pipe && !o->grown) {
		o->grown = true;
		if (fcntl(o->src.fd, F_SETPIPE_SZ, PIPE_SIZE) > 0)
			return try_write(o, p, n);
	}
	return 0;
}

static void on_writable(struct loop_source *src, uint32_t events)
{
	struct outlet *o = container_of(src, struct outlet, src);

	(void)events;
	while (buf_size(&o->q)) {
		ssize_t n = try_write(o, buf_ptr(&o->q), buf_size(&o->q));

		if (n < 0) {
			loop_del(src);
			o->ended(o, (int)n);
			return;
		}
		if (!n)
			break;
		buf_consume(&o->q, (size_t)n);
	}
	if (buf_size(&o->q) <= OUTLET_LOW)
		set_blocked(o, false);
	if (buf_size(&o->q))
		return;
	loop_del(src);
	if (o->eof)
		o->ended(o, 0);
}

void outlet_start(struct outlet *o, struct conn *c, int fd)
{
	o->conn = c;
	o->src.fd = fd;
	o->src.fn = on_writable;
}

void outlet_write(struct outlet *o, const void *p, size_t n)
{
	int r = 0;

	if (!buf_size(&o->q)) {
		while (n) {
			ssize_t w = try_write(o, p, n);

			if (w < 0) {
				o->ended(o, (int)w);
				return;
			}
			if (!w)
				break;
			p = (const char *)p + w;
			n -= (size_t)w;
		}
	}
	if (!n)
		return;
	buf_add(&o->q, p, n);
	if (buf_failed(&o->q))
		r = -ENOMEM;
	else if (!loop_source_active(&o->src))
		r = loop_add(o->conn->sv->loop, &o->src, EPOLLOUT);
	if (r < 0) {
		o->ended(o, r);
		return;
	}
	if (buf_size(&o->q) >= OUTLET_HIGH)
		set_blocked(o, true);
}

void outlet_eof(struct outlet *o)
{
	o->eof = true;
	if (!buf_size(&o->q))
		o->ended(o, 0);
}

void outlet_stop(struct outlet *o)
{
	loop_del(&o->src);
	o->src.fd = close_fd(o->src.fd);
	buf_done(&o->q);
	set_blocked(o, false);
}
