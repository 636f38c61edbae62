/* SPDX-License-Identifier: Apache-2.0 */
/* msb image …, msb load: the images there are. */
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/pull.h"
#include "image/image.h"
#include "store/store.h"

enum { SHORT_ID = 12 }; /* hexadecimal digits, as Docker shows them */

static const char *short_id(const char *id, char b[SHORT_ID + 1])
{
	const char *hex = strchr(id, ':');

	snprintf(b, SHORT_ID + 1, "%s", hex ? hex + 1 : id);
	return b;
}

static json_t *texts(char *const *list)
{
	json_t *a = json_array();

	for (; list && *list; list++)
		json_array_append_new(a, json_string(*list));
	return a;
}

/* Progress on a terminal: one line that rewrites itself. */
struct progress {
	bool on;
	unsigned shown; /* per cent */
};

static void show_progress(void *arg, const struct image_progress *p)
{
	static const char *const what[] = {
		[IMAGE_STAGE_READ] = "reading",		[IMAGE_STAGE_LAYER] = "converting",
		[IMAGE_STAGE_LAYER_DONE] = "converted", [IMAGE_STAGE_LAYER_HAVE] = "have",
		[IMAGE_STAGE_MERGE] = "merging",	[IMAGE_STAGE_BOOTSTRAP] = "installing",
		[IMAGE_STAGE_SAVE] = "writing",
	};
	struct progress *state = arg;
	unsigned percent = p->total ? (unsigned)(p->done * 100 / p->total) : 0;

	if (!state->on || ((p->stage == IMAGE_STAGE_LAYER || p->stage == IMAGE_STAGE_SAVE) &&
			   percent == state->shown))
		return;
	state->shown = percent;
	fprintf(stderr, "\r\033[K%s", what[p->stage]);
	if (p->layers)
		fprintf(stderr, " layer %u of %u", p->layer, p->layers);
	if (p->total)
		fprintf(stderr, ", %u%%", percent);
	if (p->stage == IMAGE_STAGE_BOOTSTRAP)
		fprintf(stderr, " %.60s", p->text);
}

static void end_progress(const struct progress *p)
{
	if (p->on)
		fputs("\r\033[K", stderr);
}

/* load */

struct load_args {
	const char *input;
	struct strv tags;
	bool quiet;
};

static const struct opt load_opts[] = {
	{'i', "input", "PATH", "Archive or directory [standard input]", opt_set_text,
	 offsetof(struct load_args, input), 0},
	{'t', "tag", "REFERENCE", "Call the image this (repeatable)", opt_add_text,
	 offsetof(struct load_args, tags), 0},
	{'q', "quiet", NULL, "Show no progress", opt_set_flag, offsetof(struct load_args, quiet),
	 0},
};

static void print_loaded(const struct image_info *i)
{
	char id[SHORT_ID + 1];

	for (char **r = i->references; r && *r; r++)
		printf("%s\n", *r);
	if (!i->references || !i->references[0])
		printf("%s\n", short_id(i->id, id));
}

static int load_into(struct load_args *a, struct err *err)
{
	cleanup_store struct store *store = NULL;
	cleanup_image_list struct image_list l = {0};
	struct progress progress = {.on = !a->quiet && cli_screen(stderr)};
	struct image_load_options o = {
		.tags = a->tags.n ? (const char *const *)a->tags.v : NULL,
		.progress = show_progress,
		.progress_arg = &progress,
	};
	const char *input = a->input ? a->input : "-";
	int r;

	if (str_eq(input, "-") && isatty(STDIN_FILENO)) {
		err_set(err, ERR_USAGE, "there is nothing to load on a terminal");
		return err_hint(err, "name an archive: msb load -i FILE");
	}
	r = store_open(&store, NULL, err);
	if (r == 0)
		r = image_load(store, input, &o, &l, err);
	end_progress(&progress);
	for (size_t i = 0; r >= 0 && i < l.count; i++)
		print_loaded(&l.items[i]);
	return r;
}

