/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of the domain name system; the C library's own reader is the judge of what we write. */
#include "test.h"

#include <arpa/nameser.h>
#undef MIN /* of <sys/param.h>, which that includes */
#undef MAX
#include <errno.h>

#include "base/cleanup.h"
#include "wire/dns.h"

static struct dns_name name(const char *text)
{
	struct dns_name n;

	if (dns_name_parse(text, &n) < 0)
		fail_msg("no name: %s", text);
	return n;
}

static void names(void **state)
{
	static const char *const bad[] = {
		"",	"..",
		".a",	"a..b",
		"a b",	"a/b",
		"ä.de", "a123456789012345678901234567890123456789012345678901234567890123.de",
	};
	char text[DNS_NAME_TEXT], longest[300];
	struct dns_name a = name("WWW.Example.COM."), b = name("example.com"), root = name(".");

	(void)state;
	assert_string_equal(dns_name_text(&a, text), "www.example.com");
	assert_string_equal(dns_name_text(&root, text), ".");
	assert_int_equal(a.n, 17);
	assert_true(dns_name_within(&a, &b) && dns_name_within(&b, &b) &&
		    dns_name_within(&a, &root));
	assert_false(dns_name_within(&b, &a));
	b = name("notexample.com");
	a = name("example.com");
	assert_false(dns_name_within(&b, &a));
	assert_int_equal(dns_name_labels(&b), 2);
	assert_int_equal(dns_name_labels(&root), 0);
	a = name("a.b.c.d");
	dns_name_tail(&a, 2, &b);
	assert_string_equal(dns_name_text(&b, text), "c.d");
	dns_name_tail(&a, 9, &b);
	assert_true(dns_name_equal(&a, &b));
	dns_name_tail(&a, 0, &b);
	assert_true(dns_name_equal(&root, &b));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(dns_name_parse(bad[i], &a), -EINVAL);
	/* 127 labels of one letter are 255 bytes; another half does not fit. */
	for (int i = 0; i < 127; i++)
		memcpy(longest + 2 * i, "a.", 3);
	assert_int_equal(dns_name_parse(longest, &a), 0);
	assert_int_equal(a.n, DNS_NAME_MAX);
	longest[0] = 'b';
	memcpy(longest + 254, "c", 2);
	assert_int_equal(dns_name_parse(longest, &a), -EINVAL);
	/* What no host is called can still be asked for. */
	a = (struct dns_name){.n = 6, .b = "\4a.\0\\"};
	assert_string_equal(dns_name_text(&a, text), "a\\046\\000\\092");
}

/* Header, the question www.Example.com A IN at 12, and what follows. */
#define HEAD "\x12\x34\x81\x80\0\1\0\1\0\0\0\0"
#define ASK  "\3www\7Example\3com\0\0\1\0\1"

static int read_all(const char *bytes, size_t n, struct dns_record *rec, uint8_t *data,
		    struct dns_reader *r)
{
	struct dns_question q;

	if (dns_read(r, bytes, n) < 0 || dns_read_question(r, &q) != 1 ||
	    dns_read_record(r, rec) != 1)
		return -EBADMSG;
	return dns_read_data(r, rec, data, DNS_NAME_MAX + 64);
}
#define READ(bytes) read_all(bytes, sizeof(bytes) - 1, &rec, data, &r)

