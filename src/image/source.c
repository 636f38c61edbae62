/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"
#include "image/layer.h"
#include "image/source.h"
#include "image/stream.h"
#include "image/unpack.h"
#include "tree/tar.h"

#define SOURCE_READ 65536u

struct source_entry {
	char *name, *link; /* link: NULL for a file */
	uint64_t offset, size;
	size_t order;
};

struct source {
	const struct source_ops *ops; /* or NULL, and the rest counts */
	void *arg;
	int dir; /* or -1 */
	int fd;	 /* of the archive, or -1 */
	struct store_temp spool;
	struct source_entry *entries;
	size_t count, cap;
};

/* Reading an archive in place. */
struct scan {
	int fd;
	uint64_t at, size;
	uint8_t buf[SOURCE_READ];
};

static int scan_read(void *arg, const uint8_t **ret, size_t *ret_len, struct err *err)
{
	struct scan *s = arg;
	ssize_t n = io_pread_full(s->fd, s->buf, sizeof(s->buf), s->at);

	if (n < 0)
		return err_set(err, (int)n, "cannot read the archive: %s", err_name((int)-n));
	s->at += (uint64_t)n;
	*ret = s->buf;
	*ret_len = (size_t)n;
	return n > 0;
}

static int scan_skip(void *arg, uint64_t n, struct err *err)
{
	struct scan *s = arg;

	if (s->at > s->size || n > s->size - s->at)
		return err_set(err, ERR_CORRUPT, "the archive is cut off: %llu bytes are missing",
			       (unsigned long long)(n - (s->size - s->at)));
	s->at += n;
	return 0;
}

static int add_entry(struct source *src, const struct tar_entry *e, struct err *err)
{
	struct image_limits limits = {0};
	char path[IMAGE_PATH_MAX + 1], link[IMAGE_PATH_MAX + 1] = "";
	struct source_entry *entry;
	int r;

	image_limits_default(&limits);
	if (e->type != TAR_FILE && e->type != TAR_HARDLINK && e->type != TAR_SYMLINK)
		return 0;
	r = layer_path_normalise(e->path, &limits, path, err);
	if (r < 0)
		return r;
	if (e->type == TAR_HARDLINK) {
		r = layer_path_normalise(e->link, &limits, link, err);
		if (r < 0)
			return r;
	} else if (e->type == TAR_SYMLINK) {
		/* Relative to its directory; "../x/layer.tar" is what `docker save` wrote. */
		const char *target = e->link;
		char *slash = strrchr(path, '/');
		size_t dir = slash ? (size_t)(slash - path) : 0;
		int n;

		for (; str_starts(target, "../"); target += 3) {
			while (dir && path[--dir] != '/')
				;
		}
		n = snprintf(link, sizeof(link), "%.*s%s%s", (int)dir, path, dir ? "/" : "",
			     target);
		if (n < 0 || (size_t)n >= sizeof(link))
			return 0;
	}
	if (src->count == SOURCE_ENTRIES_MAX)
		return err_set(err, ERR_LIMIT, "more than %u files in the archive; is it an image?",
			       SOURCE_ENTRIES_MAX);
	if (src->count == src->cap) {
		size_t cap = src->cap ? src->cap * 2 : 64;
		struct source_entry *v = realloc(src->entries, cap * sizeof(*v));

		if (!v)
			return err_set(err, ENOMEM, "out of memory");
		src->entries = v;
		src->cap = cap;
	}
	entry = &src->entries[src->count];
	*entry = (struct source_entry){strdup(path), link[0] ? strdup(link) : NULL, e->offset,
				       e->size, src->count};
	src->count++;
	if (!entry->name || (link[0] && !entry->link))
		return err_set(err, ENOMEM, "out of memory");
	return 0;
}

static int by_name(const void *a, const void *b)
{
	const struct source_entry *x = a, *y = b;
	int r = strcmp(x->name, y->name);

	return r ? r : (x->order > y->order) - (x->order < y->order);
}

static int scan_archive(struct source *src, struct err *err)
{
	cleanup_free struct scan *s = malloc(sizeof(*s));
	cleanup_tar struct tar *t = NULL;
	struct tar_entry e;
	struct stat st;
	int r;

	if (!s)
		return err_set(err, ENOMEM, "out of memory");
	if (fstat(src->fd, &st) < 0)
		return err_errno(err, "cannot read the archive");
	s->fd = src->fd;
	s->at = 0;
	s->size = (uint64_t)st.st_size;
	r = tar_open(&t, scan_read, scan_skip, s, err);
	if (r < 0)
		return r;
	while ((r = tar_next(t, &e, err)) > 0) {
		r = add_entry(src, &e, err);
		if (r < 0)
			return r;
	}
	if (r < 0)
		return r;
	if (src->count)
		qsort(src->entries, src->count, sizeof(*src->entries), by_name);
	return 0;
}

