/* SPDX-License-Identifier: Apache-2.0 */
/* The name service, and which names addresses have. */
#include "test.h"

#include "net/resolver_world.h"

static struct rw w;

static int begin(void **state)
{
	(void)state;
	memset(&w, 0, sizeof(w));
	net_policy_init(&w.policy);
	assert_int_equal(net_policy_profile(&w.policy, "public", NULL), 0);
	rw_begin(&w, 3);
	return 0;
}

static int end(void **state)
{
	(void)state;
	rw_end(&w);
	for (unsigned i = 0; i < RW_SLOTS; i++)
		w.slot[i].on = false;
	return 0;
}

static struct dns_name name(const char *text)
{
	struct dns_name n;

	if (dns_name_parse(text, &n) < 0)
		fail_msg("no name: %s", text);
	return n;
}

static struct net_addr addr(const char *text)
{
	struct net_addr a;

	if (!net_addr_parse(text, &a))
		fail_msg("no address: %s", text);
	return a;
}

/* ---- the guest ---- */

struct ask {
	const char *name;
	uint16_t type; /* 0: A */
	uint16_t id;
	unsigned edns; /* its size, 0: without */
	bool tcp, dnssec_ok;
	void *who;
};

static bool ask(const struct ask *a)
{
	const struct dns_edns edns = {.size = (uint16_t)a->edns, .dnssec_ok = a->dnssec_ok};
	struct dns_name n = name(a->name);
	struct dns_writer d;
	uint8_t m[600];
	unsigned at = 0;

	/* In the spelling of whoever asks. */
	for (const char *p = a->name; *p; p = strchr(p, '.') ? strchr(p, '.') + 1 : "") {
		memcpy(n.b + at + 1, p, n.b[at]);
		at += n.b[at] + 1u;
	}
	dns_write(&d, m, sizeof(m), a->id ? a->id : 77, 0);
	dns_write_question(&d, &n, a->type ? a->type : DNS_A, DNS_IN);
	if (a->edns)
		dns_write_edns(&d, &edns, -1, NULL);
	return resolver_ask(w.r, a->who, a->tcp ? NET_TCP : NET_UDP, m, dns_write_end(&d, DNS_RD),
			    w.now);
}
#define ASK(...) ask(&(struct ask){__VA_ARGS__})

/* What it got: its code, and how many records. */
static unsigned got(unsigned *answers)
{
	struct dns_reader r;

	assert_int_equal(dns_read(&r, w.answer, w.len), 0);
	assert_true(r.flags & DNS_QR && r.flags & DNS_RA);
	if (answers)
		*answers = r.count[DNS_ANSWER];
	return r.flags & DNS_RCODE;
}

/* The record @i of the answer. */
static struct dns_record record(unsigned i)
{
	struct dns_record rec;
	struct dns_reader r;

	assert_int_equal(dns_read(&r, w.answer, w.len), 0);
	for (unsigned k = 0; k <= i; k++)
		assert_int_equal(dns_read_record(&r, &rec), 1);
	return rec;
}

/* ---- servers ---- */

static struct dns_writer server;
static uint8_t said[DNS_MESSAGE_MAX];
static struct dns_question asked;

/* Begin to answer what was asked in @slot. */
static void reply(unsigned slot)
{
	struct dns_reader r;

	assert_true(w.slot[slot].on);
	assert_int_equal(dns_read(&r, w.slot[slot].m, w.slot[slot].n), 0);
	assert_int_equal(dns_read_question(&r, &asked), 1);
	dns_write(&server, said, sizeof(said), r.id, 0);
	dns_write_question(&server, &asked.asked, asked.type, DNS_IN);
}

static void add(const char *owner, uint16_t type, uint32_t ttl, const void *data, size_t n)
{
	struct dns_name o = owner ? name(owner) : asked.name;

	dns_write_record(&server, DNS_ANSWER, &o, type, DNS_IN, ttl, data, n);
}

static void add_a(const char *owner, uint32_t ttl, const char *a)
{
	struct net_addr x = addr(a);

	if (net_addr_is_v4(&x))
		add(owner, DNS_A, ttl, net_addr_four(&x), 4);
	else
		add(owner, DNS_AAAA, ttl, x.b, 16);
}

static void add_soa(uint32_t ttl, uint32_t minimum)
{
	uint8_t data[2 + 20] = {0};
	struct dns_name o = name("example.com");

	data[20] = (uint8_t)(minimum >> 8);
	data[21] = (uint8_t)minimum;
	dns_write_record(&server, DNS_AUTHORITY, &o, DNS_SOA, DNS_IN, ttl, data, sizeof(data));
}

