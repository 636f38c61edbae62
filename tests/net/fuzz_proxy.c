/* SPDX-License-Identifier: Apache-2.0 */
/* A proxy that says anything, in pieces: what a dialogue takes is never more than there was. */
#undef NDEBUG
#include <assert.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "net/proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static const char *const urls[] = {"socks5://1.2.3.4:5", "socks4://1.2.3.4:5",
					   "http://1.2.3.4:5"};
	struct net_proxy proxy;
	struct net_dialogue *d;
	struct net_addr to, from;
	size_t given = 0, head;
	uint16_t port;
	bool datagrams;
	int s[2], r = 0;

	if (n < 2 || n > 8192)
		return 0;
	assert(net_proxy_parse(urls[p[0] % 3], &proxy, NULL) == 0);
	if (p[0] & 0x80)
		assert(net_proxy_login(&proxy, "user", p[0] % 3 == 1 ? "" : "word", NULL) == 0);
	assert(net_addr_parse(p[0] & 0x40 ? "::5" : "9.8.7.6", &to));
	assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s) == 0);
	head = net_datagram_open(p + 1, n - 1, &from, &port);
	assert(head <= n - 1 && head <= NET_DATAGRAM_HEAD);
	datagrams = p[0] % 3 == 0 && p[0] & 0x20;
	d = net_dialogue_new(&proxy, datagrams ? NULL : &to, 80);
	assert(d);
	for (size_t at = 1; at < n && r == 0;) {
		size_t k = MIN((size_t)p[at] + 1, n - at);

		/* Many small ones that are not taken fill a socket. */
		if (write(s[1], p + at, k) != (ssize_t)k)
			break;
		at += k;
		given += k;
		r = net_dialogue_run(d, s[0]);
		assert(r <= 1 && net_dialogue_taken(d) <= given);
	}
	net_dialogue_free(d);
	close(s[0]);
	close(s[1]);
	return 0;
}
