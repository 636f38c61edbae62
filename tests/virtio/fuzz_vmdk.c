/* SPDX-License-Identifier: Apache-2.0 */
/* A VMDK descriptor of any bytes. */
#include <stdlib.h>
#include <string.h>

#include "virtio/vmdk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vmdk v;
	uint64_t sectors = 0;

	if (vmdk_parse(data, size, &v, NULL) < 0)
		return 0;
	for (size_t i = 0; i < v.n; i++) {
		sectors += v.extents[i].sectors;
		if (strchr(v.extents[i].file, '/') || strlen(v.extents[i].file) > VMDK_NAME_MAX)
			abort();
	}
	if (sectors != v.sectors || sectors > INT64_MAX / BLK_SECTOR)
		abort();
	free(v.extents);
	return 0;
}
