/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/qmp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"

struct qmp {
	struct loop_source source;
	struct buf in;
	qmp_event_fn *fn;
	void *arg;
};

static void on_line(struct qmp *q, const char *line, size_t n)
{
	json_t *msg = json_loadb(line, n, 0, NULL);
	const char *event;
	json_t *error;

	if (!msg) {
		log_warn("qmp: not JSON: %.*s", (int)MIN(n, (size_t)200), line);
		return;
	}
	event = json_string_value(json_object_get(msg, "event"));
	error = json_object_get(msg, "error");
	if (json_object_get(msg, "QMP"))
		(void)qmp_execute(q, "qmp_capabilities", NULL);
	else if (event)
		q->fn(q->arg, event, json_object_get(msg, "data"));
	else if (json_is_integer(json_object_get(msg, "return")))
		q->fn(q->arg, NULL, json_object_get(msg, "return"));
	else if (error)
		log_warn("qmp: %s", json_string_value(json_object_get(error, "desc")));
	json_decref(msg);
}

static void on_readable(struct loop_source *s, uint32_t events)
{
	struct qmp *q = container_of(s, struct qmp, source);
	void *to = buf_reserve(&q->in, 4096);
	ssize_t n = to ? read(s->fd, to, 4096) : 0;
	uint8_t *end;

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		loop_del(s);
		return;
	}
	buf_commit(&q->in, (size_t)n);
	while ((end = memchr(buf_ptr(&q->in), '\n', buf_size(&q->in)))) {
		size_t len = (size_t)(end - buf_ptr(&q->in));

		on_line(q, (const char *)buf_ptr(&q->in), len);
		buf_consume(&q->in, len + 1);
		if (!buf_size(&q->in))
			break;
	}
}

int qmp_execute(struct qmp *q, const char *command, const char *arguments)
{
	cleanup_buf struct buf b = BUF_INIT;
	ssize_t n;

	buf_addf(&b, "{\"execute\":\"%s\"%s%s}\n", command, arguments ? ",\"arguments\":" : "",
		 arguments ? arguments : "");
	if (buf_failed(&b))
		return -ENOMEM;
	/* A command is far smaller than the socket's buffer and QEMU reads promptly. */
	n = send(q->source.fd, buf_ptr(&b), buf_size(&b), MSG_NOSIGNAL);
	return n < 0 ? -errno : (size_t)n == buf_size(&b) ? 0 : -EIO;
}

int qmp_new(struct qmp **ret, struct loop *loop, int fd, qmp_event_fn *fn, void *arg,
	    struct err *err)
{
	struct qmp *q = calloc(1, sizeof(*q));
	int r;

	if (!q) {
		close_fd(fd);
		return err_set(err, ENOMEM, "cannot talk to QEMU: out of memory");
	}
	q->source = (struct loop_source){.fn = on_readable, .fd = fd};
	q->in.max = QMP_LINE_MAX;
	q->fn = fn;
	q->arg = arg;
	(void)io_set_nonblock(fd, true);
	r = loop_add(loop, &q->source, EPOLLIN);
	if (r < 0) {
		qmp_free(q);
		return err_set(err, r, "cannot talk to QEMU: %s", err_name(r));
	}
	*ret = q;
	return 0;
}

struct qmp *qmp_free(struct qmp *q)
{
	if (!q)
		return NULL;
	loop_del(&q->source);
	close_fd(q->source.fd);
	buf_done(&q->in);
	free(q);
	return NULL;
}
