/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that sends any frames, to a world that behaves as it likes. The input is a list of steps:
 * a byte what, then its bytes. Frames can have their addresses, lengths and checksums put right, so
 * that most get past the first checks.
 */
#include "net/stack_world.h"

static struct world w;

/* Make an IP frame one that the stack believes: the guest's addresses, lengths, sums. */
static void mend(uint8_t *f, size_t len, uint8_t how)
{
	static const uint8_t four[] = {172, 16, 0, 2};
	const bool is6 = how & 1;
	uint8_t *ip = f + ETH_HDR;
	size_t hdr = is6 ? IP6_HDR : IP4_HDR;

	if (len < ETH_HDR + hdr)
		return;
	put16(f + 12, is6 ? 0x86dd : 0x0800);
	if (is6) {
		put32(ip, 0x60000000);
		put16(ip + 4, (uint32_t)(len - ETH_HDR - hdr));
		ip[7] = 255;
		memcpy(ip + 8, w.s->config.guest6.b, 16);
		if (how & 2)
			memcpy(ip + 24, w.s->config.gateway6.b, 16);
		return;
	}
	ip[0] = 0x45;
	put16(ip + 2, (uint32_t)(len - ETH_HDR));
	put16(ip + 6, 0);
	memcpy(ip + 12, four, 4);
	if (how & 2)
		memcpy(ip + 16, (uint8_t[]){172, 16, 0, 1}, 4);
	put16(ip + 10, 0);
	put16(ip + 10, (uint16_t)~sum_fold(sum_bytes(ip, IP4_HDR, 0)));
}

/* A segment that continues the flow as the stack knows it. */
static void follow(uint8_t *f, size_t len, uint8_t how)
{
	size_t l4 = ETH_HDR + (how & 1 ? IP6_HDR : IP4_HDR);
	struct flow *known = w.last ? w.last->flow : NULL;
	const struct tcp *t = known ? &known->tcp : NULL;

	if (!t || known->key.proto != NET_TCP || len < l4 + TCP_HDR ||
	    net_addr_is_v4(&known->key.remote) == (how & 1))
		return;
	f[l4 - (how & 1 ? IP6_HDR - 6 : IP4_HDR - 9)] = NET_TCP;
	if (how & 1)
		memcpy(f + ETH_HDR + 24, known->key.remote.b, 16);
	else
		memcpy(f + ETH_HDR + 16, net_addr_four(&known->key.remote), 4);
	put16(f + l4, known->key.guest_port);
	put16(f + l4 + 2, known->key.remote_port);
	if (how & 8)
		put32(f + l4 + 4, t->rcv_nxt);
	if (how & 16)
		put32(f + l4 + 8, how & 32 ? t->snd_max : t->snd_una);
	/* The sum does not matter here; how long the options are is the input's to say. */
	if (!(how & 4))
		f[l4 + 12] = TCP_HDR / 4 << 4;
}

/* A part of a datagram of few numbers: they meet. */
static void cut(uint8_t *f, size_t len, uint8_t how)
{
	uint8_t *ip = f + ETH_HDR, *part = ip + IP6_HDR;

	if (len < ETH_HDR + IP6_HDR + FRAGMENT_HDR)
		return;
	if (how & 1) {
		part[0] = ip[6] & 1 ? NET_UDP : ip[6];
		ip[6] = NET_FRAGMENT;
		put16(part + 2, (unsigned)(part[2] << 8 | part[3]) & (how & 4 ? 0xffff : 0x07f9));
		put32(part + 4, how >> 3);
		return;
	}
	if (how & 4)
		ip[9] = NET_UDP;
	put16(ip + 4, how >> 3);
	ip[6] = (uint8_t)(ip[8] & (how & 2 ? 0x3f : 0x20));
	ip[7] = ip[1];
	put16(ip + 10, 0);
	put16(ip + 10, (uint16_t)~sum_fold(sum_bytes(ip, IP4_HDR, 0)));
}

