/* SPDX-License-Identifier: Apache-2.0 */
/* What goes on between the guest and its gateway: fragments, path MTUs, leases, routers, floods. */
#include "test.h"

#include "net/stack_guest.h"

#define PEER6 "2606::1"

/* ---- fragments ---- */

static uint8_t datagram[70000];

/* A whole datagram of UDP with @n bytes, without a checksum that IPv6 would want. */
static size_t make_datagram(const char *to, size_t n)
{
	const struct net_addr dst = world_addr(to), *src = stack_guest(w.s, &dst);
	uint64_t sum;

	put16(datagram, 3000);
	put16(datagram + 2, 4000);
	put16(datagram + 4, (uint32_t)(UDP_HDR + n));
	put16(datagram + 6, 0);
	for (size_t i = 0; i < n; i++)
		datagram[UDP_HDR + i] = (uint8_t)(i * 7 + i / 256);
	sum = sum_pseudo(src, &dst, NET_UDP, UDP_HDR + n);
	put16(datagram + 6, (uint16_t)~sum_fold(sum_bytes(datagram, UDP_HDR + n, sum)));
	return UDP_HDR + n;
}

static void send_part(const char *to, uint32_t id, size_t off, size_t n, bool more)
{
	const bool four = !strchr(to, ':');
	size_t l4 = head(to);
	uint8_t *ip = out + ETH_HDR, *part = out + l4;

	if (four) {
		wrap(to, NET_UDP, n);
		put16(ip + 4, id);
		put16(ip + 6, (uint32_t)(off / 8) | (more ? 0x2000 : 0));
		put16(ip + 10, 0);
		put16(ip + 10, (uint16_t)~sum_fold(sum_bytes(ip, IP4_HDR, 0)));
	} else {
		wrap(to, NET_FRAGMENT, FRAGMENT_HDR + n);
		part[0] = NET_UDP;
		part[1] = 0;
		put16(part + 2, (uint32_t)off | more);
		put32(part + 4, id);
		l4 += FRAGMENT_HDR;
	}
	memcpy(out + l4, datagram + off, n);
	world_input(&w, out, l4 + n, NULL);
}

static unsigned in_the_making(void)
{
	unsigned n = 0;

	for (int i = 0; i < FRAGS_MAX; i++)
		n += w.s->frags[i] != NULL;
	return n;
}

static void put_together(void **state)
{
	static const char *const to[] = {PEER, PEER6};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		size_t n = make_datagram(to[i], 3000);

		/* The last first, one twice. */
		send_part(to[i], 7, 2400, n - 2400, false);
		send_part(to[i], 7, 0, 1200, true);
		send_part(to[i], 7, 0, 1200, true);
		assert_int_equal(w.open, i);
		send_part(to[i], 7, 1200, 1200, true);
		assert_int_equal(w.open, i + 1);
		assert_int_equal(buf_size(&w.last->sent), 3000);
		assert_memory_equal(buf_ptr(&w.last->sent), datagram + UDP_HDR, 3000);
		assert_int_equal(in_the_making(), 0);
	}
	assert_int_equal(w.s->stats.malformed, 0);
	/* Nobody needs to be told of a path that is narrow for what came in parts. */
	assert_int_equal(w.nframes, 0);
}

static void parts_that_lie(void **state)
{
	size_t n = make_datagram(PEER, 3000);

	(void)state;
	/* One that overlaps another condemns both, and what follows is not enough. */
	send_part(PEER, 1, 0, 1200, true);
	send_part(PEER, 1, 1192, 1200, true);
	assert_int_equal(in_the_making(), 0);
	/* An end within what was there, and two ends. */
	send_part(PEER, 2, 1200, 1200, true);
	send_part(PEER, 2, 8, 800, false);
	assert_int_equal(in_the_making(), 0);
	send_part(PEER, 3, 2400, n - 2400, false);
	send_part(PEER, 3, 1200, 800, false);
	assert_int_equal(in_the_making(), 0);
	/* Behind the end; no multiple of eight; nothing; longer than IP can say. */
	send_part(PEER, 4, 800, 800, false);
	send_part(PEER, 4, 1600, 800, true);
	send_part(PEER, 5, 0, 801, true);
	send_part(PEER, 6, 8, 0, false);
	send_part(PEER, 7, 65528, 800, false);
	send_part(PEER6, 7, 65528, 800, false);
	assert_int_equal(in_the_making(), 0);
	assert_int_equal(w.s->stats.malformed, 8);
	/* Right in its parts, wrong in its sum. */
	datagram[100] ^= 1;
	send_part(PEER, 8, 0, 1200, true);
	send_part(PEER, 8, 1200, n - 1200, false);
	assert_int_equal(w.s->stats.malformed, 9);
	assert_int_equal(w.open, 0);
}

