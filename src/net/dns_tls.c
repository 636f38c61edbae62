/* SPDX-License-Identifier: Apache-2.0 */
#include "net/dns_tls.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/sanitized.h"
#include "base/str.h"
#include "dot/dot.h"
#include "net/dns_stream.h"
#include "net/proxy.h"
#include "net/socket.h"

enum {
	SLOTS = RESOLVER_QUERIES * RESOLVER_TRIES,
	IDLE_S = 20,
	STALL_S = 5,
	/* Until a server that failed is tried again, and until the same is said of it again. */
	AGAIN_S = 1,
	SAY_AGAIN_S = 60,
	READY_MS = 10000,
	IN_MAX = 2 * (2 + DNS_MESSAGE_MAX),
	SERVER_TEXT = NET_ADDR_TEXT + DNS_NAME_TEXT + 24,
};
#define SECOND ((uint64_t)1000000000)

LIST_HEAD(questions, question);

struct question {
	LIST_ENTRY(question) list;
	unsigned slot;
	uint16_t id, number; /* its own, and that on the connection */
	bool again;	     /* it was asked on another one before */
	size_t n;
	uint8_t m[];
};

enum stage {
	CLOSED,
	CONNECTING, /* source is a connection to the server, or to the proxy */
	GREETING,   /* source is our end of the pair: is it who it should be? */
	SECURED,
};

struct channel {
	struct dns_tls *t;
	const struct resolver_server *server;
	struct loop_source source;
	struct loop_timer timer;
	enum stage stage;
	bool answered;	 /* at least once on this connection */
	unsigned owed;	 /* answers, whether anybody still wants them or not */
	uint16_t number; /* of the next question */
	struct net_dialogue *dialogue;
	struct buf in, out;
	struct questions asked;
	uint64_t not_before;
	/* What was said of it last. */
	char said[DOT_WORDS_MAX];
	uint64_t said_at;
	bool bad;
};

struct dns_tls {
	struct loop_source control;
	struct loop *loop;
	const struct dns_tls_ops *ops;
	void *arg;
	const struct net_proxy *proxy;
	bool gone; /* msb-dot */
	struct channel channel[RESOLVER_SERVERS_MAX];
	struct question *slot[SLOTS];
	uint8_t message[DNS_MESSAGE_MAX];
};

/* ---- msb-dot ---- */

int dns_tls_begin(const char *program, int *ret, struct err *err)
{
	/* By which OpenSSL finds authorities; nothing else of the environment is its business. */
	static const char *const names[] = {"SSL_CERT_FILE", "SSL_CERT_DIR"};
	static const char *const argv[] = {"msb-dot", NULL}, *const none[] = {NULL};
	cleanup_strv struct strv env = {0};
	struct proc proc = PROC_INIT;
	int p[2], r;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const char *v = getenv(names[i]);

		if (v && strv_addf(&env, "%s=%s", names[i], v) < 0)
			return err_set(err, ENOMEM, "cannot start msb-dot: out of memory");
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p) < 0)
		return err_errno(err, "cannot start msb-dot");
	r = proc_spawn(&proc,
		       &(struct proc_spec){
			       .path = program,
			       .argv = argv,
			       .envp = SANITIZED ? NULL
				       : env.n	 ? (const char *const *)env.v
						 : none,
			       .fds = &(struct proc_fd){p[1], DOT_FD},
			       .nfds = 1,
			       .die_with_parent = true,
			       .new_session = true,
		       },
		       err);
	close_fd(p[1]);
	if (r < 0) {
		close_fd(p[0]);
		return r;
	}
	/* The end of the socket tells of its end. */
	close_fd(proc.pidfd);
	*ret = p[0];
	return 0;
}

int dns_tls_ready(int fd, struct err *err)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char words[DOT_WORDS_MAX + 1];
	ssize_t n = 0;

	if (poll(&p, 1, READY_MS) == 1)
		n = recv(fd, words, sizeof(words) - 1, MSG_DONTWAIT);
	if (n == 1 && !words[0])
		return 0;
	if (n <= 0)
		return err_set(err, ERR_PROTOCOL, "msb-dot did not start");
	words[n] = '\0';
	err_set(err, ERR_NOT_FOUND, "%s", words);
	return err_hint(err, "install ca-certificates, or set SSL_CERT_FILE to such a file");
}

