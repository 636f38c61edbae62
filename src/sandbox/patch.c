/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/patch.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"
#include "sandbox/spec.h"
#include "wire/patch.h"

/* A disk is whole blocks. */
#define PATCH_BLOCK 4096u

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

/* ---- words ---- */

/* A path in the guest: absolute, without "..", and a name of its own. */
static int check_target(const char *path, const char *what, struct err *err)
{
	const char *why = NULL;

	if (path[0] != '/')
		why = "is not absolute";
	else if (strspn(path, "/") == strlen(path))
		why = "is the root itself";
	else if (strlen(path) > PATCH_PATH_MAX)
		why = "is too long";
	else if (path[strlen(path) - 1] == '/')
		why = "ends in a slash";
	for (const char *p = path; !why && *p; p += strcspn(p, "/")) {
		p += strspn(p, "/");
		if (strncmp(p, "..", 2) == 0 && (!p[2] || p[2] == '/'))
			why = "contains \"..\"";
	}
	if (!why)
		return 0;
	err_set(err, ERR_USAGE, "%s \"%.200s\" %s", what, path, why);
	return err_hint(err, "name the file or directory itself, as in /opt/app.conf");
}

static int parse_copy(struct sandbox_patch *p, const char *text, struct err *err)
{
	const char *colon = NULL;
	int r;

	/* The source may have colons; the target begins with a slash. */
	for (const char *at = strstr(text, ":/"); at; at = strstr(at + 1, ":/"))
		colon = at;
	if (!colon || colon == text) {
		err_set(err, ERR_USAGE, "\"%s\" does not say what to copy where", text);
		return err_hint(err, "write it like ./app.conf:/etc/app.conf");
	}
	r = check_target(colon + 1, "the target", err);
	if (r < 0)
		return r;
	p->src = strndup(text, (size_t)(colon - text));
	p->dst = strdup(colon + 1);
	return p->src && p->dst ? 0 : no_memory(err);
}

static int parse_target(struct sandbox_patch *p, const char *text, struct err *err)
{
	int r = check_target(text, "the path", err);

	if (r < 0)
		return r;
	p->dst = strdup(text);
	return p->dst ? 0 : no_memory(err);
}

/* Undo escapes in place; what is none stays as it is. */
static void unescape(char *s)
{
	static const char from[] = "ntr\\\"'", to[] = "\n\t\r\\\"'";
	char *out = s;

	for (; *s; s++) {
		const char *at = s[0] == '\\' && s[1] ? strchr(from, s[1]) : NULL;

		*out++ = at ? to[at - from] : *s;
		s += at != NULL;
	}
	*out = '\0';
}

static int parse_script(struct sandbox_patch *p, const char *text, struct err *err)
{
	const bool file = p->kind == SANDBOX_SCRIPT_PATH;
	const char *end = strchr(text, file ? ':' : '=');
	cleanup_free char *name = end ? strndup(text, (size_t)(end - text)) : NULL;
	cleanup_buf struct buf b = BUF_INIT;
	int r;

	if (!end || end == text) {
		err_set(err, ERR_USAGE, "script \"%.60s\" has no %s", text,
			end    ? "name"
			: file ? "file"
			       : "body");
		return file ? err_hint(err, "write it like setup:./setup.sh")
			    : err_hint(err, "write it like greet='echo hello'");
	}
	if (!name)
		return no_memory(err);
	if (strchr(name, '/') || strlen(name) > NAME_MAX || str_eq(name, ".") || str_eq(name, ".."))
		return err_set(err, ERR_USAGE, "\"%.60s\" is not a name for a script", name);
	if (file) {
		r = io_read_file(end + 1, SANDBOX_SCRIPT_MAX, &b, err);
		if (r < 0)
			return err_wrap(err, "script %s", name);
	} else {
		buf_add_str(&b, end + 1);
	}
	if (buf_size(&b) > SANDBOX_SCRIPT_MAX)
		return err_set(err, ERR_LIMIT, "script %s is too long", name);
	p->dst = str_fmt("%s/%s", PATCH_SCRIPTS_DIR, name);
	p->src = malloc(buf_size(&b) + 1);
	if (!p->dst || !p->src || buf_failed(&b))
		return no_memory(err);
	if (buf_size(&b))
		memcpy(p->src, buf_ptr(&b), buf_size(&b));
	p->len = buf_size(&b);
	p->src[p->len] = '\0';
	if (p->kind == SANDBOX_SCRIPT) {
		unescape(p->src);
		p->len = strlen(p->src);
	}
	return 0;
}

