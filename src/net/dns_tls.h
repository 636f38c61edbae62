/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Name servers that are asked over TLS (RFC 7858).
 *
 * Theory of operation. TLS itself is msb-dot's (dot/dot.h). For each server there is at most one
 * connection: made here when there is a question, through the proxy if there is one, and handed
 * over; what remains is a socket with plain messages. Questions are written as they come, each with
 * a number of its own on that connection, and answers taken in any order. A connection without a
 * question for IDLE_S is closed; one on which nothing comes for STALL_S although something is owed
 * is given up. Servers close connections when they like: what was asked on one that has worked is
 * asked once more on a new one. One that never worked fails its questions, so that the resolver
 * asks somebody else, and is not tried again for a moment. There is no way to a server but TLS.
 *
 * On the loop's thread.
 */
#ifndef NET_DNS_TLS_H
#define NET_DNS_TLS_H

#include "base/loop.h"
#include "net/resolver.h"

struct net_proxy;
struct dns_tls;

/* For each dns_tls_ask(), until dns_tls_drop(). They may call both. */
struct dns_tls_ops {
	void (*reply)(void *arg, unsigned slot, const uint8_t *m, size_t n);
	void (*failed)(void *arg, unsigned slot);
	resolver_news_fn *news;
};

/* Start msb-dot, with this process as its life: a socket. Where files can still be opened. */
int dns_tls_begin(const char *program, int *ret, struct err *err);
/* Wait until it is ready, or says why it will not be. */
int dns_tls_ready(int fd, struct err *err);

/* @fd is taken if this succeeds, the rest borrowed. NULL: no memory. */
struct dns_tls *dns_tls_new(int fd, const struct resolver_config *config, struct loop *loop,
			    const struct dns_tls_ops *ops, void *arg);
/* NULL is fine. Returns NULL. */
struct dns_tls *dns_tls_free(struct dns_tls *t);
/* Connections are made through @p, which is borrowed; NULL: without one. */
void dns_tls_proxy(struct dns_tls *t, const struct net_proxy *p);
/* As resolver_ops has it, for a server of RESOLVER_TLS. */
int dns_tls_ask(struct dns_tls *t, unsigned slot, unsigned server, const void *m, size_t n);
void dns_tls_drop(struct dns_tls *t, unsigned slot);

#endif
