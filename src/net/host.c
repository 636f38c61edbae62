/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/iov.h"
#include "net/associate.h"
#include "net/dns_host.h"
#include "net/host_impl.h"
#include "net/look.h"
#include "net/plan.h"
#include "net/socket.h"

enum {
	PEEK_PIECES = 64,
	ERRORS_TURN = 64,
	/* A proxy that does not relay datagrams is not asked for each of them. */
	NO_RELAY_S = 10,
};

/* ---- what the stack asks for ---- */

static unsigned op_reserve(void *arg, size_t len, struct iovec *iov, unsigned max)
{
	struct net_host *h = arg;

	if (net_gate_limits(&h->in) && !net_gate_open(&h->in, now_ns()))
		return 0;
	return h->ops->reserve(h->arg, len, iov, max);
}

static void op_commit(void *arg, size_t len, const struct stack_meta *meta)
{
	struct net_host *h = arg;

	if (len)
		net_gate_pass(&h->in, len);
	h->ops->commit(h->arg, len, meta);
}

static void on_socket(struct loop_source *src, uint32_t events);

struct host_socket *host_socket_new(struct net_host *h, struct flow *f, int fd)
{
	struct host_socket *k = calloc(1, sizeof(*k));

	if (!k)
		return NULL;
	k->source = (struct loop_source){.fn = on_socket, .fd = fd};
	k->h = h;
	k->f = f;
	return k;
}

