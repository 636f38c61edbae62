/* SPDX-License-Identifier: Apache-2.0 */
#include "net/resolver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "net/hash.h"
#include "net/resolver_impl.h"

enum {
	/* To the guest: its link takes more, but programs' buffers may not. */
	UDP_MAX = 4096,
	OWN_TTL = 60,
	/* Questions to servers, and bytes of names that data could hide in: at once, a second. */
	QUESTIONS_BURST = 5000,
	QUESTIONS_RATE = 500,
	BYTES_BURST = 8192,
	BYTES_RATE = 128,
	/* RFC 8914 */
	EDE_BLOCKED = 15,
	EDE_PROHIBITED = 18,
};

int resolver_new(const struct resolver_config *config, const struct net_policy *policy,
		 struct names *names, const struct resolver_ops *ops, void *arg,
		 struct resolver **ret, struct err *err)
{
	struct resolver *r = calloc(1, sizeof(*r));

	if (!r)
		return err_set(err, ENOMEM, "cannot create a name service: out of memory");
	r->config = *config;
	if (!r->config.timeout)
		r->config.timeout = RESOLVER_TIMEOUT_MS * MS;
	r->policy = policy;
	r->names = names;
	r->ops = ops;
	r->arg = arg;
	cache_init(&r->cache);
	for (size_t i = 0; i < RESOLVER_QUERIES; i++)
		TAILQ_INIT(&r->query[i].askers);
	*ret = r;
	return 0;
}

struct resolver *resolver_free(struct resolver *r)
{
	struct asker *a;

	if (!r)
		return NULL;
	for (size_t i = 0; i < RESOLVER_QUERIES; i++) {
		while ((a = TAILQ_FIRST(&r->query[i].askers))) {
			TAILQ_REMOVE(&r->query[i].askers, a, list);
			free(a);
		}
	}
	cache_done(&r->cache);
	free(r);
	return NULL;
}

const struct resolver_stats *resolver_stats(const struct resolver *r)
{
	return &r->stats;
}

void asker_free(struct resolver *r, struct asker *a)
{
	r->askers--;
	free(a);
}

/* ---- answers ---- */

static uint16_t flags_for(const struct asker *a, unsigned rcode)
{
	return (uint16_t)(DNS_QR | DNS_RA | (a->flags & (DNS_OPCODE | DNS_RD | DNS_CD)) |
			  (rcode & DNS_RCODE));
}

static void start(struct resolver *r, const struct asker *a, struct dns_writer *w, size_t max)
{
	dns_write(w, r->out, max, a->id, 0);
	if (a->asked.n)
		dns_write_question(w, &a->asked, a->key.type, DNS_IN);
}

void answer_nothing(struct resolver *r, const struct asker *a, uint8_t rcode, int ede,
		    const char *why)
{
	const struct dns_edns edns = {
		.size = UDP_MAX,
		.rcode = rcode >> 4,
		.dnssec_ok = a->key.dnssec_ok,
	};
	struct dns_writer w;

	start(r, a, &w, a->max);
	if (a->edns)
		dns_write_edns(&w, &edns, ede, why);
	r->ops->answer(r->arg, a->who, r->out, dns_write_end(&w, flags_for(a, rcode)));
}

static const struct denial {
	enum resolver_news_kind kind;
	int ede;
	const char *why, *words; /* for the log, for the guest */
} by_policy = {RESOLVER_DENIED, EDE_BLOCKED, "policy",
	       "the sandbox's network rules do not allow this name"},
  by_rebinding = {RESOLVER_DENIED, EDE_BLOCKED, "private addresses",
		  "its addresses are private; see --no-dns-rebind-protection"},
  by_limit = {RESOLVER_LIMITED, EDE_PROHIBITED, "too many names",
	      "too many names in too short a time"};

/* See "Who asks without EDNS" in resolver.h. */
static void deny(struct resolver *r, const struct asker *a, const struct denial *d)
{
	const struct resolver_news news = {d->kind, &a->key.name, NULL, d->why};

	if (d->kind == RESOLVER_DENIED)
		r->stats.denied++;
	else
		r->stats.limited++;
	if (r->ops->news)
		r->ops->news(r->arg, &news);
	answer_nothing(r, a, a->edns ? DNS_REFUSED : DNS_NXDOMAIN, d->ede, d->words);
}

struct pinning {
	struct resolver *r;
	const struct dns_name *name;
	uint64_t until;
};

static bool pin(void *arg, const struct net_addr *a)
{
	const struct pinning *p = arg;

	return names_pin(p->r->names, a, p->name, p->until) == 0;
}

