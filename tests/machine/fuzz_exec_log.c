/* SPDX-License-Identifier: Apache-2.0 */
/* A hostile guest and a hostile client, as the log sees them: every line stays one of JSON. */
#include <assert.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"
#include "machine/exec_log.h"

static void check(const char *path)
{
	cleanup_buf struct buf b = BUF_INIT;
	char *line, *rest = NULL;

	assert(io_read_file(path, 64 << 20, &b, NULL) == 0);
	assert(!buf_size(&b) || !memchr(buf_ptr(&b), '\0', buf_size(&b)));
	for (line = strtok_r(buf_cstr(&b), "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		json_t *j = json_loads(line, JSON_ALLOW_NUL, NULL);

		assert(json_is_string(json_object_get(j, "d")));
		json_decref(j);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	char dir[] = "/tmp/msb-fuzz-log-XXXXXX";
	cleanup_free char *logs = NULL, *file = NULL, *second = NULL;
	/* A budget that some of it exceeds. */
	const struct exec_log_limits limits = {
		.name = "exec.log", .files = 2, .file = 4096, .burst = 1000, .rate = 10000000};
	struct frame_scan scan[2] = {0};
	struct frame_piece piece;
	struct exec_log *log;
	struct exec_tap *tap;

	assert(mkdtemp(dir));
	logs = str_fmt("%s/logs", dir);
	file = str_fmt("%s/logs/exec.log", dir);
	second = str_fmt("%s/logs/exec.log.1", dir);
	assert(mkdir(logs, 0700) == 0);
	assert(exec_log_new(&log, dir, &limits, NULL) == 0);
	tap = exec_tap_new(log);
	/* A byte says how much of what follows goes which way. */
	while (n) {
		size_t step = MIN((size_t)(*p >> 1) + 1, n - 1), rest = step;
		const uint8_t *at = p + 1;
		bool asked = *p & 1;

		while (frame_scan(&scan[asked], &at, &rest, &piece) > 0)
			(asked ? exec_tap_asked : exec_tap_answered)(tap, &piece);
		p += 1 + step;
		n -= 1 + step;
	}
	exec_tap_free(tap);
	exec_log_free(log);
	check(file);
	check(second);
	io_remove_tree(dir, NULL);
	return 0;
}
