/* SPDX-License-Identifier: Apache-2.0 */
/* Kinds of addresses in every spelling, and what profiles and rules make of them. */
#include "test.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "net/policy.h"

static struct net_addr addr(const char *text)
{
	struct net_addr a;

	if (!net_addr_parse(text, &a))
		fail_msg("no address: %s", text);
	return a;
}

static void kinds(void **state)
{
	static const struct {
		const char *text;
		enum net_kind kind;
	} rows[] = {
		{"1.1.1.1", NET_PUBLIC},
		{"8.8.8.8", NET_PUBLIC},
		{"172.32.0.1", NET_PUBLIC},
		{"100.128.0.1", NET_PUBLIC},
		{"192.0.1.1", NET_PUBLIC},
		{"198.20.0.1", NET_PUBLIC},
		{"10.0.0.1", NET_PRIVATE},
		{"172.16.0.1", NET_PRIVATE},
		{"172.31.255.255", NET_PRIVATE},
		{"192.168.255.1", NET_PRIVATE},
		{"100.64.0.1", NET_PRIVATE},
		{"127.0.0.1", NET_LOOPBACK},
		{"127.255.255.254", NET_LOOPBACK},
		{"0.0.0.0", NET_LOOPBACK},
		{"0.1.2.3", NET_LOOPBACK},
		{"169.254.1.1", NET_LINK_LOCAL},
		{"169.254.169.254", NET_METADATA},
		{"169.254.170.2", NET_METADATA},
		{"100.100.100.200", NET_METADATA},
		{"224.0.0.1", NET_MULTICAST},
		{"239.255.255.255", NET_MULTICAST},
		{"255.255.255.255", NET_MULTICAST},
		{"240.0.0.1", NET_RESERVED},
		{"192.0.0.1", NET_RESERVED},
		{"192.0.0.9", NET_PUBLIC},
		{"192.0.2.1", NET_RESERVED},
		{"198.18.0.1", NET_RESERVED},
		{"198.19.255.255", NET_RESERVED},
		{"198.51.100.1", NET_RESERVED},
		{"203.0.113.1", NET_RESERVED},
		{"192.88.99.1", NET_RESERVED},
		{"2606:4700::1", NET_PUBLIC},
		{"::", NET_LOOPBACK},
		{"::1", NET_LOOPBACK},
		{"fd00::1", NET_PRIVATE},
		{"fec0::1", NET_PRIVATE},
		{"fe80::1", NET_LINK_LOCAL},
		{"ff02::1", NET_MULTICAST},
		{"169.254.170.23", NET_METADATA},
		{"169.254.169.252", NET_METADATA},
		{"169.254.42.42", NET_METADATA},
		{"169.254.0.23", NET_METADATA},
		{"169.254.10.10", NET_METADATA},
		{"168.63.129.16", NET_METADATA},
		{"192.0.0.192", NET_METADATA},
		{"fd00:ec2::254", NET_METADATA},
		{"fd00:ec2::23", NET_METADATA},
		{"fd00:c1::a9fe:a9fe", NET_METADATA},
		{"fe80::a9fe:a9fe", NET_METADATA},
		{"fd00:a9fe:a9fe::1", NET_METADATA},
		{"fd00:42::42", NET_METADATA},
		{"fd00:100::100:200", NET_METADATA},
		{"fd20:ce::254", NET_METADATA},
		{"2001:db8::1", NET_RESERVED},
		{"2001::1", NET_LOOPBACK}, /* Teredo, with a server at 0.0.0.0 */
		{"2001:2::1", NET_RESERVED},
		{"2001:10::1", NET_RESERVED},
		{"2001:20::1", NET_PUBLIC},
		{"2001:200::1", NET_PUBLIC},
		{"3fff::1", NET_RESERVED},
		{"100::1", NET_RESERVED},
		{"5f00::1", NET_RESERVED},
		{"4000::1", NET_RESERVED},
		/* the same in disguise */
		{"::ffff:127.0.0.1", NET_LOOPBACK},
		{"::127.0.0.1", NET_LOOPBACK},
		{"::ffff:0:127.0.0.1", NET_LOOPBACK},
		{"64:ff9b::127.0.0.1", NET_LOOPBACK},
		{"64:ff9b::10.0.0.1", NET_PRIVATE},
		{"64:ff9b::169.254.169.254", NET_METADATA},
		{"64:ff9b::8.8.8.8", NET_PUBLIC},
		{"64:ff9b:1::192.168.0.1", NET_PRIVATE},
		{"2002:7f00:1::1", NET_LOOPBACK},
		{"2002:a9fe:a9fe::1", NET_METADATA},
		{"2002:c0a8:1::", NET_PRIVATE},
		{"2002:808:808::", NET_PUBLIC},
		{"::8.8.8.8", NET_RESERVED},
		{"::ffff:0:8.8.8.8", NET_RESERVED},
		{"64:ff9b:1::8.8.8.8", NET_PUBLIC},
		/* prefixes of 48, 56 and 64 bits, with something else in the last bytes */
		{"64:ff9b:1:a00:0:100:808:808", NET_PRIVATE},
		{"64:ff9b:1:7f:0:1:808:808", NET_LOOPBACK},
		{"64:ff9b:1:0:a9:fea9:fe08:808", NET_METADATA},
		/* ISATAP */
		{"2a00::5efe:8.8.8.8", NET_PUBLIC},
		{"2a00::5efe:10.0.0.1", NET_PRIVATE},
		{"2a00::200:5efe:127.0.0.1", NET_LOOPBACK},
		{"fd00::5efe:169.254.169.254", NET_METADATA},
		{"fe80::5efe:8.8.8.8", NET_LINK_LOCAL},
		/* Teredo, with a server and a client in it */
		{"2001:0:4136:e378:8000:63bf:f5ff:fffe", NET_RESERVED},
		{"2001:0:4136:e378:8000:63bf:80ff:fffe", NET_LOOPBACK},
		{"2001:0:a9fe:a9fe:8000:63bf:f7f7:f7f7", NET_METADATA},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct net_addr a = addr(rows[i].text);

		if (net_addr_kind(&a) != rows[i].kind)
			fail_msg("%s is of kind %d", rows[i].text, net_addr_kind(&a));
	}
}

