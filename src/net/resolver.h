/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The name service at a sandbox's gateway, without sockets, threads or a clock: whoever runs it
 * gives it questions of the guest, replies of servers and the time, and does what it asks for
 * through struct resolver_ops. net/dns_host.h does.
 *
 * Theory of operation. A question is read and made sense of; what the policy does not let the guest
 * ask is refused here. What is known (the host's name, names of the configuration, what was asked
 * before) is answered at once. Else a query begins, to which others who ask the same are added. It
 * asks the first server; after a while without an answer it asks the next one as well, and whoever
 * answers first is believed. A server that kept silent is asked last for some time. An answer that
 * was cut short is asked for over TCP.
 *
 * Replies are taken apart and put together anew. Records that do not lead from the name that was
 * asked are left out, and so are addresses that no name of the world should have (rebinding).
 * Whatever address the guest is told is pinned to the name (net/names.h) before it is told, for the
 * time that it is told.
 *
 * Who asks without EDNS is one of the C libraries' resolvers, to which REFUSED means to wait for
 * others to answer (musl: 5.0 s, and then EAI_AGAIN) or to try again (glibc: at once, EAI_AGAIN).
 * To them a name that is denied does not exist, which both believe at once; who can hear it gets
 * REFUSED and the reason (RFC 8914).
 *
 * Against data that leaves as names: only so many questions a second go to servers, and only so
 * many bytes in what stands before the last two labels of names.
 *
 * All on one thread. Times are nanoseconds of any clock that does not go back.
 */
#ifndef NET_RESOLVER_H
#define NET_RESOLVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "net/addr.h"
#include "net/names.h"
#include "net/policy.h"
#include "wire/dns.h"

struct resolver;

enum {
	RESOLVER_SERVERS_MAX = 8,
	RESOLVER_HOSTS_MAX = 128,
	/* Queries at a time, and attempts at each. */
	RESOLVER_QUERIES = 256,
	RESOLVER_TRIES = 6,
	RESOLVER_TIMEOUT_MS = 5000,
	/* What the guest is told of how long an answer holds, in seconds. */
	RESOLVER_TTL_MIN = 5,
	RESOLVER_TTL_MAX = 3600,
};

enum resolver_transport {
	RESOLVER_UDP, /* and TCP for what is too long */
	RESOLVER_TCP,
	RESOLVER_TLS,
};

struct resolver_server {
	enum resolver_transport transport;
	struct net_addr addr;
	uint16_t port;
	char name[DNS_NAME_MAX]; /* TLS: whom the certificate has to be of; empty: of the address */
	char host[DNS_NAME_MAX]; /* what has the address, which is then yet to be found; or empty */
};

struct resolver_host {
	struct dns_name name;
	struct net_addr addr;
};

struct resolver_config {
	struct resolver_server server[RESOLVER_SERVERS_MAX];
	unsigned nservers;
	bool hosts_may;	      /* say a server by its name: see resolver_server.host */
	uint64_t timeout;     /* of a query; 0: RESOLVER_TIMEOUT_MS */
	bool private_answers; /* names of the world may have addresses that are not public */
	bool strict; /* names are looked for in what is sent: nothing may help to hide them */
	struct resolver_host host[RESOLVER_HOSTS_MAX];
	unsigned nhosts;
	uint8_t seed[16];
};

enum resolver_news_kind {
	RESOLVER_DENIED,  /* a question, by the policy or for its answer */
	RESOLVER_LIMITED, /* a question */
	RESOLVER_SERVER,  /* one over TLS is no good */
};

/* What became of a question, or of a server, for a log. */
struct resolver_news {
	enum resolver_news_kind kind;
	const struct dns_name *name;
	const char *server; /* RESOLVER_SERVER: as resolver_add_server() has it */
	const char *why;    /* static, but of a server */
};
typedef void resolver_news_fn(void *arg, const struct resolver_news *n);

struct resolver_ops {
	/*
	 * Send @m to a server. Then comes resolver_reply() or resolver_failed() for @slot, which
	 * is below RESOLVER_QUERIES * RESOLVER_TRIES, until drop(). -errno.
	 */
	int (*ask)(void *arg, unsigned slot, unsigned server, bool tcp, const void *m, size_t n);
	void (*drop)(void *arg, unsigned slot);
	/* For who asked, within resolver_ask() if it is known. Not to call back. */
	void (*answer)(void *arg, void *asker, const void *m, size_t n);
	/* Not to be guessed. */
	uint16_t (*random)(void *arg);
	/* May be NULL. */
	resolver_news_fn *news;
};

struct resolver_stats {
	uint64_t questions, asked, cached, denied, limited, failed, malformed;
	uint64_t rebound; /* addresses left out */
};

/* @ops, @arg and @names are borrowed, and so is @policy, which may change its contents. */
int resolver_new(const struct resolver_config *config, const struct net_policy *policy,
		 struct names *names, const struct resolver_ops *ops, void *arg,
		 struct resolver **ret, struct err *err);
/* NULL is fine. Returns NULL. */
struct resolver *resolver_free(struct resolver *r);

/* @proto: NET_UDP or NET_TCP. False: no answer will come. */
bool resolver_ask(struct resolver *r, void *asker, uint8_t proto, const void *m, size_t n,
		  uint64_t now);
/* Who asked is gone. */
void resolver_forget(struct resolver *r, const void *asker);

void resolver_reply(struct resolver *r, unsigned slot, const void *m, size_t n, uint64_t now);
void resolver_failed(struct resolver *r, unsigned slot, uint64_t now);

/* When resolver_tick() is due; 0 when never. */
uint64_t resolver_next(const struct resolver *r);
void resolver_tick(struct resolver *r, uint64_t now);

const struct resolver_stats *resolver_stats(const struct resolver *r);

#define RESOLVER_TLS_SCHEME "tls://"
/*
 * "IP", "IP:PORT", "[IP6]:PORT", with udp://, tcp:// or tls:// in front; of tls #NAME behind. With
 * @c->hosts_may "tls://HOST", "tls://HOST:PORT", too, whose certificate has to be of the host.
 */
int resolver_add_server(struct resolver_config *c, const char *text, struct err *err);
/* "NAME:IP". */
int resolver_add_host(struct resolver_config *c, const char *text, struct err *err);

#endif
