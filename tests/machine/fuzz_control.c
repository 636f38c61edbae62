/* SPDX-License-Identifier: Apache-2.0 */
/* Both messages of control.sock: what decodes encodes to what decodes the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "machine/control_msg.h"

static void same(const struct buf *a, const struct buf *b)
{
	if (buf_failed(a) || buf_failed(b))
		return;
	if (buf_size(a) != buf_size(b) || memcmp(buf_ptr(a), buf_ptr(b), buf_size(a)))
		abort();
}

static void check_requests(struct buf *in)
{
	struct control_request q, again;

	while (control_request_take(in, &q, NULL) > 0) {
		struct buf b = BUF_INIT, c = BUF_INIT;

		if (q.op < 0 || q.op >= CONTROL_OPS)
			abort();
		control_request_put(&q, &b);
		buf_add(&c, buf_ptr(&b), buf_size(&b));
		if (control_request_take(&c, &again, NULL) != 1)
			abort();
		control_request_put(&again, &c);
		same(&b, &c);
		control_request_done(&again);
		control_request_done(&q);
		buf_done(&b);
		buf_done(&c);
	}
}

static void check_answers(struct buf *in)
{
	struct control_answer a;

	while (control_answer_take(in, &a, NULL) > 0) {
		struct buf b = BUF_INIT;

		control_answer_put(&a, &b);
		control_answer_done(&a);
		if (!buf_failed(&b) && control_answer_take(&b, &a, NULL) != 1)
			abort();
		control_answer_done(&a);
		buf_done(&b);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf b = BUF_INIT;

	buf_add(&b, data, size);
	check_requests(&b);
	buf_reset(&b);
	buf_add(&b, data, size);
	check_answers(&b);
	buf_done(&b);
	return 0;
}