static void send_reply(unsigned slot, uint16_t flags)
{
	size_t n = dns_write_end(&server, DNS_QR | DNS_RD | DNS_RA | flags);

	resolver_reply(w.r, slot, said, n, w.now);
}

static void answer_a(const char *address, uint32_t ttl)
{
	reply(w.last);
	add_a(NULL, ttl, address);
	send_reply(w.last, 0);
}

static bool pinned(const char *address, const char *as)
{
	struct net_addr a = addr(address);
	struct dns_name n = name(as);
	struct net_rules rules;

	return names_has(w.names, &a, &n, w.now, &rules);
}

/* ---- tests ---- */

static void asked_once(void **state)
{
	int me, you;
	unsigned n;
	struct dns_record rec;

	(void)state;
	ASK("wWw.Example.com", .id = 1, .who = &me);
	ASK("www.example.COM", .id = 2, .who = &you);
	assert_int_equal(w.asked, 1);
	assert_int_equal(w.answers, 0);
	answer_a("1.2.3.4", 60);
	assert_int_equal(w.answers, 2);
	assert_ptr_equal(w.who, &you);
	assert_int_equal(got(&n), DNS_NOERROR);
	assert_int_equal(n, 1);
	/* Each has its own spelling and number back. */
	assert_memory_equal(w.answer + 12, "\3www\7example\3COM", 16);
	assert_int_equal(w.answer[1], 2);
	rec = record(0);
	assert_int_equal(rec.ttl, 60);
	assert_memory_equal(w.answer + rec.at, "\1\2\3\4", 4);
	assert_false(w.slot[0].on);
	/* From the cache, older by what has passed, until it is too old. */
	w.now += 20 * SECOND;
	ASK("www.example.com");
	assert_int_equal(w.answers, 3);
	assert_int_equal(record(0).ttl, 40);
	w.now += 40 * SECOND;
	ASK("www.example.com");
	assert_int_equal(w.asked, 2);
	assert_int_equal(resolver_stats(w.r)->cached, 1);
}

/* Whoever is silent is helped out by the next, and asked last from then on. */
static void failover(void **state)
{
	uint64_t began = w.now;
	unsigned first;

	(void)state;
	ASK("a.example.com");
	first = w.last;
	assert_int_equal(w.slot[first].server, 0);
	assert_in_range(resolver_next(w.r), w.now + 1, w.now + SECOND);
	w.now = resolver_next(w.r);
	resolver_tick(w.r, w.now);
	assert_int_equal(w.asked, 2);
	assert_int_equal(w.slot[w.last].server, 1);
	assert_true(w.slot[first].on);
	answer_a("1.2.3.4", 60);
	assert_int_equal(w.answers, 1);
	assert_false(w.slot[first].on);
	assert_int_equal(resolver_next(w.r), 0);
	ASK("b.example.com");
	assert_int_equal(w.slot[w.last].server, 1);
	/* One that cannot be reached at all costs no time. */
	w.dead = 1 << 1;
	ASK("c.example.com");
	assert_int_equal(w.slot[w.last].server, 2);
	/* After half a minute it has another chance. */
	w.dead = 0;
	w.now += 31 * SECOND;
	resolver_tick(w.r, w.now);
	ASK("d.example.com");
	assert_int_equal(w.slot[w.last].server, 0);
	/* The late one is believed, too. */
	first = w.last;
	w.now = resolver_next(w.r);
	resolver_tick(w.r, w.now);
	reply(first);
	add_a(NULL, 60, "1.2.3.9");
	send_reply(first, 0);
	assert_int_equal(got(NULL), DNS_NOERROR);
	assert_true(w.now - began < 40 * SECOND);
}

static void nobody_answers(void **state)
{
	uint64_t began = w.now;

	(void)state;
	ASK("a.example.com", .edns = 1232);
	while (!w.answers && resolver_next(w.r)) {
		w.now = resolver_next(w.r);
		resolver_tick(w.r, w.now);
	}
	assert_int_equal(w.answers, 1);
	assert_int_equal(got(NULL), DNS_SERVFAIL);
	assert_in_range(w.now - began, 5 * SECOND - 1, 5 * SECOND + MS);
	assert_int_equal(w.asked, RESOLVER_TRIES);
	for (unsigned i = 0; i < RW_SLOTS; i++)
		assert_false(w.slot[i].on);
	/* Nobody there at all is known at once. */
	w.dead = 7;
	ASK("b.example.com");
	assert_int_equal(w.answers, 2);
	assert_int_equal(got(NULL), DNS_SERVFAIL);
	/* Refused by one server is for the next to know; by all, it is over. */
	w.dead = 0;
	ASK("c.example.com");
	for (int i = 0; i < 3; i++) {
		reply(w.last);
		send_reply(w.last, DNS_REFUSED);
	}
	assert_int_equal(w.answers, 3);
	assert_int_equal(got(NULL), DNS_SERVFAIL);
}

