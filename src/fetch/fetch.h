/* SPDX-License-Identifier: Apache-2.0 */
/*
 * msb-fetch: HTTP for msb, in a process that can do nothing else.
 *
 * libcurl and TLS face strangers on the network; msb, which holds the store and the user's files,
 * does not link them. This program knows nothing of registries: it fetches one URL per request
 * and hands the body on as it comes (fetch_msg.h).
 *
 * Theory of operation. One thread, one loop; libcurl tells which sockets and timer it wants
 * watched. A body goes from the socket into the request's pipe without being collected: when the
 * pipe is full the transfer pauses and TCP makes the server wait, so that memory is one socket
 * buffer and one piece of body per transfer. That is why HTTP/2 is not used: there curl has to
 * take what other streams of the connection send while one of them pauses. Redirections are not
 * followed: whether credentials may go along is for msb to say.
 *
 * It ends with its parent: by the end of the request socket, or by the signal that the kernel
 * sends when the parent is gone. Transfers that are under way end with it.
 */
#ifndef FETCH_FETCH_H
#define FETCH_FETCH_H

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"
#include "fetch/fetch_msg.h"

/* Requests being served; further ones wait in the socket. */
#define FETCH_TRANSFERS_MAX 64u
/* All headers of one response. */
#define FETCH_HEADERS_MAX (64u << 10)

struct transfer;

struct fetch {
	struct loop *loop;
	void *multi; /* CURLM */
	struct loop_source requests;
	struct loop_timer timer;
	struct buf roots;      /* certificates to trust, PEM; empty: those in root_file */
	const char *root_file; /* NULL: curl's own choice */
	struct transfer *dirty;
	unsigned transfers;
};

/* --- transfer.c: one request --- */

/* Serve @req, which is taken over like the descriptors. Failures are answered. */
void transfer_start(struct fetch *f, struct fetch_request *req, int answer, int body);
/* After anything that made curl work: what came goes into the pipes, what ended is answered. */
void transfer_turn(struct fetch *f);
/* main.c: one of them has gone. */
void fetch_transfer_ended(struct fetch *f);

/* --- confine.c --- */

/*
 * Give up what HTTP does not need: new programs, writing files, reading those of the user. Best
 * effort: an old kernel has less to offer.
 */
void fetch_confine(void);

#endif
