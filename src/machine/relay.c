/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/relay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "machine/exec_log.h"

/* One read; large enough that a gigabyte costs few calls, small enough to stay in the L2 cache. */
enum { CHUNK = 128 * 1024 };

/* Unread by the agent: a few environments' worth. */
#define TO_AGENT_MAX ((size_t)16 << 20)

/* No client has more sessions than the agent lets it have. */
enum { SESSIONS_MAX = 1024 };

/* One direction: bytes read from one socket and not yet written to the other. */
struct flow {
	struct buf queue;
	size_t passable; /* how much of the queue may be written */
	bool eof;
};

struct client {
	struct relay *relay;
	unsigned slot;
	struct loop_source peer, guest; /* guest.fd is -1 until dialled */
	struct flow in, out;		/* peer to guest, guest to peer */
	struct frame_piece asking; /* the frame that `in` is in the middle of, as far as it is */
	struct frame_scan said;	   /* what the guest sends */
	struct exec_tap *tap;
	uint32_t *sessions; /* the ids of those that are open, in no order */
	unsigned nsessions, room;
};

struct relay {
	struct loop *loop;
	const struct relay_ops *ops;
	void *arg;
	struct loop_source listener, control;
	struct buf from_agent, to_agent;
	struct buf ready; /* the cached frame; empty until the guest is ready */
	char *refusal;	  /* what who comes in is told; NULL: come in */
	bool failed;
	struct exec_log *log; /* may be NULL */
	struct client *clients[RELAY_CLIENTS_MAX];
	unsigned nclients, nsessions;
};

static void session_begin(struct client *c, uint32_t id)
{
	for (unsigned i = 0; i < c->nsessions; i++) {
		if (c->sessions[i] == id)
			return;
	}
	if (c->nsessions == c->room) {
		unsigned room = c->room ? c->room * 2 : 8;
		uint32_t *to =
			room > SESSIONS_MAX ? NULL : realloc(c->sessions, room * sizeof(*to));

		if (!to)
			return;
		c->sessions = to;
		c->room = room;
	}
	c->sessions[c->nsessions++] = id;
	c->relay->nsessions++;
}

static void session_end(struct client *c, uint32_t id)
{
	for (unsigned i = 0; i < c->nsessions; i++) {
		if (c->sessions[i] != id)
			continue;
		c->sessions[i] = c->sessions[--c->nsessions];
		c->relay->nsessions--;
		c->relay->ops->active(c->relay->arg);
		return;
	}
}

/* The guest sent @n bytes: the log's share of them, and the sessions that they end. */
static void said(struct client *c, const uint8_t *p, size_t n)
{
	struct frame_piece piece;

	/* What is no frame the client will find as well, and hang up. */
	while (frame_scan(&c->said, &p, &n, &piece) > 0) {
		exec_tap_answered(c->tap, &piece);
		if (frame_piece_last(&piece) && (piece.flags & FRAME_TERMINAL))
			session_end(c, piece.id);
	}
}

static void client_free(struct client *c)
{
	struct relay *r = c->relay;
	bool active = c->nsessions > 0;

	r->nsessions -= c->nsessions;
	free(c->sessions);
	loop_del(&c->peer);
	loop_del(&c->guest);
	close_fd(c->peer.fd);
	close_fd(c->guest.fd);
	buf_done(&c->in.queue);
	buf_done(&c->out.queue);
	exec_tap_free(c->tap);
	r->clients[c->slot] = NULL;
	if (r->nclients-- == RELAY_CLIENTS_MAX)
		loop_mod(&r->listener, EPOLLIN);
	free(c);
	if (active)
		r->ops->active(r->arg);
	if (r->ops->gone)
		r->ops->gone(r->arg);
}

/*
 * Read once. 1: there may be more; 0: nothing now; -1: the connection failed.
 */
