/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agentd's server, without a guest, on a unix socket in a process of its own; and a client of the
 * agent protocol that blocks.
 */
#ifndef TEST_HARNESS_H
#define TEST_HARNESS_H

#include <sys/types.h>

#include "wire/frame.h"

struct client {
	int fd;
	struct buf in;
	size_t pending; /* of the frame handed out last */
};

struct got {
	uint32_t id;
	uint8_t flags;
	enum msg_kind kind;
	const uint8_t *data; /* data frames: in place until the next call */
	size_t data_len;
	union {
		struct msg_exec_started started;
		struct msg_exec_exited exited;
		struct msg_exec_failed failed;
		struct msg_exec_stdin_error stdin_error;
		struct msg_fs_response fs;
		struct msg_tcp_failed tcp_failed;
		struct msg_error error;
		struct msg_touched touched;
		struct msg_empty empty;
		char room[512];
	} u;
};

/* @restricted: the security profile of that name. */
void harness_start(bool restricted);
void harness_stop(void);
pid_t harness_pid(void);

void client_open(struct client *c);
void client_close(struct client *c);
void client_send(struct client *c, uint32_t id, enum msg_kind kind, const void *msg);
void client_data(struct client *c, uint32_t id, enum msg_kind kind, const void *p, size_t n);
void client_raw(struct client *c, const void *p, size_t n);
/* The next message; fails the test after a minute or at the end of the connection. */
void client_next(struct client *c, struct got *g);
void got_done(struct got *g);
/* True when the server closes within a minute without another message. */
bool client_eof(struct client *c);

/* Start "sh -c @script". */
void client_sh(struct client *c, uint32_t id, const char *script, bool tty);
/* Collect output until the end of session @id: its exit code, or -1 - kind when it failed. */
struct collected {
	struct buf out, err;
	int stdin_errors;
	int code;
	char message[256];
};
void client_collect(struct client *c, uint32_t id, struct collected *r);
void collected_done(struct collected *r);

#endif
