/* SPDX-License-Identifier: Apache-2.0 */
/* A store for a fuzz target: in memory if there is such a place, gone when the program ends. */
#ifndef TESTS_IMAGE_SCRATCH_STORE_H
#define TESTS_IMAGE_SCRATCH_STORE_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/io.h"
#include "store/store.h"

static char scratch_home[64];
static struct store *scratch;

static void scratch_remove(void)
{
	scratch = store_close(scratch);
	io_remove_tree(scratch_home, NULL);
}

static struct store *scratch_store(void)
{
	if (scratch)
		return scratch;
	snprintf(scratch_home, sizeof(scratch_home), "%s/msb-fuzz-XXXXXX",
		 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	if (!mkdtemp(scratch_home) || store_open(&scratch, scratch_home, NULL) < 0)
		abort();
	atexit(scratch_remove);
	return scratch;
}

#endif
