/* SPDX-License-Identifier: Apache-2.0 */
/* msb copy: files between the host and sandboxes. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/project.h"
#include "sandbox/copy.h"
#include "sandbox/reach.h"
#include "sandbox/spec.h"
#include "store/store.h"

struct cp_args {
	bool all, follow, quiet;
};

static const struct opt cp_opts[] = {
	{'a', "archive", NULL,
	 "Keep all of it: extended attributes, and set-id bits and devices out of a sandbox",
	 opt_set_flag, offsetof(struct cp_args, all), 0},
	{'L', "follow-link", NULL, "If SRC is a link, copy what it points to", opt_set_flag,
	 offsetof(struct cp_args, follow), 0},
	{'q', "quiet", NULL, "Do not say what was not kept", opt_set_flag,
	 offsetof(struct cp_args, quiet), 0},
};

/* "-", "NAME:/PATH", or a path of the host. *name is on the heap. */
static int parse_side(const char *word, struct copy_side *side, char **name, struct err *err)
{
	const char *colon = strchr(word, ':');
	struct err why = ERR_INIT;

	*side = (struct copy_side){.agent = -1, .path = str_eq(word, "-") ? NULL : word};
	*name = NULL;
	if (!*word)
		return err_set(err, ERR_USAGE, "an empty path");
	if (!colon || *word == '.' || (size_t)(colon - word) > strcspn(word, "/"))
		return 0;
	*name = strndup(word, (size_t)(colon - word));
	if (!*name)
		return err_set(err, ENOMEM, "out of memory");
	side->sandbox = *name;
	side->path = colon + 1;
	if (sandbox_name_check(*name, &why) < 0) {
		err_copy(err, &why);
		return err_hint(err, "a file of that name here is ./%s", word);
	}
	if (colon[1] != '/') {
		err_set(err, ERR_USAGE, "\"%s\" is no absolute path in sandbox \"%s\"", colon + 1,
			*name);
		return err_hint(err, "write %s:/%s, or ./%s for a file here", *name, colon + 1,
				word);
	}
	return 0;
}

static int connect_side(struct cli *cli, struct store *store, struct copy_side *side, char **name,
			struct err *err)
{
	char *real;
	int r;

	if (!side->sandbox)
		return 0;
	r = cli_project_name(cli, store, NULL, *name, &real, err);
	if (r < 0)
		return r;
	free(*name);
	side->sandbox = *name = real;
	side->agent = sandbox_reach(store, side->sandbox, err);
	if (side->agent == -ENOTCONN)
		err_hint(err, "start it first: msb start %s", side->sandbox);
	else if (side->agent == -ERR_NOT_FOUND)
		err_hint(err, "`msb ls` lists sandboxes; a path here with a colon begins with ./");
	return side->agent < 0 ? side->agent : 0;
}

/* Signals are waited for where there is something to take back. */
static int stop_fd(const struct copy *c, struct err *err)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
	sigset_t set;
	int fd;

	if (c->to.sandbox || !c->to.path)
		return -1;
	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaddset(&set, signals[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? err_errno(err, "cannot receive signals") : fd;
}

static int copy(struct cli *cli, int argc, char **argv)
{
	struct cp_args a = {0};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	cleanup_free char *from = NULL, *to = NULL;
	cleanup_close int stop = -1;
	struct copy c = {.stop = -1};
	struct signalfd_siginfo si;
	struct err err = ERR_INIT;
	char notes[1700];
	int code, r;

	if (cli_parse_operands(cli, &a, argc, argv, 2, 2, &words, &code))
		return code;
	r = parse_side(words.words[0], &c.from, &from, &err);
	if (r == 0)
		r = parse_side(words.words[1], &c.to, &to, &err);
	if (r == 0 && !from && !to) {
		r = err_set(&err, ERR_USAGE, "neither %s nor %s is in a sandbox", words.words[0],
			    words.words[1]);
		err_hint(&err, "a path in a sandbox is NAME:/PATH");
	}
	if (r < 0)
		return cli_fail(&err, EXIT_USAGE);
	c.follow = a.follow;
	c.all = a.all;
	r = store_open(&store, NULL, &err);
	if (r == 0)
		r = connect_side(cli, store, &c.from, &from, &err);
	if (r == 0 && (r = connect_side(cli, store, &c.to, &to, &err)) < 0)
		close_fd(c.from.agent);
	if (r < 0)
		return cli_fail(&err, EXIT_FAILURE);
	stop = c.stop = stop_fd(&c, &err);
	if (stop < -1)
		return cli_fail(&err, EXIT_FAILURE);
	cli_busy(a.quiet, "copying %s", words.words[0]);
	r = copy_run(&c, notes, sizeof(notes), &err);
	cli_busy_end();
	if (notes[0] && !a.quiet)
		cli_warn("%s", notes);
	if (r < 0) {
		code = stop >= 0 && read(stop, &si, sizeof(si)) == sizeof(si)
			       ? EXIT_SIGNAL + (int)si.ssi_signo
			       : EXIT_FAILURE;
		return cli_fail(&err, code);
	}
	return cli_finish();
}

const struct verb verb_copy = {
	.name = "copy",
	.alias = "cp",
	.group = "Sandboxes",
	.args = "[OPTIONS] SRC DST",
	.entries = true,
	.summary = "Copy files into, out of and between sandboxes",
	.details = "SRC and DST are NAME:/PATH in a sandbox that runs, a path here, or - for a tar "
		   "archive\n"
		   "on standard input or output. Directories are copied whole: into DST if that is "
		   "a\n"
		   "directory, otherwise as DST; of SRC/. only what is in it. Modes, times, links, "
		   "holes\n"
		   "and, as root, owners are kept. What comes out of a sandbox has no set-id bits "
		   "and no\n"
		   "devices unless -a asks for them.",
	.examples = "msb cp ./data box:/srv  # as /srv/data, if /srv is there\n"
		    "msb cp box:/var/log/app.log .\n"
		    "msb cp box:/etc other:/backup\n"
		    "tar -c src | msb cp - box:/build",
	.opts = cp_opts,
	.nopts = ARRAY_SIZE(cp_opts),
	.run = copy,
};
