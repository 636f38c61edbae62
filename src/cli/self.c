/* SPDX-License-Identifier: Apache-2.0 */
/* msb self: which msb this is, how to come to a newer one, and how to be rid of it. */
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/term.h"
#include "sandbox/record.h"
#include "sandbox/sandbox_dir.h"
#include "store/store.h"
#include "wire/agent_msg.h"

/* Where scripts/install.sh lists what it put below its prefix, which is two levels up. */
#define INSTALLED     "lib/microsandbox/installed"
#define CHANGES	      "share/doc/microsandbox/CHANGELOG.md"
#define INSTALLED_MAX (1u << 20)

/* ---- version ---- */

struct version_args {
	bool json;
};

static const struct opt version_opts[] = {
	{0, "format", "table|json", "How to print it", opt_set_format,
	 offsetof(struct version_args, json), 0, "table"},
};

static int version(struct cli *cli, int argc, char **argv)
{
	struct version_args a = {0};
	cleanup_words struct opt_words words = {0};
	int code;

	if (cli_parse_operands(cli, &a, argc, argv, 0, 0, &words, &code))
		return code;
	if (a.json)
		return cli_json(json_pack("{s:s,s:i,s:i,s:i}", "version", MSB_VERSION,
					  "store_version", STORE_VERSION, "store_version_oldest",
					  STORE_VERSION_OLDEST, "protocol_generation",
					  AGENT_GENERATION));
	puts("msb " MSB_VERSION);
	return cli_finish();
}

/* ---- where we are ---- */

/* The directory below which this program was installed, ending in "/"; NULL after an error. */
static char *prefix(struct err *err)
{
	char exe[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	char *slash;

	if (n < 0) {
		err_errno(err, "cannot find the running program in /proc");
		return NULL;
	}
	exe[n] = '\0';
	for (int up = 0; up < 2 && (slash = strrchr(exe, '/')); up++)
		*slash = '\0';
	return str_fmt("%s/", exe);
}

static int upgrade(struct cli *cli, int argc, char **argv)
{
	cleanup_words struct opt_words words = {0};
	struct err err = ERR_INIT;
	cleanup_free char *top = NULL;
	cleanup_free char *list = NULL;
	int code;

	if (cli_parse_operands(cli, NULL, argc, argv, 0, 0, &words, &code))
		return code;
	top = prefix(&err);
	list = top ? str_fmt("%s" INSTALLED, top) : NULL;
	if (!list)
		return cli_fail(&err, EXIT_FAILURE);
	printf("This is msb " MSB_VERSION ". It fetches no newer one by itself.\n\n");
	if (access(list, F_OK) == 0)
		printf("It was installed below %s. In the sources of the newer one:\n\n"
		       "  make install PREFIX=%.*s\n\n"
		       "What has changed is in %s" CHANGES " then.\n",
		       top, (int)strlen(top) - 1, top, top);
	else
		printf("It runs from where it was built. Update the sources and run\n\n"
		       "  make\n\n"
		       "What has changed is in their CHANGELOG.md.\n");
	printf("Sandboxes that run go on as they are, and use the newer one from their next start "
	       "on.\n"
	       "Images and sandboxes are kept; the newer one brings what it finds up to date.\n");
	return cli_finish();
}

/* ---- uninstall ---- */

struct uninstall_args {
	bool yes, home;
};

static const struct opt uninstall_opts[] = {
	{'y', "yes", NULL, "Do not ask", opt_set_flag, offsetof(struct uninstall_args, yes), 0},
	{0, "home", NULL, "Remove MSB_HOME as well: images, sandboxes, keys, logins", opt_set_flag,
	 offsetof(struct uninstall_args, home), 0},
};

/* The lines of the list; each is below the prefix, or it is not a list of ours. */
static int read_list(const char *top, struct strv *ret, struct err *err)
{
	cleanup_free char *path = str_fmt("%s" INSTALLED, top);
	cleanup_buf struct buf b = BUF_INIT;
	char *text, *save = NULL;
	int r = path ? io_read_file(path, INSTALLED_MAX, &b, NULL) : -ENOMEM;

	if (r == -ENOENT) {
		err_set(err, ERR_NOT_FOUND,
			"this msb was not installed by `make install`: %s "
			"is missing",
			path);
		return err_hint(err, "remove it as it came: with the package, or the directory it "
				     "was built in");
	}
	if (r < 0)
		return err_set(err, r, "cannot read the list of what was installed: %s",
			       err_name(r));
	text = buf_cstr(&b);
	if (!text)
		return err_set(err, ENOMEM, "out of memory");
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (line[0] == '/' || strstr(line, "../"))
			return err_set(err, ERR_CORRUPT, "%s names \"%.100s\", which is elsewhere",
				       path, line);
		if (strv_add(ret, line) < 0)
			return err_set(err, ENOMEM, "out of memory");
	}
	return 0;
}

/* Does anything that we would remove run, whoever's it is, but this command? */
static int refuse_running(const char *top, const struct strv *list, struct err *err)
{
	cleanup_dir DIR *d = opendir("/proc");
	struct dirent *e;

	while (d && (e = readdir(d))) {
		cleanup_free char *link = str_fmt("/proc/%s/exe", e->d_name);
		char exe[PATH_MAX];
		ssize_t n = link ? readlink(link, exe, sizeof(exe) - 1) : -1;

		if (n < 0 || atoi(e->d_name) <= 0 || atoi(e->d_name) == getpid())
			continue;
		exe[n] = '\0';
		/* One that runs while a newer one was installed. */
		if (str_ends(exe, " (deleted)"))
			exe[n - (ssize_t)strlen(" (deleted)")] = '\0';
		for (size_t i = 0; str_starts(exe, top) && i < list->n; i++) {
			if (!str_eq(exe + strlen(top), list->v[i]))
				continue;
			err_set(err, EBUSY, "%s runs (process %s)", exe, e->d_name);
			return err_hint(err, "stop the sandboxes first: msb stop --all");
		}
	}
	return 0;
}

