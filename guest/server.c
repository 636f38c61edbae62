/* SPDX-License-Identifier: Apache-2.0 */
#include "server.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fs.h"

void work_list_init(struct work *head)
{
	head->next = head->prev = head;
}

static void work_push(struct work *head, struct work *w)
{
	work_cancel(w);
	w->prev = head->prev;
	w->next = head;
	head->prev->next = w;
	head->prev = w;
}

void work_cancel(struct work *w)
{
	if (!w->next)
		return;
	w->prev->next = w->next;
	w->next->prev = w->prev;
	w->next = w->prev = NULL;
}

/* Move everything from one list to the end of another. */
static void work_move(struct work *to, struct work *from)
{
	if (from->next == from)
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	work_list_init(from);
}

void server_defer(struct server *sv, struct work *w)
{
	work_push(&sv->ready, w);
}

void conn_wait_room(struct conn *c, struct work *w)
{
	work_push(&c->waiting, w);
}

/*
 * Reading stops while a stream is blocked, too many replies wait, or there are frames left from the
 * last read; writing stops when all is written.
 */
static void update_events(struct conn *c)
{
	uint32_t want = 0;

	if (c->dead)
		return;
	if (!c->blocked && !c->more.next && buf_size(&c->out) < CONN_OUT_STOP)
		want |= EPOLLIN;
	if (buf_size(&c->out))
		want |= EPOLLOUT;
	loop_mod(&c->src, want | EPOLLRDHUP);
}

void conn_produced(struct conn *c)
{
	if (c->dead)
		return;
	if (buf_failed(&c->out)) {
		conn_close(c);
		return;
	}
	if (buf_size(&c->out) >= CONN_OUT_HIGH)
		c->full = true;
	if (!c->dirty) {
		c->dirty = true;
		c->next_dirty = c->sv->dirty;
		c->sv->dirty = c;
	}
}

static void flush(struct conn *c)
{
	while (buf_size(&c->out)) {
		ssize_t n = send(c->src.fd, buf_ptr(&c->out), buf_size(&c->out),
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			if (errno != EAGAIN) {
				conn_close(c);
				return;
			}
			break;
		}
		buf_consume(&c->out, (size_t)n);
	}
	if (c->full && buf_size(&c->out) <= CONN_OUT_LOW) {
		c->full = false;
		work_move(&c->sv->ready, &c->waiting);
	}
	update_events(c);
}

void conn_send(struct conn *c, uint32_t id, enum msg_kind kind, const void *msg)
{
	if (c->dead)
		return;
	if (kind == MSG_EXEC_EXITED || kind == MSG_EXEC_FAILED || kind == MSG_FS_RESPONSE ||
	    kind == MSG_TCP_CLOSED || kind == MSG_TCP_FAILED)
		c->ended[c->nended++ % CONN_ENDED_IDS] = id;
	if (frame_put_msg(&c->out, id, kind, msg) == -EMSGSIZE)
		conn_error(c, id, CORE_INVALID_PAYLOAD, msg_types[kind].name,
			   "the answer does not fit a frame");
	conn_produced(c);
}

void conn_error(struct conn *c, uint32_t id, enum core_error kind, const char *type,
		const char *fmt, ...)
{
	char text[512], offending[64];
	struct msg_error e = {.kind = kind, .message = text};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (type) {
		snprintf(offending, sizeof(offending), "%s", type);
		e.offending_type = offending;
	}
	conn_send(c, id, MSG_ERROR, &e);
}

void conn_block(struct conn *c, bool on)
{
	if (on)
		c->blocked++;
	else if (!--c->blocked && !c->dead && buf_size(&c->in))
		server_defer(c->sv, &c->more);
	update_events(c);
}

static unsigned bucket(uint32_t id)
{
	return id % STREAM_BUCKETS;
}

struct stream *conn_stream(struct conn *c, uint32_t id)
{
	struct stream *s = c->buckets[bucket(id)];

