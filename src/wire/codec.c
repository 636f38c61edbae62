/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoding runs in a zeroed object beside the caller's, field by field; whatever goes wrong, the
 * half-built object is released through the same tables and the caller's is never touched. One
 * struct decoder carries what all levels share: the cursor, the allocation budget, the scratch
 * buffer for chunked strings and the error.
 *
 * Tables nest to a fixed depth, so recursion over them is bounded by their author; recursion over
 * values that are only skipped is bounded in cbor_skip().
 */
#include "wire/codec.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "wire/cbor.h"

#define AT(T, obj, off)	 ((T *)((char *)(obj) + (off)))
#define CAT(T, obj, off) ((const T *)((const char *)(obj) + (off)))

struct fields {
	const struct wire_field *f;
	size_t n;
	bool bare;
};

static struct fields fields_of(const struct wire_table *t, const void *obj)
{
	if (t->variants) {
		int32_t kind = *CAT(int32_t, obj, 0);
		const struct wire_variant *v;

		if (kind < 0 || (size_t)kind >= t->nvariants)
			return (struct fields){NULL, 0, false};
		v = &t->variants[kind];
		return (struct fields){v->fields, v->nfields, v->bare};
	}
	return (struct fields){t->fields, t->nfields, false};
}

/* Is the field's value there? Pointers speak for themselves, others have a has_… beside them. */
static bool present(const struct wire_field *f, const void *obj)
{
	if (!(f->flags & WIRE_OPTIONAL))
		return true;
	switch (f->type) {
	case WIRE_TEXT:
		return *CAT(char *, obj, f->offset) != NULL;
	case WIRE_BYTES:
		return CAT(struct wire_bytes, obj, f->offset)->p != NULL;
	case WIRE_TEXTS:
	case WIRE_STRUCTS:
		return true;
	default:
		return *CAT(bool, obj, f->has);
	}
}

static bool empty(const struct wire_field *f, const void *obj)
{
	switch (f->type) {
	case WIRE_BOOL:
		return !*CAT(bool, obj, f->offset);
	case WIRE_TEXTS:
		return CAT(struct wire_texts, obj, f->offset)->n == 0;
	case WIRE_STRUCTS:
		return CAT(struct wire_list, obj, f->offset)->n == 0;
	default:
		return false;
	}
}

static bool omitted(const struct wire_field *f, const void *obj)
{
	return (f->flags & WIRE_SKIP) && (!present(f, obj) || empty(f, obj));
}

static int64_t scalar(const struct wire_field *f, const void *obj)
{
	switch (f->type) {
	case WIRE_U8:
		return *CAT(uint8_t, obj, f->offset);
	case WIRE_U16:
		return *CAT(uint16_t, obj, f->offset);
	case WIRE_U32:
		return *CAT(uint32_t, obj, f->offset);
	case WIRE_I32:
	case WIRE_ENUM:
		return *CAT(int32_t, obj, f->offset);
	default:
		return *CAT(int64_t, obj, f->offset);
	}
}

/* Encoding */