static void answer_with(struct resolver *r, const struct asker *a, const struct dns_entry *e)
{
	/* The smallest OPT record there is. */
	const size_t opt = a->edns ? 11 : 0;
	const struct dns_edns edns = {.size = UDP_MAX, .dnssec_ok = a->key.dnssec_ok};
	const uint32_t age = (uint32_t)((r->now - e->born) / SECOND);
	uint16_t flags = flags_for(a, e->rcode);
	struct dns_writer w;
	struct dns_piece p;

	if (e->emptied) {
		deny(r, a, &by_rebinding);
		return;
	}
	if (e->authentic && (a->key.dnssec_ok || a->flags & DNS_AD))
		flags |= DNS_AD;
	start(r, a, &w, a->max - opt);
	for (size_t at = 0; entry_next(e, &at, &p);) {
		const uint32_t ttl = p.ttl > age ? p.ttl - age : 1;
		struct pinning how = {
			.r = r,
			.name = &e->key.name,
			.until = r->now + (ttl + NAMES_GRACE_S) * SECOND,
		};

		if (p.section == DNS_ANSWER && !piece_addresses(&p, pin, &how)) {
			answer_nothing(r, a, DNS_SERVFAIL, -1, NULL);
			return;
		}
		if (dns_write_record(&w, p.section, &p.name, p.type, DNS_IN, ttl, p.data, p.len))
			continue;
		if (p.section == DNS_ANSWER)
			flags |= DNS_TC;
		break;
	}
	w.max += opt;
	if (a->edns)
		dns_write_edns(&w, &edns, -1, NULL);
	r->ops->answer(r->arg, a->who, r->out, dns_write_end(&w, flags));
}

/* Who denies a name means it under others, too. */
static bool leads_to_denied(const struct resolver *r, const struct dns_entry *e)
{
	struct dns_name to;
	struct dns_piece p;

	for (size_t at = 0; entry_next(e, &at, &p);) {
		if (p.section != DNS_ANSWER || p.type != DNS_CNAME)
			continue;
		to.n = (uint8_t)p.len;
		memcpy(to.b, p.data, p.len);
		dns_name_fold(&to);
		if (net_policy_denies_name(r->policy, &to))
			return true;
	}
	return false;
}

void answer_from(struct resolver *r, const struct asker *a, const struct dns_entry *e)
{
	/* The rules may be others than when it was asked. */
	if (net_policy_may_ask(r->policy, &a->key.name, a->proto) && !leads_to_denied(r, e))
		answer_with(r, a, e);
	else
		deny(r, a, &by_policy);
}

/* ---- what is known here ---- */

static int add_address(struct dns_entry *e, const struct net_addr *a)
{
	const bool four = net_addr_is_v4(a);
	const struct dns_piece p = {
		.section = DNS_ANSWER,
		.name = e->key.name,
		.type = four ? DNS_A : DNS_AAAA,
		.len = four ? 4 : 16,
		.ttl = OWN_TTL,
		.data = four ? net_addr_four(a) : a->b,
	};

	return e->key.type == p.type || e->key.type == DNS_ANY ? entry_add(e, &p) : 0;
}

static bool is_localhost(const struct dns_name *name)
{
	static const struct dns_name localhost = {.n = 11, .b = "\11localhost"};

	return dns_name_within(name, &localhost);
}

/* Names of the configuration, and localhost (RFC 6761, 6.3). */
static bool answer_own(struct resolver *r, const struct asker *a)
{
	static const uint8_t loop4[] = {127, 0, 0, 1}, loop6[16] = {[15] = 1};
	struct dns_entry *e = entry_new(&a->key, r->now);
	bool known = false;
	int n = 0;

	if (!e)
		return false;
	for (unsigned i = 0; i < r->config.nhosts && n == 0; i++) {
		if (!dns_name_equal(&r->config.host[i].name, &a->key.name))
			continue;
		known = true;
		n = add_address(e, &r->config.host[i].addr);
	}
	if (!known && is_localhost(&a->key.name)) {
		struct net_addr four = net_addr_v4(loop4), six = net_addr_v6(loop6);

		known = true;
		n = add_address(e, &four);
		if (n == 0)
			n = add_address(e, &six);
	}
	if (known && n == 0)
		answer_with(r, a, e);
	else if (known)
		answer_nothing(r, a, DNS_SERVFAIL, -1, NULL);
	entry_free(e);
	return known;
}

/* ---- limits ---- */