/* IANA's registries of special-purpose addresses, row by row, and what is beside and between. */
static void registries(void **state)
{
	static const struct {
		const char *text;
		unsigned bits;
		enum net_kind first, last;
	} rows[] = {
#define ALL(kind) kind, kind
		{"0.0.0.0", 8, ALL(NET_LOOPBACK)},
		{"0.0.0.0", 32, ALL(NET_LOOPBACK)},
		{"10.0.0.0", 8, ALL(NET_PRIVATE)},
		{"100.64.0.0", 10, ALL(NET_PRIVATE)},
		{"127.0.0.0", 8, ALL(NET_LOOPBACK)},
		{"169.254.0.0", 16, ALL(NET_LINK_LOCAL)},
		{"172.16.0.0", 12, ALL(NET_PRIVATE)},
		{"192.0.0.0", 24, ALL(NET_RESERVED)},
		{"192.0.0.0", 29, ALL(NET_RESERVED)},
		{"192.0.0.8", 32, ALL(NET_RESERVED)},
		{"192.0.0.9", 32, ALL(NET_PUBLIC)},
		{"192.0.0.10", 32, ALL(NET_PUBLIC)},
		{"192.0.0.170", 32, ALL(NET_RESERVED)},
		{"192.0.0.171", 32, ALL(NET_RESERVED)},
		{"192.0.2.0", 24, ALL(NET_RESERVED)},
		{"192.31.196.0", 24, ALL(NET_PUBLIC)},
		{"192.52.193.0", 24, ALL(NET_PUBLIC)},
		{"192.88.99.0", 24, ALL(NET_RESERVED)},
		{"192.88.99.2", 32, ALL(NET_RESERVED)},
		{"192.168.0.0", 16, ALL(NET_PRIVATE)},
		{"192.175.48.0", 24, ALL(NET_PUBLIC)},
		{"198.18.0.0", 15, ALL(NET_RESERVED)},
		{"198.51.100.0", 24, ALL(NET_RESERVED)},
		{"203.0.113.0", 24, ALL(NET_RESERVED)},
		{"224.0.0.0", 4, ALL(NET_MULTICAST)},
		{"240.0.0.0", 4, NET_RESERVED, NET_MULTICAST},
		{"255.255.255.255", 32, ALL(NET_MULTICAST)},
		{"::1", 128, ALL(NET_LOOPBACK)},
		{"::", 128, ALL(NET_LOOPBACK)},
		{"::ffff:0:0", 96, NET_LOOPBACK, NET_MULTICAST},
		{"64:ff9b::", 96, NET_LOOPBACK, NET_MULTICAST},
		{"64:ff9b:1::", 48, NET_LOOPBACK, NET_MULTICAST},
		{"100::", 64, ALL(NET_RESERVED)},
		{"100:0:0:1::", 64, ALL(NET_RESERVED)},
		{"2001::", 23, NET_LOOPBACK, NET_RESERVED},
		{"2001::", 32, ALL(NET_LOOPBACK)},
		{"2001:1::1", 128, ALL(NET_PUBLIC)},
		{"2001:1::2", 128, ALL(NET_PUBLIC)},
		{"2001:1::3", 128, ALL(NET_PUBLIC)},
		{"2001:1::4", 128, ALL(NET_RESERVED)},
		{"2001:2::", 48, ALL(NET_RESERVED)},
		{"2001:3::", 32, ALL(NET_PUBLIC)},
		{"2001:4:112::", 48, ALL(NET_PUBLIC)},
		{"2001:10::", 28, ALL(NET_RESERVED)},
		{"2001:20::", 28, ALL(NET_PUBLIC)},
		{"2001:30::", 28, ALL(NET_PUBLIC)},
		{"2001:db8::", 32, ALL(NET_RESERVED)},
		{"2002::", 16, NET_LOOPBACK, NET_MULTICAST},
		{"2620:4f:8000::", 48, ALL(NET_PUBLIC)},
		{"3fff::", 20, ALL(NET_RESERVED)},
		{"3fff:1000::", 20, ALL(NET_PUBLIC)},
		{"4000::", 2, ALL(NET_RESERVED)},
		{"5f00::", 16, ALL(NET_RESERVED)},
		{"8000::", 2, ALL(NET_RESERVED)},
		{"c000::", 3, ALL(NET_RESERVED)},
		{"fc00::", 7, ALL(NET_PRIVATE)},
		{"fe00::", 9, ALL(NET_RESERVED)},
		{"fe80::", 10, ALL(NET_LINK_LOCAL)},
		{"fec0::", 10, ALL(NET_PRIVATE)},
		{"ff00::", 8, ALL(NET_MULTICAST)},
#undef ALL
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct net_addr first = addr(rows[i].text), last = first;
		unsigned bits = rows[i].bits + (strchr(rows[i].text, ':') ? 0 : 96);

		for (unsigned b = bits; b < 128; b++)
			last.b[b / 8] |= (uint8_t)(0x80 >> b % 8);
		if (net_addr_kind(&first) != rows[i].first || net_addr_kind(&last) != rows[i].last)
			fail_msg("%s/%u is of kinds %d and %d", rows[i].text, rows[i].bits,
				 net_addr_kind(&first), net_addr_kind(&last));
	}
}

