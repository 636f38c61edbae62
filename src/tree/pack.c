/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "tree/links.h"
#include "tree/tar_write.h"
#include "tree/tree.h"

enum {
	OUT_SIZE = 256 << 10,
	ATTR_LIST_MAX = 64 << 10, /* XATTR_LIST_MAX, XATTR_SIZE_MAX of Linux */
	ATTR_SIZE_MAX = 64 << 10,
	/* A file of a pseudo file system has no size; it is read into memory first. */
	PSEUDO_MAX = 16 << 20,
};

struct pack {
	const struct tree_pack *o;
	struct tree_notes *notes;
	tree_write_fn *write;
	void *arg;
	struct links links;
	struct buf out; /* OUT_SIZE at most */
	size_t path_len;
	char path[TREE_PATH_MAX + 2]; /* in the stream */
};

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

/* The source's own name of the present entry, for messages. */
static int cannot_read(const struct pack *p, struct err *err)
{
	const char *rest = p->path + strlen(p->o->name);

	return err_errno(err, "cannot read %s%s", p->o->path, rest);
}

static int flush(struct pack *p, struct err *err)
{
	int r = 0;

	if (buf_failed(&p->out))
		return no_memory(err);
	if (buf_size(&p->out))
		r = p->write(p->arg, buf_ptr(&p->out), buf_size(&p->out), err);
	buf_reset(&p->out);
	return r;
}

static int put_entry(struct pack *p, const struct tar_entry *e, const struct tar_fragment *map,
		     size_t map_len, struct err *err)
{
	tar_put_entry(&p->out, e, map, map_len);
	return buf_failed(&p->out) || buf_size(&p->out) >= OUT_SIZE / 2 ? flush(p, err) : 0;
}

