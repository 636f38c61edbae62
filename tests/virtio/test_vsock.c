/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vsock device against a small model of a guest driver: it posts receive buffers, keeps the
 * credit of each of its connections and remembers what arrived.
 */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_vsock.h>
#include <pthread.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "driver.h"
#include "guest_demo.h"
#include "virtio/vsock.h"

#define FEATURES (1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_EVENT_IDX)

enum {
	RX_N = 64,
	TX_N = 64,
	RX_SIZE = 8192,
	TX_SIZE = 16384,
	GUEST_BUF = 64 << 10, /* what the guest's connections hold */
	CONNS = 1200,
	ECHO = 7, /* host ports */
	KEEP = 8,
	REFUSE = 9,
};

/* What the guest knows of a connection; found by its own port. */
struct gconn {
	uint32_t peer_alloc, peer_fwd, sent; /* towards the host */
	uint32_t received, forwarded;
	uint64_t hash_in, hash_out, seed;
	unsigned responses, resets, shutdowns, requests, credit_updates, credit_requests;
	uint32_t shut_flags, host_port;
};

struct fixture {
	struct drv d;
	struct drvq rx, tx, ev;
	uint64_t rx_buf, tx_buf;
	uint16_t rx_head[RX_N];
	unsigned tx_busy;
	struct virtio_device *dev;
	struct gconn g[CONNS];
	bool hold_credit; /* the guest's applications do not read */
	unsigned strays;
	pthread_t echo[CONNS];
	atomic_uint nechoes, broken;
	atomic_int kept;
};

static void on_broken(struct virtio_device *dev, const char *why, void *arg)
{
	struct fixture *f = arg;

	(void)dev;
	(void)why;
	atomic_fetch_add(&f->broken, 1);
}

static void *echo_main(void *arg)
{
	int fd = (int)(intptr_t)arg;
	char data[4096];
	ssize_t n;

	while ((n = read(fd, data, sizeof(data))) > 0)
		(void)io_write_full(fd, data, (size_t)n);
	close(fd);
	return NULL;
}

static int on_accept(struct virtio_device *dev, uint32_t guest_port, uint32_t host_port, void *arg)
{
	struct fixture *f = arg;
	int sv[2];

	(void)dev;
	(void)guest_port;
	if (host_port == REFUSE)
		return -ECONNREFUSED;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	if (host_port == ECHO)
		pthread_create(&f->echo[atomic_fetch_add(&f->nechoes, 1)], NULL, echo_main,
			       (void *)(intptr_t)sv[1]);
	else
		atomic_store(&f->kept, sv[1]);
	return sv[0];
}