static void other_ways(void **state)
{
	struct dns_record rec;
	struct dns_reader r;

	(void)state;
	/* Cut short: the same server over TCP. */
	ASK("a.example.com");
	reply(w.last);
	send_reply(w.last, DNS_TC);
	assert_int_equal(w.asked, 2);
	assert_true(w.slot[w.last].tcp);
	assert_int_equal(w.slot[w.last].server, 0);
	answer_a("1.2.3.4", 60);
	assert_int_equal(w.answers, 1);
	/* A server from before EDNS. */
	ASK("b.example.com");
	dns_read(&r, w.slot[w.last].m, w.slot[w.last].n);
	assert_int_equal(r.count[DNS_ADDITIONAL], 1);
	reply(w.last);
	send_reply(w.last, DNS_FORMERR);
	dns_read(&r, w.slot[w.last].m, w.slot[w.last].n);
	assert_int_equal(r.count[DNS_ADDITIONAL], 0);
	answer_a("1.2.3.4", 60);
	assert_int_equal(w.answers, 2);
	/* A server that is configured for TCP. */
	w.r->config.server[0].transport = RESOLVER_TCP;
	ASK("c.example.com");
	assert_true(w.slot[w.last].tcp);
	/* Over TLS questions are as long as others (RFC 8467). */
	w.r->config.server[0].transport = RESOLVER_TLS;
	for (unsigned n = 1; n < 60; n += 7) {
		char text[80];

		snprintf(text, sizeof(text), "%.*s.%.*s.example.com", (int)n,
			 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 3, "yyy");
		ASK(text);
		assert_true(w.slot[w.last].tcp);
		assert_int_equal(w.slot[w.last].n, DNS_PADDED);
		assert_int_equal(dns_read(&r, w.slot[w.last].m, w.slot[w.last].n), 0);
		assert_int_equal(dns_read_record(&r, &rec), 1);
		assert_int_equal(rec.type, DNS_OPT);
		assert_memory_equal(w.slot[w.last].m + rec.at, "\0\14", 2);
		assert_int_equal(rec.at + rec.len, DNS_PADDED);
	}
}

/* What does not answer the question is not believed. */
static void forged(void **state)
{
	(void)state;
	ASK("a.example.com");
	reply(w.last);
	add_a(NULL, 60, "6.6.6.6");
	said[0] ^= 1;
	send_reply(w.last, 0);
	assert_int_equal(w.answers, 0);
	reply(w.last);
	add_a(NULL, 60, "6.6.6.6");
	resolver_reply(w.r, w.last, said, dns_write_end(&server, DNS_RD), w.now);
	assert_int_equal(w.answers, 0);
	assert_true(w.slot[w.last].on);
	/* Records of other names are nobody's business, nor what leads nowhere. */
	reply(w.last);
	add_a("other.example.com", 60, "6.6.6.6");
	add_a(NULL, 60, "1.2.3.4");
	send_reply(w.last, 0);
	assert_int_equal(w.answers, 1);
	assert_true(pinned("1.2.3.4", "a.example.com"));
	assert_false(pinned("6.6.6.6", "other.example.com"));
	assert_false(pinned("6.6.6.6", "a.example.com"));
}

/* Names of names: the addresses are those of what was asked for. */
static void chain(void **state)
{
	struct dns_name cdn = name("x.cdn.example.net");
	unsigned n;

	(void)state;
	ASK("www.example.com");
	reply(w.last);
	add(NULL, DNS_CNAME, 300, cdn.b, cdn.n);
	add_a("x.cdn.example.net", 1, "1.2.3.4");
	add_a("x.cdn.example.net", 1, "1.2.3.5");
	send_reply(w.last, 0);
	assert_int_equal(got(&n), DNS_NOERROR);
	assert_int_equal(n, 3);
	/* What holds for a second holds for a few, so that it can be used. */
	assert_int_equal(record(1).ttl, RESOLVER_TTL_MIN);
	assert_true(pinned("1.2.3.5", "www.example.com"));
	assert_false(pinned("1.2.3.5", "x.cdn.example.net"));
	w.now += (RESOLVER_TTL_MIN + NAMES_GRACE_S) * SECOND;
	assert_true(pinned("1.2.3.5", "www.example.com"));
	w.now += 1;
	assert_false(pinned("1.2.3.5", "www.example.com"));
}

