/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The world's side of a stack: sockets of the host, in the network namespace of the thread that
 * runs the loop.
 *
 * All sockets are watched edge-triggered: what the stack peeks at stays readable for long, and
 * says so once. Writability is only watched for where the stack was told that there is little room.
 *
 * net_host_new() may be called on any thread; everything else on the loop's.
 */
#ifndef NET_HOST_H
#define NET_HOST_H

#include "base/loop.h"
#include "net/port.h"
#include "net/resolver.h"
#include "net/stack.h"

struct net_host;

struct net_guest_ops {
	/* A frame may come again, after net_host_frames() said that none may. */
	void (*resume)(void *arg);
	unsigned (*reserve)(void *arg, size_t len, struct iovec *iov, unsigned max);
	void (*commit)(void *arg, size_t len, const struct stack_meta *meta);
	/* These may be NULL. */
	void (*news)(void *arg, const struct stack_news *n);
	resolver_news_fn *names;
};

/* How many flows there can be here: each has a descriptor, and a quarter is left for others. */
unsigned net_host_flows(void);

/* @ops, @arg and @loop are borrowed; the descriptors of @ports become its own if this succeeds. */
int net_host_new(const struct stack_config *config, const struct resolver_config *dns,
		 const struct net_guest_ops *ops, void *arg, struct loop *loop,
		 const struct net_port *ports, unsigned nports, struct net_host **ret,
		 struct err *err);
/* Name servers over TLS are asked with the help of @fd: see dns_host_tls(). */
int net_host_tls(struct net_host *h, int fd);
/* Connections to the world go through @p, which is copied. Before the first frame. */
struct net_proxy;
void net_host_proxy(struct net_host *h, const struct net_proxy *p);
/* Begin to watch the ports. -errno. */
int net_host_start(struct net_host *h);
/* NULL is fine. Returns NULL. */
struct net_host *net_host_free(struct net_host *h);

/* For tests, before the first flow: do without SO_PEEK_OFF, as before Linux 6.9. */
void net_host_never_seeks(struct net_host *h);

/* From now on: see stack_change(). */
void net_host_change(struct net_host *h, const struct net_policy *policy,
		     const struct net_limits *limits, unsigned max_flows);
/* One more port; its descriptor becomes the host's if this succeeds. */
int net_host_add_port(struct net_host *h, const struct net_port *p, struct err *err);
/* Connections that came through it go on. False when there is no such port. */
bool net_host_remove_port(struct net_host *h, const struct net_port *p);

struct stack *net_host_stack(struct net_host *h);
const struct resolver_stats *net_host_dns(struct net_host *h);
/* How many frames of the guest's may come before this is asked again, 0: none, until resume(). */
unsigned net_host_frames(struct net_host *h);
/* One of them: see stack_input(). Its pieces stay as they are until net_host_settle(). */
void net_host_input(struct net_host *h, const struct iovec *iov, unsigned n,
		    const struct stack_meta *meta);
void net_host_settle(struct net_host *h);
/* After frames went into the stack, and when the guest has buffers again. */
void net_host_run(struct net_host *h);

#endif
