/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of a PC that need no vCPU: memory, serial port, MP table, boot parameters, the probe.
 */
#include "tiny.h"

#include <asm/bootparam.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/serial_reg.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "machine/kvm/probe.h"
#include "machine/kvm/loader.h"
#include "machine/kvm/ram.h"
#include "machine/kvm/uart.h"
#include "machine/x86/boot.h"
#include "machine/x86/layout.h"
#include "machine/x86/mptable.h"

#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)

/* ---- memory ---- */

static void test_ram_shapes(void **state)
{
	static const struct {
		uint64_t size, low, high;
	} cases[] = {
		{2 * MIB, 2 * MIB, 0},	     {3 * GIB - 2 * MIB, 3 * GIB - 2 * MIB, 0},
		{3 * GIB, 3 * GIB, 0},	     {3 * GIB + 2 * MIB, 3 * GIB, 2 * MIB},
		{5 * GIB, 3 * GIB, 2 * GIB},
	};

	(void)state;
	for (size_t i = 0; i < 2 * ARRAY_SIZE(cases); i++) {
		const uint64_t size = cases[i / 2].size;
		struct err err = ERR_INIT;
		struct ram m;

		if (ram_init(&m, size, X86_HOLE, i % 2 ? RAM_SHARED : RAM_PRIVATE, &err) < 0)
			fail_msg("%s", err.msg);
		assert_true(m.low == cases[i / 2].low);
		assert_int_equal(m.map.nregions, cases[i / 2].high ? 2 : 1);
		assert_int_equal((uintptr_t)m.host % RAM_ALIGN, 0);
		assert_int_equal(m.fd >= 0, i % 2);
		/* The last byte below the hole, none in it, and the last of all. */
		*(uint8_t *)guest_memory_ptr(&m.map, m.low - 1, 1) = 1;
		assert_null(guest_memory_ptr(&m.map, m.low, 1));
		assert_null(guest_memory_ptr(&m.map, 4 * GIB - 1, 1));
		if (cases[i / 2].high) {
			*(uint8_t *)guest_memory_ptr(&m.map, 4 * GIB + cases[i / 2].high - 1, 1) =
				1;
			assert_ptr_equal(guest_memory_ptr(&m.map, 4 * GIB, 1),
					 (char *)m.host + m.low);
		}
		ram_done(&m);
		ram_done(&m);
	}
}

static void test_ram_refusals(void **state)
{
	struct ram m;

	(void)state;
	assert_int_equal(ram_init(&m, 0, X86_HOLE, RAM_PRIVATE, NULL), -EINVAL);
	assert_int_equal(ram_init(&m, 3 * MIB, X86_HOLE, RAM_PRIVATE, NULL), -EINVAL);
}

/* ---- the serial port ---- */

struct port {
	struct uart *u;
	int out[2];
	unsigned interrupts;
};

static void on_interrupt(void *arg)
{
	struct port *p = arg;

	p->interrupts++;
}

static int port_setup(void **state)
{
	struct port *p = calloc(1, sizeof(*p));

	if (pipe2(p->out, O_CLOEXEC | O_NONBLOCK) < 0 ||
	    uart_new(&p->u, p->out[1], on_interrupt, p, NULL) < 0)
		return -1;
	*state = p;
	return 0;
}

static int port_teardown(void **state)
{
	struct port *p = *state;

	uart_free(p->u);
	close_fd(p->out[0]);
	close_fd(p->out[1]);
	free(p);
	return 0;
}

static uint8_t in(struct port *p, unsigned reg)
{
	uint8_t v;

	uart_read(p->u, reg, &v, 1);
	return v;
}

static void out(struct port *p, unsigned reg, uint8_t v)
{
	uart_write(p->u, reg, &v, 1);
}

static void print(struct port *p, const char *s)
{
	while (*s)
		out(p, UART_TX, (uint8_t)*s++);
}

static void test_uart_prints_lines(void **state)
{
	struct port *p = *state;
	char b[1024];

	print(p, "hello ");
	assert_int_equal(read(p->out[0], b, sizeof(b)), -1);
	print(p, "world\nand");
	assert_int_equal(read(p->out[0], b, sizeof(b)), 12);
	assert_memory_equal(b, "hello world\n", 12);
	for (int i = 0; i < 300; i++)
		out(p, UART_TX, 'x');
	assert_int_equal(read(p->out[0], b, sizeof(b)), 256);
	p->u = uart_free(p->u);
	assert_int_equal(read(p->out[0], b, sizeof(b)), 303 - 256);
}

