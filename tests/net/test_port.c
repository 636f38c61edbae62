/* SPDX-License-Identifier: Apache-2.0 */
/* Ports as people write them, and what is said when one cannot be had. */
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "net/policy.h"
#include "net/port.h"

static void words(void **state)
{
	static const struct {
		const char *text, *first;
		int n; /* -1: refused */
	} rows[] = {
		{"8080:80", "127.0.0.1:8080->80/tcp", 1},
		{"8080:80/tcp", "127.0.0.1:8080->80/tcp", 1},
		{"5353:53/udp", "127.0.0.1:5353->53/udp", 1},
		{"0:80", "127.0.0.1:0->80/tcp", 1},
		{"0:80-89", "127.0.0.1:0->80/tcp", 10},
		{"0.0.0.0:8080:80", "0.0.0.0:8080->80/tcp", 1},
		{"[::1]:8080:80", "[::1]:8080->80/tcp", 1},
		{"[::]:5353:53/udp", "[::]:5353->53/udp", 1},
		{"8000-8010:9000-9010", "127.0.0.1:8000->9000/tcp", 11},
		{"1-1024:1-1024", "127.0.0.1:1->1/tcp", 1024},
		{"65535:65535", "127.0.0.1:65535->65535/tcp", 1},
		{"", NULL, -1},
		{"80", NULL, -1},
		{":80", NULL, -1},
		{"80:", NULL, -1},
		{"80:0", NULL, -1},
		{"65536:80", NULL, -1},
		{"80:65536", NULL, -1},
		{"-1:80", NULL, -1},
		{"80:80/sctp", NULL, -1},
		{"80:80/", NULL, -1},
		{"0-10:0-10", NULL, -1},
		{"8000-8010:9000-9009", NULL, -1},
		{"8010-8000:9010-9000", NULL, -1},
		{"1-1025:1-1025", NULL, -1},
		{"::1:80:80", NULL, -1},
		{"[::1:80:80", NULL, -1},
		{"[]:80:80", NULL, -1},
		{"localhost:80:80", NULL, -1},
		{"1.2.3:80:80", NULL, -1},
	};
	static struct net_port p[NET_PORTS_MAX];
	char text[NET_PORT_TEXT];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct err err = ERR_INIT;
		int n = net_port_parse(rows[i].text, p, NET_PORTS_MAX, &err);

		if (n < 0 ? rows[i].n != -1 || !err.hint[0] : n != rows[i].n)
			fail_msg("\"%s\": %d, %s", rows[i].text, n, err.msg);
		if (n > 0)
			assert_string_equal(net_port_text(&p[0], text), rows[i].first);
		if (n > 1) {
			assert_int_equal(p[n - 1].guest_port, p[0].guest_port + n - 1);
			assert_int_equal(p[n - 1].port, p[0].port ? p[0].port + n - 1 : 0);
		}
	}
}

static struct net_port one(const char *text)
{
	struct net_port p;

	assert_int_equal(net_port_parse(text, &p, 1, NULL), 1);
	return p;
}

static void opened(void **state)
{
	static const char *const any[] = {"0:80", "0:80/udp", "[::1]:0:80", "[::1]:0:80/udp"};
	struct net_port p, again;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(any); i++) {
		struct err err = ERR_INIT;

		p = one(any[i]);
		/* Not every host has IPv6. */
		if (net_port_open(&p, &err) < 0 && i >= 2)
			continue;
		assert_true(p.fd >= 0 && p.port);
		again = p;
		assert_int_equal(net_port_open(&again, &err), -EADDRINUSE);
		assert_non_null(strstr(err.hint, "another program"));
		close(p.fd);
	}
}

static void not_this_host(void **state)
{
	struct net_port p = one("203.0.113.77:0:80");
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(net_port_open(&p, &err), -EADDRNOTAVAIL);
	assert_non_null(strstr(err.msg, "203.0.113.77"));
	assert_non_null(strstr(err.hint, "address of this host"));
}

static unsigned first_of_all(void)
{
	FILE *f = fopen("/proc/sys/net/ipv4/ip_unprivileged_port_start", "re");
	unsigned n = 0;

	if (f && fscanf(f, "%u", &n) != 1)
		n = 0;
	if (f)
		fclose(f);
	return n;
}

/* What an ordinary user hears of a port that is root's. */
static void privileged(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	if (first_of_all() <= 7)
		skip();
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct net_port p = one("7:80");
		struct err err = ERR_INIT;

		if (!geteuid() && setresuid(65534, 65534, 65534) < 0)
			_exit(2);
		_exit(net_port_open(&p, &err) != -EACCES ||
		      !strstr(err.hint, "net.ipv4.ip_unprivileged_port_start"));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(words),
		cmocka_unit_test(opened),
		cmocka_unit_test(not_this_host),
		cmocka_unit_test(privileged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
