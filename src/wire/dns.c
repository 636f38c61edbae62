/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/dns.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/cleanup.h"

enum {
	/* Of all names in one message: each of some thousand records has a pointer or two. */
	HOPS_MAX = 16384,
	POINTER_MAX = 0x3fff,
	EDE = 15,
	PADDING = 12,
	/* Of an OPT record: the root, type, class, TTL, length. */
	OPT_HEAD = 11,
};

/* ---- names ---- */

static bool plain(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '-' || c == '_';
}

int dns_name_parse(const char *text, struct dns_name *ret)
{
	struct dns_name name = {0};

	if (strcmp(text, ".") == 0)
		text++;
	else if (!*text)
		return -EINVAL;
	while (*text) {
		size_t n = strcspn(text, ".");

		if (!n || n > DNS_LABEL_MAX || name.n + n + 2 > DNS_NAME_MAX)
			return -EINVAL;
		name.b[name.n++] = (uint8_t)n;
		for (size_t i = 0; i < n; i++) {
			if (!plain((unsigned char)text[i]))
				return -EINVAL;
			name.b[name.n++] = (uint8_t)text[i];
		}
		text += n;
		if (*text)
			text++;
	}
	name.b[name.n++] = 0;
	dns_name_fold(&name);
	*ret = name;
	return 0;
}

const char *dns_name_text(const struct dns_name *name, char ret[DNS_NAME_TEXT])
{
	char *to = ret;

	if (name->n <= 1)
		return strcpy(ret, ".");
	for (unsigned at = 0; name->b[at]; at += name->b[at] + 1u) {
		if (at)
			*to++ = '.';
		for (unsigned i = 1; i <= name->b[at]; i++) {
			uint8_t c = name->b[at + i];

			to += plain(c) ? sprintf(to, "%c", c) : sprintf(to, "\\%03u", c);
		}
	}
	return ret;
}

/* Labels are at most 63 long, so that no length looks like a letter. */
void dns_name_fold(struct dns_name *name)
{
	for (unsigned i = 0; i < name->n; i++) {
		if (name->b[i] >= 'A' && name->b[i] <= 'Z')
			name->b[i] |= 0x20;
	}
}

bool dns_name_within(const struct dns_name *name, const struct dns_name *top)
{
	unsigned at = 0;

	while (name->n - at > top->n)
		at += name->b[at] + 1u;
	return name->n - at == top->n && memcmp(name->b + at, top->b, top->n) == 0;
}

unsigned dns_name_labels(const struct dns_name *name)
{
	unsigned n = 0;

	for (unsigned at = 0; at < name->n && name->b[at]; at += name->b[at] + 1u)
		n++;
	return n;
}

void dns_name_tail(const struct dns_name *name, unsigned labels, struct dns_name *ret)
{
	unsigned at = 0;

	for (unsigned skip = dns_name_labels(name); skip > labels; skip--)
		at += name->b[at] + 1u;
	ret->n = (uint8_t)(name->n - at);
	memcpy(ret->b, name->b + at, ret->n);
}

/* ---- reading ---- */

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

/*
 * The name at *at, which then is behind it. A pointer leads to before the piece that it ends, so
 * no piece is read twice.
 */
static int read_name(struct dns_reader *r, size_t *at, size_t end, struct dns_name *ret)
{
	size_t i = *at, start = i, behind = 0;
	unsigned n = 0;

	for (;;) {
		unsigned len;

		if (i >= end)
			return -EBADMSG;
		len = r->p[i];
		if (len >= 0xc0) {
			size_t to;

			if (i + 2 > end || r->hops++ >= HOPS_MAX)
				return -EBADMSG;
			to = get16(r->p + i) & POINTER_MAX;
			if (!behind)
				behind = i + 2;
			if (to < DNS_HEADER || to >= start)
				return -EBADMSG;
			end = start;
			i = start = to;
			continue;
		}
		if (len > DNS_LABEL_MAX || n + len + 1 > DNS_NAME_MAX || len + 1 > end - i)
			return -EBADMSG;
		memcpy(ret->b + n, r->p + i, len + 1);
		n += len + 1;
		i += len + 1;
		if (!len)
			break;
	}
	ret->n = (uint8_t)n;
	*at = behind ? behind : i;
	return 0;
}

int dns_read(struct dns_reader *r, const void *p, size_t n)
{
	const uint8_t *h = p;

	if (n < DNS_HEADER || n > DNS_MESSAGE_MAX)
		return -EBADMSG;
	*r = (struct dns_reader){
		.id = get16(h),
		.flags = get16(h + 2),
		.count = {get16(h + 4), get16(h + 6), get16(h + 8), get16(h + 10)},
		.p = p,
		.n = n,
		.at = DNS_HEADER,
	};
	return 0;
}

