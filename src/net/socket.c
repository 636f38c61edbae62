/* SPDX-License-Identifier: Apache-2.0 */
#include "net/socket.h"

#include <arpa/inet.h>
#include <errno.h>
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
