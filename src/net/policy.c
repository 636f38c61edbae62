/* SPDX-License-Identifier: Apache-2.0 */
#include "net/policy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/str.h"

#define BIT(n)	   ((uint16_t)(1u << (n)))
#define EVERYTHING ((uint16_t)(BIT(NET_IS_DNS + 1) - 1))
/* What has to be named to be allowed. */
#define NAMED ((uint16_t)(BIT(NET_IS_HOST) | BIT(NET_METADATA)))

struct word {
	const char *name;
	uint16_t value;
};

static const struct word groups[] = {
	{"any", EVERYTHING},
	{"host", BIT(NET_IS_HOST)},
	{"meta", BIT(NET_METADATA)},
	{"metadata", BIT(NET_METADATA)},
	{"loopback", BIT(NET_LOOPBACK)},
	{"private", BIT(NET_PRIVATE)},
	{"link-local", BIT(NET_LINK_LOCAL)},
	{"multicast", BIT(NET_MULTICAST)},
	{"public", BIT(NET_PUBLIC)},
	{"dns", BIT(NET_IS_DNS)},
};

static const struct word directions[] = {
	{"egress", NET_EGRESS},
	{"ingress", NET_INGRESS},
	{"any", NET_EGRESS | NET_INGRESS},
};

static const struct word protocols[] = {
	{"any", 0}, {"tcp", NET_TCP}, {"udp", NET_UDP}, {"icmpv4", NET_ICMP}, {"icmpv6", NET_ICMP6},
};

/* Profiles let the guest ask for names, too. */
static const struct word profiles[] = {
	{"none", 0},
	{"public", BIT(NET_IS_DNS) | BIT(NET_PUBLIC)},
	{"private", BIT(NET_IS_DNS) | BIT(NET_PRIVATE)},
	{"host", BIT(NET_IS_DNS) | BIT(NET_IS_HOST)},
	{"all", BIT(NET_IS_DNS) | BIT(NET_PUBLIC) | BIT(NET_PRIVATE) | BIT(NET_LINK_LOCAL)},
};

static bool find(const struct word *words, size_t n, const char *text, uint16_t *ret)
{
	for (size_t i = 0; i < n; i++) {
		if (str_eq(words[i].name, text)) {
			*ret = words[i].value;
			return true;
		}
	}
	return false;
}
#define FIND(words, text, ret) find(words, ARRAY_SIZE(words), text, ret)

void net_policy_init(struct net_policy *p)
{
	*p = (struct net_policy){.ingress = true};
}

int net_policy_profile(struct net_policy *p, const char *words, struct err *err)
{
	cleanup_free char *copy = strdup(words);
	const bool alone = !strchr(words, ',');
	uint16_t egress = 0, one;
	char *rest = copy, *word;

	if (!copy)
		return err_set(err, ENOMEM, "out of memory");
	while ((word = strsep(&rest, ","))) {
		if (!FIND(profiles, word, &one)) {
			err_set(err, ERR_USAGE, "there is no network profile \"%s\"", word);
			return err_hint(err, "profiles are none, public, private, host and all");
		}
		if (!one && !alone) {
			err_set(err, ERR_USAGE, "the network profile none stands alone");
			return err_hint(err, "others add up, as in public,host");
		}
		egress |= one;
	}
	p->egress |= egress;
	return 0;
}

int net_policy_default(struct net_policy *p, unsigned which, const char *word, struct err *err)
{
	const bool allow = str_eq(word, "allow");

	if (!allow && !str_eq(word, "deny")) {
		err_set(err, ERR_USAGE, "no default for a network: \"%s\"", word);
		return err_hint(err, "it is allow or deny");
	}
	if (which & NET_EGRESS)
		p->egress = allow ? (uint16_t)(EVERYTHING & ~NAMED) : 0;
	if (which & NET_INGRESS)
		p->ingress = allow;
	return 0;
}

/* ---- rules ---- */

static int bad(struct err *err, const char *what, const char *word)
{
	err_set(err, ERR_USAGE, "%s \"%s\"", what, word);
	return err_hint(err, "rules look like allow@public:tcp:443, deny@10.0.0.0/8 or "
			     "allow:any@[fd00::/8]");
}

static int unknown_target(const char *text, struct err *err)
{
	const char *names[ARRAY_SIZE(groups)], *near;
	struct dns_name name;

	for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
		names[i] = groups[i].name;
	near = str_suggest(text, names, ARRAY_SIZE(groups));
	bad(err, "neither a group nor an address nor a name:", text);
	if (!err)
		return -ERR_USAGE;
	if (near) {
		err->hint[0] = '\0';
		err_hint(err, "did you mean %s?", near);
	} else if (!strchr(text, '.') && dns_name_parse(text, &name) == 0) {
		err->hint[0] = '\0';
		err_hint(err,
			 "a name without a dot is said as domain=%s, and addresses of IPv6 in "
			 "brackets",
			 text);
	}
	return -ERR_USAGE;
}