static int load(struct cli *cli, int argc, char **argv)
{
	struct load_args a = {0};
	cleanup_words struct opt_words words = {0};
	struct err err = ERR_INIT;
	int code, r;

	if (cli_parse_operands(cli, &a, argc, argv, 0, 0, &words, &code)) {
		strv_done(&a.tags);
		return code;
	}
	r = load_into(&a, &err);
	strv_done(&a.tags);
	return r < 0 ? cli_fail(&err, EXIT_FAILURE) : cli_finish();
}

#define LOAD                                                                                       \
	.name = "load", .group = "Images", .args = "[OPTIONS]",                                    \
	.examples = "docker save alpine | msb load\n"                                              \
		    "msb load -i image.tar -t mine:1.0",                                           \
	.summary = "Load images from an OCI layout or a `docker save` archive", .opts = load_opts, \
	.nopts = ARRAY_SIZE(load_opts), .run = load

const struct verb verb_load = {LOAD};

/* save */

struct save_args {
	const char *output;
	enum image_archive format;
	bool quiet;
};

static int set_archive(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct save_args *a = target;

	static const char *const words[] = {"docker", "oci"};

	(void)o;
	if (!str_eq(value, "docker") && !str_eq(value, "oci"))
		return opt_no_word("archive format", value, words, ARRAY_SIZE(words), err);
	a->format = str_eq(value, "oci") ? IMAGE_ARCHIVE_OCI : IMAGE_ARCHIVE_DOCKER;
	return 0;
}

static const struct opt save_opts[] = {
	{'o', "output", "PATH", "Where to write it [standard output]", opt_set_text,
	 offsetof(struct save_args, output), 0},
	{0, "format", "docker|oci", "What to write [docker]", set_archive, 0, 0},
	{'q', "quiet", NULL, "Show no progress", opt_set_flag, offsetof(struct save_args, quiet),
	 0},
};

static int save_images(const struct save_args *a, const char *const *refs, struct err *err)
{
	cleanup_store struct store *store = NULL;
	cleanup_draft struct io_draft draft = IO_DRAFT_INIT;
	const bool to_stdout = !a->output || str_eq(a->output, "-");
	struct progress progress = {.on = !a->quiet && cli_screen(stderr)};
	struct image_save_options o = {a->format, show_progress, &progress};
	int r;

	if (to_stdout && isatty(STDOUT_FILENO)) {
		err_set(err, ERR_USAGE, "an archive is nothing to look at on a terminal");
		return err_hint(err, "name a file: msb save -o FILE IMAGE");
	}
	r = store_open(&store, NULL, err);
	if (r == 0 && !to_stdout)
		r = io_draft_open(&draft, a->output, err);
	if (r == 0)
		r = image_save(store, refs, &o, to_stdout ? STDOUT_FILENO : draft.fd, err);
	end_progress(&progress);
	return r < 0 || to_stdout ? r : io_draft_keep(&draft, err);
}

static int save(struct cli *cli, int argc, char **argv)
{
	struct save_args a = {0};
	cleanup_words struct opt_words words = {0};
	cleanup_free const char **refs = NULL;
	struct err err = ERR_INIT;
	int code;

	if (cli_parse_operands(cli, &a, argc, argv, 1, SIZE_MAX, &words, &code))
		return code;
	refs = calloc(words.n + 1, sizeof(*refs));
	if (!refs)
		return EXIT_FAILURE;
	memcpy(refs, words.words, words.n * sizeof(*refs));
	/* A reader that goes away is an error like others. */
	signal(SIGPIPE, SIG_IGN);
	return save_images(&a, refs, &err) < 0 ? cli_fail(&err, EXIT_FAILURE) : EXIT_SUCCESS;
}

#define SAVE                                                                                       \
	.name = "save", .group = "Images", .args = "[OPTIONS] IMAGE…",                             \
	.examples = "msb save -o alpine.tar alpine\n"                                              \
		    "msb save --format oci alpine debian | ssh host msb load",                     \
	.summary = "Write images to an archive", .opts = save_opts,                                \
	.nopts = ARRAY_SIZE(save_opts), .run = save

const struct verb verb_save = {SAVE};

/* ls */

struct list_args {
	bool json, quiet;
};