struct asked {
	const char *profile, *rules;
	enum net_direction direction;
	uint8_t proto;
	const char *peer; /* "dns", "host" or an address */
	uint16_t port;
	bool allowed;
};

static bool ask(const struct asked *a)
{
	struct net_question q = {.direction = a->direction, .proto = a->proto, .port = a->port};
	struct net_policy p;

	net_policy_init(&p);
	assert_int_equal(net_policy_profile(&p, a->profile, NULL), 0);
	if (a->rules)
		assert_int_equal(net_policy_rules(&p, a->rules, NULL), 0);
	q.dns = str_eq(a->peer, "dns");
	q.host = q.dns || str_eq(a->peer, "host");
	q.peer = addr(q.host ? "172.16.0.1" : a->peer);
	return net_policy_allows(&p, &q);
}

static void questions(void **state)
{
#define OUT NET_EGRESS, NET_TCP
	static const struct asked rows[] = {
		{"none", NULL, OUT, "1.1.1.1", 80, false},
		{"none", NULL, OUT, "dns", 53, false},
		{"public", NULL, OUT, "1.1.1.1", 80, true},
		{"public", NULL, OUT, "dns", 53, true},
		{"public", NULL, OUT, "host", 80, false},
		{"public", NULL, OUT, "10.0.0.1", 80, false},
		{"public", NULL, OUT, "198.18.0.1", 80, false},
		{"public", NULL, OUT, "64:ff9b::10.0.0.1", 80, false},
		{"public", NULL, OUT, "240.0.0.1", 80, false},
		{"public", NULL, OUT, "169.254.169.254", 80, false},
		{"private", NULL, OUT, "10.0.0.1", 80, true},
		{"private", NULL, OUT, "1.1.1.1", 80, false},
		{"public,private", NULL, OUT, "1.1.1.1", 80, true},
		{"host", NULL, OUT, "host", 80, true},
		{"host", NULL, OUT, "127.0.0.1", 80, false},
		{"all", NULL, OUT, "1.1.1.1", 80, true},
		{"all", NULL, OUT, "10.0.0.1", 80, true},
		{"all", NULL, OUT, "169.254.169.254", 80, false},
		{"all", NULL, OUT, "2002:a9fe:a9fe::", 80, false},
		{"all", NULL, OUT, "host", 80, false},
		{"all", NULL, OUT, "127.0.0.1", 80, false},
		{"all", NULL, OUT, "0.0.0.0", 80, false},
		{"all", "allow@loopback", OUT, "127.0.0.1", 80, false},
		{"none", "allow@any", OUT, "169.254.169.254", 80, false},
		{"none", "allow@any", OUT, "host", 80, false},
		{"none", "allow@any", OUT, "10.0.0.1", 80, true},
		{"none", "allow@meta", OUT, "169.254.169.254", 80, true},
		{"all", "deny@any", OUT, "1.1.1.1", 80, false},
		{"all", "deny@any", OUT, "dns", 53, false},
		{"none", "allow@10.0.0.0/8:tcp:80-90", OUT, "10.1.2.3", 85, true},
		{"none", "allow@10.0.0.0/8:tcp:80-90", OUT, "10.1.2.3", 91, false},
		{"none", "allow@10.0.0.0/8:tcp:80-90", NET_EGRESS, NET_UDP, "10.1.2.3", 85, false},
		{"none", "allow@any:tcp:80,443,8000-8100,allow@any:udp:9", OUT, "10.1.2.3", 443,
		 true},
		{"none", "allow@any:tcp:80,443,8000-8100,allow@any:udp:9", OUT, "10.1.2.3", 8100,
		 true},
		{"none", "allow@any:tcp:80,443,8000-8100,allow@any:udp:9", OUT, "10.1.2.3", 81,
		 false},
		{"none", "allow@any:tcp:80,443,8000-8100,allow@any:udp:9", OUT, "10.1.2.3", 9,
		 false},
		{"all", "deny@10.0.0.0/8:tcp:22,25", OUT, "10.1.2.3", 25, false},
		{"all", "deny@10.0.0.0/8:tcp:22,25", OUT, "10.1.2.3", 26, true},
		{"none", "deny@10.1.0.0/16,allow@10.0.0.0/8", OUT, "10.1.2.3", 85, false},
		{"none", "deny@10.1.0.0/16,allow@10.0.0.0/8", OUT, "10.2.2.3", 85, true},
		{"none", "allow@[fd00::/8]:udp", NET_EGRESS, NET_UDP, "fd01::1", 9, true},
		{"none", "allow@[fd00::/8]:udp", OUT, "fd01::1", 9, false},
		{"none", "allow@dns:udp", NET_EGRESS, NET_UDP, "dns", 53, true},
		{"none", "allow@dns:udp", OUT, "dns", 53, false},
		{"none", "allow@1.2.3.4", NET_EGRESS, NET_ICMP, "1.2.3.4", 0, true},
		{"none", NULL, NET_INGRESS, NET_TCP, "127.0.0.1", 80, true},
		{"all", "deny:ingress@any", NET_INGRESS, NET_TCP, "127.0.0.1", 80, false},
		{"all", "deny:ingress@public", NET_INGRESS, NET_TCP, "127.0.0.1", 80, true},
		{"all", "deny:ingress@public", NET_INGRESS, NET_TCP, "9.9.9.9", 80, false},
		{"all", "deny:any@9.9.9.9", NET_INGRESS, NET_TCP, "9.9.9.9", 80, false},
		{"all", "deny:any@9.9.9.9", OUT, "9.9.9.9", 80, false},
		{"all", "deny@8.8.8.8", OUT, "64:ff9b::8.8.8.8", 80, false},
		{"all", "deny@8.0.0.0/8", OUT, "2002:808:808::1", 80, false},
		{"all", "deny@8.0.0.0/8", OUT, "64:ff9b:1:808:8:800::", 80, false},
		{"all", "deny@8.8.8.8", OUT, "2a00::5efe:8.8.8.8", 80, false},
		{"all", "deny@8.8.8.8", OUT, "64:ff9b::8.8.8.9", 80, true},
		{"all", "deny@[64:ff9b::/96]", OUT, "8.8.8.8", 80, true},
		{"none", "allow@8.8.8.8", OUT, "64:ff9b::8.8.8.8", 80, false},
		{"none", "deny@8.8.8.8,allow@any", OUT, "2001:0:808:808::1", 80, false},
		{"none", "deny@8.8.8.8,allow@any", OUT, "2001:0:4136:e378:8000:63bf:f7f7:f7f7", 80,
		 false},
		{"none", "deny@private,allow@any", OUT, "::10.0.0.1", 80, false},
		{"none", "deny@private,allow@any", OUT, "2001:0:4136:e378:8000:63bf:f5ff:fffe", 80,
		 false},
		{"none", "deny@multicast,allow@any", OUT, "::ffff:0:224.0.0.1", 80, false},
		{"none", "allow@private,deny@any", OUT, "2001:0:4136:e378:8000:63bf:f5ff:fffe", 80,
		 false},
	};
#undef OUT

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (ask(&rows[i]) != rows[i].allowed)
			fail_msg("row %zu: %s %s %s:%u", i, rows[i].profile,
				 rows[i].rules ? rows[i].rules : "", rows[i].peer, rows[i].port);
	}
}

