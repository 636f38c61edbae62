/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "tree/tar.h"
#include "tree/tar_write.h"

/* POSIX.1-1988 ustar header; offsets checked below. */
struct tar_header {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type;
	char link[100], magic[8], uname[32], gname[32], major[8], minor[8], prefix[155], pad[12];
};
_Static_assert(sizeof(struct tar_header) == TAR_BLOCK, "a tar header is one block");

/* Old GNU sparse header: four fragments inside the first header, 21 in each continuation. */
#define GNU_SPARSE_AT	  386
#define GNU_SPARSE_MORE	  482
#define GNU_SPARSE_SIZE	  483
#define GNU_SPARSE_FIRST  4
#define GNU_SPARSE_NEXT	  21
#define GNU_SPARSE_MORE_2 504

struct fragment {
	uint64_t off, len;
};

struct tar {
	tar_read_fn *read;
	tar_skip_fn *skip;
	void *arg;
	const uint8_t *p; /* unread rest of the last piece */
	size_t n;
	uint64_t pos; /* of p in the archive */
	bool ended, complete;

	uint64_t data_left, pad_left;
	uint64_t file_off; /* logical offset of the next data byte, when not sparse */

	struct buf pax, path, link, xattr_names;
	struct tar_xattr *xattrs;
	size_t xattr_count, xattr_cap;

	bool sparse;
	struct fragment *map;
	size_t map_len, map_cap, map_at;
	uint64_t map_done; /* of the current fragment */

	/* From pax headers, for the next entry. */
	bool has_path, has_link, has_size, has_uid, has_gid, has_mtime;
	uint64_t size, uid, gid, real_size;
	int64_t mtime;
	uint32_t mtime_ns;
	bool has_real_size;
	unsigned sparse_major, sparse_minor;
	bool has_sparse, has_sparse_name;
	uint64_t sparse_off; /* GNU.sparse.offset waiting for its numbytes */
};

static int corrupt(struct tar *t, const char *what, struct err *err)
{
	return err_set(err, ERR_CORRUPT, "bad tar archive: %s at byte %llu", what,
		       (unsigned long long)t->pos);
}

int tar_open(struct tar **ret, tar_read_fn *read, tar_skip_fn *skip, void *arg, struct err *err)
{
	struct tar *t = calloc(1, sizeof(*t));

	if (!t)
		return err_set(err, ENOMEM, "out of memory");
	t->read = read;
	t->skip = skip;
	t->arg = arg;
	t->pax.max = t->path.max = t->link.max = t->xattr_names.max = TAR_EXTENDED_MAX;
	*ret = t;
	return 0;
}

struct tar *tar_close(struct tar *t)
{
	if (!t)
		return NULL;
	buf_done(&t->pax);
	buf_done(&t->path);
	buf_done(&t->link);
	buf_done(&t->xattr_names);
	free(t->xattrs);
	free(t->map);
	free(t);
	return NULL;
}

/* Have at least one unread byte: 1, or 0 at the end. */
static int tar_fill(struct tar *t, struct err *err)
{
	int r;

	if (t->n)
		return 1;
	if (t->ended)
		return 0;
	r = t->read(t->arg, &t->p, &t->n, err);
	if (r == 0)
		t->ended = true;
	return r;
}

static void tar_consume(struct tar *t, size_t n)
{
	t->p += n;
	t->n -= n;
	t->pos += n;
}

/* @n bytes to @out: 1, or 0 if the archive ended before the first. */
static int tar_take(struct tar *t, void *out, size_t n, struct err *err)
{
	size_t have = 0;

	while (have < n) {
		int r = tar_fill(t, err);
		size_t piece;

		if (r < 0)
			return r;
		if (r == 0)
			return have ? corrupt(t, "it is cut off", err) : 0;
		piece = MIN(t->n, n - have);
		memcpy((uint8_t *)out + have, t->p, piece);
		tar_consume(t, piece);
		have += piece;
	}
	return 1;
}

