/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SFTP version 3 (draft-ietf-secsh-filexfer-02) on top of core.fs.*: one operation of the agent for
 * a request, as many at once as the client asks for. Handles are the agent's numbers.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "sandbox/agent_client.h"
#include "ssh/ssh.h"
#include "wire/cbor.h"
#include "wire/frame.h"

enum {
	PACKET_MAX = 300 << 10, /* OpenSSH sends 256 KiB at most */
	READ_MAX = 256 << 10,
	NAMES_PER_ANSWER = 64,
	PATH_SIZE = 4096,
};

enum {
	FXP_INIT = 1,
	FXP_VERSION,
	FXP_OPEN,
	FXP_CLOSE,
	FXP_READ,
	FXP_WRITE,
	FXP_LSTAT,
	FXP_FSTAT,
	FXP_SETSTAT,
	FXP_FSETSTAT,
	FXP_OPENDIR,
	FXP_READDIR,
	FXP_REMOVE,
	FXP_MKDIR,
	FXP_RMDIR,
	FXP_REALPATH,
	FXP_STAT,
	FXP_RENAME,
	FXP_READLINK,
	FXP_SYMLINK,
	FXP_STATUS = 101,
	FXP_HANDLE,
	FXP_DATA,
	FXP_NAME,
	FXP_ATTRS,
	FXP_EXTENDED = 200,
};

enum { FX_OK, FX_EOF, FX_NO_SUCH_FILE, FX_PERMISSION_DENIED, FX_FAILURE, FX_BAD_MESSAGE };
#define FX_OP_UNSUPPORTED 8
/* As sshd's. */
#define UMASK 022u

enum { ATTR_SIZE = 1, ATTR_UIDGID = 2, ATTR_PERMISSIONS = 4, ATTR_ACMODTIME = 8 };
enum {
	OPEN_READ = 1,
	OPEN_WRITE = 2,
	OPEN_APPEND = 4,
	OPEN_CREAT = 8,
	OPEN_TRUNC = 16,
	OPEN_EXCL = 32
};

struct request {
	struct sftp *s;
	struct request *next;
	struct agent_stream *stream;
	uint32_t id;
	uint8_t type;
	struct buf data; /* read */
	char *path;	 /* realpath: what was asked */
};

struct sftp {
	struct agent_client *agent;
	struct sftp_out out;
	struct buf in;
	struct request *requests;
	unsigned pending;
	char *user, *home;
	bool greeted;
};

/* ---- answers ---- */

static void put_string(struct buf *b, const void *p, size_t n)
{
	buf_add_be32(b, (uint32_t)n);
	if (n)
		buf_add(b, p, n);
}

static void put_text(struct buf *b, const char *s)
{
	put_string(b, s, strlen(s));
}

static void put_be64(struct buf *b, uint64_t v)
{
	buf_add_be32(b, (uint32_t)(v >> 32));
	buf_add_be32(b, (uint32_t)v);
}

static void begin(struct buf *b, uint8_t type, uint32_t id)
{
	buf_add_u8(b, type);
	buf_add_be32(b, id);
}

static void answer(struct sftp *s, const struct buf *b)
{
	const uint32_t n = (uint32_t)buf_size(b);
	const uint8_t head[4] = {(uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8),
				 (uint8_t)n};

	if (buf_failed(b))
		return;
	s->out.send(s->out.arg, head, sizeof(head));
	s->out.send(s->out.arg, buf_ptr(b), n);
}

static void answer_status(struct sftp *s, uint32_t id, uint32_t code, const char *text)
{
	cleanup_buf struct buf b = BUF_INIT;

	begin(&b, FXP_STATUS, id);
	buf_add_be32(&b, code);
	put_text(&b, text);
	put_text(&b, "");
	answer(s, &b);
}

/* The agent's error text ends in "(os error N)". */
static uint32_t code_of(const char *error)
{
	const char *at = strstr(error, "(os error ");
	int n = at ? atoi(at + 10) : 0;

	if (n == ENOENT || n == ENOTDIR)
		return FX_NO_SUCH_FILE;
	return n == EACCES || n == EPERM ? FX_PERMISSION_DENIED : FX_FAILURE;
}