static void start(struct fixture *f)
{
	struct drvq *q[3] = {&f->rx, &f->tx, &f->ev};

	for (unsigned i = 0; i < 3; i++) {
		drvq_init(q[i], &f->d, i == 0 ? RX_N : TX_N);
		q[i]->event_idx = true;
	}
	f->rx_buf = drv_alloc(&f->d, RX_N * RX_SIZE);
	f->tx_buf = drv_alloc(&f->d, TX_N * TX_SIZE);
	f->tx_busy = 0;
	assert_int_equal(virtio_device_activate(f->dev, FEATURES, &f->d.map), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(virtio_queue_start(f->dev, i, &q[i]->s, q[i]->kick, q[i]->call),
				 0);
}

static void post_rx(struct fixture *f)
{
	for (unsigned i = 0; i < RX_N; i++) {
		struct drvbuf b = {f->rx_buf + i * RX_SIZE, RX_SIZE, true};

		drvq_add(&f->rx, &b, 1);
	}
	drvq_kick(&f->rx);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	drv_init(&f->d);
	f->kept = -1;
	assert_int_equal(vsock_device_new(&(struct vsock_options){.guest_cid = 5}, &f->dev, NULL),
			 0);
	virtio_device_on_broken(f->dev, on_broken, f);
	for (uint32_t p = ECHO; p <= REFUSE; p++)
		assert_int_equal(vsock_listen(f->dev, p, on_accept, f), 0);
	start(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	virtio_device_free(f->dev);
	for (unsigned i = 0; i < f->nechoes; i++)
		pthread_join(f->echo[i], NULL);
	close_fd(f->kept);
	drvq_done(&f->rx);
	drvq_done(&f->tx);
	drvq_done(&f->ev);
	drv_done(&f->d);
	free(f);
	return 0;
}

/* ---- the guest ---- */

static void guest_receive(struct fixture *f, uint32_t head, uint32_t len);

/* Take what came; false when nothing came within @ms. */
static bool guest_poll(struct fixture *f, int ms)
{
	uint32_t head, len;
	bool any = false;

	while (drvq_take(&f->rx, &head, &len)) {
		guest_receive(f, head, len);
		drvq_publish(&f->rx, (uint16_t)head);
		any = true;
	}
	if (any)
		drvq_kick(&f->rx);
	return any || (drvq_wait(&f->rx, ms) && guest_poll(f, 0));
}

static void guest_send_raw(struct fixture *f, const struct virtio_vsock_hdr *h, const void *data,
			   uint32_t len)
{
	uint64_t at;
	uint32_t head, l;
	struct drvbuf b;

	while (f->tx_busy == TX_N) {
		while (drvq_take(&f->tx, &head, &l))
			f->tx_busy--;
		if (f->tx_busy == TX_N && !drvq_wait(&f->tx, 1))
			guest_poll(f, 0);
	}
	at = f->tx_buf + f->tx.next_desc % TX_N * TX_SIZE;
	memcpy(drv_at(&f->d, at), h, sizeof(*h));
	if (len)
		memcpy((char *)drv_at(&f->d, at) + sizeof(*h), data, len);
	b = (struct drvbuf){at, (uint32_t)sizeof(*h) + len, false};
	drvq_add(&f->tx, &b, 1);
	f->tx_busy++;
	drvq_kick(&f->tx);
}

static struct virtio_vsock_hdr guest_hdr(struct fixture *f, uint32_t port, uint16_t op,
					 uint32_t len, uint32_t flags)
{
	struct gconn *g = &f->g[port];

	return (struct virtio_vsock_hdr){
		5,  2,	   port,      g->host_port, len, VIRTIO_VSOCK_TYPE_STREAM,
		op, flags, GUEST_BUF, g->forwarded};
}

static void guest_op(struct fixture *f, uint32_t port, uint16_t op, uint32_t flags)
{
	struct virtio_vsock_hdr h = guest_hdr(f, port, op, 0, flags);

	guest_send_raw(f, &h, NULL, 0);
}

static void guest_receive(struct fixture *f, uint32_t head, uint32_t len)
{
	const uint8_t *p = drv_at(&f->d, f->rx_buf + head * RX_SIZE);
	struct virtio_vsock_hdr h;
	struct gconn *g;

	assert_true(len >= sizeof(h));
	memcpy(&h, p, sizeof(h));
	assert_int_equal(len, sizeof(h) + h.len);
	assert_int_equal(h.dst_cid, 5);
	if (h.dst_port >= CONNS || h.src_cid != 2 || h.type != VIRTIO_VSOCK_TYPE_STREAM) {
		assert_int_equal(h.op, VIRTIO_VSOCK_OP_RST);
		f->strays++;
		return;
	}
	g = &f->g[h.dst_port];
	g->peer_alloc = h.buf_alloc;
	g->peer_fwd = h.fwd_cnt;
	switch (h.op) {
	case VIRTIO_VSOCK_OP_REQUEST:
		g->requests++;
		g->host_port = h.src_port;
		break;
	case VIRTIO_VSOCK_OP_RESPONSE:
		g->responses++;
		break;
	case VIRTIO_VSOCK_OP_RST:
		g->resets++;
		break;
	case VIRTIO_VSOCK_OP_SHUTDOWN:
		g->shutdowns++;
		g->shut_flags |= h.flags;
		break;
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
		g->credit_updates++;
		break;
	case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
		g->credit_requests++;
		break;
	case VIRTIO_VSOCK_OP_RW:
		/* Data never follows the announcement that there is none, nor exceeds credit. */
		assert_false(g->shut_flags & VIRTIO_VSOCK_SHUTDOWN_SEND);
		g->received += h.len;
		assert_true(g->received - g->forwarded <= GUEST_BUF);
		for (uint32_t i = 0; i < h.len; i++)
			g->hash_in = (g->hash_in ^ p[sizeof(h) + i]) * 0x100000001b3u;
		if (!f->hold_credit && g->received - g->forwarded > GUEST_BUF / 2) {
			g->forwarded = g->received;
			guest_op(f, h.dst_port, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
		}
		break;
	default:
		fail_msg("operation %u", h.op);
	}
}

static uint32_t guest_credit(const struct gconn *g)
{
	return g->peer_alloc - (g->sent - g->peer_fwd);
}

/* Send up to @len random bytes as credit allows; returns how many. */
static uint32_t guest_write(struct fixture *f, uint32_t port, uint32_t len)
{
	struct gconn *g = &f->g[port];
	uint8_t data[TX_SIZE];
	struct virtio_vsock_hdr h;

	len = MIN(len, guest_credit(g));
	len = MIN(len, (uint32_t)(TX_SIZE - sizeof(h)));
	if (!len)
		return 0;
	for (uint32_t i = 0; i < len; i++) {
		data[i] = (uint8_t)drv_random(&g->seed);
		g->hash_out = (g->hash_out ^ data[i]) * 0x100000001b3u;
	}
	h = guest_hdr(f, port, VIRTIO_VSOCK_OP_RW, len, 0);
	guest_send_raw(f, &h, data, len);
	g->sent += len;
	return len;
}

#define WAIT_FOR(f, cond)                                                                          \
	do {                                                                                       \
		uint64_t limit_ = now_ns() + 60000000000u;                                         \
		while (!(cond)) {                                                                  \
			guest_poll(f, 20);                                                         \
			assert_true(now_ns() < limit_);                                            \
		}                                                                                  \
	} while (0)

static void guest_dial(struct fixture *f, uint32_t port, uint32_t host_port)
{
	f->g[port] = (struct gconn){.seed = port + 1, .host_port = host_port};
	guest_op(f, port, VIRTIO_VSOCK_OP_REQUEST, 0);
}

static void guest_dial_ok(struct fixture *f, uint32_t port, uint32_t host_port)
{
	guest_dial(f, port, host_port);
	WAIT_FOR(f, f->g[port].responses + f->g[port].resets);
	assert_int_equal(f->g[port].responses, 1);
}

/* ---- tests ---- */

static void echo_both_ways_with_half_close(void **state)
{
	struct fixture *f = *state;
	struct gconn *g = &f->g[100];
	uint32_t sent = 0, total = 3 << 20;

	post_rx(f);
	guest_dial_ok(f, 100, ECHO);
	while (sent < total) {
		sent += guest_write(f, 100, total - sent);
		guest_poll(f, guest_credit(g) ? 0 : 20);
	}
	guest_op(f, 100, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_SEND);
	/* The echo sees the end of file, closes, and all that it wrote comes before that. */
	WAIT_FOR(f, g->shut_flags == 3);
	assert_int_equal(g->received, total);
	assert_true(g->hash_in == g->hash_out);
	assert_int_equal(g->resets, 0);
	assert_int_equal(vsock_connections(f->dev), 1);
	guest_op(f, 100, VIRTIO_VSOCK_OP_RST, 0);
	WAIT_FOR(f, vsock_connections(f->dev) == 0);
	assert_int_equal(f->broken, 0);
}

static void credit_is_kept_in_both_directions(void **state)
{
	struct fixture *f = *state;
	struct gconn *g = &f->g[1];
	static uint8_t data[512 << 10], back[512 << 10];
	uint32_t sent = 0, n;
	int fd;

	post_rx(f);
	guest_dial_ok(f, 1, KEEP);
	fd = f->kept;
	/* Nobody reads on the host: socket buffer and credit fill up, then all of it arrives. */
	for (uint64_t quiet = now_ns(); guest_credit(g) || now_ns() - quiet < 200000000;
	     sent += n) {
		n = guest_write(f, 1, TX_SIZE);
		if (n)
			quiet = now_ns();
		guest_poll(f, n ? 0 : 10);
	}
	assert_true(sent >= g->peer_alloc);
	for (uint32_t got = 0; got < sent; got += n)
		n = (uint32_t)read(fd, back, sizeof(back));
	WAIT_FOR(f, guest_credit(g) >= g->peer_alloc / 2);
	/* Nobody reads in the guest: exactly its buffer arrives, and it is asked for more. */
	f->hold_credit = true;
	fcntl(fd, F_SETFL, O_NONBLOCK);
	assert_true(write(fd, data, GUEST_BUF + 5000) == GUEST_BUF + 5000);
	WAIT_FOR(f, g->credit_requests && g->received >= GUEST_BUF);
	while (guest_poll(f, 100))
		;
	assert_int_equal(g->received, GUEST_BUF);
	g->forwarded = g->received;
	guest_op(f, 1, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
	WAIT_FOR(f, g->received == GUEST_BUF + 5000);
	/* More than it was allowed: the connection dies, nothing else. */
	n = guest_credit(g);
	g->peer_alloc += 1 << 20;
	for (sent = 0; sent <= n + (1 << 18); sent += TX_SIZE - 44)
		guest_write(f, 1, TX_SIZE);
	WAIT_FOR(f, g->resets);
	assert_int_equal(f->broken, 0);
	guest_dial_ok(f, 2, ECHO);
}

static void a_closed_socket_delivers_first(void **state)
{
	struct fixture *f = *state;
	struct gconn *g = &f->g[1];
	static uint8_t data[150000];
	int fd;

	post_rx(f);
	guest_dial_ok(f, 1, KEEP);
	fd = atomic_exchange(&f->kept, -1);
	assert_int_equal(write(fd, data, sizeof(data)), sizeof(data));
	close(fd);
	WAIT_FOR(f, g->shut_flags == 3);
	assert_int_equal(g->received, sizeof(data));
	/* The guest confirms with SHUTDOWN of its own and is answered with a RST. */
	guest_op(f, 1, VIRTIO_VSOCK_OP_SHUTDOWN, 3);
	WAIT_FOR(f, g->resets == 1);
	assert_int_equal(vsock_connections(f->dev), 0);
}

static void a_closing_guest_delivers_first(void **state)
{
	struct fixture *f = *state;
	struct gconn *g = &f->g[1];
	static uint8_t back[1 << 20];
	uint32_t sent = 0, n;
	size_t got = 0;
	ssize_t r;

	post_rx(f);
	guest_dial_ok(f, 1, KEEP);
	while ((n = guest_write(f, 1, TX_SIZE)))
		sent += n;
	guest_op(f, 1, VIRTIO_VSOCK_OP_SHUTDOWN, 3);
	/* The guest does not wait, and its driver goes away: the data still arrives. */
	guest_op(f, 1, VIRTIO_VSOCK_OP_RST, 0);
	virtio_device_reset(f->dev);
	while ((r = read(f->kept, back + got, sizeof(back) - got)) > 0)
		got += (size_t)r;
	assert_int_equal(got, sent);
	for (uint64_t limit = now_ns() + 60000000000u; vsock_connections(f->dev);)
		assert_true(now_ns() < limit);
	(void)g;
}

struct connect_result {
	atomic_int calls, result;
};

static void on_connected(struct virtio_device *dev, int result, void *arg)
{
	struct connect_result *c = arg;

	(void)dev;
	atomic_store(&c->result, result);
	atomic_fetch_add(&c->calls, 1);
}

static void the_host_connects(void **state)
{
	struct fixture *f = *state;
	struct connect_result c[4] = {0};
	char data[16] = "";
	int sv[4][2];

	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv[i]), 0);
	/* No receive buffer yet: requests wait. */
	assert_int_equal(vsock_connect(f->dev, 10, sv[0][0], 0, on_connected, &c[0]), 0);
	assert_int_equal(vsock_connect(f->dev, 11, sv[1][0], 0, on_connected, &c[1]), 0);
	assert_int_equal(vsock_connect(f->dev, 12, sv[2][0], 50, on_connected, &c[2]), 0);
	assert_int_equal(vsock_connect(f->dev, 13, sv[3][0], 0, on_connected, &c[3]), 0);
	assert_int_equal(c[0].calls, 0);
	post_rx(f);
	WAIT_FOR(f, f->g[10].requests && f->g[11].requests && f->g[13].requests);
	assert_int_not_equal(f->g[10].host_port, f->g[11].host_port);
	guest_op(f, 10, VIRTIO_VSOCK_OP_RESPONSE, 0);
	guest_op(f, 11, VIRTIO_VSOCK_OP_RST, 0);
	guest_op(f, 13, VIRTIO_VSOCK_OP_RW, 0); /* nonsense in this state */
	WAIT_FOR(f, c[0].calls && c[1].calls && c[2].calls && c[3].calls);
	assert_int_equal(c[0].result, 0);
	assert_int_equal(c[1].result, -ECONNREFUSED);
	assert_int_equal(c[2].result, -ETIMEDOUT);
	assert_int_equal(c[3].result, -ECONNRESET);
	for (unsigned i = 1; i < 4; i++)
		assert_int_equal(read(sv[i][1], data, 1), 0);
	assert_int_equal(write(sv[0][1], "hello", 5), 5);
	WAIT_FOR(f, f->g[10].received == 5);
	assert_int_equal(guest_write(f, 10, 7), 7);
	assert_int_equal(io_read_full(sv[0][1], data, 7), 7);
	for (unsigned i = 0; i < 4; i++)
		close(sv[i][1]);
}

static void a_waiting_connect_survives_a_driver_reset(void **state)
{
	struct fixture *f = *state;
	struct connect_result c = {0};
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	assert_int_equal(vsock_connect(f->dev, 10, sv[0], 0, on_connected, &c), 0);
	post_rx(f);
	WAIT_FOR(f, f->g[10].requests == 1);
	virtio_device_reset(f->dev);
	drvq_done(&f->rx);
	drvq_done(&f->tx);
	drvq_done(&f->ev);
	f->d.next = 4096;
	memset(f->d.mem, 0, DRV_LOW);
	start(f);
	post_rx(f);
	WAIT_FOR(f, f->g[10].requests == 2);
	guest_op(f, 10, VIRTIO_VSOCK_OP_RESPONSE, 0);
	WAIT_FOR(f, c.calls == 1);
	assert_int_equal(c.result, 0);
	close(sv[1]);
	assert_int_equal(c.calls, 1);
}

static void a_thousand_connections(void **state)
{
	struct fixture *f = *state;
	unsigned n = 1000, ended = 0;

	post_rx(f);
	for (unsigned i = 0; i < n; i++)
		guest_dial(f, i, ECHO);
	for (unsigned i = 0; i < n; i++)
		WAIT_FOR(f, f->g[i].responses == 1);
	assert_int_equal(vsock_connections(f->dev), n);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < n; i++)
			assert_int_equal(guest_write(f, i, 1000 + i), 1000 + i);
	}
	for (unsigned i = 0; i < n; i++) {
		WAIT_FOR(f, f->g[i].received == 3 * (1000 + i));
		assert_true(f->g[i].hash_in == f->g[i].hash_out);
		guest_op(f, i, VIRTIO_VSOCK_OP_SHUTDOWN, 3);
	}
	for (unsigned i = 0; i < n; i++)
		WAIT_FOR(f, f->g[i].resets == 1);
	WAIT_FOR(f, vsock_connections(f->dev) == 0);
	/* The table has a limit: the rest is refused, all at once too. */
	for (unsigned i = 0; i < CONNS; i++)
		guest_dial(f, i, KEEP);
	for (unsigned i = 0; i < CONNS; i++) {
		WAIT_FOR(f, f->g[i].responses + f->g[i].resets == 1);
		ended += f->g[i].resets;
	}
	assert_int_equal(ended, CONNS - 1024);
	assert_int_equal(f->broken, 0);
}

