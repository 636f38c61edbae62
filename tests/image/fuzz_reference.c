/* SPDX-License-Identifier: Apache-2.0 */
/* A reference that parses must normalise to itself. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "image/reference.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), out[IMAGE_REFERENCE_MAX], again[IMAGE_REFERENCE_MAX];

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	if (reference_normalise(text, out, NULL) == 0 &&
	    (reference_normalise(out, again, NULL) < 0 || strcmp(out, again) != 0))
		abort();
	free(text);
	return 0;
}
