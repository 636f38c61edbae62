/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Load for a network, and its other end: bench/net.py.
 *
 *	netload serve                    prints its port, serves until it is killed
 *	netload HOST PORT up FLOWS MS    prints bytes that arrived, and ns
 *	netload HOST PORT down FLOWS MS
 *	netload HOST PORT rr 1 MS        exchanges on one connection: count, p50, p99, first in ns
 *	netload HOST PORT crr 1 MS       one exchange for each connection: the same
 *	netload HOST PORT hold FLOWS MS  that many connections at once: how many answered, twice;
 *	                                 then waits for the end of its input
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 1 << 18, MESSAGE = 64, SAMPLES = 1 << 20 };

static struct sockaddr_in server;
static char block[BLOCK];
static uint32_t ms;
static uint64_t end;

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void thread(void *(*fn)(void *), void *arg, pthread_t *t)
{
	pthread_attr_t a;

	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, 65536);
	if (pthread_create(t, &a, fn, arg))
		die("thread");
}

/* ---- the server: what a connection's first byte says ---- */

static void *serve_up(void *arg)
{
	int fd = (int)(intptr_t)arg;
	uint64_t total = 0, until;
	bool told = false;
	uint32_t asked = 0;
	ssize_t n;

	(void)!recv(fd, &asked, sizeof(asked), MSG_WAITALL);
	until = now() + asked * 1000000ull;
	/* Nobody looks at what arrives. Once the total is told the rest goes nowhere. */
	while ((n = recv(fd, block, BLOCK, 0)) > 0) {
		total += (uint64_t)n;
		if (!told && now() > until)
			told = write(fd, &total, sizeof(total)) > 0;
	}
	close(fd);
	return NULL;
}

static void *serve_down(void *arg)
{
	int fd = (int)(intptr_t)arg;

	while (send(fd, block, BLOCK, MSG_NOSIGNAL) > 0)
		;
	close(fd);
	return NULL;
}

static void nodelay(int fd)
{
	const int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static void *accepts(void *arg)
{
	int listener = (int)(intptr_t)arg;

	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			die("accept");
		nodelay(fd);
		/* Exchanges are answered by the main thread's epoll set: there may be many. */
		if (epoll_ctl(3, EPOLL_CTL_ADD, fd,
			      &(struct epoll_event){.events = EPOLLIN, .data.fd = fd}) < 0)
			die("epoll");
	}
	return NULL;
}

static void answer(int fd)
{
	char m[MESSAGE];
	ssize_t n = recv(fd, m, 1, MSG_PEEK | MSG_DONTWAIT);
	pthread_t t;

	if (n < 0 && errno == EAGAIN)
		return;
	if (n > 0 && m[0] == 'r') {
		n = recv(fd, m, sizeof(m), 0);
		(void)!send(fd, m, (size_t)n, MSG_NOSIGNAL);
		return;
	}
	(void)!recv(fd, m, 1, 0);
	epoll_ctl(3, EPOLL_CTL_DEL, fd, NULL);
	if (n <= 0) {
		close(fd);
		return;
	}
	thread(m[0] == 'u' ? serve_up : serve_down, (void *)(intptr_t)fd, &t);
	pthread_detach(t);
}

static void serve(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	socklen_t len = sizeof(a);
	struct epoll_event ev[64];
	pthread_t t;
	int l;

	/* The first descriptor there is. */
	if (epoll_create1(EPOLL_CLOEXEC) != 3)
		die("descriptors");
	l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (l < 0 || bind(l, (void *)&a, sizeof(a)) < 0 || listen(l, 4096) < 0 ||
	    getsockname(l, (void *)&a, &len) < 0)
		die("listen");
	printf("%u\n", ntohs(a.sin_port));
	fflush(stdout);
	thread(accepts, (void *)(intptr_t)l, &t);
	for (;;) {
		int n = epoll_wait(3, ev, 64, -1);

		for (int i = 0; i < n; i++)
			answer(ev[i].data.fd);
	}
}

/* ---- the client ---- */

static int dial(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (void *)&server, sizeof(server)) < 0)
		die("connect");
	nodelay(fd);
	return fd;
}

