/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vsock device: three queues, packets, and the table of connections.
 *
 * Packets from the guest (tx queue) are served in order. Each either concerns a connection, or
 * makes one, or is answered with a RST.
 *
 * Packets to the guest are made when there is a buffer for them, never before: a connection that
 * owes control packets or has data within its credit is in the `active` list, and rx_process()
 * serves that list in turn, a bounded amount each, until the list or the guest's buffers run out.
 * So a guest that gives no buffers makes us remember one bit per owed packet, not packets. RSTs for
 * packets of no connection have no place to put a bit; they go to a small ring, and while that is
 * full the tx queue is not served.
 *
 * The event queue is accepted and left alone: nothing that it could announce happens.
 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/iov.h"
#include "virtio/vsock_impl.h"

enum {
	QUEUE_SIZE = 256,
	TX_SLICE = 128, /* packets from the guest before others get a turn */
	RX_SLICE = 32,	/* connections served before others get a turn */
	/* Buffers filled by one read, and bytes: one connection's share of a turn. */
	RX_BATCH = 64,
	RX_BATCH_BYTES = 256 << 10,
	CONNECTIONS_DEFAULT = 1024,
	/* The loop has a limit on sources; stay well below. */
	CONNECTIONS_MAX = 4096,
	BUFFER_DEFAULT = 256 << 10,
	BUFFER_MIN = 4 << 10,
	BUFFER_MAX = 16 << 20,
	/* Host ports of our own connects: above everything people number by hand. */
	PORT_FIRST = 1 << 30,
	/* For whoever listens to find a socket. */
	ANSWER_MS = 10000,
};

static struct vsock *to_vsock(struct virtio_device *dev)
{
	return container_of(dev, struct vsock, dev);
}

/* ---- to the guest ---- */

/* A receive buffer: 1, 0 when there is none or @iov is too short for it, -EIO when broken. */
static int rx_pop(struct vsock *v, struct virtqueue_chain *c, struct iovec *iov, unsigned niov)
{
	struct virtio_queue *q = &v->dev.queues[VSOCK_QUEUE_RX];
	int r = virtqueue_pop(&q->vq, c, iov, niov);

	if (r == -ENOBUFS)
		return 0;
	if (r > 0 && c->write_len <= VSOCK_HDR)
		r = virtqueue_break(&q->vq, "receive buffer without room for data");
	if (r < 0)
		virtio_queue_broken(q, q->vq.why);
	return r;
}

static int send_packet(struct vsock *v, const struct virtio_vsock_hdr *hdr)
{
	struct virtqueue_chain chain;
	int r = rx_pop(v, &chain, v->chain_iov, VIRTQUEUE_CHAIN_MAX);

	if (r <= 0)
		return r;
	iov_write(chain.write, chain.nwrite, 0, hdr, sizeof(*hdr));
	virtqueue_push(&v->dev.queues[VSOCK_QUEUE_RX].vq, chain.head, VSOCK_HDR);
	return 1;
}

static int send_stray(struct vsock *v)
{
	const struct vsock_stray *s = &v->stray[v->stray_head];
	struct virtio_vsock_hdr hdr = {
		.src_cid = htole64(s->src_cid),
		.dst_cid = htole64(v->guest_cid),
		.src_port = htole32(s->src_port),
		.dst_port = htole32(s->dst_port),
		.type = htole16(s->type),
		.op = htole16(VIRTIO_VSOCK_OP_RST),
	};
	int r = send_packet(v, &hdr);

	if (r <= 0)
		return r;
	v->stray_head = (v->stray_head + 1) % VSOCK_STRAYS;
	v->nstrays--;
	if (v->tx_stalled) {
		v->tx_stalled = false;
		virtio_queue_schedule(&v->dev.queues[VSOCK_QUEUE_TX]);
	}
	return 1;
}

/* A header for the connection, with its credit: this counts as having told the guest. */
static struct virtio_vsock_hdr header(struct vsock_conn *c, uint16_t op, uint32_t len,
				      uint32_t flags)
{
	c->told = c->forwarded;
	c->exposed = true;
	c->todo &= (uint8_t)~VSOCK_TODO_CREDIT;
	return (struct virtio_vsock_hdr){
		.src_cid = htole64(VSOCK_CID_HOST),
		.dst_cid = htole64(c->v->guest_cid),
		.src_port = htole32(c->host_port),
		.dst_port = htole32(c->guest_port),
		.len = htole32(len),
		.type = htole16(VIRTIO_VSOCK_TYPE_STREAM),
		.op = htole16(op),
		.flags = htole32(flags),
		.buf_alloc = htole32(c->v->buffer_size),
		.fwd_cnt = htole32(c->forwarded),
	};
}

