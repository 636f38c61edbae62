/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a layer back. */
#include <endian.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "image/crc32c.h"
#include "image/frame.h"
#include "image/layer.h"
#include "image/layer_tar.h"

#define VERIFY_BUFFER (128u << 10)

struct layer_reader {
	int index_fd, data_fd, tails_fd, tar_fd;
	struct layer_header h;
	struct layer_info info;
	struct unframe records, tails;
	uint64_t seen;
	uint8_t *record; /* variable part of the current record */
	size_t record_cap;
	struct erofs_xattr *xattrs;
	size_t xattr_cap;
	uint64_t next_tail;
};

static int read_header(struct layer_reader *r, struct err *err)
{
	struct layer_header *h = &r->h;
	uint32_t crc;
	struct stat st;
	ssize_t n = io_pread_full(r->index_fd, h, sizeof(*h), 0);

	if (n < 0)
		return err_set(err, (int)n, "cannot read a layer: %s", err_name((int)-n));
	if (fstat(r->index_fd, &st) < 0)
		return err_errno(err, "cannot read a layer");
	crc = le32toh(h->header_crc);
	h->header_crc = 0;
	if (n != sizeof(*h) || memcmp(h->magic, LAYER_MAGIC, sizeof(h->magic)) != 0 ||
	    crc32c(~0u, h, sizeof(*h)) != crc)
		return err_set(err, ERR_CORRUPT, "the layer's index is damaged");
	if (le32toh(h->version) != LAYER_VERSION)
		return err_set(err, ERR_UNSUPPORTED, "layer format %u", le32toh(h->version));
	r->info.entries = le64toh(h->entries);
	r->info.bytes = le64toh(h->bytes);
	r->info.data_blocks = le64toh(h->data_blocks);
	r->info.tail_bytes = le64toh(h->tail_bytes);
	r->info.tar_bytes = le64toh(h->tar_bytes);
	r->info.stored = (uint64_t)st.st_blocks * 512;
	if (r->info.data_blocks > UINT32_MAX || le64toh(h->body_size) > INT64_MAX ||
	    (uint64_t)st.st_size != sizeof(*h) + le64toh(h->body_size))
		return err_set(err, ERR_CORRUPT, "the layer's index is damaged");
	return unframe_init(&r->records, r->index_fd, sizeof(*h), le64toh(h->body_size), err);
}

int layer_open_index(struct layer_reader **ret, int fd, struct err *err)
{
	cleanup_layer struct layer_reader *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return err_set(err, ENOMEM, "out of memory");
	r->data_fd = r->tails_fd = r->tar_fd = -1;
	r->index_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (r->index_fd < 0)
		return err_errno(err, "cannot read a layer");
	rc = read_header(r, err);
	if (rc < 0)
		return rc;
	*ret = take_ptr(r);
	return 0;
}

/* Open HEX.suffix and see that it has @size bytes. */
static int open_part(struct layer_reader *r, const struct store *s, const char *hex,
		     const char *suffix, uint64_t size, int *ret, struct err *err)
{
	cleanup_close int fd = -1;
	char name[80];
	struct stat st;

	snprintf(name, sizeof(name), "%s.%s", hex, suffix);
	fd = openat(store_dirfd(s, STORE_LAYERS), name, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0) {
		if (errno == ENOENT)
			return err_set(err, ERR_CORRUPT, "%s is missing from the store", name);
		return err_errno(err, "cannot read %s in the store", name);
	}
	if ((uint64_t)st.st_size != size)
		return err_set(err, ERR_CORRUPT, "%s has %lld bytes instead of %llu", name,
			       (long long)st.st_size, (unsigned long long)size);
	r->info.stored += (uint64_t)st.st_blocks * 512;
	*ret = take_fd(&fd);
	return 0;
}

int layer_open(struct layer_reader **ret, const struct store *s, const struct digest *diff_id,
	       struct err *err)
{
	cleanup_layer struct layer_reader *r = NULL;
	cleanup_close int fd = -1;
	char hex[65], name[80];
	int rc;

