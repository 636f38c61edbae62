/* SPDX-License-Identifier: Apache-2.0 */
/* The stack against a guest that is written out frame by frame, and a world without sockets. */
#include "test.h"

#include "net/stack_guest.h"

/* ---- tests ---- */

static void neighbours(void **state)
{
	static const uint8_t arp[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2,   0x6d, 0x73, 0, 0,
				      2,    8,	  6,	0,    1,    8,	  0,   6,    4,	   0, 1,
				      2,    0x6d, 0x73, 0,    0,    2,	  172, 16,   0,	   2, 0,
				      0,    0,	  0,	0,    0,    172,  16,  0,    1};
	uint8_t other[sizeof(arp)], *m = out + ETH_HDR + IP6_HDR;
	const char *const solicited = "ff02::1:ff00:1";
	size_t len;

	(void)state;
	world_input(&w, arp, sizeof(arp), NULL);
	assert_int_equal(w.nframes, 1);
	assert_int_equal(w.frame[0][21], 2);
	assert_memory_equal(w.frame[0] + 22, w.s->config.gateway_mac, 6);
	w.nframes = 0;
	/* Whether its own address is free. */
	memcpy(other, arp, sizeof(arp));
	other[41] = 2;
	world_input(&w, other, sizeof(other), NULL);
	assert_int_equal(w.nframes, 0);

	memset(m, 0, 32);
	m[0] = 135;
	memcpy(m + 8, w.s->config.gateway6.b, 16);
	wrap(solicited, NET_ICMP6, 32);
	sum_up(ETH_HDR + IP6_HDR, 32, 2, solicited, NET_ICMP6);
	world_input(&w, out, ETH_HDR + IP6_HDR + 32, NULL);
	assert_int_equal(w.nframes, 1);
	assert_int_equal(got(0, &len)[0], 136);
	assert_memory_equal(got(0, &len) + 26, w.s->config.gateway_mac, 6);
}

static void refused_and_unreachable(void **state)
{
	size_t len;

	(void)state;
	SEG(.to = PEER, .flags = TCP_SYN, .seq = ISS);
	stack_event(w.s, w.last->flow, STACK_FAILED, ECONNREFUSED, w.now);
	assert_int_equal(reply(0).flags, TCP_RST | TCP_ACK);
	assert_int_equal(reply(0).ack, ISS + 1);
	assert_int_equal(w.open, 0);
	w.nframes = 0;
	SEG(.to = PEER, .flags = TCP_SYN, .seq = ISS);
	stack_event(w.s, w.last->flow, STACK_FAILED, EHOSTUNREACH, w.now);
	assert_int_equal(got(0, &len)[0], 3);
	assert_int_equal(got(0, &len)[1], 1);
	/* It has to name the guest's own segment. */
	assert_int_equal(be32(got(0, &len) + 8 + 20 + 4), ISS);
	w.nframes = 0;
	w.open_error = ENETUNREACH;
	SEG(.to = "2606::1", .flags = TCP_SYN, .seq = ISS);
	assert_int_equal(got(0, &len)[0], 1);
	assert_int_equal(w.s->stats.flows, 0);
}