static int flow_fill(struct flow *f, int fd)
{
	void *to = buf_reserve(&f->queue, CHUNK);
	ssize_t n;

	if (!to)
		return -1;
	n = read(fd, to, CHUNK);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -1;
	if (n == 0)
		f->eof = true;
	else
		buf_commit(&f->queue, (size_t)n);
	return n > 0;
}

static int flow_drain(struct flow *f, int fd)
{
	while (f->passable) {
		ssize_t n = send(fd, buf_ptr(&f->queue), f->passable, MSG_NOSIGNAL);

		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -1;
		buf_consume(&f->queue, (size_t)n);
		f->passable -= (size_t)n;
	}
	return 0;
}

/*
 * A frame outside of sessions, @left bytes of which are at @p: is it more than a ping? -EAGAIN when
 * more of it is needed to tell.
 */
static int touches(const uint8_t *p, size_t left, uint32_t len)
{
	enum { TOUCH_MAX = 256 };
	const struct frame f = {
		.body = p + FRAME_HEADER,
		.body_len = len - FRAME_LEN_MIN,
		.wire_len = (size_t)len + FRAME_PREFIX,
	};
	struct envelope e;

	if (f.wire_len > TOUCH_MAX)
		return 0;
	if (left < f.wire_len)
		return -EAGAIN;
	return frame_open(&f, &e, NULL) == 0 && e.type && msg_kind_of(e.type) == MSG_TOUCH;
}

/*
 * Move `passable` over the frames that have arrived, and show them to the log. -EPROTO when the
 * client may not send them.
 */
static int check_frames(struct client *c)
{
	struct frame_piece *a = &c->asking;
	struct flow *f = &c->in;

	for (;;) {
		size_t left = buf_size(&f->queue) - f->passable;
		struct cur head;
		uint32_t len;
		int touch;

		if (a->at < a->len) {
			a->p = buf_ptr(&f->queue) + f->passable;
			a->n = MIN((size_t)(a->len - a->at), left);
			if (!a->n)
				return 0;
			exec_tap_asked(c->tap, a);
			f->passable += a->n;
			a->at += (uint32_t)a->n;
			continue;
		}
		if (left < FRAME_HEADER)
			return 0;
		head = cur_make(buf_ptr(&f->queue) + f->passable, FRAME_HEADER);
		len = cur_be32(&head);
		if (len < FRAME_LEN_MIN || len > FRAME_LEN_MAX)
			return -EPROTO;
		*a = (struct frame_piece){.id = cur_be32(&head), .flags = cur_u8(&head)};
		if (!(a->id >= frame_client_start(c->slot) && a->id < frame_client_end(c->slot)) &&
		    !(a->id == 0 && (a->flags & FRAME_SHUTDOWN)))
			return -EPROTO;
		if (a->flags & FRAME_SESSION_START)
			session_begin(c, a->id);
		touch = c->nsessions ? 1 : touches(buf_ptr(&f->queue) + f->passable, left, len);
		if (touch == -EAGAIN)
			return 0;
		if (touch)
			c->relay->ops->active(c->relay->arg);
		f->passable += FRAME_HEADER;
		a->len = len - FRAME_LEN_MIN;
	}
}

static void client_update(struct client *c)
{
	uint32_t peer = 0, guest = 0;

	if (c->guest.fd >= 0 && !c->in.eof && buf_size(&c->in.queue) < RELAY_QUEUE_MAX)
		peer |= EPOLLIN;
	if (c->out.passable)
		peer |= EPOLLOUT;
	if (!c->out.eof && buf_size(&c->out.queue) < RELAY_QUEUE_MAX)
		guest |= EPOLLIN;
	if (c->in.passable)
		guest |= EPOLLOUT;
	loop_mod(&c->peer, peer);
	if (loop_source_active(&c->guest))
		loop_mod(&c->guest, guest);
	else if (guest & EPOLLIN)
		(void)loop_add(c->relay->loop, &c->guest, guest);
}