static void parts_without_end(void **state)
{
	size_t len;

	(void)state;
	make_datagram(PEER, 3000);
	/* A bomb: firsts without lasts. The newest are kept. */
	for (uint32_t id = 0; id < 1000; id++) {
		w.now += MS;
		send_part(PEER, id, 0, 1200, true);
	}
	assert_int_equal(in_the_making(), FRAGS_MAX);
	assert_int_equal(w.nframes, 0);
	send_part(PEER, 999, 1200, 1808, false);
	assert_int_equal(w.open, 1);
	/* The others are given up, and it is said. */
	assert_true(stack_next(w.s) && stack_next(w.s) <= w.now + 15 * SECOND);
	w.now += 16 * SECOND;
	stack_tick(w.s, w.now);
	assert_int_equal(in_the_making(), 0);
	assert_int_equal(w.nframes, FRAGS_MAX - 1);
	assert_int_equal(got(0, &len)[0], 11);
	assert_int_equal(got(0, &len)[1], 1);
	assert_memory_equal(got(0, &len) + 8 + IP4_HDR, datagram, 8);
}

/* What the guest's IP makes of the frames it got. */
static size_t join(uint8_t *to, bool four)
{
	size_t total = 0;

	for (unsigned i = 0; i < w.nframes; i++) {
		const uint8_t *ip = w.frame[i] + ETH_HDR;
		size_t l4 = ETH_HDR + (four ? IP4_HDR : IP6_HDR + FRAGMENT_HDR), off;
		const uint8_t *part = w.frame[i] + ETH_HDR + IP6_HDR;

		assert_in_range(w.len[i], 1, ETH_HDR + 1500);
		off = four ? (size_t)((ip[6] & 0x1f) << 8 | ip[7]) * 8
			   : (size_t)((part[2] << 8 | part[3]) & ~7);
		assert_int_equal(off, total);
		assert_int_equal(four ? !!(ip[6] & 0x20) : part[3] & 1, i + 1 < w.nframes);
		memcpy(to + off, w.frame[i] + l4, w.len[i] - l4);
		total += w.len[i] - l4;
	}
	return total;
}

static void in_parts(void **state)
{
	static const char *const to[] = {PEER, PEER6};
	static uint8_t whole[70000];
	size_t n;

	(void)state;
	stack_offload(w.s, true, true, true);
	for (unsigned i = 0; i < 2; i++) {
		const struct net_addr src = world_addr(to[i]), *dst = stack_guest(w.s, &src);

		send_udp(to[i], 3000, 4000, "?", 1);
		make_datagram(to[i], 50000);
		buf_add(&w.last->answer, datagram + UDP_HDR, 50000);
		stack_event(w.s, w.last->flow, STACK_READABLE, 0, w.now);
		stack_run(w.s, w.now);
		n = join(whole, i == 0);
		assert_int_equal(n, UDP_HDR + 50000);
		assert_memory_equal(whole + UDP_HDR, datagram + UDP_HDR, 50000);
		assert_int_equal(sum_fold(sum_bytes(whole, n, sum_pseudo(&src, dst, NET_UDP, n))),
				 0xffff);
		w.nframes = 0;
	}
}

/* ---- paths ---- */

static void narrow_paths(void **state)
{
	static uint8_t data[4000];
	size_t len;

	(void)state;
	w.mtu = 1400;
	/*
	 * A datagram that is longer than the path is cut on the host. Nobody is told: "do not
	 * fragment" is on whatever fits the guest's link, and a program would take it for an error.
	 */
	send_udp(PEER, 3000, 4000, data, sizeof(data));
	assert_int_equal(buf_size(&w.last->sent), sizeof(data));
	send_udp(PEER6, 3000, 4000, data, sizeof(data));
	assert_int_equal(buf_size(&w.last->sent), sizeof(data));
	assert_int_equal(w.nframes, 0);
	/* An echo is what paths are measured with: as long as they allow, and a byte more. */
	send_echo(PEER, 1400 - IP4_HDR);
	assert_int_equal(buf_size(&w.last->sent), 1400 - IP4_HDR);
	assert_int_equal(w.nframes, 0);
	send_echo(PEER, 1401 - IP4_HDR);
	assert_int_equal(got(0, &len)[0], 3);
	assert_int_equal(got(0, &len)[1], 4);
	assert_int_equal(be32(got(0, &len) + 4), 1400);
	assert_memory_equal(got(0, &len) + 8 + IP4_HDR, out + head(PEER), 8);
	w.nframes = 0;
	send_echo(PEER6, 1401 - IP6_HDR);
	assert_int_equal(got(0, &len)[0], 2);
	assert_int_equal(be32(got(0, &len) + 4), 1400);
	assert_int_equal(buf_size(&w.last->sent), 0);
	w.nframes = 0;
	/* A path that nobody knows. */
	w.mtu = 0;
	send_echo(PEER6, 2000);
	assert_int_equal(w.nframes, 0);
	assert_int_equal(buf_size(&w.last->sent), 2000);
}