static void denied(void **state)
{
	static const char *const addresses[] = {"10.0.0.1",
						"127.0.0.1",
						"172.16.0.1",
						"0.0.0.0",
						"198.51.100.7",
						"64:ff9b::a00:1",
						"fd42:6d73:62::1",
						"2002:7f00:1::",
						"169.254.169.254",
						"::127.0.0.1",
						"::ffff:0:10.0.0.1",
						"64:ff9b:1:7f:0:1:808:808",
						"2a00::5efe:10.0.0.1",
						"2001:0:4136:e378::1",
						"fec0::1",
						"fe80::a9fe:a9fe"};
	struct net_addr to;
	uint64_t denied_before;
	size_t len;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
		w.nframes = 0;
		SEG(.to = addresses[i], .flags = TCP_SYN, .seq = ISS);
		assert_int_equal(reply(0).flags, TCP_RST | TCP_ACK);
		w.nframes = 0;
		send_udp(addresses[i], 1000, 9, "x", 1);
		assert_true(w.nframes == 1 && (got(0, &len)[0] == 3 || got(0, &len)[0] == 1));
		assert_int_equal(got(0, &len)[1], got(0, &len)[0] == 3 ? 13 : 1);
		w.nframes = 0;
		denied_before = w.s->stats.denied;
		send_echo(addresses[i], 16);
		to = world_addr(addresses[i]);
		/* The gateway itself answers. */
		if (!net_addr_equal(&to, stack_gateway(w.s, &to))) {
			assert_true(got(0, &len)[0] == 3 || got(0, &len)[0] == 1);
			assert_int_equal(w.s->stats.denied, denied_before + 1);
		}
	}
	assert_int_equal(w.open, 0);
	/* The host under an address that leads to it by way of a translator. */
	w.local = world_addr("8.9.9.9");
	SEG(.to = "64:ff9b::8.9.9.8", .flags = TCP_SYN, .seq = ISS);
	assert_int_equal(w.open, 1);
	w.nframes = 0;
	SEG(.to = "64:ff9b::8.9.9.9", .flags = TCP_SYN, .seq = ISS);
	assert_int_equal(reply(0).flags, TCP_RST | TCP_ACK);
	/* Of IPv6 none of these leads to IPv4; wrap() would take it for that. */
	w.nframes = 0;
	send_echo("fd00::1", 16);
	w.nframes = 0;
	to = world_addr("127.0.0.1");
	memcpy(out + ETH_HDR + 24, to.b, 16);
	world_input(&w, out, ETH_HDR + IP6_HDR + 16, NULL);
	assert_int_equal(w.nframes, 1);
	assert_int_equal(got(0, &len)[0], 1);
	assert_int_equal(got(0, &len)[1], 1);
	assert_memory_equal(got(0, &len) + 8, out + ETH_HDR, IP6_HDR + 16);
	/* Groups are for nobody, whatever may be reached. */
	w.s->config.policy.egress = 0xffff;
	w.nframes = 0;
	send_udp("224.0.0.1", 1000, 9, "x", 1);
	send_echo("224.0.0.1", 16);
	send_echo("ff02::1", 16);
	assert_int_equal(w.nframes, 0);
	assert_int_equal(w.open, 1);
	assert_int_equal(w.s->stats.unsupported, 3);
}

/* Another policy: what it denies is cut, what it allows goes on, and limits count from then on. */
static void a_change_cuts_what_it_denies(void **state)
{
	static struct net_policy policy;
	const struct net_limits slow = {.rate[NET_RATE_CONNECTIONS] = {1, SECOND, 0}};
	const struct net_limits none = {0};
	uint32_t ours = open_tcp(PEER);

	(void)state;
	send_udp("8.8.8.8", 1000, 9, "x", 1);
	assert_int_equal(w.open, 2);
	w.nframes = 0;
	net_policy_init(&policy);
	assert_int_equal(net_policy_rules(&policy, "allow@8.8.8.8", NULL), 0);
	stack_change(w.s, &policy, &none, 1, w.now);
	assert_int_equal(w.open, 1);
	assert_int_equal(w.nframes, 1);
	assert_int_equal(reply(0).flags, TCP_RST | TCP_ACK);
	assert_int_equal(reply(0).seq, ours);
	SEG(.to = PEER, .flags = TCP_SYN, .seq = ISS);
	send_udp("8.8.8.8", 1001, 9, "x", 1);
	assert_int_equal(w.open, 1);
	assert_int_equal(w.s->stats.full, 1);
	send_udp("8.8.8.8", 1000, 9, "x", 1);
	stack_change(w.s, &policy, &slow, 32, w.now);
	send_udp("8.8.8.8", 1001, 9, "x", 1);
	send_udp("8.8.8.8", 1002, 9, "x", 1);
	assert_int_equal(w.open, 2);
	w.now += SECOND;
	send_udp("8.8.8.8", 1002, 9, "x", 1);
	assert_int_equal(w.open, 3);
}

