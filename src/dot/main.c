/* SPDX-License-Identifier: Apache-2.0 */
/* msb-dot: see dot.h. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "dot/dot.h"

/* The next server and its descriptors; false when there will be none. */
static bool receive(struct dot_server *to, int fds[DOT_FDS])
{
	union {
		struct cmsghdr align;
		char b[CMSG_SPACE(DOT_FDS * sizeof(int))];
	} control;
	struct iovec iov = {to, sizeof(*to)};
	struct msghdr m = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n;

	do
		n = recvmsg(DOT_FD, &m, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n != sizeof(*to) || !CMSG_FIRSTHDR(&m) ||
	    control.align.cmsg_len != CMSG_LEN(DOT_FDS * sizeof(int)))
		return false;
	memcpy(fds, CMSG_DATA(&control.align), DOT_FDS * sizeof(int));
	to->name[sizeof(to->name) - 1] = to->address[sizeof(to->address) - 1] = '\0';
	return true;
}

static void serve_apart(SSL_CTX *ctx, const struct dot_server *to, const int fds[DOT_FDS])
{
	static unsigned busy;
	const pid_t self = getpid();
	pid_t pid;

	while (busy && waitpid(-1, NULL, WNOHANG) > 0)
		busy--;
	pid = busy < DOT_CONNECTIONS_MAX ? fork() : -1;
	busy += pid > 0;
	if (pid != 0)
		return;
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(DOT_FD);
	if (getppid() == self && dot_walls(false) == 0)
		dot_serve(ctx, to, fds[DOT_FD_SERVER], fds[DOT_FD_PLAIN]);
	_exit(0);
}

static SSL_CTX *begin(struct err *err)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

	if (!ctx || !SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION)) {
		err_set(err, ENOMEM, "OpenSSL does not start");
		return NULL;
	}
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				      SSL_MODE_RELEASE_BUFFERS);
	return dot_trust(ctx, err) < 0 ? NULL : ctx;
}

int main(void)
{
	struct err err = ERR_INIT;
	struct dot_server to;
	int fds[DOT_FDS], r;
	struct stat st;
	SSL_CTX *ctx;

	if (fstat(DOT_FD, &st) < 0 || !S_ISSOCK(st.st_mode)) {
		fputs("error: msb-dot is a part of msb, not a command\n", stderr);
		return 1;
	}
	signal(SIGPIPE, SIG_IGN);
	ctx = begin(&err);
	r = ctx ? dot_walls(true) : -EINVAL;
	if (ctx && r < 0)
		err_set(&err, r, "cannot confine msb-dot: %s", err_name(r));
	if (r < 0) {
		(void)!send(DOT_FD, err.msg, strlen(err.msg), MSG_NOSIGNAL);
		return 1;
	}
	if (send(DOT_FD, "", 1, MSG_NOSIGNAL) != 1)
		return 1;
	while (receive(&to, fds)) {
		serve_apart(ctx, &to, fds);
		close(fds[DOT_FD_SERVER]);
		close(fds[DOT_FD_PLAIN]);
	}
	return 0;
}
