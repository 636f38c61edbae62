/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages are read one at a time: the 12-byte header, then exactly the payload it announces, with
 * whatever descriptors came along. A table says for each request how long its payload may be and
 * how many descriptors it takes; nothing else reaches a handler.
 *
 * A handler that fails is reported to the front-end if it asked for an acknowledgement, and ends
 * the connection if it did not: the two would disagree about the device from then on.
 *
 * A ring runs when it has memory, addresses, a kick descriptor and is enabled. Whatever changes one
 * of these while it runs stops it first, and check_ring() starts it again if all are there.
 */
#include "virtio/vhost_user.h"

#include <endian.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"

enum {
	REGIONS_MAX = 8, /* VHOST_MEMORY_BASELINE_NREGIONS */
	CONFIG_MAX = 256,
	VERSION = 1,
	FLAG_VERSION_MASK = 3,
	FLAG_REPLY = 1 << 2,
	FLAG_NEED_REPLY = 1 << 3,
	F_PROTOCOL_FEATURES = 30,
	PROTOCOL_F_MQ = 0,
	PROTOCOL_F_REPLY_ACK = 3,
	PROTOCOL_F_BACKEND_REQ = 5,
	PROTOCOL_F_CONFIG = 9,
	VRING_F_LOG = 1 << 0,
};

/* In the payload of SET_VRING_KICK, CALL and ERR. */
#define VRING_INDEX_MASK 0xffull
#define VRING_NO_FD	 (1ull << 8)

#define PROTOCOL_FEATURES                                                                          \
	(1ull << PROTOCOL_F_MQ | 1ull << PROTOCOL_F_REPLY_ACK | 1ull << PROTOCOL_F_BACKEND_REQ |   \
	 1ull << PROTOCOL_F_CONFIG)

enum request {
	GET_FEATURES = 1,
	SET_FEATURES = 2,
	SET_OWNER = 3,
	RESET_OWNER = 4,
	SET_MEM_TABLE = 5,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9,
	SET_VRING_BASE = 10,
	GET_VRING_BASE = 11,
	SET_VRING_KICK = 12,
	SET_VRING_CALL = 13,
	SET_VRING_ERR = 14,
	GET_PROTOCOL_FEATURES = 15,
	SET_PROTOCOL_FEATURES = 16,
	GET_QUEUE_NUM = 17,
	SET_VRING_ENABLE = 18,
	SET_BACKEND_REQ_FD = 21,
	GET_CONFIG = 24,
	SET_CONFIG = 25,
};

/* What we ask of the front-end, on the connection it opened for it. */
enum backend_request { BACKEND_CONFIG_CHANGE_MSG = 2 };

struct header {
	uint32_t request, flags, size;
};

struct vring_state {
	uint32_t index, num;
};

struct vring_addr {
	uint32_t index, flags;
	uint64_t desc, used, avail, log;
};

struct mem_region {
	uint64_t gpa, size, user, offset;
};

struct mem_table {
	uint32_t n, padding;
	struct mem_region region[REGIONS_MAX];
};

struct config {
	uint32_t offset, size, flags;
	uint8_t data[CONFIG_MAX];
};

_Static_assert(sizeof(struct header) == 12, "vhost-user header");
_Static_assert(sizeof(struct vring_addr) == 40, "vhost-user vring address");
_Static_assert(sizeof(struct mem_region) == 32, "vhost-user memory region");
_Static_assert(sizeof(struct config) == 12 + CONFIG_MAX, "vhost-user config");

union payload {
	uint64_t u64;
	struct vring_state state;
	struct vring_addr addr;
	struct mem_table mem;
	struct config config;
};

struct message {
	struct header h;
	union payload p;
	int fd[REGIONS_MAX]; /* owned; a handler that keeps one takes it */
	unsigned nfds;
	bool answered; /* has an answer of its own: @reply bytes of p */
	uint32_t reply;
};

struct mapping {
	void *addr;
	size_t len;
	uint64_t user, size; /* the front-end's addresses for it */
	uint64_t gpa;
	int fd; /* of the file, for what it says of itself */
};

