/* SPDX-License-Identifier: Apache-2.0 */
/* msb-fetch [--ca FILE]...: started by msb with a socket at FETCH_FD_REQUESTS; see fetch.h. */
#include <curl/curl.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"
#include "fetch/fetch.h"

/* Debian's bundle has 220 KB. */
#define ROOTS_MAX (8u << 20)

struct watch {
	struct loop_source source;
	struct fetch *fetch;
};

static void on_socket(struct loop_source *s, uint32_t events)
{
	struct fetch *f = container_of(s, struct watch, source)->fetch;
	int what = (events & EPOLLIN ? CURL_CSELECT_IN : 0) |
		   (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
		   (events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
	int running;

	curl_multi_socket_action(f->multi, s->fd, what, &running);
	transfer_turn(f);
}

static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
	struct fetch *f = arg;
	struct watch *w = known;
	uint32_t events =
		(what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		if (w)
			loop_del(&w->source);
		free(w);
		curl_multi_assign(f->multi, fd, NULL);
		return 0;
	}
	if (w) {
		loop_mod(&w->source, events);
		return 0;
	}
	w = calloc(1, sizeof(*w));
	if (!w)
		return -1;
	w->fetch = f;
	w->source = (struct loop_source){.fn = on_socket, .fd = fd};
	if (loop_add(f->loop, &w->source, events) < 0) {
		free(w);
		return -1;
	}
	curl_multi_assign(f->multi, fd, w);
	return 0;
}

static void on_timer(struct loop_timer *timer)
{
	struct fetch *f = container_of(timer, struct fetch, timer);
	int running;

	curl_multi_socket_action(f->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	transfer_turn(f);
}

static int set_timer(CURLM *multi, long ms, void *arg)
{
	struct fetch *f = arg;

	(void)multi;
	if (ms < 0) {
		loop_timer_stop(&f->timer);
		return 0;
	}
	return loop_timer_in(f->loop, &f->timer, (uint64_t)ms * 1000000) < 0 ? -1 : 0;
}

/* One packet and its two descriptors: its size, 0 at the end, negative when there is none now. */
static ssize_t receive(int fd, void *p, size_t max, int fds[FETCH_FDS])
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(FETCH_FDS * sizeof(int))];
	} control;
	struct iovec iov = {p, max};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control)};
	ssize_t n;

	do
		n = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count && i < FETCH_FDS; i++)
			memcpy(&fds[i], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
	}
	return m.msg_flags & MSG_TRUNC ? -EMSGSIZE : n;
}

static void on_request(struct loop_source *s, uint32_t events)
{
	struct fetch *f = container_of(s, struct fetch, requests);
	static uint8_t packet[FETCH_PACKET_MAX];
	struct fetch_request req;
	int fds[FETCH_FDS] = {-1, -1};
	ssize_t n = receive(s->fd, packet, sizeof(packet), fds);

	(void)events;
	if (n == 0 || n == -ECONNRESET) {
		loop_quit(f->loop, 0);
		return;
	}
	/* Only we ourselves can have sent nonsense; the end of the socket says enough. */
	if (n < 0 || fds[FETCH_FD_BODY] < 0 ||
	    fetch_request_decode(packet, (size_t)n, &req, NULL) < 0) {
		close_fd(fds[0]);
		close_fd(fds[1]);
		return;
	}
	if (++f->transfers == FETCH_TRANSFERS_MAX)
		loop_mod(s, 0);
	transfer_start(f, &req, fds[FETCH_FD_ANSWER], fds[FETCH_FD_BODY]);
}

void fetch_transfer_ended(struct fetch *f)
{
	f->transfers--;
	loop_mod(&f->requests, EPOLLIN);
}

/* The names that everyone else reads as well; curl has the lower-case ones alone. */
static void proxy_names(void)
{
	static const char *const names[][2] = {
		{"HTTP_PROXY", "http_proxy"},
		{"HTTPS_PROXY", "https_proxy"},
		{"NO_PROXY", "no_proxy"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const char *v = getenv(names[i][0]);

		if (v)
			setenv(names[i][1], v, 0);
	}
}

/* Our own certificates do not replace the system's, they come on top. */
static int read_roots(struct fetch *f, int argc, char **argv, struct err *err)
{
	const char *system = getenv("SSL_CERT_FILE");
	int r = 0;

	if (!system || !*system)
		system = curl_version_info(CURLVERSION_NOW)->cainfo;
	for (int i = 1; i < argc && r >= 0; i++) {
		if (!str_eq(argv[i], "--ca") || !argv[i + 1]) {
			err_set(err, ERR_USAGE, "msb-fetch is a part of msb, not a command");
			return err_hint(err, "use `msb pull`");
		}
		r = io_read_file(argv[++i], ROOTS_MAX, &f->roots, err);
		buf_add_str(&f->roots, "\n");
		if (r >= 0 && !memmem(buf_ptr(&f->roots), buf_size(&f->roots), "-----BEGIN ", 11))
			r = err_set(err, ERR_CORRUPT, "%s holds no certificate", argv[i]);
	}
	/* From a file curl reads them once for all connections, from memory for each of them. */
	if (r >= 0 && system && buf_size(&f->roots))
		(void)io_read_file(system, ROOTS_MAX, &f->roots, NULL);
	else if (system && access(system, R_OK) == 0)
		f->root_file = system;
	if (r >= 0 && buf_failed(&f->roots))
		r = err_set(err, ENOMEM, "the certificates are too large");
	return r;
}

static int fetch_main(struct fetch *f, int argc, char **argv, struct err *err)
{
	int r = read_roots(f, argc, argv, err);
	struct stat st;

	if (r >= 0 && (fstat(FETCH_FD_REQUESTS, &st) < 0 || !S_ISSOCK(st.st_mode))) {
		err_set(err, ERR_USAGE, "msb-fetch is a part of msb, not a command");
		return err_hint(err, "use `msb pull`");
	}
	if (r >= 0)
		r = loop_new(&f->loop, err);
	if (r < 0)
		return r;
	proxy_names();
	if (curl_global_init(CURL_GLOBAL_DEFAULT) || !(f->multi = curl_multi_init()))
		return err_set(err, ENOMEM, "libcurl does not start");
	curl_multi_setopt(f->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
	curl_multi_setopt(f->multi, CURLMOPT_SOCKETDATA, f);
	curl_multi_setopt(f->multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(f->multi, CURLMOPT_TIMERDATA, f);
	f->timer.fn = on_timer;
	f->requests = (struct loop_source){.fn = on_request, .fd = FETCH_FD_REQUESTS};
	r = loop_add(f->loop, &f->requests, EPOLLIN);
	if (r < 0)
		return err_set(err, r, "cannot watch the requests: %s", err_name(-r));
	fetch_confine();
	return loop_run(f->loop);
}

int main(int argc, char **argv)
{
	struct fetch f = {.roots = BUF_INIT};
	struct err err = ERR_INIT;

	signal(SIGPIPE, SIG_IGN);
	if (fetch_main(&f, argc, argv, &err) < 0) {
		fprintf(stderr, "error: %s\n", err.msg);
		if (err.hint[0])
			fprintf(stderr, "  → %s\n", err.hint);
		return EXIT_FAILURE;
	}
	/* Whoever waits for what is under way has gone. */
	return EXIT_SUCCESS;
}