/* What the host's path says is told as what it says; what came before it is there all the same. */
static void bad_news(void **state)
{
	static const struct {
		const char *to;
		int error;
		uint8_t type, code;
	} rows[] = {
		{PEER, EHOSTUNREACH, 3, 1}, {PEER, ENETUNREACH, 3, 0},
		{PEER, ECONNREFUSED, 3, 3}, {PEER, EACCES, 3, 13},
		{PEER, EMSGSIZE, 3, 4},	    {PEER6, EHOSTUNREACH, 1, 3},
		{PEER6, ENETUNREACH, 1, 0}, {PEER6, ECONNREFUSED, 1, 4},
		{PEER6, EACCES, 1, 1},	    {PEER6, EMSGSIZE, 2, 0},
	};
	size_t len, ip;

	(void)state;
	w.mtu = 1400;
	for (size_t i = 0; i < ARRAY_SIZE(rows) * 2; i++) {
		const size_t k = i % ARRAY_SIZE(rows);
		const bool udp = i == k;

		if (udp)
			send_udp(rows[k].to, 3000, 4000, "x", 1);
		else
			send_echo(rows[k].to, 40);
		assert_int_equal(w.nframes, 0);
		w.last->error = rows[k].error;
		buf_add(&w.last->answer, "whatever", 8);
		stack_event(w.s, w.last->flow, STACK_READABLE, 0, w.now);
		stack_run(w.s, w.now);
		assert_int_equal(w.nframes, 2);
		assert_int_equal(got(0, &len)[0], rows[k].type);
		assert_int_equal(got(0, &len)[1], rows[k].code);
		assert_int_equal(be32(got(0, &len) + 4), rows[k].error == EMSGSIZE ? 1400 : 0);
		ip = head(rows[k].to) - ETH_HDR;
		/* Whom it is for, and of an echo, which. */
		if (udp)
			assert_memory_equal(got(0, &len) + 8 + ip, out + head(rows[k].to), 4);
		else
			assert_int_equal(be32(got(0, &len) + 8 + ip + 4), 0x12000007);
		w.nframes = 0;
	}
	/* What nobody carries, nobody hears; groups are not told. */
	wrap(PEER, 132, 30);
	world_input(&w, out, head(PEER) + 30, NULL);
	assert_int_equal(got(0, &len)[0], 3);
	assert_int_equal(got(0, &len)[1], 2);
	assert_memory_equal(got(0, &len) + 8 + IP4_HDR, out + head(PEER), 30);
	wrap(PEER6, 132, 30);
	world_input(&w, out, head(PEER6) + 30, NULL);
	assert_int_equal(got(1, &len)[0], 1);
	assert_int_equal(got(1, &len)[1], 1);
	wrap("224.0.0.22", 2, 30);
	world_input(&w, out, head(PEER) + 30, NULL);
	assert_int_equal(w.nframes, 2);
	assert_int_equal(stack_stats(w.s)->unsupported, 3);
}

/* ---- leases ---- */

static void send_from(const char *from, const char *to, uint16_t from_port, uint16_t port,
		      const void *p, size_t n)
{
	const struct net_addr src = world_addr(from), dst = world_addr(to);
	size_t l4 = link_header(w.s, out, &src, &dst, NET_UDP, UDP_HDR + n);
	uint64_t sum = sum_pseudo(&src, &dst, NET_UDP, UDP_HDR + n);

	put16(out + l4, from_port);
	put16(out + l4 + 2, port);
	put16(out + l4 + 4, (uint32_t)(UDP_HDR + n));
	put16(out + l4 + 6, 0);
	memcpy(out + l4 + UDP_HDR, p, n);
	put16(out + l4 + 6, (uint16_t)~sum_fold(sum_bytes(out + l4, UDP_HDR + n, sum)));
	w.nframes = 0;
	world_input(&w, out, l4 + UDP_HDR + n, NULL);
}