struct ring {
	struct virtqueue_state state;
	bool has_addr, enabled;
	uint64_t user_desc, user_avail, user_used;
	int kick, call, err;
};

struct vhost_user {
	struct virtio_device *dev;
	struct loop_source io;
	int backend; /* where our own requests go; -1 */
	vhost_user_end_fn *on_end;
	void *arg;
	uint64_t protocol_features;
	struct guest_memory mem;
	struct mapping map[REGIONS_MAX];
	unsigned nmaps;
	struct ring *ring; /* one per queue of the device */

	struct message msg; /* being received */
	size_t have;	    /* bytes of it, header included */
};

/* ---- rings ---- */

static int to_guest(const struct vhost_user *vu, uint64_t user, uint64_t *ret)
{
	for (unsigned i = 0; i < vu->nmaps; i++) {
		const struct mapping *m = &vu->map[i];

		if (user >= m->user && user - m->user < m->size) {
			*ret = m->gpa + (user - m->user);
			return 0;
		}
	}
	return -EFAULT;
}

static void stop_ring(struct vhost_user *vu, unsigned i)
{
	struct virtqueue_state s;

	if (virtio_queue_stop(vu->dev, i, &s) == 0)
		vu->ring[i].state.last_avail = s.last_avail;
}

/* Start the ring if everything is there and it does not run. */
static int check_ring(struct vhost_user *vu, unsigned i)
{
	struct ring *r = &vu->ring[i];
	__virtio16 used;
	int err;

	if (!vu->nmaps || !r->has_addr || r->kick < 0 || !r->enabled ||
	    virtio_queue_running(vu->dev, i) || virtio_device_broken(vu->dev))
		return 0;
	if (to_guest(vu, r->user_desc, &r->state.desc) < 0 ||
	    to_guest(vu, r->user_avail, &r->state.avail) < 0 ||
	    to_guest(vu, r->user_used, &r->state.used) < 0)
		return -EFAULT;
	err = guest_memory_read(&vu->mem, r->state.used + offsetof(struct vring_used, idx), &used,
				sizeof(used));
	if (err < 0)
		return err;
	r->state.last_used = le16toh(used);
	err = virtio_queue_start(vu->dev, i, &r->state, r->kick, r->call);
	if (err == 0)
		virtio_queue_set_err(vu->dev, i, r->err);
	return err;
}

static int check_rings(struct vhost_user *vu)
{
	for (unsigned i = 0; i < vu->dev->nqueues; i++) {
		int r = check_ring(vu, i);

		if (r < 0)
			return r;
	}
	return 0;
}

static void stop_rings(struct vhost_user *vu)
{
	for (unsigned i = 0; i < vu->dev->nqueues; i++)
		stop_ring(vu, i);
}

static void unmap(struct vhost_user *vu)
{
	for (unsigned i = 0; i < vu->nmaps; i++) {
		munmap(vu->map[i].addr, vu->map[i].len);
		close_fd(vu->map[i].fd);
	}
	vu->nmaps = 0;
	vu->mem = (struct guest_memory){.shared = true};
}

/* Takes @fd on success. */
static int map_region(struct vhost_user *vu, const struct mem_region *r, int fd)
{
	struct mapping *m = &vu->map[vu->nmaps];
	uint64_t end, user_end;
	struct stat st;
	void *p;
	int err;

	if (!r->size || __builtin_add_overflow(r->user, r->size, &user_end) ||
	    __builtin_add_overflow(r->offset, r->size, &end) || end > INT64_MAX)
		return -EINVAL;
	for (unsigned i = 0; i < vu->nmaps; i++) {
		if (r->user < vu->map[i].user + vu->map[i].size && vu->map[i].user < user_end)
			return -EEXIST;
	}
	if (fstat(fd, &st) < 0)
		return -errno;
	/* Beyond the end of the file an access would be a SIGBUS. */
	if (!S_ISREG(st.st_mode) || end > (uint64_t)st.st_size)
		return -EINVAL;
	p = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
		 (off_t)r->offset);
	if (p == MAP_FAILED)
		return -errno;
	err = guest_memory_add(&vu->mem, r->gpa, r->size, p);
	if (err < 0) {
		munmap(p, r->size);
		return err;
	}
	*m = (struct mapping){p, r->size, r->user, r->size, r->gpa, fd};
	vu->nmaps++;
	return 0;
}