static bool spend(struct bucket *b, uint64_t now, uint64_t what, uint64_t rate, uint64_t burst)
{
	uint64_t won = b->used ? (now - b->at) / MS * rate / 1000 : burst;

	if (!b->used || won) {
		b->left = MIN(b->left + won, burst);
		b->at = now;
		b->used = true;
	}
	if (b->left < what)
		return false;
	b->left -= what;
	return true;
}

/* A name that stands in a rule as it is carries nothing. */
static bool is_listed(const struct net_policy *p, const struct dns_name *name)
{
	for (unsigned i = 0; i < p->nrules; i++) {
		if (p->rule[i].names == NET_NAME && dns_name_equal(&p->rule[i].name, name))
			return true;
	}
	return false;
}

static bool within_limits(struct resolver *r, const struct dns_name *name)
{
	struct dns_name parent;
	uint64_t hash;

	dns_name_tail(name, 2, &parent);
	hash = net_hash(r->config.seed, parent.b, parent.n);
	/* What this refuses does not count as a question, which others may want to ask. */
	if (!is_listed(r->policy, name) && !spend(&r->bytes[hash % ARRAY_SIZE(r->bytes)], r->now,
						  name->n - parent.n, BYTES_RATE, BYTES_BURST))
		return false;
	return spend(&r->questions, r->now, 1, QUESTIONS_RATE, QUESTIONS_BURST);
}

/* ---- questions ---- */

/* The question's EDNS, behind whatever else it holds. -EBADMSG, or an enum dns_rcode. */
static int read_edns(struct dns_reader *m, struct asker *a)
{
	struct dns_edns edns;
	struct dns_record rec;
	int n;

	while ((n = dns_read_record(m, &rec)) > 0) {
		if (rec.type != DNS_OPT || rec.section != DNS_ADDITIONAL)
			continue;
		if (a->edns || rec.name.n != 1)
			return -EBADMSG;
		dns_edns_of(&rec, &edns);
		a->edns = true;
		a->key.dnssec_ok = edns.dnssec_ok;
		if (a->proto == NET_UDP)
			a->max = MIN(MAX((size_t)edns.size, (size_t)DNS_UDP_MAX), (size_t)UDP_MAX);
		if (edns.version)
			return DNS_BADVERS;
	}
	return n;
}

/* 0: it can be answered. */
static int read_question(struct dns_reader *m, struct asker *a)
{
	struct dns_question q;
	int n;

	if (m->flags & DNS_OPCODE)
		return DNS_NOTIMP;
	if (m->count[DNS_QUESTION] != 1 || dns_read_question(m, &q) != 1)
		return DNS_FORMERR;
	a->asked = q.asked;
	a->key.name = q.name;
	a->key.type = q.type;
	a->key.unchecked = m->flags & DNS_CD;
	n = read_edns(m, a);
	if (n != 0)
		return n < 0 ? DNS_FORMERR : n;
	if (q.class_ != DNS_IN || q.type == DNS_AXFR || q.type == DNS_IXFR || q.type == DNS_OPT)
		return DNS_REFUSED;
	return 0;
}

static bool is_service(uint16_t type)
{
	return type == DNS_SVCB || type == DNS_HTTPS;
}

/* True: @a is a query's. */
static bool serve(struct resolver *r, struct asker *a)
{
	const struct dns_entry *e;

	if (answer_own(r, a))
		return false;
	if (!net_policy_may_ask(r->policy, &a->key.name, a->proto)) {
		deny(r, a, &by_policy);
		return false;
	}
	if (r->config.strict && is_service(a->key.type)) {
		answer_nothing(r, a, DNS_NOERROR, -1, NULL);
		return false;
	}
	e = cache_find(&r->cache, r->config.seed, &a->key, r->now);
	if (e) {
		r->stats.cached++;
		answer_from(r, a, e);
		return false;
	}
	if (!within_limits(r, &a->key.name)) {
		deny(r, a, &by_limit);
		return false;
	}
	if (query_add(r, a))
		return true;
	answer_nothing(r, a, DNS_SERVFAIL, -1, NULL);
	return false;
}

bool resolver_ask(struct resolver *r, void *who, uint8_t proto, const void *p, size_t n,
		  uint64_t now)
{
	struct dns_reader m;
	struct asker *a;
	int rcode;

	r->now = now;
	r->stats.questions++;
	if (dns_read(&m, p, n) < 0 || m.flags & DNS_QR) {
		r->stats.malformed++;
		return false;
	}
	a = calloc(1, sizeof(*a));
	if (!a)
		return false;
	*a = (struct asker){
		.who = who,
		.id = m.id,
		.flags = m.flags,
		.proto = proto,
		.max = proto == NET_UDP ? DNS_UDP_MAX : DNS_MESSAGE_MAX,
	};
	rcode = read_question(&m, a);
	if (rcode) {
		answer_nothing(r, a, (uint8_t)rcode, -1, NULL);
		free(a);
	} else if (!serve(r, a)) {
		free(a);
	}
	return true;
}

