/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/reach.h"

#include <errno.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "sandbox/sandbox_dir.h"
#include "sandbox/session_msg.h"
#include "sandbox/spec.h"

/* Between the agent's readiness and that of whoever started the sandbox. */
#define SESSIONS_PATIENCE_NS ((uint64_t)3000000000)
/* Between the lock and the socket: an image to look at, a disk to make; or a guest to shut down. */
#define REACH_PATIENCE_MS 15000
#define REACH_RETRY_NS	  5000000

static int try_connect(struct store *s, const char *name, const char *socket)
{
	cleanup_close int dir = sandbox_dir_open(s, name, NULL);

	return dir < 0 ? dir : sandbox_socket_connect(dir, socket, NULL);
}

int sandbox_reach_socket(struct store *s, const char *name, const char *socket, int patience_ms,
			 struct err *err)
{
	uint64_t end = now_ns() + (uint64_t)patience_ms * 1000000;
	int r = sandbox_name_check(name, err);

	if (r < 0)
		return r;
	for (;;) {
		cleanup_sandbox_list struct sandbox_list l = {0};
		int fd = try_connect(s, name, socket);

		if (fd >= 0)
			return fd;
		r = sandbox_dir_list(s, name, &l, err);
		if (r < 0)
			return r;
		if (!l.items[0].running) {
			err_set(err, ENOTCONN, "sandbox \"%s\" is not running", name);
			return err_hint(err, "start it with `msb start %s`", name);
		}
		if (now_ns() >= end) {
			err_set(err, EBUSY, "sandbox \"%s\" runs, but nobody answers for it", name);
			return err_hint(err, "another command may be starting or stopping it");
		}
		nanosleep(&(struct timespec){.tv_nsec = REACH_RETRY_NS}, NULL);
	}
}

int sandbox_reach(struct store *s, const char *name, struct err *err)
{
	return sandbox_reach_socket(s, name, "agent.sock", REACH_PATIENCE_MS, err);
}

int sandbox_reach_sessions(struct store *s, const char *name, bool wait, struct err *err)
{
	uint64_t end = now_ns() + (wait ? SESSIONS_PATIENCE_NS : 0);

	for (;;) {
		int fd = try_connect(s, name, SESSION_SOCKET);

		if (fd >= 0)
			return fd;
		/* Whether it runs at all. */
		fd = sandbox_reach(s, name, err);
		if (fd < 0)
			return fd;
		close_fd(fd);
		if (now_ns() >= end)
			return err_set(err, ERR_UNSUPPORTED,
				       "whoever runs sandbox \"%s\" keeps no sessions", name);
		nanosleep(&(struct timespec){.tv_nsec = REACH_RETRY_NS}, NULL);
	}
}