/* ---- requests ---- */

static int answer(struct message *m, uint32_t size)
{
	m->answered = true;
	m->reply = size;
	return 0;
}

static int get_features(struct vhost_user *vu, struct message *m)
{
	m->p.u64 = vu->dev->offered | 1ull << F_PROTOCOL_FEATURES;
	return answer(m, sizeof(m->p.u64));
}

static int set_features(struct vhost_user *vu, struct message *m)
{
	uint64_t f = m->p.u64 & ~(1ull << F_PROTOCOL_FEATURES);

	if (f & ~vu->dev->offered)
		return -EINVAL;
	stop_rings(vu);
	/* Without protocol features rings have no enable message: they start enabled. */
	if (!(m->p.u64 & 1ull << F_PROTOCOL_FEATURES)) {
		for (unsigned i = 0; i < vu->dev->nqueues; i++)
			vu->ring[i].enabled = true;
	}
	/* A driver that starts over heals a broken device. */
	(void)virtio_device_activate(vu->dev, f, &vu->mem);
	return check_rings(vu);
}

static int set_owner(struct vhost_user *vu, struct message *m)
{
	(void)vu;
	(void)m;
	return 0;
}

static int reset_owner(struct vhost_user *vu, struct message *m)
{
	(void)m;
	stop_rings(vu);
	for (unsigned i = 0; i < vu->dev->nqueues; i++)
		vu->ring[i].enabled = false;
	return 0;
}

static int set_mem_table(struct vhost_user *vu, struct message *m)
{
	struct mem_table *t = &m->p.mem;

	if (t->n > REGIONS_MAX || t->n != m->nfds || m->h.size < 8 + t->n * sizeof(t->region[0]))
		return -EINVAL;
	stop_rings(vu);
	unmap(vu);
	for (unsigned i = 0; i < t->n; i++) {
		int r = map_region(vu, &t->region[i], m->fd[i]);

		if (r < 0) {
			unmap(vu);
			return r;
		}
		m->fd[i] = -1;
	}
	return check_rings(vu);
}

static struct ring *ring_of(struct vhost_user *vu, uint64_t index)
{
	return index < vu->dev->nqueues ? &vu->ring[index] : NULL;
}

static int set_vring_num(struct vhost_user *vu, struct message *m)
{
	struct ring *r = ring_of(vu, m->p.state.index);
	uint32_t n = m->p.state.num;

	/* QEMU's virtio-mmio lets the driver have 1024 entries whatever the device would offer. */
	if (!r || !n || n > VIRTQUEUE_SIZE_MAX || (n & (n - 1)))
		return -EINVAL;
	if (virtio_queue_running(vu->dev, m->p.state.index))
		return -EBUSY;
	r->state.size = (uint16_t)n;
	return 0;
}

static int set_vring_addr(struct vhost_user *vu, struct message *m)
{
	struct ring *r = ring_of(vu, m->p.addr.index);
	uint64_t gpa;

	if (!r || m->p.addr.flags & VRING_F_LOG)
		return -EINVAL;
	if (to_guest(vu, m->p.addr.desc, &gpa) < 0 || to_guest(vu, m->p.addr.avail, &gpa) < 0 ||
	    to_guest(vu, m->p.addr.used, &gpa) < 0)
		return -EFAULT;
	stop_ring(vu, m->p.addr.index);
	r->user_desc = m->p.addr.desc;
	r->user_avail = m->p.addr.avail;
	r->user_used = m->p.addr.used;
	r->has_addr = true;
	return check_ring(vu, m->p.addr.index);
}

