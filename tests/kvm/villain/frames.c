/* SPDX-License-Identifier: Apache-2.0 */
/* Frames to the network card, and receive buffers, that no driver has. */
#include "villain.h"

#define AT(p) ((uint64_t)(uintptr_t)(p))

/* A frame in front of which the card's header is, in the buffer. */
enum { HEADER = 12, ETH = 14, IP = HEADER + ETH, FRAME_MAX = 65600, PAYLOAD = IP + 20 };

static void send(uint32_t len)
{
	struct ring *r = &dev->ring[TX];

	r->desc[0] = (struct desc){AT(buffer), len, 0, 0};
	publish(r, 0);
	notify(dev, TX);
	check(!settle(dev, r), "the device broke");
}

void case_net_short_frame(void)
{
	const struct desc d[] = {{AT(buffer), HEADER - 1, 0, 0}};

	strike(d, 1);
}

void case_net_writable_frame(void)
{
	const struct desc d[] = {{AT(buffer), 64, 0, 0}, {AT(buffer), 64, WRITE, 0}};
	struct desc both[] = {d[0], d[1]};

	both[0].flags = NEXT;
	both[0].next = 1;
	strike(both, 2);
}

void case_net_too_long(void)
{
	const struct desc d[] = {{AT(buffer), HEADER + FRAME_MAX + 1, 0, 0}};

	strike(d, 1);
}

static void receive_into(struct desc d)
{
	dev->ring[RX].desc[0] = d;
	publish(&dev->ring[RX], 0);
	notify(dev, RX);
	net_ask(dev);
	while (!is_broken(dev))
		pause();
}

void case_net_small_receive_buffer(void)
{
	receive_into((struct desc){AT(buffer), HEADER - 1, WRITE, 0});
}

void case_net_readable_receive_buffer(void)
{
	receive_into((struct desc){AT(buffer), 4096, 0, 0});
}

/* Too small for the answer: that goes nowhere, and the buffer stays where it is. */
void case_net_tiny_receive_buffer(void)
{
	struct ring *r = &dev->ring[RX];

	r->desc[0] = (struct desc){AT(buffer) + 65536, HEADER, WRITE, 0};
	publish(r, 0);
	for (unsigned i = 0; i < 100; i++)
		net_ask(dev);
	check(!is_broken(dev), "the device broke");
	check(__atomic_load_n(&r->used.idx, __ATOMIC_ACQUIRE) == 0, "it was used");
}

/* What the header says of a frame may be anything. */
void case_net_headers(void)
{
	net_fill(dev);
	for (unsigned i = 0; i < 256 + turns(544); i++) {
		uint32_t len = net_question(buffer);

		for (unsigned k = 0; k < HEADER; k++)
			buffer[k] = (uint8_t)(i < 256 ? i : random32());
		if (i % 3 == 0)
			len = HEADER + random32() % 60;
		send(len);
	}
}

