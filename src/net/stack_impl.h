/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of the stack. */
#ifndef NET_STACK_IMPL_H
#define NET_STACK_IMPL_H

#include <sys/queue.h>

#include "base/buf.h"
#include "net/stack.h"

#define MS     ((uint64_t)1000000)
#define SECOND (1000 * MS)

enum {
	ETH_HDR = 14,
	IP4_HDR = 20,
	IP6_HDR = 40,
	UDP_HDR = 8,
	TCP_HDR = 20,
	FRAGMENT_HDR = 8,
	NET_FRAGMENT = 44, /* the protocol number of that header */
	/* Ethernet, the longest IPv4 and TCP headers: what is looked at as one piece. */
	HEAD_MAX = ETH_HDR + 60 + 60,
	/* Of frames that are made here: no IPv4 options, TCP's for a SYN. */
	OUT_HEAD_MAX = ETH_HDR + IP6_HDR + TCP_HDR + 40,
	/* A datagram of UDP, or an echo with its data. */
	MESSAGE_MAX = 65535,
	/* Datagrams of which parts are awaited: 64 KiB each at the most. */
	FRAGS_MAX = 16,
	/* 64 KiB of a guest's smallest receive buffers, 1.5 KiB, and some. */
	PIECES_MAX = 64,
	/* Of frames that are kept: some segments of 64 KiB in pages. */
	HELD_MAX = 4 * PIECES_MAX,

	/* The wheel: a tick is 2^25 ns, some 34 ms; a turn 17 s. */
	WHEEL_TICK = 25,
	WHEEL_SLOTS = 512,
};

enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_PSH = 8, TCP_ACK = 16 };

/* The flow as the guest sees it. Compared and hashed as bytes. */
struct flow_key {
	struct net_addr remote;
	uint16_t remote_port, guest_port; /* ICMP: 0 and the identifier */
	uint32_t proto;
};

enum tcp_state {
	TCP_CONNECTING, /* the guest's SYN is here, the host is connecting */
	TCP_GREETED,	/* we have answered it with ours */
	TCP_CALLING,	/* ours is on its way to the guest, for somebody out there */
	TCP_OPEN,
};

/* Names are RFC 9293's, seen from us. */
struct tcp {
	enum tcp_state state;
	uint32_t iss, snd_una, snd_nxt, snd_max, snd_wnd, snd_wl1, snd_wl2;
	uint32_t irs, rcv_nxt, rcv_adv; /* rcv_adv: the edge of the window that was told */
	uint32_t ts_recent, last_ack;
	uint32_t fin_seq;   /* of our FIN, if at_end */
	uint32_t timed_una; /* what the timer awaits the acknowledgement of, if timed */
	uint32_t guess;	    /* how much the socket has: room is made for that */
	uint16_t mss;
	uint8_t snd_shift;
	uint8_t dupacks, retries;
	bool shifts, stamps; /* both ends scale windows, send time stamps */
	bool readable;	     /* the socket may have more */
	bool stops;	     /* less than asked for does not mean that there is no more */
	bool at_end;	     /* it ends at fin_seq */
	bool guest_fin, fin_acked;
	bool owes_ack, timed;
	bool broken;  /* the socket, when held data was sent */
	bool stalled; /* the guest sent what the socket did not take, and must send it again */
	TAILQ_ENTRY(flow) half; /* until it is open */
};

/* And echoes. */
struct udp {
	bool readable;
	uint64_t used; /* when something went through last */
	TAILQ_ENTRY(flow) quiet;
};

struct flow {
	struct flow_key key;
	struct net_addr to; /* where it really goes */
	uint16_t to_port;
	bool listed; /* on stack.owing */
	bool inbound;
	bool told;	   /* that it is open */
	bool dns, inspect; /* see flow_is_dns(), flow_inspect() */
	bool named;	   /* it was a name that allowed it */
	void *host;
	uint64_t since;	    /* when it began, then when it opened */
	uint64_t sent, got; /* payload from the guest, to it */
	uint64_t due;	    /* 0: no timer */
	uint64_t tick;	    /* where it is on the wheel; 0: nowhere */
	LIST_ENTRY(flow) bucket;
	LIST_ENTRY(flow) wheel;
	TAILQ_ENTRY(flow) owing;
	union {
		struct tcp tcp;
		struct udp udp;
	};
};

LIST_HEAD(flow_list, flow);
TAILQ_HEAD(flow_tail, flow);

struct stack {
	struct stack_config config;
	const struct stack_ops *ops;
	void *arg;
	bool csum, tso4, tso6;
	uint64_t now;
	struct stack_stats stats;
	struct net_bucket new_flows;