static void defaults(void **state)
{
	struct net_question out = {.direction = NET_EGRESS, .proto = NET_TCP, .port = 80};
	struct net_question in = {.direction = NET_INGRESS, .proto = NET_TCP, .port = 80};
	struct net_policy p;

	(void)state;
	out.peer = in.peer = addr("10.1.2.3");
	net_policy_init(&p);
	assert_int_equal(net_policy_default(&p, NET_EGRESS, "allow", NULL), 0);
	assert_true(net_policy_allows(&p, &out));
	assert_true(net_policy_allows(&p, &in));
	/* It opens no more than allow@any. */
	out.peer = addr("169.254.169.254");
	assert_false(net_policy_allows(&p, &out));
	out.host = true;
	out.peer = addr("172.16.0.1");
	assert_false(net_policy_allows(&p, &out));
	assert_int_equal(net_policy_rules(&p, "allow:ingress@10.0.0.0/8:tcp:80,81", NULL), 0);
	assert_int_equal(net_policy_default(&p, NET_EGRESS | NET_INGRESS, "deny", NULL), 0);
	out.host = false;
	out.peer = addr("10.1.2.3");
	assert_false(net_policy_allows(&p, &out));
	assert_true(net_policy_allows(&p, &in));
	in.port = 82;
	assert_false(net_policy_allows(&p, &in));
	assert_int_equal(net_policy_default(&p, NET_EGRESS, "maybe", NULL), -ERR_USAGE);
}

