/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/opt.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"

/* Where the help's second column starts; longer options get a line of their own. */
enum { HELP_COLUMN = 34, HELP_LEAST = HELP_COLUMN + 30 };
static size_t help_width = 96;

void opt_help_width(size_t columns)
{
	help_width = MAX(MIN(columns, help_width), (size_t)HELP_LEAST);
}

struct parser {
	const struct opt_table *tables;
	size_t ntables;
	int argc, at;
	char *const *argv;
};

static const struct opt *find(const struct parser *p, char letter, const char *name, size_t n,
			      void **target)
{
	for (size_t t = 0; t < p->ntables; t++) {
		for (size_t i = 0; i < p->tables[t].n; i++) {
			const struct opt *o = &p->tables[t].opts[i];

			if (name ? strlen(o->name) != n || memcmp(o->name, name, n) != 0
				 : o->letter != letter || !letter)
				continue;
			*target = p->tables[t].target;
			return o;
		}
	}
	return NULL;
}

static int unknown(const struct parser *p, const char *name, size_t n, struct err *err)
{
	cleanup_free char *word = strndup(name, n);
	cleanup_free const char **names = NULL;
	const char *like;
	size_t count = 0;

	for (size_t t = 0; t < p->ntables; t++)
		count += p->tables[t].n;
	names = calloc(count + 1, sizeof(*names));
	if (!word || !names)
		return err_set(err, ENOMEM, "out of memory");
	count = 0;
	for (size_t t = 0; t < p->ntables; t++) {
		for (size_t i = 0; i < p->tables[t].n; i++)
			names[count++] = p->tables[t].opts[i].name;
	}
	like = str_suggest(word, names, count);
	err_set(err, ERR_USAGE, "there is no option --%s", word);
	return like ? err_hint(err, "did you mean --%s?", like) : -ERR_USAGE;
}

/* The value of an option that takes one: what follows its name, or the next word. */
static int value_of(struct parser *p, const struct opt *o, const char *attached, const char **ret,
		    struct err *err)
{
	if (attached) {
		*ret = attached;
		return 0;
	}
	if (p->at + 1 >= p->argc) {
		err_set(err, ERR_USAGE, "option --%s needs a value", o->name);
		return err_hint(err, "write it like --%s %s", o->name, o->arg);
	}
	*ret = p->argv[++p->at];
	return 0;
}

static int parse_long(struct parser *p, const char *word, struct err *err)
{
	size_t n = strcspn(word, "=");
	const char *value = word[n] ? word + n + 1 : NULL;
	void *target = NULL;
	const struct opt *o = find(p, 0, word, n, &target);
	int r = 0;

	if (!o)
		return unknown(p, word, n, err);
	if (!o->arg && value) {
		err_set(err, ERR_USAGE, "option --%s takes no value", o->name);
		return err_hint(err, "leave \"=%s\" out", value);
	}
	if (o->arg)
		r = value_of(p, o, value, &value, err);
	return r < 0 ? r : o->set(o, target, value, err);
}

static int parse_short(struct parser *p, const char *word, struct err *err)
{
	for (const char *c = word; *c; c++) {
		void *target = NULL;
		const struct opt *o = find(p, *c, NULL, 0, &target);
		const char *value = NULL;
		int r;

		if (!o) {
			err_set(err, ERR_USAGE, "there is no option -%c", *c);
			/* As other tools have it. */
			if (*c == 'i')
				return err_hint(err,
						"leave it out: input always goes through, and -t "
						"asks for a terminal");
			return err_hint(err, "--help lists the options");
		}
		if (!o->arg) {
			r = o->set(o, target, NULL, err);
			if (r < 0)
				return r;
			continue;
		}
		r = value_of(p, o, c[1] == '=' ? c + 2 : c[1] ? c + 1 : NULL, &value, err);
		return r < 0 ? r : o->set(o, target, value, err);
	}
	return 0;
}

int opt_parse(const struct opt_table *tables, size_t ntables, size_t operands, int argc,
	      char *const *argv, struct opt_words *ret, struct err *err)
{
	struct parser p = {tables, ntables, argc, 0, argv};
	struct opt_words w = {.words = calloc((size_t)argc + 1, sizeof(*w.words))};
	int r = 0;

	if (!w.words)
		return err_set(err, ENOMEM, "out of memory");
	for (; p.at < argc && r >= 0; p.at++) {
		const char *word = argv[p.at];
		bool dashes = str_eq(word, "--");

		if (dashes || ((word[0] != '-' || !word[1]) && w.n == operands)) {
			p.at += dashes;
			w.rest = (const char *const *)(argv + p.at);
			w.nrest = (size_t)(argc - p.at);
			w.has_rest = true;
			break;
		}
		if (word[0] != '-' || !word[1])
			w.words[w.n++] = word;
		else if (word[1] == '-')
			r = parse_long(&p, word + 2, err);
		else
			r = parse_short(&p, word + 1, err);
	}
	if (r < 0) {
		opt_words_done(&w);
		return r;
	}
	*ret = w;
	return 0;
}