static void nonsense_is_reset(void **state)
{
	struct fixture *f = *state;
	static const struct {
		struct virtio_vsock_hdr h;
		bool answered;
	} cases[] = {
		{{5, 2, 50, ECHO, 0, 1, VIRTIO_VSOCK_OP_RW, 0, 0, 0}, true},
		{{5, 2, 50, ECHO, 0, 1, VIRTIO_VSOCK_OP_RESPONSE, 0, 0, 0}, true},
		{{5, 2, 50, ECHO, 0, 1, VIRTIO_VSOCK_OP_SHUTDOWN, 3, 0, 0}, true},
		{{5, 2, 50, ECHO, 0, 1, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, 0, 0}, true},
		{{5, 2, 50, ECHO, 0, 1, VIRTIO_VSOCK_OP_INVALID, 0, 0, 0}, true},
		{{5, 2, 50, ECHO, 0, 1, 77, 0, 0, 0}, true},
		{{5, 2, 50, ECHO, 0, 1, VIRTIO_VSOCK_OP_RST, 0, 0, 0}, false},
		{{5, 2, 50, ECHO, 1000, 1, VIRTIO_VSOCK_OP_REQUEST, 0, 0, 0}, true},
		{{5, 2, 50, REFUSE, 0, 1, VIRTIO_VSOCK_OP_REQUEST, 0, 0, 0}, true},
		{{5, 2, 50, 4444, 0, 1, VIRTIO_VSOCK_OP_REQUEST, 0, 0, 0}, true},
	};
	struct virtio_vsock_hdr seq = {5, 2, 50, ECHO, 0, 2, VIRTIO_VSOCK_OP_REQUEST, 0, 0, 0};
	struct virtio_vsock_hdr cid = {5, 99, 50, ECHO, 0, 1, VIRTIO_VSOCK_OP_REQUEST, 0, 0, 0};
	struct virtio_vsock_hdr liar = {6, 2, 50, ECHO, 0, 1, VIRTIO_VSOCK_OP_REQUEST, 0, 0, 0};
	struct gconn *g = &f->g[50];

	post_rx(f);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		*g = (struct gconn){0};
		guest_send_raw(f, &cases[i].h, NULL, 0);
		if (cases[i].answered)
			WAIT_FOR(f, g->resets == 1);
	}
	guest_send_raw(f, &seq, NULL, 0);
	guest_send_raw(f, &cid, NULL, 0);
	WAIT_FOR(f, f->strays == 2);
	guest_send_raw(f, &liar, NULL, 0);
	/* On an open connection: each kind ends it. */
	for (unsigned kind = 0; kind < 5; kind++) {
		struct virtio_vsock_hdr h;

		guest_dial_ok(f, 50, ECHO);
		h = guest_hdr(f, 50, VIRTIO_VSOCK_OP_RW, 0, 0);
		if (kind == 0)
			h.op = VIRTIO_VSOCK_OP_REQUEST;
		if (kind == 1)
			h.op = VIRTIO_VSOCK_OP_RESPONSE;
		if (kind == 2)
			h.op = 1234;
		if (kind == 3)
			h.len = 1;
		if (kind == 4)
			guest_op(f, 50, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_SEND);
		guest_send_raw(f, &h, NULL, 0);
		WAIT_FOR(f, g->resets == 1 || g->shut_flags == 3);
		guest_op(f, 50, VIRTIO_VSOCK_OP_RST, 0);
		WAIT_FOR(f, vsock_connections(f->dev) == 0);
	}
	assert_int_equal(f->broken, 0);
}

