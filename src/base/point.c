/* SPDX-License-Identifier: Apache-2.0 */
#include "base/point.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

void point(const char *name)
{
	const char *die = getenv("MSB_DIE_AT"), *halt = getenv("MSB_HALT_AT");

	if (die && strcmp(die, name) == 0)
		(void)raise(SIGKILL);
	if (halt && strcmp(halt, name) == 0)
		(void)raise(SIGSTOP);
}
