/* SPDX-License-Identifier: Apache-2.0 */
/* The machine, the table of cases, and the verdict. */
#include "villain.h"

/* Of the boot protocol's zero page: offsets in struct boot_params. */
enum { E820_ENTRIES = 0x1e8, CMD_LINE_PTR = 0x228, E820_TABLE = 0x2d0, E820_ENTRY = 20 };

enum { AP_CODE = 0x10000, LAPIC_ICR_LOW = 0x300, GIB_MAPPED = 8 };
#define LAPIC 0xfee00000ull

#define PRESENT	 1ull
#define WRITABLE 2ull
#define LARGE	 0x80ull

void villain_main(uint64_t params);
void ap_main(unsigned cpu);
void exception(const uint64_t *frame) __attribute__((noreturn));
void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int c, size_t n);

uint64_t low_end, high_end = FOUR_GIB;
volatile bool others_stop;
static bool few_turns;

extern const uint8_t ap_begin[], ap_end[], vectors[];
extern uint32_t ap_cr3;
extern volatile uint32_t ap_count;
static void (*volatile ap_job)(unsigned cpu);
static volatile uint32_t ap_wanted, ap_done;

static _Alignas(4096) uint64_t pml4[512], pdpt[512], pd[GIB_MAPPED][512];
static struct {
	uint16_t low, selector, flags, mid;
	uint32_t high, zero;
} idt[32];

struct row {
	const char *name;
	void (*run)(void);
	enum villain_target target;
	enum villain_fate fate;
};

#define CASE(name, target, cpus, fate, words) {#name, case_##name, target, fate},
static const struct row rows[] = {VILLAIN_CASES(CASE)};

#define ROW(name, id, nth, queue) {#name, id, nth, queue},
static const struct target queues[] = {VILLAIN_QUEUES(ROW)};
static const struct target devices[] = {VILLAIN_DEVICES(ROW)};

static const struct row *row;
const struct target *target;
struct dev *dev;
struct ring *ring;

/* The compiler calls these. */
void *memcpy(void *to, const void *from, size_t n)
{
	void *p = to;

	__asm__ volatile("rep movsb" : "+D"(p), "+S"(from), "+c"(n) : : "memory");
	return to;
}

void *memset(void *to, int c, size_t n)
{
	void *p = to;

	__asm__ volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(c) : "memory");
	return to;
}

unsigned turns(unsigned n)
{
	return few_turns ? n / 4 : n;
}

uint32_t random32(void)
{
	static uint64_t x = 88172645463325252ull;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return (uint32_t)(x >> 16);
}

/* ---- talking ---- */

void print(const char *s)
{
	while (*s)
		outb(0x3f8, (uint8_t)*s++);
}

static void verdict(const char *word, const char *more)
{
	print("\nvillain ");
	print(row ? row->name : "?");
	print(": ");
	print(word);
	print(more);
	print("\n");
}

void last_words(void)
{
	verdict("expect-end", "");
}

void switch_off(void)
{
	outb(0x64, 0xfe);
	for (;;)
		__asm__ volatile("cli; hlt");
}

void fail(const char *why)
{
	verdict("FAILED: ", why);
	switch_off();
}

static void print_hex(uint64_t v)
{
	char s[17];

	for (unsigned i = 0; i < 16; i++)
		s[i] = "0123456789abcdef"[v >> (60 - i * 4) & 15];
	s[16] = '\0';
	print(s);
}

void exception(const uint64_t *frame)
{
	print("\nexception ");
	print_hex(frame[0]);
	print(" error ");
	print_hex(frame[1]);
	print(" rip ");
	print_hex(frame[2]);
	fail("an exception");
}

/* ---- the processor ---- */

static void load_idt(void)
{
	const struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) pointer = {sizeof(idt) - 1, (uintptr_t)idt};

	__asm__ volatile("lidt %0" : : "m"(pointer));
}

static void set_up_processor(void)
{
	pml4[0] = (uintptr_t)pdpt | PRESENT | WRITABLE;
	for (uint64_t g = 0; g < GIB_MAPPED; g++) {
		pdpt[g] = (uintptr_t)pd[g] | PRESENT | WRITABLE;
		for (uint64_t i = 0; i < 512; i++)
			pd[g][i] = (g << 30 | i << 21) | PRESENT | WRITABLE | LARGE;
	}
	for (unsigned i = 0; i < 32; i++) {
		uint64_t at = (uintptr_t)vectors + i * 16u;

		idt[i].low = (uint16_t)at;
		idt[i].selector = 0x10;
		idt[i].flags = 0x8e00;
		idt[i].mid = (uint16_t)(at >> 16);
	}
	load_idt();
	__asm__ volatile("mov %0, %%cr3" : : "r"((uint64_t)(uintptr_t)pml4) : "memory");
}

void ap_main(unsigned cpu)
{
	load_idt();
	if (cpu > ap_wanted)
		return;
	ap_job(cpu);
	__atomic_fetch_add(&ap_done, 1, __ATOMIC_SEQ_CST);
}