/* Send the first control packet owed. Frees the connection when that was a RST. */
static int send_todo(struct vsock_conn *c)
{
	static const struct {
		uint8_t todo;
		uint16_t op;
	} order[] = {
		{VSOCK_TODO_REQUEST, VIRTIO_VSOCK_OP_REQUEST},
		{VSOCK_TODO_RESPONSE, VIRTIO_VSOCK_OP_RESPONSE},
		{VSOCK_TODO_CREDIT, VIRTIO_VSOCK_OP_CREDIT_UPDATE},
		{VSOCK_TODO_ASK_CREDIT, VIRTIO_VSOCK_OP_CREDIT_REQUEST},
		{VSOCK_TODO_SHUTDOWN, VIRTIO_VSOCK_OP_SHUTDOWN},
		{VSOCK_TODO_RST, VIRTIO_VSOCK_OP_RST},
	};
	uint8_t owed = c->todo;
	uint32_t told = c->told;
	bool exposed = c->exposed;
	struct virtio_vsock_hdr hdr;
	size_t i = 0;
	int r;

	while (!(owed & order[i].todo))
		i++;
	hdr = header(c, order[i].op, 0, order[i].todo == VSOCK_TODO_SHUTDOWN ? c->host_shut : 0);
	r = send_packet(c->v, &hdr);
	if (r <= 0) {
		c->todo = owed;
		c->told = told;
		c->exposed = exposed;
		return r;
	}
	c->todo &= (uint8_t)~order[i].todo;
	if (order[i].todo == VSOCK_TODO_RST)
		vsock_conn_free(c, -ECONNRESET);
	else if (order[i].todo == VSOCK_TODO_SHUTDOWN && c->state == VSOCK_LINGER)
		vsock_conn_clock(c, VSOCK_LINGER_MS);
	return 1;
}

/*
 * Fill several receive buffers from the socket with one read. Buffers that stay empty go back to
 * the queue as if never taken.
 */
static int send_data(struct vsock_conn *c)
{
	struct vsock *v = c->v;
	struct virtqueue *vq = &v->dev.queues[VSOCK_QUEUE_RX].vq;
	struct virtqueue_chain batch[RX_BATCH];
	size_t want = MIN(vsock_conn_credit(c), (uint32_t)RX_BATCH_BYTES), room = 0, got;
	unsigned n = 0, used = 0, npieces = 0, filled = 0;
	int r = 0;

	while (n < RX_BATCH && room < want) {
		struct virtqueue_chain *b = &batch[n];

		r = rx_pop(v, b, v->chain_iov + used, VIRTQUEUE_CHAIN_MAX - used);
		if (r <= 0)
			break;
		npieces += iov_slice(b->write, b->nwrite, VSOCK_HDR,
				     MIN(b->write_len - VSOCK_HDR, want - room),
				     v->data_iov + npieces, VIRTQUEUE_CHAIN_MAX - npieces);
		room += MIN(b->write_len - VSOCK_HDR, want - room);
		used += b->nread + b->nwrite;
		n++;
	}
	if (r < 0 || !n)
		return r;
	got = vsock_conn_read(c, v->data_iov, npieces);
	for (; got; filled++) {
		const struct virtqueue_chain *b = &batch[filled];
		uint32_t len = (uint32_t)MIN((size_t)b->write_len - VSOCK_HDR, got);
		struct virtio_vsock_hdr hdr = header(c, VIRTIO_VSOCK_OP_RW, len, 0);

		iov_write(b->write, b->nwrite, 0, &hdr, sizeof(hdr));
		virtqueue_push(vq, b->head, VSOCK_HDR + len);
		c->sent += len;
		got -= len;
	}
	virtqueue_rewind(vq, n - filled);
	return 1;
}