int dns_read_question(struct dns_reader *r, struct dns_question *ret)
{
	size_t at = r->at;

	if (!r->count[DNS_QUESTION])
		return 0;
	if (read_name(r, &at, r->n, &ret->asked) < 0 || r->n - at < 4)
		return -EBADMSG;
	ret->name = ret->asked;
	dns_name_fold(&ret->name);
	ret->type = get16(r->p + at);
	ret->class_ = get16(r->p + at + 2);
	r->at = at + 4;
	r->count[DNS_QUESTION]--;
	return 1;
}

int dns_read_record(struct dns_reader *r, struct dns_record *ret)
{
	struct dns_question q;
	unsigned s = DNS_ANSWER;
	size_t at;
	int e;

	while ((e = dns_read_question(r, &q)) > 0)
		;
	while (s < DNS_SECTIONS && !r->count[s])
		s++;
	if (e < 0 || s == DNS_SECTIONS)
		return e;
	at = r->at;
	if (read_name(r, &at, r->n, &ret->name) < 0 || r->n - at < 10)
		return -EBADMSG;
	dns_name_fold(&ret->name);
	ret->section = (enum dns_section)s;
	ret->type = get16(r->p + at);
	ret->class_ = get16(r->p + at + 2);
	ret->ttl = get32(r->p + at + 4);
	/* RFC 2181, 8: what has the upper bit is zero. */
	if (ret->ttl >> 31 && ret->type != DNS_OPT)
		ret->ttl = 0;
	ret->len = get16(r->p + at + 8);
	ret->at = at + 10;
	if (ret->len > r->n - ret->at)
		return -EBADMSG;
	r->at = ret->at + ret->len;
	r->count[s]--;
	return 1;
}

/*
 * Where names are in data of types in which they may be compressed (RFC 3597, 4): n a name, s a
 * string with its length, a digit so many bytes.
 */
static const struct {
	uint16_t type;
	const char *form;
} forms[] = {
	{DNS_A, "4"},	  {DNS_AAAA, "88"},   {DNS_NS, "n"}, {3, "n"}, /* MD */
	{4, "n"},						       /* MF */
	{DNS_CNAME, "n"}, {DNS_SOA, "nn884"}, {7, "n"},		       /* MB */
	{8, "n"},						       /* MG */
	{9, "n"},						       /* MR */
	{DNS_PTR, "n"},	  {14, "nn"},				       /* MINFO */
	{DNS_MX, "2n"},	  {17, "nn"},				       /* RP */
	{18, "2n"},						       /* AFSDB */
	{21, "2n"},						       /* RT */
	{26, "2nn"},						       /* PX */
	{DNS_SRV, "6n"},  {35, "4sssn"},			       /* NAPTR */
	{36, "2n"},						       /* KX */
	{DNS_DNAME, "n"},
};

static int expand(struct dns_reader *r, const char *form, size_t at, size_t end, uint8_t *ret,
		  size_t max)
{
	struct dns_name name;
	size_t n = 0;

	for (; *form; form++) {
		const uint8_t *p = r->p + at;
		size_t len;

		if (*form == 'n') {
			if (read_name(r, &at, end, &name) < 0)
				return -EBADMSG;
			p = name.b;
			len = name.n;
		} else {
			if (*form == 's')
				len = at < end ? *p + 1u : 1;
			else
				len = (size_t)(*form - '0');
			if (len > end - at)
				return -EBADMSG;
			at += len;
		}
		if (len > max - n)
			return -EMSGSIZE;
		memcpy(ret + n, p, len);
		n += len;
	}
	return at == end ? (int)n : -EBADMSG;
}

int dns_read_data(struct dns_reader *r, const struct dns_record *rec, uint8_t *ret, size_t max)
{
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		if (forms[i].type == rec->type)
			return expand(r, forms[i].form, rec->at, rec->at + rec->len, ret, max);
	}
	if (rec->len > max)
		return -EMSGSIZE;
	memcpy(ret, r->p + rec->at, rec->len);
	return rec->len;
}

void dns_edns_of(const struct dns_record *rec, struct dns_edns *ret)
{
	*ret = (struct dns_edns){
		.size = rec->class_,
		.version = rec->ttl >> 16 & 0xff,
		.rcode = (uint8_t)(rec->ttl >> 24),
		.dnssec_ok = rec->ttl >> 15 & 1,
	};
}

/* ---- writing ---- */

static void set16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void set32(uint8_t *p, uint32_t v)
{
	set16(p, v >> 16);
	set16(p + 2, v & 0xffff);
}

void dns_write(struct dns_writer *w, void *p, size_t max, uint16_t id, uint16_t flags)
{
	w->p = p;
	w->n = DNS_HEADER;
	w->max = MIN(max, (size_t)DNS_MESSAGE_MAX);
	w->known.n = 0;
	memset(w->count, 0, sizeof(w->count));
	memset(p, 0, DNS_HEADER);
	set16(w->p, id);
	set16(w->p + 2, flags);
}

