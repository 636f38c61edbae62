/* SPDX-License-Identifier: Apache-2.0 */
/* The tar reader, fed in pieces of a size that the first byte chooses. */
#include <stdint.h>
#include <stdlib.h>

#include "tree/tar.h"

struct feed {
	const uint8_t *p;
	size_t n, piece;
};

static int feed_read(void *arg, const uint8_t **ret, size_t *len, struct err *err)
{
	struct feed *f = arg;
	size_t n = f->n < f->piece ? f->n : f->piece;

	(void)err;
	if (!n)
		return 0;
	*ret = f->p;
	*len = n;
	f->p += n;
	f->n -= n;
	return 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	cleanup_tar struct tar *t = NULL;
	struct feed f;
	struct tar_entry e;

	if (size < 1)
		return 0;
	f = (struct feed){data + 1, size - 1, 1 + data[0] * 8u};
	if (tar_open(&t, feed_read, NULL, &f, NULL) < 0)
		return 0;
	while (tar_next(t, &e, NULL) > 0) {
		const uint8_t *p;
		size_t n;
		uint64_t off, end = 0;

		while (e.type == TAR_FILE && tar_data(t, &p, &n, &off, NULL) > 0) {
			if (off < end || off + n > e.size || n == 0)
				abort();
			end = off + n;
		}
	}
	return 0;
}