	struct flow_list *buckets;
	uint32_t bucket_mask;
	struct flow_list slots[WHEEL_SLOTS];
	uint64_t tick;	    /* the last that was served */
	uint64_t next_tick; /* none is due before; 0: none at all */
	struct flow_tail owing;
	struct flow_tail quiet; /* all but TCP, the one unused for longest first */
	struct {
		struct flow_tail flows; /* the oldest first */
		unsigned n;
	} half[2]; /* connections that are not open: the guest's, and others' to it */

	bool kept; /* the frame at hand, see stack_input() */
	struct {
		struct flow *f; /* NULL: nothing is held */
		struct iovec v[HELD_MAX];
		unsigned n;
		size_t len;
	} held; /* data in order that is yet to be sent */

	struct frag *frags[FRAGS_MAX];
	uint16_t frag_id;
	uint64_t advert_due; /* the next router advertisement; 0: nobody asked */

	uint8_t message[MESSAGE_MAX];
};

/* A packet from the guest, its headers checked. */
struct packet {
	const struct iovec *iov; /* the frame */
	unsigned n;
	size_t len; /* of it as far as IP says there is something */
	bool four;
	uint8_t proto;
	size_t l4; /* where that protocol's header begins */
	struct net_addr src, dst;
	uint8_t head[HEAD_MAX]; /* a copy of its beginning */
	size_t head_len;
	bool checked; /* no need to verify the checksum */
	bool joined;  /* by frag.c */
	bool whole;   /* not to be cut on its way: IPv6, or "don't fragment" */
};

/* ---- flow.c ---- */

uint64_t stack_hash(const struct stack *s, const void *p, size_t n);
int flow_table_init(struct stack *s);
struct flow *flow_find(struct stack *s, const struct flow_key *key);
/* NULL when there is no room. */
struct flow *flow_new(struct stack *s, const struct flow_key *key, enum net_direction direction);
/* A connection is, or will not be, half-open any more. */
void flow_made(struct stack *s, struct flow *f);
/* It is open; flow_free() tells the end. */
void flow_opened(struct stack *s, struct flow *f);
void flow_failed(struct stack *s, const struct flow *f, int error);
void stack_tell(struct stack *s, enum stack_news_kind kind, enum net_direction direction,
		uint8_t proto, const struct net_addr *peer, uint16_t port, uint16_t guest_port,
		const char *why);
/* Tells nobody. */
void flow_free(struct stack *s, struct flow *f);
/* The flow's only timer; 0 stops it. */
void flow_timer(struct stack *s, struct flow *f, uint64_t due);
void flow_owes(struct stack *s, struct flow *f);
/* Something went through a flow that has no end of its own; it ends @idle seconds after the last.
 */
void flow_used(struct stack *s, struct flow *f, unsigned idle);

/* ---- link.c: Ethernet and IP ---- */

void link_input(struct stack *s, const struct iovec *iov, unsigned n,
		const struct stack_meta *meta);
/* The one's complement sum of bytes, to be folded; @at is where they are in what is summed. */
uint64_t sum_bytes(const void *p, size_t n, uint64_t sum);
uint64_t sum_pieces(const struct iovec *iov, unsigned n, size_t off, size_t len, uint64_t sum);
uint16_t sum_fold(uint64_t sum);
uint64_t sum_pseudo(const struct net_addr *src, const struct net_addr *dst, uint8_t proto,
		    size_t len);
bool packet_intact(const struct packet *p);

/*
 * Ethernet and IP headers in front of @len bytes of @proto from @src to the guest's @dst; returns
 * their length.
 */
size_t link_header(const struct stack *s, uint8_t *h, const struct net_addr *src,
		   const struct net_addr *dst, uint8_t proto, size_t len);
/* A frame: head and message. False when the guest has no room for it. */
bool link_send(struct stack *s, const uint8_t *head, size_t head_len, const void *message,
	       size_t len, const struct stack_meta *meta);
/* The same, of a packet; it may be one that frag.c put together. */
void link_packet(struct stack *s, struct packet *p);
/* The guest's or the gateway's address of the family of @of. */
const struct net_addr *stack_guest(const struct stack *s, const struct net_addr *of);
const struct net_addr *stack_gateway(const struct stack *s, const struct net_addr *of);

/* Where a flow goes, and how. */
struct stack_way {
	struct net_addr to;
	bool dns, inspect, named;
};
/* ...one to @dst, if it may: 0, -EACCES. */
int stack_route(struct stack *s, uint8_t proto, const struct net_addr *dst, uint16_t port,
		struct stack_way *ret);
static inline void flow_send_on(struct flow *f, const struct stack_way *way)
{
	f->to = way->to;
	f->to_port = f->key.remote_port;
	f->dns = way->dns;
	f->inspect = way->inspect;
	f->named = way->named;
}

static inline void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}
static inline void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v & 0xffff);
}