void host_prepare_tcp(struct host_socket *k)
{
	const int one = 1, zero = 0;

	(void)setsockopt(k->source.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	/* Urgent bytes are bytes as others: what is not in line can be peeked at by nobody. */
	(void)setsockopt(k->source.fd, SOL_SOCKET, SO_OOBINLINE, &one, sizeof(one));
	/* Since Linux 6.9, for IPv6 since 6.11. */
	k->seeks = !k->h->never_seeks &&
		   setsockopt(k->source.fd, SOL_SOCKET, SO_PEEK_OFF, &zero, sizeof(zero)) == 0;
}

static void on_dns_answer(void *arg)
{
	struct host_socket *k = arg;

	stack_event(k->h->s, k->f, STACK_READABLE, 0, now_ns());
	/* The stack may be at work already. */
	(void)loop_timer_at(k->h->loop, &k->h->timer, now_ns());
}

/* To port 53, whoever is addressed: the name service. */
static int open_dns(struct net_host *h, struct flow *f)
{
	const bool tcp = flow_proto(f) == NET_TCP;
	struct host_socket *k = host_socket_new(h, f, -1);
	int r = 0;

	if (!k)
		return -ENOMEM;
	if (!tcp) {
		k->dns = dns_client_new(h->dns, on_dns_answer, k);
		r = k->dns ? 0 : -ENOMEM;
	} else {
		r = k->source.fd = dns_host_connect(h->dns);
		if (r >= 0) {
			host_prepare_tcp(k);
			k->waits = true;
			r = loop_add(h->loop, &k->source, HOST_WATCH | EPOLLOUT);
		}
	}
	if (r < 0) {
		close_fd(k->source.fd);
		free(k);
		return r;
	}
	*flow_host(f) = k;
	return 0;
}

static void on_association(void *arg)
{
	struct host_socket *k = arg;
	struct net_host *h = k->h;

	if (net_association_refused(k->association))
		h->no_relay_until = now_ns() + NO_RELAY_S * UINT64_C(1000000000);
	stack_event(h->s, k->f, STACK_READABLE, 0, now_ns());
	net_host_run(h);
}

/* What is not TCP goes through a proxy if that is one that relays it. */
static int associate(struct net_host *h, struct flow *f, const struct net_addr *to, uint16_t port)
{
	struct host_socket *k;
	int r;

	if (flow_proto(f) != NET_UDP || h->proxy.kind != NET_PROXY_SOCKS5 ||
	    now_ns() < h->no_relay_until)
		return -EACCES;
	if (h->associations == NET_ASSOCIATIONS_MAX)
		return -EMFILE;
	k = host_socket_new(h, f, -1);
	if (!k)
		return -ENOMEM;
	r = net_association_new(&h->proxy, to, port, h->loop, on_association, k, &k->association);
	if (r < 0) {
		free(k);
		return r;
	}
	h->associations++;
	*flow_host(f) = k;
	return 0;
}

/* Where a connection is to be made to; with a proxy, to that. */
static int route(struct net_host *h, struct host_socket *k, const struct net_addr *to,
		 uint16_t port, struct sockaddr_storage *ss, socklen_t *n)
{
	*n = net_sockaddr(ss, to, port);
	if (!net_proxy_serves(&h->proxy, to))
		return 0;
	k->dialogue = net_dialogue_new(&h->proxy, to, port);
	*n = net_sockaddr(ss, &h->proxy.addr, h->proxy.port);
	return k->dialogue ? 0 : -ENOMEM;
}

static void on_look(void *arg)
{
	net_host_run(arg);
}

static void await_room(struct host_socket *k)
{
	if (k->waits)
		return;
	k->waits = true;
	loop_again(&k->source, HOST_WATCH | EPOLLOUT);
}

static int op_open(void *arg, struct flow *f, uint8_t proto, const struct net_addr *to,
		   uint16_t port)
{
	const bool tcp = proto == NET_TCP;
	cleanup_close int fd = -1;
	struct net_host *h = arg;
	struct sockaddr_storage ss;
	struct host_socket *k;
	int connected = 0, r;
	socklen_t n;

	if (flow_is_dns(f))
		return open_dns(h, f);
	if (!tcp && net_proxy_serves(&h->proxy, to))
		return associate(h, f, to, port);
	k = host_socket_new(h, f, -1);
	if (!k)
		return -ENOMEM;
	r = route(h, k, to, port, &ss, &n);
	if (r < 0)
		goto fail;
	fd = socket(ss.ss_family, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC,
		    proto == NET_ICMP	 ? IPPROTO_ICMP
		    : proto == NET_ICMP6 ? IPPROTO_ICMPV6
					 : 0);
	if (fd < 0) {
		r = -errno;
		goto fail;
	}
	k->source.fd = fd;
	if (tcp) {
		/* A dialogue looks at the same bytes more than once. */
		if (!k->dialogue)
			host_prepare_tcp(k);
		r = net_connect_tcp(fd, &ss, n);
		connected = r > 0 && !k->dialogue;
	} else {
		net_hear_errors(fd, ss.ss_family == AF_INET);
		r = connect(fd, (const void *)&ss, n) < 0 ? -errno : 0;
	}
	k->waits = tcp && !connected;
	if (r >= 0)
		r = loop_add(h->loop, &k->source, k->waits ? HOST_WATCH | EPOLLOUT : HOST_WATCH);
	if (r == 0 && flow_inspect(f)) {
		k->look = look_new(h->s, f, fd, h->loop, on_look, h);
		r = k->look ? 0 : -ENOMEM;
	}
	if (r < 0)
		goto fail;
	take_fd(&fd);
	*flow_host(f) = k;
	return connected;
fail:
	loop_del(&k->source);
	net_dialogue_free(k->dialogue);
	free(k);
	return r;
}

static void op_close(void *arg, struct flow *f, bool reset)
{
	const struct linger now = {.l_onoff = 1};
	struct host_socket *k = *flow_host(f);

	(void)arg;
	if (!k)
		return;
	if (k->source.fd >= 0) {
		if (reset && flow_proto(f) == NET_TCP)
			(void)setsockopt(k->source.fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		loop_close(&k->source);
	}
	if (k->through && !--k->through->flows && k->through->port.fd < 0)
		host_port_forget(k->through);
	dns_client_free(k->dns);
	look_free(k->look);
	net_dialogue_free(k->dialogue);
	k->h->associations -= k->association != NULL;
	net_association_free(k->association);
	free(k);
	*flow_host(f) = NULL;
}

static ssize_t send_once(struct host_socket *k, const struct iovec *iov, unsigned n)
{
	struct sockaddr_storage ss;
	struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = n};
	struct net_addr peer;
	ssize_t sent;
	uint16_t port;

	if (k->association)
		return net_association_send(k->association, iov, n);
	if (k->through) {
		flow_peer(k->f, &peer, &port);
		m.msg_name = &ss;
		m.msg_namelen = net_sockaddr(&ss, &peer, port);
	}
	sent = sendmsg(k->through ? k->through->port.fd : k->source.fd, &m,
		       MSG_NOSIGNAL | MSG_DONTWAIT);
	return sent < 0 ? -errno : sent;
}

static ssize_t op_send(void *arg, struct flow *f, const struct iovec *iov, unsigned n)
{
	struct host_socket *k = *flow_host(f);
	ssize_t sent;

	(void)arg;
	if (!k)
		return -ENOTCONN;
	if (k->dns) {
		dns_client_send(k->dns, iov, n);
		return (ssize_t)iov_size(iov, n);
	}
	sent = look_holds(k->look) ? look_send(k->look, iov, n) : send_once(k, iov, n);
	if (flow_proto(f) == NET_TCP) {
		if (sent == -EAGAIN || (look_agreed(k->look) && look_holds(k->look)) ||
		    (sent >= 0 && (size_t)sent < iov_size(iov, n))) {
			k->full = true;
			await_room(k);
		}
		return sent;
	}
	/* What is said about an earlier one; this one was not sent for it. */
	if (sent < 0 && sent != -EAGAIN && !k->through && !k->error) {
		k->error = (int)-sent;
		stack_event(k->h->s, f, STACK_READABLE, 0, now_ns());
		sent = send_once(k, iov, n);
	}
	return sent;
}

static ssize_t op_peek(void *arg, struct flow *f, size_t skip, const struct iovec *iov, unsigned n)
{
	struct net_host *h = arg;
	struct host_socket *k = *flow_host(f);
	struct iovec v[IOV_MAX];
	struct msghdr m = {.msg_iov = v};
	unsigned at = 0;
	ssize_t got;

	if (!k)
		return -ENOTCONN;
	if (!look_agreed(k->look))
		return -EAGAIN;
	if (k->seeks && skip != k->offset) {
		const int offset = (int)skip;

		if (setsockopt(k->source.fd, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof(offset)) < 0)
			return -errno;
		k->offset = skip;
	}
	if (!k->seeks) {
		for (size_t left = skip; left && at < IOV_MAX - PEEK_PIECES; at++) {
			v[at] = (struct iovec){h->scratch, MIN(left, sizeof(h->scratch))};
			left -= v[at].iov_len;
		}
	}
	for (unsigned i = 0; i < n && i < PEEK_PIECES; i++)
		v[at++] = iov[i];
	m.msg_iovlen = at;
	got = recvmsg(k->source.fd, &m, MSG_PEEK | MSG_DONTWAIT);
	if (got < 0)
		return -errno;
	if (k->seeks) {
		k->offset += (size_t)got;
		return got;
	}
	if ((size_t)got > skip)
		return got - (ssize_t)skip;
	/* Nothing behind it: the end shows as the end of what there is. */
	if ((size_t)got == skip && net_tcp_ended(k->source.fd, k->taken + skip))
		return 0;
	/* A look from the start does not go past an urgent byte: another one when that is there. */
	k->stuck = true;
	return -EAGAIN;
}

static void op_consume(void *arg, struct flow *f, size_t n)
{
	struct host_socket *k = *flow_host(f);

	(void)arg;
	while (k && n) {
		ssize_t got = recv(k->source.fd, NULL, n, MSG_TRUNC | MSG_DONTWAIT);

		if (got <= 0)
			break;
		n -= (size_t)got;
		k->taken += (size_t)got;
		k->offset -= MIN(k->offset, (size_t)got);
	}
	if (k && k->stuck) {
		k->stuck = false;
		stack_event(k->h->s, f, STACK_READABLE, 0, now_ns());
	}
}

/* All that is queued about it: the last is as good as any. */
static void take_errors(const struct host_socket *k, void *p, size_t n)
{
	for (int budget = ERRORS_TURN; budget; budget--) {
		if (recv(k->source.fd, p, n, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
			break;
	}
}

static ssize_t op_receive(void *arg, struct flow *f, void *p, size_t n)
{
	struct host_socket *k = *flow_host(f);
	ssize_t got = -1;
	int error;

	(void)arg;
	if (!k || k->through)
		return -EAGAIN;
	if (k->dns)
		return dns_client_receive(k->dns, p, n);
	error = k->error;
	k->error = 0;
	if (!error && k->association)
		return net_association_receive(k->association, p, n);
	if (!error) {
		got = recv(k->source.fd, p, n, MSG_DONTWAIT);
		error = errno;
	}
	if (got >= 0)
		return got;
	if (error != EAGAIN)
		take_errors(k, p, n);
	return -error;
}

static void op_shut(void *arg, struct flow *f)
{
	struct host_socket *k = *flow_host(f);

	(void)arg;
	if (k && !look_shut(k->look))
		(void)shutdown(k->source.fd, SHUT_WR);
}

static size_t op_room(void *arg, struct flow *f)
{
	struct host_socket *k = *flow_host(f);
	uint32_t info[SK_MEMINFO_VARS] = {0};
	socklen_t n = sizeof(info);
	uint32_t size, used, room;

	(void)arg;
	if (!k || k->full)
		return 0;
	if (look_holds(k->look))
		return look_room(k->look);
	/* A kernel that does not tell gets what every socket takes. */
	if (getsockopt(k->source.fd, SOL_SOCKET, SO_MEMINFO, info, &n) < 0)
		return 16384;
	size = info[SK_MEMINFO_SNDBUF];
	used = info[SK_MEMINFO_WMEM_QUEUED];
	room = size > used ? size - used : 0;
	/* Some of it goes into what the kernel needs around the bytes. */
	room -= room / 4;
	if (room < size / 8)
		await_room(k);
	return room;
}

static unsigned op_mtu(void *arg, struct flow *f)
{
	struct host_socket *k = *flow_host(f);
	struct net_addr peer;
	uint16_t port;
	int mtu = 0;
	socklen_t n = sizeof(mtu);

	(void)arg;
	if (!k || k->through || k->association)
		return 0;
	flow_peer(f, &peer, &port);
	if (net_addr_is_v4(&peer))
		(void)getsockopt(k->source.fd, IPPROTO_IP, IP_MTU, &mtu, &n);
	else
		(void)getsockopt(k->source.fd, IPPROTO_IPV6, IPV6_MTU, &mtu, &n);
	return mtu > 0 ? (unsigned)mtu : 0;
}

static bool op_is_local(void *arg, const struct net_addr *a)
{
	struct net_host *h = arg;

	return net_is_local(net_addr_is_v4(a) ? &h->probe4 : &h->probe6, a);
}

static void op_news(void *arg, const struct stack_news *n)
{
	struct net_host *h = arg;

	if (h->ops->news)
		h->ops->news(h->arg, n);
}

static const struct stack_ops ops = {
	.reserve = op_reserve,
	.commit = op_commit,
	.open = op_open,
	.close = op_close,
	.send = op_send,
	.peek = op_peek,
	.consume = op_consume,
	.receive = op_receive,
	.shut = op_shut,
	.room = op_room,
	.mtu = op_mtu,
	.is_local = op_is_local,
	.news = op_news,
};

/* ---- events ---- */

static void on_timer(struct loop_timer *t)
{
	struct net_host *h = container_of(t, struct net_host, timer);

	stack_tick(h->s, now_ns());
	net_host_run(h);
}

/* ---- limits ---- */

static void wait_for_gates(struct net_host *h)
{
	uint64_t when = UINT64_MAX;

	if (h->out.held)
		when = net_gate_when(&h->out);
	if (h->in.held)
		when = MIN(when, net_gate_when(&h->in));
	if (when != UINT64_MAX)
		(void)loop_timer_at(h->loop, &h->gate_timer, when);
	if (h->in.held && !h->holding)
		host_ports_hold(h, true);
}

static void on_gate(struct loop_timer *t)
{
	struct net_host *h = container_of(t, struct net_host, gate_timer);
	const bool out = h->out.held;

	h->out.held = h->in.held = false;
	if (h->holding)
		host_ports_hold(h, false);
	if (out)
		h->ops->resume(h->arg);
	net_host_run(h);
}

void net_host_run(struct net_host *h)
{
	uint64_t now = now_ns();
	bool more = stack_run(h->s, now);
	uint64_t next = more ? now : stack_next(h->s);

	if (next)
		(void)loop_timer_at(h->loop, &h->timer, next);
	else
		loop_timer_stop(&h->timer);
	wait_for_gates(h);
}

unsigned net_host_frames(struct net_host *h)
{
	if (!net_gate_limits(&h->out))
		return UINT_MAX;
	if (net_gate_open(&h->out, now_ns()))
		return 1;
	wait_for_gates(h);
	return 0;
}

void net_host_input(struct net_host *h, const struct iovec *iov, unsigned n,
		    const struct stack_meta *meta)
{
	if (net_gate_limits(&h->out))
		net_gate_pass(&h->out, iov_size(iov, n));
	stack_input(h->s, iov, n, meta, true, now_ns());
}

void net_host_settle(struct net_host *h)
{
	stack_settle(h->s);
}

/* 1: the way is free, 0: not yet, -errno: it will not be. */
static int talk(struct host_socket *k)
{
	int r = net_dialogue_run(k->dialogue, k->source.fd);

	if (r > 0) {
		k->taken = net_dialogue_taken(k->dialogue);
		k->dialogue = net_dialogue_free(k->dialogue);
		host_prepare_tcp(k);
	} else if (r == 0) {
		loop_mod(&k->source,
			 net_dialogue_sends(k->dialogue) ? HOST_WATCH | EPOLLOUT : HOST_WATCH);
	}
	return r;
}

static void on_socket(struct loop_source *src, uint32_t events)
{
	struct host_socket *k = container_of(src, struct host_socket, source);
	struct net_host *h = k->h;
	const bool tcp = flow_proto(k->f) == NET_TCP;
	unsigned what = 0;
	int error = 0;
	socklen_t n = sizeof(error);

	if (events & EPOLLERR && tcp) {
		(void)getsockopt(src->fd, SOL_SOCKET, SO_ERROR, &error, &n);
		if (error)
			what |= STACK_FAILED;
	}
	if (k->dialogue && !error) {
		error = -talk(k);
		if (!error)
			return;
		/* What came meanwhile was not said to the stack. */
		events = EPOLLOUT | EPOLLIN | EPOLLPRI;
		what |= error > 0 ? STACK_FAILED : 0;
		error = MAX(error, 0);
	}
	if (events & EPOLLOUT && k->waits && !error) {
		look_flush(k->look);
		k->waits = k->full = look_agreed(k->look) && look_holds(k->look);
		what |= STACK_WRITABLE;
	}
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		what |= STACK_READABLE;
	/* An end behind what can be read, or an urgent byte in it. */
	if (events & (EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		what |= STACK_STOPS;
	stack_event(h->s, k->f, what, error, now_ns());
	net_host_run(h);
}

/* ---- life ---- */

int net_host_tls(struct net_host *h, int fd)
{
	return dns_host_tls(h->dns, fd);
}

void net_host_proxy(struct net_host *h, const struct net_proxy *p)
{
	h->proxy = *p;
	dns_host_proxy(h->dns, &h->proxy);
}

unsigned net_host_flows(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		return STACK_FLOWS_DEFAULT;
	return (unsigned)MIN(l.rlim_max - l.rlim_max / 4, (rlim_t)STACK_FLOWS_DEFAULT);
}

static void set_gates(struct net_host *h, const struct net_limits *limits)
{
	const struct net_rate *r = limits->rate;

	net_gate_change(&h->out, &r[NET_RATE_OUT_BYTES], &r[NET_RATE_OUT_FRAMES], now_ns());
	net_gate_change(&h->in, &r[NET_RATE_IN_BYTES], &r[NET_RATE_IN_FRAMES], now_ns());
}

/* The host's own name is known before anybody asked for it: it stands in the guest's files. */
static int name_host(struct net_host *h, const struct stack_config *c)
{
	struct dns_name name;
	int r = dns_name_parse(NET_HOST_NAME, &name);

	if (r == 0)
		r = names_pin(h->names, &c->gateway4, &name, UINT64_MAX);
	return r == 0 ? names_pin(h->names, &c->gateway6, &name, UINT64_MAX) : r;
}

static int start_names(struct net_host *h, const struct stack_config *config,
		       const struct resolver_config *dns, struct err *err)
{
	struct stack_config c = *config;
	int r = names_new(config->seed, &h->names);

	if (r == 0)
		r = name_host(h, config);
	if (r < 0)
		return err_set(err, r, "cannot create a network: out of memory");
	c.names = h->names;
	r = stack_new(&c, &ops, h, &h->s, err);
	if (r < 0)
		return r;
	names_policy(h->names, stack_policy(h->s));
	r = dns_host_new(dns, stack_policy(h->s), h->names, h->loop, &h->dns, err);
	if (r == 0)
		dns_host_news(h->dns, h->ops->names, h->arg);
	return r;
}

int net_host_new(const struct stack_config *config, const struct resolver_config *dns,
		 const struct net_guest_ops *guest, void *arg, struct loop *loop,
		 const struct net_port *ports, unsigned nports, struct net_host **ret,
		 struct err *err)
{
	struct net_host *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return err_set(err, ENOMEM, "cannot create a network: out of memory");
	h->loop = loop;
	h->ops = guest;
	h->arg = arg;
	h->probe4 = h->probe6 = -1;
	h->timer.fn = on_timer;
	h->gate_timer.fn = on_gate;
	set_gates(h, &config->limits);
	r = start_names(h, config, dns, err);
	for (unsigned i = 0; i < nports && r == 0; i++)
		r = host_port_add(h, &ports[i], err);
	if (r < 0) {
		host_ports_disown(h);
		net_host_free(h);
		return r;
	}
	*ret = h;
	return 0;
}

struct net_host *net_host_free(struct net_host *h)
{
	if (!h)
		return NULL;
	h->s = stack_free(h->s);
	h->dns = dns_host_free(h->dns);
	h->names = names_free(h->names);
	loop_timer_stop(&h->timer);
	loop_timer_stop(&h->gate_timer);
	host_ports_free(h);
	close_fd(h->probe4);
	close_fd(h->probe6);
	free(h);
	return NULL;
}

void net_host_never_seeks(struct net_host *h)
{
	h->never_seeks = true;
}

/* ---- changes ---- */

void net_host_change(struct net_host *h, const struct net_policy *policy,
		     const struct net_limits *limits, unsigned max_flows)
{
	const bool out = h->out.held;

	set_gates(h, limits);
	if (h->holding)
		host_ports_hold(h, false);
	if (out)
		h->ops->resume(h->arg);
	stack_change(h->s, policy, limits, max_flows, now_ns());
	net_host_run(h);
}

struct stack *net_host_stack(struct net_host *h)
{
	return h->s;
}

const struct resolver_stats *net_host_dns(struct net_host *h)
{
	return dns_host_stats(h->dns);
}