static void refused_words(void **state)
{
	static const char *const bad[] = {
		"",
		"allow",
		"allow@",
		"permit@any",
		"allow:up@any",
		"allow@anyone",
		"allow@10.0.0.0/33",
		"allow@10.0.0.0/-1",
		"allow@10.0.0.0/",
		"allow@10.0.0.0/8x",
		"allow@fd00::1",
		"allow@[fd00::1",
		"allow@[fd00::1]x",
		"allow@[fd00::/129]",
		"allow@any:sctp",
		"allow@any:tcp:0",
		"allow@any:tcp:65536",
		"allow@any:tcp:9-8",
		"allow@any:tcp:80x",
		"allow@any:tcp:80,",
		"allow@any:tcp:80,90x",
		"allow@any:tcp:80,0",
		"allow@any:tcp:80 -90",
		"allow@any:tcp:80-90-91",
		"allow@any:tcp,80",
		"allow@any,80",
		"80",
		"allow@host:443",
		"allow@any:icmpv4:1",
		"allow:ingress@dns",
		"allow@dns:tcp:80",
		"allow@dns:icmpv4",
		"deny@dns=example.com:udp:54-60",
		"allow:ingress@any:icmpv4",
		"allow@any,deny",
		"allow@any:tcp:80:90",
		"deny@doh:tcp:443",
		"deny@doh:",
		"deny:ingress@doh",
		"deny:any@doh",
		"deny@doh,443",
		"refuse@doh",
		"deny@dohs",
	};
	struct net_policy p;

	(void)state;
	net_policy_init(&p);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct err err = ERR_INIT;

		if (net_policy_rules(&p, bad[i], &err) != -ERR_USAGE || !err.hint[0])
			fail_msg("\"%s\": %s", bad[i], err.msg);
		assert_int_equal(p.nrules, 0);
	}
	assert_int_equal(net_policy_profile(&p, "public,nobody", NULL), -ERR_USAGE);
	assert_int_equal(net_policy_profile(&p, "none,public", NULL), -ERR_USAGE);
	assert_int_equal(net_policy_profile(&p, "public,none", NULL), -ERR_USAGE);
	assert_int_equal(p.egress, 0);
	for (unsigned i = 0; i < NET_RULES_MAX; i++)
		assert_int_equal(net_policy_rules(&p, "allow@any", NULL), 0);
	assert_int_equal(net_policy_rules(&p, "allow@any", NULL), -ERR_LIMIT);
}