static const struct opt list_opts[] = {
	{0, "format", "json|table", "How to show them [table]", opt_set_format,
	 offsetof(struct list_args, json), 0},
	{'q', "quiet", NULL, "Only references", opt_set_flag, offsetof(struct list_args, quiet), 0},
};

/* One row per reference; an image without any is shown by its id. */
static const char *reference(const struct image_info *i, size_t n)
{
	size_t count = 0;

	while (i->references && i->references[count])
		count++;
	if (n < count)
		return i->references[n];
	return n == 0 ? i->id : NULL;
}

static json_t *list_json(const struct image_list *l)
{
	json_t *out = json_array();
	const char *ref;
	char created[32];

	for (size_t i = 0; i < l->count; i++) {
		const struct image_info *im = &l->items[i];

		for (size_t n = 0; (ref = reference(im, n)); n++)
			json_array_append_new(
				out,
				json_pack("{s:s,s:s,s:I,s:I,s:s,s:s,s:I,s:s}", "reference", ref,
					  "digest",
					  im->manifest_digest[0] ? im->manifest_digest : im->id,
					  "size_bytes", (json_int_t)im->size, "stored_bytes",
					  (json_int_t)im->stored, "architecture",
					  im->config.architecture, "os", im->config.os,
					  "layer_count", (json_int_t)im->layer_count, "created_at",
					  cli_time(im->loaded_at, created)));
	}
	return out;
}

static void list_table(const struct image_list *l)
{
	enum { COLUMNS = 5 };
	struct row {
		char id[SHORT_ID + 1], size[24], age[32];
	};
	cleanup_free struct row *rows = calloc(l->count + 1, sizeof(*rows));
	cleanup_free const char **cells = NULL;
	size_t n = 0, total = 1;
	const char *ref;

	for (size_t i = 0; i < l->count; i++) {
		for (size_t k = 0; reference(&l->items[i], k); k++)
			total++;
	}
	cells = calloc(total * COLUMNS, sizeof(*cells));
	if (!cells || !rows)
		return;
	cells[n++] = "REFERENCE";
	cells[n++] = "IMAGE ID";
	cells[n++] = "SIZE";
	cells[n++] = "ARCH";
	cells[n++] = "CREATED";
	for (size_t i = 0; i < l->count; i++) {
		const struct image_info *im = &l->items[i];

		for (size_t k = 0; (ref = reference(im, k)); k++) {
			cells[n++] = ref;
			cells[n++] = short_id(im->id, rows[i].id);
			cells[n++] = str_size(im->stored, rows[i].size);
			cells[n++] = im->config.architecture;
			cells[n++] = cli_age(im->loaded_at, rows[i].age);
		}
	}
	cli_table(cells, COLUMNS, n / COLUMNS);
}

static int list(struct cli *cli, int argc, char **argv)
{
	struct list_args a = {0};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	cleanup_image_list struct image_list l = {0};
	struct err err = ERR_INIT;
	const char *ref;
	int code;

	if (cli_parse_operands(cli, &a, argc, argv, 0, 0, &words, &code))
		return code;
	if (store_open(&store, NULL, &err) < 0 || image_list(store, &l, &err) < 0)
		return cli_fail(&err, EXIT_FAILURE);
	if (a.json)
		return cli_json(list_json(&l));
	if (a.quiet) {
		for (size_t i = 0; i < l.count; i++) {
			for (size_t k = 0; (ref = reference(&l.items[i], k)); k++)
				puts(ref);
		}
	} else {
		list_table(&l);
	}
	return cli_finish();
}

/* inspect */

static const struct opt inspect_opts[] = {
	{0, "format", "json|table", "How to show it [table]", opt_set_format,
	 offsetof(struct list_args, json), 0},
};

