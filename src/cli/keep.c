/* SPDX-License-Identifier: Apache-2.0 */
/* msb keep: the owner of a sandbox in the background; started by msb, not by hand (keeper.h). */
#include "base/cleanup.h"
#include "cli/cli.h"
#include "sandbox/keeper.h"
#include "store/store.h"

struct keep_args {
	bool fresh, main, left, session;
};

static const struct opt keep_opts[] = {
	{0, "fresh", NULL, "It is new: remove it if it does not come up", opt_set_flag,
	 offsetof(struct keep_args, fresh), 0},
	{0, "main", NULL, "Run the command it has", opt_set_flag, offsetof(struct keep_args, main),
	 0},
	{0, "left", NULL, "End it when the caller and everybody else has left", opt_set_flag,
	 offsetof(struct keep_args, left), 0},
	{0, "session", NULL, "The same, or with the session that the caller begins", opt_set_flag,
	 offsetof(struct keep_args, session), 0},
};

static int keep(struct cli *cli, int argc, char **argv)
{
	struct keep_args a = {0};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	struct err err = ERR_INIT;
	enum keeper_until until;
	int code;

	if (cli_parse_operands(cli, &a, argc, argv, 1, 1, &words, &code))
		return code;
	/* Without a store the caller learns that nobody keeps it, and takes it back. */
	if (store_open(&store, NULL, &err) < 0)
		return cli_fail(&err, EXIT_FAILURE);
	until = a.main	    ? KEEPER_MAIN
		: a.left    ? KEEPER_LEFT
		: a.session ? KEEPER_SESSION
			    : KEEPER_STOPPED;
	return keeper_run(store, words.words[0], a.fresh, until) < 0 ? EXIT_FAILURE : 0;
}

const struct verb verb_keep = {
	.name = KEEPER_VERB,
	.hidden = true,
	.group = "Sandboxes",
	.args = "[OPTIONS] NAME",
	.summary = "Be the owner of a sandbox (msb does this by itself)",
	.opts = keep_opts,
	.nopts = ARRAY_SIZE(keep_opts),
	.run = keep,
};
