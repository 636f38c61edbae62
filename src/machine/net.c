/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/net.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "machine/exec_log.h"
#include "net/dns_tls.h"
#include "net/flow_log.h"
#include "net/host.h"
#include "net/plan.h"
#include "net/proxy.h"
#include "virtio/net.h"

/* Lives until the device's worker has let go of it. */
struct machine_net {
	struct virtio_device *dev;
	struct net_host *host;
	bool started;
	unsigned most_flows; /* that this process can have */
	struct exec_log *exec_log;
	struct flow_log log;
	struct loop_timer log_timer;
	/* The stack's figures, for other threads. */
	struct {
		_Atomic uint64_t rx_bytes, rx_packets, tx_bytes, tx_packets, opened, denied, flows,
			lookups, lookups_denied;
	} usage;
};

static void publish(struct machine_net *n)
{
	const struct stack_stats *s = stack_stats(net_host_stack(n->host));
	const struct resolver_stats *d = net_host_dns(n->host);

#define SET(to, from) atomic_store_explicit(&n->usage.to, from, memory_order_relaxed)
	SET(rx_bytes, s->bytes_out);
	SET(rx_packets, s->frames_out);
	SET(tx_bytes, s->bytes_in);
	SET(tx_packets, s->frames_in);
	SET(opened, s->opened);
	SET(denied, s->denied);
	SET(flows, s->flows);
	SET(lookups, d->questions);
	SET(lookups_denied, d->denied + d->limited);
#undef SET
}

void machine_net_usage(const struct machine_net *n, struct machine_net_usage *ret)
{
#define GET(what) .what = atomic_load_explicit(&n->usage.what, memory_order_relaxed)
	*ret = (struct machine_net_usage){
		GET(rx_bytes), GET(rx_packets), GET(tx_bytes), GET(tx_packets),	    GET(opened),
		GET(denied),   GET(flows),	GET(lookups),  GET(lookups_denied),
	};
#undef GET
}

static unsigned reserve(void *arg, size_t len, struct iovec *iov, unsigned max)
{
	return net_device_reserve(((struct machine_net *)arg)->dev, len, iov, max);
}

static void commit(void *arg, size_t len, const struct stack_meta *meta)
{
	struct machine_net *n = arg;
	static const uint8_t gso[] = {
		[STACK_GSO_NONE] = VIRTIO_NET_HDR_GSO_NONE,
		[STACK_GSO_TCP4] = VIRTIO_NET_HDR_GSO_TCPV4,
		[STACK_GSO_TCP6] = VIRTIO_NET_HDR_GSO_TCPV6,
	};
	struct virtio_net_hdr_v1 h = {0};

	if (meta) {
		h.flags = meta->partial ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0;
		h.csum_start = meta->csum_start;
		h.csum_offset = meta->csum_offset;
		h.gso_type = gso[meta->gso];
		h.gso_size = meta->gso_size;
		h.hdr_len = meta->hdr_len;
	}
	net_device_commit(n->dev, len, &h);
	/* Of all frames but this one, which counts with the next or when the guest has taken it. */
	if (n->host)
		publish(n);
}

static void resume(void *arg)
{
	net_device_resume(((struct machine_net *)arg)->dev);
}

/* ---- the log ---- */

static void put_line(void *arg, const char *text, const char *members, bool refused)
{
	exec_log_network(((struct machine_net *)arg)->exec_log, text, members, refused);
}

static void wait_for_log(struct machine_net *n)
{
	uint64_t due = flow_log_next(&n->log);

	if (due && !loop_timer_armed(&n->log_timer))
		(void)loop_timer_at(virtio_queue_loop(n->dev, 0), &n->log_timer, due);
}

static void on_log_timer(struct loop_timer *t)
{
	struct machine_net *n = container_of(t, struct machine_net, log_timer);

	flow_log_tick(&n->log, now_ns());
	wait_for_log(n);
}

static void news(void *arg, const struct stack_news *what)
{
	struct machine_net *n = arg;

	if (!n->exec_log)
		return;
	flow_log_news(&n->log, what, now_ns());
	wait_for_log(n);
}

static void name_news(void *arg, const struct resolver_news *what)
{
	struct machine_net *n = arg;

	if (!n->exec_log)
		return;
	flow_log_name(&n->log, what, now_ns());
	wait_for_log(n);
}

void machine_net_log(struct machine_net *n, struct exec_log *log)
{
	n->exec_log = log;
}

static const struct net_guest_ops guest_ops = {
	.resume = resume,
	.reserve = reserve,
	.commit = commit,
	.news = news,
	.names = name_news,
};

static unsigned frames(void *arg)
{
	return net_host_frames(((struct machine_net *)arg)->host);
}

static void features(void *arg, uint64_t f)
{
	struct machine_net *n = arg;
	int r;

	stack_offload(net_host_stack(n->host), f >> VIRTIO_NET_F_GUEST_CSUM & 1,
		      f >> VIRTIO_NET_F_GUEST_TSO4 & 1, f >> VIRTIO_NET_F_GUEST_TSO6 & 1);
	if (n->started)
		return;
	n->started = true;
	r = net_host_start(n->host);
	if (r < 0)
		log_error("net: cannot watch the published ports: %s", err_name(r));
}

