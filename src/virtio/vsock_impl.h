/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What vsock.c (queues, packets, the table) and vsock_conn.c (one connection and its socket) share.
 * Everything here runs on the device's worker.
 */
#ifndef VIRTIO_VSOCK_IMPL_H
#define VIRTIO_VSOCK_IMPL_H

#include <linux/virtio_vsock.h>
#include <sys/queue.h>

#include "base/buf.h"
#include "virtio/vsock.h"

enum { VSOCK_QUEUE_RX, VSOCK_QUEUE_TX, VSOCK_QUEUE_EVENT, VSOCK_QUEUES };

enum {
	VSOCK_HDR = sizeof(struct virtio_vsock_hdr),
	VSOCK_BUCKETS = 256,
	VSOCK_LISTENERS = 64,
	/* Resets owed to packets that belong to no connection; when full the tx queue waits. */
	VSOCK_STRAYS = 128,
	/* How long a closed one waits for the guest to confirm. Linux itself gives up at 8 s. */
	VSOCK_LINGER_MS = 10000,
};

_Static_assert(sizeof(struct virtio_vsock_hdr) == 44, "packet header (5.10.6)");

/*
 *	(vsock_connect) ─► REQUESTING ─ RESPONSE ─► OPEN ◄─ (REQUEST accepted)
 *	                        │                  │ │ │
 *	        refused, timed out       nonsense  │ │ │ host socket gone, or both directions finished
 *	                        ▼                  │ │ ▼
 *	                    RESETTING ◄────────────┘ │ LINGER: SHUTDOWN is sent, waits for the RST
 *	                   (owes a RST)              ▼
 *	                                        DRAINING: guest is gone, its last bytes still go out
 *
 * In RESETTING and LINGER the socket is closed. DRAINING is no longer in the hash table.
 */
enum vsock_state {
	VSOCK_REQUESTING,
	VSOCK_ASKED, /* by the guest; vsock_answer() makes it OPEN or RESETTING */
	VSOCK_OPEN,
	VSOCK_LINGER,
	VSOCK_RESETTING,
	VSOCK_DRAINING,
};

/* Control packets a connection owes the guest, in the order they are sent. */
enum {
	VSOCK_TODO_REQUEST = 1 << 0,
	VSOCK_TODO_RESPONSE = 1 << 1,
	VSOCK_TODO_CREDIT = 1 << 2,
	VSOCK_TODO_ASK_CREDIT = 1 << 3,
	VSOCK_TODO_SHUTDOWN = 1 << 4,
	VSOCK_TODO_RST = 1 << 5,
};

enum { VSOCK_SHUT_BOTH = VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND };

struct vsock_conn {
	struct vsock *v;
	enum vsock_state state;
	uint32_t guest_port, host_port;
	LIST_ENTRY(vsock_conn) hash;
	TAILQ_ENTRY(vsock_conn) all, active;
	bool is_active;

	struct loop_source io;	 /* io.fd is owned; -1 when closed */
	struct loop_timer timer; /* connect limit, or linger */
	bool can_read, hup, host_eof;
	bool write_shut;	       /* nothing more goes to the socket: finished or failed */
	bool exposed;		       /* the guest has seen a packet of this connection */
	uint8_t guest_shut, host_shut; /* VIRTIO_VSOCK_SHUTDOWN_*: what each side gave up */
	uint8_t todo;

	/* Guest to host. received - forwarded is what `pending` holds. */
	uint32_t received, forwarded, told;
	struct buf pending;
	/* Host to guest. */
	uint32_t sent, peer_buf_alloc, peer_fwd_cnt;
	bool asked;

	vsock_connect_fn *done;
	void *done_arg;
};

struct vsock_listener {
	bool used;
	uint32_t port;
	vsock_accept_fn *fn;
	void *arg;
};

/* A reset for no connection: the addresses as they stand in the packet to the guest. */
struct vsock_stray {
	uint64_t src_cid;
	uint32_t src_port, dst_port;
	uint16_t type;
};

struct vsock {
	struct virtio_device dev;
	struct virtio_vsock_config config;
	uint32_t guest_cid;
	uint32_t buffer_size;
	unsigned max_connections, nconns;
	uint32_t next_port;
	bool tx_stalled; /* the tx queue waits for room among the strays */
	bool pumping;	 /* inside rx_process(), which looks at `active` itself */

	LIST_HEAD(, vsock_conn) bucket[VSOCK_BUCKETS];
	TAILQ_HEAD(, vsock_conn) all;
	TAILQ_HEAD(, vsock_conn) active; /* want to send to the guest; served in turn */
	struct vsock_listener listener[VSOCK_LISTENERS];
	struct vsock_stray stray[VSOCK_STRAYS];
	unsigned stray_head, nstrays;

	struct iovec chain_iov[VIRTQUEUE_CHAIN_MAX], data_iov[VIRTQUEUE_CHAIN_MAX];
};

/* ---- vsock_conn.c ---- */

struct vsock_conn *vsock_conn_find(struct vsock *v, uint32_t guest_port, uint32_t host_port);
/* A connection in the table that owns @fd; NULL when there is no room (then @fd is not owned). */
struct vsock_conn *vsock_conn_new(struct vsock *v, uint32_t guest_port, uint32_t host_port, int fd,
				  enum vsock_state state);
/* Close and forget, now. A pending connect hears @result. */
void vsock_conn_free(struct vsock_conn *c, int result);
/* Start to watch the socket. */
int vsock_conn_open(struct vsock_conn *c);
/* Put the connection among those that want to send, if it does. */
void vsock_conn_activate(struct vsock_conn *c);
/* Owe the guest a control packet. */
void vsock_conn_owe(struct vsock_conn *c, uint8_t todo);
/* Close the socket; the guest gets a RST. A pending connect hears @result. */
void vsock_conn_reset(struct vsock_conn *c, int result);
/* The guest will hear no more: free, or deliver what is pending first. May free @c. */
void vsock_conn_guest_gone(struct vsock_conn *c, int result);
/* Bytes the guest has room for. */
uint32_t vsock_conn_credit(const struct vsock_conn *c);
/* Does it have data for the guest and may send it? */
bool vsock_conn_readable(const struct vsock_conn *c);
/* Data from the guest: @n buffers of @len bytes. May change the state. */
void vsock_conn_receive(struct vsock_conn *c, const struct iovec *iov, unsigned n, uint32_t len);
/* Read from the socket: bytes, or 0 when there is nothing to pass on (for now, or ever). */
size_t vsock_conn_read(struct vsock_conn *c, struct iovec *iov, unsigned n);
/* The guest gave up directions. */
void vsock_conn_guest_shutdown(struct vsock_conn *c, uint32_t flags);
/* Start the clock of a connection; @ms of 0 stops it. */
void vsock_conn_clock(struct vsock_conn *c, uint32_t ms);

#endif