/* What Linux' 8250 driver tries to find out which chip this is. */
static void test_uart_is_a_16550(void **state)
{
	struct port *p = *state;
	uint8_t v;

	out(p, UART_IER, 0);
	assert_int_equal(in(p, UART_IER), 0);
	out(p, UART_IER, 0x0f);
	assert_int_equal(in(p, UART_IER), 0x0f);
	out(p, UART_IER, 0);
	out(p, UART_MCR, UART_MCR_LOOP | 0x0a);
	assert_int_equal(in(p, UART_MSR) & 0xf0, 0x90);
	out(p, UART_MCR, 0);
	out(p, UART_LCR, UART_LCR_DLAB);
	out(p, UART_DLL, 0x12);
	out(p, UART_DLM, 0x34);
	assert_int_equal(in(p, UART_DLL), 0x12);
	assert_int_equal(in(p, UART_DLM), 0x34);
	out(p, UART_LCR, 0x03);
	out(p, UART_FCR, UART_FCR_ENABLE_FIFO);
	assert_int_equal(in(p, UART_IIR) >> 6, 3);
	out(p, UART_SCR, 0x5a);
	assert_int_equal(in(p, UART_SCR), 0x5a);
	assert_int_equal(in(p, UART_LSR), UART_LSR_TEMT | UART_LSR_THRE);
	/* Nothing went out. */
	p->u = uart_free(p->u);
	assert_int_equal(read(p->out[0], &v, 1), -1);
}

static void test_uart_interrupts(void **state)
{
	struct port *p = *state;

	assert_int_equal(in(p, UART_IIR) & 0x0f, UART_IIR_NO_INT);
	out(p, UART_IER, UART_IER_THRI);
	assert_int_equal(p->interrupts, 1);
	assert_int_equal(in(p, UART_IIR) & 0x0f, UART_IIR_THRI);
	assert_int_equal(in(p, UART_IIR) & 0x0f, UART_IIR_NO_INT);
	out(p, UART_TX, 'x');
	assert_int_equal(p->interrupts, 2);
	out(p, UART_IER, 0);
	assert_int_equal(in(p, UART_IIR) & 0x0f, UART_IIR_NO_INT);
	out(p, UART_TX, 'x');
	assert_int_equal(p->interrupts, 2);
}

/* A reader that does not read costs text, never time; the gap is told. */
static void test_uart_full_pipe(void **state)
{
	struct port *p = *state;
	char b[65536], *note;
	ssize_t n = 0, got;
	size_t lost = 0;

	for (int i = 0; i < 10000; i++)
		print(p, "0123456789abcde\n");
	while ((got = read(p->out[0], b, sizeof(b))) > 0)
		n += got;
	assert_true(n > 0 && n < 160000);
	print(p, "more\n");
	got = read(p->out[0], b, sizeof(b) - 1);
	assert_true(got > 0);
	b[got] = '\0';
	note = strstr(b, "bytes of console output lost]\nmore\n");
	assert_non_null(note);
	assert_int_equal(sscanf(strchr(b, '[') + 1, "%zu", &lost), 1);
	assert_int_equal(lost, 160000 - (size_t)n);
}

/* ---- tables ---- */

static uint8_t sum(const uint8_t *p, size_t n)
{
	uint8_t s = 0;

	while (n--)
		s += *p++;
	return s;
}

