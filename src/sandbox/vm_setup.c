/* SPDX-License-Identifier: Apache-2.0 */
/* What msb-vm is told: the machine of a sandbox, its disks and its boot message. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/install.h"
#include "base/io.h"
#include "base/loop.h"
#include "base/str.h"
#include "machine/vm_config.h"
#include "sandbox/bootstrap.h"
#include "sandbox/sandbox_impl.h"
#include "sandbox/upper.h"

/* The disks of a machine, and all that their descriptions point to. */
struct disks {
	struct vm_disk disk[3]; /* root, upper, patches */
	size_t n;
	struct vm_extent upper;
	struct vm_image root_images[SOURCE_BACKING_MAX + 2], upper_images[SOURCE_BACKING_MAX + 1];
	struct vm_image patch;
	struct sandbox_source file; /* the user's own root disk */
	char *upper_path, *overlay_path, *patch_path;
};

static void disks_done(struct disks *d)
{
	sandbox_source_done(&d->file);
	free(d->upper_path);
	free(d->overlay_path);
	free(d->patch_path);
}
#define cleanup_disks __attribute__((cleanup(disks_done)))

static struct vm_disk *add_disk(struct disks *d, const char *serial)
{
	struct vm_disk *disk = &d->disk[d->n++];

	*disk = (struct vm_disk){.serial = (char *)(uintptr_t)serial};
	return disk;
}

/* A disk image and what it rests on, behind the overlay if there is one. */
static void add_images(const struct sandbox_source *src, char *overlay, struct vm_image *images,
		       struct wire_list *ret)
{
	size_t n = 0;

	if (overlay)
		images[n++] = (struct vm_image){overlay, (char *)(uintptr_t) "qcow2", true};
	images[n++] = (struct vm_image){src->path, (char *)(uintptr_t)src->format, false};
	for (size_t i = 0; i < src->backing.n; i++) {
		char *path = src->backing.v[i];

		images[n++] = (struct vm_image){
			path, (char *)(uintptr_t)sandbox_source_format(path), false};
	}
	*ret = (struct wire_list){images, n};
}

/* Are there patches, and not yet in the root? One in memory needs them each time. */
static bool has_patch(const struct sandbox *sb)
{
	return faccessat(sb->dir.fd, PATCH_FILE, F_OK, 0) == 0;
}

bool sandbox_root_stays(const struct sandbox *sb)
{
	return sb->source.kind == SOURCE_DISK || sb->record.spec.root != SANDBOX_ROOT_TMPFS;
}

static int set_disks(const struct sandbox *sb, struct disks *d, struct vm_config *c,
		     struct err *err)
{
	_Static_assert(
		sizeof(struct vm_extent) == sizeof(struct image_extent) &&
			offsetof(struct vm_extent, path) == offsetof(struct image_extent, path) &&
			offsetof(struct vm_extent, offset) ==
				offsetof(struct image_extent, file_offset) &&
			offsetof(struct vm_extent, blocks) == offsetof(struct image_extent, blocks),
		"an image's extents can be handed on as they are");
	const struct sandbox_spec *spec = &sb->record.spec;
	struct vm_disk *root = add_disk(d, SANDBOX_DISK_ROOT), *upper;
	int r;

	d->upper_path = str_fmt("%s/%s", sb->dir.path, UPPER_FILE);
	d->overlay_path = str_fmt("%s/%s", sb->dir.path, OVERLAY_FILE);
	d->patch_path = str_fmt("%s/%s", sb->dir.path, PATCH_FILE);
	if (!d->upper_path || !d->overlay_path || !d->patch_path)
		return err_set(err, ENOMEM, "cannot describe the machine: out of memory");
	if (sb->source.kind == SOURCE_DISK) {
		bool own = sb->source.writable;

		add_images(&sb->source, own ? NULL : d->overlay_path, d->root_images,
			   &root->images);
		root->volatile_data = sb->record.ephemeral && !own;
	} else {
		root->extents = (struct wire_list){sb->image.extents, sb->image.extent_count};
		root->read_only = true;
		if (spec->root == SANDBOX_ROOT_DISK) {
			upper = add_disk(d, SANDBOX_DISK_UPPER);
			d->upper = (struct vm_extent){
				.path = d->upper_path,
				.blocks = (spec->root_size >> 20 << 20) / IMAGE_BLOCK,
			};
			upper->extents = (struct wire_list){&d->upper, 1};
			upper->volatile_data = sb->record.ephemeral;
		} else if (spec->root == SANDBOX_ROOT_FILE) {
			r = sandbox_source_parse(spec->root_file, &d->file, err);
			if (r < 0)
				return err_wrap(err, "root disk");
			upper = add_disk(d, SANDBOX_DISK_UPPER);
			add_images(&d->file, NULL, d->upper_images, &upper->images);
		}
	}
	if (has_patch(sb)) {
		struct vm_disk *patch = add_disk(d, SANDBOX_DISK_PATCH);

		d->patch = (struct vm_image){d->patch_path, (char *)(uintptr_t) "raw", false};
		patch->images = (struct wire_list){&d->patch, 1};
		patch->read_only = true;
	}
	c->disks = (struct wire_list){d->disk, d->n};
	return 0;
}