static void rebinding(void **state)
{
	static const char *const bad[] = {"10.1.2.3",  "127.0.0.1",  "169.254.169.254", "0.0.0.0",
					  "192.0.2.1", "172.16.0.1", "224.0.0.1"};
	static const uint8_t hint[] = {0, 1, 0, 0, 4, 0, 4, 10, 1, 2, 3};
	unsigned n;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char text[40];

		snprintf(text, sizeof(text), "n%zu.example.com", i);
		ASK(text);
		reply(w.last);
		add_a(NULL, 60, bad[i]);
		send_reply(w.last, 0);
		assert_int_equal(got(&n), DNS_NXDOMAIN);
		assert_int_equal(n, 0);
		ASK(text, .edns = 1232);
		assert_int_equal(got(&n), DNS_REFUSED);
		assert_false(pinned(bad[i], text));
	}
	/* One that is good stays. */
	ASK("some.example.com");
	reply(w.last);
	add_a(NULL, 60, "10.1.2.3");
	add_a(NULL, 60, "1.2.3.4");
	send_reply(w.last, 0);
	assert_int_equal(got(&n), DNS_NOERROR);
	assert_int_equal(n, 1);
	ASK("six.example.com", .type = DNS_AAAA);
	reply(w.last);
	add_a(NULL, 60, "64:ff9b::10.1.2.3");
	send_reply(w.last, 0);
	assert_int_equal(got(&n), DNS_NXDOMAIN);
	/* Hints are addresses, too. */
	ASK("hint.example.com", .type = DNS_HTTPS);
	reply(w.last);
	add(NULL, DNS_HTTPS, 60, hint, sizeof(hint));
	send_reply(w.last, 0);
	assert_int_equal(got(&n), DNS_NXDOMAIN);
	/* Those who know what they do; but never this host and the clouds' secrets. */
	w.r->config.private_answers = true;
	ASK("inner.example.com");
	reply(w.last);
	add_a(NULL, 60, "10.1.2.3");
	add_a(NULL, 60, "127.0.0.1");
	add_a(NULL, 60, "169.254.169.254");
	send_reply(w.last, 0);
	assert_int_equal(got(&n), DNS_NOERROR);
	assert_int_equal(n, 1);
	assert_true(pinned("10.1.2.3", "inner.example.com"));
}

static void denied(void **state)
{
	struct dns_record rec;

	(void)state;
	net_policy_init(&w.policy);
	assert_int_equal(net_policy_rules(&w.policy,
					  "deny@dns=bad.example.com,allow@*.example.com:tcp:443,"
					  "deny@dns:tcp,allow@dns=look.org",
					  NULL),
			 0);
	ASK("www.example.com");
	assert_int_equal(w.asked, 1);
	ASK("www.example.com", .tcp = true, .type = DNS_AAAA);
	assert_int_equal(w.asked, 2);
	ASK("look.org");
	assert_int_equal(w.asked, 3);
	assert_int_equal(w.answers, 0);
	/* Without EDNS a name does not exist, with it the reason is told. */
	ASK("bad.example.com");
	assert_int_equal(got(NULL), DNS_NXDOMAIN);
	ASK("bad.example.com", .edns = 1232);
	assert_int_equal(got(NULL), DNS_REFUSED);
	rec = record(0);
	assert_int_equal(rec.type, DNS_OPT);
	assert_memory_equal(w.answer + rec.at, "\0\x0f", 2);
	assert_int_equal(w.answer[rec.at + 5], 15);
	ASK("example.com");
	assert_int_equal(got(NULL), DNS_NXDOMAIN);
	ASK("www.look.org");
	assert_int_equal(got(NULL), DNS_NXDOMAIN);
	ASK("look.org", .tcp = true);
	assert_int_equal(got(NULL), DNS_NXDOMAIN);
	/* Nothing of this was asked of anybody. */
	assert_int_equal(w.asked, 3);
	assert_int_equal(resolver_stats(w.r)->denied, 5);
}