static void on_control(struct loop_source *s, uint32_t events)
{
	struct dns_tls *t = container_of(s, struct dns_tls, control);

	(void)events;
	log_error("dns: msb-dot has ended: name servers cannot be asked over TLS any more; a new "
		  "start of the sandbox brings it back");
	t->gone = true;
	loop_del(s);
}

/* ---- words ---- */

static const char *server_text(const struct resolver_server *s, char ret[SERVER_TEXT])
{
	char addr[NET_ADDR_TEXT];
	bool colons;

	net_addr_text(&s->addr, addr);
	colons = strchr(addr, ':');
	snprintf(ret, SERVER_TEXT, "tls://%s%s%s:%u%s%s", colons ? "[" : "", addr,
		 colons ? "]" : "", s->port, *s->name ? "#" : "", s->name);
	return ret;
}

/* Once, for the same; guests ask often. */
static void complain(struct channel *c, const char *why)
{
	const uint64_t now = now_ns();
	char text[SERVER_TEXT];
	const struct resolver_news news = {
		.kind = RESOLVER_SERVER, .server = server_text(c->server, text), .why = why};

	c->not_before = now + AGAIN_S * SECOND;
	if (str_eq(c->said, why) && now < c->said_at + SAY_AGAIN_S * SECOND)
		return;
	log_warn("dns: %s: %s", text, why);
	c->t->ops->news(c->t->arg, &news);
	snprintf(c->said, sizeof(c->said), "%s", why);
	c->said_at = now;
	c->bad = true;
}

static void praise(struct channel *c)
{
	char text[SERVER_TEXT];

	if (c->bad)
		log_info("dns: %s: it answers", server_text(c->server, text));
	c->bad = false;
}

/* ---- connections ---- */

/* The connection is gone; what was asked on it stays. */
static void shut(struct channel *c)
{
	loop_timer_stop(&c->timer);
	loop_del(&c->source);
	c->source.fd = close_fd(c->source.fd);
	c->dialogue = net_dialogue_free(c->dialogue);
	buf_done(&c->in);
	buf_done(&c->out);
	c->in = (struct buf){.max = IN_MAX};
	c->out = (struct buf)BUF_INIT;
	c->stage = CLOSED;
	c->answered = false;
	c->owed = 0;
}

static int begin(struct channel *c)
{
	const struct net_proxy *proxy = c->t->proxy;
	const struct resolver_server *to = c->server;
	struct sockaddr_storage ss;
	socklen_t len = net_sockaddr(&ss, &to->addr, to->port);
	const int on = 1;
	int r;

	if (proxy && net_proxy_serves(proxy, &to->addr)) {
		c->dialogue = net_dialogue_new(proxy, &to->addr, to->port);
		if (!c->dialogue)
			return -ENOMEM;
		len = net_sockaddr(&ss, &proxy->addr, proxy->port);
	}
	c->source.fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->source.fd < 0)
		return -errno;
	/* Questions are small, and none waits for the answer to another. */
	(void)setsockopt(c->source.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(c->source.fd, (const void *)&ss, len) < 0 && errno != EINPROGRESS)
		return -errno;
	r = loop_add(c->t->loop, &c->source, EPOLLIN | EPOLLOUT);
	if (r == 0)
		r = loop_timer_in(c->t->loop, &c->timer, STALL_S * SECOND);
	if (r == 0)
		c->stage = CONNECTING;
	return r;
}

static int begin_or_shut(struct channel *c)
{
	int r = begin(c);

	if (r < 0) {
		shut(c);
		complain(c, err_name(r));
	}
	return r;
}

static void expect(struct channel *c)
{
	(void)loop_timer_in(c->t->loop, &c->timer, (c->owed ? STALL_S : IDLE_S) * SECOND);
}

static void watch(struct channel *c)
{
	const bool out = c->stage == CONNECTING ? !c->dialogue || net_dialogue_sends(c->dialogue)
						: c->stage == SECURED && buf_size(&c->out);

	loop_mod(&c->source, EPOLLIN | (out ? EPOLLOUT : 0));
}

