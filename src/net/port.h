/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports of the host that lead into a guest: what they are called, and their sockets.
 *
 * Plain data; any thread.
 */
#ifndef NET_PORT_H
#define NET_PORT_H

#include <stdint.h>

#include "base/err.h"
#include "net/addr.h"

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

#endif
