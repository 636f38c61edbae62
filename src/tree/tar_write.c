/* SPDX-License-Identifier: Apache-2.0 */
#include "tree/tar_write.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

enum {
	NAME_SIZE = 100,
	PREFIX_SIZE = 155,
	ID_MAX = 07777777, /* seven digits */
};
#define SIZE_LIMIT (1ull << 33) /* eleven digits */

void tar_put_padding(struct buf *b, uint64_t size)
{
	static const uint8_t zeros[TAR_BLOCK];

	buf_add(b, zeros, -size & (TAR_BLOCK - 1));
}

void tar_put_end(struct buf *b)
{
	static const uint8_t zeros[TAR_BLOCK * 2];

	buf_add(b, zeros, sizeof(zeros));
}

void tar_put_pax(struct buf *b, const char *key, const void *value, size_t n)
{
	/* "LENGTH KEY=VALUE\n", LENGTH counting all of it. */
	size_t body = strlen(key) + n + 3, len = body + 1;
	char digits[24];

	while ((size_t)snprintf(digits, sizeof(digits), "%zu", len) + body != len)
		len = body + strlen(digits);
	buf_addf(b, "%zu %s=", len, key);
	buf_add(b, value, n);
	buf_add_u8(b, '\n');
}

void tar_put_pax_text(struct buf *b, const char *key, const char *text)
{
	tar_put_pax(b, key, text, strlen(text));
}

void tar_put_pax_number(struct buf *b, const char *key, uint64_t v)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)v);
	tar_put_pax_text(b, key, text);
}

static void octal(char *to, int digits, uint64_t v)
{
	char text[32];

	snprintf(text, sizeof(text), "%0*llo", digits, (unsigned long long)v);
	memcpy(to, text, (size_t)digits);
}

void tar_put_header(struct buf *b, const struct tar_fields *f)
{
	char h[TAR_BLOCK] = {0};
	unsigned sum = 0;

	memcpy(h, f->name, strnlen(f->name, NAME_SIZE));
	octal(h + 100, 7, f->mode & 07777);
	octal(h + 108, 7, f->uid <= ID_MAX ? f->uid : 0);
	octal(h + 116, 7, f->gid <= ID_MAX ? f->gid : 0);
	octal(h + 124, 11, f->size < SIZE_LIMIT ? f->size : 0);
	octal(h + 136, 11, f->mtime < SIZE_LIMIT ? f->mtime : 0);
	memset(h + 148, ' ', 8);
	h[156] = f->type;
	if (f->link)
		memcpy(h + 157, f->link, strnlen(f->link, NAME_SIZE));
	memcpy(h + 257, "ustar\00000", 8);
	if (f->type == '3' || f->type == '4') {
		octal(h + 329, 7, f->major & ID_MAX);
		octal(h + 337, 7, f->minor & ID_MAX);
	}
	if (f->prefix)
		memcpy(h + 345, f->prefix, strnlen(f->prefix, PREFIX_SIZE));
	for (size_t i = 0; i < sizeof(h); i++)
		sum += (unsigned char)h[i];
	octal(h + 148, 6, sum);
	h[154] = '\0';
	buf_add(b, h, sizeof(h));
}

void tar_put_extended(struct buf *b, const struct buf *pax)
{
	tar_put_header(b, &(struct tar_fields){.name = "x", .type = 'x', .size = buf_size(pax)});
	buf_add(b, buf_ptr(pax), buf_size(pax));
	tar_put_padding(b, buf_size(pax));
}

static char type_flag(enum tar_type type)
{
	static const char flags[] = {
		[TAR_FILE] = '0',    [TAR_HARDLINK] = '1', [TAR_SYMLINK] = '2',
		[TAR_CHARDEV] = '3', [TAR_BLOCKDEV] = '4', [TAR_DIRECTORY] = '5',
		[TAR_FIFO] = '6',
	};

	return flags[type];
}