/* From the shortest to the longest, of all that there is. */
void case_net_lengths(void)
{
	const uint8_t types[][2] = {{8, 0}, {0x86, 0xdd}, {8, 6}, {0, 0}};

	net_fill(dev);
	for (unsigned i = 0; i < 400; i++) {
		(void)net_question(buffer);
		__builtin_memcpy(buffer + HEADER + 12, types[i % COUNT(types)], 2);
		buffer[IP] = i % 4 ? 0x60 : 0x45;
		send(HEADER + (i < 200 ? i : FRAME_MAX - i));
	}
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* IPv4 to the gateway, of @proto with @n bytes behind; @part is of the fragment's field. */
static void packet(uint8_t proto, uint32_t n, uint32_t id, uint32_t part)
{
	uint8_t *ip = buffer + IP;
	uint32_t sum = 0;

	(void)net_question(buffer);
	put16(buffer + HEADER + 12, 0x0800);
	__builtin_memset(ip, 0, 20);
	ip[0] = 0x45;
	put16(ip + 2, 20 + n);
	put16(ip + 4, id);
	put16(ip + 6, part);
	ip[8] = 64;
	ip[9] = proto;
	__builtin_memcpy(ip + 12, (uint8_t[]){172, 16, 0, 2, 172, 16, 0, 1}, 8);
	for (unsigned i = 0; i < 20; i += 2)
		sum += (uint32_t)ip[i] << 8 | ip[i + 1];
	sum = (sum & 0xffff) + (sum >> 16);
	put16(ip + 10, ~sum);
	/* The sum behind is the host's to make. */
	buffer[0] = 1;
}

static void random_bytes(uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		buffer[PAYLOAD + i] = (uint8_t)random32();
}

/* Firsts without lasts, lasts without firsts, and all across each other. */
void case_net_fragment_bomb(void)
{
	net_fill(dev);
	for (unsigned i = 0; i < turns(800); i++) {
		uint32_t n = i % 5 ? 1480 : random32() % 1500;

		packet(17, n, i % 3 ? i : i % 7,
		       random32() % (i % 2 ? 8192 : 8) | random32() % 2 << 13);
		send(PAYLOAD + n);
	}
}

/* Every port of the gateway at once, and never an answer to what comes back. */
void case_net_connection_flood(void)
{
	for (unsigned i = 0; i < turns(800); i++) {
		packet(6, 20, i, 0);
		__builtin_memset(buffer + PAYLOAD, 0, 20);
		put16(buffer + PAYLOAD, 1 + i % 60000);
		put16(buffer + PAYLOAD + 2, 1 + random32() % 65535);
		buffer[PAYLOAD + 12] = 5 << 4;
		buffer[PAYLOAD + 13] = 2;
		send(PAYLOAD + 20);
	}
}

void case_net_datagram_flood(void)
{
	net_fill(dev);
	for (unsigned i = 0; i < turns(800); i++) {
		packet(17, 8 + i % 64, i, 0);
		random_bytes(8 + i % 64);
		put16(buffer + PAYLOAD + 4, 8 + i % 64);
		send(PAYLOAD + 8 + i % 64);
	}
}

/* Questions to the name service whose names lead round in circles, or nowhere. */
void case_net_names_in_circles(void)
{
	uint8_t *dns = buffer + PAYLOAD + 8;

	net_fill(dev);
	for (unsigned i = 0; i < turns(800); i++) {
		uint32_t n = 12 + 4 + random32() % 64, at = 12;

		packet(17, 8 + n, i, 0);
		random_bytes(8 + n);
		put16(buffer + PAYLOAD, 1024 + i);
		put16(buffer + PAYLOAD + 2, 53);
		put16(buffer + PAYLOAD + 4, 8 + n);
		put16(dns + 2, i % 4 ? 0x0100 : random32());
		put16(dns + 4, i % 8 ? 1 : random32());
		/* Some labels, then to what is before, behind, or there. */
		for (unsigned k = i % 5; k && at + 4 < n; k--) {
			dns[at] = 1;
			at += 2;
		}
		put16(dns + at,
		      0xc000 | (i % 3 ? 12 + random32() % (at - 11) : 0x3fff - random32() % 64));
		send(PAYLOAD + 8 + n);
	}
}

/* As many names as can be, and so much in them: what is let through is for nobody to answer. */
void case_net_question_flood(void)
{
	uint8_t *dns = buffer + PAYLOAD + 8;

	net_fill(dev);
	for (unsigned i = 0; i < turns(800); i++) {
		uint32_t at = 12;

		for (unsigned k = 0; k < 1 + i % 4; k++) {
			uint32_t n = 1 + random32() % 60;

			dns[at++] = (uint8_t)n;
			while (n--)
				dns[at++] = (uint8_t)('a' + random32() % 26);
		}
		dns[at++] = 0;
		put16(dns + at, i % 3 ? 1 : 28);
		put16(dns + at + 2, 1);
		at += 4;
		__builtin_memset(dns, 0, 12);
		put16(dns, i);
		put16(dns + 2, 0x0100);
		put16(dns + 4, 1);
		packet(17, 8 + at, i, 0);
		put16(buffer + PAYLOAD, 1024 + i % 100);
		put16(buffer + PAYLOAD + 2, 53);
		put16(buffer + PAYLOAD + 4, 8 + at);
		send(PAYLOAD + 8 + at);
	}
}

/* More than is let through at once, the queue full of it, and the card reset while it waits. */
void case_net_above_its_limits(void)
{
	struct ring *r = &dev->ring[TX];

	for (unsigned i = 0; i < 20; i++) {
		bring_up(dev, F_INDIRECT);
		net_fill(dev);
		for (unsigned k = 0; k < RING; k++) {
			r->desc[k] = (struct desc){AT(buffer), net_question(buffer), 0, 0};
			publish(r, (uint16_t)k);
		}
		notify(dev, TX);
		if (i % 2)
			check(!settle(dev, r), "the device broke");
		reset(dev);
	}
}

/* Questions of neighbours, with nobody who takes the answers, and with. */
void case_net_neighbour_flood(void)
{
	for (unsigned i = 0; i < turns(800); i++)
		net_ask(dev);
	net_fill(dev);
	for (unsigned i = 0; i < turns(800); i++)
		net_ask(dev);
	check(!is_broken(dev), "the device broke");
}

void case_net_random_frames(void)
{
	const uint8_t protos[] = {1, 6, 17, 58, 44, 2};

	net_fill(dev);
	for (unsigned i = 0; i < turns(800); i++) {
		uint32_t n = random32() % 120;

		packet(protos[i % COUNT(protos)], n, i, 0);
		random_bytes(n);
		if (i % 4 == 0)
			buffer[HEADER + random32() % (ETH + 20)] = (uint8_t)random32();
		send(PAYLOAD + n);
	}
}

static void change_frame(unsigned cpu)
{
	(void)cpu;
	while (!others_stop)
		((volatile uint8_t *)buffer)[random32() % 128] = (uint8_t)random32();
}

/* It changes while it is looked at. */
void case_net_toctou_frame(void)
{
	net_fill(dev);
	start_on_others(1, change_frame);
	for (unsigned i = 0; i < turns(800); i++) {
		packet(i % 2 ? 6 : 17, 64, i, 0);
		send(PAYLOAD + 64);
	}
	stop_others();
}

void case_net_reset_in_flight(void)
{
	for (unsigned i = 0; i < turns(100); i++) {
		struct ring *r = &dev->ring[TX];

		bring_up(dev, F_INDIRECT);
		net_fill(dev);
		for (unsigned k = 0; k < 20; k++) {
			r->desc[k] = (struct desc){AT(buffer), net_question(buffer), 0, 0};
			publish(r, (uint16_t)k);
		}
		notify(dev, TX);
		for (unsigned k = i % 16; k; k--)
			pause();
		reset(dev);
	}
}