static void encode_value(const struct wire_field *f, const void *obj, struct buf *b)
{
	if (!present(f, obj)) {
		cbor_put_null(b);
		return;
	}
	switch (f->type) {
	case WIRE_BOOL:
		cbor_put_bool(b, *CAT(bool, obj, f->offset));
		break;
	case WIRE_U64:
		cbor_put_head(b, CBOR_UINT, *CAT(uint64_t, obj, f->offset));
		break;
	case WIRE_U8:
	case WIRE_U16:
	case WIRE_U32:
	case WIRE_I32:
	case WIRE_I64:
		cbor_put_int(b, scalar(f, obj));
		break;
	case WIRE_TEXT: {
		const char *s = *CAT(char *, obj, f->offset);

		cbor_put_text(b, s ? s : "");
		break;
	}
	case WIRE_BYTES: {
		const struct wire_bytes *v = CAT(struct wire_bytes, obj, f->offset);

		cbor_put_bytes(b, v->p, v->n);
		break;
	}
	case WIRE_OCTETS:
		cbor_put_head(b, CBOR_ARRAY, f->size);
		for (size_t i = 0; i < f->size; i++)
			cbor_put_head(b, CBOR_UINT, CAT(uint8_t, obj, f->offset)[i]);
		break;
	case WIRE_ENUM:
		cbor_put_text(b, f->names[scalar(f, obj)]);
		break;
	case WIRE_TEXTS: {
		const struct wire_texts *v = CAT(struct wire_texts, obj, f->offset);

		cbor_put_head(b, CBOR_ARRAY, v->n);
		for (size_t i = 0; i < v->n; i++)
			cbor_put_text(b, v->v[i]);
		break;
	}
	case WIRE_STRUCT:
		wire_encode(f->table, CAT(char, obj, f->offset), b);
		break;
	case WIRE_STRUCTS: {
		const struct wire_list *v = CAT(struct wire_list, obj, f->offset);

		cbor_put_head(b, CBOR_ARRAY, v->n);
		for (size_t i = 0; i < v->n; i++)
			wire_encode(f->table, (const char *)v->v + i * f->table->size, b);
		break;
	}
	}
}

void wire_encode(const struct wire_table *t, const void *obj, struct buf *b)
{
	struct fields fs = fields_of(t, obj);
	size_t n = 0;

	for (size_t i = 0; i < fs.n; i++)
		n += !omitted(&fs.f[i], obj);
	if (t->variants) {
		const char *name = t->variants[*CAT(int32_t, obj, 0)].name;

		if (t->tag_key) {
			cbor_put_head(b, CBOR_MAP, n + 1);
			cbor_put_text(b, t->tag_key);
			cbor_put_text(b, name);
		} else {
			cbor_put_head(b, CBOR_MAP, 1);
			cbor_put_text(b, name);
			if (fs.bare) {
				encode_value(&fs.f[0], obj, b);
				return;
			}
			cbor_put_head(b, CBOR_MAP, n);
		}
	} else {
		cbor_put_head(b, CBOR_MAP, n);
	}
	for (size_t i = 0; i < fs.n; i++) {
		if (omitted(&fs.f[i], obj))
			continue;
		cbor_put_text(b, fs.f[i].key);
		encode_value(&fs.f[i], obj, b);
	}
}

/* Decoding */

struct decoder {
	struct cur c;
	size_t budget;
	struct buf scratch;
	struct err *err;
};

static int decode_struct(struct decoder *d, const struct wire_table *t, void *obj);

static int fail_malformed(struct decoder *d, const struct wire_table *t)
{
	return err_set(d->err, ERR_PROTOCOL, "%s: malformed or truncated CBOR", t->name);
}

static int fail_type(struct decoder *d, const struct wire_table *t, const struct wire_field *f,
		     const char *expected)
{
	if (d->c.bad)
		return fail_malformed(d, t);
	return err_set(d->err, ERR_PROTOCOL, "%s: key '%s' is not %s", t->name,
		       f->key ? f->key : "value", expected);
}

static int fail_memory(struct decoder *d, const struct wire_table *t, size_t n)
{
	if (n > d->budget)
		return err_set(d->err, ERR_LIMIT, "%s: takes more than %d MiB of memory", t->name,
			       WIRE_ALLOC_MAX >> 20);
	return err_set(d->err, ENOMEM, "%s: out of memory", t->name);
}

static void *take_memory(struct decoder *d, size_t n)
{
	void *p;

	if (n > d->budget)
		return NULL;
	p = malloc(n ? n : 1);
	if (p)
		/* What malloc keeps beside a small block counts too. */
		d->budget -= MIN(d->budget, n + 16);
	return p;
}

