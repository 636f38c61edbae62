/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How we show a registry who we are: HTTP Basic, or a token from the service that the registry
 * names.
 *
 * Theory of operation. A first request goes without anything. A 401 brings a challenge; its
 * answer becomes the Authorization header of later requests. A token is got anew shortly before
 * it ends, and when the registry turns one down, so that a pull may last longer than a token.
 * The header carries a number: who is turned down with an old one need only use the new one.
 *
 * Where secrets go: to the registry they belong to, and to the token service that this registry
 * names, over TLS; by plain HTTP only if the registry itself may be asked that way. Never along
 * with a redirection to another origin (registry.c).
 *
 * Any thread.
 */
#ifndef REGISTRY_AUTH_H
#define REGISTRY_AUTH_H

#include <pthread.h>

#include "registry/challenge.h"
#include "registry/credentials.h"
#include "registry/session.h"

#define TOKEN_ANSWER_MAX (256u << 10)
#define TOKEN_MAX	 (64u << 10)
/* What a token lasts when nothing is said, and at least; the distribution's documentation. */
#define TOKEN_SECONDS 60u
/* Got anew this long before its end. */
#define TOKEN_MARGIN_SECONDS 10u
/* Challenges answered for one request. */
#define AUTH_ROUNDS 2u

struct auth {
	struct session *session;
	const char *scope; /* "repository:NAME:pull"; NULL: none */
	const char *host;  /* whose login */
	const char *home;  /* where logins are looked for, when one is asked for */
	const struct registries_config *config;
	bool plain_ok; /* secrets may go by plain HTTP */

	pthread_mutex_t lock;	/* guards what follows, and is held while a token is got */
	struct credential cred; /* may be empty */
	bool looked;		/* for it */
	struct challenge challenge;
	char *header; /* "Authorization: …", or NULL */
	uint64_t number;
	uint64_t renew_at; /* now_ns(); 0: never */
};

/* What the fields above the lock say; they outlive @a. */
void auth_init(struct auth *a, const struct auth *fields);
void auth_done(struct auth *a);

/*
 * The header to send, the caller's to free, NULL for none; *ret_number for auth_answer(). Renews
 * a token that ends soon.
 */
int auth_header(struct auth *a, char **ret, uint64_t *ret_number, struct err *err);
/* A request that was sent with header @number got a 401 with these challenges: get a new header. */
int auth_answer(struct auth *a, const struct wire_texts *challenges, bool tls, uint64_t number,
		struct err *err);

#endif
