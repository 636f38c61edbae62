/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `msb` and `msb-fetch` say to each other.
 *
 * FETCH_FD_REQUESTS is a sequenced-packet socket. A packet is one fetch_request in CBOR, and with
 * it come two descriptors: a socket of the same kind for the answer to this request alone, and
 * the write end of a pipe for the body of a successful response. The answer is one packet, a
 * fetch_result, after the last byte of the body has been written; then both are closed. So
 * requests need no numbers, any thread may make one, and letting go of either descriptor's other
 * end is how a request is taken back.
 *
 * Both sides hold the other to be hostile: a packet has a largest size, and the decoder checks
 * the rest.
 */
#ifndef FETCH_FETCH_MSG_H
#define FETCH_FETCH_MSG_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "wire/codec.h"

enum { FETCH_FD_REQUESTS = 3, FETCH_FD_ANSWER = 0, FETCH_FD_BODY = 1, FETCH_FDS = 2 };

/* A token and a signed URL are the long parts, some KiB each. Must fit a socket's buffer. */
#define FETCH_PACKET_MAX (128u << 10)
/* What is kept of the body of a refusal: registries say there what was wrong. */
#define FETCH_ERROR_BODY_MAX 8192u
#define FETCH_UNKNOWN	     UINT64_MAX

struct fetch_request {
	char *url;		   /* http or https */
	struct wire_texts headers; /* "Name: value" */
	struct wire_bytes form;	   /* not empty: a POST of this form, else a GET */
	/*
	 * The first byte that is wanted. It is asked for by a Range; when the server sends
	 * everything nevertheless, what is in front of it is dropped.
	 */
	uint64_t from;
	uint64_t size; /* of the whole, or FETCH_UNKNOWN; another one is refused */
	uint64_t max;  /* more bytes than this are refused */
	uint32_t connect_ms, stall_ms;
};

enum fetch_outcome {
	FETCH_ANSWERED,	    /* by the server, in whole; see `status` */
	FETCH_NETWORK,	    /* no connection, or one that broke or stalled: may work later */
	FETCH_NAME,	    /* there is no such host */
	FETCH_CERTIFICATE,  /* the server could not prove who it is */
	FETCH_NOT_TLS,	    /* the other side does not speak TLS */
	FETCH_TOO_LONG,	    /* more than `max`, or endless headers */
	FETCH_OTHER_LENGTH, /* not `size` bytes */
	FETCH_NOT_HTTP,	    /* no sense in the answer, or in the request */
	FETCH_STOPPED,	    /* nobody reads the body */
	FETCH_OUTCOMES
};

struct fetch_result {
	uint32_t outcome;
	uint32_t status;    /* of HTTP; 0: none came */
	uint64_t delivered; /* bytes of body */
	char *message;	    /* of a failure */
	char *content_type;
	char *location;		     /* where a redirection leads, made absolute */
	char *digest;		     /* Docker-Content-Digest */
	struct wire_texts challenge; /* WWW-Authenticate, each time it came */
	uint32_t retry_after;	     /* seconds; 0: nothing was said */
	struct wire_bytes error_body;
};

/* Failure is the buffer's. */
void fetch_request_encode(const struct fetch_request *r, struct buf *b);
void fetch_result_encode(const struct fetch_result *r, struct buf *b);
/* What they point to becomes the caller's. */
int fetch_request_decode(const void *p, size_t n, struct fetch_request *ret, struct err *err);
int fetch_result_decode(const void *p, size_t n, struct fetch_result *ret, struct err *err);
void fetch_request_done(struct fetch_request *r);
void fetch_result_done(struct fetch_result *r);
#define cleanup_fetch_result __attribute__((cleanup(fetch_result_done)))

#endif
