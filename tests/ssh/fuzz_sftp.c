/* SPDX-License-Identifier: Apache-2.0 */
/* What an SFTP client sends, to an agent that is not connected yet. */
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sandbox/agent_client.h"
#include "ssh/ssh.h"

static void on_ready(void *arg, const struct msg_ready *r)
{
	(void)arg;
	(void)r;
}

static void on_closed(void *arg, const struct err *why)
{
	(void)arg;
	(void)why;
}

static void swallow(void *arg, const void *p, size_t n)
{
	(void)arg;
	(void)p;
	(void)n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct agent_client_ops ops = {on_ready, on_closed};
	static const struct sftp_out out = {swallow, NULL};
	static struct agent_client *agent;
	static struct loop *loop;
	struct sftp *s;
	int p[2];

	if (!agent && (loop_new(&loop, NULL) < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, p) < 0 ||
		       agent_client_new(&agent, loop, p[0], &ops, NULL, NULL) < 0))
		abort();
	s = sftp_new(agent, "", "/root", &out);
	/* In two pieces, wherever the first byte says. */
	if (s && size) {
		size_t cut = data[0] % size;

		if (sftp_input(s, data, cut))
			(void)sftp_input(s, data + cut, size - cut);
	}
	sftp_free(s);
	return 0;
}
