/* SPDX-License-Identifier: Apache-2.0 */
#include "tcp.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "flow.h"
#include "helper.h"

enum { ADDRESSES_MAX = 8 };

union address {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

struct tcp {
	struct stream st;
	struct helper resolver;
	struct loop_timer timeout;
	union address addr[ADDRESSES_MAX];
	unsigned naddr, next;
	int last_error;
	struct loop_source connecting;
	struct inlet in;
	struct outlet out;
	bool open, sent_eof, out_done;
	char *host; /* for the resolver */
	uint16_t port;
};

static void abandon(struct stream *s);
static const struct stream_ops tcp_ops = {.abandon = abandon};

bool tcp_is(const struct stream *s)
{
	return s->ops == &tcp_ops;
}

static struct tcp *of(struct stream *s)
{
	return container_of(s, struct tcp, st);
}

static void tcp_free(struct tcp *t)
{
	stream_close(&t->st);
	helper_stop(&t->resolver);
	loop_timer_stop(&t->timeout);
	loop_del(&t->connecting);
	t->connecting.fd = close_fd(t->connecting.fd);
	inlet_stop(&t->in);
	outlet_stop(&t->out);
	free(t->host);
	free(t);
}

static void abandon(struct stream *s)
{
	tcp_free(of(s));
}

static void fail(struct tcp *t, const char *what, int error)
{
	struct conn *c = t->st.conn;
	uint32_t id = t->st.id;
	char text[384];
	struct msg_tcp_failed m = {.error = text};

	snprintf(text, sizeof(text), "%s %.200s:%u: %s", what, t->host, t->port,
		 error ? err_name(error) : "name not found");
	tcp_free(t);
	conn_send(c, id, MSG_TCP_FAILED, &m);
}

static void send_empty(struct conn *c, uint32_t id, enum msg_kind kind)
{
	struct msg_empty m = {0};

	conn_send(c, id, kind, &m);
}

static void closed(struct tcp *t)
{
	struct conn *c = t->st.conn;
	uint32_t id = t->st.id;

	tcp_free(t);
	send_empty(c, id, MSG_TCP_CLOSED);
}

static void on_read_end(struct inlet *in, int error)
{
	struct tcp *t = of(in->st);

	if (error) {
		fail(t, "reading from", error);
		return;
	}
	t->sent_eof = true;
	if (t->out_done)
		closed(t);
	else
		send_empty(t->st.conn, t->st.id, MSG_TCP_EOF);
}

static void on_write_end(struct outlet *o, int error)
{
	struct tcp *t = container_of(o, struct tcp, out);

	if (error) {
		fail(t, "writing to", error);
		return;
	}
	shutdown(o->src.fd, SHUT_WR);
	t->out_done = true;
	if (t->sent_eof)
		closed(t);
}

static void established(struct tcp *t)
{
	int fd = take_fd(&t->connecting.fd), one = 1, copy;

	loop_timer_stop(&t->timeout);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (copy < 0) {
		close(fd);
		fail(t, "connecting to", errno);
		return;
	}
	t->open = true;
	outlet_start(&t->out, t->st.conn, copy);
	t->out.ended = on_write_end;
	t->in.ended = on_read_end;
	if (inlet_start(&t->in, &t->st, fd, MSG_TCP_DATA, TCP_CHUNK_MAX) < 0) {
		fail(t, "connecting to", EMFILE);
		return;
	}
	send_empty(t->st.conn, t->st.id, MSG_TCP_CONNECTED);
}

static void try_next(struct tcp *t);

static void on_connecting(struct loop_source *src, uint32_t events)
{
	struct tcp *t = container_of(src, struct tcp, connecting);
	int error = 0;
	socklen_t n = sizeof(error);

	(void)events;
	if (getsockopt(src->fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0)
		error = errno;
	loop_del(src);
	if (!error) {
		established(t);
		return;
	}
	src->fd = close_fd(src->fd);
	t->last_error = error;
	try_next(t);
}

static void try_next(struct tcp *t)
{
	while (t->next < t->naddr) {
		union address *a = &t->addr[t->next++];
		socklen_t len = a->sa.sa_family == AF_INET ? sizeof(a->in) : sizeof(a->in6);
		int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

		if (fd < 0) {
			t->last_error = errno;
			continue;
		}
		t->connecting.fd = fd;
		t->connecting.fn = on_connecting;
		if (!connect(fd, &a->sa, len)) {
			established(t);
			return;
		}
		t->last_error = errno;
		if (errno == EINPROGRESS &&
		    !loop_add(t->st.conn->sv->loop, &t->connecting, EPOLLOUT))
			return;
		t->connecting.fd = close_fd(fd);
	}
	fail(t, "connecting to", t->last_error);
}

static void on_timeout(struct loop_timer *timer)
{
	fail(container_of(timer, struct tcp, timeout), "connecting to", ETIMEDOUT);
}

/* In the helper: addresses one after another. */
static void resolve(void *arg, int fd)
{
	const struct tcp *t = arg;
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
	unsigned n = 0;

	if (getaddrinfo(t->host, NULL, &hints, &list))
		return;
	for (struct addrinfo *a = list; a && n < ADDRESSES_MAX; a = a->ai_next) {
		union address u;

		if (a->ai_addrlen > sizeof(u))
			continue;
		memset(&u, 0, sizeof(u));
		memcpy(&u, a->ai_addr, a->ai_addrlen);
		(void)!write(fd, &u, sizeof(u));
		n++;
	}
}

static void set_port(union address *a, uint16_t port)
{
	if (a->sa.sa_family == AF_INET)
		a->in.sin_port = htons(port);
	else
		a->in6.sin6_port = htons(port);
}

static void on_resolved(struct helper *h)
{
	struct tcp *t = container_of(h, struct tcp, resolver);

	for (size_t at = 0; at + sizeof(t->addr[0]) <= h->len && t->naddr < ADDRESSES_MAX;
	     at += sizeof(t->addr[0])) {
		memcpy(&t->addr[t->naddr], h->answer + at, sizeof(t->addr[0]));
		set_port(&t->addr[t->naddr++], t->port);
	}
	try_next(t);
}

static bool parse_numeric(struct tcp *t)
{
	union address *a = &t->addr[0];

	if (inet_pton(AF_INET, t->host, &a->in.sin_addr) == 1)
		a->sa.sa_family = AF_INET;
	else if (inet_pton(AF_INET6, t->host, &a->in6.sin6_addr) == 1)
		a->sa.sa_family = AF_INET6;
	else
		return false;
	set_port(a, t->port);
	t->naddr = 1;
	return true;
}

void tcp_connect(struct conn *c, uint32_t id, const struct msg_tcp_connect *m)
{
	struct msg_tcp_failed failed = {.error = (char *)"too many streams or out of memory"};
	struct tcp *t = calloc(1, sizeof(*t));
	int r;

	if (t)
		t->host = strdup(m->host);
	if (!t || !t->host || stream_open(c, &t->st, id, &tcp_ops) < 0) {
		free(t ? t->host : NULL);
		free(t);
		conn_send(c, id, MSG_TCP_FAILED, &failed);
		return;
	}
	c->sv->activity_seq++;
	t->port = m->port;
	t->resolver.src.fd = t->connecting.fd = t->in.src.fd = t->out.src.fd = -1;
	t->timeout.fn = on_timeout;
	r = loop_timer_in(c->sv->loop, &t->timeout, TCP_CONNECT_TIMEOUT_S * 1000000000ull);
	if (!r && parse_numeric(t)) {
		try_next(t);
		return;
	}
	if (!r)
		r = helper_start(&t->resolver, c->sv->loop, -1, resolve, t, on_resolved);
	if (r < 0)
		fail(t, "looking up", -r);
}

void tcp_data(struct stream *s, const uint8_t *p, size_t n)
{
	struct tcp *t = of(s);

	if (!t->open || t->out.eof) {
		conn_error(s->conn, s->id, CORE_INVALID_SESSION, "core.tcp.data",
			   t->open ? "data after core.tcp.eof" : "the stream is not connected yet");
		return;
	}
	if (n)
		outlet_write(&t->out, p, n);
}

void tcp_eof(struct stream *s)
{
	struct tcp *t = of(s);

	if (t->open && !t->out.eof)
		outlet_eof(&t->out);
}

void tcp_close(struct stream *s)
{
	closed(of(s));
}