	while (s && s->id != id)
		s = s->next;
	return s;
}

int stream_open(struct conn *c, struct stream *s, uint32_t id, const struct stream_ops *ops)
{
	if (c->nstreams >= STREAMS_MAX)
		return -EMFILE;
	s->ops = ops;
	s->conn = c;
	s->id = id;
	s->next = c->buckets[bucket(id)];
	c->buckets[bucket(id)] = s;
	c->nstreams++;
	return 0;
}

void stream_close(struct stream *s)
{
	struct stream **p = &s->conn->buckets[bucket(s->id)];

	while (*p && *p != s)
		p = &(*p)->next;
	if (!*p)
		return;
	*p = s->next;
	s->conn->nstreams--;
}

bool conn_ended(const struct conn *c, uint32_t id)
{
	unsigned n = MIN(c->nended, (unsigned)CONN_ENDED_IDS);

	for (unsigned i = 0; i < n; i++) {
		if (c->ended[i] == id)
			return true;
	}
	return false;
}

void conn_abandon_range(struct conn *c, uint32_t start, uint32_t end)
{
	for (unsigned i = 0; i < STREAM_BUCKETS; i++) {
		struct stream *s = c->buckets[i], *next;

		for (; s; s = next) {
			next = s->next;
			if (s->id >= start && s->id < end)
				s->ops->abandon(s);
		}
	}
	fs_close_range(c, start, end);
}

void conn_close(struct conn *c)
{
	if (c->dead)
		return;
	c->dead = true;
	for (unsigned i = 0; i < STREAM_BUCKETS; i++) {
		while (c->buckets[i])
			c->buckets[i]->ops->abandon(c->buckets[i]);
	}
	fs_handles_free(c);
	work_cancel(&c->more);
	loop_del(&c->src);
	c->src.fd = close_fd(c->src.fd);
	if (c->control && c->sv->on_shutdown)
		c->sv->on_shutdown(c->sv, 0);
}

/* Handle the complete frames there are, up to the turn's share. */
static void handle_frames(struct conn *c)
{
	struct frame f;
	int r = 0;

	for (unsigned n = 0; !c->dead && !c->blocked; n++) {
		r = frame_peek(&c->in, &f, NULL);
		if (r <= 0)
			break;
		if (n >= CONN_FRAMES_PER_TURN || buf_size(&c->out) >= CONN_OUT_STOP) {
			server_defer(c->sv, &c->more);
			break;
		}
		dispatch_frame(c, &f);
		if (!c->dead)
			frame_consume(&c->in, &f);
	}
	if (r < 0)
		conn_close(c);
	update_events(c);
}

static void on_more(struct work *w)
{
	struct conn *c = container_of(w, struct conn, more);

	/* Replies that wait must go first, or they would pile up. */
	if (buf_size(&c->out) >= CONN_OUT_STOP)
		conn_wait_room(c, w);
	else
		handle_frames(c);
}

static void on_conn(struct loop_source *src, uint32_t events)
{
	struct conn *c = container_of(src, struct conn, src);
	uint8_t *to;
	ssize_t n;

	if (events & EPOLLOUT) {
		flush(c);
		if (c->dead)
			return;
	}
	if (events & (EPOLLHUP | EPOLLERR) || (events & EPOLLRDHUP && !(src->events & EPOLLIN))) {
		/* Nobody is there to hear us; what a blocked connection still sent is void. */
		conn_close(c);
		return;
	}
	if (!(events & (EPOLLIN | EPOLLRDHUP)))
		return;
	to = buf_reserve(&c->in, MAX((size_t)CONN_READ, frame_missing(&c->in)));
	if (!to) {
		conn_close(c);
		return;
	}
	n = recv(src->fd, to, c->in.cap - c->in.len, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		conn_close(c);
		return;
	}
	buf_commit(&c->in, (size_t)n);
	handle_frames(c);
}