static int decode_text(struct decoder *d, const struct wire_table *t, const struct wire_field *f,
		       char **ret)
{
	struct cbor_head h;
	const uint8_t *p;
	size_t n;
	char *s;

	if (!cbor_read_head(&d->c, &h) || h.major != CBOR_TEXT ||
	    !cbor_read_string(&d->c, &h, &d->scratch, &p, &n))
		return fail_type(d, t, f, "a text");
	if (!cbor_utf8_valid(p, n))
		return fail_type(d, t, f, "valid UTF-8");
	if (memchr(p, 0, n))
		return fail_type(d, t, f, "free of NUL bytes");
	s = take_memory(d, n + 1);
	if (!s)
		return fail_memory(d, t, n + 1);
	memcpy(s, p, n);
	s[n] = '\0';
	*ret = s;
	return 0;
}

static int decode_bytes(struct decoder *d, const struct wire_table *t, const struct wire_field *f,
			struct wire_bytes *ret)
{
	struct cbor_head h;
	const uint8_t *p;
	size_t n;
	uint8_t *copy;

	if (!cbor_read_head(&d->c, &h) || h.major != CBOR_BYTES ||
	    !cbor_read_string(&d->c, &h, &d->scratch, &p, &n))
		return fail_type(d, t, f, "a byte string");
	copy = take_memory(d, n);
	if (!copy)
		return fail_memory(d, t, n);
	if (n)
		memcpy(copy, p, n);
	ret->p = copy;
	ret->n = n;
	return 0;
}

/* Room for one more element; the list's memory doubles from 8. */
static int grow(struct decoder *d, const struct wire_table *t, const struct wire_field *f, void **v,
		size_t n, size_t size)
{
	size_t cap = n;
	void *p;

	if (n >= WIRE_LIST_MAX)
		return err_set(d->err, ERR_LIMIT, "%s: key '%s' has more than %d entries", t->name,
			       f->key ? f->key : "value", WIRE_LIST_MAX);
	if (n && (n < 8 || (n & (n - 1))))
		return 0;
	cap = n ? n * 2 : 8;
	if (cap * size > d->budget)
		return fail_memory(d, t, cap * size);
	p = realloc(*v, cap * size);
	if (!p)
		return fail_memory(d, t, 0);
	d->budget -= (cap - n) * size;
	*v = p;
	return 0;
}

static int decode_list(struct decoder *d, const struct wire_table *t, const struct wire_field *f,
		       void *obj)
{
	struct cbor_head h;
	uint64_t left;
	int r;

	if (!cbor_read_head(&d->c, &h) || h.major != CBOR_ARRAY)
		return fail_type(d, t, f, "an array");
	left = h.n;
	while (cbor_more(&d->c, &h, &left)) {
		if (f->type == WIRE_TEXTS) {
			struct wire_texts *l = AT(struct wire_texts, obj, f->offset);

			r = grow(d, t, f, (void **)&l->v, l->n, sizeof(char *));
			if (!r)
				r = decode_text(d, t, f, &l->v[l->n]);
			if (r)
				return r;
			l->n++;
		} else {
			struct wire_list *l = AT(struct wire_list, obj, f->offset);
			char *item;

			r = grow(d, t, f, &l->v, l->n, f->table->size);
			if (r)
				return r;
			item = (char *)l->v + l->n * f->table->size;
			memset(item, 0, f->table->size);
			/* Counted first, so that a half-decoded item is freed with the list. */
			l->n++;
			r = decode_struct(d, f->table, item);
			if (r)
				return r;
		}
	}
	return d->c.bad ? fail_malformed(d, t) : 0;
}

