/* SPDX-License-Identifier: Apache-2.0 */
/*
 * msb-ssh, the program that speaks SSH so that msb links no cryptography for it.
 *
 * Theory of operation. msb starts it with the sandbox's directory at SSH_FD_DIR and, unless it is
 * to serve its standard input and output, a listening socket at SSH_FD_LISTEN. Each connection gets
 * a process of its own, in which one loop joins channels to the sandbox's agent: a channel is a
 * session of the agent on a connection of its own, so that a channel that nobody reads stops no
 * other. Nothing of SSH is in the guest. Only keys of the authorized_keys file get in.
 *
 * Clients are strangers, and libssh is large: a connection's process gives up all but what it holds
 * (walls.c) before it reads their first byte. What connects to the agent on its behalf is the
 * process that it comes from, which never sees what clients send.
 *
 *	shell, exec, subsystem sftp     core.exec.*, core.fs.* (sftp.c)
 *	direct-tcpip (-L, -D)           core.tcp.*
 */
#ifndef SSH_SSH_H
#define SSH_SSH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum {
	SSH_FD_DIR = 3,
	SSH_FD_LISTEN = 4,
	SSH_CONNECTIONS_MAX = 64,
	SSH_CHANNELS_MAX = 64, /* of a connection; the relay has room for 128 clients in all */
};
#define SSH_HOST_KEY "ssh_host_ed25519"

struct ssh_options {
	const char *authorized; /* path of the authorized_keys file */
	const char *shell;
	const char *user; /* everybody's; NULL: the one they ask for; empty: the sandbox's */
	uint64_t idle_ns; /* 0: for ever */
	bool stdio;
};

/*
 * conn.c: serve one connection until its end; an exit code. From the first byte of the client's on,
 * the process is behind walls; @agents is a socket to one that is not, and connects for it.
 */
int conn_serve(int fd, int agents, const struct ssh_options *o);

/*
 * walls.c. What is left to a connection's process is its descriptors and its memory: it can open
 * and connect nothing. -errno.
 */
int walls_up(void);
/* Ask for a connection to the agent: a descriptor or -errno. */
int agent_connect(int fd);
/* The other side, when @fd is readable. False: nobody is there any more. */
bool agent_serve(int fd);

/* sftp.c: version 3 of the protocol on a channel. */
struct sftp;
struct agent_client;
struct sftp_out {
	void (*send)(void *arg, const void *p, size_t n);
	void *arg;
};
/* @user as above, but for NULL; @home, which is where relative paths begin, is its. */
struct sftp *sftp_new(struct agent_client *agent, const char *user, const char *home,
		      const struct sftp_out *out);
struct sftp *sftp_free(struct sftp *s);
/* Bytes from the client. False: it broke the protocol. */
bool sftp_input(struct sftp *s, const void *p, size_t n);
/* Requests that wait for the agent; above SFTP_PENDING_MAX no more input should be given. */
enum { SFTP_PENDING_MAX = 128 };
unsigned sftp_pending(const struct sftp *s);

#endif