	digest_hex(diff_id, hex);
	snprintf(name, sizeof(name), "%s.index", hex);
	fd = openat(store_dirfd(s, STORE_LAYERS), name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(err, "cannot open %s in the store", name);
	rc = layer_open_index(&r, fd, err);
	if (rc < 0)
		return err_wrap(err, "%s", name);
	if (memcmp(r->h.diff_id, diff_id->sha256, sizeof(r->h.diff_id)) != 0)
		return err_set(err, ERR_CORRUPT, "%s belongs to another layer", name);
	rc = open_part(r, s, hex, "data", r->info.data_blocks * EROFS_BLOCK, &r->data_fd, err);
	if (rc >= 0)
		rc = open_part(r, s, hex, "tails", le64toh(r->h.tails_size), &r->tails_fd, err);
	if (rc >= 0)
		rc = open_part(r, s, hex, "tar", le64toh(r->h.tar_size), &r->tar_fd, err);
	if (rc >= 0)
		rc = unframe_init(&r->tails, r->tails_fd, 0, le64toh(r->h.tails_size), err);
	if (rc < 0)
		return rc;
	*ret = take_ptr(r);
	return 0;
}

struct layer_reader *layer_close(struct layer_reader *r)
{
	if (!r)
		return NULL;
	close_fd(r->index_fd);
	close_fd(r->data_fd);
	close_fd(r->tails_fd);
	close_fd(r->tar_fd);
	unframe_done(&r->records);
	unframe_done(&r->tails);
	free(r->record);
	free(r->xattrs);
	free(r);
	return NULL;
}

const struct layer_info *layer_info(const struct layer_reader *r)
{
	return &r->info;
}

static int damaged(const char *what, struct err *err)
{
	return err_set(err, ERR_CORRUPT, "the layer's index is damaged: %s", what);
}

/* The path must be what layer_path_normalise() makes; merging relies on it. */
static bool path_is_normal(const char *p, size_t n)
{
	if (n > IMAGE_PATH_MAX || memchr(p, 0, n))
		return false;
	for (size_t at = 0; at < n;) {
		const char *slash = memchr(p + at, '/', n - at);
		size_t len = slash ? (size_t)(slash - p) - at : n - at;

		if (len == 0 || len > EROFS_NAME_MAX || (len == 1 && p[at] == '.') ||
		    (len == 2 && p[at] == '.' && p[at + 1] == '.'))
			return false;
		at += len + 1;
		if (slash && at == n)
			return false;
	}
	return true;
}

static int parse_xattrs(struct layer_reader *r, const uint8_t *p, size_t size, size_t count,
			struct err *err)
{
	const uint8_t *end = p + size;

