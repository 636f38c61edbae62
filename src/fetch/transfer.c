/* SPDX-License-Identifier: Apache-2.0 */
#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"
#include "fetch/fetch.h"

/*
 * A response is read in pieces of this. curl hands them on in 16 KiB; they are put together again,
 * so that who reads the pipe is woken once for each.
 */
#define READ_SIZE (256L << 10)
/* Slower than this for `stall_ms` is not alive. */
#define SLOWEST 64L /* bytes a second */
/* Headers of the kind we keep. */
#define CHALLENGES_MAX 8u

struct transfer {
	struct fetch *fetch;
	struct fetch_request req;
	struct fetch_result res;
	CURL *easy;
	struct curl_slist *headers;
	struct loop_source answer, body; /* both own their descriptors */
	size_t header_bytes;
	uint64_t at;	 /* of the resource: the next byte that comes */
	bool placed;	 /* `at` is known */
	struct buf rest; /* taken from curl, not in the pipe yet */
	bool dirty;	 /* in the list of those to be put there after this turn */
	struct transfer *next_dirty;
	bool paused, ended;
	bool failed; /* by our own judgement, with res.outcome and res.message set */
	char text[CURL_ERROR_SIZE];
};

static void fail(struct transfer *t, enum fetch_outcome what, const char *message)
{
	if (t->failed)
		return;
	t->failed = true;
	t->res.outcome = what;
	t->res.message = strdup(message);
}

static void transfer_free(struct transfer *t)
{
	struct fetch *f = t->fetch;

	for (struct transfer **p = &f->dirty; *p; p = &(*p)->next_dirty) {
		if (*p == t) {
			*p = t->next_dirty;
			break;
		}
	}
	if (t->easy) {
		curl_multi_remove_handle(f->multi, t->easy);
		curl_easy_cleanup(t->easy);
	}
	curl_slist_free_all(t->headers);
	loop_del(&t->answer);
	loop_del(&t->body);
	close_fd(t->answer.fd);
	close_fd(t->body.fd);
	fetch_request_done(&t->req);
	fetch_result_done(&t->res);
	buf_done(&t->rest);
	free(t);
	fetch_transfer_ended(f);
}

/* The last packet; nobody may be there to read it. */
static void transfer_answer(struct transfer *t)
{
	cleanup_buf struct buf b = BUF_INIT;

	b.max = FETCH_PACKET_MAX;
	fetch_result_encode(&t->res, &b);
	/* Before the answer, so that who reads the body to its end does not wait for us. */
	loop_del(&t->body);
	t->body.fd = close_fd(t->body.fd);
	if (!buf_failed(&b))
		(void)!send(t->answer.fd, buf_ptr(&b), buf_size(&b), MSG_NOSIGNAL);
	transfer_free(t);
}

/* --- The body --- */

/* Into the pipe what fits: 1 all of it, 0 when the pipe is full, -1 when nobody reads. */
static int pipe_put(struct transfer *t, const uint8_t *p, size_t n, size_t *done)
{
	for (*done = 0; *done < n;) {
		ssize_t w = write(t->body.fd, p + *done, n - *done);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return errno == EAGAIN ? 0 : -1;
		*done += (size_t)w;
		t->res.delivered += (uint64_t)w;
	}
	return 1;
}

static size_t deliver(struct transfer *t, const uint8_t *p, size_t n)
{
	buf_add(&t->rest, p, n);
	if (buf_failed(&t->rest)) {
		fail(t, FETCH_NETWORK, "out of memory");
		return 0;
	}
	if (!t->dirty) {
		t->dirty = true;
		t->next_dirty = t->fetch->dirty;
		t->fetch->dirty = t;
	}
	return n;
}

/* What has come into the pipe, as far as it fits; then it is done with, or waits for room. */
static void flush(struct transfer *t)
{
	size_t done;
	int r = pipe_put(t, buf_ptr(&t->rest), buf_size(&t->rest), &done);

	buf_consume(&t->rest, done);
	if (r < 0) {
		fail(t, FETCH_STOPPED, "nobody reads the body");
		transfer_answer(t);
	} else if (buf_size(&t->rest)) {
		loop_mod(&t->body, EPOLLOUT);
	} else if (t->ended) {
		transfer_answer(t);
	} else {
		loop_mod(&t->body, 0);
		if (t->paused) {
			t->paused = false;
			curl_easy_pause(t->easy, CURLPAUSE_CONT);
		}
	}
}

