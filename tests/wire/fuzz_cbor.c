/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes: stepping over them ends, in bounds. */
#include <stddef.h>
#include <stdint.h>

#include "wire/cbor.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct cur c = cur_make(p, n);

	while (!c.bad && cur_left(&c)) {
		struct cur at = c;
		cleanup_buf struct buf scratch = BUF_INIT;
		const uint8_t *s;
		struct cbor_head h;
		size_t len;

		if (cbor_read_head(&at, &h) && (h.major == CBOR_TEXT || h.major == CBOR_BYTES) &&
		    cbor_read_string(&at, &h, &scratch, &s, &len))
			(void)cbor_utf8_valid(s, len);
		cbor_skip(&c);
	}
	return 0;
}