static void a_starved_receive_queue_bounds_us(void **state)
{
	struct fixture *f = *state;
	struct virtio_vsock_hdr h = {5, 2, 50, 4444, 0, 1, VIRTIO_VSOCK_OP_REQUEST, 0, 0, 0};

	/* No receive buffers: after some resets owed, the device stops to take packets. */
	for (unsigned i = 0; i < TX_N * 2; i++)
		guest_send_raw(f, &h, NULL, 0);
	while (f->tx_busy) {
		uint32_t head, len;

		if (drvq_take(&f->tx, &head, &len))
			f->tx_busy--;
		else
			drvq_wait(&f->tx, 1);
	}
	h.src_port = 51;
	for (unsigned i = 0; i < 20; i++)
		guest_send_raw(f, &h, NULL, 0);
	usleep(50000);
	assert_int_equal(drvq_used(&f->tx)->idx, TX_N * 2);
	assert_int_equal(f->broken, 0);
	post_rx(f);
	WAIT_FOR(f, f->g[50].resets == TX_N * 2);
	WAIT_FOR(f, f->g[51].resets == 20);
}

static void rings_broken_by_the_guest(void **state)
{
	struct fixture *f = *state;
	struct drvbuf small = {f->rx_buf, 44, true};

	drvq_add(&f->rx, &small, 1);
	guest_dial(f, 1, ECHO);
	for (unsigned i = 0; i < 60000 && !f->broken; i++)
		usleep(1000);
	assert_int_equal(f->broken, 1);
	assert_true(virtio_device_broken(f->dev));
}

