/* SPDX-License-Identifier: Apache-2.0 */
#include "net/port.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "net/policy.h"
#include "net/socket.h"

static int bad_port(struct err *err, const char *text)
{
	err_set(err, ERR_USAGE, "no port to publish: \"%s\"", text);
	return err_hint(err, "it looks like 8080:80, 8000-8010:9000-9010, 127.0.0.1:8080:80 or "
			     "[::1]:5353:53/udp");
}

int net_port_parse(const char *text, struct net_port *ret, unsigned max, struct err *err)
{
	static const uint8_t loopback[] = {127, 0, 0, 1};
	struct net_port p = {.bind = net_addr_v4(loopback), .proto = NET_TCP, .fd = -1};
	uint16_t low, high, glow, ghigh;
	unsigned n;
	cleanup_free char *copy = strdup(text);
	char *proto = copy, *guest, *host, *bind;

	if (!copy)
		return err_set(err, ENOMEM, "out of memory");
	strsep(&proto, "/");
	if (proto && strcmp(proto, "udp") == 0)
		p.proto = NET_UDP;
	else if (proto && strcmp(proto, "tcp") != 0)
		return bad_port(err, text);
	guest = strrchr(copy, ':');
	if (!guest)
		return bad_port(err, text);
	*guest++ = '\0';
	host = strrchr(copy, ':');
	bind = host ? copy : NULL;
	if (host)
		*host++ = '\0';
	else
		host = copy;
	if (bind && *bind == '[') {
		size_t len = strlen(++bind);

		if (!len || bind[len - 1] != ']')
			return bad_port(err, text);
		bind[len - 1] = '\0';
	} else if (bind && strchr(bind, ':')) {
		return bad_port(err, text);
	}
	if ((bind && !net_addr_parse(bind, &p.bind)) || !net_ports_parse(host, 0, &low, &high) ||
	    !net_ports_parse(guest, 1, &glow, &ghigh) || (!low && high))
		return bad_port(err, text);
	n = ghigh - glow + 1u;
	if (low && high - low + 1u != n) {
		err_set(err, ERR_USAGE, "\"%s\": %u ports of this host cannot be %u of the guest",
			text, high - low + 1u, n);
		return err_hint(err, "name as many of both, or 0 for any of this host");
	}
	if (n > max) {
		err_set(err, ERR_LIMIT, "\"%s\": more than %d published ports", text,
			NET_PORTS_MAX);
		return err_hint(err, "a proxy of yours in the guest can serve many through one");
	}
	for (unsigned i = 0; i < n; i++) {
		ret[i] = p;
		ret[i].port = (uint16_t)(low ? low + i : 0);
		ret[i].guest_port = (uint16_t)(glow + i);
	}
	return (int)n;
}

const char *net_port_text(const struct net_port *p, char ret[NET_PORT_TEXT])
{
	const char *proto = p->proto == NET_UDP ? "udp" : "tcp";
	char text[NET_ADDR_TEXT];
	bool colons;

	net_addr_text(&p->bind, text);
	colons = strchr(text, ':');
	snprintf(ret, NET_PORT_TEXT, "%s%s%s:%u->%u/%s", colons ? "[" : "", text, colons ? "]" : "",
		 p->port, p->guest_port, proto);
	return ret;
}

int net_port_open(struct net_port *p, struct err *err)
{
	const bool tcp = p->proto == NET_TCP;
	struct sockaddr_storage ss;
	socklen_t n = net_sockaddr(&ss, &p->bind, p->port);
	cleanup_close int fd = socket(
		ss.ss_family, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	char text[NET_ADDR_TEXT];
	const int one = 1;
	struct net_addr bound;

	net_addr_text(&p->bind, text);
	if (fd < 0)
		return err_errno(err, "cannot publish port %u", p->port);
	/* As servers do: a connection of before that lingers is no reason to fail. */
	if (tcp)
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (ss.ss_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(fd, (void *)&ss, n) < 0 || (tcp && listen(fd, SOMAXCONN) < 0)) {
		int r = err_errno(err, "cannot publish port %u of %s", p->port, text);

		if (r == -EADDRINUSE)
			err_hint(err, "another program has it; choose another one, or 0 for any");
		else if (r == -EADDRNOTAVAIL)
			err_hint(err, "it is to be an address of this host, or 0.0.0.0 for all");
		else if (r == -EACCES)
			err_hint(err,
				 "users have ports from 1024 on: choose one of those, or let "
				 "them have it: sysctl net.ipv4.ip_unprivileged_port_start=%u",
				 p->port);
		return r;
	}
	n = sizeof(ss);
	if (getsockname(fd, (void *)&ss, &n) < 0)
		return err_errno(err, "cannot publish port %u", p->port);
	net_sockaddr_parse(&ss, &bound, &p->port);
	p->fd = take_fd(&fd);
	return 0;
}
