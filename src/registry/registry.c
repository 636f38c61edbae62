/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/registry.h"

#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "registry/auth.h"

/* What docker.io is really called. */
#define HUB_BASE "https://registry-1.docker.io"
/* Docker's, whose users have put the certificates of their own registries there. */
#define CERTS_DIR "/etc/docker/certs.d"

static const char accept_manifests[] = "Accept: application/vnd.oci.image.index.v1+json,"
				       " application/vnd.oci.image.manifest.v1+json,"
				       " application/vnd.docker.distribution.manifest.list.v2+json,"
				       " application/vnd.docker.distribution.manifest.v2+json";

/* Where requests go: "https://host:port", without a slash at the end. */
struct place {
	char *base;
	struct http_origin origin;
};

struct endpoint {
	struct place tls, plain; /* plain only on this machine, where it is tried without TLS */
	atomic_bool is_plain;	 /* which of them it is */
	char *host;		 /* as logins know it */
	bool plain_ok;		 /* plain HTTP is allowed */
	struct auth auth;
};

static const struct place *place_of(const struct endpoint *e)
{
	return atomic_load(&e->is_plain) ? &e->plain : &e->tls;
}

struct registry {
	struct session session;
	const struct registry_options *o;
	char *path, *scope;
	struct endpoint *ends; /* the last one is the registry itself */
	unsigned count;
	atomic_uint best; /* which one last did what it was asked for */
};

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

/* --- Endpoints --- */

static int place_init(struct place *p, const char *base, struct err *err)
{
	if (http_origin(base, &p->origin) < 0)
		return err_set(err, ERR_USAGE, "%.200s is not where a registry can be", base);
	p->base = strdup(base);
	return p->base ? 0 : no_memory(err);
}

static int endpoint_init(struct registry *r, const char *base, const char *host, bool plain_ok,
			 struct err *err)
{
	struct endpoint *e = &r->ends[r->count];
	const struct auth fields = {.session = &r->session,
				    .scope = r->scope,
				    .home = r->o->home,
				    .config = r->o->config};
	cleanup_free char *plain = NULL;
	int code;

	auth_init(&e->auth, &fields);
	r->count++;
	e->host = strdup(host);
	if (!e->host)
		return no_memory(err);
	code = place_init(&e->tls, base, err);
	if (code < 0)
		return code;
	e->plain_ok = plain_ok || http_is_loopback(&e->tls.origin);
	if (e->tls.origin.tls && http_is_loopback(&e->tls.origin)) {
		plain = str_fmt("http://%s", base + strlen("https://"));
		code = plain ? place_init(&e->plain, plain, err) : no_memory(err);
		if (code < 0)
			return code;
	}
	e->auth.plain_ok = e->plain_ok;
	e->auth.host = e->host;
	return 0;
}

/* A mirror whose URL says http:// has been allowed to be asked that way by whoever wrote it. */
static int add_mirror(struct registry *r, const char *url, struct err *err)
{
	const char *host = strstr(url, "://") + 3;
	cleanup_free char *name = strndup(host, strcspn(host, "/"));

	return name ? endpoint_init(r, url, name, str_starts(url, "http://"), err) : no_memory(err);
}