static json_t *inspect_json(const struct image_info *i)
{
	json_t *config = json_loads(i->config_json, 0, NULL), *layers = json_array();
	char created[32];

	for (size_t k = 0; k < i->layer_count; k++) {
		const struct image_layer_info *l = &i->layers[k];

		json_array_append_new(layers, json_pack("{s:s,s:I,s:I,s:I}", "diff_id", l->diff_id,
							"size_bytes", (json_int_t)l->bytes,
							"entries", (json_int_t)l->entries,
							"stored_bytes", (json_int_t)l->stored));
	}
	return json_pack("{s:s,s:s,s:o,s:s,s:s,s:I,s:I,s:I,s:s,s:o,s:o?}", "id", i->id, "digest",
			 i->manifest_digest[0] ? i->manifest_digest : i->id, "references",
			 texts(i->references), "architecture", i->config.architecture, "os",
			 i->config.os, "size_bytes", (json_int_t)i->size, "stored_bytes",
			 (json_int_t)i->stored, "layer_count", (json_int_t)i->layer_count,
			 "created_at", cli_time(i->loaded_at, created), "layers", layers, "config",
			 config);
}

static void print_field(const char *name, const char *value)
{
	if (value && *value)
		printf("%-14s%s\n", name, value);
}

static void print_list(const char *name, char *const *list)
{
	for (; list && *list; list++, name = "")
		printf("%-14s%s\n", name, *list);
}

static void inspect_table(const struct image_info *i)
{
	char size[24], created[32];

	print_field("ID", i->id);
	print_field("Digest", i->manifest_digest);
	print_list("References", i->references);
	printf("%-14s%s/%s\n", "Platform", i->config.os, i->config.architecture);
	print_field("Size", str_size(i->size, size));
	print_field("On disk", str_size(i->stored, size));
	print_field("Loaded", cli_time(i->loaded_at, created));
	print_field("Created", i->config.created);
	print_field("User", i->config.user);
	print_field("Working dir", i->config.workdir);
	print_list("Entrypoint", i->config.entrypoint);
	print_list("Command", i->config.cmd);
	print_list("Environment", i->config.env);
	print_list("Ports", i->config.exposed);
	print_list("Volumes", i->config.volumes);
	print_list("Labels", i->config.labels);
	for (size_t k = 0; k < i->layer_count; k++)
		printf("%-14s%s (%s)\n", k ? "" : "Layers", i->layers[k].diff_id,
		       str_size(i->layers[k].bytes, size));
}

static int inspect(struct cli *cli, int argc, char **argv)
{
	struct list_args a = {0};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	cleanup_image_info struct image_info info = IMAGE_INFO_INIT;
	struct err err = ERR_INIT;
	int code;

	if (cli_parse_operands(cli, &a, argc, argv, 1, 1, &words, &code))
		return code;
	if (store_open(&store, NULL, &err) < 0 ||
	    image_inspect(store, words.words[0], &info, &err) < 0)
		return cli_fail(&err, EXIT_FAILURE);
	if (a.json)
		return cli_json(inspect_json(&info));
	inspect_table(&info);
	return cli_finish();
}

/* rm */

struct rm_args {
	bool force, quiet;
};

static const struct opt rm_opts[] = {
	{'f', "force", NULL, "Also when sandboxes use it: those kept cannot start again",
	 opt_set_flag, offsetof(struct rm_args, force), 0},
	{'q', "quiet", NULL, "Do not say what was removed", opt_set_flag,
	 offsetof(struct rm_args, quiet), 0},
};

/* Files go when nobody writes to the store. */
static const char *freed(uint64_t bytes, bool busy, char b[96])
{
	char size[24];

	if (busy)
		snprintf(b, 96, "its space is freed by the next removal after the present load");
	else
		snprintf(b, 96, "freed %s", str_size(bytes, size));
	return b;
}

static int rm(struct cli *cli, int argc, char **argv)
{
	struct rm_args a = {0};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	struct err err = ERR_INIT;
	int code, failed = 0;

	if (cli_parse_operands(cli, &a, argc, argv, 1, SIZE_MAX, &words, &code))
		return code;
	if (store_open(&store, NULL, &err) < 0)
		return cli_fail(&err, EXIT_FAILURE);
	for (size_t i = 0; i < words.n; i++) {
		struct image_removed gone = {0};
		char text[96];

		err_clear(&err);
		if (image_remove(store, words.words[i], a.force, &gone, &err) < 0) {
			cli_error(&err);
			failed = EXIT_FAILURE;
			continue;
		}
		for (char **r = gone.untagged; !a.quiet && r && *r; r++)
			printf("untagged %s\n", *r);
		if (!a.quiet && gone.id)
			printf("removed %s, %s\n", gone.id, freed(gone.bytes, gone.busy, text));
		image_removed_done(&gone);
	}
	code = cli_finish();
	return failed ? failed : code;
}