static void reading(void **state)
{
	uint8_t data[DNS_NAME_MAX + 64];
	struct dns_reader r;
	struct dns_question q;
	struct dns_record rec;
	char text[DNS_NAME_TEXT];

	(void)state;
	assert_int_equal(dns_read(&r, HEAD ASK, sizeof(HEAD ASK) - 1), 0);
	assert_int_equal(r.id, 0x1234);
	assert_int_equal(r.flags, DNS_QR | DNS_RD | DNS_RA);
	assert_int_equal(dns_read_question(&r, &q), 1);
	assert_string_equal(dns_name_text(&q.asked, text), "www.Example.com");
	assert_string_equal(dns_name_text(&q.name, text), "www.example.com");
	assert_true(q.type == DNS_A && q.class_ == DNS_IN);
	assert_int_equal(dns_read_question(&r, &q), 0);
	/* One more record was promised. */
	assert_int_equal(dns_read_record(&r, &rec), -EBADMSG);

	assert_int_equal(READ(HEAD ASK "\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\1\2\3\4"), 4);
	assert_string_equal(dns_name_text(&rec.name, text), "www.example.com");
	assert_true(rec.section == DNS_ANSWER && rec.ttl == 60);
	assert_memory_equal(data, "\1\2\3\4", 4);
	assert_int_equal(dns_read_record(&r, &rec), 0);

	/* A name in data becomes whole: "a" and a pointer to example.com. */
	assert_int_equal(READ(HEAD ASK "\xc0\x0c\0\5\0\1\0\0\0\x3c\0\4\1a\xc0\x10"), 15);
	assert_memory_equal(data, "\1a\7Example\3com", 15);
	/* ...and in MX and SOA. */
	assert_int_equal(READ(HEAD ASK "\xc0\x0c\0\x0f\0\1\0\0\0\x3c\0\4\0\5\xc0\x18"), 7);
	assert_int_equal(READ(HEAD ASK "\xc0\x0c\0\6\0\1\0\0\0\x3c\0\x18\xc0\x10\xc0\x18"
				       "\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0\5"),
			 13 + 5 + 20);
	/* A time to live with the upper bit is none. */
	assert_int_equal(READ(HEAD ASK "\xc0\x0c\0\1\0\1\xff\0\0\x3c\0\4\1\2\3\4"), 4);
	assert_int_equal(rec.ttl, 0);
	/* What we do not know we pass on. */
	assert_int_equal(READ(HEAD ASK "\xc0\x0c\xff\1\0\1\0\0\0\x3c\0\3\xc0\x0c!"), 3);
}

static void refused(void **state)
{
	uint8_t data[DNS_NAME_MAX + 64];
	struct dns_reader r;
	struct dns_record rec;

	(void)state;
#define BAD(bytes) assert_int_equal(READ(bytes), -EBADMSG)
	assert_int_equal(dns_read(&r, "12345678901", 11), -EBADMSG);
	/* pointers: to itself, forward, to the header, in a circle, cut off */
	BAD(HEAD ASK "\xc0\x21\0\1\0\1\0\0\0\x3c\0\4\1\2\3\4");
	BAD(HEAD ASK "\xc0\x22\0\1\0\1\0\0\0\x3c\0\4\1\2\3\4");
	BAD(HEAD ASK "\xc0\0\0\1\0\1\0\0\0\x3c\0\4\1\2\3\4");
	BAD(HEAD "\1a\xc0\x0c\0\1\0\1\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\1\2\3\4");
	BAD(HEAD ASK "\xc0");
	/* labels of the kinds that were never used */
	BAD(HEAD ASK "\x41"
		     "a\0\0\1\0\1\0\0\0\x3c\0\4\1\2\3\4");
	BAD(HEAD ASK "\x81"
		     "a\0\0\1\0\1\0\0\0\x3c\0\4\1\2\3\4");
	/* more data than there is, less than its type has, more than its type has */
	BAD(HEAD ASK "\xc0\x0c\0\1\0\1\0\0\0\x3c\0\5\1\2\3\4");
	BAD(HEAD ASK "\xc0\x0c\0\1\0\1\0\0\0\x3c\0\3\1\2\3");
	BAD(HEAD ASK "\xc0\x0c\0\1\0\1\0\0\0\x3c\0\5\1\2\3\4\5");
	BAD(HEAD ASK "\xc0\x0c\0\5\0\1\0\0\0\x3c\0\0");
	BAD(HEAD ASK "\xc0\x0c\0\5\0\1\0\0\0\x3c\0\3\xc0\x0c\0");
	BAD(HEAD ASK "\xc0\x0c\0\x1c\0\1\0\0\0\x3c\0\4\1\2\3\4");
	BAD(HEAD ASK "\xc0\x0c\0\6\0\1\0\0\0\x3c\0\4\xc0\x10\xc0\x18");
#undef BAD
}

