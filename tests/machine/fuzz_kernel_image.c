/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "machine/kernel_image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kernel_image k;

	if (kernel_image_parse(data, size, &k, NULL) == 0) {
		for (unsigned i = 0; i < k.nsegments; i++) {
			const struct kernel_segment *s = &k.segments[i];

			if (s->file_offset > size || s->file_size > size - s->file_offset ||
			    s->file_size > s->memory)
				abort();
		}
	}
	return 0;
}