static int decode_octets(struct decoder *d, const struct wire_table *t, const struct wire_field *f,
			 void *obj)
{
	struct cbor_head h, item;
	uint64_t left;
	size_t n = 0;
	const uint8_t *p;

	if (!cbor_read_head(&d->c, &h))
		return fail_malformed(d, t);
	if (h.major == CBOR_BYTES) {
		if (!cbor_read_string(&d->c, &h, &d->scratch, &p, &n) || n != f->size)
			return fail_type(d, t, f, "an address of the right length");
		memcpy(AT(uint8_t, obj, f->offset), p, n);
		return 0;
	}
	if (h.major != CBOR_ARRAY)
		return fail_type(d, t, f, "an array of small integers");
	left = h.n;
	while (cbor_more(&d->c, &h, &left)) {
		if (!cbor_read_head(&d->c, &item) || item.major != CBOR_UINT ||
		    item.n > UINT8_MAX || n >= f->size)
			return fail_type(d, t, f, "an address of the right length");
		AT(uint8_t, obj, f->offset)[n++] = (uint8_t)item.n;
	}
	if (d->c.bad || n != f->size)
		return fail_type(d, t, f, "an address of the right length");
	return 0;
}

static int decode_int(struct decoder *d, const struct wire_table *t, const struct wire_field *f,
		      void *obj)
{
	struct cbor_head h;
	bool neg;

	if (!cbor_read_head(&d->c, &h) || h.major > CBOR_NINT)
		return fail_type(d, t, f, "an integer");
	neg = h.major == CBOR_NINT;
	switch (f->type) {
	case WIRE_U8:
		if (neg || h.n > UINT8_MAX)
			break;
		*AT(uint8_t, obj, f->offset) = (uint8_t)h.n;
		return 0;
	case WIRE_U16:
		if (neg || h.n > UINT16_MAX)
			break;
		*AT(uint16_t, obj, f->offset) = (uint16_t)h.n;
		return 0;
	case WIRE_U32:
		if (neg || h.n > UINT32_MAX)
			break;
		*AT(uint32_t, obj, f->offset) = (uint32_t)h.n;
		return 0;
	case WIRE_U64:
		if (neg)
			break;
		*AT(uint64_t, obj, f->offset) = h.n;
		return 0;
	case WIRE_I32:
		if (h.n > INT32_MAX)
			break;
		*AT(int32_t, obj, f->offset) = (int32_t)(neg ? ~(int64_t)h.n : (int64_t)h.n);
		return 0;
	default:
		if (h.n > INT64_MAX)
			break;
		*AT(int64_t, obj, f->offset) = neg ? ~(int64_t)h.n : (int64_t)h.n;
		return 0;
	}
	return err_set(d->err, ERR_PROTOCOL, "%s: key '%s' is out of range", t->name,
		       f->key ? f->key : "value");
}

static bool at_null(struct decoder *d)
{
	if (!cur_left(&d->c) || (*d->c.p != 0xf6 && *d->c.p != 0xf7))
		return false;
	d->c.p++;
	return true;
}

static int decode_value(struct decoder *d, const struct wire_table *t, const struct wire_field *f,
			void *obj)
{
	struct cbor_head h;
	int r;

	if ((f->flags & WIRE_OPTIONAL) && at_null(d))
		return 0;
	switch (f->type) {
	case WIRE_BOOL:
		if (!cbor_read_head(&d->c, &h) || h.major != CBOR_SIMPLE ||
		    (h.info != CBOR_TRUE && h.info != CBOR_FALSE))
			return fail_type(d, t, f, "a boolean");
		*AT(bool, obj, f->offset) = h.info == CBOR_TRUE;
		r = 0;
		break;
	case WIRE_TEXT:
		return decode_text(d, t, f, AT(char *, obj, f->offset));
	case WIRE_BYTES:
		return decode_bytes(d, t, f, AT(struct wire_bytes, obj, f->offset));
	case WIRE_TEXTS:
	case WIRE_STRUCTS:
		return decode_list(d, t, f, obj);
	case WIRE_OCTETS:
		r = decode_octets(d, t, f, obj);
		break;
	case WIRE_ENUM: {
		const uint8_t *p;
		size_t n;
		int i;

		if (!cbor_read_head(&d->c, &h) || h.major != CBOR_TEXT ||
		    !cbor_read_string(&d->c, &h, &d->scratch, &p, &n))
			return fail_type(d, t, f, "a text");
		i = wire_enum_find(f->names, p, n);
		if (i < 0)
			return err_set(d->err, ERR_PROTOCOL,
				       "%s: key '%s' has the unknown value '%.*s'", t->name, f->key,
				       (int)MIN(n, (size_t)64), (const char *)p);
		*AT(int32_t, obj, f->offset) = i;
		r = 0;
		break;
	}
	case WIRE_STRUCT:
		/* Marked present first: a half-decoded struct is freed with its owner. */
		if (f->flags & WIRE_OPTIONAL)
			*AT(bool, obj, f->has) = true;
		return decode_struct(d, f->table, AT(char, obj, f->offset));
	default:
		r = decode_int(d, t, f, obj);
		break;
	}
	if (!r && (f->flags & WIRE_OPTIONAL))
		*AT(bool, obj, f->has) = true;
	return r;
}