/* ---- words ---- */

static int bad_server(struct err *err, const char *text)
{
	err_set(err, ERR_USAGE, "no name server: \"%s\"", text);
	return err_hint(err, "it looks like 9.9.9.9, tcp://10.0.0.1:5353, [2620:fe::fe]:53, "
			     "tls://9.9.9.9#dns.quad9.net or tls://dns.quad9.net");
}

/* A host's name as a certificate has it: without the dot at the end. */
static bool take_name(const char *text, char ret[DNS_NAME_MAX])
{
	struct dns_name parsed;
	size_t n = strlen(text);

	if (dns_name_parse(text, &parsed) < 0 || parsed.n == 1 || n >= DNS_NAME_MAX)
		return false;
	memcpy(ret, text, n + 1);
	if (ret[n - 1] == '.')
		ret[n - 1] = '\0';
	return true;
}

/* A name with a dot, and no address that went wrong. */
static bool take_host(const char *text, struct resolver_server *s)
{
	const char *top = strrchr(text, '.');

	if (!top || (top[1] >= '0' && top[1] <= '9') || !take_name(text, s->host))
		return false;
	if (!s->name[0])
		memcpy(s->name, s->host, sizeof(s->name));
	return true;
}

int resolver_add_server(struct resolver_config *c, const char *text, struct err *err)
{
	static const struct {
		const char *word;
		enum resolver_transport transport;
		uint16_t port;
	} schemes[] = {
		{"udp://", RESOLVER_UDP, DNS_PORT},
		{"tcp://", RESOLVER_TCP, DNS_PORT},
		{RESOLVER_TLS_SCHEME, RESOLVER_TLS, 853},
	};
	struct resolver_server s = {.transport = RESOLVER_UDP, .port = DNS_PORT};
	cleanup_free char *copy = NULL;
	char *host, *port = NULL, *name;
	uint64_t number;
	bool tls;

	host = copy = strdup(text);
	if (!copy)
		return err_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
		if (!str_starts(copy, schemes[i].word))
			continue;
		host = copy + strlen(schemes[i].word);
		s.transport = schemes[i].transport;
		s.port = schemes[i].port;
	}
	tls = s.transport == RESOLVER_TLS;
	name = host;
	strsep(&name, "#");
	if (name && !(tls && take_name(name, s.name)))
		return bad_server(err, text);
	if (*host == '[') {
		port = strchr(++host, ']');
		if (!port || (port[1] && port[1] != ':'))
			return bad_server(err, text);
		*port++ = '\0';
		port = *port ? port + 1 : NULL;
	} else if (strchr(host, ':') == strrchr(host, ':')) {
		/* With more than one colon it is an address of IPv6. */
		port = host;
		strsep(&port, ":");
	}
	if (!net_addr_parse(host, &s.addr) && !(c->hosts_may && tls && take_host(host, &s)))
		return bad_server(err, text);
	if (port && (str_to_u64(port, 65535, &number) < 0 || !number))
		return bad_server(err, text);
	if (port)
		s.port = (uint16_t)number;
	if (c->nservers == RESOLVER_SERVERS_MAX)
		return err_set(err, ERR_USAGE, "more than %d name servers", RESOLVER_SERVERS_MAX);
	c->server[c->nservers++] = s;
	return 0;
}

int resolver_add_host(struct resolver_config *c, const char *text, struct err *err)
{
	cleanup_free char *copy = strdup(text);
	char *addr = copy, *name;
	struct resolver_host h;

	if (!copy)
		return err_set(err, ENOMEM, "out of memory");
	name = strsep(&addr, ":");
	if (addr && *addr == '[' && str_ends(addr, "]")) {
		addr[strlen(addr) - 1] = '\0';
		addr++;
	}
	if (!addr || dns_name_parse(name, &h.name) < 0 || h.name.n == 1 ||
	    !net_addr_parse(addr, &h.addr)) {
		err_set(err, ERR_USAGE, "no name with its address: \"%s\"", text);
		return err_hint(err, "it looks like db.example:10.1.2.3 or db.example:fd00::1");
	}
	/* Two are the host's own. */
	if (c->nhosts >= RESOLVER_HOSTS_MAX - 2)
		return err_set(err, ERR_USAGE, "more than %d names with addresses",
			       RESOLVER_HOSTS_MAX - 2);
	c->host[c->nhosts++] = h;
	return 0;
}
