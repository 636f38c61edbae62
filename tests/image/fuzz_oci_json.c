/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests and configurations. */
#include <stdint.h>
#include <stdlib.h>

#include "image/oci.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image_config c = {0};
	struct digest *d = NULL;
	size_t n = 0;

	oci_check_manifest((const char *)data, size, NULL);
	if (oci_parse_config((const char *)data, size, &c, &d, &n, NULL) == 0)
		oci_config_done(&c);
	free(d);
	return 0;
}
