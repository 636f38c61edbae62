/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/packet.h"

void packet_put(const struct wire_table *t, const void *obj, struct buf *b)
{
	struct buf body = BUF_INIT;

	wire_encode(t, obj, &body);
	buf_add_be32(b, (uint32_t)buf_size(&body));
	buf_add(b, buf_ptr(&body), buf_size(&body));
	b->failed |= body.failed;
	buf_done(&body);
}

int packet_take(const struct wire_table *t, size_t max, struct buf *b, void *ret, struct err *err)
{
	struct cur c;
	uint32_t n;
	int r;

	if (buf_size(b) < sizeof(n))
		return 0;
	c = cur_make(buf_ptr(b), buf_size(b));
	n = cur_be32(&c);
	if (n > max)
		return err_set(err, ERR_PROTOCOL, "a %s of %u bytes", t->name, n);
	if (cur_left(&c) < n)
		return 0;
	r = wire_decode(t, c.p, n, ret, err);
	if (r < 0)
		return r;
	buf_consume(b, sizeof(n) + n);
	return 1;
}
