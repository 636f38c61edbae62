/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image made of a host directory.
 *
 * Theory of operation. The directory is walked in the order of names. A walk yields a fingerprint
 * (SHA-256 over path, type, owner, size, inode number and times of every entry) and, if asked for,
 * a tar stream, generated piece by piece as the layer writer pulls it; the stream's digest is the
 * layer's diff_id, so that equal trees are one layer. The image that comes of it has no reference.
 *
 * cache/directory-HASH (of the path) remembers fingerprint and image: another start then costs one
 * walk that opens no file. What changes a file changes its ctime, but only to the kernel's clock
 * tick: a tree with anything younger than RACY_NS is converted, but not remembered.
 *
 * The walk holds a descriptor per level and never follows a link; it stays on the file system of
 * its root. A file is read only as far as it was long when it was looked at, and must be as long.
 */
#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"
#include "image/catalog.h"
#include "image/convert.h"
#include "image/limits.h"
#include "image/merge.h"
#include "tree/links.h"
#include "tree/tar_write.h"

#define CHUNK (256u << 10)
/* Two ticks of the slowest clock that a Linux has (100 Hz). */
#define RACY_NS 20000000

struct level {
	int fd;
	struct strv names; /* sorted */
	size_t at;
	size_t path_len; /* of the directory's own path, in walk.path */
};

struct walk {
	const char *top; /* for messages */
	struct image_limits limits;
	struct level *levels;
	size_t nlevels;
	char path[IMAGE_PATH_MAX + NAME_MAX + 2]; /* of the present entry; "" is the root */
	struct stat st;
	int at; /* the entry again, by descriptor and name */
	const char *name;
	dev_t dev; /* of the root */
	uint64_t entries;
	struct hasher print;
	int64_t newest; /* ctime, in nanoseconds */
	/* Of a walk that reads. */
	struct links links;
	struct hasher tar;
	struct buf pending; /* headers, padding */
	int file;
	uint64_t left, file_size;
	uint8_t *chunk;
	bool begun, ended;
	const uint8_t *piece; /* of the stream, not yet handed out */
	size_t piece_len;
};

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

static int cannot_read(const struct walk *w, struct err *err)
{
	bool rights = errno == EACCES || errno == EPERM;
	int r = err_errno(err, "cannot read %s/%s", w->top, w->path);

	return rights ? err_hint(err, "a directory as a root must be readable as a whole") : r;
}

