/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pulling: loading from a source that is a registry.
 *
 * The reference becomes an index.json of one entry, which is the manifest that the registry has
 * under that name; from there on everything is as in a layout: oci.c finds the image for the
 * platform and verifies what it reads, load.c converts the layers that the store lacks. A layer
 * is a pipe. A thread of its own (the feed) asks for the blob, continues it after a cut, and
 * writes what comes; the conversion reads, and verifies both digests, while it comes. Closing the
 * pipe stops the feed; a feed that fails closes the pipe, and its reason is the one that is told.
 *
 * Two pulls of one image at the same time meet at the lock named after the configuration: who
 * comes second waits there and then finds everything in the store. Different images that share
 * layers meet at the layers' locks.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "image/limits.h"
#include "image/load.h"
#include "image/reference.h"
#include "image/source.h"
#include "registry/registry.h"

/*
 * Small enough for what is in it to be in the processor's cache still; what the network brings
 * while the conversion is busy waits in the socket. A larger one measured slower.
 */
#define PULL_PIPE (256 << 10)

struct pull {
	struct store *store;
	const struct image_pull_options *o;
	struct image_limits limits;
	unsigned parallel;
	struct registry *registry;
	struct digest top; /* of the manifest that the reference names */
	struct registry_manifest manifest;
	struct buf index;	  /* index.json */
	struct store_lock config; /* see above */
	const struct oci_images *images;

	/* Guards the progress, which is told from any thread. */
	pthread_mutex_t lock;
};

struct feed {
	struct pull *pull;
	pthread_t thread;
	int fd; /* write end */
	char digest[IMAGE_DIGEST_LEN + 1];
	uint64_t size;
	int code;
	struct err err;
};

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

static void report(void *arg, const struct image_progress *progress)
{
	struct pull *p = arg;

	if (!p->o->progress)
		return;
	pthread_mutex_lock(&p->lock);
	p->o->progress(p->o->progress_arg, progress);
	pthread_mutex_unlock(&p->lock);
}

static void note(void *arg, const char *text)
{
	const struct image_progress progress = {.stage = IMAGE_STAGE_NOTE, .text = text};

	report(arg, &progress);
}

/* --- The registry as a source --- */

/* "blobs/sha256/HEX" to "sha256:HEX" */
static bool name_to_digest(const char *name, const char *folder, char out[IMAGE_DIGEST_LEN + 1])
{
	struct digest d;

	if (!str_starts(name, folder) || !str_starts(name + strlen(folder), "/sha256/"))
		return false;
	snprintf(out, IMAGE_DIGEST_LEN + 1, "sha256:%.64s", name + strlen(folder) + 8);
	return digest_parse(out, "", &d, NULL) == 0;
}

static int read_manifest(struct pull *p, const char *digest, size_t max, struct buf *ret,
			 struct err *err)
{
	cleanup_registry_manifest struct registry_manifest m = {0};
	char top[IMAGE_DIGEST_LEN + 1];
	const struct buf *b = &p->manifest.bytes;

	if (!str_eq(digest, digest_text(&p->top, top))) {
		int r = registry_manifest(p->registry, digest, max, &m, err);

		if (r < 0)
			return r;
		b = &m.bytes;
	}
	buf_add(ret, buf_ptr(b), buf_size(b));
	return buf_cstr(ret) ? 0 : no_memory(err);
}

/* A configuration that the store knows need not come again. */
static int read_config(struct pull *p, const char *digest, size_t max, struct buf *ret,
		       struct err *err)
{
	cleanup_image_info struct image_info have = IMAGE_INFO_INIT;
	char name[80];
	int r;

	/* In front of the layers' locks, which are named by hexadecimal digits. */
	snprintf(name, sizeof(name), "+%s", digest + strlen("sha256:"));
	store_unlock(&p->config);
	r = store_lock(p->store, name, &p->config, err);
	if (r < 0)
		return r;
	if (image_find(p->store, digest, &have, NULL) == 0)
		buf_add_str(ret, have.config_json);
	else
		r = registry_blob(p->registry, digest, max, ret, err);
	if (r < 0)
		return r;
	return buf_cstr(ret) ? 0 : no_memory(err);
}

static int pull_read(void *arg, const char *name, size_t max, struct buf *ret, struct err *err)
{
	struct pull *p = arg;
	char digest[IMAGE_DIGEST_LEN + 1];

	if (str_eq(name, "index.json")) {
		buf_add(ret, buf_ptr(&p->index), buf_size(&p->index));
		return buf_cstr(ret) ? 0 : no_memory(err);
	}
	if (name_to_digest(name, "manifests", digest))
		return read_manifest(p, digest, max, ret, err);
	if (name_to_digest(name, "blobs", digest))
		return read_config(p, digest, max, ret, err);
	return -ENOENT;
}

