/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The world's side of the name service (net/resolver.h): sockets to its servers, and the ends at
 * which the guest's flows to port 53 meet it.
 *
 * Each attempt at a query has a socket of its own, whose port the kernel chose; servers that are
 * asked over TLS have a connection for all of theirs (net/dns_tls.h). Over UDP a flow of
 * the guest's is a client, which questions are given to and answers taken from; over TCP it is one
 * end of a pair of sockets, and the service reads the other, so there is no second TCP for it.
 *
 * On the loop's thread.
 */
#ifndef NET_DNS_HOST_H
#define NET_DNS_HOST_H

#include <sys/types.h>
#include <sys/uio.h>

#include "base/loop.h"
#include "net/resolver.h"

struct dns_host;
struct dns_client;

/* @policy, @names and @loop are borrowed. */
int dns_host_new(const struct resolver_config *config, const struct net_policy *policy,
		 struct names *names, struct loop *loop, struct dns_host **ret, struct err *err);
/* After its clients. NULL is fine. Returns NULL. */
struct dns_host *dns_host_free(struct dns_host *d);
/* The descriptor of dns_tls_begin(), which is taken if this succeeds, for servers over TLS. -errno. */
int dns_host_tls(struct dns_host *d, int fd);
/* Tell @fn what is denied, limited, or no good. */
void dns_host_news(struct dns_host *d, resolver_news_fn *fn, void *arg);
/* Servers are asked over connections through @p, which is borrowed. */
struct net_proxy;
void dns_host_proxy(struct dns_host *d, const struct net_proxy *p);
const struct resolver_stats *dns_host_stats(const struct dns_host *d);

/* The end of a connection that the guest's is to be joined to, or -errno. */
int dns_host_connect(struct dns_host *d);

/* @ready is called when there is something to receive. NULL: no memory. */
struct dns_client *dns_client_new(struct dns_host *d, void (*ready)(void *arg), void *arg);
struct dns_client *dns_client_free(struct dns_client *c);
/* A question. */
void dns_client_send(struct dns_client *c, const struct iovec *iov, unsigned n);
/* An answer; -EAGAIN: not yet; -EPIPE: there will be none but for other questions. */
ssize_t dns_client_receive(struct dns_client *c, void *p, size_t n);

#endif
