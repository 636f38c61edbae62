/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses as the kernel's sockets have them, and what can be asked of those. Any thread. */
#ifndef NET_SOCKET_H
#define NET_SOCKET_H

#include <sys/socket.h>

#include "net/addr.h"

socklen_t net_sockaddr(struct sockaddr_storage *ss, const struct net_addr *a, uint16_t port);
void net_sockaddr_parse(const struct sockaddr_storage *ss, struct net_addr *a, uint16_t *port);

/* Is it one of the host's own? *@fd is -1 before the first time, then to be closed. */
bool net_is_local(int *fd, const struct net_addr *a);

/* 1: connected, as it is known at once on one machine; 0: poll() will tell; -errno. */
int net_connect_tcp(int fd, const struct sockaddr_storage *ss, socklen_t n);
/* Has the other end of a connection said that it sends no more, and no more than @bytes? */
bool net_tcp_ended(int fd, uint64_t bytes);
/* Have a socket for datagrams (of IPv4, or IPv6) keep what routers say of them. */
void net_hear_errors(int fd, bool four);

struct buf;
/* Send what is in @b without waiting. 1: all of it is out; 0: the rest later; -errno. */
int net_flush(int fd, struct buf *b);

#endif