/* A map key. Keys that are not texts are no keys of ours: the name comes back NULL. */
static bool read_key(struct decoder *d, const uint8_t **ret, size_t *ret_n)
{
	struct cur at = d->c;
	struct cbor_head h;

	*ret = NULL;
	*ret_n = 0;
	if (!cbor_read_head(&d->c, &h))
		return false;
	if (h.major == CBOR_TEXT)
		return cbor_read_string(&d->c, &h, &d->scratch, ret, ret_n);
	d->c = at;
	return cbor_skip(&d->c);
}

static bool key_is(const char *key, const uint8_t *p, size_t n)
{
	return key && p && strlen(key) == n && !memcmp(key, p, n);
}

static int find_variant(struct decoder *d, const struct wire_table *t, const uint8_t *p, size_t n,
			void *obj)
{
	for (size_t i = 0; i < t->nvariants; i++) {
		if (key_is(t->variants[i].name, p, n)) {
			*AT(int32_t, obj, 0) = (int32_t)i;
			return 0;
		}
	}
	return err_set(d->err, ERR_PROTOCOL, "%s: unknown kind '%.*s'", t->name,
		       (int)MIN(n, (size_t)64), (const char *)p);
}

/* Look through the map at the cursor for the tag, leaving the cursor where it is. */
static int find_tag(struct decoder *d, const struct wire_table *t, void *obj)
{
	struct cur at = d->c;
	struct cbor_head h;
	uint64_t left;
	const uint8_t *p;
	size_t n;
	int r;

	if (!cbor_read_head(&d->c, &h) || h.major != CBOR_MAP) {
		if (d->c.bad)
			return fail_malformed(d, t);
		return err_set(d->err, ERR_PROTOCOL, "%s: is not a map", t->name);
	}
	left = h.n;
	while (cbor_more(&d->c, &h, &left)) {
		if (!read_key(d, &p, &n))
			break;
		if (!key_is(t->tag_key, p, n)) {
			cbor_skip(&d->c);
			continue;
		}
		if (!cbor_read_head(&d->c, &h) || h.major != CBOR_TEXT ||
		    !cbor_read_string(&d->c, &h, &d->scratch, &p, &n)) {
			if (d->c.bad)
				break;
			return err_set(d->err, ERR_PROTOCOL, "%s: key '%s' is not a text", t->name,
				       t->tag_key);
		}
		r = find_variant(d, t, p, n, obj);
		d->c = at;
		return r;
	}
	if (d->c.bad)
		return fail_malformed(d, t);
	return err_set(d->err, ERR_PROTOCOL, "%s: missing key '%s'", t->name, t->tag_key);
}

