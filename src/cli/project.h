/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Projects, as verbs share them.
 *
 * When does a verb mean a project? Those that are about nothing else (init, add, up, down, apply,
 * clean) always do. The others do when the user says so, by --file or --sandbox; and to those that
 * work with a sandbox as it is (struct verb's `entries`) a NAME that is no sandbox's, in a directory
 * whose Sandboxfile has it, is that one's.
 */
#ifndef CLI_PROJECT_H
#define CLI_PROJECT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"
#include "cli/opt.h"
#include "project/home.h"
#include "project/project.h"

struct cli;
struct store;

/* The option of all of them, for a table: its value is a const char * at @offset. */
#define PROJECT_FILE_OPT(l, offset)                                                                \
	{                                                                                          \
		l, "file", "FILE|DIR", "The project's file [Sandboxfile here]", opt_set_text,      \
			offset, 0                                                                  \
	}

struct project_at {
	struct project p;
	struct project_home home;
	struct store *store;
};
#define PROJECT_AT_INIT                                                                            \
	{                                                                                          \
		.home = PROJECT_HOME_INIT                                                          \
	}
void project_at_done(struct project_at *a);
#define cleanup_project_at __attribute__((cleanup(project_at_done)))

enum project_how {
	PROJECT_READ = 0, /* the file, and what is known of its sandboxes, if anything is */
	PROJECT_MAKE = 1, /* make the project's home */
	PROJECT_LOCK = 2, /* and hold its lock, waiting for it */
};
/* Load the project that --file names, open the store, and put right what is said about both. */
int cli_project_open(const char *file, int how, struct project_at *ret, struct err *err);

/* Mark those that are named, or are in @group, or all. */
int cli_project_select(const struct project_at *a, const char *const *names, size_t n,
		       const char *group, bool *chosen, struct err *err);

/*
 * Make sure of the image of an entry whose sandbox is called @name (NULL: a new one). One that has
 * the name of a build of the project is never fetched from elsewhere.
 */
int cli_project_pull(struct project_at *a, struct project_sandbox *e, const char *name, bool quiet,
		     struct err *err);

struct up_how {
	bool quiet;	   /* do not print names */
	bool only_depends; /* not what was chosen, but what it depends on */
};
/*
 * Start those chosen, after what they depend on, which gets chosen, too. An exit code after a
 * message, or 0.
 */
int cli_project_up(struct cli *cli, struct project_at *a, bool *chosen, const struct up_how *how);
/* Stop those chosen, or (NULL) all that there is of the project, dependent ones first. */
int cli_project_down(struct project_at *a, const bool *chosen, bool force, uint64_t timeout_ms,
		     bool quiet);

/* What NAME of a verb means, see above: a new string. */
int cli_project_name(const struct cli *cli, struct store *s, const char *file, const char *word,
		     char **ret, struct err *err);

/* The lists of a project, for `list` and `status`. An exit code. */
int cli_project_list(const char *file, bool json);
int cli_project_status(const char *file, const char *const *names, size_t n, bool json);

#endif
