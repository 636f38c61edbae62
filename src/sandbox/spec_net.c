/* SPDX-License-Identifier: Apache-2.0 */
/* What a sandbox may reach, and from where it is reached. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "machine/vm_config.h"
#include "net/host.h"
#include "net/limit.h"
#include "net/plan.h"
#include "net/policy.h"
#include "net/proxy.h"
#include "sandbox/spec.h"

static int out_of_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

int sandbox_spec_net(struct sandbox_spec *s, const char *text, struct err *err)
{
	cleanup_free struct net_policy *p = calloc(1, sizeof(*p));
	char *copy;
	int r;

	if (!p)
		return out_of_memory(err);
	net_policy_init(p);
	r = net_policy_profile(p, text, err);
	if (r < 0)
		return r;
	copy = strdup(text);
	if (!copy)
		return out_of_memory(err);
	free(s->net);
	s->net = copy;
	return 0;
}

/* A comma and what is behind it is one more. */
static unsigned count_rules(const char *text)
{
	unsigned n = 1;

	while ((text = strchr(text, ',')) && *text++)
		n++;
	return n;
}

int sandbox_spec_net_rule(struct sandbox_spec *s, const char *text, struct err *err)
{
	cleanup_free struct net_policy *p = calloc(1, sizeof(*p));
	unsigned n = count_rules(text);
	int r;

	if (!p)
		return out_of_memory(err);
	net_policy_init(p);
	r = net_policy_rules(p, text, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < s->net_rules.n; i++)
		n += count_rules(s->net_rules.v[i]);
	if (n > NET_RULES_MAX)
		return err_set(err, ERR_USAGE, "more than %d network rules", NET_RULES_MAX);
	return strv_add(&s->net_rules, text) < 0 ? out_of_memory(err) : 0;
}

static int set_default(char **at, const char *text, struct err *err)
{
	struct net_policy *p = calloc(1, sizeof(*p));
	int r = p ? net_policy_default(p, NET_EGRESS | NET_INGRESS, text, err) : out_of_memory(err);
	char *copy;

	free(p);
	if (r < 0)
		return r;
	copy = strdup(text);
	if (!copy)
		return out_of_memory(err);
	free(*at);
	*at = copy;
	return 0;
}

int sandbox_spec_net_egress(struct sandbox_spec *s, const char *text, struct err *err)
{
	return set_default(&s->net_egress, text, err);
}

int sandbox_spec_net_ingress(struct sandbox_spec *s, const char *text, struct err *err)
{
	return set_default(&s->net_ingress, text, err);
}

int sandbox_spec_net_default(struct sandbox_spec *s, const char *text, struct err *err)
{
	int r = set_default(&s->net_egress, text, err);

	return r < 0 ? r : set_default(&s->net_ingress, text, err);
}

int sandbox_spec_net_limit(struct sandbox_spec *s, const char *key, const char *text,
			   struct err *err)
{
	cleanup_free char *pair = str_fmt("%s=%s", key, text);
	struct net_limits l = {0};
	int r = net_limits_set(&l, key, text, err);

	if (r < 0)
		return r;
	return !pair || strv_env_set(&s->net_limits, pair) < 0 ? out_of_memory(err) : 0;
}

/* With those before it, as there can be too many. */
static int add_text(struct strv *to, const char *text,
		    int (*add)(struct resolver_config *c, const char *text, struct err *err),
		    struct err *err)
{
	cleanup_free struct resolver_config *c = calloc(1, sizeof(*c));
	int r = c ? 0 : out_of_memory(err);

	if (c)
		c->hosts_may = true;
	for (size_t i = 0; i < to->n && r == 0; i++)
		r = add(c, to->v[i], err);
	if (r == 0)
		r = add(c, text, err);
	if (r < 0)
		return r;
	return strv_add(to, text) < 0 ? out_of_memory(err) : 0;
}

int sandbox_spec_dns_server(struct sandbox_spec *s, const char *text, struct err *err)
{
	return add_text(&s->dns_servers, text, resolver_add_server, err);
}

bool sandbox_spec_dns_over_tls(const struct sandbox_spec *s)
{
	for (size_t i = 0; i < s->dns_servers.n; i++) {
		if (str_starts(s->dns_servers.v[i], RESOLVER_TLS_SCHEME))
			return true;
	}
	return false;
}