/* One connection's turn: 1, 0 when it needs a buffer and there is none, -EIO when broken. */
static int send_turn(struct vsock *v, struct vsock_conn *c)
{
	int r = 1;

	while (c->todo) {
		bool last = c->todo == VSOCK_TODO_RST;

		r = send_todo(c);
		if (r <= 0 || last)
			return r;
	}
	if (vsock_conn_readable(c) && vsock_conn_credit(c))
		r = send_data(c);
	if (r <= 0)
		return r;
	TAILQ_REMOVE(&v->active, c, active);
	c->is_active = false;
	vsock_conn_activate(c);
	return 1;
}

static bool rx_process(struct virtio_queue *q)
{
	struct vsock *v = to_vsock(q->dev);
	unsigned budget = RX_SLICE;
	uint16_t before = q->vq.state.last_used;
	struct vsock_conn *c;
	int r = 1;

	v->pumping = true;
	virtqueue_disable_kick(&q->vq);
	while (budget) {
		c = TAILQ_FIRST(&v->active);
		if (v->nstrays)
			r = send_stray(v);
		else if (c)
			r = send_turn(v, c);
		else
			break;
		if (r < 0 || (r == 0 && !virtqueue_enable_kick(&q->vq)))
			break;
		if (r == 0)
			virtqueue_disable_kick(&q->vq);
		budget--;
	}
	v->pumping = false;
	if (r >= 0 && q->vq.state.last_used != before)
		virtio_queue_notify(q);
	return !budget;
}

/* ---- from the guest ---- */

/* A RST for a packet that has no connection, if there is room. */
static void reply_stray(struct vsock *v, const struct virtio_vsock_hdr *hdr)
{
	if (v->nstrays == VSOCK_STRAYS)
		return;
	v->stray[(v->stray_head + v->nstrays++) % VSOCK_STRAYS] = (struct vsock_stray){
		.src_cid = le64toh(hdr->dst_cid),
		.src_port = le32toh(hdr->dst_port),
		.dst_port = le32toh(hdr->src_port),
		.type = le16toh(hdr->type),
	};
	virtio_queue_schedule(&v->dev.queues[VSOCK_QUEUE_RX]);
}

static const struct vsock_listener *find_listener(const struct vsock *v, uint32_t port)
{
	const struct vsock_listener *any = NULL;

	for (size_t i = 0; i < VSOCK_LISTENERS; i++) {
		const struct vsock_listener *l = &v->listener[i];

		if (l->used && l->port == port)
			return l;
		if (l->used && l->port == VSOCK_PORT_ANY)
			any = l;
	}
	return any;
}

static void update_credit(struct vsock_conn *c, const struct virtio_vsock_hdr *hdr)
{
	c->peer_buf_alloc = le32toh(hdr->buf_alloc);
	c->peer_fwd_cnt = le32toh(hdr->fwd_cnt);
	if (vsock_conn_credit(c)) {
		c->asked = false;
		c->todo &= (uint8_t)~VSOCK_TODO_ASK_CREDIT;
	}
}

static void answer(struct vsock_conn *c)
{
	c->todo = VSOCK_TODO_RESPONSE;
	if (vsock_conn_open(c) < 0)
		vsock_conn_reset(c, -ENOMEM);
}

static void on_request(struct vsock *v, const struct virtio_vsock_hdr *hdr)
{
	uint32_t guest_port = le32toh(hdr->src_port), host_port = le32toh(hdr->dst_port);
	const struct vsock_listener *l = find_listener(v, host_port);
	struct vsock_conn *c;
	int fd = -ECONNREFUSED;

	if (l && v->nconns < v->max_connections)
		fd = l->fn(&v->dev, guest_port, host_port, l->arg);
	if (fd < 0 && fd != -EINPROGRESS) {
		reply_stray(v, hdr);
		return;
	}
	/* The callback may have connected and so used up the room or, absurdly, the ports. */
	c = vsock_conn_find(v, guest_port, host_port)
		    ? NULL
		    : vsock_conn_new(v, guest_port, host_port, fd < 0 ? -1 : fd,
				     fd < 0 ? VSOCK_ASKED : VSOCK_OPEN);
	if (!c) {
		close_fd(fd);
		reply_stray(v, hdr);
		return;
	}
	update_credit(c, hdr);
	if (c->state == VSOCK_ASKED)
		vsock_conn_clock(c, ANSWER_MS);
	else
		answer(c);
}

static void on_response(struct vsock_conn *c)
{
	if (c->state != VSOCK_REQUESTING || vsock_conn_open(c) < 0)
		vsock_conn_reset(c, -ECONNRESET);
}

