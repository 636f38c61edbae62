/* SPDX-License-Identifier: Apache-2.0 */
/* Docker's config.json and ours: a login that comes out is whole and can be sent in a header. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "registry/config.h"
#include "registry/credentials.h"

static void check_text(const char *s)
{
	for (; s && *s; s++)
		if ((unsigned char)*s < 32 || *s == 127)
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const hosts[] = {"registry.example:5000", "docker.io"};
	struct registries_config config;

	for (size_t i = 0; i < 2; i++) {
		struct credential c = {0};
		char *helper = NULL;

		if (credential_parse((const char *)data, size, hosts[i], &c, &helper, NULL) >= 0) {
			if (c.username && !c.password && !c.identity_token)
				abort();
			check_text(c.username);
			check_text(c.password);
			check_text(c.identity_token);
		}
		credential_done(&c);
		free(helper);
	}
	if (registries_config_parse((const char *)data, size, &config, NULL) >= 0)
		registries_config_done(&config);
	return 0;
}
