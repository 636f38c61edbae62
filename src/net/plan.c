/* SPDX-License-Identifier: Apache-2.0 */
#include "net/plan.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
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

/* The kernel's own limit on a line there is far below. */
enum { FILE_MAX = 1 << 16, SEARCH_MAX = 6 };

static void add_own(struct resolver_config *dns, const struct net_addr *a)
{
	static const struct net_addr nobody;
	struct resolver_host *h = &dns->host[dns->nhosts];

	if (net_addr_equal(a, &nobody) || dns->nhosts == RESOLVER_HOSTS_MAX)
		return;
	if (dns_name_parse(NET_HOST_NAME, &h->name) < 0)
		return;
	h->addr = *a;
	dns->nhosts++;
}

void net_plan_resolver(struct resolver_config *dns, const struct stack_config *c, const char *path)
{
	static const uint8_t loopback[] = {127, 0, 0, 1};
	cleanup_buf struct buf b = BUF_INIT;
	char *text, *rest, *line;
	const unsigned own = dns->nservers;

	add_own(dns, &c->gateway4);
	add_own(dns, &c->gateway6);
	memcpy(dns->seed, c->seed, sizeof(dns->seed));
	if (own)
		return;
	/* Without the file, or without one in it, it is this host (resolv.conf(5)). */
	text = io_read_file(path, FILE_MAX, &b, NULL) < 0 ? NULL : buf_cstr(&b);
	for (line = text ? strtok_r(text, "\n", &rest) : NULL; line;
	     line = strtok_r(NULL, "\n", &rest)) {
		char *save = NULL, *word = strtok_r(line, " \t\r", &save);
		struct resolver_server s = {.port = DNS_PORT};

		if (!word || strcmp(word, "nameserver") != 0)
			continue;
		word = strtok_r(NULL, " \t\r", &save);
		if (word && dns->nservers < RESOLVER_SERVERS_MAX && net_addr_parse(word, &s.addr))
			dns->server[dns->nservers++] = s;
	}
	if (!dns->nservers)
		dns->server[dns->nservers++] =
			(struct resolver_server){.port = DNS_PORT, .addr = net_addr_v4(loopback)};
}

static int parse_switch(const char *key, const char *text, bool *ret, struct err *err)
{
	*ret = str_eq(text, "on") || str_eq(text, "true");
	if (*ret || str_eq(text, "off") || str_eq(text, "false"))
		return 0;
	err_set(err, ERR_USAGE, "%s cannot be \"%s\"", key, text);
	return err_hint(err, "it is on or off");
}

int net_plan_names(struct resolver_config *dns, const char *pair, struct err *err)
{
	const char *value = strchr(pair, '=');
	uint64_t ms;
	bool on;
	int r;

	value = value ? value + 1 : "";
	if (str_starts(pair, "rebind-protection=")) {
		r = parse_switch("protection from rebinding", value, &on, err);
		dns->private_answers = r == 0 && !on;
		return r;
	}
	if (str_starts(pair, "strict="))
		return parse_switch("strict", value, &dns->strict, err);
	if (!str_starts(pair, "timeout-ms="))
		return err_set(err, ERR_USAGE, "there is nothing to say about names as \"%s\"",
			       pair);
	if (str_to_u64(value, 600000, &ms) < 0 || ms < 100) {
		err_set(err, ERR_USAGE, "no time limit for a query: \"%s\"", value);
		return err_hint(err, "it is a number of milliseconds, from 100 to 600000");
	}
	dns->timeout = ms * 1000000;
	return 0;
}

int net_plan_search(const char *path, char **ret)
{
	cleanup_buf struct buf b = BUF_INIT, domains = BUF_INIT;
	char *text, *rest, *line, *copy;

	text = io_read_file(path, FILE_MAX, &b, NULL) < 0 ? NULL : buf_cstr(&b);
	for (line = text ? strtok_r(text, "\n", &rest) : NULL; line;
	     line = strtok_r(NULL, "\n", &rest)) {
		char *save = NULL, *word = strtok_r(line, " \t\r", &save);
		struct dns_name name;
		int n = 0;

		if (!word || (strcmp(word, "search") != 0 && strcmp(word, "domain") != 0))
			continue;
		/* The last line counts. */
		buf_reset(&domains);
		while (n < SEARCH_MAX && (word = strtok_r(NULL, " \t\r", &save))) {
			if (dns_name_parse(word, &name) < 0 || name.n == 1)
				continue;
			buf_addf(&domains, "%s%s", n++ ? " " : "", word);
		}
	}
	if (!buf_size(&domains)) {
		*ret = NULL;
		return 0;
	}
	copy = strdup(buf_cstr(&domains) ? buf_cstr(&domains) : "");
	if (!copy)
		return -ENOMEM;
	*ret = copy;
	return 0;
}
