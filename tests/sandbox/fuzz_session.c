/* SPDX-License-Identifier: Apache-2.0 */
/* A hostile client of the sessions, and a hostile guest behind them. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sandbox/session.h"

static int agents[4], nagents;

/* The agent's end gets a greeting and then what the fuzzer wants it to say. */
static int do_connect(void *arg, struct err *err)
{
	static const uint8_t greeting[] = {0, 0, 0, 1, 0, 0, 4, 0};
	struct msg_ready ready = {.agent_version = (char *)(uintptr_t) "fuzz"};
	struct buf b = BUF_INIT;
	int p[2];

	(void)arg;
	if (nagents == (int)ARRAY_SIZE(agents) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p) < 0)
		return err_set(err, ECONNREFUSED, "no more");
	buf_add(&b, greeting, sizeof(greeting));
	frame_put_msg(&b, 0, MSG_READY, &ready);
	assert(write(p[0], buf_ptr(&b), buf_size(&b)) == (ssize_t)buf_size(&b));
	buf_done(&b);
	agents[nagents++] = p[0];
	return p[1];
}

static const struct session_host_ops ops = {.connect = do_connect};

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct sockaddr_storage sa;
	socklen_t size = sizeof(sa);
	struct session_host *host;
	struct loop *loop;
	int clients[2], l = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char sink[4096];

	nagents = 0;
	/* An abstract name of the kernel's choice. */
	assert(bind(l, (struct sockaddr *)&(sa_family_t){AF_UNIX}, sizeof(sa_family_t)) == 0);
	assert(listen(l, 8) == 0 && getsockname(l, (struct sockaddr *)&sa, &size) == 0);
	assert(loop_new(&loop, NULL) == 0);
	assert(session_host_new(&host, loop, l, &ops, NULL, NULL) == 0);
	for (int i = 0; i < 2; i++) {
		clients[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
		assert(connect(clients[i], (struct sockaddr *)&sa, size) == 0);
	}
	/* A byte says who speaks, and for how long. */
	while (n) {
		size_t step = MIN((size_t)(*p >> 3) * 8 + 1, n - 1);
		unsigned who = *p & 7;
		int fd = who < 2 ? clients[who] : (int)who - 2 < nagents ? agents[who - 2] : -1;

		p++;
		n--;
		if (fd >= 0)
			(void)!send(fd, p, step, MSG_NOSIGNAL | MSG_DONTWAIT);
		p += step;
		n -= step;
		for (int i = 0; i < 4; i++)
			assert(loop_turn(loop, 0) == 0);
		while (who < 2 && fd >= 0 && recv(fd, sink, sizeof(sink), MSG_DONTWAIT) > 0)
			;
	}
	session_host_free(host);
	loop_free(loop);
	close(clients[0]);
	close(clients[1]);
	while (nagents)
		close(agents[--nagents]);
	return 0;
}
