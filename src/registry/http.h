/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP through msb-fetch (fetch/fetch_msg.h): the process, requests, and URLs as far as they
 * decide who gets credentials.
 *
 * Any thread may make requests; starting and stopping belong to one.
 */
#ifndef REGISTRY_HTTP_H
#define REGISTRY_HTTP_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"
#include "fetch/fetch_msg.h"

#define HTTP_URL_MAX 16384u

struct http;

struct http_options {
	const char *program;	     /* msb-fetch */
	const char *const *ca_files; /* besides the system's; NULL-terminated, may be NULL */
};

/*
 * Start the process; it lives no longer than the thread that calls this. ERR_CORRUPT and the like
 * if a file holds no certificates.
 */
int http_start(struct http **ret, const struct http_options *o, struct err *err);
/* NULL is fine; returns NULL. */
struct http *http_stop(struct http *h);
/* End everything that is under way, now. Any thread. */
void http_abort(struct http *h);

/*
 * Make a request whose body goes to @body, the write end of a pipe, which stays the caller's.
 * Returns when all of it has been written. A negative code only if msb-fetch fails us: what the
 * network or the server did is in *ret, which the caller releases with fetch_result_done().
 */
int http_fetch(struct http *h, const struct fetch_request *req, int body, struct fetch_result *ret,
	       struct err *err);
/* The same into @b, at most req->max bytes. */
int http_fetch_small(struct http *h, const struct fetch_request *req, struct buf *b,
		     struct fetch_result *ret, struct err *err);

/* Scheme, host and port of a URL. */
struct http_origin {
	bool tls;
	char host[256]; /* lower case; IPv6 in brackets */
	unsigned port;
};
/* -EINVAL if @url is not http or https, or has a user name in it, or makes no sense. */
int http_origin(const char *url, struct http_origin *ret);
bool http_same_origin(const struct http_origin *a, const struct http_origin *b);
/* "host" or "host:port", as people and references write it. */
char *http_origin_text(const struct http_origin *o, char out[264]);
/* This machine itself: "localhost", 127.0.0.0/8, [::1]. */
bool http_is_loopback(const struct http_origin *o);

#endif
