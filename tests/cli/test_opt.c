/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include <errno.h>

/* The program is no library: what is tested is compiled in. */
#include "cli/opt.c"

struct target {
	bool flag, other, json;
	const char *text;
	struct strv list;
};

static const struct opt opts[] = {
	{'f', "flag", NULL, "A flag", opt_set_flag, offsetof(struct target, flag), 0},
	{'o', "other", NULL, "Another", opt_set_flag, offsetof(struct target, other), 0},
	{'t', "text", "TEXT", "A text", opt_set_text, offsetof(struct target, text), 0},
	{'l', "list", "ITEM",
	 "Many words of help that are longer than one line can hold, so that "
	 "they have to be broken somewhere",
	 opt_add_text, offsetof(struct target, list), 0},
	{0, "format", "json|table", "Format", opt_set_format, offsetof(struct target, json), 0},
};

enum { WORDS_MAX = 12 };

static int parse(struct target *t, struct opt_words *w, size_t operands, struct err *err,
		 const char *line)
{
	static char copy[256];
	char *argv[WORDS_MAX + 1], *save = NULL;
	static char *kept[WORDS_MAX + 1];
	int argc = 0;
	struct opt_table table = {opts, sizeof(opts) / sizeof(opts[0]), t};

	memset(t, 0, sizeof(*t));
	snprintf(copy, sizeof(copy), "%s", line);
	for (char *p = strtok_r(copy, " ", &save); p; p = strtok_r(NULL, " ", &save))
		argv[argc++] = p;
	memcpy(kept, argv, sizeof(kept[0]) * (size_t)argc);
	return opt_parse(&table, 1, operands, argc, kept, w, err);
}

static void forms(void **state)
{
	static const char *const same[] = {"-t x",     "-tx",	"-t=x",	   "--text x",
					   "--text=x", "-ft x", "-f -ftx", "--text y -t x"};
	struct target t;
	struct opt_words w;

	(void)state;
	for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
		assert_int_equal(parse(&t, &w, SIZE_MAX, NULL, same[i]), 0);
		assert_string_equal(t.text, "x");
		assert_int_equal(w.n, 0);
		opt_words_done(&w);
	}
	assert_int_equal(parse(&t, &w, SIZE_MAX, NULL, "-l a --list=b=c -fo --format json -"), 0);
	assert_true(t.flag && t.other && t.json);
	assert_int_equal(t.list.n, 2);
	assert_string_equal(t.list.v[1], "b=c");
	assert_int_equal(w.n, 1);
	assert_string_equal(w.words[0], "-");
	strv_done(&t.list);
	opt_words_done(&w);
	assert_int_equal(parse(&t, &w, SIZE_MAX, NULL, "--text="), 0);
	assert_string_equal(t.text, "");
	opt_words_done(&w);
}

static void the_rest(void **state)
{
	struct target t;
	struct opt_words w;

	(void)state;
	/* As `run IMAGE CMD` does: options on both sides of the image are ours. */
	assert_int_equal(parse(&t, &w, 1, NULL, "-f image -o -- cmd -f --text"), 0);
	assert_true(t.flag && t.other && !t.text);
	assert_string_equal(w.words[0], "image");
	assert_true(w.has_rest);
	assert_int_equal(w.nrest, 3);
	assert_string_equal(w.rest[1], "-f");
	opt_words_done(&w);
	assert_int_equal(parse(&t, &w, 1, NULL, "image cmd -o -- x"), 0);
	assert_false(t.other);
	assert_int_equal(w.nrest, 4);
	assert_string_equal(w.rest[0], "cmd");
	assert_string_equal(w.rest[2], "--");
	opt_words_done(&w);
	assert_int_equal(parse(&t, &w, 1, NULL, "image --"), 0);
	assert_int_equal(w.nrest, 0);
	opt_words_done(&w);
	assert_int_equal(parse(&t, &w, SIZE_MAX, NULL, "a b c"), 0);
	assert_int_equal(w.n, 3);
	assert_false(w.has_rest);
	opt_words_done(&w);
}

static void wrong_words(void **state)
{
	static const struct {
		const char *line, *says;
	} bad[] = {
		{"--flg", "--flag"},	  {"--flag=1", "no value"},    {"--text", "needs a value"},
		{"-t", "needs a value"},  {"-x", "no option -x"},      {"-fx", "no option -x"},
		{"--format xml", "json"}, {"--zzzzzzzz", "no option"},
	};
	struct target t;
	struct opt_words w = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct err err = ERR_INIT;

		assert_int_equal(parse(&t, &w, SIZE_MAX, &err, bad[i].line), -ERR_USAGE);
		if (!strstr(err.msg, bad[i].says))
			assert_non_null(strstr(err.hint, bad[i].says));
		assert_null(w.words);
	}
}

static void help(void **state)
{
	struct buf b = BUF_INIT;
	char *text, *save = NULL;

	(void)state;
	opt_help(opts, sizeof(opts) / sizeof(opts[0]), &b);
	text = buf_cstr(&b);
	assert_non_null(strstr(text, "  -t, --text TEXT"));
	assert_non_null(strstr(text, "      --format json|table"));
	for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save))
		assert_true(strlen(l) <= help_width);
	buf_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forms),
		cmocka_unit_test(the_rest),
		cmocka_unit_test(wrong_words),
		cmocka_unit_test(help),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