static void test_mptable(void **state)
{
	uint8_t *base = calloc(1, X86_BASE_END);

	(void)state;
	for (unsigned cpus = 1; cpus <= MPTABLE_CPUS_MAX; cpus += 21) {
		const uint8_t *p = base + X86_MPTABLE_POINTER, *t = base + X86_MPTABLE;
		unsigned processors = 0, boot = 0, lines = cpus == 1 ? 5 : MPTABLE_LINES_MAX,
			 next = 1;
		uint16_t length, entries;

		memset(base, 0, X86_BASE_END);
		x86_mptable_write(base, cpus, lines);
		assert_memory_equal(p, "_MP_", 4);
		assert_int_equal(sum(p, 16), 0);
		assert_memory_equal(t, "PCMP", 4);
		memcpy(&length, t + 4, 2);
		memcpy(&entries, t + 34, 2);
		assert_int_equal(sum(t, length), 0);
		assert_true(X86_MPTABLE + length <= X86_MPTABLE_POINTER);
		t += 44;
		for (unsigned i = 0; i < entries; i++) {
			processors += t[0] == 0;
			boot += t[0] == 0 && (t[3] & 2);
			/* A line's number is that of the interrupt; the first has none. */
			if (t[0] == 3) {
				assert_int_equal(t[5], next);
				assert_int_equal(t[7], next++);
			}
			t += t[0] == 0 ? 20 : 8;
		}
		assert_ptr_equal(t, base + X86_MPTABLE + length);
		assert_int_equal(processors, cpus);
		assert_int_equal(boot, 1);
		assert_int_equal(next, lines);
	}
	free(base);
}

struct files {
	struct kernel_image k;
	struct x86_boot b;
};

/* A kernel of 4 KiB at 16 MiB, an initramfs of 5000 bytes. */
static void make_files(struct files *f)
{
	char text[8192];

	memset(text, 'k', 4096);
	memset(text + 4096, 'i', 4096);
	*f = (struct files){
		.k =
			{
				.entry = 16 * MIB + 16,
				.end = 17 * MIB,
				.segments = {{16 * MIB, MIB, 0, 4096, false}},
				.nsegments = 1,
			},
		.b =
			{
				.kernel_fd = io_memfd("k", text, 4096, NULL),
				.initramfs_fd = io_memfd("i", text + 3192, 5000, NULL),
				.cmdline = "quiet",
				.cpus = 1,
				.lines = 5,
			},
	};
	f->b.kernel = &f->k;
}

static void drop_files(struct files *f)
{
	close_fd(f->b.kernel_fd);
	close_fd(f->b.initramfs_fd);
}

static void test_boot_parameters(void **state)
{
	struct boot_params bp;
	struct files f;
	struct ram m;
	uint64_t total = 0;

	(void)state;
	make_files(&f);
	assert_int_equal(ram_init(&m, 4 * GIB, X86_HOLE, RAM_PRIVATE, NULL), 0);
	assert_int_equal(x86_boot_load(&m, &f.b, NULL), 0);
	memcpy(&bp, (uint8_t *)m.host + X86_ZERO_PAGE, sizeof(bp));
	assert_int_equal(bp.hdr.ramdisk_size, 5000);
	assert_int_equal(bp.hdr.ramdisk_image % 4096, 0);
	assert_true(bp.hdr.ramdisk_image + 5000 <= m.low);
	assert_int_equal(*((uint8_t *)m.host + bp.hdr.ramdisk_image + 4999), 'i');
	assert_int_equal(*((uint8_t *)m.host + 16 * MIB + 4095), 'k');
	assert_int_equal(*((uint8_t *)m.host + 16 * MIB + 4096), 0);
	assert_string_equal((char *)m.host + bp.hdr.cmd_line_ptr, "quiet");
	for (unsigned i = 0; i < bp.e820_entries; i++) {
		assert_true(i == 0 || bp.e820_table[i].addr >= bp.e820_table[i - 1].addr +
								       bp.e820_table[i - 1].size);
		total += bp.e820_table[i].type == 1 ? bp.e820_table[i].size : 0;
	}
	assert_true(total == 4 * GIB - (X86_HIGH_START - X86_MPTABLE));
	ram_done(&m);
	drop_files(&f);
}

/* Of memory that comes later the kernel hears nothing at the boot. */
static void test_ram_more(void **state)
{
	struct boot_params bp;
	struct files f;
	struct ram m;

	(void)state;
	make_files(&f);
	assert_int_equal(ram_init(&m, 512 * MIB, X86_HOLE, RAM_PRIVATE, NULL), 0);
	assert_int_equal(ram_more(&m, 256 * MIB, 512 * MIB, NULL), -EEXIST);
	ram_done(&m);
	assert_int_equal(ram_init(&m, 512 * MIB, X86_HOLE, RAM_PRIVATE, NULL), 0);
	assert_int_equal(ram_more(&m, 4 * GIB, 64 * GIB, NULL), 0);
	assert_int_equal(m.map.nregions, 2);
	assert_true(m.map.region[1].gpa == 4 * GIB && m.map.region[1].size == 64 * GIB);
	*(char *)guest_memory_ptr(&m.map, 68 * GIB - 1, 1) = 1;
	assert_int_equal(x86_boot_load(&m, &f.b, NULL), 0);
	memcpy(&bp, (uint8_t *)m.host + X86_ZERO_PAGE, sizeof(bp));
	for (unsigned i = 0; i < bp.e820_entries; i++)
		assert_true(bp.e820_table[i].addr + bp.e820_table[i].size <= 512 * MIB);
	ram_done(&m);
	drop_files(&f);
}