static int changed(const struct walk *w, struct err *err)
{
	err_set(err, EAGAIN, "%s/%s changed while it was read", w->top, w->path);
	return err_hint(err, "leave the directory alone for a moment, then try again");
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Go into the directory @fd, which is then the walk's. */
static int push(struct walk *w, int fd, struct err *err)
{
	struct level *l = &w->levels[w->nlevels];
	DIR *d = NULL;
	struct dirent *e;
	int copy, r = 0;

	*l = (struct level){.fd = fd, .path_len = strlen(w->path)};
	w->nlevels++;
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	d = copy >= 0 ? fdopendir(copy) : NULL;
	if (!d) {
		r = cannot_read(w, err);
		close_fd(copy);
		return r;
	}
	while (r == 0 && (errno = 0, e = readdir(d))) {
		if (str_eq(e->d_name, ".") || str_eq(e->d_name, ".."))
			continue;
		if (w->entries + l->names.n >= w->limits.entries)
			r = err_set(err, ERR_LIMIT, "%s has more than %llu entries", w->top,
				    (unsigned long long)w->limits.entries);
		else if (strv_add(&l->names, e->d_name) < 0)
			r = no_memory(err);
	}
	if (r == 0 && errno)
		r = cannot_read(w, err);
	closedir(d);
	if (r == 0 && l->names.n)
		qsort(l->names.v, l->names.n, sizeof(*l->names.v), by_name);
	return r;
}

static void pop(struct walk *w)
{
	struct level *l = &w->levels[--w->nlevels];

	close_fd(l->fd);
	strv_done(&l->names);
}

static void hash_entry(struct walk *w)
{
	const struct stat *st = &w->st;
	const uint64_t v[] = {
		st->st_mode,
		st->st_uid,
		st->st_gid,
		st->st_rdev,
		st->st_ino,
		st->st_nlink,
		(uint64_t)st->st_size,
		(uint64_t)st->st_mtim.tv_sec,
		(uint64_t)st->st_mtim.tv_nsec,
		(uint64_t)st->st_ctim.tv_sec,
		(uint64_t)st->st_ctim.tv_nsec,
	};

	hasher_add(&w->print, w->path, strlen(w->path) + 1);
	hasher_add(&w->print, v, sizeof(v));
	w->newest = MAX(w->newest, (int64_t)st->st_ctim.tv_sec * 1000000000 + st->st_ctim.tv_nsec);
}

/* 1: w->path and w->st are the next entry. A directory comes before what is in it. */
static int next_entry(struct walk *w, struct err *err)
{
	while (w->nlevels) {
		struct level *l = &w->levels[w->nlevels - 1];
		const char *name;
		size_t n;
		int fd, r;

		w->path[l->path_len] = '\0';
		if (l->at == l->names.n) {
			pop(w);
			continue;
		}
		name = l->names.v[l->at++];
		n = l->path_len + (l->path_len > 0) + strlen(name);
		if (n > w->limits.path_bytes)
			return err_set(err, ERR_LIMIT, "%s/%s/%s: a path longer than %u bytes",
				       w->top, w->path, name, w->limits.path_bytes);
		snprintf(w->path + l->path_len, sizeof(w->path) - l->path_len, "%s%s",
			 l->path_len ? "/" : "", name);
		if (fstatat(l->fd, name, &w->st, AT_SYMLINK_NOFOLLOW) < 0)
			return errno == ENOENT ? changed(w, err) : cannot_read(w, err);
		/* A socket is nothing without the process behind it. */
		if (S_ISSOCK(w->st.st_mode))
			continue;
		if (str_starts(name, ".wh.")) {
			err_set(err, ERR_UNSUPPORTED,
				"%s/%s: names that begin with .wh. mean "
				"something else in an image",
				w->top, w->path);
			return err_hint(err, "rename it, or leave it out of the directory");
		}
		w->entries++;
		hash_entry(w);
		w->at = l->fd;
		w->name = name;
		/* What is mounted there is not part of it. */
		if (!S_ISDIR(w->st.st_mode) || w->st.st_dev != w->dev)
			return 1;
		if (w->nlevels > w->limits.depth)
			return err_set(err, ERR_LIMIT, "%s/%s is deeper than %u directories",
				       w->top, w->path, w->limits.depth);
		fd = openat(l->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			return cannot_read(w, err);
		w->at = fd;
		w->name = ".";
		r = push(w, fd, err);
		return r < 0 ? r : 1;
	}
	return 0;
}

static int walk_open(struct walk *w, const char *top, const struct image_limits *l, struct err *err)
{
	int fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

	*w = (struct walk){.top = top, .limits = *l, .file = -1, .name = "."};
	if (fd < 0)
		return err_errno(err, "cannot read %s", top);
	w->levels = calloc(l->depth + 2, sizeof(*w->levels));
	r = w->levels ? hasher_init(&w->print, err) : no_memory(err);
	if (r == 0 && fstat(fd, &w->st) < 0)
		r = cannot_read(w, err);
	if (r < 0) {
		close_fd(fd);
		return r;
	}
	w->at = fd;
	w->dev = w->st.st_dev;
	w->entries = 1;
	hash_entry(w);
	return push(w, fd, err);
}

static void walk_done(struct walk *w)
{
	while (w->nlevels)
		pop(w);
	links_done(&w->links);
	free(w->levels);
	free(w->chunk);
	buf_done(&w->pending);
	close_fd(w->file);
	hasher_done(&w->print);
	hasher_done(&w->tar);
}
#define cleanup_walk __attribute__((cleanup(walk_done)))

/* ---- the tar stream ---- */

/* All attributes that we may read. */
static int add_xattrs(struct walk *w, struct buf *b, struct err *err)
{
	cleanup_free char *list = NULL, *path = NULL, *value = NULL;
	ssize_t n;

	path = str_fmt("/proc/self/fd/%d/%s", w->at, w->name);
	if (!path)
		return no_memory(err);
	n = llistxattr(path, NULL, 0);
	if (n <= 0)
		return n < 0 && errno != EOPNOTSUPP ? cannot_read(w, err) : 0;
	list = malloc(XATTR_LIST_MAX);
	value = malloc(XATTR_SIZE_MAX);
	if (!list || !value)
		return no_memory(err);
	n = llistxattr(path, list, XATTR_LIST_MAX);
	if (n < 0)
		return cannot_read(w, err);
	for (const char *name = list; name < list + n; name += strlen(name) + 1) {
		ssize_t size = lgetxattr(path, name, value, XATTR_SIZE_MAX);
		cleanup_free char *key = str_fmt("SCHILY.xattr.%s", name);

		if (!key)
			return no_memory(err);
		if (size >= 0)
			tar_put_pax(b, key, value, (size_t)size);
		else if (errno != ENODATA && errno != EPERM && errno != EACCES)
			return cannot_read(w, err);
	}
	return 0;
}

static int add_link_target(struct walk *w, struct buf *b, struct err *err)
{
	char target[IMAGE_LINK_MAX + 2];
	ssize_t n = readlinkat(w->at, w->name, target, sizeof(target) - 1);

	if (n < 0)
		return cannot_read(w, err);
	target[n] = '\0';
	tar_put_pax_text(b, "linkpath", target);
	return 0;
}

/* Open the present file: what is read must be what was looked at. */
static int open_file(struct walk *w, struct err *err)
{
	struct stat st;

	w->file = openat(w->at, w->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (w->file < 0)
		return cannot_read(w, err);
	if (fstat(w->file, &st) < 0)
		return cannot_read(w, err);
	if (!S_ISREG(st.st_mode) || st.st_ino != w->st.st_ino || st.st_dev != w->st.st_dev)
		return changed(w, err);
	w->file_size = w->left = (uint64_t)w->st.st_size;
	return 0;
}

/* The present entry's headers into w->pending, and its file opened. */
static int add_entry(struct walk *w, struct err *err)
{
	cleanup_buf struct buf pax = BUF_INIT;
	const struct stat *st = &w->st;
	const char *first = NULL;
	char mtime[48], type;
	int r = links_find(&w->links, st, w->path, &first);

	if (r < 0)
		return no_memory(err);
	type = first		      ? '1'
	       : S_ISREG(st->st_mode) ? '0'
	       : S_ISDIR(st->st_mode) ? '5'
	       : S_ISLNK(st->st_mode) ? '2'
	       : S_ISCHR(st->st_mode) ? '3'
	       : S_ISBLK(st->st_mode) ? '4'
				      : '6';
	tar_put_pax_text(&pax, "path", w->path[0] ? w->path : "./");
	tar_put_pax_number(&pax, "uid", st->st_uid);
	tar_put_pax_number(&pax, "gid", st->st_gid);
	snprintf(mtime, sizeof(mtime), "%lld.%09ld", (long long)st->st_mtim.tv_sec,
		 (long)st->st_mtim.tv_nsec);
	/* Before 1970 the fraction would count backwards. */
	if (st->st_mtim.tv_sec < 0)
		snprintf(mtime, sizeof(mtime), "%lld", (long long)st->st_mtim.tv_sec);
	tar_put_pax_text(&pax, "mtime", mtime);
	if (type == '0')
		tar_put_pax_number(&pax, "size", (uint64_t)st->st_size);
	if (first)
		tar_put_pax_text(&pax, "linkpath", first);
	else
		r = type == '2' ? add_link_target(w, &pax, err) : 0;
	if (r == 0 && !first)
		r = add_xattrs(w, &pax, err);
	if (r == 0 && type == '0')
		r = open_file(w, err);
	if (r < 0)
		return r;
	tar_put_extended(&w->pending, &pax);
	/* What the pax header says, this one does not: one way for all entries. */
	tar_put_header(&w->pending, &(struct tar_fields){.name = "x",
							 .type = type,
							 .mode = st->st_mode,
							 .size = type == '0' ? w->left : 0,
							 .major = major(st->st_rdev),
							 .minor = minor(st->st_rdev)});
	return buf_failed(&pax) || buf_failed(&w->pending) ? no_memory(err) : 0;
}

static int read_piece(struct walk *w, const uint8_t **ret, size_t *len, struct err *err)
{
	size_t want = (size_t)MIN(w->left, (uint64_t)CHUNK);
	ssize_t n = io_read_full(w->file, w->chunk, want);

	if (n < 0) {
		errno = (int)-n;
		return cannot_read(w, err);
	}
	if ((size_t)n < want)
		return changed(w, err);
	w->left -= want;
	*ret = w->chunk;
	*len = want;
	return 1;
}

/* The next piece of the tar stream: 1, 0 at the end. */
static int tar_piece(struct walk *w, const uint8_t **ret, size_t *len, struct err *err)
{
	int r = 1;

	if (w->begun)
		buf_reset(&w->pending);
	if (!w->begun) {
		/* The walk begins at the root, whose entry goes first. */
		w->begun = true;
		r = add_entry(w, err);
		*ret = buf_ptr(&w->pending);
		*len = buf_size(&w->pending);
		r = r < 0 ? r : 1;
	} else if (w->file >= 0 && w->left) {
		r = read_piece(w, ret, len, err);
	} else if (w->ended) {
		return 0;
	} else {
		if (w->file >= 0) {
			tar_put_padding(&w->pending, w->file_size);
			w->file = close_fd(w->file);
		}
		r = next_entry(w, err);
		if (r > 0)
			r = add_entry(w, err);
		else if (r == 0) {
			tar_put_end(&w->pending);
			w->ended = true;
		}
		*ret = buf_ptr(&w->pending);
		*len = buf_size(&w->pending);
		r = r < 0 ? r : 1;
	}
	if (r > 0)
		hasher_add(&w->tar, *ret, *len);
	return r;
}

/* A convert_fill_fn: small pieces together. */
static ssize_t fill(void *arg, uint8_t *p, size_t max, struct err *err)
{
	struct walk *w = arg;
	size_t have = 0;

	while (have < max) {
		size_t n;

		if (!w->piece_len) {
			int r = tar_piece(w, &w->piece, &w->piece_len, err);

			if (r < 0)
				return r;
			if (r == 0)
				break;
			continue;
		}
		n = MIN(w->piece_len, max - have);
		memcpy(p + have, w->piece, n);
		w->piece += n;
		w->piece_len -= n;
		have += n;
	}
	return (ssize_t)have;
}

/* ---- the image ---- */

struct conversion {
	struct store *store;
	const char *path;
	struct image_limits limits;
	char cache[80]; /* name of what is remembered */
	struct digest print;
};

/* What was remembered of this path: the image, if it is still of this fingerprint and there. */
static int recall(struct conversion *c, char id[IMAGE_DIGEST_LEN + 1], struct image_info *ret,
		  struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;
	char path[4096], want[IMAGE_DIGEST_LEN + 1];
	struct digest d;
	const char *text;
	int r = store_path(c->store, STORE_CACHE, c->cache, path, sizeof(path), err);

	id[0] = '\0';
	if (r < 0)
		return r;
	if (io_read_file(path, 256, &b, NULL) < 0 || !(text = buf_cstr(&b)) ||
	    strlen(text) != 2 * (IMAGE_DIGEST_LEN + 1) || text[IMAGE_DIGEST_LEN] != '\n')
		return 0;
	snprintf(id, IMAGE_DIGEST_LEN + 1, "%s", text + IMAGE_DIGEST_LEN + 1);
	if (digest_parse(id, "a remembered image", &d, NULL) < 0) {
		id[0] = '\0';
		return 0;
	}
	if (strncmp(text, digest_text(&c->print, want), IMAGE_DIGEST_LEN) != 0)
		return 0;
	r = catalog_has(c->store, &d, err);
	if (r <= 0)
		return r;
	r = image_find(c->store, id, ret, err);
	return r < 0 ? r : 1;
}

static int remember(struct conversion *c, const char *id, struct err *err)
{
	char path[4096], print[IMAGE_DIGEST_LEN + 1], text[2 * IMAGE_DIGEST_LEN + 3];
	int r = store_path(c->store, STORE_CACHE, c->cache, path, sizeof(path), err);

	snprintf(text, sizeof(text), "%s\n%s\n", digest_text(&c->print, print), id);
	return r < 0 ? r : io_write_file_atomic(path, text, strlen(text), 0600, err);
}

/* Give up the image that an earlier state of the directory was, unless it has become more. */
static void forget(struct conversion *c, const char *id)
{
	cleanup_image_info struct image_info i = IMAGE_INFO_INIT;
	struct image_removed gone = {0};

	if (image_inspect(c->store, id, &i, NULL) < 0 || i.references[0])
		return;
	if (image_remove(c->store, id, false, &gone, NULL) == 0)
		image_removed_done(&gone);
}

/* The configuration of an image that says nothing but what it is. */
static int make_config(const struct digest *diff_id, struct oci_image *img, struct err *err)
{
	char text[IMAGE_DIGEST_LEN + 1];
	json_t *o = json_pack("{s:s,s:s,s:{},s:{s:s,s:[s]}}", "architecture",
			      oci_host_architecture(), "os", "linux", "config", "rootfs", "type",
			      "layers", "diff_ids", digest_text(diff_id, text));
	int r;

	img->config_json = o ? json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	json_decref(o);
	img->manifest_digest = strdup("");
	img->names = calloc(1, sizeof(*img->names));
	img->layers = calloc(1, sizeof(*img->layers));
	if (!img->config_json || !img->manifest_digest || !img->names || !img->layers)
		return no_memory(err);
	img->layer_count = 1;
	img->layers[0] = (struct oci_layer){
		.name = strdup(""),
		.media_type = strdup("application/vnd.oci.image.layer.v1.tar"),
		.diff_id = *diff_id,
		.size = UINT64_MAX,
	};
	if (!img->layers[0].name || !img->layers[0].media_type)
		return no_memory(err);
	r = digest_of(img->config_json, strlen(img->config_json), &img->id, err);
	return r < 0 ? r
		     : oci_parse_config(img->config_json, strlen(img->config_json), &img->config,
					NULL, NULL, err);
}

static int register_image(struct conversion *c, const struct digest *diff_id,
			  const struct layer_info *info, char id[IMAGE_DIGEST_LEN + 1],
			  struct err *err)
{
	cleanup_oci_images struct oci_images images = {calloc(1, sizeof(*images.items)), 1};
	cleanup_temp struct store_temp temp = STORE_TEMP_INIT;
	struct oci_image *img = images.items;
	struct merge_result res;
	char name[80], hex[65];
	int r;

	if (!img) {
		images.count = 0;
		return no_memory(err);
	}
	r = make_config(diff_id, img, err);
	if (r == 0)
		r = catalog_has(c->store, &img->id, err);
	if (r == 0)
		r = store_temp_new(c->store, &temp, err);
	if (r == 0)
		r = merge_layers(c->store, diff_id, 1, &c->limits, img->id.sha256, temp.fd, &res,
				 err);
	if (r >= 0)
		digest_text(&img->id, id);
	/* Other path, same tree. */
	if (r != 0)
		return r < 0 ? r : 0;
	snprintf(name, sizeof(name), "%s.erofs", digest_hex(&img->id, hex));
	r = store_temp_publish(&temp, STORE_IMAGES, name, err);
	if (r == 0)
		r = store_sync_dir(c->store, STORE_IMAGES, err);
	if (r == 0)
		r = store_begin(c->store, err);
	if (r < 0)
		return r;
	r = catalog_add(c->store, img, info, &res, err);
	if (r >= 0)
		r = store_commit(c->store, err);
	if (r < 0)
		store_rollback(c->store);
	return r;
}

static int convert(struct conversion *c, char id[IMAGE_DIGEST_LEN + 1], struct err *err)
{
	cleanup_walk struct walk w = {.file = -1};
	cleanup_layer_draft struct layer_draft draft = {0};
	struct layer_made made;
	struct layer_info info;
	struct digest diff_id;
	struct timespec now;
	int r = layer_draft_new(&draft, c->store, err);

	clock_gettime(CLOCK_REALTIME, &now);
	if (r == 0)
		r = walk_open(&w, c->path, &c->limits, err);
	if (r == 0)
		r = hasher_init(&w.tar, err);
	if (r == 0 && !(w.chunk = malloc(CHUNK)))
		r = no_memory(err);
	if (r == 0)
		r = convert_layer(&draft, &c->limits, fill, &w, &made, err);
	if (r == 0)
		r = hasher_finish(&w.tar, &diff_id, err);
	if (r == 0)
		r = hasher_finish(&w.print, &c->print, err);
	if (r == 0)
		r = layer_publish(&draft, &made, &diff_id, &info, err);
	if (r == 0)
		r = register_image(c, &diff_id, &info, id, err);
	if (r == 0 && w.newest < (int64_t)now.tv_sec * 1000000000 + now.tv_nsec - RACY_NS)
		r = remember(c, id, err);
	return r;
}

static int scan(struct conversion *c, struct err *err)
{
	cleanup_walk struct walk w = {.file = -1};
	int r = walk_open(&w, c->path, &c->limits, err);

	while (r >= 0 && (r = next_entry(&w, err)) > 0)
		;
	return r < 0 ? r : hasher_finish(&w.print, &c->print, err);
}

int image_from_directory(struct store *s, const char *path, const struct image_limits *limits,
			 struct image_info *ret, struct err *err)
{
	struct conversion c = {.store = s, .path = path};
	char old[IMAGE_DIGEST_LEN + 1], id[IMAGE_DIGEST_LEN + 1], hex[65];
	cleanup_lock struct store_lock lock = STORE_LOCK_INIT;
	cleanup_close int hold = -1;
	struct digest name;
	int r;

	r = image_limits_of(s, limits, &c.limits, err);
	if (r == 0)
		r = digest_of(path, strlen(path), &name, err);
	if (r < 0)
		return r;
	snprintf(c.cache, sizeof(c.cache), "directory-%.32s", digest_hex(&name, hex));
	r = scan(&c, err);
	if (r == 0)
		r = recall(&c, old, ret, err);
	if (r != 0)
		return r < 0 ? r : 0;
	hold = store_hold(s, err);
	if (hold < 0)
		return hold;
	r = store_lock(s, c.cache, &lock, err);
	/* Somebody else may have been at it meanwhile. */
	if (r == 0)
		r = recall(&c, old, ret, err);
	if (r != 0)
		return r < 0 ? r : 0;
	r = convert(&c, id, err);
	if (r == 0)
		r = image_find(s, id, ret, err);
	hold = close_fd(hold);
	if (r == 0 && old[0] && !str_eq(old, id))
		forget(&c, old);
	return r < 0 ? err_wrap(err, "the directory %s", path) : 0;
}