/* Add the server with each address that this host knows its name by, as far as there is room. */
static int find_server(const struct resolver_server *s, size_t most, struct strv *ret,
		       struct err *err)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
	const size_t before = ret->n;
	struct addrinfo *list = NULL;
	char text[INET6_ADDRSTRLEN];
	int e = getaddrinfo(s->host, NULL, &hints, &list), r = 0;

	for (struct addrinfo *i = e ? NULL : list; i && ret->n < most && r == 0; i = i->ai_next) {
		/* Those of a link, which have its name behind them, are nobody's but the link's. */
		if (getnameinfo(i->ai_addr, i->ai_addrlen, text, sizeof(text), NULL, 0,
				NI_NUMERICHOST) != 0 ||
		    strchr(text, '%'))
			continue;
		r = strv_addf(ret, RESOLVER_TLS_SCHEME "[%s]:%u#%s", text, s->port, s->name);
	}
	if (!e)
		freeaddrinfo(list);
	if (r < 0)
		return out_of_memory(err);
	if (ret->n > before)
		return 0;
	err_set(err, ENOENT, "this host finds no address of the name server %s: %s", s->host,
		gai_strerror(e ? e : EAI_NONAME));
	return err_hint(err, "say the address, too: --dns-nameserver tls://IP:%u#%s", s->port,
			s->name);
}

int sandbox_spec_dns_find(const struct sandbox_spec *s, struct strv *ret, struct err *err)
{
	cleanup_free struct resolver_config *c = calloc(1, sizeof(*c));
	int r = c ? 0 : out_of_memory(err);

	if (c)
		c->hosts_may = true;
	for (size_t i = 0; i < s->dns_servers.n && r == 0; i++) {
		const size_t behind = s->dns_servers.n - i - 1;
		const struct resolver_server *last;

		r = resolver_add_server(c, s->dns_servers.v[i], err);
		last = &c->server[i];
		if (r == 0 && last->host[0])
			r = find_server(last, RESOLVER_SERVERS_MAX - behind, ret, err);
		else if (r == 0 && strv_add(ret, s->dns_servers.v[i]) < 0)
			r = out_of_memory(err);
	}
	return r;
}

int sandbox_spec_dns_host(struct sandbox_spec *s, const char *text, struct err *err)
{
	return add_text(&s->dns_hosts, text, resolver_add_host, err);
}

int sandbox_spec_net_name(struct sandbox_spec *s, const char *key, const char *text,
			  struct err *err)
{
	cleanup_free struct resolver_config *c = calloc(1, sizeof(*c));
	cleanup_free char *pair = str_fmt("%s=%s", key, text);
	int r = c && pair ? net_plan_names(c, pair, err) : out_of_memory(err);

	if (r < 0)
		return r;
	return strv_env_set(&s->net_names, pair) < 0 ? out_of_memory(err) : 0;
}

/* ---- the proxy ---- */

static int keep(char **at, const char *text, struct err *err)
{
	char *copy = strdup(text);

	if (!copy)
		return out_of_memory(err);
	free(*at);
	*at = copy;
	return 0;
}

int sandbox_spec_proxy(struct sandbox_spec *s, const char *text, struct err *err)
{
	struct net_proxy p;
	int r = net_proxy_parse(text, &p, err);

	return r < 0 ? r : keep(&s->proxy, text, err);
}

int sandbox_spec_proxy_user(struct sandbox_spec *s, const char *text, struct err *err)
{
	return keep(&s->proxy_user, text, err);
}

int sandbox_spec_proxy_password_env(struct sandbox_spec *s, const char *text, struct err *err)
{
	if (!*text || strchr(text, '='))
		return err_set(err, ERR_USAGE, "no name of a variable: \"%.60s\"", text);
	return keep(&s->proxy_password_env, text, err);
}

static const char *text_or(const char *text)
{
	return text ? text : "";
}

int sandbox_spec_proxy_check(const struct sandbox_spec *s, struct err *err)
{
	const char *env = s->proxy_password_env, *password = env ? getenv(env) : "";
	struct net_proxy p;
	int r;

	if (!s->proxy)
		return 0;
	if (!password) {
		err_set(err, ERR_USAGE, "the environment has no %s, the password for the proxy",
			env);
		return err_hint(err, "set it where the sandbox is started");
	}
	r = net_proxy_parse(s->proxy, &p, err);
	return r < 0 ? r : net_proxy_login(&p, text_or(s->proxy_user), password, err);
}