/* A denied name is not to be had under another one, if the rules allow that or not. */
static void denied_alias(void **state)
{
	struct dns_name bad = name("x.BAD.example.net"), fine = name("cdn.example.net");

	(void)state;
	assert_int_equal(net_policy_rules(&w.policy,
					  "allow@www.bad.example.net,deny@suffix=bad.example.net,"
					  "deny@domain=part.example.net:tcp:80",
					  NULL),
			 0);
	for (int i = 0; i < 2; i++) {
		ASK("www.example.com", .edns = 1232);
		if (i == 0) {
			reply(w.last);
			add(NULL, DNS_CNAME, 300, bad.b, bad.n);
			add_a("x.bad.example.net", 300, "1.2.3.4");
			send_reply(w.last, 0);
		}
		/* The second time from the cache. */
		assert_int_equal(got(NULL), DNS_REFUSED);
		assert_false(pinned("1.2.3.4", "www.example.com"));
	}
	assert_int_equal(w.asked, 1);
	/* Others are not, nor what is allowed in there, nor what is denied in part only. */
	ASK("cdn.example.com");
	reply(w.last);
	add(NULL, DNS_CNAME, 300, fine.b, fine.n);
	add_a("cdn.example.net", 300, "1.2.3.5");
	send_reply(w.last, 0);
	assert_int_equal(got(NULL), DNS_NOERROR);
	bad = name("www.bad.example.net");
	fine = name("part.example.net");
	ASK("two.example.com");
	reply(w.last);
	add(NULL, DNS_CNAME, 300, bad.b, bad.n);
	add("www.bad.example.net", DNS_CNAME, 300, fine.b, fine.n);
	add_a("part.example.net", 300, "1.2.3.6");
	send_reply(w.last, 0);
	assert_int_equal(got(NULL), DNS_NOERROR);
}

/* What changes while it runs counts from the next question, whatever is in the cache by then. */
static void changed(void **state)
{
	(void)state;
	ASK("www.example.com");
	reply(w.last);
	add_a(NULL, 600, "1.2.3.4");
	send_reply(w.last, 0);
	assert_int_equal(got(NULL), DNS_NOERROR);
	assert_true(pinned("1.2.3.4", "www.example.com"));
	assert_int_equal(net_policy_rules(&w.policy, "deny@suffix=example.com", NULL), 0);
	names_policy(w.names, &w.policy);
	ASK("www.example.com");
	assert_int_equal(got(NULL), DNS_NXDOMAIN);
	/* A question that was under way when it came: its answer is told to nobody. */
	net_policy_init(&w.policy);
	assert_int_equal(net_policy_profile(&w.policy, "public", NULL), 0);
	ASK("mail.example.com");
	assert_int_equal(net_policy_rules(&w.policy, "deny@suffix=example.com", NULL), 0);
	reply(w.last);
	add_a(NULL, 600, "1.2.3.5");
	send_reply(w.last, 0);
	assert_int_not_equal(got(NULL), DNS_NOERROR);
	assert_false(pinned("1.2.3.5", "mail.example.com"));
	/* And back: from the cache. */
	w.policy.nrules = 0;
	ASK("www.example.com");
	assert_int_equal(got(NULL), DNS_NOERROR);
	assert_int_equal(w.asked, 2);
}

static void own_names(void **state)
{
	unsigned n;

	(void)state;
	assert_int_equal(resolver_add_host(&w.r->config, "db.example:10.1.2.3", NULL), 0);
	assert_int_equal(resolver_add_host(&w.r->config, "db.example:[fd00::1]", NULL), 0);
	assert_int_equal(resolver_add_host(&w.r->config, "db.example", NULL), -ERR_USAGE);
	assert_int_equal(resolver_add_host(&w.r->config, "a b:1.2.3.4", NULL), -ERR_USAGE);
	assert_int_equal(resolver_add_host(&w.r->config, "a:1.2.3", NULL), -ERR_USAGE);
	w.policy.egress = 0;
	ASK("DB.example");
	assert_int_equal(got(&n), DNS_NOERROR);
	assert_memory_equal(w.answer + record(0).at, "\12\1\2\3", 4);
	assert_true(pinned("10.1.2.3", "db.example"));
	ASK("db.example", .type = DNS_AAAA);
	assert_int_equal(record(0).len, 16);
	ASK("db.example", .type = DNS_MX);
	assert_int_equal(got(&n), DNS_NOERROR);
	assert_int_equal(n, 0);
	ASK("x.localhost");
	assert_memory_equal(w.answer + record(0).at, "\177\0\0\1", 4);
	assert_int_equal(w.asked, 0);
}