static void data_both_ways(void **state)
{
	uint32_t ours = open_tcp(PEER);

	(void)state;
	SEG(.to = PEER, .flags = TCP_ACK, .seq = ISS + 1, .ack = ours, .data = "hello", .len = 5);
	assert_int_equal(buf_size(&w.last->sent), 5);
	assert_int_equal(reply(0).ack, ISS + 6);
	w.nframes = 0;
	/* The same once more, with something new: only that is passed on. */
	SEG(.to = PEER, .flags = TCP_ACK, .seq = ISS + 1, .ack = ours, .data = "hello, world",
	    .len = 12);
	assert_memory_equal(buf_ptr(&w.last->sent), "hello, world", 12);
	assert_int_equal(reply(0).ack, ISS + 13);
	w.nframes = 0;
	/* A hole. */
	SEG(.to = PEER, .flags = TCP_ACK, .seq = ISS + 20, .ack = ours, .data = "late", .len = 4);
	assert_int_equal(reply(0).ack, ISS + 13);
	assert_int_equal(buf_size(&w.last->sent), 12);
	w.nframes = 0;

	say("answer");
	assert_int_equal(w.nframes, 1);
	assert_int_equal(reply(0).len, 6);
	assert_memory_equal(reply(0).data, "answer", 6);
	/* It stays in the socket until it is acknowledged. */
	assert_int_equal(buf_size(&w.last->answer), 6);
	w.nframes = 0;
	w.now += SECOND;
	stack_tick(w.s, w.now);
	assert_int_equal(w.nframes, 1);
	assert_int_equal(reply(0).seq, ours);
	SEG(.to = PEER, .flags = TCP_ACK, .seq = ISS + 13, .ack = ours + 6);
	assert_int_equal(buf_size(&w.last->answer), 0);
	/* Nothing that was never sent can be acknowledged. */
	SEG(.to = PEER, .flags = TCP_ACK, .seq = ISS + 13, .ack = ours + 7);
	assert_int_equal(w.last->flow->tcp.snd_una, ours + 6);
}

/* To the same machine: a SYN is answered when it comes, and nothing is looked for in vain. */
static void nearby(void **state)
{
	uint32_t theirs;

	(void)state;
	w.near = true;
	SEG(.to = PEER, .flags = TCP_SYN, .seq = ISS);
	assert_int_equal(w.nframes, 1);
	assert_int_equal(reply(0).flags, TCP_SYN | TCP_ACK);
	theirs = reply(0).seq + 1;
	SEG(.to = PEER, .flags = TCP_ACK, .seq = ISS + 1, .ack = theirs);
	assert_int_equal(w.peeks, 0);
	w.nframes = 0;
	say("hello");
	assert_int_equal(w.nframes, 1);
	assert_int_equal(reply(0).len, 5);
	assert_int_equal(w.peeks, 1);
	/* With an end behind it, of which nothing else will tell. */
	buf_add_str(&w.last->answer, "bye");
	w.last->ended = true;
	stack_event(w.s, w.last->flow, STACK_READABLE | STACK_STOPS, 0, w.now);
	stack_run(w.s, w.now);
	assert_int_equal(w.nframes, 3);
	assert_int_equal(reply(1).len, 3);
	assert_int_equal(reply(2).flags, TCP_FIN | TCP_ACK);
	/* Refused is refused, as fast. */
	w.nframes = 0;
	w.open_error = ECONNREFUSED;
	SEG(.to = "1.2.3.5", .flags = TCP_SYN, .seq = ISS);
	assert_int_equal(w.nframes, 1);
	assert_true(reply(0).flags & TCP_RST);
}

static void ends(void **state)
{
	uint32_t ours = open_tcp(PEER);

	(void)state;
	/* The guest's half first: the other goes on. */
	SEG(.to = PEER, .flags = TCP_FIN | TCP_ACK, .seq = ISS + 1, .ack = ours, .data = "x",
	    .len = 1);
	assert_true(w.last->shut);
	assert_int_equal(reply(0).ack, ISS + 3);
	w.nframes = 0;
	say("bye");
	assert_int_equal(reply(0).len, 3);
	w.nframes = 0;
	w.last->ended = true;
	SEG(.to = PEER, .flags = TCP_ACK, .seq = ISS + 3, .ack = ours + 3);
	stack_event(w.s, w.last->flow, STACK_READABLE, 0, w.now);
	stack_run(w.s, w.now);
	assert_int_equal(reply(0).flags, TCP_FIN | TCP_ACK);
	SEG(.to = PEER, .flags = TCP_ACK, .seq = ISS + 3, .ack = ours + 4);
	assert_int_equal(w.open, 0);
	w.nframes = 0;
	/* What comes late finds nothing. */
	SEG(.to = PEER, .flags = TCP_ACK, .seq = ISS + 3, .ack = ours + 4);
	assert_int_equal(reply(0).flags, TCP_RST);
}

static void resets(void **state)
{
	uint32_t ours = open_tcp(PEER);

	(void)state;
	/* Somewhere in the window is not enough. */
	SEG(.to = PEER, .flags = TCP_RST, .seq = ISS + 100, .ack = ours);
	assert_int_equal(reply(0).flags, TCP_ACK);
	assert_int_equal(w.open, 1);
	SEG(.to = PEER, .flags = TCP_RST, .seq = ISS + 1, .ack = ours);
	assert_int_equal(w.open, 0);
	w.nframes = 0;
	open_tcp(PEER);
	stack_event(w.s, w.last->flow, STACK_FAILED, ECONNRESET, w.now);
	assert_int_equal(reply(0).flags, TCP_RST | TCP_ACK);
	assert_int_equal(w.open, 0);
}

