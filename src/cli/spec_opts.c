/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/spec_opts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "sandbox/sandbox.h"

/* More fields than this cannot be: spec_opts_init() would end the program in any test of it. */
enum { ROWS_MAX = 128 };

static int note(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct spec_args *a = target;
	struct spec_word *v = reallocarray(a->words, a->nwords + 1, sizeof(*v));

	if (!v)
		return err_set(err, ENOMEM, "out of memory");
	a->words = v;
	v[a->nwords++] = (struct spec_word){&fields[o->number], value};
	return 0;
}

static int finish(void *target, struct err *err)
{
	struct spec_args *a = target;
	int r = 0;

	for (size_t i = 0; i < a->nwords && r == 0; i++)
		r = field_set(a->words[i].field, &a->model, a->words[i].value, "command line", err);
	return r;
}

/* "0", "500ms", "5s", "2m": how long the old one gets. */
static int set_replace(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct spec_args *a = target;
	uint64_t ns;
	int r = str_to_duration(value, "timeout", &ns, err);

	(void)o;
	if (r < 0)
		return r;
	a->replace = true;
	a->replace_ms = (int)MIN(ns / 1000000, (uint64_t)INT32_MAX);
	return 0;
}

static const struct opt own[] = {
	{0, "replace", NULL, "Stop and remove a sandbox of that name first", opt_set_flag,
	 offsetof(struct spec_args, replace)},
	{0, "replace-with-timeout", "DURATION",
	 "The same, with this long for it to stop before force is used [10s]", set_replace},
	{'q', "quiet", NULL, "Show no warnings", opt_set_flag, offsetof(struct spec_args, quiet)},
};

static struct opt rows[ROWS_MAX + ARRAY_SIZE(own)];
struct opt_set spec_opts = {rows, 0, finish};

void spec_opts_init(void)
{
	size_t n = 0;

	if (nfields > ROWS_MAX)
		abort();
	for (size_t i = 0; i < nfields; i++) {
		const struct field *f = &fields[i];

		if (f->opt)
			rows[n++] = (struct opt){f->letter, f->opt, f->arg, f->help,
						 note,	    0,	    (int)i, f->def};
	}
	for (size_t i = 0; i < ARRAY_SIZE(own); i++)
		rows[n++] = own[i];
	spec_opts.n = n;
}

void spec_args_init(struct spec_args *a)
{
	*a = (struct spec_args){.replace_ms = SANDBOX_STOP_TIMEOUT_MS};
	model_init(&a->model);
}

void spec_args_done(struct spec_args *a)
{
	model_done(&a->model);
	free(a->words);
	a->words = NULL;
	a->nwords = 0;
}

int spec_args_level(struct spec_args *a, const struct cli *cli, struct err *err)
{
	struct sandbox_spec *spec = &a->model.spec;

	if (spec->log_level || cli->level == LOG_OFF)
		return 0;
	spec->log_level = strdup(log_level_name(cli->level));
	return spec->log_level ? 0 : err_set(err, ENOMEM, "out of memory");
}