/* A packet for a connection in the table. May free it. */
static void on_packet(struct vsock_conn *c, const struct virtio_vsock_hdr *hdr,
		      const struct iovec *data, unsigned n)
{
	uint16_t op = le16toh(hdr->op);
	bool open = c->state == VSOCK_OPEN;

	if (op == VIRTIO_VSOCK_OP_RST) {
		vsock_conn_guest_gone(c,
				      c->state == VSOCK_REQUESTING ? -ECONNREFUSED : -ECONNRESET);
		return;
	}
	if (c->state == VSOCK_RESETTING)
		return;
	update_credit(c, hdr);
	switch (op) {
	case VIRTIO_VSOCK_OP_RESPONSE:
		on_response(c);
		break;
	case VIRTIO_VSOCK_OP_RW:
		if (open)
			vsock_conn_receive(c, data, n, le32toh(hdr->len));
		else if (c->state != VSOCK_LINGER)
			vsock_conn_reset(c, -ECONNRESET);
		break;
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
		vsock_conn_activate(c);
		break;
	case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
		if (open)
			vsock_conn_owe(c, VSOCK_TODO_CREDIT);
		break;
	case VIRTIO_VSOCK_OP_SHUTDOWN:
		if (c->state == VSOCK_REQUESTING || c->state == VSOCK_ASKED)
			vsock_conn_reset(c, -ECONNRESET);
		else
			vsock_conn_guest_shutdown(c, le32toh(hdr->flags));
		break;
	default: /* a second REQUEST, or no operation at all */
		vsock_conn_reset(c, -ECONNRESET);
	}
}

static void receive(struct vsock *v, const struct virtqueue_chain *chain)
{
	struct virtio_vsock_hdr hdr;
	struct vsock_conn *c = NULL;
	unsigned n;
	bool bad;

	iov_read(chain->read, chain->nread, 0, &hdr, sizeof(hdr));
	if (le64toh(hdr.src_cid) != v->guest_cid)
		return; /* nobody to answer to */
	bad = le64toh(hdr.dst_cid) != VSOCK_CID_HOST ||
	      le16toh(hdr.type) != VIRTIO_VSOCK_TYPE_STREAM;
	if (!bad)
		c = vsock_conn_find(v, le32toh(hdr.src_port), le32toh(hdr.dst_port));
	if (le32toh(hdr.len) > chain->read_len - VSOCK_HDR)
		bad = true;
	if (bad && c) {
		vsock_conn_reset(c, -ECONNRESET);
	} else if (c) {
		n = iov_slice(chain->read, chain->nread, VSOCK_HDR, le32toh(hdr.len), v->data_iov,
			      VIRTQUEUE_CHAIN_MAX);
		on_packet(c, &hdr, v->data_iov, n);
	} else if (!bad && le16toh(hdr.op) == VIRTIO_VSOCK_OP_REQUEST) {
		on_request(v, &hdr);
	} else if (le16toh(hdr.op) != VIRTIO_VSOCK_OP_RST) {
		reply_stray(v, &hdr);
	}
}

/*
 * Serve up to @budget packets. 1 when the ring is empty, 0 when there may be more, -EIO. With
 * @drop_strays resets that find no room are forgotten, else the queue waits for room.
 */
static int tx_run(struct virtio_queue *q, unsigned budget, bool drop_strays)
{
	struct vsock *v = to_vsock(q->dev);
	struct virtqueue_chain c;
	int r;

	while (budget--) {
		r = virtqueue_pop(&q->vq, &c, v->chain_iov, VIRTQUEUE_CHAIN_MAX);
		if (r > 0 && c.read_len < VSOCK_HDR)
			r = virtqueue_break(&q->vq, "packet without a header");
		if (r < 0)
			virtio_queue_broken(q, q->vq.why);
		if (r <= 0)
			return r < 0 ? r : 1;
		receive(v, &c);
		virtqueue_push(&q->vq, c.head, 0);
		if (v->nstrays == VSOCK_STRAYS && !drop_strays)
			return 0;
	}
	return 0;
}

