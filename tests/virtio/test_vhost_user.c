/* SPDX-License-Identifier: Apache-2.0 */
/* The vhost-user server against a scripted front-end. */
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "driver.h"
#include "virtio/blk.h"
#include "virtio/vhost_user.h"

enum {
	GET_FEATURES = 1,
	SET_FEATURES,
	SET_OWNER,
	RESET_OWNER,
	SET_MEM_TABLE,
	SET_LOG_BASE,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR,
	SET_VRING_BASE,
	GET_VRING_BASE,
	SET_VRING_KICK,
	SET_VRING_CALL,
	SET_VRING_ERR,
	GET_PROTOCOL_FEATURES,
	SET_PROTOCOL_FEATURES,
	GET_QUEUE_NUM,
	SET_VRING_ENABLE,
	SET_BACKEND_REQ_FD = 21,
	GET_CONFIG = 24,
	SET_CONFIG,
};

#define USER_AT	 0x7f0000000000ull /* where the front-end pretends to have guest memory */
#define FEATURES (1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_EVENT_IDX | 1ull << 30)

struct fixture {
	struct drv d;
	struct drvq q;
	struct virtio_device *dev;
	struct worker transport;
	struct vhost_user *vu;
	int disk, fd, server_fd;
	atomic_int ended; /* 1 + the error's code */
	unsigned fds_before;
	bool is_running;
	uint64_t resident;
};

static unsigned open_fds(void)
{
	cleanup_dir DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	return n;
}

static void on_end(struct vhost_user *vu, const struct err *err, void *arg)
{
	struct fixture *f = arg;

	(void)vu;
	atomic_store(&f->ended, 1 + err->code);
}

static void start_on_transport(void *arg)
{
	struct fixture *f = arg;

	if (vhost_user_new(f->dev, f->transport.loop, f->server_fd, on_end, f, &f->vu, NULL) < 0)
		abort();
}

