/* SPDX-License-Identifier: Apache-2.0 */
/* msb-ssh --keys FILE [--shell PATH] [--user USER] [--idle SECONDS] [--stdio]: see ssh.h. */
#include <errno.h>
#include <fcntl.h>
#include <libssh/libssh.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"
#include "ssh/ssh.h"

static int fail(const char *what)
{
	fprintf(stderr, "error: msb-ssh: %s\n", what);
	return 1;
}

/* The sandbox's host key, made when it is first needed. Two at once make one: rename() decides. */
static int ensure_host_key(void)
{
	char temp[96];
	ssh_key key = NULL;
	int r;

	if (faccessat(SSH_FD_DIR, SSH_HOST_KEY, R_OK, 0) == 0)
		return 0;
	snprintf(temp, sizeof(temp), "/proc/self/fd/%d/" SSH_HOST_KEY ".%d", SSH_FD_DIR,
		 (int)getpid());
	umask(077);
	if (ssh_pki_generate(SSH_KEYTYPE_ED25519, 0, &key) != SSH_OK)
		return fail("cannot make a host key");
	r = ssh_pki_export_privkey_file(key, NULL, NULL, NULL, temp);
	ssh_key_free(key);
	if (r != SSH_OK || renameat(AT_FDCWD, temp, SSH_FD_DIR, SSH_HOST_KEY) < 0) {
		unlink(temp);
		return fail("cannot write the host key");
	}
	return 0;
}

/* A connection's process, its end of a pair of sockets that ask for connections to the agent. */
static pid_t begin(int fd, int p[2], const struct ssh_options *o)
{
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p) < 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* The listener, and what belongs to other connections. */
		for (int i = 3; i < 2 * SSH_CONNECTIONS_MAX; i++) {
			if (i != fd && i != p[1] && i != SSH_FD_DIR)
				close(i);
		}
		_exit(conn_serve(fd, p[1], o));
	}
	close(p[1]);
	if (pid < 0)
		close(p[0]);
	return pid;
}

/* Between standard input and output and the socket, until the socket's other end closes. */
static void pump(int fd, int agents)
{
	static char chunk[64 << 10];
	bool in = true;

	for (;;) {
		struct pollfd p[3] = {{.fd = fd, .events = POLLIN},
				      {.fd = in ? STDIN_FILENO : -1, .events = POLLIN},
				      {.fd = agents, .events = POLLIN}};
		ssize_t n;

		if (poll(p, 3, -1) < 0) {
			if (errno == EINTR)
				continue;
			return;
		}
		if (p[2].revents && !agent_serve(agents))
			agents = -1;
		if (p[0].revents) {
			n = read(fd, chunk, sizeof(chunk));
			if (n <= 0 || io_write_full(STDOUT_FILENO, chunk, (size_t)n) < 0)
				return;
		}
		if (p[1].revents) {
			n = read(STDIN_FILENO, chunk, sizeof(chunk));
			if (n > 0 && io_write_full(fd, chunk, (size_t)n) < 0)
				return;
			if (n <= 0) {
				in = false;
				(void)shutdown(fd, SHUT_WR);
			}
		}
	}
}

static int serve_stdio(const struct ssh_options *o)
{
	int data[2], agents[2], status;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, data) < 0)
		return fail(strerror(errno));
	pid = begin(data[1], agents, o);
	if (pid < 0)
		return fail(strerror(errno));
	close(data[1]);
	pump(data[0], agents[0]);
	close(data[0]);
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static int serve_socket(const struct ssh_options *o)
{
	/* The listener, and of each connection the socket that asks for the agent. */
	struct pollfd p[1 + SSH_CONNECTIONS_MAX] = {{.fd = SSH_FD_LISTEN, .events = POLLIN}};
	nfds_t n = 1;

	/* They are known by their sockets; nobody waits for them. */
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		if (poll(p, n, -1) < 0 && errno != EINTR)
			return fail(strerror(errno));
		for (nfds_t i = n - 1; i; i--) {
			if (p[i].revents && !agent_serve(p[i].fd)) {
				close(p[i].fd);
				p[i] = p[--n];
			}
		}
		if (p[0].revents) {
			int fd = accept4(SSH_FD_LISTEN, NULL, NULL, SOCK_CLOEXEC), agents[2];

			if (fd < 0 && errno != EINTR && errno != ECONNABORTED)
				return fail(strerror(errno));
			if (fd >= 0 && n <= SSH_CONNECTIONS_MAX && begin(fd, agents, o) > 0)
				p[n++] = (struct pollfd){.fd = agents[0], .events = POLLIN};
			close_fd(fd);
		}
	}
}

int main(int argc, char **argv)
{
	struct ssh_options o = {.shell = "/bin/sh", .idle_ns = 600000000000ull};
	struct stat st;
	uint64_t n;

	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (str_eq(argv[i], "--stdio")) {
			o.stdio = true;
			continue;
		}
		if (value && str_eq(argv[i], "--keys"))
			o.authorized = value;
		else if (value && str_eq(argv[i], "--shell"))
			o.shell = value;
		else if (value && str_eq(argv[i], "--user"))
			o.user = value;
		else if (value && str_eq(argv[i], "--idle") &&
			 str_to_u64(value, UINT32_MAX, &n) == 0)
			o.idle_ns = n * 1000000000ull;
		else
			return fail("it is started by `msb ssh`");
		i++;
	}
	if (!o.authorized || fstat(SSH_FD_DIR, &st) < 0 || !S_ISDIR(st.st_mode))
		return fail("it is started by `msb ssh`");
	(void)fcntl(SSH_FD_DIR, F_SETFD, FD_CLOEXEC);
	(void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	signal(SIGPIPE, SIG_IGN);
	if (ssh_init() != SSH_OK)
		return fail("cannot start libssh");
	if (ensure_host_key())
		return 1;
	return o.stdio ? serve_stdio(&o) : serve_socket(&o);
}
