/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the villain's cases are made of. A freestanding program in ring 0 and 64-bit mode, all of
 * memory and the hole below 4 GiB mapped to itself; nothing here is for use outside of it.
 */
#ifndef TESTS_KVM_VILLAIN_H
#define TESTS_KVM_VILLAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cases.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ---- the processor ---- */

static inline void outb(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static inline void pause(void)
{
	__asm__ volatile("pause" : : : "memory");
}

/* The compiler is not to know what it knows of addresses, such as that 0x472 is none. */
static inline uint64_t launder(uint64_t at)
{
	__asm__ volatile("" : "+r"(at));
	return at;
}

#define ACCESSORS(bits)                                                                            \
	static inline uint##bits##_t read##bits(uint64_t at)                                       \
	{                                                                                          \
		return *(volatile uint##bits##_t *)launder(at);                                    \
	}                                                                                          \
	static inline void write##bits(uint64_t at, uint##bits##_t v)                              \
	{                                                                                          \
		*(volatile uint##bits##_t *)launder(at) = v;                                       \
	}
ACCESSORS(8)
ACCESSORS(16)
ACCESSORS(32)
ACCESSORS(64)

uint32_t random32(void); /* the same numbers every time, on one CPU */

/* ---- the machine ---- */

#define WINDOWS	      0xd0000000ull
#define WINDOW_STRIDE 0x1000
#define HOLE	      0xc0000000ull
#define FOUR_GIB      0x100000000ull

extern uint64_t low_end;  /* end of memory below the hole */
extern uint64_t high_end; /* and above 4 GiB; FOUR_GIB if there is none */

void print(const char *s);
void fail(const char *why) __attribute__((noreturn));
static inline void check(bool ok, const char *why)
{
	if (!ok)
		fail(why);
}

/* Say that what comes now may be the last we hear of this machine. */
void last_words(void);
void switch_off(void) __attribute__((noreturn));

/* How often to try what needs luck: @n, or a quarter where the processor is itself emulated. */
unsigned turns(unsigned n);

/* Run @job on the CPUs 1 to @n as well; join waits for its return. Says so if they do not start. */
void start_on_others(unsigned n, void (*job)(unsigned cpu));
void join_others(void);
/* Wait until the test has read everything up to here. */
void wait_for_host(void);
/* Set by stop_others(): a job that runs for ever looks at it. */
extern volatile bool others_stop;
void stop_others(void);

/* ---- virtio ---- */

enum {
	MAGIC_VALUE = 0x00,
	DEVICE_ID = 0x08,
	DEVICE_FEATURES = 0x10,
	DEVICE_FEATURES_SEL = 0x14,
	DRIVER_FEATURES = 0x20,
	DRIVER_FEATURES_SEL = 0x24,
	QUEUE_SEL = 0x30,
	QUEUE_NUM_MAX = 0x34,
	QUEUE_NUM = 0x38,
	QUEUE_READY = 0x44,
	QUEUE_NOTIFY = 0x50,
	INTERRUPT_STATUS = 0x60,
	INTERRUPT_ACK = 0x64,
	STATUS = 0x70,
	QUEUE_DESC = 0x80,
	QUEUE_AVAIL = 0x90,
	QUEUE_USED = 0xa0,
	CONFIG = 0x100,
	WINDOW_END = 0x200,
};

enum {
	ACKNOWLEDGE = 1,
	DRIVER = 2,
	DRIVER_OK = 4,
	FEATURES_OK = 8,
	NEEDS_RESET = 64,
	FAILED = 128,
};

enum { INT_CONFIG = 2 }; /* of INTERRUPT_STATUS */

enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };
#define F_INDIRECT  (1u << 28)
#define F_EVENT_IDX (1u << 29)

enum { QUEUES = 6, RING = 64 };

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct avail {
	uint16_t flags, idx, ring[RING], used_event;
};

struct used {
	uint16_t flags, idx;
	struct {
		uint32_t id, len;
	} ring[RING];
	uint16_t avail_event;
};

struct ring {
	_Alignas(4096) struct desc desc[RING];
	_Alignas(4096) struct avail avail;
	_Alignas(4096) struct used used;
	uint16_t seen; /* used entries we know of */
};

struct dev {
	uint64_t at; /* its window; 0: not there */
	uint32_t id;
	unsigned nqueues;
	struct ring *ring;
};

struct target {
	const char *name;
	uint32_t id;
	unsigned nth, queue;
};

extern const struct target *target;
extern struct dev *dev;	  /* the target's */
extern struct ring *ring; /* and its queue's */
enum { TABLE_MAX = 1100, BUFFER_SIZE = 8 << 20, PAGE_SIZE = 4096 };
extern struct desc *const table; /* for indirect tables: TABLE_MAX */
extern uint8_t *const buffer;	 /* to be read and written by devices; begins a page */

/* Entries that the device sees of a ring: RING, or as many as it can. */
unsigned ring_size(const struct ring *r);

struct dev *find_dev(uint32_t id, unsigned nth);

static inline uint32_t get(const struct dev *d, uint32_t reg)
{
	return read32(d->at + reg);
}
static inline void set(const struct dev *d, uint32_t reg, uint32_t v)
{
	write32(d->at + reg, v);
}
static inline bool is_broken(const struct dev *d)
{
	return get(d, STATUS) & NEEDS_RESET;
}

void reset(struct dev *d);
/* Up to FEATURES_OK with these of the low 32 features. */
void negotiate(struct dev *d, uint32_t features);
/* Set a queue up; is it ready then? */
bool queue_ready(struct dev *d, unsigned q, uint32_t size, uint64_t desc, uint64_t avail,
		 uint64_t used);
bool queue_good(struct dev *d, unsigned q);
/* Reset it, all queues good, DRIVER_OK. */
void bring_up(struct dev *d, uint32_t features);

static inline void notify(const struct dev *d, uint32_t q)
{
	set(d, QUEUE_NOTIFY, q);
}
/* Put the chain that begins at descriptor @head into a ring. */
void publish(struct ring *r, uint16_t head);
/* Copy a chain to the table of the target's queue, from entry 0 on, publish it, let it be seen. */
void strike(const struct desc *d, unsigned n);
/* Make the device look at the target's queue. */
void provoke(void);
/* Wait for a used entry; fails when the device breaks. Its written length. */
uint32_t wait_used(struct dev *d, struct ring *r);
/* Wait until all that was published is used, or the device broke: true if it did. */
bool settle(struct dev *d, struct ring *r);

/* ---- disks ---- */

struct blk_request {
	uint32_t type, reserved;
	uint64_t sector;
};

enum { BLK_IN = 0, BLK_OUT = 1, BLK_FLUSH = 4, BLK_GET_ID = 8, BLK_DISCARD = 11, BLK_ZEROES = 13 };
enum { BLK_OK, BLK_IOERR, BLK_UNSUPP, BLK_UNTOUCHED = 0xaa };

/* A request of header, data and status on the disk's first queue: the status. */
uint8_t blk_request(struct dev *d, uint32_t type, uint64_t sector, uint64_t data, uint32_t len);
/* Does a device that is up do its work? */
void blk_verify(struct dev *d);

/* ---- sockets ---- */

struct packet {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port, len;
	uint16_t type, op;
	uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));

enum { REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST };
enum { RX, TX, EVENT };
struct packet packet_to_host(uint16_t op, uint32_t port);
/* Receive buffers: all there are. */
void vsock_fill(struct dev *d);
/* Send @p and @len more bytes; wait until it is taken. False when the device broke. */
bool vsock_send(struct dev *d, const struct packet *p, uint32_t len);
/* The next packet that arrives; its buffer is given back. */
struct packet vsock_receive(struct dev *d);
void vsock_connect_from(struct dev *d, uint32_t port);
void vsock_verify(struct dev *d);

/* ---- the network card ---- */

/* The card's header and a frame that asks who the gateway is: their length. */
uint32_t net_question(uint8_t *to);
/* Receive buffers: all there are. */
void net_fill(struct dev *d);
/* Ask; with net_ask() what is asked was taken when it returns. */
void net_post(struct dev *d);
void net_ask(struct dev *d);
void net_verify(struct dev *d);

/* ---- random numbers, and the balloon ---- */

enum { INFLATE, DEFLATE, REPORTING };

/* One buffer into a queue that has nothing under way, and its used length. */
uint32_t give(struct dev *d, unsigned q, struct desc buffer);
void rng_verify(struct dev *d);
void balloon_verify(struct dev *d);

/* ---- memory ---- */

enum { MEM_PLUG, MEM_UNPLUG, MEM_UNPLUG_ALL, MEM_STATE };
enum { MEM_ACK, MEM_NACK, MEM_BUSY, MEM_ERROR };
enum {
	MEM_BLOCK_SIZE = 2 << 20,
	MEM_ANSWER = 10,  /* bytes */
	MEM_REGION = 16,  /* in the configuration: where it is, */
	MEM_PLUGGED = 40, /* and how much there is */
};

struct mem_request {
	uint16_t type, padding[3];
	uint64_t addr;
	uint16_t blocks, more_padding[3];
};

uint64_t mem_region(const struct dev *d);
/* The answer's type. */
uint16_t mem_ask(struct dev *d, uint16_t type, uint64_t addr, uint16_t blocks);
void mem_verify(struct dev *d);

/* A device is reset, brought up and put to work; every one is. */
void verify(struct dev *d);
void verify_all(void);

#define CASE(name, target, cpus, fate, words) void case_##name(void);
VILLAIN_CASES(CASE)
#undef CASE

#endif