static struct dns_name name(const char *text)
{
	struct dns_name n;

	if (dns_name_parse(text, &n) < 0)
		fail_msg("no name: %s", text);
	return n;
}

/* What rules for names match, and what they say about asking. */
static void names(void **state)
{
	static const struct {
		const char *rules, *name;
		bool match, ask;
	} rows[] = {
		{"allow@example.com", "example.com", true, true},
		{"allow@example.com", "www.example.com", false, false},
		{"allow@domain=printer", "printer", true, true},
		{"allow@*.example.com", "example.com", false, false},
		{"allow@*.example.com:tcp:443", "a.b.example.com", true, true},
		{"allow@*.example.com", "badexample.com", false, false},
		{"allow@suffix=Example.COM", "example.com", true, true},
		{"allow@suffix=example.com", "www.example.com", true, true},
		{"allow@suffix=example.com", "example.com.evil.org", false, false},
		{"allow@dns=example.com", "example.com", true, true},
		{"allow@dns=*.com", "example.com", true, true},
		{"deny@example.com,allow@dns", "example.com", true, false},
		{"deny@example.com:tcp:80,allow@dns", "example.com", true, true},
		{"deny@dns=example.com,allow@example.com", "example.com", true, false},
		{"deny@any,allow@example.com", "example.com", true, false},
		{"deny@any:tcp:80,allow@example.com", "example.com", true, true},
		{"allow@any", "example.com", false, true},
		{"deny@0.0.0.0/0", "example.com", false, false},
	};
	static const char *const bad[] = {
		"allow@domain=", "allow@domain=a b", "allow@suffix=com", "allow@*.com",
		"allow@*.",	 "allow@1.2.3",	     "allow@10.0.0.256", "allow@*",
		"allow@nowhere", "allow@a..b",	     "allow:any@a.b",	 "deny:ingress@*.a.b",
		"allow@dns=",	 "allow@ex*.com",    "allow@www.*.com",	 "allow@domain=.",
	};
	struct net_policy p;
	struct net_rules set;
	struct err err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct dns_name n = name(rows[i].name);

		net_policy_init(&p);
		assert_int_equal(net_policy_rules(&p, rows[i].rules, NULL), 0);
		net_policy_named(&p, &n, &set);
		if ((set.bits[0] != 0) != rows[i].match ||
		    net_policy_may_ask(&p, &n, NET_UDP) != rows[i].ask)
			fail_msg("%s: %s", rows[i].rules, rows[i].name);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		err = (struct err)ERR_INIT;
		if (net_policy_rules(&p, bad[i], &err) != -ERR_USAGE || !err.hint[0])
			fail_msg("%s was taken", bad[i]);
	}
	err = (struct err)ERR_INIT;
	net_policy_rules(&p, "allow@privat", &err);
	assert_string_equal(err.hint, "did you mean private?");
}

