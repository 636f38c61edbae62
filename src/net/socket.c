/* SPDX-License-Identifier: Apache-2.0 */
#include "net/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>

#include "base/buf.h"

socklen_t net_sockaddr(struct sockaddr_storage *ss, const struct net_addr *a, uint16_t port)
{
	struct sockaddr_in *in4 = (void *)ss;
	struct sockaddr_in6 *in6 = (void *)ss;

	memset(ss, 0, sizeof(*ss));
	if (net_addr_is_v4(a)) {
		in4->sin_family = AF_INET;
		in4->sin_port = htons(port);
		memcpy(&in4->sin_addr, net_addr_four(a), 4);
		return sizeof(*in4);
	}
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(port);
	memcpy(&in6->sin6_addr, a->b, 16);
	return sizeof(*in6);
}

void net_sockaddr_parse(const struct sockaddr_storage *ss, struct net_addr *a, uint16_t *port)
{
	const struct sockaddr_in *in4 = (const void *)ss;
	const struct sockaddr_in6 *in6 = (const void *)ss;

	if (ss->ss_family == AF_INET6) {
		*a = net_addr_v6(&in6->sin6_addr);
		*port = ntohs(in6->sin6_port);
	} else {
		*a = net_addr_v4(&in4->sin_addr);
		*port = ntohs(in4->sin_port);
	}
}

/* The kernel's choice of a source for what goes there: itself, if it is one of the host's own. */
bool net_is_local(int *fd, const struct net_addr *a)
{
	struct sockaddr_storage ss;
	socklen_t n = net_sockaddr(&ss, a, 9);
	struct net_addr own;
	uint16_t port;

	if (*fd < 0)
		*fd = socket(ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (*fd < 0 || connect(*fd, (const void *)&ss, n) < 0)
		return false;
	n = sizeof(ss);
	if (getsockname(*fd, (void *)&ss, &n) < 0)
		return false;
	net_sockaddr_parse(&ss, &own, &port);
	return net_addr_equal(&own, a) || net_addr_kind(&own) == NET_LOOPBACK;
}

int net_connect_tcp(int fd, const struct sockaddr_storage *ss, socklen_t n)
{
	struct net_addr a;
	uint16_t port;

	if (connect(fd, (const void *)ss, n) == 0)
		return 1;
	net_sockaddr_parse(ss, &a, &port);
	/* It is decided when the kernel lets go of the socket: asking again tells. */
	if (errno == EINPROGRESS && net_addr_kind(&a) == NET_LOOPBACK &&
	    connect(fd, (const void *)ss, n) == 0)
		return 1;
	return errno == EINPROGRESS || errno == EALREADY ? 0 : -errno;
}

bool net_tcp_ended(int fd, uint64_t bytes)
{
	enum { ESTABLISHED = 1, FIN_WAIT1 = 4, FIN_WAIT2 = 5 }; /* net/tcp_states.h */
	struct tcp_info info = {0};
	socklen_t n = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n) < 0)
		return false;
	/* The end counts as a byte. */
	return info.tcpi_state != ESTABLISHED && info.tcpi_state != FIN_WAIT1 &&
	       info.tcpi_state != FIN_WAIT2 && info.tcpi_bytes_received <= bytes + 1;
}

/* Else only what will hardly change would be told, and not that somebody cannot be reached now. */
void net_hear_errors(int fd, bool four)
{
	const int one = 1;

	if (four)
		(void)setsockopt(fd, IPPROTO_IP, IP_RECVERR, &one, sizeof(one));
	else
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &one, sizeof(one));
}

int net_flush(int fd, struct buf *b)
{
	while (buf_size(b)) {
		struct iovec v = {buf_ptr(b), buf_size(b)};
		struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
		ssize_t n = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		buf_consume(b, (size_t)n);
	}
	return 1;
}