static bool tx_process(struct virtio_queue *q)
{
	struct vsock *v = to_vsock(q->dev);
	uint16_t before = q->vq.state.last_used;
	int r = 0;

	virtqueue_disable_kick(&q->vq);
	if (v->nstrays < VSOCK_STRAYS) {
		r = tx_run(q, TX_SLICE, false);
		if (r > 0 && virtqueue_enable_kick(&q->vq))
			r = 0;
	}
	if (r >= 0 && q->vq.state.last_used != before)
		virtio_queue_notify(q);
	v->tx_stalled = v->nstrays == VSOCK_STRAYS;
	return r == 0 && !v->tx_stalled;
}

/* ---- the device ---- */

static bool vsock_process(struct virtio_queue *q)
{
	switch (q->index) {
	case VSOCK_QUEUE_RX:
		return rx_process(q);
	case VSOCK_QUEUE_TX:
		return tx_process(q);
	default:
		return false;
	}
}

/*
 * The driver that knew our connections is gone; @all says that it knew even those it has had no
 * packet of. Connects that wait will ask the next one.
 */
static void forget_driver(struct vsock *v, bool all)
{
	struct vsock_conn *c, *next;

	for (c = TAILQ_FIRST(&v->all); c; c = next) {
		next = TAILQ_NEXT(c, all);
		if (c->state == VSOCK_REQUESTING)
			vsock_conn_owe(c, VSOCK_TODO_REQUEST);
		else if (c->state != VSOCK_DRAINING &&
			 (all || c->exposed || c->state == VSOCK_ASKED))
			vsock_conn_guest_gone(c, -ECONNRESET);
	}
	v->nstrays = 0;
	v->tx_stalled = false;
}

static void vsock_queue_started(struct virtio_queue *q)
{
	/*
	 * vhost-user does not say whether the machine was paused or its driver reset. A receive
	 * queue that begins at zero has never delivered a packet, so no driver knows of any
	 * connection that has been used.
	 */
	if (q->index == VSOCK_QUEUE_RX && q->vq.state.last_avail == 0)
		forget_driver(to_vsock(q->dev), false);
}

static void vsock_queue_stopping(struct virtio_queue *q)
{
	/* What the guest has sent must not be lost when it powers off right behind it. */
	if (q->index == VSOCK_QUEUE_TX && !virtio_device_broken(q->dev))
		(void)tx_run(q, q->vq.state.size, true);
}

static void vsock_reset(struct virtio_device *dev)
{
	forget_driver(to_vsock(dev), true);
}

static void vsock_stop(struct virtio_device *dev)
{
	struct vsock *v = to_vsock(dev);

	while (!TAILQ_EMPTY(&v->all))
		vsock_conn_free(TAILQ_FIRST(&v->all), -ECONNRESET);
}

static void vsock_free(struct virtio_device *dev)
{
	free(to_vsock(dev));
}

static const struct virtio_device_ops vsock_ops = {
	.name = "vsock",
	.id = 19,
	.process = vsock_process,
	.queue_started = vsock_queue_started,
	.queue_stopping = vsock_queue_stopping,
	.reset = vsock_reset,
	.stop = vsock_stop,
	.free = vsock_free,
};

int vsock_device_new(const struct vsock_options *options, struct virtio_device **ret,
		     struct err *err)
{
	struct vsock *v;
	struct virtio_device_params p = {
		.ops = &vsock_ops,
		.config_size = sizeof(v->config),
		.nqueues = VSOCK_QUEUES,
		.queue_size_max = QUEUE_SIZE,
	};
	uint32_t cid = options->guest_cid ? options->guest_cid : VSOCK_CID_FIRST;
	uint32_t buffer = options->buffer_size ? options->buffer_size : BUFFER_DEFAULT;
	unsigned max = options->max_connections ? options->max_connections : CONNECTIONS_DEFAULT;
	int r;

	if (cid < VSOCK_CID_FIRST || cid == UINT32_MAX)
		return err_set(err, EINVAL, "%u is not a guest's context id", cid);
	if (buffer < BUFFER_MIN || buffer > BUFFER_MAX || max > CONNECTIONS_MAX)
		return err_set(err, EINVAL, "vsock limits out of range");
	v = calloc(1, sizeof(*v));
	if (!v)
		return err_set(err, ENOMEM, "cannot create a vsock device: out of memory");
	v->config.guest_cid = htole64(cid);
	v->guest_cid = cid;
	v->buffer_size = buffer;
	v->max_connections = max;
	v->next_port = PORT_FIRST;
	if (options->accept)
		v->listener[0] =
			(struct vsock_listener){true, options->port, options->accept, options->arg};
	TAILQ_INIT(&v->all);
	TAILQ_INIT(&v->active);
	p.config = &v->config;
	r = virtio_device_init(&v->dev, &p, err);
	if (r < 0) {
		free(v);
		return r;
	}
	*ret = &v->dev;
	return 0;
}

