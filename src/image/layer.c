/* SPDX-License-Identifier: Apache-2.0 */
/* Making a layer: tar entries to records, contents to blocks and tails. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "image/blocks.h"
#include "image/crc32c.h"
#include "image/frame.h"
#include "image/layer.h"
#include "image/layer_tar.h"

#define WHITEOUT_PREFIX ".wh."
#define WHITEOUT_META	".wh..wh."
#define WHITEOUT_OPAQUE ".wh..wh..opq"

struct writer {
	struct image_limits limits;
	struct blocks blocks;
	struct frame records_frame, tails_frame;
	struct layer_recorder recorder;

	struct layer_info info;
	uint32_t files; /* regular ones so far */
	uint64_t stream_bytes;
	tar_read_fn *read;
	void *read_arg;

	struct erofs_xattr *xattrs;
	size_t xattr_cap;
	char path[IMAGE_PATH_MAX + 1], link[IMAGE_PATH_MAX + 1];
};

uint32_t layer_tail_len(uint64_t size, size_t xattr_size)
{
	uint32_t tail = (uint32_t)(size % EROFS_BLOCK);

	return tail <= LAYER_TAIL_MAX && EROFS_INODE_SIZE + xattr_size + tail <= EROFS_BLOCK ? tail
											     : 0;
}

int layer_path_normalise(const char *path, const struct image_limits *l, char *out, struct err *err)
{
	const uint32_t max = MIN(l->path_bytes, IMAGE_PATH_MAX);
	size_t at = 0;
	uint32_t depth = 0;

	for (const char *p = path; *p;) {
		size_t n = strcspn(p, "/");

		if (n == 0 || (n == 1 && p[0] == '.')) {
			p += n + (p[n] == '/');
			continue;
		}
		if (n == 2 && p[0] == '.' && p[1] == '.') {
			err_set(err, ERR_CORRUPT, "the path %.300s contains \"..\"", path);
			return err_hint(
				err, "no honest tool writes such layers; do not trust this image");
		}
		if (n > EROFS_NAME_MAX)
			return err_set(
				err, ERR_LIMIT,
				"a file name of %zu bytes; at most %u are possible: %.60s...", n,
				EROFS_NAME_MAX, p);
		if (at + n + 1 > max)
			return err_set(err, ERR_LIMIT, "a path longer than %u bytes: %.100s...",
				       max, path);
		if (++depth > l->depth)
			return err_set(err, ERR_LIMIT,
				       "a path deeper than %u directories: %.100s...", l->depth,
				       path);
		if (at)
			out[at++] = '/';
		memcpy(out + at, p, n);
		at += n;
		p += n + (p[n] == '/');
	}
	out[at] = 0;
	return 0;
}

/* One file's contents, dealt to blocks and tail. */
struct content {
	uint64_t at;	    /* logical offset */
	uint64_t block_end; /* up to here into blocks */
	uint32_t crc;
	uint8_t tail[EROFS_BLOCK];
};

static int content_add(struct writer *w, struct content *c, const uint8_t *p, size_t n,
		       struct err *err)
{
	size_t blocks = c->at < c->block_end ? (size_t)MIN((uint64_t)n, c->block_end - c->at) : 0;
	int r = blocks_add(&w->blocks, p, blocks, err);

	if (r < 0)
		return r;
	c->crc = crc32c(c->crc, p, n);
	c->at += blocks;
	if (n > blocks) {
		memcpy(c->tail + (c->at - c->block_end), p + blocks, n - blocks);
		c->at += n - blocks;
	}
	return 0;
}

static int content_hole(struct writer *w, struct content *c, uint64_t n, struct err *err)
{
	static const uint8_t zero[EROFS_BLOCK];
	uint64_t blocks = c->at < c->block_end ? MIN(n, c->block_end - c->at) : 0;
	int r = blocks_hole(&w->blocks, blocks, err);

	if (r < 0)
		return r;
	for (uint64_t left = n; left;) {
		size_t piece = (size_t)MIN(left, (uint64_t)sizeof(zero));

		c->crc = crc32c(c->crc, zero, piece);
		left -= piece;
	}
	c->at += n; /* the tail is zero to begin with */
	return 0;
}