static uint32_t mode_of(const struct fs_entry *e)
{
	uint32_t type = !strcmp(e->kind, "file")      ? S_IFREG
			: !strcmp(e->kind, "dir")     ? S_IFDIR
			: !strcmp(e->kind, "symlink") ? S_IFLNK
						      : 0;

	return e->mode | type;
}

static void put_attrs(struct buf *b, const struct fs_entry *e)
{
	buf_add_be32(b, ATTR_SIZE | ATTR_UIDGID | ATTR_PERMISSIONS | ATTR_ACMODTIME);
	put_be64(b, e->size);
	buf_add_be32(b, e->uid);
	buf_add_be32(b, e->gid);
	buf_add_be32(b, mode_of(e));
	buf_add_be32(b, (uint32_t)e->atime);
	buf_add_be32(b, (uint32_t)e->mtime);
}

/* What `ls -l` shows. */
static void put_long_name(struct buf *b, const struct fs_entry *e, const char *name)
{
	const char *kinds = !strcmp(e->kind, "dir") ? "d" : !strcmp(e->kind, "symlink") ? "l" : "-";
	char rights[] = "rwxrwxrwx", when[40] = "", text[500];
	time_t t = (time_t)e->mtime;
	struct tm tm;

	for (int i = 0; i < 9; i++) {
		if (!(e->mode >> (8 - i) & 1))
			rights[i] = '-';
	}
	if (gmtime_r(&t, &tm))
		(void)strftime(when, sizeof(when), "%b %e  %Y", &tm);
	snprintf(text, sizeof(text), "%s%s    1 %-8u %-8u %12llu %s %s", kinds, rights, e->uid,
		 e->gid, (unsigned long long)e->size, when, name);
	put_text(b, text);
}

static void answer_names(struct request *r, const struct fs_result *res)
{
	cleanup_buf struct buf b = BUF_INIT;
	const struct fs_entry *e = res->list.v;

	if (res->kind == FS_RESULT_LIST && !res->list.n) {
		answer_status(r->s, r->id, FX_EOF, "end of directory");
		return;
	}
	begin(&b, FXP_NAME, r->id);
	if (res->kind == FS_RESULT_PATH) {
		buf_add_be32(&b, 1);
		put_text(&b, res->path);
		put_text(&b, res->path);
		buf_add_be32(&b, 0);
	} else {
		buf_add_be32(&b, (uint32_t)res->list.n);
	}
	for (size_t i = 0; res->kind == FS_RESULT_LIST && i < res->list.n; i++) {
		const char *slash = strrchr(e[i].path, '/'), *name = slash ? slash + 1 : e[i].path;

		put_text(&b, name);
		put_long_name(&b, &e[i], name);
		put_attrs(&b, &e[i]);
	}
	answer(r->s, &b);
}

static void drop(struct request *r)
{
	struct request **p = &r->s->requests;

	while (*p != r)
		p = &(*p)->next;
	*p = r->next;
	r->s->pending--;
	buf_done(&r->data);
	free(r->path);
	free(r);
}

/* The path of something that is not there yet, by its words alone: what OpenSSH's server says. */
static void answer_lexical(struct request *r)
{
	struct fs_result res = {.kind = FS_RESULT_PATH};
	char *to = r->path;
	size_t n = 0;

	for (const char *p = r->path; *p;) {
		size_t len = strcspn(p, "/");

		if (len == 2 && p[0] == '.' && p[1] == '.') {
			while (n && to[--n] != '/')
				;
		} else if (len && !(len == 1 && p[0] == '.')) {
			to[n++] = '/';
			memmove(to + n, p, len);
			n += len;
		}
		p += len;
		p += *p == '/';
	}
	if (!n)
		to[n++] = '/';
	to[n] = '\0';
	res.path = to;
	answer_names(r, &res);
}