/* Is the name that was written at @at the one at @p, letters' sizes aside? */
static bool same(const struct dns_writer *w, size_t at, const uint8_t *p)
{
	for (;;) {
		unsigned len;

		/* Ours, and each leads back. */
		while (w->p[at] >= 0xc0)
			at = get16(w->p + at) & POINTER_MAX;
		len = w->p[at];
		if (len != *p)
			return false;
		if (!len)
			return true;
		for (unsigned i = 1; i <= len; i++) {
			if (tolower(w->p[at + i]) != tolower(p[i]))
				return false;
		}
		at += len + 1;
		p += len + 1;
	}
}

/* Among the first @n, which are of names that are complete. */
static int known_as(const struct dns_writer *w, unsigned n, const uint8_t *p)
{
	for (unsigned i = 0; i < n; i++) {
		if (same(w, w->known.at[i], p))
			return w->known.at[i];
	}
	return -1;
}

static bool put_name(struct dns_writer *w, const struct dns_name *name)
{
	unsigned i = 0, was = w->known.n;

	for (; name->b[i]; i += name->b[i] + 1u) {
		int at = known_as(w, was, name->b + i);
		unsigned len = name->b[i] + 1u;

		if (at >= 0) {
			if (w->max - w->n < 2)
				goto full;
			set16(w->p + w->n, 0xc000u | (unsigned)at);
			w->n += 2;
			return true;
		}
		if (w->max - w->n < len)
			goto full;
		memcpy(w->p + w->n, name->b + i, len);
		if (w->n <= POINTER_MAX && w->known.n < ARRAY_SIZE(w->known.at))
			w->known.at[w->known.n++] = (uint16_t)w->n;
		w->n += len;
	}
	if (w->n == w->max)
		goto full;
	w->p[w->n++] = 0;
	return true;
full:
	w->known.n = was;
	return false;
}

bool dns_write_question(struct dns_writer *w, const struct dns_name *name, uint16_t type,
			uint16_t class_)
{
	size_t was = w->n;

	if (!put_name(w, name) || w->max - w->n < 4) {
		w->n = was;
		w->known.n = 0;
		return false;
	}
	set16(w->p + w->n, type);
	set16(w->p + w->n + 2, class_);
	w->n += 4;
	w->count[DNS_QUESTION]++;
	return true;
}

bool dns_write_record(struct dns_writer *w, enum dns_section section, const struct dns_name *name,
		      uint16_t type, uint16_t class_, uint32_t ttl, const void *data, size_t len)
{
	unsigned known = w->known.n;
	size_t was = w->n;
	uint8_t *p;

	if (!put_name(w, name) || len > UINT16_MAX || w->max - w->n < 10 + len) {
		w->n = was;
		w->known.n = known;
		return false;
	}
	p = w->p + w->n;
	set16(p, type);
	set16(p + 2, class_);
	set32(p + 4, ttl);
	set16(p + 8, (unsigned)len);
	if (len)
		memcpy(p + 10, data, len);
	w->n += 10 + len;
	w->count[section]++;
	return true;
}

static bool put_opt(struct dns_writer *w, const struct dns_edns *e, const void *options, size_t n)
{
	static const struct dns_name root = {.n = 1};
	uint32_t ttl = (uint32_t)e->rcode << 24 | (uint32_t)e->version << 16 |
		       (e->dnssec_ok ? 1u << 15 : 0);

	return dns_write_record(w, DNS_ADDITIONAL, &root, DNS_OPT, e->size, ttl, options, n);
}

bool dns_write_edns(struct dns_writer *w, const struct dns_edns *e, int ede, const char *why)
{
	uint8_t option[6 + 128];
	size_t n = 0;

	if (ede >= 0) {
		size_t len = MIN(strlen(why), sizeof(option) - 6);

		set16(option, EDE);
		set16(option + 2, (unsigned)(2 + len));
		set16(option + 4, (unsigned)ede);
		memcpy(option + 6, why, len);
		n = 6 + len;
	}
	return put_opt(w, e, option, n);
}

bool dns_write_edns_padded(struct dns_writer *w, const struct dns_edns *e)
{
	uint8_t option[4 + DNS_PADDED] = {0};
	size_t len = -(w->n + OPT_HEAD + 4) % DNS_PADDED;

	set16(option, PADDING);
	set16(option + 2, (unsigned)len);
	return put_opt(w, e, option, 4 + len);
}

size_t dns_write_end(struct dns_writer *w, uint16_t flags)
{
	set16(w->p + 2, flags);
	for (int s = 0; s < DNS_SECTIONS; s++)
		set16(w->p + 4 + 2 * s, w->count[s]);
	return w->n;
}