struct spool_progress {
	const struct image_load_options *o;
	const char *input;
	uint64_t total;
};

static void spool_report(void *arg, uint64_t done)
{
	const struct spool_progress *p = arg;
	struct image_progress report = {IMAGE_STAGE_READ, 0, 0, done, p->total, p->input};

	if (p->o->progress)
		p->o->progress(p->o->progress_arg, &report);
}

/* Unpack @fd, from where it stands, into an unnamed file. */
static int spool(struct source *src, const struct store *s, int fd, const char *input,
		 uint64_t size, const struct image_load_options *o, struct err *err)
{
	cleanup_stream struct stream *st = NULL;
	struct spool_progress progress = {o, input, size};
	struct stream_options so = {
		.fd = fd, .size = UINT64_MAX, .progress = spool_report, .progress_arg = &progress};
	const uint8_t *p;
	size_t n;
	int r = store_temp_new(s, &src->spool, err);

	if (r < 0)
		return r;
	store_temp_unname(&src->spool);
	r = stream_open(&st, &so, err);
	if (r < 0)
		return r;
	while ((r = stream_next(st, &p, &n, err)) > 0) {
		r = io_write_full(src->spool.fd, p, n);
		if (r < 0)
			return store_write_error(s, r, err);
	}
	if (r < 0)
		return r;
	src->fd = fcntl(src->spool.fd, F_DUPFD_CLOEXEC, 0);
	return src->fd < 0 ? err_errno(err, "cannot read the archive") : 0;
}

static int open_archive(struct source *src, const struct store *s, const char *input, int fd,
			const struct image_load_options *o, struct err *err)
{
	uint8_t head[8];
	struct stat st;
	ssize_t n;
	int r;

	if (fstat(fd, &st) < 0)
		return err_errno(err, "cannot read %s", input);
	if (!S_ISREG(st.st_mode))
		return spool(src, s, fd, input, 0, o, err);
	n = io_pread_full(fd, head, sizeof(head), 0);
	if (n < 0)
		return err_set(err, (int)n, "cannot read %s: %s", input, err_name((int)-n));
	if (n == 0)
		return err_set(err, ERR_CORRUPT, "%s is empty", input);
	if (compression_unsupported(head, (size_t)n)) {
		err_set(err, ERR_UNSUPPORTED,
			"%s is compressed with %s; only gzip and zstd are supported", input,
			compression_unsupported(head, (size_t)n));
		return err_hint(err, "unpack it first");
	}
	if (compression_of(head, (size_t)n) != COMPRESSION_NONE) {
		if (lseek(fd, 0, SEEK_SET) < 0)
			return err_errno(err, "cannot read %s", input);
		r = spool(src, s, fd, input, (uint64_t)st.st_size, o, err);
		return r < 0 ? err_wrap(err, "%s", input) : 0;
	}
	src->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return src->fd < 0 ? err_errno(err, "cannot read %s", input) : 0;
}

int source_open(struct source **ret, const struct store *s, const char *input,
		const struct image_load_options *o, struct err *err)
{
	cleanup_source struct source *src = calloc(1, sizeof(*src));
	cleanup_close int fd = -1;
	struct stat st;
	int r;

	if (!src)
		return err_set(err, ENOMEM, "out of memory");
	src->dir = src->fd = -1;
	src->spool = (struct store_temp)STORE_TEMP_INIT;
	if (str_eq(input, "-")) {
		fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
		input = "standard input";
	} else {
		fd = open(input, O_RDONLY | O_CLOEXEC);
	}
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(err, "cannot open %s", input);
	if (S_ISDIR(st.st_mode)) {
		src->dir = take_fd(&fd);
		*ret = take_ptr(src);
		return 0;
	}
	r = open_archive(src, s, input, fd, o, err);
	if (r < 0)
		return r;
	r = scan_archive(src, err);
	if (r < 0) {
		err_wrap(err, "%s", input);
		return err_hint(err, "an image is an OCI layout or a `docker save` archive; "
				     "fetch or copy the file again");
	}
	*ret = take_ptr(src);
	return 0;
}

int source_open_file(struct source **ret, int fd, const char *name, struct err *err)
{
	cleanup_source struct source *src = calloc(1, sizeof(*src));
	struct tar_entry e = {.type = TAR_FILE, .path = name};
	struct stat st;
	int r;

	if (!src)
		return err_set(err, ENOMEM, "out of memory");
	src->dir = -1;
	src->spool = (struct store_temp)STORE_TEMP_INIT;
	src->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (src->fd < 0 || fstat(fd, &st) < 0)
		return err_errno(err, "cannot read a file");
	e.size = (uint64_t)st.st_size;
	r = add_entry(src, &e, err);
	if (r < 0)
		return r;
	*ret = take_ptr(src);
	return 0;
}

