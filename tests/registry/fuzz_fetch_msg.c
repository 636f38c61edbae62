/* SPDX-License-Identifier: Apache-2.0 */
/* Both messages between msb and msb-fetch: what decodes encodes to what decodes the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fetch/fetch_msg.h"

static void check_request(const uint8_t *data, size_t size)
{
	struct fetch_request r, again;
	struct buf b = BUF_INIT, c = BUF_INIT;

	if (fetch_request_decode(data, size, &r, NULL) < 0)
		return;
	if (strpbrk(r.url, "\r\n"))
		abort();
	for (size_t i = 0; i < r.headers.n; i++)
		if (strpbrk(r.headers.v[i], "\r\n"))
			abort();
	fetch_request_encode(&r, &b);
	if (!buf_failed(&b)) {
		if (fetch_request_decode(buf_ptr(&b), buf_size(&b), &again, NULL) < 0)
			abort();
		fetch_request_encode(&again, &c);
		if (buf_size(&b) != buf_size(&c) || memcmp(buf_ptr(&b), buf_ptr(&c), buf_size(&b)))
			abort();
		fetch_request_done(&again);
	}
	fetch_request_done(&r);
	buf_done(&b);
	buf_done(&c);
}

static void check_result(const uint8_t *data, size_t size)
{
	struct fetch_result r, again;
	struct buf b = BUF_INIT;

	if (fetch_result_decode(data, size, &r, NULL) < 0)
		return;
	if (r.outcome >= FETCH_OUTCOMES)
		abort();
	fetch_result_encode(&r, &b);
	if (!buf_failed(&b)) {
		if (fetch_result_decode(buf_ptr(&b), buf_size(&b), &again, NULL) < 0)
			abort();
		fetch_result_done(&again);
	}
	fetch_result_done(&r);
	buf_done(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check_request(data, size);
	check_result(data, size);
	return 0;
}
