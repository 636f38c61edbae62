/* SPDX-License-Identifier: Apache-2.0 */
/* One connection: its handshake, then bytes in both directions. */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "dot/dot.h"

struct way {
	uint8_t b[16384];
	size_t at, n; /* what is still to be passed on */
};

struct conn {
	SSL *ssl;
	int server, plain;
	short wants;	     /* of the server's socket, for TLS to go on */
	struct way up, down; /* to the server, from it */
};

static void greet(const struct conn *c, const char *words)
{
	const size_t n = strlen(words);
	const uint8_t head[2] = {(uint8_t)(n >> 8), (uint8_t)n};

	/* The first there is: it fits, or nobody is there. */
	if (send(c->plain, head, sizeof(head), MSG_NOSIGNAL) == sizeof(head) && n)
		(void)!send(c->plain, words, n, MSG_NOSIGNAL);
}

static bool expect(struct conn *c, const struct dot_server *to)
{
	static const uint8_t dot[] = {3, 'd', 'o', 't'};
	X509_VERIFY_PARAM *p = SSL_get0_param(c->ssl);

	/* The name of the protocol is no condition: few servers know it. */
	if (SSL_set_alpn_protos(c->ssl, dot, sizeof(dot)) != 0)
		return false;
	SSL_set_verify(c->ssl, SSL_VERIFY_PEER, NULL);
	if (!*to->name)
		return X509_VERIFY_PARAM_set1_ip_asc(p, to->address);
	X509_VERIFY_PARAM_set_hostflags(p, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set1_host(c->ssl, to->name) && SSL_set_tlsext_host_name(c->ssl, to->name);
}

/* 1: it is done; 0: not yet, see wants; -1: it cannot be, or there is no more. */
static int result(struct conn *c, int r)
{
	if (r > 0)
		return 1;
	switch (SSL_get_error(c->ssl, r)) {
	case SSL_ERROR_WANT_READ:
		c->wants |= POLLIN;
		return 0;
	case SSL_ERROR_WANT_WRITE:
		c->wants |= POLLOUT;
		return 0;
	default:
		return -1;
	}
}

static const char *why_not(const struct conn *c, int error, char *text, size_t max)
{
	const long verdict = SSL_get_verify_result(c->ssl);
	const char *reason = ERR_reason_error_string(ERR_peek_error());

	if (verdict != X509_V_OK)
		snprintf(text, max, "its certificate is refused: %s",
			 X509_verify_cert_error_string(verdict));
	else if (reason)
		snprintf(text, max, "no TLS: %s", reason);
	else if (error)
		snprintf(text, max, "no TLS: %s", err_name(error));
	else
		snprintf(text, max, "no TLS: the server ended the connection");
	return text;
}

/* False: whoever wanted it is gone, or has been told why it cannot be. */
static bool handshake(struct conn *c)
{
	char text[DOT_WORDS_MAX];

	for (;;) {
		struct pollfd p[2] = {{.fd = c->server}, {.fd = c->plain}};
		int r;

		c->wants = 0;
		errno = 0;
		r = result(c, SSL_do_handshake(c->ssl));
		if (r < 0)
			greet(c, why_not(c, errno, text, sizeof(text)));
		else if (r > 0)
			greet(c, "");
		if (r)
			return r > 0;
		p[0].events = c->wants;
		if (poll(p, 2, -1) < 0 || p[1].revents & (POLLHUP | POLLERR))
			return false;
	}
}

/* As far as it goes; false at the end. */
static bool go_up(struct conn *c)
{
	struct way *w = &c->up;

	if (!w->n) {
		ssize_t got = recv(c->plain, w->b, sizeof(w->b), MSG_DONTWAIT);

		if (got <= 0)
			return got < 0 && errno == EAGAIN;
		w->at = 0;
		w->n = (size_t)got;
	}
	while (w->n) {
		size_t n;
		int r = result(c, SSL_write_ex(c->ssl, w->b + w->at, w->n, &n));

		if (r <= 0)
			return r == 0;
		w->at += n;
		w->n -= n;
	}
	return true;
}

static bool go_down(struct conn *c)
{
	struct way *w = &c->down;

	for (;;) {
		ssize_t n;

		if (!w->n) {
			size_t got;
			int r = result(c, SSL_read_ex(c->ssl, w->b, sizeof(w->b), &got));

			if (r <= 0)
				return r == 0;
			w->at = 0;
			w->n = got;
		}
		n = send(c->plain, w->b + w->at, w->n, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0)
			return errno == EAGAIN;
		w->at += (size_t)n;
		w->n -= (size_t)n;
	}
}

static void pump(struct conn *c)
{
	for (;;) {
		struct pollfd p[2] = {{.fd = -1}, {.fd = c->plain}};

		ERR_clear_error();
		c->wants = 0;
		if (!go_up(c) || !go_down(c))
			return;
		/* A server that has gone is not seen while its last words cannot be passed on. */
		if (c->wants)
			p[0] = (struct pollfd){c->server, c->wants, 0};
		p[1].events = (short)((c->up.n ? 0 : POLLIN) | (c->down.n ? POLLOUT : 0));
		if (poll(p, 2, -1) < 0 || p[1].revents & (POLLHUP | POLLERR))
			return;
	}
}

void dot_serve(SSL_CTX *ctx, const struct dot_server *to, int server, int plain)
{
	static struct conn c;

	c = (struct conn){.ssl = SSL_new(ctx), .server = server, .plain = plain};
	if (!c.ssl || !SSL_set_fd(c.ssl, server) || !expect(&c, to)) {
		greet(&c, "no TLS: out of memory");
		return;
	}
	SSL_set_connect_state(c.ssl);
	if (!handshake(&c))
		return;
	pump(&c);
	(void)SSL_shutdown(c.ssl);
}