#define RM                                                                                         \
	.group = "Images", .args = "[OPTIONS] IMAGE…",                                             \
	.examples = "msb image rm alpine:3.19\n"                                                   \
		    "msb image rm -f old:latest",                                                  \
	.summary = "Remove references and, with the last one, the image", .opts = rm_opts,         \
	.nopts = ARRAY_SIZE(rm_opts), .run = rm

const struct verb verb_rmi = {.name = "rmi", .hidden = true, RM};

/* prune */

struct prune_args {
	bool all, yes, json, quiet;
};

static const struct opt prune_opts[] = {
	{'a', "all", NULL, "Also images that have a name", opt_set_flag,
	 offsetof(struct prune_args, all), 0},
	{'y', "yes", NULL, "Do not ask", opt_set_flag, offsetof(struct prune_args, yes), 0},
	{0, "format", "json|table", "How to say it [table]", opt_set_format,
	 offsetof(struct prune_args, json), 0},
	{'q', "quiet", NULL, "Do not say what was removed", opt_set_flag,
	 offsetof(struct prune_args, quiet), 0},
};

/* 1 if the person agrees. */
static int ask_prune(struct store *s, const struct prune_args *a, struct err *err)
{
	struct image_pruned plan = {0};
	char size[24], answer[16] = "";
	int r;

	if (!isatty(STDIN_FILENO)) {
		err_set(err, ERR_USAGE, "nobody is there to be asked");
		return err_hint(err, "add --yes");
	}
	r = image_prune(s, a->all, true, &plan, err);
	if (r < 0)
		return r;
	for (char **p = plan.images; *p; p++)
		fprintf(stderr, "%s\n", *p);
	fprintf(stderr, "Remove %s and free %s? [y/N] ", plan.images[0] ? "these" : "leftovers",
		str_size(plan.bytes, size));
	image_pruned_done(&plan);
	if (!fgets(answer, sizeof(answer), stdin))
		return 0;
	return answer[0] == 'y' || answer[0] == 'Y';
}

static int prune(struct cli *cli, int argc, char **argv)
{
	struct prune_args a = {0};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	struct image_pruned gone = {0};
	struct err err = ERR_INIT;
	char text[96];
	int code, r;

	if (cli_parse_operands(cli, &a, argc, argv, 0, 0, &words, &code))
		return code;
	r = store_open(&store, NULL, &err);
	if (r >= 0 && !a.yes)
		r = ask_prune(store, &a, &err);
	if (r == 0 && !a.yes)
		return EXIT_FAILURE;
	cli_busy(a.quiet, "removing what nothing needs");
	if (r >= 0)
		r = image_prune(store, a.all, false, &gone, &err);
	cli_busy_end();
	if (r < 0)
		return cli_fail(&err, r == -ERR_USAGE ? EXIT_USAGE : EXIT_FAILURE);
	if (a.json) {
		code = cli_json(json_pack("{s:o,s:I,s:I,s:b}", "removed", texts(gone.images),
					  "files", (json_int_t)gone.files, "freed_bytes",
					  (json_int_t)gone.bytes, "busy", gone.busy));
	} else {
		for (char **p = gone.images; !a.quiet && *p; p++)
			printf("removed %s\n", *p);
		if (!a.quiet)
			printf("%s\n", freed(gone.bytes, gone.busy, text));
		code = cli_finish();
	}
	image_pruned_done(&gone);
	return code;
}

/* verify */

struct verify_args {
	bool json, quiet;
};

static const struct opt verify_opts[] = {
	{0, "format", "json|table", "How to say it [table]", opt_set_format,
	 offsetof(struct verify_args, json), 0},
	{'q', "quiet", NULL, "Only say what is wrong", opt_set_flag,
	 offsetof(struct verify_args, quiet), 0},
};

