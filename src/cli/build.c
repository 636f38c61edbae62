/* SPDX-License-Identifier: Apache-2.0 */
/*
 * msb build: images of what a project describes.
 *
 * An entry of `builds` gets a sandbox that is thrown away, in which its steps are run; one of
 * `sandboxes` has been used already. Either way what counts is an upper disk, a guest's file
 * system, which no kernel but a guest's is to read: another throw-away sandbox has it as its root,
 * and sends the upper directory as a tar stream. That becomes a layer (image/commit.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/attach.h"
#include "cli/cli.h"
#include "cli/project.h"
#include "cli/pull.h"
#include "image/image.h"
#include "image/reference.h"
#include "project/life.h"
#include "sandbox/copy.h"
#include "sandbox/patch.h"
#include "sandbox/sandbox.h"
#include "sandbox/source.h"
#include "store/store.h"
#include "wire/patch.h"

/* Of a build's disk: no sandbox has a name that begins with a dot. */
#define BUILD_DISK ".build-"

struct build_args {
	const char *file, *tag;
	bool quiet;
};

#define ARGS(field) offsetof(struct build_args, field)

static const struct opt build_opts[] = {
	PROJECT_FILE_OPT('f', ARGS(file)),
	{'t', "tag", "REFERENCE", "Call the image so [ENTRY:latest]", opt_set_text, ARGS(tag), 0},
	{'q', "quiet", NULL, "Do not say what is being done", opt_set_flag, ARGS(quiet), 0},
};

struct build {
	const struct build_args *a;
	struct project_at *at;
	bool *done; /* by index in the project */
	int stop;   /* readable when a signal has come */
};

/* What the image is to say of itself; the rest is its base's. */
struct wishes {
	struct strv env, entrypoint, cmd;
	char *workdir, *user;
};

static void wishes_done(struct wishes *w)
{
	strv_done(&w->env);
	strv_done(&w->entrypoint);
	strv_done(&w->cmd);
	free(w->workdir);
	free(w->user);
}
#define cleanup_wishes __attribute__((cleanup(wishes_done)))

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

static int copy_texts(struct strv *to, const struct strv *from)
{
	int r = 0;

	for (size_t i = 0; i < from->n && r == 0; i++)
		r = strv_add(to, from->v[i]);
	return r;
}

static int copy_text(char **to, const char *from)
{
	*to = from ? strdup(from) : NULL;
	return from && !*to ? -ENOMEM : 0;
}

static int take_wishes(const struct project_sandbox *e, struct wishes *w, struct err *err)
{
	const struct sandbox_spec *s = &e->model.spec;
	int r = copy_texts(&w->env, &s->env);

	if (r == 0)
		r = copy_text(&w->workdir, s->workdir);
	if (r == 0)
		r = copy_text(&w->user, s->user);
	/* The script "start" stands in place of everything, as when the sandbox starts. */
	if (r == 0 && project_has_script(e, "start"))
		return strv_add(&w->entrypoint, PATCH_SCRIPTS_DIR "/start") < 0 ? no_memory(err)
										: 0;
	if (r == 0)
		r = copy_texts(&w->entrypoint, &s->entrypoint);
	if (r == 0)
		r = copy_texts(&w->cmd, &e->model.cmd);
	return r < 0 ? no_memory(err) : 0;
}

/* ---- machines ---- */

static int start(const struct build *b, struct sandbox *sb, struct err *err)
{
	int r = sandbox_start(sb, err);

	if (r < 0)
		return r;
	sandbox_note(sb);
	while ((r = sandbox_report(sb, err)) == 0) {
		struct pollfd fds[] = {
			{.fd = sandbox_report_fd(sb), .events = POLLIN},
			{.fd = b->stop, .events = POLLIN},
		};

		if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
			return err_errno(err, "cannot wait for the machine");
		if (fds[1].revents & POLLIN)
			return err_set(err, EINTR, "interrupted");
	}
	return MIN(r, 0);
}

/* A machine of the same kind, in which nothing but us has a say. */
static int like_it(const struct sandbox_spec *s, struct sandbox_spec *ret, struct err *err)
{
	sandbox_spec_init(ret);
	ret->memory = s->memory;
	return copy_text(&ret->engine, s->engine) < 0 || copy_text(&ret->kernel, s->kernel) < 0 ||
			       copy_text(&ret->jail, s->jail) < 0
		       ? no_memory(err)
		       : 0;
}

