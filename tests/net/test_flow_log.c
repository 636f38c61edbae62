/* SPDX-License-Identifier: Apache-2.0 */
/* What a log says of a stack's news, and how much at most. */
#include "test.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "net/flow_log.h"

#define SECOND UINT64_C(1000000000)

struct lines {
	struct flow_log log;
	struct strv text;
	unsigned n;
	char last[1200];
	bool refusal; /* ...is one */
};

static void take(void *arg, const char *text, const char *members, bool refusal)
{
	struct lines *l = arg;
	unsigned quotes = 0;

	/* Whole strings, and nothing in them that would have to be escaped. */
	for (const char *c = members; *c; c++) {
		assert_true(*c >= ' ' && *c != '\\');
		quotes += *c == '"';
	}
	assert_int_equal(quotes % 2, 0);
	l->n++;
	snprintf(l->last, sizeof(l->last), "%s|%s", text, members);
	l->refusal = refusal;
	assert_int_equal(strv_add(&l->text, text), 0);
}

static void tell(struct lines *l, enum stack_news_kind kind, const char *peer, uint16_t port,
		 uint64_t now)
{
	struct stack_news n = {
		.kind = kind,
		.direction = NET_EGRESS,
		.proto = NET_TCP,
		.port = port,
		.why = kind == STACK_DENIED ? "policy" : NULL,
	};

	assert_true(net_addr_parse(peer, &n.peer));
	flow_log_news(&l->log, &n, now);
}

static void sentences(void **state)
{
	struct lines l = {.log = {.fn = take, .arg = &l}};
	struct stack_news n = {
		.kind = STACK_CLOSED,
		.direction = NET_INGRESS,
		.proto = NET_UDP,
		.port = 4000,
		.guest_port = 53,
		.sent = 10,
		.got = UINT64_MAX,
		.lasted = 2 * SECOND,
	};

	(void)state;
	tell(&l, STACK_DENIED, "10.0.0.1", 80, 1);
	assert_string_equal(l.last,
			    "denied tcp to 10.0.0.1:80: policy|,\"event\":\"denied\","
			    "\"direction\":\"egress\",\"proto\":\"tcp\",\"peer\":\"10.0.0.1\","
			    "\"port\":80,\"reason\":\"policy\"");
	assert_true(l.refusal);
	tell(&l, STACK_OPENED, "fd00::1", 443, 1);
	assert_int_equal(strncmp(l.last, "opened tcp to [fd00::1]:443|", 28), 0);
	assert_false(l.refusal);
	assert_true(net_addr_parse("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255", &n.peer));
	flow_log_news(&l.log, &n, 1);
	assert_non_null(strstr(l.last, ":4000 to port 53: 10 bytes out, 18446744073709551615 in|"));
	assert_non_null(strstr(l.last, "\"duration_ms\":2000"));
	strv_done(&l.text);
}

static void the_same_is_counted(void **state)
{
	struct lines l = {.log = {.fn = take, .arg = &l}};

	(void)state;
	for (int i = 0; i < 1000000; i++)
		tell(&l, STACK_DENIED, "10.0.0.1", 80, SECOND);
	assert_int_equal(l.n, 1);
	assert_int_equal(flow_log_next(&l.log), SECOND + FLOW_LOG_WINDOW);
	flow_log_tick(&l.log, SECOND + FLOW_LOG_WINDOW - 1);
	assert_int_equal(l.n, 1);
	flow_log_tick(&l.log, flow_log_next(&l.log));
	assert_int_equal(l.n, 2);
	assert_non_null(strstr(l.last, ", 999999 times more|"));
	/* Who goes on is summed up again, who does not is told anew when he comes back. */
	tell(&l, STACK_DENIED, "10.0.0.1", 80, 12 * SECOND);
	assert_int_equal(l.n, 2);
	flow_log_tick(&l.log, flow_log_next(&l.log));
	assert_int_equal(l.n, 3);
	flow_log_tick(&l.log, flow_log_next(&l.log));
	assert_int_equal(flow_log_next(&l.log), 0);
	tell(&l, STACK_DENIED, "10.0.0.1", 80, 60 * SECOND);
	assert_int_equal(l.n, 4);
	strv_done(&l.text);
}

static void look(struct lines *l, enum resolver_news_kind kind, const char *name, const char *why,
		 uint64_t now)
{
	struct resolver_news n = {.kind = kind, .why = why};
	struct dns_name parsed;

	if (kind == RESOLVER_SERVER) {
		n.server = name;
	} else {
		assert_int_equal(dns_name_parse(name, &parsed), 0);
		n.name = &parsed;
	}
	flow_log_name(&l->log, &n, now);
}

