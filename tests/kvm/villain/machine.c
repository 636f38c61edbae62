/* SPDX-License-Identifier: Apache-2.0 */
/* What can be wrong with a machine: its ports, its address space, its processors. */
#include "villain.h"

#define LAPIC  0xfee00000ull
#define IOAPIC 0xfec00000ull
enum { ICR_LOW = 0x300, COM1 = 0x3f8, FLOOD = 4 * VILLAIN_CONSOLE };

static void halt(void)
{
	for (;;)
		__asm__ volatile("cli; hlt");
}

static void write_port(uint16_t port, uint32_t v)
{
	__asm__ volatile("outb %b0, %1; outw %w0, %1; outl %0, %1" : : "a"(v), "d"(port));
}

static uint32_t read_port(uint16_t port)
{
	uint32_t b, w, l;

	__asm__ volatile("inb %1, %b0" : "=a"(b) : "d"(port));
	__asm__ volatile("inw %1, %w0" : "=a"(w) : "d"(port));
	__asm__ volatile("inl %1, %0" : "=a"(l) : "d"(port));
	return l;
}

void case_ports_unassigned(void)
{
	for (uint32_t port = 0; port < 0x10000; port += port < 0x500 ? 1 : 61) {
		if (port + 4 > COM1 && port < COM1 + 8)
			continue;
		(void)read_port((uint16_t)port);
		write_port((uint16_t)port, 0x5a5a5a5a);
	}
	check(read_port(0x510) == UINT32_MAX, "a port that is not there reads as something");
}

void case_memory_unassigned(void)
{
	const uint64_t at[] = {low_end,		low_end + 1,	 HOLE,
			       HOLE + 0xffd,	WINDOWS - 8,	 WINDOWS + 0x200,
			       WINDOWS + 0xffc, WINDOWS + 0x1ff, 0xd00ff000,
			       0xe0000000,	0xfed00000,	 0xfee01000,
			       0xff000000,	FOUR_GIB - 8,	 high_end,
			       high_end + 4093};

	for (size_t i = 0; i < COUNT(at); i++) {
		check(read8(at[i] + 8) == 0xff || at[i] + 8 >= WINDOWS, "nothing reads as ones");
		(void)read16(at[i]);
		(void)read32(at[i]);
		(void)read64(at[i]);
		write8(at[i], 1);
		write16(at[i], 1);
		write32(at[i], 1);
		write64(at[i], 1);
	}
	check(read64(high_end + 4096) == UINT64_MAX, "nothing reads as ones");
	/* Strings, to and from nothing. */
	__builtin_memset((void *)launder(HOLE + 64), 0x11, 64);
	__builtin_memcpy(buffer, (void *)launder(HOLE + 64), 64);
	check(buffer[63] == 0xff, "what was written to nothing is there");
}

static void outs(uint16_t port, const void *p, unsigned n, unsigned width)
{
	if (width == 1)
		__asm__ volatile("rep outsb" : "+S"(p), "+c"(n) : "d"(port) : "memory");
	else if (width == 2)
		__asm__ volatile("rep outsw" : "+S"(p), "+c"(n) : "d"(port) : "memory");
	else
		__asm__ volatile("rep outsl" : "+S"(p), "+c"(n) : "d"(port) : "memory");
}

static void calm_uart(void)
{
	for (uint16_t i = 1; i < 5; i++)
		outb(COM1 + i, 0);
}

void case_string_output(void)
{
	__builtin_memset(buffer, 'x', 8192);
	for (unsigned width = 1; width <= 4; width <<= 1) {
		for (uint16_t port = COM1 - 4; port < COM1 + 12; port++)
			outs(port, buffer + 4000, 300, width);
		outs(0x60, buffer, 500, width);
		outs(0x80, buffer, 5000, width);
	}
	calm_uart();
}

void case_string_input(void)
{
	for (uint16_t port = COM1 - 2; port < COM1 + 10; port++) {
		void *p = buffer + 4000;
		unsigned n = 500;

		__asm__ volatile("rep insb" : "+D"(p), "+c"(n) : "d"(port) : "memory");
		n = 300;
		__asm__ volatile("rep insl" : "+D"(p), "+c"(n) : "d"(port) : "memory");
	}
	calm_uart();
}

