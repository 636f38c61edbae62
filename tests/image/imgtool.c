/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drives the image library from the command line, for the tests:
 *
 *	imgtool HOME load INPUT [TAG...]    ids and references of what was loaded
 *	imgtool HOME ls                     all images
 *	imgtool HOME extents REF            PATH OFFSET BLOCKS of the disk
 *	imgtool HOME device REF FILE        assemble the disk into FILE
 *	imgtool HOME rm REF [force]
 *	imgtool HOME verify REF
 *	imgtool HOME use SANDBOX REF | unuse SANDBOX
 *	imgtool HOME find REF               the path of `msb run`: open, one SELECT
 *	imgtool HOME bootstrap SUITE TAG [PACKAGE...]
 *	imgtool HOME gc
 *	imgtool HOME tar FILE               its entries as the tar reader sees them, names in hex
 *
 * Exit code 0, or 1 with "CODE: message" and "hint: ..." on standard error.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "image/digest.h"
#include "image/image.h"
#include "image/stream.h"
#include "tree/tar.h"
#include "store/store.h"

static void show(const struct image_info *i)
{
	printf("%s arch=%s size=%llu stored=%llu blocks=%llu", i->id, i->config.architecture,
	       (unsigned long long)i->size, (unsigned long long)i->stored,
	       (unsigned long long)i->blocks);
	for (char **p = i->references; *p; p++)
		printf(" %s", *p);
	printf("\n");
}

static int show_list(int r, const struct image_list *l)
{
	for (size_t i = 0; r >= 0 && i < l->count; i++)
		show(&l->items[i]);
	return r;
}

static void progress(void *arg, const struct image_progress *p)
{
	(void)arg;
	if (getenv("IMGTOOL_PROGRESS"))
		fprintf(stderr, "stage %d layer %u/%u %llu/%llu %s\n", p->stage, p->layer,
			p->layers, (unsigned long long)p->done, (unsigned long long)p->total,
			p->text);
}

static int do_load(struct store *s, char **v, struct err *err)
{
	cleanup_image_list struct image_list l = {0};
	struct image_load_options o = {.progress = progress};

	if (v[1])
		o.tags = (const char *const *)v + 1;
	return show_list(image_load(s, v[0], &o, &l, err), &l);
}

static int do_ls(struct store *s, char **v, struct err *err)
{
	cleanup_image_list struct image_list l = {0};

	(void)v;
	return show_list(image_list(s, &l, err), &l);
}

static int do_find(struct store *s, char **v, struct err *err)
{
	cleanup_image_info struct image_info i = IMAGE_INFO_INIT;
	int r = image_find(s, v[0], &i, err);

	if (r >= 0)
		show(&i);
	return r;
}

static int do_extents(struct store *s, char **v, struct err *err)
{
	cleanup_image_info struct image_info i = IMAGE_INFO_INIT;
	int r = image_find(s, v[0], &i, err);

	for (size_t k = 0; r >= 0 && k < i.extent_count; k++)
		printf("%s %llu %llu\n", i.extents[k].path,
		       (unsigned long long)i.extents[k].file_offset,
		       (unsigned long long)i.extents[k].blocks);
	return r;
}

