/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/control_client.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/loop.h"
#include "sandbox/reach.h"
#include "sandbox/sandbox_dir.h"

/* Between the lock and the socket there is a moment, at the start as at the end. */
enum { CHUNK = 4096, CONNECT_PATIENCE_MS = 1000 };

int control_connect(struct store *s, const char *name, struct err *err)
{
	return sandbox_reach_socket(s, name, SANDBOX_CONTROL_SOCKET, CONNECT_PATIENCE_MS, err);
}

static int receive(int fd, int timeout_ms, struct control_answer *ret, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;
	uint64_t end = now_ns() + (uint64_t)timeout_ms * 1000000;

	b.max = CONTROL_ANSWER_MAX + 2 * CHUNK;
	for (;;) {
		struct pollfd pfd = {.fd = fd, .events = POLLIN};
		uint64_t now = now_ns();
		void *to = buf_reserve(&b, CHUNK);
		ssize_t n;
		int r;

		if (!to)
			return err_set(err, ENOMEM, "cannot ask the machine: out of memory");
		r = now >= end ? 0 : poll(&pfd, 1, (int)((end - now) / 1000000) + 1);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return err_set(err, ETIMEDOUT, "its machine does not answer");
		n = recv(fd, to, CHUNK, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n <= 0)
			return err_set(err, ECONNRESET, "its machine ended");
		buf_commit(&b, (size_t)n);
		r = control_answer_take(&b, ret, err);
		if (r != 0)
			return r < 0 ? err_wrap(err,
						"its machine answers what we do not understand")
				     : 0;
	}
}

/* Descriptors go with the first bytes. */
static ssize_t send_some(int fd, const void *p, size_t n, const struct control_request *q,
			 bool first)
{
	union {
		struct cmsghdr align;
		char b[CMSG_SPACE(CONTROL_FDS_MAX * sizeof(int))];
	} control = {0};
	struct iovec iov = {(void *)(uintptr_t)p, n};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	if (first && q->nfds) {
		const size_t bytes = q->nfds * sizeof(int);

		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(bytes);
		control.align = (struct cmsghdr){
			.cmsg_len = CMSG_LEN(bytes),
			.cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_RIGHTS,
		};
		memcpy(CMSG_DATA(&control.align), q->fds, bytes);
	}
	return sendmsg(fd, &m, MSG_NOSIGNAL);
}

int control_ask(int fd, const struct control_request *q, int timeout_ms, struct control_answer *ret,
		struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;
	cleanup_answer struct control_answer a = {0};
	size_t sent = 0;
	int r;

	if (q->nfds > CONTROL_FDS_MAX)
		return err_set(err, ERR_LIMIT, "more than %d sockets at once", CONTROL_FDS_MAX);
	control_request_put(q, &b);
	if (buf_failed(&b))
		return err_set(err, ENOMEM, "cannot ask the machine: out of memory");
	while (sent < buf_size(&b)) {
		ssize_t n = send_some(fd, buf_ptr(&b) + sent, buf_size(&b) - sent, q, !sent);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(err, errno, "its machine ended");
		sent += (size_t)n;
	}
	r = receive(fd, timeout_ms, &a, err);
	if (r < 0)
		return r;
	if (a.code) {
		err_set(err, (int)a.code, "%s", a.message ? a.message : err_name((int)a.code));
		if (a.hint && *a.hint)
			err_hint(err, "%s", a.hint);
		return -(int)a.code;
	}
	if (ret) {
		*ret = a;
		a = (struct control_answer){0};
	}
	return 0;
}

int control_request(struct store *s, const char *name, const struct control_request *q,
		    struct control_answer *ret, struct err *err)
{
	cleanup_close int fd = control_connect(s, name, err);
	int r = fd < 0 ? fd : control_ask(fd, q, CONTROL_TIMEOUT_MS, ret, err);

	return fd >= 0 && r < 0 ? err_wrap(err, "sandbox \"%s\"", name) : r;
}
