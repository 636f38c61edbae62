/* SPDX-License-Identifier: Apache-2.0 */
/* Packets to the socket device that no driver sends. */
#include "villain.h"

#define AT(p) ((uint64_t)(uintptr_t)(p))

static void send(struct packet p, uint32_t len)
{
	check(vsock_send(dev, &p, len), "the device broke");
}

void case_vsock_short_packet(void)
{
	const struct desc d[] = {{AT(buffer), sizeof(struct packet) - 1, 0, 0}};

	strike(d, 1);
}

void case_vsock_writable_packet(void)
{
	const struct desc d[] = {{AT(buffer), sizeof(struct packet), WRITE, 0}};

	strike(d, 1);
}

static void receive_into(struct desc d)
{
	struct packet p = packet_to_host(RW, 99);

	dev->ring[RX].desc[0] = d;
	publish(&dev->ring[RX], 0);
	notify(dev, RX);
	(void)vsock_send(dev, &p, 0);
	while (!is_broken(dev))
		pause();
}

void case_vsock_small_receive_buffer(void)
{
	receive_into((struct desc){AT(buffer), sizeof(struct packet), WRITE, 0});
}

void case_vsock_readable_receive_buffer(void)
{
	receive_into((struct desc){AT(buffer), 4096, 0, 0});
}

/* A packet of the kind for our port arrives; others before it are let go. */
static void await(uint16_t op, uint32_t port)
{
	struct packet p;

	do
		p = vsock_receive(dev);
	while (p.op != op || p.dst_port != port);
	check(p.src_cid == 2 && p.dst_cid == 3, "a packet from somebody else");
}

/* Every operation, for no connection and for one: a RST, or nothing. */
void case_vsock_operations(void)
{
	vsock_fill(dev);
	for (uint16_t op = 0; op < 12; op++) {
		struct packet p = packet_to_host(op, 500);

		p.dst_port = 1; /* where nobody listens */
		send(p, 0);
		if (op != RST)
			await(RST, 500);
	}
	for (uint16_t op = 8; op < 260; op += 50) {
		vsock_connect_from(dev, 600 + op);
		send(packet_to_host(op, 600 + op), 0);
		await(RST, 600 + op);
	}
	vsock_connect_from(dev, 700);
	send(packet_to_host(REQUEST, 700), 0);
	await(RST, 700);
	vsock_connect_from(dev, 701);
	send(packet_to_host(RESPONSE, 701), 0);
	await(RST, 701);
	vsock_connect_from(dev, 702);
	send(packet_to_host(RST, 702), 0);
	send(packet_to_host(RST, 702), 0);
	send(packet_to_host(CREDIT_REQUEST, 702), 0);
	await(RST, 702);
}

void case_vsock_addresses(void)
{
	const uint64_t cids[] = {0, 1, 2, 4, 0x100000003, UINT32_MAX, UINT64_MAX};
	const uint16_t types[] = {0, 2, 3, 255, UINT16_MAX};
	struct packet p;

	vsock_fill(dev);
	for (size_t i = 0; i < COUNT(cids); i++) {
		p = packet_to_host(REQUEST, 800);
		p.src_cid = cids[i]; /* not us: no answer */
		send(p, 0);
		p = packet_to_host(REQUEST, 801);
		p.dst_cid = cids[i];
		send(p, 0);
		if (cids[i] == 2) {
			await(RESPONSE, 801);
			await(RW, 801);
		} else {
			check(vsock_receive(dev).op == RST, "somebody else's host answers");
		}
	}
	for (size_t i = 0; i < COUNT(types); i++) {
		p = packet_to_host(REQUEST, 802);
		p.type = types[i];
		send(p, 0);
		await(RST, 802);
	}
	vsock_connect_from(dev, 0);
	vsock_connect_from(dev, UINT32_MAX);
	p = packet_to_host(REQUEST, 803);
	p.dst_port = UINT32_MAX;
	send(p, 0);
	await(RST, 803);
}

void case_vsock_lengths(void)
{
	const uint32_t lens[] = {1, 64, 4096, 65536, 0x7fffffff, UINT32_MAX - 43, UINT32_MAX};

	vsock_fill(dev);
	for (uint32_t i = 0; i < COUNT(lens); i++) {
		struct packet p = packet_to_host(RW, 900 + i);

		/* More than there is. */
		vsock_connect_from(dev, 900 + i);
		p.len = lens[i];
		send(p, lens[i] < 8192 ? lens[i] - 1 : 512);
		await(RST, 900 + i);
	}
	/* Less than there is, and nothing at all. */
	vsock_connect_from(dev, 950);
	for (uint32_t i = 0; i < 40; i++) {
		struct packet p = packet_to_host(RW, 950);

		p.len = i % 3;
		send(p, i % 3 + 100);
	}
	send(packet_to_host(CREDIT_REQUEST, 950), 0);
	await(CREDIT_UPDATE, 950);
}

void case_vsock_credit_lies(void)
{
	static const uint32_t words[] = {0, 1, 7, 0x7fffffff, 0x80000000, UINT32_MAX};

	vsock_fill(dev);
	for (uint32_t i = 0; i < COUNT(words) * COUNT(words); i++) {
		struct packet p = packet_to_host(REQUEST, 1000 + i);

		p.buf_alloc = words[i % COUNT(words)];
		p.fwd_cnt = words[i / COUNT(words)];
		send(p, 0);
		await(RESPONSE, 1000 + i);
		p.op = CREDIT_UPDATE;
		p.buf_alloc = ~p.buf_alloc;
		send(p, 0);
		p.op = RST;
		send(p, 0);
	}
}

