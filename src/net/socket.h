/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses as the kernel's sockets have them. Any thread. */
#ifndef NET_SOCKET_H
#define NET_SOCKET_H

#include <sys/socket.h>

#include "net/addr.h"

socklen_t net_sockaddr(struct sockaddr_storage *ss, const struct net_addr *a, uint16_t port);
void net_sockaddr_parse(const struct sockaddr_storage *ss, struct net_addr *a, uint16_t *port);

struct buf;
/* Send what is in @b without waiting. 1: all of it is out; 0: the rest later; -errno. */
int net_flush(int fd, struct buf *b);

#endif
