/* SPDX-License-Identifier: Apache-2.0 */
/* A Sandboxfile: read, filled into models, put into order. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "project/project.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct project *p)
{
	for (size_t i = 0; i < p->n; i++) {
		const struct project_sandbox *s = &p->v[i];

		if (!s->model.image)
			abort();
		for (size_t j = 0; j < s->depends.n; j++) {
			const struct project_sandbox *d =
				project_get(p, s->depends.v[j].name, false);

			if (!d || d->level >= s->level)
				abort();
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	cleanup_conf_file struct conf_file f = {0};
	cleanup_project struct project p = {0};
	struct err err = ERR_INIT;
	int r = conf_parse_yaml("fuzz", "/nowhere", data, size, &f, &err);

	/* Files of patches and of variables are the host's. */
	if (r < 0 || memmem(data, size, "patch_files", 11) || memmem(data, size, "env_file", 8))
		return 0;
	r = project_load_file(&f, NULL, &p, &err);
	if (r < 0 && (!err.msg[0] || strncmp(err.msg, "fuzz:", 5) != 0))
		abort();
	if (r == 0)
		check(&p);
	return 0;
}
