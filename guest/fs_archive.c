/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trees as tar streams. A helper process walks or writes the tree and has one end of a pipe; the
 * other is a stream's inlet or outlet like any other. Its answer is a letter and a text: 'y' and
 * what was not kept, or 'n' and what went wrong. The response follows the last byte of data.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "flow.h"
#include "fs.h"
#include "helper.h"
#include "tree/tree.h"

struct archive {
	struct stream st;
	struct helper helper;
	struct inlet in;   /* packing */
	struct outlet out; /* unpacking */
	bool packing;
	bool answered, flushed; /* the helper is done; all of its data was taken */
	/* For the helper, which has its own copy of all memory. */
	const struct fs_op *op;
	char path[FS_PATH_MAX], name[256];
	uint8_t *chunk;
};

static int write_piece(void *arg, const void *p, size_t n, struct err *err)
{
	int r = io_write_full(HELPER_KEPT, p, n);

	(void)arg;
	return r < 0 ? err_set(err, r, "cannot send: %s", err_name(r)) : 0;
}

static int read_piece(void *arg, const uint8_t **ret, size_t *len, struct err *err)
{
	struct archive *a = arg;
	ssize_t n;

	do
		n = read(HELPER_KEPT, a->chunk, FS_READ_CHUNK);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_errno(err, "cannot receive");
	*ret = a->chunk;
	*len = (size_t)n;
	return n > 0;
}

static int work(struct archive *a, struct tree_notes *notes, struct err *err)
{
	const struct fs_op *op = a->op;
	struct tree_unpack un = {
		.path = a->path,
		.name = op->archive ? NULL : a->name,
		.rights = op->rights,
		.attributes = op->attributes,
	};
	struct tree_pack pack = {
		.path = a->path,
		.name = a->name,
		.follow = op->follow,
		.attributes = op->attributes,
	};

	umask(0);
	if (a->packing)
		return tree_pack(&pack, write_piece, NULL, notes, err);
	a->chunk = malloc(FS_READ_CHUNK);
	if (!a->chunk)
		return err_set(err, ENOMEM, "out of memory");
	return tree_unpack(&un, read_piece, a, notes, err);
}

static void child_job(void *arg, int fd)
{
	struct tree_notes notes = {0};
	struct err err = ERR_INIT;
	char text[HELPER_ANSWER_MAX];
	int n;

	signal(SIGPIPE, SIG_IGN);
	text[0] = work(arg, &notes, &err) < 0 ? 'n' : 'y';
	if (text[0] == 'y')
		tree_notes_text(&notes, text + 1, sizeof(text) - 1);
	else
		snprintf(text + 1, sizeof(text) - 1, "%s%s%s", err.msg, err.hint[0] ? "; " : "",
			 err.hint);
	n = (int)strlen(text);
	/* Before our end of the data closes: no one who sees that end has to wait for this. */
	(void)!write(fd, text, (size_t)n);
}

static void archive_free(struct archive *a)
{
	stream_close(&a->st);
	helper_stop(&a->helper);
	if (inlet_open(&a->in))
		inlet_stop(&a->in);
	if (outlet_open(&a->out))
		outlet_stop(&a->out);
	free(a);
}

static void abandon(struct stream *s)
{
	struct archive *a = container_of(s, struct archive, st);

	/* Who unpacks sees the stream break off, and takes back what it made. */
	if (!a->packing)
		helper_leave(&a->helper);
	archive_free(a);
}

static const struct stream_ops archive_ops = {.abandon = abandon};

static void finish_if_done(struct archive *a)
{
	struct conn *c = a->st.conn;
	uint32_t id = a->st.id;
	struct msg_fs_response m = {0};
	char text[HELPER_ANSWER_MAX + 1];
	size_t n = a->helper.len;

	if (!a->answered || (a->packing && !a->flushed))
		return;
	memcpy(text, a->helper.answer, n);
	text[n] = '\0';
	archive_free(a);
	m.ok = text[0] == 'y';
	if (!n)
		m.error = (char *)"the process that did it died";
	else if (text[1])
		m.error = text + 1;
	conn_send(c, id, MSG_FS_RESPONSE, &m);
}

static void on_answer(struct helper *h)
{
	struct archive *a = container_of(h, struct archive, helper);

	a->answered = true;
	finish_if_done(a);
}

static void on_packed(struct inlet *in, int error)
{
	struct archive *a = container_of(in, struct archive, in);

	(void)error;
	a->flushed = true;
	finish_if_done(a);
}

static void on_written(struct outlet *o, int error)
{
	/* All was handed over, or the helper has gone, whose answer says why. */
	(void)error;
	outlet_stop(o);
}

bool fs_unpack_data(struct stream *s, const uint8_t *p, size_t n)
{
	struct archive *a = container_of(s, struct archive, st);

	if (s->ops != &archive_ops || a->packing)
		return false;
	if (!outlet_open(&a->out))
		return true;
	if (n)
		outlet_write(&a->out, p, n);
	else
		outlet_eof(&a->out);
	return true;
}

static int copy_text(char *to, size_t size, const struct wire_bytes *from)
{
	if (from->n >= size)
		return -ENAMETOOLONG;
	if (memchr(from->p ? from->p : (const uint8_t *)"", 0, from->n))
		return -EINVAL;
	if (from->n)
		memcpy(to, from->p, from->n);
	to[from->n] = '\0';
	return 0;
}

static int start(struct archive *a, struct conn *c)
{
	int p[2], r;

	r = copy_text(a->path, sizeof(a->path), &a->op->tree_path);
	if (!r)
		r = copy_text(a->name, sizeof(a->name), &a->op->tree_name);
	if (!r && !a->path[0])
		r = -ENOENT;
	if (!r && (strchr(a->name, '/') || !strcmp(a->name, "..")))
		r = -EINVAL;
	if (r < 0)
		return r;
	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	/* Ours does not block; the helper's does. */
	(void)io_set_nonblock(p[!a->packing], true);
	r = helper_start(&a->helper, c->sv->loop, p[a->packing], child_job, a, on_answer);
	close(p[a->packing]);
	if (r < 0) {
		close(p[!a->packing]);
		return r;
	}
	if (!a->packing) {
		a->out.pipe = true;
		a->out.ended = on_written;
		outlet_start(&a->out, c, p[1]);
		return 0;
	}
	a->in.pipe = true;
	a->in.ended = on_packed;
	return inlet_start(&a->in, &a->st, p[0], MSG_FS_DATA, FS_READ_CHUNK);
}

static void archive_start(struct conn *c, uint32_t id, const struct fs_op *op, bool packing)
{
	const char *what = packing ? "pack" : "unpack";
	struct archive *a = calloc(1, sizeof(*a));
	int r = a ? stream_open(c, &a->st, id, &archive_ops) : -ENOMEM;

	if (r < 0) {
		free(a);
		fs_fail_errno(c, id, what, r);
		return;
	}
	a->helper.src.fd = a->in.src.fd = a->out.src.fd = -1;
	a->packing = packing;
	a->op = op;
	r = start(a, c);
	a->op = NULL;
	if (r < 0) {
		archive_free(a);
		fs_fail_errno(c, id, what, r);
	}
}

void fs_pack(struct conn *c, uint32_t id, const struct fs_op *op)
{
	archive_start(c, id, op, true);
}

void fs_unpack(struct conn *c, uint32_t id, const struct fs_op *op)
{
	archive_start(c, id, op, false);
}
