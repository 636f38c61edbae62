/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "net/stack_impl.h"

int stack_new(const struct stack_config *config, const struct stack_ops *ops, void *arg,
	      struct stack **ret, struct err *err)
{
	struct stack *s;

	if (config->mtu < STACK_MTU_MIN || config->mtu > STACK_MTU_MAX)
		return err_set(err, EINVAL, "a network cannot have an MTU of %u", config->mtu);
	if (config->max_flows > STACK_FLOWS_MAX)
		return err_set(err, ERR_LIMIT, "%u connections are more than the %d there can be",
			       config->max_flows, STACK_FLOWS_MAX);
	s = calloc(1, sizeof(*s));
	if (s) {
		s->config = *config;
		if (!s->config.max_flows)
			s->config.max_flows = STACK_FLOWS_DEFAULT;
		net_bucket_init(&s->new_flows, &config->limits.rate[NET_RATE_CONNECTIONS], 0);
		s->ops = ops;
		s->arg = arg;
	}
	if (!s || flow_table_init(s) < 0) {
		free(s);
		return err_set(err, ENOMEM, "cannot create a network: out of memory");
	}
	*ret = s;
	return 0;
}

struct stack *stack_free(struct stack *s)
{
	if (!s)
		return NULL;
	for (uint32_t b = 0; b <= s->bucket_mask; b++) {
		struct flow *f;

		while ((f = LIST_FIRST(&s->buckets[b]))) {
			s->ops->close(s->arg, f, true);
			flow_free(s, f);
		}
	}
	frag_done(s);
	free(s->buckets);
	free(s);
	return NULL;
}

void stack_offload(struct stack *s, bool csum, bool tso4, bool tso6)
{
	s->csum = csum;
	s->tso4 = csum && tso4;
	s->tso6 = csum && tso6;
}

const struct stack_stats *stack_stats(const struct stack *s)
{
	return &s->stats;
}

const struct net_addr *stack_guest(const struct stack *s, const struct net_addr *of)
{
	return net_addr_is_v4(of) ? &s->config.guest4 : &s->config.guest6;
}

const struct net_addr *stack_gateway(const struct stack *s, const struct net_addr *of)
{
	return net_addr_is_v4(of) ? &s->config.gateway4 : &s->config.gateway6;
}

void stack_input(struct stack *s, const struct iovec *iov, unsigned n,
		 const struct stack_meta *meta, bool kept, uint64_t now)
{
	s->now = now;
	s->kept = kept;
	s->stats.frames_in++;
	link_input(s, iov, n, meta);
}

void stack_settle(struct stack *s)
{
	tcp_settle(s);
}

bool stack_run(struct stack *s, uint64_t now)
{
	struct flow_tail todo = TAILQ_HEAD_INITIALIZER(todo);
	struct flow *f;

	/* What has more to say than its turn allows comes again with the next call. */
	s->now = now;
	TAILQ_CONCAT(&todo, &s->owing, owing);
	while ((f = TAILQ_FIRST(&todo))) {
		bool enough;

		TAILQ_REMOVE(&todo, f, owing);
		f->listed = false;
		if (f->key.proto == NET_TCP)
			enough = tcp_run(s, f);
		else if (f->key.proto == NET_UDP)
			enough = udp_run(s, f);
		else
			enough = echo_run(s, f);
		if (enough)
			continue;
		/* It is at the end of the list again; so are, in their order, those behind it. */
		TAILQ_CONCAT(&todo, &s->owing, owing);
		TAILQ_CONCAT(&s->owing, &todo, owing);
		return false;
	}
	return !TAILQ_EMPTY(&s->owing);
}

void stack_event(struct stack *s, struct flow *f, unsigned events, int error, uint64_t now)
{
	s->now = now;
	if (f->key.proto == NET_TCP)
		tcp_event(s, f, events, error);
	else if (f->key.proto == NET_UDP)
		udp_event(s, f, events, error);
	else
		echo_event(s, f, events, error);
}