/* A machine far larger than its host: pages exist only once they are touched. */
static void test_huge_memory(void **state)
{
	const uint64_t size = 256 * GIB;
	struct kvm_vm vm = KVM_VM_INIT;
	struct boot_params bp;
	struct err err = ERR_INIT;
	struct files f;
	struct ram m;
	int dev = -1;

	(void)state;
	if (kvm_open("/dev/kvm", &dev, NULL) < 0)
		skip();
	make_files(&f);
	if (ram_init(&m, size, X86_HOLE, RAM_PRIVATE, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(m.map.nregions, 2);
	assert_true(m.map.region[0].gpa == 0 && m.map.region[0].size == X86_HOLE);
	assert_true(m.map.region[1].gpa == 4 * GIB && m.map.region[1].size == size - X86_HOLE);
	assert_ptr_equal(m.map.region[1].host, m.map.region[0].host + X86_HOLE);
	assert_int_equal(x86_boot_load(&m, &f.b, NULL), 0);
	memcpy(&bp, (uint8_t *)m.host + X86_ZERO_PAGE, sizeof(bp));
	assert_true(bp.e820_table[bp.e820_entries - 1].addr == 4 * GIB);
	assert_true(bp.e820_table[bp.e820_entries - 1].size == size - X86_HOLE);
	/* Where the kernel finds it with 32 bits. */
	assert_true(bp.hdr.ramdisk_image + (uint64_t)bp.hdr.ramdisk_size <= X86_HOLE);
	assert_int_equal(kvm_vm_init(&vm, dev, NULL), 0);
	for (unsigned i = 0; i < m.map.nregions; i++) {
		if (kvm_vm_add_memory(&vm, m.map.region[i].gpa, m.map.region[i].size,
				      m.map.region[i].host, false, &err) < 0)
			fail_msg("%s", err.msg);
	}
	kvm_vm_done(&vm);
	ram_done(&m);
	drop_files(&f);
	assert_int_equal(ram_check_host((uint64_t)1 << 50, &err), -ENOMEM);
	assert_non_null(strstr(err.msg, "more than this host has"));
}

static void test_boot_refusals(void **state)
{
	char *line = malloc(4096);
	struct err err = ERR_INIT;
	struct files f;
	struct ram m;

	(void)state;
	memset(line, 'x', 4095);
	line[4095] = '\0';
	make_files(&f);
	assert_int_equal(ram_init(&m, 16 * MIB, X86_HOLE, RAM_PRIVATE, NULL), 0);
	assert_int_equal(x86_boot_load(&m, &f.b, &err), -ENOMEM);
	assert_non_null(strstr(err.msg, "18 MiB"));
	ram_done(&m);
	assert_int_equal(ram_init(&m, 32 * MIB, X86_HOLE, RAM_PRIVATE, NULL), 0);
	/* An initramfs that does not fit above the kernel. */
	f.k.end = 32 * MIB;
	assert_int_equal(x86_boot_load(&m, &f.b, &err), -ENOMEM);
	f.k.end = 17 * MIB;
	f.b.cmdline = line;
	assert_int_equal(x86_boot_load(&m, &f.b, &err), -ERR_LIMIT);
	f.b.cmdline = "quiet";
	/* Over what we keep below 1 MiB, outside memory, or with an entry that is nowhere. */
	f.k.segments[0].paddr = 0x9000;
	assert_int_equal(x86_boot_load(&m, &f.b, &err), -ENOEXEC);
	f.k.segments[0].paddr = UINT64_MAX - 4095;
	assert_int_equal(x86_boot_load(&m, &f.b, &err), -ENOEXEC);
	f.k.segments[0].paddr = 16 * MIB;
	f.k.entry = 0x1000;
	assert_int_equal(x86_boot_load(&m, &f.b, &err), -ENOEXEC);
	f.k.entry = 16 * MIB;
	/* A file that was cut after it was looked at. */
	assert_int_equal(ftruncate(f.b.kernel_fd, 100), 0);
	assert_int_equal(x86_boot_load(&m, &f.b, &err), -EIO);
	ram_done(&m);
	drop_files(&f);
	free(line);
}

/* Does @addr lie in a mapping of a file? */
static bool is_mapped_file(const void *addr)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512];
	bool found = false;

	while (f && fgets(line, sizeof(line), f)) {
		unsigned long from, to, inode;

		if (sscanf(line, "%lx-%lx %*s %*s %*s %lu", &from, &to, &inode) == 3 &&
		    (uintptr_t)addr >= from && (uintptr_t)addr < to)
			found = inode != 0;
	}
	assert_non_null(f);
	fclose(f);
	return found;
}