static size_t dhcp(uint8_t m[300], uint8_t type, const char *wish)
{
	static const uint8_t magic[] = {0x63, 0x82, 0x53, 0x63};
	struct net_addr a;

	memset(m, 0, 300);
	m[0] = m[1] = 1;
	m[2] = 6;
	memcpy(m + 4, "\1\2\3\4", 4);
	memcpy(m + 28, w.s->config.guest_mac, 6);
	memcpy(m + 236, magic, 4);
	memcpy(m + 240, (uint8_t[]){53, 1, type, 0}, 4);
	if (wish) {
		a = world_addr(wish);
		memcpy(m + 244, (uint8_t[]){50, 4}, 2);
		memcpy(m + 246, net_addr_four(&a), 4);
		m[250] = 255;
	} else {
		m[244] = 255;
	}
	return 300;
}

static const uint8_t *dhcp_answer(void)
{
	size_t len;

	assert_int_equal(w.nframes, 1);
	return got(0, &len) + UDP_HDR;
}

static void leases(void **state)
{
	static const char *const none = "0.0.0.0", *const all = "255.255.255.255";
	const uint8_t *guest = net_addr_four(&w.s->config.guest4), *m;
	uint8_t q[300];

	(void)state;
	send_from(none, all, 68, 67, q, dhcp(q, 1, NULL));
	m = dhcp_answer();
	assert_int_equal(m[242], 2);
	assert_memory_equal(m + 4, "\1\2\3\4", 4);
	assert_memory_equal(m + 16, guest, 4);
	send_from(none, all, 68, 67, q, dhcp(q, 3, "172.16.0.2"));
	assert_int_equal(dhcp_answer()[242], 5);
	/* Another one than there is. */
	send_from(none, all, 68, 67, q, dhcp(q, 3, "192.168.0.9"));
	assert_int_equal(dhcp_answer()[242], 6);
	/* Renewed from the address itself, and told to it. */
	dhcp(q, 3, NULL);
	memcpy(q + 12, guest, 4);
	send_from("172.16.0.2", "172.16.0.1", 68, 67, q, 300);
	assert_int_equal(dhcp_answer()[242], 5);
	assert_memory_equal(w.frame[0] + ETH_HDR + 16, guest, 4);
	/* For another server, of another machine, cut off. */
	dhcp(q, 3, NULL);
	memcpy(q + 244, (uint8_t[]){54, 4, 1, 2, 3, 4, 255}, 7);
	send_from(none, all, 68, 67, q, 300);
	assert_int_equal(w.nframes, 0);
	dhcp(q, 1, NULL);
	q[33] ^= 1;
	send_from(none, all, 68, 67, q, 300);
	assert_int_equal(w.nframes, 0);
	dhcp(q, 1, NULL);
	for (size_t n = 0; n < 240; n++)
		send_from(none, all, 68, 67, q, n);
	assert_int_equal(w.s->stats.malformed, 240);
	assert_int_equal(w.nframes, 0);
	/* Nothing else comes from nowhere. */
	send_from(none, all, 68, 68, q, 300);
	send_from(none, PEER, 68, 67, q, 300);
	assert_int_equal(w.s->stats.malformed, 242);
	assert_int_equal(w.open, 0);
}

static void leases_of_six(void **state)
{
	/* solicit; client id; an IA of number 9; what it asks for */
	static const uint8_t solicit[] = {1, 1, 2, 3, 0, 1, 0, 4, 'i', 'd', 0, 0, 0, 3, 0, 12, 0,
					  0, 0, 9, 0, 0, 0, 0, 0, 0,   0,   0, 0, 6, 0, 2, 0,  23};
	const char *const from = "fe80::6dff:fe73:2", *const to = "ff02::1:2";
	uint8_t q[sizeof(solicit) + 16];
	const uint8_t *m;
	size_t len;

	(void)state;
	memcpy(q, solicit, sizeof(solicit));
	send_from(from, to, 546, 547, q, sizeof(solicit));
	assert_int_equal(w.nframes, 1);
	m = got(0, &len) + UDP_HDR;
	assert_int_equal(m[0], 2);
	assert_memory_equal(m + 1, solicit + 1, 11);
	/* client id, server id, IA with the address */
	assert_memory_equal(m + 4 + 8 + 14, ((uint8_t[]){0, 3, 0, 40, 0, 0, 0, 9}), 8);
	assert_memory_equal(m + 4 + 8 + 14 + 4 + 12 + 4, w.s->config.guest6.b, 16);
	/* Asked of us by name. */
	q[0] = 3;
	memcpy(q + sizeof(solicit), m + 12, 14);
	send_from(from, to, 546, 547, q, sizeof(solicit) + 14);
	assert_int_equal(w.nframes, 1);
	assert_int_equal(got(0, &len)[UDP_HDR], 7);
	/* Of another, and every length. */
	q[sizeof(solicit) + 13] ^= 1;
	send_from(from, to, 546, 547, q, sizeof(solicit) + 14);
	assert_int_equal(w.nframes, 0);
	for (size_t n = 0; n < sizeof(solicit); n++)
		send_from(from, to, 546, 547, q, n);
	/* To others on the link, from there, nothing goes. */
	send_from(from, to, 546, 548, q, sizeof(solicit));
	send_from(from, PEER6, 546, 547, q, sizeof(solicit));
	assert_int_equal(w.open, 0);
}

