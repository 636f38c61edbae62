/* SPDX-License-Identifier: Apache-2.0 */
#include "net/dns_host.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/iov.h"
#include "net/dns_stream.h"
#include "net/dns_tls.h"
#include "net/proxy.h"
#include "net/socket.h"

enum {
	/* Of the guest's connections. */
	CONNS_MAX = 64,
	CONN_PENDING_MAX = 32,
	CONN_IDLE_S = 30,
	/* Questions and answers of one client that are neither answered nor taken. */
	CLIENT_PENDING_MAX = 64,
	QUESTION_MAX = 4096,
};

/* What the resolver knows as who asked. */
struct dns_asker {
	bool tcp;
};

struct message {
	STAILQ_ENTRY(message) list;
	size_t n;
	uint8_t b[];
};

struct dns_client {
	struct dns_asker asker; /* first */
	struct dns_host *d;
	void (*ready)(void *arg);
	void *arg;
	unsigned pending, queued;
	STAILQ_HEAD(, message) answers;
};

struct conn {
	struct dns_asker asker; /* first */
	struct dns_host *d;
	struct loop_source source;
	struct loop_timer idle;
	LIST_ENTRY(conn) list;
	unsigned pending;
	bool ended;
	struct buf in, out;
};

/* One attempt. */
struct upstream {
	struct loop_source source;
	struct dns_host *d;
	unsigned slot;
	bool tcp;
	struct net_dialogue *dialogue; /* with a proxy, until the connection is there */
	struct buf in, out;
};

struct dns_host {
	struct resolver *r;
	struct loop *loop;
	struct loop_timer timer;
	LIST_HEAD(, conn) conns;
	unsigned nconns;
	struct upstream *up[RESOLVER_QUERIES * RESOLVER_TRIES];
	struct resolver_config own;
	const struct net_proxy *proxy; /* or NULL */
	struct dns_tls *tls;	       /* or NULL */
	resolver_news_fn *news;	       /* or NULL */
	void *news_arg;
	uint8_t message[DNS_MESSAGE_MAX];
};

static void arm(struct dns_host *d)
{
	uint64_t next = resolver_next(d->r);

	if (next)
		(void)loop_timer_at(d->loop, &d->timer, next);
	else
		loop_timer_stop(&d->timer);
}

static void on_timer(struct loop_timer *t)
{
	struct dns_host *d = container_of(t, struct dns_host, timer);

	resolver_tick(d->r, now_ns());
	arm(d);
}

/* ---- to servers ---- */

static void op_drop(void *arg, unsigned slot)
{
	struct dns_host *d = arg;
	struct upstream *u = d->up[slot];

	if (d->tls)
		dns_tls_drop(d->tls, slot);
	if (!u)
		return;
	d->up[slot] = NULL;
	loop_del(&u->source);
	close_fd(u->source.fd);
	buf_done(&u->in);
	buf_done(&u->out);
	net_dialogue_free(u->dialogue);
	free(u);
}

/* 1: the way is free, 0: not yet, -errno: it will not be. */
static int talk(struct upstream *u)
{
	int r = net_dialogue_run(u->dialogue, u->source.fd);

	if (r > 0)
		u->dialogue = net_dialogue_free(u->dialogue);
	else if (r == 0)
		loop_mod(&u->source,
			 net_dialogue_sends(u->dialogue) ? EPOLLIN | EPOLLOUT : EPOLLIN);
	return r;
}

/* True: the attempt is over. */
static bool upstream_tcp(struct upstream *u, uint32_t events)
{
	struct dns_host *d = u->d;
	unsigned slot = u->slot;
	size_t n;
	int r;

	if (u->dialogue) {
		r = talk(u);
		if (r <= 0)
			return r < 0;
		events |= EPOLLOUT;
	}
	if (events & EPOLLOUT) {
		r = net_flush(u->source.fd, &u->out);
		if (r < 0)
			return true;
		loop_mod(&u->source, r == 1 ? EPOLLIN : EPOLLIN | EPOLLOUT);
	}
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return false;
	r = dns_stream_fetch(u->source.fd, &u->in);
	if (r <= 0)
		return r < 0;
	while (d->up[slot] == u && dns_stream_have(&u->in) >= 0) {
		n = dns_stream_take(&u->in, d->message);
		resolver_reply(d->r, slot, d->message, n, now_ns());
	}
	return false;
}

