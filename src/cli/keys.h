/* SPDX-License-Identifier: Apache-2.0 */
/* The keys that take a person off a session: found in what is typed, and not passed on. */
#ifndef CLI_KEYS_H
#define CLI_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define KEYS_MAX 16
/* ctrl-] */
#define KEYS_INIT                                                                                  \
	{                                                                                          \
		.seq = {0x1d}, .n = 1                                                              \
	}

struct keys {
	uint8_t seq[KEYS_MAX];
	size_t n;    /* 0: none */
	size_t held; /* of seq, typed and not passed on yet */
};

/* "ctrl-]", "ctrl-p,ctrl-q", "a,b"; "" is none. */
int keys_parse(const char *text, struct keys *ret, struct err *err);
/* The same as an option's setter. */
struct opt;
int keys_set(const struct opt *o, void *target, const char *value, struct err *err);
/*
 * Pass @n typed bytes on to @out, which has room for KEYS_MAX more; returns how many those are. A
 * beginning of the sequence is held back until it is clear what it becomes. *ret_done: the keys
 * were typed, and what came after them is dropped.
 */
size_t keys_filter(struct keys *k, const uint8_t *in, size_t n, uint8_t *out, bool *ret_done);

#endif
