/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/auth.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "registry/json.h"

#define SECOND 1000000000ull

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

void auth_init(struct auth *a, const struct auth *fields)
{
	*a = *fields;
	pthread_mutex_init(&a->lock, NULL);
}

static void wipe(char **s)
{
	if (*s)
		explicit_bzero(*s, strlen(*s));
	free(*s);
	*s = NULL;
}

void auth_done(struct auth *a)
{
	wipe(&a->header);
	credential_done(&a->cred);
	pthread_mutex_destroy(&a->lock);
}

static void wipe_fn(char **s)
{
	wipe(s);
}
#define cleanup_secret __attribute__((cleanup(wipe_fn)))

static char *basic_header(const struct credential *c)
{
	cleanup_secret char *plain = str_fmt("%s:%s", c->username, c->password);
	cleanup_secret char *coded = NULL;
	size_t n = plain ? strlen(plain) : 0;

	coded = calloc(1, n / 3 * 4 + 8);
	if (!plain || !coded)
		return NULL;
	EVP_EncodeBlock((unsigned char *)coded, (const unsigned char *)plain, (int)n);
	return str_fmt("Authorization: Basic %s", coded);
}

/* &NAME=VALUE as forms and queries have it */
static void add_field(struct buf *b, const char *name, const char *value)
{
	buf_addf(b, "%s%s=", buf_size(b) ? "&" : "", name);
	for (; *value; value++) {
		unsigned char c = (unsigned char)*value;

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		    strchr("-._~", c))
			buf_add_u8(b, c);
		else
			buf_addf(b, "%%%02X", c);
	}
}

/* A token becomes a header: printable, no blanks. */
static bool token_ok(const char *t)
{
	size_t n = 0;

	for (; t[n]; n++)
		if (t[n] <= ' ' || t[n] > '~')
			return false;
	return n > 0 && n <= TOKEN_MAX;
}

/* The token service's answer into the header. */
static int take_token(struct auth *a, const struct buf *b, struct err *err)
{
	cleanup_json json_t *root =
		json_loadb((const char *)buf_ptr(b), buf_size(b), JSON_DECODE_ANY, NULL);
	const char *token = json_string_value(json_object_get(root, "token"));
	json_int_t seconds = json_integer_value(json_object_get(root, "expires_in"));
	char *header;

	if (!token || !*token)
		token = json_string_value(json_object_get(root, "access_token"));
	if (!token || !token_ok(token))
		return err_set(err, ERR_PROTOCOL, "the token service did not send a usable token");
	header = str_fmt("Authorization: Bearer %s", token);
	if (!header)
		return no_memory(err);
	wipe(&a->header);
	a->header = header;
	if (seconds < (json_int_t)TOKEN_SECONDS)
		seconds = TOKEN_SECONDS;
	seconds = MIN(seconds, (json_int_t)86400 * 365);
	a->renew_at = now_ns() + ((uint64_t)seconds - TOKEN_MARGIN_SECONDS) * SECOND;
	return 0;
}

/* Ask the token service once. With @refresh the identity token goes by a POST, as OAuth2 has it. */
static int ask(struct auth *a, bool refresh, struct fetch_result *res, struct buf *answer,
	       struct err *err)
{
	const struct challenge *c = &a->challenge;
	cleanup_buf struct buf fields = BUF_INIT;
	cleanup_secret char *basic = NULL;
	cleanup_free char *url = NULL;
	char *headers[1];
	struct fetch_request req = {.size = FETCH_UNKNOWN, .max = TOKEN_ANSWER_MAX};
	int r;

	if (c->service[0])
		add_field(&fields, "service", c->service);
	if (a->scope)
		add_field(&fields, "scope", a->scope);
	if (refresh) {
		add_field(&fields, "grant_type", "refresh_token");
		add_field(&fields, "client_id", "microsandbox");
		add_field(&fields, "refresh_token", a->cred.identity_token);
		url = strdup(c->realm);
		req.form = (struct wire_bytes){buf_ptr(&fields), buf_size(&fields)};
	} else {
		char *query;

		if (a->cred.username)
			add_field(&fields, "account", a->cred.username);
		query = buf_cstr(&fields);
		url = query ? str_fmt("%s%s%s", c->realm,
				      !*query		      ? ""
				      : strchr(c->realm, '?') ? "&"
							      : "?",
				      query)
			    : NULL;
		if (a->cred.username && a->cred.password) {
			basic = basic_header(&a->cred);
			if (!basic)
				return no_memory(err);
			headers[0] = basic;
			req.headers = (struct wire_texts){headers, 1};
		}
	}
	if (!url || buf_failed(&fields))
		return no_memory(err);
	req.url = url;
	r = session_get(a->session, &req, answer, res, err);
	if (refresh)
		explicit_bzero(buf_ptr(&fields), buf_size(&fields));
	return r;
}