static void routers(void **state)
{
	const char *const all = "ff02::2";
	size_t l4 = ETH_HDR + IP6_HDR, len;
	const uint8_t *m;

	(void)state;
	assert_int_equal(stack_next(w.s), 0);
	memset(out + l4, 0, 8);
	out[l4] = 133;
	wrap(all, NET_ICMP6, 8);
	sum_up(l4, 8, 2, all, NET_ICMP6);
	world_input(&w, out, l4 + 8, NULL);
	m = got(0, &len);
	assert_int_equal(m[0], 134);
	assert_int_equal(m[5], 0xc0);
	assert_int_equal(m[6] << 8 | m[7], 9000);
	/* And again before it is forgotten. */
	w.nframes = 0;
	w.now = stack_next(w.s);
	assert_in_range(w.now, SECOND, 4500 * SECOND);
	stack_tick(w.s, w.now);
	assert_int_equal(got(0, &len)[0], 134);
	/* From further away nobody asks that. */
	w.nframes = 0;
	out[ETH_HDR + 7] = 64;
	world_input(&w, out, l4 + 8, NULL);
	assert_int_equal(w.nframes, 0);
}

/* ---- floods, and who else is there ---- */

static void send_syn(const char *to, uint16_t port)
{
	size_t l4 = head(to);

	memset(out + l4, 0, TCP_HDR);
	put16(out + l4, port);
	put16(out + l4 + 2, 80);
	out[l4 + 12] = 5 << 4;
	out[l4 + 13] = TCP_SYN;
	wrap(to, NET_TCP, TCP_HDR);
	sum_up(l4, TCP_HDR, 16, to, NET_TCP);
	w.nframes = 0;
	world_input(&w, out, l4 + TCP_HDR, NULL);
}

static void floods(void **state)
{
	uint32_t ours = open_tcp(PEER);
	struct world_socket *k = w.last;
	unsigned refused = 0;

	(void)state;
	/* Datagrams to ever new places make room for each other, once they are not in use. */
	for (uint16_t i = 0; i < 500; i++) {
		w.now += SECOND / 8;
		send_udp(PEER, (uint16_t)(5000 + i), 4000, "x", 1);
		assert_in_range(w.s->stats.flows, 1, 32);
	}
	assert_int_equal(w.s->stats.full, 0);
	w.nframes = 0;
	/* So they do for connections, that make room for nobody. */
	w.now += 2 * SECOND;
	for (uint16_t i = 1; i < 100; i++) {
		send_syn("1.1.1.1", i);
		refused += w.nframes == 1 && reply(0).flags == (TCP_RST | TCP_ACK);
	}
	assert_int_equal(refused, 99 - 31);
	assert_int_equal(w.s->stats.full, refused);
	/* What was there goes on. */
	w.nframes = 0;
	w.last = k;
	SEG(.to = PEER, .flags = TCP_ACK, .seq = ISS + 1, .ack = ours, .data = "on", .len = 2);
	assert_int_equal(buf_size(&k->sent), 2);
	w.last = NULL;
}