static int add_endpoints(struct registry *r, const char *domain, struct err *err)
{
	const struct host_config *h = registries_config_host(r->o->config, domain);
	const bool insecure = r->o->insecure || (h && h->insecure);
	cleanup_free char *base = NULL;
	int code = 0;

	r->ends = calloc(1 + (h ? h->mirrors.n : 0), sizeof(*r->ends));
	base = str_eq(domain, DOCKER_HUB) ? strdup(HUB_BASE)
					  : str_fmt("%s://%s", insecure ? "http" : "https", domain);
	if (!r->ends || !base)
		return no_memory(err);
	for (size_t i = 0; h && i < h->mirrors.n && code >= 0; i++)
		code = add_mirror(r, h->mirrors.v[i], err);
	return code < 0 ? code : endpoint_init(r, base, domain, insecure, err);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* DIR/HOST/NAME.crt, in order of name; what cannot be listed by us was not meant for us. */
static int add_host_certs(const char *dir, const char *host, struct strv *files)
{
	cleanup_free char *path = str_fmt("%s/%s", dir, host);
	cleanup_dir DIR *d = path ? opendir(path) : NULL;
	const size_t first = files->n;
	const struct dirent *e;
	int code = path ? 0 : -ENOMEM;

	while (d && code >= 0 && (e = readdir(d)))
		if (str_ends(e->d_name, ".crt"))
			code = strv_addf(files, "%s/%s", path, e->d_name);
	if (files->n > first)
		qsort(files->v + first, files->n - first, sizeof(*files->v), by_name);
	return code;
}

static int start(struct registry *r, struct err *err)
{
	cleanup_strv struct strv files = {0};
	struct http_options o = {.program = r->o->program};
	int code = 0;

	for (size_t i = 0; i < r->o->config->ca_certs.n && code >= 0; i++)
		code = strv_add(&files, r->o->config->ca_certs.v[i]);
	for (const char *const *p = r->o->ca_files; p && *p && code >= 0; p++)
		code = strv_add(&files, *p);
	for (unsigned i = 0; i < r->count && code >= 0; i++)
		code = add_host_certs(r->o->config->certs_dir ? r->o->config->certs_dir : CERTS_DIR,
				      r->ends[i].host, &files);
	if (code < 0)
		return no_memory(err);
	o.ca_files = files.n ? (const char *const *)files.v : NULL;
	return http_start(&r->session.http, &o, err);
}

/* Who we are at the registry itself; its mirrors have nothing to do with that. */
static int set_login(struct registry *r, const struct credential *c, struct err *err)
{
	struct auth *a = &r->ends[r->count - 1].auth;

	a->looked = true;
	a->cred.username = strdup(c->username);
	a->cred.password = strdup(c->password);
	return a->cred.username && a->cred.password ? 0 : no_memory(err);
}

int registry_open(struct registry **ret, const char *domain, const char *path,
		  const struct registry_options *o, struct err *err)
{
	cleanup_registry struct registry *r = calloc(1, sizeof(*r));
	int code;

	if (!r)
		return no_memory(err);
	r->session.stop = -1;
	r->o = o;
	r->session.stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r->session.stop < 0)
		return err_errno(err, "cannot reach a registry");
	r->session.connect_ms =
		o->config->connect_secs ? o->config->connect_secs * 1000 : CONNECT_MS;
	r->session.stall_ms = o->config->stall_secs ? o->config->stall_secs * 1000 : STALL_MS;
	r->session.note = o->note;
	r->session.note_arg = o->note_arg;
	if (path) {
		r->path = strdup(path);
		r->scope = str_fmt("repository:%s:pull", path);
		if (!r->path || !r->scope)
			return no_memory(err);
	}
	code = add_endpoints(r, domain, err);
	if (code >= 0 && o->login)
		code = set_login(r, o->login, err);
	if (code >= 0)
		code = start(r, err);
	if (code < 0)
		return code;
	*ret = take_ptr(r);
	return 0;
}

struct registry *registry_close(struct registry *r)
{
	if (!r)
		return NULL;
	http_stop(r->session.http);
	close_fd(r->session.stop);
	for (unsigned i = 0; i < r->count; i++) {
		auth_done(&r->ends[i].auth);
		free(r->ends[i].tls.base);
		free(r->ends[i].plain.base);
		free(r->ends[i].host);
	}
	free(r->ends);
	free(r->path);
	free(r->scope);
	free(r);
	return NULL;
}

void registry_abort(struct registry *r)
{
	const uint64_t one = 1;

	(void)!write(r->session.stop, &one, sizeof(one));
	http_abort(r->session.http);
}

/* --- One request to one endpoint --- */

struct ask {
	const char *path;   /* behind the base */
	const char *accept; /* header, or NULL */
	uint64_t from, size, max;
	struct buf *b; /* where a small answer goes, or NULL */
	int pipe;      /* where a large one goes */
};

static bool is_redirection(const struct fetch_result *res)
{
	return res->outcome == FETCH_ANSWERED && res->status >= 301 && res->status <= 308 &&
	       res->status != 304 && res->location;
}

/* Along redirections. *ret_own: the last answer is the endpoint's own. */
static int follow(struct registry *r, struct endpoint *e, const struct ask *a, const char *header,
		  struct fetch_result *ret, bool *ret_own, struct err *err)
{
	const struct place *place = place_of(e);
	cleanup_free char *url = str_fmt("%s%s", place->base, a->path);
	bool tls = place->origin.tls;

