/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/copy.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/loop.h"
#include "sandbox/agent_client.h"
#include "tree/tree.h"
#include "wire/frame.h"

enum {
	PIECE_MAX = 256 << 10,
	/* Received and not yet taken: above this the connection is not read. */
	WAITING_MAX = 1 << 20,
};

/* An agent, and one transfer with it. */
struct port {
	const struct copy_side *side;
	struct loop *loop;
	struct agent_client *client;
	struct agent_stream *stream;
	struct loop_source stop;
	struct buf data, taken; /* received; handed out last */
	bool ready, over, ok, stopped;
	char notes[512]; /* what the agent did not keep */
	struct err why;
};

/* ---- the agent's side ---- */

static void on_ready(void *arg, const struct msg_ready *ready)
{
	(void)ready;
	((struct port *)arg)->ready = true;
}

static void on_closed(void *arg, const struct err *why)
{
	struct port *p = arg;

	if (p->over)
		return;
	p->over = true;
	if (why->code == ECONNRESET)
		err_set(&p->why, ERR_GUEST, "it ended while files were copied");
	else
		err_copy(&p->why, why);
}

static const struct agent_client_ops client_ops = {.ready = on_ready, .closed = on_closed};

static void on_response(struct port *p, const struct envelope *env)
{
	struct msg_fs_response m = {0};

	p->over = true;
	if (frame_payload(env, &m, &p->why) < 0)
		return;
	p->ok = m.ok;
	if (m.ok)
		snprintf(p->notes, sizeof(p->notes), "%s", m.error ? m.error : "");
	else
		err_set(&p->why, ERR_GUEST, "%s", m.error ? m.error : "it does not say why");
	msg_free(MSG_FS_RESPONSE, &m);
}

static void on_message(void *arg, const struct envelope *env, bool last)
{
	struct port *p = arg;
	struct msg_data owned = {0};
	struct msg_error error = {0};
	const uint8_t *bytes;
	size_t n;

	switch (msg_kind_of(env->type)) {
	case MSG_FS_DATA:
		if (agent_stream_bytes(env, &owned, &bytes, &n, &p->why) < 0)
			p->over = true;
		else
			buf_add(&p->data, bytes, n);
		msg_free(MSG_FS_DATA, &owned);
		if (buf_size(&p->data) >= WAITING_MAX)
			agent_client_pause(p->client, true);
		break;
	case MSG_FS_RESPONSE:
		on_response(p, env);
		break;
	case MSG_ERROR:
		p->over = true;
		if (frame_payload(env, &error, &p->why) >= 0)
			err_set(&p->why, ERR_UNSUPPORTED, "its agent refused: %s", error.message);
		msg_free(MSG_ERROR, &error);
		break;
	default:
		break;
	}
	if (last)
		p->stream = NULL;
}

static void on_room(void *arg)
{
	(void)arg;
}

static const struct agent_stream_ops stream_ops = {.message = on_message, .room = on_room};

static void on_stop(struct loop_source *src, uint32_t events)
{
	struct port *p = container_of(src, struct port, stop);

	(void)events;
	loop_del(src);
	p->stopped = true;
}

static int failed(struct port *p, struct err *err)
{
	if (p->stopped)
		return err_set(err, EINTR, "interrupted");
	err_copy(err, &p->why);
	return err_wrap(err, "sandbox \"%s\"", p->side->sandbox);
}

/* A turn of the loop; negative when there is nothing more to wait for. */
static int turn(struct port *p, int timeout, struct err *err)
{
	int r = loop_turn(p->loop, timeout);

	if (r < 0)
		return err_set(err, r, "cannot wait for events: %s", err_name(r));
	return p->stopped || (p->over && !p->ok) ? failed(p, err) : 0;
}

static int port_open(struct port *p, const struct copy *c, const struct copy_side *side,
		     struct err *err)
{
	int r;

