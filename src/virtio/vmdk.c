/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The descriptor is lines: comments, `key=value` of a few keys, and extents:
 *
 *	RW 4194304 FLAT "disk-f001.vmdk" 0
 *	access, sectors of 512 bytes, type, file, first sector in the file
 */
#include "virtio/vmdk.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"

static const char convert[] = "`qemu-img convert -O qcow2` makes an image that can be used";

/* The next word of a line, cut out in place; quotes hold it together. NULL at the end. */
static char *next_word(char **line)
{
	char *p = *line + strspn(*line, " \t"), *end;

	if (!*p)
		return NULL;
	if (*p == '"') {
		end = strchr(++p, '"');
		if (!end)
			return NULL;
	} else {
		end = p + strcspn(p, " \t");
	}
	*line = *end ? end + 1 : end;
	*end = '\0';
	return p;
}

/* A name of its own directory, and nothing but. */
static bool plain_name(const char *s)
{
	if (!*s || strlen(s) > VMDK_NAME_MAX || str_eq(s, ".") || str_eq(s, ".."))
		return false;
	for (; *s; s++) {
		if (*s == '/' || *s == '\\' || (unsigned char)*s < ' ')
			return false;
	}
	return true;
}

static int parse_extent(char *line, unsigned number, struct vmdk_extent *ret, struct err *err)
{
	const char *access = next_word(&line), *sectors = next_word(&line);
	const char *type = next_word(&line), *file, *first;
	uint64_t offset = 0;

	if (!sectors || !type ||
	    str_to_u64(sectors, INT64_MAX / BLK_SECTOR / VMDK_EXTENTS_MAX, &ret->sectors) < 0 ||
	    !ret->sectors)
		return err_set(err, ERR_CORRUPT, "line %u: an extent without a size", number);
	if (str_eq(access, "NOACCESS"))
		return err_set(err, ERR_UNSUPPORTED, "line %u: an extent that may not be read",
			       number);
	ret->read_only = str_eq(access, "RDONLY");
	ret->file[0] = '\0';
	ret->offset = 0;
	if (str_eq(type, "ZERO"))
		return 0;
	if (!str_eq(type, "FLAT") && !str_eq(type, "VMFS")) {
		err_set(err, ERR_UNSUPPORTED, "line %u: extents of type %.20s are not supported",
			number, type);
		return err_hint(err, "%s", convert);
	}
	file = next_word(&line);
	first = file ? next_word(&line) : NULL;
	if (!file || !plain_name(file)) {
		err_set(err, ERR_CORRUPT, "line %u: an extent must name a file next to it", number);
		return err_hint(err, "paths are not followed; put all files into one directory");
	}
	if (first && str_to_u64(first, INT64_MAX / BLK_SECTOR - ret->sectors, &offset) < 0)
		return err_set(err, ERR_CORRUPT, "line %u: the extent's offset is no number",
			       number);
	snprintf(ret->file, sizeof(ret->file), "%s", file);
	ret->offset = offset * BLK_SECTOR;
	return 0;
}

/* The keys that decide whether we can read it; the database of geometry and tools is skipped. */
static int parse_setting(const char *key, const char *value, struct err *err)
{
	static const char *const flat[] = {"monolithicFlat", "twoGbMaxExtentFlat", "vmfs",
					   "vmfsPreallocated", "vmfsEagerZeroedThick"};

	if (strcasecmp(key, "version") == 0 && !str_eq(value, "1"))
		return err_set(err, ERR_UNSUPPORTED, "its descriptor is of version %.20s", value);
	if (strcasecmp(key, "parentCID") == 0 && strcasecmp(value, "ffffffff") != 0) {
		err_set(err, ERR_UNSUPPORTED, "it holds the differences to another disk");
		return err_hint(err, "%s", convert);
	}
	if (strcasecmp(key, "createType") == 0) {
		for (size_t i = 0; i < ARRAY_SIZE(flat); i++) {
			if (strcasecmp(value, flat[i]) == 0)
				return 0;
		}
		err_set(err, ERR_UNSUPPORTED, "disks of type %.40s are not supported", value);
		return err_hint(err, "%s", convert);
	}
	return 0;
}

static int parse_line(char *line, unsigned number, struct vmdk *v, bool *has_type, struct err *err)
{
	static const char *const access[] = {"RW ", "RDONLY ", "NOACCESS "};
	char *eq, *key, *value;
	int r;

	line += strspn(line, " \t");
	line[strcspn(line, "\r")] = '\0';
	if (!*line || *line == '#')
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(access); i++) {
		if (!str_starts(line, access[i]))
			continue;
		if (v->n == VMDK_EXTENTS_MAX)
			return err_set(err, ERR_LIMIT, "it has more than %u extents",
				       VMDK_EXTENTS_MAX);
		r = parse_extent(line, number, &v->extents[v->n], err);
		if (r == 0)
			v->sectors += v->extents[v->n++].sectors;
		return r;
	}
	eq = strchr(line, '=');
	if (!eq)
		return err_set(err, ERR_CORRUPT, "line %u: neither a setting nor an extent",
			       number);
	*eq++ = '\0';
	key = next_word(&line);
	value = next_word(&eq);
	if (!key)
		return err_set(err, ERR_CORRUPT, "line %u: a setting without a name", number);
	*has_type |= strcasecmp(key, "createType") == 0;
	return parse_setting(key, value ? value : "", err);
}

