/* SPDX-License-Identifier: Apache-2.0 */
/* msb create: a sandbox that runs, and waits for commands. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/attach.h"
#include "cli/background.h"
#include "cli/pull.h"
#include "cli/spec_opts.h"
#include "sandbox/sandbox.h"
#include "sandbox/sandbox_dir.h"
#include "store/store.h"

static int create(struct cli *cli, int argc, char **argv)
{
	cleanup_spec_args struct spec_args a = {0};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	cleanup_free char *name = NULL;
	struct sandbox *sb = NULL;
	struct err err = ERR_INIT;
	int code, r;

	spec_args_init(&a);
	if (cli_parse_operands(cli, &a, argc, argv, 0, 1, &words, &code))
		return code;
	const struct sandbox_open how = {
		.keep = true,
		.fresh = true,
		.replace = a.replace,
		.timeout_ms = a.replace_ms,
	};
	const bool unnamed = !a.model.spec.name;

	cli->quiet = a.quiet;
	r = spec_args_operands(&a, &words, &err);
	if (r == 0)
		r = spec_args_level(&a, cli, &err);
	if (r == 0)
		r = store_open(&store, NULL, &err);
	if (r == 0)
		r = cli_pull_for_run(store, words.words[0], NULL, &a.model, a.quiet, &err);
	if (r == 0) {
		attach_block_signals();
		sandbox_dir_heal(store, false);
		cli_busy(a.quiet, "preparing %s", words.words[0]);
		r = sandbox_open_how(&sb, store, &a.model.spec, words.words[0], &how, &err);
		cli_busy_end();
	}
	if (r == 0 && !(name = strdup(sandbox_name(sb)))) {
		sandbox_free(sb);
		r = err_set(&err, ENOMEM, "out of memory");
	}
	if (r < 0)
		return cli_fail(&err, EXIT_FAILURE);
	code = background_start(cli, sb, KEEPER_STOPPED);
	if (code)
		return code;
	if (unnamed)
		puts(name);
	return cli_finish();
}

const struct verb verb_create = {
	.name = "create",
	.group = "Sandboxes",
	.args = "[OPTIONS] [IMAGE|PATH]",
	.summary = "Make a sandbox and leave it running",
	.details = "It runs until it is stopped, and stays until it is removed. Without a --name "
		   "it gets one,\n"
		   "which is printed.",
	.examples = "msb create --name box debian  # then: msb exec box -- ls\n"
		    "msb create --name web -p 8080:80 --label team=core nginx\n"
		    "msb create --replace --name box --conf box.yaml",
	.shared = &spec_opts,
	.run = create,
};
