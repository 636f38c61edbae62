/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/routes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "machine/jail/jail.h"
#include "virtio/vsock.h"

/* A server that is there takes a connection at once; a guest that listens answers soon. */
enum { CONNECT_MS = 10000 };

struct route {
	struct loop_source source; /* listens; fd -1: the guest dials, the child connects */
	struct routes *routes;
	struct sockaddr_un to;
	uint32_t port;
	struct stat bound;
};

struct routes {
	struct route v[VM_ROUTES_MAX];
	unsigned n;
	struct loop_source child;
	struct virtio_device *vsock;
};

/* What the child is asked, and what it answers with a descriptor if result is 0. */
struct dial {
	uint32_t route, guest_port;
	int32_t result;
};

/* ---- the child ---- */

static int connect_to(const struct route *r)
{
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || connect(fd, (const void *)&r->to, sizeof(r->to)) < 0)
		return -errno;
	return take_fd(&fd);
}

static int hand_over(int to, const struct dial *d, int fd)
{
	union {
		struct cmsghdr align;
		char b[CMSG_SPACE(sizeof(int))];
	} control = {.align = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
	struct iovec iov = {(void *)(uintptr_t)d, sizeof(*d)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		m.msg_control = &control;
		m.msg_controllen = sizeof(control);
		memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
	}
	return sendmsg(to, &m, MSG_NOSIGNAL) == (ssize_t)sizeof(*d) ? 0 : -errno;
}

static void unlink_bound(const struct routes *rs)
{
	for (unsigned i = 0; i < rs->n; i++) {
		const struct route *r = &rs->v[i];
		struct stat st;

		/* Somebody else may have it by now. */
		if (r->source.fd >= 0 && lstat(r->to.sun_path, &st) == 0 &&
		    st.st_ino == r->bound.st_ino && st.st_dev == r->bound.st_dev)
			(void)unlink(r->to.sun_path);
	}
}

__attribute__((noreturn)) static void child(const struct routes *rs, int fd, bool walls)
{
	struct dial d;

	/* Everything but this one, the sandbox's lock above all. */
	if (dup2(fd, 0) < 0 || close_range(1, ~0u, 0) < 0 || (walls && jail_dialer() < 0))
		_exit(1);
	while (recv(0, &d, sizeof(d), 0) == (ssize_t)sizeof(d)) {
		int to = d.route < rs->n ? connect_to(&rs->v[d.route]) : -EINVAL;

		d.result = to < 0 ? to : 0;
		if (hand_over(0, &d, to) < 0)
			break;
		close_fd(to);
	}
	unlink_bound(rs);
	_exit(0);
}

/* ---- before the jail ---- */

/* A socket that nobody serves any more is in the way of no one. */
static int bind_socket(struct route *r, struct err *err)
{
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	const char *path = r->to.sun_path;
	mode_t mask = umask(077);
	int e = fd < 0 ? -errno : bind(fd, (const void *)&r->to, sizeof(r->to)) < 0 ? -errno : 0;

	if (e == -EADDRINUSE) {
		int other = connect_to(r);
		struct stat st;

		if (other == -ECONNREFUSED && lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) &&
		    unlink(path) == 0)
			e = bind(fd, (const void *)&r->to, sizeof(r->to)) < 0 ? -errno : 0;
		close_fd(other);
	}
	if (e == 0 && (listen(fd, SOMAXCONN) < 0 || lstat(path, &r->bound) < 0))
		e = -errno;
	umask(mask);
	if (e == -EADDRINUSE) {
		err_set(err, EADDRINUSE, "cannot listen on %s: there is something already", path);
		return err_hint(err, "choose another path, or end who serves it");
	}
	if (e < 0)
		return err_set(err, e, "cannot listen on %s: %s", path, err_name(e));
	r->source.fd = take_fd(&fd);
	return 0;
}

static int add(struct routes *rs, const struct wire_texts *texts, bool listens, struct err *err)
{
	for (size_t i = 0; i < texts->n; i++) {
		struct route *r = &rs->v[rs->n];
		cleanup_free char *path = NULL;
		int e;

		if (rs->n == VM_ROUTES_MAX)
			return err_set(err, ERR_LIMIT, "more than %d sockets for vsock",
				       VM_ROUTES_MAX);
		e = vm_route_parse(texts->v[i], &path, &r->port, err);
		if (e < 0)
			return e;
		r->to.sun_family = AF_UNIX;
		memcpy(r->to.sun_path, path, strlen(path) + 1);
		r->routes = rs;
		r->source.fd = -1;
		rs->n++;
		e = listens ? bind_socket(r, err) : 0;
		if (e < 0)
			return e;
	}
	return 0;
}

