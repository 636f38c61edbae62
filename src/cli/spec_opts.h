/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options that say what a sandbox is: of `run`, `create`, and whatever else makes one.
 *
 * A verb names spec_opts as its shared table and parses into a struct that begins with a struct
 * spec_args.
 */
#ifndef CLI_SPEC_OPTS_H
#define CLI_SPEC_OPTS_H

#include <stdbool.h>

#include "cli/cli.h"
#include "cli/pull.h"
#include "sandbox/spec.h"

struct spec_args {
	struct sandbox_spec spec;
	enum pull_policy pull;
	bool quiet;
	bool created; /* an option was given that only counts for a new sandbox */
};

/* Fill in the defaults. */
void spec_args_init(struct spec_args *a);
void spec_args_done(struct spec_args *a);
#define cleanup_spec_args __attribute__((cleanup(spec_args_done)))

extern const struct opt_set spec_opts;

#endif