/* ---- frag.c ---- */

/*
 * The part of a datagram at @off of it; @p->proto is the datagram's. When it was the last that was
 * missing, the whole goes the way of all packets.
 */
void frag_input(struct stack *s, const struct packet *p, uint32_t id, size_t off, bool more);
uint64_t frag_next(const struct stack *s);
void frag_tick(struct stack *s);
void frag_done(struct stack *s);
/*
 * A message of @proto with a header of 8 bytes, complete with its checksum, in as many frames as
 * the MTU makes of it.
 */
void frag_send(struct stack *s, const struct net_addr *src, const struct net_addr *dst,
	       uint8_t proto, const uint8_t header[8], const void *data, size_t len);

/* ---- ndp.c: neighbours and routers of IPv6 ---- */

/* A message that is for us as a router; false if it is none. */
bool ndp_input(struct stack *s, const struct packet *p, uint8_t type);
void ndp_tick(struct stack *s);
/* Our address on the link, where the guest expects routers to have one. */
struct net_addr ndp_link_local(const struct stack *s);

/* ---- dhcp.c, dhcp6.c ---- */

/* Is this for the server that we are? Then it had its answer. */
bool dhcp_input(struct stack *s, const struct packet *p, const void *m, size_t n);
bool dhcp6_input(struct stack *s, const struct packet *p, const void *m, size_t n);
enum { DHCP_SERVER = 67, DHCP_CLIENT = 68, DHCP6_CLIENT = 546, DHCP6_SERVER = 547 };

/* ---- icmp.c ---- */

void icmp_input(struct stack *s, const struct packet *p);
void icmp6_input(struct stack *s, const struct packet *p);
void echo_event(struct stack *s, struct flow *f, unsigned events, int error);
bool echo_run(struct stack *s, struct flow *f);
bool icmp_send(struct stack *s, const struct net_addr *src, const struct net_addr *dst,
	       uint8_t *message, size_t len);
/* @p is to an IPv4 address, which is not for IPv6 to reach. */
void icmp6_refuse(struct stack *s, const struct packet *p);
/* More than @mtu cannot go to @remote. */
void icmp_too_big(struct stack *s, const struct net_addr *remote, uint8_t proto, const uint8_t *l4,
		  size_t n, unsigned mtu);
/* Parts of a datagram were awaited in vain; @l4 is the first bytes of the first. */
void icmp_timeout(struct stack *s, const struct net_addr *remote, uint8_t proto, const uint8_t *l4,
		  size_t n);
/* Tell the guest why a packet to @remote went nowhere; @l4 is the first bytes of what it sent. */
void icmp_unreachable(struct stack *s, int error, const struct net_addr *remote, uint8_t proto,
		      const uint8_t *l4, size_t n);

/* ---- udp.c ---- */

void udp_input(struct stack *s, const struct packet *p);
void udp_event(struct stack *s, struct flow *f, unsigned events, int error);
/* What is owed; false when the guest's buffers ran out. */
bool udp_run(struct stack *s, struct flow *f);
void udp_timer(struct stack *s, struct flow *f);
void udp_accept(struct stack *s, struct flow *f);
void udp_send(struct stack *s, const struct net_addr *from, uint16_t from_port,
	      const struct net_addr *to, uint16_t to_port, const void *p, size_t n);
/* The host heard that what @f sent did not arrive; @l4 is how that began. Of echoes as well. */
void flow_bad_news(struct stack *s, struct flow *f, int error, const uint8_t *l4, size_t n);

/* ---- tcp.c, tcp_out.c ---- */

#define SEQ_LT(a, b) ((int32_t)((a) - (b)) < 0)
#define SEQ_LE(a, b) ((int32_t)((a) - (b)) <= 0)

void tcp_input(struct stack *s, const struct packet *p);
void tcp_event(struct stack *s, struct flow *f, unsigned events, int error);
bool tcp_run(struct stack *s, struct flow *f);
void tcp_timer(struct stack *s, struct flow *f);
void tcp_call(struct stack *s, struct flow *f);

/* A segment without data. False when there was no room for it. */
bool tcp_say(struct stack *s, struct flow *f, uint8_t flags, uint32_t seq);
/* For a segment of no flow. */
void tcp_refuse(struct stack *s, const struct packet *p, uint32_t seq, uint32_t ack, bool with_ack);
/* Send what there is and the window allows; @probe: a byte more. False for want of buffers. */
bool tcp_push(struct stack *s, struct flow *f, bool probe);
/* Set the timer for what is awaited. */
void tcp_wait(struct stack *s, struct flow *f);
/* Send what is held. No flow goes away by that. */
void tcp_settle(struct stack *s);
/* Cut it off on both sides. */
void tcp_reset(struct stack *s, struct flow *f);

#endif
