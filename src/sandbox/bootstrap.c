/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/bootstrap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "net/plan.h"
#include "wire/frame.h"

static int fill_env(const struct strv *from, struct wire_list *to)
{
	struct boot_env *env = calloc(from->n ? from->n : 1, sizeof(*env));

	if (!env)
		return -ENOMEM;
	to->v = env;
	to->n = from->n;
	for (size_t i = 0; i < from->n; i++) {
		size_t key = strcspn(from->v[i], "=");

		env[i].key = strndup(from->v[i], key);
		env[i].value = strdup(from->v[i][key] ? from->v[i] + key + 1 : "");
		if (!env[i].key || !env[i].value)
			return -ENOMEM;
	}
	return 0;
}

static int fill_rlimits(const struct sandbox_spec *s, struct wire_list *to)
{
	struct exec_rlimit *limits = calloc(SANDBOX_RLIMITS_MAX, sizeof(*limits));

	if (!limits)
		return -ENOMEM;
	to->v = limits;
	to->n = s->nrlimits;
	for (size_t i = 0; i < s->nrlimits; i++) {
		limits[i].resource = strdup(s->rlimits[i].resource);
		limits[i].soft = s->rlimits[i].soft;
		limits[i].hard = s->rlimits[i].hard;
		if (!limits[i].resource)
			return -ENOMEM;
	}
	return 0;
}

/* How the guest finds a disk, and what of it is meant. */
static char *device_text(const char *serial, const struct sandbox_source *src)
{
	return src->partition ? str_fmt("serial:%s#%u", serial, src->partition)
			      : str_fmt("serial:%s", serial);
}

static int fill_upper(const struct sandbox_spec *s, struct boot_upper *upper, struct err *err)
{
	cleanup_source_text struct sandbox_source file = {0};
	int r;

	if (s->root == SANDBOX_ROOT_TMPFS) {
		uint64_t size = s->root_size ? s->root_size : s->memory / 2;

		upper->kind = BOOT_UPPER_TMPFS;
		upper->has_size_mib = true;
		upper->size_mib = (uint32_t)MIN(size >> 20, (uint64_t)UINT32_MAX);
		return 0;
	}
	upper->kind = BOOT_UPPER_DEVICE;
	if (s->root == SANDBOX_ROOT_FILE) {
		r = sandbox_source_parse(s->root_file, &file, err);
		if (r < 0)
			return r;
	}
	upper->device = device_text(SANDBOX_DISK_UPPER, &file);
	upper->fstype = strdup(s->root == SANDBOX_ROOT_DISK ? "ext4"
			       : file.fstype		    ? file.fstype
							    : "auto");
	return upper->device && upper->fstype ? 0 : -ENOMEM;
}

static int fill_root(const struct sandbox_spec *s, const struct sandbox_source *src,
		     struct boot_root *root, struct err *err)
{
	if (src->kind == SOURCE_DISK) {
		root->kind = BOOT_ROOT_DISK_IMAGE;
		root->device = device_text(SANDBOX_DISK_ROOT, src);
		root->fstype = src->fstype ? strdup(src->fstype) : NULL;
		return root->device && (root->fstype || !src->fstype) ? 0 : -ENOMEM;
	}
	root->kind = BOOT_ROOT_OCI_EROFS;
	root->lower = strdup("serial:" SANDBOX_DISK_ROOT);
	return root->lower ? fill_upper(s, &root->upper, err) : -ENOMEM;
}

static int fill_init(const struct sandbox_spec *s, struct msg_bootstrap *m)
{
	struct boot_handoff *h = &m->handoff_init;

	m->has_handoff_init = true;
	h->cmd = strdup(s->init);
	h->args.v = calloc(s->init_args.n + 1, sizeof(char *));
	if (!h->cmd || !h->args.v)
		return -ENOMEM;
	for (size_t i = 0; i < s->init_args.n; i++) {
		h->args.v[i] = strdup(s->init_args.v[i]);
		if (!h->args.v[i])
			return -ENOMEM;
		h->args.n++;
	}
	return fill_env(&s->init_env, &h->env);
}

static int fill_network(const struct sandbox_spec *s, struct msg_bootstrap *m, bool ipv6)
{
	struct boot_network *n = &m->network;
	struct stack_config c = {0};

	net_plan(&c, ipv6);
	m->has_network = n->has_ipv4 = n->ipv4.has_dns = true;
	n->interface = strdup(NET_INTERFACE);
	m->host_alias = strdup(NET_HOST_NAME);
	memcpy(n->mac, c.guest_mac, sizeof(n->mac));
	memcpy(n->gateway_mac, c.gateway_mac, sizeof(n->gateway_mac));
	n->mtu = c.mtu;
	memcpy(n->ipv4.address, net_addr_four(&c.guest4), 4);
	memcpy(n->ipv4.gateway, net_addr_four(&c.gateway4), 4);
	memcpy(n->ipv4.dns, net_addr_four(&c.gateway4), 4);
	n->ipv4.prefix_len = NET_PREFIX4;
	if (ipv6) {
		n->has_ipv6 = true;
		memcpy(n->ipv6.address, c.guest6.b, 16);
		memcpy(n->ipv6.gateway, c.gateway6.b, 16);
		n->ipv6.prefix_len = NET_PREFIX6;
	}
	if (!n->interface || !m->host_alias)
		return -ENOMEM;
	/* They go with the host's name servers. */
	return s->dns_servers.n ? 0 : net_plan_search("/etc/resolv.conf", &n->search);
}

int sandbox_bootstrap(const struct sandbox_spec *s, const char *name,
		      const struct sandbox_source *src, const struct sandbox_command *command,
		      bool patch, bool ipv6, struct buf *b, struct err *err)
{
	struct msg_bootstrap m = {.has_block_root = true, .has_unix_time_nanos = true};
	char hostname[SANDBOX_HOSTNAME_MAX + 1];
	struct timespec now;
	int r;

	sandbox_hostname(s, name, hostname);
	clock_gettime(CLOCK_REALTIME, &now);
	m.unix_time_nanos = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	m.hostname = strdup(hostname);
	m.user = command->user[0] ? strdup(command->user) : NULL;
	m.default_cwd = strdup(command->workdir);
	m.patch = patch ? strdup("serial:" SANDBOX_DISK_PATCH) : NULL;
	r = m.hostname && m.default_cwd && (m.user || !command->user[0]) && (m.patch || !patch)
		    ? 0
		    : -ENOMEM;
	if (r == 0)
		r = fill_root(s, src, &m.block_root, err);
	if (r == 0)
		r = fill_env(&command->env, &m.default_env);
	if (r == 0)
		r = fill_network(s, &m, ipv6);
	if (r == 0)
		r = fill_rlimits(s, &m.rlimits);
	if (r == 0 && s->init)
		r = fill_init(s, &m);
	if (s->security && str_eq(s->security, "restricted"))
		m.security_profile = BOOT_SECURITY_RESTRICTED;
	if (r == 0)
		r = frame_put_msg(b, 0, MSG_BOOTSTRAP, &m);
	msg_free(MSG_BOOTSTRAP, &m);
	if (r == -EMSGSIZE)
		return err_set(err, ERR_LIMIT, "the environment is too large");
	if (r < 0 && !(err && err->code))
		err_set(err, r, "cannot write the boot message: %s", err_name(r));
	return r;
}
