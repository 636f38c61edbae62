/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/http.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/proc.h"
#include "base/str.h"

#define CA_FILE_MAX  (8u << 20)
#define CA_FILES_MAX 64u

struct http {
	struct proc proc;
	int requests;
};

static int check_ca(const char *path, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;
	int r = io_read_file(path, CA_FILE_MAX, &b, err);

	if (r < 0)
		return err_wrap(err, "certificates");
	if (!buf_size(&b) || !memmem(buf_ptr(&b), buf_size(&b), "-----BEGIN ", 11)) {
		err_set(err, ERR_CORRUPT, "%s holds no certificate in PEM form", path);
		return err_hint(err, "convert it: openssl x509 -inform der -in FILE -out FILE.pem");
	}
	return 0;
}

int http_start(struct http **ret, const struct http_options *o, struct err *err)
{
	const char *argv[2 * CA_FILES_MAX + 2] = {o->program};
	cleanup_close int ours = -1, theirs = -1;
	struct proc_fd fds[] = {{-1, FETCH_FD_REQUESTS}};
	struct proc_spec spec = {.path = o->program,
				 .argv = argv,
				 .fds = fds,
				 .nfds = ARRAY_SIZE(fds),
				 .die_with_parent = true};
	struct http *h;
	int pair[2], r;
	size_t n = 1;

	for (const char *const *p = o->ca_files; p && *p; p++) {
		if (n > 2 * CA_FILES_MAX - 1)
			return err_set(err, ERR_LIMIT, "more than %u files of certificates",
				       CA_FILES_MAX);
		r = check_ca(*p, err);
		if (r < 0)
			return r;
		argv[n++] = "--ca";
		argv[n++] = *p;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_errno(err, "cannot start msb-fetch");
	ours = pair[0];
	theirs = pair[1];
	fds[0].from = theirs;
	h = calloc(1, sizeof(*h));
	if (!h)
		return err_set(err, ENOMEM, "out of memory");
	h->proc = (struct proc)PROC_INIT;
	r = proc_spawn(&h->proc, &spec, err);
	if (r < 0) {
		free(h);
		return r;
	}
	h->requests = take_fd(&ours);
	*ret = h;
	return 0;
}

struct http *http_stop(struct http *h)
{
	if (!h)
		return NULL;
	close_fd(h->requests);
	/* There is nothing that it would have to put in order. */
	proc_destroy(&h->proc);
	free(h);
	return NULL;
}

void http_abort(struct http *h)
{
	shutdown(h->requests, SHUT_RDWR);
}

static int gone(struct err *err)
{
	err_set(err, EPIPE, "msb-fetch, which does the downloading, has ended");
	return err_hint(err, "try again; if it happens again, please report it");
}

static int send_request(struct http *h, const struct fetch_request *req, int answer, int body,
			struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(FETCH_FDS * sizeof(int))];
	} control = {.header = {.cmsg_level = SOL_SOCKET,
				.cmsg_type = SCM_RIGHTS,
				.cmsg_len = CMSG_LEN(FETCH_FDS * sizeof(int))}};
	const int fds[FETCH_FDS] = {[FETCH_FD_ANSWER] = answer, [FETCH_FD_BODY] = body};
	struct iovec iov;
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control)};
	ssize_t n;

	b.max = FETCH_PACKET_MAX;
	fetch_request_encode(req, &b);
	if (buf_failed(&b))
		return err_set(err, ERR_LIMIT, "a request is too long");
	iov = (struct iovec){buf_ptr(&b), buf_size(&b)};
	memcpy(CMSG_DATA(&control.header), fds, sizeof(fds));
	do
		n = sendmsg(h->requests, &m, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? gone(err) : 0;
}

static int receive_result(int answer, struct fetch_result *ret, struct err *err)
{
	cleanup_free uint8_t *packet = malloc(FETCH_PACKET_MAX);
	ssize_t n;

	if (!packet)
		return err_set(err, ENOMEM, "out of memory");
	do
		n = recv(answer, packet, FETCH_PACKET_MAX, MSG_TRUNC);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return gone(err);
	if ((size_t)n > FETCH_PACKET_MAX)
		return err_set(err, ERR_PROTOCOL, "msb-fetch answers too much");
	return fetch_result_decode(packet, (size_t)n, ret, err);
}