/* Pointers that lead to pointers, as many as fit, in as many records as fit: it ends, soon. */
static void pointer_bomb(void **state)
{
	static uint8_t m[DNS_MESSAGE_MAX];
	struct dns_reader r;
	struct dns_record rec;
	size_t n = DNS_HEADER, first = n;
	unsigned records = 0;
	int e;

	(void)state;
	m[6] = m[7] = 0xff;
	/* In the data of one record of an unknown type: 0, then pointers, each to the one before.
	 */
	memcpy(m + n, "\0\xff\1\0\1\0\0\0\0\x3f\0", 11);
	n += 11;
	m[n++] = 0;
	while (n < first + 11 + 0x3f00) {
		size_t to = n - (n == first + 12 ? 1 : 2);

		m[n++] = (uint8_t)(0xc0 | to >> 8);
		m[n++] = (uint8_t)to;
		if (n + 2 > first + 11 + 0x3f00)
			break;
	}
	n = first + 11 + 0x3f00;
	while (n + 12 <= sizeof(m)) {
		size_t to = first + 12 + 2 * 8000;

		m[n] = (uint8_t)(0xc0 | to >> 8);
		m[n + 1] = (uint8_t)to;
		memcpy(m + n + 2, "\0\1\0\1\0\0\0\0\0\0", 10);
		n += 12;
	}
	assert_int_equal(dns_read(&r, m, n), 0);
	while ((e = dns_read_record(&r, &rec)) == 1)
		records++;
	assert_int_equal(e, -EBADMSG);
	assert_in_range(records, 1, 4);
}

static void writing(void **state)
{
	static uint8_t m[2000];
	struct dns_name asked = name("www.example.com"), other = name("mail.example.com"),
			root = name(".");
	struct dns_edns e = {.size = 1232, .dnssec_ok = true};
	struct dns_writer w;
	char text[NS_MAXDNAME];
	ns_msg msg;
	ns_rr rr;
	size_t n;

	(void)state;
	memcpy(asked.b, "\3wWw", 4);
	dns_write(&w, m, sizeof(m), 0xabcd, 0);
	assert_true(dns_write_question(&w, &asked, DNS_A, DNS_IN));
	asked = name("www.example.com");
	assert_true(dns_write_record(&w, DNS_ANSWER, &asked, DNS_A, DNS_IN, 77, "\1\2\3\4", 4));
	assert_true(
		dns_write_record(&w, DNS_ANSWER, &asked, DNS_CNAME, DNS_IN, 1, other.b, other.n));
	assert_true(dns_write_record(&w, DNS_AUTHORITY, &other, DNS_A, DNS_IN, 5, "\5\6\7\10", 4));
	assert_true(dns_write_record(&w, DNS_ADDITIONAL, &root, DNS_TXT, DNS_IN, 5, "\2hi", 3));
	assert_true(dns_write_edns(&w, &e, 15, "because"));
	n = dns_write_end(&w, DNS_QR | DNS_RD | DNS_RA | DNS_REFUSED);

	assert_int_equal(ns_initparse(m, (int)n, &msg), 0);
	assert_int_equal(ns_msg_id(msg), 0xabcd);
	assert_int_equal(ns_msg_getflag(msg, ns_f_rcode), ns_r_refused);
	assert_int_equal(ns_parserr(&msg, ns_s_qd, 0, &rr), 0);
	assert_string_equal(ns_rr_name(rr), "wWw.example.com");
	assert_int_equal(ns_parserr(&msg, ns_s_an, 0, &rr), 0);
	assert_string_equal(ns_rr_name(rr), "wWw.example.com"); /* a pointer to the question */
	assert_int_equal(ns_rr_ttl(rr), 77);
	assert_int_equal(ns_parserr(&msg, ns_s_an, 1, &rr), 0);
	assert_true(ns_name_uncompress(m, m + n, ns_rr_rdata(rr), text, sizeof(text)) > 0);
	assert_string_equal(text, "mail.example.com");
	assert_int_equal(ns_parserr(&msg, ns_s_ns, 0, &rr), 0);
	assert_string_equal(ns_rr_name(rr), "mail.example.com");
	assert_int_equal(ns_rr_rdlen(rr), 4);
	assert_int_equal(ns_parserr(&msg, ns_s_ar, 0, &rr), 0);
	assert_int_equal(ns_rr_type(rr), ns_t_txt);
	assert_int_equal(ns_parserr(&msg, ns_s_ar, 1, &rr), 0);
	assert_int_equal(ns_rr_type(rr), ns_t_opt);
	assert_int_equal(ns_rr_class(rr), 1232);
	assert_int_equal(ns_rr_ttl(rr), 0x8000);
	assert_memory_equal(ns_rr_rdata(rr),
			    "\0\x0f\0\x09\0\x0f"
			    "because",
			    13);
	assert_int_equal(ns_parserr(&msg, ns_s_ar, 2, &rr), -1);
}

