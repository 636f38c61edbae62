/* SPDX-License-Identifier: Apache-2.0 */
/* A driver of virtio-mmio, its disks and sockets: the tools, and proof that a device works. */
#include "villain.h"

enum { DEVICES = 8 };

/* Where cases let devices write at random: nothing else of ours is in reach. */
static struct {
	_Alignas(PAGE_SIZE) uint8_t before[2 * PAGE_SIZE];
	struct ring rings[DEVICES][QUEUES];
	_Alignas(PAGE_SIZE) struct desc table[TABLE_MAX];
	_Alignas(PAGE_SIZE) uint8_t buffer[BUFFER_SIZE];
} land;
struct desc *const table = land.table;
uint8_t *const buffer = land.buffer;
static struct dev devs[DEVICES];
static uint16_t sizes[DEVICES][QUEUES];
/* Each receive buffer, headers of requests, status bytes: not where cases play. */
static uint8_t receive[RING][512];
static struct blk_request header;
static struct packet packet;
static volatile uint8_t status;

/* ---- any device ---- */

static void look(unsigned i)
{
	struct dev *d = &devs[i];

	if (d->at || read32(WINDOWS + i * WINDOW_STRIDE) != 0x74726976)
		return;
	d->at = WINDOWS + i * WINDOW_STRIDE;
	d->id = get(d, DEVICE_ID);
	d->ring = land.rings[i];
	for (d->nqueues = 0; d->nqueues < QUEUES; d->nqueues++) {
		uint32_t max;

		set(d, QUEUE_SEL, d->nqueues);
		max = get(d, QUEUE_NUM_MAX);
		if (!max)
			break;
		sizes[i][d->nqueues] = (uint16_t)(max < RING ? max : RING);
	}
}

/* Not kept in the ring, whose pages a case may lose. */
unsigned ring_size(const struct ring *r)
{
	return sizes[0][r - &land.rings[0][0]];
}

struct dev *find_dev(uint32_t id, unsigned nth)
{
	for (unsigned i = 0; i < DEVICES; i++) {
		look(i);
		if (devs[i].at && devs[i].id == id && nth-- == 0)
			return &devs[i];
	}
	return NULL;
}

void reset(struct dev *d)
{
	set(d, STATUS, 0);
	check(get(d, STATUS) == 0, "the status is not zero after a reset");
	for (unsigned q = 0; q < d->nqueues; q++) {
		struct ring *r = &d->ring[q];

		__builtin_memset(&r->avail, 0, sizeof(r->avail));
		__builtin_memset(&r->used, 0, sizeof(r->used));
		r->seen = 0;
	}
}

