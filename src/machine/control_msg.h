/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is asked of a machine that runs, on control.sock: one request, one answer, as often as
 * wanted. Each is [length u32 BE][CBOR]. Any thread, on its own objects.
 */
#ifndef MACHINE_CONTROL_MSG_H
#define MACHINE_CONTROL_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "machine/vm_config.h"
#include "wire/codec.h"

enum control_op {
	CONTROL_PING,	  /* the agent's answer; elapsed_ns */
	CONTROL_STATS,	  /* stats */
	CONTROL_PAUSE,	  /* the guest stops between two instructions */
	CONTROL_RESUME,	  /* both are fine if it is so already */
	CONTROL_DRAIN,	  /* no new sessions; when the last has ended, or after timeout_ns, stop */
	CONTROL_TOUCH,	  /* count this as activity */
	CONTROL_LIMITS,	  /* those that are given take the place of what was */
	CONTROL_CPUS,	  /* so many, up to the machine's most; an answer with cpus_online */
	CONTROL_MEMORY,	  /* so many bytes, up to the machine's most; an answer with what it has */
	CONTROL_DEFAULTS, /* what new sessions get: env and workdir */
	CONTROL_LEAVE,	  /* stop once no client is left; an answer with those there are */
	CONTROL_STAY,	  /* do not, whatever was or will be said about that */
	CONTROL_NET,	  /* net takes the place of what was, its ports aside */
	CONTROL_PORTS,	  /* publish those, no longer publish these; sockets come along */
	CONTROL_STATE,	  /* stats, at once: without what only the guest knows */
	CONTROL_OPS,
};

/* Durations in ns; 0: no limit. Its text and environment are owned (wire_free()). */
struct control_request {
	int32_t op; /* enum control_op */
	uint64_t timeout_ns;
	bool has_max_duration_ns, has_idle_timeout_ns;
	uint64_t max_duration_ns, idle_timeout_ns;
	uint32_t cpus;
	uint64_t memory;
	struct wire_texts env; /* "K=V" */
	char *workdir;
	bool has_net;
	struct vm_net net;
	/* As vm_report has them. */
	struct wire_texts ports_add, ports_rm;
	/*
	 * Descriptors that came along, in order: for ports_add, listening where that is TCP.
	 * Whoever takes one leaves -1; the rest is closed when the request was dealt with.
	 */
	int *fds;
	unsigned nfds;
};

/* What the kernel lets through in one message is 253. */
#define CONTROL_FDS_MAX 250

struct control_stats {
	bool paused, draining;
	uint32_t cpus, cpus_max;
	uint64_t memory, memory_max; /* bytes */
	uint64_t memory_min;	     /* less takes a restart */
	uint64_t uptime_ns;	     /* since the guest was ready */
	uint64_t idle_ns;	     /* since the last activity; 0 while sessions are open */
	uint64_t max_duration_ns, idle_timeout_ns;
	uint64_t vcpu_time_ns;	  /* host CPU time of the guest's CPUs */
	uint64_t memory_resident; /* what the host holds for it */
	uint64_t disk_read_bytes, disk_read_ops, disk_write_bytes, disk_write_ops;
	/* Seen from the guest, whole frames; flows are connections and the like of them. */
	uint64_t net_rx_bytes, net_rx_packets, net_tx_bytes, net_tx_packets;
	uint64_t net_flows, net_flows_open, net_flows_denied;
	uint64_t net_lookups, net_lookups_denied; /* of names */
	uint32_t clients, sessions;
	/* What the guest's kernel says, when it answers. */
	bool has_guest;
	uint64_t guest_memory_total, guest_memory_available, guest_root_total, guest_root_free;
	uint32_t guest_cpus;
};

struct control_answer {
	uint32_t code; /* 0, or an errno-like code of base/err.h with its message and hint */
	char *message, *hint;
	uint64_t elapsed_ns;
	uint32_t cpus;	  /* on, afterwards */
	uint64_t memory;  /* there, afterwards */
	uint32_t clients; /* for whom it goes on; 0: it stops */
	bool has_stats;
	struct control_stats stats;
};

/* An environment, at most; answers are small. */
#define CONTROL_REQUEST_MAX ((size_t)2 << 20)
#define CONTROL_ANSWER_MAX  ((size_t)16 << 10)

const char *control_op_name(int32_t op);

/* Append one, length in front. Failure is the buffer's. */
void control_request_put(const struct control_request *q, struct buf *b);
void control_answer_put(const struct control_answer *a, struct buf *b);
/*
 * Take the first complete one out of @b: 1 when there was one, 0 when more bytes are needed,
 * negative when it is none.
 */
int control_request_take(struct buf *b, struct control_request *ret, struct err *err);
int control_answer_take(struct buf *b, struct control_answer *ret, struct err *err);
void control_request_done(struct control_request *q);
void control_answer_done(struct control_answer *a);
#define cleanup_answer __attribute__((cleanup(control_answer_done)))

#endif
