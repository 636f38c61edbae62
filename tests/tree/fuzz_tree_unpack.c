/* SPDX-License-Identifier: Apache-2.0 */
/* An archive unpacked into a directory beside one that it must not touch. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "tree/tree.h"

struct feed {
	const uint8_t *p;
	size_t n;
};

static int feed_read(void *arg, const uint8_t **ret, size_t *len, struct err *err)
{
	struct feed *f = arg;
	size_t n = f->n < 700 ? f->n : 700;

	(void)err;
	*ret = f->p;
	*len = n;
	f->p += n;
	f->n -= n;
	return n > 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char top[64], in[80], out[80];
	struct feed f = {data + 1, size - 1};
	struct tree_unpack o = {.path = in};
	struct tree_notes notes = {0};
	struct stat st;

	if (!size)
		return 0;
	if (!top[0]) {
		snprintf(top, sizeof(top), "/dev/shm/fuzz-unpack-%d", (int)getpid());
		snprintf(in, sizeof(in), "%s/in", top);
		snprintf(out, sizeof(out), "%s/out", top);
	}
	if (mkdir(top, 0700) < 0 || mkdir(in, 0700) < 0 || mkdir(out, 0700) < 0)
		abort();
	o.name = data[0] & 1 ? "name" : data[0] & 2 ? "" : NULL;
	(void)tree_unpack(&o, feed_read, &f, &notes, NULL);
	/* Empty still, and as it was. */
	if (lstat(out, &st) < 0 || (st.st_mode & 07777) != 0700 || st.st_nlink != 2 ||
	    rmdir(out) < 0)
		abort();
	if (io_remove_tree(top, NULL) < 0)
		abort();
	return 0;
}