int routes_begin(const struct vm_config *c, struct routes **ret, struct err *err)
{
	const bool walls = !c->jail || !str_eq(c->jail, "off");
	struct routes *rs;
	int p[2], r;
	pid_t pid;

	if (!c->vsock.n && !c->vsock_listen.n)
		return 0;
	rs = calloc(1, sizeof(*rs));
	if (!rs)
		return err_set(err, ENOMEM, "out of memory");
	rs->child.fd = -1;
	r = add(rs, &c->vsock, false, err);
	if (r == 0)
		r = add(rs, &c->vsock_listen, true, err);
	if (r == 0 && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p) < 0)
		r = err_errno(err, "cannot create sockets for vsock");
	if (r < 0) {
		unlink_bound(rs);
		routes_free(rs);
		return r;
	}
	pid = fork();
	if (pid == 0)
		child(rs, p[1], walls);
	close_fd(p[1]);
	rs->child.fd = p[0];
	if (pid < 0) {
		r = err_errno(err, "cannot start who connects to sockets for vsock");
		unlink_bound(rs);
		routes_free(rs);
		return r;
	}
	*ret = rs;
	return 0;
}

/* ---- the guest dials ---- */

/* On the device's worker. */
static int on_dial(struct virtio_device *dev, uint32_t guest_port, uint32_t host_port, void *arg)
{
	const struct route *r = arg;
	struct dial d = {(uint32_t)(r - r->routes->v), guest_port, 0};
	struct iovec iov = {&d, sizeof(d)};
	const struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	(void)dev, (void)host_port;
	if (sendmsg(r->routes->child.fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return -ECONNREFUSED;
	return -EINPROGRESS;
}

static void on_child(struct loop_source *s, uint32_t events)
{
	struct routes *rs = container_of(s, struct routes, child);
	union {
		struct cmsghdr align;
		char b[CMSG_SPACE(sizeof(int))];
	} control;
	struct dial d;
	struct iovec iov = {&d, sizeof(d)};
	struct msghdr m = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(s->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	const struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
	int fd = -ECONNREFUSED;

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n != (ssize_t)sizeof(d) || d.route >= rs->n) {
		log_error("vsock: who connects to the host's sockets has gone");
		loop_del(s);
		return;
	}
	if (d.result == 0 && c && c->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	else
		log_debug("vsock: %s: %s", rs->v[d.route].to.sun_path, err_name(-d.result));
	vsock_answer(rs->vsock, d.guest_port, rs->v[d.route].port, fd);
}

/* ---- the guest is dialled ---- */

static void on_client(struct loop_source *s, uint32_t events)
{
	const struct route *r = container_of(s, struct route, source);
	cleanup_close int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd >= 0 && vsock_connect(r->routes->vsock, r->port, fd, CONNECT_MS, NULL, NULL) == 0)
		(void)take_fd(&fd);
}

int routes_start(struct routes *rs, struct virtio_device *vsock, struct loop *loop, struct err *err)
{
	int e;

	rs->vsock = vsock;
	rs->child.fn = on_child;
	e = loop_add(loop, &rs->child, EPOLLIN);
	for (unsigned i = 0; i < rs->n && e == 0; i++) {
		struct route *r = &rs->v[i];

		r->source.fn = on_client;
		if (r->source.fd >= 0)
			e = loop_add(loop, &r->source, EPOLLIN);
		else
			e = vsock_listen(vsock, r->port, on_dial, r);
		if (e == -EADDRINUSE)
			return err_set(err, ERR_USAGE, "port %u of vsock leads to two sockets",
				       r->port);
	}
	return e < 0 ? err_set(err, e, "cannot serve sockets for vsock: %s", err_name(e)) : 0;
}

struct routes *routes_free(struct routes *rs)
{
	if (!rs)
		return NULL;
	for (unsigned i = 0; i < rs->n; i++) {
		struct route *r = &rs->v[i];

		if (rs->vsock && r->source.fd < 0)
			vsock_unlisten(rs->vsock, r->port);
		loop_del(&r->source);
		close_fd(r->source.fd);
	}
	loop_del(&rs->child);
	close_fd(rs->child.fd);
	free(rs);
	return NULL;
}