void opt_words_done(struct opt_words *w)
{
	free(w->words);
	w->words = NULL;
	w->n = 0;
}

/* Columns of UTF-8 text, one for each character. */
static size_t width(const char *p, size_t n)
{
	size_t columns = 0;

	for (size_t i = 0; i < n; i++)
		columns += ((unsigned char)p[i] & 0xc0) != 0x80;
	return columns;
}

/* Text from column @at on, broken at blanks. */
static void wrap(struct buf *b, const char *text, size_t at)
{
	size_t column = at;

	while (*text) {
		size_t n = strcspn(text, " "), wide = width(text, n);

		if (column > HELP_COLUMN && column + wide >= help_width) {
			buf_addf(b, "\n%*s", HELP_COLUMN, "");
			column = HELP_COLUMN;
		} else if (column > HELP_COLUMN) {
			buf_add_u8(b, ' ');
			column++;
		}
		buf_add(b, text, n);
		column += wide;
		text += n;
		text += strspn(text, " ");
	}
	buf_add_u8(b, '\n');
}

static bool same_group(const char *a, const char *b)
{
	return a == b || (a && b && str_eq(a, b));
}

bool opt_in_group(const struct opt *o, const struct opt_group *group)
{
	return same_group(o->group, group->name);
}

bool opt_next_group(const struct opt *opts, size_t n, struct opt_group *group)
{
	bool seen = !group->begun;

	for (size_t i = 0; i < n; i++) {
		bool first = true;

		for (size_t j = 0; j < i && first; j++)
			first = !same_group(opts[j].group, opts[i].group);
		if (!first)
			continue;
		if (seen) {
			*group = (struct opt_group){opts[i].group, true};
			return true;
		}
		seen = opt_in_group(&opts[i], group);
	}
	return false;
}

void opt_help(const struct opt *opts, size_t n, struct buf *b)
{
	cleanup_buf struct buf text = BUF_INIT;

	for (size_t i = 0; i < n; i++) {
		const struct opt *o = &opts[i];
		size_t start = buf_size(b), used;

		if (o->letter)
			buf_addf(b, "  -%c, ", o->letter);
		else
			buf_add_str(b, "      ");
		buf_addf(b, "--%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
		used = buf_size(b) > start ? width((char *)buf_ptr(b) + start, buf_size(b) - start)
					   : 0;
		if (used + 2 > HELP_COLUMN)
			buf_addf(b, "\n%*s", HELP_COLUMN, "");
		else
			buf_addf(b, "%*s", (int)(HELP_COLUMN - used), "");
		buf_reset(&text);
		buf_add_str(&text, o->help);
		if (o->def)
			buf_addf(&text, " [%s]", o->def);
		wrap(b, buf_failed(&text) ? o->help : buf_cstr(&text), HELP_COLUMN);
	}
}

int opt_set_flag(const struct opt *o, void *target, const char *value, struct err *err)
{
	(void)value;
	(void)err;
	*(bool *)((char *)target + o->offset) = true;
	return 0;
}

int opt_set_text(const struct opt *o, void *target, const char *value, struct err *err)
{
	(void)err;
	*(const char **)((char *)target + o->offset) = value;
	return 0;
}

int opt_add_text(const struct opt *o, void *target, const char *value, struct err *err)
{
	if (strv_add((struct strv *)((char *)target + o->offset), value) < 0)
		return err_set(err, ENOMEM, "out of memory");
	return 0;
}

int opt_set_timeout(const struct opt *o, void *target, const char *value, struct err *err)
{
	uint64_t ns;
	int r = str_to_duration(value, o->name, &ns, err);

	if (r < 0)
		return r;
	if (ns == 0)
		return err_set(err, ERR_USAGE, "--%s %s leaves no time for anything", o->name,
			       value);
	*(uint64_t *)((char *)target + o->offset) = ns;
	return 0;
}

int opt_no_word(const char *what, const char *text, const char *const *words, size_t n,
		struct err *err)
{
	const char *like = str_suggest(text, words, n);
	char list[256] = "";
	size_t at = 0;

	for (size_t i = 0; i < n && at < sizeof(list); i++)
		at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%s", i ? ", " : "",
				       words[i]);
	err_set(err, ERR_USAGE, "there is no %s \"%.60s\"", what, text);
	if (like)
		return err_hint(err, "did you mean %s? It is one of %s", like, list);
	return err_hint(err, "it is one of %s", list);
}

int opt_set_format(const struct opt *o, void *target, const char *value, struct err *err)
{
	bool json = str_eq(value, "json");

	if (!json && !str_eq(value, "table")) {
		static const char *const words[] = {"json", "table"};

		return opt_no_word("format", value, words, ARRAY_SIZE(words), err);
	}
	*(bool *)((char *)target + o->offset) = json;
	return 0;
}
