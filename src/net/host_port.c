/* SPDX-License-Identifier: Apache-2.0 */
/* Ports of the host that lead into the guest. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "net/host_impl.h"
#include "net/socket.h"

enum { PORT_TURN = 64 };

static void refuse(int fd)
{
	const struct linger now = {.l_onoff = 1};

	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close_fd(fd);
}

static bool accept_one(struct listener *l)
{
	struct sockaddr_storage ss;
	socklen_t n = sizeof(ss);
	int fd = accept4(l->port.fd, (void *)&ss, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct host_socket *k;
	struct net_addr peer;
	uint16_t port;

	if (fd < 0)
		return errno == EINTR || errno == ECONNABORTED;
	net_sockaddr_parse(&ss, &peer, &port);
	k = host_socket_new(l->h, NULL, fd);
	if (!k || loop_add(l->h->loop, &k->source, HOST_WATCH) < 0)
		goto fail;
	host_prepare_tcp(k);
	k->f = stack_accept(l->h->s, NET_TCP, &peer, port, l->port.guest_port, k, now_ns());
	if (k->f)
		return true;
	loop_del(&k->source);
fail:
	free(k);
	refuse(fd);
	return true;
}

static bool receive_one(struct listener *l)
{
	static const uint8_t nothing[1];
	struct sockaddr_storage ss;
	socklen_t n = sizeof(ss);
	struct net_host *h = l->h;
	/* Nobody else uses it now. */
	ssize_t got =
		recvfrom(l->port.fd, h->scratch, sizeof(h->scratch), MSG_DONTWAIT, (void *)&ss, &n);
	struct net_addr peer;
	struct flow *f;
	uint16_t port;

	if (got < 0)
		return errno == EINTR || errno == ECONNREFUSED;
	net_sockaddr_parse(&ss, &peer, &port);
	f = stack_accept(h->s, NET_UDP, &peer, port, l->port.guest_port, NULL, now_ns());
	if (!f)
		return true;
	if (!*flow_host(f)) {
		struct host_socket *k = host_socket_new(h, f, -1);

		if (!k)
			return true;
		k->through = l;
		l->flows++;
		*flow_host(f) = k;
	}
	stack_datagram(h->s, f, got ? h->scratch : nothing, (size_t)got, now_ns());
	return true;
}

static void on_port(struct loop_source *src, uint32_t events)
{
	struct listener *l = container_of(src, struct listener, source);
	struct net_host *h = l->h;

	(void)events;
	/* Level-triggered: what is left after a turn comes again. */
	for (int i = 0; i < PORT_TURN; i++) {
		if (!(l->port.proto == NET_TCP ? accept_one(l) : receive_one(l)))
			break;
	}
	net_host_run(h);
}

/* ---- life ---- */

void host_port_forget(struct listener *l)
{
	LIST_REMOVE(l, entry);
	free(l);
}

int host_port_add(struct net_host *h, const struct net_port *p, struct err *err)
{
	struct listener *l = calloc(1, sizeof(*l));

	if (!l)
		return err_set(err, ENOMEM, "cannot publish a port: out of memory");
	l->source = (struct loop_source){.fn = on_port, .fd = p->fd};
	l->h = h;
	l->port = *p;
	LIST_INSERT_HEAD(&h->listeners, l, entry);
	return 0;
}

int net_host_start(struct net_host *h)
{
	struct listener *l;
	int r = 0;

	h->started = true;
	LIST_FOREACH(l, &h->listeners, entry)
	r = r ? r : loop_add(h->loop, &l->source, EPOLLIN);
	return r;
}

void host_ports_disown(struct net_host *h)
{
	struct listener *l;

	LIST_FOREACH(l, &h->listeners, entry)
	l->port.fd = -1;
}

void host_ports_free(struct net_host *h)
{
	struct listener *l;

	while ((l = LIST_FIRST(&h->listeners))) {
		loop_del(&l->source);
		close_fd(l->port.fd);
		host_port_forget(l);
	}
}

void host_ports_hold(struct net_host *h, bool hold)
{
	struct listener *l;

	h->holding = hold;
	LIST_FOREACH(l, &h->listeners, entry)
	{
		if (l->port.proto == NET_UDP && loop_source_active(&l->source))
			loop_mod(&l->source, hold ? 0 : EPOLLIN);
	}
}

/* ---- changes ---- */

int net_host_add_port(struct net_host *h, const struct net_port *p, struct err *err)
{
	struct listener *l;
	int r = host_port_add(h, p, err);

	if (r < 0 || !h->started)
		return r;
	l = LIST_FIRST(&h->listeners);
	r = loop_add(h->loop, &l->source, EPOLLIN);
	if (r == 0)
		return 0;
	host_port_forget(l);
	return err_set(err, r, "cannot watch port %u: %s", p->port, err_name(r));
}

bool net_host_remove_port(struct net_host *h, const struct net_port *p)
{
	struct listener *l;

	LIST_FOREACH(l, &h->listeners, entry)
	{
		if (l->port.fd < 0 || l->port.port != p->port || l->port.proto != p->proto ||
		    l->port.guest_port != p->guest_port || !net_addr_equal(&l->port.bind, &p->bind))
			continue;
		loop_del(&l->source);
		l->port.fd = close_fd(l->port.fd);
		if (!l->flows)
			host_port_forget(l);
		return true;
	}
	return false;
}