static void pause_keeps_connections(void **state)
{
	struct fixture *f = *state;
	struct gconn *g = &f->g[100];
	uint32_t sent = 0;

	post_rx(f);
	guest_dial_ok(f, 100, ECHO);
	for (unsigned i = 0; i < 200; i++) {
		sent += guest_write(f, 100, 3000);
		if (i % 5 == 0) {
			virtio_device_pause(f->dev);
			assert_int_equal(virtio_device_resume(f->dev), 0);
		}
		guest_poll(f, 0);
	}
	WAIT_FOR(f, g->received == sent);
	assert_true(g->hash_in == g->hash_out);
}

static void listeners_have_rules(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(vsock_listen(f->dev, ECHO, on_accept, f), -EADDRINUSE);
	for (uint32_t p = 100; p < 161; p++)
		assert_int_equal(vsock_listen(f->dev, p, on_accept, f), 0);
	assert_int_equal(vsock_listen(f->dev, 999, on_accept, f), -ENOSPC);
	vsock_unlisten(f->dev, 100);
	assert_int_equal(vsock_listen(f->dev, VSOCK_PORT_ANY, on_accept, f), 0);
	post_rx(f);
	guest_dial_ok(f, 3, 31337);
}

/* Who listens need not know at once. */
static int put_off(struct virtio_device *dev, uint32_t guest_port, uint32_t host_port, void *arg)
{
	(void)dev, (void)guest_port, (void)host_port, (void)arg;
	return -EINPROGRESS;
}