/* Somebody without an address asks for one; or for a router. */
static void ask(uint8_t *f, size_t len, uint8_t how)
{
	static const uint8_t all4[] = {255, 255, 255, 255}, link[] = {0xfe, 0x80},
			     servers[16] = {0xff, 2, [13] = 1, 0, 2};
	static const uint8_t cookie[] = {0x63, 0x82, 0x53, 0x63};
	const size_t l4 = ETH_HDR + (how & 1 ? IP6_HDR : IP4_HDR);
	uint8_t *ip = f + ETH_HDR, *m = f + l4 + UDP_HDR;

	if (len < l4 + UDP_HDR)
		return;
	if (how & 1) {
		ip[6] = how & 2 ? NET_ICMP6 : NET_UDP;
		memcpy(ip + 8, link, 2);
		memcpy(ip + 24, servers, 16);
	} else {
		ip[9] = NET_UDP;
		memset(ip + 12, 0, 4);
		memcpy(ip + 16, all4, 4);
		put16(ip + 10, 0);
		put16(ip + 10, (uint16_t)~sum_fold(sum_bytes(ip, IP4_HDR, 0)));
	}
	put16(f + l4 + 2, how & 1 ? DHCP6_SERVER : DHCP_SERVER);
	put16(f + l4 + 4, (uint32_t)(len - l4));
	if (how & 1 && how & 2) {
		f[l4] = how & 4 ? 133 : 135;
	} else if (!(how & 1) && len >= l4 + UDP_HDR + 240) {
		memcpy(m, (uint8_t[]){1, 1, 6}, 3);
		memcpy(m + 28, w.s->config.guest_mac, 6);
		memcpy(m + 236, cookie, 4);
	}
}

static void step(struct cur *c)
{
	uint8_t what = cur_u8(c), how = cur_u8(c);
	static uint8_t frame[2048];
	struct stack_meta meta = {.valid = how & 64};
	const uint8_t *p;
	size_t n;
	struct world_socket *k = w.last;

	/* Frames come in batches; all else happens between those. */
	w.keep = 1 + (what >> 4) % WORLD_KEPT;
	if (w.nkept && what % 12 > 2 && what % 12 != 8 && what % 12 != 9)
		world_settle(&w);
	switch (what % 12) {
	case 0:
	case 1:
	case 2:
	case 8:
	case 9:
		n = MIN(cur_left(c), (size_t)(cur_be16(c) % 1600));
		p = cur_bytes(c, n);
		if (!p)
			return;
		memcpy(frame, p, n);
		if (what % 12 == 2)
			follow(frame, n, how);
		if (what % 12)
			mend(frame, n, how);
		if (what % 12 == 8)
			cut(frame, n, how);
		if (what % 12 == 9) {
			ask(frame, n, how);
			meta.valid = true;
		}
		world_input(&w, frame, n, &meta);
		break;
	case 3:
		if (k)
			stack_event(w.s, k->flow, how & 7, ECONNREFUSED, w.now);
		break;
	case 4:
		if (!k)
			break;
		memset(frame, 'x', sizeof(frame));
		buf_add(&k->answer, frame, how * 8u);
		k->ended |= how & 1;
		stack_event(w.s, k->flow, STACK_READABLE, 0, w.now);
		break;
	case 5:
		w.now += (uint64_t)how * how * how * 10 * MS;
		stack_tick(w.s, w.now);
		break;
	case 6:
		w.room = how * 64u;
		w.max_frames = how & 1 ? WORLD_FRAMES : 1;
		w.open_error = (how & 6) == 6 ? ENETUNREACH : 0;
		if (k && how & 8)
			buf_reset(&k->sent);
		break;
	case 10:
		w.mtu = how * 8u;
		break;
	case 11:
		/* A long answer, for one that gets it in parts. */
		memset(frame, 'y', sizeof(frame));
		for (unsigned i = 0; k && i < how % 32u; i++)
			buf_add(&k->answer, frame, sizeof(frame));
		if (k)
			stack_event(w.s, k->flow, STACK_READABLE, 0, w.now);
		break;
	case 7:
		w.open_error = 0;
		world_open(&w, (struct flow *)(void *)&(struct flow){0}, NET_TCP, &w.local, 0);
		k = w.last;
		k->flow = stack_accept(w.s, how & 1 ? NET_TCP : NET_UDP, &w.local,
				       (uint16_t)(how * 3), 80, k, w.now);
		if (k->flow && *flow_host(k->flow) == k)
			break;
		w.last = NULL;
		w.open--;
		free(k);
		break;
	}
	if (w.nkept)
		return;
	stack_run(w.s, w.now);
	for (unsigned i = 0; i < w.nframes; i++)
		world_check(&w, i);
	w.nframes = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cur c = cur_make(data, size);
	struct stack_config config;

	memset(&w, 0, offsetof(struct world, frame));
	w.nframes = w.nkept = w.open = w.mtu = 0;
	w.last = NULL;
	w.open_error = 0;
	w.reserved = false;
	world_config(&config);
	net_policy_profile(&config.policy, "all,host", NULL);
	world_begin(&w, &config);
	stack_offload(w.s, size & 1, size & 2, size & 4);
	while (cur_left(&c) && !c.bad)
		step(&c);
	if (w.nkept)
		world_settle(&w);
	w.max_frames = 0;
	world_end(&w);
	return 0;
}