static int write_contents(struct writer *w, struct tar *t, struct layer_entry *e, struct err *err)
{
	struct content c;
	uint64_t total, first;
	const uint8_t *p;
	size_t n;
	uint64_t off;
	int r;

	e->tail_len = layer_tail_len(e->size, erofs_xattr_size(e->xattrs, e->xattr_count));
	c.at = 0;
	c.block_end = e->size - e->tail_len;
	c.crc = ~0u;
	memset(c.tail, 0, e->tail_len);
	total = (c.block_end + EROFS_BLOCK - 1) / EROFS_BLOCK;
	first = blocks_count(&w->blocks);
	if (first + total > UINT32_MAX / 2)
		return err_set(err, ERR_LIMIT, "the layer is too large");
	while ((r = tar_data(t, &p, &n, &off, err)) > 0) {
		if (off > c.at)
			r = content_hole(w, &c, off - c.at, err);
		if (r >= 0)
			r = content_add(w, &c, p, n, err);
		if (r >= 0)
			r = layer_recorder_content(&w->recorder, p, n, w->files, off, err);
		if (r < 0)
			return r;
	}
	if (r >= 0 && c.at < e->size)
		r = content_hole(w, &c, e->size - c.at, err);
	if (r >= 0)
		r = blocks_pad(&w->blocks, err);
	if (r >= 0)
		r = blocks_share(&w->blocks, first, c.crc, &first, err);
	if (r >= 0)
		r = frame_add(&w->tails_frame, c.tail, e->tail_len, err);
	if (r < 0)
		return r;
	w->files++;
	w->info.data_blocks = blocks_count(&w->blocks);
	w->info.tail_bytes += e->tail_len;
	e->data_blocks = total;
	e->data_block = total ? first : 0;
	e->crc = c.crc;
	return 0;
}

static int write_record(struct writer *w, const struct layer_entry *e, struct err *err)
{
	struct frame *f = &w->records_frame;
	size_t path = strlen(e->path), link = strlen(e->link), xattr_bytes = 0;
	struct layer_record rec;
	int r;

	for (size_t i = 0; i < e->xattr_count; i++)
		xattr_bytes += sizeof(struct layer_record_xattr) + e->xattrs[i].name_len +
			       e->xattrs[i].value_len;
	rec = (struct layer_record){
		.type = (uint8_t)e->type,
		.mode = htole16((uint16_t)e->mode),
		.uid = htole32(e->uid),
		.gid = htole32(e->gid),
		.major = htole32(e->major),
		.minor = htole32(e->minor),
		.mtime_ns = htole32(e->mtime_ns),
		.mtime = (int64_t)htole64((uint64_t)e->mtime),
		.size = htole64(e->size),
		.data_block = htole32((uint32_t)e->data_block),
		.data_blocks = htole32((uint32_t)e->data_blocks),
		.crc = htole32(e->crc),
		.tail_len = htole16((uint16_t)e->tail_len),
		.path_len = htole16((uint16_t)path),
		.link_len = htole16((uint16_t)link),
		.xattr_count = htole16((uint16_t)e->xattr_count),
		.xattr_bytes = htole32((uint32_t)xattr_bytes),
	};
	r = frame_add(f, &rec, sizeof(rec), err);
	if (r >= 0)
		r = frame_add(f, e->path, path, err);
	if (r >= 0)
		r = frame_add(f, e->link, link, err);
	for (size_t i = 0; i < e->xattr_count && r >= 0; i++) {
		const struct erofs_xattr *x = &e->xattrs[i];
		struct layer_record_xattr rx = {x->name_len, x->prefix, htole16(x->value_len)};

		r = frame_add(f, &rx, sizeof(rx), err);
		if (r >= 0)
			r = frame_add(f, x->name, x->name_len, err);
		if (r >= 0)
			r = frame_add(f, x->value, x->value_len, err);
	}
	return r;
}

static int convert_xattrs(struct writer *w, const struct tar_entry *te, struct layer_entry *e,
			  struct err *err)
{
	size_t bytes = 0, n = 0;

	if (te->xattr_count > w->xattr_cap) {
		struct erofs_xattr *x = realloc(w->xattrs, te->xattr_count * sizeof(*x));

		if (!x)
			return err_set(err, ENOMEM, "out of memory");
		w->xattrs = x;
		w->xattr_cap = te->xattr_count;
	}
	for (size_t i = 0; i < te->xattr_count; i++) {
		const struct tar_xattr *x = &te->xattrs[i];
		size_t skip, len = strlen(x->name);
		uint8_t prefix = erofs_xattr_prefix(x->name, &skip);

		bytes += len + x->len;
		if (len > EROFS_NAME_MAX || x->len > UINT16_MAX || bytes > w->limits.xattr_bytes)
			return err_set(err, ERR_LIMIT,
				       "extended attributes of %.300s exceed %u bytes", te->path,
				       w->limits.xattr_bytes);
		/* Attributes of other systems' file systems; Linux would refuse to set them. */
		if (!prefix)
			continue;
		w->xattrs[n++] = (struct erofs_xattr){prefix, (uint8_t)(len - skip),
						      (uint16_t)x->len, x->name + skip, x->value};
	}
	e->xattrs = w->xattrs;
	e->xattr_count = n;
	return 0;
}

