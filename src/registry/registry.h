/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A repository of an image registry: OCI distribution 1.1 and Docker's HTTP API V2, for reading.
 *
 * Theory of operation. A repository is reached through endpoints: the mirrors that config.json
 * names for its registry, in their order, then the registry itself. The first that has the
 * manifest serves the blobs as well; one that fails is replaced by the next, in the middle of a
 * blob if need be, since a blob is known by its digest and continues anywhere by a Range.
 * Digests are verified by whoever takes the bytes (image/).
 *
 * Plain HTTP: for a registry that config.json calls insecure, with registry_options.insecure,
 * and for this machine itself when nothing there speaks TLS.
 *
 *	http.c         msb-fetch, the process that does HTTP
 *	session.c      attempts, failures in words
 *	challenge.c    WWW-Authenticate
 *	auth.c         logins and tokens
 *	credentials.c  where logins are kept; helper.c Docker's programs for that
 *	config.c       $MSB_HOME/config.json
 *
 * Opening and closing belong to one thread, registry_manifest() too; registry_blob*() to any.
 */
#ifndef REGISTRY_REGISTRY_H
#define REGISTRY_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "registry/config.h"
#include "registry/credentials.h"
#include "registry/session.h"

#define REGISTRY_REDIRECTS_MAX 5u

struct registry;

struct registry_options {
	const char *program; /* msb-fetch */
	const char *home;
	const struct registries_config *config;
	bool insecure;			/* plain HTTP */
	const char *const *ca_files;	/* besides those of config.json; NULL-terminated, or NULL */
	const struct credential *login; /* in place of what is kept; NULL: that */
	session_note_fn *note; /* may be NULL; from any of the threads that make requests */
	void *note_arg;
};

/* Repository @path at @domain ("docker.io"). Nothing is asked yet. @o outlives it. */
int registry_open(struct registry **ret, const char *domain, const char *path,
		  const struct registry_options *o, struct err *err);
/* NULL is fine; returns NULL. */
struct registry *registry_close(struct registry *r);
static inline void registry_close_fn(struct registry **r)
{
	registry_close(*r);
}
#define cleanup_registry __attribute__((cleanup(registry_close_fn)))

/* Let everything that is under way fail soon; there is no way back. Any thread. */
void registry_abort(struct registry *r);

struct registry_manifest {
	struct buf bytes;
	char *media_type; /* without parameters; never NULL */
	char *digest;	  /* what the server says it is; NULL: nothing */
};
void registry_manifest_done(struct registry_manifest *m);
#define cleanup_registry_manifest __attribute__((cleanup(registry_manifest_done)))

/* The manifest or index that @ref, a tag or digest, names; at most @max bytes. */
int registry_manifest(struct registry *r, const char *ref, size_t max,
		      struct registry_manifest *ret, struct err *err);
/* A whole small blob. */
int registry_blob(struct registry *r, const char *digest, size_t max, struct buf *ret,
		  struct err *err);
/*
 * A blob of @size bytes (FETCH_UNKNOWN: at most @max) into the pipe @fd, which stays the
 * caller's. Closing the pipe's other end stops it: -ECANCELED.
 */
int registry_blob_stream(struct registry *r, const char *digest, uint64_t size, uint64_t max,
			 int fd, struct err *err);

/* Ask @domain whether it takes this login. *ret_needed: it does want one. */
int registry_check_login(const char *domain, const struct credential *c,
			 const struct registry_options *o, bool *ret_needed, struct err *err);

#endif