/* Too long for the guest's buffer: what fits, and a word about it; all of it over TCP. */
static void long_answers(void **state)
{
	uint8_t text[201] = {200};
	unsigned n;

	(void)state;
	ASK("long.example.com", .type = DNS_TXT);
	reply(w.last);
	for (int i = 0; i < 40; i++) {
		memset(text + 1, 'a' + i % 26, 200);
		add(NULL, DNS_TXT, 60, text, sizeof(text));
	}
	send_reply(w.last, 0);
	assert_true(w.len <= 512 && w.answer[2] & 2);
	assert_int_equal(got(&n), DNS_NOERROR);
	assert_int_equal(n, 2);
	ASK("long.example.com", .type = DNS_TXT, .edns = 4000);
	assert_true(w.len <= 4000 && w.len > 3700 && w.answer[2] & 2);
	/* The last one is the OPT. */
	got(&n);
	assert_int_equal(record(n).type, DNS_OPT);
	ASK("long.example.com", .type = DNS_TXT, .tcp = true);
	assert_int_equal(got(&n), DNS_NOERROR);
	assert_int_equal(n, 40);
	assert_false(w.answer[2] & 2);
	assert_int_equal(w.asked, 1);
}

static void not_there(void **state)
{
	unsigned n;

	(void)state;
	ASK("no.example.com");
	reply(w.last);
	add_soa(600, 100);
	send_reply(w.last, DNS_NXDOMAIN);
	assert_int_equal(got(&n), DNS_NXDOMAIN);
	ASK("no.example.com");
	assert_int_equal(w.asked, 1);
	w.now += 101 * SECOND;
	ASK("no.example.com");
	assert_int_equal(w.asked, 2);
	/* Without a word about it, a few seconds. */
	reply(w.last);
	send_reply(w.last, 0);
	assert_int_equal(got(&n), DNS_NOERROR);
	assert_int_equal(n, 0);
	w.now += (RESOLVER_TTL_MIN + 1) * SECOND;
	ASK("no.example.com");
	assert_int_equal(w.asked, 3);
}

static void bad_questions(void **state)
{
	static const uint8_t two[] = "\0\1\1\0\0\2\0\0\0\0\0\0\1a\0\0\1\0\1\1a\0\0\1\0\1";
	static const uint8_t status[] = "\0\1\x10\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\1";
	static const uint8_t chaos[] = "\0\1\1\0\0\1\0\0\0\0\0\0\1a\0\0\x10\0\3";
	static const uint8_t edns[] =
		"\0\1\1\0\0\1\0\0\0\0\0\1\1a\0\0\1\0\1\0\0\x29\4\0\0\7\0\0\0\0";
	static const uint8_t cut[] = "\0\1\1\0\0\1\0\0\0\0\0\0\5a\0\0";

	(void)state;
#define RAW(m) resolver_ask(w.r, NULL, NET_UDP, m, sizeof(m) - 1, w.now)
	assert_false(resolver_ask(w.r, NULL, NET_UDP, two, 11, w.now));
	assert_true(RAW(two));
	assert_int_equal(got(NULL), DNS_FORMERR);
	assert_true(RAW(status));
	assert_int_equal(got(NULL), DNS_NOTIMP);
	assert_true(RAW(chaos));
	assert_int_equal(got(NULL), DNS_REFUSED);
	assert_true(RAW(cut));
	assert_int_equal(got(NULL), DNS_FORMERR);
	/* BADVERS is 16: a bit of it is in the OPT. */
	assert_true(RAW(edns));
	assert_int_equal(got(NULL), 0);
	assert_int_equal(record(0).ttl >> 24, 1);
	ASK("example.com", .type = DNS_AXFR, .tcp = true);
	assert_int_equal(got(NULL), DNS_REFUSED);
	/* An answer is no question. */
	w.answer[0] = 9;
	assert_false(resolver_ask(w.r, NULL, NET_UDP, w.answer, w.len, w.now));
	assert_int_equal(w.asked, 0);
#undef RAW
}

/* Data in names gets through no faster than it is allowed to; what is known costs nothing. */
static void exfiltration(void **state)
{
	unsigned allowed = 0, others = 0;
	char text[100];

	(void)state;
	for (int i = 0; i < 1000; i++) {
		unsigned before = w.asked;

		snprintf(text, sizeof(text), "%060d.evil.example", i);
		ASK(text);
		if (w.asked == before)
			continue;
		answer_a("1.2.3.4", 60);
		allowed++;
	}
	assert_in_range(allowed, 100, 140);
	/* Others are not touched. */
	for (int i = 0; i < 300; i++) {
		unsigned before = w.asked;

		snprintf(text, sizeof(text), "www.site%d.example", i);
		ASK(text);
		if (w.asked == before)
			continue;
		answer_a("1.2.3.4", 60);
		others++;
	}
	assert_int_equal(others, 300);
	w.now += SECOND;
	ASK("short.evil.example");
	assert_true(w.slot[w.last].on);
	assert_int_equal(resolver_stats(w.r)->limited, 1000 - allowed);
}