/* SYNs that nobody answers: there are so many, and each new one takes the place of the oldest. */
static void half_open(void **state)
{
	const struct net_addr peer = world_addr("9.9.9.9");
	uint32_t ours = open_tcp(PEER);
	struct world_socket *k = w.last;
	struct flow *caller;

	(void)state;
	w.s->config.max_flows = 2048;
	caller = stack_accept(w.s, NET_TCP, &peer, 5000, 8080, NULL, w.now);
	assert_non_null(caller);
	for (uint16_t i = 1; i <= 5000; i++) {
		send_syn(i % 2 ? "1.1.1.1" : "2606::1", i);
		/* Who gives way hears it at once. */
		assert_int_equal(w.nframes, i > 1024);
		assert_true(i <= 1024 || reply(0).flags == (TCP_RST | TCP_ACK));
		assert_in_range(w.open, 1, 1 + 1024);
	}
	assert_int_equal(w.s->stats.full, 5000 - 1024);
	/* One that is answered is a connection as any; neither it nor others gives way. */
	SEG(.to = "3.3.3.3", .flags = TCP_SYN, .seq = ISS);
	w.nframes = 0;
	stack_event(w.s, w.last->flow, STACK_WRITABLE, 0, w.now);
	SEG(.to = "3.3.3.3", .flags = TCP_ACK, .seq = ISS + 1, .ack = reply(0).seq + 1);
	for (uint16_t i = 1; i <= 5000; i++)
		send_syn("4.4.4.4", i);
	assert_int_equal(w.s->half[0].n, 1024);
	assert_int_equal(w.s->stats.flows, 1024 + 3);
	/* Nor do those that call the guest, who have a place of their own. */
	for (uint16_t i = 1; i <= 900; i++) {
		w.nframes = 0;
		assert_non_null(stack_accept(w.s, NET_TCP, &peer, i, 8080, NULL, w.now));
	}
	assert_int_equal(w.s->half[1].n, 901);
	assert_int_equal(w.s->half[0].n, 1024);
	w.nframes = 0;
	SEG(.to = PEER, .flags = TCP_ACK, .seq = ISS + 1, .ack = ours, .data = "on", .len = 2);
	assert_int_equal(buf_size(&k->sent), 2);
	w.last = NULL;
}

/* A busy program has many for a moment; those that wait for long give way before others come. */
static void half_open_for_long(void **state)
{
	(void)state;
	w.s->config.max_flows = 2048;
	for (uint16_t i = 1; i <= 1000; i++)
		send_syn("1.1.1.1", i);
	assert_int_equal(w.s->stats.full, 0);
	w.now += 3 * SECOND;
	for (uint16_t i = 1001; i <= 1900; i++)
		send_syn("1.1.1.1", i);
	assert_int_equal(w.s->half[0].n, 1000);
	assert_int_equal(w.s->stats.full, 900);
	w.last = NULL;
}

/* A small table, full of those: after some seconds of silence they are worth less than a new one. */
static void half_open_and_full(void **state)
{
	const struct net_addr second = world_addr("2.2.2.2");

	(void)state;
	for (uint16_t i = 1; i <= 33; i++)
		send_syn("1.1.1.1", i);
	assert_int_equal(w.s->stats.full, 1);
	assert_int_equal(w.open, 32);
	w.now += 3 * SECOND;
	send_syn("2.2.2.2", 1000);
	assert_int_equal(w.s->stats.full, 2);
	assert_int_equal(w.open, 32);
	assert_non_null(w.last);
	assert_true(net_addr_equal(&w.to, &second));
}

/* A limit of connections in a time counts before there is a socket. */
static void no_socket_above_the_rate(void **state)
{
	const struct net_limits slow = {.rate[NET_RATE_CONNECTIONS] = {10, SECOND, 0}};

	(void)state;
	stack_change(w.s, &w.s->config.policy, &slow, 32, w.now);
	for (uint16_t i = 1; i <= 1000; i++) {
		/* Whatever else is changed, again and again. */
		stack_change(w.s, &w.s->config.policy, &slow, 32, w.now);
		send_syn("1.1.1.1", i);
		assert_in_range(w.open, 1, 10);
	}
	assert_int_equal(w.s->stats.full, 990);
	assert_int_equal(w.s->stats.opened, 10);
	/* A question for a name is no connection. */
	send_udp("1.1.1.1", 3000, DNS_PORT, "x", 1);
	assert_int_equal(w.s->stats.opened, 11);
}

/* Nobody is remembered as a neighbour, so there is nothing to fill. */
static void neighbours_without_number(void **state)
{
	uint32_t ours = open_tcp(PEER);
	struct world_socket *k = w.last;
	uint8_t *arp = out + ETH_HDR, *m = out + ETH_HDR + IP6_HDR;

	(void)state;
	for (uint32_t i = 0; i < 20000; i++) {
		w.nframes = 0;
		if (i % 2) {
			/* A request or a reply, of anybody with any address. */
			memset(out, 0xff, 6);
			put16(out + 12, 0x0806);
			memcpy(arp, (uint8_t[]){0, 1, 8, 0, 6, 4, 0, (uint8_t)(1 + i / 2 % 2)}, 8);
			put32(arp + 8, i * 2654435761u);
			put32(arp + 14, i * 40503u);
			put32(arp + 24, i * 7919u);
			world_input(&w, out, ETH_HDR + 28, NULL);
		} else {
			/* A solicitation, or an advertisement that overrides. */
			memset(m, 0, 32);
			m[0] = i % 4 ? 135 : 136;
			m[4] = 0x60;
			m[8] = 0xfd;
			put32(m + 20, i);
			memcpy(m + 24, (uint8_t[]){2, 1, 2, 0x6d, 0x73}, 5);
			wrap("ff02::1", NET_ICMP6, 32);
			put32(out + ETH_HDR + 20, i * 7919u);
			sum_up(ETH_HDR + IP6_HDR, 32, 2, "ff02::1", NET_ICMP6);
			world_input(&w, out, ETH_HDR + IP6_HDR + 32,
				    &(struct stack_meta){.valid = true});
		}
		assert_int_equal(w.nframes, 0);
	}
	assert_int_equal(w.s->stats.flows, 1);
	SEG(.to = PEER, .flags = TCP_ACK, .seq = ISS + 1, .ack = ours, .data = "on", .len = 2);
	assert_int_equal(buf_size(&k->sent), 2);
	assert_memory_equal(w.frame[0], w.s->config.guest_mac, 6);
}