/* Takes what @p owns, also when that fails. */
static int add_patch(struct sandbox_spec *s, struct sandbox_patch *p, struct err *err)
{
	struct sandbox_patch *v = reallocarray(s->patches, s->npatches + 1, sizeof(*v));

	if (!v) {
		free(p->src);
		free(p->dst);
		return no_memory(err);
	}
	s->patches = v;
	v[s->npatches++] = *p;
	return 0;
}

int sandbox_patch_put(struct sandbox_spec *s, const struct sandbox_patch *p, struct err *err)
{
	struct sandbox_patch copy = *p;
	int r = check_target(p->dst, p->kind == SANDBOX_LINK ? "the link" : "the path", err);

	if (r < 0)
		return r;
	if (p->kind == SANDBOX_LINK && (!p->src[0] || strlen(p->src) > PATCH_PATH_MAX))
		return err_set(err, ERR_USAGE, "a link must lead to a path");
	copy.dst = strdup(p->dst);
	copy.src = p->src ? malloc(p->len + 1) : NULL;
	if (!copy.dst || (p->src && !copy.src)) {
		free(copy.dst);
		free(copy.src);
		return no_memory(err);
	}
	if (p->src) {
		if (p->len)
			memcpy(copy.src, p->src, p->len);
		copy.src[p->len] = '\0';
	}
	return add_patch(s, &copy, err);
}

int sandbox_patch_add(struct sandbox_spec *s, enum sandbox_patch_kind kind, const char *text,
		      struct err *err)
{
	struct sandbox_patch p = {.kind = kind, .mode = SANDBOX_PATCH_MODE_NONE};
	int r;

	switch (kind) {
	case SANDBOX_COPY:
	case SANDBOX_COPY_FILE:
	case SANDBOX_COPY_DIR:
		r = parse_copy(&p, text, err);
		break;
	case SANDBOX_MKDIR:
	case SANDBOX_RM:
		r = parse_target(&p, text, err);
		break;
	default:
		r = parse_script(&p, text, err);
	}
	if (r == 0)
		return add_patch(s, &p, err);
	free(p.src);
	free(p.dst);
	return r;
}

void sandbox_patches_clear(struct sandbox_spec *s)
{
	size_t n = 0;

	for (size_t i = 0; i < s->npatches; i++) {
		if (s->patches[i].kind >= SANDBOX_SCRIPT) {
			s->patches[n++] = s->patches[i];
			continue;
		}
		free(s->patches[i].src);
		free(s->patches[i].dst);
	}
	s->npatches = n;
}

void sandbox_patches_done(struct sandbox_spec *s)
{
	for (size_t i = 0; i < s->npatches; i++) {
		free(s->patches[i].src);
		free(s->patches[i].dst);
	}
	free(s->patches);
	s->patches = NULL;
	s->npatches = 0;
}

/* ---- the file ---- */

struct writer {
	int fd;
	const char *top; /* SRC, for messages */
	uint64_t bytes;
	unsigned entries, depth;
	char path[PATCH_PATH_MAX + 1]; /* in the guest */
	struct buf head;
};

static int put(struct writer *w, const void *p, size_t n, struct err *err)
{
	int r = io_write_full(w->fd, p, n);

	return r < 0 ? err_set(err, r, "cannot write the patches: %s", err_name(r)) : 0;
}

static int put_step(struct writer *w, enum patch_op op, const struct stat *st, const char *target,
		    uint64_t size, struct err *err)
{
	struct patch_step step = {
		.op = htole32(op),
		.mode = htole32(st->st_mode & 07777),
		.path_len = htole32((uint32_t)strlen(w->path)),
		.target_len = htole32((uint32_t)strlen(target)),
		.size = htole64(size),
		.mtime = (int64_t)htole64((uint64_t)st->st_mtim.tv_sec),
		.mtime_ns = htole32((uint32_t)st->st_mtim.tv_nsec),
	};

	if (++w->entries > SANDBOX_PATCH_ENTRIES_MAX)
		return err_set(err, ERR_LIMIT, "more than %u files and directories to copy",
			       SANDBOX_PATCH_ENTRIES_MAX);
	if (size > SANDBOX_PATCH_BYTES_MAX - w->bytes) {
		err_set(err, ERR_LIMIT, "more than 4 GiB to copy");
		return err_hint(err, "put so much into an image, or use the directory as the root");
	}
	w->bytes += size;
	buf_reset(&w->head);
	buf_add(&w->head, &step, sizeof(step));
	buf_add_str(&w->head, w->path);
	buf_add_str(&w->head, target);
	if (buf_failed(&w->head))
		return no_memory(err);
	return put(w, buf_ptr(&w->head), buf_size(&w->head), err);
}