static void windows(void **state)
{
	uint32_t ours = open_tcp(PEER);

	(void)state;
	/* The guest's is shut: nothing but a probe, and that for as long as the guest answers. */
	SEG(.to = PEER, .flags = TCP_ACK, .seq = ISS + 1, .ack = ours, .shut = true);
	w.nframes = 0;
	say("waits");
	assert_int_equal(w.nframes, 0);
	for (int i = 0; i < 100; i++) {
		w.nframes = 0;
		w.now += 61 * SECOND;
		stack_tick(w.s, w.now);
		assert_int_equal(w.nframes, 1);
		assert_int_equal(reply(0).len, 1);
		SEG(.to = PEER, .flags = TCP_ACK, .seq = ISS + 1, .ack = ours, .shut = true);
	}
	w.nframes = 0;
	SEG(.to = PEER, .flags = TCP_ACK, .seq = ISS + 1, .ack = ours + 1, .window = 1000);
	assert_int_equal(reply(0).len, 4);
	assert_memory_equal(reply(0).data, "aits", 4);
	w.nframes = 0;

	/* Ours says what the socket takes, and more than that is not acknowledged. */
	w.room = 10;
	SEG(.to = PEER, .flags = TCP_ACK, .seq = ISS + 1, .ack = ours + 5,
	    .data = "0123456789abcdef", .len = 16);
	assert_int_equal(buf_size(&w.last->sent), 10);
	assert_int_equal(reply(0).ack, ISS + 11);
	w.nframes = 0;
	buf_reset(&w.last->sent);
	stack_event(w.s, w.last->flow, STACK_WRITABLE, 0, w.now);
	stack_run(w.s, w.now);
	/* To be sent again at once. */
	assert_true(w.nframes >= 4);
	assert_int_equal(reply(w.nframes - 1).ack, ISS + 11);
	SEG(.to = PEER, .flags = TCP_ACK, .seq = ISS + 11, .ack = ours + 5, .data = "abcdef",
	    .len = 6);
	assert_memory_equal(buf_ptr(&w.last->sent), "abcdef", 6);
}

/* Frames that are there together go out together, and nothing is said that is not true. */
static void together(void **state)
{
	uint32_t ours = open_tcp(PEER);
	static const char text[] = "0123456789";
	unsigned sends;

	(void)state;
	w.keep = 5;
	sends = w.sends;
	for (uint32_t i = 0; i < 4; i++)
		SEG(PEER, TCP_ACK, ISS + 1 + i, ours, .data = text + i, .len = 1);
	assert_int_equal(w.nframes, 0);
	/* The same once more is no reason to wait. */
	SEG(PEER, TCP_ACK, ISS + 1, ours, .data = "x", .len = 1);
	assert_int_equal(w.sends, sends + 1);
	assert_int_equal(w.nframes, 1);
	assert_int_equal(reply(0).ack, ISS + 5);
	assert_memory_equal(buf_ptr(&w.last->sent), "0123", 4);
	/* The socket takes less than all: none of the rest came. */
	w.nframes = 0;
	w.room = 6;
	w.keep = 4;
	for (uint32_t i = 4; i < 8; i++)
		SEG(PEER, TCP_ACK, ISS + 1 + i, ours, .data = text + i, .len = 1);
	assert_int_equal(w.nframes, 1);
	assert_int_equal(reply(0).ack, ISS + 7);
	assert_int_equal(buf_size(&w.last->sent), 6);
	/* A hole is told at once, after what was before it. */
	w.nframes = 0;
	w.room = 7;
	w.keep = 3;
	SEG(PEER, TCP_ACK, ISS + 7, ours, .data = text + 6, .len = 1);
	SEG(PEER, TCP_ACK, ISS + 8, ours, .data = text + 7, .len = 1);
	assert_int_equal(w.nframes, 0);
	SEG(PEER, TCP_ACK, ISS + 10, ours, .data = text + 9, .len = 1);
	assert_true(w.nframes >= 1);
	for (unsigned i = 0; i < w.nframes; i++)
		assert_int_equal(reply(i).ack, ISS + 8);
	/* So is that something was never sent. */
	w.nframes = 0;
	SEG(PEER, TCP_ACK, ISS + 8, ours, .data = text + 7, .len = 1);
	SEG(PEER, TCP_ACK, ISS + 9, ours + 1000);
	SEG(PEER, TCP_ACK, ISS + 1, ours);
	assert_true(w.nframes >= 1);
	for (unsigned i = 0; i < w.nframes; i++)
		assert_int_equal(reply(i).ack, ISS + 8);
	/* An end comes after what is before it, and so does a reset. */
	w.nframes = 0;
	w.room = 100;
	w.keep = 2;
	SEG(PEER, TCP_ACK, ISS + 8, ours, .data = text + 7, .len = 1);
	SEG(PEER, TCP_ACK | TCP_FIN, ISS + 9, ours, .data = text + 8, .len = 1);
	assert_true(w.last->shut);
	assert_memory_equal(buf_ptr(&w.last->sent), "012345678", 9);
	assert_int_equal(reply(0).ack, ISS + 11);
}

