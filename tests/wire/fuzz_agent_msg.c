/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as any message: what decodes encodes to something that decodes to the same. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "wire/agent_msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	const struct wire_table *t;
	cleanup_free void *a = NULL;
	cleanup_free void *b = NULL;
	struct err err = ERR_INIT;

	if (!n)
		return 0;
	t = msg_types[p[0] % MSG_KINDS].table;
	a = calloc(1, t->size);
	b = calloc(1, t->size);
	if (a && b && !wire_decode(t, p + 1, n - 1, a, &err)) {
		cleanup_buf struct buf out = BUF_INIT, text = BUF_INIT;

		wire_encode(t, a, &out);
		wire_dump(t, a, &text);
		if (wire_decode(t, buf_ptr(&out), buf_size(&out), b, &err) || !wire_equal(t, a, b))
			abort();
		wire_free(t, b);
		wire_free(t, a);
	}
	return 0;
}
