/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scatter-gather vectors: sizes, copies and cuts. No function touches bytes outside the vector.
 */
#ifndef BASE_IOV_H
#define BASE_IOV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

size_t iov_size(const struct iovec *iov, unsigned n);

/* Copy up to @len bytes from / to byte @off of the vector; returns how many there were. */
size_t iov_read(const struct iovec *iov, unsigned n, size_t off, void *dst, size_t len);
size_t iov_write(const struct iovec *iov, unsigned n, size_t off, const void *src, size_t len);
size_t iov_zero(const struct iovec *iov, unsigned n, size_t off, size_t len);

/*
 * Describe bytes [off, off + len) of @iov in @dst, which has room for @max pieces (@n always
 * suffice; @dst may be @iov). Returns the number of pieces; fewer bytes if the vector ends early
 * or @max is reached.
 */
unsigned iov_slice(const struct iovec *iov, unsigned n, size_t off, size_t len, struct iovec *dst,
		   unsigned max);

/*
 * Transfer the whole vector from or to byte @off of a file: 0 or -errno. When a file ends too
 * early, what it lacks is zeroed and the result is -ENODATA. The vector is used up.
 */
int iov_transfer(int fd, struct iovec *iov, unsigned n, uint64_t off, bool write);

#endif