static void *feed_thread(void *arg)
{
	struct feed *f = arg;
	const struct pull *p = f->pull;

	f->code = registry_blob_stream(p->registry, f->digest, f->size, p->limits.layer_bytes,
				       f->fd, &f->err);
	f->fd = close_fd(f->fd);
	return NULL;
}

static uint64_t size_of(const struct pull *p, const char *name)
{
	for (size_t i = 0; i < p->images->count; i++) {
		const struct oci_image *img = &p->images->items[i];

		for (size_t k = 0; k < img->layer_count; k++)
			if (str_eq(img->layers[k].name, name))
				return img->layers[k].size;
	}
	return FETCH_UNKNOWN;
}

static int pull_find(void *arg, const char *name, struct source_blob *ret, struct err *err)
{
	struct pull *p = arg;
	struct feed *f = calloc(1, sizeof(*f));
	cleanup_close int rd = -1, wr = -1;
	sigset_t all, old;
	int fds[2], r;

	if (!f)
		return no_memory(err);
	if (!name_to_digest(name, "blobs", f->digest)) {
		free(f);
		return -ENOENT;
	}
	if (pipe2(fds, O_CLOEXEC) < 0) {
		free(f);
		return err_errno(err, "cannot fetch a layer");
	}
	rd = fds[0];
	wr = fds[1];
	(void)fcntl(wr, F_SETPIPE_SZ, PULL_PIPE);
	f->pull = p;
	f->fd = wr;
	f->size = size_of(p, name);
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	r = pthread_create(&f->thread, NULL, feed_thread, f);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r) {
		free(f);
		return err_set(err, r, "cannot start a thread: %s", err_name(r));
	}
	take_fd(&wr);
	*ret = (struct source_blob){take_fd(&rd), 0, f->size, f};
	return 0;
}

static int pull_release(void *arg, struct source_blob *b, struct err *err)
{
	struct feed *f = b->feed;
	int r;

	(void)arg;
	b->fd = close_fd(b->fd);
	pthread_join(f->thread, NULL);
	r = f->code;
	/* Stopped because the conversion did: that is where the reason is. */
	if (r == -ECANCELED)
		r = 0;
	else if (r < 0)
		err_copy(err, &f->err);
	free(f);
	return r;
}

static void pull_abort(void *arg)
{
	registry_abort(((struct pull *)arg)->registry);
}

static const struct source_ops pull_ops = {pull_read, pull_find, pull_release, pull_abort,
					   "manifests"};

/* --- From a reference to its manifest --- */

/* "linux/arm64/v8" to "arm64/v8" */
static int parse_platform(const char *platform, const char **ret, struct err *err)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789/";
	const char *arch = platform;

	if (!platform) {
		*ret = oci_host_architecture();
		return 0;
	}
	if (strchr(platform, '/')) {
		if (!str_starts(platform, "linux/")) {
			err_set(err, ERR_UNSUPPORTED, "images for %.40s cannot run here", platform);
			return err_hint(err, "only linux can: --platform linux/%s",
					oci_host_architecture());
		}
		arch += strlen("linux/");
	}
	if (!*arch || *arch == '/' || strlen(arch) > 32 || strspn(arch, allowed) != strlen(arch)) {
		err_set(err, ERR_USAGE, "\"%.60s\" is not a platform", platform);
		return err_hint(err, "write it like linux/amd64 or linux/arm64");
	}
	*ret = arch;
	return 0;
}

static int make_index(struct pull *p, struct err *err)
{
	static const char *const known[] = {
		"application/vnd.oci.image.index.v1+json",
		"application/vnd.oci.image.manifest.v1+json",
		"application/vnd.docker.distribution.manifest.list.v2+json",
		"application/vnd.docker.distribution.manifest.v2+json",
	};
	const char *type = "";
	char digest[IMAGE_DIGEST_LEN + 1];

	/* Servers of files say anything; then what the manifest calls itself counts. */
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (str_eq(p->manifest.media_type, known[i]))
			type = known[i];
	buf_addf(&p->index,
		 "{\"schemaVersion\": 2, \"manifests\":"
		 " [{\"mediaType\": \"%s\", \"digest\": \"%s\", \"size\": %zu}]}",
		 type, digest_text(&p->top, digest), buf_size(&p->manifest.bytes));
	return buf_failed(&p->index) ? no_memory(err) : 0;
}

static int resolve(struct pull *p, const struct reference *ref, struct err *err)
{
	const struct buf *b = &p->manifest.bytes;
	char have[IMAGE_DIGEST_LEN + 1];
	const char *said;
	int r = registry_manifest(p->registry, ref->digest[0] ? ref->digest : ref->tag,
				  OCI_MANIFEST_MAX, &p->manifest, err);

	if (r >= 0)
		r = digest_of(buf_ptr(b), buf_size(b), &p->top, err);
	if (r < 0)
		return r;
	digest_text(&p->top, have);
	/* Another algorithm's says nothing to us. */
	said = p->manifest.digest && str_starts(p->manifest.digest, "sha256:") ? p->manifest.digest
									       : have;
	if ((ref->digest[0] && !str_eq(ref->digest, have)) || !str_eq(said, have)) {
		err_set(err, ERR_CORRUPT, "the manifest is damaged: its digest is %s instead of %s",
			have, ref->digest[0] ? ref->digest : said);
		return err_hint(err, "the registry, or something on the way to it, is at fault");
	}
	return make_index(p, err);
}

