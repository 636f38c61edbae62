/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading images from a source.
 *
 * Holding the store's run lock shared, so that nothing made here is collected before it is in the
 * database: find the images; convert the layers that the store lacks, several at a time, each
 * under its own lock, so that two loads of one layer do the work once; merge each image under its
 * lock; register it. What a failure leaves are whole
 * layers that no row names, collected at once; what a crash leaves is used by the next load or
 * collected by the next store_gc().
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "image/catalog.h"
#include "image/convert.h"
#include "image/limits.h"
#include "image/load.h"
#include "image/reference.h"
#include "image/stream.h"

/* Each conversion is two busy processes and hashing, and about 7 MiB. */
#define LOAD_JOBS_MAX	 4u
#define LOAD_FETCHES_MAX 16u

struct job {
	const struct oci_layer *layer;
	struct layer_info info;
};

struct load {
	struct store *store;
	const struct source *src;
	const struct image_load_options *o;
	struct image_limits limits;
	struct job *jobs;
	unsigned count;

	/* Guards what follows; held for moments, and while progress is reported. */
	pthread_mutex_t lock;
	unsigned next;
	struct err err; /* the first failure; stops the others between layers */
};

static void report(struct load *l, enum image_stage stage, unsigned which, uint64_t done,
		   uint64_t total, const char *text)
{
	struct image_progress p = {stage, which, l->count, done, total, text};

	if (!l->o->progress)
		return;
	pthread_mutex_lock(&l->lock);
	l->o->progress(l->o->progress_arg, &p);
	pthread_mutex_unlock(&l->lock);
}

struct layer_report {
	struct load *load;
	unsigned which;
	uint64_t total;
	const char *text;
};

static void report_layer(void *arg, uint64_t done)
{
	const struct layer_report *r = arg;

	report(r->load, IMAGE_STAGE_LAYER, r->which, done, r->total, r->text);
}

static int check_result(const struct oci_layer *l, const struct stream_result *res, struct err *err)
{
	char want[IMAGE_DIGEST_LEN + 1], have[IMAGE_DIGEST_LEN + 1];

	if (l->has_digest && !digest_equal(&l->digest, &res->in_digest)) {
		err_set(err, ERR_CORRUPT, "it is damaged: its digest is %s instead of %s",
			digest_text(&res->in_digest, have), digest_text(&l->digest, want));
		return err_hint(err, "fetch or copy the image again");
	}
	if (!digest_equal(&l->diff_id, &res->out_digest)) {
		err_set(err, ERR_CORRUPT,
			"its contents have the digest %s, the configuration says %s",
			digest_text(&res->out_digest, have), digest_text(&l->diff_id, want));
		return err_hint(err, "fetch or copy the image again");
	}
	return 0;
}

static int convert(struct load *l, unsigned which, const struct source_blob *blob, const char *text,
		   struct err *err)
{
	struct job *job = &l->jobs[which];
	cleanup_layer_draft struct layer_draft draft = {0};
	cleanup_stream struct stream *st = NULL;
	struct layer_report progress = {l, which, blob->size == UINT64_MAX ? 0 : blob->size, text};
	struct stream_options so = {
		.fd = blob->fd,
		.offset = blob->offset,
		.size = blob->feed ? UINT64_MAX : blob->size,
		.hash_input = true,
		.hash_output = true,
		.progress = l->o->progress ? report_layer : NULL,
		.progress_arg = &progress,
	};
	struct layer_made made;
	struct stream_result res;
	int r;

	if (job->layer->size != UINT64_MAX && job->layer->size != blob->size)
		return err_set(err, ERR_CORRUPT, "it has %llu bytes, the manifest says %llu",
			       (unsigned long long)blob->size,
			       (unsigned long long)job->layer->size);
	r = layer_draft_new(&draft, l->store, err);
	if (r >= 0)
		r = stream_open(&st, &so, err);
	if (r < 0)
		return r;
	r = convert_layer(&draft, &l->limits, stream_fill, st, &made, err);
	if (r == -ERR_CORRUPT) {
		/* Damage shows as nonsense in the tar first; the digest tells the better story. */
		struct stream_result all;
		struct err e = ERR_INIT;

		if (stream_finish(st, l->limits.layer_bytes, &all, &e) >= 0 &&
		    check_result(job->layer, &all, &e) < 0)
			err_copy(err, &e);
		return r;
	}
	if (r >= 0)
		r = stream_finish(st, l->limits.layer_bytes, &res, err);
	if (r >= 0)
		r = check_result(job->layer, &res, err);
	if (r >= 0)
		r = layer_publish(&draft, &made, &job->layer->diff_id, &job->info, err);
	if (r < 0)
		return r;
	report(l, IMAGE_STAGE_LAYER_DONE, which, res.out, res.out, text);
	return 0;
}

