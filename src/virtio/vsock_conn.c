/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection: a socket on one side, credit on the other.
 *
 * Guest to host, data goes from the guest's buffers into the socket at once; what the socket does
 * not take waits in `pending`, which the credit given to the guest bounds. Host to guest, nothing
 * is kept here: the socket is read only into the guest's receive buffers and within its credit, so
 * the socket's own buffer is the queue and its writer feels the pressure.
 *
 * The socket is watched edge-triggered for everything, once; `can_read` remembers an edge until a
 * read finds nothing. The end of each direction is tracked apart:
 *
 *	guest SHUTDOWN(SEND), pending empty   shutdown(SHUT_WR)
 *	guest SHUTDOWN(RCV)                   shutdown(SHUT_RD)
 *	socket reads end of file              SHUTDOWN(SEND) behind the last data
 *	socket refuses a write                SHUTDOWN(RCV)
 *
 * and when both are over the socket is closed: with a RST if the guest asked for the end, else with
 * SHUTDOWN(both), which the guest answers with a RST once its reader is done.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/iov.h"
#include "virtio/vsock_impl.h"

static unsigned bucket_of(uint32_t guest_port, uint32_t host_port)
{
	return ((guest_port * 2654435761u) ^ (host_port * 2246822519u)) >> 24 & (VSOCK_BUCKETS - 1);
}

struct vsock_conn *vsock_conn_find(struct vsock *v, uint32_t guest_port, uint32_t host_port)
{
	struct vsock_conn *c;

	LIST_FOREACH(c, &v->bucket[bucket_of(guest_port, host_port)], hash)
	{
		if (c->guest_port == guest_port && c->host_port == host_port)
			return c;
	}
	return NULL;
}

static void on_io(struct loop_source *s, uint32_t events);
static void on_timer(struct loop_timer *t);

struct vsock_conn *vsock_conn_new(struct vsock *v, uint32_t guest_port, uint32_t host_port, int fd,
				  enum vsock_state state)
{
	struct vsock_conn *c;

	if (v->nconns >= v->max_connections)
		return NULL;
	c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	c->v = v;
	c->state = state;
	c->guest_port = guest_port;
	c->host_port = host_port;
	c->io = (struct loop_source){.fn = on_io, .fd = fd};
	c->timer.fn = on_timer;
	c->pending.max = v->buffer_size;
	LIST_INSERT_HEAD(&v->bucket[bucket_of(guest_port, host_port)], c, hash);
	TAILQ_INSERT_TAIL(&v->all, c, all);
	v->nconns++;
	return c;
}

static void deactivate(struct vsock_conn *c)
{
	if (c->is_active)
		TAILQ_REMOVE(&c->v->active, c, active);
	c->is_active = false;
}

static void finish_connect(struct vsock_conn *c, int result)
{
	vsock_connect_fn *done = c->done;

	c->done = NULL;
	if (done)
		done(&c->v->dev, result, c->done_arg);
}

static void close_socket(struct vsock_conn *c)
{
	loop_del(&c->io);
	c->io.fd = close_fd(c->io.fd);
	buf_done(&c->pending);
	c->can_read = false;
}

void vsock_conn_free(struct vsock_conn *c, int result)
{
	struct vsock *v = c->v;

	deactivate(c);
	loop_timer_stop(&c->timer);
	if (c->state != VSOCK_DRAINING)
		LIST_REMOVE(c, hash);
	TAILQ_REMOVE(&v->all, c, all);
	v->nconns--;
	finish_connect(c, result);
	close_socket(c);
	free(c);
}

int vsock_conn_open(struct vsock_conn *c)
{
	int r = loop_add(virtio_queue_loop(&c->v->dev, 0), &c->io,
			 EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);

	if (r < 0)
		return r;
	c->state = VSOCK_OPEN;
	vsock_conn_clock(c, 0);
	finish_connect(c, 0);
	c->can_read = true;
	vsock_conn_activate(c);
	return 0;
}

