/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Command sessions: core.exec.*.
 *
 * A session runs from core.exec.request to core.exec.exited (or .failed). "Exited" follows the last
 * byte of output: normally both pipes end with the command. When something it left behind keeps
 * them open, the session ends once all that was in the pipes when the command exited has been
 * sent, and EXEC_GRACE_MS have passed for its other children to finish their sentences.
 */
#ifndef GUEST_EXEC_H
#define GUEST_EXEC_H

#include "server.h"

enum {
	EXEC_GRACE_MS = 100,
	EXEC_TTY_GRACES = 20,
	EXEC_CHUNK_MAX = 256 << 10,
	EXEC_ENV_MAX = 16384, /* each is looked for among those before it */
};

void exec_request(struct conn *c, uint32_t id, const struct msg_exec_request *req);
void exec_stdin(struct stream *s, const uint8_t *p, size_t n);
void exec_resize(struct stream *s, const struct msg_exec_resize *m);
void exec_signal(struct stream *s, const struct msg_exec_signal *m);

/* A shell on a terminal does not listen to SIGTERM. */
void exec_hang_up(struct stream *s);

/* Is it a command session? */
bool exec_is(const struct stream *s);

/*
 * Compose an environment: @defaults, then @env ("K=V") over it, then PATH, HOME and (with @tty)
 * TERM where still missing. A NULL-terminated vector to be freed in one piece, strings included.
 */
char **exec_environment(const struct wire_list *defaults, const struct wire_texts *env,
			const char *home, bool tty);

#endif
