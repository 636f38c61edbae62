/* SPDX-License-Identifier: Apache-2.0 */
/* What the program says: errors, tables, times. */
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/term.h"

bool cli_screen(FILE *f)
{
	const char *term = getenv("TERM");

	return term && *term && !str_eq(term, "dumb") && isatty(fileno(f));
}

static const char *colour(FILE *f, const char *sequence)
{
	const char *no = getenv("NO_COLOR");

	return (no && *no) || !cli_screen(f) ? "" : sequence;
}

const char *cli_bold(FILE *f)
{
	return colour(f, "\033[1m");
}

const char *cli_dim(FILE *f)
{
	return colour(f, "\033[2m");
}

const char *cli_red(FILE *f)
{
	return colour(f, "\033[1;31m");
}

const char *cli_yellow(FILE *f)
{
	return colour(f, "\033[1;33m");
}

const char *cli_reset(FILE *f)
{
	return colour(f, "\033[0m");
}

/* Messages may quote what came from outside: control characters stay off the terminal. */
void cli_put_clean(FILE *f, const char *s)
{
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '\n' || (c >= 32 && c != 127))
			putc(c, f);
		else
			fprintf(f, "\\x%02x", c);
	}
}

void cli_put_line(FILE *f, const char *s)
{
	for (const char *nl; (nl = strchr(s, '\n')); s = nl + 1) {
		cleanup_free char *part = strndup(s, (size_t)(nl - s));

		cli_put_clean(f, part ? part : "");
		fputs("\\n", f);
	}
	cli_put_clean(f, s);
}

void cli_error(const struct err *err)
{
	cli_busy_end();
	fflush(stdout);
	fprintf(stderr, "%serror:%s ", cli_red(stderr), cli_reset(stderr));
	cli_put_clean(stderr, err->msg[0] ? err->msg : err_name(err->code));
	putc('\n', stderr);
	if (err->hint[0]) {
		fprintf(stderr, "  %s→%s ", cli_dim(stderr), cli_reset(stderr));
		cli_put_clean(stderr, err->hint);
		putc('\n', stderr);
	}
}

void cli_warn(const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	cli_busy_end();
	fflush(stdout);
	fprintf(stderr, "%swarning:%s ", cli_yellow(stderr), cli_reset(stderr));
	cli_put_clean(stderr, text);
	putc('\n', stderr);
}

int cli_fail(const struct err *err, int code)
{
	cli_error(err);
	return code;
}

int cli_finish(void)
{
	struct err err = ERR_INIT;

	cli_busy_end();
	if (fflush(stdout) == 0 && !ferror(stdout))
		return EXIT_SUCCESS;
	err_errno(&err, "cannot write the output");
	return cli_fail(&err, EXIT_FAILURE);
}

/* Columns that UTF-8 text takes, taking one per character. */
static size_t width(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

enum {
	TABLE_GAP = 3,
	TABLE_LEAST = 4, /* a column is made no narrower */
};

/* Take from the widest columns what the terminal has not. */
static void fit(size_t *widths, size_t columns)
{
	uint16_t height, room;
	size_t sum = TABLE_GAP * (columns - 1);

	term_size(STDOUT_FILENO, &height, &room);
	for (size_t c = 0; c < columns; c++)
		sum += widths[c];
	for (; sum > room; sum--) {
		size_t widest = 0;

		for (size_t c = 1; c < columns; c++)
			widest = widths[c] > widths[widest] ? c : widest;
		if (widths[widest] <= TABLE_LEAST)
			return;
		widths[widest]--;
	}
}

/* At most @columns of @s, the last one saying that there is more; returns how many. */
static size_t put_cell(const char *s, size_t columns)
{
	size_t all = width(s), n = 0;

	for (; *s && (all <= columns || n < columns - 1 || ((unsigned char)*s & 0xc0) == 0x80);
	     s++) {
		n += ((unsigned char)s[1] & 0xc0) != 0x80;
		/* A row is a line, whatever is in its cells. */
		putchar((unsigned char)*s < ' ' || *s == 0x7f ? ' ' : *s);
	}
	if (all <= columns)
		return all;
	fputs("…", stdout);
	return columns;
}

void cli_table(const char *const *cells, size_t columns, size_t rows)
{
	cleanup_free size_t *widths = calloc(columns, sizeof(*widths));

	if (!widths)
		return;
	for (size_t i = 0; i < columns * rows; i++)
		widths[i % columns] = MAX(widths[i % columns], width(cells[i]));
	/* What goes to a program is whole. */
	if (isatty(STDOUT_FILENO))
		fit(widths, columns);
	for (size_t r = 0; r < rows; r++) {
		if (r == 0)
			fputs(cli_bold(stdout), stdout);
		for (size_t c = 0; c < columns; c++) {
			size_t used = put_cell(cells[r * columns + c], widths[c]);

			if (c + 1 < columns)
				printf("%*s", (int)(widths[c] - used + TABLE_GAP), "");
		}
		if (r == 0)
			fputs(cli_reset(stdout), stdout);
		putchar('\n');
	}
}

const char *cli_age(int64_t unix_seconds, char b[32])
{
	static const struct {
		const char *name;
		int64_t seconds;
	} units[] = {
		{"year", 31536000}, {"month", 2592000}, {"week", 604800},
		{"day", 86400},	    {"hour", 3600},	{"minute", 60},
	};
	int64_t age = time(NULL) - unix_seconds;

	snprintf(b, 32, "just now");
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		long long n = age / units[i].seconds;

		if (n > 0) {
			snprintf(b, 32, "%lld %s%s ago", n, units[i].name, n == 1 ? "" : "s");
			break;
		}
	}
	return b;
}

const char *cli_time(int64_t unix_seconds, char b[32])
{
	time_t t = (time_t)unix_seconds;
	struct tm tm;

	if (!gmtime_r(&t, &tm) || !strftime(b, 32, "%Y-%m-%dT%H:%M:%SZ", &tm))
		b[0] = '\0';
	return b;
}

int cli_json(json_t *j)
{
	struct err err = ERR_INIT;
	int r = j ? json_dumpf(j, stdout, JSON_INDENT(2)) : -1;

	json_decref(j);
	if (r < 0) {
		err_set(&err, EIO, "cannot print JSON: a text is not UTF-8, or out of memory");
		return cli_fail(&err, EXIT_FAILURE);
	}
	putchar('\n');
	return cli_finish();
}
