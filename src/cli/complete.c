/* SPDX-License-Identifier: Apache-2.0 */
/*
 * msb completion: scripts by which shells complete words, and what those ask.
 *
 * A script knows nothing: it hands the words before the cursor to the hidden verb `__complete`,
 * which walks the tables of verbs and options. So a new verb is completed at once, and an installed
 * script does not age. The answer is lines of a word and, after a tab, what it means; a last line
 * ":files" asks the shell for names of files as well.
 *
 * What a value or operand is follows from what the usage calls it: NAME is a sandbox, IMAGE or
 * REFERENCE an image, words in lower case with | between are themselves, and FILE, PATH, SRC and
 * DST are files.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "cli/cli.h"
#include "image/image.h"
#include "sandbox/record.h"
#include "sandbox/sandbox_dir.h"
#include "store/store.h"

struct complete {
	const char *word; /* the one at the cursor, as far as it is there */
	size_t skip;	  /* so much of a candidate is there already and is not to be printed */
	const char *stem; /* put before each candidate: "--engine=" */
	bool files;
};

static void offer(struct complete *c, const char *value, const char *help)
{
	cleanup_free char *whole = str_fmt("%s%s", c->stem, value);
	const char *end = help ? help + strcspn(help, "\n") : NULL;

	if (!whole || !str_starts(whole, c->word) || strpbrk(whole, "\t\n"))
		return;
	cli_put_clean(stdout, whole + MIN(c->skip, strlen(whole)));
	if (help)
		printf("\t%.*s", (int)(end - help), help);
	putchar('\n');
}

static void offer_opts(struct complete *c, const struct opt *o, size_t n)
{
	for (; n--; o++) {
		cleanup_free char *word = str_fmt("--%s", o->name);

		if (word)
			offer(c, word, o->help);
	}
}

/* ---- values ---- */

/* Those that a store has. Nothing is made, and nothing said, when there is none. */
static struct store *open_store(void)
{
	cleanup_free char *home = store_default_home(NULL);
	struct store *s = NULL;

	if (!home || access(home, F_OK) < 0 || store_open(&s, home, NULL) < 0)
		return NULL;
	return s;
}

static void offer_sandboxes(struct complete *c, const char *behind)
{
	cleanup_store struct store *s = open_store();
	cleanup_sandbox_list struct sandbox_list list = {0};

	if (!s || sandbox_dir_list(s, NULL, &list, NULL) < 0)
		return;
	for (size_t i = 0; i < list.count; i++) {
		const struct sandbox_entry *e = &list.items[i];
		cleanup_free char *name = str_fmt("%s%s", e->record->name, behind);

		if (name)
			offer(c, name, e->record->image);
	}
}

/* A reference as people write it. */
static const char *familiar(const char *ref)
{
	static const char *const prefixes[] = {"docker.io/library/", "docker.io/"};

	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
		if (str_starts(ref, prefixes[i]))
			return ref + strlen(prefixes[i]);
	}
	return ref;
}

static void offer_images(struct complete *c)
{
	cleanup_store struct store *s = open_store();
	cleanup_image_list struct image_list list = {0};

	if (!s || image_list(s, &list, NULL) < 0)
		return;
	for (size_t i = 0; i < list.count; i++) {
		for (char **ref = list.items[i].references; ref && *ref; ref++)
			offer(c, familiar(*ref), NULL);
	}
}

static bool has_word(const char *text, const char *word)
{
	size_t n = strlen(word);

	for (const char *at = text; (at = strstr(at, word)); at += n) {
		if ((at == text || !isupper((unsigned char)at[-1])) &&
		    !isupper((unsigned char)at[n]))
			return true;
	}
	return false;
}

/* Words of @what that stand for themselves: in lower case, between bars. */
static void offer_words(struct complete *c, const char *what)
{
	for (const char *p = what; *p; p += *p == '|') {
		size_t n = strcspn(p, "|");
		cleanup_free char *word = strndup(p, n);
		bool literal = word && strpbrk(word, "[]:,=…") == NULL;

		for (const char *w = word; literal && *w; w++)
			literal = !isupper((unsigned char)*w);
		if (literal && (p != what || p[n]))
			offer(c, word, NULL);
		p += n;
	}
}