/* The upper directory of the disk at @path as an archive in @archive. */
static int read_disk(const struct build *b, const char *path, const struct sandbox_spec *like,
		     int archive, struct err *err)
{
	cleanup_spec struct sandbox_spec spec;
	cleanup_free char *image = str_fmt("%s:format=raw,fstype=ext4", path);
	const struct sandbox_open how = {0};
	struct sandbox *sb = NULL;
	char notes[1700] = "";
	int r = like_it(like, &spec, err);

	if (r == 0 && !image)
		r = no_memory(err);
	if (r == 0)
		r = sandbox_spec_net(&spec, "none", err);
	if (r == 0)
		r = sandbox_open_how(&sb, b->at->store, &spec, image, &how, err);
	if (r == 0)
		r = start(b, sb, err);
	if (r == 0) {
		struct copy c = {
			.from = {.sandbox = sandbox_name(sb), .path = "/upper/."},
			.to = {.agent = -1},
			.all = true,
			.stop = b->stop,
			.archive = archive,
		};

		r = c.from.agent = sandbox_connect(sb, err);
		if (r >= 0)
			r = copy_run(&c, notes, sizeof(notes), err);
	}
	if (notes[0] && !b->a->quiet)
		cli_warn("%s", notes);
	sandbox_free(sb);
	return r < 0 ? err_wrap(err, "cannot read what was written") : 0;
}

/* ---- the image ---- */

static int commit(const struct build *b, const struct project_sandbox *e, const char *tag,
		  const char *base, const char *disk, const struct sandbox_spec *like,
		  const struct wishes *w, struct err *err)
{
	const struct image_commit_options o = {
		.tag = tag,
		.env = w->env.v,
		.entrypoint = w->entrypoint.v,
		.cmd = w->cmd.v,
		.workdir = w->workdir,
		.user = w->user,
	};
	cleanup_image_info struct image_info info = IMAGE_INFO_INIT;
	cleanup_temp struct store_temp archive = STORE_TEMP_INIT;
	int r = store_temp_new(b->at->store, &archive, err);

	if (r < 0)
		return r;
	store_temp_unname(&archive);
	cli_busy(b->a->quiet, "reading what was written in %s", e->name);
	r = read_disk(b, disk, like, archive.fd, err);
	cli_busy_end();
	if (r == 0 && lseek(archive.fd, 0, SEEK_SET) < 0)
		r = err_errno(err, "cannot read the archive");
	if (r < 0)
		return r;
	cli_busy(b->a->quiet, "making image %s", tag);
	r = image_commit(b->at->store, base, archive.fd, &o, &info, err);
	cli_busy_end();
	return MIN(r, 0);
}

/* The name of what is made, which must not take that of what it is made of. */
static int choose_tag(const struct project_sandbox *e, const char *asked, char **ret,
		      struct err *err)
{
	char own[IMAGE_REFERENCE_MAX], base[IMAGE_REFERENCE_MAX];
	int r;

	*ret = asked ? strdup(asked) : str_fmt("%s:latest", e->name);
	if (!*ret)
		return no_memory(err);
	r = reference_normalise(*ret, own, asked ? err : NULL);
	if (r < 0 && !asked) {
		err_set(err, r, "\"%s\" cannot be the name of an image", e->name);
		return err_hint(err, "they are lower-case; --tag gives it another one");
	}
	if (r < 0)
		return r;
	if (sandbox_source_is_path(e->model.image)) {
		err_set(err, ERR_UNSUPPORTED,
			"%s: %s is not an image that another one can be "
			"made of",
			e->name, e->model.image);
		return err_hint(err, "`msb load` makes an image of a directory");
	}
	if (reference_normalise(e->model.image, base, NULL) < 0 || !str_eq(own, base))
		return 0;
	err_set(err, ERR_USAGE, "%s: the image would take the name of the one it is made of",
		e->name);
	return err_hint(err, "--tag gives it another one");
}

/* ---- an entry of sandboxes ---- */

static int build_sandbox(struct build *b, struct project_sandbox *e, const char *tag,
			 struct err *err)
{
	cleanup_project_view struct project_view v = {0};
	cleanup_project_disk struct project_disk disk = {0};
	cleanup_wishes struct wishes w = {0};
	struct project_at *at = b->at;
	int r;

