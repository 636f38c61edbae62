/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel files, good and bad. */
#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "machine/kernel_image.h"

struct file {
	Elf64_Ehdr h;
	Elf64_Phdr load, note;
	struct {
		Elf64_Nhdr h;
		char name[4];
		uint32_t desc;
	} n;
	uint8_t body[64];
};

static struct file good(void)
{
	struct file f = {
		.h = {.e_type = ET_EXEC,
		      .e_machine = EM_X86_64,
		      .e_phoff = sizeof(Elf64_Ehdr),
		      .e_phentsize = sizeof(Elf64_Phdr),
		      .e_phnum = 2,
		      .e_entry = 0x1000000},
		.load = {.p_type = PT_LOAD,
			 .p_paddr = 0x1000000,
			 .p_filesz = 64,
			 .p_memsz = 4096,
			 .p_offset = offsetof(struct file, body)},
		.note = {.p_type = PT_NOTE, .p_offset = offsetof(struct file, n), .p_filesz = 20},
		.n = {.h = {4, 4, 18}, .name = "Xen", .desc = 0x1000200},
	};

	memcpy(f.h.e_ident, ELFMAG, SELFMAG);
	f.h.e_ident[EI_CLASS] = ELFCLASS64;
	f.h.e_ident[EI_DATA] = ELFDATA2LSB;
	return f;
}

static void test_good(void **state)
{
	struct file f = good();
	struct kernel_image k;

	(void)state;
	assert_int_equal(kernel_image_parse(&f, sizeof(f), &k, NULL), 0);
	assert_int_equal(k.pvh_entry, 0x1000200);
	assert_int_equal(k.nsegments, 1);
	assert_int_equal(k.end, 0x1001000);
}

static void refused(const struct file *f, size_t n, const char *why)
{
	struct err err = ERR_INIT;
	struct kernel_image k;

	assert_int_equal(kernel_image_parse(f, n, &k, &err), -ENOEXEC);
	if (!strstr(err.msg, why))
		fail_msg("\"%s\" does not say \"%s\"", err.msg, why);
	assert_true(err.hint[0]);
}

static void test_bad(void **state)
{
	struct file f;

	(void)state;
#define BAD(change, why) (f = good(), change, refused(&f, sizeof(f), why))
	BAD(f.h.e_ident[0] = 0, "no ELF");
	BAD(f.h.e_machine = EM_AARCH64, "another architecture");
	BAD(f.h.e_ident[EI_CLASS] = ELFCLASS32, "another architecture");
	BAD(f.h.e_type = ET_REL, "no executable");
	BAD(f.h.e_phnum = 0, "malformed");
	BAD(f.h.e_phnum = 0xffff, "malformed");
	BAD(f.h.e_phentsize = 1, "malformed");
	BAD(f.h.e_phoff = UINT64_MAX - 8, "cut short");
	BAD(f.load.p_offset = UINT64_MAX, "cut short");
	BAD(f.load.p_filesz = 1000, "cut short");
	BAD(f.load.p_memsz = 1, "impossible size");
	BAD(f.load.p_paddr = UINT64_MAX - 4, "impossible size");
	BAD(f.load.p_type = PT_NULL, "nothing to load");
	BAD(f.note.p_type = PT_NULL, "no PVH");
	BAD(f.n.h.n_type = 1, "no PVH");
	BAD(f.n.h.n_descsz = UINT32_MAX, "no PVH");
	BAD(f.n.h.n_namesz = UINT32_MAX, "no PVH");
	BAD(f.note.p_offset = UINT64_MAX - 2, "no PVH");
#undef BAD
	f = good();
	for (size_t n = 0; n < offsetof(struct file, body) + 64; n++) {
		struct kernel_image k;
		assert_true(kernel_image_parse(&f, n, &k, NULL) < 0);
	}
}

static void test_files(void **state)
{
	struct err err = ERR_INIT;
	struct kernel_image k;

	(void)state;
	assert_int_equal(kernel_image_read("/nonexistent", &k, &err), -ENOENT);
	assert_int_equal(kernel_image_read("/etc/passwd", &k, &err), -ENOEXEC);
	assert_non_null(strstr(err.msg, "/etc/passwd"));
	assert_int_equal(kernel_image_read("/proc/self/exe", &k, &err), -ENOEXEC);
	assert_int_equal(kernel_image_read("/tmp", &k, &err), -EINVAL);
	assert_int_equal(kernel_image_read("/dev/zero", &k, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