int vmdk_parse(const void *text, size_t len, struct vmdk *ret, struct err *err)
{
	static const char magic[] = "# Disk DescriptorFile";
	cleanup_free char *copy = NULL;
	struct vmdk v = {0};
	bool has_type = false;
	char *rest;
	int r = 0;

	if (len >= 4 && (memcmp(text, "KDMV", 4) == 0 || memcmp(text, "COWD", 4) == 0)) {
		err_set(err, ERR_UNSUPPORTED,
			"it is a sparse VMDK disk; only flat ones are "
			"supported");
		return err_hint(err, "%s", convert);
	}
	if (len < strlen(magic) || strncasecmp(text, magic, strlen(magic)) != 0)
		return err_set(err, ERR_CORRUPT, "it is no VMDK descriptor");
	/* Some pad it with zeros. */
	while (len && !((const char *)text)[len - 1])
		len--;
	if (len > VMDK_DESCRIPTOR_MAX || memchr(text, 0, len))
		return err_set(err, ERR_CORRUPT, "its VMDK descriptor is no text, or too long");
	/* Not by strndup(), which sanitizers let read no text that ends with its memory. */
	copy = malloc(len + 1);
	v.extents = calloc(VMDK_EXTENTS_MAX, sizeof(*v.extents));
	if (!copy || !v.extents) {
		free(v.extents);
		return err_set(err, ENOMEM, "out of memory");
	}
	memcpy(copy, text, len);
	copy[len] = '\0';
	rest = copy;
	for (unsigned number = 1; rest && r == 0; number++) {
		char *line = strsep(&rest, "\n");

		r = parse_line(line, number, &v, &has_type, err);
	}
	if (r == 0 && (!has_type || !v.n))
		r = err_set(err, ERR_CORRUPT, "its VMDK descriptor is not complete");
	if (r < 0) {
		free(v.extents);
		return r;
	}
	*ret = v;
	return 0;
}

static int open_extents(const struct vmdk *v, int dirfd, bool read_only, vmdk_lock_fn *lock,
			void *arg, struct blk_extent *e, size_t *n, struct err *err)
{
	uint64_t start = 0;

	for (size_t i = 0; i < v->n; i++) {
		const struct vmdk_extent *x = &v->extents[i];
		uint64_t length = x->sectors * BLK_SECTOR;
		struct stat st;
		int r;

		if (!read_only && (x->read_only || !x->file[0]))
			return err_set(err, ERR_UNSUPPORTED,
				       "a part of the disk is read-only by its descriptor");
		start += length;
		if (!x->file[0])
			continue;
		e[*n] = (struct blk_extent){start - length, length, -1, x->offset};
		e[*n].fd = openat(dirfd, x->file,
				  (read_only ? O_RDONLY : O_RDWR) | O_NOFOLLOW | O_NONBLOCK |
					  O_CLOEXEC);
		if (e[*n].fd < 0)
			return err_errno(err, "cannot open extent %s", x->file);
		r = fstat(e[(*n)++].fd, &st);
		if (r < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size < x->offset + length)
			return err_set(err, ERR_CORRUPT, "extent %s is not a file of its size",
				       x->file);
		r = lock ? lock(arg, e[*n - 1].fd, !read_only, err) : 0;
		if (r < 0)
			return err_wrap(err, "extent %s", x->file);
	}
	return 0;
}

int vmdk_open(int fd, int dirfd, bool read_only, vmdk_lock_fn *lock, void *arg,
	      struct blk_disk **ret, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;
	cleanup_free struct blk_extent *e = NULL;
	struct vmdk v = {0};
	size_t n = 0;
	ssize_t got;
	void *p = buf_reserve(&b, VMDK_DESCRIPTOR_MAX + 1);
	int r;

	if (!p)
		return err_set(err, ENOMEM, "out of memory");
	got = io_pread_full(fd, p, VMDK_DESCRIPTOR_MAX + 1, 0);
	if (got < 0)
		return err_set(err, (int)got, "cannot read it: %s", err_name((int)got));
	r = vmdk_parse(p, (size_t)got, &v, err);
	if (r < 0)
		return r;
	e = calloc(v.n, sizeof(*e));
	r = e ? open_extents(&v, dirfd, read_only, lock, arg, e, &n, err)
	      : err_set(err, ENOMEM, "out of memory");
	if (r == 0)
		r = blk_pieces_new(e, n, v.sectors * BLK_SECTOR, read_only, ret, err);
	for (size_t i = 0; i < n && r < 0; i++)
		close_fd(e[i].fd);
	free(v.extents);
	return r;
}