static int tar_discard(struct tar *t, uint64_t n, struct err *err)
{
	while (n) {
		size_t piece = (size_t)MIN((uint64_t)t->n, n);
		int r;

		tar_consume(t, piece);
		n -= piece;
		if (!n)
			break;
		if (t->skip) {
			r = t->skip(t->arg, n, err);
			if (r < 0)
				return r;
			t->pos += n;
			break;
		}
		r = tar_fill(t, err);
		if (r < 0)
			return r;
		if (r == 0)
			return corrupt(t, "it is cut off", err);
	}
	return 0;
}

/* Octal, or base-256 when the first bit is set; -ERANGE beyond int64_t, -EINVAL for garbage. */
static int tar_number(const char *field, size_t n, int64_t *ret)
{
	const uint8_t *p = (const uint8_t *)field, *end = p + n;
	uint64_t v = 0;

	if (*p & 0x80) {
		bool negative = *p & 0x40;

		v = negative ? UINT64_MAX : 0;
		for (size_t i = 0; i < n; i++) {
			uint8_t b = p[i];

			if (i == 0)
				b = negative ? b | 0x80 : b & 0x7f;
			/* What is shifted out must be nothing but sign. */
			if (v >> 55 != (negative ? 0x1ffu : 0))
				return -ERANGE;
			v = v << 8 | b;
		}
		*ret = (int64_t)v;
		return 0;
	}
	while (p < end && *p == ' ')
		p++;
	for (; p < end && *p >= '0' && *p <= '7'; p++) {
		if (v >> 60)
			return -ERANGE;
		v = v << 3 | (uint64_t)(*p - '0');
	}
	if (p < end && *p != ' ' && *p != 0)
		return -EINVAL;
	*ret = (int64_t)v;
	return 0;
}

static int tar_unsigned(struct tar *t, const char *field, size_t n, uint64_t max, const char *what,
			uint64_t *ret, struct err *err)
{
	int64_t v;

	if (tar_number(field, n, &v) < 0 || v < 0 || (uint64_t)v > max)
		return corrupt(t, what, err);
	*ret = (uint64_t)v;
	return 0;
}

static bool tar_checksum_ok(const struct tar_header *h)
{
	const uint8_t *p = (const uint8_t *)h;
	const size_t at = offsetof(struct tar_header, checksum);
	int64_t want, sum = 0, signed_sum = 0;

	if (tar_number(h->checksum, sizeof(h->checksum), &want) < 0)
		return false;
	for (size_t i = 0; i < TAR_BLOCK; i++) {
		uint8_t b = i >= at && i < at + sizeof(h->checksum) ? ' ' : p[i];

		sum += b;
		signed_sum += (int8_t)b; /* as some old Sun tars did */
	}
	return want == sum || want == signed_sum;
}

static void tar_reset_entry(struct tar *t)
{
	buf_reset(&t->path);
	buf_reset(&t->link);
	buf_reset(&t->xattr_names);
	t->xattr_count = 0;
	t->has_path = t->has_link = t->has_size = t->has_uid = t->has_gid = t->has_mtime = false;
	t->has_sparse = t->has_real_size = t->has_sparse_name = t->sparse = false;
	t->sparse_major = t->sparse_minor = 0;
	t->map_len = t->map_at = 0;
	t->map_done = 0;
	t->file_off = 0;
}

/* The body of an extension header, padding included, appended to @b. */
static int tar_extension(struct tar *t, uint64_t size, struct buf *b, struct err *err)
{
	uint8_t *p;
	int r;

	if (size > TAR_EXTENDED_MAX - 1)
		return err_set(err, ERR_LIMIT, "tar header of %llu bytes; at most %u are allowed",
			       (unsigned long long)size, TAR_EXTENDED_MAX - 1);
	buf_reset(b);
	if (size == 0)
		return 0;
	p = buf_reserve(b, size);
	if (!p)
		return err_set(err, ENOMEM, "out of memory");
	r = tar_take(t, p, size, err);
	if (r == 0)
		return corrupt(t, "it is cut off", err);
	if (r < 0)
		return r;
	buf_commit(b, size);
	return tar_discard(t, -size & (TAR_BLOCK - 1), err);
}

static void add_text(struct buf *b, const char *p, size_t n)
{
	if (n)
		buf_add(b, p, n);
}