bool sandbox_writes_outside(const struct sandbox *sb)
{
	if (sb->source.kind == SOURCE_DISK)
		return sb->source.writable;
	return sb->record.spec.root == SANDBOX_ROOT_FILE;
}

#define HUGE_POOL "/sys/kernel/mm/hugepages/hugepages-2048kB/"

static uint64_t huge_count(const char *file)
{
	cleanup_free char *path = str_fmt(HUGE_POOL "%s", file);
	cleanup_buf struct buf b = BUF_INIT;
	uint64_t n = 0;
	char *text;

	if (!path || io_read_file(path, 64, &b, NULL) < 0)
		return 0;
	text = buf_cstr(&b);
	if (!text)
		return 0;
	text[strcspn(text, "\n")] = '\0';
	return str_to_u64(text, UINT64_MAX, &n) < 0 ? 0 : n;
}

/* Each engine would say it in its own words, and QEMU in nobody's. */
static int check_huge_pages(uint64_t memory, struct err *err)
{
	uint64_t need = memory >> 21, have = huge_count("free_hugepages");
	uint64_t taken = huge_count("resv_hugepages");
	char text[32];

	have = have > taken ? have - taken : 0;
	if (need <= have + huge_count("nr_overcommit_hugepages"))
		return 0;
	err_set(err, ENOMEM, "%s of memory are %llu huge pages, and this host has %llu free",
		str_size(memory, text), (unsigned long long)need, (unsigned long long)have);
	return err_hint(err,
			"set more aside (sysctl vm.nr_hugepages=N), or leave --huge-pages out");
}

int sandbox_vm_config(const struct sandbox *sb, struct err *err)
{
	const struct sandbox_spec *spec = &sb->record.spec;
	const char *level = spec->log_level ? spec->log_level : "info";
	cleanup_command struct sandbox_command command = {0};
	cleanup_buf struct buf boot = BUF_INIT, b = BUF_INIT;
	cleanup_disks struct disks disks = {0};
	cleanup_free char *dot = NULL;
	cleanup_strv struct strv servers = {0};
	struct vm_config c = {
		.name = sb->record.name,
		.dir = sb->dir.path,
		.engine = (char *)(uintptr_t)sb->engine,
		.jail = spec->jail,
		.huge_pages = spec->huge_pages && str_eq(spec->huge_pages, "on"),
		.kernel = sb->kernel,
		.agentd = sb->agentd,
		.cmdline = (char *)(uintptr_t) "",
		.log_level = (char *)(uintptr_t)level,
		.cpus = MAX(spec->cpus, spec->max_cpus),
		.cpus_on = spec->cpus,
		.memory = spec->memory,
		.memory_max = spec->max_memory,
		.has_net = true,
		.net = sandbox_vm_net(spec),
		.vsock = {spec->vsock.v, spec->vsock.n},
		.vsock_listen = {spec->vsock_listen.v, spec->vsock_listen.n},
		.owned = true,
		.remove_dir = sb->record.ephemeral,
		.verbose_kernel = str_eq(level, "debug") || str_eq(level, "trace"),
		.max_duration_ns = spec->max_duration_ms * 1000000,
		.idle_timeout_ns = spec->idle_timeout_ms * 1000000,
		.spawned_ns = now_ns(),
	};
	int r = sandbox_command_resolve(spec, &sb->image.config, NULL, 0, &command, err);

	if (r == 0)
		r = sandbox_spec_proxy_check(spec, err);
	if (r == 0 && sandbox_spec_dns_over_tls(spec))
		r = install_find("msb-dot", X_OK, INSTALL_HINT, &dot, err);
	if (r == 0)
		r = sandbox_spec_dns_find(spec, &servers, err);
	c.net.dot = dot;
	c.net.servers = (struct wire_texts){servers.v, servers.n};
	if (r == 0 && c.huge_pages)
		r = check_huge_pages(spec->memory, err);
	if (r == 0)
		r = sandbox_bootstrap(spec, sb->record.name, &sb->source, &command, has_patch(sb),
				      c.net.ipv6, &boot, err);
	if (r == 0)
		r = set_disks(sb, &disks, &c, err);
	if (r < 0)
		return r;
	c.bootstrap = (struct wire_bytes){buf_ptr(&boot), buf_size(&boot)};
	vm_config_encode(&c, &b);
	if (buf_failed(&b))
		return err_set(err, ENOMEM, "cannot describe the machine: out of memory");
	return io_memfd("vm-config", buf_ptr(&b), buf_size(&b), err);
}