	p->side = side;
	p->stop.fd = -1;
	r = loop_new(&p->loop, err);
	if (r < 0) {
		close_fd(side->agent);
		return r;
	}
	if (c->stop >= 0) {
		p->stop.fd = c->stop;
		p->stop.fn = on_stop;
		r = loop_add(p->loop, &p->stop, EPOLLIN);
		if (r < 0) {
			close_fd(side->agent);
			return err_set(err, r, "cannot receive signals: %s", err_name(r));
		}
	}
	r = agent_client_new(&p->client, p->loop, side->agent, &client_ops, p, err);
	while (r == 0 && !p->ready)
		r = turn(p, -1, err);
	return r;
}

static void port_done(struct port *p)
{
	agent_client_free(p->client);
	loop_del(&p->stop);
	loop_free(p->loop);
	buf_done(&p->data);
	buf_done(&p->taken);
}
#define cleanup_port __attribute__((cleanup(port_done)))

static int port_ask(struct port *p, const struct fs_op *op, struct err *err)
{
	struct msg_fs_request req = {.op = *op};
	int r = agent_stream_new(&p->stream, p->client, MSG_FS_REQUEST, &req, &stream_ops, p, err);

	return r < 0 ? err_wrap(err, "sandbox \"%s\"", p->side->sandbox) : 0;
}

/* A tar_read_fn: the next piece of what the agent packs. */
static int port_read(void *arg, const uint8_t **ret, size_t *len, struct err *err)
{
	struct port *p = arg;
	struct buf empty;
	int r;

	buf_reset(&p->taken);
	while (!buf_size(&p->data) && !p->over) {
		agent_client_pause(p->client, false);
		r = turn(p, -1, err);
		if (r < 0)
			return r;
	}
	if (buf_failed(&p->data))
		return err_set(err, ENOMEM, "out of memory");
	if (p->stopped || (p->over && !p->ok && !buf_size(&p->data)))
		return failed(p, err);
	empty = p->taken;
	p->taken = p->data;
	p->data = empty;
	*ret = buf_ptr(&p->taken);
	*len = buf_size(&p->taken);
	return *len > 0;
}

/* A tree_write_fn: more of what the agent unpacks. */
static int port_write(void *arg, const void *bytes, size_t n, struct err *err)
{
	struct port *p = arg;
	int r;

	for (const char *at = bytes; n;) {
		size_t piece = MIN(n, (size_t)PIECE_MAX);

		do {
			r = turn(p, 0, err);
			while (r == 0 && p->stream && !agent_stream_room(p->stream))
				r = turn(p, -1, err);
		} while (r == 0 && p->stream && !agent_stream_room(p->stream));
		if (r < 0)
			return r;
		/* It has all it wants: an archive may have bytes behind its end. */
		if (!p->stream)
			return 0;
		agent_stream_data(p->stream, MSG_FS_DATA, at, piece);
		at += piece;
		n -= piece;
	}
	return 0;
}

/* The agent's last word. */
static int port_finish(struct port *p, struct err *err)
{
	int r = 0;

	while (r == 0 && !p->over) {
		agent_client_pause(p->client, false);
		/* What comes behind the end of an archive is nobody's. */
		buf_reset(&p->data);
		r = turn(p, -1, err);
	}
	if (r < 0)
		return r;
	return p->ok ? 0 : failed(p, err);
}

static struct wire_bytes bytes_of(const char *s)
{
	return (struct wire_bytes){(uint8_t *)(uintptr_t)s, strlen(s)};
}

static int ask_pack(struct port *p, const struct copy *c, const char *name, struct err *err)
{
	struct fs_op op = {
		.kind = FS_PACK_TREE,
		.tree_path = bytes_of(c->from.path),
		.tree_name = bytes_of(name),
		.follow = c->follow,
		.attributes = c->all,
	};

	return port_ask(p, &op, err);
}

static int ask_unpack(struct port *p, const struct copy *c, const char *name, struct err *err)
{
	struct fs_op op = {
		.kind = FS_UNPACK_TREE,
		.tree_path = bytes_of(c->to.path),
		.tree_name = bytes_of(name ? name : ""),
		.archive = !name,
		/* One sandbox is no more trusted by another than by us. */
		.rights = c->all || !c->from.sandbox,
		.attributes = c->all,
	};

	return port_ask(p, &op, err);
}