static int do_device(struct store *s, char **v, struct err *err)
{
	cleanup_image_info struct image_info i = IMAGE_INFO_INIT;
	cleanup_close int out = -1;
	uint64_t at = 0;
	int r = image_find(s, v[0], &i, err);

	if (r < 0)
		return r;
	out = open(v[1], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (out < 0)
		return err_errno(err, "%s", v[1]);
	for (size_t k = 0; k < i.extent_count; k++) {
		cleanup_close int in = open(i.extents[k].path, O_RDONLY | O_CLOEXEC);
		loff_t from = (loff_t)i.extents[k].file_offset, to = (loff_t)at;
		uint64_t left = i.extents[k].blocks * IMAGE_BLOCK;

		if (in < 0)
			return err_errno(err, "%s", i.extents[k].path);
		at += left;
		while (left) {
			ssize_t n = copy_file_range(in, &from, out, &to, left, 0);

			if (n <= 0)
				return err_errno(err, "copy %s", i.extents[k].path);
			left -= (uint64_t)n;
		}
	}
	return ftruncate(out, (off_t)at) < 0 ? err_errno(err, "%s", v[1]) : 0;
}

static int do_rm(struct store *s, char **v, struct err *err)
{
	struct image_removed res = {0};
	int r = image_remove(s, v[0], v[1] != NULL, &res, err);

	if (r >= 0)
		printf("removed %s freed=%llu busy=%d\n", res.id ? res.id : "-",
		       (unsigned long long)res.bytes, res.busy);
	image_removed_done(&res);
	return r;
}

static void note_damage(void *arg, enum image_verify_event event, const char *what,
			const struct err *err)
{
	struct err *first = arg;

	(void)what;
	if (event == IMAGE_VERIFY_DAMAGED && !first->code)
		*first = *err;
}

static int do_verify(struct store *s, char **v, struct err *err)
{
	struct image_verified res = {0};
	struct err first = ERR_INIT;
	int r = image_verify(s, (const char *const *)v, note_damage, &first, &res, err);

	if (first.code)
		return err_copy(err, &first);
	if (r >= 0)
		printf("mended=%llu\n", (unsigned long long)res.mended);
	return r;
}

static int do_use(struct store *s, char **v, struct err *err)
{
	cleanup_image_info struct image_info i = IMAGE_INFO_INIT;
	int r = image_find(s, v[1], &i, err);

	return r < 0 ? r : store_use_image(s, v[0], i.id, err);
}

static int do_unuse(struct store *s, char **v, struct err *err)
{
	return store_unuse_image(s, v[0], err);
}

static int do_bootstrap(struct store *s, char **v, struct err *err)
{
	cleanup_image_info struct image_info i = IMAGE_INFO_INIT;
	struct image_bootstrap_options o = {
		.tag = v[1], .source_date_epoch = -1, .progress = progress};
	int r;

	o.include = (const char *const *)v + 2;
	r = image_bootstrap(s, v[0], &o, &i, err);
	if (r >= 0)
		show(&i);
	return r;
}

static int do_gc(struct store *s, char **v, struct err *err)
{
	struct store_gc_result res;
	int r = store_gc(s, &res, err);

	(void)v;
	if (r >= 0)
		printf("files=%llu busy=%d\n", (unsigned long long)res.files, res.busy);
	return r;
}

static void show_hex(const void *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		printf("%02x", ((const uint8_t *)p)[i]);
}

/* Digest of the contents, holes filled. */
static int contents(struct tar *t, const struct tar_entry *e, struct digest *ret, struct err *err)
{
	static const uint8_t zero[4096];
	cleanup_hasher struct hasher h = {0};
	uint64_t at = 0, off = 0;
	const uint8_t *p = NULL;
	size_t n = 0;
	int r = hasher_init(&h, err);

	while (r >= 0) {
		r = tar_data(t, &p, &n, &off, err);
		for (uint64_t end = r > 0 ? off : e->size; r >= 0 && at < end;) {
			size_t piece = (size_t)MIN(end - at, (uint64_t)sizeof(zero));

			hasher_add(&h, zero, piece);
			at += piece;
		}
		if (r <= 0)
			break;
		hasher_add(&h, p, n);
		at += n;
	}
	return r < 0 ? r : hasher_finish(&h, ret, err);
}

static int do_tar(struct store *s, char **v, struct err *err)
{
	cleanup_close int fd = open(v[0], O_RDONLY | O_CLOEXEC);
	cleanup_stream struct stream *st = NULL;
	cleanup_tar struct tar *t = NULL;
	struct stream_options o = {.fd = fd, .size = UINT64_MAX};
	struct tar_entry e;
	int r;

	(void)s;
	if (fd < 0)
		return err_errno(err, "%s", v[0]);
	r = stream_open(&st, &o, err);
	if (r >= 0)
		r = tar_open(&t, stream_next, NULL, st, err);
	while (r >= 0 && (r = tar_next(t, &e, err)) > 0) {
		struct digest d = {0};
		char hex[65];

		printf("%d %o %u %u %lld %u %u %u %llu path:", e.type, e.mode, e.uid, e.gid,
		       (long long)e.mtime, e.mtime_ns, e.major, e.minor,
		       e.type == TAR_FILE ? (unsigned long long)e.size : 0ull);
		show_hex(e.path, strlen(e.path));
		printf(" link:");
		show_hex(e.link, strlen(e.link));
		for (size_t i = 0; i < e.xattr_count; i++) {
			printf(" %s=", e.xattrs[i].name);
			show_hex(e.xattrs[i].value, e.xattrs[i].len);
		}
		if (e.type == TAR_FILE)
			r = contents(t, &e, &d, err);
		printf(" %s\n", digest_hex(&d, hex));
	}
	return r;
}

static const struct {
	const char *name;
	int args;
	int (*run)(struct store *s, char **v, struct err *err);
} verbs[] = {
	{"load", 1, do_load},	  {"ls", 0, do_ls},	  {"extents", 1, do_extents},
	{"device", 2, do_device}, {"rm", 1, do_rm},	  {"verify", 1, do_verify},
	{"use", 2, do_use},	  {"unuse", 1, do_unuse}, {"find", 1, do_find},
	{"gc", 0, do_gc},	  {"tar", 1, do_tar},	  {"bootstrap", 2, do_bootstrap},
};

int main(int argc, char **argv)
{
	cleanup_store struct store *s = NULL;
	struct err err = ERR_INIT;
	int r;

	for (size_t i = 0; argc >= 3 && i < ARRAY_SIZE(verbs); i++) {
		if (!str_eq(argv[2], verbs[i].name) || argc - 3 < verbs[i].args)
			continue;
		r = store_open(&s, argv[1], &err);
		if (r >= 0)
			r = verbs[i].run(s, argv + 3, &err);
		if (r >= 0)
			return 0;
		fprintf(stderr, "%s: %s\n", err_name(err.code), err.msg);
		if (err.hint[0])
			fprintf(stderr, "hint: %s\n", err.hint);
		return 1;
	}
	fprintf(stderr, "usage: imgtool HOME VERB ARGS...\n");
	return 2;
}
