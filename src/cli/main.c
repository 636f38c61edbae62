/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/spec_opts.h"
#include "cli/term.h"

#ifndef MSB_VERSION
#define MSB_VERSION "unknown"
#endif

/* Every verb there is, in the order of the help. */
/* A line each, which merges well. */
/* clang-format off */
const struct verb *const cli_verbs[] = {
	&verb_run,
	&verb_create,
	&verb_start,
	&verb_stop,
	&verb_kill,
	&verb_restart,
	&verb_rm,
	&verb_wait,
	&verb_ls,
	&verb_ps,
	&verb_inspect,
	&verb_exec,
	&verb_shell,
	&verb_attach,
	&verb_copy,
	&verb_ssh,
	&verb_logs,
	&verb_pause,
	&verb_resume,
	&verb_drain,
	&verb_ping,
	&verb_touch,
	&verb_metrics,
	&verb_events,
	&verb_modify,
	&verb_init,
	&verb_add,
	&verb_up,
	&verb_down,
	&verb_apply,
	&verb_build,
	&verb_clean,
	&verb_exe,
	&verb_install,
	&verb_uninstall,
	&verb_msr,
	&verb_image,
	&verb_pull,
	&verb_load,
	&verb_save,
	&verb_registry,
	&verb_config,
	&verb_schema,
	&verb_completion,
	&verb_doctor,
	&verb_self,
	&verb_version,
	&verb_images,
	&verb_rmi,
	&verb_keep,
	&verb_complete,
	&verb_man,
};
const size_t cli_nverbs = ARRAY_SIZE(cli_verbs);
/* clang-format on */

static int set_level(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct cli *cli = target;

	(void)value;
	if (cli->level != LOG_OFF && cli->level != (enum log_level)o->number) {
		err_set(err, ERR_USAGE, "--%s and --%s exclude each other",
			log_level_name(cli->level), o->name);
		return err_hint(err, "choose one log level");
	}
	cli->level = (enum log_level)o->number;
	return 0;
}

static const struct opt globals[] = {
	{0, "error", NULL, "Log errors", set_level, 0, LOG_ERROR},
	{0, "warn", NULL, "Log warnings as well", set_level, 0, LOG_WARN},
	{0, "info", NULL, "Log what is being done", set_level, 0, LOG_INFO},
	{0, "debug", NULL, "Log details, and keep a full kernel log", set_level, 0, LOG_DEBUG},
	{0, "trace", NULL, "Log everything", set_level, 0, LOG_TRACE},
	{0, "tree", NULL, "Show the tree of commands and options", opt_set_flag,
	 offsetof(struct cli, tree), 0},
	{'h', "help", NULL, "Show this help", opt_set_flag, offsetof(struct cli, help), 0},
};
const struct opt_set cli_globals = {globals, ARRAY_SIZE(globals), NULL};
static const struct opt version_opt[] = {
	{'V', "version", NULL, "Show the version", opt_set_flag, offsetof(struct cli, version), 0},
};

static void print(const struct buf *b)
{
	fwrite(buf_ptr(b), 1, buf_size(b), stdout);
}

static void print_options(const char *title, const struct opt *opts, size_t n)
{
	for (struct opt_group g = {0}; opt_next_group(opts, n, &g);) {
		cleanup_buf struct buf b = BUF_INIT;

		for (size_t i = 0; i < n; i++) {
			if (opt_in_group(&opts[i], &g))
				opt_help(&opts[i], 1, &b);
		}
		printf("\n%s%s:%s\n", cli_bold(stdout), g.name ? g.name : title, cli_reset(stdout));
		print(&b);
	}
}

static void print_verbs(const struct verb *const *list, size_t n)
{
	const char *group = NULL;
	char names[32];

	for (size_t i = 0; i < n; i++) {
		if (list[i]->hidden)
			continue;
		if (!group || !str_eq(group, list[i]->group)) {
			group = list[i]->group;
			printf("\n%s%s:%s\n", cli_bold(stdout), group, cli_reset(stdout));
		}
		snprintf(names, sizeof(names), "%s%s%s", list[i]->name, list[i]->alias ? ", " : "",
			 list[i]->alias ? list[i]->alias : "");
		printf("  %-14s%s\n", names, list[i]->summary);
	}
}