uint32_t vsock_conn_credit(const struct vsock_conn *c)
{
	uint32_t in_flight = c->sent - c->peer_fwd_cnt;

	return in_flight < c->peer_buf_alloc ? c->peer_buf_alloc - in_flight : 0;
}

bool vsock_conn_readable(const struct vsock_conn *c)
{
	return c->state == VSOCK_OPEN && c->can_read && !c->host_eof &&
	       !(c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV);
}

void vsock_conn_activate(struct vsock_conn *c)
{
	struct vsock *v = c->v;

	if (vsock_conn_readable(c) && !vsock_conn_credit(c) && !c->asked) {
		c->asked = true;
		c->todo |= VSOCK_TODO_ASK_CREDIT;
	}
	if (!c->todo && !(vsock_conn_readable(c) && vsock_conn_credit(c)))
		return;
	if (!c->is_active)
		TAILQ_INSERT_TAIL(&v->active, c, active);
	c->is_active = true;
	if (!v->pumping)
		virtio_queue_schedule(&v->dev.queues[VSOCK_QUEUE_RX]);
}

void vsock_conn_owe(struct vsock_conn *c, uint8_t todo)
{
	c->todo |= todo;
	vsock_conn_activate(c);
}

void vsock_conn_clock(struct vsock_conn *c, uint32_t ms)
{
	if (ms)
		/* Without memory for a timer the connection just waits for the guest. */
		(void)loop_timer_in(virtio_queue_loop(&c->v->dev, 0), &c->timer, ms * 1000000ull);
	else
		loop_timer_stop(&c->timer);
}

void vsock_conn_reset(struct vsock_conn *c, int result)
{
	if (c->state == VSOCK_RESETTING)
		return;
	c->state = VSOCK_RESETTING;
	vsock_conn_clock(c, 0);
	c->todo = VSOCK_TODO_RST;
	finish_connect(c, result);
	close_socket(c);
	vsock_conn_activate(c);
}

static void on_timer(struct loop_timer *t)
{
	struct vsock_conn *c = container_of(t, struct vsock_conn, timer);

	if (c->state == VSOCK_ASKED || (c->state == VSOCK_REQUESTING && c->exposed))
		vsock_conn_reset(c, -ETIMEDOUT);
	else
		vsock_conn_free(c, -ETIMEDOUT);
}

/* Both directions are over, or not: see the table at the top. May free @c. */
static void update(struct vsock_conn *c)
{
	bool flushed = !buf_size(&c->pending);

	if (c->state == VSOCK_DRAINING && flushed) {
		vsock_conn_free(c, -ECONNRESET);
		return;
	}
	if (c->state != VSOCK_OPEN)
		return;
	if (c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND && flushed && !c->write_shut) {
		c->write_shut = true;
		(void)shutdown(c->io.fd, SHUT_WR);
	}
	if (c->guest_shut == VSOCK_SHUT_BOTH && flushed) {
		vsock_conn_reset(c, 0);
		return;
	}
	if ((c->hup || c->write_shut) &&
	    (c->host_eof || c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV)) {
		c->state = VSOCK_LINGER;
		c->host_shut = VSOCK_SHUT_BOTH;
		close_socket(c);
		vsock_conn_owe(c, VSOCK_TODO_SHUTDOWN);
	}
}

static void refuse_writes(struct vsock_conn *c)
{
	c->write_shut = true;
	c->host_shut |= VIRTIO_VSOCK_SHUTDOWN_RCV;
	c->forwarded = c->received;
	buf_done(&c->pending);
	if (c->state == VSOCK_OPEN)
		vsock_conn_owe(c, VSOCK_TODO_SHUTDOWN);
}