/* Names that are refused: each is told, the same again is counted, and a flood of them ends. */
static void lookups(void **state)
{
	static const char policy[] = "policy";
	struct lines l = {.log = {.fn = take, .arg = &l}};
	struct dns_name odd = {.n = 7, .b = "\5a\"\\\n."};
	const struct resolver_news strange = {
		.kind = RESOLVER_LIMITED, .name = &odd, .why = "too many names"};
	char name[64];

	(void)state;
	look(&l, RESOLVER_DENIED, "www.example.com", policy, 1);
	assert_string_equal(l.last,
			    "denied lookup of www.example.com: policy|,\"event\":\"denied\","
			    "\"direction\":\"egress\",\"proto\":\"dns\","
			    "\"name\":\"www.example.com\",\"reason\":\"policy\"");
	for (int i = 0; i < 1000; i++)
		look(&l, RESOLVER_DENIED, "www.example.com", policy, 1);
	assert_int_equal(l.n, 1);
	flow_log_name(&l.log, &strange, 1);
	assert_string_equal(l.last,
			    "limited lookup of a%034%092%010%046: too many names|,"
			    "\"event\":\"limited\",\"direction\":\"egress\",\"proto\":\"dns\","
			    "\"name\":\"a%034%092%010%046\",\"reason\":\"too many names\"");
	look(&l, RESOLVER_SERVER, "tls://9.9.9.9:853#a.b", "no \"good\"\n", 1);
	assert_non_null(strstr(l.last, "failed name server tls://9.9.9.9:853#a.b: no ?good??|"));
	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "n%d.example.com", i);
		look(&l, RESOLVER_DENIED, name, policy, 2);
	}
	assert_int_equal(l.n, FLOW_LOG_KINDS + 1);
	/* Connections have a table of their own. */
	tell(&l, STACK_DENIED, "10.0.0.1", 80, 2);
	assert_int_equal(l.n, FLOW_LOG_KINDS + 2);
	flow_log_tick(&l.log, flow_log_next(&l.log));
	assert_int_equal(l.n, FLOW_LOG_KINDS + 4);
	assert_non_null(strstr(l.text.v[l.n - 2], "www.example.com: policy, 1000 times more"));
	assert_non_null(strstr(l.last, "938 more lookups were refused, each of another name|"));
	flow_log_tick(&l.log, flow_log_next(&l.log));
	assert_int_equal(flow_log_next(&l.log), 0);
	look(&l, RESOLVER_DENIED, "www.example.com", policy, 100 * SECOND);
	assert_int_equal(l.n, FLOW_LOG_KINDS + 5);
	strv_done(&l.text);
}

/* The longest name of the oddest bytes is cut, and still a line. */
static void long_names(void **state)
{
	struct lines l = {.log = {.fn = take, .arg = &l}};
	struct dns_name odd = {.n = DNS_NAME_MAX};
	const struct resolver_news n = {.kind = RESOLVER_DENIED, .name = &odd, .why = "policy"};

	(void)state;
	memset(odd.b, 0xff, sizeof(odd.b));
	odd.b[0] = odd.b[64] = odd.b[128] = 63;
	odd.b[192] = 61;
	odd.b[254] = 0;
	flow_log_name(&l.log, &n, 1);
	assert_non_null(strstr(l.last, "%255"));
	assert_true(str_ends(l.last, "\"reason\":\"policy\""));
	strv_done(&l.text);
}

/* However hard a guest tries: so many lines in a window. */
static void floods_are_summed_up(void **state)
{
	struct lines l = {.log = {.fn = take, .arg = &l}};

	(void)state;
	for (unsigned i = 0; i < 200000; i++) {
		char peer[32];

		snprintf(peer, sizeof(peer), "10.%u.%u.%u", i >> 16 & 255, i >> 8 & 255, i & 255);
		tell(&l, STACK_DENIED, peer, 80, SECOND);
		tell(&l, STACK_OPENED, peer, 80, SECOND);
		tell(&l, STACK_CLOSED, peer, 80, SECOND);
	}
	assert_int_equal(l.n, FLOW_LOG_KINDS + FLOW_LOG_LINES);
	flow_log_end(&l.log);
	assert_int_equal(l.n, FLOW_LOG_KINDS + FLOW_LOG_LINES + 2);
	assert_string_equal(l.text.v[l.n - 2], "199936 more were refused, each different");
	assert_string_equal(l.text.v[l.n - 1], "399000 more were opened or closed");
	/* The window's end is noticed though nobody's timer says so. */
	tell(&l, STACK_OPENED, "1.1.1.1", 80, 20 * SECOND);
	assert_string_equal(l.text.v[l.n - 1], "opened tcp to 1.1.1.1:80");
	strv_done(&l.text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sentences),
		cmocka_unit_test(lookups),
		cmocka_unit_test(long_names),
		cmocka_unit_test(the_same_is_counted),
		cmocka_unit_test(floods_are_summed_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