/* Segments cut anywhere arrive whole, mapped or copied, and what the guest writes stays private. */
static void test_loader(void **state)
{
	const size_t size = 9 * MIB;
	uint8_t *data = malloc(size), *base, *again = malloc(size);
	struct kernel_image k = {
		.segments =
			{
				{MIB, 5 * MIB + 123, 0, 5 * MIB + 123, false},
				{7 * MIB - 1, 2 * MIB, 6 * MIB, 1, false},
				{10 * MIB, MIB, 7 * MIB, 0, false},
				{12 * MIB, 4 * MIB, 7 * MIB - 3, 2 * MIB, false},
				{20 * MIB, 4 * MIB, 7 * MIB, 2 * MIB, true},
			},
		.nsegments = 5,
	};
	struct ram m;
	int fd;

	(void)state;
	for (size_t i = 0; i < size; i++)
		data[i] = (uint8_t)(i * 2654435761u >> 13);
	fd = io_memfd("kernel", data, size, NULL);
	assert_int_equal(ram_init(&m, 32 * MIB, X86_HOLE, RAM_PRIVATE, NULL), 0);
	base = m.host;
	assert_int_equal(loader_load(&k, fd, &m.map, NULL), 0);
	for (unsigned s = 0; s < k.nsegments; s++)
		assert_memory_equal(base + k.segments[s].paddr, data + k.segments[s].file_offset,
				    k.segments[s].file_size);
	/* Behind the file's bytes is nothing, even in the last page. */
	for (size_t i = 5 * MIB + 123; i < 5 * MIB + 8192; i++)
		assert_int_equal(base[MIB + i], 0);
	assert_true(is_mapped_file(base + MIB));
	assert_false(is_mapped_file(base + 12 * MIB));
	assert_false(is_mapped_file(base + 20 * MIB));
	memset(base, 0x5a, 32 * MIB);
	assert_int_equal(io_pread_full(fd, again, size, 0), size);
	assert_memory_equal(again, data, size);
	assert_int_equal(ftruncate(fd, 5 * MIB), 0);
	assert_int_equal(loader_load(&k, fd, &m.map, NULL), -EIO);
	k.segments[0].paddr = 31 * MIB;
	assert_int_equal(loader_load(&k, fd, &m.map, NULL), -EFAULT);
	ram_done(&m);
	close_fd(fd);
	free(data);
	free(again);
}

static void test_cpuid(void **state)
{
	struct kvm_cpuid2 *got = calloc(1, sizeof(*got) + 256 * sizeof(got->entries[0]));
	struct tiny t;

	(void)state;
	tiny_init_code(&t, 0xf4);
	tiny_create(&t, 4);
	assert_true(x86_cpuid_address_bits(t.cpuid) >= 36);
	for (unsigned i = 0; i < 4; i++) {
		unsigned seen = 0;

		got->nent = 256;
		if (ioctl(vcpus_fd(t.vcpus, i), KVM_GET_CPUID2, got) < 0)
			skip();
		for (unsigned k = 0; k < got->nent; k++) {
			const struct kvm_cpuid_entry2 *e = &got->entries[k];

			if (e->function == 1) {
				assert_int_equal(e->ebx >> 24, i);
				assert_int_equal(e->ebx >> 16 & 0xff, 4);
				assert_true(e->ecx & 1u << 31); /* hypervisor */
				assert_true(e->ecx & 1u << 24); /* TSC deadline */
				assert_false(e->ecx & 1u << 5); /* no VMX */
				seen |= 1;
			} else if (e->function == 0xb && e->index == 1) {
				assert_int_equal(e->ebx, 4);
				assert_int_equal(e->eax, 2);
				assert_int_equal(e->edx, i);
				seen |= 2;
			} else if (e->function == 6) {
				assert_int_equal(e->eax, 4); /* ARAT */
				seen |= 4;
			} else if (e->function == 0x80000001) {
				assert_false(e->ecx & 1u << 2); /* no SVM */
			}
		}
		assert_int_equal(seen, 7);
	}
	tiny_done(&t);
	free(got);
}

