/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages described by tables.
 *
 * A message is a C struct and a table of its fields; encoding, checked decoding, freeing,
 * comparing and dumping all follow from the table, so that a new message is a struct and a table
 * and nothing else.
 *
 * Structs start as all zeroes. What a decoded struct points to belongs to it until wire_free().
 * A table with variants is a tagged union in the manner of serde: its struct starts with
 * `int32_t kind` (an index into the variants), and the members of all variants lie side by side;
 * only those of the current kind are encoded, compared and freed. Internally tagged
 * (`tag_key` set): the kind is one more key of the map. Externally tagged: {"Kind": value}.
 *
 * Unknown keys are skipped. Missing, repeated and ill-typed ones are refused with a message that
 * names the key. Decoding one message allocates at most WIRE_ALLOC_MAX bytes.
 *
 * No state is shared: any thread, on its own objects.
 */
#ifndef WIRE_CODEC_H
#define WIRE_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

enum wire_type {
	WIRE_BOOL,    /* bool */
	WIRE_U8,      /* uint8_t */
	WIRE_U16,     /* uint16_t */
	WIRE_U32,     /* uint32_t */
	WIRE_U64,     /* uint64_t */
	WIRE_I32,     /* int32_t */
	WIRE_I64,     /* int64_t */
	WIRE_TEXT,    /* char *, owned; NULL is "absent", or "" when not optional */
	WIRE_BYTES,   /* struct wire_bytes, owned */
	WIRE_OCTETS,  /* uint8_t[size]; on the wire an array of small integers */
	WIRE_ENUM,    /* int32_t, an index into `names`; on the wire a text */
	WIRE_TEXTS,   /* struct wire_texts */
	WIRE_STRUCT,  /* the nested struct itself */
	WIRE_STRUCTS, /* struct wire_list of the nested struct */
};

enum wire_field_flags {
	WIRE_OPTIONAL = 1, /* may be missing or null: see `has` */
	WIRE_SKIP = 2,	   /* leave the key out when absent, empty or (bool) false */
	WIRE_DEFAULT = 4,  /* may be missing: then `dflt`, or empty */
	WIRE_SECRET = 8,   /* wire_dump() does not show it */
};

struct wire_bytes {
	uint8_t *p;
	size_t n;
};

struct wire_texts {
	char **v;
	size_t n;
};

struct wire_list {
	void *v; /* n structs of the field's table */
	size_t n;
};

struct wire_table;

struct wire_field {
	const char *key; /* NULL: the value stands for the whole variant */
	enum wire_type type;
	unsigned flags;
	size_t offset;
	size_t has;  /* offset of the `bool has_…` of an optional scalar, struct, enum, octets */
	size_t size; /* WIRE_OCTETS */
	uint64_t dflt;
	const struct wire_table *table; /* WIRE_STRUCT, WIRE_STRUCTS */
	const char *const *names;	/* WIRE_ENUM, NULL-terminated */
};

struct wire_variant {
	const char *name;
	const struct wire_field *fields;
	size_t nfields;
	bool bare; /* fields[0] is the value itself, not a map */
};

struct wire_table {
	const char *name; /* for messages to people */
	size_t size;
	const struct wire_field *fields;
	size_t nfields;
	bool may_be_nothing; /* as without fields: null or no bytes at all are zeroes */
	/* unions */
	const char *tag_key;
	const struct wire_variant *variants;
	size_t nvariants;
};

enum {
	WIRE_FIELDS_MAX = 64,
	/* A directory listing of this many entries is the largest list anyone sends. */
	WIRE_LIST_MAX = 65536,
	/* A 4 MiB frame of empty strings would otherwise grow fortyfold in memory. */
	WIRE_ALLOC_MAX = 48 << 20,
};

/* Append @obj as one CBOR value. Failure is the buffer's. */
void wire_encode(const struct wire_table *t, const void *obj, struct buf *b);

/*
 * Decode the one CBOR value in @p[0..n). @obj (t->size bytes) is overwritten on success and
 * untouched on failure; on success the caller owns its contents.
 */
int wire_decode(const struct wire_table *t, const void *p, size_t n, void *obj, struct err *err);

/* Release what @obj owns and zero it. NULL is fine. */
void wire_free(const struct wire_table *t, void *obj);

bool wire_equal(const struct wire_table *t, const void *a, const void *b);

/* Append a line of JSON-like text for the debug log; long values are cut. */
void wire_dump(const struct wire_table *t, const void *obj, struct buf *b);

/* Index of @name in a NULL-terminated list, or -1. */
int wire_enum_find(const char *const *names, const void *name, size_t n);

#endif