struct verify_show {
	const struct verify_args *a;
	struct progress progress;
	json_t *faults;
};

static void show_verify(void *arg, enum image_verify_event event, const char *what,
			const struct err *err)
{
	struct verify_show *s = arg;

	if (event == IMAGE_VERIFY_IMAGE || event == IMAGE_VERIFY_LAYER) {
		if (s->progress.on)
			fprintf(stderr, "\r\033[Kchecking %.60s", what);
		return;
	}
	end_progress(&s->progress);
	if (s->a->json)
		json_array_append_new(s->faults,
				      json_pack("{s:s,s:b,s:s,s:s}", "what", what, "mended",
						event == IMAGE_VERIFY_MENDED, "message",
						err ? err->msg : "", "hint", err ? err->hint : ""));
	else if (event == IMAGE_VERIFY_DAMAGED)
		cli_error(err);
	else
		printf("mended the metadata of %s\n", what);
}

static int verify(struct cli *cli, int argc, char **argv)
{
	struct verify_args a = {0};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	cleanup_free const char **refs = NULL;
	struct verify_show show = {.a = &a};
	struct image_verified res = {0};
	struct err err = ERR_INIT;
	int code, r;

	if (cli_parse_operands(cli, &a, argc, argv, 0, SIZE_MAX, &words, &code))
		return code;
	refs = calloc(words.n + 1, sizeof(*refs));
	if (!refs)
		return EXIT_FAILURE;
	memcpy(refs, words.words, words.n * sizeof(*refs));
	show.progress.on = !a.quiet && cli_screen(stderr);
	show.faults = json_array();
	r = store_open(&store, NULL, &err);
	if (r >= 0)
		r = image_verify(store, words.n ? refs : NULL, show_verify, &show, &res, &err);
	end_progress(&show.progress);
	if (r < 0 && !res.damaged) {
		json_decref(show.faults);
		return cli_fail(&err, EXIT_FAILURE);
	}
	if (a.json) {
		code = cli_json(json_pack("{s:I,s:I,s:I,s:I,s:o}", "images", (json_int_t)res.images,
					  "layers", (json_int_t)res.layers, "mended",
					  (json_int_t)res.mended, "damaged",
					  (json_int_t)res.damaged, "faults", show.faults));
	} else {
		json_decref(show.faults);
		if (!a.quiet)
			printf("%llu image%s, %llu layer%s: %s\n", (unsigned long long)res.images,
			       res.images == 1 ? "" : "s", (unsigned long long)res.layers,
			       res.layers == 1 ? "" : "s",
			       res.damaged  ? "damaged"
			       : res.mended ? "mended"
					    : "sound");
		code = cli_finish();
	}
	return res.damaged ? EXIT_FAILURE : code;
}

/* bootstrap */

struct bootstrap_args {
	const char *tag, *mirror;
	struct strv include;
	bool quiet;
};

/* Package names, separated by commas. */
static int add_packages(const struct opt *o, void *target, const char *value, struct err *err)
{
	struct bootstrap_args *a = target;
	cleanup_free char *copy = strdup(value);
	char *save = NULL;

	(void)o;
	if (!copy)
		return err_set(err, ENOMEM, "out of memory");
	for (char *p = strtok_r(copy, ", ", &save); p; p = strtok_r(NULL, ", ", &save)) {
		if (strv_add(&a->include, p) < 0)
			return err_set(err, ENOMEM, "out of memory");
	}
	return 0;
}

static const struct opt bootstrap_opts[] = {
	{0, "include", "PACKAGE[,…]", "Install these as well (repeatable)", add_packages, 0, 0},
	{'t', "tag", "REFERENCE", "Call the image this [the suite]", opt_set_text,
	 offsetof(struct bootstrap_args, tag), 0},
	{0, "mirror", "URL", "Where packages come from [the host's own sources]", opt_set_text,
	 offsetof(struct bootstrap_args, mirror), 0},
	{'q', "quiet", NULL, "Show no progress", opt_set_flag,
	 offsetof(struct bootstrap_args, quiet), 0},
};

