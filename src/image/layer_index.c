/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a layer back. */
#include <endian.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "image/layer.h"

#define LAYER_IN_BUFFER	 (64u << 10)
#define LAYER_OUT_BUFFER (128u << 10)

/* A zstd frame coming out of a file. */
struct unframe {
	ZSTD_DCtx *z;
	int fd;
	uint64_t at, left; /* of the file */
	uint8_t *in, *out;
	ZSTD_inBuffer zin;
	size_t out_at, out_len;
	uint64_t pos; /* uncompressed bytes delivered */
	uint32_t crc;
	size_t pending;
};

struct layer_reader {
	int index_fd, data_fd, tails_fd;
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

static int unframe_init(struct unframe *u, int fd, uint64_t at, uint64_t size, struct err *err)
{
	u->fd = fd;
	u->at = at;
	u->left = size;
	u->crc = ~0u;
	u->pending = 1;
	u->z = ZSTD_createDCtx();
	u->in = malloc(LAYER_IN_BUFFER);
	u->out = malloc(LAYER_OUT_BUFFER);
	if (!u->z || !u->in || !u->out)
		return err_set(err, ENOMEM, "out of memory");
	return 0;
}

static void unframe_done(struct unframe *u)
{
	ZSTD_freeDCtx(u->z);
	free(u->in);
	free(u->out);
}

/* More bytes in u->out: 1, 0 at the end of the frame. */
static int unframe_more(struct unframe *u, struct err *err)
{
	for (;;) {
		ZSTD_outBuffer out = {u->out, LAYER_OUT_BUFFER, 0};

		if (u->zin.pos == u->zin.size && u->left) {
			size_t want = (size_t)MIN(u->left, (uint64_t)LAYER_IN_BUFFER);
			ssize_t n = io_pread_full(u->fd, u->in, want, u->at);

			if (n < 0)
				return err_set(err, (int)n, "cannot read a layer: %s",
					       err_name((int)-n));
			if ((size_t)n < want)
				return err_set(err, ERR_CORRUPT, "a file of the layer is cut off");
			u->crc = crc32c(u->crc, u->in, want);
			u->at += want;
			u->left -= want;
			u->zin = (ZSTD_inBuffer){u->in, want, 0};
		}
		if (u->pending == 0)
			return u->left || u->zin.pos < u->zin.size
				       ? err_set(err, ERR_CORRUPT, "the layer has trailing bytes")
				       : 0;
		if (u->zin.size == 0)
			return err_set(err, ERR_CORRUPT, "a file of the layer is cut off");
		u->pending = ZSTD_decompressStream(u->z, &out, &u->zin);
		if (ZSTD_isError(u->pending))
			return err_set(err, ERR_CORRUPT, "the layer is damaged: %s",
				       ZSTD_getErrorName(u->pending));
		if (out.pos) {
			u->out_at = 0;
			u->out_len = out.pos;
			return 1;
		}
		if (u->pending && u->zin.pos == u->zin.size && !u->left)
			return err_set(err, ERR_CORRUPT, "a file of the layer is cut off");
	}
}

static int unframe_read(struct unframe *u, void *p, size_t n, struct err *err)
{
	uint8_t *to = p;

	while (n) {
		size_t piece = MIN(n, u->out_len - u->out_at);

		if (piece && to) {
			memcpy(to, u->out + u->out_at, piece);
			to += piece;
		}
		u->out_at += piece;
		u->pos += piece;
		n -= piece;
		if (n) {
			int r = unframe_more(u, err);

			if (r == 0)
				return err_set(err, ERR_CORRUPT, "a file of the layer is cut off");
			if (r < 0)
				return r;
		}
	}
	return 0;
}

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
	r->data_fd = r->tails_fd = -1;
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

static int check_contents(struct layer_reader *r, const struct layer_entry *e, struct err *err)
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
		rc = r->records.out_at < r->records.out_len ? 1 : unframe_more(&r->records, err);
		if (rc < 0)
			return rc;
		if (rc > 0 || r->records.crc != le32toh(r->h.body_crc))
			return damaged("checksum", err);
		return 0;
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

static int verify_file(struct layer_reader *r, const struct layer_entry *e, uint64_t tail,
		       uint8_t *buf, struct err *err)
{
	uint64_t left = e->size - e->tail_len, at = e->data_block * EROFS_BLOCK;
	uint32_t crc = ~0u;
	int rc;

	while (left) {
		size_t n = (size_t)MIN(left, (uint64_t)LAYER_OUT_BUFFER);
		ssize_t got = io_pread_full(r->data_fd, buf, n, at);

		if (got < 0)
			return err_set(err, (int)got, "cannot read %s: %s", e->path,
				       err_name((int)-got));
		if ((size_t)got < n)
			return err_set(err, ERR_CORRUPT, "%s is cut off", e->path);
		crc = crc32c(crc, buf, n);
		at += n;
		left -= n;
	}
	rc = layer_read_tail(r, tail, buf, e->tail_len, err);
	if (rc < 0)
		return rc;
	if (crc32c(crc, buf, e->tail_len) != e->crc)
		return err_set(err, ERR_CORRUPT, "the contents of %s are damaged", e->path);
	return 0;
}

int layer_verify(const struct store *s, const struct digest *diff_id, struct err *err)
{
	cleanup_layer struct layer_reader *r = NULL;
	cleanup_free uint8_t *buf = malloc(LAYER_OUT_BUFFER);
	struct layer_entry e;
	uint64_t tail = 0;
	int rc;

	if (!buf)
		return err_set(err, ENOMEM, "out of memory");
	rc = layer_open(&r, s, diff_id, err);
	if (rc < 0)
		return rc;
	while ((rc = layer_next(r, &e, err)) > 0) {
		if (e.type != LAYER_FILE)
			continue;
		rc = verify_file(r, &e, tail, buf, err);
		if (rc < 0)
			return rc;
		tail += e.tail_len;
	}
	if (rc < 0)
		return rc;
	rc = unframe_more(&r->tails, err);
	if (rc < 0)
		return rc;
	if (rc > 0 || r->tails.crc != le32toh(r->h.tails_crc))
		return err_set(err, ERR_CORRUPT, "the layer's tails are damaged");
	return 0;
}
