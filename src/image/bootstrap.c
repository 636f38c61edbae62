/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image without a registry: mmdebstrap assembles a root file system from the distribution's
 * signed packages and writes it to us as a tar stream, which becomes the only layer.
 *
 * mmdebstrap chooses how to work by itself: as root directly, otherwise in a user namespace with
 * the ranges of /etc/subuid. It clears away after itself unless it is killed, so we never do that
 * in haste.
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/proc.h"
#include "base/str.h"
#include "image/load.h"
#include "image/reference.h"

#define BOOTSTRAP_PATH	"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define BOOTSTRAP_LAYER "layer.tar"
/* Of the tool's messages, for the error. */
#define BOOTSTRAP_LINE 400u
#define BOOTSTRAP_DAY  86400
/* It unmounts and deletes some 10,000 files. */
#define BOOTSTRAP_STOP_MS 60000

static const int bootstrap_signals[] = {SIGHUP, SIGINT, SIGTERM};

extern char **environ;

static const struct distribution {
	const char *name, *components, *keyring;
} distributions[] = {
	{"debian", "main", "/usr/share/keyrings/debian-archive-keyring.gpg"},
	{"ubuntu", "main,universe", "/usr/share/keyrings/ubuntu-archive-keyring.gpg"},
};

static const struct {
	const char *go, *debian;
} architectures[] = {
	{"amd64", "amd64"},	{"arm64", "arm64"},	{"386", "i386"},    {"arm", "armhf"},
	{"ppc64le", "ppc64el"}, {"riscv64", "riscv64"}, {"s390x", "s390x"},
};

struct bootstrap {
	const struct image_bootstrap_options *o;
	const struct distribution *dist;
	const char *suite, *arch;
	int64_t epoch;
	struct strv argv, envp;
	struct store_temp tar;
	struct digest diff_id;
	char line[BOOTSTRAP_LINE], last[BOOTSTRAP_LINE];
	size_t line_len;
};

static int parse_suite(struct bootstrap *b, const char *text, struct err *err)
{
	const char *colon = strchr(text, ':');
	const size_t n = colon ? (size_t)(colon - text) : 0;

	b->dist = &distributions[0];
	b->suite = colon ? colon + 1 : text;
	if (colon) {
		b->dist = NULL;
		for (size_t i = 0; i < ARRAY_SIZE(distributions); i++)
			if (strlen(distributions[i].name) == n &&
			    memcmp(distributions[i].name, text, n) == 0)
				b->dist = &distributions[i];
	}
	if (!b->dist || !*b->suite || *b->suite == '-' ||
	    b->suite[strspn(b->suite, "abcdefghijklmnopqrstuvwxyz0123456789.-")]) {
		err_set(err, ERR_USAGE, "\"%.100s\" is not a suite", text);
		return err_hint(err, "write debian:bookworm or ubuntu:noble");
	}
	return 0;
}

static int parse_packages(struct bootstrap *b, struct err *err)
{
	for (const char *const *p = b->o->include; p && *p; p++)
		if (!**p || **p == '-' ||
		    (*p)[strspn(*p, "abcdefghijklmnopqrstuvwxyz0123456789+.,-:")])
			return err_set(err, ERR_USAGE, "\"%.100s\" is not a package name", *p);
	return 0;
}

static int choose_epoch(struct bootstrap *b, struct err *err)
{
	const char *text = getenv("SOURCE_DATE_EPOCH");
	uint64_t v;

	b->epoch = b->o->source_date_epoch;
	if (b->epoch >= 0)
		return 0;
	if (text && *text) {
		if (str_to_u64(text, INT64_MAX, &v) < 0)
			return err_set(err, ERR_USAGE, "SOURCE_DATE_EPOCH is not a number: %.40s",
				       text);
		b->epoch = (int64_t)v;
		return 0;
	}
	b->epoch = time(NULL) / BOOTSTRAP_DAY * BOOTSTRAP_DAY;
	return 0;
}

/* Does this host run the very suite, so that its own package sources fit? */
static bool host_runs(const struct bootstrap *b)
{
	cleanup_buf struct buf text = BUF_INIT;
	char id[64], code[64];
	const char *s;

	if (io_read_file("/etc/os-release", 65536, &text, NULL) < 0)
		return false;
	s = buf_cstr(&text);
	snprintf(id, sizeof(id), "\nID=%s\n", b->dist->name);
	snprintf(code, sizeof(code), "\nVERSION_CODENAME=%.40s\n", b->suite);
	return s && strstr(s, code) && strstr(s, id);
}