static void on_upstream(struct loop_source *s, uint32_t events)
{
	struct upstream *u = container_of(s, struct upstream, source);
	struct dns_host *d = u->d;
	ssize_t n;

	if (u->tcp) {
		if (upstream_tcp(u, events))
			resolver_failed(d->r, u->slot, now_ns());
		arm(d);
		return;
	}
	n = recv(s->fd, d->message, sizeof(d->message), MSG_DONTWAIT);
	if (n >= 0)
		resolver_reply(d->r, u->slot, d->message, (size_t)n, now_ns());
	else if (errno != EAGAIN && errno != EINTR)
		resolver_failed(d->r, u->slot, now_ns());
	arm(d);
}

static int begin(struct upstream *u, const struct resolver_server *to, const void *m, size_t n)
{
	struct sockaddr_storage ss;
	socklen_t len = net_sockaddr(&ss, &to->addr, to->port);
	const struct net_proxy *proxy = u->d->proxy;
	int r;

	if (proxy && net_proxy_serves(proxy, &to->addr)) {
		u->tcp = true;
		u->dialogue = net_dialogue_new(proxy, &to->addr, to->port);
		if (!u->dialogue)
			return -ENOMEM;
		len = net_sockaddr(&ss, &proxy->addr, proxy->port);
	}
	u->source.fd =
		socket(ss.ss_family,
		       (u->tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (u->source.fd < 0)
		return -errno;
	if (connect(u->source.fd, (const void *)&ss, len) < 0 && errno != EINPROGRESS)
		return -errno;
	if (u->tcp)
		dns_stream_put(&u->out, m, n);
	else
		buf_add(&u->out, m, n);
	if (buf_failed(&u->out))
		return -ENOMEM;
	/* A connection that is still being made says EAGAIN, or that there is none yet. */
	r = u->tcp ? 0 : net_flush(u->source.fd, &u->out);
	if (r < 0)
		return r;
	return loop_add(u->d->loop, &u->source, u->tcp ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void tls_reply(void *arg, unsigned slot, const uint8_t *m, size_t n)
{
	struct dns_host *d = arg;

	resolver_reply(d->r, slot, m, n, now_ns());
	arm(d);
}

static void tls_failed(void *arg, unsigned slot)
{
	struct dns_host *d = arg;

	resolver_failed(d->r, slot, now_ns());
	arm(d);
}

static void op_news(void *arg, const struct resolver_news *n)
{
	struct dns_host *d = arg;

	if (d->news)
		d->news(d->news_arg, n);
}

static const struct dns_tls_ops tls_ops = {
	.reply = tls_reply, .failed = tls_failed, .news = op_news};

int dns_host_tls(struct dns_host *d, int fd)
{
	d->tls = dns_tls_new(fd, &d->own, d->loop, &tls_ops, d);
	if (!d->tls)
		return -ENOMEM;
	dns_tls_proxy(d->tls, d->proxy);
	return 0;
}

void dns_host_news(struct dns_host *d, resolver_news_fn *fn, void *arg)
{
	d->news = fn;
	d->news_arg = arg;
}

void dns_host_proxy(struct dns_host *d, const struct net_proxy *p)
{
	d->proxy = p;
	if (d->tls)
		dns_tls_proxy(d->tls, p);
}

static int op_ask(void *arg, unsigned slot, unsigned server, bool tcp, const void *m, size_t n)
{
	struct dns_host *d = arg;
	const struct resolver_server *to = &d->own.server[server];
	struct upstream *u;
	int r;

	if (to->transport == RESOLVER_TLS)
		return d->tls ? dns_tls_ask(d->tls, slot, server, m, n) : -EPROTONOSUPPORT;
	u = calloc(1, sizeof(*u));
	if (!u)
		return -ENOMEM;
	*u = (struct upstream){
		.source = {.fn = on_upstream, .fd = -1},
		.d = d,
		.slot = slot,
		.tcp = tcp,
	};
	d->up[slot] = u;
	r = begin(u, to, m, n);
	if (r < 0)
		op_drop(d, slot);
	return r;
}

static uint16_t op_random(void *arg)
{
	uint16_t n = 0;

	(void)arg;
	(void)!getrandom(&n, sizeof(n), 0);
	return n;
}

/* ---- clients ---- */

static void client_answer(struct dns_client *c, const void *p, size_t n)
{
	struct message *m = malloc(sizeof(*m) + n);

	c->pending--;
	if (m) {
		m->n = n;
		memcpy(m->b, p, n);
		STAILQ_INSERT_TAIL(&c->answers, m, list);
		c->queued++;
	}
	c->ready(c->arg);
}

struct dns_client *dns_client_new(struct dns_host *d, void (*ready)(void *arg), void *arg)
{
	struct dns_client *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->d = d;
	c->ready = ready;
	c->arg = arg;
	STAILQ_INIT(&c->answers);
	return c;
}

struct dns_client *dns_client_free(struct dns_client *c)
{
	struct message *m;

	if (!c)
		return NULL;
	resolver_forget(c->d->r, c);
	while ((m = STAILQ_FIRST(&c->answers))) {
		STAILQ_REMOVE_HEAD(&c->answers, list);
		free(m);
	}
	free(c);
	return NULL;
}

void dns_client_send(struct dns_client *c, const struct iovec *iov, unsigned n)
{
	uint8_t m[QUESTION_MAX];
	size_t len = iov_size(iov, n);

	if (len > sizeof(m) || c->pending + c->queued >= CLIENT_PENDING_MAX) {
		c->ready(c->arg);
		return;
	}
	iov_read(iov, n, 0, m, len);
	c->pending++;
	if (!resolver_ask(c->d->r, c, NET_UDP, m, len, now_ns())) {
		c->pending--;
		c->ready(c->arg);
	}
	arm(c->d);
}

ssize_t dns_client_receive(struct dns_client *c, void *p, size_t n)
{
	struct message *m = STAILQ_FIRST(&c->answers);
	ssize_t got;

	if (!m)
		return c->pending ? -EAGAIN : -EPIPE;
	got = (ssize_t)MIN(n, m->n);
	memcpy(p, m->b, (size_t)got);
	STAILQ_REMOVE_HEAD(&c->answers, list);
	c->queued--;
	free(m);
	return got;
}

/* ---- connections ---- */

static void conn_free(struct conn *k)
{
	resolver_forget(k->d->r, k);
	loop_timer_stop(&k->idle);
	loop_del(&k->source);
	close_fd(k->source.fd);
	LIST_REMOVE(k, list);
	k->d->nconns--;
	buf_done(&k->in);
	buf_done(&k->out);
	free(k);
}

static void on_idle(struct loop_timer *t)
{
	conn_free(container_of(t, struct conn, idle));
}

/* Say what there is to say and read what may be read; false when it is over. */
static bool conn_go_on(struct conn *k)
{
	ssize_t n;
	int r;

	while (!k->ended && k->pending < CONN_PENDING_MAX && (n = dns_stream_have(&k->in)) >= 0) {
		k->pending++;
		if (!resolver_ask(k->d->r, k, NET_TCP, buf_ptr(&k->in) + 2, (size_t)n, now_ns()))
			return false;
		buf_consume(&k->in, 2 + (size_t)n);
	}
	r = net_flush(k->source.fd, &k->out);
	if (r < 0 || buf_failed(&k->out) || buf_failed(&k->in))
		return false;
	if (k->ended && !k->pending && r == 1)
		return false;
	loop_mod(&k->source, (!k->ended && k->pending < CONN_PENDING_MAX && r == 1 ? EPOLLIN : 0) |
				     (r == 0 ? EPOLLOUT : 0));
	return true;
}

static void conn_answer(struct conn *k, const void *p, size_t n)
{
	k->pending--;
	dns_stream_put(&k->out, p, n);
	/* The rest in its own turn: who calls may have more for it. */
	loop_mod(&k->source, EPOLLOUT);
}

static void on_conn(struct loop_source *s, uint32_t events)
{
	struct conn *k = container_of(s, struct conn, source);
	struct dns_host *d = k->d;
	int r = 0;

	if (events & EPOLLIN)
		r = dns_stream_fetch(s->fd, &k->in);
	if (r == -EPIPE)
		k->ended = true;
	if ((r < 0 && r != -EPIPE) || events & EPOLLERR ||
	    (events & EPOLLHUP && !(events & EPOLLIN)) || !conn_go_on(k))
		conn_free(k);
	else
		(void)loop_timer_in(d->loop, &k->idle, (uint64_t)CONN_IDLE_S * 1000000000);
	arm(d);
}

int dns_host_connect(struct dns_host *d)
{
	struct conn *k = d->nconns < CONNS_MAX ? calloc(1, sizeof(*k)) : NULL;
	int p[2];

	if (!k)
		return -ECONNREFUSED;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, p) < 0) {
		free(k);
		return -errno;
	}
	k->asker.tcp = true;
	k->d = d;
	k->source = (struct loop_source){.fn = on_conn, .fd = p[0]};
	k->idle.fn = on_idle;
	LIST_INSERT_HEAD(&d->conns, k, list);
	d->nconns++;
	if (loop_add(d->loop, &k->source, EPOLLIN) < 0 ||
	    loop_timer_in(d->loop, &k->idle, (uint64_t)CONN_IDLE_S * 1000000000) < 0) {
		close_fd(p[1]);
		conn_free(k);
		return -ENOMEM;
	}
	return p[1];
}

static void op_answer(void *arg, void *who, const void *m, size_t n)
{
	struct dns_asker *a = who;

	(void)arg;
	if (a->tcp)
		conn_answer(container_of(a, struct conn, asker), m, n);
	else
		client_answer(container_of(a, struct dns_client, asker), m, n);
}

/* ---- life ---- */

static const struct resolver_ops ops = {
	.ask = op_ask,
	.drop = op_drop,
	.answer = op_answer,
	.random = op_random,
	.news = op_news,
};

int dns_host_new(const struct resolver_config *config, const struct net_policy *policy,
		 struct names *names, struct loop *loop, struct dns_host **ret, struct err *err)
{
	struct dns_host *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return err_set(err, ENOMEM, "cannot create a name service: out of memory");
	d->own = *config;
	d->loop = loop;
	d->timer.fn = on_timer;
	LIST_INIT(&d->conns);
	r = resolver_new(&d->own, policy, names, &ops, d, &d->r, err);
	if (r < 0) {
		free(d);
		return r;
	}
	*ret = d;
	return 0;
}

struct dns_host *dns_host_free(struct dns_host *d)
{
	if (!d)
		return NULL;
	while (!LIST_EMPTY(&d->conns))
		conn_free(LIST_FIRST(&d->conns));
	for (unsigned i = 0; i < ARRAY_SIZE(d->up); i++)
		op_drop(d, i);
	dns_tls_free(d->tls);
	loop_timer_stop(&d->timer);
	resolver_free(d->r);
	free(d);
	return NULL;
}

const struct resolver_stats *dns_host_stats(const struct dns_host *d)
{
	return resolver_stats(d->r);
}