static void answer_ok(struct request *r, const struct msg_fs_response *m)
{
	cleanup_buf struct buf b = BUF_INIT;
	const struct fs_result *res = &m->data;
	char number[24];

	if (r->type == FXP_READ) {
		if (!buf_size(&r->data)) {
			answer_status(r->s, r->id, FX_EOF, "end of file");
			return;
		}
		begin(&b, FXP_DATA, r->id);
		put_string(&b, buf_ptr(&r->data), buf_size(&r->data));
	} else if (!m->has_data) {
		answer_status(r->s, r->id, FX_OK, "");
		return;
	} else if (res->kind == FS_RESULT_HANDLE) {
		begin(&b, FXP_HANDLE, r->id);
		snprintf(number, sizeof(number), "%llu", (unsigned long long)res->handle);
		put_text(&b, number);
	} else if (res->kind == FS_RESULT_STAT) {
		begin(&b, FXP_ATTRS, r->id);
		put_attrs(&b, &res->stat);
	} else {
		answer_names(r, res);
		return;
	}
	answer(r->s, &b);
}

static void on_message(void *arg, const struct envelope *env, bool last)
{
	struct request *r = arg;
	struct msg_data owned = {0};
	struct msg_fs_response m = {0};
	const uint8_t *p;
	size_t n;

	if (msg_kind_of(env->type) == MSG_FS_DATA) {
		if (agent_stream_bytes(env, &owned, &p, &n, NULL) >= 0)
			buf_add(&r->data, p, n);
		msg_free(MSG_FS_DATA, &owned);
		return;
	}
	if (!last)
		return;
	if (msg_kind_of(env->type) != MSG_FS_RESPONSE || frame_payload(env, &m, NULL) < 0)
		answer_status(r->s, r->id, FX_FAILURE, "the agent refused");
	else if (!m.ok && r->path && m.error && code_of(m.error) == FX_NO_SUCH_FILE)
		answer_lexical(r);
	else if (!m.ok)
		answer_status(r->s, r->id, code_of(m.error ? m.error : ""), m.error ? m.error : "");
	else
		answer_ok(r, &m);
	msg_free(MSG_FS_RESPONSE, &m);
	drop(r);
}

static void on_room(void *arg)
{
	(void)arg;
}

static const struct agent_stream_ops stream_ops = {.message = on_message, .room = on_room};

static struct request *ask(struct sftp *s, uint32_t id, uint8_t type, const struct fs_op *op)
{
	struct msg_fs_request m = {.op = *op, .user = s->user};
	struct request *r = calloc(1, sizeof(*r));

	if (!r) {
		answer_status(s, id, FX_FAILURE, "out of memory");
		return NULL;
	}
	*r = (struct request){.s = s, .id = id, .type = type, .data = {.max = READ_MAX + 4096}};
	if (agent_stream_new(&r->stream, s->agent, MSG_FS_REQUEST, &m, &stream_ops, r, NULL) < 0) {
		free(r);
		answer_status(s, id, FX_FAILURE, "the agent cannot be asked");
		return NULL;
	}
	r->next = s->requests;
	s->requests = r;
	s->pending++;
	return r;
}

/* ---- requests ---- */

static bool get_string(struct cur *c, const uint8_t **p, size_t *n)
{
	*n = cur_be32(c);
	*p = cur_bytes(c, *n);
	return !c->bad && (*p || !*n);
}

/* A path made absolute; NULL (and the cursor bad) when it is none that the agent can be told. */
static char *get_path(struct sftp *s, struct cur *c, char to[PATH_SIZE])
{
	const uint8_t *p;
	size_t n, at = 0;

	if (!get_string(c, &p, &n) || n + strlen(s->home) + 2 > PATH_SIZE || memchr(p, 0, n) ||
	    !cbor_utf8_valid(p, n)) {
		c->bad = true;
		return NULL;
	}
	if (!n || p[0] != '/')
		at = (size_t)snprintf(to, PATH_SIZE, "%s/", s->home);
	memcpy(to + at, p, n);
	to[at + n] = '\0';
	return to;
}

static uint64_t get_handle(struct cur *c)
{
	const uint8_t *p;
	char text[24];
	uint64_t v = 0;
	size_t n;

	if (!get_string(c, &p, &n) || n >= sizeof(text)) {
		c->bad = true;
		return 0;
	}
	memcpy(text, p, n);
	text[n] = '\0';
	if (str_to_u64(text, UINT64_MAX, &v) < 0)
		c->bad = true;
	return v;
}

