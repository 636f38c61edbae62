/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Manual pages, from the tables that the help is made of: `msb __man` lists the pages there are,
 * `msb __man PAGE` prints one, in the man macros of roff. `make install` asks for all of them.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "cli/cli.h"
#include "config/field.h"

/* Text in which roff finds no command. */
static void text(const char *s)
{
	bool start = true;

	for (; *s; s++) {
		if (start && (*s == '.' || *s == '\''))
			fputs("\\&", stdout);
		start = *s == '\n';
		if (*s == '\\')
			fputs("\\e", stdout);
		else if (*s == '-')
			fputs("\\-", stdout);
		else if (*s == '`')
			fputs("\\(ga", stdout);
		else if (strncmp(s, "…", strlen("…")) == 0)
			fputs("\\&...", stdout), s += strlen("…") - 1;
		else
			putchar(*s);
	}
}

static void line(const char *s)
{
	text(s);
	putchar('\n');
}

static void head(const char *page, int section, const char *summary)
{
	fputs(".TH \"", stdout);
	for (const char *p = page; *p; p++)
		putchar(toupper((unsigned char)*p));
	printf("\" \"%d\" \"\" \"msb %s\" \"msb\"\n.SH NAME\n", section, MSB_VERSION);
	text(page);
	fputs(" \\- ", stdout);
	line(summary);
}

static void section(const char *name)
{
	printf(".SH %s\n", name);
}

/* The second half of a .TP, from columns to sentences. */
static void entry(const char *help, const char *def)
{
	text(help);
	if (def) {
		fputs(" [", stdout);
		text(def);
		putchar(']');
	}
	putchar('\n');
}

static void option(const struct opt *o)
{
	fputs(".TP\n", stdout);
	if (o->letter)
		printf("\\fB\\-%c\\fR, ", o->letter);
	fputs("\\fB\\-\\-", stdout);
	text(o->name);
	fputs("\\fR", stdout);
	if (o->arg) {
		fputs(" \\fI", stdout);
		text(o->arg);
		fputs("\\fR", stdout);
	}
	putchar('\n');
	entry(o->help, o->def);
}

static void options(const char *title, const struct opt *o, size_t n)
{
	if (n)
		section(title);
	for (struct opt_group g = {0}; opt_next_group(o, n, &g);) {
		if (g.name)
			printf(".SS %s\n", g.name);
		for (size_t i = 0; i < n; i++) {
			if (opt_in_group(&o[i], &g))
				option(&o[i]);
		}
	}
}

static void commands(const struct verb *parent)
{
	size_t n = parent ? parent->nsubs : cli_nverbs;

	section("COMMANDS");
	for (size_t i = 0; i < n; i++) {
		const struct verb *v = parent ? &parent->subs[i] : cli_verbs[i];

		if (v->hidden)
			continue;
		fputs(".TP\n\\fB", stdout);
		text(v->name);
		fputs("\\fR", stdout);
		if (v->alias) {
			fputs(", \\fB", stdout);
			text(v->alias);
			fputs("\\fR", stdout);
		}
		putchar('\n');
		line(v->summary);
	}
}

/* The examples and tables of details keep their lines. */
static void details(const char *s)
{
	for (const char *next; *s; s = next) {
		size_t n = strcspn(s, "\n");
		cleanup_free char *one = strndup(s, n);

		next = s + n + (s[n] == '\n');
		if (!n)
			fputs(".PP\n", stdout);
		else if (one && one[0] == ' ')
			fputs(".br\n", stdout), line(one);
		else if (one)
			line(one);
	}
}

static void page_verb(const char *page, const struct verb *parent, const struct verb *v)
{
	head(page, 1, v->summary);
	section("SYNOPSIS");
	fputs("\\fBmsb ", stdout);
	if (parent) {
		text(parent->name);
		putchar(' ');
	}
	text(v->name);
	fputs("\\fR ", stdout);
	line(v->args);
	if (v->details) {
		section("DESCRIPTION");
		details(v->details);
	}
	if (v->alias) {
		fputs(".PP\nA short form of the name is \\fB", stdout);
		text(v->alias);
		fputs("\\fR.\n", stdout);
	}
	if (v->nsubs)
		commands(v);
	options("OPTIONS", v->opts, v->nopts);
	if (v->shared)
		options("OPTIONS OF THE SANDBOX", v->shared->opts, v->shared->n);
	if (v->examples) {
		section("EXAMPLES");
		puts(".nf");
		line(v->examples);
		puts(".fi");
	}
	options("GLOBAL OPTIONS", cli_globals.opts, cli_globals.n);
	section("SEE ALSO");
	puts(v->shared ? "\\fBmsb\\fR(1), \\fBmsb\\-sandbox\\fR(5)" : "\\fBmsb\\fR(1)");
}