	for (unsigned hops = 0; url; hops++) {
		struct fetch_request req = {.url = url,
					    .from = a->from,
					    .size = a->size,
					    .max = a->max,
					    .connect_ms = r->session.connect_ms,
					    .stall_ms = r->session.stall_ms};
		struct http_origin at;
		char *headers[2];
		int code;

		if (strlen(url) > HTTP_URL_MAX || http_origin(url, &at) < 0)
			return err_set(err, ERR_PROTOCOL, "%s redirects to nowhere: %.100s",
				       e->host, url);
		if (tls && !at.tls && !e->plain_ok)
			return err_set(err, EACCES,
				       "%s redirects to plain HTTP, which anyone can read and "
				       "change: %.100s",
				       e->host, url);
		tls = at.tls;
		*ret_own = http_same_origin(&at, &place->origin);
		req.headers.v = headers;
		if (a->accept)
			headers[req.headers.n++] = (char *)(uintptr_t)a->accept;
		/* The one place where a secret is sent, and the one condition. */
		if (header && *ret_own)
			headers[req.headers.n++] = (char *)(uintptr_t)header;
		code = a->b ? session_get(&r->session, &req, a->b, ret, err)
			    : http_fetch(r->session.http, &req, a->pipe, ret, err);
		if (code < 0 || !is_redirection(ret))
			return code;
		if (hops == REGISTRY_REDIRECTS_MAX) {
			fetch_result_done(ret);
			return err_set(err, ERR_PROTOCOL, "%s redirects more than %u times",
				       e->host, REGISTRY_REDIRECTS_MAX);
		}
		free(url);
		url = take_ptr(ret->location);
		fetch_result_done(ret);
	}
	return no_memory(err);
}

static int ask_with_login(struct registry *r, struct endpoint *e, const struct ask *a,
			  struct fetch_result *ret, struct err *err)
{
	for (unsigned round = 0;; round++) {
		char *header = NULL;
		uint64_t number;
		bool own = false;
		int code = auth_header(&e->auth, &header, &number, err);

		if (code < 0)
			return err_wrap(err, "%s", e->host);
		code = follow(r, e, a, header, ret, &own, err);
		if (header)
			explicit_bzero(header, strlen(header));
		free(header);
		if (code < 0 || ret->outcome != FETCH_ANSWERED || ret->status != 401 || !own ||
		    round == AUTH_ROUNDS)
			return code;
		code = auth_answer(&e->auth, &ret->challenge, place_of(e)->origin.tls, number, err);
		fetch_result_done(ret);
		if (a->b)
			buf_reset(a->b);
		if (code < 0)
			return err_wrap(err, "%s", e->host);
	}
}

static int ask(struct registry *r, struct endpoint *e, const struct ask *a,
	       struct fetch_result *ret, struct err *err)
{
	const bool tls = !atomic_load(&e->is_plain);
	int code = ask_with_login(r, e, a, ret, err);

	/* Something on this machine that does not speak TLS at all; nothing was sent to it yet. */
	if (code < 0 || ret->outcome != FETCH_NOT_TLS || !e->plain.base || !tls)
		return code;
	atomic_store(&e->is_plain, true);
	fetch_result_done(ret);
	return ask_with_login(r, e, a, ret, err);
}

static bool succeeded(const struct fetch_result *res)
{
	return res->outcome == FETCH_ANSWERED && res->status >= 200 && res->status <= 299;
}

/* Something small, from whichever endpoint has it. */
static int ask_all(struct registry *r, struct ask *a, const char *what, struct fetch_result *ret,
		   struct err *err)
{
	const unsigned first = atomic_load(&r->best);
	int code = 0;

	for (unsigned i = 0; i < r->count; i++) {
		const unsigned which = (first + i) % r->count;
		struct endpoint *e = &r->ends[which];

		buf_reset(a->b);
		err_clear(err);
		code = ask(r, e, a, ret, err);
		if (code >= 0 && succeeded(ret)) {
			atomic_store(&r->best, which);
			return 0;
		}
		if (code >= 0) {
			code = session_error(ret, place_of(e)->base, what, err);
			fetch_result_done(ret);
		}
	}
	return code;
}

/* --- Manifests and blobs --- */

void registry_manifest_done(struct registry_manifest *m)
{
	buf_done(&m->bytes);
	free(m->media_type);
	free(m->digest);
	*m = (struct registry_manifest){0};
}

