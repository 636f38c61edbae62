/* SPDX-License-Identifier: Apache-2.0 */
/* Text: numbers, sizes and durations as people write them, string vectors, hexadecimal. */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

static inline bool str_eq(const char *a, const char *b)
{
	return __builtin_strcmp(a, b) == 0;
}
bool str_starts(const char *s, const char *prefix);
bool str_ends(const char *s, const char *suffix);

/* printf into a new string; NULL when out of memory. */
char *str_fmt(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Decimal digits only, no sign or blanks, at most @max: 0 or -EINVAL / -ERANGE. */
int str_to_u64(const char *s, uint64_t max, uint64_t *ret);

/*
 * "512M", "1G", "1.5G", "4096K", "1GiB", "2T"; powers of 1024. A bare number is in @unit bytes.
 * @what names the thing in the error.
 */
int str_to_size(const char *s, uint64_t unit, const char *what, uint64_t *ret, struct err *err);

/* "90" (seconds), "500ms", "1.5s", "5m", "2h", "1d": nanoseconds. */
int str_to_duration(const char *s, const char *what, uint64_t *ret_ns, struct err *err);

/* "1.5 GiB" and the like into @b; returns @b. */
char *str_size(uint64_t bytes, char b[24]);

void str_hex(const void *p, size_t n, char *out /* 2n+1 */);
int str_unhex(const char *s, void *p, size_t n);

/* The candidate nearest to @word within a third of its length, or NULL. */
const char *str_suggest(const char *word, const char *const *candidates, size_t n);

/* A NULL-terminated vector of owned strings. */
struct strv {
	char **v;
	size_t n;
};

void strv_done(struct strv *s);
int strv_add(struct strv *s, const char *text);
int strv_addf(struct strv *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Take element @i out. */
void strv_remove(struct strv *s, size_t i);
/* The first that is @text; @s->n: none is. */
size_t strv_find(const struct strv *s, const char *text);
static inline bool strv_has(const struct strv *s, const char *text)
{
	return strv_find(s, text) < s->n;
}
/* Add "KEY=VALUE", replacing an entry of that key. */
int strv_env_set(struct strv *s, const char *assignment);
static inline void strv_done_fn(struct strv *s)
{
	strv_done(s);
}
#define cleanup_strv __attribute__((cleanup(strv_done_fn)))

/* A NULL-terminated list of strings, all on the heap; NULL is fine. */
void str_list_free(char **v);

#endif
