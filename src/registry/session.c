/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/session.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "base/str.h"
#include "registry/json.h"

/*
 * A handshake that broke off may have been the network, if there is one in between; a server that
 * answered it with something else will do so again.
 */
static bool broken_handshake(const struct fetch_result *res, const char *url)
{
	struct http_origin o;

	return res->outcome == FETCH_NOT_TLS && http_origin(url, &o) >= 0 &&
	       !http_is_loopback(&o) && res->message &&
	       !strstr(res->message, "wrong version number");
}

bool session_worth_retry(const struct fetch_result *res, const char *url)
{
	if (res->outcome == FETCH_ANSWERED)
		return res->status == 408 || res->status == 429 || res->status == 500 ||
		       (res->status >= 502 && res->status <= 504);
	/* No such host: the resolver has tried for long enough. */
	return res->outcome == FETCH_NETWORK || broken_handshake(res, url);
}

static const char *host_of(const char *url, char out[264])
{
	struct http_origin o;

	return http_origin(url, &o) < 0 ? "the registry" : http_origin_text(&o, out);
}

/* What a server says about its refusal: {"errors": [{"code": …, "message": …}]} or one line. */
static void explain(const struct fetch_result *res, char out[200])
{
	const char *p = (const char *)res->error_body.p;
	cleanup_json json_t *root = p ? json_loadb(p, res->error_body.n, 0, NULL) : NULL;
	const json_t *first = json_array_get(json_object_get(root, "errors"), 0);
	const char *text = json_string_value(json_object_get(first, "message"));

	if (!text)
		text = json_string_value(json_object_get(first, "code"));
	if (!text)
		text = json_string_value(json_object_get(root, "details"));
	snprintf(out, 200, "%s%s", text ? ": " : "", text ? text : "");
}

static int status_error(const struct fetch_result *res, const char *host, const char *what,
			struct err *err)
{
	char why[200];

	explain(res, why);
	switch (res->status) {
	case 401:
	case 403:
		err_set(err, EACCES, "%s denies access to %s%s", host, what, why);
		return err_hint(err, "check the name, and log in if need be: msb registry login %s",
				host);
	case 404:
		err_set(err, ERR_NOT_FOUND, "%s has no %s%s", host, what, why);
		return err_hint(err, "check name and tag");
	case 429:
		err_set(err, EAGAIN, "%s has had too many requests%s", host, why);
		if (res->retry_after)
			return err_hint(err, "try again in %u seconds, or log in",
					res->retry_after);
		return err_hint(err, "try again later, or log in");
	default:
		err_set(err, EIO, "%s answered %u when asked for %s%s", host, res->status, what,
			why);
		return res->status >= 500 ? err_hint(err, "try again later") : -EIO;
	}
}

int session_error(const struct fetch_result *res, const char *url, const char *what,
		  struct err *err)
{
	const char *message = res->message && res->message[0] ? res->message : "it failed";
	char host_text[264];
	const char *host = host_of(url, host_text);

	switch (res->outcome) {
	case FETCH_ANSWERED:
		return status_error(res, host, what, err);
	case FETCH_NETWORK:
		err_set(err, ENETUNREACH, "cannot get %s from %s: %s", what, host, message);
		return err_hint(err, "check the network, and the proxy if there is one");
	case FETCH_NAME:
		err_set(err, ENETUNREACH, "cannot reach %s: %s", host, message);
		return err_hint(err, "check the registry's name and the network");
	case FETCH_CERTIFICATE:
		err_set(err, EACCES, "cannot trust %s: %s", host, message);
		return err_hint(err, "name its authority's certificate: --ca-certs FILE");
	case FETCH_NOT_TLS:
		err_set(err, EPROTO, "%s does not speak TLS: %s", host, message);
		return err_hint(err, "if it is meant to be asked by plain HTTP: --insecure");
	case FETCH_TOO_LONG:
	case FETCH_OTHER_LENGTH:
		err_set(err, ERR_CORRUPT, "%s sent a wrong length of %s: %s", host, what, message);
		return err_hint(err, "the registry is damaged or means harm");
	case FETCH_STOPPED:
		return err_set(err, ECANCELED, "the download of %s was stopped", what);
	default:
		return err_set(err, ERR_PROTOCOL, "cannot make sense of %s: %s", host, message);
	}
}

static unsigned pause_ms(const struct retry *r, const struct fetch_result *res)
{
	const unsigned doublings = MIN(r->tries, 10u);
	unsigned ms = MIN(RETRY_FIRST_MS << doublings, RETRY_PAUSE_MAX_MS);
	uint16_t random = 0;

	if (res->outcome == FETCH_ANSWERED && res->retry_after)
		ms = res->retry_after * 1000;
	(void)!getrandom(&random, sizeof(random), 0);
	/* Not earlier than asked; half of what is our own choice is chance. */
	return res->retry_after ? ms + random % 250 : ms / 2 + random % (ms / 2);
}

static void note(struct session *s, const struct fetch_result *res, const char *url, unsigned ms)
{
	cleanup_free char *text = NULL;
	char host_text[264];
	const char *host = host_of(url, host_text);

	if (!s->note)
		return;
	if (res->outcome == FETCH_ANSWERED)
		text = str_fmt("%s answered %u; trying again in %.1f s", host, res->status,
			       (double)ms / 1000);
	else
		text = str_fmt("%s: %s; trying again in %.1f s", host,
			       res->message && res->message[0] ? res->message : "it failed",
			       (double)ms / 1000);
	if (text)
		s->note(s->note_arg, text);
}

int session_pause(struct session *s, struct retry *r, const struct fetch_result *res,
		  const char *url, uint64_t got, int watch)
{
	struct pollfd p[] = {{.fd = watch}, {.fd = s->stop, .events = POLLIN}};
	uint64_t end;
	unsigned ms;

	if (got >= RETRY_PROGRESS) {
		r->tries = 0;
		r->since = now_ns();
	}
	if (r->tries && res->outcome == FETCH_NETWORK &&
	    now_ns() - r->since >= (uint64_t)RETRY_DEAD_MS * 1000000)
		return -ETIMEDOUT;
	if (++r->tries >= RETRY_TRIES || ++r->all >= RETRY_ALL ||
	    res->retry_after > RETRY_ASKED_MAX)
		return -ETIMEDOUT;
	ms = pause_ms(r, res);
	note(s, res, url, ms);
	end = now_ns() + (uint64_t)ms * 1000000;
	for (;;) {
		uint64_t now = now_ns();

		if (now >= end)
			return 0;
		if (poll(p, ARRAY_SIZE(p), (int)((end - now) / 1000000) + 1) > 0)
			return -ECANCELED;
	}
}

int session_get(struct session *s, struct fetch_request *req, struct buf *b,
		struct fetch_result *ret, struct err *err)
{
	struct retry retry = {.since = now_ns()};

	req->connect_ms = s->connect_ms;
	req->stall_ms = s->stall_ms;
	for (;;) {
		int r = http_fetch_small(s->http, req, b, ret, err);

		if (r < 0)
			return r;
		if (!session_worth_retry(ret, req->url) ||
		    session_pause(s, &retry, ret, req->url, 0, -1) < 0)
			return 0;
		fetch_result_done(ret);
		buf_reset(b);
	}
}
