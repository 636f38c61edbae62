/* SPDX-License-Identifier: Apache-2.0 */
#include "net/flow_log.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/str.h"

static const struct {
	const char *name;
	bool refusal;
} kinds[STACK_NEWS] = {
	[STACK_OPENED] = {"opened", false},   [STACK_CLOSED] = {"closed", false},
	[STACK_DENIED] = {"denied", true},    [STACK_LIMITED] = {"limited", true},
	[STACK_FAILED_TO] = {"failed", true},
};

static const char *proto_name(uint8_t proto)
{
	switch (proto) {
	case NET_TCP:
		return "tcp";
	case NET_UDP:
		return "udp";
	case NET_ICMP:
		return "icmpv4";
	case NET_ICMP6:
		return "icmpv6";
	default:
		return "ip";
	}
}

/* "denied tcp to 10.0.0.1:80: policy", and what else is known of it; @again: so many times more. */
static void say(struct flow_log *l, const struct stack_news *n, uint64_t again)
{
	const bool in = n->direction == NET_INGRESS;
	const char *proto = proto_name(n->proto);
	char peer[NET_ADDR_TEXT], text[256], members[512];
	size_t t = 0, m = 0;
	bool colons;

	net_addr_text(&n->peer, peer);
	colons = strchr(peer, ':');
#define TEXT(...)    t += (size_t)snprintf(text + t, sizeof(text) - t, __VA_ARGS__)
#define MEMBERS(...) m += (size_t)snprintf(members + m, sizeof(members) - m, __VA_ARGS__)
	TEXT("%s %s %s %s%s%s", kinds[n->kind].name, proto, in ? "from" : "to", colons ? "[" : "",
	     peer, colons ? "]" : "");
	MEMBERS(",\"event\":\"%s\",\"direction\":\"%s\",\"proto\":\"%s\",\"peer\":\"%s\"",
		kinds[n->kind].name, in ? "ingress" : "egress", proto, peer);
	if (n->port) {
		TEXT(":%u", n->port);
		MEMBERS(",\"port\":%u", n->port);
	}
	if (n->guest_port) {
		if (in)
			TEXT(" to port %u", n->guest_port);
		MEMBERS(",\"guest_port\":%u", n->guest_port);
	}
	if (n->why) {
		TEXT(": %s", n->why);
		MEMBERS(",\"reason\":\"%s\"", n->why);
	}
	if (n->kind == STACK_CLOSED) {
		TEXT(": %" PRIu64 " bytes out, %" PRIu64 " in", n->sent, n->got);
		MEMBERS(",\"bytes_out\":%" PRIu64 ",\"bytes_in\":%" PRIu64
			",\"duration_ms\":%" PRIu64,
			n->sent, n->got, n->lasted / 1000000);
	}
	if (again) {
		TEXT(", %" PRIu64 " times more", again);
		MEMBERS(",\"again\":%" PRIu64, again);
	}
	l->fn(l->arg, text, members, kinds[n->kind].refusal);
}

/* In a string of JSON, and in a line. */
static void tame(char *s)
{
	for (; *s; s++) {
		if (*s < ' ' || *s > '~' || *s == '"' || *s == '\\')
			*s = '?';
	}
}

/* What stands in a name as \DDD is %DDD here. */
static void say_name(struct flow_log *l, const struct flow_log_name *n, uint64_t again)
{
	const char *event = n->kind == RESOLVER_DENIED ? "denied" : "limited";
	char name[DNS_NAME_TEXT], text[512], members[640], more[64] = "", count[64] = "";

	dns_name_text(&n->name, name);
	for (char *c = name; (c = strchr(c, '\\'));)
		*c = '%';
	if (again) {
		snprintf(more, sizeof(more), ", %" PRIu64 " times more", again);
		snprintf(count, sizeof(count), ",\"again\":%" PRIu64, again);
	}
	/* A name of letters fits. */
	snprintf(text, sizeof(text), "%s lookup of %.300s: %s%s", event, name, n->why, more);
	snprintf(members, sizeof(members),
		 ",\"event\":\"%s\",\"direction\":\"egress\",\"proto\":\"dns\",\"name\":\"%.300s\","
		 "\"reason\":\"%s\"%s",
		 event, name, n->why, count);
	l->fn(l->arg, text, members, true);
}

