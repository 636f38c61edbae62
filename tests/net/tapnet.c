/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stack with Linux as the guest: a TAP device in another network namespace.
 *
 *	tapnet NETNS NAME MTU PROFILES [PORT...]
 *
 * With TAPNET_LOSS=N one frame in N is lost, either way, and one in N to the guest comes late. With
 * TAPNET_OFFLOAD=0 the device does no checksums and no segmentation. With TAPNET_OLD=1 the kernel
 * is treated as one that knows no SO_PEEK_OFF for TCP.
 *
 * TAPNET_DOT is the program for name servers over TLS.
 *
 * Prints "ready", then runs until it is killed or its standard input ends; then says what it saw.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "net/dns_tls.h"
#include "net/host.h"
#include "net/plan.h"

/* KEEP: frames until they are settled, as of a card. */
enum { FRAME = 65536 + 64, TURN = 64, KEEP = 16 };

static struct {
	struct loop_source tap, input;
	struct loop *loop;
	struct net_host *h;
	struct virtio_net_hdr_v1 in_hdr;
	uint8_t in[KEEP][FRAME], out[sizeof(struct virtio_net_hdr_v1) + FRAME];
	unsigned loss, dice;
	bool offload;
	uint8_t late[sizeof(struct virtio_net_hdr_v1) + FRAME];
	size_t late_len;
} t;

/* The same each time. */
static bool unlucky(void)
{
	t.dice = t.dice * 1103515245 + 12345;
	return t.loss && (t.dice >> 8) % t.loss == 0;
}

static void to_tap(const uint8_t *p, size_t n)
{
	if (write(t.tap.fd, p, n) < 0 && errno != EAGAIN)
		perror("tap");
}

static unsigned reserve(void *arg, size_t len, struct iovec *iov, unsigned max)
{
	(void)arg, (void)max;
	if (len > FRAME)
		return 0;
	iov[0] = (struct iovec){t.out + sizeof(t.in_hdr), len};
	return 1;
}

static void commit(void *arg, size_t len, const struct stack_meta *m)
{
	static const uint8_t gso[] = {VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4,
				      VIRTIO_NET_HDR_GSO_TCPV6};
	struct virtio_net_hdr_v1 h = {0};

	(void)arg;
	if (!len)
		return;
	h.flags = m->partial ? VIRTIO_NET_HDR_F_NEEDS_CSUM : VIRTIO_NET_HDR_F_DATA_VALID;
	h.csum_start = m->csum_start;
	h.csum_offset = m->csum_offset;
	h.gso_type = gso[m->gso];
	h.gso_size = m->gso_size;
	h.hdr_len = m->hdr_len;
	memcpy(t.out, &h, sizeof(h));
	if (unlucky())
		return;
	if (!t.late_len && unlucky()) {
		t.late_len = sizeof(h) + len;
		memcpy(t.late, t.out, t.late_len);
		return;
	}
	to_tap(t.out, sizeof(h) + len);
	if (t.late_len)
		to_tap(t.late, t.late_len);
	t.late_len = 0;
}

static const struct net_guest_ops ops = {.reserve = reserve, .commit = commit};

static void on_tap(struct loop_source *s, uint32_t events)
{
	(void)events;
	for (int i = 0; i < TURN; i++) {
		uint8_t *in = t.in[i % KEEP];
		ssize_t n = read(s->fd, in, FRAME);
		struct stack_meta meta;
		struct iovec v;

		if (n < (ssize_t)sizeof(t.in_hdr))
			break;
		if (unlucky())
			continue;
		memcpy(&t.in_hdr, in, sizeof(t.in_hdr));
		meta = (struct stack_meta){
			.partial = t.in_hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM,
			.valid = t.in_hdr.flags & VIRTIO_NET_HDR_F_DATA_VALID,
		};
		v = (struct iovec){in + sizeof(t.in_hdr), (size_t)n - sizeof(t.in_hdr)};
		stack_input(net_host_stack(t.h), &v, 1, &meta, true, now_ns());
		if (i % KEEP == KEEP - 1)
			net_host_settle(t.h);
	}
	net_host_settle(t.h);
	net_host_run(t.h);
}

static void on_input(struct loop_source *s, uint32_t events)
{
	(void)s, (void)events;
	loop_quit(t.loop, 0);
}

static int open_tap(const char *netns, const char *name)
{
	cleanup_close int here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	cleanup_close int there = open(netns, O_RDONLY | O_CLOEXEC);
	cleanup_close int fd = -1;
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	int size = sizeof(struct virtio_net_hdr_v1);

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	if (here < 0 || there < 0 || setns(there, CLONE_NEWNET) < 0)
		return -errno;
	/* It belongs to the namespace that it is opened in. */
	fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &size) < 0 ||
	    ioctl(fd, TUNSETOFFLOAD, t.offload ? TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 : 0) < 0 ||
	    setns(here, CLONE_NEWNET) < 0)
		return -errno;
	return take_fd(&fd);
}