/* What does not fit leaves no trace, and what does afterwards is well. */
static void no_room(void **state)
{
	uint8_t m[80];
	struct dns_name asked = name("www.example.com"), other = name("a.b.c.d.e.f.g.example.org");
	struct dns_writer w;
	ns_msg msg;
	ns_rr rr;

	(void)state;
	dns_write(&w, m, sizeof(m), 1, 0);
	assert_true(dns_write_question(&w, &asked, DNS_A, DNS_IN));
	assert_true(dns_write_record(&w, DNS_ANSWER, &asked, DNS_A, DNS_IN, 1, "\1\2\3\4", 4));
	assert_false(dns_write_record(&w, DNS_ANSWER, &other, DNS_A, DNS_IN, 1, "\1\2\3\4", 4));
	assert_false(dns_write_record(&w, DNS_ANSWER, &asked, DNS_TXT, DNS_IN, 1, m, 60));
	other = name("example.com");
	assert_true(dns_write_record(&w, DNS_ANSWER, &other, DNS_A, DNS_IN, 1, "\4\3\2\1", 4));
	assert_int_equal(ns_initparse(m, (int)dns_write_end(&w, DNS_QR | DNS_TC), &msg), 0);
	assert_int_equal(ns_msg_count(msg, ns_s_an), 2);
	assert_int_equal(ns_parserr(&msg, ns_s_an, 1, &rr), 0);
	assert_string_equal(ns_rr_name(rr), "example.com");
}

/* A name that repeats itself has nothing to point into yet. */
static void repeated(void **state)
{
	uint8_t m[80];
	struct dns_name asked = name("a.a"), again;
	struct dns_reader r;
	struct dns_question q;
	struct dns_writer w;

	(void)state;
	memset(m, 0, sizeof(m));
	dns_write(&w, m, sizeof(m), 1, 0);
	assert_true(dns_write_question(&w, &asked, DNS_A, DNS_IN));
	assert_int_equal(dns_read(&r, m, dns_write_end(&w, 0)), 0);
	assert_int_equal(dns_read_question(&r, &q), 1);
	again = q.name;
	assert_true(dns_name_equal(&asked, &again));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),    cmocka_unit_test(reading),
		cmocka_unit_test(refused),  cmocka_unit_test(pointer_bomb),
		cmocka_unit_test(writing),  cmocka_unit_test(no_room),
		cmocka_unit_test(repeated),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
