/* SPDX-License-Identifier: Apache-2.0 */
/* A JSON file, judged by jansson where both should be of one mind. */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "config/node.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	cleanup_conf_file struct conf_file f = {0};
	struct err err = ERR_INIT;
	json_t *j;
	int r = conf_parse_json("fuzz", "/nowhere", data, size, &f, &err);

	if ((r < 0) != (err.code != 0) || (r < 0 && strncmp(err.msg, "fuzz:", 5) != 0))
		abort();
	/* Numbers beyond a double's range are jansson's concern. */
	if (r == 0 && !memchr(data, 'e', size) && !memchr(data, 'E', size) && size < 200) {
		j = json_loadb((const char *)data, size,
			       JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL,
			       NULL);
		if (!j)
			abort();
		json_decref(j);
	}
	return 0;
}