static void together_and_cut(void **state)
{
	uint32_t ours = open_tcp(PEER);
	unsigned sends;

	(void)state;
	w.keep = 3;
	sends = w.sends;
	SEG(PEER, TCP_ACK, ISS + 1, ours, .data = "a", .len = 1);
	SEG(PEER, TCP_ACK, ISS + 2, ours, .data = "b", .len = 1);
	SEG(PEER, TCP_RST, ISS + 3, ours);
	assert_int_equal(w.sends, sends + 1);
	assert_int_equal(w.open, 0);
	assert_int_equal(w.s->stats.flows, 0);
	/* The socket breaks: the guest is told, and nothing was acknowledged. */
	w.keep = 0;
	w.nframes = 0;
	ours = open_tcp(PEER);
	w.send_error = EPIPE;
	w.keep = 2;
	SEG(PEER, TCP_ACK, ISS + 1, ours, .data = "a", .len = 1);
	SEG(PEER, TCP_ACK, ISS + 2, ours, .data = "b", .len = 1);
	assert_int_equal(w.nframes, 1);
	assert_true(reply(0).flags & TCP_RST);
	assert_int_equal(reply(0).ack, ISS + 1);
	assert_int_equal(w.s->stats.flows, 0);
	w.send_error = 0;
}

static void options(void **state)
{
	/* MSS 1000, window scale 3, time stamp 77 */
	static const uint8_t syn[] = {2, 4,  3, 232, 1, 3,  3, 3, 1, 1,
				      8, 10, 0, 0,   0, 77, 0, 0, 0, 0};
	static const uint8_t later[] = {1, 1, 8, 10, 0, 0, 0, 90, 0, 0, 0, 0};
	static const uint8_t before[] = {1, 1, 8, 10, 0, 0, 0, 70, 0, 0, 0, 0};
	static const uint8_t nonsense[] = {2, 0, 0, 0, 3, 200, 1, 1};
	const uint8_t *t;
	uint32_t ours;
	size_t len;

	(void)state;
	stack_offload(w.s, true, true, true);
	w.room = 4 << 20;
	SEG(.to = PEER, .flags = TCP_SYN, .seq = ISS, .options = syn, .noptions = sizeof(syn));
	stack_event(w.s, w.last->flow, STACK_WRITABLE, 0, w.now);
	t = got(0, &len);
	assert_int_equal(t[12] >> 4, 10);
	assert_int_equal(t[20] << 8 | t[21], 0x0204);
	assert_int_equal(t[22] << 8 | t[23], 1460);
	assert_int_equal(be32(t + 36), 77);
	ours = reply(0).seq + 1;
	w.nframes = 0;
	SEG(.to = PEER, .flags = TCP_ACK, .seq = ISS + 1, .ack = ours, .options = later,
	    .noptions = 12, .data = "a", .len = 1);
	assert_true(reply(0).window > 8192);
	w.nframes = 0;
	/* An old duplicate. */
	SEG(.to = PEER, .flags = TCP_ACK, .seq = ISS + 2, .ack = ours, .options = before,
	    .noptions = 12, .data = "b", .len = 1);
	assert_int_equal(buf_size(&w.last->sent), 1);
	w.nframes = 0;
	/* 60000 << 3 of window: the guest's segments, many in a frame. */
	for (int i = 0; i < 5000; i++)
		buf_add(&w.last->answer, "0123456789abcdefghij", 20);
	stack_event(w.s, w.last->flow, STACK_READABLE, 0, w.now);
	stack_run(w.s, w.now);
	/* After a look at whether there is so much. */
	assert_int_equal(w.nframes, 3);
	assert_int_equal(reply(0).len, 4 * 988);
	assert_int_equal(w.meta[1].gso, STACK_GSO_TCP4);
	assert_int_equal(w.meta[1].gso_size, 988);
	assert_int_equal(reply(1).len % 988, 0);
	assert_true(reply(1).len > 60000);
	assert_int_equal(reply(0).len + reply(1).len + reply(2).len, 100000);
	/* Options that lead nowhere. */
	SEG(.to = "1.1.1.1", .flags = TCP_SYN, .options = nonsense, .noptions = sizeof(nonsense));
	assert_int_equal(w.open, 2);
}