static int parse_network(char *text, struct net_rule *r, struct err *err)
{
	char *slash = strchr(text, '/'), *end;
	unsigned long bits, max;
	bool four;

	if (slash)
		*slash++ = '\0';
	if (!net_addr_parse(text, &r->net))
		return unknown_target(text, err);
	four = net_addr_is_v4(&r->net);
	max = four ? 32 : 128;
	bits = max;
	if (slash) {
		bits = strtoul(slash, &end, 10);
		if (*slash < '0' || *slash > '9' || *end || bits > max)
			return bad(err, "no length of a network's prefix:", slash);
	}
	r->bits = (uint8_t)(bits + (four ? 96 : 0));
	return 0;
}

bool net_ports_parse(const char *text, uint16_t least, uint16_t *low, uint16_t *high)
{
	cleanup_free char *copy = strdup(text);
	char *last = copy ? strchr(copy, '-') : NULL;
	uint64_t from, to;

	if (last)
		*last++ = '\0';
	if (!copy || str_to_u64(copy, 65535, &from) < 0 ||
	    str_to_u64(last ? last : copy, 65535, &to) < 0 || from < least || from > to)
		return false;
	*low = (uint16_t)from;
	*high = (uint16_t)to;
	return true;
}

static int parse_ports(const char *text, struct net_rule *r, struct err *err)
{
	if (str_eq(text, "any") || net_ports_parse(text, 1, &r->low, &r->high))
		return 0;
	return bad(err, "no port or range of ports:", text);
}

/* The target, up to the colon behind it or the end; *rest is what follows the colon, or NULL. */
static int parse_target(char *text, struct net_rule *r, char **rest, struct err *err)
{
	char *end;

	if (*text == '[') {
		end = strchr(++text, ']');
		if (!end || (end[1] && end[1] != ':'))
			return bad(err, "no closing bracket in", text);
		*rest = end[1] ? end + 2 : NULL;
		*end = '\0';
		return parse_network(text, r, err);
	}
	*rest = text;
	strsep(rest, ":");
	if (FIND(groups, text, &r->targets) || net_policy_name_target(text, r))
		return 0;
	return parse_network(text, r, err);
}

static int parse_rule(char *text, struct net_rule *ret, struct err *err)
{
	struct net_rule r = {.directions = NET_EGRESS, .high = 65535};
	char *rest = text, *action = strsep(&rest, "@"), *ports;
	char *direction = action;
	uint16_t value;
	int e;

	if (!rest)
		return bad(err, "no rule, as it has no @:", text);
	strsep(&direction, ":");
	if (!str_eq(action, "allow") && !str_eq(action, "deny"))
		return bad(err, "a rule allows or denies, but does not", action);
	r.allow = action[0] == 'a';
	if (direction) {
		if (!FIND(directions, direction, &value))
			return bad(err, "no direction:", direction);
		r.directions = (uint8_t)value;
	}
	e = parse_target(rest, &r, &ports, err);
	if (e < 0)
		return e;
	if (r.targets & BIT(NET_IS_DNS) && r.targets != EVERYTHING && r.directions != NET_EGRESS)
		return bad(err, "names are asked for by the guest, so there is no direction",
			   direction);
	if (r.names && r.directions != NET_EGRESS)
		return bad(err, "who comes from outside has no name, so there is no direction",
			   direction);
	if (ports) {
		char *protocol = strsep(&ports, ":");

		if (*protocol >= '0' && *protocol <= '9') {
			err_set(err, ERR_USAGE, "\"%s\" is where the protocol belongs", protocol);
			return err_hint(err, "the port comes behind it, as in allow@host:tcp:%s",
					protocol);
		}
		if (!FIND(protocols, protocol, &value))
			return bad(err, "no protocol:", protocol);
		r.proto = (uint8_t)value;
	}
	if (ports && (r.proto == NET_ICMP || r.proto == NET_ICMP6))
		return bad(err, "ICMP has no ports:", ports);
	if ((r.proto == NET_ICMP || r.proto == NET_ICMP6) && r.directions == NET_INGRESS)
		return bad(err, "no echo comes in through a port, so there is no direction",
			   direction);
	if (ports) {
		e = parse_ports(ports, &r, err);
		if (e < 0)
			return e;
	}
	if (r.targets == BIT(NET_IS_DNS) && (r.proto == NET_ICMP || r.proto == NET_ICMP6 ||
					     r.low > DNS_PORT || r.high < DNS_PORT)) {
		err_set(err, ERR_USAGE, "names are asked for over udp and tcp, at port 53");
		return err_hint(err, "it looks like allow@dns or deny@dns:tcp");
	}
	if (r.allow && r.targets == EVERYTHING)
		r.targets &= (uint16_t)~NAMED;
	*ret = r;
	return 0;
}

