/* SPDX-License-Identifier: Apache-2.0 */
/* The first bytes of a connection: what was found does not change with more of them. */
#undef NDEBUG
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "net/authority.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct dns_name all, some;
	enum authority found = authority_find(p, n, &all), before;
	uint8_t *copy;

	if (n < 2)
		return 0;
	/* Where reading on would be noticed. */
	copy = malloc(n / 2);
	assert(copy);
	memcpy(copy, p, n / 2);
	before = authority_find(copy, n / 2, &some);
	free(copy);
	if (before == AUTHORITY_FOUND)
		assert(found == AUTHORITY_FOUND && dns_name_equal(&all, &some));
	if (found == AUTHORITY_FOUND)
		assert(all.n > 1 && all.b[all.n - 1] == 0);
	return 0;
}