/* "bytes FROM-TO/TOTAL" of a 206 */
static bool range_from(const struct transfer *t, uint64_t *from)
{
	struct curl_header *h;
	unsigned long long v;

	if (curl_easy_header(t->easy, "Content-Range", 0, CURLH_HEADER, -1, &h) != CURLHE_OK ||
	    sscanf(h->value, "bytes %llu-", &v) != 1)
		return false;
	*from = v;
	return true;
}

/* Where in the resource the first byte of this body is, and whether there is the right number. */
static bool place(struct transfer *t, long status)
{
	curl_off_t length = -1;
	uint64_t total;

	t->placed = true;
	if (status == 206 && (!range_from(t, &t->at) || t->at > t->req.from)) {
		fail(t, FETCH_NOT_HTTP, "the server sent another part than the one asked for");
		return false;
	}
	curl_easy_getinfo(t->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
	if (length < 0)
		return true;
	total = t->at + (uint64_t)length;
	if (t->req.size != FETCH_UNKNOWN && total != t->req.size) {
		cleanup_free char *m =
			str_fmt("the server has %llu bytes of it instead of %llu",
				(unsigned long long)total, (unsigned long long)t->req.size);

		fail(t, FETCH_OTHER_LENGTH, m ? m : "");
		return false;
	}
	if (total > t->req.max) {
		fail(t, FETCH_TOO_LONG, "it is too long");
		return false;
	}
	return true;
}

static size_t on_body(char *p, size_t one, size_t n, void *arg)
{
	struct transfer *t = arg;
	const size_t all = n;
	long status = 0;

	(void)one;
	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status < 200 || status > 299) {
		size_t room = FETCH_ERROR_BODY_MAX - t->res.error_body.n;
		uint8_t *v = realloc(t->res.error_body.p, FETCH_ERROR_BODY_MAX);

		if (!v)
			return 0;
		t->res.error_body.p = v;
		memcpy(v + t->res.error_body.n, p, MIN(room, n));
		t->res.error_body.n += MIN(room, n);
		/* More of it interests nobody: this stops the transfer, and counts as an end. */
		return n <= room ? n : 0;
	}
	if (buf_size(&t->rest) >= (size_t)READ_SIZE) {
		t->paused = true;
		return CURL_WRITEFUNC_PAUSE;
	}
	if (!t->placed && !place(t, status))
		return 0;
	if (n > t->req.max || t->at > t->req.max - n) {
		fail(t, FETCH_TOO_LONG, "it is longer than it should be");
		return 0;
	}
	t->at += n;
	if (t->at <= t->req.from)
		return all;
	if (t->at - n < t->req.from) {
		size_t drop = (size_t)(t->req.from - (t->at - n));

		p += drop;
		n -= drop;
	}
	return t->body.fd < 0 || deliver(t, (const uint8_t *)p, n) == n ? all : 0;
}

/* The pipe has room, or its reader has gone. */
static void on_pipe(struct loop_source *s, uint32_t events)
{
	struct transfer *t = container_of(s, struct transfer, body);
	struct fetch *f = t->fetch;

	if (events & EPOLLERR) {
		fail(t, FETCH_STOPPED, "nobody reads the body");
		transfer_answer(t);
	} else {
		flush(t);
		transfer_turn(f);
	}
}

static void on_answer(struct loop_source *s, uint32_t events)
{
	(void)events;
	/* Nobody waits for the answer; nothing else happens on that socket. */
	transfer_free(container_of(s, struct transfer, answer));
}

/* --- The headers --- */

static bool is_header(const char *line, size_t n, const char *name, const char **value, size_t *len)
{
	size_t k = strlen(name);

	if (n <= k || strncasecmp(line, name, k) != 0 || line[k] != ':')
		return false;
	for (k++; k < n && (line[k] == ' ' || line[k] == '\t'); k++)
		;
	while (n > k && (unsigned char)line[n - 1] <= ' ')
		n--;
	*value = line + k;
	*len = n - k;
	return true;
}