static void stop_on_transport(void *arg)
{
	struct fixture *f = arg;

	f->vu = vhost_user_free(f->vu);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct blk_disk *disk;
	int sv[2];

	drv_init(&f->d);
	drvq_init(&f->q, &f->d, 64);
	f->q.event_idx = true;
	f->disk = io_memfd("disk", NULL, 0, NULL);
	assert_int_equal(ftruncate(f->disk, 1 << 20), 0);
	assert_int_equal(blk_file_new(f->disk, &(struct blk_file_options){0}, &disk, NULL), 0);
	assert_int_equal(blk_device_new(disk, &(struct blk_options){.serial = "x"}, &f->dev, NULL),
			 0);
	assert_int_equal(worker_start(&f->transport, "transport", NULL), 0);
	f->fds_before = open_fds();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	f->fd = sv[0];
	f->server_fd = sv[1];
	loop_call(f->transport.loop, start_on_transport, f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	close_fd(f->fd);
	loop_call(f->transport.loop, stop_on_transport, f);
	/* Whatever happened, no descriptor was left open. */
	assert_int_equal(open_fds(), f->fds_before);
	worker_stop(&f->transport);
	virtio_device_free(f->dev);
	drvq_done(&f->q);
	drv_done(&f->d);
	close(f->disk);
	free(f);
	return 0;
}

static void running_on_transport(void *arg)
{
	struct fixture *f = arg;

	f->is_running = virtio_queue_running(f->dev, 0);
}

/* Transport calls belong to the transport's thread. */
static bool running(struct fixture *f)
{
	loop_call(f->transport.loop, running_on_transport, f);
	return f->is_running;
}

/* ---- the front-end ---- */

static void send_raw(struct fixture *f, const void *p, size_t n, const int *fds, unsigned nfds)
{
	char control[CMSG_SPACE(16 * sizeof(int))] = {0};
	struct iovec iov = {(void *)(uintptr_t)p, n};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	if (nfds) {
		struct cmsghdr *c = (struct cmsghdr *)control;

		m.msg_control = control;
		m.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	}
	(void)!sendmsg(f->fd, &m, MSG_NOSIGNAL);
}

static void send_msg(struct fixture *f, uint32_t request, uint32_t flags, const void *p, uint32_t n,
		     const int *fds, unsigned nfds)
{
	uint32_t buf[256] = {request, flags, n};

	if (n)
		memcpy(buf + 3, p, n);
	send_raw(f, buf, 12 + n, fds, nfds);
}

/* The answer's payload size, or -1 when the server hung up instead. */
static int answer(struct fixture *f, uint32_t request, void *p, size_t max)
{
	uint32_t h[3];

	if (io_read_full(f->fd, h, sizeof(h)) != sizeof(h))
		return -1;
	assert_int_equal(h[0], request);
	assert_int_equal(h[1], 5);
	assert_true(h[2] <= max);
	assert_int_equal(io_read_full(f->fd, p, h[2]), h[2]);
	return (int)h[2];
}

/* Send and ask for an acknowledgement: 0 or 1, or -1 when the server hung up. */
static int ask(struct fixture *f, uint32_t request, const void *p, uint32_t n, const int *fds,
	       unsigned nfds)
{
	uint64_t r;

	send_msg(f, request, 1 | 1 << 3, p, n, fds, nfds);
	return answer(f, request, &r, sizeof(r)) == 8 ? (int)r : -1;
}

static int ask_u64(struct fixture *f, uint32_t request, uint64_t v)
{
	return ask(f, request, &v, sizeof(v), NULL, 0);
}

static int ask_state(struct fixture *f, uint32_t request, uint32_t index, uint32_t num)
{
	uint32_t s[2] = {index, num};

	return ask(f, request, s, sizeof(s), NULL, 0);
}

static int ask_fd(struct fixture *f, uint32_t request, uint64_t index, int fd)
{
	return ask(f, request, &index, sizeof(index), &fd, fd >= 0);
}

struct table {
	uint32_t n, pad;
	uint64_t r[9][4]; /* gpa, size, user, offset */
};

static struct table good_table(void)
{
	return (struct table){2,
			      0,
			      {{0, DRV_LOW, USER_AT, 0},
			       {DRV_HIGH_AT, DRV_HIGH, USER_AT + (1ull << 33), DRV_LOW}}};
}

static int ask_table(struct fixture *f, const struct table *t, unsigned nfds)
{
	int fds[9];

	for (unsigned i = 0; i < 9; i++)
		fds[i] = f->d.memfd;
	return ask(f, SET_MEM_TABLE, t, 8 + MIN(t->n, 8u) * 32, fds, nfds);
}

static int ask_addr(struct fixture *f, uint32_t index, uint32_t flags, uint64_t desc, uint64_t used,
		    uint64_t avail)
{
	struct {
		uint32_t index, flags;
		uint64_t a[4];
	} m = {index, flags, {desc, used, avail, 0}};

	return ask(f, SET_VRING_ADDR, &m, sizeof(m), NULL, 0);
}

static int good_addr(struct fixture *f)
{
	return ask_addr(f, 0, 0, USER_AT + f->q.s.desc, USER_AT + f->q.s.used,
			USER_AT + f->q.s.avail);
}

/* The set-up as QEMU does it; stops after @steps of them. */
enum { STEPS = 10 };

static void negotiate(struct fixture *f, unsigned steps)
{
	struct table t = good_table();
	uint64_t v = 0;

	for (unsigned i = 0; i < steps; i++) {
		switch (i) {
		case 0:
			send_msg(f, GET_FEATURES, 1, NULL, 0, NULL, 0);
			assert_int_equal(answer(f, GET_FEATURES, &v, 8), 8);
			assert_int_equal(v & FEATURES, FEATURES);
			send_msg(f, GET_PROTOCOL_FEATURES, 1, NULL, 0, NULL, 0);
			assert_int_equal(answer(f, GET_PROTOCOL_FEATURES, &v, 8), 8);
			send_msg(f, SET_PROTOCOL_FEATURES, 1, &v, 8, NULL, 0);
			break;
		case 1:
			assert_int_equal(ask(f, SET_OWNER, NULL, 0, NULL, 0), 0);
			break;
		case 2:
			assert_int_equal(ask_u64(f, SET_FEATURES, FEATURES), 0);
			break;
		case 3:
			assert_int_equal(ask_table(f, &t, 2), 0);
			break;
		case 4:
			assert_int_equal(ask_state(f, SET_VRING_NUM, 0, 64), 0);
			break;
		case 5:
			assert_int_equal(ask_state(f, SET_VRING_BASE, 0, 0), 0);
			break;
		case 6:
			assert_int_equal(good_addr(f), 0);
			break;
		case 7:
			assert_int_equal(ask_fd(f, SET_VRING_KICK, 0, f->q.kick), 0);
			break;
		case 8:
			assert_int_equal(ask_fd(f, SET_VRING_CALL, 0, f->q.call), 0);
			break;
		case 9:
			assert_int_equal(ask_state(f, SET_VRING_ENABLE, 0, 1), 0);
		}
	}
}

static int64_t read_sector(struct fixture *f)
{
	struct drvbuf b[3] = {{0x100000, 16, false}, {DRV_HIGH_AT, 512, true}, {0x110000, 1, true}};

	*(struct virtio_blk_outhdr *)drv_at(&f->d, 0x100000) = (struct virtio_blk_outhdr){0};
	drvq_add(&f->q, b, 3);
	return drvq_finish(&f->q);
}

static void resident_on_transport(void *arg)
{
	struct fixture *f = arg;

	f->resident = vhost_user_resident(f->vu);
}

static uint64_t resident(struct fixture *f)
{
	loop_call(f->transport.loop, resident_on_transport, f);
	return f->resident;
}

/* Two regions of one file are one file; what is behind the guest's memory comes and goes with it.
 */
static void memory_that_is_there_is_counted_once(void **state)
{
	struct fixture *f = *state;
	uint64_t before;

	assert_int_equal(resident(f), 0);
	negotiate(f, 4);
	before = resident(f);
	assert_true(before < DRV_LOW / 2);
	memset(drv_at(&f->d, DRV_HIGH_AT), 1, DRV_HIGH);
	assert_int_equal(resident(f), before + DRV_HIGH);
	assert_int_equal(madvise(drv_at(&f->d, DRV_HIGH_AT), DRV_HIGH, MADV_REMOVE), 0);
	assert_int_equal(resident(f), before);
}

static void requests_flow_and_memory_can_change(void **state)
{
	struct fixture *f = *state;
	struct table t = good_table();
	uint32_t s[2] = {0, 0};
	uint64_t n = 0;

	negotiate(f, STEPS);
	assert_int_equal(read_sector(f), 513);
	/* A new table while the ring runs: it stops, moves and goes on. */
	t.r[0][2] += 1 << 30;
	assert_int_equal(ask_table(f, &t, 2), 1); /* old addresses are no longer there */
	t.r[0][2] = USER_AT;
	assert_int_equal(ask_table(f, &t, 2), 0);
	assert_int_equal(read_sector(f), 513);
	send_msg(f, GET_VRING_BASE, 1, s, 8, NULL, 0);
	assert_int_equal(answer(f, GET_VRING_BASE, s, 8), 8);
	assert_int_equal(s[1], 2);
	assert_false(running(f));
	assert_int_equal(ask_state(f, SET_VRING_BASE, 0, 2), 0);
	assert_int_equal(ask_fd(f, SET_VRING_KICK, 0, f->q.kick), 0);
	assert_int_equal(read_sector(f), 513);
	assert_int_equal(ask_state(f, SET_VRING_ENABLE, 0, 0), 0);
	assert_int_equal(ask_state(f, SET_VRING_ENABLE, 0, 1), 0);
	assert_int_equal(read_sector(f), 513);
	send_msg(f, GET_QUEUE_NUM, 1, NULL, 0, NULL, 0);
	assert_int_equal(answer(f, GET_QUEUE_NUM, &n, 8), 8);
	assert_int_equal(n, 1);
	assert_int_equal(ask(f, RESET_OWNER, NULL, 0, NULL, 0), 0);
	assert_int_equal(f->ended, 0);
}

static void configuration_is_read_within_bounds(void **state)
{
	struct fixture *f = *state;
	struct {
		uint32_t off, size, flags;
		uint8_t d[300];
	} c = {0, 60, 0, {0}};
	uint64_t capacity;

	negotiate(f, 1);
	send_msg(f, GET_CONFIG, 1, &c, 72, NULL, 0);
	assert_int_equal(answer(f, GET_CONFIG, &c, sizeof(c)), 72);
	memcpy(&capacity, c.d, sizeof(capacity));
	assert_int_equal(capacity, (1 << 20) / 512);
	c.off = 250;
	c.size = 10;
	send_msg(f, GET_CONFIG, 1, &c, 22, NULL, 0);
	assert_int_equal(answer(f, GET_CONFIG, &c, sizeof(c)), 0);
	c.off = 0;
	c.size = 200;
	send_msg(f, GET_CONFIG, 1, &c, 22, NULL, 0);
	assert_int_equal(answer(f, GET_CONFIG, &c, sizeof(c)), 0);
	c.size = 8;
	assert_int_equal(ask(f, SET_CONFIG, &c, 20, NULL, 0), 1);
}

/* A request of the back-end's, or nothing within @ms. */
static bool backend_asked(int fd, int ms, uint32_t h[3])
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, ms) == 1 && read(fd, h, 12) == 12;
}

