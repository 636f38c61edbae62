/* SPDX-License-Identifier: Apache-2.0 */
/* The limits in config.json: whatever is accepted is within what we can do. */
#include <stdint.h>
#include <stdlib.h>

#include "image/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image_limits l = {0};

	if (image_limits_parse((const char *)data, size, &l, NULL) < 0)
		return 0;
	image_limits_default(&l);
	if (l.path_bytes > IMAGE_PATH_MAX || l.link_bytes > IMAGE_LINK_MAX || l.depth > 1024 ||
	    l.layers > IMAGE_LAYERS_MAX || l.layer_bytes >> 43 || !l.entries)
		abort();
	return 0;
}
