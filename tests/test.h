/* SPDX-License-Identifier: Apache-2.0 */
/* What every unit test includes first: cmocka with the headers it forgets, and a scratch folder. */
#ifndef TESTS_TEST_H
#define TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/io.h"

/* cmocka's setup and teardown: *state is the path of a fresh directory. */
static inline int scratch_setup(void **state)
{
	const char *top = getenv("TMPDIR");
	char *path = NULL;

	if (asprintf(&path, "%s/msb-test-XXXXXX", top ? top : "/tmp") < 0 || !mkdtemp(path))
		return -1;
	*state = path;
	return 0;
}

static inline int scratch_teardown(void **state)
{
	int r = io_remove_tree(*state, NULL);

	free(*state);
	return r;
}

/* "@dir/@name" in one of a few static buffers: for arguments of a call, not for keeping. */
static inline const char *scratch_path(void *const *state, const char *name)
{
	static char paths[8][512];
	static unsigned next;
	char *p = paths[next++ % 8];

	snprintf(p, sizeof(paths[0]), "%s/%s", (const char *)*state, name);
	return p;
}

#endif