static void offer_value(struct complete *c, const char *what, bool operand)
{
	offer_words(c, what);
	if (has_word(what, "IMAGE") || has_word(what, "REFERENCE"))
		offer_images(c);
	if (operand && has_word(what, "NAME"))
		offer_sandboxes(c, "");
	if (operand && (has_word(what, "SRC") || has_word(what, "DST")))
		offer_sandboxes(c, ":");
	c->files |= has_word(what, "FILE") || has_word(what, "PATH") || has_word(what, "SRC") ||
		    has_word(what, "DST") || has_word(what, "DIRECTORY") ||
		    has_word(what, "ARCHIVE");
}

/* ---- where the cursor is ---- */

/* A verb's options, those of its shared table, and ours for all. */
static size_t tables_of(const struct verb *v, struct opt_set ret[3])
{
	size_t n = 0;

	if (v)
		ret[n++] = (struct opt_set){v->opts, v->nopts, NULL};
	if (v && v->shared)
		ret[n++] = *v->shared;
	ret[n++] = cli_globals;
	return n;
}

/* The option that @word is, if it is one that takes a value; @len of a name after "--". */
static const struct opt *taking(const struct verb *v, const char *word, size_t len)
{
	struct opt_set sets[3];
	size_t n = tables_of(v, sets);

	for (size_t t = 0; t < n; t++) {
		for (size_t i = 0; i < sets[t].n; i++) {
			const struct opt *o = &sets[t].opts[i];
			bool is = word[1] == '-' ? strlen(o->name) == len - 2 &&
							   memcmp(o->name, word + 2, len - 2) == 0
						 : o->letter && o->letter == word[len - 1];

			if (is)
				return o->arg ? o : NULL;
		}
	}
	return NULL;
}

/* The @n-th operand of "[OPTIONS] IMAGE|PATH [-- COMMAND…]", or NULL; the last may repeat. */
static char *operand_of(const char *args, size_t n)
{
	char *last = NULL;

	for (const char *p = args + strspn(args, " "); *p; p += strspn(p, " ")) {
		size_t len = strcspn(p, " ");

		if (strncmp(p, "[--", 3) == 0)
			break;
		if (strncmp(p, "[OPTIONS]", 9) != 0) {
			free(last);
			last = strndup(p, len);
			if (n-- == 0)
				return last;
		}
		p += len;
	}
	if (last && strstr(last, "…"))
		return last;
	free(last);
	return NULL;
}

static const struct verb *find_verb(const struct verb *parent, const char *word)
{
	size_t n = parent ? parent->nsubs : cli_nverbs;

	for (size_t i = 0; i < n; i++) {
		const struct verb *v = parent ? &parent->subs[i] : cli_verbs[i];

		if (str_eq(v->name, word) || (v->alias && str_eq(v->alias, word)))
			return v;
	}
	return NULL;
}

static void offer_verbs(struct complete *c, const struct verb *parent)
{
	size_t n = parent ? parent->nsubs : cli_nverbs;

	for (size_t i = 0; i < n; i++) {
		const struct verb *v = parent ? &parent->subs[i] : cli_verbs[i];

		if (v->hidden)
			continue;
		offer(c, v->name, v->summary);
		/* A short form only once somebody begins to type it: it is no other command. */
		if (v->alias && c->word[0])
			offer(c, v->alias, v->summary);
	}
}

