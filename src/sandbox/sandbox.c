/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/point.h"
#include "base/proc.h"
#include "image/image.h"
#include "machine/vm_config.h"
#include "sandbox/artifacts.h"
#include "sandbox/patch.h"
#include "sandbox/record.h"
#include "sandbox/sandbox_dir.h"
#include "sandbox/sandbox_dir_impl.h"
#include "sandbox/sandbox_impl.h"
#include "sandbox/session.h"
#include "sandbox/session_msg.h"
#include "sandbox/source.h"
#include "sandbox/state.h"
#include "sandbox/upper.h"
#include "store/store.h"

/* The kernel's last words fit many times; the rest is in the file. */
#define LOG_TAIL ((off_t)16 << 10)

/* Some twenty lines for each life of a sandbox: this much is hundreds of them. */
#define VM_LOG_MAX ((off_t)1 << 20)

/* In the store's cache: what the kernel of one that went with its directory said. */
#define PANIC_LOG "kernel-panic.log"

enum { VANISH_WAIT_MS = 1000 };

bool sandbox_reused(const struct sandbox *sb)
{
	return sb->reused;
}

const char *sandbox_name(const struct sandbox *sb)
{
	return sb->record.name;
}

struct store *sandbox_store(const struct sandbox *sb)
{
	return sb->store;
}

const char *sandbox_image(const struct sandbox *sb)
{
	return sb->record.image;
}

bool sandbox_has_image(const struct sandbox *sb, const char *image)
{
	cleanup_source_text struct sandbox_source src = {0};

	return sandbox_source_parse(image, &src, NULL) == 0 && str_eq(src.text, sb->source.text);
}

const struct sandbox_spec *sandbox_get_spec(const struct sandbox *sb)
{
	return &sb->record.spec;
}

const struct image_config *sandbox_get_config(const struct sandbox *sb)
{
	return &sb->image.config;
}

static int find_image(struct sandbox *sb, const char *ref, struct err *err)
{
	static const char host[] =
#if defined(__x86_64__)
		"amd64";
#elif defined(__aarch64__)
		"arm64";
#else
#error "which GOARCH is this?"
#endif
	int r = image_find(sb->store, ref, &sb->image, err);

	if (r < 0) {
		if (r == -ERR_NOT_FOUND)
			err_hint(err, "`msb image ls` shows what there is; `msb pull`, `msb load` "
				      "and `msb image bootstrap` add to it");
		return r;
	}
	if (!str_eq(sb->image.config.architecture, host)) {
		err_set(err, ERR_UNSUPPORTED, "image %s is for %s, and this host is %s", ref,
			sb->image.config.architecture, host);
		return err_hint(err, "load the image for linux/%s", host);
	}
	sb->hold = image_hold(sb->store, &sb->image, err);
	return sb->hold < 0 ? sb->hold : 0;
}

/*
 * Nothing but us knows of the image that comes of a directory, and another start that finds the
 * directory changed may give it up before we hold it.
 */
static int find_directory(struct sandbox *sb, struct err *err)
{
	enum { TRIES = 5 };

	for (int i = 0; i < TRIES; i++) {
		int r;

		image_info_done(&sb->image);
		r = image_from_directory(sb->store, sb->source.path, NULL, &sb->image, err);
		if (r < 0)
			return r;
		sb->hold = image_hold(sb->store, &sb->image, err);
		if (sb->hold != -ERR_NOT_FOUND)
			return MIN(sb->hold, 0);
		err_clear(err);
	}
	return err_set(err, EAGAIN, "the directory %s keeps changing", sb->source.path);
}

/* The root: an image, or what becomes one; a disk is found by msb-vm. */
static int find_root(struct sandbox *sb, struct err *err)
{
	const struct sandbox_source *src = &sb->source;
	const struct sandbox_spec *spec = &sb->record.spec;
	int r;

	switch (src->kind) {
	case SOURCE_IMAGE:
		r = find_image(sb, src->text, err);
		if (r == -ERR_NOT_FOUND && access(src->text, F_OK) == 0) {
			err_set(err, r, "there is no image \"%s\" in the store", src->text);
			err_hint(err, "for the file of that name write ./%s", src->text);
		}
		return r;
	case SOURCE_DIRECTORY:
		return find_directory(sb, err);
	default:
		if (!spec->root_asked)
			return 0;
		err_set(err, ERR_USAGE, "a disk image has no root disk above it");
		return err_hint(err, "leave --root-disk out: what is written is kept apart from "
				     "the image, which needs no size");
	}
}