/* ---- the probe ---- */

/* True wherever this runs: on a processor, in the box, on an emulating host, without any KVM. */
static void test_probe(void **state)
{
	const char *cache = scratch_path(state, "kvm");
	struct kvm_probe first, second;
	clock_t begin;

	kvm_probe(cache, &first);
	assert_false(first.cached);
	if (first.verdict == KVM_GOOD) {
		assert_int_equal(first.why.code, 0);
	} else {
		assert_true(first.why.code != 0 && first.why.msg[0] != '\0');
		assert_true(first.verdict == KVM_FAILING || first.why.hint[0] != '\0');
	}
	if (first.verdict != KVM_GOOD && first.verdict != KVM_EMULATING)
		return;
	begin = clock();
	kvm_probe(cache, &second);
	assert_true(second.cached);
	assert_true(clock() - begin < CLOCKS_PER_SEC);
	assert_int_equal(second.verdict, first.verdict);
	assert_string_equal(second.why.msg, first.why.msg);
}

/* An answer is of this /dev/kvm as it is: another file or other permissions make it worthless. */
static void test_probe_notices_changes(void **state)
{
	const char *cache = scratch_path(state, "kvm");
	struct buf b = BUF_INIT;
	struct kvm_probe p;
	char *stamp;

	kvm_probe(cache, &p);
	if (p.verdict != KVM_GOOD && p.verdict != KVM_EMULATING)
		skip();
	assert_int_equal(io_read_file(cache, 512, &b, NULL), 0);
	/* "BOOT-DEVICE-INODE-CTIME-MODE VERDICT...": a digit of the time of its last change. */
	stamp = strchr(buf_cstr(&b), '.');
	assert_non_null(stamp);
	stamp[1] = stamp[1] == '0' ? '1' : '0';
	assert_int_equal(io_write_file_atomic(cache, buf_ptr(&b), buf_size(&b), 0600, NULL), 0);
	kvm_probe(cache, &p);
	assert_false(p.cached);
	kvm_probe(cache, &p);
	assert_true(p.cached);
	buf_done(&b);
}

static void test_probe_distrusts_its_cache(void **state)
{
	static const char *const bad[] = {
		"",
		"x",
		"00000000-0000-0000-0000-000000000000 good 1 1\n",
		"good good good good\n",
	};
	const char *cache = scratch_path(state, "kvm");
	struct kvm_probe p;
	int dev = -1;

	if (kvm_open("/dev/kvm", &dev, NULL) < 0)
		skip();
	close_fd(dev);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(io_write_file_atomic(cache, bad[i], strlen(bad[i]), 0600, NULL),
				 0);
		kvm_probe(cache, &p);
		assert_false(p.cached);
	}
	/* A place where nothing can be kept does no harm. */
	kvm_probe("/nonexistent/dir/kvm", &p);
	assert_false(p.cached);
}

static void test_open_explains(void **state)
{
	const char *path = scratch_path(state, "kvm");
	struct err err = ERR_INIT;
	int fd = -1, r;

	r = kvm_open("/nonexistent/kvm", &fd, &err);
	assert_true(r == -ENOENT || r == -ENXIO || r == -ENODEV);
	assert_true(err.msg[0] != '\0' && err.hint[0] != '\0');
	/* Something that is no KVM. */
	assert_int_equal(io_write_file_atomic(path, "", 0, 0600, NULL), 0);
	assert_true(kvm_open(path, &fd, &err) < 0);
	assert_non_null(strstr(err.msg, "does not answer"));
	assert_int_equal(fd, -1);
}

