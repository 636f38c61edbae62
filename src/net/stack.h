/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network of one sandbox: Ethernet frames of the guest on one side, flows to the world on the
 * other. No sockets here, no threads, no clock: whoever runs the stack gives it frames, events and
 * the time, and does what it asks for through struct stack_ops.
 *
 * Theory of operation. The guest's only neighbour is a gateway that we play. Its TCP ends here:
 * each connection is carried by a socket of the host, which has its own idea of the path behind, so
 * there is no second congestion control and no second send buffer. A SYN is answered once the
 * host's connect() succeeded, with what became of it.
 *
 * Bytes are never kept:
 *   from the guest  a segment that is next in order goes from guest memory into the socket. What
 *                   the socket does not take is not acknowledged, and the window tells the guest in
 *                   advance what it will take.
 *   to the guest    bytes are peeked from the socket into guest memory and taken off it once the
 *                   guest has acknowledged them, so the socket's buffer is the buffer for
 *                   retransmission and the guest's slowness is felt by the sender.
 *
 * So a flow costs a few hundred bytes here whatever goes through it. UDP and ICMP echo are flows
 * with a socket and an idle timer each.
 *
 * Flows are in a hash table keyed with a random seed. What a flow owes the guest and there was no
 * buffer for is remembered in the flow, not as a frame: it goes on a list that stack_run() serves
 * in turn. When the table is full, flows of UDP and echoes that are unused for longest make room;
 * connections that are made never do. Those that wait for an answer, half-open, have an eighth of
 * the table in each direction, and up to half of it for as long as the oldest does not wait for
 * seconds; beyond that it is reset for a new one. So a flood of SYNs, the guest's or of others to
 * its ports, takes neither the table nor sockets from anybody but itself.
 *
 * All calls are made on one thread. Times are nanoseconds of any clock that does not go back.
 */
#ifndef NET_STACK_H
#define NET_STACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/err.h"
#include "net/addr.h"
#include "net/limit.h"
#include "net/names.h"
#include "net/policy.h"

struct stack;
struct flow;

#define STACK_FLOWS_DEFAULT 12288
#define STACK_FLOWS_MAX	    65536
#define STACK_MTU_MIN	    1280 /* of IPv6 */
#define STACK_MTU_MAX	    65521

struct stack_config {
	uint8_t guest_mac[6], gateway_mac[6];
	/* A family whose addresses are all zero is not spoken. */
	struct net_addr guest4, gateway4, guest6, gateway6;
	uint16_t mtu;
	unsigned max_flows;	  /* 0 is STACK_FLOWS_DEFAULT */
	struct net_limits limits; /* of these, new flows; the others are the host's */
	struct net_policy policy;
	struct names *names; /* what addresses are called; borrowed, may be NULL */
	bool strict;	     /* what is allowed by name has to say the name, see flow_inspect() */
	struct net_addr host4, host6; /* what the gateway stands for besides: the host's loopback */
	uint8_t seed[16];
};

/* What belongs to a frame but is not in it; the sense is virtio's (1.2, 5.1.6). */
enum stack_gso { STACK_GSO_NONE, STACK_GSO_TCP4, STACK_GSO_TCP6 };
struct stack_meta {
	bool partial; /* the checksum at csum_start + csum_offset covers the pseudo header only */
	bool valid;   /* the checksum was verified already, or does not matter */
	uint16_t csum_start, csum_offset;
	enum stack_gso gso;
	uint16_t gso_size, hdr_len;
};

enum stack_news_kind {
	STACK_OPENED,
	STACK_CLOSED, /* what was opened */
	STACK_DENIED, /* by the policy */
	STACK_LIMITED,
	STACK_FAILED_TO, /* connect: the network or the other end refused */
	STACK_NEWS,
};

/* What became of a flow, for a log. */
struct stack_news {
	enum stack_news_kind kind;
	enum net_direction direction;
	uint8_t proto;
	struct net_addr peer;
	uint16_t port;	     /* the peer's, which of egress is what was asked for */
	uint16_t guest_port; /* may be 0 where a refusal does not depend on it */
	const char *why;     /* static; NULL: there is nothing to say */
	uint64_t sent, got;  /* STACK_CLOSED: payload from the guest, to it */
	uint64_t lasted;
};

struct stack_ops {
	/* ---- to the guest ---- */

	/*
	 * Room for one frame of @len bytes: its pieces in @iov (at most @max), or 0 when the guest
	 * has none now. Then commit() follows, before any other reserve(), with the length used; 0
	 * is giving it back.
	 */
	unsigned (*reserve)(void *arg, size_t len, struct iovec *iov, unsigned max);
	void (*commit)(void *arg, size_t len, const struct stack_meta *meta);

	/* ---- to the world; results are counts or -errno ---- */

