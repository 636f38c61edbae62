/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fs.h"

struct transfer {
	struct stream st;
	struct work work; /* reads: the next chunk */
	struct fs_handle *h;
	uint64_t offset, moved, len;
	bool has_len;
};

static void transfer_free(struct transfer *t)
{
	stream_close(&t->st);
	work_cancel(&t->work);
	fs_handle_unref(t->h);
	free(t);
}

static void abandon(struct stream *s)
{
	transfer_free(container_of(s, struct transfer, st));
}

static const struct stream_ops read_ops = {.abandon = abandon};
static const struct stream_ops write_ops = {.abandon = abandon};

static struct transfer *start(struct conn *c, uint32_t id, struct fs_handle *h,
			      const struct fs_op *op, const struct stream_ops *ops)
{
	struct transfer *t = calloc(1, sizeof(*t));

	if (!t || op->offset > INT64_MAX || stream_open(c, &t->st, id, ops) < 0) {
		free(t);
		fs_fail_errno(c, id, ops == &read_ops ? "read" : "write",
			      op->offset > INT64_MAX ? EINVAL : ENOMEM);
		return NULL;
	}
	t->h = fs_handle_ref(h);
	t->offset = op->offset;
	t->has_len = op->has_len;
	t->len = op->len;
	return t;
}

static void finish(struct transfer *t, const char *what, int error)
{
	struct conn *c = t->st.conn;
	uint32_t id = t->st.id;

	transfer_free(t);
	if (error)
		fs_fail_errno(c, id, what, error);
	else
		fs_reply(c, id, NULL);
}

/* One chunk per turn, so that others get theirs. */
static void read_some(struct work *w)
{
	struct transfer *t = container_of(w, struct transfer, work);
	struct conn *c = t->st.conn;
	size_t want = FS_READ_CHUNK;
	struct frame_data d;
	uint8_t *to;
	ssize_t n;

	if (conn_full(c)) {
		conn_wait_room(c, w);
		return;
	}
	if (t->has_len)
		want = (size_t)MIN((uint64_t)want, t->len - t->moved);
	if (!want) {
		finish(t, "read", 0);
		return;
	}
	to = frame_data_begin(&c->out, &d, t->st.id, MSG_FS_DATA, want);
	if (!to) {
		conn_close(c);
		return;
	}
	n = pread(t->h->fd, to, want, (off_t)t->offset);
	if (n <= 0) {
		finish(t, "read", n < 0 ? errno : 0);
		return;
	}
	frame_data_end(&c->out, &d, (size_t)n);
	t->offset += (uint64_t)n;
	t->moved += (uint64_t)n;
	conn_produced(c);
	if (c->dead)
		return;
	c->sv->activity_seq++;
	server_defer(c->sv, w);
}

void fs_read_start(struct conn *c, uint32_t id, struct fs_handle *h, const struct fs_op *op)
{
	struct transfer *t = start(c, id, h, op, &read_ops);

	if (!t)
		return;
	t->work.fn = read_some;
	server_defer(c->sv, &t->work);
}

void fs_write_start(struct conn *c, uint32_t id, struct fs_handle *h, const struct fs_op *op)
{
	start(c, id, h, op, &write_ops);
}

bool fs_data(struct stream *s, const uint8_t *p, size_t n)
{
	struct transfer *t = container_of(s, struct transfer, st);
	struct conn *c = s->conn;
	uint32_t id = s->id;

	if (s->ops != &write_ops)
		return fs_unpack_data(s, p, n);
	if (!n) {
		uint64_t moved = t->moved, len = t->len;
		bool bad = t->has_len && moved != len;

		if (!bad) {
			finish(t, "write", 0);
			return true;
		}
		transfer_free(t);
		fs_fail(c, id, "write length mismatch: expected %llu, wrote %llu",
			(unsigned long long)len, (unsigned long long)moved);
		return true;
	}
	while (n) {
		ssize_t w = t->h->append ? write(t->h->fd, p, n)
					 : pwrite(t->h->fd, p, n, (off_t)t->offset);

		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0) {
			finish(t, "write", w < 0 ? errno : EIO);
			return true;
		}
		p += w;
		n -= (size_t)w;
		t->offset += (uint64_t)w;
		t->moved += (uint64_t)w;
	}
	return true;
}