static int set_text(struct tar *t, struct buf *b, const void *p, size_t n, struct err *err)
{
	if (memchr(p, 0, n))
		return corrupt(t, "a name contains a zero byte", err);
	buf_reset(b);
	add_text(b, p, n);
	return buf_failed(b) ? err_set(err, ENOMEM, "out of memory") : 0;
}

static int map_add(struct tar *t, uint64_t off, uint64_t len, struct err *err)
{
	if (t->map_len == TAR_SPARSE_MAX)
		return err_set(err, ERR_LIMIT, "sparse file of more than %u fragments",
			       TAR_SPARSE_MAX);
	if (t->map_len == t->map_cap) {
		size_t cap = t->map_cap ? t->map_cap * 2 : 16;
		struct fragment *m = realloc(t->map, cap * sizeof(*m));

		if (!m)
			return err_set(err, ENOMEM, "out of memory");
		t->map = m;
		t->map_cap = cap;
	}
	t->map[t->map_len++] = (struct fragment){off, len};
	return 0;
}

/* Decimal @p..@end, all of it. */
static bool parse_decimal(const char *p, const char *end, uint64_t *ret)
{
	uint64_t v = 0;

	if (p == end)
		return false;
	for (; p < end; p++) {
		if (*p < '0' || *p > '9' || __builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
			return false;
	}
	*ret = v;
	return true;
}

/* "[-]seconds[.fraction]"; digits beyond nanoseconds are dropped towards the past. */
static bool parse_time(const char *p, const char *end, int64_t *ret, uint32_t *ret_ns)
{
	bool negative = p < end && *p == '-';
	const char *dot = memchr(p, '.', (size_t)(end - p));
	uint64_t s;
	uint32_t ns = 0;
	int64_t t;

	if (negative)
		p++;
	if (!parse_decimal(p, dot ? dot : end, &s) || s > INT64_MAX / 2)
		return false;
	t = (int64_t)s;
	if (dot) {
		uint32_t scale = 100000000;

		for (p = dot + 1; p < end; p++, scale /= 10) {
			if (*p < '0' || *p > '9')
				return false;
			ns += (uint32_t)(*p - '0') * scale;
		}
	}
	if (negative) {
		t = -t;
		if (ns) {
			t--;
			ns = 1000000000 - ns;
		}
	}
	*ret = t;
	*ret_ns = ns;
	return true;
}

static int add_xattr(struct tar *t, const char *name, size_t name_len, const char *value,
		     size_t len, struct err *err)
{
	size_t i;

	if (memchr(name, 0, name_len) || name_len == 0)
		return corrupt(t, "an extended attribute has a bad name", err);
	for (i = 0; i < t->xattr_count; i++)
		if (strlen(t->xattrs[i].name) == name_len &&
		    memcmp(t->xattrs[i].name, name, name_len) == 0)
			break;
	if (i == t->xattr_count) {
		if (t->xattr_count == TAR_XATTRS_MAX)
			return err_set(err, ERR_LIMIT,
				       "more than %u extended attributes on one file",
				       TAR_XATTRS_MAX);
		if (t->xattr_count == t->xattr_cap) {
			size_t cap = t->xattr_cap ? t->xattr_cap * 2 : 8;
			struct tar_xattr *x = realloc(t->xattrs, cap * sizeof(*x));

			if (!x)
				return err_set(err, ENOMEM, "out of memory");
			t->xattrs = x;
			t->xattr_cap = cap;
		}
		t->xattr_count++;
	}
	/* The record ends in '=', which the caller has made a NUL: the name can stay in place. */
	t->xattrs[i] = (struct tar_xattr){name, (const uint8_t *)value, len};
	return 0;
}

static int pax_record(struct tar *t, char *key, size_t key_len, const char *value, size_t len,
		      struct err *err)
{
	static const char xattr[] = "SCHILY.xattr.";
	const size_t xattr_len = sizeof(xattr) - 1;
	const char *end = value + len;
	uint64_t v, w;

	/* POSIX: an empty value deletes the record, but an empty attribute is a value. */
	if (key_len > xattr_len && memcmp(key, xattr, xattr_len) == 0)
		return add_xattr(t, key + xattr_len, key_len - xattr_len, value, len, err);
	if (strlen(key) != key_len)
		return corrupt(t, "a pax key contains a zero byte", err);
	if (str_eq(key, "path")) {
		if (t->has_sparse_name)
			return 0;
		t->has_path = len != 0;
		return set_text(t, &t->path, value, len, err);
	}
	if (str_eq(key, "GNU.sparse.name")) {
		t->has_path = t->has_sparse_name = len != 0;
		return set_text(t, &t->path, value, len, err);
	}
	if (str_eq(key, "linkpath")) {
		t->has_link = len != 0;
		return set_text(t, &t->link, value, len, err);
	}
	if (str_eq(key, "mtime")) {
		t->has_mtime = len != 0;
		if (len && !parse_time(value, end, &t->mtime, &t->mtime_ns))
			return corrupt(t, "bad time stamp in a pax header", err);
		return 0;
	}
	if (str_eq(key, "GNU.sparse.map")) {
		const char *p = value;

		t->has_sparse = true;
		while (p < end) {
			const char *c = memchr(p, ',', (size_t)(end - p));
			const char *e = c ? memchr(c + 1, ',', (size_t)(end - c - 1)) : NULL;
			int r;

			if (!c || !parse_decimal(p, c, &v) ||
			    !parse_decimal(c + 1, e ? e : end, &w))
				return corrupt(t, "bad sparse map", err);
			r = map_add(t, v, w, err);
			if (r < 0)
				return r;
			p = e ? e + 1 : end;
		}
		return 0;
	}

	static const char *const numbers[] = {
		"size",
		"uid",
		"gid",
		"GNU.sparse.major",
		"GNU.sparse.minor",
		"GNU.sparse.realsize",
		"GNU.sparse.size",
		"GNU.sparse.offset",
		"GNU.sparse.numbytes",
	};
	size_t which = 0;

	while (which < ARRAY_SIZE(numbers) && !str_eq(key, numbers[which]))
		which++;
	if (which == ARRAY_SIZE(numbers) || len == 0)
		return 0;
	if (!parse_decimal(value, end, &v) || v > INT64_MAX)
		return corrupt(t, "bad number in a pax header", err);
	switch (which) {
	case 0:
		t->has_size = true;
		t->size = v;
		return 0;
	case 1:
		t->has_uid = true;
		t->uid = v;
		return 0;
	case 2:
		t->has_gid = true;
		t->gid = v;
		return 0;
	case 3:
		t->has_sparse = true;
		t->sparse_major = v > 9 ? 9 : (unsigned)v;
		return 0;
	case 4:
		t->sparse_minor = v > 9 ? 9 : (unsigned)v;
		return 0;
	case 5:
	case 6:
		t->has_real_size = true;
		t->real_size = v;
		return 0;
	case 7:
		t->has_sparse = true;
		t->sparse_off = v;
		return 0;
	default:
		return map_add(t, t->sparse_off, v, err);
	}
}

static int pax_parse(struct tar *t, struct err *err)
{
	char *p = (char *)buf_ptr(&t->pax), *end = p + buf_size(&t->pax);

	while (p < end) {
		char *space = memchr(p, ' ', MIN((size_t)(end - p), (size_t)20));
		char *eq;
		uint64_t len;
		int r;

		/* Some writers pad with NUL. */
		if (*p == 0)
			break;
		if (!space || !parse_decimal(p, space, &len) || len > (uint64_t)(end - p) ||
		    len < (uint64_t)(space - p) + 3 || p[len - 1] != '\n')
			return corrupt(t, "bad pax header", err);
		eq = memchr(space + 1, '=', (size_t)(p + len - 1 - (space + 1)));
		if (!eq || eq == space + 1)
			return corrupt(t, "bad pax header", err);
		*eq = 0;
		r = pax_record(t, space + 1, (size_t)(eq - space - 1), eq + 1,
			       (size_t)(p + len - 1 - (eq + 1)), err);
		if (r < 0)
			return r;
		p += len;
	}
	return 0;
}

/* pax 1.0: the map is text in front of the data, padded to a block. */
static int sparse_map_1_0(struct tar *t, struct err *err)
{
	uint64_t count = 0, fields = 0, off = 0, v = 0;
	bool digits = false;

	for (;;) {
		char block[TAR_BLOCK];
		int r;

		if (t->data_left < TAR_BLOCK)
			return corrupt(t, "bad sparse map", err);
		r = tar_take(t, block, TAR_BLOCK, err);
		if (r <= 0)
			return r < 0 ? r : corrupt(t, "it is cut off", err);
		t->data_left -= TAR_BLOCK;
		for (size_t i = 0; i < TAR_BLOCK; i++) {
			if (block[i] >= '0' && block[i] <= '9') {
				digits = true;
				if (__builtin_mul_overflow(v, 10, &v) ||
				    __builtin_add_overflow(v, (uint64_t)(block[i] - '0'), &v))
					return corrupt(t, "bad sparse map", err);
				continue;
			}
			if (block[i] != '\n' || !digits)
				return corrupt(t, "bad sparse map", err);
			if (fields == 0) {
				if (v > TAR_SPARSE_MAX)
					return err_set(err, ERR_LIMIT,
						       "sparse file of more than %u fragments",
						       TAR_SPARSE_MAX);
				count = v;
			} else if (fields % 2) {
				off = v;
			} else {
				r = map_add(t, off, v, err);
				if (r < 0)
					return r;
			}
			digits = false;
			v = 0;
			if (fields++ == 2 * count)
				return 0;
		}
	}
}

static int sparse_map_old(struct tar *t, const struct tar_header *h, struct err *err)
{
	char block[TAR_BLOCK];
	const char *p = (const char *)h;
	size_t at = GNU_SPARSE_AT, n = GNU_SPARSE_FIRST, more = GNU_SPARSE_MORE;
	int r = tar_unsigned(t, p + GNU_SPARSE_SIZE, 12, INT64_MAX, "bad sparse size",
			     &t->real_size, err);

	if (r < 0)
		return r;
	for (;;) {
		for (size_t i = 0; i < n && p[at]; i++, at += 24) {
			uint64_t off = 0, len = 0;

			r = tar_unsigned(t, p + at, 12, INT64_MAX, "bad sparse map", &off, err);
			if (r >= 0)
				r = tar_unsigned(t, p + at + 12, 12, INT64_MAX, "bad sparse map",
						 &len, err);
			if (r >= 0)
				r = map_add(t, off, len, err);
			if (r < 0)
				return r;
		}
		if (!p[more])
			return 0;
		r = tar_take(t, block, TAR_BLOCK, err);
		if (r <= 0)
			return r < 0 ? r : corrupt(t, "it is cut off", err);
		p = block;
		at = 0;
		n = GNU_SPARSE_NEXT;
		more = GNU_SPARSE_MORE_2;
	}
}

/* Fragments ascending, inside the file, and as many bytes as there are. */
static int sparse_check(struct tar *t, struct err *err)
{
	uint64_t end = 0, sum = 0;

	for (size_t i = 0; i < t->map_len; i++) {
		const struct fragment *f = &t->map[i];
		uint64_t stop;

		if (f->off < end || __builtin_add_overflow(f->off, f->len, &stop) ||
		    stop > t->real_size)
			return corrupt(t, "bad sparse map", err);
		end = stop;
		sum += f->len;
	}
	return sum == t->data_left ? 0 : corrupt(t, "a sparse map does not match its data", err);
}

static int tar_fields(struct tar *t, const struct tar_header *h, struct tar_entry *e,
		      struct err *err)
{
	const bool ustar = memcmp(h->magic, "ustar", 5) == 0;
	const bool gnu = memcmp(h->magic, "ustar  ", 8) == 0;
	const bool device = h->type == '3' || h->type == '4';
	uint64_t mode = 0, uid = t->uid, gid = t->gid, major = 0, minor = 0;
	int64_t mtime = t->mtime;
	int r;

	r = tar_unsigned(t, h->mode, sizeof(h->mode), INT64_MAX, "bad mode", &mode, err);
	if (r >= 0 && !t->has_uid)
		r = tar_unsigned(t, h->uid, sizeof(h->uid), INT64_MAX, "bad uid", &uid, err);
	if (r >= 0 && !t->has_gid)
		r = tar_unsigned(t, h->gid, sizeof(h->gid), INT64_MAX, "bad gid", &gid, err);
	if (r >= 0 && device)
		r = tar_unsigned(t, h->major, sizeof(h->major), 0xfff, "bad device number", &major,
				 err);
	if (r >= 0 && device)
		r = tar_unsigned(t, h->minor, sizeof(h->minor), 0xfffff, "bad device number",
				 &minor, err);
	if (r < 0)
		return r;
	/* The last value of each means "no id" to the kernel. */
	if (uid >= UINT32_MAX || gid >= UINT32_MAX)
		return corrupt(t, "user or group id out of range", err);
	if (!t->has_mtime) {
		if (tar_number(h->mtime, sizeof(h->mtime), &mtime) < 0)
			return corrupt(t, "bad time stamp", err);
		t->mtime_ns = 0;
	}
	if (!t->has_path) {
		/* star ends its headers in "tar" and keeps times in the last 24 bytes of prefix. */
		const size_t prefix = memcmp((const char *)h + 508, "tar", 4) == 0 ? 131 : 155;

		buf_reset(&t->path);
		if (ustar && !gnu && h->prefix[0]) {
			add_text(&t->path, h->prefix, strnlen(h->prefix, prefix));
			buf_add(&t->path, "/", 1);
		}
		add_text(&t->path, h->name, strnlen(h->name, sizeof(h->name)));
	}
	if (!t->has_link) {
		buf_reset(&t->link);
		add_text(&t->link, h->link, strnlen(h->link, sizeof(h->link)));
	}
	e->path = buf_cstr(&t->path);
	e->link = buf_cstr(&t->link);
	if (!e->path || !e->link)
		return err_set(err, ENOMEM, "out of memory");
	e->mode = mode & 07777;
	e->uid = (uint32_t)uid;
	e->gid = (uint32_t)gid;
	e->major = (uint32_t)major;
	e->minor = (uint32_t)minor;
	e->mtime = mtime;
	e->mtime_ns = t->mtime_ns;
	e->xattrs = t->xattrs;
	e->xattr_count = t->xattr_count;
	return 0;
}

/* Type flag to type; -1 skip, -2 unknown. */
static int tar_type_of(char flag, const char *path)
{
	size_t n;

	switch (flag) {
	case 0: /* v7: a directory is a file whose name ends in a slash */
		n = strlen(path);
		return n && path[n - 1] == '/' ? TAR_DIRECTORY : TAR_FILE;
	case '0':
	case '7':
	case 'S':
		return TAR_FILE;
	case '1':
		return TAR_HARDLINK;
	case '2':
		return TAR_SYMLINK;
	case '3':
		return TAR_CHARDEV;
	case '4':
		return TAR_BLOCKDEV;
	case '5':
		return TAR_DIRECTORY;
	case '6':
		return TAR_FIFO;
	case 'V': /* GNU volume label */
		return -1;
	default:
		return -2;
	}
}

static int tar_set_data(struct tar *t, const struct tar_header *h, uint64_t size,
			struct tar_entry *e, struct err *err)
{
	int r = 0;

	t->data_left = size;
	t->pad_left = -size & (TAR_BLOCK - 1);
	e->size = size;
	if (h->type == 'S') {
		t->sparse = true;
		r = sparse_map_old(t, h, err);
	} else if (t->has_sparse) {
		t->sparse = true;
		if (!t->has_real_size)
			return corrupt(t, "a sparse file has no size", err);
		if (t->sparse_major == 1 && t->sparse_minor == 0)
			r = sparse_map_1_0(t, err);
		else if (t->sparse_major != 0)
			return err_set(err, ERR_UNSUPPORTED, "GNU sparse format %u.%u",
				       t->sparse_major, t->sparse_minor);
	}
	if (r < 0)
		return r;
	if (t->sparse) {
		e->size = t->real_size;
		r = sparse_check(t, err);
	}
	e->offset = t->pos;
	return r;
}

/* What fills the last block of an entry. Some writers (umoci) leave it out at the very end. */
static int tar_padding(struct tar *t, struct err *err)
{
	while (t->pad_left) {
		int r = tar_fill(t, err);
		size_t piece;

		if (r < 0)
			return r;
		if (r == 0)
			break;
		piece = (size_t)MIN((uint64_t)t->n, t->pad_left);
		tar_consume(t, piece);
		t->pad_left -= piece;
	}
	return 0;
}

int tar_next(struct tar *t, struct tar_entry *ret, struct err *err)
{
	struct tar_header h;
	struct tar_entry e = {0};
	bool extended = false;
	int r = tar_discard(t, t->data_left, err);

	if (r >= 0)
		r = tar_padding(t, err);
	if (r < 0)
		return r;
	t->data_left = t->pad_left = 0;
	tar_reset_entry(t);
	for (;;) {
		static const char zero[TAR_BLOCK];
		uint64_t size = 0;
		int type;

		r = tar_take(t, &h, sizeof(h), err);
		if (r < 0)
			return r;
		t->complete = r > 0;
		if (r == 0 || memcmp(&h, zero, TAR_BLOCK) == 0)
			return extended ? corrupt(t, "it is cut off", err) : 0;
		if (!tar_checksum_ok(&h))
			return corrupt(t, "wrong header checksum", err);
		r = tar_unsigned(t, h.size, sizeof(h.size), INT64_MAX / 2, "bad size", &size, err);
		if (r < 0)
			return r;
		switch (h.type) {
		case 'g':
			r = tar_extension(t, size, &t->xattr_names, err);
			break;
		case 'x':
			/* A second one would free what xattrs of the first point to. */
			t->xattr_count = 0;
			r = tar_extension(t, size, &t->pax, err);
			if (r >= 0 && size)
				r = pax_parse(t, err);
			extended = true;
			break;
		case 'L':
		case 'K': {
			struct buf *b = h.type == 'L' ? &t->path : &t->link;

			r = tar_extension(t, size, b, err);
			if (r >= 0 && size)
				b->len = b->head + strnlen((const char *)buf_ptr(b), buf_size(b));
			if (h.type == 'L')
				t->has_path = true;
			else
				t->has_link = true;
			extended = true;
			break;
		}
		default:
			r = tar_fields(t, &h, &e, err);
			if (r < 0)
				return r;
			type = tar_type_of(h.type, e.path);
			if (type == -2)
				return err_set(err, ERR_UNSUPPORTED,
					       "tar entry %.200s has the unknown type 0x%02x",
					       e.path, (unsigned char)h.type);
			if (t->has_size)
				size = t->size;
			if (size > INT64_MAX / 2)
				return corrupt(t, "bad size", err);
			if (type == -1) {
				r = tar_discard(t, size + (-size & (TAR_BLOCK - 1)), err);
				if (r < 0)
					return r;
				tar_reset_entry(t);
				extended = false;
				continue;
			}
			e.type = (enum tar_type)type;
			if (e.type == TAR_FILE) {
				r = tar_set_data(t, &h, size, &e, err);
				if (r < 0)
					return r;
			}
			*ret = e;
			return 1;
		}
		if (r < 0)
			return r;
	}
}

int tar_data(struct tar *t, const uint8_t **ret, size_t *ret_len, uint64_t *ret_off,
	     struct err *err)
{
	uint64_t room = t->data_left, off = t->file_off;
	size_t n;
	int r;

	if (t->data_left == 0)
		return 0;
	if (t->sparse) {
		while (t->map_done == t->map[t->map_at].len) {
			t->map_at++;
			t->map_done = 0;
		}
		room = t->map[t->map_at].len - t->map_done;
		off = t->map[t->map_at].off + t->map_done;
	}
	r = tar_fill(t, err);
	if (r < 0)
		return r;
	if (r == 0)
		return corrupt(t, "it is cut off", err);
	n = (size_t)MIN((uint64_t)t->n, room);
	*ret = t->p;
	*ret_len = n;
	*ret_off = off;
	tar_consume(t, n);
	t->data_left -= n;
	t->file_off += n;
	t->map_done += n;
	return 1;
}

bool tar_complete(const struct tar *t)
{
	return t->complete;
}
