/* SPDX-License-Identifier: Apache-2.0 */
/* Interfaces: the loopback by ioctl, the network card by route netlink, one request at a time. */
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "boot.h"

int net_loopback(struct err *err)
{
	cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
		return err_errno(err, "cannot bring the loopback interface up");
	return 0;
}

struct request {
	struct nlmsghdr nh;
	union {
		struct ifinfomsg link;
		struct ifaddrmsg addr;
		struct rtmsg route;
		struct ndmsg neighbour;
	} u;
	char attrs[128];
};

static void start(struct request *q, int type, int flags, size_t body)
{
	memset(q, 0, sizeof(*q));
	q->nh.nlmsg_type = (uint16_t)type;
	q->nh.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags);
	q->nh.nlmsg_len = NLMSG_LENGTH(body);
}

static void attr(struct request *q, int type, const void *p, size_t n)
{
	size_t at = NLMSG_ALIGN(q->nh.nlmsg_len);
	struct rtattr *a = (struct rtattr *)(void *)((char *)q + at);

	/* Ours only: no request of this file comes near the end of the room. */
	if (at + RTA_SPACE(n) > sizeof(*q))
		return;
	a->rta_type = (uint16_t)type;
	a->rta_len = (uint16_t)RTA_LENGTH(n);
	memcpy(RTA_DATA(a), p, n);
	q->nh.nlmsg_len = (uint32_t)(at + RTA_ALIGN(a->rta_len));
}

static int talk(int fd, struct request *q)
{
	struct {
		struct nlmsghdr nh;
		struct nlmsgerr e;
		char more[512];
	} answer;
	ssize_t n;

	if (send(fd, q, q->nh.nlmsg_len, 0) < 0)
		return -errno;
	n = recv(fd, &answer, sizeof(answer), 0);
	if (n < 0)
		return -errno;
	if ((size_t)n < NLMSG_LENGTH(sizeof(answer.e)) || answer.nh.nlmsg_type != NLMSG_ERROR)
		return -EPROTO;
	return answer.e.error;
}

static int add_address(int fd, int index, uint8_t family, const uint8_t *address, size_t n,
		       uint8_t prefix)
{
	struct request q;

	start(&q, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof(q.u.addr));
	q.u.addr.ifa_family = family;
	q.u.addr.ifa_prefixlen = prefix;
	q.u.addr.ifa_index = (unsigned)index;
	/* Nobody else is on the link: no need to ask whether the address is taken. */
	q.u.addr.ifa_flags = family == AF_INET6 ? IFA_F_NODAD : 0;
	attr(&q, IFA_LOCAL, address, n);
	attr(&q, IFA_ADDRESS, address, n);
	return talk(fd, &q);
}

static int add_default_route(int fd, int index, uint8_t family, const uint8_t *gateway, size_t n)
{
	uint32_t out = (uint32_t)index;
	struct request q;

	start(&q, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof(q.u.route));
	q.u.route.rtm_family = family;
	q.u.route.rtm_table = RT_TABLE_MAIN;
	q.u.route.rtm_protocol = RTPROT_BOOT;
	q.u.route.rtm_scope = RT_SCOPE_UNIVERSE;
	q.u.route.rtm_type = RTN_UNICAST;
	attr(&q, RTA_GATEWAY, gateway, n);
	attr(&q, RTA_OIF, &out, sizeof(out));
	return talk(fd, &q);
}

/* The only neighbour there is: nobody has to ask who it is. */
static int add_gateway(int fd, int index, uint8_t family, const uint8_t *gateway, size_t n,
		       const uint8_t mac[6])
{
	struct request q;

	start(&q, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, sizeof(q.u.neighbour));
	q.u.neighbour.ndm_family = family;
	q.u.neighbour.ndm_ifindex = index;
	q.u.neighbour.ndm_state = NUD_PERMANENT;
	attr(&q, NDA_DST, gateway, n);
	attr(&q, NDA_LLADDR, mac, 6);
	return talk(fd, &q);
}

static int bring_up(int fd, int index, const struct boot_network *n)
{
	uint32_t mtu = n->mtu;
	struct request q;

	start(&q, RTM_NEWLINK, 0, sizeof(q.u.link));
	q.u.link.ifi_family = AF_UNSPEC;
	q.u.link.ifi_index = index;
	q.u.link.ifi_flags = IFF_UP;
	q.u.link.ifi_change = IFF_UP;
	if (mtu)
		attr(&q, IFLA_MTU, &mtu, sizeof(mtu));
	attr(&q, IFLA_ADDRESS, n->mac, sizeof(n->mac));
	return talk(fd, &q);
}

/* An address, the gateway and the way to it, of @n bytes each. */
static int set_up_family(int fd, int index, uint8_t family, const uint8_t *address, uint8_t prefix,
			 const uint8_t *gateway, size_t n, const uint8_t mac[6])
{
	int r = add_address(fd, index, family, address, n, prefix);

	if (!r)
		r = add_default_route(fd, index, family, gateway, n);
	return r ? r : add_gateway(fd, index, family, gateway, n, mac);
}

int net_configure(const struct boot_network *n, struct err *err)
{
	cleanup_close int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	int index = (int)if_nametoindex(n->interface);
	int r;

	if (fd < 0)
		return err_errno(err, "cannot configure the network");
	if (!index)
		return err_set(err, ENODEV, "there is no network interface '%.32s'", n->interface);
	r = bring_up(fd, index, n);
	if (r < 0)
		return err_set(err, r, "cannot bring %s up: %s", n->interface, err_name(r));
	if (n->has_ipv4)
		r = set_up_family(fd, index, AF_INET, n->ipv4.address, n->ipv4.prefix_len,
				  n->ipv4.gateway, 4, n->gateway_mac);
	if (!r && n->has_ipv6)
		r = set_up_family(fd, index, AF_INET6, n->ipv6.address, n->ipv6.prefix_len,
				  n->ipv6.gateway, 16, n->gateway_mac);
	if (r < 0)
		return err_set(err, r, "cannot set addresses and routes of %s: %s", n->interface,
			       err_name(r));
	return 0;
}