static void on_peer(struct loop_source *s, uint32_t events)
{
	struct client *c = container_of(s, struct client, peer);

	if (events & EPOLLIN) {
		if (flow_fill(&c->in, s->fd) < 0)
			goto gone;
		if (check_frames(c) < 0) {
			log_warn("client %u dropped: a frame outside its rights", c->slot);
			goto gone;
		}
		if (flow_drain(&c->in, c->guest.fd) < 0)
			goto gone;
	}
	/* A client that closes its sending side is done: its sessions end with it. */
	if (c->in.eof || (events & (EPOLLHUP | EPOLLERR)))
		goto gone;
	if ((events & EPOLLOUT) && flow_drain(&c->out, s->fd) < 0)
		goto gone;
	if (c->out.eof && !c->out.passable)
		goto gone;
	client_update(c);
	return;
gone:
	client_free(c);
}

static void on_guest(struct loop_source *s, uint32_t events)
{
	struct client *c = container_of(s, struct client, guest);
	size_t before = buf_size(&c->out.queue);

	/* A hang-up cannot be masked: with the queue full, look away until there is room. */
	if (!(events & EPOLLIN) && buf_size(&c->out.queue) >= RELAY_QUEUE_MAX) {
		loop_del(s);
		return;
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		if (flow_fill(&c->out, s->fd) < 0)
			c->out.eof = true;
		said(c, buf_ptr(&c->out.queue) + before, buf_size(&c->out.queue) - before);
		c->out.passable = buf_size(&c->out.queue);
		if (flow_drain(&c->out, c->peer.fd) < 0)
			goto gone;
	}
	if ((events & EPOLLOUT) && flow_drain(&c->in, s->fd) < 0)
		c->out.eof = true;
	if (c->out.eof && !c->out.passable)
		goto gone;
	if (c->out.eof)
		loop_del(&c->guest);
	client_update(c);
	return;
gone:
	client_free(c);
}

/* In place of the guest's word that it is ready. */
static int refuse(struct client *c)
{
	const struct msg_error m = {.kind = CORE_INITIALIZATION_FAILED,
				    .message = c->relay->refusal};
	struct buf *b = &c->out.queue;

	buf_add_be32(b, frame_client_start(c->slot));
	buf_add_be32(b, frame_client_end(c->slot));
	if (frame_put_msg(b, 0, MSG_ERROR, &m) == 0 && !buf_failed(b))
		(void)send(c->peer.fd, buf_ptr(b), buf_size(b), MSG_NOSIGNAL);
	return -EBUSY;
}

/* The guest is ready: greet the client and connect it. */
static int client_begin(struct client *c)
{
	struct relay *r = c->relay;
	struct err err = ERR_INIT;
	int p[2], e;

	if (r->refusal)
		return refuse(c);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, p) < 0)
		return -errno;
	e = r->ops->dial(r->arg, p[1], &err);
	if (e < 0) {
		log_error("cannot connect client %u to the guest: %s", c->slot, err.msg);
		close_fd(p[0]);
		return e;
	}
	c->guest.fd = p[0];
	c->guest.fn = on_guest;
	e = loop_add(r->loop, &c->guest, EPOLLIN);
	if (e < 0)
		return e;
	buf_add_be32(&c->out.queue, frame_client_start(c->slot));
	buf_add_be32(&c->out.queue, frame_client_end(c->slot));
	buf_add(&c->out.queue, buf_ptr(&r->ready), buf_size(&r->ready));
	if (buf_failed(&c->out.queue))
		return -ENOMEM;
	c->out.passable = buf_size(&c->out.queue);
	if (flow_drain(&c->out, c->peer.fd) < 0)
		return -EPIPE;
	client_update(c);
	return 0;
}