/* ---- calls from other threads ---- */

struct api_call {
	struct vsock *v;
	uint32_t port, host_port;
	int fd;
	uint32_t timeout_ms;
	union {
		vsock_accept_fn *accept;
		vsock_connect_fn *connect;
	};
	void *arg;
	int result;
};

static void call(struct virtio_device *dev, struct api_call *a, void (*fn)(void *arg))
{
	a->v = to_vsock(dev);
	loop_call(virtio_queue_loop(dev, 0), fn, a);
}

static void listen_on_worker(void *arg)
{
	struct api_call *a = arg;
	struct vsock_listener *free_slot = NULL;

	for (size_t i = 0; i < VSOCK_LISTENERS; i++) {
		struct vsock_listener *l = &a->v->listener[i];

		if (l->used && l->port == a->port) {
			a->result = -EADDRINUSE;
			return;
		}
		if (!l->used && !free_slot)
			free_slot = l;
	}
	a->result = free_slot ? 0 : -ENOSPC;
	if (free_slot)
		*free_slot = (struct vsock_listener){true, a->port, a->accept, a->arg};
}

int vsock_listen(struct virtio_device *dev, uint32_t port, vsock_accept_fn *fn, void *arg)
{
	struct api_call a = {.port = port, .accept = fn, .arg = arg};

	call(dev, &a, listen_on_worker);
	return a.result;
}

static void unlisten_on_worker(void *arg)
{
	struct api_call *a = arg;

	for (size_t i = 0; i < VSOCK_LISTENERS; i++) {
		if (a->v->listener[i].used && a->v->listener[i].port == a->port)
			a->v->listener[i].used = false;
	}
}

void vsock_unlisten(struct virtio_device *dev, uint32_t port)
{
	struct api_call a = {.port = port};

	call(dev, &a, unlisten_on_worker);
}

static void answer_on_worker(void *arg)
{
	const struct api_call *a = arg;
	struct vsock_conn *c = vsock_conn_find(a->v, a->port, a->host_port);

	/* The guest may have changed its mind. */
	if (!c || c->state != VSOCK_ASKED) {
		close_fd(a->fd);
	} else if (a->fd < 0) {
		vsock_conn_reset(c, a->fd);
	} else {
		c->io.fd = a->fd;
		answer(c);
	}
}

void vsock_answer(struct virtio_device *dev, uint32_t guest_port, uint32_t host_port, int fd)
{
	struct api_call a = {.port = guest_port, .host_port = host_port, .fd = fd};

	call(dev, &a, answer_on_worker);
}

static void connect_on_worker(void *arg)
{
	struct api_call *a = arg;
	struct vsock *v = a->v;
	struct vsock_conn *c;
	uint32_t port;

	/* No more tries than connections are needed to find a free one. */
	do {
		port = v->next_port++;
		if (v->next_port == UINT32_MAX)
			v->next_port = PORT_FIRST;
	} while (vsock_conn_find(v, a->port, port));
	c = vsock_conn_new(v, a->port, port, a->fd, VSOCK_REQUESTING);
	if (!c) {
		a->result = -EMFILE;
		return;
	}
	c->done = a->connect;
	c->done_arg = a->arg;
	vsock_conn_clock(c, a->timeout_ms);
	vsock_conn_owe(c, VSOCK_TODO_REQUEST);
}

int vsock_connect(struct virtio_device *dev, uint32_t guest_port, int fd, uint32_t timeout_ms,
		  vsock_connect_fn *fn, void *arg)
{
	struct api_call a = {
		.port = guest_port, .fd = fd, .timeout_ms = timeout_ms, .connect = fn, .arg = arg};

	call(dev, &a, connect_on_worker);
	return a.result;
}

static void count_on_worker(void *arg)
{
	struct api_call *a = arg;

	a->result = (int)a->v->nconns;
}

unsigned vsock_connections(struct virtio_device *dev)
{
	struct api_call a = {0};

	call(dev, &a, count_on_worker);
	return (unsigned)a.result;
}