static void keep(char **at, const char *value, size_t len)
{
	free(*at);
	*at = strndup(value, len);
}

static size_t on_header(char *line, size_t one, size_t n, void *arg)
{
	struct transfer *t = arg;
	struct wire_texts *list = &t->res.challenge;
	const char *value;
	size_t len;

	(void)one;
	t->header_bytes += n;
	if (t->header_bytes > FETCH_HEADERS_MAX) {
		fail(t, FETCH_TOO_LONG, "the server's headers do not end");
		return 0;
	}
	if (is_header(line, n, "Content-Type", &value, &len)) {
		keep(&t->res.content_type, value, len);
	} else if (is_header(line, n, "Docker-Content-Digest", &value, &len)) {
		keep(&t->res.digest, value, len);
	} else if (is_header(line, n, "WWW-Authenticate", &value, &len) &&
		   list->n < CHALLENGES_MAX) {
		char **v = realloc(list->v, (list->n + 1) * sizeof(*v));

		if (!v)
			return 0;
		list->v = v;
		v[list->n] = strndup(value, len);
		if (!v[list->n])
			return 0;
		list->n++;
	}
	return n;
}

/* --- Beginning and end --- */

/* As Go's programs have it: never a proxy between us and ourselves. */
static bool is_loopback(const char *url)
{
	const char *host = strstr(url, "://");
	size_t n;

	if (!host)
		return false;
	host += 3;
	n = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/?#");
	return (n == 9 && strncasecmp(host, "localhost", n) == 0) ||
	       (n == 5 && strncmp(host, "[::1]", n) == 0) ||
	       (str_starts(host, "127.") && strspn(host, "0123456789.") == n);
}

static int add_header(struct transfer *t, const char *line)
{
	struct curl_slist *l = curl_slist_append(t->headers, line);

	if (!l)
		return -ENOMEM;
	t->headers = l;
	return 0;
}