static void answers_may_come_later(void **state)
{
	struct fixture *f = *state;
	char b[4] = "";
	int sv[2];

	assert_int_equal(vsock_listen(f->dev, 50, put_off, f), 0);
	post_rx(f);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	guest_dial(f, 3, 50);
	guest_dial(f, 4, 50);
	guest_dial(f, 5, 50);
	guest_dial(f, 6, 50);
	/* One does not wait, one sends before it may. */
	guest_op(f, 5, VIRTIO_VSOCK_OP_RST, 0);
	guest_op(f, 6, VIRTIO_VSOCK_OP_SHUTDOWN, 3);
	WAIT_FOR(f, f->g[6].resets == 1);
	assert_int_equal(f->g[3].responses + f->g[4].responses + f->g[5].responses, 0);
	vsock_answer(f->dev, 4, 50, -ECONNREFUSED);
	WAIT_FOR(f, f->g[4].resets == 1);
	vsock_answer(f->dev, 5, 50, dup(sv[1]));
	vsock_answer(f->dev, 77, 50, -ECONNREFUSED);
	vsock_answer(f->dev, 3, 50, sv[0]);
	WAIT_FOR(f, f->g[3].responses == 1);
	assert_int_equal(guest_write(f, 3, 3), 3);
	assert_int_equal(recv(sv[1], b, sizeof(b), 0), 3);
	/* An answer too many. */
	vsock_answer(f->dev, 3, 50, -ECONNREFUSED);
	assert_int_equal(f->g[3].resets, 0);
	/* Nobody is left behind when the driver goes. */
	guest_dial(f, 8, 50);
	WAIT_FOR(f, vsock_connections(f->dev) == 2);
	virtio_device_reset(f->dev);
	WAIT_FOR(f, vsock_connections(f->dev) == 0);
	vsock_answer(f->dev, 8, 50, -ECONNREFUSED);
	close(sv[1]);
}

#define WITH(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH(echo_both_ways_with_half_close),
		WITH(credit_is_kept_in_both_directions),
		WITH(a_closed_socket_delivers_first),
		WITH(a_closing_guest_delivers_first),
		WITH(the_host_connects),
		WITH(a_waiting_connect_survives_a_driver_reset),
		WITH(a_thousand_connections),
		WITH(nonsense_is_reset),
		WITH(a_starved_receive_queue_bounds_us),
		WITH(rings_broken_by_the_guest),
		WITH(pause_keeps_connections),
		WITH(listeners_have_rules),
		WITH(answers_may_come_later),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