static int put_zeros(struct pack *p, uint64_t n, struct err *err)
{
	while (n) {
		size_t piece = (size_t)MIN(n, (uint64_t)OUT_SIZE);
		void *to = buf_reserve(&p->out, piece);
		int r;

		if (!to)
			return no_memory(err);
		memset(to, 0, piece);
		buf_commit(&p->out, piece);
		n -= piece;
		r = flush(p, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* @n bytes of the file from @off on. A file that has become shorter is an error. */
static int put_bytes(struct pack *p, int fd, uint64_t off, uint64_t n, struct err *err)
{
	while (n) {
		size_t room = OUT_SIZE - MIN(buf_size(&p->out), (size_t)OUT_SIZE / 2);
		size_t want = (size_t)MIN(n, (uint64_t)room);
		void *to = buf_reserve(&p->out, want);
		ssize_t got;
		int r = 0;

		if (!to)
			return no_memory(err);
		got = pread(fd, to, want, (off_t)off);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return cannot_read(p, err);
		if (!got) {
			err_set(err, EAGAIN, "%s%s became shorter while it was read", p->o->path,
				p->path + strlen(p->o->name));
			return err_hint(err, "copy it again when nobody writes to it");
		}
		buf_commit(&p->out, (size_t)got);
		off += (uint64_t)got;
		n -= (uint64_t)got;
		if (buf_size(&p->out) >= OUT_SIZE / 2)
			r = flush(p, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/*
 * Where the file has data: the fragments, the last of which may be empty to mark the end. 0 of them
 * and *ret == NULL: it is to be sent as a whole.
 */
static int find_data(int fd, uint64_t size, struct tar_fragment **ret, size_t *ret_n)
{
	struct tar_fragment *map = NULL;
	size_t n = 0, cap = 0;
	uint64_t at = 0, end = 0;

	*ret = NULL;
	*ret_n = 0;
	while (at < size && n + 2 < TAR_SPARSE_MAX) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA), hole;

		if (data < 0 && errno == ENXIO)
			break;
		hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
		if (hole < 0 || (uint64_t)data >= size) {
			free(map);
			return data < 0 || hole < 0 ? 0 : -EAGAIN;
		}
		if (n + 2 > cap) {
			struct tar_fragment *m;

			cap = cap ? cap * 2 : 16;
			m = realloc(map, cap * sizeof(*m));
			if (!m) {
				free(map);
				return -ENOMEM;
			}
			map = m;
		}
		at = MIN((uint64_t)hole, size);
		map[n++] = (struct tar_fragment){(uint64_t)data, at - (uint64_t)data};
		end = at;
	}
	if (n + 2 == TAR_SPARSE_MAX && at < size) {
		/* Too many: the rest in one piece. */
		map[n - 1].len = size - map[n - 1].off;
		end = size;
	}
	if (!map) {
		map = malloc(sizeof(*map));
		if (!map)
			return -ENOMEM;
	}
	if (end < size)
		map[n++] = (struct tar_fragment){size, 0};
	*ret = map;
	*ret_n = n;
	return 0;
}

static bool is_pseudo(int fd)
{
	static const long types[] = {
		PROC_SUPER_MAGIC,   SYSFS_MAGIC,	CGROUP2_SUPER_MAGIC,
		CGROUP_SUPER_MAGIC, DEVPTS_SUPER_MAGIC, DEBUGFS_MAGIC,
		TRACEFS_MAGIC,	    SECURITYFS_MAGIC,	BPF_FS_MAGIC,
	};
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		if ((long)fs.f_type == types[i])
			return true;
	}
	return false;
}

/* A file whose size is not known before it was read. */
static int pack_pseudo(struct pack *p, int fd, struct tar_entry *e, struct err *err)
{
	cleanup_buf struct buf b = {.max = PSEUDO_MAX};
	int r;

	for (;;) {
		void *to = buf_reserve(&b, 64 << 10);
		ssize_t n = to ? read(fd, to, 64 << 10) : -1;

		if (!to)
			return err_set(err, ERR_LIMIT, "%s%s is longer than %d MiB", p->o->path,
				       p->path + strlen(p->o->name), PSEUDO_MAX >> 20);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return cannot_read(p, err);
		if (!n)
			break;
		buf_commit(&b, (size_t)n);
	}
	e->size = buf_size(&b);
	r = put_entry(p, e, NULL, 0, err);
	if (r < 0)
		return r;
	buf_add(&p->out, buf_ptr(&b), buf_size(&b));
	tar_put_padding(&p->out, e->size);
	return flush(p, err);
}

static int pack_file(struct pack *p, int fd, const struct stat *st, struct tar_entry *e,
		     struct err *err)
{
	cleanup_free struct tar_fragment *map = NULL;
	uint64_t sent = 0;
	size_t n = 0;
	int r = 0;

	e->size = (uint64_t)st->st_size;
	/* In sysfs a file has the size of what its buffer would hold. */
	if ((!e->size || !st->st_blocks) && is_pseudo(fd))
		return pack_pseudo(p, fd, e, err);
	if ((uint64_t)st->st_blocks * 512 < e->size)
		r = find_data(fd, e->size, &map, &n);
	if (r < 0) {
		errno = -r;
		return cannot_read(p, err);
	}
	/* Without a hole it is a file like others. */
	if (n == 1 && map[0].len == e->size) {
		free(map);
		map = NULL;
		n = 0;
	}
	r = put_entry(p, e, map, n, err);
	if (!map && r == 0) {
		sent = e->size;
		r = put_bytes(p, fd, 0, e->size, err);
	}
	for (size_t i = 0; i < n && r == 0; i++) {
		sent += map[i].len;
		r = put_bytes(p, fd, map[i].off, map[i].len, err);
	}
	if (r == 0 && sent % TAR_BLOCK)
		r = put_zeros(p, -sent & (TAR_BLOCK - 1), err);
	return r;
}

struct attributes {
	struct tar_xattr *v;
	size_t n;
	char *names;
};

static void attributes_done(struct attributes *a)
{
	for (size_t i = 0; i < a->n; i++)
		free((void *)(uintptr_t)a->v[i].value);
	free(a->v);
	free(a->names);
}

/* All that we may read. */
static int read_attributes(struct pack *p, int dir, const char *name, struct attributes *a,
			   struct err *err)
{
	cleanup_free char *path =
		dir == AT_FDCWD ? strdup(name) : str_fmt("/proc/self/fd/%d/%s", dir, name);
	cleanup_free uint8_t *value = malloc(ATTR_SIZE_MAX);
	ssize_t n;

	a->names = malloc(ATTR_LIST_MAX);
	if (!path || !value || !a->names)
		return no_memory(err);
	n = llistxattr(path, a->names, ATTR_LIST_MAX);
	if (n < 0)
		return errno == EOPNOTSUPP ? 0 : cannot_read(p, err);
	for (const char *s = a->names; s < a->names + n; s += strlen(s) + 1) {
		ssize_t size = lgetxattr(path, s, value, ATTR_SIZE_MAX);
		struct tar_xattr *v;

		if (size < 0)
			continue;
		v = reallocarray(a->v, a->n + 1, sizeof(*v));
		if (!v)
			return no_memory(err);
		a->v = v;
		v[a->n] = (struct tar_xattr){.name = s, .len = (size_t)size};
		v[a->n].value = malloc((size_t)size + 1);
		if (!v[a->n].value)
			return no_memory(err);
		memcpy((void *)(uintptr_t)v[a->n++].value, value, (size_t)size);
	}
	return 0;
}

static int pack_at(struct pack *p, int dir, const char *name, unsigned depth, struct err *err);

static int pack_children(struct pack *p, int fd, unsigned depth, struct err *err)
{
	cleanup_dir DIR *d = NULL;
	size_t len = p->path_len;
	struct dirent *e;
	int copy;

	if (depth && is_pseudo(fd))
		return 0;
	if (depth > TREE_DEPTH_MAX)
		return err_set(err, ERR_LIMIT, "%s%s is deeper than %u directories", p->o->path,
			       p->path + strlen(p->o->name), TREE_DEPTH_MAX);
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	d = copy >= 0 ? fdopendir(copy) : NULL;
	if (!d) {
		close_fd(copy);
		return cannot_read(p, err);
	}
	while ((errno = 0, e = readdir(d))) {
		size_t n = strlen(e->d_name);
		int r;

		if (str_eq(e->d_name, ".") || str_eq(e->d_name, ".."))
			continue;
		if (len + 1 + n > TREE_PATH_MAX)
			return err_set(err, ENAMETOOLONG, "%s%s/%s: a path longer than %u bytes",
				       p->o->path, p->path + strlen(p->o->name), e->d_name,
				       TREE_PATH_MAX);
		p->path[len] = '/';
		memcpy(p->path + len + 1, e->d_name, n + 1);
		p->path_len = len + 1 + n;
		r = pack_at(p, fd, e->d_name, depth + 1, err);
		if (r < 0)
			return r;
		p->path_len = len;
		p->path[len] = '\0';
	}
	return errno ? cannot_read(p, err) : 0;
}

/* Headers and contents of what was looked at and, if it can be read, opened. */
static int pack_entry(struct pack *p, int dir, const char *name, int fd, const struct stat *st,
		      unsigned depth, struct err *err)
{
	CLEANUP(attributes_done) struct attributes attrs = {0};
	char target[TREE_PATH_MAX + 1], path[TREE_PATH_MAX + 4];
	struct tar_entry e = {
		.path = p->path,
		.mode = st->st_mode & 07777,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.mtime = st->st_mtim.tv_sec,
		.mtime_ns = (uint32_t)st->st_mtim.tv_nsec,
	};
	const char *first;
	ssize_t n;
	int r = links_find(&p->links, st, p->path, &first);

	if (r < 0)
		return no_memory(err);
	if (first) {
		e.type = TAR_HARDLINK;
		e.link = first;
		return put_entry(p, &e, NULL, 0, err);
	}
	if (p->o->attributes)
		r = read_attributes(p, dir, name, &attrs, err);
	if (r < 0)
		return r;
	e.xattrs = attrs.v;
	e.xattr_count = attrs.n;
	switch (st->st_mode & S_IFMT) {
	case S_IFREG:
		e.type = TAR_FILE;
		return pack_file(p, fd, st, &e, err);
	case S_IFDIR:
		e.type = TAR_DIRECTORY;
		snprintf(path, sizeof(path), "%s/", p->path);
		e.path = path;
		r = put_entry(p, &e, NULL, 0, err);
		return r < 0 ? r : pack_children(p, fd, depth, err);
	case S_IFLNK:
		n = readlinkat(dir, name, target, sizeof(target) - 1);
		if (n < 0)
			return cannot_read(p, err);
		target[n] = '\0';
		e.type = TAR_SYMLINK;
		e.link = target;
		e.mode = 0777;
		break;
	case S_IFIFO:
		e.type = TAR_FIFO;
		break;
	default:
		e.type = S_ISCHR(st->st_mode) ? TAR_CHARDEV : TAR_BLOCKDEV;
		e.major = major(st->st_rdev);
		e.minor = minor(st->st_rdev);
	}
	return put_entry(p, &e, NULL, 0, err);
}

static int pack_at(struct pack *p, int dir, const char *name, unsigned depth, struct err *err)
{
	bool follow = !depth && p->o->follow;
	cleanup_close int fd = -1;
	struct stat st, opened;

	if (fstatat(dir, name, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW) < 0) {
		if (errno != ENOENT || !depth)
			return cannot_read(p, err);
		p->notes->vanished++;
		return 0;
	}
	if (S_ISSOCK(st.st_mode)) {
		if (!depth)
			return err_set(err, ERR_UNSUPPORTED,
				       "%s is a socket, which is nothing "
				       "without the process behind it",
				       p->o->path);
		p->notes->sockets++;
		return 0;
	}
	if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) {
		fd = openat(dir, name,
			    O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY |
				    (S_ISDIR(st.st_mode) ? O_DIRECTORY : 0) |
				    (follow ? 0 : O_NOFOLLOW));
		if (fd < 0 && errno == ENOENT && depth) {
			p->notes->vanished++;
			return 0;
		}
		if (fd < 0 || fstat(fd, &opened) < 0)
			return cannot_read(p, err);
		if (opened.st_ino != st.st_ino || opened.st_dev != st.st_dev ||
		    (opened.st_mode & S_IFMT) != (st.st_mode & S_IFMT))
			return err_set(err, EAGAIN, "%s%s changed while it was read", p->o->path,
				       p->path + strlen(p->o->name));
		/* What it is like now, not just before. */
		st = opened;
	}
	return pack_entry(p, dir, name, fd, &st, depth, err);
}

int tree_pack(const struct tree_pack *o, tree_write_fn *write, void *arg, struct tree_notes *notes,
	      struct err *err)
{
	struct pack p = {.o = o, .notes = notes, .write = write, .arg = arg};
	int r;

	p.path_len = strlen(o->name);
	if (p.path_len > NAME_MAX)
		return err_set(err, ENAMETOOLONG, "the name '%.100s…' is too long", o->name);
	memcpy(p.path, o->name, p.path_len + 1);
	r = pack_at(&p, AT_FDCWD, o->path, 0, err);
	if (r == 0) {
		tar_put_end(&p.out);
		r = flush(&p, err);
	}
	links_done(&p.links);
	buf_done(&p.out);
	return r;
}
