/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The world's side of a stack: sockets of the host, in the network namespace of the thread that
 * runs the loop.
 *
 * All sockets are watched edge-triggered: what the stack peeks at stays readable for long, and
 * says so once. Writability is only watched for where the stack was told that there is little room.
 *
 * net_host_new() may be called on any thread; everything else on the loop's, net_port_open() aside.
 */
#ifndef NET_HOST_H
#define NET_HOST_H

#include "base/loop.h"
#include "net/resolver.h"
#include "net/stack.h"

struct net_host;

/* A port of the host that leads into the guest. */
struct net_port {
	struct net_addr bind;
	uint16_t port, guest_port;
	uint8_t proto;
	int fd; /* bound, and listening if that is TCP */
};

/* As many as a range of all that one program could want. */
#define NET_PORTS_MAX 1024

/*
 * "[BIND:]HOST:GUEST[/tcp|/udp]", an IPv6 address in brackets, HOST and GUEST a port or as many of
 * them, A-B; one HOST of 0 stands for as many free ones as there are guest's. Into @ret, of which
 * there are @max; their fd becomes -1. How many: ERR_USAGE with a hint.
 */
int net_port_parse(const char *text, struct net_port *ret, unsigned max, struct err *err);
/* As it is shown: "127.0.0.1:8080->80/tcp". */
#define NET_PORT_TEXT 72
const char *net_port_text(const struct net_port *p, char ret[NET_PORT_TEXT]);
/* Bind it; port 0 becomes the one that was free. */
int net_port_open(struct net_port *p, struct err *err);

struct net_guest_ops {
	/* A frame may come again, after net_host_frames() said that none may. */
	void (*resume)(void *arg);
	unsigned (*reserve)(void *arg, size_t len, struct iovec *iov, unsigned max);
	void (*commit)(void *arg, size_t len, const struct stack_meta *meta);
	/* May be NULL. */
	void (*news)(void *arg, const struct stack_news *n);
};

/* How many flows there can be here: each has a descriptor, and a quarter is left for others. */
unsigned net_host_flows(void);

/* @ops, @arg and @loop are borrowed; the descriptors of @ports become its own if this succeeds. */
int net_host_new(const struct stack_config *config, const struct resolver_config *dns,
		 const struct net_guest_ops *ops, void *arg, struct loop *loop,
		 const struct net_port *ports, unsigned nports, struct net_host **ret,
		 struct err *err);
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
/* One of them: see stack_input(). */
void net_host_input(struct net_host *h, const struct iovec *iov, unsigned n,
		    const struct stack_meta *meta);
/* After frames went into the stack, and when the guest has buffers again. */
void net_host_run(struct net_host *h);

#endif
