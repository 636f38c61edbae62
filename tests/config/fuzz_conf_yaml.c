/* SPDX-License-Identifier: Apache-2.0 */
/* A YAML file: read, and put into a model. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "config/load.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	cleanup_conf_file struct conf_file f = {0};
	struct err err = ERR_INIT;
	int r = conf_parse_yaml("fuzz", "/nowhere", data, size, &f, &err);

	if ((r < 0) != (err.code != 0) || (r < 0 && !err.msg[0]))
		abort();
	/* Files of patches are the host's. */
	if (r < 0 || memmem(data, size, "patch_files", 11))
		return 0;
	for (size_t i = 0; i < nconf_scopes; i++) {
		cleanup_model struct model m = {0};

		model_init(&m);
		err_clear(&err);
		r = conf_load_file(&conf_scopes[i], &f, &m, &err);
		if (r < 0 && (!err.msg[0] || strncmp(err.msg, "fuzz:", 5) != 0))
			abort();
	}
	return 0;
}