static int set_up(struct transfer *t)
{
	CURL *c = t->easy;
	CURLcode r = CURLE_OK;
	char range[48];

	for (size_t i = 0; i < t->req.headers.n; i++)
		if (add_header(t, t->req.headers.v[i]) < 0)
			return -ENOMEM;
	/* By hand: curl's own way of resuming fails where a server sends everything. */
	snprintf(range, sizeof(range), "Range: bytes=%llu-", (unsigned long long)t->req.from);
	if (t->req.from && add_header(t, range) < 0)
		return -ENOMEM;
#define SET(option, value) r = r ? r : curl_easy_setopt(c, CURLOPT_##option, value)
	SET(URL, t->req.url);
	SET(PROTOCOLS_STR, "http,https");
	SET(HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(USERAGENT, "microsandbox/" MSB_VERSION);
	SET(HTTPHEADER, t->headers);
	SET(FOLLOWLOCATION, 0L);
	SET(NOSIGNAL, 1L);
	SET(PRIVATE, t);
	SET(ERRORBUFFER, t->text);
	SET(BUFFERSIZE, READ_SIZE);
	SET(WRITEFUNCTION, on_body);
	SET(WRITEDATA, t);
	SET(HEADERFUNCTION, on_header);
	SET(HEADERDATA, t);
	SET(SUPPRESS_CONNECT_HEADERS, 1L);
	SET(CONNECTTIMEOUT_MS, (long)t->req.connect_ms);
	SET(LOW_SPEED_LIMIT, SLOWEST);
	SET(LOW_SPEED_TIME, (long)MAX(t->req.stall_ms / 1000, 1u));
	if (is_loopback(t->req.url))
		SET(NOPROXY, "*");
	if (t->req.form.n) {
		SET(POSTFIELDSIZE_LARGE, (curl_off_t)t->req.form.n);
		SET(POSTFIELDS, (char *)t->req.form.p);
	}
	if (buf_size(&t->fetch->roots)) {
		struct curl_blob blob = {buf_ptr(&t->fetch->roots), buf_size(&t->fetch->roots),
					 CURL_BLOB_NOCOPY};

		SET(CAINFO_BLOB, &blob);
	} else if (t->fetch->root_file) {
		SET(CAINFO, t->fetch->root_file);
		SET(CAPATH, NULL);
	}
#undef SET
	if (r)
		snprintf(t->text, sizeof(t->text), "%s", curl_easy_strerror(r));
	return r ? -EINVAL : 0;
}

static enum fetch_outcome outcome_of(CURLcode code)
{
	switch (code) {
	case CURLE_OK:
		return FETCH_ANSWERED;
	case CURLE_COULDNT_RESOLVE_HOST:
		return FETCH_NAME;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
		return FETCH_CERTIFICATE;
	case CURLE_SSL_CONNECT_ERROR:
		return FETCH_NOT_TLS;
	case CURLE_URL_MALFORMAT:
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_WEIRD_SERVER_REPLY:
	case CURLE_OUT_OF_MEMORY: /* that is what a header line beyond curl's limit ends in */
		return FETCH_NOT_HTTP;
	default:
		return FETCH_NETWORK;
	}
}

static void transfer_end(struct transfer *t, CURLcode code)
{
	curl_off_t after = 0;
	char *location = NULL;
	long status = 0;
	bool refused = t->failed;

	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(t->easy, CURLINFO_REDIRECT_URL, &location);
	curl_easy_getinfo(t->easy, CURLINFO_RETRY_AFTER, &after);
	t->res.status = (uint32_t)status;
	t->res.retry_after = after > 0 ? (uint32_t)MIN(after, (curl_off_t)UINT32_MAX) : 0;
	if (location)
		keep(&t->res.location, location, strlen(location));
	/* A refusal has been understood even if it has no end. */
	if (code == CURLE_WRITE_ERROR && !t->failed && (status < 200 || status > 299))
		code = CURLE_OK;
	if (!t->failed && code != CURLE_OK)
		fail(t, outcome_of(code), t->text[0] ? t->text : curl_easy_strerror(code));
	curl_multi_remove_handle(t->fetch->multi, t->easy);
	curl_easy_cleanup(t->easy);
	t->easy = NULL;
	t->ended = true;
	/* What came before a connection broke need not come again: it is still delivered. */
	if (!buf_size(&t->rest) || refused)
		transfer_answer(t);
	/* Else flush() does. */
}

static void reap(struct fetch *f)
{
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(f->multi, &left))) {
		struct transfer *t;
		CURLcode code = m->data.result;

		if (m->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &t);
		transfer_end(t, code);
	}
}

void transfer_turn(struct fetch *f)
{
	reap(f);
	/* Going on with one that paused makes curl hand over more: it comes into the list again. */
	while (f->dirty) {
		struct transfer *t = f->dirty;

		f->dirty = t->next_dirty;
		t->dirty = false;
		flush(t);
		reap(f);
	}
}

void transfer_start(struct fetch *f, struct fetch_request *req, int answer, int body)
{
	struct transfer *t = calloc(1, sizeof(*t));

	if (!t) {
		/* Whoever asked sees the socket end. */
		close_fd(answer);
		close_fd(body);
		fetch_request_done(req);
		fetch_transfer_ended(f);
		return;
	}
	t->fetch = f;
	t->req = *req;
	*req = (struct fetch_request){0};
	t->answer = (struct loop_source){.fn = on_answer, .fd = answer};
	t->body = (struct loop_source){.fn = on_pipe, .fd = body};
	t->easy = curl_easy_init();
	if (!t->easy || set_up(t) < 0 || io_set_nonblock(body, true) < 0 ||
	    loop_add(f->loop, &t->answer, EPOLLIN) < 0 || loop_add(f->loop, &t->body, 0) < 0) {
		fail(t, FETCH_NOT_HTTP, t->text[0] ? t->text : "the request could not be begun");
		curl_easy_cleanup(t->easy);
		t->easy = NULL;
		transfer_answer(t);
		return;
	}
	curl_multi_add_handle(f->multi, t->easy);
}