	if (e->model.spec.root != SANDBOX_ROOT_DISK) {
		err_set(err, ERR_UNSUPPORTED,
			"%s keeps what is written in it in memory or on a disk of its own",
			e->name);
		return err_hint(err, "an image is made of what has the usual disk");
	}
	if (at->home.dir) {
		r = project_look(at->store, &at->p, &at->home, e, &v, err);
		if (r < 0)
			return r;
	}
	if (v.state == PROJECT_RUNNING) {
		err_set(err, EBUSY, "%s runs, and its disk is not at rest", e->name);
		return err_hint(err, "stop it first: msb down %s", e->name);
	}
	r = at->home.dir ? project_disk_read(&at->home, e->name, &disk, err) : -ERR_NOT_FOUND;
	if (r == -ERR_NOT_FOUND) {
		err_set(err, r, "nothing was written in %s yet", e->name);
		return err_hint(err,
				"`msb up -d %s` starts it; or describe the image under "
				"\"builds\"",
				e->name);
	}
	if (r == 0)
		r = take_wishes(e, &w, err);
	/* What it lies on is what counts, not what the file says meanwhile. */
	return r < 0 ? r : commit(b, e, tag, disk.id, disk.path, &e->model.spec, &w, err);
}

/* ---- an entry of builds ---- */

static int run_step(const struct build *b, struct sandbox *sb, const struct project_step *step,
		    struct err *err)
{
	const char *shell = sandbox_get_spec(sb)->shell;
	cleanup_strv struct strv argv = {0};
	struct attach attach = {.start = {.argv = &argv}, .name = sandbox_name(sb)};
	int died, r = strv_add(&argv, shell ? shell : "/bin/sh");

	if (r == 0)
		r = strv_add(&argv, "-ec");
	if (r == 0)
		r = strv_add(&argv, step->script);
	if (r < 0)
		return no_memory(err);
	if (!b->a->quiet)
		fprintf(stderr, "%sstep %s%s\n", cli_bold(stderr), step->name, cli_reset(stderr));
	r = attach.fd = sandbox_connect(sb, err);
	if (r >= 0)
		r = attach_run(&attach, &died, err);
	if (r > 0)
		return err_set(err, ERR_GUEST, "step %s ended with %d", step->name, r);
	return r < 0 ? err_wrap(err, "step %s", step->name) : 0;
}

/* Their output is for a person, and they get no input. */
static int run_steps(const struct build *b, struct sandbox *sb, const struct project_sandbox *e,
		     struct err *err)
{
	cleanup_close int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
	cleanup_close int out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	int r = 0;

	(void)fflush(stdout);
	if (in < 0 || out < 0 || dup2(in, STDIN_FILENO) < 0 ||
	    dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
		return err_errno(err, "cannot set up the standard streams");
	for (size_t i = 0; i < e->nsteps && r == 0; i++)
		r = run_step(b, sb, &e->steps[i], err);
	if (dup2(out, STDOUT_FILENO) < 0 && r == 0)
		r = err_errno(err, "cannot restore standard output");
	return r;
}

/* Run the steps in a sandbox on @disk, until that is at rest again. */
static int make(const struct build *b, struct project_sandbox *e, const char *base,
		const char *disk, struct err *err)
{
	const struct sandbox_open how = {0};
	struct sandbox_spec *spec = &e->model.spec;
	struct sandbox *sb = NULL;
	int r;

	free(spec->root_file);
	spec->root_file = str_fmt("%s:format=raw", disk);
	if (!spec->root_file)
		return no_memory(err);
	spec->root = SANDBOX_ROOT_FILE;
	spec->root_size = 0;
	spec->root_asked = true;
	r = sandbox_open_how(&sb, b->at->store, spec, base, &how, err);
	cli_busy(b->a->quiet, "starting %s", e->name);
	if (r == 0)
		r = start(b, sb, err);
	cli_busy_end();
	if (r == 0)
		r = run_steps(b, sb, e, err);
	if (r == 0)
		r = sandbox_end(sb, err);
	sandbox_free(sb);
	return r;
}

static int build_fresh(struct build *b, struct project_sandbox *e, const char *tag, struct err *err)
{
	cleanup_image_info struct image_info base = IMAGE_INFO_INIT;
	cleanup_project_disk struct project_disk disk = {0};
	cleanup_free char *name = str_fmt(BUILD_DISK "%s", e->name);
	cleanup_spec struct sandbox_spec like;
	cleanup_wishes struct wishes w = {0};
	struct project_at *at = b->at;
	int r = like_it(&e->model.spec, &like, err);

	if (r == 0 && !name)
		r = no_memory(err);
	if (r == 0 && e->model.spec.root != SANDBOX_ROOT_DISK)
		r = err_set(err, ERR_USAGE, "a build is made on a disk: it can only have a size");
	if (r == 0)
		r = take_wishes(e, &w, err);
	if (r == 0)
		r = cli_project_pull(at, e, NULL, b->a->quiet, err);
	if (r == 0)
		r = image_find(at->store, e->model.image, &base, err);
	/* Of one that was killed. */
	if (r >= 0)
		r = project_disk_remove(&at->home, name, err);
	if (r == 0)
		r = project_disk_make(&at->home, at->store, name, e->model.image, base.id,
				      e->model.spec.root_size, &disk, err);
	if (r == 0)
		r = make(b, e, base.id, disk.path, err);
	if (r == 0)
		r = commit(b, e, tag, base.id, disk.path, &like, &w, err);
	if (name)
		(void)project_disk_remove(&at->home, name, NULL);
	return r;
}

/* After what it depends on, unless that was made already. */
static int build_all(struct build *b, struct project_sandbox *e, const char *asked, struct err *err)
{
	const struct project *p = &b->at->p;
	cleanup_free char *tag = NULL;
	int r;

	if (b->done[e - p->v])
		return 0;
	b->done[e - p->v] = true;
	r = choose_tag(e, asked, &tag, err);
	for (size_t i = 0; i < e->depends.n && e->build && r == 0; i++)
		r = build_all(b, project_get(p, e->depends.v[i].name, true), NULL, err);
	if (r == 0)
		r = e->build ? build_fresh(b, e, tag, err) : build_sandbox(b, e, tag, err);
	if (r < 0)
		return err_wrap(err, "%s", e->name);
	puts(tag);
	(void)fflush(stdout);
	return 0;
}

static int find(const struct project *p, const char *name, struct project_sandbox **ret,
		struct err *err)
{
	*ret = project_get(p, name, true);
	return *ret ? 0 : project_want(p, name, ret, err);
}

static int signals_fd(struct err *err)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGQUIT);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? err_errno(err, "cannot receive signals") : fd;
}

