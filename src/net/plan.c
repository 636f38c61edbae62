/* SPDX-License-Identifier: Apache-2.0 */
#include "net/plan.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/io.h"

/* 02:6d:73 is "ms" among the addresses that anybody may use. */
void net_plan(struct stack_config *c, bool ipv6)
{
	static const uint8_t mac[5] = {0x02, 0x6d, 0x73, 0, 0};
	static const uint8_t prefix6[6] = {0xfd, 0x42, 0x6d, 0x73, 0, 0x62};
	uint8_t four[4] = {172, 16, 0, 0}, six[16] = {0};

	memcpy(c->gateway_mac, mac, 5);
	memcpy(c->guest_mac, mac, 5);
	c->gateway_mac[5] = four[3] = 1;
	c->gateway4 = net_addr_v4(four);
	c->guest_mac[5] = four[3] = 2;
	c->guest4 = net_addr_v4(four);
	c->host4 = net_addr_v4((const uint8_t[]){127, 0, 0, 1});
	c->mtu = NET_MTU;
	if (!ipv6)
		return;
	six[15] = 1;
	c->host6 = net_addr_v6(six);
	memcpy(six, prefix6, sizeof(prefix6));
	c->gateway6 = net_addr_v6(six);
	six[15] = 2;
	c->guest6 = net_addr_v6(six);
}

bool net_host_has_ipv6(void)
{
	/* An address that is routed if any is. */
	static const struct sockaddr_in6 far = {
		.sin6_family = AF_INET6,
		.sin6_port = 0x0900,
		.sin6_addr.s6_addr = {0x26, 0x06, 0x47, 0, 0x47, 0, [15] = 0x11},
	};
	cleanup_close int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return fd >= 0 && connect(fd, (const void *)&far, sizeof(far)) == 0;
}

void net_plan_resolvers(struct stack_config *c, const char *path)
{
	/* The kernel's own limit on a line there is far below. */
	enum { FILE_MAX = 1 << 16 };
	static const uint8_t loopback[] = {127, 0, 0, 1};
	cleanup_buf struct buf b = BUF_INIT;
	char *text, *rest, *line;

	c->ndns = 0;
	/* Without the file, or without one in it, it is this host (resolv.conf(5)). */
	text = io_read_file(path, FILE_MAX, &b, NULL) < 0 ? NULL : buf_cstr(&b);
	for (line = text ? strtok_r(text, "\n", &rest) : NULL; line;
	     line = strtok_r(NULL, "\n", &rest)) {
		char *save = NULL, *word = strtok_r(line, " \t\r", &save);
		struct net_addr a;

		if (!word || strcmp(word, "nameserver") != 0)
			continue;
		word = strtok_r(NULL, " \t\r", &save);
		if (word && c->ndns < STACK_DNS_MAX && net_addr_parse(word, &a))
			c->dns[c->ndns++] = a;
	}
	if (!c->ndns)
		c->dns[c->ndns++] = net_addr_v4(loopback);
}