	/*
	 * Begin to reach @to. 0: TCP then hears STACK_WRITABLE or STACK_FAILED, the others can send
	 * at once, as TCP can with 1. What belongs to the flow is kept behind *flow_host().
	 */
	int (*open)(void *arg, struct flow *f, uint8_t proto, const struct net_addr *to,
		    uint16_t port);
	/* The flow goes away, or for @reset: is to be cut off. */
	void (*close)(void *arg, struct flow *f, bool reset);
	/* Never blocks: -EAGAIN, or for TCP less than all. */
	ssize_t (*send)(void *arg, struct flow *f, const struct iovec *iov, unsigned n);
	/*
	 * TCP: look at what is @skip bytes behind the start; 0 is the end. STACK_READABLE follows
	 * when this was less than asked for, and more comes. consume() takes off.
	 */
	ssize_t (*peek)(void *arg, struct flow *f, size_t skip, const struct iovec *iov,
			unsigned n);
	void (*consume)(void *arg, struct flow *f, size_t n);
	/*
	 * The others: the next message. With an error of an echo, @p has the header it is about.
	 * -EPIPE: there will be none, the flow is over.
	 */
	ssize_t (*receive)(void *arg, struct flow *f, void *p, size_t n);
	/* TCP: no more will be sent. */
	void (*shut)(void *arg, struct flow *f);
	/* TCP: what send() will take. When that is little, STACK_WRITABLE follows once it is more.
	 */
	size_t (*room)(void *arg, struct flow *f);
	/* The others: the longest packet that goes to the other end whole, 0 if unknown. */
	unsigned (*mtu)(void *arg, struct flow *f);
	/* Is this one of the host's own addresses? */
	bool (*is_local)(void *arg, const struct net_addr *a);
	/* May be NULL. */
	void (*news)(void *arg, const struct stack_news *n);
};

enum stack_event {
	STACK_READABLE = 1, /* there is more than there was */
	STACK_WRITABLE = 2,
	STACK_FAILED = 4,
	STACK_STOPS = 8, /* TCP: from now on peek() may give less than there is, until it says so */
};

struct stack_stats {
	uint64_t frames_in, frames_out, bytes_in, bytes_out;
	uint64_t malformed;   /* not a frame that a guest should send */
	uint64_t unsupported; /* well-formed, but not carried: other protocols, groups */
	uint64_t denied;      /* flows that the policy refused */
	uint64_t full;	      /* flows refused for want of room */
	uint64_t opened;
	uint64_t retransmits;
	unsigned flows;
};

/* @ops and @arg are borrowed. */
int stack_new(const struct stack_config *config, const struct stack_ops *ops, void *arg,
	      struct stack **ret, struct err *err);
/* Closes all flows. NULL is fine. Returns NULL. */
struct stack *stack_free(struct stack *s);

/* What frames may leave undone for the guest to do: checksums, and segments longer than the MTU. */
void stack_offload(struct stack *s, bool csum, bool tso4, bool tso6);

/*
 * From now on; flows that it denies are cut off. Others that are more than there may be go on.
 */
void stack_change(struct stack *s, const struct net_policy *policy, const struct net_limits *limits,
		  unsigned max_flows, uint64_t now);

/*
 * A frame from the guest. The pieces are read (and handed to send()) during the call only, or if
 * they are @kept, as they are, until stack_settle(): then what is next to each other in a
 * connection is sent together.
 */
void stack_input(struct stack *s, const struct iovec *iov, unsigned n,
		 const struct stack_meta *meta, bool kept, uint64_t now);
/* Before stack_run(), if frames were kept. */
void stack_settle(struct stack *s);
/*
 * After a batch of frames or events, and when the guest has buffers again: say what is owed. True
 * when there is more that could be said now: call it again, after others had their turn.
 */
bool stack_run(struct stack *s, uint64_t now);

/* @events are of enum stack_event; @error goes with STACK_FAILED. The flow may be gone after. */
void stack_event(struct stack *s, struct flow *f, unsigned events, int error, uint64_t now);

/*
 * Somebody connected to a published port, or sent a datagram there: the flow from @peer to
 * @guest_port. He appears under his own address where the guest can answer to that. NULL when the
 * policy refuses or there is no room. flow_host() of a new flow is @host; datagrams from @peer meet
 * the flow that is there.
 */
struct flow *stack_accept(struct stack *s, uint8_t proto, const struct net_addr *peer,
			  uint16_t port, uint16_t guest_port, void *host, uint64_t now);

/* A datagram for a flow that stack_accept() returned; dropped when the guest has no room for it. */
void stack_datagram(struct stack *s, struct flow *f, const void *p, size_t n, uint64_t now);

/* When stack_tick() is due, and stack_run() after it; 0 when never. */
uint64_t stack_next(const struct stack *s);
void stack_tick(struct stack *s, uint64_t now);

const struct stack_stats *stack_stats(const struct stack *s);
/* The one that is in force. */
const struct net_policy *stack_policy(const struct stack *s);

/* Of the world's side; NULL until set. */
void **flow_host(struct flow *f);
uint8_t flow_proto(const struct flow *f);
/* Where it really goes, or comes from. */
void flow_peer(const struct flow *f, struct net_addr *a, uint16_t *port);
/* Is it for the name service, whoever is addressed? */
bool flow_is_dns(const struct flow *f);
/*
 * Has it to show first whom it is for? Then nothing that the guest sends may leave before
 * stack_agrees() to the name that was found in it, or NULL when there is none.
 */
bool flow_inspect(const struct flow *f);
bool stack_agrees(struct stack *s, struct flow *f, const struct dns_name *name, uint64_t now);

#endif