static void get_attrs(struct cur *c, struct fs_attrs *a)
{
	uint32_t flags = cur_be32(c);

	*a = (struct fs_attrs){0};
	if (flags & ATTR_SIZE) {
		a->has_size = true;
		a->size = cur_be64(c);
	}
	if (flags & ATTR_UIDGID) {
		a->has_uid = a->has_gid = true;
		a->uid = cur_be32(c);
		a->gid = cur_be32(c);
	}
	if (flags & ATTR_PERMISSIONS) {
		a->has_mode = true;
		a->mode = cur_be32(c) & 07777;
	}
	if (flags & ATTR_ACMODTIME) {
		a->has_atime = a->has_mtime = true;
		a->atime = cur_be32(c);
		a->mtime = cur_be32(c);
	}
}

static void do_open(struct sftp *s, struct cur *c, struct fs_op *op)
{
	static char path[PATH_SIZE];
	struct fs_attrs a;
	uint32_t flags;

	op->kind = FS_OPEN_FILE;
	op->path = get_path(s, c, path);
	flags = cur_be32(c);
	get_attrs(c, &a);
	op->options = (struct fs_open_options){
		.read = flags & OPEN_READ,
		.write = flags & OPEN_WRITE,
		.append = flags & OPEN_APPEND,
		.create = flags & OPEN_CREAT,
		.truncate = flags & OPEN_TRUNC,
		.create_new = (flags & (OPEN_CREAT | OPEN_EXCL)) == (OPEN_CREAT | OPEN_EXCL),
		.has_mode = a.has_mode,
		.mode = a.mode,
	};
}

static void do_write(struct sftp *s, uint32_t id, struct cur *c)
{
	struct fs_op op = {.kind = FS_WRITE, .has_len = true};
	struct request *r;
	const uint8_t *p;
	size_t n;

	op.handle = get_handle(c);
	op.offset = cur_be64(c);
	if (!get_string(c, &p, &n)) {
		answer_status(s, id, FX_BAD_MESSAGE, "bad write");
		return;
	}
	op.len = n;
	r = ask(s, id, FXP_WRITE, &op);
	if (!r)
		return;
	if (n)
		agent_stream_data(r->stream, MSG_FS_DATA, p, n);
	agent_stream_data(r->stream, MSG_FS_DATA, NULL, 0);
}