static void facts(const struct cli_fact *f)
{
	for (; f->name; f++) {
		fputs(".TP\n\\fB", stdout);
		text(f->name);
		puts("\\fR");
		line(f->what);
	}
}

static void page_msb(void)
{
	head("msb", 1, "run anything in a virtual machine of its own");
	section("SYNOPSIS");
	puts("\\fBmsb\\fR [OPTIONS] COMMAND");
	section("DESCRIPTION");
	line("Each sandbox is a virtual machine with its own Linux kernel, made from an OCI image, "
	     "a "
	     "directory or a disk image. No daemon is needed, and no root.");
	commands(NULL);
	options("OPTIONS", cli_globals.opts, cli_globals.n);
	section("EXIT CODES");
	line("Any other code of `run` and `exec` is the command's own.");
	facts(cli_exit_codes);
	section("ENVIRONMENT");
	facts(cli_variables);
	section("SEE ALSO");
	puts("\\fBmsb\\-run\\fR(1) and the other commands, \\fBmsb\\-sandbox\\fR(5)");
}

static void page_sandbox(void)
{
	head("msb-sandbox", 5, "files that say what a sandbox is");
	section("DESCRIPTION");
	line("A file of --conf is one YAML document, a map with the keys below. Values take the "
	     "place of "
	     "those in files before, maps are joined; options of the command line count most. "
	     "${NAME} is a variable of the host, $${ is ${ itself. Relative paths are relative to "
	     "the "
	     "file. Unknown keys are errors, and so are anchors, aliases, merge keys and tags.");
	section("KEYS");
	for (size_t i = 0; i < nfields; i++) {
		const struct field *f = &fields[i];

		if (!f->key)
			continue;
		fputs(".TP\n\\fB", stdout);
		text(f->key);
		fputs("\\fR: ", stdout);
		fputs("\\fI", stdout);
		text(f->kind == FIELD_LIST && !f->load ? "list"
		     : f->kind == FIELD_MAP	       ? "map"
						       : f->arg);
		puts("\\fR");
		entry(f->help, f->def);
	}
	section("EXAMPLE");
	puts(".nf");
	line("image: python:3.12\ncmd: [python3, app.py]\nmemory: 1G\nenv: {MODE: test}\n"
	     "patches:\n  - copy_file: {src: app.py, dst: /app.py}");
	puts(".fi");
	section("SEE ALSO");
	puts("\\fBmsb\\-config\\fR(1), \\fBmsb\\-schema\\fR(1)");
}

/* Print @want, or the name of every page if that is NULL. Was it there? */
static bool pages(const char *want)
{
	bool found = false;

	if (!want)
		puts("msb.1\nmsb-sandbox.5");
	for (size_t i = 0; i < cli_nverbs; i++) {
		const struct verb *v = cli_verbs[i];

		if (v->hidden)
			continue;
		for (size_t j = 0; j <= v->nsubs; j++) {
			const struct verb *at = j < v->nsubs ? &v->subs[j] : v;
			cleanup_free char *name = at == v ? str_fmt("msb-%s", v->name)
							  : str_fmt("msb-%s-%s", v->name, at->name);

			if (!name)
				return false;
			if (!want) {
				printf("%s.1\n", name);
			} else if (str_starts(want, name) && str_eq(want + strlen(name), ".1")) {
				page_verb(name, at == v ? NULL : v, at);
				found = true;
			}
		}
	}
	if (want && str_eq(want, "msb.1")) {
		page_msb();
		found = true;
	}
	if (want && str_eq(want, "msb-sandbox.5")) {
		page_sandbox();
		found = true;
	}
	return found || !want;
}

static int man(struct cli *cli, int argc, char **argv)
{
	cleanup_words struct opt_words words = {0};
	struct err err = ERR_INIT;
	int code;

	if (cli_parse_operands(cli, NULL, argc, argv, 0, 1, &words, &code))
		return code;
	if (!pages(words.n ? words.words[0] : NULL)) {
		err_set(&err, ERR_NOT_FOUND, "there is no page %s", words.words[0]);
		return cli_fail(&err, EXIT_FAILURE);
	}
	return cli_finish();
}

const struct verb verb_man = {
	.name = "__man",
	.hidden = true,
	.group = "Other",
	.args = "[PAGE]",
	.summary = "Print a manual page, or the names of all",
	.run = man,
};