/* Layer @which into the store, whoever makes it. */
static int ensure_layer(struct load *l, unsigned which, struct err *err)
{
	struct job *job = &l->jobs[which];
	cleanup_lock struct store_lock lock = STORE_LOCK_INIT;
	cleanup_layer struct layer_reader *have = NULL;
	struct source_blob blob;
	char hex[65], text[IMAGE_DIGEST_LEN + 1];
	int r = store_lock(l->store, digest_hex(&job->layer->diff_id, hex), &lock, err);

	if (r < 0)
		return r;
	digest_text(&job->layer->diff_id, text);
	r = layer_open(&have, l->store, &job->layer->diff_id, err);
	if (r >= 0 && !l->o->again) {
		job->info = *layer_info(have);
		report(l, IMAGE_STAGE_LAYER_HAVE, which, 0, 0, text);
		return 0;
	}
	/* Damaged or of an older format: made anew, in place. */
	if (r < 0 && r != -ENOENT && r != -ERR_CORRUPT && r != -ERR_UNSUPPORTED)
		return r;
	err_clear(err);
	r = source_find(l->src, job->layer->name, &blob, err);
	if (r == -ENOENT)
		return err_set(err, ERR_CORRUPT, "it is missing: %.200s", job->layer->name);
	if (r < 0)
		return r;
	r = convert(l, which, &blob, text, err);
	return source_release(l->src, &blob, r, err);
}

static void *load_thread(void *arg)
{
	struct load *l = arg;

	for (;;) {
		struct err err = ERR_INIT;
		unsigned which;
		bool stop;

		pthread_mutex_lock(&l->lock);
		which = l->next;
		stop = which >= l->count || l->err.code;
		if (!stop)
			l->next++;
		pthread_mutex_unlock(&l->lock);
		if (stop)
			return NULL;
		if (ensure_layer(l, which, &err) < 0) {
			err_wrap(&err, "layer %u of %u", which + 1, l->count);
			pthread_mutex_lock(&l->lock);
			if (!l->err.code)
				l->err = err;
			pthread_mutex_unlock(&l->lock);
			source_abort(l->src);
		}
	}
}

static unsigned job_limit(unsigned count)
{
	cpu_set_t set;
	unsigned cpus =
		sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;

	/* Decompression fills one processor, the rest of a conversion about half of another. */
	cpus = MIN(cpus, LOAD_JOBS_MAX);
	return MAX(MIN(count, cpus), 1u);
}

/* What comes over a network waits more than it works. */
static unsigned pull_limit(const struct load *l)
{
	unsigned n = MIN(l->o->parallel, LOAD_FETCHES_MAX);

	return MIN(l->count, n);
}

static int ensure_layers(struct load *l, struct err *err)
{
	pthread_t threads[LOAD_FETCHES_MAX];
	unsigned n = job_limit(l->count), started = 0;
	sigset_t all, old;

	n = MAX(n, pull_limit(l));
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	/* This thread is one of them; the others are a bonus. */
	while (started + 1 < n && pthread_create(&threads[started], NULL, load_thread, l) == 0)
		started++;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	load_thread(l);
	while (started)
		pthread_join(threads[--started], NULL);
	return l->err.code ? err_copy(err, &l->err) : 0;
}

/* One job per distinct layer of all images. */
static int plan(struct load *l, const struct oci_images *images, struct err *err)
{
	size_t total = 0;

	for (size_t i = 0; i < images->count; i++)
		total += images->items[i].layer_count;
	l->jobs = calloc(total + 1, sizeof(*l->jobs));
	if (!l->jobs)
		return err_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < images->count; i++) {
		const struct oci_image *img = &images->items[i];

		for (size_t k = 0; k < img->layer_count; k++) {
			unsigned j = 0;

			while (j < l->count &&
			       !digest_equal(&l->jobs[j].layer->diff_id, &img->layers[k].diff_id))
				j++;
			if (j == l->count)
				l->jobs[l->count++].layer = &img->layers[k];
		}
	}
	return 0;
}

static const struct layer_info *find_info(const struct load *l, const struct digest *diff_id)
{
	unsigned j = 0;

	while (!digest_equal(&l->jobs[j].layer->diff_id, diff_id))
		j++;
	return &l->jobs[j].info;
}

static int merge_image(struct load *l, const struct oci_image *img, const char *hex,
		       struct merge_result *ret, struct err *err)
{
	cleanup_temp struct store_temp temp = STORE_TEMP_INIT;
	cleanup_free struct digest *diff_ids = calloc(img->layer_count + 1, sizeof(*diff_ids));
	char name[80];
	int r;

	if (!diff_ids)
		return err_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < img->layer_count; i++)
		diff_ids[i] = img->layers[i].diff_id;
	report(l, IMAGE_STAGE_MERGE, l->count, 0, 0, hex);
	r = store_temp_new(l->store, &temp, err);
	if (r >= 0)
		r = merge_layers(l->store, diff_ids, img->layer_count, &l->limits, img->id.sha256,
				 temp.fd, ret, err);
	if (r < 0)
		return r;
	snprintf(name, sizeof(name), "%s.erofs", hex);
	r = store_temp_publish(&temp, STORE_IMAGES, name, err);
	return r < 0 ? r : store_sync_dir(l->store, STORE_IMAGES, err);
}

