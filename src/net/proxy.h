/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A proxy between the sandbox and the world: SOCKS 5 (RFC 1928, 1929), SOCKS 4, or HTTP's CONNECT
 * (RFC 9110, 9.3.6).
 *
 * Theory of operation. A connection of the guest's is one to the proxy, over which a dialogue asks
 * for the real one. It is over before the guest hears that it is connected, so a refusal is that of
 * its connect(). The proxy gets addresses, never names: the policy has judged an address, and a
 * proxy that looked the name up again could find another one. Nothing that belongs to the guest is
 * read: a dialogue takes from the socket exactly what is its own.
 *
 * UDP goes through one of SOCKS 5 if that relays it (net/associate.h). Other datagrams have no way
 * out where there is a proxy, and questions for names go to their servers over TCP. The host itself
 * is reached without it.
 *
 * Plain data; a dialogue belongs to the thread of its socket.
 */
#ifndef NET_PROXY_H
#define NET_PROXY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "net/addr.h"

enum net_proxy_kind { NET_PROXY_NONE, NET_PROXY_SOCKS4, NET_PROXY_SOCKS5, NET_PROXY_HTTP };

/* Of SOCKS 5, which has a byte for their length. */
#define NET_PROXY_WORD_MAX 255

struct net_proxy {
	enum net_proxy_kind kind;
	struct net_addr addr;
	uint16_t port;
	/* Empty: none. SOCKS 4 has no password. */
	char user[NET_PROXY_WORD_MAX + 1], password[NET_PROXY_WORD_MAX + 1];
};

/* "socks5://IP:PORT", socks4, http; an IPv6 address in brackets. ERR_USAGE with a hint. */
int net_proxy_parse(const char *text, struct net_proxy *ret, struct err *err);
/* Who we are there. ERR_USAGE when the proxy could not be told. */
int net_proxy_login(struct net_proxy *p, const char *user, const char *password, struct err *err);

/* Does a connection to @to go through it? */
bool net_proxy_serves(const struct net_proxy *p, const struct net_addr *to);

struct net_dialogue;

/*
 * NULL: no memory. @p is borrowed. Without @to the dialogue is for a relay of datagrams, which only
 * SOCKS 5 has; -EACCES when the proxy does not do that.
 */
struct net_dialogue *net_dialogue_new(const struct net_proxy *p, const struct net_addr *to,
				      uint16_t port);
struct net_dialogue *net_dialogue_free(struct net_dialogue *d);
/*
 * Go on with @fd, a connection to the proxy that does not block. 1: the real one is made, and all
 * that comes belongs to it. 0: there is something to wait for, to send if net_dialogue_sends().
 * -errno as connect() would have it.
 */
int net_dialogue_run(struct net_dialogue *d, int fd);
bool net_dialogue_sends(const struct net_dialogue *d);
/* How many bytes it took from the socket. */
size_t net_dialogue_taken(const struct net_dialogue *d);
/* Where the relay is. */
void net_dialogue_relay(const struct net_dialogue *d, struct net_addr *a, uint16_t *port);

/* What a relay's datagrams begin with: their length. */
#define NET_DATAGRAM_HEAD 22
size_t net_datagram_head(uint8_t head[NET_DATAGRAM_HEAD], const struct net_addr *to, uint16_t port);
/* Of one from there; 0 when it is none, or one that has no address. */
size_t net_datagram_open(const uint8_t *p, size_t n, struct net_addr *from, uint16_t *port);

#endif