static int set_vring_base(struct vhost_user *vu, struct message *m)
{
	struct ring *r = ring_of(vu, m->p.state.index);

	if (!r || m->p.state.num > UINT16_MAX)
		return -EINVAL;
	if (virtio_queue_running(vu->dev, m->p.state.index))
		return -EBUSY;
	r->state.last_avail = (uint16_t)m->p.state.num;
	return 0;
}

static int get_vring_base(struct vhost_user *vu, struct message *m)
{
	struct ring *r = ring_of(vu, m->p.state.index);

	if (!r)
		return -EINVAL;
	/* This is how a front-end stops a ring; a new kick starts it. */
	stop_ring(vu, m->p.state.index);
	r->kick = close_fd(r->kick);
	m->p.state.num = r->state.last_avail;
	return answer(m, sizeof(m->p.state));
}

/*
 * A device's thread writes to it and must not wait: so neither a pipe nor a socket nor a file, and
 * nothing that blocks. Eventfds are anonymous inodes, which have no type; others of the kind take
 * no writes at all.
 */
static int check_eventfd(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	return st.st_mode & S_IFMT ? -EINVAL : io_set_nonblock(fd, true);
}

/* The descriptor of a KICK, CALL or ERR message, or -1 where the front-end says there is none. */
static int vring_fd(struct vhost_user *vu, struct message *m, struct ring **r, int *fd)
{
	bool none = m->p.u64 & VRING_NO_FD;

	*r = ring_of(vu, m->p.u64 & VRING_INDEX_MASK);
	if (!*r || m->p.u64 & ~(VRING_INDEX_MASK | VRING_NO_FD) || none != (m->nfds == 0))
		return -EINVAL;
	if (!none && check_eventfd(m->fd[0]) < 0)
		return -EINVAL;
	*fd = none ? -1 : take_fd(&m->fd[0]);
	return 0;
}

static int set_vring_kick(struct vhost_user *vu, struct message *m)
{
	unsigned i = m->p.u64 & VRING_INDEX_MASK;
	struct ring *r;
	int fd;

	/* Polling a ring that nobody kicks is not something we do. */
	if (m->p.u64 & VRING_NO_FD)
		return -EOPNOTSUPP;
	if (vring_fd(vu, m, &r, &fd) < 0)
		return -EINVAL;
	stop_ring(vu, i);
	close_fd(r->kick);
	r->kick = fd;
	return check_ring(vu, i);
}

static int set_vring_call(struct vhost_user *vu, struct message *m)
{
	struct ring *r;
	int fd;

	if (vring_fd(vu, m, &r, &fd) < 0)
		return -EINVAL;
	virtio_queue_set_call(vu->dev, m->p.u64 & VRING_INDEX_MASK, fd);
	close_fd(r->call);
	r->call = fd;
	return 0;
}

static int set_vring_err(struct vhost_user *vu, struct message *m)
{
	struct ring *r;
	int fd;

	if (vring_fd(vu, m, &r, &fd) < 0)
		return -EINVAL;
	virtio_queue_set_err(vu->dev, m->p.u64 & VRING_INDEX_MASK, fd);
	close_fd(r->err);
	r->err = fd;
	return 0;
}

static int get_protocol_features(struct vhost_user *vu, struct message *m)
{
	(void)vu;
	m->p.u64 = PROTOCOL_FEATURES;
	return answer(m, sizeof(m->p.u64));
}

static int set_protocol_features(struct vhost_user *vu, struct message *m)
{
	if (m->p.u64 & ~PROTOCOL_FEATURES)
		return -EINVAL;
	vu->protocol_features = m->p.u64;
	return 0;
}

static int get_queue_num(struct vhost_user *vu, struct message *m)
{
	m->p.u64 = vu->dev->nqueues;
	return answer(m, sizeof(m->p.u64));
}

static int set_vring_enable(struct vhost_user *vu, struct message *m)
{
	struct ring *r = ring_of(vu, m->p.state.index);

	if (!r || m->p.state.num > 1)
		return -EINVAL;
	r->enabled = m->p.state.num;
	if (!r->enabled) {
		stop_ring(vu, m->p.state.index);
		return 0;
	}
	return check_ring(vu, m->p.state.index);
}

