/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ethernet, ARP, and IP's headers. What is malformed is dropped and counted, as any host would.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/ethernet.h>

#include "base/cleanup.h"
#include "base/iov.h"
#include "net/stack_impl.h"

/* ---- sums (RFC 1071) ---- */

uint64_t sum_bytes(const void *p, size_t n, uint64_t sum)
{
	const uint8_t *b = p;
	uint64_t word;

	/* In the host's order, which only turns the result round: see sum_fold(). */
	for (; n >= 8; n -= 8, b += 8) {
		memcpy(&word, b, 8);
		sum += word;
		sum += sum < word;
	}
	word = 0;
	memcpy(&word, b, n);
	sum += word;
	return sum + (sum < word);
}

static uint16_t fold(uint64_t sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

uint64_t sum_pieces(const struct iovec *iov, unsigned n, size_t off, size_t len, uint64_t sum)
{
	size_t at = 0;

	sum = fold(sum);
	for (unsigned i = 0; i < n && len; i++) {
		const uint8_t *p = iov[i].iov_base;
		size_t k = iov[i].iov_len;
		uint16_t one;

		if (off >= k) {
			off -= k;
			continue;
		}
		p += off;
		k = MIN(k - off, len);
		off = 0;
		one = fold(sum_bytes(p, k, 0));
		/* A piece that begins at an odd place counts the other way round. */
		sum += at & 1 ? (uint16_t)(one << 8 | one >> 8) : one;
		at += k;
		len -= k;
	}
	return sum;
}

/* The sum as a number, so that put16() writes it as it was read. */
uint16_t sum_fold(uint64_t sum)
{
	return ntohs(fold(sum));
}

uint64_t sum_pseudo(const struct net_addr *src, const struct net_addr *dst, uint8_t proto,
		    size_t len)
{
	uint8_t rest[8];
	uint64_t sum;

	put32(rest, (uint32_t)len);
	put32(rest + 4, proto);
	if (net_addr_is_v4(src)) {
		sum = sum_bytes(net_addr_four(src), 4, 0);
		sum = sum_bytes(net_addr_four(dst), 4, sum);
	} else {
		sum = sum_bytes(src->b, 16, 0);
		sum = sum_bytes(dst->b, 16, sum);
	}
	return sum_bytes(rest, sizeof(rest), sum);
}

bool packet_intact(const struct packet *p)
{
	size_t len = p->len - p->l4;
	uint64_t sum = 0;

	if (p->checked)
		return true;
	if (p->proto != NET_ICMP)
		sum = sum_pseudo(&p->src, &p->dst, p->proto, len);
	return sum_fold(sum_pieces(p->iov, p->n, p->l4, len, sum)) == 0xffff;
}

/* ---- to the guest ---- */

size_t link_header(const struct stack *s, uint8_t *h, const struct net_addr *src,
		   const struct net_addr *dst, uint8_t proto, size_t len)
{
	const bool four = net_addr_is_v4(src);
	uint8_t *ip = h + ETH_HDR;

	memcpy(h, s->config.guest_mac, 6);
	memcpy(h + 6, s->config.gateway_mac, 6);
	put16(h + 12, four ? ETHERTYPE_IP : ETHERTYPE_IPV6);
	if (!four) {
		put32(ip, 0x60000000);
		put16(ip + 4, (uint32_t)len);
		ip[6] = proto;
		ip[7] = 255; /* neighbour discovery demands it, for others it is a number */
		memcpy(ip + 8, src->b, 16);
		memcpy(ip + 24, dst->b, 16);
		return ETH_HDR + IP6_HDR;
	}
	put16(ip, 0x4500);
	put16(ip + 2, (uint32_t)(IP4_HDR + len));
	/* Not fragmented, and not to be: then the identification means nothing (RFC 6864). */
	put32(ip + 4, 0x4000);
	ip[8] = 64;
	ip[9] = proto;
	put16(ip + 10, 0);
	memcpy(ip + 12, net_addr_four(src), 4);
	memcpy(ip + 16, net_addr_four(dst), 4);
	put16(ip + 10, (uint16_t)~sum_fold(sum_bytes(ip, IP4_HDR, 0)));
	return ETH_HDR + IP4_HDR;
}

bool link_send(struct stack *s, const uint8_t *head, size_t head_len, const void *message,
	       size_t len, const struct stack_meta *meta)
{
	static const struct stack_meta none;
	struct iovec iov[PIECES_MAX];
	unsigned n = s->ops->reserve(s->arg, head_len + len, iov, PIECES_MAX);

	if (!n)
		return false;
	iov_write(iov, n, 0, head, head_len);
	iov_write(iov, n, head_len, message, len);
	s->ops->commit(s->arg, head_len + len, meta ? meta : &none);
	s->stats.frames_out++;
	s->stats.bytes_out += head_len + len;
	return true;
}

/* ---- ARP ---- */

static void arp_input(struct stack *s, const uint8_t *h, size_t len)
{
	/* Ethernet and IPv4, a request. */
	static const uint8_t request[] = {0, 1, 8, 0, 6, 4, 0, 1};
	const uint8_t *arp = h + ETH_HDR;
	uint8_t reply[ETH_HDR + 28];

	if (len < ETH_HDR + 28 || memcmp(arp, request, sizeof(request)) != 0) {
		s->stats.malformed++;
		return;
	}
	/* Everybody but the guest is behind the gateway; whether the guest's address is free is
	 * answered by silence. */
	if (memcmp(arp + 24, net_addr_four(&s->config.gateway4), 4) != 0)
		return;
	memcpy(reply, h + 6, 6);
	memcpy(reply + 6, s->config.gateway_mac, 6);
	put16(reply + 12, ETHERTYPE_ARP);
	memcpy(reply + ETH_HDR, request, sizeof(request));
	reply[ETH_HDR + 7] = 2;
	memcpy(reply + ETH_HDR + 8, s->config.gateway_mac, 6);
	memcpy(reply + ETH_HDR + 14, arp + 24, 4);
	memcpy(reply + ETH_HDR + 18, arp + 8, 10);
	link_send(s, reply, sizeof(reply), NULL, 0, NULL);
}

/* ---- from the guest ---- */

/* Who speaks another protocol to somebody is told that nobody will hear. */
static void not_carried(struct stack *s, const struct packet *p)
{
	s->stats.unsupported++;
	if (net_addr_kind(&p->dst) == NET_MULTICAST ||
	    !net_addr_equal(&p->src, stack_guest(s, &p->src)))
		return;
	icmp_unreachable(s, EPROTONOSUPPORT, &p->dst, p->proto, p->head + p->l4,
			 p->head_len - p->l4);
}

static void deliver(struct stack *s, struct packet *p)
{
	if (p->proto == NET_TCP)
		tcp_input(s, p);
	else if (p->proto == NET_UDP)
		udp_input(s, p);
	else if (p->proto == NET_ICMP && p->four)
		icmp_input(s, p);
	else if (p->proto == NET_ICMP6 && !p->four)
		icmp6_input(s, p);
	else
		not_carried(s, p);
}

/* Who has no address yet may look for a server of DHCP; of IPv6 there is one for that. */
static bool asks_for_address(const struct packet *p)
{
	static const uint8_t none[4], all[4] = {255, 255, 255, 255};

	if (p->proto != NET_UDP)
		return false;
	if (!p->four)
		return net_addr_kind(&p->src) == NET_LINK_LOCAL &&
		       net_addr_kind(&p->dst) == NET_MULTICAST;
	return memcmp(net_addr_four(&p->src), none, 4) == 0 &&
	       memcmp(net_addr_four(&p->dst), all, 4) == 0;
}

static void ip4_input(struct stack *s, struct packet *p)
{
	const uint8_t *ip = p->head + ETH_HDR;
	size_t have = p->head_len - ETH_HDR, header, total, off;

	if (have < IP4_HDR || ip[0] >> 4 != 4)
		goto malformed;
	header = (size_t)(ip[0] & 15) * 4;
	total = (size_t)(ip[2] << 8 | ip[3]);
	if (header < IP4_HDR || have < header || total < header || total > p->len - ETH_HDR)
		goto malformed;
	if (sum_fold(sum_bytes(ip, header, 0)) != 0xffff)
		goto malformed;
	p->four = true;
	p->proto = ip[9];
	p->src = net_addr_v4(ip + 12);
	p->dst = net_addr_v4(ip + 16);
	p->l4 = ETH_HDR + header;
	p->len = ETH_HDR + total;
	p->whole = ip[6] & 0x40;
	/* Nobody else is on the link to speak for. */
	if (!net_addr_equal(&p->src, &s->config.guest4) && !asks_for_address(p))
		goto malformed;
	off = (size_t)((ip[6] & 0x1f) << 8 | ip[7]) * 8;
	if (off || ip[6] & 0x20)
		frag_input(s, p, (uint32_t)(ip[4] << 8 | ip[5]), off, ip[6] & 0x20);
	else
		deliver(s, p);
	return;
malformed:
	s->stats.malformed++;
}

static void ip6_input(struct stack *s, struct packet *p)
{
	const uint8_t *ip = p->head + ETH_HDR;
	size_t have = p->head_len - ETH_HDR, length;
	const uint8_t *part;
	unsigned off;

	if (have < IP6_HDR || ip[0] >> 4 != 6)
		goto malformed;
	length = (size_t)(ip[4] << 8 | ip[5]);
	if (length > p->len - ETH_HDR - IP6_HDR)
		goto malformed;
	p->proto = ip[6];
	p->src = net_addr_v6(ip + 8);
	p->dst = net_addr_v6(ip + 24);
	p->l4 = ETH_HDR + IP6_HDR;
	p->len = p->l4 + length;
	/* An IPv4 address in this guise may not be on a wire (RFC 4038, 4.2); Linux sends it there. */
	if (net_addr_is_v4(&p->dst)) {
		icmp6_refuse(s, p);
		return;
	}
	if (net_addr_is_v4(&p->src))
		goto malformed;
	p->whole = !p->joined;
	/* Before it has an address, and on the link only, it speaks of neighbours and groups. */
	if ((p->proto == NET_TCP || p->proto == NET_UDP || p->proto == NET_FRAGMENT) &&
	    !net_addr_equal(&p->src, &s->config.guest6) && !asks_for_address(p))
		goto malformed;
	if (p->proto != NET_FRAGMENT) {
		deliver(s, p);
		return;
	}
	part = p->head + p->l4;
	if (length < FRAGMENT_HDR || p->head_len < p->l4 + FRAGMENT_HDR)
		goto malformed;
	off = (unsigned)(part[2] << 8 | part[3]);
	p->proto = part[0];
	p->l4 += FRAGMENT_HDR;
	frag_input(s, p,
		   (uint32_t)part[4] << 24 | (uint32_t)part[5] << 16 | (uint32_t)part[6] << 8 |
			   part[7],
		   off & ~7u, off & 1);
	return;
malformed:
	s->stats.malformed++;
}

void link_packet(struct stack *s, struct packet *p)
{
	static const struct net_addr nobody;
	unsigned type;

	p->len = iov_size(p->iov, p->n);
	p->head_len = iov_read(p->iov, p->n, 0, p->head, sizeof(p->head));
	if (p->head_len < ETH_HDR) {
		s->stats.malformed++;
		return;
	}
	type = (unsigned)(p->head[12] << 8 | p->head[13]);
	if (type == ETHERTYPE_ARP)
		arp_input(s, p->head, p->head_len);
	else if (type == ETHERTYPE_IP && net_addr_is_v4(&s->config.guest4))
		ip4_input(s, p);
	else if (type == ETHERTYPE_IPV6 && !net_addr_equal(&s->config.guest6, &nobody))
		ip6_input(s, p);
	else
		s->stats.unsupported++;
}

void link_input(struct stack *s, const struct iovec *iov, unsigned n, const struct stack_meta *meta)
{
	struct packet p = {.iov = iov, .n = n, .checked = meta->partial || meta->valid};

	link_packet(s, &p);
	s->stats.bytes_in += p.len;
}