/*
 * Does the normalised path in w->path say "remove something"? Sets the type and cuts the path.
 * 1: ignore the entry.
 */
static int convert_whiteout(struct writer *w, struct layer_entry *e, struct err *err)
{
	const size_t prefix = sizeof(WHITEOUT_PREFIX) - 1;
	char *base = strrchr(w->path, '/');
	char *p = w->path;

	base = base ? base + 1 : w->path;
	/* aufs kept books in directories of that name; they mean nothing outside of it. */
	for (; p < base; p = strchr(p, '/') + 1) {
		if (str_starts(p, WHITEOUT_META))
			return 1;
		if (str_starts(p, WHITEOUT_PREFIX))
			return err_set(err, ERR_CORRUPT, "%.300s lies below a whiteout", w->path);
	}
	if (!str_starts(base, WHITEOUT_PREFIX))
		return 0;
	if (str_eq(base, WHITEOUT_OPAQUE)) {
		e->type = LAYER_OPAQUE;
		*(base == w->path ? base : base - 1) = 0;
		return 0;
	}
	if (str_starts(base, WHITEOUT_META))
		return 1;
	if (base[prefix] == 0 || str_eq(base + prefix, ".") || str_eq(base + prefix, ".."))
		return err_set(err, ERR_CORRUPT,
			       "the whiteout %.300s names nothing that could be removed", w->path);
	e->type = LAYER_WHITEOUT;
	memmove(base, base + prefix, strlen(base + prefix) + 1);
	return 0;
}

static const enum layer_type layer_types[] = {
	[TAR_FILE] = LAYER_FILE,       [TAR_HARDLINK] = LAYER_HARDLINK,
	[TAR_SYMLINK] = LAYER_SYMLINK, [TAR_CHARDEV] = LAYER_CHAR,
	[TAR_BLOCKDEV] = LAYER_BLOCK,  [TAR_DIRECTORY] = LAYER_DIRECTORY,
	[TAR_FIFO] = LAYER_FIFO,
};

static int convert_entry(struct writer *w, struct tar *t, const struct tar_entry *te,
			 struct err *err)
{
	struct layer_entry e = {
		.type = layer_types[te->type],
		.path = w->path,
		.link = w->link,
		.mode = te->mode,
		.uid = te->uid,
		.gid = te->gid,
		.mtime = te->mtime,
		.mtime_ns = te->mtime_ns,
	};
	int r = layer_path_normalise(te->path, &w->limits, w->path, err);

	if (r < 0)
		return r;
	if (++w->info.entries > w->limits.entries) {
		err_set(err, ERR_LIMIT, "more than %llu entries",
			(unsigned long long)w->limits.entries);
		return err_hint(err, "if you trust the image, raise images.limits.entries in "
				     "$MSB_HOME/config.json");
	}
	w->link[0] = 0;
	r = convert_whiteout(w, &e, err);
	if (r != 0) {
		if (r > 0)
			w->info.entries--;
		return r < 0 ? r : 0;
	}
	if (!w->path[0] && e.type != LAYER_DIRECTORY && e.type != LAYER_OPAQUE)
		return err_set(err, ERR_CORRUPT, "the root of the layer is not a directory");
	if (e.type == LAYER_WHITEOUT || e.type == LAYER_OPAQUE) {
		e.mode = e.uid = e.gid = e.mtime_ns = 0;
		e.mtime = 0;
		return write_record(w, &e, err);
	}
	r = convert_xattrs(w, te, &e, err);
	if (r < 0)
		return r;
	switch (e.type) {
	case LAYER_FILE:
		e.size = te->size;
		if (e.size > w->limits.file_bytes) {
			err_set(err, ERR_LIMIT, "%.300s has %llu bytes; at most %llu are allowed",
				te->path, (unsigned long long)e.size,
				(unsigned long long)w->limits.file_bytes);
			return err_hint(err, "if you trust the image, raise "
					     "images.limits.file_bytes in $MSB_HOME/config.json");
		}
		w->info.bytes += e.size;
		/* Holes cost nothing to send, so the stream's own limit does not cover them. */
		if (w->info.bytes > w->limits.layer_bytes) {
			err_set(err, ERR_LIMIT, "more than %llu bytes of files",
				(unsigned long long)w->limits.layer_bytes);
			return err_hint(err, "if you trust the image, raise "
					     "images.limits.layer_bytes in $MSB_HOME/config.json");
		}
		r = write_contents(w, t, &e, err);
		break;
	case LAYER_SYMLINK:
		e.size = strlen(te->link);
		if (e.size == 0)
			return err_set(err, ERR_CORRUPT, "the symbolic link %.300s is empty",
				       te->path);
		if (e.size > MIN(w->limits.link_bytes, IMAGE_LINK_MAX))
			return err_set(
				err, ERR_LIMIT,
				"the symbolic link %.300s has %llu bytes; at most %u are possible",
				te->path, (unsigned long long)e.size,
				MIN(w->limits.link_bytes, IMAGE_LINK_MAX));
		memcpy(w->link, te->link, e.size + 1);
		break;
	case LAYER_HARDLINK:
		r = layer_path_normalise(te->link, &w->limits, w->link, err);
		if (r < 0)
			return err_wrap(err, "hard link %.200s", te->path);
		break;
	case LAYER_CHAR:
	case LAYER_BLOCK:
		e.major = te->major;
		e.minor = te->minor;
		break;
	default:
		break;
	}
	return r < 0 ? r : write_record(w, &e, err);
}

