/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of the name service. */
#ifndef NET_RESOLVER_IMPL_H
#define NET_RESOLVER_IMPL_H

#include <sys/queue.h>

#include "net/resolver.h"

#define MS     ((uint64_t)1000000)
#define SECOND (1000 * MS)

/* What is asked for; answers are kept by it. */
struct dns_key {
	struct dns_name name;
	uint16_t type;
	bool dnssec_ok, unchecked;
};

/* An answer: records one after another, see resolver_cache.c. */
struct dns_entry {
	LIST_ENTRY(dns_entry) bucket;
	TAILQ_ENTRY(dns_entry) age;
	struct dns_key key;
	uint8_t rcode;
	bool authentic;
	bool emptied; /* there were addresses, and none that may be told */
	uint64_t born, until;
	size_t n, max;
	uint8_t *records;
};

struct dns_piece {
	enum dns_section section;
	struct dns_name name;
	uint16_t type, len;
	uint32_t ttl;
	const uint8_t *data;
};

/* What a kept record needs besides its name and data. */
enum { DNS_PIECE_HEAD = 10 };

struct dns_cache {
	LIST_HEAD(, dns_entry) bucket[512];
	TAILQ_HEAD(, dns_entry) age; /* the one that was of use last, last */
	unsigned n;
	size_t bytes;
};

/* A question of the guest. */
struct asker {
	TAILQ_ENTRY(asker) list;
	void *who;
	uint16_t id, flags;
	uint8_t proto;
	bool edns;
	size_t max; /* how long an answer may be */
	struct dns_name asked;
	struct dns_key key;
};

struct attempt {
	bool on, tcp, edns;
	uint8_t server;
	uint16_t id;
};

struct query {
	bool on;
	struct dns_key key;
	uint64_t begun, next;
	unsigned tries, naskers;
	unsigned hopeless; /* servers that will not know, as bits */
	uint8_t order[RESOLVER_SERVERS_MAX];
	struct attempt attempt[RESOLVER_TRIES];
	TAILQ_HEAD(, asker) askers;
};

struct bucket {
	uint64_t at; /* when it was looked at last */
	uint64_t left;
	bool used;
};

struct resolver {
	struct resolver_config config;
	const struct net_policy *policy;
	struct names *names;
	const struct resolver_ops *ops;
	void *arg;
	uint64_t now;
	struct resolver_stats stats;
	struct dns_cache cache;
	struct query query[RESOLVER_QUERIES];
	unsigned busy, askers;
	uint64_t silent[RESOLVER_SERVERS_MAX]; /* until when a server is asked last */
	struct bucket questions, bytes[256];
	uint8_t out[DNS_MESSAGE_MAX];
};

/* ---- resolver_cache.c ---- */

void cache_init(struct dns_cache *c);
void cache_done(struct dns_cache *c);
struct dns_entry *cache_find(struct dns_cache *c, const uint8_t seed[16], const struct dns_key *key,
			     uint64_t now);
/* It becomes the cache's, which may let go of it as soon as anything else is done with it. */
void cache_put(struct dns_cache *c, const uint8_t seed[16], struct dns_entry *e);

struct dns_entry *entry_new(const struct dns_key *key, uint64_t now);
void entry_free(struct dns_entry *e);
/* -ENOMEM, -ENOSPC. */
int entry_add(struct dns_entry *e, const struct dns_piece *p);
/* The record at *at, which then is behind it; false at the end. */
bool entry_next(const struct dns_entry *e, size_t *at, struct dns_piece *ret);
/* How long it holds, by its records and what an answer without any says (RFC 2308). */
void entry_settle(struct dns_entry *e);

/* ---- resolver_reply.c ---- */

/*
 * What a server said about @key: 1 and an entry; 0 when it is cut short; -EREMOTEIO when its code
 * is neither success nor NXDOMAIN; -EBADMSG when it makes no sense. *rcode is that code.
 */
int reply_read(struct resolver *r, const struct dns_key *key, struct dns_reader *m,
	       struct dns_entry **ret, uint8_t *rcode);
/* The addresses in a record; those of SVCB are its hints. Calls @fn until it says false. */
bool piece_addresses(const struct dns_piece *p, bool (*fn)(void *arg, const struct net_addr *a),
		     void *arg);

/* ---- resolver_query.c ---- */

/* False when there is no room for it. The asker becomes the query's. */
bool query_add(struct resolver *r, struct asker *a);

/* ---- resolver.c ---- */

/* What a server said, to one who may have it by now. */
void answer_from(struct resolver *r, const struct asker *a, const struct dns_entry *e);
/* No answer; @ede and @why as in dns_write_edns(). */
void answer_nothing(struct resolver *r, const struct asker *a, uint8_t rcode, int ede,
		    const char *why);
void asker_free(struct resolver *r, struct asker *a);

#endif
