/* SPDX-License-Identifier: Apache-2.0 */
/* msb-convert unpack|layer: started by msb for one blob; see convert.h. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "image/convert.h"
#include "image/unpack.h"

/* --- unpack --- */

struct ends {
	struct slots in, out;
};

static size_t next(void *arg, const uint8_t **ret)
{
	return slots_take(&((struct ends *)arg)->in, ret);
}

static uint8_t *room(void *arg)
{
	return slots_room(&((struct ends *)arg)->out);
}

static int pass(void *arg, size_t n)
{
	return slots_pass(&((struct ends *)arg)->out, n) ? 0 : -EPIPE;
}

static int run_unpack(struct ends *e, struct err *err)
{
	const struct unpack_io io = {next, room, pass, e};
	int r = slots_join(&e->in, false, CONVERT_FD_IN, CONVERT_FD_IN + 1, err);

	if (r >= 0)
		r = slots_join(&e->out, true, CONVERT_FD_OUT, CONVERT_FD_OUT + 1, err);
	if (r >= 0)
		r = convert_seal(false, 0, err);
	return r < 0 ? r : unpack(&io, err);
}

/* --- layer --- */

/* A tar_read_fn. */
static int next_slot(void *arg, const uint8_t **ret, size_t *ret_len, struct err *err)
{
	(void)err;
	*ret_len = slots_take(arg, ret);
	return *ret_len > 0;
}

static int run_layer(struct slots *s, struct layer_made *ret, struct err *err)
{
	int files[LAYER_FILES], r;
	struct convert_job job;
	const uint8_t *p;

	r = slots_join(s, false, CONVERT_FD_IN, CONVERT_FD_IN + 1, err);
	if (r < 0)
		return r;
	if (slots_take(s, &p) != sizeof(job))
		return err_set(err, EPIPE, "msb has gone");
	memcpy(&job, p, sizeof(job));
	for (int i = 0; i < LAYER_FILES; i++)
		files[i] = CONVERT_FD_FILES + i;
	/* Blocks round a file of 2 KiB up to 4; what else is written is part of the stream. */
	r = convert_seal(true, 2 * job.limits.layer_bytes + (16u << 20), err);
	return r < 0 ? r : layer_make(files, &job.limits, next_slot, s, ret, err);
}

int main(int argc, char **argv)
{
	struct convert_report report = {.err = ERR_INIT};
	const char *what = argc == 2 ? argv[1] : "";
	struct ends ends = {SLOTS_INIT, SLOTS_INIT};
	struct stat st;
	int r;

	if ((!str_eq(what, CONVERT_UNPACK) && !str_eq(what, CONVERT_LAYER)) ||
	    fstat(CONVERT_FD_REPORT, &st) < 0 || !S_ISFIFO(st.st_mode)) {
		fputs("msb-convert is a part of msb and not a command\n", stderr);
		return 2;
	}
	/* A reader that has gone and a file that is too long are errors like others. */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	r = str_eq(what, CONVERT_UNPACK) ? run_unpack(&ends, &report.err)
					 : run_layer(&ends.in, &report.made, &report.err);
	slots_done(&ends.in);
	slots_done(&ends.out);
	(void)!write(CONVERT_FD_REPORT, &report, sizeof(report));
	return r < 0;
}
