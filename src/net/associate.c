/* SPDX-License-Identifier: Apache-2.0 */
#include "net/associate.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/iov.h"
#include "net/socket.h"

enum {
	HELD_MAX = 65536,
	PIECES = 64,
	/* Datagrams that are for nobody, before others have their turn. */
	STRAYS = 64,
};

#define WATCH (EPOLLIN | EPOLLRDHUP | EPOLLET)

struct net_association {
	struct loop_source control, relay;
	struct loop *loop;
	struct net_dialogue *dialogue; /* until it is made */
	struct net_addr to;
	uint16_t port;
	uint8_t head[NET_DATAGRAM_HEAD]; /* of what is sent */
	size_t head_len;
	struct buf held; /* lengths, two bytes each, and datagrams */
	bool refused, over;
	int error;
	void (*heard)(void *arg);
	void *arg;
};

static int open_socket(const struct net_addr *to, uint16_t port, int type)
{
	struct sockaddr_storage ss;
	socklen_t n = net_sockaddr(&ss, to, port);
	cleanup_close int fd = socket(ss.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 || (connect(fd, (const void *)&ss, n) < 0 && errno != EINPROGRESS))
		return -errno;
	return take_fd(&fd);
}

static ssize_t send_now(struct net_association *a, const struct iovec *iov, unsigned n)
{
	struct iovec v[1 + PIECES] = {{a->head, a->head_len}};
	struct msghdr m = {.msg_iov = v, .msg_iovlen = 1 + MIN(n, (unsigned)PIECES)};
	ssize_t sent;

	memcpy(v + 1, iov, (m.msg_iovlen - 1) * sizeof(*v));
	sent = sendmsg(a->relay.fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	return sent < 0 ? -errno : MAX(sent - (ssize_t)a->head_len, (ssize_t)0);
}

static void hold(struct net_association *a, const struct iovec *iov, unsigned n)
{
	const size_t len = iov_size(iov, n);
	uint8_t *p;

	/* A datagram may get lost. */
	if (len > UINT16_MAX || buf_size(&a->held) + 2 + len > HELD_MAX)
		return;
	p = buf_reserve(&a->held, 2 + len);
	if (!p)
		return;
	p[0] = (uint8_t)(len >> 8);
	p[1] = (uint8_t)len;
	iov_read(iov, n, 0, p + 2, len);
	buf_commit(&a->held, 2 + len);
}

static void let_go(struct net_association *a)
{
	while (buf_size(&a->held)) {
		uint8_t *p = buf_ptr(&a->held);
		struct iovec v = {p + 2, (size_t)(p[0] << 8 | p[1])};

		(void)send_now(a, &v, 1);
		buf_consume(&a->held, 2 + v.iov_len);
	}
	buf_done(&a->held);
}

static void on_relay(struct loop_source *src, uint32_t events)
{
	struct net_association *a = container_of(src, struct net_association, relay);

	(void)events;
	a->heard(a->arg);
}

/* The connection is there to say that the relay is; where that is, it has said. */
static int make(struct net_association *a)
{
	struct net_addr at;
	uint16_t port;
	int r;

	net_dialogue_relay(a->dialogue, &at, &port);
	a->dialogue = net_dialogue_free(a->dialogue);
	r = a->relay.fd = open_socket(&at, port, SOCK_DGRAM);
	if (r >= 0)
		r = loop_add(a->loop, &a->relay, EPOLLIN | EPOLLET);
	if (r == 0)
		let_go(a);
	return r;
}

static void end(struct net_association *a, int error)
{
	a->over = true;
	a->error = error;
	loop_del(&a->control);
	/* It may be gone after this. */
	a->heard(a->arg);
}

/* 1: it is made, 0: not yet, -errno. */
static int talk(struct net_association *a)
{
	int r = net_dialogue_run(a->dialogue, a->control.fd);

	if (r == 0)
		loop_mod(&a->control, net_dialogue_sends(a->dialogue) ? WATCH | EPOLLOUT : WATCH);
	a->refused = r == -EACCES;
	return r > 0 ? make(a) : r;
}

static void on_control(struct loop_source *src, uint32_t events)
{
	struct net_association *a = container_of(src, struct net_association, control);
	uint8_t rest[256];
	ssize_t n;
	int error = 0, r;
	socklen_t len = sizeof(error);

	if (events & EPOLLERR)
		(void)getsockopt(src->fd, SOL_SOCKET, SO_ERROR, &error, &len);
	if (a->dialogue && !error) {
		r = talk(a);
		error = r < 0 ? -r : 0;
	}
	if (!error && a->dialogue)
		return;
	/* Nothing is said on it any more. */
	do
		n = error ? 0 : recv(src->fd, rest, sizeof(rest), MSG_DONTWAIT);
	while (n > 0);
	if (error || n == 0 || (errno != EAGAIN && errno != EINTR))
		end(a, error ? error : ECONNREFUSED);
}

int net_association_new(const struct net_proxy *p, const struct net_addr *to, uint16_t port,
			struct loop *loop, void (*heard)(void *arg), void *arg,
			struct net_association **ret)
{
	struct net_association *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return -ENOMEM;
	*a = (struct net_association){
		.control = {.fn = on_control, .fd = -1},
		.relay = {.fn = on_relay, .fd = -1},
		.loop = loop,
		.to = *to,
		.port = port,
		.heard = heard,
		.arg = arg,
	};
	a->head_len = net_datagram_head(a->head, to, port);
	a->dialogue = net_dialogue_new(p, NULL, 0);
	r = a->dialogue ? open_socket(&p->addr, p->port, SOCK_STREAM) : -ENOMEM;
	if (r >= 0) {
		a->control.fd = r;
		r = loop_add(loop, &a->control, WATCH | EPOLLOUT);
	}
	if (r < 0) {
		net_association_free(a);
		return r;
	}
	*ret = a;
	return 0;
}

struct net_association *net_association_free(struct net_association *a)
{
	if (!a)
		return NULL;
	loop_close(&a->control);
	loop_close(&a->relay);
	net_dialogue_free(a->dialogue);
	buf_done(&a->held);
	free(a);
	return NULL;
}

bool net_association_refused(const struct net_association *a)
{
	return a->refused;
}

ssize_t net_association_send(struct net_association *a, const struct iovec *iov, unsigned n)
{
	if (!a->over && !a->dialogue)
		return send_now(a, iov, n);
	if (!a->over)
		hold(a, iov, n);
	return (ssize_t)iov_size(iov, n);
}

ssize_t net_association_receive(struct net_association *a, void *p, size_t n)
{
	const int error = a->error;

	a->error = 0;
	if (a->over)
		return error ? -error : -EPIPE;
	if (a->dialogue)
		return -EAGAIN;
	for (int strays = STRAYS; strays; strays--) {
		ssize_t got = recv(a->relay.fd, p, n, MSG_DONTWAIT);
		struct net_addr from;
		uint16_t port;
		size_t head;

		if (got < 0)
			return -errno;
		head = net_datagram_open(p, (size_t)got, &from, &port);
		if (!head || port != a->port || !net_addr_equal(&from, &a->to))
			continue;
		memmove(p, (uint8_t *)p + head, (size_t)got - head);
		return got - (ssize_t)head;
	}
	/* Watched anew, what is left is news. */
	loop_again(&a->relay, EPOLLIN | EPOLLET);
	return -EAGAIN;
}