/* Let in who is at the door: true when there was somebody. */
static bool admit(struct relay *r)
{
	struct client *c;
	unsigned slot = 0;
	int fd = r->nclients == RELAY_CLIENTS_MAX
			 ? -1
			 : accept4(r->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return false;
	while (r->clients[slot])
		slot++;
	c = calloc(1, sizeof(*c));
	if (!c) {
		close(fd);
		return true;
	}
	c->relay = r;
	c->tap = exec_tap_new(r->log);
	c->slot = slot;
	c->peer.fd = fd;
	c->peer.fn = on_peer;
	c->guest.fd = -1;
	/* Room for a full queue plus the read that overshoots it, plus the greeting. */
	c->in.queue.max = c->out.queue.max = RELAY_QUEUE_MAX + 2 * CHUNK;
	r->clients[slot] = c;
	if (++r->nclients == RELAY_CLIENTS_MAX)
		loop_mod(&r->listener, 0);
	if (loop_add(r->loop, &c->peer, 0) < 0 || (buf_size(&r->ready) && client_begin(c) < 0))
		client_free(c);
	return true;
}

static void on_listener(struct loop_source *s, uint32_t events)
{
	(void)events;
	(void)admit(container_of(s, struct relay, listener));
}

void relay_refuse(struct relay *r, const char *why)
{
	free(r->refusal);
	/* Without memory for a word they come in, and wait. */
	r->refusal = why ? strdup(why) : NULL;
}

void relay_shut(struct relay *r)
{
	loop_del(&r->listener);
	r->listener.fd = close_fd(r->listener.fd);
}

bool relay_shut_if_empty(struct relay *r)
{
	/* Who has hung up by now is no longer in, whether that was read already or not. */
	for (unsigned i = 0; i < RELAY_CLIENTS_MAX; i++) {
		char c;

		if (r->clients[i] &&
		    recv(r->clients[i]->peer.fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
			client_free(r->clients[i]);
	}
	while (admit(r))
		;
	if (!r->nclients)
		relay_shut(r);
	return !r->nclients;
}

static void control_failed(struct relay *r, const char *why)
{
	loop_del(&r->control);
	if (!r->failed) {
		r->failed = true;
		r->ops->failed(r->arg, why);
	}
}

static void control_flush(struct relay *r)
{
	ssize_t n = 0;

	while (buf_size(&r->to_agent)) {
		n = send(r->control.fd, buf_ptr(&r->to_agent), buf_size(&r->to_agent),
			 MSG_NOSIGNAL);
		if (n < 0)
			break;
		buf_consume(&r->to_agent, (size_t)n);
	}
	if (loop_source_active(&r->control))
		loop_mod(&r->control, EPOLLIN | (buf_size(&r->to_agent) ? EPOLLOUT : 0));
}

int relay_tell(struct relay *r, enum msg_kind kind, const void *msg)
{
	int e;

	if (!buf_size(&r->ready) || !loop_source_active(&r->control))
		return -ENOTCONN;
	/* An agent that reads nothing for so long is none. */
	if (buf_size(&r->to_agent) > TO_AGENT_MAX)
		return -ENOBUFS;
	e = frame_put_msg(&r->to_agent, 0, kind, msg);
	control_flush(r);
	return e;
}

void relay_sync_clock(struct relay *r)
{
	struct msg_clock_sync sync;
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	sync.unix_time_nanos = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	(void)relay_tell(r, MSG_CLOCK_SYNC, &sync);
}

unsigned relay_sessions(const struct relay *r)
{
	return r->nsessions;
}

unsigned relay_clients(const struct relay *r)
{
	return r->nclients;
}

static void on_ready(struct relay *r, const uint8_t *frame, size_t n)
{
	buf_add(&r->ready, frame, n);
	relay_sync_clock(r);
	for (unsigned i = 0; i < RELAY_CLIENTS_MAX; i++) {
		if (r->clients[i] && client_begin(r->clients[i]) < 0)
			client_free(r->clients[i]);
	}
	r->ops->ready(r->arg);
}

/* Before it is ready the agent says either that it is or why it cannot be. */
static void on_control_frame(struct relay *r, const struct frame *f)
{
	struct err err = ERR_INIT;
	struct envelope e;

	if (frame_open(f, &e, &err) < 0) {
		control_failed(r, "the guest agent broke the protocol");
		return;
	}
	if (!e.type)
		return;
	if (buf_size(&r->ready)) {
		r->ops->agent(r->arg, &e);
		return;
	}
	if (msg_kind_of(e.type) == MSG_READY) {
		on_ready(r, f->body - FRAME_HEADER, f->wire_len);
	} else if (msg_kind_of(e.type) == MSG_ERROR) {
		struct msg_error m = {0};

		if (frame_payload(&e, &m, &err) == 0)
			control_failed(r, m.message ? m.message : "the guest could not boot");
		else
			control_failed(r, "the guest agent broke the protocol");
		msg_free(MSG_ERROR, &m);
	}
}

static void on_control(struct loop_source *s, uint32_t events)
{
	struct relay *r = container_of(s, struct relay, control);
	void *to = buf_reserve(&r->from_agent, CHUNK);
	ssize_t n;

	if (events & EPOLLOUT)
		control_flush(r);
	if (!(events & ~(uint32_t)EPOLLOUT))
		return;
	n = to ? read(s->fd, to, CHUNK) : 0;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		control_failed(r, "the guest agent closed its control connection");
		return;
	}
	buf_commit(&r->from_agent, (size_t)n);
	while (loop_source_active(&r->control)) {
		struct err err = ERR_INIT;
		struct frame f;
		int got = frame_peek(&r->from_agent, &f, &err);

		if (got == 0)
			return;
		if (got < 0) {
			control_failed(r, "the guest agent broke the protocol");
			return;
		}
		on_control_frame(r, &f);
		frame_consume(&r->from_agent, &f);
	}
}

void relay_set_log(struct relay *r, struct exec_log *log)
{
	r->log = log;
}

int relay_shutdown_guest(struct relay *r, uint32_t grace_ms)
{
	return relay_tell(r, MSG_SHUTDOWN, &(struct msg_shutdown){grace_ms});
}

int relay_new(struct relay **ret, struct loop *loop, int listenfd, int control,
	      const struct relay_ops *ops, void *arg, struct err *err)
{
	struct relay *r = calloc(1, sizeof(*r));
	int e;

	if (!r) {
		close_fd(listenfd);
		close_fd(control);
		return err_set(err, ENOMEM, "cannot create the relay: out of memory");
	}
	r->loop = loop;
	r->ops = ops;
	r->arg = arg;
	r->listener = (struct loop_source){.fn = on_listener, .fd = listenfd};
	r->control = (struct loop_source){.fn = on_control, .fd = control};
	(void)io_set_nonblock(listenfd, true);
	(void)io_set_nonblock(control, true);
	e = loop_add(loop, &r->listener, EPOLLIN);
	if (e == 0)
		e = loop_add(loop, &r->control, EPOLLIN);
	if (e < 0) {
		relay_free(r);
		return err_set(err, e, "cannot watch agent.sock: %s", err_name(e));
	}
	*ret = r;
	return 0;
}

void relay_finish(struct relay *r, int timeout_ms)
{
	uint64_t end = now_ns() + (uint64_t)timeout_ms * 1000000;

	loop_del(&r->listener);
	for (;;) {
		bool pending = false;
		uint64_t now = now_ns();

		for (unsigned i = 0; i < RELAY_CLIENTS_MAX; i++) {
			struct client *c = r->clients[i];

			if (c && c->guest.fd < 0)
				client_free(c);
			else
				pending |= c != NULL;
		}
		if (!pending || now >= end ||
		    loop_turn(r->loop, (int)((end - now) / 1000000) + 1) < 0)
			return;
	}
}

struct relay *relay_free(struct relay *r)
{
	if (!r)
		return NULL;
	for (unsigned i = 0; i < RELAY_CLIENTS_MAX; i++) {
		if (r->clients[i])
			client_free(r->clients[i]);
	}
	loop_del(&r->listener);
	loop_del(&r->control);
	close_fd(r->listener.fd);
	close_fd(r->control.fd);
	buf_done(&r->from_agent);
	buf_done(&r->to_agent);
	buf_done(&r->ready);
	free(r->refusal);
	free(r);
	return NULL;
}