/* ---- the ways ---- */

/* The name of a tree in a directory that it is put into; "" when its contents are meant. */
static int source_name(const char *path, char *ret, size_t size, struct err *err)
{
	size_t end = strlen(path), begin;

	while (end > 1 && path[end - 1] == '/')
		end--;
	for (begin = end; begin && path[begin - 1] != '/'; begin--)
		;
	if (end - begin >= size)
		return err_set(err, ENAMETOOLONG, "the name of %.200s… is too long", path);
	memcpy(ret, path + begin, end - begin);
	ret[end - begin] = '\0';
	if (!strcmp(ret, ".") || !strcmp(ret, "..") || !strcmp(ret, "/"))
		ret[0] = '\0';
	return 0;
}

static int write_archive(void *arg, const void *p, size_t n, struct err *err)
{
	const struct copy *c = arg;
	int r = io_write_full(c->archive ? c->archive : STDOUT_FILENO, p, n);

	return r < 0 ? err_set(err, r, "cannot write the archive: %s", err_name(r)) : 0;
}

/* Pass on what @from packs until its end. */
static int pump(struct port *from, tree_write_fn *write, void *arg, struct err *err)
{
	const uint8_t *p;
	size_t n;
	int r;

	while ((r = port_read(from, &p, &n, err)) > 0) {
		r = write(arg, p, n, err);
		if (r < 0)
			break;
	}
	return r;
}

static int end_of_data(struct port *p, struct err *err)
{
	if (p->stream)
		agent_stream_data(p->stream, MSG_FS_DATA, NULL, 0);
	return port_finish(p, err);
}

/* What tar would have unpacked by itself. */
static int check_plain(const struct port *to, const uint8_t *p, size_t n, struct err *err)
{
	static const struct {
		const char *magic, *name;
	} kinds[] = {{"\x1f\x8b", "gzip"},
		     {"\x28\xb5\x2f\xfd", "zstd"},
		     {"\xfd"
		      "7zXZ",
		      "xz"},
		     {"BZh", "bzip2"}};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		size_t len = strlen(kinds[i].magic);

		if (n < len || memcmp(p, kinds[i].magic, len) != 0)
			continue;
		err_set(err, ERR_UNSUPPORTED, "standard input is compressed (%s)", kinds[i].name);
		return err_hint(err, "unpack it on the way: %s -dc ARCHIVE | msb cp - %s:%s",
				kinds[i].name, to->side->sandbox, to->side->path);
	}
	return 0;
}

/* Standard input to the agent; it may have enough, or fail, before there is anything to read. */
static int pump_stdin(struct port *to, struct err *err)
{
	cleanup_free uint8_t *chunk = malloc(PIECE_MAX);
	struct pollfd fds[2] = {
		{.fd = STDIN_FILENO, .events = POLLIN},
		{.fd = to->side->agent, .events = POLLIN},
	};
	bool first = true;
	int r = 0;

	if (!chunk)
		return err_set(err, ENOMEM, "out of memory");
	while (r == 0 && to->stream) {
		ssize_t n;

		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return err_errno(err, "cannot wait for standard input");
		if (fds[1].revents) {
			r = turn(to, 0, err);
			continue;
		}
		n = read(STDIN_FILENO, chunk, PIECE_MAX);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return err_errno(err, "cannot read standard input");
		if (n == 0)
			break;
		if (n > 0 && first)
			r = check_plain(to, chunk, (size_t)n, err);
		if (n > 0 && r == 0)
			r = port_write(to, chunk, (size_t)n, err);
		first = false;
	}
	return r;
}

static int copy_in(const struct copy *c, const char *name, struct tree_notes *notes, char *text,
		   size_t size, struct err *err)
{
	const struct tree_pack pack = {
		.path = c->from.path,
		.name = ".",
		.follow = c->follow,
		.attributes = c->all,
	};
	cleanup_port struct port to = {0};
	int r = port_open(&to, c, &c->to, err);

	if (r == 0)
		r = ask_unpack(&to, c, name, err);
	if (r == 0)
		r = c->from.path ? tree_pack(&pack, port_write, &to, notes, err)
				 : pump_stdin(&to, err);
	if (r == 0)
		r = end_of_data(&to, err);
	snprintf(text, size, "%s", to.notes);
	return r;
}