static void patience(void **state)
{
	uint32_t ours = open_tcp(PEER);
	unsigned i;

	(void)state;
	/* With no room in the guest nothing is lost. */
	w.max_frames = 0;
	say("answer");
	w.max_frames = WORLD_FRAMES;
	stack_run(w.s, w.now);
	assert_int_equal(reply(0).len, 6);
	/* Three of the same: what is missing goes again before its time. */
	w.nframes = 0;
	for (i = 0; i < 3; i++)
		SEG(.to = PEER, .flags = TCP_ACK, .seq = ISS + 1, .ack = ours);
	assert_int_equal(w.nframes, 1);
	assert_int_equal(reply(0).seq, ours);
	/* A guest that never answers is given up. */
	for (i = 0; w.open && i < 1000; i++) {
		w.nframes = 0;
		w.now += SECOND;
		stack_tick(w.s, w.now);
		stack_run(w.s, w.now);
	}
	assert_in_range(i, 60, 900);
	assert_int_equal(reply(w.nframes - 1).flags, TCP_RST | TCP_ACK);
}

static void accepted(void **state)
{
	struct net_addr peer = world_addr("127.0.0.1");
	struct flow *f = stack_accept(w.s, NET_TCP, &peer, 5000, 8080, NULL, w.now);
	struct world_socket *k;
	uint32_t ours;

	(void)state;
	assert_non_null(f);
	world_open(&w, f, NET_TCP, &peer, 5000);
	k = w.last;
	assert_int_equal(reply(0).flags, TCP_SYN);
	/* From whom the guest can answer. */
	assert_memory_equal(w.frame[0] + ETH_HDR + 12, net_addr_four(&w.s->config.gateway4), 4);
	ours = reply(0).seq + 1;
	w.nframes = 0;
	/* Who is not of this host is seen as who he is. */
	peer = world_addr("9.9.9.9");
	assert_non_null(stack_accept(w.s, NET_TCP, &peer, 5000, 8080, NULL, w.now));
	assert_memory_equal(w.frame[0] + ETH_HDR + 12, net_addr_four(&peer), 4);
	w.nframes = 0;
	/* Two that look the same. */
	peer = world_addr("127.0.0.2");
	assert_ptr_not_equal(stack_accept(w.s, NET_TCP, &peer, 5000, 8080, NULL, w.now), f);
	w.nframes = 0;
	buf_add_str(&k->answer, "request");
	{
		size_t l4 = head(PEER);
		uint8_t *tcp = out + l4;

		memset(tcp, 0, TCP_HDR);
		put16(tcp, 8080);
		put16(tcp + 2, 5000);
		put32(tcp + 4, 7);
		put32(tcp + 8, ours);
		tcp[12] = 5 << 4;
		tcp[13] = TCP_SYN | TCP_ACK;
		put16(tcp + 14, 5000);
		wrap("172.16.0.1", NET_TCP, TCP_HDR);
		sum_up(l4, TCP_HDR, 16, "172.16.0.1", NET_TCP);
		world_input(&w, out, l4 + TCP_HDR, NULL);
	}
	assert_int_equal(w.nframes, 1);
	assert_int_equal(reply(0).ack, 8);
	assert_int_equal(reply(0).len, 7);
}

/* Port 53 is the name service's, whoever is addressed and whatever may be reached. */
static void names(void **state)
{
	static const char *const addresses[] = {"172.16.0.1", "10.1.2.3", PEER, "2606::1"};
	size_t len;

	(void)state;
	w.s->config.policy.egress = 0;
	for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
		w.nframes = 0;
		send_udp(addresses[i], 3000, 53, "question", 8);
		assert_true(w.last && flow_is_dns(w.last->flow));
		assert_memory_equal(buf_ptr(&w.last->sent), "question", 8);
		buf_add_str(&w.last->answer, "answer");
		stack_event(w.s, w.last->flow, STACK_READABLE, 0, w.now);
		stack_run(w.s, w.now);
		assert_memory_equal(got(0, &len) + UDP_HDR, "answer", 6);
		assert_int_equal(w.open, 1);
		/* With the last answer its flow is gone. */
		w.last->over = true;
		stack_event(w.s, w.last->flow, STACK_READABLE, 0, w.now);
		stack_run(w.s, w.now);
		assert_int_equal(w.open, 0);
		assert_int_equal(w.nframes, 1);
	}
	w.nframes = 0;
	send_udp(PEER, 3000, 5300, "question", 8);
	assert_int_equal(w.open, 0);
	assert_int_equal(w.nframes, 1);
}

