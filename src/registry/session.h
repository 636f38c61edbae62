/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that are made again when that may help, and failures in words.
 *
 * What may help: the network failed or stalled, or the server says it is busy (429, 5xx). The
 * pauses double from RETRY_FIRST_MS on, with jitter so that many clients do not come back at
 * once, or are what the server asks for. Something that makes no progress ends after
 * RETRY_TRIES attempts; a server that does not answer at all after the second one that takes it
 * beyond RETRY_DEAD_MS. Any thread.
 */
#ifndef REGISTRY_SESSION_H
#define REGISTRY_SESSION_H

#include "registry/http.h"

#define RETRY_FIRST_MS	   250u
#define RETRY_PAUSE_MAX_MS 8000u
#define RETRY_ASKED_MAX	   120u /* seconds; a server that wants more is told to the user */
#define RETRY_TRIES	   5u
/* Attempts in all, however much each of them brought. */
#define RETRY_ALL 200u
/* Less than this is no progress: a server that sends a byte at a time is not getting anywhere. */
#define RETRY_PROGRESS (256u << 10)

#define RETRY_DEAD_MS 15000u

#define CONNECT_MS 10000u
#define STALL_MS   30000u

/* Something a person would like to know; @text is one line. */
typedef void session_note_fn(void *arg, const char *text);

struct session {
	struct http *http;
	int stop; /* eventfd: readable when nothing is to be tried again */
	unsigned connect_ms, stall_ms;
	session_note_fn *note; /* may be NULL; called from the requesting thread */
	void *note_arg;
};

struct retry {
	unsigned tries, all;
	uint64_t since; /* when the first attempt without progress began; now_ns() to begin with */
};

/* Is what came of asking @url worth another attempt? */
bool session_worth_retry(const struct fetch_result *res, const char *url);
/*
 * Wait before the next attempt; @got bytes is what the last one brought. 0: go on. -ECANCELED:
 * nobody reads from pipe @watch (-1: none) any more. -ETIMEDOUT: enough.
 */
int session_pause(struct session *s, struct retry *r, const struct fetch_result *res,
		  const char *url, uint64_t got, int watch);

/* http_fetch_small() with such attempts. A negative code only if msb-fetch fails. */
int session_get(struct session *s, struct fetch_request *req, struct buf *b,
		struct fetch_result *ret, struct err *err);

/* @res, which is no success, as an error. @what: of what @url was asked. Returns its code. */
int session_error(const struct fetch_result *res, const char *url, const char *what,
		  struct err *err);

#endif