/* More memory than there is would only end in the middle of something. */
static int check_memory(const struct sandbox_spec *spec, struct err *err)
{
	const uint64_t most = MAX(spec->memory, spec->max_memory);
	struct sysinfo si;
	char asked[24], there[24];
	uint64_t total;

	if (sysinfo(&si) < 0)
		return 0;
	total = ((uint64_t)si.totalram + si.totalswap) * si.mem_unit;
	if (most <= total)
		return 0;
	err_set(err, ENOMEM, "%s of memory are more than this host has (%s)", str_size(most, asked),
		str_size(total, there));
	return err_hint(err, spec->memory <= total ? "lower --max-memory" : "lower --memory");
}

static int find_parts(struct sandbox *sb, struct err *err)
{
	const struct sandbox_spec *spec = &sb->record.spec;
	char cache[PATH_MAX];
	int r = store_path(sb->store, STORE_CACHE, "kvm-probe", cache, sizeof(cache), err);

	if (r == 0)
		r = artifact_engine(spec->engine ? spec->engine : "auto", cache, &sb->engine, err);
	if (r == 0)
		r = check_memory(spec, err);
	if (r == 0)
		r = artifact_find(ARTIFACT_VM, &sb->vm, err);
	if (r == 0)
		r = artifact_find(ARTIFACT_AGENT, &sb->agentd, err);
	if (r < 0)
		return r;
	if (!spec->kernel)
		return artifact_find(ARTIFACT_KERNEL, &sb->kernel, err);
	sb->kernel = realpath(spec->kernel, NULL);
	if (!sb->kernel) {
		err_errno(err, "cannot open kernel %s", spec->kernel);
		return err_hint(err, "leave --kernel out to use ours");
	}
	return 0;
}

/* One that is there, under our lock: what it is says its record. */
static int open_kept(struct sandbox *sb, struct err *err)
{
	int r;

	record_done(&sb->record);
	r = sandbox_dir_hold(&sb->dir, err);
	if (r == 0)
		r = record_read(sb->dir.fd, &sb->record, err);
	if (r < 0) {
		err_wrap(err, "sandbox \"%s\"", sb->dir.name);
		return err_hint(err, "remove it with `msb rm %s`", sb->dir.name);
	}
	/* What it is may have been written by another version of us. */
	r = record_check(&sb->record, err);
	if (r < 0)
		return r;
	sb->reused = true;
	sb->told = true;
	r = sb->record.ephemeral ? 0 : sandbox_heal_row(sb->store, sb->dir.fd, &sb->record, err);
	sandbox_dir_let(&sb->dir);
	if (r < 0)
		return r;
	sandbox_source_done(&sb->source);
	r = sandbox_source_parse(sb->record.image, &sb->source, err);
	if (r < 0)
		return err_wrap(err, "sandbox \"%s\"", sb->dir.name);
	if (sb->source.kind == SOURCE_DISK)
		return find_parts(sb, err);
	r = find_image(sb, sb->record.image_id, err);
	if (r == -ERR_NOT_FOUND) {
		err_set(err, ERR_NOT_FOUND, "the image %s of sandbox \"%s\" is gone",
			sb->record.image, sb->dir.name);
		return err_hint(err, "load it again, or remove the sandbox with `msb rm %s`",
				sb->dir.name);
	}
	return r < 0 ? r : find_parts(sb, err);
}

/* The row goes before the claim and before what keeps the directory: those heal by it. */
static int tell_new(struct sandbox *sb, struct err *err)
{
	const struct sandbox_record *rec = &sb->record;
	int r;

	if (sb->told)
		return 0;
	r = sandbox_state_new(sb->store, rec->name, rec->ephemeral, rec->created_at,
			      &rec->spec.labels, err);
	sb->told = r == 0;
	return r;
}

static int put_record(const struct sandbox *sb, const struct sandbox_record *record,
		      const char *file, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT;
	int r = record_encode(record, &b);

	if (r == 0)
		r = record_put(sb->dir.fd, file, &b);
	return r < 0 ? err_set(err, r, "cannot write down the sandbox: %s", err_name(r)) : 0;
}