static void changes_of_the_configuration_are_told(void **state)
{
	struct fixture *f = *state;
	const uint64_t config = 1 << 9, backend_req = 1 << 5, ack = 1 << 3;
	uint32_t h[3];
	int sv[2];

	negotiate(f, 1);
	assert_int_equal(ask(f, SET_BACKEND_REQ_FD, NULL, 0, NULL, 0), 1);
	/* Without the feature the connection stays silent. */
	for (unsigned i = 0; i < 2; i++) {
		const uint32_t sectors = 1000 + i;

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
		assert_int_equal(ask_u64(f, SET_PROTOCOL_FEATURES,
					 i ? config | backend_req | ack : config | ack),
				 0);
		assert_int_equal(ask(f, SET_BACKEND_REQ_FD, NULL, 0, &sv[1], 1), 0);
		close(sv[1]);
		virtio_config_update(f->dev, 0, &sectors, sizeof(sectors));
		assert_int_equal(backend_asked(sv[0], i ? 60000 : 0, h), i);
		if (i) {
			const uint32_t expected[3] = {2, 1, 0}; /* BACKEND_CONFIG_CHANGE_MSG */

			assert_memory_equal(h, expected, sizeof(h));
			break;
		}
		close(sv[0]);
	}
	/* One that nobody reads, and one that has gone, hold nobody up. */
	for (uint32_t i = 0; i < 200000; i++)
		virtio_config_update(f->dev, 0, &i, sizeof(i));
	close(sv[0]);
	virtio_config_update(f->dev, 0, "gone", 4);
	send_msg(f, GET_QUEUE_NUM, 1, NULL, 0, NULL, 0);
	assert_int_equal(answer(f, GET_QUEUE_NUM, (uint64_t[]){0}, 8), 8);
	assert_int_equal(f->ended, 0);
}