/* Longer than any link: what IP can say is taken, what it cannot is not. */
static void jumbo(void **state)
{
	static uint8_t data[65535];
	uint32_t ours = open_tcp(PEER);
	uint8_t *ip = out + ETH_HDR;
	const size_t most = 65535 - IP4_HDR - TCP_HDR;
	uint64_t before;

	(void)state;
	w.room = sizeof(data);
	SEG(.to = PEER, .flags = TCP_ACK, .seq = ISS + 1, .ack = ours, .data = data, .len = most);
	assert_int_equal(buf_size(&w.last->sent), most);
	/* A frame with more behind the packet; one that says more than there is. */
	w.nframes = 0;
	memset(out + ETH_HDR + 65535, 1, 2000);
	world_input(&w, out, ETH_HDR + 65535 + 2000, NULL);
	assert_int_equal(reply(0).ack, ISS + 1 + (uint32_t)most);
	before = w.s->stats.malformed;
	world_input(&w, out, ETH_HDR + 65534, NULL);
	assert_int_equal(w.s->stats.malformed, before + 1);
	/* A jumbogram of IPv6 has a length of zero, and the real one in an option. */
	memset(out + ETH_HDR + IP6_HDR, 0, 70000 - ETH_HDR - IP6_HDR);
	wrap(PEER6, 0, 0);
	memcpy(ip + IP6_HDR, (uint8_t[]){NET_UDP, 0, 0xc2, 4, 0, 1, 0x11, 0x70}, 8);
	world_input(&w, out, sizeof(out), NULL);
	assert_int_equal(w.open, 1);
}

/* All that come from this host look the same from inside, but for their port. */
static void ports_of_the_gateway(void **state)
{
	struct net_addr peer = world_addr("127.0.0.1");

	(void)state;
	w.s->config.max_flows = 1024;
	for (uint8_t i = 1; i <= 100; i++) {
		peer.b[15] = i;
		w.nframes = 0;
		assert_non_null(stack_accept(w.s, NET_TCP, &peer, 5000, 8080, NULL, w.now));
		assert_int_equal(w.s->stats.flows, i);
	}
	/* A host without a port left says so, and so do we. */
	w.nframes = 0;
	w.open_error = EADDRNOTAVAIL;
	SEG(.to = PEER, .flags = TCP_SYN, .seq = ISS);
	assert_int_equal(w.nframes, 1);
	assert_int_equal(w.s->stats.flows, 100);
}

/* A flow with no end of data lets one through that has a word to say. */
static void turns(void **state)
{
	const struct net_addr small = world_addr("1.1.1.1");
	uint32_t bulk, ours = open_tcp("1.1.1.1");
	struct world_socket *word = w.last, *loaf;
	unsigned before = 0, seen = 0;

	(void)state;
	bulk = open_tcp(PEER);
	loaf = w.last;
	for (int i = 0; i < 400000; i++)
		buf_add(&loaf->answer, "0123456789", 10);
	for (int turn = 0; turn < 50; turn++) {
		unsigned mine = 0;

		stack_event(w.s, loaf->flow, STACK_READABLE, 0, w.now);
		w.last = word;
		say("word");
		/* The guest has room for few frames at a time. */
		for (int i = 0; i < 20 && !mine; i++) {
			for (unsigned k = 0; k < w.nframes; k++) {
				struct net_addr from = net_addr_v4(w.frame[k] + ETH_HDR + 12);

				if (net_addr_equal(&from, &small))
					mine = k + 1;
				else
					bulk += (uint32_t)reply(k).len;
			}
			before += mine ? mine - 1 : w.nframes;
			w.nframes = 0;
			w.max_frames = 8;
			if (!mine)
				stack_run(w.s, w.now);
		}
		assert_true(mine);
		seen++;
		ours += 4;
		SEG(.to = "1.1.1.1", .flags = TCP_ACK, .seq = ISS + 1, .ack = ours);
		w.nframes = 0;
		SEG(.to = PEER, .flags = TCP_ACK, .seq = ISS + 1, .ack = bulk);
	}
	assert_int_equal(seen, 50);
	/* A turn's frames of the other one at most, on average. */
	assert_in_range(before, 1, 50 * 24);
	w.last = NULL;
}