/* What was told under a name may be reached for as long as it was told, by the rule's ports. */
static void named(void **state)
{
	struct net_addr peer = world_addr(PEER), other = world_addr("1.2.3.5"),
			inner = world_addr("10.1.2.3"), host = world_addr("198.51.100.7");
	struct dns_name name;
	struct names *names;

	(void)state;
	assert_int_equal(names_new(w.s->config.seed, &names), 0);
	assert_int_equal(dns_name_parse("www.example.com", &name), 0);
	net_policy_init(&w.s->config.policy);
	assert_int_equal(net_policy_rules(&w.s->config.policy, "allow@*.example.com:udp:4000-4002",
					  NULL),
			 0);
	names_policy(names, &w.s->config.policy);
	w.s->config.names = names;
	names_pin(names, &peer, &name, w.now + SECOND);
	names_pin(names, &inner, &name, w.now + SECOND);
	names_pin(names, &host, &name, w.now + SECOND);
	send_udp(PEER, 3000, 4000, "x", 1);
	send_udp("10.1.2.3", 3000, 4002, "x", 1);
	assert_int_equal(w.open, 2);
	send_udp(PEER, 3000, 4003, "x", 1);
	send_udp("1.2.3.5", 3000, 4000, "x", 1);
	/* The host's own address is the host, whatever a name says. */
	send_udp("198.51.100.7", 3000, 4000, "x", 1);
	assert_int_equal(w.open, 2);
	assert_int_equal(w.s->stats.denied, 3);
	names_pin(names, &other, &name, w.now + SECOND);
	send_udp("1.2.3.5", 3000, 4000, "x", 1);
	assert_int_equal(w.open, 3);
	/* What is open stays; what begins later is too late. */
	w.now += SECOND + 1;
	send_udp("1.2.3.5", 3000, 4000, "x", 1);
	assert_int_equal(w.s->stats.denied, 3);
	send_udp("1.2.3.5", 3001, 4000, "x", 1);
	assert_int_equal(w.s->stats.denied, 4);
	w.s->config.names = names_free(names);
}

/* A change judges what is open by its rules, not by whether a name could be used for another one. */
static void a_change_and_names(void **state)
{
	static struct net_policy policy;
	const struct net_limits none = {0};
	struct net_addr peer = world_addr(PEER);
	struct dns_name name;
	struct names *names;

	(void)state;
	assert_int_equal(names_new(w.s->config.seed, &names), 0);
	assert_int_equal(dns_name_parse("www.example.com", &name), 0);
	net_policy_init(&policy);
	assert_int_equal(
		net_policy_rules(&policy, "allow@1.2.3.4:udp:9,allow@www.example.com", NULL), 0);
	w.s->config.names = names;
	stack_change(w.s, &policy, &none, 32, w.now);
	names_pin(names, &peer, &name, w.now + SECOND);
	open_tcp(PEER);
	send_udp(PEER, 3000, 4000, "x", 1);
	send_udp(PEER, 3000, 9, "x", 1);
	assert_int_equal(w.open, 3);
	w.now += 2 * SECOND;
	send_udp(PEER, 3001, 4000, "x", 1);
	assert_int_equal(w.open, 3);
	/* Another rule, another limit. */
	w.nframes = 0;
	net_policy_init(&policy);
	assert_int_equal(net_policy_rules(&policy,
					  "allow@8.8.8.8,deny@domain=www.example.com:udp:9,"
					  "allow@1.2.3.4:udp:9,allow@*.example.com",
					  NULL),
			 0);
	stack_change(w.s, &policy, &none, 16, w.now);
	assert_int_equal(w.open, 3);
	assert_int_equal(w.nframes, 0);
	/* One that speaks of the name, then none that does: those that it opened are cut. */
	net_policy_init(&policy);
	assert_int_equal(net_policy_rules(&policy, "allow@www.example.com:tcp,allow@1.2.3.4:udp:9",
					  NULL),
			 0);
	stack_change(w.s, &policy, &none, 32, w.now);
	assert_int_equal(w.open, 2);
	net_policy_init(&policy);
	assert_int_equal(net_policy_rules(&policy, "allow@1.2.3.4:udp:9", NULL), 0);
	stack_change(w.s, &policy, &none, 32, w.now);
	assert_int_equal(w.open, 1);
	assert_int_equal(reply(w.nframes - 1).flags, TCP_RST | TCP_ACK);
	w.s->config.names = names_free(names);
}

