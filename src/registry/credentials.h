/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who we are at a registry. Looked for in this order:
 *
 *	1. what `msb registry login` stored: $MSB_HOME/registry-auth.json (0600), or the
 *	   credential helper that config.json names
 *	2. hosts{HOST}.auth of $MSB_HOME/config.json
 *	3. Docker's: $DOCKER_CONFIG/config.json or ~/.docker/config.json, with its credHelpers,
 *	   credsStore and auths
 *	4. nobody
 *
 * Our file has the form of Docker's `auths`. Helpers are the docker-credential-NAME programs,
 * spoken to over pipes. Docker keeps the login to docker.io under another name.
 *
 * Writing is serialised by a lock beside the file. Any thread.
 */
#ifndef REGISTRY_CREDENTIALS_H
#define REGISTRY_CREDENTIALS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "registry/config.h"

#define CREDENTIALS_FILE_MAX (4u << 20)
#define CREDENTIAL_MAX	     8192u /* a user's name, password or token */
#define DOCKER_HUB	     "docker.io"
#define DOCKER_HUB_KEY	     "https://index.docker.io/v1/"

struct credential {
	char *username, *password;
	char *identity_token; /* OAuth2 refresh token, in place of a password */
	const char *source;   /* for people; static */
};
void credential_done(struct credential *c);
#define cleanup_credential __attribute__((cleanup(credential_done)))
static inline bool credential_empty(const struct credential *c)
{
	return !c->username && !c->identity_token;
}

/* An empty *ret when nobody knows any. */
int credential_find(const char *home, const struct registries_config *c, const char *host,
		    struct credential *ret, struct err *err);
int credential_store(const char *home, const struct registries_config *c, const char *host,
		     const struct credential *what, struct err *err);
/* 1 when there was one, 0 when not. */
int credential_erase(const char *home, const struct registries_config *c, const char *host,
		     struct err *err);

struct credential_entry {
	char *host, *username;
	const char *source; /* static */
};
struct credential_list {
	struct credential_entry *items;
	size_t count;
};
/* Ours and Docker's, sorted by host. Helpers are not asked: they might ask a person. */
int credential_list(const char *home, const struct registries_config *c,
		    struct credential_list *ret, struct err *err);
void credential_list_done(struct credential_list *l);

/* --- For tests: the entry of @host in a file like Docker's --- */
int credential_parse(const char *json, size_t n, const char *host, struct credential *ret,
		     char **ret_helper, struct err *err);

#endif
