/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Datagrams through a SOCKS 5 proxy (RFC 1928, 7): an association is a connection to the proxy and,
 * for as long as that lasts, a socket to the relay that it named. Each flow has one of its own, as
 * answers say who sent them, but not to which of our ports.
 *
 * On the loop's thread.
 */
#ifndef NET_ASSOCIATE_H
#define NET_ASSOCIATE_H

#include <sys/types.h>
#include <sys/uio.h>

#include "base/loop.h"
#include "net/proxy.h"

/* Each has two descriptors; a proxy that serves more to one sandbox is hard to find. */
#define NET_ASSOCIATIONS_MAX 512

struct net_association;

/* @p is borrowed. @heard: there is something to receive, or an end to hear of. -errno. */
int net_association_new(const struct net_proxy *p, const struct net_addr *to, uint16_t port,
			struct loop *loop, void (*heard)(void *arg), void *arg,
			struct net_association **ret);
/* NULL is fine. Returns NULL. */
struct net_association *net_association_free(struct net_association *a);

/* Did the proxy refuse it, rather than not answer or go away later? */
bool net_association_refused(const struct net_association *a);
/* What is sent before it is made is kept, within limits. As sendmsg(), but -errno. */
ssize_t net_association_send(struct net_association *a, const struct iovec *iov, unsigned n);
/* -errno; why it ended comes once, then -EPIPE. */
ssize_t net_association_receive(struct net_association *a, void *p, size_t n);

#endif