/* ---- where to ---- */

static struct net_addr host_for(const struct stack *s, const struct net_addr *gateway)
{
	return net_addr_is_v4(gateway) ? s->config.host4 : s->config.host6;
}

static bool is_gateway(const struct stack *s, const struct net_addr *a)
{
	return net_addr_equal(a, stack_gateway(s, a));
}

/* Is it an address of the host's own, in any spelling? */
static bool is_host(struct stack *s, const struct net_addr *a)
{
	struct net_addr inner[NET_ADDR_INNER];
	unsigned n = net_addr_inner(a, inner);

	while (n--) {
		if (s->ops->is_local(s->arg, &inner[n]))
			return true;
	}
	return s->ops->is_local(s->arg, a);
}

/*
 * Is the flow allowed? @name is what it says itself, of @strict; else whatever the guest knows the
 * address as at @then.
 */
static enum net_verdict ask_policy(struct stack *s, uint8_t proto, const struct net_addr *dst,
				   uint16_t port, bool by_name, const struct dns_name *name,
				   uint64_t then)
{
	const bool gateway = is_gateway(s, dst);
	struct net_question q = {
		.direction = NET_EGRESS,
		.proto = proto,
		.port = port,
		.peer = *dst,
	};
	enum net_kind kind = net_addr_kind(dst);
	struct net_rules named;

	/* The gateway's own address may be anything; the other ones that are the host's are not. */
	q.host = gateway || is_host(s, dst);
	/* The host has one name, and what is nobody's but a machine's or a cloud's has none. */
	if (s->config.names &&
	    (gateway || (!q.host && (kind == NET_PUBLIC || kind == NET_PRIVATE)))) {
		if (!by_name)
			names_rules(s->config.names, dst, then, &named);
		if (!by_name || (name && names_has(s->config.names, dst, name, then, &named)))
			q.named = &named;
	}
	return net_policy_decide(&s->config.policy, &q);
}

int stack_route(struct stack *s, uint8_t proto, const struct net_addr *dst, uint16_t port,
		struct stack_way *ret)
{
	const bool gateway = is_gateway(s, dst);
	enum net_verdict verdict;

	*ret = (struct stack_way){.to = gateway ? host_for(s, dst) : *dst};
	/* Who may ask what, the name service knows. */
	ret->dns = port == DNS_PORT && (proto == NET_UDP || proto == NET_TCP);
	if (ret->dns)
		return 0;
	verdict = ask_policy(s, proto, dst, port, false, NULL, s->now);
	ret->named = verdict == NET_ALLOWED_BY_NAME;
	ret->inspect = ret->named && s->config.strict;
	if (verdict == NET_DENIED || (ret->inspect && proto != NET_TCP)) {
		s->stats.denied++;
		stack_tell(s, STACK_DENIED, NET_EGRESS, proto, dst, port, 0, "policy");
		return -EACCES;
	}
	return 0;
}

bool flow_is_dns(const struct flow *f)
{
	return f->dns;
}

bool flow_inspect(const struct flow *f)
{
	return f->inspect;
}

bool stack_agrees(struct stack *s, struct flow *f, const struct dns_name *name, uint64_t now)
{
	s->now = now;
	if (ask_policy(s, f->key.proto & 0xff, &f->key.remote, f->key.remote_port, true, name,
		       s->now) != NET_DENIED)
		return true;
	s->stats.denied++;
	stack_tell(s, STACK_DENIED, NET_EGRESS, NET_TCP, &f->key.remote, f->key.remote_port, 0,
		   "name");
	return false;
}

const struct net_policy *stack_policy(const struct stack *s)
{
	return &s->config.policy;
}