static int check_proxy(const struct sandbox_spec *s, struct err *err)
{
	if (s->proxy || (!s->proxy_user && !s->proxy_password_env))
		return 0;
	err_set(err, ERR_USAGE, "a login for a proxy, and no proxy");
	return err_hint(err, "add --proxy socks5://IP:PORT");
}

static int check_ports(const struct sandbox_spec *s, struct err *err)
{
	cleanup_free struct net_port *ports = calloc(NET_PORTS_MAX, sizeof(*ports));
	unsigned n = 0;
	int r = ports ? 0 : out_of_memory(err);

	for (size_t i = 0; i < s->ports.n && r >= 0; i++) {
		r = net_port_parse(s->ports.v[i], ports, NET_PORTS_MAX - n, err);
		n += r > 0 ? (unsigned)r : 0;
	}
	return r < 0 ? r : 0;
}

int sandbox_spec_net_check(const struct sandbox_spec *s, struct err *err)
{
	struct net_limits l = {0};
	int r = check_ports(s, err);

	if (r == 0)
		r = check_proxy(s, err);
	if (r == 0 && s->net && s->net_egress) {
		err_set(err, ERR_USAGE,
			"the network profile \"%s\" and the default \"%s\" exclude each other",
			s->net, s->net_egress);
		return err_hint(err,
				"a profile is a default with exceptions; --net-rule adds more");
	}
	for (size_t i = 0; i < s->net_limits.n && r == 0; i++)
		r = net_limits_set_pair(&l, s->net_limits.v[i], err);
	return r < 0 ? r : net_limits_check(&l, err);
}

struct vm_net sandbox_vm_net(const struct sandbox_spec *spec)
{
	return (struct vm_net){
		.profiles = spec->net	       ? spec->net
			    : spec->net_egress ? NULL
					       : (char *)(uintptr_t) "public",
		.egress = spec->net_egress,
		.ingress = spec->net_ingress,
		.rules = {spec->net_rules.v, spec->net_rules.n},
		.limits = {spec->net_limits.v, spec->net_limits.n},
		.ports = {spec->ports.v, spec->ports.n},
		.servers = {spec->dns_servers.v, spec->dns_servers.n},
		.hosts = {spec->dns_hosts.v, spec->dns_hosts.n},
		.names = {spec->net_names.v, spec->net_names.n},
		.proxy = spec->proxy,
		.proxy_user = spec->proxy_user,
		.proxy_password =
			spec->proxy_password_env ? getenv(spec->proxy_password_env) : NULL,
		.ipv6 = net_host_has_ipv6(),
	};
}

int sandbox_spec_port(struct sandbox_spec *s, const char *text, struct err *err)
{
	cleanup_free struct net_port *ports = calloc(NET_PORTS_MAX, sizeof(*ports));
	int r = ports ? net_port_parse(text, ports, NET_PORTS_MAX, err) : out_of_memory(err);

	if (r < 0)
		return r;
	return strv_add(&s->ports, text) < 0 ? out_of_memory(err) : 0;
}

/* Paths are kept absolute, as the sandbox may be started from anywhere. */
static int add_route(struct sandbox_spec *s, struct strv *to, const char *text, struct err *err)
{
	cleanup_free char *here = text[0] == '/' ? NULL : getcwd(NULL, 0);
	cleanup_free char *whole = here ? str_fmt("%s/%s", here, text) : strdup(text);
	uint32_t port, other;
	int r = whole ? vm_route_parse(whole, NULL, &port, err) : out_of_memory(err);

	if (r < 0)
		return r;
	if (s->vsock.n + s->vsock_listen.n == VM_ROUTES_MAX)
		return err_set(err, ERR_USAGE, "more than %d sockets for vsock", VM_ROUTES_MAX);
	/* The guest dials one number for one socket. */
	for (size_t i = 0; to == &s->vsock && i < to->n; i++) {
		if (vm_route_parse(to->v[i], NULL, &other, NULL) == 0 && other == port)
			return err_set(err, ERR_USAGE, "port %u of vsock leads to two sockets",
				       port);
	}
	return strv_add(to, whole) < 0 ? out_of_memory(err) : 0;
}

int sandbox_spec_vsock(struct sandbox_spec *s, const char *text, struct err *err)
{
	return add_route(s, &s->vsock, text, err);
}

int sandbox_spec_vsock_listen(struct sandbox_spec *s, const char *text, struct err *err)
{
	return add_route(s, &s->vsock_listen, text, err);
}