/* One more range for a rule that names ports: the same rule with these. */
static int more_ports(const struct net_rule *of, const char *text, struct net_rule *ret,
		      struct err *err)
{
	if (!of || (!of->low && of->high == 65535))
		return bad(err, "no rule, and no port behind others:", text);
	*ret = *of;
	return parse_ports(text, ret, err);
}

/* What follows the @, if that is the word for many targets. */
static const char *doh(const char *rule)
{
	const char *at = strchr(rule, '@');

	return at && str_starts(at, "@doh") && (!at[4] || at[4] == ':') ? at + 4 : NULL;
}

/* A rule for each of them. */
static int parse_doh(struct net_policy *p, unsigned *n, const char *rule, const char *end,
		     struct err *err)
{
	const int action = (int)(end - rule - strlen("doh"));

	if (*end) {
		err_set(err, ERR_USAGE, "doh is whole servers, so there is no \"%s\"", end + 1);
		return err_hint(err, "it looks like deny@doh");
	}
	for (size_t i = 0; net_policy_doh[i]; i++) {
		cleanup_free char *one = str_fmt("%.*s%s", action, rule, net_policy_doh[i]);
		int r;

		if (!one)
			return err_set(err, ENOMEM, "out of memory");
		if (*n == NET_RULES_MAX)
			return err_set(err, ERR_LIMIT, "more than %d network rules", NET_RULES_MAX);
		r = parse_rule(one, &p->rule[*n], err);
		if (r < 0)
			return r;
		++*n;
	}
	return 0;
}

int net_policy_rules(struct net_policy *p, const char *text, struct err *err)
{
	cleanup_free char *copy = strdup(text);
	unsigned n = p->nrules;
	char *rest = copy, *one;

	if (!copy)
		return err_set(err, ENOMEM, "out of memory");
	while ((one = strsep(&rest, ","))) {
		const char *end = doh(one);
		int r;

		if (n == NET_RULES_MAX)
			return err_set(err, ERR_LIMIT, "more than %d network rules", NET_RULES_MAX);
		if (end)
			r = parse_doh(p, &n, one, end, err);
		else if (*one >= '0' && *one <= '9')
			r = more_ports(n > p->nrules ? &p->rule[n - 1] : NULL, one, &p->rule[n],
				       err);
		else
			r = parse_rule(one, &p->rule[n], err);
		if (r < 0)
			return err_wrap(err, "network rule \"%s\"", text);
		n += !end;
	}
	p->nrules = n;
	return 0;
}

/* ---- questions ---- */

/* Denied is an address in every spelling, allowed only as it was said. */
static bool is_within(const struct net_rule *r, const struct net_addr *a)
{
	struct net_addr inner[NET_ADDR_INNER];
	unsigned n = r->allow ? 0 : net_addr_inner(a, inner);

	while (n--) {
		if (net_addr_within(&inner[n], &r->net, r->bits))
			return true;
	}
	return net_addr_within(a, &r->net, r->bits);
}

/* The kinds that an address may be of, to whom translates it. */
static uint16_t inner_kinds(const struct net_addr *a)
{
	struct net_addr inner[NET_ADDR_INNER];
	unsigned n = net_addr_inner(a, inner);
	uint16_t kinds = 0;

	while (n--)
		kinds |= BIT(net_addr_kind(&inner[n]));
	return kinds;
}

static bool matches(const struct net_policy *p, unsigned i, const struct net_question *q,
		    uint16_t target)
{
	const struct net_rule *r = &p->rule[i];

	if (!(r->directions & q->direction) || (r->proto && r->proto != q->proto))
		return false;
	if (q->port < r->low || q->port > r->high)
		return false;
	if (r->allow && !r->low && net_policy_asks_elsewhere(q))
		return false;
	if (r->names)
		return !r->targets && q->named && q->named->bits[i / 64] >> (i % 64) & 1;
	if (r->targets)
		return r->targets & (r->allow ? target : target | inner_kinds(&q->peer));
	return is_within(r, &q->peer);
}

enum net_verdict net_policy_decide(const struct net_policy *p, const struct net_question *q)
{
	enum net_kind kind = net_addr_kind(&q->peer);
	uint16_t target = q->dns ? BIT(NET_IS_DNS) : q->host ? BIT(NET_IS_HOST) : BIT(kind);
	const bool out = q->direction == NET_EGRESS;

	if (out && kind == NET_LOOPBACK)
		return NET_DENIED;
	for (unsigned i = 0; i < p->nrules; i++) {
		const struct net_rule *r = &p->rule[i];

		if (matches(p, i, q, target))
			return !r->allow  ? NET_DENIED
			       : r->names ? NET_ALLOWED_BY_NAME
					  : NET_ALLOWED;
	}
	if (out && net_policy_asks_elsewhere(q))
		return NET_DENIED;
	return (out ? p->egress & target : p->ingress) ? NET_ALLOWED : NET_DENIED;
}