static void put(struct channel *c, struct question *q)
{
	q->number = c->number++;
	q->m[0] = (uint8_t)(q->number >> 8);
	q->m[1] = (uint8_t)q->number;
	dns_stream_put(&c->out, q->m, q->n);
	LIST_INSERT_HEAD(&c->asked, q, list);
	if (c->owed++ == 0)
		expect(c);
	watch(c);
}

static void question_free(struct dns_tls *t, struct question *q)
{
	LIST_REMOVE(q, list);
	t->slot[q->slot] = NULL;
	free(q);
}

static void fail_all(struct channel *c, struct questions *lost)
{
	struct question *q;

	while ((q = LIST_FIRST(lost))) {
		const unsigned slot = q->slot;

		question_free(c->t, q);
		c->t->ops->failed(c->t->arg, slot);
	}
}

/* The connection has ended, as servers do it; with @why it is the server that is no good. */
static void lose(struct channel *c, const char *why)
{
	const bool again = c->answered && !why;
	struct questions lost = c->asked;
	struct question *q, *next;

	if (LIST_FIRST(&lost))
		LIST_FIRST(&lost)->list.le_prev = &LIST_FIRST(&lost);
	LIST_INIT(&c->asked);
	shut(c);
	if (!again)
		complain(c, why ? why : "it ended the connection without an answer");
	for (q = again ? LIST_FIRST(&lost) : NULL; q; q = next) {
		next = LIST_NEXT(q, list);
		/* Not for ever, with a server that ends whatever it is asked this. */
		if (q->again || (c->stage == CLOSED && begin_or_shut(c) < 0))
			continue;
		q->again = true;
		LIST_REMOVE(q, list);
		put(c, q);
	}
	fail_all(c, &lost);
}

/* ---- events ---- */

