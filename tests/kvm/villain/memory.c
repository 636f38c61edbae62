/* SPDX-License-Identifier: Apache-2.0 */
/* A driver of the memory device that asks for what is not there, and uses what it was not given. */
#include "villain.h"

#define AT(p) ((uint64_t)(uintptr_t)(p))

static uint64_t block(unsigned i)
{
	return mem_region(dev) + i * MEM_BLOCK_SIZE;
}

static void strike_request(uint32_t len, uint32_t room)
{
	const struct desc d[] = {{AT(buffer), len, NEXT, 1}, {AT(buffer) + 4096, room, WRITE, 0}};

	__builtin_memset(buffer, 0, 8192);
	strike(d, 2);
}

void case_mem_short(void)
{
	strike_request(sizeof(struct mem_request) - 1, 64);
}

void case_mem_no_answer(void)
{
	strike_request(sizeof(struct mem_request), 9);
}

void case_mem_writable(void)
{
	const struct desc d = {AT(buffer), 4096, WRITE, 0};

	strike(&d, 1);
}

void case_mem_places(void)
{
	const uint64_t at[] = {0,
			       low_end,
			       block(0) - MEM_BLOCK_SIZE,
			       block(0) + 4096,
			       block(MEM_BLOCKS),
			       block(MEM_BLOCKS) + (1ull << 40),
			       0 - MEM_BLOCK_SIZE,
			       UINT64_MAX};

	for (uint16_t type = MEM_PLUG; type < 9; type++) {
		if (type == MEM_UNPLUG_ALL)
			continue;
		for (size_t i = 0; i < COUNT(at); i++) {
			check(mem_ask(dev, type, at[i], 1) == MEM_ERROR, "it has such a block");
			check(mem_ask(dev, type, at[i], 65535) == MEM_ERROR, "it has such blocks");
		}
		check(mem_ask(dev, type, block(0), 0) == MEM_ERROR, "no block is one");
		check(mem_ask(dev, type, block(0), MEM_BLOCKS + 1) == MEM_ERROR,
		      "there are more blocks than there are");
		check(mem_ask(dev, type, block(MEM_BLOCKS - 1), 2) == MEM_ERROR,
		      "there is a block behind the last");
	}
	mem_verify(dev);
}

void case_mem_states(void)
{
	check(mem_ask(dev, MEM_UNPLUG, block(0), 1) == MEM_ERROR, "what is not there goes");
	check(mem_ask(dev, MEM_PLUG, block(2), 2) == MEM_ACK, "memory does not come");
	check(mem_ask(dev, MEM_PLUG, block(1), 2) == MEM_ERROR, "a block comes twice");
	check(mem_ask(dev, MEM_UNPLUG, block(3), 2) == MEM_ERROR, "half of it goes");
	check(mem_ask(dev, MEM_PLUG, block(4), MEM_GIVEN - 1) == MEM_NACK,
	      "it gives more than there is");
	check(mem_ask(dev, MEM_PLUG, block(4), MEM_GIVEN - 2) == MEM_ACK, "it does not give all");
	check(mem_ask(dev, MEM_PLUG, block(0), 1) == MEM_NACK, "it gives more than there is");
	for (unsigned i = 0; i < MEM_BLOCKS; i++)
		(void)mem_ask(dev, MEM_UNPLUG, block(i), 1);
	check(mem_ask(dev, MEM_PLUG, block(0), MEM_GIVEN) == MEM_ACK, "not all came back");
	mem_verify(dev);
}

/* Memory that was not given: it costs the guest nothing but what is in it. */
void case_mem_not_given(void)
{
	uint8_t *p = (uint8_t *)launder(block(MEM_BLOCKS - 1));

	for (unsigned round = 0; round < 10; round++) {
		__builtin_memset(p, 0x33, 65536);
		ring->desc[0] = (struct desc){AT(p), sizeof(struct mem_request), NEXT, 1};
		ring->desc[1] = (struct desc){AT(p) + 65536, 64, WRITE, 0};
		publish(ring, 0);
		notify(dev, 0);
		check(wait_used(dev, ring) == MEM_ANSWER, "no answer to it");
		check(p[65536] == MEM_ERROR, "such a request is good");
		check(mem_ask(dev, MEM_UNPLUG_ALL, 0, 0) == MEM_ACK, "not all goes");
		check(p[0] == 0 && p[65535] == 0, "it was kept");
	}
	mem_verify(dev);
}

/* The queue itself is in what is given up. */
void case_mem_rings(void)
{
	for (unsigned i = 0; i < 20; i++) {
		const uint64_t at = block(i % 2);
		struct ring *r = (struct ring *)launder(at);
		struct mem_request *q = (struct mem_request *)launder(at + 0x10000);

		bring_up(dev, 0);
		(void)mem_ask(dev, MEM_PLUG, at, 1);
		reset(dev);
		negotiate(dev, 0);
		__builtin_memset(r, 0, sizeof(*r));
		check(queue_ready(dev, 0, ring_size(ring), AT(r->desc), AT(&r->avail),
				  AT(&r->used)),
		      "no queue can be there");
		set(dev, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
		*q = (struct mem_request){
			.type = i < 10 ? MEM_UNPLUG : MEM_UNPLUG_ALL, .addr = at, .blocks = 1};
		r->desc[0] = (struct desc){AT(q), sizeof(*q), NEXT, 1};
		r->desc[1] = (struct desc){AT(q) + 64, 64, WRITE, 0};
		r->avail.ring[0] = 0;
		__atomic_store_n(&r->avail.idx, 1, __ATOMIC_SEQ_CST);
		notify(dev, 0);
		for (unsigned k = 0;
		     k < 1000 && !*(volatile uint16_t *)&r->used.idx && !is_broken(dev); k++)
			pause();
	}
}

static void change_request(unsigned cpu)
{
	volatile struct mem_request *q = (void *)buffer;

	(void)cpu;
	while (!others_stop) {
		q->type = (uint16_t)(random32() % 4);
		q->addr = block(random32() % (MEM_BLOCKS + 2));
		q->blocks = (uint16_t)(random32() % 40);
	}
}

/* The request changes while the device looks at it; what it grants is never more than there is. */
void case_mem_toctou(void)
{
	start_on_others(1, change_request);
	for (unsigned i = 0; i < turns(300); i++) {
		ring->desc[0] = (struct desc){AT(buffer), sizeof(struct mem_request), NEXT, 1};
		ring->desc[1] = (struct desc){AT(buffer) + 4096, 64, WRITE, 0};
		publish(ring, 0);
		notify(dev, 0);
		check(wait_used(dev, ring) == MEM_ANSWER, "no answer");
		check(read64(dev->at + CONFIG + MEM_PLUGGED) <= MEM_GIVEN * MEM_BLOCK_SIZE,
		      "it has more than there is");
	}
	stop_others();
	mem_verify(dev);
}