/* So do datagrams without end: each round what the other one said is among the first frames. */
static void turns_of_datagrams(void **state)
{
	uint32_t ours = open_tcp("1.1.1.1");
	struct world_socket *word = w.last, *flood[3];
	unsigned most = 0;

	(void)state;
	for (uint16_t i = 0; i < ARRAY_SIZE(flood); i++) {
		send_udp(PEER, (uint16_t)(5000 + i), 4000, "x", 1);
		flood[i] = w.last;
		flood[i]->floods = true;
		stack_event(w.s, flood[i]->flow, STACK_READABLE, 0, w.now);
	}
	w.nframes = 0;
	w.max_frames = 8;
	for (int turn = 0; turn < 50; turn++) {
		unsigned before = 0;
		bool mine = false;

		w.last = word;
		say("word");
		while (!mine && before < 1000) {
			for (unsigned k = 0; k < w.nframes && !mine; k++) {
				mine = w.frame[k][ETH_HDR + 9] == NET_TCP;
				before += !mine;
			}
			w.nframes = 0;
			if (!mine)
				stack_run(w.s, w.now);
		}
		assert_true(mine);
		most = MAX(most, before);
		ours += 4;
		SEG(.to = "1.1.1.1", .flags = TCP_ACK, .seq = ISS + 1, .ack = ours);
		w.nframes = 0;
		stack_run(w.s, w.now);
	}
	/* What the guest had already, and has room for at once, for each of the others. */
	assert_in_range(most, 1, 8 + 8 * ARRAY_SIZE(flood));
	assert_true(w.s->stats.frames_out > 50 * 8);
	for (unsigned i = 0; i < ARRAY_SIZE(flood); i++)
		flood[i]->floods = false;
	w.last = NULL;
}

/* Urgent data is data; what the flag says is for nobody here. */
static void urgent(void **state)
{
	uint32_t ours = open_tcp(PEER);

	(void)state;
	SEG(.to = PEER, .flags = TCP_ACK | 0x20, .seq = ISS + 1, .ack = ours, .data = "urgent",
	    .len = 6);
	assert_int_equal(buf_size(&w.last->sent), 6);
	assert_int_equal(reply(0).ack, ISS + 7);
}

/* Hours of silence: is the guest's end still there? */
static void keep_alive(void **state)
{
	uint32_t ours = open_tcp(PEER);

	(void)state;
	for (int hour = 0; hour < 12; hour++) {
		w.nframes = 0;
		for (int i = 0; i < 3600 && !w.nframes; i++) {
			w.now += SECOND;
			stack_tick(w.s, w.now);
			stack_run(w.s, w.now);
		}
		if (!w.nframes)
			continue;
		/* Old to the guest, which says so. */
		assert_int_equal(reply(0).seq, ours - 1);
		w.nframes = 0;
		SEG(.to = PEER, .flags = TCP_ACK, .seq = ISS + 1, .ack = ours);
	}
	assert_int_equal(w.open, 1);
	for (int i = 0; i < 3 * 3600 && w.open; i++) {
		w.nframes = 0;
		w.now += SECOND;
		stack_tick(w.s, w.now);
		stack_run(w.s, w.now);
	}
	assert_int_equal(w.open, 0);
	assert_int_equal(reply(w.nframes - 1).flags, TCP_RST | TCP_ACK);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
	const struct CMUnitTest tests[] = {
		TEST(put_together),
		TEST(parts_that_lie),
		TEST(parts_without_end),
		TEST(in_parts),
		TEST(narrow_paths),
		TEST(bad_news),
		TEST(leases),
		TEST(leases_of_six),
		TEST(routers),
		TEST(floods),
		TEST(neighbours_without_number),
		TEST(jumbo),
		TEST(ports_of_the_gateway),
		TEST(half_open),
		TEST(half_open_for_long),
		TEST(half_open_and_full),
		TEST(no_socket_above_the_rate),
		TEST(turns),
		TEST(turns_of_datagrams),
		TEST(urgent),
		TEST(keep_alive),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