/* Its owner in the guest is another one, so what it grants there is not what was meant. */
static void drop_set_ids(struct stat *st)
{
	st->st_mode &= ~(mode_t)(S_ISUID | S_ISGID);
}

static int cannot_read(const struct writer *w, const char *name, struct err *err)
{
	return name ? err_errno(err, "cannot copy %s (at %s)", w->top, name)
		    : err_errno(err, "cannot copy %s", w->top);
}

static int put_file(struct writer *w, int fd, const struct stat *st, struct err *err)
{
	cleanup_free char *chunk = malloc(256u << 10);
	uint64_t left = (uint64_t)st->st_size;
	int r = chunk ? put_step(w, PATCH_FILE, st, "", left, err) : no_memory(err);

	while (r == 0 && left) {
		ssize_t n = io_read_full(fd, chunk, (size_t)MIN(left, (uint64_t)(256u << 10)));

		if (n < 0)
			return err_set(err, (int)n, "cannot read %s: %s", w->top, err_name((int)n));
		if (n == 0)
			return err_set(err, EAGAIN, "a file in %s changed while it was copied",
				       w->top);
		r = put(w, chunk, (size_t)n, err);
		left -= (uint64_t)n;
	}
	return r;
}

static int put_directory(struct writer *w, int fd, const struct stat *st, struct err *err);

static int put_link(struct writer *w, int dir, const char *name, const struct stat *st,
		    struct err *err)
{
	char target[PATCH_PATH_MAX + 1];
	ssize_t n = readlinkat(dir, name, target, sizeof(target) - 1);

	if (n < 0)
		return cannot_read(w, name, err);
	target[n] = '\0';
	return put_step(w, PATCH_LINK, st, target, 0, err);
}

/* One entry of a directory that is copied; w->path is its name in the guest. */
static int put_entry(struct writer *w, int dir, const char *name, struct err *err)
{
	cleanup_close int fd = -1;
	struct stat st, now;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return cannot_read(w, name, err);
	if (S_ISSOCK(st.st_mode))
		return 0;
	if (S_ISLNK(st.st_mode))
		return put_link(w, dir, name, &st, err);
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return err_set(err, ERR_UNSUPPORTED,
			       "cannot copy %s: %s in it is a device or a pipe", w->top, name);
	fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &now) < 0)
		return cannot_read(w, name, err);
	if (now.st_ino != st.st_ino || (now.st_mode ^ st.st_mode) & S_IFMT)
		return err_set(err, EAGAIN, "%s in %s changed while it was copied", name, w->top);
	drop_set_ids(&now);
	return S_ISDIR(now.st_mode) ? put_directory(w, fd, &now, err) : put_file(w, fd, &now, err);
}

static int put_directory(struct writer *w, int fd, const struct stat *st, struct err *err)
{
	cleanup_dir DIR *d = NULL;
	size_t len = strlen(w->path);
	struct dirent *e;
	int r = put_step(w, PATCH_DIRECTORY, st, "", 0, err), copy;

	if (r < 0)
		return r;
	if (w->depth == SANDBOX_PATCH_DEPTH_MAX)
		return err_set(err, ERR_LIMIT, "%s is deeper than %u directories", w->top,
			       SANDBOX_PATCH_DEPTH_MAX);
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	d = copy >= 0 ? fdopendir(copy) : NULL;
	if (!d) {
		close_fd(copy);
		return cannot_read(w, NULL, err);
	}
	w->depth++;
	while (r == 0 && (errno = 0, e = readdir(d))) {
		if (str_eq(e->d_name, ".") || str_eq(e->d_name, ".."))
			continue;
		if (len + 1 + strlen(e->d_name) > PATCH_PATH_MAX)
			r = err_set(err, ERR_LIMIT, "a path in %s is too long", w->top);
		else
			snprintf(w->path + len, sizeof(w->path) - len, "/%s", e->d_name);
		if (r == 0)
			r = put_entry(w, fd, e->d_name, err);
	}
	if (r == 0 && errno)
		r = cannot_read(w, NULL, err);
	w->path[len] = '\0';
	w->depth--;
	return r;
}

