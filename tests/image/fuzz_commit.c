/* SPDX-License-Identifier: Apache-2.0 */
/* What a guest sends as the archive of an upper directory: a layer comes out that can be read. */
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "image/commit.h"
#include "image/digest.h"
#include "image/scratch_store.h"
#include "tree/tar.h"

struct stream {
	int fd;
	uint8_t b[4096];
};

static int feed(void *arg, const uint8_t **ret, size_t *len, struct err *err)
{
	struct stream *s = arg;
	ssize_t n = io_read_full(s->fd, s->b, sizeof(s->b));

	(void)err;
	if (n < 0)
		abort();
	*ret = s->b;
	*len = (size_t)n;
	return n > 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	cleanup_temp struct store_temp out = STORE_TEMP_INIT;
	cleanup_close int in = memfd_create("upper", MFD_CLOEXEC);
	cleanup_tar struct tar *t = NULL;
	struct image_limits l = {0};
	struct stream s;
	struct tar_entry e;
	struct digest id;
	int r;

	image_limits_default(&l);
	l.layer_bytes = 1 << 20;
	if (io_write_full(in, data, size) < 0 || lseek(in, 0, SEEK_SET) < 0 ||
	    store_temp_new(scratch_store(), &out, NULL) < 0)
		abort();
	if (commit_layer(&out, in, &l, &id, NULL) < 0)
		return 0;
	s.fd = out.fd;
	if (lseek(out.fd, 0, SEEK_SET) < 0 || tar_open(&t, feed, NULL, &s, NULL) < 0)
		abort();
	while ((r = tar_next(t, &e, NULL)) > 0)
		;
	if (r < 0 || !tar_complete(t))
		abort();
	return 0;
}