/* What its record stands for is there before it is, should the power go. */
static int sync_parts(const struct sandbox *sb, struct err *err)
{
	static const char *const names[] = {UPPER_FILE, PATCH_FILE};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		cleanup_close int fd = openat(sb->dir.fd, names[i], O_RDONLY | O_CLOEXEC);

		if (fd >= 0 && fdatasync(fd) < 0)
			return err_errno(err, "cannot write %s/%s", sb->dir.path, names[i]);
	}
	return store_sync(sb->store, err);
}

static int keep_new(struct sandbox *sb, struct err *err)
{
	int r = sandbox_dir_hold(&sb->dir, err);

	if (r == 0)
		r = tell_new(sb, err);
	point("new:row");
	if (r == 0 && sb->image.id)
		r = store_use_image(sb->store, sb->record.name, sb->record.image_id, err);
	point("new:claim");
	if (r == 0)
		r = sync_parts(sb, err);
	if (r == 0)
		r = put_record(sb, &sb->record, RECORD_KEPT, err);
	sb->dir.kept = r == 0;
	if (r == 0)
		(void)store_sync_dir(sb->store, STORE_SANDBOXES, NULL);
	sandbox_dir_let(&sb->dir);
	return r;
}

/* Empty; msb-vm makes an overlay of it, which knows the disk below. */
static int make_overlay(struct sandbox *sb, struct err *err)
{
	cleanup_close int fd =
		openat(sb->dir.fd, OVERLAY_FILE, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	return fd < 0 ? err_errno(err, "cannot create %s/%s", sb->dir.path, OVERLAY_FILE) : 0;
}

static int open_new(struct sandbox *sb, struct err *err)
{
	struct sandbox_record *rec = &sb->record;
	int r = 0;

	sb->made = true;
	if (rec->spec.kernel) {
		/* It is to be found from anywhere. */
		free(rec->spec.kernel);
		rec->spec.kernel = strdup(sb->kernel);
		if (!rec->spec.kernel)
			return err_set(err, ENOMEM, "cannot create a sandbox: out of memory");
	}
	rec->name = strdup(sb->dir.name);
	rec->image_id = strdup(sb->image.id ? sb->image.id : "");
	rec->created_at = time(NULL);
	if (!rec->name || !rec->image_id)
		return err_set(err, ENOMEM, "cannot create a sandbox: out of memory");
	if (sb->source.kind == SOURCE_DISK)
		r = sb->source.writable ? 0 : make_overlay(sb, err);
	else if (rec->spec.root == SANDBOX_ROOT_DISK)
		r = upper_create(sb->store, sb->dir.fd, UPPER_FILE, rec->spec.root_size,
				 !rec->ephemeral, err);
	if (r == 0 && rec->spec.npatches)
		r = sandbox_patch_write(&rec->spec, sb->dir.fd, PATCH_FILE, err);
	if (r == 0 && mkdirat(sb->dir.fd, SANDBOX_LOGS, 0700) < 0)
		r = err_errno(err, "cannot create %s/%s", sb->dir.path, SANDBOX_LOGS);
	return r < 0 || rec->ephemeral ? r : keep_new(sb, err);
}

static struct sandbox *new_sandbox(struct store *s)
{
	struct sandbox *sb = calloc(1, sizeof(*sb));

	if (!sb)
		return NULL;
	sb->store = s;
	sb->dir = (struct sandbox_dir)SANDBOX_DIR_INIT;
	sb->proc = (struct proc)PROC_INIT;
	sb->owner = sb->startup = sb->hold = sb->exit_code = -1;
	return sb;
}

/* @r of having opened @sb. */
static int opened(struct sandbox **ret, struct sandbox *sb, int r)
{
	if (r < 0) {
		sandbox_free(sb);
		return r;
	}
	*ret = sb;
	return 0;
}

/* What there is under the name makes room, without the name's being free in between. */
static int replace(struct sandbox *sb, const struct sandbox_open *how, struct err *err)
{
	enum { TRIES = 20 }; /* each was lost to another command that wants the name */
	const char *name = sb->record.spec.name;
	int r;

	for (int i = 0; i < TRIES; i++) {
		err_clear(err);
		r = sandbox_dir_take(sb->store, name, true, &sb->dir, err);
		if (r != -EBUSY)
			break;
		r = sandbox_stop(sb->store, name, how->timeout_ms == 0, how->timeout_ms, err);
		if (r < 0 && r != -ETIMEDOUT && r != -ERR_NOT_FOUND)
			return r;
	}
	if (r < 0 || !sb->dir.kept)
		return r;
	r = sandbox_dir_renew(&sb->dir, err);
	point("replace:renewed");
	return r < 0 ? r : sandbox_state_remove(sb->store, name, NULL, err);
}

/* A directory for a new one; sb->dir.kept when there is one of that name already. */
static int take_dir(struct sandbox *sb, const struct sandbox_open *how, struct err *err)
{
	const char *name = sb->record.spec.name;
	int r;

	if (!name)
		return sandbox_dir_take_random(sb->store, &sb->dir, err);
	if (how->replace)
		return replace(sb, how, err);
	r = sandbox_dir_take(sb->store, name, true, &sb->dir, err);
	if ((r == 0 && sb->dir.kept && how->fresh) || (r == -EBUSY && how->fresh)) {
		r = err_set(err, EEXIST, "there is a sandbox \"%s\" already", name);
		err_hint(err, "--replace removes it first; `msb start %s` starts it", name);
	}
	return r;
}

int sandbox_open_how(struct sandbox **ret, struct store *s, struct sandbox_spec *spec,
		     const char *image, const struct sandbox_open *how, struct err *err)
{
	struct sandbox *sb = new_sandbox(s);
	bool reuse;
	int r;

	if (!sb)
		return err_set(err, ENOMEM, "cannot create a sandbox: out of memory");
	sb->record.ephemeral = !spec->name && !how->keep;
	sb->record.spec = *spec;
	memset(spec, 0, sizeof(*spec));
	/* Only of what may be there already is the name looked at first. */
	reuse = sb->record.spec.name && !how->fresh && !how->replace;
	r = sandbox_source_parse(image, &sb->source, err);
	if (r == 0 && !(sb->record.image = strdup(sb->source.text)))
		r = err_set(err, ENOMEM, "cannot create a sandbox: out of memory");
	if (r == 0)
		r = sandbox_spec_check(&sb->record.spec, err);
	if (r == 0 && reuse)
		r = take_dir(sb, how, err);
	if (r == 0 && sb->dir.kept)
		return opened(ret, sb, open_kept(sb, err));
	/* What can be missing is looked for before anything is made. */
	if (r == 0)
		r = find_root(sb, err);
	if (r == 0)
		r = find_parts(sb, err);
	if (r == 0 && !reuse)
		r = take_dir(sb, how, err);
	if (r == 0)
		r = open_new(sb, err);
	point("new:record");
	if (r == -EBUSY) {
		*spec = sb->record.spec;
		memset(&sb->record.spec, 0, sizeof(sb->record.spec));
	}
	return opened(ret, sb, r);
}

int sandbox_open(struct sandbox **ret, struct store *s, struct sandbox_spec *spec,
		 const char *image, struct err *err)
{
	return sandbox_open_how(ret, s, spec, image, &(struct sandbox_open){0}, err);
}

int sandbox_open_kept(struct sandbox **ret, struct store *s, const char *name, struct err *err)
{
	struct sandbox *sb = new_sandbox(s);
	int r = sandbox_name_check(name, err);

	if (!sb)
		return err_set(err, ENOMEM, "cannot open a sandbox: out of memory");
	if (r == 0)
		r = sandbox_dir_take(s, name, false, &sb->dir, err);
	if (r == 0 && !sb->dir.kept)
		r = sandbox_none(s, name, err);
	if (r == 0)
		r = open_kept(sb, err);
	return opened(ret, sb, r);
}

int sandbox_hand_over(struct sandbox *sb, struct err *err)
{
	int r = tell_new(sb, err);

	if (r == 0 && sb->record.ephemeral)
		r = put_record(sb, &sb->record, RECORD_EPHEMERAL, err);
	return r < 0 ? r : sb->dir.lock;
}

struct sandbox *sandbox_release(struct sandbox *sb)
{
	if (sb)
		sandbox_dir_done(&sb->dir);
	return sandbox_free(sb);
}

int sandbox_adopt(struct sandbox **ret, struct store *s, const char *name, int lock, bool fresh,
		  struct err *err)
{
	struct sandbox *sb = new_sandbox(s);
	int r;

	if (!sb)
		return err_set(err, ENOMEM, "cannot open a sandbox: out of memory");
	r = sandbox_dir_adopt(s, name, lock, &sb->dir, err);
	if (r == 0)
		r = open_kept(sb, err);
	sb->reused = !fresh;
	sb->made = fresh;
	return opened(ret, sb, r);
}

int sandbox_set_main(struct sandbox *sb, struct sandbox_main *main, struct err *err)
{
	cleanup_record struct sandbox_record is = {0};
	int r;

	sandbox_main_done(&sb->record.main);
	sb->record.main = *main;
	*main = (struct sandbox_main){0};
	if (sb->record.ephemeral)
		return 0;
	/* What we opened may have been changed since; ours is the command alone. */
	r = sandbox_dir_hold(&sb->dir, err);
	if (r == 0)
		r = record_read(sb->dir.fd, &is, err);
	if (r == 0) {
		const struct sandbox_main was = is.main;

		is.main = sb->record.main;
		r = put_record(sb, &is, RECORD_KEPT, err);
		is.main = was;
	}
	sandbox_dir_let(&sb->dir);
	return r;
}

const struct sandbox_main *sandbox_get_main(const struct sandbox *sb)
{
	return &sb->record.main;
}

int sandbox_start(struct sandbox *sb, struct err *err)
{
	cleanup_close int config = sandbox_vm_config(sb, err), agent = -1, control = -1, log = -1;
	cleanup_close int startup_rd = -1, startup_wr = -1, owner_rd = -1, owner_wr = -1;
	const char *const argv[] = {"msb-vm", sb->dir.path, NULL};
	int startup[2], owner[2], r;
	struct stat st;

	if (config < 0)
		return config;
	/* They tell of another machine. */
	(void)unlinkat(sb->dir.fd, RECORD_MACHINE, 0);
	(void)unlinkat(sb->dir.fd, RECORD_ACTIVE, 0);
	(void)unlinkat(sb->dir.fd, SESSION_PAST, 0);
	/* An ephemeral one in somebody's hands can wait for its row: sandbox_note(). */
	r = sb->told ? sandbox_state_change(sb->store, sb->record.name, SANDBOX_STARTING, "", err)
		     : 0;
	if (r < 0)
		return r;
	point("start:row");
	agent = sandbox_socket_listen(sb->dir.fd, SANDBOX_AGENT_SOCKET, err);
	if (agent < 0)
		return agent;
	control = sandbox_socket_listen(sb->dir.fd, SANDBOX_CONTROL_SOCKET, err);
	if (control < 0)
		return control;
	log = openat(sb->dir.fd, VM_LOG, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (log < 0)
		return err_errno(err, "cannot open %s/%s", sb->dir.path, VM_LOG);
	if (fstat(log, &st) == 0 && st.st_size > VM_LOG_MAX)
		(void)!ftruncate(log, 0);
	if (pipe2(startup, O_CLOEXEC) < 0)
		return err_errno(err, "cannot start a machine");
	startup_rd = startup[0];
	startup_wr = startup[1];
	if (pipe2(owner, O_CLOEXEC) < 0)
		return err_errno(err, "cannot start a machine");
	owner_rd = owner[0];
	owner_wr = owner[1];
	r = io_set_nonblock(startup_rd, true);
	if (r < 0)
		return err_set(err, r, "cannot start a machine: %s", err_name(r));
	const struct proc_fd fds[] = {
		{config, VM_FD_CONFIG},	    {startup_wr, VM_FD_STARTUP}, {owner_rd, VM_FD_PARENT},
		{sb->dir.lock, VM_FD_LOCK}, {agent, VM_FD_AGENT},	 {log, VM_FD_LOG},
		{control, VM_FD_CONTROL},
	};
	r = proc_spawn(&sb->proc,
		       &(struct proc_spec){
			       .path = sb->vm,
			       .argv = argv,
			       .fds = fds,
			       .nfds = ARRAY_SIZE(fds),
			       .new_session = true,
		       },
		       err);
	if (r < 0)
		return r;
	sb->machine.started_at = time(NULL);
	sb->machine.engine = strdup(sb->engine);
	sb->began = now_ns();
	sb->startup = take_fd(&startup_rd);
	sb->owner = take_fd(&owner_wr);
	point("start:machine");
	/* While the machine comes up: nothing runs in it before we say so. */
	return sb->hold < 0 ? 0 : image_check(sb->hold, &sb->image, err);
}

int sandbox_report_fd(const struct sandbox *sb)
{
	return sb->startup;
}

int sandbox_pidfd(const struct sandbox *sb)
{
	return sb->proc.pidfd;
}

const char *sandbox_end_reason(const struct sandbox *sb)
{
	return sb->machine.end;
}

static bool panicked(const struct sandbox *sb)
{
	return sb->machine.end && str_starts(sb->machine.end, VM_END_PANIC);
}

/* Rare ones do not come again when they are looked for: the last that was seen is kept. */
static void keep_panic(const struct sandbox *sb)
{
	if (panicked(sb))
		(void)renameat(sb->dir.fd, KERNEL_LOG, store_dirfd(sb->store, STORE_CACHE),
			       PANIC_LOG);
}

static int take_report(struct sandbox *sb, struct err *err)
{
	struct vm_report report = {0};
	int r = vm_report_decode(&sb->reports, &report, err);

	if (r < 0)
		return err_wrap(err, "msb-vm reports what we do not understand");
	if (r == 0)
		return 0;
	if (report.jail && report.jail[0] && !sb->machine.jail)
		sb->machine.jail = take_ptr(report.jail);
	if (report.ports.n && !sb->machine.ports.n) {
		sb->machine.ports = (struct strv){report.ports.v, report.ports.n};
		report.ports = (struct wire_texts){0};
	}
	if (report.ok && !sb->ready) {
		sb->ready = true;
		r = 1;
		sb->machine.ready_ms = MAX((now_ns() - sb->began) / 1000000, UINT64_C(1));
		/* They are in the root now. */
		if (sandbox_root_stays(sb))
			(void)unlinkat(sb->dir.fd, PATCH_FILE, 0);
		log_debug("walls around msb-vm:\n%s", sb->machine.jail ? sb->machine.jail : "");
	} else if (report.ok) {
		sb->asked = true;
		if (report.reason && report.reason[0] && !sb->machine.end)
			sb->machine.end = take_ptr(report.reason);
		r = err_set(err, ESHUTDOWN, "%s", sandbox_end_words(sb->machine.end));
	} else {
		r = err_set(err, report.code ? (int)report.code : ERR_GUEST, "%s",
			    report.message && report.message[0] ? report.message
								: "the machine failed");
		/* The files of one that goes are gone by the time that anybody could look. */
		if (!sb->machine.end)
			sb->machine.end = take_ptr(report.message);
		if (panicked(sb) && (sb->record.ephemeral || (sb->made && !sb->ready)))
			err_hint(err, "what it said is in %s/cache/" PANIC_LOG,
				 store_home(sb->store));
		else if (report.hint && (sb->record.ephemeral || (sb->made && !sb->ready)) &&
			 strstr(report.hint, sb->dir.path))
			err_hint(err, "run it again with --debug to see what the machine said");
		else if (report.hint && report.hint[0])
			err_hint(err, "%s", report.hint);
	}
	vm_report_done(&report);
	return r;
}

/* msb-vm is gone and left no report; it stays a zombie until proc_wait(). */
static int vm_vanished(const struct sandbox *sb, struct err *err)
{
	/* The pipe closes a moment before the process is one. */
	struct pollfd pfd = {.fd = sb->proc.pidfd, .events = POLLIN};
	siginfo_t si = {0};

	(void)poll(&pfd, 1, VANISH_WAIT_MS);
	(void)waitid(P_PID, (id_t)sb->proc.pid, &si, WEXITED | WNOHANG | WNOWAIT);
	if (si.si_pid && si.si_code != CLD_EXITED)
		return err_set(err, ERR_GUEST,
			       "the sandbox's process (msb-vm) was ended by signal %d",
			       si.si_status);
	return err_set(err, ERR_GUEST, "the sandbox's process (msb-vm) ended without a word");
}

int sandbox_report(struct sandbox *sb, struct err *err)
{
	/* No report has reason to be longer than its message and hint. */
	enum { REPORT_CHUNK = 4096 };
	int r = take_report(sb, err);
	struct err lost = ERR_INIT;
	void *to;
	ssize_t n;

	if (r != 0 || sb->startup < 0)
		return r;
	to = buf_reserve(&sb->reports, REPORT_CHUNK);
	n = to ? read(sb->startup, to, REPORT_CHUNK) : -1;
	if (n > 0) {
		buf_commit(&sb->reports, (size_t)n);
		return take_report(sb, err);
	}
	if (n < 0 && to && (errno == EAGAIN || errno == EINTR))
		return 0;
	sb->startup = close_fd(sb->startup);
	if (sb->ending)
		return err_set(err, ESHUTDOWN, "the machine was shut down");
	r = vm_vanished(sb, err ? err : &lost);
	if (!sb->machine.end)
		sb->machine.end = strdup(err ? err->msg : lost.msg);
	return r;
}

int sandbox_connect(struct sandbox *sb, struct err *err)
{
	return sandbox_socket_connect(sb->dir.fd, SANDBOX_AGENT_SOCKET, err);
}

int sandbox_listen(struct sandbox *sb, const char *name, struct err *err)
{
	return sandbox_socket_listen(sb->dir.fd, name, err);
}

void sandbox_note(struct sandbox *sb)
{
	/* For want of a row nobody shall be kept from running something. */
	if (!sb->told && tell_new(sb, NULL) == 0)
		(void)sandbox_state_change(sb->store, sb->record.name, SANDBOX_STARTING, "", NULL);
	/* One that was handed over has been written down, and may have been changed since. */
	if (sb->record.ephemeral && !sandbox_dir_known(sb->dir.fd))
		(void)put_record(sb, &sb->record, RECORD_EPHEMERAL, NULL);
	sandbox_note_machine(sb);
}

/*
 * "Running", from "starting" only: since it is ready, others may have said how it lives. What
 * cannot be written heals.
 */
static bool tell_ready(struct sandbox *sb)
{
	cleanup_status struct sandbox_status now = {0};
	struct sandbox_status is = {
		.state = SANDBOX_RUNNING, .reason = (char[]){""}, .exit_code = -1};
	int r = sandbox_state_read(sb->store, sb->record.name, &now, NULL);

	if (r == 0 && now.state == SANDBOX_STARTING)
		r = sandbox_state_put(sb->store, sb->record.name, &now, &is, NULL, NULL);
	return r >= 0;
}

void sandbox_note_machine(struct sandbox *sb)
{
	cleanup_buf struct buf b = BUF_INIT;

	if (sb->machine.engine && record_machine_encode(&sb->machine, &b) == 0)
		(void)record_put(sb->dir.fd, RECORD_MACHINE, &b);
	if (sb->ready)
		point("ready:row");
	if (sb->ready && sb->told && !sb->ran && !sb->machine.end)
		sb->ran = tell_ready(sb);
}

void sandbox_note_sessions(struct sandbox *sb, const struct session_host *h)
{
	if (h && sb->dir.fd >= 0 && sb->dir.kept)
		session_host_note(h, sb->dir.fd);
}

void sandbox_set_end(struct sandbox *sb, const char *reason, int exit_code)
{
	sb->why = reason;
	sb->exit_code = exit_code;
}

void sandbox_logs(const struct sandbox *sb, struct buf *b)
{
	static const char *const names[] = {KERNEL_LOG, VM_LOG};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		cleanup_close int fd = openat(sb->dir.fd, names[i], O_RDONLY | O_CLOEXEC);
		struct stat st;

		if (fd < 0 || fstat(fd, &st) < 0 || st.st_size == 0)
			continue;
		if (st.st_size > LOG_TAIL && lseek(fd, -LOG_TAIL, SEEK_END) < 0)
			continue;
		buf_addf(b, "--- %s\n", names[i]);
		(void)io_read_fd(fd, (size_t)LOG_TAIL, b);
	}
}

static int end_machine(struct sandbox *sb, struct err *err)
{
	int r;

	if (sb->proc.pidfd < 0)
		return 0;
	sb->ending = true;
	if ((!sb->record.ephemeral || sandbox_writes_outside(sb)) && sb->ready) {
		proc_kill(&sb->proc, SIGTERM);
		r = proc_wait(&sb->proc, SANDBOX_STOP_TIMEOUT_MS);
		/* Killed: by somebody's wish. By another signal: it has closed no disk. */
		if (r > 128 && r != 128 + SIGKILL)
			return err_set(
				err, ERR_GUEST,
				"the sandbox's process (msb-vm) died of signal %d on its way "
				"out; what was written last may be missing",
				r - 128);
		if (r != -ETIMEDOUT)
			return 0;
		err_set(err, ETIMEDOUT, "sandbox \"%s\" did not stop in %d seconds and was killed",
			sb->record.name, SANDBOX_STOP_TIMEOUT_MS / 1000);
		proc_destroy(&sb->proc);
		return -ETIMEDOUT;
	}
	proc_destroy(&sb->proc);
	return 0;
}

/* What msb-vm has said that nobody has read, and the end of the pipe. */
static void last_reports(struct sandbox *sb)
{
	enum { READS = 8 };

	for (int i = 0; i < READS && sb->startup >= 0; i++) {
		if (sandbox_report(sb, NULL) < 0)
			break;
	}
}

static void note_end(struct sandbox *sb, int how, enum sandbox_state state)
{
	struct sandbox_machine *m = &sb->machine;

	m->ended_at = time(NULL);
	m->state = strdup(sandbox_state_name(state));
	m->exit_code = sb->exit_code + 1;
	if (!m->end)
		m->end = strdup(how < 0 ? "it did not stop in time and was killed" : "stopped");
	sandbox_note_machine(sb);
}

/*
 * Say how it ended, while the lock is still ours. What cannot be written (a full disk) heals later,
 * and is no reason not to end.
 */
static enum sandbox_state tell_end(struct sandbox *sb, bool was_running, bool gone)
{
	enum sandbox_state state = SANDBOX_STOPPED;
	const struct sandbox_machine *m = &sb->machine;
	const struct sandbox_end end = {
		.asked = sb->asked || was_running,
		.was_ready = sb->ready,
		.reason = sb->why     ? sb->why
			  : m->end    ? m->end
			  : sb->asked ? "stopped"
				      : "",
		.exit_code = sb->exit_code,
	};

	if (sb->told && gone)
		(void)sandbox_state_remove(sb->store, sb->record.name, &end, NULL);
	else if (sb->told)
		(void)sandbox_state_end(sb->store, sb->record.name, &end, &state, NULL);
	return state;
}

int sandbox_end(struct sandbox *sb, struct err *err)
{
	/* Then its end is our wish. */
	bool was_running = sb->ready && !sb->machine.end && sb->proc.pidfd >= 0;
	enum sandbox_state state;
	int r = end_machine(sb, err);

	sb->owner = close_fd(sb->owner);
	if (sb->dir.fd < 0)
		return r;
	/* A new one that never came up is not worth keeping: its settings may be why. */
	if (sb->dir.kept && sb->made && !sb->ready)
		(void)sandbox_dir_give_up(&sb->dir, NULL);
	last_reports(sb);
	if (sb->ready)
		point("end:machine");
	state = tell_end(sb, was_running, !sb->dir.kept);
	if (sb->ready)
		point("end:row");
	if (sb->dir.kept && sb->machine.engine)
		note_end(sb, r, state);
	if (!sb->dir.kept) {
		int removed;

		keep_panic(sb);
		removed = sandbox_dir_remove(&sb->dir, r < 0 ? NULL : err);

		return r < 0 ? r : removed;
	}
	sandbox_dir_clean(sb->dir.fd);
	sandbox_dir_done(&sb->dir);
	return r;
}

struct sandbox *sandbox_free(struct sandbox *sb)
{
	if (!sb)
		return NULL;
	proc_destroy(&sb->proc);
	(void)sandbox_end(sb, NULL);
	close_fd(sb->startup);
	buf_done(&sb->reports);
	record_done(&sb->record);
	record_machine_done(&sb->machine);
	sandbox_source_done(&sb->source);
	image_info_done(&sb->image);
	close_fd(sb->hold);
	free(sb->vm);
	free(sb->kernel);
	free(sb->agentd);
	free(sb);
	return NULL;
}