/* Send @req; its answer will come through *ret. */
static int begin(struct http *h, const struct fetch_request *req, int body, int *ret,
		 struct err *err)
{
	cleanup_close int ours = -1, theirs = -1;
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_errno(err, "cannot make a request");
	ours = pair[0];
	theirs = pair[1];
	r = send_request(h, req, theirs, body, err);
	if (r < 0)
		return r;
	*ret = take_fd(&ours);
	return 0;
}

int http_fetch(struct http *h, const struct fetch_request *req, int body, struct fetch_result *ret,
	       struct err *err)
{
	cleanup_close int answer = -1;
	int r = begin(h, req, body, &answer, err);

	return r < 0 ? r : receive_result(answer, ret, err);
}

int http_fetch_small(struct http *h, const struct fetch_request *req, struct buf *b,
		     struct fetch_result *ret, struct err *err)
{
	cleanup_close int answer = -1, rd = -1, wr = -1;
	int p[2], r;

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, "cannot make a request");
	rd = p[0];
	wr = p[1];
	r = begin(h, req, wr, &answer, err);
	if (r < 0)
		return r;
	wr = close_fd(wr);
	r = io_read_fd(rd, req->max, b);
	/* With this end gone, what is too long stops. */
	rd = close_fd(rd);
	if (r < 0)
		return err_set(err, r, "cannot read an answer: %s", err_name(-r));
	return receive_result(answer, ret, err);
}

/* --- URLs --- */

static bool host_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '.' || c == '-' || c == '_';
}

int http_origin(const char *url, struct http_origin *ret)
{
	struct http_origin o = {0};
	const char *p = url, *end;
	uint64_t port;
	char digits[6] = "";
	size_t n;

	if (strncasecmp(p, "https://", 8) == 0)
		o.tls = true;
	else if (strncasecmp(p, "http://", 7) != 0)
		return -EINVAL;
	p += o.tls ? 8 : 7;
	end = p;
	if (*end == '[') {
		end = strchr(p, ']');
		if (!end || strspn(p + 1, "0123456789abcdefABCDEF:.") != (size_t)(end - p - 1))
			return -EINVAL;
		end++;
	} else {
		while (host_char(*end))
			end++;
	}
	n = (size_t)(end - p);
	if (n == 0 || n >= sizeof(o.host))
		return -EINVAL;
	for (size_t i = 0; i < n; i++)
		o.host[i] = (char)(p[i] >= 'A' && p[i] <= 'Z' ? p[i] + ('a' - 'A') : p[i]);
	o.port = o.tls ? 443 : 80;
	if (*end == ':') {
		n = strspn(++end, "0123456789");
		if (n >= sizeof(digits))
			return -EINVAL;
		memcpy(digits, end, n);
		if (str_to_u64(digits, 65535, &port) < 0)
			return -EINVAL;
		o.port = (unsigned)port;
		end += n;
	}
	if (*end && !strchr("/?#", *end))
		return -EINVAL;
	*ret = o;
	return 0;
}

bool http_same_origin(const struct http_origin *a, const struct http_origin *b)
{
	return a->tls == b->tls && a->port == b->port && str_eq(a->host, b->host);
}

char *http_origin_text(const struct http_origin *o, char out[264])
{
	if (o->port == (o->tls ? 443 : 80))
		snprintf(out, 264, "%s", o->host);
	else
		snprintf(out, 264, "%s:%u", o->host, o->port);
	return out;
}

bool http_is_loopback(const struct http_origin *o)
{
	/* A name such as 127.evil.example is another's machine: only digits and dots count. */
	return str_eq(o->host, "localhost") || str_eq(o->host, "[::1]") ||
	       (str_starts(o->host, "127.") && strspn(o->host, "0123456789.") == strlen(o->host));
}