/* Whatever they do: INIT ends it, and they begin anew. Those beyond @n halt at once. */
void start_on_others(unsigned n, void (*job)(unsigned cpu))
{
	write32(LAPIC + LAPIC_ICR_LOW, 0xc4500); /* INIT to all but self */
	others_stop = false;
	ap_job = job;
	ap_wanted = n;
	ap_done = 0;
	ap_count = 1;
	ap_cr3 = (uint32_t)(uintptr_t)pml4;
	memcpy((void *)AP_CODE, ap_begin, (size_t)(ap_end - ap_begin));
	write32(LAPIC + LAPIC_ICR_LOW, 0xc4600 | AP_CODE >> 12);
	while (ap_count < n + 1)
		pause();
}

void join_others(void)
{
	while (ap_done < ap_wanted)
		pause();
}

void stop_others(void)
{
	others_stop = true;
	join_others();
}

/* ---- one case ---- */

static bool str_eq(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

/* The value of "@key=" on the command line, in a buffer of its own. */
static const char *argument(const char *line, const char *key, char value[64])
{
	value[0] = '\0';
	for (const char *p = line; *p; p++) {
		const char *k = key;
		unsigned n = 0;

		if (p != line && p[-1] != ' ')
			continue;
		while (*k && *p == *k)
			p++, k++;
		if (*k || *p != '=')
			continue;
		for (p++; *p && *p != ' ' && n < 63; p++)
			value[n++] = *p;
		value[n] = '\0';
		break;
	}
	return value;
}

static void find_memory(uint64_t params)
{
	unsigned n = read8(params + E820_ENTRIES);

	for (unsigned i = 0; i < n; i++) {
		uint64_t e = params + E820_TABLE + i * E820_ENTRY;
		uint64_t end = read64(e) + read64(e + 8);

		if (read32(e + 16) != 1)
			continue;
		if (end > FOUR_GIB)
			high_end = end;
		else if (end > low_end)
			low_end = end;
	}
}

static const struct target *find_target(enum villain_target kind, const char *on)
{
	static const struct target alone[] = {
		[BLK] = {"blk", 2, 0, 0},     [VSOCK] = {"vsock", 19, 0, TX},
		[RNG] = {"rng", 4, 0, 0},     [BALLOON] = {"balloon", 5, 0, INFLATE},
		[MEMORY] = {"mem", 24, 0, 0}, [NET] = {"net", 1, 0, TX},
	};

	for (size_t i = 0; kind == EACH_QUEUE && i < COUNT(queues); i++) {
		if (str_eq(queues[i].name, on))
			return &queues[i];
	}
	for (size_t i = 0; kind == EACH_DEVICE && i < COUNT(devices); i++) {
		if (str_eq(devices[i].name, on))
			return &devices[i];
	}
	return kind < COUNT(alone) && alone[kind].name ? &alone[kind] : NULL;
}

/* A broken device says so, does nothing, and nothing but a reset heals it. */
static void check_broken(void)
{
	uint32_t status = get(dev, STATUS);
	uint16_t used = ring->used.idx;

	check(status & NEEDS_RESET, "the device does not say that it needs a reset");
	/* The interrupt for it comes after, and is there until it is acknowledged (2.1.2). */
	for (unsigned i = 0; i < 100000 && !(get(dev, INTERRUPT_STATUS) & INT_CONFIG); i++)
		pause();
	set(dev, INTERRUPT_ACK, ~(uint32_t)INT_CONFIG);
	check(get(dev, INTERRUPT_STATUS) & INT_CONFIG, "nobody is told that the device broke");
	set(dev, INTERRUPT_ACK, INT_CONFIG);
	check(!(get(dev, INTERRUPT_STATUS) & INT_CONFIG), "what was acknowledged is still there");
	set(dev, STATUS, status & ~(uint32_t)NEEDS_RESET);
	set(dev, STATUS, status | DRIVER_OK);
	for (unsigned q = 0; q < dev->nqueues; q++) {
		set(dev, QUEUE_SEL, q);
		set(dev, QUEUE_READY, 0);
		set(dev, QUEUE_READY, 1);
		check(!get(dev, QUEUE_READY), "a queue of a broken device runs");
		notify(dev, q);
	}
	check(is_broken(dev), "the device has healed without a reset");
	check(ring->used.idx == used, "a broken device went on");
}

static void run(const struct row *r, const char *on)
{
	row = r;
	target = find_target(r->target, on);
	dev = NULL;
	if (r->target != MACHINE) {
		check(target, "no such target");
		dev = find_dev(target->id, target->nth);
		check(dev, "the target's device is not there");
		ring = &dev->ring[target->queue];
		bring_up(dev, F_INDIRECT);
	}
	r->run();
	if (r->fate == BREAKS)
		check_broken();
	/* A case plays with one device; what it did to others is seen in the end. */
	if (dev)
		verify(dev);
	else
		verify_all();
	verdict("ok", "");
}

/* villain=NAME runs one case, villain=all those with this kind= of target that do not end it. */
void villain_main(uint64_t params)
{
	const char *line = (const char *)(uintptr_t)read32(params + CMD_LINE_PTR);
	char name[64], on[64], kind[64], few[64];
	bool all;

	set_up_processor();
	find_memory(params);
	argument(line, "on", on);
	argument(line, "kind", kind);
	few_turns = *argument(line, "few", few);
	all = str_eq(argument(line, "villain", name), "all");
	for (size_t i = 0; i < COUNT(rows); i++) {
		if (all ? rows[i].target == (unsigned)(kind[0] - '0') && rows[i].fate <= SURVIVES
			: str_eq(rows[i].name, name))
			run(&rows[i], on);
	}
	verify_all();
	switch_off();
}