static int bootstrap_into(const struct bootstrap_args *a, const char *suite, struct err *err)
{
	cleanup_store struct store *store = NULL;
	cleanup_image_info struct image_info info = IMAGE_INFO_INIT;
	struct progress progress = {.on = !a->quiet && cli_screen(stderr)};
	struct image_bootstrap_options o = {
		.tag = a->tag,
		.include = a->include.n ? (const char *const *)a->include.v : NULL,
		.mirror = a->mirror,
		.source_date_epoch = -1,
		.progress = show_progress,
		.progress_arg = &progress,
	};
	int r = store_open(&store, NULL, err);

	if (r == 0)
		r = image_bootstrap(store, suite, &o, &info, err);
	end_progress(&progress);
	if (r >= 0)
		print_loaded(&info);
	return r;
}

static int bootstrap(struct cli *cli, int argc, char **argv)
{
	struct bootstrap_args a = {0};
	cleanup_words struct opt_words words = {0};
	struct err err = ERR_INIT;
	int code, r;

	if (cli_parse_operands(cli, &a, argc, argv, 1, 1, &words, &code)) {
		strv_done(&a.include);
		return code;
	}
	r = bootstrap_into(&a, words.words[0], &err);
	strv_done(&a.include);
	return r < 0 ? cli_fail(&err, EXIT_FAILURE) : cli_finish();
}

static const struct verb image_verbs[] = {
	{
		.name = "list",
		.alias = "ls",
		.args = "[OPTIONS]",
		.summary = "List the images",
		.examples = "msb image ls\n"
			    "msb image ls --format json",
		.opts = list_opts,
		.nopts = ARRAY_SIZE(list_opts),
		.run = list,
	},
	{
		.name = "inspect",
		.args = "[OPTIONS] IMAGE",
		.summary = "Show everything about an image",
		.examples = "msb image inspect alpine\n"
			    "msb image inspect alpine --format json | jq .config",
		.opts = inspect_opts,
		.nopts = ARRAY_SIZE(inspect_opts),
		.run = inspect,
	},
	{.name = "remove", .alias = "rm", RM},
	{
		.name = "prune",
		.args = "[OPTIONS]",
		.summary = "Remove images that nothing needs",
		.details = "These are images without a name and without a sandbox; with --all also "
			   "those with a name.",
		.examples = "msb image prune\n"
			    "msb image prune --all --yes",
		.opts = prune_opts,
		.nopts = ARRAY_SIZE(prune_opts),
		.run = prune,
	},
	{
		.name = "verify",
		.args = "[OPTIONS] [IMAGE…]",
		.summary = "Compare images with their checksums and mend what can be mended",
		.details = "Without IMAGE, all of them and the database. What cannot be mended is "
			   "set aside,\nand loading or pulling the image again mends it.",
		.examples = "msb image verify\n"
			    "msb image verify alpine",
		.opts = verify_opts,
		.nopts = ARRAY_SIZE(verify_opts),
		.run = verify,
	},
	{LOAD},
	{SAVE},
	{
		.name = "pull",
		.args = "[OPTIONS] REFERENCE",
		.summary = "Fetch an image from a registry",
		.details = PULL_DETAILS,
		.examples = "msb image pull alpine",
		.opts = pull_opts,
		.nopts = PULL_OPTS,
		.run = pull_run,
	},
	{
		.name = "bootstrap",
		.args = "[OPTIONS] SUITE",
		.summary = "Make an image from a distribution's own packages",
		.details = "SUITE is like debian:bookworm. No image registry is asked.",
		.examples = "msb image bootstrap debian:bookworm\n"
			    "msb image bootstrap debian:bookworm --include python3-minimal,git -t "
			    "tools",
		.opts = bootstrap_opts,
		.nopts = ARRAY_SIZE(bootstrap_opts),
		.run = bootstrap,
	},
};

#define IMAGE                                                                                      \
	.group = "Images", .args = "COMMAND",                                                      \
	.summary = "List, inspect, pull, load, save, check, make and remove images",               \
	.subs = image_verbs, .nsubs = ARRAY_SIZE(image_verbs)

const struct verb verb_image = {.name = "image", IMAGE};
const struct verb verb_images = {.name = "images", .hidden = true, IMAGE};
