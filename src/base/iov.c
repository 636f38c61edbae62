/* SPDX-License-Identifier: Apache-2.0 */
#include "base/iov.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

size_t iov_size(const struct iovec *iov, unsigned n)
{
	size_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

unsigned iov_slice(const struct iovec *iov, unsigned n, size_t off, size_t len, struct iovec *dst,
		   unsigned max)
{
	unsigned out = 0;

	for (unsigned i = 0; i < n && len && out < max; i++) {
		struct iovec v = iov[i];

		if (off >= v.iov_len) {
			off -= v.iov_len;
			continue;
		}
		v.iov_base = (char *)v.iov_base + off;
		v.iov_len = MIN(v.iov_len - off, len);
		off = 0;
		len -= v.iov_len;
		dst[out++] = v;
	}
	return out;
}

enum direction { READ_VEC, WRITE_VEC, ZERO_VEC };

static size_t move(const struct iovec *iov, unsigned n, size_t off, void *p, size_t len,
		   enum direction dir)
{
	size_t done = 0;

	for (unsigned i = 0; i < n && done < len; i++) {
		struct iovec v;

		if (!iov_slice(&iov[i], 1, off, len - done, &v, 1)) {
			off -= iov[i].iov_len;
			continue;
		}
		off = 0;
		if (dir == READ_VEC)
			memcpy((char *)p + done, v.iov_base, v.iov_len);
		else if (dir == WRITE_VEC)
			memcpy(v.iov_base, (char *)p + done, v.iov_len);
		else
			memset(v.iov_base, 0, v.iov_len);
		done += v.iov_len;
	}
	return done;
}

size_t iov_read(const struct iovec *iov, unsigned n, size_t off, void *dst, size_t len)
{
	return move(iov, n, off, dst, len, READ_VEC);
}

size_t iov_write(const struct iovec *iov, unsigned n, size_t off, const void *src, size_t len)
{
	return move(iov, n, off, (void *)(uintptr_t)src, len, WRITE_VEC);
}

size_t iov_zero(const struct iovec *iov, unsigned n, size_t off, size_t len)
{
	return move(iov, n, off, NULL, len, ZERO_VEC);
}

/* Drop the first @n bytes of the vector. */
static void advance(struct iovec **iov, unsigned *niov, size_t n)
{
	while (*niov && n >= (*iov)->iov_len) {
		n -= (*iov)->iov_len;
		(*iov)++;
		(*niov)--;
	}
	if (n) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + n;
		(*iov)->iov_len -= n;
	}
}

int iov_transfer(int fd, struct iovec *iov, unsigned n, uint64_t off, bool write)
{
	while (n) {
		ssize_t k = write ? pwritev(fd, iov, (int)n, (off_t)off)
				  : preadv(fd, iov, (int)n, (off_t)off);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return -errno;
		if (k == 0) {
			iov_zero(iov, n, 0, iov_size(iov, n));
			return -ENODATA;
		}
		off += (uint64_t)k;
		advance(&iov, &n, (size_t)k);
	}
	return 0;
}