static int copy_out(const struct copy *c, const char *name, struct tree_notes *notes, char *text,
		    size_t size, struct err *err)
{
	const struct tree_unpack unpack = {
		.path = c->to.path,
		.name = name,
		.rights = c->all,
		.attributes = c->all,
	};
	cleanup_port struct port from = {0};
	int r = port_open(&from, c, &c->from, err);

	/* What is placed here gets its name here; a stream for others carries it. */
	if (r == 0)
		r = ask_pack(&from, c, c->to.path || !name[0] ? "." : name, err);
	if (r == 0)
		r = c->to.path ? tree_unpack(&unpack, port_read, &from, notes, err)
			       : pump(&from, write_archive, (void *)(uintptr_t)c, err);
	if (r == 0)
		r = port_finish(&from, err);
	snprintf(text, size, "%s", from.notes);
	return r;
}

/* The next component of *path, its length in *n; 0: there is none. */
static const char *component(const char **path, size_t *n)
{
	const char *s;

	do {
		s = *path + strspn(*path, "/");
		*n = strcspn(s, "/");
		*path = s + *n;
	} while (*n == 1 && *s == '.');
	return s;
}

/* As far as the words tell, and so never because of a "..". */
static bool is_within(const char *path, const char *tree)
{
	if (strstr(path, "..") || strstr(tree, ".."))
		return false;
	for (;;) {
		size_t n, m;
		const char *p = component(&path, &n), *t = component(&tree, &m);

		if (!m)
			return true;
		if (n != m || memcmp(p, t, n) != 0)
			return false;
	}
}

static int copy_across(const struct copy *c, const char *name, char *text, size_t size,
		       struct err *err)
{
	cleanup_port struct port from = {0}, to = {0};
	int r;

	/* There would be no end: what is copied is found again, to be copied. */
	if (strcmp(c->from.sandbox, c->to.sandbox) == 0 && is_within(c->to.path, c->from.path)) {
		close_fd(c->from.agent);
		close_fd(c->to.agent);
		return err_set(err, EINVAL, "cannot copy %s of sandbox \"%s\" into itself, %s",
			       c->from.path, c->from.sandbox, c->to.path);
	}
	r = port_open(&from, c, &c->from, err);
	if (r < 0) {
		close_fd(c->to.agent);
		return r;
	}
	r = port_open(&to, c, &c->to, err);
	if (r == 0)
		r = ask_pack(&from, c, ".", err);
	if (r == 0)
		r = ask_unpack(&to, c, name, err);
	if (r == 0)
		r = pump(&from, port_write, &to, err);
	if (r == 0)
		r = port_finish(&from, err);
	if (r == 0)
		r = end_of_data(&to, err);
	snprintf(text, size, "%s%s%s", from.notes, from.notes[0] && to.notes[0] ? "; " : "",
		 to.notes);
	return r;
}

int copy_run(const struct copy *c, char *notes, size_t size, struct err *err)
{
	struct tree_notes here = {0};
	char name[256] = "", text[1100] = "", own[512];
	int r = c->from.path ? source_name(c->from.path, name, sizeof(name), err) : 0;

	notes[0] = '\0';
	if (r < 0) {
		close_fd(c->from.sandbox ? c->from.agent : -1);
		close_fd(c->to.sandbox ? c->to.agent : -1);
		return r;
	}
	if (c->from.sandbox && c->to.sandbox)
		r = copy_across(c, name, text, sizeof(text), err);
	else if (c->from.sandbox)
		r = copy_out(c, name, &here, text, sizeof(text), err);
	else
		r = copy_in(c, c->from.path ? name : NULL, &here, text, sizeof(text), err);
	tree_notes_text(&here, own, sizeof(own));
	snprintf(notes, size, "%s%s%s", own, own[0] && text[0] ? "; " : "", text);
	return r;
}
