/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of the host's side. */
#ifndef NET_HOST_IMPL_H
#define NET_HOST_IMPL_H

#include <sys/queue.h>

#include "net/host.h"
#include "net/proxy.h"

/* A published port. */
struct listener {
	struct loop_source source;
	struct net_host *h;
	struct net_port port; /* fd -1: it is closed, and still has flows */
	unsigned flows;
	LIST_ENTRY(listener) entry;
};

/* A flow's. */
struct host_socket {
	struct loop_source source; /* fd -1: a flow through a port's socket */
	struct net_host *h;
	struct flow *f;
	struct listener *through;
	struct dns_client *dns;		     /* UDP to port 53: in place of a descriptor */
	struct look *look;		     /* or NULL */
	struct net_dialogue *dialogue;	     /* with a proxy, until the connection is there */
	struct net_association *association; /* with a proxy, in place of a descriptor */
	bool full;
	bool waits;    /* for room, or to be connected */
	int error;     /* of UDP, to be told with the next receive() */
	bool seeks;    /* SO_PEEK_OFF works, and is... */
	size_t offset; /* ...this */
	bool stuck;    /* what could be seen was less than there may be */
	uint64_t taken;
};

struct net_host {
	bool never_seeks; /* as if the kernel were an old one */
	struct stack *s;
	struct loop *loop;
	struct loop_timer timer, gate_timer;
	struct net_gate out, in; /* of the guest */
	bool holding;		 /* what arrives at published ports of UDP waits */
	const struct net_guest_ops *ops;
	void *arg;
	int probe4, probe6; /* never send anything */
	LIST_HEAD(, listener) listeners;
	bool started;
	struct names *names;
	struct dns_host *dns;
	struct net_proxy proxy;
	unsigned associations;
	uint64_t no_relay_until; /* it has refused one */
	/* For what was peeked at already and is read once more, where the kernel cannot skip it. */
	uint8_t scratch[65536];
};

/* ---- host.c ---- */

/* Once asked for, EPOLLOUT is said with the others: it means something while one waits for it. */
#define HOST_WATCH (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET)

/* NULL: no memory. Its descriptor is not watched yet. */
struct host_socket *host_socket_new(struct net_host *h, struct flow *f, int fd);
void host_prepare_tcp(struct host_socket *k);

/* ---- host_port.c ---- */

int host_port_add(struct net_host *h, const struct net_port *p, struct err *err);
/* It is closed, and its last flow is gone. */
void host_port_forget(struct listener *l);
/* Let what arrives at ports of UDP wait in their sockets, or no longer. */
void host_ports_hold(struct net_host *h, bool hold);
/* Their descriptors stay the caller's. */
void host_ports_disown(struct net_host *h);
void host_ports_free(struct net_host *h);

#endif