static int add_sources(struct bootstrap *b)
{
	char deb822[64];
	const char *files[] = {deb822, "/etc/apt/sources.list"};

	if (b->o->mirror)
		return strv_add(&b->argv, b->o->mirror);
	snprintf(deb822, sizeof(deb822), "/etc/apt/sources.list.d/%s.sources", b->dist->name);
	if (host_runs(b))
		for (size_t i = 0; i < ARRAY_SIZE(files); i++)
			if (access(files[i], R_OK) == 0)
				return strv_add(&b->argv, files[i]);
	/* mmdebstrap knows the distributions' own servers. */
	return 0;
}

static int set_env(struct bootstrap *b, const char *name, const char *value, struct err *err)
{
	const size_t n = strlen(name);

	for (size_t i = 0; i < b->envp.n; i++) {
		if (strncmp(b->envp.v[i], name, n) != 0 || b->envp.v[i][n] != '=')
			continue;
		free(b->envp.v[i]);
		b->envp.v[i] = b->envp.v[--b->envp.n];
		b->envp.v[b->envp.n] = NULL;
		break;
	}
	if (strv_addf(&b->envp, "%s=%s", name, value) < 0)
		return err_set(err, ENOMEM, "out of memory");
	return 0;
}

static int build_command(struct bootstrap *b, struct err *err)
{
	char epoch[24];
	const char *arch = NULL;
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(architectures); i++)
		if (str_eq(architectures[i].go, b->arch))
			arch = architectures[i].debian;
	if (!arch)
		return err_set(err, ERR_UNSUPPORTED, "%s has no architecture \"%.40s\"",
			       b->dist->name, b->arch);
	r |= strv_add(&b->argv, "mmdebstrap");
	r |= strv_add(&b->argv, "--variant=minbase");
	r |= strv_add(&b->argv, "--format=tar");
	r |= strv_addf(&b->argv, "--architectures=%s", arch);
	r |= strv_addf(&b->argv, "--components=%s", b->dist->components);
	if (access(b->dist->keyring, R_OK) == 0)
		r |= strv_addf(&b->argv, "--keyring=%s", b->dist->keyring);
	for (const char *const *p = b->o->include; p && *p; p++)
		r |= strv_addf(&b->argv, "--include=%s", *p);
	r |= strv_add(&b->argv, b->suite);
	r |= strv_add(&b->argv, "-");
	r |= add_sources(b);
	for (char **e = environ; *e; e++)
		r |= strv_add(&b->envp, *e);
	if (r < 0)
		return err_set(err, ENOMEM, "out of memory");
	snprintf(epoch, sizeof(epoch), "%lld", (long long)b->epoch);
	return set_env(b, "SOURCE_DATE_EPOCH", epoch, err);
}

static void take_messages(struct bootstrap *b, const char *p, size_t n)
{
	for (; n; n--, p++) {
		if (*p != '\n' && *p != '\r') {
			if (b->line_len < sizeof(b->line) - 1)
				b->line[b->line_len++] = *p;
			continue;
		}
		b->line[b->line_len] = 0;
		b->line_len = 0;
		if (!b->line[0])
			continue;
		/* The last error says more than the "mmdebstrap failed to run" that follows. */
		if (str_starts(b->line, "E:") || !str_starts(b->last, "E:"))
			memcpy(b->last, b->line, sizeof(b->last));
		if (b->o->progress) {
			struct image_progress report = {IMAGE_STAGE_BOOTSTRAP, 0, 0, 0, 0, b->line};

			b->o->progress(b->o->progress_arg, &report);
		}
	}
}

/* Both pipes until both end: the tar stream into the spool, the messages to whom they concern. */
static int pump(struct bootstrap *b, int out, int messages, int signals, struct hasher *h,
		struct err *err)
{
	struct pollfd fds[3] = {{.fd = out, .events = POLLIN},
				{.fd = messages, .events = POLLIN},
				{.fd = signals, .events = POLLIN}};
	cleanup_free char *buf = malloc(65536);
	uint64_t total = 0;

	if (!buf)
		return err_set(err, ENOMEM, "out of memory");
	while (fds[0].fd >= 0 || fds[1].fd >= 0) {
		if (poll(fds, 3, -1) < 0) {
			if (errno == EINTR)
				continue;
			return err_errno(err, "cannot wait for mmdebstrap");
		}
		if (fds[2].revents)
			return err_set(err, ECANCELED, "interrupted");
		for (int i = 0; i < 2; i++) {
			ssize_t n;
			int r;

			if (fds[i].fd < 0 || !fds[i].revents)
				continue;
			n = read(fds[i].fd, buf, 65536);
			if (n < 0 && (errno == EINTR || errno == EAGAIN))
				continue;
			if (n <= 0) {
				fds[i].fd = -1;
				continue;
			}
			if (i == 1) {
				take_messages(b, buf, (size_t)n);
				continue;
			}
			total += (uint64_t)n;
			if (total > IMAGE_LAYER_BYTES_MAX)
				return err_set(err, ERR_LIMIT,
					       "the file system is larger than %llu bytes",
					       (unsigned long long)IMAGE_LAYER_BYTES_MAX);
			hasher_add(h, buf, (size_t)n);
			r = io_write_full(b->tar.fd, buf, (size_t)n);
			if (r < 0)
				return store_write_error(b->tar.store, r, err);
		}
	}
	return 0;
}