/* With strict, a flow that only a name allows has to say it. */
static void strict(void **state)
{
	struct net_addr peer = world_addr(PEER);
	struct dns_name name, second, third;
	struct names *names;
	struct flow *f;

	(void)state;
	assert_int_equal(names_new(w.s->config.seed, &names), 0);
	assert_int_equal(dns_name_parse("www.example.com", &name), 0);
	assert_int_equal(dns_name_parse("denied.example.com", &second), 0);
	assert_int_equal(dns_name_parse("never.example.com", &third), 0);
	net_policy_init(&w.s->config.policy);
	assert_int_equal(net_policy_rules(&w.s->config.policy,
					  "allow@domain=www.example.com,allow@never.example.com",
					  NULL),
			 0);
	names_policy(names, &w.s->config.policy);
	w.s->config.names = names;
	w.s->config.strict = true;
	names_pin(names, &peer, &name, w.now + SECOND);
	names_pin(names, &peer, &second, w.now + SECOND);
	send_udp(PEER, 3000, 4000, "x", 1);
	assert_int_equal(w.open, 0);
	SEG(PEER, TCP_SYN, 1);
	assert_int_equal(w.open, 1);
	f = w.last->flow;
	assert_true(flow_inspect(f));
	assert_true(stack_agrees(w.s, f, &name, w.now));
	assert_false(stack_agrees(w.s, f, &second, w.now));
	/* It may be asked for, but is not what this address was told as. */
	assert_false(stack_agrees(w.s, f, &third, w.now));
	assert_false(stack_agrees(w.s, f, NULL, w.now));
	w.s->config.names = names_free(names);
}

static void datagrams(void **state)
{
	size_t len;

	(void)state;
	send_udp("2606::1", 3000, 4000, "abc", 3);
	assert_memory_equal(buf_ptr(&w.last->sent), "abc", 3);
	w.last->error = ECONNREFUSED;
	stack_event(w.s, w.last->flow, STACK_FAILED, ECONNREFUSED, w.now);
	stack_run(w.s, w.now);
	assert_int_equal(got(0, &len)[0], 1);
	assert_int_equal(got(0, &len)[1], 4);
	/* As many as there may be, and no more. */
	for (uint16_t i = 0; i < 100; i++)
		send_udp(PEER, (uint16_t)(5000 + i), 4000, "x", 1);
	assert_int_equal(w.s->stats.flows, 32);
	w.now += 100 * SECOND;
	stack_tick(w.s, w.now);
	assert_int_equal(w.s->stats.flows, 0);
}

static void nonsense(void **state)
{
	uint64_t before;

	(void)state;
	/* Every length of a frame that was right. */
	SEG(.to = PEER, .flags = TCP_SYN, .seq = ISS);
	w.s->stats.malformed = 0;
	for (size_t n = 0; n < head(PEER) + TCP_HDR; n++) {
		before = w.s->stats.malformed + w.s->stats.unsupported;
		world_input(&w, out, n, NULL);
		assert_int_equal(w.s->stats.malformed + w.s->stats.unsupported, before + 1);
	}
	/* Every bit of it that a sum covers. */
	for (size_t bit = ETH_HDR * 8; bit < (head(PEER) + TCP_HDR) * 8; bit++) {
		before = w.s->stats.malformed;
		out[bit / 8] ^= (uint8_t)(1 << bit % 8);
		world_input(&w, out, head(PEER) + TCP_HDR, NULL);
		out[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_int_equal(w.s->stats.malformed, before + 1);
	}
	assert_int_equal(w.open, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
	const struct CMUnitTest tests[] = {
		TEST(neighbours),
		TEST(refused_and_unreachable),
		TEST(denied),
		TEST(a_change_cuts_what_it_denies),
		TEST(data_both_ways),
		TEST(ends),
		TEST(nearby),
		TEST(resets),
		TEST(windows),
		TEST(options),
		TEST(patience),
		TEST(together),
		TEST(together_and_cut),
		TEST(accepted),
		TEST(names),
		TEST(named),
		TEST(a_change_and_names),
		TEST(strict),
		TEST(datagrams),
		TEST(nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