struct conn *server_adopt(struct server *sv, int fd, bool control)
{
	struct conn *c = sv->nconns < CONNS_MAX ? calloc(1, sizeof(*c)) : NULL;

	if (!c) {
		close_fd(fd);
		return NULL;
	}
	c->sv = sv;
	c->control = control;
	c->in.max = CONN_IN_MAX;
	c->src.fn = on_conn;
	c->src.fd = fd;
	c->more.fn = on_more;
	work_list_init(&c->waiting);
	if (loop_add(sv->loop, &c->src, EPOLLIN | EPOLLRDHUP) < 0) {
		close_fd(fd);
		free(c);
		return NULL;
	}
	c->next = sv->conns;
	sv->conns = c;
	sv->nconns++;
	return c;
}

static void on_listener(struct loop_source *src, uint32_t events)
{
	struct server *sv = container_of(src, struct server, listener);
	int fd = accept4(src->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd >= 0) {
		server_adopt(sv, fd, false);
	} else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
		/* The client keeps waiting; asking again at once would only spin. */
		loop_mod(src, 0);
		(void)loop_timer_in(sv->loop, &sv->listen_again, LISTEN_PAUSE_MS * 1000000ull);
	}
}

static void on_listen_again(struct loop_timer *t)
{
	struct server *sv = container_of(t, struct server, listen_again);

	loop_mod(&sv->listener, EPOLLIN);
}

int server_init(struct server *sv, const struct msg_bootstrap *boot, struct err *err)
{
	struct loop *l;
	int r = loop_new(&l, err);

	if (r < 0)
		return r;
	memset(sv, 0, sizeof(*sv));
	sv->loop = l;
	sv->listener.fd = -1;
	sv->defaults.boot = boot;
	sv->defaults.env = &boot->default_env;
	sv->defaults.cwd = boot->default_cwd;
	sv->defaults.cgroup_fd = -1;
	work_list_init(&sv->ready);
	return 0;
}

int server_listen(struct server *sv, int fd, struct err *err)
{
	int r;

	sv->listener.fn = on_listener;
	sv->listen_again.fn = on_listen_again;
	sv->listener.fd = fd;
	r = loop_add(sv->loop, &sv->listener, EPOLLIN);
	if (r < 0) {
		sv->listener.fd = close_fd(fd);
		return err_set(err, r, "cannot watch the listening socket: %s", err_name(r));
	}
	return 0;
}

static void bury(struct server *sv)
{
	struct conn **p = &sv->conns;

	while (*p) {
		struct conn *c = *p;

		if (!c->dead) {
			p = &c->next;
			continue;
		}
		*p = c->next;
		sv->nconns--;
		buf_done(&c->in);
		buf_done(&c->out);
		free(c);
	}
}

void server_flush(struct server *sv)
{
	while (sv->dirty) {
		struct conn *c = sv->dirty;

		sv->dirty = c->next_dirty;
		c->dirty = false;
		if (!c->dead)
			flush(c);
	}
}

void server_run(struct server *sv)
{
	while (!sv->quit) {
		struct work batch;
		int r = loop_turn(sv->loop, sv->ready.next == &sv->ready ? -1 : 0);

		if (r < 0)
			break;
		/* What this batch puts off again waits for the next turn. */
		work_list_init(&batch);
		work_move(&batch, &sv->ready);
		while (batch.next != &batch) {
			struct work *w = batch.next;

			work_cancel(w);
			w->fn(w);
		}
		server_flush(sv);
		bury(sv);
	}
}

void server_done(struct server *sv)
{
	sv->on_shutdown = NULL;
	for (struct conn *c = sv->conns; c; c = c->next)
		conn_close(c);
	sv->dirty = NULL;
	bury(sv);
	msg_free(MSG_HOST_DEFAULTS, &sv->own);
	loop_timer_stop(&sv->listen_again);
	loop_del(&sv->listener);
	sv->listener.fd = close_fd(sv->listener.fd);
	sv->loop = loop_free(sv->loop);
}