/* virtio_config_fn: any thread. */
static void on_config(struct virtio_device *dev, bool news, void *arg)
{
	const struct vhost_user *vu = arg;
	struct header h = {BACKEND_CONFIG_CHANGE_MSG, VERSION, 0};
	struct iovec iov = {&h, sizeof(h)};
	const struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	/* A broken device is what the rings' error descriptors are for. */
	if (!news || virtio_device_broken(dev))
		return;
	/* A front-end that leaves a buffer full of these unread will find the last word there. */
	(void)!sendmsg(vu->backend, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void drop_backend(struct vhost_user *vu)
{
	virtio_device_on_config(vu->dev, NULL, NULL);
	vu->backend = close_fd(vu->backend);
}

static int set_backend_req_fd(struct vhost_user *vu, struct message *m)
{
	const uint64_t needed = 1ull << PROTOCOL_F_BACKEND_REQ | 1ull << PROTOCOL_F_CONFIG;

	if (m->nfds != 1)
		return -EINVAL;
	drop_backend(vu);
	vu->backend = take_fd(&m->fd[0]);
	if ((vu->protocol_features & needed) == needed)
		virtio_device_on_config(vu->dev, on_config, vu);
	return 0;
}

/* The payload's own size must agree with the message's. */
static bool config_ok(const struct message *m)
{
	return m->p.config.size <= CONFIG_MAX && m->h.size == 12 + m->p.config.size &&
	       m->p.config.offset <= CONFIG_MAX - m->p.config.size;
}

static int get_config(struct vhost_user *vu, struct message *m)
{
	/* The one request whose failure is a reply of no bytes. */
	if (!config_ok(m))
		return answer(m, 0);
	virtio_config_read(vu->dev, m->p.config.offset, m->p.config.data, m->p.config.size);
	return answer(m, m->h.size);
}

static int set_config(struct vhost_user *vu, struct message *m)
{
	if (!config_ok(m))
		return -EINVAL;
	return virtio_config_write(vu->dev, m->p.config.offset, m->p.config.data, m->p.config.size);
}

/* What may arrive: payload bytes (least, most), descriptors (most), and who answers. */
static const struct {
	const char *name;
	uint32_t min, max;
	unsigned fds;
	int (*run)(struct vhost_user *vu, struct message *m);
} requests[] = {
	[GET_FEATURES] = {"GET_FEATURES", 0, 0, 0, get_features},
	[SET_FEATURES] = {"SET_FEATURES", 8, 8, 0, set_features},
	[SET_OWNER] = {"SET_OWNER", 0, 0, 0, set_owner},
	[RESET_OWNER] = {"RESET_OWNER", 0, 0, 0, reset_owner},
	[SET_MEM_TABLE] = {"SET_MEM_TABLE", 8, sizeof(struct mem_table), REGIONS_MAX,
			   set_mem_table},
	[SET_VRING_NUM] = {"SET_VRING_NUM", 8, 8, 0, set_vring_num},
	[SET_VRING_ADDR] = {"SET_VRING_ADDR", 40, 40, 0, set_vring_addr},
	[SET_VRING_BASE] = {"SET_VRING_BASE", 8, 8, 0, set_vring_base},
	[GET_VRING_BASE] = {"GET_VRING_BASE", 8, 8, 0, get_vring_base},
	[SET_VRING_KICK] = {"SET_VRING_KICK", 8, 8, 1, set_vring_kick},
	[SET_VRING_CALL] = {"SET_VRING_CALL", 8, 8, 1, set_vring_call},
	[SET_VRING_ERR] = {"SET_VRING_ERR", 8, 8, 1, set_vring_err},
	[GET_PROTOCOL_FEATURES] = {"GET_PROTOCOL_FEATURES", 0, 0, 0, get_protocol_features},
	[SET_PROTOCOL_FEATURES] = {"SET_PROTOCOL_FEATURES", 8, 8, 0, set_protocol_features},
	[GET_QUEUE_NUM] = {"GET_QUEUE_NUM", 0, 0, 0, get_queue_num},
	[SET_VRING_ENABLE] = {"SET_VRING_ENABLE", 8, 8, 0, set_vring_enable},
	[SET_BACKEND_REQ_FD] = {"SET_BACKEND_REQ_FD", 0, 0, 1, set_backend_req_fd},
	[GET_CONFIG] = {"GET_CONFIG", 12, sizeof(struct config), 0, get_config},
	[SET_CONFIG] = {"SET_CONFIG", 12, sizeof(struct config), 0, set_config},
};

/* ---- messages ---- */

static int send_reply(struct vhost_user *vu, const struct message *m, const union payload *p,
		      uint32_t size)
{
	struct header h = {m->h.request, VERSION | FLAG_REPLY, size};
	struct iovec iov[2] = {{&h, sizeof(h)}, {(void *)(uintptr_t)p, size}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
	ssize_t n;

	do {
		n = sendmsg(vu->io.fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	/* A front-end reads each answer before it asks again, so the buffer has room. */
	return (size_t)n == sizeof(h) + size ? 0 : -EPROTO;
}

static int handle(struct vhost_user *vu, struct message *m, struct err *err)
{
	uint32_t q = m->h.request;
	bool known = q < ARRAY_SIZE(requests) && requests[q].run;
	const char *name = known ? requests[q].name : "unknown request";
	bool ack = m->h.flags & FLAG_NEED_REPLY &&
		   vu->protocol_features & 1ull << PROTOCOL_F_REPLY_ACK;
	int r;

	if (!known)
		r = -EOPNOTSUPP;
	else if (m->h.size < requests[q].min || m->h.size > requests[q].max ||
		 m->nfds > requests[q].fds)
		r = -EPROTO;
	else
		r = requests[q].run(vu, m);
	if (r < 0 && !ack)
		return err_set(err, ERR_PROTOCOL, "vhost-user %s (%u): %s", name, q, err_name(-r));
	if (m->answered) {
		r = send_reply(vu, m, &m->p, m->reply);
	} else if (ack) {
		union payload p = {.u64 = r < 0};

		r = send_reply(vu, m, &p, sizeof(p.u64));
	} else {
		return 0;
	}
	return r < 0 ? err_set(err, -r, "vhost-user %s: cannot answer: %s", name, err_name(-r)) : 0;
}

static void drop_fds(struct message *m)
{
	for (unsigned i = 0; i < m->nfds; i++)
		close_fd(m->fd[i]);
	m->nfds = 0;
}

/* Keep the descriptors of one read; -EPROTO if there are more than any request takes. */
static int take_fds(struct message *m, struct msghdr *msg)
{
	int r = msg->msg_flags & MSG_CTRUNC ? -EPROTO : 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (m->nfds < REGIONS_MAX) {
				m->fd[m->nfds++] = fd;
			} else {
				close_fd(fd);
				r = -EPROTO;
			}
		}
	}
	return r;
}

/* Read towards @want bytes of the message: 1 when there, 0 not yet, -EPIPE at the end, -errno. */
static int receive(struct vhost_user *vu, size_t want)
{
	struct message *m = &vu->msg;
	char control[CMSG_SPACE(REGIONS_MAX * sizeof(int))];

	while (vu->have < want) {
		bool in_header = vu->have < sizeof(m->h);
		struct iovec iov = {
			in_header ? (char *)&m->h + vu->have
				  : (char *)&m->p + (vu->have - sizeof(m->h)),
			want - vu->have,
		};
		struct msghdr msg = {
			.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control,
			.msg_controllen = sizeof(control),
		};
		ssize_t n = recvmsg(vu->io.fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		r = take_fds(m, &msg);
		if (r < 0)
			return r;
		if (n == 0)
			return vu->have ? -EPROTO : -EPIPE;
		vu->have += (size_t)n;
	}
	return 1;
}

static int next_message(struct vhost_user *vu, struct err *err)
{
	struct message *m = &vu->msg;
	int r = receive(vu, sizeof(m->h));

	if (r > 0 && (m->h.size > sizeof(m->p) || (m->h.flags & FLAG_VERSION_MASK) != VERSION ||
		      m->h.flags & FLAG_REPLY))
		return err_set(err, ERR_PROTOCOL, "vhost-user message %u: bad size or flags",
			       m->h.request);
	if (r > 0)
		r = receive(vu, sizeof(m->h) + m->h.size);
	if (r == -EPIPE || r == -ECONNRESET)
		return -EPIPE;
	if (r < 0)
		return err_set(err, r, "vhost-user connection: %s", err_name(-r));
	return r;
}

static void disconnect(struct vhost_user *vu)
{
	loop_del(&vu->io);
	vu->io.fd = close_fd(vu->io.fd);
	drop_backend(vu);
	stop_rings(vu);
	virtio_device_reset(vu->dev);
	unmap(vu);
	drop_fds(&vu->msg);
	for (unsigned i = 0; i < vu->dev->nqueues; i++) {
		struct ring *r = &vu->ring[i];

		close_fd(r->kick);
		close_fd(r->call);
		close_fd(r->err);
		*r = (struct ring){.kick = -1, .call = -1, .err = -1};
	}
}

static void on_io(struct loop_source *s, uint32_t events)
{
	struct vhost_user *vu = container_of(s, struct vhost_user, io);
	struct err err = ERR_INIT;
	int r;

	(void)events;
	/* One message a turn: others on this loop get theirs. */
	r = next_message(vu, &err);
	if (r == 0)
		return;
	if (r > 0) {
		r = handle(vu, &vu->msg, &err);
		drop_fds(&vu->msg);
		memset(&vu->msg, 0, sizeof(vu->msg));
		vu->have = 0;
	}
	if (r < 0) {
		disconnect(vu);
		if (vu->on_end)
			vu->on_end(vu, &err, vu->arg);
	}
}

/* ---- life ---- */

int vhost_user_new(struct virtio_device *dev, struct loop *loop, int fd, vhost_user_end_fn *fn,
		   void *arg, struct vhost_user **ret, struct err *err)
{
	struct vhost_user *vu = calloc(1, sizeof(*vu));
	int r;

	if (vu)
		vu->ring = calloc(dev->nqueues, sizeof(*vu->ring));
	if (!vu || !vu->ring) {
		free(vu);
		return err_set(err, ENOMEM, "cannot serve a device: out of memory");
	}
	vu->dev = dev;
	vu->backend = -1;
	vu->on_end = fn;
	vu->arg = arg;
	for (unsigned i = 0; i < dev->nqueues; i++)
		vu->ring[i] = (struct ring){.kick = -1, .call = -1, .err = -1};
	vu->io = (struct loop_source){.fn = on_io, .fd = fd};
	r = loop_add(loop, &vu->io, EPOLLIN);
	if (r < 0) {
		free(vu->ring);
		free(vu);
		return err_set(err, r, "cannot serve a device: %s", err_name(-r));
	}
	*ret = vu;
	return 0;
}

struct vhost_user *vhost_user_free(struct vhost_user *vu)
{
	if (!vu)
		return NULL;
	if (vu->io.fd >= 0)
		disconnect(vu);
	free(vu->ring);
	free(vu);
	return NULL;
}

uint64_t vhost_user_resident(const struct vhost_user *vu)
{
	struct stat st[REGIONS_MAX];
	uint64_t sum = 0;

	/* Asked of the files: to look at each page takes a second where most are not there. */
	for (unsigned i = 0; i < vu->nmaps; i++) {
		bool again = false;

		if (fstat(vu->map[i].fd, &st[i]) < 0)
			memset(&st[i], 0, sizeof(st[i]));
		for (unsigned k = 0; k < i; k++)
			again |= st[k].st_ino == st[i].st_ino && st[k].st_dev == st[i].st_dev;
		sum += again ? 0 : (uint64_t)st[i].st_blocks * 512;
	}
	return sum;
}