static void wrong_messages_are_refused(void **state)
{
	struct fixture *f = *state;
	struct table t;
	int fds[9], pipefd[2];

	for (unsigned i = 0; i < 9; i++)
		fds[i] = f->d.memfd;
	negotiate(f, 3);
	assert_int_equal(ask_u64(f, SET_FEATURES, 1ull << 55), 1);
	assert_int_equal(ask_u64(f, SET_PROTOCOL_FEATURES, 1ull << 55), 1);
	/* before SET_MEM_TABLE */
	assert_int_equal(good_addr(f), 1);
	/* sizes and descriptor counts */
	assert_int_equal(ask(f, SET_FEATURES, "1234567", 7, NULL, 0), 1);
	assert_int_equal(ask(f, SET_VRING_ADDR, "12345678", 8, NULL, 0), 1);
	assert_int_equal(ask(f, SET_OWNER, "12345678", 8, NULL, 0), 1);
	assert_int_equal(ask(f, SET_OWNER, NULL, 0, fds, 3), 1);
	t = good_table();
	assert_int_equal(ask_table(f, &t, 0), 1);
	assert_int_equal(ask_table(f, &t, 1), 1);
	assert_int_equal(ask_table(f, &t, 3), 1);
	assert_int_equal(ask(f, SET_MEM_TABLE, &t, 8, fds, 2), 1);
	t.n = 1000;
	assert_int_equal(ask_table(f, &t, 2), 1);
	/* regions */
	for (unsigned i = 0; i < 12; i++) {
		t = good_table();
		if (i == 0)
			t.r[0][1] = DRV_LOW + DRV_HIGH + 1;
		if (i == 1)
			t.r[0][3] = DRV_LOW + DRV_HIGH;
		if (i == 2)
			t.r[0][3] = UINT64_MAX - 4095;
		if (i == 3)
			t.r[1][0] = 4096; /* overlap */
		if (i == 4)
			t.r[0][0] = UINT64_MAX - 4095;
		if (i == 5)
			t.r[0][2] = UINT64_MAX - 4095;
		if (i == 6)
			t.r[0][1] = 0;
		if (i == 7)
			t.r[0][3] = 1;
		if (i == 8)
			t.r[1][2] = USER_AT + 4096; /* overlap for the front-end */
		if (i == 9)
			t.r[1][0] = UINT64_MAX;
		if (i == 10)
			t.r[0][1] = UINT64_MAX;
		if (i == 11)
			t.r[0][3] = (uint64_t)INT64_MAX - 4095;
		assert_int_equal(ask_table(f, &t, 2), 1);
	}
	t = good_table();
	t.n = 1;
	assert_int_equal(pipe(pipefd), 0);
	assert_int_equal(ask(f, SET_MEM_TABLE, &t, 40, pipefd, 1), 1);
	close(pipefd[0]);
	close(pipefd[1]);
	t = good_table();
	assert_int_equal(ask_table(f, &t, 2), 0);
	/* indices and numbers */
	assert_int_equal(ask_state(f, SET_VRING_NUM, 1, 64), 1);
	assert_int_equal(ask_state(f, SET_VRING_NUM, UINT32_MAX, 64), 1);
	assert_int_equal(ask_state(f, SET_VRING_NUM, 0, 0), 1);
	assert_int_equal(ask_state(f, SET_VRING_NUM, 0, 63), 1);
	assert_int_equal(ask_state(f, SET_VRING_NUM, 0, 65536 + 64), 1);
	assert_int_equal(ask_state(f, SET_VRING_BASE, 0, 65536), 1);
	assert_int_equal(ask_state(f, SET_VRING_BASE, 9, 0), 1);
	assert_int_equal(ask_state(f, GET_VRING_BASE, 9, 0), 1);
	assert_int_equal(ask_state(f, SET_VRING_ENABLE, 9, 1), 1);
	assert_int_equal(ask_state(f, SET_VRING_ENABLE, 0, 2), 1);
	assert_int_equal(ask_fd(f, SET_VRING_KICK, 5, f->q.kick), 1);
	assert_int_equal(ask_fd(f, SET_VRING_KICK, 0, -1), 1);
	assert_int_equal(ask_fd(f, SET_VRING_KICK, 1 << 8, -1), 1);
	assert_int_equal(ask_fd(f, SET_VRING_CALL, 1 << 8, f->q.call), 1);
	assert_int_equal(ask_fd(f, SET_VRING_CALL, 1 << 8, -1), 0);
	assert_int_equal(ask_fd(f, SET_VRING_ERR, 1 << 9, f->q.call), 1);
	assert_int_equal(ask_fd(f, SET_VRING_ERR, 0, f->q.call), 0);
	/* addresses */
	assert_int_equal(ask_addr(f, 0, 1, USER_AT, USER_AT, USER_AT), 1);
	assert_int_equal(ask_addr(f, 3, 0, USER_AT, USER_AT, USER_AT), 1);
	assert_int_equal(ask_addr(f, 0, 0, 4096, USER_AT, USER_AT), 1);
	assert_int_equal(ask_addr(f, 0, 0, USER_AT, USER_AT + DRV_LOW, USER_AT), 1);
	/* what we do not know */
	assert_int_equal(ask_u64(f, SET_LOG_BASE, 0), 1);
	assert_int_equal(ask_u64(f, 999, 0), 1);
	/* and after all that the device still works */
	assert_int_equal(ask_state(f, SET_VRING_NUM, 0, 64), 0);
	assert_int_equal(good_addr(f), 0);
	assert_int_equal(ask_fd(f, SET_VRING_KICK, 0, f->q.kick), 0);
	assert_int_equal(ask_fd(f, SET_VRING_CALL, 0, f->q.call), 0);
	assert_int_equal(ask_state(f, SET_VRING_ENABLE, 0, 1), 0);
	assert_int_equal(read_sector(f), 513);
	assert_int_equal(ask_state(f, SET_VRING_NUM, 0, 32), 1);
}

