/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a message: what can be read of it can be written, and reads the same again. */
#undef NDEBUG
#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "wire/dns.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

enum { RECORDS = 64 };

static struct {
	struct dns_record rec[RECORDS];
	uint8_t data[RECORDS][2048];
	int len[RECORDS];
	unsigned n;
} seen[2];

static bool read_all(const uint8_t *p, size_t n, int which, struct dns_question *q)
{
	struct dns_reader r;

	seen[which].n = 0;
	if (dns_read(&r, p, n) < 0 || dns_read_question(&r, q) != 1)
		return false;
	for (unsigned i = 0; i < RECORDS && dns_read_record(&r, &seen[which].rec[i]) == 1; i++) {
		seen[which].len[i] = dns_read_data(&r, &seen[which].rec[i], seen[which].data[i],
						   sizeof(seen[which].data[i]));
		if (seen[which].len[i] < 0)
			break;
		seen[which].n = i + 1;
	}
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static uint8_t out[DNS_MESSAGE_MAX];
	struct dns_question q, again;
	char text[DNS_NAME_TEXT];
	struct dns_writer w;
	bool fits = true;

	if (!read_all(p, n, 0, &q))
		return 0;
	dns_write(&w, out, n & 1 ? sizeof(out) : MAX(n / 2, (size_t)DNS_HEADER), 1, 0);
	fits = dns_write_question(&w, &q.asked, q.type, q.class_);
	for (unsigned i = 0; i < seen[0].n; i++) {
		const struct dns_record *r = &seen[0].rec[i];

		if (!dns_write_record(&w, r->section, &r->name, r->type, r->class_, r->ttl,
				      seen[0].data[i], (size_t)seen[0].len[i]))
			fits = false;
	}
	n = dns_write_end(&w, 0);
	if (!fits)
		return 0;
	assert(read_all(out, n, 1, &again));
	assert(dns_name_equal(&q.asked, &again.asked) && seen[0].n == seen[1].n);
	(void)dns_name_text(&q.name, text);
	for (unsigned i = 0; i < seen[0].n; i++) {
		assert(dns_name_equal(&seen[0].rec[i].name, &seen[1].rec[i].name));
		assert(seen[0].len[i] == seen[1].len[i]);
		assert(!memcmp(seen[0].data[i], seen[1].data[i], (size_t)seen[0].len[i]));
	}
	return 0;
}