/* Where to cut a name that is longer than its field: after a prefix. NULL: nowhere. */
static const char *cut_name(const char *path, size_t n)
{
	for (const char *s = path + n - 1; s > path; s--) {
		if (*s == '/' && s - path <= PREFIX_SIZE && path + n - (s + 1) <= NAME_SIZE && s[1])
			return s;
	}
	return NULL;
}

static void put_map(struct buf *b, const struct tar_fragment *map, size_t n)
{
	size_t begin = buf_size(b);

	buf_addf(b, "%zu\n", n);
	for (size_t i = 0; i < n; i++)
		buf_addf(b, "%llu\n%llu\n", (unsigned long long)map[i].off,
			 (unsigned long long)map[i].len);
	tar_put_padding(b, buf_size(b) - begin);
}

static void put_mtime(struct buf *pax, const struct tar_entry *e)
{
	char text[48];

	/* Before 1970 the fraction would count backwards. */
	if (e->mtime_ns && e->mtime >= 0)
		snprintf(text, sizeof(text), "%lld.%09u", (long long)e->mtime, e->mtime_ns);
	else if (e->mtime < 0 || e->mtime >= (int64_t)SIZE_LIMIT)
		snprintf(text, sizeof(text), "%lld", (long long)e->mtime);
	else
		return;
	tar_put_pax_text(pax, "mtime", text);
}

void tar_put_entry(struct buf *b, const struct tar_entry *e, const struct tar_fragment *map,
		   size_t map_len)
{
	cleanup_buf struct buf pax = BUF_INIT, data = BUF_INIT;
	struct tar_fields f = {
		.name = e->path,
		.link = e->link,
		.type = type_flag(e->type),
		.mode = e->mode,
		.uid = e->uid,
		.gid = e->gid,
		.mtime = e->mtime < 0 ? 0 : (uint64_t)e->mtime,
		.major = e->major,
		.minor = e->minor,
	};
	size_t n = strlen(e->path);
	char prefix[PREFIX_SIZE + 1];

	if (e->type == TAR_FILE)
		f.size = e->size;
	if (map) {
		put_map(&data, map, map_len);
		f.size = buf_size(&data);
		for (size_t i = 0; i < map_len; i++)
			f.size += map[i].len;
		tar_put_pax_text(&pax, "GNU.sparse.major", "1");
		tar_put_pax_text(&pax, "GNU.sparse.minor", "0");
		tar_put_pax_text(&pax, "GNU.sparse.name", e->path);
		tar_put_pax_number(&pax, "GNU.sparse.realsize", e->size);
	} else if (n > NAME_SIZE) {
		const char *cut = cut_name(e->path, n);

		if (cut) {
			snprintf(prefix, sizeof(prefix), "%.*s", (int)(cut - e->path), e->path);
			f.prefix = prefix;
			f.name = cut + 1;
		} else {
			tar_put_pax_text(&pax, "path", e->path);
		}
	}
	if (e->link && strlen(e->link) > NAME_SIZE)
		tar_put_pax_text(&pax, "linkpath", e->link);
	if (e->uid > ID_MAX)
		tar_put_pax_number(&pax, "uid", e->uid);
	if (e->gid > ID_MAX)
		tar_put_pax_number(&pax, "gid", e->gid);
	if (f.size >= SIZE_LIMIT)
		tar_put_pax_number(&pax, "size", f.size);
	put_mtime(&pax, e);
	for (size_t i = 0; i < e->xattr_count; i++) {
		char key[300];

		snprintf(key, sizeof(key), "SCHILY.xattr.%s", e->xattrs[i].name);
		tar_put_pax(&pax, key, e->xattrs[i].value, e->xattrs[i].len);
	}
	if (buf_size(&pax))
		tar_put_extended(b, &pax);
	tar_put_header(b, &f);
	if (map)
		buf_add(b, buf_ptr(&data), buf_size(&data));
	if (buf_failed(&pax) || buf_failed(&data))
		b->failed = true;
}