	if (count > r->xattr_cap) {
		struct erofs_xattr *x = realloc(r->xattrs, count * sizeof(*x));

		if (!x)
			return err_set(err, ENOMEM, "out of memory");
		r->xattrs = x;
		r->xattr_cap = count;
	}
	for (size_t i = 0; i < count; i++) {
		struct layer_record_xattr rx;
		size_t value;

		if ((size_t)(end - p) < sizeof(rx))
			return damaged("attributes", err);
		memcpy(&rx, p, sizeof(rx));
		p += sizeof(rx);
		value = le16toh(rx.value_len);
		if ((size_t)(end - p) < rx.name_len + value)
			return damaged("attributes", err);
		r->xattrs[i] = (struct erofs_xattr){rx.prefix, rx.name_len, (uint16_t)value,
						    (const char *)p, p + rx.name_len};
		p += rx.name_len + value;
	}
	if (p != end || erofs_xattr_size(r->xattrs, count) > EROFS_XATTR_SIZE_MAX)
		return damaged("attributes", err);
	return 0;
}

static int check_contents(struct layer_reader *r, struct layer_entry *e, struct err *err)
{
	const uint64_t blocks = (e->size - e->tail_len + EROFS_BLOCK - 1) / EROFS_BLOCK;

	if (e->type != LAYER_FILE) {
		if (e->data_blocks || e->tail_len)
			return damaged("contents", err);
		return 0;
	}
	if (e->size > INT64_MAX || e->tail_len > e->size ||
	    (e->tail_len &&
	     (e->tail_len != e->size % EROFS_BLOCK ||
	      e->tail_len + EROFS_INODE_SIZE + erofs_xattr_size(e->xattrs, e->xattr_count) >
		      EROFS_BLOCK)) ||
	    blocks != e->data_blocks || e->data_block + e->data_blocks > r->info.data_blocks)
		return damaged("contents", err);
	e->tail_at = r->next_tail;
	r->next_tail += e->tail_len;
	return r->next_tail > r->info.tail_bytes ? damaged("tails", err) : 0;
}

int layer_next(struct layer_reader *r, struct layer_entry *ret, struct err *err)
{
	struct layer_record rec;
	struct layer_entry e;
	size_t path, link, xattrs, need;
	int rc;

	if (r->seen == r->info.entries) {
		rc = unframe_end(&r->records, le32toh(r->h.body_crc), err);
		return rc > 0 ? damaged("too long", err) : rc;
	}
	rc = unframe_read(&r->records, &rec, sizeof(rec), err);
	if (rc < 0)
		return rc;
	path = le16toh(rec.path_len);
	link = le16toh(rec.link_len);
	xattrs = le32toh(rec.xattr_bytes);
	if (xattrs > EROFS_XATTR_SIZE_MAX)
		return damaged("attributes", err);
	need = path + 1 + link + 1 + xattrs;
	if (need > r->record_cap) {
		uint8_t *p = realloc(r->record, need);

		if (!p)
			return err_set(err, ENOMEM, "out of memory");
		r->record = p;
		r->record_cap = need;
	}
	rc = unframe_read(&r->records, r->record, path, err);
	if (rc >= 0)
		rc = unframe_read(&r->records, r->record + path + 1, link, err);
	if (rc >= 0)
		rc = unframe_read(&r->records, r->record + path + link + 2, xattrs, err);
	if (rc < 0)
		return rc;
	r->record[path] = r->record[path + 1 + link] = 0;
	rc = parse_xattrs(r, r->record + path + link + 2, xattrs, le16toh(rec.xattr_count), err);
	if (rc < 0)
		return rc;
	e = (struct layer_entry){
		.type = rec.type,
		.path = (char *)r->record,
		.link = (char *)r->record + path + 1,
		.mode = le16toh(rec.mode) & 07777,
		.uid = le32toh(rec.uid),
		.gid = le32toh(rec.gid),
		.major = le32toh(rec.major),
		.minor = le32toh(rec.minor),
		.mtime = (int64_t)le64toh((uint64_t)rec.mtime),
		.mtime_ns = le32toh(rec.mtime_ns),
		.size = le64toh(rec.size),
		.data_block = le32toh(rec.data_block),
		.data_blocks = le32toh(rec.data_blocks),
		.tail_len = le16toh(rec.tail_len),
		.crc = le32toh(rec.crc),
		.xattrs = r->xattrs,
		.xattr_count = le16toh(rec.xattr_count),
	};
	if (e.type == 0 || e.type >= LAYER_TYPE_END || !path_is_normal(e.path, path) ||
	    e.mtime_ns >= 1000000000)
		return damaged("an entry", err);
	if (e.type == LAYER_SYMLINK &&
	    (link == 0 || link > IMAGE_LINK_MAX || memchr(e.link, 0, link) || e.size != link))
		return damaged("a link", err);
	if (e.type == LAYER_HARDLINK && !path_is_normal(e.link, link))
		return damaged("a link", err);
	rc = check_contents(r, &e, err);
	if (rc < 0)
		return rc;
	r->seen++;
	*ret = e;
	return 1;
}

int layer_read_tail(struct layer_reader *r, uint64_t offset, void *p, size_t n, struct err *err)
{
	int rc = 0;

	if (offset < r->tails.pos)
		return err_set(err, EINVAL, "tails read backwards");
	rc = unframe_read(&r->tails, NULL, offset - r->tails.pos, err);
	return rc < 0 ? rc : unframe_read(&r->tails, p, n, err);
}

int layer_read_blocks(const struct layer_reader *r, const struct layer_entry *e, uint64_t offset,
		      void *p, size_t n, struct err *err)
{
	ssize_t got = io_pread_full(r->data_fd, p, n, e->data_block * EROFS_BLOCK + offset);

	if (got < 0)
		return err_set(err, (int)got, "cannot read %.300s: %s", e->path,
			       err_name((int)-got));
	return (size_t)got < n ? err_set(err, ERR_CORRUPT, "%.300s is cut off", e->path) : 0;
}

int layer_tar_open(struct layer_tar **ret, const struct store *s, const struct digest *diff_id,
		   struct err *err)
{
	struct layer_reader *r = NULL;
	int rc = layer_open(&r, s, diff_id, err);

