/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/select.h"

#include <string.h>

#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/project.h"
#include "sandbox/record.h"
#include "sandbox/sandbox_dir.h"
#include "sandbox/state.h"

static int add_label(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct select_args *a = target;
	int r = sandbox_label_parse(value, NULL, err);

	(void)o;
	if (r == 0 && strv_add(&a->labels, value) < 0)
		r = err_set(err, ENOMEM, "out of memory");
	return r;
}

#define ARGS(field) offsetof(struct select_args, field)

static const struct opt rows[] = {
	{0, "label", "KEY[=VALUE]", "Those with this label as well (repeated: with all of them)",
	 add_label, 0, 0},
	{'a', "all", NULL, "All of them", opt_set_flag, ARGS(all), 0},
	{'q', "quiet", NULL, "Do not print names", opt_set_flag, ARGS(quiet), 0},
};
const struct opt_set select_opts = {rows, ARRAY_SIZE(rows)};

static int add(struct strv *list, const char *name, struct err *err)
{
	if (strv_has(list, name))
		return 0;
	return strv_add(list, name) < 0 ? err_set(err, ENOMEM, "out of memory") : 0;
}

int cli_select(const struct cli *cli, struct store *s, struct select_args *a,
	       const struct opt_words *words, enum select_what what, struct strv *ret,
	       struct err *err)
{
	cleanup_strv struct strv labels = a->labels, names = {0}, chosen = {0};
	cleanup_sandbox_list struct sandbox_list l = {0};
	int r = 0;

	a->labels = (struct strv){0};
	if (!words->n && !labels.n && !a->all) {
		err_set(err, ERR_USAGE, "which sandbox?");
		return err_hint(err, "name one or several, or say --label KEY[=VALUE] or --all; "
				     "`msb ls` shows what there is");
	}
	for (size_t i = 0; i < words->n && r == 0; i++) {
		cleanup_free char *name = NULL;

		r = cli_project_name(cli, s, NULL, words->words[i], &name, err);
		if (r == 0)
			r = add(&names, name, err);
	}
	if (r == 0 && (labels.n || a->all))
		r = sandbox_dir_list(s, NULL, &l, err);
	if (r == 0 && labels.n)
		r = sandbox_state_select(s, &labels, &chosen, err);
	for (size_t i = 0; i < l.count && r == 0; i++) {
		const struct sandbox_entry *e = &l.items[i];

		if (what != SELECT_ANY && e->running != (what == SELECT_RUNNING))
			continue;
		if (a->all || strv_has(&chosen, e->record->name))
			r = add(&names, e->record->name, err);
	}
	if (r < 0)
		return r;
	*ret = names;
	names = (struct strv){0};
	return 0;
}