static void complete(struct complete *c, char *const *words, size_t n)
{
	const struct verb *v = NULL;
	const struct opt *open = NULL; /* the word before is one that wants a value */
	size_t operands = 0;

	for (size_t i = 0; i < n; i++) {
		const char *w = words[i];
		size_t len = strcspn(w, "=");

		if (open) {
			open = NULL;
		} else if (str_eq(w, "--")) {
			/* The command is the guest's. */
			return;
		} else if (w[0] == '-' && w[1]) {
			open = w[len] ? NULL : taking(v, w, len);
		} else if (!v || (v->nsubs && !operands)) {
			const struct verb *sub = find_verb(v, w);

			/* A verb that is one with other words, too. */
			operands += !sub && v && v->run;
			if (!sub && !operands)
				return;
			v = sub ? sub : v;
		} else {
			operands++;
			if (v->operands && operands > v->operands)
				return;
		}
	}
	if (open) {
		offer_value(c, open->arg, false);
	} else if (c->word[0] == '-' && c->word[1] == '-' && strchr(c->word, '=')) {
		size_t len = strcspn(c->word, "=");
		cleanup_free char *stem = strndup(c->word, len + 1);

		open = taking(v, c->word, len);
		if (!open || !stem)
			return;
		c->stem = stem;
		offer_value(c, open->arg, false);
		c->stem = "";
	} else if (c->word[0] == '-') {
		struct opt_set sets[3];
		size_t nsets = tables_of(v, sets);

		for (size_t i = 0; i < nsets; i++)
			offer_opts(c, sets[i].opts, sets[i].n);
		if (!v)
			offer(c, "--version", "Show the version");
	} else {
		cleanup_free char *what = v && v->run ? operand_of(v->args, operands) : NULL;

		if (!v || (v->nsubs && !operands))
			offer_verbs(c, v);
		if (what)
			offer_value(c, what, true);
	}
}

/* Words of a line as a shell has them, near enough: blanks part them, quotes and \ do not. */
static int split(const char *line, struct strv *ret)
{
	cleanup_buf struct buf b = BUF_INIT;
	char quote = 0;
	int r = 0;

	for (const char *p = line;; p++) {
		if (!*p || (!quote && (*p == ' ' || *p == '\t'))) {
			if (!*p || buf_size(&b))
				r = buf_cstr(&b) ? strv_add(ret, buf_cstr(&b)) : -ENOMEM;
			buf_reset(&b);
			if (!*p || r < 0)
				return r;
		} else if (quote && *p == quote) {
			quote = 0;
		} else if (!quote && (*p == '"' || *p == '\'')) {
			quote = *p;
		} else {
			p += *p == '\\' && quote != '\'' && p[1];
			buf_add_u8(&b, (uint8_t)*p);
		}
	}
}

/* `__complete words WORD… CURRENT`, or `__complete line LINE CURRENT` as bash has them. */
static int answer(struct cli *cli, int argc, char **argv)
{
	struct complete c = {.stem = ""};
	cleanup_strv struct strv words = {0};

	(void)cli;
	if (argc >= 2 && str_eq(argv[0], "words")) {
		c.word = argv[argc - 1];
		complete(&c, argv + 1, (size_t)argc - 2);
	} else if (argc == 3 && str_eq(argv[0], "line") && split(argv[1], &words) == 0 &&
		   words.n > 1) {
		const char *now = argv[2];

		c.word = words.v[words.n - 1];
		/* bash parts words at = and : too, and replaces what it takes for the last one. */
		if (str_eq(now, "=") || str_eq(now, ":"))
			now = "";
		if (str_ends(c.word, now))
			c.skip = strlen(c.word) - strlen(now);
		complete(&c, words.v + 1, words.n - 2);
	}
	if (c.files)
		puts(":files");
	return cli_finish();
}

/* ---- the scripts ---- */