/* What is still on its way is not wanted. */
static void hang_up(int fd)
{
	const struct linger l = {.l_onoff = 1};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	close(fd);
}

static void *up(void *arg)
{
	struct pollfd p = {.fd = dial(), .events = POLLIN | POLLOUT};
	uint64_t *total = arg;

	(void)!write(p.fd, "u", 1);
	(void)!write(p.fd, &ms, sizeof(ms));
	do {
		if (send(p.fd, block, BLOCK, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN)
			die("send");
		poll(&p, 1, 60000);
	} while (!(p.revents & POLLIN));
	if (recv(p.fd, total, sizeof(*total), MSG_WAITALL) != sizeof(*total))
		die("no total");
	hang_up(p.fd);
	return NULL;
}

static void *down(void *arg)
{
	static char into[16][BLOCK];
	int fd = dial();
	uint64_t *total = arg;

	(void)!write(fd, "d", 1);
	while (now() < end) {
		ssize_t n = recv(fd, into[fd % 16], BLOCK, 0);

		if (n <= 0)
			die("recv");
		*total += (uint64_t)n;
	}
	hang_up(fd);
	return NULL;
}

static void bulk(void *(*fn)(void *), unsigned flows)
{
	pthread_t t[64];
	uint64_t n[64] = {0}, total = 0, began = now();

	if (flows > 64)
		exit(2);
	for (unsigned i = 0; i < flows; i++)
		thread(fn, &n[i], &t[i]);
	for (unsigned i = 0; i < flows; i++) {
		pthread_join(t[i], NULL);
		total += n[i];
	}
	printf("%llu %llu\n", (unsigned long long)total, (unsigned long long)(now() - began));
}

static void exchange(int fd)
{
	char m[MESSAGE] = "r";

	if (send(fd, m, sizeof(m), MSG_NOSIGNAL) != sizeof(m) ||
	    recv(fd, m, sizeof(m), MSG_WAITALL) != sizeof(m))
		die("exchange");
}

static int by_size(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void exchanges(bool each)
{
	uint64_t *took = calloc(SAMPLES, sizeof(*took)), began, first;
	int fd = each ? -1 : dial();
	size_t n = 0;

	while (now() < end && n < SAMPLES) {
		began = now();
		if (each)
			fd = dial();
		exchange(fd);
		if (each)
			close(fd);
		took[n++] = now() - began;
	}
	if (!n)
		exit(1);
	first = took[0];
	qsort(took, n, sizeof(*took), by_size);
	printf("%zu %llu %llu %llu\n", n, (unsigned long long)took[n / 2],
	       (unsigned long long)took[n * 99 / 100], (unsigned long long)first);
}

static void hold(unsigned flows)
{
	int *fd = calloc(flows, sizeof(*fd));
	char c;

	for (unsigned i = 0; i < flows; i++) {
		fd[i] = dial();
		exchange(fd[i]);
	}
	printf("%u\n", flows);
	for (unsigned i = 0; i < flows; i++)
		exchange(fd[i]);
	printf("%u\n", flows);
	fflush(stdout);
	(void)!read(0, &c, 1);
}

int main(int argc, char **argv)
{
	struct rlimit r;
	unsigned flows;

	if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
		r.rlim_cur = r.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &r);
	}
	signal(SIGPIPE, SIG_IGN);
	memset(block, 'x', sizeof(block));
	if (argc == 2 && strcmp(argv[1], "serve") == 0)
		serve();
	if (argc != 6)
		return 2;
	server.sin_family = AF_INET;
	server.sin_port = htons((uint16_t)atoi(argv[2]));
	if (inet_pton(AF_INET, argv[1], &server.sin_addr) != 1)
		return 2;
	flows = (unsigned)atoi(argv[4]);
	ms = (uint32_t)atoi(argv[5]);
	end = now() + ms * 1000000ull;
	if (strcmp(argv[3], "up") == 0)
		bulk(up, flows);
	else if (strcmp(argv[3], "down") == 0)
		bulk(down, flows);
	else if (strcmp(argv[3], "hold") == 0)
		hold(flows);
	else
		exchanges(strcmp(argv[3], "crr") == 0);
	return 0;
}
