/* SPDX-License-Identifier: Apache-2.0 */
/* WWW-Authenticate: whatever it says, texts end where they should, and what is taken is of use. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "registry/challenge.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	struct challenge c = {0};
	int r;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	r = challenge_offer(text, &c, NULL);
	if ((r > 0) != (c.scheme != CHALLENGE_NONE) || (r < 0 && c.scheme != CHALLENGE_NONE) ||
	    c.scheme == CHALLENGE_OTHER || (c.scheme == CHALLENGE_BEARER && !c.realm[0]) ||
	    !memchr(c.realm, 0, sizeof(c.realm)) || !memchr(c.service, 0, sizeof(c.service)) ||
	    !memchr(c.scope, 0, sizeof(c.scope)) || !memchr(c.error, 0, sizeof(c.error)))
		abort();
	/* A second header never makes it worse. */
	if (r > 0 && challenge_offer("Basic", &c, NULL) != 0)
		abort();
	free(text);
	return 0;
}