/* Count what the tar reader takes, so that a bomb stops while it unpacks and not after. */
static int counted_read(void *arg, const uint8_t **p, size_t *n, struct err *err)
{
	struct writer *w = arg;
	int r = layer_recorder_leave(&w->recorder, err);

	if (r >= 0)
		r = w->read(w->read_arg, p, n, err);
	if (r <= 0)
		return r;
	layer_recorder_enter(&w->recorder, *p, *n);
	w->stream_bytes += *n;
	if (w->stream_bytes > w->limits.layer_bytes) {
		err_set(err, ERR_LIMIT, "more than %llu bytes uncompressed",
			(unsigned long long)w->limits.layer_bytes);
		return err_hint(err, "if you trust the image, raise images.limits.layer_bytes in "
				     "$MSB_HOME/config.json");
	}
	return r;
}

static int write_tar(struct writer *w, struct err *err)
{
	cleanup_tar struct tar *t = NULL;
	struct tar_entry e;
	const uint8_t *rest;
	size_t n;
	int r;

	r = tar_open(&t, counted_read, NULL, w, err);
	if (r < 0)
		return r;
	while ((r = tar_next(t, &e, err)) > 0) {
		r = convert_entry(w, t, &e, err);
		if (r < 0)
			return r;
	}
	/* What stands behind the end of the archive belongs to the layer's digest. */
	while (r >= 0 && (r = counted_read(w, &rest, &n, err)) > 0)
		;
	return r;
}

static int writer_init(struct writer *w, const int files[LAYER_FILES], struct err *err)
{
	int r = blocks_init(&w->blocks, files[LAYER_DATA], err);

	if (r >= 0)
		r = layer_recorder_init(&w->recorder, files[LAYER_TAR], err);
	if (r >= 0)
		r = frame_init(&w->tails_frame, files[LAYER_TAILS], 0, err);
	if (r >= 0)
		r = frame_init(&w->records_frame, files[LAYER_INDEX], sizeof(struct layer_header),
			       err);
	return r;
}

static void writer_free(struct writer **p)
{
	struct writer *w = *p;

	if (!w)
		return;
	blocks_done(&w->blocks);
	layer_recorder_done(&w->recorder);
	frame_done(&w->records_frame);
	frame_done(&w->tails_frame);
	free(w->xattrs);
	free(w);
}

static int finish(struct writer *w, struct layer_made *ret, struct err *err)
{
	int r = blocks_finish(&w->blocks, err);

	if (r >= 0)
		r = frame_end(&w->tails_frame, err);
	if (r >= 0)
		r = layer_recorder_end(&w->recorder, err);
	if (r >= 0)
		r = frame_end(&w->records_frame, err);
	if (r < 0)
		return r;
	w->info.tar_bytes = w->recorder.bytes;
	*ret = (struct layer_made){
		.info = w->info,
		.body_size = w->records_frame.written,
		.tails_size = w->tails_frame.written,
		.tar_size = w->recorder.frame.written,
		.body_crc = w->records_frame.crc,
		.tails_crc = w->tails_frame.crc,
		.tar_crc = w->recorder.frame.crc,
	};
	return 0;
}

int layer_make(const int files[LAYER_FILES], const struct image_limits *l, tar_read_fn *read,
	       void *arg, struct layer_made *ret, struct err *err)
{
	CLEANUP(writer_free) struct writer *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return err_set(err, ENOMEM, "out of memory");
	w->limits = *l;
	w->read = read;
	w->read_arg = arg;
	r = writer_init(w, files, err);
	if (r >= 0)
		r = write_tar(w, err);
	return r < 0 ? r : finish(w, ret, err);
}