static int set_names(struct load *l, const struct oci_image *img, struct err *err)
{
	char ref[IMAGE_REFERENCE_MAX];
	int r = 0;

	for (char **p = img->names; *p && r >= 0; p++) {
		/* A layout may call its images anything; what is no reference stays an id. */
		if (l->o->tags || reference_normalise(*p, ref, NULL) < 0)
			continue;
		r = catalog_set_ref(l->store, ref, &img->id, err);
	}
	for (const char *const *p = l->o->tags; p && *p && r >= 0; p++) {
		r = reference_normalise(*p, ref, err);
		if (r >= 0)
			r = catalog_set_ref(l->store, ref, &img->id, err);
	}
	return r;
}

static int ensure_image(struct load *l, const struct oci_image *img, struct err *err)
{
	cleanup_lock struct store_lock lock = STORE_LOCK_INIT;
	cleanup_free struct layer_info *infos = calloc(img->layer_count + 1, sizeof(*infos));
	struct merge_result res;
	char hex[65], name[80];
	int r, has = 0;

	if (!infos)
		return err_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < img->layer_count; i++)
		infos[i] = *find_info(l, &img->layers[i].diff_id);
	snprintf(name, sizeof(name), "image-%s", digest_hex(&img->id, hex));
	r = store_lock(l->store, name, &lock, err);
	if (r >= 0)
		r = has = catalog_has(l->store, &img->id, err);
	if (r == 0)
		r = merge_image(l, img, hex, &res, err);
	if (r >= 0)
		r = store_begin(l->store, err);
	if (r < 0)
		return r;
	/* An image that nobody can call by its name would be no use. */
	if (!has)
		r = catalog_add(l->store, img, infos, &res, err);
	if (r >= 0)
		r = set_names(l, img, err);
	if (r >= 0)
		r = store_commit(l->store, err);
	if (r < 0)
		store_rollback(l->store);
	return r;
}

static int fill_list(struct load *l, const struct oci_images *images, struct image_list *ret,
		     struct err *err)
{
	cleanup_image_list struct image_list list = {0};

	list.items = calloc(images->count + 1, sizeof(*list.items));
	if (!list.items)
		return err_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < images->count; i++) {
		char id[IMAGE_DIGEST_LEN + 1];
		int r = image_inspect(l->store, digest_text(&images->items[i].id, id),
				      &list.items[i], err);

		if (r < 0)
			return r;
		list.count++;
	}
	*ret = list;
	list = (struct image_list){0};
	return 0;
}

static int run(struct load *l, const struct oci_images *images, struct image_list *ret,
	       struct err *err)
{
	int r = plan(l, images, err);

	if (r >= 0)
		r = ensure_layers(l, err);
	for (size_t i = 0; r >= 0 && i < images->count; i++)
		r = ensure_image(l, &images->items[i], err);
	return r < 0 ? r : fill_list(l, images, ret, err);
}

int load_images(struct store *s, const struct source *src, const struct oci_images *images,
		const struct image_load_options *o, struct image_list *ret, struct err *err)
{
	struct load l = {.store = s, .src = src, .o = o};
	int r = image_limits_of(s, o->limits, &l.limits, err);

	if (r < 0)
		return r;
	pthread_mutex_init(&l.lock, NULL);
	r = run(&l, images, ret, err);
	pthread_mutex_destroy(&l.lock);
	free(l.jobs);
	return r;
}

static int load_input(struct store *s, const char *input, const struct image_load_options *o,
		      struct image_list *ret, struct err *err)
{
	cleanup_source struct source *src = NULL;
	cleanup_oci_images struct oci_images images = {0};
	cleanup_close int hold = -1;
	struct image_limits limits = {0};
	char ref[IMAGE_REFERENCE_MAX];
	int r;

	r = image_limits_of(s, o->limits, &limits, err);
	if (r < 0)
		return r;
	for (const char *const *p = o->tags; p && *p; p++) {
		r = reference_normalise(*p, ref, err);
		if (r < 0)
			return r;
	}
	hold = store_hold(s, err);
	if (hold < 0)
		return hold;
	r = source_open(&src, s, input, o, err);
	if (r < 0)
		return r;
	r = oci_find_images(src, o->architecture ? o->architecture : oci_host_architecture(),
			    &limits, &images, err);
	if (r < 0)
		return err_wrap(err, "%s", input);
	if (o->tags && o->tags[0] && images.count > 1)
		return err_set(err, ERR_USAGE, "%s holds %zu images; a tag fits only one", input,
			       images.count);
	r = load_images(s, src, &images, o, ret, err);
	return r < 0 ? err_wrap(err, "%s", input) : 0;
}

int image_load(struct store *s, const char *input, const struct image_load_options *o,
	       struct image_list *ret, struct err *err)
{
	static const struct image_load_options none;
	struct store_gc_result gc;
	int r = load_input(s, input, o ? o : &none, ret, err);

	/* Layers that were good may have been published; without their image they are waste. */
	if (r < 0)
		store_gc(s, &gc, NULL);
	return r;
}