static bool allows_in(const struct stack *s, uint8_t proto, const struct net_addr *peer,
		      uint16_t guest_port)
{
	const struct net_question q = {
		.direction = NET_INGRESS,
		.proto = proto,
		.port = guest_port,
		.peer = *peer,
	};

	return net_policy_allows(&s->config.policy, &q);
}

/* ---- changes ---- */

static bool may_stay(struct stack *s, const struct flow *f)
{
	if (f->dns)
		return true;
	if (f->inbound)
		return allows_in(s, (uint8_t)f->key.proto, &f->to, f->key.guest_port);
	/* A name that was good for it is good for as long as it is open. */
	return ask_policy(s, (uint8_t)f->key.proto, &f->key.remote, f->key.remote_port, false, NULL,
			  f->named ? 0 : s->now) != NET_DENIED;
}

static void cut(struct stack *s, struct flow *f)
{
	stack_tell(s, STACK_DENIED, f->inbound ? NET_INGRESS : NET_EGRESS, (uint8_t)f->key.proto,
		   f->inbound ? &f->to : &f->key.remote,
		   f->inbound ? f->to_port : f->key.remote_port, f->key.guest_port,
		   "policy, as it is now");
	if (f->key.proto == NET_TCP) {
		tcp_reset(s, f);
	} else {
		s->ops->close(s->arg, f, true);
		flow_free(s, f);
	}
}

void stack_change(struct stack *s, const struct net_policy *policy, const struct net_limits *limits,
		  unsigned max_flows, uint64_t now)
{
	s->now = now;
	s->config.policy = *policy;
	if (s->config.names)
		names_policy(s->config.names, &s->config.policy);
	s->config.limits = *limits;
	s->config.max_flows = max_flows;
	net_bucket_change(&s->new_flows, &limits->rate[NET_RATE_CONNECTIONS], now);
	for (uint32_t b = 0; b <= s->bucket_mask; b++) {
		struct flow *f = LIST_FIRST(&s->buckets[b]), *next;

		for (; f; f = next) {
			next = LIST_NEXT(f, bucket);
			if (!may_stay(s, f))
				cut(s, f);
		}
	}
}

struct flow *stack_accept(struct stack *s, uint8_t proto, const struct net_addr *peer,
			  uint16_t port, uint16_t guest_port, void *host, uint64_t now)
{
	struct flow_key key = {.proto = proto, .guest_port = guest_port, .remote_port = port};
	enum net_kind kind = net_addr_kind(peer);
	struct flow *f;

	s->now = now;
	if (!allows_in(s, proto, peer, guest_port)) {
		s->stats.denied++;
		stack_tell(s, STACK_DENIED, NET_INGRESS, proto, peer, port, guest_port, "policy");
		return NULL;
	}
	key.remote = *peer;
	/* The guest has its own loopback and link. What it does not speak comes in the other form.
	 */
	if (kind == NET_LOOPBACK || kind == NET_LINK_LOCAL || s->ops->is_local(s->arg, peer) ||
	    net_addr_equal(peer, stack_guest(s, peer)))
		key.remote = *stack_gateway(s, peer);
	if (!key.remote.b[0] && !net_addr_is_v4(&key.remote))
		key.remote = s->config.gateway4;
	/* Two clients can look the same from inside: the second gets another port. */
	for (uint16_t tries = 0; (f = flow_find(s, &key)); tries++) {
		const struct {
			struct net_addr peer;
			uint16_t port, tries;
		} who = {*peer, port, tries};

		if (proto == NET_UDP && f->to_port == port && net_addr_equal(&f->to, peer))
			return f;
		if (tries == 64)
			return NULL;
		key.remote_port = (uint16_t)(1024 + stack_hash(s, &who, sizeof(who)) % 64000);
	}
	f = flow_new(s, &key, NET_INGRESS);
	if (!f)
		return NULL;
	f->host = host;
	f->to = *peer;
	f->to_port = port;
	if (proto == NET_TCP)
		tcp_call(s, f);
	else
		udp_accept(s, f);
	return f;
}