static void say_server(struct flow_log *l, const struct resolver_news *n)
{
	char server[400], why[200], text[640], members[768];

	snprintf(server, sizeof(server), "%s", n->server);
	snprintf(why, sizeof(why), "%s", n->why);
	tame(server);
	tame(why);
	snprintf(text, sizeof(text), "failed name server %s: %s", server, why);
	snprintf(members, sizeof(members),
		 ",\"event\":\"failed\",\"proto\":\"dns\",\"server\":\"%s\",\"reason\":\"%s\"",
		 server, why);
	l->fn(l->arg, text, members, true);
}

static void say_sum(struct flow_log *l, const char *event, uint64_t n, const char *what)
{
	char text[128], members[128];

	snprintf(text, sizeof(text), "%" PRIu64 " %s", n, what);
	snprintf(members, sizeof(members), ",\"event\":\"%s\",\"count\":%" PRIu64, event, n);
	l->fn(l->arg, text, members, false);
}

/* Ports of the guest's change with every attempt of the same. */
static bool same(const struct stack_news *a, const struct stack_news *b)
{
	return a->kind == b->kind && a->direction == b->direction && a->proto == b->proto &&
	       (a->direction == NET_EGRESS ? a->port == b->port : a->guest_port == b->guest_port) &&
	       net_addr_equal(&a->peer, &b->peer) && a->why == b->why;
}

static void refused(struct flow_log *l, const struct stack_news *n)
{
	for (unsigned i = 0; i < l->nkinds; i++) {
		if (same(&l->kinds[i].news, n)) {
			l->kinds[i].again++;
			return;
		}
	}
	if (l->nkinds == FLOW_LOG_KINDS) {
		l->others++;
		return;
	}
	l->kinds[l->nkinds++] = (struct flow_log_kind){.news = *n};
	say(l, n, 0);
}

static void enter_window(struct flow_log *l, uint64_t now)
{
	if (!l->due)
		l->due = now + FLOW_LOG_WINDOW;
	else if (l->due <= now)
		flow_log_tick(l, now);
}

void flow_log_name(struct flow_log *l, const struct resolver_news *n, uint64_t now)
{
	struct flow_log_name *k;

	enter_window(l, now);
	/* It is complained of seldom, see net/dns_tls.c. */
	if (n->kind == RESOLVER_SERVER) {
		say_server(l, n);
		return;
	}
	for (k = l->names; k < l->names + l->nnames; k++) {
		if (k->kind == n->kind && k->why == n->why && dns_name_equal(&k->name, n->name)) {
			k->again++;
			return;
		}
	}
	if (l->nnames == FLOW_LOG_KINDS) {
		l->other_names++;
		return;
	}
	*k = (struct flow_log_name){n->kind, *n->name, n->why, 0};
	l->nnames++;
	say_name(l, k, 0);
}

void flow_log_news(struct flow_log *l, const struct stack_news *n, uint64_t now)
{
	enter_window(l, now);
	if (kinds[n->kind].refusal) {
		refused(l, n);
		return;
	}
	if (l->lines < FLOW_LOG_LINES) {
		l->lines++;
		say(l, n, 0);
	} else {
		l->omitted++;
	}
}

void flow_log_end(struct flow_log *l)
{
	for (unsigned i = 0; i < l->nkinds; i++) {
		if (l->kinds[i].again)
			say(l, &l->kinds[i].news, l->kinds[i].again);
	}
	for (unsigned i = 0; i < l->nnames; i++) {
		if (l->names[i].again)
			say_name(l, &l->names[i], l->names[i].again);
	}
	if (l->other_names)
		say_sum(l, "refused", l->other_names,
			"more lookups were refused, each of another name");
	if (l->others)
		say_sum(l, "refused", l->others, "more were refused, each different");
	if (l->omitted)
		say_sum(l, "omitted", l->omitted, "more were opened or closed");
	l->others = l->other_names = l->omitted = l->lines = 0;
}

void flow_log_tick(struct flow_log *l, uint64_t now)
{
	unsigned kept = 0, names = 0;

	if (!l->due || now < l->due)
		return;
	flow_log_end(l);
	/* Who goes on is summed up for another window. */
	for (unsigned i = 0; i < l->nkinds; i++) {
		if (!l->kinds[i].again)
			continue;
		l->kinds[kept] = l->kinds[i];
		l->kinds[kept++].again = 0;
	}
	l->nkinds = kept;
	for (unsigned i = 0; i < l->nnames; i++) {
		if (!l->names[i].again)
			continue;
		l->names[names] = l->names[i];
		l->names[names++].again = 0;
	}
	l->nnames = names;
	l->due = kept || names ? now + FLOW_LOG_WINDOW : 0;
}