void case_vsock_ignores_credit(void)
{
	struct packet p = packet_to_host(RW, 1100);

	vsock_fill(dev);
	vsock_connect_from(dev, 1100);
	/* Nobody reads. In the end it is more than the device holds for us. */
	p.len = 65536;
	for (unsigned i = 0; i < 64; i++)
		send(p, 65536);
	await(RST, 1100);
}

void case_vsock_connection_flood(void)
{
	unsigned accepted = 0;

	vsock_fill(dev);
	for (uint32_t i = 0; i < 200; i++) {
		struct packet p = packet_to_host(REQUEST, 2000 + i);

		p.buf_alloc = 0;
		send(p, 0);
		do
			p = vsock_receive(dev);
		while (p.dst_port != 2000 + i || (p.op != RESPONSE && p.op != RST));
		accepted += p.op == RESPONSE;
	}
	check(accepted >= 16 && accepted < 200, "the table of connections has no end");
}

/* Answers are owed and there is nowhere to put them: the device waits, with bounded memory. */
void case_vsock_no_receive_buffers(void)
{
	struct ring *tx = &dev->ring[TX];

	*(struct packet *)buffer = packet_to_host(RW, 99);
	tx->desc[0] = (struct desc){AT(buffer), sizeof(struct packet), 0, 0};
	for (unsigned i = 0; i < 10; i++) {
		for (unsigned k = 0; k < RING; k++) {
			if ((uint16_t)(tx->avail.idx -
				       __atomic_load_n(&tx->used.idx, __ATOMIC_ACQUIRE)) < RING)
				publish(tx, 0);
		}
		for (unsigned k = 0; k < 50; k++)
			notify(dev, TX);
		(void)is_broken(dev);
	}
	/* With buffers all of them are sent. */
	vsock_fill(dev);
	while (__atomic_load_n(&tx->used.idx, __ATOMIC_ACQUIRE) != tx->avail.idx)
		(void)vsock_receive(dev);
}

void case_vsock_data_after_shutdown(void)
{
	struct packet p = packet_to_host(SHUTDOWN, 1200);

	vsock_fill(dev);
	vsock_connect_from(dev, 1200);
	p.flags = 2; /* sends no more */
	send(p, 0);
	p.op = RW;
	p.len = 16;
	send(p, 16);
	await(RST, 1200);
	vsock_connect_from(dev, 1201);
	p = packet_to_host(SHUTDOWN, 1201);
	for (uint32_t flags = 4; flags; flags <<= 1) {
		p.flags = flags; /* of no meaning */
		send(p, 0);
	}
	p.flags = 3;
	send(p, 0);
	await(RST, 1201);
}

void case_vsock_event_queue(void)
{
	struct ring *r = &dev->ring[EVENT];

	for (unsigned i = 0; i < RING; i++)
		r->desc[i] = (struct desc){UINT64_MAX, UINT32_MAX, UINT16_MAX, UINT16_MAX};
	r->avail.idx = 0x8000;
	for (unsigned i = 0; i < 50; i++)
		notify(dev, EVENT);
}

void case_vsock_reset_with_connections(void)
{
	for (uint32_t i = 0; i < 10; i++) {
		vsock_fill(dev);
		for (uint32_t k = 0; k < 6; k++)
			vsock_connect_from(dev, 1300 + k);
		bring_up(dev, F_INDIRECT);
	}
}

void case_vsock_random_packets(void)
{
	static const uint32_t lens[] = {0, 0, 1, 44, 512, 65536, 0x80000000, UINT32_MAX};

	vsock_fill(dev);
	for (uint32_t i = 0; i < turns(600); i++) {
		struct packet p = packet_to_host((uint16_t)(random32() % 9), random32() % 5);

		p.len = lens[random32() % COUNT(lens)];
		p.flags = random32() % 8;
		p.buf_alloc = random32();
		p.fwd_cnt = lens[random32() % COUNT(lens)];
		if (random32() % 16 == 0)
			p.type = (uint16_t)random32();
		if (random32() % 16 == 0)
			p.dst_port = random32();
		send(p, p.len < BUFFER_SIZE ? p.len : 100);
		while (__atomic_load_n(&dev->ring[RX].used.idx, __ATOMIC_ACQUIRE) !=
		       dev->ring[RX].seen)
			(void)vsock_receive(dev);
	}
}

static void change_packet(unsigned cpu)
{
	struct packet *p = (struct packet *)(buffer + 4096);

	(void)cpu;
	while (!others_stop) {
		p->len = UINT32_MAX;
		p->op = RW;
		p->len = 100000;
		p->op = CREDIT_UPDATE;
		p->len = 64;
		p->fwd_cnt = random32();
	}
}

void case_vsock_toctou_header(void)
{
	struct ring *tx = &dev->ring[TX];

	vsock_fill(dev);
	*(struct packet *)(buffer + 4096) = packet_to_host(RW, 1400);
	start_on_others(1, change_packet);
	for (unsigned i = 0; i < turns(500); i++) {
		if (i % 10 == 0) {
			struct packet p = packet_to_host(REQUEST, 1400);

			send(p, 0);
		}
		tx->desc[2] = (struct desc){AT(buffer) + 4096, sizeof(struct packet), NEXT, 3};
		tx->desc[3] = (struct desc){AT(buffer) + 8192, 64, 0, 0};
		publish(tx, 2);
		notify(dev, TX);
		check(!settle(dev, tx), "the device broke");
		while (__atomic_load_n(&dev->ring[RX].used.idx, __ATOMIC_ACQUIRE) !=
		       dev->ring[RX].seen)
			(void)vsock_receive(dev);
	}
	stop_others();
}
