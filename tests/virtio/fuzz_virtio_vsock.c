/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets from the guest and doings of the host, eight bytes each: whatever the order, the device
 * must neither crash nor count its connections wrong.
 */
#include <linux/virtio_vsock.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "fuzz_driver.h"
#include "virtio/vsock.h"

enum { FDS = 16, RX_SIZE = 1024 };

static int host_end[FDS];
static unsigned nfds;

static int on_accept(struct virtio_device *dev, uint32_t guest_port, uint32_t host_port, void *arg)
{
	int sv[2];

	(void)dev;
	(void)guest_port;
	(void)arg;
	if (host_port == 3 || nfds == FDS || socketpair(AF_UNIX, SOCK_STREAM, 0, sv) < 0)
		return -ECONNREFUSED;
	host_end[nfds++] = sv[1];
	return sv[0];
}

struct act {
	struct virtio_device *dev;
	struct cur *c;
	uint8_t what;
};

/* On the worker, because on_accept() runs there and shares host_end[]. */
static void act_on_worker(void *arg)
{
	static uint8_t bytes[65536];
	const struct act *a = arg;
	int sv[2], fd = nfds ? host_end[cur_u8(a->c) % nfds] : -1;

	switch (a->what & 7) {
	case 0:
		if (nfds == FDS || socketpair(AF_UNIX, SOCK_STREAM, 0, sv) < 0)
			break;
		host_end[nfds++] = sv[1];
		if (vsock_connect(a->dev, a->what >> 6, sv[0], a->what & 8 ? 1 : 0, NULL, NULL) < 0)
			close(sv[0]);
		break;
	case 1:
	case 2:
		(void)send(fd, bytes, fuzz_length(a->c) & 0xffff, MSG_DONTWAIT | MSG_NOSIGNAL);
		break;
	case 3:
		(void)shutdown(fd, a->what >> 6 & 1 ? SHUT_WR : SHUT_RD);
		break;
	case 4:
		(void)!recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
		break;
	case 5:
		if (nfds)
			close(host_end[--nfds]);
		break;
	default:
		(void)vsock_connections(a->dev);
	}
}

static void host_act(struct virtio_device *dev, struct cur *c)
{
	struct act a = {dev, c, cur_u8(c)};

	if ((a.what & 7) == 6) {
		virtio_device_pause(dev);
		(void)virtio_device_resume(dev);
	} else {
		loop_call(virtio_queue_loop(dev, 0), act_on_worker, &a);
	}
}

static void guest_packet(struct drvq *tx, uint64_t at, struct cur *c)
{
	uint8_t op = cur_u8(c), ports = cur_u8(c), odd = cur_u8(c);
	struct virtio_vsock_hdr h = {
		.src_cid = odd & 1 ? 9 : 3,
		.dst_cid = odd & 2 ? 9 : 2,
		.src_port = ports & 3,
		.dst_port = ports & 128 ? (1u << 30) + (ports >> 2 & 3) : (ports >> 2 & 3),
		.len = fuzz_length(c),
		.type = odd & 4 ? 2 : 1,
		.op = op & 15,
		.flags = op >> 4,
		.buf_alloc = fuzz_length(c),
		.fwd_cnt = odd & 8 ? fuzz_length(c) : 0,
	};
	uint32_t real = odd & 16 ? fuzz_length(c) & 0xffff : (h.len & 0xffff);
	struct drvbuf b[2] = {{at, 44, false}, {0x400000, real, false}};

	/* Half the time the simplest that can be right. */
	if (odd & 32) {
		h.src_cid = 3;
		h.dst_cid = 2;
		h.type = 1;
		h.len = real;
		h.buf_alloc = 65536;
	}
	memcpy(drv_at(tx->d, at), &h, sizeof(h));
	drvq_add(tx, b, 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cur c = cur_make(data, size);
	struct virtio_device *dev;
	struct drv d;
	struct drvq q[3];
	uint32_t head, len;
	uint8_t flags = cur_u8(&c);
	uint64_t features =
		1ull << VIRTIO_F_VERSION_1 | (flags & 1 ? 1ull << VIRTIO_RING_F_EVENT_IDX : 0);

	if (vsock_device_new(&(struct vsock_options){.buffer_size = 8192, .max_connections = 12},
			     &dev, NULL) < 0)
		abort();
	drv_init(&d);
	nfds = 0;
	if (vsock_listen(dev, 1, on_accept, NULL) || vsock_listen(dev, 3, on_accept, NULL) ||
	    virtio_device_activate(dev, features, &d.map))
		abort();
	for (unsigned i = 0; i < 3; i++) {
		drvq_init(&q[i], &d, 32);
		if (virtio_queue_start(dev, i, &q[i].s, q[i].kick, q[i].call))
			abort();
	}
	for (unsigned i = 0; i < 16 && !(flags & 2); i++) {
		struct drvbuf b = {0x300000 + i * RX_SIZE, RX_SIZE - i * 32, true};

		drvq_add(&q[0], &b, 1);
	}
	for (unsigned i = 0; i < 200 && cur_left(&c); i++) {
		if (cur_u8(&c) & 1)
			host_act(dev, &c);
		else
			guest_packet(&q[1], 0x200000 + i % 16 * 64, &c);
		if (i % 12 == 11) {
			drvq_kick(&q[1]);
			fuzz_settle(dev);
		}
		while (!(flags & 4) && drvq_take(&q[0], &head, &len)) {
			drvq_publish(&q[0], (uint16_t)(head % 32));
			drvq_kick(&q[0]);
		}
	}
	drvq_kick(&q[1]);
	fuzz_settle(dev);
	/* No queue runs from here on, so no one is accepted any more. */
	virtio_device_reset(dev);
	while (nfds)
		close(host_end[--nfds]);
	if (vsock_connections(dev) > 12)
		abort();
	virtio_device_free(dev);
	for (unsigned i = 0; i < 3; i++)
		drvq_done(&q[i]);
	drv_done(&d);
	return 0;
}