/* Order counts among rules for names and others; a name opens what its rule says, no more. */
static void named_flows(void **state)
{
	static const struct {
		const char *rules;
		uint64_t named;
		uint16_t port;
		enum net_verdict verdict;
	} rows[] = {
		{"allow@a.b", 1, 80, NET_ALLOWED_BY_NAME},
		{"allow@a.b", 0, 80, NET_DENIED},
		{"allow@a.b:tcp:443", 1, 80, NET_DENIED},
		{"allow@a.b:udp", 1, 80, NET_DENIED},
		{"allow@dns=a.b", 1, 80, NET_DENIED},
		{"deny@a.b,allow@public", 1, 80, NET_DENIED},
		{"deny@a.b,allow@public", 0, 80, NET_ALLOWED},
		{"deny@public,allow@a.b", 2, 80, NET_DENIED},
		/* Other ways to ask for names have to be named. */
		{"allow@public", 0, 853, NET_DENIED},
		{"allow@a.b", 1, 853, NET_DENIED},
		{"allow@a.b:tcp:853", 1, 853, NET_ALLOWED_BY_NAME},
		{"allow@public:tcp:800-900", 0, 853, NET_ALLOWED},
		{"allow@public", 0, 5355, NET_DENIED},
	};
	struct net_policy p;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct net_rules set = {{rows[i].named}};
		struct net_question q = {
			.direction = NET_EGRESS,
			.proto = NET_TCP,
			.port = rows[i].port,
			.peer = addr("9.9.9.9"),
			.named = &set,
		};

		net_policy_init(&p);
		assert_int_equal(net_policy_rules(&p, rows[i].rules, NULL), 0);
		if (net_policy_decide(&p, &q) != rows[i].verdict)
			fail_msg("%s, port %u", rows[i].rules, rows[i].port);
	}
	/* Nor by a profile. */
	net_policy_init(&p);
	assert_int_equal(net_policy_profile(&p, "all", NULL), 0);
	assert_int_equal(net_policy_decide(&p, &(struct net_question){.direction = NET_EGRESS,
								      .proto = NET_UDP,
								      .port = 853,
								      .peer = addr("9.9.9.9")}),
			 NET_DENIED);
}

/* DNS over HTTPS, which looks like any other, by those that serve it. */
static void doh(void **state)
{
	static const char *const shut[] = {"1.1.1.1", "8.8.4.4", "64:ff9b::8.8.8.8", "9.9.9.11",
					   "2606:4700:4700::1111"};
	static const char *const unknown[] = {"mozilla.cloudflare-dns.com", "dns.google",
					      "use-application-dns.net", "_dns.resolver.arpa"};
	static const uint8_t protos[] = {NET_TCP, NET_UDP};
	static struct net_policy p;
	struct net_question q = {.direction = NET_EGRESS, .port = 443};
	struct dns_name n;

	(void)state;
	net_policy_init(&p);
	assert_int_equal(net_policy_profile(&p, "public", NULL), 0);
	for (int said = 0; said < 2; said++) {
		for (size_t i = 0; i < ARRAY_SIZE(shut) * 2; i++) {
			q.peer = addr(shut[i / 2]);
			q.proto = protos[i % 2];
			assert_int_equal(net_policy_allows(&p, &q), !said);
		}
		for (size_t i = 0; i < ARRAY_SIZE(unknown); i++) {
			n = name(unknown[i]);
			assert_int_equal(net_policy_may_ask(&p, &n, NET_UDP), !said);
		}
		if (said)
			break;
		assert_int_equal(net_policy_rules(&p, "deny@10.0.0.1,deny@doh,deny@10.0.0.2", NULL),
				 0);
		assert_in_range(p.nrules, 60, NET_RULES_MAX / 2);
	}
	q.peer = addr("1.1.2.1");
	assert_true(net_policy_allows(&p, &q));
	n = name("www.google.com");
	assert_true(net_policy_may_ask(&p, &n, NET_UDP));
	/* Not half of them. */
	net_policy_init(&p);
	for (unsigned i = 0; i < NET_RULES_MAX - 10; i++)
		assert_int_equal(net_policy_rules(&p, "allow@any", NULL), 0);
	assert_int_equal(net_policy_rules(&p, "deny@doh", NULL), -ERR_LIMIT);
	assert_int_equal(p.nrules, NET_RULES_MAX - 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),	 cmocka_unit_test(named_flows),
		cmocka_unit_test(kinds),	 cmocka_unit_test(registries),
		cmocka_unit_test(questions),	 cmocka_unit_test(defaults),
		cmocka_unit_test(refused_words), cmocka_unit_test(doh),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