/* More than the pipe holds: without end of line, nothing but ends of lines, and binary. */
void case_console_flood(void)
{
	__builtin_memset(buffer, 'x', FLOOD);
	outs(COM1, buffer, FLOOD, 1);
	outs(COM1, buffer, FLOOD, 1);
	__builtin_memset(buffer, '\n', FLOOD);
	outs(COM1, buffer, FLOOD / 4, 1);
	for (unsigned i = 0; i < FLOOD; i++)
		buffer[i] = (uint8_t)(i * 13);
	outs(COM1, buffer, FLOOD, 1);
	wait_for_host();
}

void case_serial_port_registers(void)
{
	for (unsigned i = 0; i < 2000; i++) {
		uint16_t reg = COM1 + random32() % 8;

		if (i % 3)
			outb(reg, (uint8_t)random32());
		else
			(void)inb(reg);
	}
	/* All interrupts allowed, and a storm of them to a controller that nobody set up. */
	calm_uart();
	for (unsigned i = 0; i < 1000; i++) {
		outb(COM1 + 1, i % 2 ? 0x0f : 0);
		outb(COM1, '.');
	}
	calm_uart();
}

void case_interrupt_controllers(void)
{
	for (uint64_t at = 0; at < 0x1000; at += 16) {
		(void)read32(LAPIC + at);
		(void)read32(LAPIC + at + 4);
		(void)read8(LAPIC + at);
		(void)read64(LAPIC + at);
	}
	/* Every line to a vector that does not exist, a mode that does not, a CPU that does not. */
	for (uint32_t i = 0; i < 256; i++) {
		write32(IOAPIC, i);
		write32(IOAPIC + 0x10, 0xffff0000 | (random32() & 0xffff) | 1 << 16);
		(void)read32(IOAPIC + 0x10);
		write32(IOAPIC + 0x20, random32());
	}
	for (uint32_t i = 0; i < 16; i++)
		write64(IOAPIC + i, UINT64_MAX);
	for (uint16_t port = 0x20; port < 0x22; port++) {
		outb(port, 0xff);
		outb((uint16_t)(port + 0x80), 0xff);
	}
}

static void route(uint32_t line, uint32_t high, uint32_t low)
{
	write32(IOAPIC, 0x11 + 2 * line);
	write32(IOAPIC + 0x10, high);
	write32(IOAPIC, 0x10 + 2 * line);
	write32(IOAPIC + 0x10, low);
}

static void raise(struct dev *d)
{
	outb(COM1 + 1, 2);
	outb(COM1, '.');
	outb(COM1 + 1, 0);
	(void)blk_request(d, BLK_IN, 0, (uintptr_t)buffer, 512);
}

static void route_at_random(unsigned cpu)
{
	(void)cpu;
	while (!others_stop)
		route(random32() % 64, random32(), random32() & 0xfffff8ff);
}

void case_keyboard_controller(void)
{
	for (unsigned v = 0; v < 256; v++) {
		if (v != 0xfe)
			outb(0x64, (uint8_t)v);
		outb(0x60, (uint8_t)v);
		outb(0x61, (uint8_t)v);
		check(inb(0x64) == 0, "the keyboard controller is busy");
	}
	__asm__ volatile("outw %0, %1" : : "a"((uint16_t)0xfefe), "Nd"((uint16_t)0x64));
	__asm__ volatile("outl %0, %1" : : "a"(0xfefefefe), "Nd"((uint16_t)0x64));
	__asm__ volatile("outw %0, %1" : : "a"((uint16_t)0xfefe), "Nd"((uint16_t)0x63));
}

void case_cpu_never_started(void)
{
	/* They are there, and nobody calls them. Signals that are not INIT do not start them. */
	for (unsigned i = 0; i < 100; i++)
		write32(LAPIC + ICR_LOW, 0xc4030 + i % 8);
	write32(LAPIC + ICR_LOW, 0xc4400); /* NMI */
}

/* The mark of a panic, taken back. */
void case_panic_flag(void)
{
	write16(0x472, 0x1234);
	write16(0x472, 0x4321);
}

/*
 * Lines to every kind of event there is, and to other ones all the time while they are raised. It
 * comes last: from here on the machine has a second CPU, which the NMI of others would end.
 */
