/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"

enum { CHUNK = 4096 };

/* A client and its one call. */
struct control_call {
	struct control *control;
	struct loop_source source;
	struct buf in, out;
	bool pending, gone;
	int fds[CONTROL_FDS_MAX]; /* that came, for the request that is coming */
	unsigned nfds;
	struct control_call *next;
};

struct control {
	struct loop *loop;
	struct loop_source listener;
	control_fn *fn;
	void *arg;
	uid_t uid;
	struct control_call *clients;
	unsigned nclients;
};

static void drop_fds(struct control_call *k)
{
	while (k->nfds)
		close_fd(k->fds[--k->nfds]);
}

static void client_free(struct control_call *k)
{
	struct control *c = k->control;
	struct control_call **at = &c->clients;

	while (*at != k)
		at = &(*at)->next;
	*at = k->next;
	loop_del(&k->source);
	close_fd(k->source.fd);
	drop_fds(k);
	buf_done(&k->in);
	buf_done(&k->out);
	free(k);
	if (c->nclients-- == CONTROL_CLIENTS_MAX && loop_source_active(&c->listener))
		loop_mod(&c->listener, EPOLLIN);
}

/* It has hung up, or should be: whoever deals with its call keeps it until then. */
static void client_gone(struct control_call *k)
{
	if (!k->pending) {
		client_free(k);
		return;
	}
	k->gone = true;
	loop_del(&k->source);
}

static void watch(struct control_call *k)
{
	loop_mod(&k->source, buf_size(&k->out) ? EPOLLOUT : k->pending ? EPOLLRDHUP : EPOLLIN);
}

static int flush(struct control_call *k)
{
	while (buf_size(&k->out)) {
		ssize_t n = send(k->source.fd, buf_ptr(&k->out), buf_size(&k->out), MSG_NOSIGNAL);

		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		buf_consume(&k->out, (size_t)n);
	}
	return 0;
}

/* Start on the next request, if it is complete. False when the client was freed. */
static bool next_call(struct control_call *k)
{
	struct control *c = k->control;
	struct control_request q = {0};
	struct err err = ERR_INIT;
	int fds[CONTROL_FDS_MAX];
	int r = control_request_take(&k->in, &q, &err);

	if (r < 0) {
		log_warn("control: a client dropped: %s", err.msg);
		client_free(k);
		return false;
	}
	if (r == 0) {
		watch(k);
		return true;
	}
	log_debug("control: %s", control_op_name(q.op));
	k->pending = true;
	watch(k);
	/* It may be answered in there; then on_event() goes on when it was sent. */
	q.fds = fds;
	q.nfds = k->nfds;
	memcpy(fds, k->fds, k->nfds * sizeof(*fds));
	k->nfds = 0;
	c->fn(c->arg, k, &q);
	for (unsigned i = 0; i < q.nfds; i++)
		close_fd(fds[i]);
	control_request_done(&q);
	return true;
}

/* Bytes, and descriptors with them. */
static ssize_t receive(struct control_call *k, void *p, size_t n)
{
	union {
		struct cmsghdr align;
		char b[CMSG_SPACE(sizeof(k->fds))];
	} control;
	struct iovec iov = {p, n};
	struct msghdr m = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t got = recvmsg(k->source.fd, &m, MSG_CMSG_CLOEXEC);

	for (struct cmsghdr *c = got > 0 ? CMSG_FIRSTHDR(&m) : NULL; c; c = CMSG_NXTHDR(&m, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (k->nfds < CONTROL_FDS_MAX)
				k->fds[k->nfds++] = fd;
			else
				close_fd(fd);
		}
	}
	return got;
}

static void on_event(struct loop_source *s, uint32_t events)
{
	struct control_call *k = container_of(s, struct control_call, source);

	if (events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP) && !(events & EPOLLIN)) {
		client_gone(k);
		return;
	}
	if (events & EPOLLOUT) {
		if (flush(k) < 0) {
			client_gone(k);
			return;
		}
		if (!buf_size(&k->out) && !k->pending)
			(void)next_call(k);
		return;
	}
	if ((events & EPOLLIN) && !k->pending) {
		void *to = buf_reserve(&k->in, CHUNK);
		ssize_t n = to ? receive(k, to, CHUNK) : 0;

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			client_free(k);
			return;
		}
		buf_commit(&k->in, (size_t)n);
		(void)next_call(k);
	}
}

void control_answer(struct control_call *k, const struct control_answer *a)
{
	k->pending = false;
	if (k->gone) {
		client_free(k);
		return;
	}
	control_answer_put(a, &k->out);
	/* Written when the socket is writable, which it is: nobody's client vanishes in here. */
	if (buf_failed(&k->out)) {
		log_warn("control: a client dropped: out of memory");
		buf_reset(&k->out);
		shutdown(k->source.fd, SHUT_RDWR);
	}
	watch(k);
}

void control_ok(struct control_call *k)
{
	control_answer(k, &(struct control_answer){0});
}

void control_fail(struct control_call *k, const struct err *err)
{
	const struct control_answer a = {
		.code = (uint32_t)err->code,
		.message = (char *)(uintptr_t)err->msg,
		.hint = (char *)(uintptr_t)err->hint,
	};

	control_answer(k, &a);
}

static bool same_user(const struct control *c, int fd)
{
	struct ucred who = {.uid = (uid_t)-1};
	socklen_t n = sizeof(who);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) == 0 && who.uid == c->uid;
}

static void on_listener(struct loop_source *s, uint32_t events)
{
	struct control *c = container_of(s, struct control, listener);
	cleanup_close int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct control_call *k;

	(void)events;
	if (fd < 0)
		return;
	if (!same_user(c, fd)) {
		log_warn("control: a client of another user was turned away");
		return;
	}
	k = calloc(1, sizeof(*k));
	if (!k)
		return;
	k->control = c;
	k->source = (struct loop_source){.fn = on_event, .fd = fd};
	k->in.max = CONTROL_REQUEST_MAX + 2 * CHUNK;
	if (loop_add(c->loop, &k->source, EPOLLIN) < 0) {
		free(k);
		return;
	}
	(void)take_fd(&fd);
	k->next = c->clients;
	c->clients = k;
	if (++c->nclients == CONTROL_CLIENTS_MAX)
		loop_mod(s, 0);
}

int control_new(struct control **ret, struct loop *loop, int listenfd, control_fn *fn, void *arg,
		struct err *err)
{
	struct control *c = calloc(1, sizeof(*c));
	int r;

	if (!c) {
		close_fd(listenfd);
		return err_set(err, ENOMEM, "cannot serve control.sock: out of memory");
	}
	*c = (struct control){
		.loop = loop,
		.listener = {.fn = on_listener, .fd = listenfd},
		.fn = fn,
		.arg = arg,
		.uid = geteuid(),
	};
	(void)io_set_nonblock(listenfd, true);
	r = loop_add(loop, &c->listener, EPOLLIN);
	if (r < 0) {
		control_free(c);
		return err_set(err, r, "cannot watch control.sock: %s", err_name(r));
	}
	*ret = c;
	return 0;
}

struct control *control_free(struct control *c)
{
	if (!c)
		return NULL;
	loop_del(&c->listener);
	close_fd(c->listener.fd);
	while (c->clients) {
		/* What is answered already should still arrive. */
		(void)flush(c->clients);
		client_free(c->clients);
	}
	free(c);
	return NULL;
}