int source_open_ops(struct source **ret, const struct source_ops *ops, void *arg, struct err *err)
{
	struct source *src = calloc(1, sizeof(*src));

	if (!src)
		return err_set(err, ENOMEM, "out of memory");
	src->ops = ops;
	src->arg = arg;
	src->dir = src->fd = -1;
	src->spool = (struct store_temp)STORE_TEMP_INIT;
	*ret = src;
	return 0;
}

struct source *source_close(struct source *src)
{
	if (!src)
		return NULL;
	for (size_t i = 0; i < src->count; i++) {
		free(src->entries[i].name);
		free(src->entries[i].link);
	}
	free(src->entries);
	close_fd(src->dir);
	close_fd(src->fd);
	store_temp_done(&src->spool);
	free(src);
	return NULL;
}

static int find_in_dir(const struct source *src, const char *path, struct source_blob *ret,
		       struct err *err)
{
	struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK,
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
	cleanup_close int fd = (int)syscall(SYS_openat2, src->dir, path, &how, sizeof(how));
	struct stat st;

	if (fd < 0 && errno == ENOSYS) /* Linux before 5.6, or a strict seccomp filter */
		fd = openat(src->dir, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT ? -ENOENT : err_errno(err, "cannot open %s", path);
	if (fstat(fd, &st) < 0)
		return err_errno(err, "cannot read %s", path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, ERR_CORRUPT, "%s is not a file", path);
	*ret = (struct source_blob){take_fd(&fd), 0, (uint64_t)st.st_size, NULL};
	return 0;
}

/* The last entry of that name. */
static const struct source_entry *find_entry(const struct source *src, const char *name)
{
	size_t lo = 0, hi = src->count;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (strcmp(src->entries[mid].name, name) <= 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo && str_eq(src->entries[lo - 1].name, name) ? &src->entries[lo - 1] : NULL;
}

int source_find(const struct source *src, const char *name, struct source_blob *ret,
		struct err *err)
{
	struct image_limits limits = {0};
	char path[IMAGE_PATH_MAX + 1];
	const struct source_entry *e;
	struct stat st;
	int r;

	image_limits_default(&limits);
	r = layer_path_normalise(name, &limits, path, err);
	if (r < 0)
		return r;
	if (src->ops)
		return src->ops->find(src->arg, path, ret, err);
	if (src->dir >= 0)
		return find_in_dir(src, path, ret, err);
	e = find_entry(src, path);
	for (int i = 0; e && e->link; i++) {
		if (i == SOURCE_LINKS_MAX)
			return err_set(err, ERR_CORRUPT, "too many links from %s", name);
		e = find_entry(src, e->link);
	}
	if (!e)
		return -ENOENT;
	if (fstat(src->fd, &st) < 0)
		return err_errno(err, "cannot read the archive");
	if (e->offset > (uint64_t)st.st_size || e->size > (uint64_t)st.st_size - e->offset)
		return err_set(err, ERR_CORRUPT, "%s is cut off", name);
	r = fcntl(src->fd, F_DUPFD_CLOEXEC, 0);
	if (r < 0)
		return err_errno(err, "cannot read the archive");
	*ret = (struct source_blob){r, e->offset, e->size, NULL};
	return 0;
}

int source_release(const struct source *src, struct source_blob *b, int r, struct err *err)
{
	struct err why = ERR_INIT;
	int late;

	if (!src->ops) {
		b->fd = close_fd(b->fd);
		return r;
	}
	late = src->ops->release(src->arg, b, &why);
	return r < 0 && late < 0 ? err_copy(err, &why) : r;
}

void source_abort(const struct source *src)
{
	if (src->ops)
		src->ops->abort(src->arg);
}

const char *source_manifests(const struct source *src)
{
	return src->ops ? src->ops->manifests : "blobs";
}

int source_read(const struct source *src, const char *name, size_t max, struct buf *ret,
		struct err *err)
{
	struct source_blob b;
	cleanup_close int fd = -1;
	uint8_t *p;
	ssize_t n;
	int r;

	if (src->ops)
		return src->ops->read(src->arg, name, max, ret, err);
	r = source_find(src, name, &b, err);

	if (r < 0)
		return r;
	fd = b.fd;
	if (b.size > max)
		return err_set(err, ERR_LIMIT, "%s has %llu bytes; at most %zu make sense", name,
			       (unsigned long long)b.size, max);
	p = buf_reserve(ret, b.size + 1);
	if (!p)
		return err_set(err, ENOMEM, "out of memory");
	n = io_pread_full(fd, p, b.size, b.offset);
	if (n < 0)
		return err_set(err, (int)n, "cannot read %s: %s", name, err_name((int)-n));
	if ((uint64_t)n < b.size)
		return err_set(err, ERR_CORRUPT, "%s is cut off", name);
	p[n] = 0;
	buf_commit(ret, (size_t)n);
	return 0;
}