static void input(void *arg, const struct iovec *iov, unsigned n, const struct virtio_net_hdr_v1 *h)
{
	struct machine_net *net = arg;
	/* A frame that never left memory needs no sum; that of the headers is made by the host. */
	const struct stack_meta meta = {.partial = h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM};

	net_host_input(net->host, iov, n, &meta);
}

static void settle(void *arg)
{
	struct machine_net *n = arg;

	net_host_settle(n->host);
}

static void run(void *arg)
{
	struct machine_net *n = arg;

	net_host_run(n->host);
	publish(n);
}

static void stop(void *arg)
{
	struct machine_net *n = arg;
	const struct stack_stats *s;

	/* Its device was made, and then it failed. */
	if (!n->host) {
		free(n);
		return;
	}
	s = stack_stats(net_host_stack(n->host));
	log_debug("net: %llu frames in, %llu out; %llu flows, %llu denied, %llu without room; "
		  "%llu malformed, %llu not carried",
		  (unsigned long long)s->frames_in, (unsigned long long)s->frames_out,
		  (unsigned long long)s->opened, (unsigned long long)s->denied,
		  (unsigned long long)s->full, (unsigned long long)s->malformed,
		  (unsigned long long)s->unsupported);
	net_host_free(n->host);
	loop_timer_stop(&n->log_timer);
	if (n->exec_log)
		flow_log_end(&n->log);
	free(n);
}

static const struct net_backend_ops backend_ops = {
	.features = features,
	.frames = frames,
	.input = input,
	.settle = settle,
	.run = run,
	.stop = stop,
};

static bool said(const char *text)
{
	return text && *text;
}

static int make_policy(const struct vm_net *c, struct net_policy *p, struct err *err)
{
	int r = 0;

	net_policy_init(p);
	if (said(c->profiles))
		r = net_policy_profile(p, c->profiles, err);
	if (r == 0 && said(c->egress))
		r = net_policy_default(p, NET_EGRESS, c->egress, err);
	if (r == 0 && said(c->ingress))
		r = net_policy_default(p, NET_INGRESS, c->ingress, err);
	for (size_t i = 0; r == 0 && i < c->rules.n; i++)
		r = net_policy_rules(p, c->rules.v[i], err);
	return r;
}

/* What can change: the policy, and limits. */
static int govern(const struct vm_net *c, unsigned most_flows, struct stack_config *s,
		  struct err *err)
{
	s->max_flows = most_flows;
	for (size_t i = 0; i < c->limits.n; i++) {
		int r = net_limits_set_pair(&s->limits, c->limits.v[i], err);

		if (r < 0)
			return r;
	}
	if (s->limits.connections)
		s->max_flows = MIN(s->max_flows, s->limits.connections);
	return make_policy(c, &s->policy, err);
}

static int configure_names(const struct vm_net *c, struct stack_config *s,
			   struct resolver_config *dns, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < c->servers.n && r == 0; i++)
		r = resolver_add_server(dns, c->servers.v[i], err);
	for (size_t i = 0; i < c->hosts.n && r == 0; i++)
		r = resolver_add_host(dns, c->hosts.v[i], err);
	for (size_t i = 0; i < c->names.n && r == 0; i++)
		r = net_plan_names(dns, c->names.v[i], err);
	s->strict = dns->strict;
	net_plan_resolver(dns, s, "/etc/resolv.conf");
	return r;
}

static int configure(const struct vm_net *c, unsigned most_flows, struct stack_config *s,
		     struct resolver_config *dns, struct err *err)
{
	int r;

	net_plan(s, c->ipv6);
	if (getrandom(s->seed, sizeof(s->seed), 0) != sizeof(s->seed))
		return err_errno(err, "the host gives no random numbers");
	r = configure_names(c, s, dns, err);
	return r < 0 ? r : govern(c, most_flows, s, err);
}

static int set_proxy(struct net_host *h, const struct vm_net *c, struct err *err)
{
	struct net_proxy p;
	int r;

	if (!said(c->proxy))
		return 0;
	r = net_proxy_parse(c->proxy, &p, err);
	if (r == 0)
		r = net_proxy_login(&p, c->proxy_user ? c->proxy_user : "",
				    c->proxy_password ? c->proxy_password : "", err);
	if (r == 0)
		net_host_proxy(h, &p);
	return r;
}

int machine_net_begin(const struct vm_config *c, int *ret, struct err *err)
{
	return said(c->net.dot) ? dns_tls_begin(c->net.dot, ret, err) : 0;
}

int machine_net_tls(struct machine_net *n, int fd, struct err *err)
{
	int r = dns_tls_ready(fd, err);

	if (r == 0 && net_host_tls(n->host, fd) < 0)
		r = err_set(err, ENOMEM, "cannot ask name servers over TLS: out of memory");
	return r;
}

static int open_ports(const struct vm_net *c, struct net_port *ports, unsigned *n,
		      struct strv *published, struct err *err)
{
	char text[NET_PORT_TEXT];