static int load(struct pull *p, const char *name, const char *architecture, struct image_info *ret,
		struct err *err)
{
	cleanup_source struct source *src = NULL;
	cleanup_oci_images struct oci_images images = {0};
	cleanup_image_list struct image_list list = {0};
	const char *tags[] = {name, NULL};
	const struct image_load_options o = {
		.tags = tags,
		.limits = &p->limits,
		.architecture = architecture,
		.parallel = p->parallel,
		.again = p->o->force,
		.progress = p->o->progress ? report : NULL,
		.progress_arg = p,
	};
	int r = source_open_ops(&src, &pull_ops, p, err);

	if (r >= 0)
		r = oci_find_images(src, architecture, &p->limits, &images, err);
	if (r < 0)
		return r;
	p->images = &images;
	r = load_images(p->store, src, &images, &o, &list, err);
	if (r < 0)
		return r;
	*ret = list.items[0];
	list.items[0] = (struct image_info)IMAGE_INFO_INIT;
	return 0;
}

static int pull(struct pull *p, const struct reference *ref, const char *name,
		const struct registries_config *config, struct image_info *ret, struct err *err)
{
	const struct credential login = {
		.username = (char *)(uintptr_t)p->o->username,
		.password = (char *)(uintptr_t)p->o->password,
	};
	const struct registry_options ro = {
		.program = p->o->program,
		.home = store_home(p->store),
		.config = config,
		.insecure = p->o->insecure,
		.ca_files = p->o->ca_files,
		.login = login.username ? &login : NULL,
		.note = note,
		.note_arg = p,
	};
	const struct image_progress start = {.stage = IMAGE_STAGE_RESOLVE, .text = name};
	cleanup_close int hold = -1;
	const char *architecture = NULL;
	int r = parse_platform(p->o->platform, &architecture, err);

	if (r < 0)
		return r;
	hold = store_hold(p->store, err);
	if (hold < 0)
		return hold;
	report(p, &start);
	r = registry_open(&p->registry, ref->domain, ref->path, &ro, err);
	if (r >= 0)
		r = resolve(p, ref, err);
	if (r >= 0)
		r = load(p, name, architecture, ret, err);
	store_unlock(&p->config);
	registry_close(p->registry);
	return r;
}

/* Later, or with a better line, it may go on from where it was. */
static bool is_network(int r)
{
	return r == -ENETUNREACH || r == -EIO || r == -EAGAIN || r == -EPIPE;
}

static void keep_damage(void *arg, enum image_verify_event event, const char *what,
			const struct err *err)
{
	struct err *damage = arg;

	(void)what;
	if (event == IMAGE_VERIFY_DAMAGED && !damage->code)
		*damage = *err;
}

/* The metadata is made of the layers again, and replaced if it is not what it was. */
static int verify(struct store *s, struct image_info *i, struct err *err)
{
	const char *const ids[] = {i->id, NULL};
	struct image_verified res;
	struct err damage = ERR_INIT;
	int r = image_verify(s, ids, keep_damage, &damage, &res, err);

	if (damage.code)
		r = err_copy(err, &damage);

	if (r < 0)
		image_info_done(i);
	return r;
}

int image_pull(struct store *s, const char *ref, const struct image_pull_options *o,
	       struct image_info *ret, struct err *err)
{
	cleanup_registries_config struct registries_config config = {0};
	struct pull p = {.store = s, .o = o, .config = STORE_LOCK_INIT};
	char name[IMAGE_REFERENCE_MAX];
	struct reference parsed;
	struct store_gc_result gc;
	int r = reference_parse(ref, &parsed, err);

	if (r >= 0)
		r = registries_config_read(store_home(s), &config, err);
	if (r >= 0)
		r = image_limits_of(s, o->limits, &p.limits, err);
	if (r < 0)
		return r;
	p.parallel = config.parallel_layers ? config.parallel_layers : IMAGE_PULL_PARALLEL;
	reference_format(&parsed, name);
	pthread_mutex_init(&p.lock, NULL);
	r = pull(&p, &parsed, name, &config, ret, err);
	if (r >= 0 && o->force)
		r = verify(s, ret, err);
	pthread_mutex_destroy(&p.lock);
	registry_manifest_done(&p.manifest);
	buf_done(&p.index);
	if (r < 0 && !is_network(r))
		store_gc(s, &gc, NULL);
	return r < 0 ? err_wrap(err, "cannot pull %s", name) : 0;
}