/* Commands in a column, what there is to know about them in another. */
static void print_examples(const char *title, const char *text)
{
	printf("\n%s%s:%s\n", cli_bold(stdout), title, cli_reset(stdout));
	for (const char *p = text, *end; *p; p = end + (*end == '\n')) {
		const char *note = strstr(p, "  #");

		end = p + strcspn(p, "\n");
		if (!note || note > end)
			printf("  %.*s\n", (int)(end - p), p);
		else
			printf("  %-48.*s %s%.*s%s\n", (int)(note - p), p, cli_dim(stdout),
			       (int)(end - note - 2), note + 2, cli_reset(stdout));
	}
}

static void help_verb(const struct cli *cli, const struct verb *v)
{
	printf("%s\n\n%sUsage:%s msb %s%s%s %s\n", v->summary, cli_bold(stdout), cli_reset(stdout),
	       cli->parent ? cli->parent : "", cli->parent ? " " : "", v->name, v->args);
	if (v->alias)
		printf("%sAlias:%s %s\n", cli_bold(stdout), cli_reset(stdout), v->alias);
	if (v->details)
		printf("\n%s\n", v->details);
	if (v->nsubs) {
		printf("\n%sCommands:%s\n", cli_bold(stdout), cli_reset(stdout));
		for (size_t i = 0; i < v->nsubs; i++)
			printf("  %-14s%s\n", v->subs[i].name, v->subs[i].summary);
	}
	if (v->examples)
		print_examples("Examples", v->examples);
	print_options("Options", v->opts, v->nopts);
	if (v->shared)
		print_options(v->nopts ? "More options" : "Options", v->shared->opts, v->shared->n);
	print_options("Global options", globals, ARRAY_SIZE(globals));
}

const struct cli_fact cli_exit_codes[] = {
	{"0", "It is done."},
	{"1", "It failed, or did for one of several names."},
	{"2", "The words were wrong."},
	{"124", "`run`, `exec`: the command took longer than --timeout."},
	{"125", "`run`, `exec`: the sandbox failed, or msb did, and not the command."},
	{"126, 127", "`run`, `exec`: the command cannot be executed, or is not there."},
	{"128+N", "`run`, `exec`: signal N ended the command."},
	{NULL, NULL},
};

const struct cli_fact cli_variables[] = {
	{"MSB_HOME", "Where images and sandboxes are kept [$XDG_DATA_HOME/microsandbox, or "
		     "~/.local/share/microsandbox]."},
	{"MSB_CONFIG_PATH", "The configuration for all sandboxes [$MSB_HOME/config.json]."},
	{"MSB_LIBDIR", "Where msb-vm, the guest's kernel and its agent are."},
	{"MSB_QEMU", "The QEMU of the qemu engine."},
	{"NO_COLOR", "If it is set, no colours."},
	{NULL, NULL},
};

static const char first_steps[] =
	"msb run alpine -- uname -a  # a command in a machine of its own\n"
	"msb create --name box -p 8080:80 debian  # one that stays, with a port of ours\n"
	"msb cp ./app box:/srv  # files into it\n"
	"msb exec box -- ls -l /srv  # commands in it; msb shell box: a shell\n"
	"msb run -d -n web -p 8081:80 nginx  # a command in the background\n"
	"msb logs -f web  # what it prints\n"
	"msb ps  # what runs\n"
	"msb stop box && msb rm box";

static void help_all(void)
{
	printf("Run anything in a virtual machine of its own, made from an OCI image\n\n"
	       "%sUsage:%s msb [OPTIONS] COMMAND\n",
	       cli_bold(stdout), cli_reset(stdout));
	print_examples("First steps", first_steps);
	print_verbs(cli_verbs, ARRAY_SIZE(cli_verbs));
	print_options("Options", globals, ARRAY_SIZE(globals));
	print_options("Version", version_opt, ARRAY_SIZE(version_opt));
	printf("\n%sExit codes:%s\n", cli_bold(stdout), cli_reset(stdout));
	for (const struct cli_fact *f = cli_exit_codes; f->name; f++)
		printf("  %-14s%s\n", f->name, f->what);
	printf("\n`msb COMMAND --help` says more about a command, `man msb` about all.\n");
}

static void tree_opts(const struct opt *o, size_t n, unsigned depth)
{
	for (; n--; o++)
		printf("%*s--%s%s%s\n", (int)depth * 4, "", o->name, o->arg ? " " : "",
		       o->arg ? o->arg : "");
}

