/* SPDX-License-Identifier: Apache-2.0 */
#include "fetch/fetch_msg.h"

#include <string.h>

#include "base/cleanup.h"

#define FIELD(type_, member, kind)                                                                 \
	{                                                                                          \
		.key = #member, .type = kind, .offset = offsetof(struct type_, member)             \
	}
#define TABLE(type_, fields_)                                                                      \
	{                                                                                          \
		.name = #type_, .size = sizeof(struct type_), .fields = fields_,                   \
		.nfields = ARRAY_SIZE(fields_)                                                     \
	}

static const struct wire_field request_fields[] = {
	FIELD(fetch_request, url, WIRE_TEXT),	    FIELD(fetch_request, headers, WIRE_TEXTS),
	FIELD(fetch_request, form, WIRE_BYTES),	    FIELD(fetch_request, from, WIRE_U64),
	FIELD(fetch_request, size, WIRE_U64),	    FIELD(fetch_request, max, WIRE_U64),
	FIELD(fetch_request, connect_ms, WIRE_U32), FIELD(fetch_request, stall_ms, WIRE_U32),
};
static const struct wire_table request_table = TABLE(fetch_request, request_fields);

static const struct wire_field result_fields[] = {
	FIELD(fetch_result, outcome, WIRE_U32),	      FIELD(fetch_result, status, WIRE_U32),
	FIELD(fetch_result, delivered, WIRE_U64),     FIELD(fetch_result, message, WIRE_TEXT),
	FIELD(fetch_result, content_type, WIRE_TEXT), FIELD(fetch_result, location, WIRE_TEXT),
	FIELD(fetch_result, digest, WIRE_TEXT),	      FIELD(fetch_result, challenge, WIRE_TEXTS),
	FIELD(fetch_result, retry_after, WIRE_U32),   FIELD(fetch_result, error_body, WIRE_BYTES),
};
static const struct wire_table result_table = TABLE(fetch_result, result_fields);

void fetch_request_encode(const struct fetch_request *r, struct buf *b)
{
	wire_encode(&request_table, r, b);
}

void fetch_result_encode(const struct fetch_result *r, struct buf *b)
{
	wire_encode(&result_table, r, b);
}

/* A line of its own making could add a header: no control characters in what becomes one. */
static bool one_line(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 32 || *s == 127)
			return false;
	return true;
}

int fetch_request_decode(const void *p, size_t n, struct fetch_request *ret, struct err *err)
{
	struct fetch_request r;
	int code = wire_decode(&request_table, p, n, &r, err);

	if (code < 0)
		return code;
	if (!one_line(r.url))
		code = err_set(err, ERR_PROTOCOL, "a URL holds control characters");
	for (size_t i = 0; code >= 0 && i < r.headers.n; i++)
		if (!one_line(r.headers.v[i]) || !strchr(r.headers.v[i], ':'))
			code = err_set(err, ERR_PROTOCOL, "a header is malformed");
	if (code < 0) {
		fetch_request_done(&r);
		return code;
	}
	*ret = r;
	return 0;
}

int fetch_result_decode(const void *p, size_t n, struct fetch_result *ret, struct err *err)
{
	struct fetch_result r;
	int code = wire_decode(&result_table, p, n, &r, err);

	if (code < 0)
		return code;
	if (r.outcome >= FETCH_OUTCOMES) {
		fetch_result_done(&r);
		return err_set(err, ERR_PROTOCOL, "msb-fetch reports an unknown outcome");
	}
	*ret = r;
	return 0;
}

void fetch_request_done(struct fetch_request *r)
{
	wire_free(&request_table, r);
}

void fetch_result_done(struct fetch_result *r)
{
	wire_free(&result_table, r);
}