static int put_copy(struct writer *w, const struct sandbox_patch *p, struct err *err)
{
	cleanup_close int fd = open(p->src, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat st;

	w->top = p->src;
	if (fd < 0 || fstat(fd, &st) < 0)
		return cannot_read(w, NULL, err);
	drop_set_ids(&st);
	if (p->mode >= 0)
		st.st_mode = (st.st_mode & S_IFMT) | (mode_t)p->mode;
	if (p->kind == SANDBOX_COPY_FILE && S_ISDIR(st.st_mode)) {
		err_set(err, ERR_USAGE, "%s is a directory", p->src);
		return err_hint(err, "use --copy-dir, or --copy for either");
	}
	if (p->kind == SANDBOX_COPY_DIR && !S_ISDIR(st.st_mode)) {
		err_set(err, ERR_USAGE, "%s is not a directory", p->src);
		return err_hint(err, "use --copy-file, or --copy for either");
	}
	if (S_ISDIR(st.st_mode))
		return put_directory(w, fd, &st, err);
	if (!S_ISREG(st.st_mode))
		return err_set(err, ERR_UNSUPPORTED,
			       "cannot copy %s: it is neither a file nor a directory", p->src);
	return put_file(w, fd, &st, err);
}

/* A script without a first line of its own gets one from the shell. */
static int put_script(struct writer *w, const struct sandbox_spec *s, const struct sandbox_patch *p,
		      struct err *err)
{
	const char *shell = s->shell ? s->shell : "/bin/sh";
	cleanup_buf struct buf b = BUF_INIT;
	struct stat st = {.st_mode = 0755};
	int r;

	if (p->len < 2 || memcmp(p->src, "#!", 2) != 0)
		buf_addf(&b, "#!%s%s\n", strchr(shell, '/') ? "" : "/usr/bin/env ", shell);
	buf_add(&b, p->src, p->len);
	if (!p->len || p->src[p->len - 1] != '\n')
		buf_add_u8(&b, '\n');
	if (buf_failed(&b))
		return no_memory(err);
	clock_gettime(CLOCK_REALTIME, &st.st_mtim);
	r = put_step(w, PATCH_REPLACE, &st, "", buf_size(&b), err);
	return r < 0 ? r : put(w, buf_ptr(&b), buf_size(&b), err);
}

/* Contents that were said, in a file of their own or behind another's. */
static int put_contents(struct writer *w, enum patch_op op, const struct sandbox_patch *p,
			struct err *err)
{
	struct stat st = {.st_mode = p->mode >= 0 ? (mode_t)p->mode : 0644};
	int r;

	clock_gettime(CLOCK_REALTIME, &st.st_mtim);
	r = put_step(w, op, &st, "", p->len, err);
	return r < 0 ? r : put(w, p->src, p->len, err);
}

static int put_patch(struct writer *w, const struct sandbox_spec *s, const struct sandbox_patch *p,
		     struct err *err)
{
	const struct stat st = {.st_mode = p->mode >= 0 ? (mode_t)p->mode : 0755};
	int r;

	snprintf(w->path, sizeof(w->path), "%s", p->dst);
	r = p->replace ? put_step(w, PATCH_REMOVE, &st, "", 0, err) : 0;
	if (r < 0)
		return r;
	switch (p->kind) {
	case SANDBOX_COPY:
	case SANDBOX_COPY_FILE:
	case SANDBOX_COPY_DIR:
		return put_copy(w, p, err);
	case SANDBOX_MKDIR:
		return put_step(w, PATCH_MKDIR, &st, "", 0, err);
	case SANDBOX_RM:
		return put_step(w, PATCH_REMOVE, &st, "", 0, err);
	case SANDBOX_TEXT:
		return put_contents(w, PATCH_FILE, p, err);
	case SANDBOX_APPEND:
		return put_contents(w, PATCH_APPEND, p, err);
	case SANDBOX_LINK:
		return put_step(w, PATCH_LINK, &st, p->src, 0, err);
	default:
		return put_script(w, s, p, err);
	}
}

static int put_all(struct writer *w, const struct sandbox_spec *s, struct err *err)
{
	const struct stat st = {0};
	struct patch_head head;
	int r;

	memcpy(head.magic, PATCH_MAGIC, sizeof(head.magic));
	if (getrandom(head.id, sizeof(head.id), 0) != sizeof(head.id))
		return err_errno(err, "cannot get random numbers");
	r = put(w, &head, sizeof(head), err);
	for (size_t i = 0; i < s->npatches && r == 0; i++)
		r = put_patch(w, s, &s->patches[i], err);
	w->path[0] = '\0';
	return r < 0 ? r : put_step(w, PATCH_END, &st, "", 0, err);
}

int sandbox_patch_write(const struct sandbox_spec *s, int dirfd, const char *name, struct err *err)
{
	cleanup_close int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct writer w = {.fd = fd};
	off_t end;
	int r;

	if (fd < 0)
		return err_errno(err, "cannot write the patches");
	r = put_all(&w, s, err);
	buf_done(&w.head);
	end = lseek(fd, 0, SEEK_CUR);
	if (r == 0 && ftruncate(fd, (end + PATCH_BLOCK - 1) / PATCH_BLOCK * PATCH_BLOCK) < 0)
		r = err_errno(err, "cannot write the patches");
	return r;
}