/*
 * A signal that would end us must first end the tool: it has a directory to clear away. The signal
 * stays pending meanwhile, and does what it does as soon as the mask is what it was.
 */
static int hold_signals(sigset_t *old)
{
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(bootstrap_signals); i++) {
		struct sigaction sa;

		if (sigaction(bootstrap_signals[i], NULL, &sa) == 0 && sa.sa_handler != SIG_IGN)
			sigaddset(&set, bootstrap_signals[i]);
	}
	pthread_sigmask(SIG_BLOCK, &set, old);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* A directory for the tool's own directories: when it fails it forgets its keyring. */
static int scratch_new(char *path, size_t size, struct err *err)
{
	const char *top = getenv("TMPDIR");
	int n = snprintf(path, size, "%s/msb-bootstrap.XXXXXX", top && *top ? top : "/tmp");

	if (n < 0 || (size_t)n >= size)
		return err_set(err, ENAMETOOLONG, "TMPDIR is too long");
	/* Root in a user namespace is another user out here. */
	if (!mkdtemp(path) || chmod(path, 0755) < 0)
		return err_errno(err, "cannot make a directory like %s", path);
	return 0;
}

/*
 * The files it knows and empty directories, nothing else: what may be mounted further down is not
 * ours to delete.
 */
static void scratch_remove(const char *path)
{
	cleanup_dir DIR *d = opendir(path);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		static const char *const known[] = {"pubring.kbx", "pubring.kbx~", "trustdb.gpg"};
		char name[NAME_MAX + 32];

		if (e->d_name[0] == '.')
			continue;
		for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
			snprintf(name, sizeof(name), "%s/%s", e->d_name, known[i]);
			unlinkat(dirfd(d), name, 0);
		}
		unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR);
	}
	rmdir(path);
}

/* Its own end leaves nothing behind; SIGKILL would leave half a file system in $TMPDIR. */
static void stop_tool(struct proc *proc)
{
	proc_kill(proc, SIGTERM);
	if (proc_wait(proc, BOOTSTRAP_STOP_MS) == -ETIMEDOUT)
		proc_destroy(proc);
}

static int run_tool(struct bootstrap *b, int signals, struct err *err)
{
	cleanup_hasher struct hasher h = {0};
	struct proc proc = PROC_INIT;
	int out[2], messages[2], r;
	/* When it fails it sends SIGHUP to its process group, which must not be ours. */
	struct proc_spec spec = {
		.path = "mmdebstrap", .die_with_parent = true, .new_session = true};
	struct proc_fd fds[2];

	r = hasher_init(&h, err);
	if (r < 0)
		return r;
	if (pipe2(out, O_CLOEXEC) < 0)
		return err_errno(err, "cannot make a pipe");
	if (pipe2(messages, O_CLOEXEC) < 0) {
		r = err_errno(err, "cannot make a pipe");
		close(out[0]);
		close(out[1]);
		return r;
	}
	fds[0] = (struct proc_fd){out[1], 1};
	fds[1] = (struct proc_fd){messages[1], 2};
	spec.argv = (const char *const *)b->argv.v;
	spec.envp = (const char *const *)b->envp.v;
	spec.fds = fds;
	spec.nfds = 2;
	r = proc_spawn(&proc, &spec, err);
	close(out[1]);
	close(messages[1]);
	if (r < 0) {
		err_wrap(err, "cannot run mmdebstrap");
		err_hint(err, "install it: apt-get install mmdebstrap");
	} else {
		r = pump(b, out[0], messages[0], signals, &h, err);
	}
	close(out[0]);
	close(messages[0]);
	if (r < 0) {
		if (proc.pid > 0)
			stop_tool(&proc);
		return r;
	}
	r = proc_wait(&proc, -1);
	if (r != 0) {
		err_set(err, EIO, "cannot bootstrap %s: mmdebstrap failed with code %d: %s",
			b->suite, r, b->last);
		if (strstr(b->last, "chroot mode"))
			return err_hint(err, "run it as root, or let it use a user namespace: "
					     "apt-get install uidmap, and give your user a range "
					     "in /etc/subuid and /etc/subgid");
		return err_hint(err, "check the suite, the package names and the network; "
				     "--mirror chooses another server");
	}
	return hasher_finish(&h, &b->diff_id, err);
}