	if (rc < 0)
		return rc;
	return layer_tar_from(ret, r, r->tar_fd, le64toh(r->h.tar_size), le32toh(r->h.tar_crc),
			      r->info.tar_bytes, err);
}

static int verify_file(struct layer_reader *r, const struct layer_entry *e, uint8_t *buf,
		       struct err *err)
{
	const uint64_t end = e->size - e->tail_len;
	uint32_t crc = ~0u;
	int rc = 0;

	for (uint64_t at = 0; at < end && rc >= 0;) {
		size_t n = (size_t)MIN(end - at, (uint64_t)VERIFY_BUFFER);

		rc = layer_read_blocks(r, e, at, buf, n, err);
		crc = crc32c(crc, buf, n);
		at += n;
	}
	if (rc >= 0)
		rc = layer_read_tail(r, e->tail_at, buf, e->tail_len, err);
	if (rc < 0)
		return rc;
	if (crc32c(crc, buf, e->tail_len) != e->crc)
		return err_set(err, ERR_CORRUPT, "the contents of %.300s are damaged", e->path);
	return 0;
}

/* Tails and records by their frames alone: faults in them are not faults in the data. */
static int verify_frames(const struct store *s, const struct digest *diff_id, struct err *err)
{
	cleanup_layer struct layer_reader *r = NULL;
	struct layer_entry e;
	int rc = layer_open(&r, s, diff_id, err);

	while (rc >= 0 && (rc = layer_next(r, &e, err)) > 0)
		;
	if (rc >= 0)
		rc = unframe_read(&r->tails, NULL, r->info.tail_bytes, err);
	if (rc >= 0)
		rc = unframe_end(&r->tails, le32toh(r->h.tails_crc), err);
	return rc > 0 ? damaged("tails", err) : rc;
}

static int verify_contents(const struct store *s, const struct digest *diff_id, struct err *err)
{
	cleanup_layer struct layer_reader *r = NULL;
	cleanup_free uint8_t *buf = malloc(VERIFY_BUFFER);
	struct layer_entry e;
	int rc = buf ? layer_open(&r, s, diff_id, err) : err_set(err, ENOMEM, "out of memory");

	while (rc >= 0 && (rc = layer_next(r, &e, err)) > 0)
		if (e.type == LAYER_FILE)
			rc = verify_file(r, &e, buf, err);
	return rc;
}

/* The digest of the stream vouches for everything, also for what has no checksum of its own. */
static int verify_stream(const struct store *s, const struct digest *diff_id, struct err *err)
{
	cleanup_layer_tar struct layer_tar *t = NULL;
	cleanup_hasher struct hasher h = {0};
	struct digest is;
	const uint8_t *p;
	size_t n;
	int rc = layer_tar_open(&t, s, diff_id, err);

	if (rc >= 0)
		rc = hasher_init(&h, err);
	while (rc >= 0 && (rc = layer_tar_next(t, &p, &n, err)) > 0)
		hasher_add(&h, p, n);
	if (rc >= 0)
		rc = hasher_finish(&h, &is, err);
	if (rc >= 0 && !digest_equal(&is, diff_id))
		rc = err_set(err, ERR_CORRUPT, "the layer makes another tar stream than it was");
	return rc;
}

int layer_verify(const struct store *s, const struct digest *diff_id, bool *ret_data,
		 struct err *err)
{
	int rc = verify_frames(s, diff_id, err);

	*ret_data = false;
	if (rc < 0)
		return rc;
	rc = verify_contents(s, diff_id, err);
	*ret_data = rc < 0;
	return rc < 0 ? rc : verify_stream(s, diff_id, err);
}

void layer_set_aside(const struct store *s, const struct digest *diff_id, bool data)
{
	char hex[65], name[80];

	digest_hex(diff_id, hex);
	snprintf(name, sizeof(name), "%s.index", hex);
	unlinkat(store_dirfd(s, STORE_LAYERS), name, 0);
	snprintf(name, sizeof(name), "%s.data", hex);
	if (data)
		unlinkat(store_dirfd(s, STORE_LAYERS), name, 0);
}