static void tree_verb(const struct verb *v, unsigned depth)
{
	printf("%*s%s%s%s %s\n", (int)depth * 4, "", v->name, v->alias ? "|" : "",
	       v->alias ? v->alias : "", v->args);
	tree_opts(v->opts, v->nopts, depth + 1);
	if (v->shared)
		tree_opts(v->shared->opts, v->shared->n, depth + 1);
	for (size_t i = 0; i < v->nsubs; i++)
		tree_verb(&v->subs[i], depth + 1);
}

static int usage(const struct cli *cli, struct err *err)
{
	const struct verb *v = cli->verb;

	if (v && v->args)
		err_hint(err, "usage: msb %s%s%s %s", cli->parent ? cli->parent : "",
			 cli->parent ? " " : "", v->name, v->args);
	return cli_fail(err, v && v->usage_code ? v->usage_code : EXIT_USAGE);
}

int cli_parse(struct cli *cli, void *target, int argc, char **argv, struct opt_words *words,
	      int *code)
{
	const struct verb *v = cli->verb;
	const struct opt_table tables[] = {
		{v->opts, v->nopts, target},
		{globals, ARRAY_SIZE(globals), cli},
		{v->shared ? v->shared->opts : NULL, v->shared ? v->shared->n : 0, target},
	};
	struct err err = ERR_INIT;

	if (opt_parse(tables, ARRAY_SIZE(tables), v->operands ? v->operands : SIZE_MAX, argc, argv,
		      words, &err) < 0) {
		*code = usage(cli, &err);
		return 1;
	}
	if (cli->help || cli->tree) {
		if (cli->help)
			help_verb(cli, v);
		else
			tree_verb(v, 0);
		*code = cli_finish();
		return 1;
	}
	if (v->shared && v->shared->finish && v->shared->finish(target, &err) < 0) {
		*code = cli_fail(&err, v->usage_code ? v->usage_code : EXIT_USAGE);
		return 1;
	}
	if (cli->level != LOG_OFF)
		log_open(STDERR_FILENO, cli->level, NULL);
	return 0;
}

int cli_parse_operands(struct cli *cli, void *target, int argc, char **argv, size_t min, size_t max,
		       struct opt_words *words, int *code)
{
	struct err err = ERR_INIT;

	if (cli_parse(cli, target, argc, argv, words, code))
		return 1;
	for (size_t i = 0; i < words->nrest; i++)
		words->words[words->n++] = words->rest[i];
	if (words->n >= min && words->n <= max)
		return 0;
	if (words->n < min)
		err_set(&err, ERR_USAGE, "something is missing after \"%s\"", cli->verb->name);
	else
		err_set(&err, ERR_USAGE, "\"%s\" is too much", words->words[max]);
	*code = usage(cli, &err);
	return 1;
}

static bool is_verb(const struct verb *v, const char *word)
{
	return str_eq(v->name, word) || (v->alias && str_eq(v->alias, word));
}