/* Fixed key order, nothing that depends on when or where. */
static char *make_config(const struct bootstrap *b)
{
	char diff_id[IMAGE_DIGEST_LEN + 1], created[32];
	time_t t = (time_t)b->epoch;
	struct tm tm;

	if (!gmtime_r(&t, &tm))
		return NULL;
	strftime(created, sizeof(created), "%Y-%m-%dT%H:%M:%SZ", &tm);
	return str_fmt("{\"created\":\"%s\",\"architecture\":\"%s\",\"os\":\"linux\","
		       "\"config\":{\"Env\":[\"PATH=" BOOTSTRAP_PATH "\"],\"Cmd\":[\"bash\"]},"
		       "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"%s\"]},"
		       "\"history\":[{\"created\":\"%s\",\"created_by\":\"mmdebstrap %s:%s\"}]}",
		       created, b->arch, digest_text(&b->diff_id, diff_id), created, b->dist->name,
		       b->suite);
}

static int make_image(struct bootstrap *b, struct store *s, const char *tag, struct image_info *ret,
		      struct err *err)
{
	const char *tags[] = {tag, NULL};
	struct image_load_options o = {.tags = tags,
				       .limits = b->o->limits,
				       .progress = b->o->progress,
				       .progress_arg = b->o->progress_arg};
	cleanup_source struct source *src = NULL;
	cleanup_image_list struct image_list list = {0};
	cleanup_free char *config = make_config(b);
	struct oci_layer layer = {.name = (char *)BOOTSTRAP_LAYER,
				  .media_type = (char *)"application/vnd.oci.image.layer.v1.tar",
				  .has_digest = true,
				  .digest = b->diff_id,
				  .diff_id = b->diff_id,
				  .size = UINT64_MAX};
	char *no_names[] = {NULL};
	struct oci_image img = {.manifest_digest = (char *)"",
				.config_json = config,
				.names = no_names,
				.layers = &layer,
				.layer_count = 1};
	const struct oci_images images = {&img, 1};
	int r;

	if (!config)
		return err_set(err, ENOMEM, "out of memory");
	r = digest_of(config, strlen(config), &img.id, err);
	if (r >= 0)
		r = oci_parse_config(config, strlen(config), &img.config, NULL, NULL, err);
	if (r < 0)
		return r;
	r = source_open_file(&src, b->tar.fd, BOOTSTRAP_LAYER, err);
	if (r >= 0)
		r = load_images(s, src, &images, &o, &list, err);
	oci_config_done(&img.config);
	if (r < 0)
		return r;
	*ret = list.items[0];
	list.count = 0;
	return 0;
}

static int bootstrap(struct bootstrap *b, struct store *s, const char *suite,
		     struct image_info *ret, struct err *err)
{
	const char *tag = b->o->tag ? b->o->tag : suite;
	cleanup_close int hold = -1, signals = -1;
	char ref[IMAGE_REFERENCE_MAX], scratch[PATH_MAX];
	sigset_t mask;
	int r = parse_suite(b, suite, err);

	if (r >= 0)
		r = reference_normalise(tag, ref, err);
	if (r >= 0)
		r = parse_packages(b, err);
	if (r >= 0)
		r = choose_epoch(b, err);
	if (r >= 0)
		r = build_command(b, err);
	if (r < 0)
		return r;
	hold = store_hold(s, err);
	if (hold < 0)
		return hold;
	r = store_temp_new(s, &b->tar, err);
	if (r < 0)
		return r;
	store_temp_unname(&b->tar);
	signals = hold_signals(&mask);
	r = scratch_new(scratch, sizeof(scratch), err);
	if (r >= 0) {
		r = set_env(b, "TMPDIR", scratch, err);
		if (r >= 0)
			r = run_tool(b, signals, err);
		scratch_remove(scratch);
	}
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	return r < 0 ? r : make_image(b, s, tag, ret, err);
}

int image_bootstrap(struct store *s, const char *suite, const struct image_bootstrap_options *o,
		    struct image_info *ret, struct err *err)
{
	struct bootstrap b = {.o = o, .tar = STORE_TEMP_INIT};
	int r;

	b.arch = o->architecture ? o->architecture : oci_host_architecture();
	r = bootstrap(&b, s, suite, ret, err);
	store_temp_done(&b.tar);
	strv_done(&b.argv);
	strv_done(&b.envp);
	return r;
}