static int decode_fields(struct decoder *d, const struct wire_table *t, struct fields fs, void *obj)
{
	struct cbor_head h;
	uint64_t seen = 0;
	uint64_t left;
	int r;

	if (!cbor_read_head(&d->c, &h))
		return fail_malformed(d, t);
	/* A message that needs no fields may come as a map, null, or (see wire_decode) nothing. */
	if ((!fs.n || t->may_be_nothing) && h.major == CBOR_SIMPLE)
		return 0;
	if (h.major != CBOR_MAP)
		return err_set(d->err, ERR_PROTOCOL, "%s: is not a map", t->name);
	left = h.n;
	while (cbor_more(&d->c, &h, &left)) {
		const uint8_t *p;
		size_t n, i;

		if (!read_key(d, &p, &n))
			break;
		for (i = 0; i < fs.n && !key_is(fs.f[i].key, p, n); i++)
			;
		if (i == fs.n) {
			cbor_skip(&d->c);
			continue;
		}
		if (seen & UINT64_C(1) << i)
			return err_set(d->err, ERR_PROTOCOL, "%s: key '%s' comes twice", t->name,
				       fs.f[i].key);
		seen |= UINT64_C(1) << i;
		r = decode_value(d, t, &fs.f[i], obj);
		if (r)
			return r;
	}
	if (d->c.bad)
		return fail_malformed(d, t);
	for (size_t i = 0; i < fs.n; i++) {
		const struct wire_field *f = &fs.f[i];

		if (seen & UINT64_C(1) << i || f->flags & WIRE_OPTIONAL)
			continue;
		if (!(f->flags & WIRE_DEFAULT))
			return err_set(d->err, ERR_PROTOCOL, "%s: missing key '%s'", t->name,
				       f->key);
		if (f->type == WIRE_U16)
			*AT(uint16_t, obj, f->offset) = (uint16_t)f->dflt;
		else if (f->type == WIRE_U32)
			*AT(uint32_t, obj, f->offset) = (uint32_t)f->dflt;
		else if (f->type == WIRE_U64)
			*AT(uint64_t, obj, f->offset) = f->dflt;
	}
	return 0;
}

static int decode_external(struct decoder *d, const struct wire_table *t, void *obj)
{
	struct cbor_head h;
	struct fields fs;
	const uint8_t *p;
	size_t n;
	int r;

	if (!cbor_read_head(&d->c, &h) || h.major != CBOR_MAP || (!h.indefinite && h.n != 1)) {
		if (d->c.bad)
			return fail_malformed(d, t);
		return err_set(d->err, ERR_PROTOCOL, "%s: is not a map of one kind", t->name);
	}
	if (!read_key(d, &p, &n))
		return fail_malformed(d, t);
	r = find_variant(d, t, p, n, obj);
	if (r)
		return r;
	fs = fields_of(t, obj);
	r = fs.bare ? decode_value(d, t, &fs.f[0], obj) : decode_fields(d, t, fs, obj);
	if (r)
		return r;
	if (h.indefinite && (!cbor_at_break(&d->c) || d->c.bad))
		return fail_malformed(d, t);
	return 0;
}

static int decode_struct(struct decoder *d, const struct wire_table *t, void *obj)
{
	int r;

	if (t->variants && !t->tag_key)
		return decode_external(d, t, obj);
	if (t->tag_key) {
		r = find_tag(d, t, obj);
		if (r)
			return r;
	}
	return decode_fields(d, t, fields_of(t, obj), obj);
}

int wire_decode(const struct wire_table *t, const void *p, size_t n, void *obj, struct err *err)
{
	struct decoder d = {.c = cur_make(p, n), .budget = WIRE_ALLOC_MAX, .err = err};
	void *made;
	int r = 0;

	made = calloc(1, t->size);
	if (!made)
		return err_set(err, ENOMEM, "%s: out of memory", t->name);
	if (n || (t->nfields && !t->may_be_nothing) || t->variants)
		r = decode_struct(&d, t, made);
	if (!r && cur_left(&d.c))
		r = err_set(err, ERR_PROTOCOL, "%s: bytes after the end", t->name);
	buf_done(&d.scratch);
	if (r)
		wire_free(t, made);
	else
		memcpy(obj, made, t->size);
	free(made);
	return r;
}

/* The other walks */