void case_interrupt_routes(void)
{
	struct dev *d = find_dev(2, 0);

	bring_up(d, F_INDIRECT);
	/* An NMI, an INIT or a shutdown would be the end of this. */
	for (uint32_t mode = 0; mode < 8; mode++) {
		for (uint32_t line = 0; line < 64; line++)
			route(line, 0, mode << 8 | (mode > 1 ? 0x41 : 3));
		raise(d);
	}
	start_on_others(1, route_at_random);
	for (unsigned i = 0; i < 200; i++)
		raise(d);
	stop_others();
	for (uint32_t line = 0; line < 64; line++)
		route(line, 0, 1 << 16);
	calm_uart();
}

void case_execute_nothing(void)
{
	last_words();
	((void (*)(void))(WINDOWS - 4096))();
}

static void no_idt(void)
{
	const struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) none = {0, 0};

	__asm__ volatile("lidt %0; ud2" : : "m"(none));
}

void case_triple_fault(void)
{
	last_words();
	no_idt();
}

static void fault_on_other(unsigned cpu)
{
	(void)cpu;
	last_words();
	no_idt();
}

void case_triple_fault_second_cpu(void)
{
	start_on_others(1, fault_on_other);
	halt();
}

void case_stack_in_device_window(void)
{
	last_words();
	__asm__ volatile("mov %0, %%rsp\n"
			 "1: push %%rax; pop %%rbx; call 2f; 2: jmp 1b"
			 :
			 : "r"(WINDOWS + 0x180)
			 : "rbx", "memory");
}

void case_fault_with_stack_in_window(void)
{
	last_words();
	__asm__ volatile("mov %0, %%rsp; ud2" : : "r"(WINDOWS + 0x180) : "memory");
}

void case_tables_in_device_window(void)
{
	last_words();
	__asm__ volatile("mov %0, %%cr3" : : "r"(WINDOWS) : "memory");
	(void)read64(0);
}

void case_tables_outside_memory(void)
{
	last_words();
	__asm__ volatile("mov %0, %%cr3" : : "r"(1ull << 38) : "memory");
	(void)read64(0);
}

void case_init_to_self(void)
{
	last_words();
	write32(LAPIC + ICR_LOW, 0x44500);
	halt();
}

static void spin(unsigned cpu)
{
	(void)cpu;
	for (;;)
		pause();
}

/* All are stopped and started anew, over and over. */
void case_init_storm(void)
{
	start_on_others(3, spin);
	last_words();
	for (;;) {
		write32(LAPIC + ICR_LOW, 0xc4500);
		write32(LAPIC + ICR_LOW, 0xc4610);
	}
}

void case_halt_without_interrupts(void)
{
	last_words();
	halt();
}

void case_halt_with_requests_in_flight(void)
{
	struct dev *d = find_dev(2, 0);

	bring_up(d, F_INDIRECT);
	for (unsigned i = 0; i < RING; i++) {
		struct blk_request *h = (struct blk_request *)buffer;

		*h = (struct blk_request){BLK_IN, 0, 0};
		d->ring->desc[0] = (struct desc){(uintptr_t)h, 16, NEXT, 1};
		d->ring->desc[1] =
			(struct desc){(uintptr_t)buffer + 4096, 4 << 20, WRITE | NEXT, 2};
		d->ring->desc[2] = (struct desc){(uintptr_t)buffer + 64, 1, WRITE, 0};
		publish(d->ring, 0);
	}
	last_words();
	notify(d, 0);
	halt();
}

/* A device that is broken does not keep its worker busy. */
void case_broken_and_halted(void)
{
	const struct {
		uint32_t id;
		unsigned queue;
	} on[] = {{2, 0}, {19, TX}, {4, 0}, {5, INFLATE}};

	for (size_t i = 0; i < COUNT(on); i++) {
		struct dev *d = find_dev(on[i].id, 0);

		bring_up(d, F_INDIRECT);
		d->ring[on[i].queue].avail.idx = 0x8000;
		notify(d, on[i].queue);
		while (!is_broken(d))
			pause();
		notify(d, on[i].queue);
	}
	last_words();
	halt();
}

void case_endless_loop(void)
{
	last_words();
	spin(0);
}

void case_endless_loop_of_all(void)
{
	start_on_others(3, spin);
	last_words();
	spin(0);
}

void case_endless_register_reads(void)
{
	last_words();
	for (;;)
		(void)read32(WINDOWS + STATUS);
}

void case_endless_notifications(void)
{
	struct dev *d = find_dev(2, 0);

	bring_up(d, F_INDIRECT);
	last_words();
	for (;;)
		notify(d, 0);
}