static void do_request(struct sftp *s, uint8_t type, uint32_t id, struct cur *c)
{
	static char one[PATH_SIZE], two[PATH_SIZE];
	struct fs_op op = {0};
	struct request *r;
	const uint8_t *p;
	size_t n;

	switch (type) {
	case FXP_OPEN:
		do_open(s, c, &op);
		break;
	case FXP_WRITE:
		do_write(s, id, c);
		return;
	case FXP_READ:
		op = (struct fs_op){.kind = FS_READ, .has_len = true};
		op.handle = get_handle(c);
		op.offset = cur_be64(c);
		op.len = MIN(cur_be32(c), (uint32_t)READ_MAX);
		break;
	case FXP_CLOSE:
	case FXP_FSTAT:
		op.kind = type == FXP_CLOSE ? FS_CLOSE_HANDLE : FS_FSTAT;
		op.handle = get_handle(c);
		break;
	case FXP_READDIR:
		op = (struct fs_op){
			.kind = FS_READ_DIR, .has_limit = true, .limit = NAMES_PER_ANSWER};
		op.handle = get_handle(c);
		break;
	case FXP_FSETSTAT:
		op.kind = FS_FSET_STAT;
		op.handle = get_handle(c);
		get_attrs(c, &op.attrs);
		break;
	case FXP_SETSTAT:
		op = (struct fs_op){.kind = FS_SET_STAT, .follow_symlink = true};
		op.path = get_path(s, c, one);
		get_attrs(c, &op.attrs);
		break;
	case FXP_MKDIR:
		op.kind = FS_MKDIR;
		op.path = get_path(s, c, one);
		get_attrs(c, &op.attrs);
		op.has_mode = op.attrs.has_mode;
		/* The agent takes it as it is, and clients ask for 0777. */
		op.mode = op.attrs.mode & ~UMASK;
		break;
	case FXP_LSTAT:
	case FXP_STAT:
	case FXP_OPENDIR:
	case FXP_REMOVE:
	case FXP_RMDIR:
	case FXP_REALPATH:
	case FXP_READLINK:
		op.kind = type == FXP_OPENDIR	 ? FS_OPEN_DIR
			  : type == FXP_REMOVE	 ? FS_REMOVE
			  : type == FXP_RMDIR	 ? FS_REMOVE_DIR
			  : type == FXP_REALPATH ? FS_REAL_PATH
			  : type == FXP_READLINK ? FS_READ_LINK
						 : FS_STAT;
		op.follow_symlink = type == FXP_STAT;
		op.path = get_path(s, c, one);
		break;
	case FXP_RENAME:
		op.kind = FS_RENAME;
		op.src = get_path(s, c, one);
		op.dst = get_path(s, c, two);
		break;
	case FXP_SYMLINK:
		/* OpenSSH sends the target first, whatever the draft says; all others followed. */
		op.kind = FS_SYMLINK;
		if (get_string(c, &p, &n) && n < PATH_SIZE && cbor_utf8_valid(p, n) &&
		    !memchr(p, 0, n)) {
			memcpy(two, p, n);
			two[n] = '\0';
			op.target = two;
		} else {
			c->bad = true;
		}
		op.link_path = get_path(s, c, one);
		break;
	case FXP_EXTENDED:
		if (get_string(c, &p, &n) && n == 24 && !memcmp(p, "posix-rename@openssh.com", n)) {
			op.kind = FS_RENAME;
			op.src = get_path(s, c, one);
			op.dst = get_path(s, c, two);
			break;
		}
		answer_status(s, id, FX_OP_UNSUPPORTED, "not supported");
		return;
	default:
		answer_status(s, id, FX_OP_UNSUPPORTED, "not supported");
		return;
	}
	if (c->bad) {
		answer_status(s, id, FX_BAD_MESSAGE, "malformed, or a name that is not UTF-8");
		return;
	}
	r = ask(s, id, type, &op);
	if (r && type == FXP_REALPATH)
		r->path = strdup(op.path);
}

static void greet(struct sftp *s)
{
	cleanup_buf struct buf b = BUF_INIT;

	s->greeted = true;
	buf_add_u8(&b, FXP_VERSION);
	buf_add_be32(&b, 3);
	put_text(&b, "posix-rename@openssh.com");
	put_text(&b, "1");
	answer(s, &b);
}

bool sftp_input(struct sftp *s, const void *p, size_t n)
{
	buf_add(&s->in, p, n);
	while (buf_size(&s->in) >= 5) {
		struct cur c = cur_make(buf_ptr(&s->in), buf_size(&s->in));
		uint32_t len = cur_be32(&c), id;
		uint8_t type;

		if (len < 5 || len > PACKET_MAX)
			return false;
		if (cur_left(&c) < len)
			break;
		c.end = c.p + len;
		type = cur_u8(&c);
		id = cur_be32(&c);
		if (type == FXP_INIT)
			greet(s);
		else if (!s->greeted)
			return false;
		else
			do_request(s, type, id, &c);
		buf_consume(&s->in, len + 4);
	}
	return !buf_failed(&s->in);
}

unsigned sftp_pending(const struct sftp *s)
{
	return s->pending;
}

struct sftp *sftp_new(struct agent_client *agent, const char *user, const char *home,
		      const struct sftp_out *out)
{
	struct sftp *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->user = strdup(user);
	s->home = strdup(home);
	if (!s->user || !s->home)
		return sftp_free(s);
	s->agent = agent;
	s->out = *out;
	s->in.max = 4u << 20;
	return s;
}

struct sftp *sftp_free(struct sftp *s)
{
	if (!s)
		return NULL;
	while (s->requests) {
		agent_stream_drop(s->requests->stream);
		drop(s->requests);
	}
	buf_done(&s->in);
	free(s->user);
	free(s->home);
	free(s);
	return NULL;
}