static int get_token(struct auth *a, struct err *err)
{
	cleanup_fetch_result struct fetch_result res = {0};
	cleanup_buf struct buf answer = BUF_INIT;
	struct http_origin realm;
	int r;

	if (http_origin(a->challenge.realm, &realm) < 0 || strchr(a->challenge.realm, '#'))
		return err_set(err, ERR_PROTOCOL, "its token service \"%.100s\" is not a URL",
			       a->challenge.realm);
	if (!realm.tls && !a->plain_ok) {
		err_set(err, EACCES, "its token service %.100s would be asked without encryption",
			a->challenge.realm);
		return err_hint(err, "if that is meant: --insecure");
	}
	r = ask(a, a->cred.identity_token, &res, &answer, err);
	if (r >= 0 && res.outcome == FETCH_ANSWERED && (res.status == 404 || res.status == 405) &&
	    a->cred.identity_token && a->cred.password) {
		/* One that knows nothing of OAuth2. */
		fetch_result_done(&res);
		buf_reset(&answer);
		r = ask(a, false, &res, &answer, err);
	}
	if (r < 0)
		return r;
	if (res.outcome != FETCH_ANSWERED || res.status != 200) {
		r = session_error(&res, a->challenge.realm, "a token", err);
		if (res.outcome == FETCH_ANSWERED && !credential_empty(&a->cred))
			err_wrap(err, "the login from %s",
				 a->cred.source ? a->cred.source : "the command line");
		return r;
	}
	return take_token(a, &answer, err);
}

static int denied(const struct auth *a, struct err *err)
{
	if (credential_empty(&a->cred)) {
		err_set(err, EACCES, "access denied: a login is needed");
		return err_hint(err, "msb registry login, then try again");
	}
	err_set(err, EACCES, "access denied: the login from %s was turned down",
		a->cred.source ? a->cred.source : "the command line");
	return err_hint(err, "check the name, and log in again: msb registry login");
}

/* A header for the challenge that we have. Called with the lock. */
static int renew(struct auth *a, bool tls, struct err *err)
{
	char *header;
	int r = 0;

	if (!a->looked)
		r = credential_find(a->home, a->config, a->host, &a->cred, err);
	if (r < 0)
		return r;
	a->looked = true;
	if (a->challenge.scheme == CHALLENGE_BEARER) {
		r = get_token(a, err);
		if (r >= 0)
			a->number++;
		return r;
	}
	if (credential_empty(&a->cred) || !a->cred.password || a->header)
		return denied(a, err);
	if (!tls && !a->plain_ok) {
		err_set(err, EACCES, "it wants the password by plain HTTP");
		return err_hint(err, "if that is meant: --insecure");
	}
	header = basic_header(&a->cred);
	if (!header)
		return no_memory(err);
	a->header = header;
	a->number++;
	return 0;
}

int auth_header(struct auth *a, char **ret, uint64_t *ret_number, struct err *err)
{
	int r = 0;

	pthread_mutex_lock(&a->lock);
	if (a->renew_at && now_ns() >= a->renew_at)
		r = renew(a, true, err);
	*ret_number = a->number;
	*ret = NULL;
	if (r >= 0 && a->header) {
		*ret = strdup(a->header);
		if (!*ret)
			r = no_memory(err);
	}
	pthread_mutex_unlock(&a->lock);
	return r;
}

static int take_challenges(struct auth *a, const struct wire_texts *list, struct err *err)
{
	struct challenge best = {0};

	for (size_t i = 0; i < list->n; i++) {
		int r = challenge_offer(list->v[i], &best, err);

		if (r < 0)
			return err_wrap(err, "its WWW-Authenticate");
	}
	if (best.scheme == CHALLENGE_NONE) {
		err_set(err, ERR_UNSUPPORTED, "it denies access without saying how to ask");
		return err_hint(err, "only Basic and Bearer are known");
	}
	a->challenge = best;
	return 0;
}

int auth_answer(struct auth *a, const struct wire_texts *challenges, bool tls, uint64_t number,
		struct err *err)
{
	int r = 0;

	pthread_mutex_lock(&a->lock);
	/* Otherwise another request has got a newer header meanwhile. */
	if (number == a->number) {
		r = take_challenges(a, challenges, err);
		if (r >= 0)
			r = renew(a, tls, err);
	}
	pthread_mutex_unlock(&a->lock);
	return r;
}
