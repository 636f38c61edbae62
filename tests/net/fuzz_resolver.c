/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The name service between a guest and servers that send what they like. The input is a list of
 * steps: a byte what, a byte how, and a message. Messages can have their identity put right and the
 * question of the query that they answer, so that most get past the first checks.
 */
#include "base/buf.h"
#include "net/resolver_world.h"

static struct rw w;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void answer(uint8_t *m, size_t n, uint8_t how)
{
	struct rw_slot *s = &w.slot[w.last];
	size_t question = s->n;

	if (!s->on)
		return;
	if (how & 1 && n >= DNS_HEADER) {
		/* Without its EDNS. */
		if (s->m[11])
			question -= 11;
		memcpy(m, s->m, 2);
		m[2] = (uint8_t)((m[2] & 0x02) | 0x80);
		m[4] = 0, m[5] = 1;
		if (n >= question)
			memcpy(m + DNS_HEADER, s->m + DNS_HEADER, question - DNS_HEADER);
	}
	resolver_reply(w.r, w.last, m, n, w.now);
}

static void step(struct cur *c)
{
	uint8_t what = cur_u8(c), how = cur_u8(c), m[1024];
	size_t n = MIN(cur_left(c), (size_t)cur_be16(c) % sizeof(m));
	const uint8_t *p = cur_bytes(c, n);

	if (!p)
		return;
	memcpy(m, p, n);
	switch (what % 6) {
	case 0:
	case 1:
		(void)resolver_ask(w.r, &w.r + how % 4, how & 8 ? NET_TCP : NET_UDP, m, n, w.now);
		break;
	case 2:
	case 3:
		answer(m, n, how);
		break;
	case 4:
		w.now += (uint64_t)how * how * 100 * MS;
		resolver_tick(w.r, w.now);
		break;
	case 5:
		if (how & 1)
			resolver_forget(w.r, &w.r + (how >> 1) % 4);
		else
			resolver_failed(w.r, w.last, w.now);
		w.dead = how >> 5;
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cur c = cur_make(data, size);
	static bool ready;

	if (!ready) {
		net_policy_init(&w.policy);
		assert(net_policy_profile(&w.policy, "public", NULL) == 0);
		assert(net_policy_rules(&w.policy, "deny@*.bad.example,allow@suffix=good.example",
					NULL) == 0);
		ready = true;
	}
	for (unsigned i = 0; i < RW_SLOTS; i++)
		w.slot[i].on = false;
	w.last = w.dead = w.asked = w.answers = 0;
	w.config.private_answers = size & 1;
	rw_begin(&w, 1 + size % 3);
	while (cur_left(&c) && !c.bad)
		step(&c);
	rw_end(&w);
	return 0;
}
