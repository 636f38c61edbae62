/* SPDX-License-Identifier: Apache-2.0 */
#include "net/dns_stream.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

void dns_stream_put(struct buf *b, const void *m, size_t n)
{
	buf_add_u8(b, (uint8_t)(n >> 8));
	buf_add_u8(b, (uint8_t)n);
	buf_add(b, m, n);
}

ssize_t dns_stream_have(const struct buf *b)
{
	const uint8_t *p = buf_ptr(b);
	size_t n;

	if (buf_size(b) < 2)
		return -1;
	n = (size_t)(p[0] << 8 | p[1]);
	return buf_size(b) - 2 >= n ? (ssize_t)n : -1;
}

size_t dns_stream_take(struct buf *b, uint8_t *ret)
{
	const uint8_t *p = buf_ptr(b);
	const size_t n = (size_t)(p[0] << 8 | p[1]);

	memcpy(ret, p + 2, n);
	buf_consume(b, 2 + n);
	return n;
}

int dns_stream_fetch(int fd, struct buf *b)
{
	enum { PIECE = 4096 };
	uint8_t *p = buf_reserve(b, PIECE);
	ssize_t n;

	if (!p)
		return -ENOMEM;
	n = recv(fd, p, PIECE, MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0)
		return -EPIPE;
	buf_commit(b, (size_t)n);
	return 1;
}
