/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/x86/boot.h"

#include <asm/bootparam.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "machine/kvm/loader.h"
#include "machine/x86/layout.h"
#include "machine/x86/mptable.h"
#include "machine/x86/registers.h"

/* Linux' COMMAND_LINE_SIZE on x86, with the NUL. */
#define CMDLINE_MAX 2048
/* What x86_write_tables() maps. */
#define MAPPED	     ((uint64_t)1 << 30)
#define PAGE	     ((uint64_t)4096)
#define EARLY_TABLES ((uint64_t)4 << 20)

/* The setup header's fields; boot.rst. */
enum {
	BOOT_FLAG = 0xaa55,
	HEADER_MAGIC = 0x53726448, /* "HdrS" */
	PROTOCOL = 0x020f,
	LOADER_UNDEFINED = 0xff,
	SEED_BYTES = 32,
	TYPE_RAM = 1, /* of the E820 map */
	TYPE_RESERVED = 2,
};
#ifndef SETUP_RNG_SEED
#define SETUP_RNG_SEED 9
#endif

static int check_kernel(const struct ram *ram, const struct x86_boot *b, struct err *err)
{
	const struct kernel_image *k = b->kernel;

	if (k->end > ram->low || k->end > MAPPED) {
		err_set(err, ENOMEM, "the kernel needs %llu MiB of memory",
			(unsigned long long)(k->end >> 20) + 1);
		return err_hint(err, "give the sandbox more memory");
	}
	for (unsigned i = 0; i < k->nsegments; i++) {
		/* What is between there and the end of memory is the loader's to check. */
		if (k->segments[i].paddr < X86_HIGH_START || k->segments[i].paddr >= k->end)
			return err_set(err, ENOEXEC,
				       "not a bootable kernel: a segment lies below 1 MiB");
	}
	if (k->entry < X86_HIGH_START || k->entry >= k->end)
		return err_set(err, ENOEXEC, "not a bootable kernel: it begins outside itself");
	return 0;
}

/* At the top of the memory below the hole. */
static int load_initramfs(const struct ram *ram, const struct x86_boot *b, uint64_t *ret_at,
			  uint64_t *ret_size, struct err *err)
{
	uint64_t at, size;
	struct stat st;
	ssize_t got;

	if (fstat(b->initramfs_fd, &st) < 0)
		return err_errno(err, "cannot read the initramfs");
	size = (uint64_t)st.st_size;
	if (size > ram->low || (at = (ram->low - size) & ~(PAGE - 1)) < b->kernel->end) {
		err_set(err, ENOMEM, "kernel and initramfs need %llu MiB of memory",
			(unsigned long long)((b->kernel->end + size) >> 20) + 1);
		return err_hint(err, "give the sandbox more memory");
	}
	*ret_at = at;
	*ret_size = size;
	got = io_pread_full(b->initramfs_fd, (uint8_t *)ram->host + at, size, 0);
	if (got < 0)
		return err_set(err, (int)got, "cannot read the initramfs: %s", err_name((int)got));
	if ((uint64_t)got != size)
		return err_set(err, EIO, "the initramfs has become shorter");
	return 0;
}

/* The kernel overwrites the seed once it has taken it. */
static int write_seed(uint8_t *base, struct err *err)
{
	const struct setup_data head = {.next = 0, .type = SETUP_RNG_SEED, .len = SEED_BYTES};
	uint8_t seed[SEED_BYTES];

	if (getrandom(seed, sizeof(seed), 0) != sizeof(seed))
		return err_errno(err, "cannot get random numbers");
	memcpy(base + X86_SETUP_DATA, &head, sizeof(head));
	memcpy(base + X86_SETUP_DATA + sizeof(head), seed, sizeof(seed));
	return 0;
}

static void add_range(struct boot_params *bp, uint64_t from, uint64_t to, uint32_t type)
{
	bp->e820_table[bp->e820_entries++] =
		(struct boot_e820_entry){.addr = from, .size = to - from, .type = type};
}

static void write_zero_page(const struct ram *ram, uint64_t initramfs, uint64_t size)
{
	struct boot_params bp = {0};

	bp.hdr.boot_flag = BOOT_FLAG;
	bp.hdr.header = HEADER_MAGIC;
	bp.hdr.version = PROTOCOL;
	bp.hdr.type_of_loader = LOADER_UNDEFINED;
	bp.hdr.loadflags = LOADED_HIGH;
	bp.hdr.cmd_line_ptr = X86_CMDLINE;
	bp.hdr.cmdline_size = CMDLINE_MAX - 1;
	bp.hdr.setup_data = X86_SETUP_DATA;
	/* Below 4 GiB: it is below the hole. */
	bp.hdr.ramdisk_image = size ? (uint32_t)initramfs : 0;
	bp.hdr.ramdisk_size = (uint32_t)size;
	add_range(&bp, 0, X86_MPTABLE, TYPE_RAM);
	add_range(&bp, X86_MPTABLE, X86_BASE_END, TYPE_RESERVED);
	add_range(&bp, X86_HIGH_START, ram->low, TYPE_RAM);
	for (unsigned i = 1; i < ram->boot; i++)
		add_range(&bp, ram->map.region[i].gpa,
			  ram->map.region[i].gpa + ram->map.region[i].size, TYPE_RAM);
	memcpy((uint8_t *)ram->host + X86_ZERO_PAGE, &bp, sizeof(bp));
}

/*
 * What a boot fills from end to end: the kernel's data, and at the top of memory the page
 * structures (64 bytes for each 4 KiB) with the hash tables and page tables that are allocated
 * next.
 */
static void advise(struct ram *ram, const struct kernel_image *k)
{
	const struct guest_region *top = &ram->map.region[ram->boot - 1];
	uint64_t dense = MIN(ram->size / 64 + EARLY_TABLES, top->size);

	ram_want_large(ram, top->gpa + top->size - dense, dense);
	for (unsigned i = 0; i < k->nsegments; i++) {
		if (k->segments[i].writable)
			ram_want_large(ram, k->segments[i].paddr, k->segments[i].memory);
	}
}

int x86_boot_load(struct ram *ram, const struct x86_boot *b, struct err *err)
{
	uint64_t initramfs = 0, size = 0;
	size_t length = strlen(b->cmdline);
	uint8_t *base = ram->host;
	int r = check_kernel(ram, b, err);

	if (r < 0)
		return r;
	if (length >= CMDLINE_MAX)
		return err_set(err, ERR_LIMIT,
			       "the kernel's command line is too long: %zu bytes of at most %d",
			       length, CMDLINE_MAX - 1);
	advise(ram, b->kernel);
	/* The rest of a segment is zero, as all memory is that nobody has touched. */
	r = loader_load(b->kernel, b->kernel_fd, &ram->map, err);
	if (r == 0)
		r = load_initramfs(ram, b, &initramfs, &size, err);
	if (r == 0)
		r = write_seed(base, err);
	if (r < 0)
		return r;
	memcpy(base + X86_CMDLINE, b->cmdline, length + 1);
	x86_write_tables(base);
	x86_mptable_write(base, b->cpus, b->lines);
	write_zero_page(ram, initramfs, size);
	return 0;
}