void wire_free(const struct wire_table *t, void *obj)
{
	struct fields fs;

	if (!obj)
		return;
	fs = fields_of(t, obj);
	for (size_t i = 0; i < fs.n; i++) {
		const struct wire_field *f = &fs.f[i];

		switch (f->type) {
		case WIRE_TEXT:
			free(*AT(char *, obj, f->offset));
			break;
		case WIRE_BYTES:
			free(AT(struct wire_bytes, obj, f->offset)->p);
			break;
		case WIRE_TEXTS: {
			struct wire_texts *l = AT(struct wire_texts, obj, f->offset);

			for (size_t k = 0; k < l->n; k++)
				free(l->v[k]);
			free(l->v);
			break;
		}
		case WIRE_STRUCT:
			wire_free(f->table, AT(char, obj, f->offset));
			break;
		case WIRE_STRUCTS: {
			struct wire_list *l = AT(struct wire_list, obj, f->offset);

			for (size_t k = 0; k < l->n; k++)
				wire_free(f->table, (char *)l->v + k * f->table->size);
			free(l->v);
			break;
		}
		default:
			break;
		}
	}
	memset(obj, 0, t->size);
}

static bool equal_text(const char *a, const char *b)
{
	return !strcmp(a ? a : "", b ? b : "");
}

static bool equal_value(const struct wire_field *f, const void *a, const void *b)
{
	if (present(f, a) != present(f, b))
		return false;
	if (!present(f, a))
		return true;
	switch (f->type) {
	case WIRE_BOOL:
		return *CAT(bool, a, f->offset) == *CAT(bool, b, f->offset);
	case WIRE_TEXT:
		return equal_text(*CAT(char *, a, f->offset), *CAT(char *, b, f->offset));
	case WIRE_BYTES: {
		const struct wire_bytes *x = CAT(struct wire_bytes, a, f->offset);
		const struct wire_bytes *y = CAT(struct wire_bytes, b, f->offset);

		return x->n == y->n && (!x->n || !memcmp(x->p, y->p, x->n));
	}
	case WIRE_OCTETS:
		return !memcmp(CAT(char, a, f->offset), CAT(char, b, f->offset), f->size);
	case WIRE_TEXTS: {
		const struct wire_texts *x = CAT(struct wire_texts, a, f->offset);
		const struct wire_texts *y = CAT(struct wire_texts, b, f->offset);

		if (x->n != y->n)
			return false;
		for (size_t i = 0; i < x->n; i++) {
			if (!equal_text(x->v[i], y->v[i]))
				return false;
		}
		return true;
	}
	case WIRE_STRUCT:
		return wire_equal(f->table, CAT(char, a, f->offset), CAT(char, b, f->offset));
	case WIRE_STRUCTS: {
		const struct wire_list *x = CAT(struct wire_list, a, f->offset);
		const struct wire_list *y = CAT(struct wire_list, b, f->offset);

		if (x->n != y->n)
			return false;
		for (size_t i = 0; i < x->n; i++) {
			if (!wire_equal(f->table, (const char *)x->v + i * f->table->size,
					(const char *)y->v + i * f->table->size))
				return false;
		}
		return true;
	}
	default:
		return scalar(f, a) == scalar(f, b);
	}
}

bool wire_equal(const struct wire_table *t, const void *a, const void *b)
{
	struct fields fs = fields_of(t, a);

	if (t->variants && *CAT(int32_t, a, 0) != *CAT(int32_t, b, 0))
		return false;
	for (size_t i = 0; i < fs.n; i++) {
		if (!equal_value(&fs.f[i], a, b))
			return false;
	}
	return true;
}

enum { DUMP_TEXT_MAX = 160, DUMP_LIST_MAX = 16 };