/* More questions than there is room for are answered, too. */
static void flood(void **state)
{
	char text[100];

	(void)state;
	for (int i = 0; i < RESOLVER_QUERIES + 10; i++) {
		snprintf(text, sizeof(text), "flood%d.example", i);
		assert_true(ASK(text));
	}
	assert_int_equal(w.asked, RESOLVER_QUERIES);
	assert_int_equal(w.answers, 10);
	assert_int_equal(got(NULL), DNS_SERVFAIL);
	for (int i = 0; i < 100; i++)
		assert_true(ASK("flood0.example"));
	assert_int_equal(w.answers, 10 + 37);
}

/* Whoever is gone gets nothing; what he asked for is known then. */
static void gone(void **state)
{
	int me, you;

	(void)state;
	ASK("a.example", .who = &me);
	ASK("a.example", .who = &you);
	resolver_forget(w.r, &me);
	answer_a("1.2.3.4", 60);
	assert_int_equal(w.answers, 1);
	assert_ptr_equal(w.who, &you);
	ASK("b.example", .who = &me);
	resolver_forget(w.r, &me);
	answer_a("1.2.3.4", 60);
	assert_int_equal(w.answers, 1);
	ASK("b.example", .who = &you);
	assert_int_equal(w.answers, 2);
}

/* A flood of names under one rule costs no other rule its pins, and an open address its own. */
static void shares(void **state)
{
	struct dns_name good = name("good.example.com"), n;
	struct net_addr a = addr("1.2.3.4"), b;
	struct net_rules rules;

	(void)state;
	net_policy_init(&w.policy);
	assert_int_equal(
		net_policy_rules(&w.policy, "allow@good.example.com,allow@*.evil.com", NULL), 0);
	names_policy(w.names, &w.policy);
	names_pin(w.names, &a, &good, w.now + 1000 * SECOND);
	for (unsigned i = 0; i < 20000; i++) {
		uint8_t four[4] = {9, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i};
		char text[64];

		snprintf(text, sizeof(text), "n%u.evil.com", i);
		n = name(text);
		b = net_addr_v4(four);
		assert_int_equal(names_pin(w.names, i & 1 ? &a : &b, &n, w.now + 10000 * SECOND),
				 0);
	}
	assert_true(names_has(w.names, &a, &good, w.now, &rules));
	assert_int_equal(rules.bits[0], 1);
	names_rules(w.names, &a, w.now, &rules);
	assert_int_equal(rules.bits[0], 3);
	assert_true(names_has(w.names, &a, &n, w.now, &rules));
	/* Other rules: who has which name is known still, and counts for them. */
	net_policy_init(&w.policy);
	assert_int_equal(
		net_policy_rules(&w.policy, "deny@10.0.0.0/8,allow@suffix=example.com", NULL), 0);
	names_policy(w.names, &w.policy);
	names_rules(w.names, &a, w.now, &rules);
	assert_int_equal(rules.bits[0], 2);
	w.now += 1001 * SECOND;
	names_rules(w.names, &a, w.now, &rules);
	assert_int_equal(rules.bits[0], 0);
}