int registry_manifest(struct registry *r, const char *ref, size_t max,
		      struct registry_manifest *ret, struct err *err)
{
	cleanup_fetch_result struct fetch_result res = {0};
	cleanup_registry_manifest struct registry_manifest m = {0};
	cleanup_free char *path = str_fmt("/v2/%s/manifests/%s", r->path, ref);
	cleanup_free char *what = str_fmt("%s%s%.80s", r->path, strchr(ref, ':') ? "@" : ":", ref);
	struct ask a = {.path = path,
			.accept = accept_manifests,
			.size = FETCH_UNKNOWN,
			.max = max,
			.b = &m.bytes};
	const char *type;
	int code;

	if (!path || !what)
		return no_memory(err);
	code = ask_all(r, &a, what, &res, err);
	if (code < 0)
		return code;
	type = res.content_type ? res.content_type : "";
	m.media_type = strndup(type, strcspn(type, "; \t"));
	m.digest = take_ptr(res.digest);
	if (!m.media_type)
		return no_memory(err);
	*ret = m;
	m = (struct registry_manifest){0};
	return 0;
}

int registry_blob(struct registry *r, const char *digest, size_t max, struct buf *ret,
		  struct err *err)
{
	cleanup_fetch_result struct fetch_result res = {0};
	cleanup_free char *path = str_fmt("/v2/%s/blobs/%s", r->path, digest);
	struct ask a = {.path = path, .size = FETCH_UNKNOWN, .max = max, .b = ret};

	return path ? ask_all(r, &a, digest, &res, err) : no_memory(err);
}

/* From one endpoint, as far as it goes; a->from advances. 1 when all of it has come. */
static int stream_from(struct registry *r, struct endpoint *e, struct ask *a, const char *what,
		       struct err *err)
{
	struct retry retry = {.since = now_ns()};

	for (;;) {
		cleanup_fetch_result struct fetch_result res = {0};
		int code = ask(r, e, a, &res, err);

		if (code < 0)
			return code;
		a->from += res.delivered;
		if (succeeded(&res)) {
			if (a->size == FETCH_UNKNOWN || a->from == a->size)
				return 0;
			/* It ended in order and too early: no cut, a wrong length. */
			return err_set(err, ERR_CORRUPT, "%s has %llu bytes of %s instead of %llu",
				       e->host, (unsigned long long)a->from, what,
				       (unsigned long long)a->size);
		}
		/* All that was wanted is there; how the connection ends is no matter. */
		if (a->size != FETCH_UNKNOWN && a->from == a->size)
			return 0;
		if (res.outcome == FETCH_STOPPED)
			return -ECANCELED;
		if (!session_worth_retry(&res, place_of(e)->base))
			return session_error(&res, place_of(e)->base, what, err);
		code = session_pause(&r->session, &retry, &res, place_of(e)->base, res.delivered,
				     a->pipe);
		if (code == -ECANCELED)
			return code;
		if (code < 0)
			return session_error(&res, place_of(e)->base, what, err);
	}
}

int registry_blob_stream(struct registry *r, const char *digest, uint64_t size, uint64_t max,
			 int fd, struct err *err)
{
	cleanup_free char *path = str_fmt("/v2/%s/blobs/%s", r->path, digest);
	struct ask a = {.path = path, .size = size, .max = MIN(size, max), .pipe = fd};
	const unsigned first = atomic_load(&r->best);
	int code = 0;

	if (!path)
		return no_memory(err);
	for (unsigned i = 0; i < r->count; i++) {
		const unsigned which = (first + i) % r->count;

		err_clear(err);
		code = stream_from(r, &r->ends[which], &a, digest, err);
		if (code >= 0 && which != first)
			atomic_store(&r->best, which);
		if (code >= 0 || code == -ECANCELED)
			return code;
	}
	return code;
}

int registry_check_login(const char *domain, const struct credential *c,
			 const struct registry_options *o, bool *ret_needed, struct err *err)
{
	cleanup_registry struct registry *r = NULL;
	cleanup_fetch_result struct fetch_result res = {0};
	cleanup_buf struct buf b = BUF_INIT;
	struct ask a = {.path = "/v2/", .size = FETCH_UNKNOWN, .max = TOKEN_ANSWER_MAX, .b = &b};
	struct endpoint *e;
	int code = registry_open(&r, domain, NULL, o, err);

	if (code < 0)
		return code;
	e = &r->ends[r->count - 1];
	code = set_login(r, c, err);
	if (code < 0)
		return code;
	code = ask(r, e, &a, &res, err);
	if (code < 0)
		return code;
	if (!succeeded(&res))
		return session_error(&res, place_of(e)->base, "a login", err);
	*ret_needed = e->auth.header != NULL;
	return 0;
}