static int build(struct cli *cli, int argc, char **argv)
{
	cleanup_project_at struct project_at at = PROJECT_AT_INIT;
	cleanup_words struct opt_words words = {0};
	cleanup_free bool *done = NULL;
	cleanup_close int stop = -1;
	struct build_args a = {0};
	struct build b = {.a = &a, .at = &at};
	struct project_sandbox *e = NULL;
	struct err err = ERR_INIT;
	bool made = false;
	int code, r;

	if (cli_parse_operands(cli, &a, argc, argv, 1, 1, &words, &code))
		return code;
	attach_block_signals();
	(void)prctl(PR_SET_CHILD_SUBREAPER, 1);
	r = stop = b.stop = signals_fd(&err);
	if (r >= 0)
		r = cli_project_open(a.file, PROJECT_LOCK, &at, &err);
	if (r == 0)
		r = find(&at.p, words.words[0], &e, &err);
	done = r == 0 ? calloc(at.p.n, sizeof(*done)) : NULL;
	b.done = done;
	if (r == 0 && !done)
		r = no_memory(&err);
	if (r == 0 && e->build && !at.home.dir) {
		r = project_home_open(at.p.dir, at.p.config, true, &at.home, &err);
		made = r == 0;
		if (r == 0)
			r = project_home_lock(&at.home, &err);
	}
	if (r == 0)
		r = build_all(&b, e, a.tag, &err);
	/* Builds keep nothing in it. */
	if (made)
		(void)project_home_remove(&at.home, NULL);
	attach_reap();
	if (r < 0)
		return attach_pending_signal() ? EXIT_SIGNAL + attach_pending_signal()
					       : cli_fail(&err, EXIT_FAILURE);
	return cli_finish();
}

const struct verb verb_build = {
	.name = "build",
	.group = "Projects",
	.args = "[OPTIONS] ENTRY",
	.summary = "Make an image of a project's entry",
	.details =
		"Of an entry of `builds`, by running its steps in a sandbox that is thrown away "
		"afterwards,\n"
		"after the builds it depends on. Where there is no such build, of a sandbox as it "
		"is: what\n"
		"was written in it becomes a layer above those of its image. It has to be stopped.",
	.examples = "msb build tools  # as tools:latest\n"
		    "msb build web -t shop/web:1  # what was installed in web",
	.opts = build_opts,
	.nopts = ARRAY_SIZE(build_opts),
	.run = build,
};