/* Bytes the socket took; 0 when it is full, and after it refused. */
static size_t socket_write(struct vsock_conn *c, struct iovec *iov, unsigned n)
{
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = n};
	ssize_t r;

	do {
		r = sendmsg(c->io.fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (r < 0 && errno == EINTR);
	if (r < 0 && errno != EAGAIN)
		refuse_writes(c);
	return r < 0 ? 0 : (size_t)r;
}

static void forwarded(struct vsock_conn *c, size_t n)
{
	uint32_t size = c->v->buffer_size;

	c->forwarded += (uint32_t)n;
	/* Tell the guest before it has used up half of what it knows of. */
	if (c->state == VSOCK_OPEN && c->forwarded != c->told && c->received - c->told > size / 2)
		vsock_conn_owe(c, VSOCK_TODO_CREDIT);
}

static void flush(struct vsock_conn *c)
{
	while (buf_size(&c->pending) && !c->write_shut) {
		struct iovec iov = {buf_ptr(&c->pending), buf_size(&c->pending)};
		size_t n = socket_write(c, &iov, 1);

		if (!n)
			return;
		buf_consume(&c->pending, n);
		forwarded(c, n);
	}
	/* Most connections never need the memory again. */
	if (!buf_size(&c->pending)) {
		buf_done(&c->pending);
		c->pending.max = c->v->buffer_size;
	}
}

static void on_io(struct loop_source *s, uint32_t events)
{
	struct vsock_conn *c = container_of(s, struct vsock_conn, io);

	if (events & ~(uint32_t)EPOLLOUT)
		c->can_read = true;
	if (events & EPOLLHUP)
		c->hup = true;
	flush(c);
	vsock_conn_activate(c);
	update(c);
}

void vsock_conn_receive(struct vsock_conn *c, const struct iovec *iov, unsigned n, uint32_t len)
{
	struct vsock *v = c->v;
	struct iovec rest[VIRTQUEUE_CHAIN_MAX];
	size_t done = 0;

	if (c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND ||
	    len > v->buffer_size - (c->received - c->forwarded)) {
		vsock_conn_reset(c, -ECONNRESET);
		return;
	}
	c->received += len;
	if (c->write_shut) {
		/* It was sent before the guest knew that nobody reads. */
		c->forwarded = c->received;
		return;
	}
	if (!buf_size(&c->pending)) {
		unsigned k = iov_slice(iov, n, 0, len, rest, VIRTQUEUE_CHAIN_MAX);

		done = socket_write(c, rest, k);
		forwarded(c, done);
	}
	if (done < len && !c->write_shut) {
		unsigned k = iov_slice(iov, n, done, len - done, rest, VIRTQUEUE_CHAIN_MAX);

		for (unsigned i = 0; i < k; i++)
			buf_add(&c->pending, rest[i].iov_base, rest[i].iov_len);
		if (buf_failed(&c->pending)) {
			vsock_conn_reset(c, -ENOMEM);
			return;
		}
	}
	update(c);
}

size_t vsock_conn_read(struct vsock_conn *c, struct iovec *iov, unsigned n)
{
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = n};
	ssize_t r;

	do {
		r = recvmsg(c->io.fd, &m, MSG_DONTWAIT);
	} while (r < 0 && errno == EINTR);
	if (r > 0)
		return (size_t)r;
	c->can_read = false;
	if (r < 0 && errno == EAGAIN)
		return 0;
	/* End of file; an error (the peer closed with unread bytes) ends the direction as well. */
	c->host_eof = true;
	c->host_shut |= VIRTIO_VSOCK_SHUTDOWN_SEND;
	vsock_conn_owe(c, VSOCK_TODO_SHUTDOWN);
	update(c);
	return 0;
}

void vsock_conn_guest_shutdown(struct vsock_conn *c, uint32_t flags)
{
	c->guest_shut |= flags & VSOCK_SHUT_BOTH;
	if (c->state == VSOCK_LINGER) {
		if (c->guest_shut == VSOCK_SHUT_BOTH)
			vsock_conn_reset(c, 0);
		return;
	}
	if (c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV)
		(void)shutdown(c->io.fd, SHUT_RD);
	update(c);
}

void vsock_conn_guest_gone(struct vsock_conn *c, int result)
{
	if (c->state != VSOCK_OPEN || !buf_size(&c->pending)) {
		vsock_conn_free(c, result);
		return;
	}
	LIST_REMOVE(c, hash);
	c->state = VSOCK_DRAINING;
	c->todo = 0;
	deactivate(c);
	(void)shutdown(c->io.fd, SHUT_RD);
}