static const char bash[] =
	"# bash completion of msb: eval \"$(msb completion bash)\", or into\n"
	"# ~/.local/share/bash-completion/completions/msb\n"
	"_msb() {\n"
	"    local now=\"${COMP_WORDS[COMP_CWORD]}\" line\n"
	"    COMPREPLY=()\n"
	"    while IFS= read -r line; do\n"
	"        if [ \"$line\" = :files ]; then\n"
	"            case $now in [=:]) now= ;; esac\n"
	"            while IFS= read -r line; do COMPREPLY+=(\"$line\"); done < <(compgen -f -- "
	"\"$now\")\n"
	"            compopt -o filenames 2>/dev/null\n"
	"        else\n"
	"            COMPREPLY+=(\"${line%%$'\\t'*}\")\n"
	"        fi\n"
	"    done < <(\"${COMP_WORDS[0]}\" __complete line \"${COMP_LINE:0:COMP_POINT}\" \"$now\" "
	"2>/dev/null)\n"
	"    case \"${COMPREPLY[0]-}\" in *=|*:) compopt -o nospace 2>/dev/null ;; esac\n"
	"}\n"
	"complete -F _msb msb\n";

static const char zsh[] =
	"#compdef msb\n"
	"# zsh completion of msb: as _msb into a directory of $fpath, or eval \"$(msb completion "
	"zsh)\"\n"
	"_msb() {\n"
	"    local line\n"
	"    local -a found shown\n"
	"    while IFS= read -r line; do\n"
	"        if [[ $line == :files ]]; then\n"
	"            [[ $PREFIX == --*=* ]] && compset -P '*='\n"
	"            _files\n"
	"        else\n"
	"            found+=(\"${line%%$'\\t'*}\")\n"
	"            shown+=(\"${line/$'\\t'/  -- }\")\n"
	"        fi\n"
	"    done < <(\"${words[1]}\" __complete words \"${(@)words[2,CURRENT-1]}\" "
	"\"$PREFIX\" 2>/dev/null)\n"
	"    (( $#found )) && compadd -l -d shown -a found\n"
	"}\n"
	"if [ \"$funcstack[1]\" = _msb ]; then _msb \"$@\"; else compdef _msb msb; fi\n";

static const char fish[] =
	"# fish completion of msb: into ~/.config/fish/completions/msb.fish\n"
	"function __msb_complete\n"
	"    set -l words (commandline -opc)\n"
	"    set -l now (commandline -ct)\n"
	"    for line in ($words[1] __complete words $words[2..-1] \"$now\" 2>/dev/null)\n"
	"        if test \"$line\" = :files\n"
	"            __fish_complete_path (string replace -r '^--[^=]*=' '' -- $now)\n"
	"        else\n"
	"            echo $line\n"
	"        end\n"
	"    end\n"
	"end\n"
	"complete -c msb -f -a '(__msb_complete)'\n";

static int completion(struct cli *cli, int argc, char **argv)
{
	static const struct {
		const char *shell, *script;
	} scripts[] = {{"bash", bash}, {"zsh", zsh}, {"fish", fish}};
	static const char *const shells[] = {"bash", "zsh", "fish"};
	cleanup_words struct opt_words words = {0};
	struct err err = ERR_INIT;
	int code;

	if (cli_parse_operands(cli, NULL, argc, argv, 1, 1, &words, &code))
		return code;
	for (size_t i = 0; i < ARRAY_SIZE(scripts); i++) {
		if (str_eq(words.words[0], scripts[i].shell)) {
			fputs(scripts[i].script, stdout);
			return cli_finish();
		}
	}
	opt_no_word("completion for", words.words[0], shells, ARRAY_SIZE(shells), &err);
	return cli_fail(&err, EXIT_USAGE);
}

const struct verb verb_completion = {
	.name = "completion",
	.group = "Other",
	.args = "bash|zsh|fish",
	.summary = "Print a script by which a shell completes words",
	.details =
		"For this session: eval \"$(msb completion bash)\"; its first lines say where to "
		"keep it.\n"
		"Commands, options, sandboxes, images and files are completed.",
	.examples = "eval \"$(msb completion bash)\"\n"
		    "msb completion fish > ~/.config/fish/completions/msb.fish",
	.run = completion,
};

const struct verb verb_complete = {
	.name = "__complete",
	.hidden = true,
	.group = "Other",
	.args = "",
	.summary = "What completion scripts ask",
	.run = answer,
};