/* A ring at the very end of memory, or misaligned: accepted as an address, refused as a ring. */
static void rings_outside_memory_do_not_run(void **state)
{
	struct fixture *f = *state;

	negotiate(f, 6);
	assert_int_equal(
		ask_addr(f, 0, 0, USER_AT + DRV_LOW - 16, USER_AT + 0x2000, USER_AT + 0x3000), 0);
	assert_int_equal(ask_fd(f, SET_VRING_KICK, 0, f->q.kick), 0);
	assert_int_equal(ask_state(f, SET_VRING_ENABLE, 0, 1), 1);
	assert_int_equal(ask_addr(f, 0, 0, USER_AT + 0x1001, USER_AT + 0x2000, USER_AT + 0x3000),
			 1);
	assert_false(running(f));
	assert_int_equal(good_addr(f), 0);
	assert_true(running(f));
}

/* A descriptor on which a device's thread could be made to wait, or that says nothing. */
static void only_eventfds_signal(void **state)
{
	static const uint32_t requests[] = {SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR};
	struct fixture *f = *state;
	int p[2], s[2], full = eventfd(0, EFD_CLOEXEC);

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s), 0);
	negotiate(f, STEPS);
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		assert_int_equal(ask_fd(f, requests[i], 0, p[1]), 1);
		assert_int_equal(ask_fd(f, requests[i], 0, s[0]), 1);
		assert_int_equal(ask_fd(f, requests[i], 0, f->d.memfd), 1);
	}
	/* One whose counter is full, which would be a wait. */
	assert_int_equal(write(full, &(uint64_t){UINT64_MAX - 1}, 8), 8);
	assert_int_equal(ask_fd(f, SET_VRING_CALL, 0, full), 0);
	assert_int_equal(ask_fd(f, SET_VRING_ERR, 0, full), 0);
	drvq_publish(&f->q, 999);
	drvq_kick(&f->q);
	for (unsigned i = 0; i < 60000 && !virtio_device_broken(f->dev); i++)
		usleep(1000);
	assert_true(virtio_device_broken(f->dev));
	assert_int_equal(ask_u64(f, SET_FEATURES, FEATURES), 0);
	close_fd(p[0]);
	close_fd(p[1]);
	close_fd(s[0]);
	close_fd(s[1]);
	close_fd(full);
}

