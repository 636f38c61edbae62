/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages to a vhost-user server. Each starts with four bytes (request, flags, payload length,
 * descriptors) and the payload; a flag bit lets real addresses be put into it, so that a ring can
 * come to run. Request 31 is none: then the guest makes a chain available and kicks.
 */
#include <sys/socket.h>

#include "base/cleanup.h"
#include "fuzz_driver.h"
#include "virtio/blk.h"
#include "virtio/vhost_user.h"

#define USER_AT 0x7f0000000000ull

struct msg {
	uint32_t request, flags, size;
	union {
		uint8_t bytes[512];
		uint32_t u32[128];
		uint64_t u64[64];
	} __attribute__((packed));
} __attribute__((packed)); /* the header is 12 bytes, without a gap */

_Static_assert(offsetof(struct msg, bytes) == 12, "vhost-user header");

/* A payload that is right for the request. */
static void make_right(struct msg *m, struct drvq *q)
{
	uint64_t addr[4] = {USER_AT + q->s.desc, USER_AT + q->s.used, USER_AT + q->s.avail, 0};
	uint64_t region[4] = {0, DRV_LOW, USER_AT, 0};

	memset(m->bytes, 0, 48);
	m->size = 8;
	switch (m->request) {
	case 2:
		m->u64[0] = 1ull << VIRTIO_F_VERSION_1 | 1ull << 30;
		break;
	case 5:
		m->u32[0] = 1;
		memcpy(m->bytes + 8, region, sizeof(region));
		m->size = 40;
		break;
	case 8:
		m->u32[1] = 64;
		break;
	case 9:
		memcpy(m->bytes + 8, addr, sizeof(addr));
		m->size = 40;
		break;
	case 16:
		m->u64[0] = 1 << 3;
		break;
	case 18:
		m->u32[1] = 1;
		break;
	case 24:
		m->u32[1] = 60;
		m->size = 72;
		break;
	case 1:
	case 3:
	case 4:
	case 15:
	case 17:
		m->size = 0;
	}
}

/* A read of two sectors, in which the input may change any descriptor. */
static void act_as_guest(struct drvq *q, const uint8_t *p, size_t n)
{
	const struct drvbuf b[] = {
		{0x100000, 16, false}, {0x110000, 1024, true}, {0x120000, 1, true}};
	uint16_t head = drvq_add(q, b, 3);

	if (n > 1)
		memcpy((uint8_t *)drvq_desc(q, 0) + p[0] * 4u, p + 1, MIN(n - 1, (size_t)16));
	if (n == 1)
		drvq_publish(q, (uint16_t)(head + p[0]));
	drvq_kick(q);
}

static void send_msg(int sock, const struct msg *m, const int *fds, unsigned n)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(16 * sizeof(int))];
	} control = {0};
	struct iovec iov = {(void *)(uintptr_t)m, 12 + (m->size & 511)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (n) {
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
		control.h = (struct cmsghdr){CMSG_LEN(n * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
		memcpy(CMSG_DATA(&control.h), fds, n * sizeof(int));
	}
	(void)sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cur c = cur_make(data, size);
	struct loop *loop;
	struct vhost_user *vu;
	struct virtio_device *dev;
	struct blk_disk *disk;
	struct drv d;
	struct drvq q;
	int sv[2], fds[16];

	drv_init(&d);
	drvq_init(&q, &d, 64);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv) < 0 || loop_new(&loop, NULL) < 0 ||
	    blk_extents_new(NULL, 0, 4096, &disk, NULL) < 0 ||
	    blk_device_new(disk, &(struct blk_options){.queues = 2}, &dev, NULL) < 0 ||
	    vhost_user_new(dev, loop, sv[1], NULL, NULL, &vu, NULL) < 0)
		abort();
	for (unsigned i = 0; i < 40 && cur_left(&c); i++) {
		uint8_t request = cur_u8(&c), flags = cur_u8(&c), len = cur_u8(&c),
			nfds = cur_u8(&c) & 15;
		char answers[4096];
		struct msg m = {.request = request & 31, .size = len};
		const uint8_t *p;

		m.flags = flags & 1 ? flags >> 4 : 1 | (flags & 8);
		p = cur_bytes(&c, MIN((size_t)len, cur_left(&c)));
		if (p && len)
			memcpy(m.bytes, p, MIN((size_t)len, (size_t)(c.p - p)));
		if (m.request == 31) {
			act_as_guest(&q, p, p ? (size_t)(c.p - p) : 0);
			fuzz_settle(dev);
			continue;
		}
		if (flags & 2)
			make_right(&m, &q);
		for (unsigned k = 0; k < 16; k++)
			fds[k] = m.request == 5 || flags & 4 ? d.memfd : k & 1 ? q.call : q.kick;
		send_msg(sv[0], &m, fds,
			 flags & 2 ? m.request == 5 || (m.request >= 12 && m.request <= 14) : nfds);
		(void)loop_turn(loop, 0);
		(void)!recv(sv[0], answers, sizeof(answers), MSG_DONTWAIT);
		if (i % 8 == 7)
			drvq_kick(&q);
	}
	fuzz_settle(dev);
	vhost_user_free(vu);
	virtio_device_free(dev);
	loop_free(loop);
	close(sv[0]);
	drvq_done(&q);
	drv_done(&d);
	return 0;
}