void negotiate(struct dev *d, uint32_t features)
{
	set(d, STATUS, ACKNOWLEDGE);
	set(d, STATUS, ACKNOWLEDGE | DRIVER);
	set(d, DEVICE_FEATURES_SEL, 0);
	set(d, DRIVER_FEATURES_SEL, 0);
	set(d, DRIVER_FEATURES, features & get(d, DEVICE_FEATURES));
	set(d, DRIVER_FEATURES_SEL, 1);
	set(d, DRIVER_FEATURES, 1); /* VIRTIO_F_VERSION_1 */
	set(d, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
	check(get(d, STATUS) & FEATURES_OK, "the device refuses its own features");
}

bool queue_ready(struct dev *d, unsigned q, uint32_t size, uint64_t desc, uint64_t avail,
		 uint64_t used)
{
	set(d, QUEUE_SEL, q);
	set(d, QUEUE_NUM, size);
	set(d, QUEUE_DESC, (uint32_t)desc);
	set(d, QUEUE_DESC + 4, (uint32_t)(desc >> 32));
	set(d, QUEUE_AVAIL, (uint32_t)avail);
	set(d, QUEUE_AVAIL + 4, (uint32_t)(avail >> 32));
	set(d, QUEUE_USED, (uint32_t)used);
	set(d, QUEUE_USED + 4, (uint32_t)(used >> 32));
	set(d, QUEUE_READY, 1);
	return get(d, QUEUE_READY);
}

bool queue_good(struct dev *d, unsigned q)
{
	struct ring *r = &d->ring[q];

	return queue_ready(d, q, ring_size(r), (uintptr_t)r->desc, (uintptr_t)&r->avail,
			   (uintptr_t)&r->used);
}

void bring_up(struct dev *d, uint32_t features)
{
	reset(d);
	negotiate(d, features);
	for (unsigned q = 0; q < d->nqueues; q++)
		/* Other CPUs may be at it already. */
		check(queue_good(d, q) || is_broken(d), "a good queue is not ready");
	set(d, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

void publish(struct ring *r, uint16_t head)
{
	r->avail.ring[r->avail.idx % ring_size(r)] = head;
	__atomic_store_n(&r->avail.idx, (uint16_t)(r->avail.idx + 1), __ATOMIC_SEQ_CST);
}

/* A device looks at most queues when they are notified, and for receive buffers when it must. */
void provoke(void)
{
	if (dev->id == 19 && target->queue == RX) {
		struct packet p = packet_to_host(RW, 99);

		/* Nobody's data: the answer is a RST. */
		dev->ring[TX].desc[1] = (struct desc){(uintptr_t)&packet, sizeof(p), 0, 0};
		packet = p;
		publish(&dev->ring[TX], 1);
		notify(dev, TX);
	}
	/* The answer wants a buffer. Who answers may have no queue for questions. */
	if (dev->id == 1 && target->queue == RX)
		net_post(dev);
	notify(dev, target->queue);
}

void strike(const struct desc *d, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		ring->desc[i] = d[i];
	publish(ring, 0);
	provoke();
	check(settle(dev, ring), "the device takes it");
}

static uint16_t used_index(const struct ring *r)
{
	return __atomic_load_n(&r->used.idx, __ATOMIC_ACQUIRE);
}

bool settle(struct dev *d, struct ring *r)
{
	while (used_index(r) != r->avail.idx) {
		if (is_broken(d))
			return true;
		pause();
	}
	r->seen = r->avail.idx;
	return is_broken(d);
}

uint32_t wait_used(struct dev *d, struct ring *r)
{
	while (used_index(r) == r->seen)
		check(!is_broken(d), "the device broke");
	return r->used.ring[r->seen++ % ring_size(r)].len;
}

/* ---- disks ---- */

uint8_t blk_request(struct dev *d, uint32_t type, uint64_t sector, uint64_t data, uint32_t len)
{
	struct ring *r = d->ring;
	uint16_t in = type == BLK_IN || type == BLK_GET_ID ? WRITE : 0;

	header = (struct blk_request){type, 0, sector};
	status = BLK_UNTOUCHED;
	r->desc[0] = (struct desc){(uintptr_t)&header, sizeof(header), NEXT, 1};
	r->desc[1] = (struct desc){data, len, in | NEXT, 2};
	r->desc[2] = (struct desc){(uintptr_t)&status, 1, WRITE, 0};
	publish(r, 0);
	notify(d, 0);
	(void)wait_used(d, r);
	return status;
}

/* The driver of the test has filled the first sectors so. */
static uint8_t expected(uint64_t sector, unsigned i)
{
	return (uint8_t)(sector * 7 + i);
}

void blk_verify(struct dev *d)
{
	static uint8_t data[1024];

	for (unsigned turn = 0; turn < 2; turn++) {
		uint64_t sector = 3 + turn * 40;

		__builtin_memset(data, 0x55, sizeof(data));
		check(blk_request(d, BLK_IN, sector, (uintptr_t)data, sizeof(data)) == BLK_OK,
		      "a read fails");
		for (unsigned i = 0; i < sizeof(data); i += 37)
			check(data[i] == expected(sector + i / 512, i % 512),
			      "a read has the wrong data");
	}
}

void wait_for_host(void)
{
	struct dev *d = find_dev(2, 0);
	static uint8_t data[512];

	bring_up(d, 0);
	do {
		print("\nvillain wait\n");
		check(blk_request(d, BLK_IN, VILLAIN_MAILBOX, (uintptr_t)data, 512) == BLK_OK,
		      "a read fails");
	} while (!data[0]);
}

/* ---- sockets ---- */

struct packet packet_to_host(uint16_t op, uint32_t port)
{
	return (struct packet){
		.src_cid = 3,
		.dst_cid = 2,
		.src_port = port,
		.dst_port = VILLAIN_PORT,
		.type = 1,
		.op = op,
		.buf_alloc = 65536,
	};
}

void vsock_fill(struct dev *d)
{
	struct ring *r = &d->ring[RX];

	for (uint16_t i = 0; i < RING; i++) {
		r->desc[i] = (struct desc){(uintptr_t)receive[i], sizeof(receive[i]), WRITE, 0};
		publish(r, i);
	}
	notify(d, RX);
}

bool vsock_send(struct dev *d, const struct packet *p, uint32_t len)
{
	struct ring *r = &d->ring[TX];

	packet = *p;
	r->desc[0] = (struct desc){(uintptr_t)&packet, sizeof(packet), len ? NEXT : 0, 1};
	r->desc[1] = (struct desc){(uintptr_t)buffer, len, 0, 0};
	publish(r, 0);
	notify(d, TX);
	return !settle(d, r);
}

struct packet vsock_receive(struct dev *d)
{
	struct ring *r = &d->ring[RX];
	struct packet p;
	uint32_t id;

	(void)wait_used(d, r);
	id = r->used.ring[(uint16_t)(r->seen - 1) % RING].id;
	check(id < RING, "a used entry out of range");
	__builtin_memcpy(&p, receive[id], sizeof(p));
	if (p.op == RW)
		__builtin_memcpy(buffer, receive[id] + sizeof(p), 16);
	publish(r, (uint16_t)id);
	notify(d, RX);
	return p;
}

void vsock_connect_from(struct dev *d, uint32_t port)
{
	struct packet p = packet_to_host(REQUEST, port);

	check(vsock_send(d, &p, 0), "a connect breaks the device");
	/* Of old connections something may still come. */
	do
		p = vsock_receive(d);
	while (p.dst_port != port || p.op != RESPONSE);
	do
		p = vsock_receive(d);
	while (p.dst_port != port || p.op != RW);
	check(p.len == sizeof(VILLAIN_GREETING) - 1, "the greeting has the wrong length");
	for (unsigned i = 0; i < p.len; i++)
		check(buffer[i] == (uint8_t)VILLAIN_GREETING[i], "the greeting is wrong");
}

void vsock_verify(struct dev *d)
{
	struct packet p = packet_to_host(RST, 12345);

	vsock_fill(d);
	vsock_connect_from(d, 12345);
	check(vsock_send(d, &p, 0), "a reset breaks the device");
}

/* ---- the network card ---- */

uint32_t net_question(uint8_t *to)
{
	static const uint8_t arp[] = {
		0,    0,    0,	  0,	0,    0,    0,	 0,    0,    0,	   0,	 0, /* the card's */
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2,	 0x6d, 0x73, 0,	   0,	 2, 8, 6, /* to all:
											     ARP */
		0,    1,    8,	  0,	6,    4,    0,	 1,    2,    0x6d, 0x73, 0, 0, 2, 172,
		16,   0,    2,						/* from here */
		0,    0,    0,	  0,	0,    0,    172, 16,   0,    1, /* about the gateway */
	};

	__builtin_memcpy(to, arp, sizeof(arp));
	return sizeof(arp);
}

void net_fill(struct dev *d)
{
	struct ring *r = &d->ring[RX];

	for (uint16_t i = 0; i < RING; i++) {
		r->desc[i] = (struct desc){(uintptr_t)receive[i], sizeof(receive[i]), WRITE, 0};
		publish(r, i);
	}
	notify(d, RX);
}

void net_post(struct dev *d)
{
	static uint8_t question[64];
	struct ring *r = &d->ring[TX];

	r->desc[RING - 1] = (struct desc){(uintptr_t)question, net_question(question), 0, 0};
	publish(r, RING - 1);
	notify(d, TX);
}

void net_ask(struct dev *d)
{
	net_post(d);
	(void)settle(d, &d->ring[TX]);
}

void net_verify(struct dev *d)
{
	struct ring *r = &d->ring[RX];
	const uint8_t *f;
	uint32_t len, id;

	net_fill(d);
	/* Of what was before something may still come, and take the answer's place. */
	do {
		net_ask(d);
		len = wait_used(d, r);
		id = r->used.ring[(uint16_t)(r->seen - 1) % ring_size(r)].id;
		check(id < RING, "a used entry out of range");
		f = receive[id] + 12;
		publish(r, (uint16_t)id);
		notify(d, RX);
	} while (f[12] != 8 || f[13] != 6);
	check(len == 12 + 42, "the answer about the gateway has the wrong length");
	check(f[21] == 2 && f[27] == 1, "the answer is wrong");
}

/* ---- random numbers, and the balloon ---- */

uint32_t give(struct dev *d, unsigned q, struct desc desc)
{
	struct ring *r = &d->ring[q];

	r->desc[0] = desc;
	publish(r, 0);
	notify(d, q);
	return wait_used(d, r);
}

void rng_verify(struct dev *d)
{
	static uint8_t numbers[64];
	unsigned ones = 0;

	__builtin_memset(numbers, 0, sizeof(numbers));
	check(give(d, 0, (struct desc){(uintptr_t)numbers, sizeof(numbers), WRITE, 0}) ==
		      sizeof(numbers),
	      "less random numbers than there is place for");
	for (unsigned i = 0; i < sizeof(numbers) * 8; i++)
		ones += numbers[i / 8] >> i % 8 & 1;
	check(ones > 150 && ones < 362, "the random numbers are not random");
}

/* A page is lost when it is inflated or reported, and there again when it is touched. */
void balloon_verify(struct dev *d)
{
	static _Alignas(PAGE_SIZE) uint8_t page[2][PAGE_SIZE];
	static uint32_t number;

	__builtin_memset(page, 0x55, sizeof(page));
	number = (uint32_t)((uintptr_t)page[0] / PAGE_SIZE);
	(void)give(d, INFLATE, (struct desc){(uintptr_t)&number, 4, 0, 0});
	check(page[0][7] == 0 && page[1][7] == 0x55, "another page was inflated");
	(void)give(d, DEFLATE, (struct desc){(uintptr_t)&number, 4, 0, 0});
	page[0][7] = 1;
	(void)give(d, REPORTING, (struct desc){(uintptr_t)page[1], PAGE_SIZE, WRITE, 0});
	check(page[0][7] == 1 && page[1][7] == 0, "another page was reported");
}

uint64_t mem_region(const struct dev *d)
{
	return read64(d->at + CONFIG + MEM_REGION);
}

uint16_t mem_ask(struct dev *d, uint16_t type, uint64_t addr, uint16_t blocks)
{
	static struct mem_request request;
	static volatile uint16_t answer[MEM_ANSWER / 2];
	struct ring *r = &d->ring[0];

	request = (struct mem_request){.type = type, .addr = addr, .blocks = blocks};
	r->desc[0] = (struct desc){(uintptr_t)&request, sizeof(request), NEXT, 1};
	r->desc[1] = (struct desc){(uintptr_t)answer, sizeof(answer), WRITE, 0};
	publish(r, 0);
	notify(d, 0);
	check(wait_used(d, r) == MEM_ANSWER, "the answer has another length");
	return answer[0];
}

/* All of it comes, can be used, goes, and is empty when it comes again. */
void mem_verify(struct dev *d)
{
	uint64_t at = mem_region(d);

	check(mem_ask(d, MEM_UNPLUG_ALL, 0, 0) == MEM_ACK, "not all memory goes");
	for (unsigned round = 0; round < 2; round++) {
		check(mem_ask(d, MEM_PLUG, at, MEM_GIVEN) == MEM_ACK, "memory does not come");
		check(read64(d->at + CONFIG + MEM_PLUGGED) == MEM_GIVEN * MEM_BLOCK_SIZE,
		      "it is not all there");
		check(read64(at) == 0 && read64(at + MEM_GIVEN * MEM_BLOCK_SIZE - 8) == 0,
		      "memory that comes is not empty");
		write64(at, 1);
		write64(at + MEM_GIVEN * MEM_BLOCK_SIZE - 8, 1);
		check(mem_ask(d, MEM_UNPLUG, at, MEM_GIVEN) == MEM_ACK, "memory does not go");
		check(read64(d->at + CONFIG + MEM_PLUGGED) == 0, "some is still there");
	}
}

void verify(struct dev *d)
{
	bring_up(d, F_INDIRECT);
	if (d->id == 2)
		blk_verify(d);
	else if (d->id == 19)
		vsock_verify(d);
	else if (d->id == 4)
		rng_verify(d);
	else if (d->id == 5)
		balloon_verify(d);
	else if (d->id == 24)
		mem_verify(d);
	else if (d->id == 1)
		net_verify(d);
	check(!is_broken(d), "a device is broken in the end");
	reset(d);
}

void verify_all(void)
{
	for (unsigned i = 0; i < DEVICES; i++) {
		look(i);
		if (devs[i].at)
			verify(&devs[i]);
	}
}