/* In *ret the store to remove, or NULL when there is none. */
static int check_home(char **ret, struct err *err)
{
	cleanup_free char *home = store_default_home(err);
	cleanup_store struct store *s = NULL;
	cleanup_sandbox_list struct sandbox_list l = {0};
	int r;

	if (!home)
		return -ERR_USAGE;
	if (access(home, F_OK) < 0)
		return 0;
	/* What is no store of ours is refused here. */
	r = store_open(&s, home, err);
	if (r == 0)
		r = sandbox_dir_list(s, NULL, &l, err);
	for (size_t i = 0; i < l.count && r == 0; i++) {
		if (l.items[i].running) {
			err_set(err, EBUSY, "sandbox \"%s\" runs", l.items[i].record->name);
			r = err_hint(err, "stop the sandboxes first: msb stop --all");
		}
	}
	if (r == 0)
		*ret = take_ptr(home);
	return r;
}

static int remove_list(const char *top, const struct strv *list, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < list->n; i++) {
		cleanup_free char *path = str_fmt("%s%s", top, list->v[i]);

		if (!path)
			return err_set(err, ENOMEM, "out of memory");
		if (unlink(path) < 0 && errno != ENOENT && r == 0)
			r = err_errno(err, "cannot remove %s", path);
		/* Directories that were there for it alone; others are not empty. */
		for (char *slash; r == 0 && (slash = strrchr(path, '/')) > path + strlen(top);) {
			*slash = '\0';
			if (!strstr(path, "microsandbox") || rmdir(path) < 0)
				break;
		}
	}
	if (r < 0)
		err_hint(err, "run it as who has installed it, as in sudo msb self uninstall");
	return r;
}

/* 1 if the person agrees. */
static int ask(const char *top, size_t n, const char *home, struct err *err)
{
	char answer[16];
	int r;

	fprintf(stderr, "msb: %zu files below %s\n", n, top);
	if (home)
		fprintf(stderr, "and everything in %s: images, sandboxes, keys, logins\n", home);
	r = term_ask("Remove? [y/N] ", true, answer, sizeof(answer), err);
	if (r == -ENOTTY) {
		err_set(err, ERR_USAGE, "nobody is there to be asked");
		return err_hint(err, "add --yes");
	}
	return r < 0 ? r : answer[0] == 'y' || answer[0] == 'Y';
}

static int uninstall(struct cli *cli, int argc, char **argv)
{
	struct uninstall_args a = {0};
	cleanup_words struct opt_words words = {0};
	cleanup_strv struct strv list = {0};
	cleanup_free char *top = NULL;
	cleanup_free char *home = NULL;
	struct err err = ERR_INIT;
	int code, r;

	if (cli_parse_operands(cli, &a, argc, argv, 0, 0, &words, &code))
		return code;
	top = prefix(&err);
	r = top ? read_list(top, &list, &err) : -ENOENT;
	if (r == 0)
		r = refuse_running(top, &list, &err);
	if (r == 0 && a.home)
		r = check_home(&home, &err);
	if (r == 0 && !a.yes) {
		r = ask(top, list.n, home, &err);
		if (r == 0)
			return EXIT_FAILURE;
	}
	if (r >= 0 && home)
		r = io_remove_tree(home, &err);
	if (r >= 0)
		r = remove_list(top, &list, &err);
	if (r < 0)
		return cli_fail(&err, r == -ERR_USAGE ? EXIT_USAGE : EXIT_FAILURE);
	printf("removed %zu files below %s\n", list.n, top);
	if (home) {
		printf("removed %s\n", home);
	} else {
		home = store_default_home(NULL);
		if (home && access(home, F_OK) == 0)
			printf("%s is kept; it has the images and sandboxes\n", home);
	}
	return cli_finish();
}

static const struct verb subs[] = {
	{
		.name = "version",
		.group = "Other",
		.args = "[OPTIONS]",
		.summary = "Show the version, of the program and of what it keeps",
		.examples = "msb self version --format json",
		.opts = version_opts,
		.nopts = ARRAY_SIZE(version_opts),
		.run = version,
	},
	{
		.name = "upgrade",
		.alias = "update",
		.group = "Other",
		.args = "[OPTIONS]",
		.summary =
			"Tell how to come to a newer version, and what becomes of sandboxes then",
		.examples = "msb self upgrade",
		.run = upgrade,
	},
	{
		.name = "uninstall",
		.group = "Other",
		.args = "[OPTIONS]",
		.summary = "Remove what `make install` put there",
		.details = "Asks first, and refuses while anything of it runs. Images and "
			   "sandboxes are kept\n"
			   "unless --home is given.",
		.examples = "msb self uninstall\n"
			    "msb self uninstall --yes --home  # nothing stays",
		.opts = uninstall_opts,
		.nopts = ARRAY_SIZE(uninstall_opts),
		.run = uninstall,
	},
};

const struct verb verb_self = {
	.name = "self",
	.group = "Other",
	.args = "COMMAND",
	.summary = "About msb itself: version, upgrade, uninstall",
	.subs = subs,
	.nsubs = ARRAY_SIZE(subs),
};

const struct verb verb_version = {
	.name = "version",
	.hidden = true,
	.group = "Other",
	.args = "[OPTIONS]",
	.summary = "Show the version; the same as self version",
	.opts = version_opts,
	.nopts = ARRAY_SIZE(version_opts),
	.run = version,
};
