/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line program: what its verbs share.
 *
 * A verb is one file with an option table and a function, and one row in the table of main.c. The
 * function gets the words after the verb, parses them with cli_parse(), and returns the exit code.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "base/log.h"
#include "cli/opt.h"

struct store;

enum cli_exit {
	EXIT_USAGE = 2,
	/* What `run` ends with when the sandbox, not the command, is the reason. */
	EXIT_TIMEOUT = 124,
	EXIT_OURS = 125,
	EXIT_CANNOT_EXECUTE = 126,
	EXIT_NO_COMMAND = 127,
	EXIT_SIGNAL = 128, /* plus its number */
};

/* What there is to know of them, for help and manual; a NULL name ends each. */
struct cli_fact {
	const char *name, *what;
};
extern const struct cli_fact cli_exit_codes[], cli_variables[];

struct cli;

struct verb {
	const char *name;
	const char *alias; /* NULL: none */
	bool hidden;	   /* another name for something else: in no list */
	const char *group; /* heading in the list of verbs */
	const char *args;  /* for the usage line */
	bool entries;	   /* a NAME may be an entry's of the project here, see project.h */
	const char *summary;
	const char *details;  /* more for --help; NULL: nothing */
	const char *examples; /* commands, one a line; "  #" begins what to know about one */
	const struct opt *opts;
	size_t nopts;
	const struct opt_set *shared; /* more, for the same target; NULL: none */
	const struct verb *subs;      /* verbs below this one; run, if any, is for other words */
	size_t nsubs;
	int (*run)(struct cli *cli, int argc, char **argv);
	size_t operands; /* more of them start the rest; SIZE_MAX: only `--` does */
	int usage_code;	 /* exit code for wrong words */
};

struct cli {
	enum log_level level; /* LOG_OFF: nothing was asked for */
	bool help, tree, version;
	bool quiet;		 /* the verb's -q, for what shows progress on its behalf */
	const struct verb *verb; /* the one that runs */
	const char *parent;	 /* "image" for `image ls`; NULL for others */
};

/*
 * Parse the words after the verb into @target. 0: go on. Otherwise the verb is done (help was
 * shown, or the words were wrong, which has been said), with the exit code in *code.
 */
int cli_parse(struct cli *cli, void *target, int argc, char **argv, struct opt_words *words,
	      int *code);
/* The same for a verb that takes between @min and @max operands and no rest. */
int cli_parse_operands(struct cli *cli, void *target, int argc, char **argv, size_t min, size_t max,
		       struct opt_words *words, int *code);

/* "error: …" and "  → hint" on stderr. */
void cli_error(const struct err *err);
void cli_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* @s without what would move the cursor or worse. */
void cli_put_clean(FILE *f, const char *s);
/* The same in one line. */
void cli_put_line(FILE *f, const char *s);
/* cli_error() and an exit code to return. */
int cli_fail(const struct err *err, int code);

/*
 * Say on a terminal what is being waited for, once that has taken half a second, until the end or
 * the next error or warning. Main thread only.
 */
void cli_busy(bool quiet, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void cli_busy_end(void);

/* A terminal that knows sequences? */
bool cli_screen(FILE *f);
/* ANSI sequences, or "" without one, or when NO_COLOR is set. */
const char *cli_bold(FILE *f);
const char *cli_dim(FILE *f);
const char *cli_red(FILE *f);
const char *cli_yellow(FILE *f);
const char *cli_reset(FILE *f);

/* Flush stdout: 0, or EXIT_FAILURE after saying why not. The last thing a verb does. */
int cli_finish(void);

/*
 * A table on stdout: rows of @columns cells, the first row being the headings; @cells belongs to
 * the caller. On a terminal that is too narrow the longest cells are cut.
 */
void cli_table(const char *const *cells, size_t columns, size_t rows);

/* "3 minutes ago" and the like into @b. */
const char *cli_age(int64_t unix_seconds, char b[32]);
/* "2026-11-21T06:30:00Z" into @b. */
const char *cli_time(int64_t unix_seconds, char b[32]);

/* "5m" is five minutes ago; a date, or one and a time; or Unix seconds. In nanoseconds. */
int cli_past_time(const char *text, int64_t *ret, struct err *err);

/* Print a JSON document and drop it. */
struct json_t;
int cli_json(struct json_t *j);

/* The verbs. */
extern const struct verb verb_run, verb_ls, verb_stop, verb_rm, verb_inspect, verb_image, verb_pull,
	verb_load, verb_save, verb_registry, verb_doctor, verb_images, verb_rmi, verb_exec,
	verb_shell, verb_logs, verb_copy, verb_ssh, verb_attach;
extern const struct verb verb_pause, verb_resume, verb_ping, verb_touch, verb_drain, verb_metrics;
extern const struct verb verb_create, verb_start, verb_kill, verb_restart, verb_wait, verb_ps,
	verb_keep;
extern const struct verb verb_modify;
extern const struct verb verb_config, verb_schema, verb_completion, verb_complete, verb_man;
extern const struct verb verb_events, verb_self, verb_version;

extern const struct verb verb_up, verb_down, verb_apply, verb_build, verb_msr, verb_init, verb_add,
	verb_clean, verb_exe, verb_install, verb_uninstall;

/* All of them in the order of the help, and the options that each has. */
extern const struct verb *const cli_verbs[];
extern const size_t cli_nverbs;
extern const struct opt_set cli_globals;

#endif