static void furnish(void **state, const char *name, const char *text)
{
	assert_int_equal(
		io_write_file_atomic(scratch_path(state, name), text, strlen(text), 0600, NULL), 0);
}

/* Each situation in its own words, with what to do. */
static void test_explains_each_situation(void **state)
{
	static const struct {
		const char *misc, *flags;
		int error, code;
		const char *said, *hint;
	} situations[] = {
		{"", "fpu vmx hypervisor", -ENOENT, -ENOENT, "not loaded", "modprobe kvm_intel"},
		{"", "fpu svm", -ENODEV, -ENOENT, "not loaded", "modprobe kvm_amd"},
		{"", "fpu hypervisor", -ENOENT, -ENXIO, "nested virtualisation is off", "managed"},
		{"", "fpu vmxnot", -ENXIO, -ENODEV, "no virtualisation", "firmware"},
		{"232 kvm\n", "fpu svm", -ENOENT, -ENOENT, "KVM is loaded, but", "--device"},
		{"1 xkvm\n", "fpu svm", -ENOENT, -ENOENT, "not loaded", "modprobe"},
		{"", "svm", -EMFILE, -EMFILE, "cannot open", ""},
	};
	char cpuinfo[128];

	for (size_t i = 0; i < ARRAY_SIZE(situations); i++) {
		struct err err = ERR_INIT;

		snprintf(cpuinfo, sizeof(cpuinfo), "processor\t: 0\nflags\t\t: %s\nbugs\t: svm\n",
			 situations[i].flags);
		furnish(state, "cpuinfo", cpuinfo);
		furnish(state, "misc", situations[i].misc);
		assert_int_equal(kvm_explain(situations[i].error, "/dev/kvm", *state, &err),
				 situations[i].code);
		assert_non_null(strstr(err.msg, situations[i].said));
		assert_non_null(strstr(err.hint, situations[i].hint));
	}
}

static void test_explains_permissions(void **state)
{
	const char *path = scratch_path(state, "kvm");
	struct err err = ERR_INIT;

	furnish(state, "kvm", "");
	assert_int_equal(kvm_explain(-EACCES, path, "/proc", &err), -EACCES);
	assert_non_null(strstr(err.msg, "may not use"));
	assert_non_null(strstr(err.hint, "read and write access"));
	assert_int_equal(chmod(path, 0660), 0);
	assert_int_equal(kvm_explain(-EPERM, path, "/proc", &err), -EACCES);
	assert_non_null(strstr(err.hint, "group"));
	if (geteuid() || chown(path, 0, 54321) < 0)
		return;
	assert_int_equal(kvm_explain(-EACCES, path, "/proc", &err), -EACCES);
	assert_non_null(strstr(err.hint, "number 54321"));
	assert_int_equal(chown(path, 0, 0), 0);
	assert_int_equal(kvm_explain(-EACCES, path, "/proc", &err), -EACCES);
	assert_non_null(strstr(err.hint, "usermod -aG root USER"));
}

static void test_verdict_names(void **state)
{
	(void)state;
	assert_string_equal(kvm_verdict_name(KVM_GOOD), "good");
	assert_string_equal(kvm_verdict_name(KVM_FAILING), "failing");
	assert_string_equal(kvm_verdict_name((enum kvm_verdict)99), "unknown");
}

int main(void)
{
#define SCRATCH(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)
#define PORT(name)    cmocka_unit_test_setup_teardown(name, port_setup, port_teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ram_shapes),    cmocka_unit_test(test_ram_refusals),
		PORT(test_uart_prints_lines),	      PORT(test_uart_is_a_16550),
		PORT(test_uart_interrupts),	      PORT(test_uart_full_pipe),
		cmocka_unit_test(test_mptable),	      cmocka_unit_test(test_boot_parameters),
		cmocka_unit_test(test_ram_more),      cmocka_unit_test(test_huge_memory),
		cmocka_unit_test(test_boot_refusals), cmocka_unit_test(test_loader),
		cmocka_unit_test(test_cpuid),	      SCRATCH(test_probe),
		SCRATCH(test_probe_notices_changes),  SCRATCH(test_probe_distrusts_its_cache),
		SCRATCH(test_open_explains),	      SCRATCH(test_explains_each_situation),
		SCRATCH(test_explains_permissions),   cmocka_unit_test(test_verdict_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