/* What other tools call it. */
static const char *elsewhere(const char *word)
{
	static const struct {
		const char *word, *ours;
	} words[] = {
		{"port", "ps"},
		{"ports", "ps"},
		{"stats", "metrics"},
		{"top", "metrics"},
		{"unpause", "resume"},
		{"delete", "rm"},
		{"destroy", "rm"},
		{"enter", "shell"},
		{"sh", "shell"},
		{"login", "registry login"},
		{"logout", "registry logout"},
		{"update", "modify"},
		{"info", "doctor"},
		{"import", "load"},
		{"export", "save"},
		{"help", "--help"},
		{"prune", "image prune"},
		{"upgrade", "self upgrade"},
		{"uninstall", "self uninstall"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (str_eq(words[i].word, word))
			return words[i].ours;
	}
	return NULL;
}

static int no_verb(struct cli *cli, const char *word, const char *const *names, size_t n)
{
	const char *known = cli->parent ? NULL : elsewhere(word);
	const char *like = known ? known : str_suggest(word, names, n);
	struct err err = ERR_INIT;

	err_set(&err, ERR_USAGE, "there is no command \"%s%s%s\"", cli->parent ? cli->parent : "",
		cli->parent ? " " : "", word);
	if (like)
		err_hint(&err, "did you mean `msb %s%s%s`?", cli->parent ? cli->parent : "",
			 cli->parent ? " " : "", like);
	else
		err_hint(&err, "`msb --help` lists the commands");
	return cli_fail(&err, EXIT_USAGE);
}

/* `image`: the next word that is no option is the verb. */
static int run_subs(struct cli *cli, const struct verb *v, int argc, char **argv)
{
	cleanup_words struct opt_words words = {0};
	const struct opt_table table = {globals, ARRAY_SIZE(globals), cli};
	const char *names[16];
	struct err err = ERR_INIT;

	cli->verb = v;
	/* No operand before the rest: the first one starts it. */
	if (opt_parse(&table, 1, 0, argc, argv, &words, &err) < 0)
		return usage(cli, &err);
	if (!words.nrest || cli->help || cli->tree) {
		if (cli->tree)
			tree_verb(v, 0);
		else
			help_verb(cli, v);
		return cli->help || cli->tree ? cli_finish() : EXIT_USAGE;
	}
	cli->parent = v->name;
	for (size_t i = 0; i < v->nsubs; i++) {
		names[i] = v->subs[i].name;
		if (is_verb(&v->subs[i], words.rest[0])) {
			cli->verb = &v->subs[i];
			return cli->verb->run(cli, (int)words.nrest - 1,
					      (char **)(uintptr_t)(words.rest + 1));
		}
	}
	return no_verb(cli, words.rest[0], names, v->nsubs);
}

/* Other names of this program stand for verbs: msr for `msb run --sandbox`, and so on. */
static const struct verb *verb_of_program(const char *argv0)
{
	static const struct {
		const char *program;
		const struct verb *verb;
	} names[] = {{"msr", &verb_msr}, {"msx", &verb_exe}, {"msi", &verb_install}};
	const char *slash = argv0 ? strrchr(argv0, '/') : NULL;

	for (size_t i = 0; i < ARRAY_SIZE(names) && argv0; i++) {
		if (str_eq(slash ? slash + 1 : argv0, names[i].program))
			return names[i].verb;
	}
	return NULL;
}

/* A program started without descriptors 0 to 2 would find its own files there. */
static void fill_descriptors(void)
{
	for (int fd = 0; fd <= 2; fd++) {
		/* What is said where nobody can hear it is to fail. */
		if (fcntl(fd, F_GETFD) < 0)
			(void)!open("/dev/null", fd == 1 ? O_RDONLY : O_RDWR);
	}
}

static void fit_help(void)
{
	uint16_t rows, columns;

	if (!isatty(STDOUT_FILENO))
		return;
	term_size(STDOUT_FILENO, &rows, &columns);
	opt_help_width(columns);
}

int main(int argc, char **argv)
{
	struct cli cli = {.level = LOG_OFF};
	cleanup_words struct opt_words words = {0};
	const struct opt_table tables[] = {
		{globals, ARRAY_SIZE(globals), &cli},
		{version_opt, ARRAY_SIZE(version_opt), &cli},
	};
	const char *names[ARRAY_SIZE(cli_verbs)];
	struct err err = ERR_INIT;

	fill_descriptors();
	fit_help();
	spec_opts_init();
	cli.verb = verb_of_program(argv[0]);
	if (cli.verb)
		return cli.verb->run(&cli, argc - 1, argv + 1);
	if (opt_parse(tables, ARRAY_SIZE(tables), 0, argc - 1, argv + 1, &words, &err) < 0) {
		err_hint(&err, "`msb --help` lists commands and options");
		return cli_fail(&err, EXIT_USAGE);
	}
	if (cli.version) {
		puts("msb " MSB_VERSION);
		return cli_finish();
	}
	if (!words.nrest && cli.tree) {
		puts("msb");
		for (size_t i = 0; i < ARRAY_SIZE(cli_verbs); i++)
			if (!cli_verbs[i]->hidden)
				tree_verb(cli_verbs[i], 1);
		return cli_finish();
	}
	if (!words.nrest) {
		help_all();
		return cli.help ? cli_finish() : EXIT_USAGE;
	}
	for (size_t i = 0; i < ARRAY_SIZE(cli_verbs); i++) {
		int n = (int)words.nrest - 1;
		char **rest = (char **)(uintptr_t)(words.rest + 1);

		names[i] = cli_verbs[i]->name;
		if (!is_verb(cli_verbs[i], words.rest[0]))
			continue;
		cli.verb = cli_verbs[i];
		return cli_verbs[i]->run ? cli_verbs[i]->run(&cli, n, rest)
					 : run_subs(&cli, cli_verbs[i], n, rest);
	}
	return no_verb(&cli, words.rest[0], names, ARRAY_SIZE(cli_verbs));
}