static void dump_text(const char *s, struct buf *b)
{
	size_t n = strlen(s);

	buf_add_u8(b, '"');
	for (size_t i = 0; i < n && i < DUMP_TEXT_MAX; i++) {
		unsigned char ch = (unsigned char)s[i];

		if (ch < 0x20 || ch == 0x7f)
			buf_addf(b, "\\u%04x", ch);
		else if (ch == '"' || ch == '\\')
			buf_addf(b, "\\%c", ch);
		else
			buf_add_u8(b, ch);
	}
	buf_add_str(b, n > DUMP_TEXT_MAX ? "…\"" : "\"");
}

static void dump_value(const struct wire_field *f, const void *obj, struct buf *b)
{
	if (!present(f, obj)) {
		buf_add_str(b, "null");
		return;
	}
	if (f->flags & WIRE_SECRET) {
		buf_add_str(b, "\"(hidden)\"");
		return;
	}
	switch (f->type) {
	case WIRE_BOOL:
		buf_add_str(b, *CAT(bool, obj, f->offset) ? "true" : "false");
		break;
	case WIRE_TEXT: {
		const char *s = *CAT(char *, obj, f->offset);

		dump_text(s ? s : "", b);
		break;
	}
	case WIRE_BYTES:
		buf_addf(b, "\"(%zu bytes)\"", CAT(struct wire_bytes, obj, f->offset)->n);
		break;
	case WIRE_OCTETS:
		buf_add_u8(b, '"');
		for (size_t i = 0; i < f->size; i++)
			buf_addf(b, "%02x", CAT(uint8_t, obj, f->offset)[i]);
		buf_add_u8(b, '"');
		break;
	case WIRE_ENUM:
		dump_text(f->names[scalar(f, obj)], b);
		break;
	case WIRE_U64:
		buf_addf(b, "%" PRIu64, *CAT(uint64_t, obj, f->offset));
		break;
	case WIRE_STRUCT:
		wire_dump(f->table, CAT(char, obj, f->offset), b);
		break;
	case WIRE_TEXTS: {
		const struct wire_texts *l = CAT(struct wire_texts, obj, f->offset);

		buf_add_u8(b, '[');
		for (size_t i = 0; i < l->n && i < DUMP_LIST_MAX; i++) {
			buf_add_str(b, i ? "," : "");
			dump_text(l->v[i], b);
		}
		buf_add_str(b, l->n > DUMP_LIST_MAX ? ",…]" : "]");
		break;
	}
	case WIRE_STRUCTS: {
		const struct wire_list *l = CAT(struct wire_list, obj, f->offset);

		buf_add_u8(b, '[');
		for (size_t i = 0; i < l->n && i < DUMP_LIST_MAX; i++) {
			buf_add_str(b, i ? "," : "");
			wire_dump(f->table, (const char *)l->v + i * f->table->size, b);
		}
		buf_add_str(b, l->n > DUMP_LIST_MAX ? ",…]" : "]");
		break;
	}
	default:
		buf_addf(b, "%" PRId64, scalar(f, obj));
		break;
	}
}

void wire_dump(const struct wire_table *t, const void *obj, struct buf *b)
{
	struct fields fs = fields_of(t, obj);
	bool first = true;

	buf_add_u8(b, '{');
	if (t->variants) {
		dump_text(t->tag_key ? t->tag_key : "kind", b);
		buf_add_u8(b, ':');
		dump_text(t->variants[*CAT(int32_t, obj, 0)].name, b);
		first = false;
	}
	for (size_t i = 0; i < fs.n; i++) {
		if (omitted(&fs.f[i], obj))
			continue;
		buf_add_str(b, first ? "" : ",");
		dump_text(fs.f[i].key ? fs.f[i].key : "value", b);
		buf_add_u8(b, ':');
		dump_value(&fs.f[i], obj, b);
		first = false;
	}
	buf_add_u8(b, '}');
}

int wire_enum_find(const char *const *names, const void *name, size_t n)
{
	for (int i = 0; names[i]; i++) {
		if (strlen(names[i]) == n && !memcmp(names[i], name, n))
			return i;
	}
	return -1;
}