	for (size_t i = 0; i < c->ports.n; i++) {
		int r = net_port_parse(c->ports.v[i], ports + *n, NET_PORTS_MAX - *n, err);

		for (int k = 0; k < r; k++, ++*n) {
			int e = net_port_open(&ports[*n], err);

			if (e < 0)
				return e;
			if (strv_add(published, net_port_text(&ports[*n], text)) < 0)
				r = err_set(err, ENOMEM, "cannot publish ports: out of memory");
		}
		if (r < 0)
			return r;
	}
	return 0;
}

int machine_net_new(const struct vm_config *c, struct virtio_device **ret, struct machine_net **net,
		    struct strv *published, struct err *err)
{
	cleanup_free struct stack_config *s = calloc(1, sizeof(*s));
	cleanup_free struct resolver_config *dns = calloc(1, sizeof(*dns));
	cleanup_free struct net_port *ports = calloc(NET_PORTS_MAX, sizeof(*ports));
	struct machine_net *n = calloc(1, sizeof(*n));
	unsigned nports = 0;
	int r;

	if (!s || !dns || !ports || !n) {
		free(n);
		return err_set(err, ENOMEM, "cannot create a network: out of memory");
	}
	n->log = (struct flow_log){.fn = put_line, .arg = n};
	n->log_timer.fn = on_log_timer;
	n->most_flows = net_host_flows();
	r = configure(&c->net, n->most_flows, s, dns, err);
	if (r == 0)
		r = open_ports(&c->net, ports, &nports, published, err);
	if (r == 0)
		r = net_device_new(s->guest_mac, &backend_ops, n, &n->dev, err);
	if (r < 0)
		goto fail;
	r = net_host_new(s, dns, &guest_ops, n, virtio_queue_loop(n->dev, 0), ports, nports,
			 &n->host, err);
	if (r < 0)
		goto fail;
	/* From here on the ports are the host's. */
	nports = 0;
	r = set_proxy(n->host, &c->net, err);
	if (r < 0)
		goto fail;
	*ret = n->dev;
	*net = n;
	return 0;
fail:
	for (unsigned i = 0; i < nports; i++)
		close_fd(ports[i].fd);
	if (n->dev)
		virtio_device_free(n->dev);
	else
		free(n);
	return r;
}

/* ---- changes, of the main thread ---- */

struct change {
	struct machine_net *n;
	const struct stack_config *config;
	struct net_port *ports;
	unsigned nports;
	bool add;
	int result;
	struct err *err;
};

static void change_on_worker(void *arg)
{
	const struct change *c = arg;

	net_host_change(c->n->host, &c->config->policy, &c->config->limits, c->config->max_flows);
}

int machine_net_change(struct machine_net *n, const struct vm_net *c, struct err *err)
{
	cleanup_free struct stack_config *s = calloc(1, sizeof(*s));
	struct change change = {.n = n, .config = s};
	int r = s ? govern(c, n->most_flows, s, err) : err_set(err, ENOMEM, "out of memory");

	if (r == 0)
		loop_call(virtio_queue_loop(n->dev, 0), change_on_worker, &change);
	return r;
}

/* All or none. */
static void ports_on_worker(void *arg)
{
	struct change *c = arg;
	unsigned i;

	for (i = 0; i < c->nports && c->result == 0; i++) {
		if (!c->add)
			(void)net_host_remove_port(c->n->host, &c->ports[i]);
		else
			c->result = net_host_add_port(c->n->host, &c->ports[i], c->err);
	}
	if (c->result == 0)
		return;
	/* The last one has failed, and its descriptor is the caller's still. */
	while (--i > 0) {
		(void)net_host_remove_port(c->n->host, &c->ports[i - 1]);
		c->ports[i - 1].fd = -1;
	}
}

/* "127.0.0.1:8080->80/tcp" */
static int parse_shown(const char *text, struct net_port *ret, struct err *err)
{
	cleanup_free char *copy = strdup(text);
	char *arrow = copy ? strstr(copy, "->") : NULL;

	if (!arrow)
		return err_set(err, ERR_USAGE, "no port: \"%s\"", text);
	*arrow = ':';
	memmove(arrow + 1, arrow + 2, strlen(arrow + 2) + 1);
	return net_port_parse(copy, ret, 1, err);
}

int machine_net_ports(struct machine_net *n, const struct wire_texts *ports, int *fds, bool add,
		      struct err *err)
{
	cleanup_free struct net_port *p = calloc(ports->n + 1, sizeof(*p));
	struct change c = {
		.n = n, .ports = p, .nports = (unsigned)ports->n, .add = add, .err = err};

	if (!p)
		return err_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < ports->n; i++) {
		int r = parse_shown(ports->v[i], &p[i], err);

		if (r < 0)
			return r;
		if (add)
			p[i].fd = fds[i];
	}
	loop_call(virtio_queue_loop(n->dev, 0), ports_on_worker, &c);
	for (size_t i = 0; add && i < ports->n; i++) {
		if (c.result == 0 || p[i].fd < 0)
			fds[i] = -1;
	}
	return c.result;
}