static void server_words(void **state)
{
	static const struct {
		const char *text;
		enum resolver_transport transport;
		const char *addr;
		uint16_t port;
		const char *name;
	} good[] = {
		{"9.9.9.9", RESOLVER_UDP, "9.9.9.9", 53, ""},
		{"9.9.9.9:5353", RESOLVER_UDP, "9.9.9.9", 5353, ""},
		{"2620:fe::fe", RESOLVER_UDP, "2620:fe::fe", 53, ""},
		{"udp://[2620:fe::fe]:54", RESOLVER_UDP, "2620:fe::fe", 54, ""},
		{"tcp://10.0.0.1", RESOLVER_TCP, "10.0.0.1", 53, ""},
		{"tls://9.9.9.9", RESOLVER_TLS, "9.9.9.9", 853, ""},
		{"tls://9.9.9.9:8853#dns.quad9.net", RESOLVER_TLS, "9.9.9.9", 8853,
		 "dns.quad9.net"},
		{"tls://[2620:fe::fe]#dns.quad9.net.", RESOLVER_TLS, "2620:fe::fe", 853,
		 "dns.quad9.net"},
	};
	static const char *const bad[] = {"",
					  "dns.quad9.net",
					  "9.9.9.9:",
					  "9.9.9.9:0",
					  "9.9.9.9:x",
					  "9.9.9.9#a.b",
					  "[::1",
					  "[::1]x",
					  "tls://9.9.9.9#",
					  "tls://9.9.9.9#.",
					  "tls://dns.quad9.net",
					  "http://9.9.9.9"};
	static const struct {
		const char *text, *host, *name;
		uint16_t port;
	} named[] = {
		{"tls://dns.quad9.net", "dns.quad9.net", "dns.quad9.net", 853},
		{"tls://dns.quad9.net.:8853", "dns.quad9.net", "dns.quad9.net", 8853},
		{"tls://a.example#b.example.", "a.example", "b.example", 853},
	};
	static const char *const unnamed[] = {"dns.quad9.net", "tcp://dns.quad9.net", "tls://quad9",
					      "tls://9.9.9",   "tls://a.b.999",	      "tls://a..b",
					      "tls://.",       "tls://a.b:0",	      "tls://a.b#"};
	struct resolver_config c = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct net_addr a = addr(good[i].addr);

		c.nservers = 0;
		assert_int_equal(resolver_add_server(&c, good[i].text, NULL), 0);
		assert_int_equal(c.server[0].transport, good[i].transport);
		assert_true(net_addr_equal(&c.server[0].addr, &a));
		assert_int_equal(c.server[0].port, good[i].port);
		assert_string_equal(c.server[0].name, good[i].name);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(resolver_add_server(&c, bad[i], NULL), -ERR_USAGE);
	/* By name, where that can be looked up; over TLS, which tells whether it is who was meant. */
	c.hosts_may = true;
	for (size_t i = 0; i < ARRAY_SIZE(named); i++) {
		c.nservers = 0;
		assert_int_equal(resolver_add_server(&c, named[i].text, NULL), 0);
		assert_string_equal(c.server[0].host, named[i].host);
		assert_string_equal(c.server[0].name, named[i].name);
		assert_int_equal(c.server[0].port, named[i].port);
	}
	for (size_t i = 0; i < ARRAY_SIZE(unnamed); i++)
		assert_int_equal(resolver_add_server(&c, unnamed[i], NULL), -ERR_USAGE);
	for (c.nservers = 0; c.nservers < RESOLVER_SERVERS_MAX;)
		assert_int_equal(resolver_add_server(&c, "9.9.9.9", NULL), 0);
	assert_int_equal(resolver_add_server(&c, "9.9.9.9", NULL), -ERR_USAGE);
}

/* What happens between a lookup and a connection, ten thousand times: nothing. */
static void no_race(void **state)
{
	char text[64];

	(void)state;
	net_policy_init(&w.policy);
	assert_int_equal(net_policy_rules(&w.policy, "allow@*.example.com:tcp:443", NULL), 0);
	names_policy(w.names, &w.policy);
	for (unsigned i = 0; i < 10000; i++) {
		uint8_t four[4] = {9, 9, (uint8_t)(i >> 8), (uint8_t)i};
		struct net_addr a = net_addr_v4(four);
		struct net_rules rules;
		struct net_question q = {.direction = NET_EGRESS,
					 .proto = NET_TCP,
					 .port = 443,
					 .peer = a,
					 .named = &rules};
		unsigned answers = w.answers;

		snprintf(text, sizeof(text), "n%u.example.com", i % 100);
		names_rules(w.names, &a, w.now, &rules);
		assert_int_equal(net_policy_decide(&w.policy, &q), NET_DENIED);
		ASK(text);
		reply(w.last);
		add(NULL, DNS_A, 1, four, 4);
		send_reply(w.last, 0);
		assert_int_equal(w.answers, answers + 1);
		names_rules(w.names, &a, w.now, &rules);
		assert_int_equal(net_policy_decide(&w.policy, &q), NET_ALLOWED_BY_NAME);
		w.now += 100 * MS;
	}
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, begin, end)
	const struct CMUnitTest tests[] = {
		TEST(asked_once),   TEST(failover),	 TEST(nobody_answers), TEST(other_ways),
		TEST(forged),	    TEST(chain),	 TEST(rebinding),      TEST(denied),
		TEST(denied_alias), TEST(changed),	 TEST(own_names),      TEST(long_answers),
		TEST(not_there),    TEST(bad_questions), TEST(flood),	       TEST(exfiltration),
		TEST(gone),	    TEST(shares),	 TEST(no_race),	       TEST(server_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