/* The connection becomes msb-dot's, and ours an end of a pair. */
static int hand_over(struct channel *c)
{
	_Static_assert(sizeof(((struct dot_server *)0)->name) ==
			       sizeof(((struct resolver_server *)0)->name),
		       "any name fits");
	struct dot_server to = {0};
	union {
		struct cmsghdr align;
		char b[CMSG_SPACE(DOT_FDS * sizeof(int))];
	} control = {.align = {CMSG_LEN(DOT_FDS * sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
	struct iovec iov = {&to, sizeof(to)};
	const struct msghdr m = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	cleanup_close int ours = -1, theirs = -1;
	int fds[DOT_FDS], p[2];

	memcpy(to.name, c->server->name, sizeof(to.name));
	net_addr_text(&c->server->addr, to.address);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, p) < 0)
		return -errno;
	ours = p[0];
	theirs = p[1];
	fds[DOT_FD_SERVER] = c->source.fd;
	fds[DOT_FD_PLAIN] = theirs;
	memcpy(CMSG_DATA(&control.align), fds, sizeof(fds));
	if (sendmsg(c->t->control.fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return -errno;
	loop_del(&c->source);
	close_fd(c->source.fd);
	c->source.fd = take_fd(&ours);
	c->stage = GREETING;
	return loop_add(c->t->loop, &c->source, EPOLLIN);
}

static void on_connection(struct channel *c, uint32_t events)
{
	socklen_t len = sizeof(int);
	int r = 1, e = 0;

	if (c->dialogue) {
		r = net_dialogue_run(c->dialogue, c->source.fd);
		if (r == 0) {
			watch(c);
			return;
		}
	} else if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
		return;
	} else if (getsockopt(c->source.fd, SOL_SOCKET, SO_ERROR, &e, &len) < 0 || e) {
		r = e ? -e : -errno;
	}
	if (r > 0) {
		c->dialogue = net_dialogue_free(c->dialogue);
		r = hand_over(c);
	}
	if (r < 0)
		lose(c, err_name(r));
}

/* Whatever bytes msb-dot takes for words. */
static void on_greeting(struct channel *c, size_t n)
{
	char why[DOT_WORDS_MAX];
	size_t i;

	if (!n) {
		c->stage = SECURED;
		return;
	}
	for (i = 0; i < MIN(n, sizeof(why) - 1); i++)
		why[i] =
			(char)(c->t->message[i] >= ' ' && c->t->message[i] < 0x7f ? c->t->message[i]
										  : '?');
	why[i] = '\0';
	lose(c, why);
}

static void on_answer(struct channel *c, size_t n)
{
	struct dns_tls *t = c->t;
	struct question *q;
	unsigned number, slot;

	c->answered = true;
	if (c->owed)
		c->owed--;
	expect(c);
	praise(c);
	if (n < DNS_HEADER)
		return;
	number = (unsigned)(t->message[0] << 8 | t->message[1]);
	LIST_FOREACH(q, &c->asked, list)
	{
		if (q->number == number)
			break;
	}
	/* Nobody waits for it any more. */
	if (!q)
		return;
	t->message[0] = (uint8_t)(q->id >> 8);
	t->message[1] = (uint8_t)q->id;
	slot = q->slot;
	/* If it is believed, the question is dropped. */
	t->ops->reply(t->arg, slot, t->message, n);
}

static void on_channel(struct loop_source *s, uint32_t events)
{
	struct channel *c = container_of(s, struct channel, source);
	int r;

	if (c->stage == CONNECTING) {
		on_connection(c, events);
		return;
	}
	r = events & EPOLLOUT ? net_flush(s->fd, &c->out) : 0;
	if (r >= 0)
		r = dns_stream_fetch(s->fd, &c->in);
	while (c->stage != CLOSED && dns_stream_have(&c->in) >= 0) {
		size_t n = dns_stream_take(&c->in, c->t->message);

		if (c->stage == GREETING)
			on_greeting(c, n);
		else
			on_answer(c, n);
	}
	if (c->stage == CLOSED)
		return;
	if (r < 0 || buf_failed(&c->out))
		lose(c, NULL);
	else
		watch(c);
}

static void on_timer(struct loop_timer *timer)
{
	struct channel *c = container_of(timer, struct channel, timer);

	if (c->owed || !LIST_EMPTY(&c->asked))
		lose(c, c->stage == CONNECTING ? "no connection in time"
			: c->stage == GREETING ? "no TLS in time"
					       : "no answer in time");
	else
		shut(c);
}

/* ---- questions ---- */

int dns_tls_ask(struct dns_tls *t, unsigned slot, unsigned server, const void *m, size_t n)
{
	struct channel *c = &t->channel[server];
	struct question *q;
	int r;

	if (t->gone)
		return -EPIPE;
	if (c->stage == CLOSED) {
		if (now_ns() < c->not_before)
			return -ECONNREFUSED;
		r = begin_or_shut(c);
		if (r < 0)
			return r;
	}
	q = malloc(sizeof(*q) + n);
	if (!q)
		return -ENOMEM;
	*q = (struct question){.slot = slot, .n = n};
	memcpy(q->m, m, n);
	q->id = (uint16_t)(q->m[0] << 8 | q->m[1]);
	t->slot[slot] = q;
	put(c, q);
	return 0;
}

void dns_tls_drop(struct dns_tls *t, unsigned slot)
{
	if (t->slot[slot])
		question_free(t, t->slot[slot]);
}

/* ---- life ---- */

void dns_tls_proxy(struct dns_tls *t, const struct net_proxy *p)
{
	t->proxy = p;
}

struct dns_tls *dns_tls_new(int fd, const struct resolver_config *config, struct loop *loop,
			    const struct dns_tls_ops *ops, void *arg)
{
	struct dns_tls *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->control = (struct loop_source){.fn = on_control, .fd = fd};
	t->loop = loop;
	t->ops = ops;
	t->arg = arg;
	for (unsigned i = 0; i < config->nservers; i++) {
		struct channel *c = &t->channel[i];

		c->t = t;
		c->server = &config->server[i];
		c->source = (struct loop_source){.fn = on_channel, .fd = -1};
		c->timer.fn = on_timer;
		LIST_INIT(&c->asked);
		shut(c);
	}
	if (loop_add(loop, &t->control, EPOLLIN) == 0)
		return t;
	free(t);
	return NULL;
}

struct dns_tls *dns_tls_free(struct dns_tls *t)
{
	if (!t)
		return NULL;
	for (unsigned i = 0; i < SLOTS; i++)
		dns_tls_drop(t, i);
	for (unsigned i = 0; i < RESOLVER_SERVERS_MAX; i++) {
		if (t->channel[i].t)
			shut(&t->channel[i]);
	}
	loop_del(&t->control);
	close_fd(t->control.fd);
	free(t);
	return NULL;
}