static void expect_end(struct fixture *f, bool clean)
{
	char c;

	assert_true(read(f->fd, &c, 1) <= 0);
	for (unsigned i = 0; i < 60000 && !atomic_load(&f->ended); i++)
		usleep(1000);
	if (clean)
		assert_int_equal(f->ended, 1);
	else
		assert_true(f->ended > 1);
	assert_false(running(f));
}

static void garbage_ends_the_connection(void **state)
{
	static const struct {
		uint32_t h[3];
		unsigned extra, fds;
	} bad[] = {
		{{GET_FEATURES, 1, 4096}, 0, 0},
		{{GET_FEATURES, 1, UINT32_MAX}, 0, 0},
		{{GET_FEATURES, 0, 0}, 0, 0},
		{{GET_FEATURES, 5, 0}, 0, 0},
		{{SET_FEATURES, 1, 0}, 0, 0},
		{{77, 1, 0}, 0, 0},
		{{SET_OWNER, 1, 0}, 0, 12},
		{{SET_VRING_KICK, 1, 8}, 8, 2},
		{{0, 1, 0}, 0, 0},
		{{SET_VRING_NUM, 1, 8}, 8, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint8_t m[64] = {0};
		struct fixture *f;
		int fds[12];

		setup((void **)&f);
		for (unsigned k = 0; k < 12; k++)
			fds[k] = f->disk;
		memcpy(m, bad[i].h, 12);
		send_raw(f, m, 12 + bad[i].extra, fds, bad[i].fds);
		expect_end(f, false);
		teardown((void **)&f);
	}
}

static void disconnects_at_every_stage_are_clean(void **state)
{
	(void)state;
	for (unsigned steps = 0; steps <= STEPS; steps++) {
		struct fixture *f;

		setup((void **)&f);
		negotiate(f, steps);
		if (steps == STEPS)
			assert_int_equal(read_sector(f), 513);
		/* In flight while the front-end goes. */
		if (steps == STEPS)
			drvq_kick(&f->q);
		shutdown(f->fd, SHUT_WR);
		expect_end(f, true);
		teardown((void **)&f);
	}
}

static void messages_may_come_in_pieces(void **state)
{
	struct fixture *f = *state;
	uint32_t m[5] = {SET_PROTOCOL_FEATURES, 1, 8, 1 << 3 | 1, 0};
	uint64_t v;

	for (unsigned i = 0; i < sizeof(m); i++) {
		send_raw(f, (uint8_t *)m + i, 1, NULL, 0);
		usleep(500);
	}
	send_msg(f, GET_FEATURES, 1, NULL, 0, NULL, 0);
	assert_int_equal(answer(f, GET_FEATURES, &v, 8), 8);
	/* Half a message, then the end: an error, not a clean end. */
	send_raw(f, m, 7, NULL, 0);
	shutdown(f->fd, SHUT_WR);
	expect_end(f, false);
}

static void a_broken_ring_is_not_served_until_features_are_set_again(void **state)
{
	struct fixture *f = *state;

	negotiate(f, STEPS);
	drvq_publish(&f->q, 999);
	drvq_kick(&f->q);
	for (unsigned i = 0; i < 60000 && !virtio_device_broken(f->dev); i++)
		usleep(1000);
	assert_true(virtio_device_broken(f->dev));
	assert_int_equal(f->ended, 0);
	send_msg(f, GET_VRING_BASE, 1, (uint32_t[2]){0, 0}, 8, NULL, 0);
	assert_int_equal(answer(f, GET_VRING_BASE, (uint32_t[2]){0}, 8), 8);
	memset(f->d.mem, 0, 0x10000);
	f->q.avail_idx = f->q.used_seen = 0;
	assert_int_equal(ask_u64(f, SET_FEATURES, FEATURES), 0);
	assert_int_equal(ask_state(f, SET_VRING_BASE, 0, 0), 0);
	assert_int_equal(ask_fd(f, SET_VRING_KICK, 0, f->q.kick), 0);
	assert_int_equal(read_sector(f), 513);
}

#define WITH(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH(memory_that_is_there_is_counted_once),
		WITH(requests_flow_and_memory_can_change),
		WITH(configuration_is_read_within_bounds),
		WITH(changes_of_the_configuration_are_told),
		WITH(wrong_messages_are_refused),
		WITH(rings_outside_memory_do_not_run),
		WITH(only_eventfds_signal),
		cmocka_unit_test(garbage_ends_the_connection),
		cmocka_unit_test(disconnects_at_every_stage_are_clean),
		WITH(messages_may_come_in_pieces),
		WITH(a_broken_ring_is_not_served_until_features_are_set_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
