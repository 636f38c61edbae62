/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The news of a stack and of its name service as lines of a log, in numbers that a hostile guest
 * does not decide.
 *
 * What is refused is told when it first happens; the same again (who, where, which name, why) is counted and
 * told as a sum when FLOW_LOG_WINDOW is over. What does not fit into the table of those, and flows
 * that open and close faster than FLOW_LOG_LINES in a window, are counted together.
 *
 * No clock and no file of its own. One thread.
 */
#ifndef NET_FLOW_LOG_H
#define NET_FLOW_LOG_H

#include "net/resolver.h"
#include "net/stack.h"

#define FLOW_LOG_WINDOW ((uint64_t)10 * 1000000000)
#define FLOW_LOG_LINES	1000
#define FLOW_LOG_KINDS	64

/*
 * A line: a sentence, and the same as members of a JSON object, each with a comma in front. Both
 * have an end, and no characters that JSON would have to escape. A refusal is what somebody may be
 * about to look for: there are at most some 2 * FLOW_LOG_KINDS of those in a window.
 */
typedef void flow_log_fn(void *arg, const char *text, const char *members, bool refusal);

struct flow_log {
	flow_log_fn *fn; /* the first two are the owner's to set; the rest begins as zeroes */
	void *arg;
	/* private */
	struct flow_log_kind {
		struct stack_news news;
		uint64_t again;
	} kinds[FLOW_LOG_KINDS];
	unsigned nkinds;
	struct flow_log_name {
		enum resolver_news_kind kind;
		struct dns_name name;
		const char *why;
		uint64_t again;
	} names[FLOW_LOG_KINDS];
	unsigned nnames;
	uint64_t other_names;
	uint64_t others; /* refused, without a place in the table */
	uint64_t lines, omitted;
	uint64_t due; /* 0: nothing is counted */
};

void flow_log_news(struct flow_log *l, const struct stack_news *n, uint64_t now);
void flow_log_name(struct flow_log *l, const struct resolver_news *n, uint64_t now);
/* When flow_log_tick() is due; 0: not at all. */
static inline uint64_t flow_log_next(const struct flow_log *l)
{
	return l->due;
}
void flow_log_tick(struct flow_log *l, uint64_t now);
/* The last: tell what was counted. */
void flow_log_end(struct flow_log *l);

#endif
