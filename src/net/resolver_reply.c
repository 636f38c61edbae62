/* SPDX-License-Identifier: Apache-2.0 */
/* What servers reply. */
#include <errno.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "net/resolver_impl.h"

enum {
	/* The name that was asked and those it is another name of. */
	CHAIN_MAX = 16,
	DS = 43,
	RRSIG = 46,
	NSEC = 47,
	NSEC3 = 50,
	IPV4_HINT = 4,
	IPV6_HINT = 6,
};

static bool hints(const struct dns_piece *p, bool (*fn)(void *arg, const struct net_addr *a),
		  void *arg)
{
	struct cur c = cur_make(p->data, p->len);
	unsigned label;

	(void)cur_be16(&c);
	while ((label = cur_u8(&c)))
		(void)cur_bytes(&c, label);
	while (cur_left(&c)) {
		unsigned key = cur_be16(&c), len = cur_be16(&c);
		size_t each = key == IPV4_HINT ? 4 : key == IPV6_HINT ? 16 : 0;
		const uint8_t *v = cur_bytes(&c, len);

		/* What cannot be understood cannot be vouched for. */
		if (!v || (each && len % each))
			return false;
		for (size_t i = 0; each && i < len; i += each) {
			struct net_addr a = each == 4 ? net_addr_v4(v + i) : net_addr_v6(v + i);

			if (!fn(arg, &a))
				return false;
		}
	}
	return !c.bad;
}

bool piece_addresses(const struct dns_piece *p, bool (*fn)(void *arg, const struct net_addr *a),
		     void *arg)
{
	struct net_addr a;

	if (p->type == DNS_SVCB || p->type == DNS_HTTPS)
		return hints(p, fn, arg);
	if (p->type == DNS_A)
		a = net_addr_v4(p->data);
	else if (p->type == DNS_AAAA)
		a = net_addr_v6(p->data);
	else
		return true;
	return fn(arg, &a);
}

static bool is_public(void *arg, const struct net_addr *a)
{
	(void)arg;
	return net_addr_kind(a) == NET_PUBLIC;
}

/* No name of the world's is this host's, nor a cloud's secrets', whatever the configuration. */
static bool is_elsewhere(void *arg, const struct net_addr *a)
{
	enum net_kind kind = net_addr_kind(a);

	(void)arg;
	return kind == NET_PUBLIC || kind == NET_PRIVATE;
}

struct chain {
	struct dns_name name[CHAIN_MAX];
	unsigned n;
};

static bool in_chain(const struct chain *c, const struct dns_name *name)
{
	for (unsigned i = 0; i < c->n; i++) {
		if (dns_name_equal(&c->name[i], name))
			return true;
	}
	return false;
}

static void follow(struct chain *c, const struct dns_piece *p)
{
	struct dns_name *to = &c->name[c->n];

	if (p->type != DNS_CNAME || c->n == CHAIN_MAX)
		return;
	to->n = (uint8_t)p->len;
	memcpy(to->b, p->data, p->len);
	dns_name_fold(to);
	c->n++;
}

/* Does it belong to the answer, as far as who asked is concerned? */
static bool wanted(const struct dns_key *key, const struct chain *c, const struct dns_piece *p)
{
	switch (p->section) {
	case DNS_ANSWER:
		return in_chain(c, &p->name) || p->type == DNS_DNAME ||
		       (p->type == RRSIG && key->dnssec_ok);
	case DNS_AUTHORITY:
		return p->type == DNS_SOA ||
		       (key->dnssec_ok &&
			(p->type == RRSIG || p->type == NSEC || p->type == NSEC3 || p->type == DS));
	default:
		return false;
	}
}

static int take(struct resolver *r, struct dns_reader *m, const struct dns_record *rec,
		struct chain *c, struct dns_entry *e)
{
	static const uint32_t most = RESOLVER_TTL_MAX, least = RESOLVER_TTL_MIN;
	/* Nothing else is being written. */
	uint8_t *data = r->out;
	struct dns_piece p = {
		.section = rec->section,
		.name = rec->name,
		.type = rec->type,
		.ttl = MAX(MIN(rec->ttl, most), least),
		.data = data,
	};
	int n = dns_read_data(m, rec, data, sizeof(r->out));

	if (n < 0)
		return -EBADMSG;
	p.len = (uint16_t)n;
	if (rec->class_ != DNS_IN || !wanted(&e->key, c, &p))
		return 0;
	if (!piece_addresses(&p, r->config.private_answers ? is_elsewhere : is_public, NULL)) {
		r->stats.rebound++;
		e->emptied = true;
		return 0;
	}
	if (p.section == DNS_ANSWER)
		follow(c, &p);
	return entry_add(e, &p);
}

int reply_read(struct resolver *r, const struct dns_key *key, struct dns_reader *m,
	       struct dns_entry **ret, uint8_t *rcode)
{
	struct chain chain = {.n = 1};
	struct dns_question q;
	struct dns_record rec;
	struct dns_piece p;
	struct dns_entry *e;
	unsigned upper = 0;
	int n;

	*rcode = m->flags & DNS_RCODE;
	if (dns_read_question(m, &q) != 1 || m->count[DNS_QUESTION] || q.type != key->type ||
	    q.class_ != DNS_IN || !dns_name_equal(&q.name, &key->name))
		return -EBADMSG;
	if (m->flags & DNS_TC)
		return 0;
	e = entry_new(key, r->now);
	if (!e)
		return -ENOMEM;
	chain.name[0] = key->name;
	while ((n = dns_read_record(m, &rec)) > 0) {
		struct dns_edns edns;

		if (rec.type == DNS_OPT) {
			dns_edns_of(&rec, &edns);
			upper = edns.rcode;
			continue;
		}
		n = take(r, m, &rec, &chain, e);
		if (n < 0)
			break;
	}
	if (upper)
		*rcode = DNS_BADVERS;
	if (n == 0 && *rcode != DNS_NOERROR && *rcode != DNS_NXDOMAIN)
		n = -EREMOTEIO;
	if (n != 0) {
		entry_free(e);
		return n;
	}
	for (size_t at = 0; e->emptied && entry_next(e, &at, &p);)
		e->emptied = p.section != DNS_ANSWER || p.type != key->type;
	e->rcode = *rcode;
	e->authentic = m->flags & DNS_AD;
	entry_settle(e);
	*ret = e;
	return 1;
}
