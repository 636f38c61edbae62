/* SPDX-License-Identifier: Apache-2.0 */
#include "base/point.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

void point(const char *name)
{
	const char *at = getenv("MSB_DIE_AT");

	if (at && strcmp(at, name) == 0)
		(void)raise(SIGKILL);
}
