/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/kernel_image.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/cleanup.h"

/* Xen's public/elfnote.h */
#define XEN_ELFNOTE_PHYS32_ENTRY 18

/* Program headers and notes of a kernel are a handful; the caps only bound hostile files. */
enum { PHDRS_MAX = 64, NOTES_MAX = 256 };

struct view {
	const uint8_t *p;
	size_t n;
};

/* @len bytes at @off, or NULL. */
static const void *at(const struct view *v, uint64_t off, uint64_t len)
{
	return off <= v->n && len <= v->n - off ? v->p + off : NULL;
}

static int not_a_kernel(struct err *err, const char *why)
{
	err_set(err, ENOEXEC, "not a bootable kernel: %s", why);
	return err_hint(err,
			"it must be an uncompressed x86-64 Linux ELF file (vmlinux) built with "
			"CONFIG_PVH=y");
}

static int check_header(const struct view *v, Elf64_Ehdr *h, struct err *err)
{
	const void *p = at(v, 0, sizeof(*h));

	if (!p || memcmp(p, ELFMAG, SELFMAG)) {
		if (v->n > 0x206 && !memcmp(v->p + 0x202, "HdrS", 4))
			return not_a_kernel(err, "it is a bzImage, which is compressed");
		return not_a_kernel(err, "it is no ELF file");
	}
	memcpy(h, p, sizeof(*h));
	if (h->e_ident[EI_CLASS] != ELFCLASS64 || h->e_ident[EI_DATA] != ELFDATA2LSB ||
	    h->e_machine != EM_X86_64)
		return not_a_kernel(err, "it is for another architecture");
	if (h->e_type != ET_EXEC && h->e_type != ET_DYN)
		return not_a_kernel(err, "it is no executable");
	if (h->e_phentsize != sizeof(Elf64_Phdr) || h->e_phnum == 0 || h->e_phnum > PHDRS_MAX)
		return not_a_kernel(err, "its program headers are malformed");
	return 0;
}

static int add_segment(const struct view *v, const Elf64_Phdr *ph, struct kernel_image *k,
		       struct err *err)
{
	uint64_t end;

	if (ph->p_memsz == 0)
		return 0;
	if (!at(v, ph->p_offset, ph->p_filesz))
		return not_a_kernel(err, "it is cut short");
	if (ph->p_filesz > ph->p_memsz || __builtin_add_overflow(ph->p_paddr, ph->p_memsz, &end))
		return not_a_kernel(err, "a segment has an impossible size");
	if (k->nsegments == KERNEL_SEGMENTS_MAX)
		return not_a_kernel(err, "it has too many segments");
	k->segments[k->nsegments++] = (struct kernel_segment){
		ph->p_paddr, ph->p_memsz, ph->p_offset, ph->p_filesz, (ph->p_flags & PF_W) != 0};
	k->end = MAX(k->end, end);
	return 0;
}

static uint64_t pad4(uint64_t n)
{
	return (n + 3) & ~(uint64_t)3;
}

static void find_entry_note(const struct view *v, const Elf64_Phdr *ph, struct kernel_image *k)
{
	uint64_t off = ph->p_offset, left = ph->p_filesz;

	for (unsigned i = 0; i < NOTES_MAX && left >= sizeof(Elf64_Nhdr); i++) {
		Elf64_Nhdr n;
		const void *p = at(v, off, sizeof(n)), *name, *desc;
		uint64_t size;

		if (!p)
			return;
		memcpy(&n, p, sizeof(n));
		size = sizeof(n) + pad4(n.n_namesz) + pad4(n.n_descsz);
		name = at(v, off + sizeof(n), n.n_namesz);
		desc = at(v, off + sizeof(n) + pad4(n.n_namesz), n.n_descsz);
		if (size > left || !name || !desc)
			return;
		if (n.n_type == XEN_ELFNOTE_PHYS32_ENTRY && n.n_namesz == 4 &&
		    !memcmp(name, "Xen", 4) && (n.n_descsz == 4 || n.n_descsz == 8)) {
			k->pvh_entry = 0;
			memcpy(&k->pvh_entry, desc, n.n_descsz);
			return;
		}
		off += size;
		left -= size;
	}
}

int kernel_image_parse(const void *data, size_t size, struct kernel_image *ret, struct err *err)
{
	const struct view v = {data, size};
	struct kernel_image k = {0};
	Elf64_Ehdr h;
	int r = check_header(&v, &h, err);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < h.e_phnum; i++) {
		Elf64_Phdr ph;
		const void *p = at(&v, h.e_phoff + i * sizeof(ph), sizeof(ph));

		if (!p || h.e_phoff > size)
			return not_a_kernel(err, "it is cut short");
		memcpy(&ph, p, sizeof(ph));
		if (ph.p_type == PT_LOAD) {
			r = add_segment(&v, &ph, &k, err);
			if (r < 0)
				return r;
		} else if (ph.p_type == PT_NOTE) {
			find_entry_note(&v, &ph, &k);
		}
	}
	if (!k.nsegments)
		return not_a_kernel(err, "it has nothing to load");
	if (!k.pvh_entry || k.pvh_entry > UINT32_MAX)
		return not_a_kernel(err, "it has no PVH entry point");
	k.entry = h.e_entry;
	*ret = k;
	return 0;
}

int kernel_image_read(const char *path, struct kernel_image *ret, struct err *err)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *p;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(err, "cannot open kernel %s", path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, EINVAL, "kernel %s is not a file", path);
	if (st.st_size == 0) {
		not_a_kernel(err, "it is empty");
		return err_wrap(err, "%s", path);
	}
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return err_errno(err, "cannot read kernel %s", path);
	r = kernel_image_parse(p, (size_t)st.st_size, ret, err);
	munmap(p, (size_t)st.st_size);
	return r < 0 ? err_wrap(err, "%s", path) : 0;
}
