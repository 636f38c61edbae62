/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of the domain name system: RFC 1035 as 2181, 3597, 6891, 7830 and 8914 have it.
 *
 * A name is kept as it is on the wire, labels with their lengths and the root's zero at the end,
 * but never compressed: one form, at most 255 bytes, whatever bytes are in its labels. Names are
 * compared as they stand, so they are folded to small letters first; the reader does so for
 * everything but the spelling of a question.
 *
 * The reader checks each length once and follows a compression pointer only backwards, with a
 * budget for the whole message. The writer compresses the names of questions and records, never
 * those in data, and writes a record whole or not at all.
 */
#ifndef WIRE_DNS_H
#define WIRE_DNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
	DNS_PORT = 53,
	DNS_NAME_MAX = 255,
	DNS_LABEL_MAX = 63,
	/* Each byte of a label as \DDD, and the dots. */
	DNS_NAME_TEXT = 4 * DNS_NAME_MAX,
	DNS_HEADER = 12,
	DNS_MESSAGE_MAX = 65535,
	/* Without EDNS. */
	DNS_UDP_MAX = 512,
	/* What is sent over TLS has a multiple of this (RFC 8467, 4.1). */
	DNS_PADDED = 128,
};

enum dns_type {
	DNS_A = 1,
	DNS_NS = 2,
	DNS_CNAME = 5,
	DNS_SOA = 6,
	DNS_PTR = 12,
	DNS_MX = 15,
	DNS_TXT = 16,
	DNS_AAAA = 28,
	DNS_SRV = 33,
	DNS_DNAME = 39,
	DNS_OPT = 41,
	DNS_SVCB = 64,
	DNS_HTTPS = 65,
	DNS_IXFR = 251,
	DNS_AXFR = 252,
	DNS_ANY = 255,
};

enum { DNS_IN = 1 };

enum dns_rcode {
	DNS_NOERROR = 0,
	DNS_FORMERR = 1,
	DNS_SERVFAIL = 2,
	DNS_NXDOMAIN = 3,
	DNS_NOTIMP = 4,
	DNS_REFUSED = 5,
	DNS_BADVERS = 16,
};

/* The second word of a header. */
enum {
	DNS_QR = 0x8000,
	DNS_OPCODE = 0x7800,
	DNS_AA = 0x0400,
	DNS_TC = 0x0200,
	DNS_RD = 0x0100,
	DNS_RA = 0x0080,
	DNS_AD = 0x0020,
	DNS_CD = 0x0010,
	DNS_RCODE = 0x000f,
};

enum dns_section { DNS_QUESTION, DNS_ANSWER, DNS_AUTHORITY, DNS_ADDITIONAL, DNS_SECTIONS };

struct dns_name {
	uint8_t n;
	uint8_t b[DNS_NAME_MAX];
};

/* Of text: letters, digits, "-" and "_" between dots, one more dot at the end or not. -EINVAL. */
int dns_name_parse(const char *text, struct dns_name *ret);
/* With \DDD for what is not a letter, digit, "-" or "_", and no dot at the end but for the root. */
const char *dns_name_text(const struct dns_name *name, char ret[DNS_NAME_TEXT]);
void dns_name_fold(struct dns_name *name);
static inline bool dns_name_equal(const struct dns_name *a, const struct dns_name *b)
{
	return a->n == b->n && memcmp(a->b, b->b, a->n) == 0;
}
/* Is it @top, or below it? */
bool dns_name_within(const struct dns_name *name, const struct dns_name *top);
/* The root has none. */
unsigned dns_name_labels(const struct dns_name *name);
/* The last @labels of it. */
void dns_name_tail(const struct dns_name *name, unsigned labels, struct dns_name *ret);

struct dns_question {
	struct dns_name name;  /* folded */
	struct dns_name asked; /* as it was spelled */
	uint16_t type, class_;
};

struct dns_record {
	enum dns_section section;
	struct dns_name name; /* folded */
	uint16_t type, class_, len;
	uint32_t ttl;
	size_t at; /* of the data in the message, where names may be compressed */
};

struct dns_reader {
	uint16_t id, flags;
	uint16_t count[DNS_SECTIONS]; /* as the header says; then what is still to be read */
	/* private */
	const uint8_t *p;
	size_t n, at;
	unsigned hops;
};

/* -EBADMSG when it has no header. @p is borrowed. */
int dns_read(struct dns_reader *r, const void *p, size_t n);
/* 1; 0 when there is no other; -EBADMSG. Questions first, then records. */
int dns_read_question(struct dns_reader *r, struct dns_question *ret);
int dns_read_record(struct dns_reader *r, struct dns_record *ret);
/*
 * The data of a record with no name in it compressed: how long it is, or -EBADMSG when it is not
 * what its type demands, -EMSGSIZE when it does not fit.
 */
int dns_read_data(struct dns_reader *r, const struct dns_record *rec, uint8_t *ret, size_t max);

/* What matters of an OPT record (RFC 6891). */
struct dns_edns {
	uint16_t size;
	uint8_t version, rcode; /* the upper bits of the message's code */
	bool dnssec_ok;
};
void dns_edns_of(const struct dns_record *rec, struct dns_edns *ret);

struct dns_writer {
	/* private */
	uint8_t *p;
	size_t n, max;
	uint16_t count[DNS_SECTIONS];
	struct {
		uint16_t at[32]; /* where names begin that others can point into */
		unsigned n;
	} known;
};

/* @max is at least DNS_HEADER. */
void dns_write(struct dns_writer *w, void *p, size_t max, uint16_t id, uint16_t flags);
/* These say whether it fitted. */
bool dns_write_question(struct dns_writer *w, const struct dns_name *name, uint16_t type,
			uint16_t class_);
bool dns_write_record(struct dns_writer *w, enum dns_section section, const struct dns_name *name,
		      uint16_t type, uint16_t class_, uint32_t ttl, const void *data, size_t len);
/* An OPT record; with @ede >= 0 why there is no better answer (RFC 8914), and @why in words. */
bool dns_write_edns(struct dns_writer *w, const struct dns_edns *e, int ede, const char *why);
/* The last record of a message: its length becomes a multiple of DNS_PADDED. */
bool dns_write_edns_padded(struct dns_writer *w, const struct dns_edns *e);
/* How long all of it became. */
size_t dns_write_end(struct dns_writer *w, uint16_t flags);

#endif
