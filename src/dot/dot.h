/* SPDX-License-Identifier: Apache-2.0 */
/*
 * msb-dot, the program that speaks TLS to name servers (RFC 7858), so that msb-vm links none of it.
 *
 * Theory of operation. msb-vm starts it before its jail is built, if a name server is to be asked
 * over TLS; it reads the authorities that the host trusts, as OpenSSL finds them (SSL_CERT_FILE,
 * SSL_CERT_DIR), says that it is ready, and gives up all but the socket at DOT_FD. Over that comes
 * one packet for each connection, a struct dot_server with two descriptors: a connection to the
 * server, which msb-vm has made, through a proxy or not, and one end of a pair of sockets. A
 * process of its own secures the first and passes bytes on between both. So what reads a server's
 * bytes can neither open nor connect anything, has the one connection that it was made for, and
 * knows nothing of names; which server is asked what, again or not, is msb-vm's (net/dns_tls.h).
 *
 * The first message to msb-vm on the pair is empty when the server is who it should be, else what
 * is wrong, in words, and the end. All of it ends with msb-vm.
 */
#ifndef DOT_DOT_H
#define DOT_DOT_H

#include <stdbool.h>

#include "base/err.h"

enum {
	/* A socket of packets. The first is from msb-dot: a zero when it is ready, else words. */
	DOT_FD = 3,
	DOT_WORDS_MAX = 512,
	DOT_NAME_MAX = 254,
	/* One for each server, and those that have not yet seen their end. */
	DOT_CONNECTIONS_MAX = 32,
};

/* Whom the certificate has to be of; both end with a zero. */
struct dot_server {
	char name[DOT_NAME_MAX + 1]; /* empty: of the address */
	char address[46];
};

enum dot_fd { DOT_FD_SERVER, DOT_FD_PLAIN, DOT_FDS };

/* ---- between the files of msb-dot ---- */

struct ssl_ctx_st;

/* The authorities of the host, all of them in memory. */
int dot_trust(struct ssl_ctx_st *ctx, struct err *err);
/* Nothing is left but descriptors and memory; to @may_fork processes, too. */
int dot_walls(bool may_fork);
/* Until one of the two ends. */
void dot_serve(struct ssl_ctx_st *ctx, const struct dot_server *to, int server, int plain);

#endif