static struct net_addr addr(const char *text)
{
	struct net_addr a;

	if (!net_addr_parse(text, &a))
		exit(2);
	return a;
}

/* TAPNET_RULES has rules, TAPNET_DNS name servers and TAPNET_NAMES what net_plan_names() takes. */
static int make_names(struct stack_config *c, struct resolver_config *dns, struct err *err)
{
	const char *rules = getenv("TAPNET_RULES");
	char *servers = getenv("TAPNET_DNS"), *names = getenv("TAPNET_NAMES"), *one;
	int r = rules ? net_policy_rules(&c->policy, rules, err) : 0;

	while (r == 0 && (one = strsep(&servers, " ")))
		r = resolver_add_server(dns, one, err);
	while (r == 0 && (one = strsep(&names, " ")))
		r = net_plan_names(dns, one, err);
	c->strict = dns->strict;
	net_plan_resolver(dns, c, "/etc/resolv.conf");
	return r;
}

static int run(char **argv, int nports, struct err *err)
{
	struct stack_config c = {
		.guest_mac = {2, 0x6d, 0x73, 0, 0, 2},
		.gateway_mac = {2, 0x6d, 0x73, 0, 0, 1},
		.guest4 = addr("172.16.0.2"),
		.gateway4 = addr("172.16.0.1"),
		.guest6 = addr("fd42:6d73:62::2"),
		.gateway6 = addr("fd42:6d73:62::1"),
		.host4 = addr("127.0.0.1"),
		.host6 = addr("::1"),
		.mtu = (uint16_t)atoi(argv[3]),
		.max_flows = net_host_flows(),
	};
	static struct resolver_config dns;
	struct net_port ports[16];
	const struct stack_stats *st;
	int r, dot = -1;

	t.loss = getenv("TAPNET_LOSS") ? (unsigned)atoi(getenv("TAPNET_LOSS")) : 0;
	t.offload = !getenv("TAPNET_OFFLOAD") || atoi(getenv("TAPNET_OFFLOAD"));
	net_policy_init(&c.policy);
	r = net_policy_profile(&c.policy, argv[4], err);
	for (int i = 0; r == 0 && i < nports; i++) {
		r = net_port_parse(argv[5 + i], &ports[i], 1, err);
		if (r > 0)
			r = net_port_open(&ports[i], err);
	}
	if (r < 0)
		return r;
	if (getrandom(c.seed, sizeof(c.seed), 0) < 0)
		return err_errno(err, "seed");
	r = make_names(&c, &dns, err);
	if (r < 0)
		return r;
	t.tap.fn = on_tap;
	t.tap.fd = open_tap(argv[1], argv[2]);
	if (t.tap.fd < 0)
		return err_set(err, t.tap.fd, "tap: %s", err_name(t.tap.fd));
	t.input.fn = on_input;
	r = loop_new(&t.loop, err);
	if (r == 0)
		r = net_host_new(&c, &dns, &ops, NULL, t.loop, ports, (unsigned)nports, &t.h, err);
	if (r < 0)
		return r;
	if (getenv("TAPNET_DOT")) {
		log_open(STDERR_FILENO, LOG_INFO, NULL);
		r = dns_tls_begin(getenv("TAPNET_DOT"), &dot, err);
		if (r == 0)
			r = dns_tls_ready(dot, err);
		if (r == 0)
			r = net_host_tls(t.h, dot);
		if (r < 0)
			return r;
	}
	stack_offload(net_host_stack(t.h), t.offload, t.offload, t.offload);
	if (getenv("TAPNET_OLD"))
		net_host_never_seeks(t.h);
	r = net_host_start(t.h);
	if (r == 0)
		r = loop_add(t.loop, &t.tap, EPOLLIN);
	if (r == 0)
		r = loop_add(t.loop, &t.input, 0);
	if (r < 0)
		return err_set(err, r, "loop");
	puts("ready");
	fflush(stdout);
	r = loop_run(t.loop);
	st = stack_stats(net_host_stack(t.h));
	printf("malformed %llu, unsupported %llu, denied %llu, full %llu, opened %llu, "
	       "retransmits %llu, flows %u\n",
	       (unsigned long long)st->malformed, (unsigned long long)st->unsupported,
	       (unsigned long long)st->denied, (unsigned long long)st->full,
	       (unsigned long long)st->opened, (unsigned long long)st->retransmits, st->flows);
	loop_del(&t.tap);
	loop_del(&t.input);
	net_host_free(t.h);
	loop_free(t.loop);
	return r;
}

int main(int argc, char **argv)
{
	struct err err = ERR_INIT;

	if (argc < 5 || argc > 5 + 16)
		return 2;
	if (run(argv, argc - 5, &err) < 0) {
		fprintf(stderr, "%s\n", err.msg);
		return 1;
	}
	return 0;
}
