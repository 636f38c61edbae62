/* SPDX-License-Identifier: Apache-2.0 */
#include "gen.h"

#include <stdlib.h>
#include <string.h>

uint64_t rng_next(struct rng *r)
{
	uint64_t z = r->s += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

/* Numbers of every width, borders included. */
static uint64_t gen_number(struct rng *r, unsigned bits)
{
	uint64_t v = rng_next(r) >> rng_below(r, 64);

	if (rng_below(r, 8) == 0)
		v = (uint64_t)0 - rng_below(r, 2);
	return bits == 64 ? v : v & ((1ull << bits) - 1);
}

static char *gen_text(struct rng *r)
{
	static const char *const parts[] = {"a", "/",  "K=V", "é",    "☃",
					    "😀", "\n", "\"",  "\x7f", " "};
	size_t n = rng_below(r, rng_below(r, 10) ? 12 : 400);
	char *s = calloc(1, n * 4 + 1);

	for (size_t i = 0; i < n; i++)
		strcat(s, parts[rng_below(r, sizeof(parts) / sizeof(parts[0]))]);
	return s;
}

static void gen_value(struct rng *r, const struct wire_field *f, void *obj)
{
	char *at = (char *)obj + f->offset;

	if (f->flags & WIRE_OPTIONAL) {
		if (rng_below(r, 2))
			return;
		if (f->type != WIRE_TEXT && f->type != WIRE_BYTES)
			*(bool *)((char *)obj + f->has) = true;
	}
	switch (f->type) {
	case WIRE_BOOL:
		*(bool *)at = rng_below(r, 2);
		break;
	case WIRE_U8:
		*(uint8_t *)at = (uint8_t)gen_number(r, 8);
		break;
	case WIRE_U16:
		*(uint16_t *)at = (uint16_t)gen_number(r, 16);
		break;
	case WIRE_U32:
		*(uint32_t *)at = (uint32_t)gen_number(r, 32);
		break;
	case WIRE_U64:
		*(uint64_t *)at = gen_number(r, 64);
		break;
	case WIRE_I32:
		*(int32_t *)at = (int32_t)gen_number(r, 32);
		break;
	case WIRE_I64:
		*(int64_t *)at = (int64_t)gen_number(r, 64);
		break;
	case WIRE_TEXT:
		*(char **)at = gen_text(r);
		break;
	case WIRE_BYTES: {
		struct wire_bytes *b = (void *)at;

		b->n = rng_below(r, 300);
		b->p = malloc(b->n + 1);
		for (size_t i = 0; i < b->n; i++)
			b->p[i] = (uint8_t)rng_next(r);
		break;
	}
	case WIRE_OCTETS:
		for (size_t i = 0; i < f->size; i++)
			at[i] = (char)rng_next(r);
		break;
	case WIRE_ENUM: {
		int32_t n = 0;

		while (f->names[n])
			n++;
		*(int32_t *)at = (int32_t)rng_below(r, (uint64_t)n);
		break;
	}
	case WIRE_TEXTS: {
		struct wire_texts *l = (void *)at;

		l->n = rng_below(r, 20);
		l->v = l->n ? calloc(l->n, sizeof(*l->v)) : NULL;
		for (size_t i = 0; i < l->n; i++)
			l->v[i] = gen_text(r);
		break;
	}
	case WIRE_STRUCT:
		gen_message(r, f->table, at);
		break;
	case WIRE_STRUCTS: {
		struct wire_list *l = (void *)at;

		l->n = rng_below(r, 12);
		l->v = l->n ? calloc(l->n, f->table->size) : NULL;
		for (size_t i = 0; i < l->n; i++)
			gen_message(r, f->table, (char *)l->v + i * f->table->size);
		break;
	}
	}
}

void gen_message(struct rng *r, const struct wire_table *t, void *obj)
{
	const struct wire_field *f = t->fields;
	size_t n = t->nfields;

	if (t->variants) {
		int32_t kind = (int32_t)rng_below(r, t->nvariants);

		*(int32_t *)obj = kind;
		f = t->variants[kind].fields;
		n = t->variants[kind].nfields;
	}
	for (size_t i = 0; i < n; i++)
		gen_value(r, &f[i], obj);
}
