/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/vm_config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "wire/agent_msg.h"
#include "wire/packet.h"

#define FIELD(type_, member, kind, ...)                                                            \
	{                                                                                          \
		.key = #member, .type = kind, .offset = offsetof(struct type_, member),            \
		__VA_ARGS__                                                                        \
	}
#define TABLE(type_, fields_)                                                                      \
	{                                                                                          \
		.name = #type_, .size = sizeof(struct type_), .fields = fields_,                   \
		.nfields = sizeof(fields_) / sizeof((fields_)[0])                                  \
	}

static const struct wire_field extent_fields[] = {
	FIELD(vm_extent, path, WIRE_TEXT),
	FIELD(vm_extent, offset, WIRE_U64),
	FIELD(vm_extent, blocks, WIRE_U64),
};
static const struct wire_table extent_table = TABLE(vm_extent, extent_fields);

static const struct wire_field image_fields[] = {
	FIELD(vm_image, path, WIRE_TEXT),
	FIELD(vm_image, format, WIRE_TEXT),
	FIELD(vm_image, overlay, WIRE_BOOL),
};
static const struct wire_table image_table = TABLE(vm_image, image_fields);

static const struct wire_field disk_fields[] = {
	FIELD(vm_disk, serial, WIRE_TEXT),
	FIELD(vm_disk, extents, WIRE_STRUCTS, .table = &extent_table),
	FIELD(vm_disk, images, WIRE_STRUCTS, .table = &image_table),
	FIELD(vm_disk, read_only, WIRE_BOOL),
	FIELD(vm_disk, volatile_data, WIRE_BOOL),
};
static const struct wire_table disk_table = TABLE(vm_disk, disk_fields);

static const struct wire_field net_fields[] = {
	FIELD(vm_net, profiles, WIRE_TEXT),	  FIELD(vm_net, egress, WIRE_TEXT),
	FIELD(vm_net, ingress, WIRE_TEXT),	  FIELD(vm_net, rules, WIRE_TEXTS),
	FIELD(vm_net, limits, WIRE_TEXTS),	  FIELD(vm_net, ports, WIRE_TEXTS),
	FIELD(vm_net, servers, WIRE_TEXTS),	  FIELD(vm_net, hosts, WIRE_TEXTS),
	FIELD(vm_net, names, WIRE_TEXTS),	  FIELD(vm_net, ipv6, WIRE_BOOL),
	FIELD(vm_net, proxy, WIRE_TEXT),	  FIELD(vm_net, proxy_user, WIRE_TEXT),
	FIELD(vm_net, proxy_password, WIRE_TEXT), FIELD(vm_net, dot, WIRE_TEXT),
};
const struct wire_table vm_net_table = TABLE(vm_net, net_fields);

static const struct wire_field config_fields[] = {
	FIELD(vm_config, name, WIRE_TEXT),
	FIELD(vm_config, dir, WIRE_TEXT),
	FIELD(vm_config, engine, WIRE_TEXT),
	FIELD(vm_config, kernel, WIRE_TEXT),
	FIELD(vm_config, agentd, WIRE_TEXT),
	FIELD(vm_config, cmdline, WIRE_TEXT),
	FIELD(vm_config, log_level, WIRE_TEXT),
	FIELD(vm_config, cpus, WIRE_U32),
	FIELD(vm_config, cpus_on, WIRE_U32),
	FIELD(vm_config, memory, WIRE_U64),
	FIELD(vm_config, memory_max, WIRE_U64),
	FIELD(vm_config, disks, WIRE_STRUCTS, .table = &disk_table),
	FIELD(vm_config, bootstrap, WIRE_BYTES),
	FIELD(vm_config, owned, WIRE_BOOL),
	FIELD(vm_config, remove_dir, WIRE_BOOL),
	FIELD(vm_config, verbose_kernel, WIRE_BOOL),
	FIELD(vm_config, huge_pages, WIRE_BOOL),
	FIELD(vm_config, jail, WIRE_TEXT),
	FIELD(vm_config, max_duration_ns, WIRE_U64),
	FIELD(vm_config, idle_timeout_ns, WIRE_U64),
	FIELD(vm_config, net, WIRE_STRUCT, .flags = WIRE_OPTIONAL,
	      .has = offsetof(struct vm_config, has_net), .table = &vm_net_table),
	FIELD(vm_config, vsock, WIRE_TEXTS),
	FIELD(vm_config, vsock_listen, WIRE_TEXTS),
	FIELD(vm_config, spawned_ns, WIRE_U64),
};
static const struct wire_table config_table = TABLE(vm_config, config_fields);

static const struct wire_field report_fields[] = {
	FIELD(vm_report, ok, WIRE_BOOL),     FIELD(vm_report, stage, WIRE_TEXT),
	FIELD(vm_report, code, WIRE_U32),    FIELD(vm_report, message, WIRE_TEXT),
	FIELD(vm_report, hint, WIRE_TEXT),   FIELD(vm_report, ready_ns, WIRE_U64),
	FIELD(vm_report, jail, WIRE_TEXT),   FIELD(vm_report, reason, WIRE_TEXT),
	FIELD(vm_report, ports, WIRE_TEXTS),
};
static const struct wire_table report_table = TABLE(vm_report, report_fields);

static int bad_route(struct err *err, const char *text, const char *why)
{
	err_set(err, ERR_USAGE, "no socket for vsock: \"%s\"%s", text, why);
	return err_hint(err, "it looks like /run/service.sock:5000");
}

int vm_route_parse(const char *text, char **ret_path, uint32_t *ret_port, struct err *err)
{
	cleanup_free char *copy = strdup(text);
	char *port = copy ? strrchr(copy, ':') : NULL, *kind;
	uint64_t n;

	if (!copy)
		return err_set(err, ENOMEM, "out of memory");
	if (!port)
		return bad_route(err, text, "");
	*port++ = '\0';
	kind = strchr(port, '/');
	if (kind)
		*kind++ = '\0';
	if (kind && str_eq(kind, "dgram")) {
		err_set(err, ERR_UNSUPPORTED, "\"%s\": vsock of a virtual machine has no datagrams",
			text);
		return err_hint(err, "Linux carries streams only over virtio");
	}
	if (kind && !str_eq(kind, "stream"))
		return bad_route(err, text, "");
	if (copy[0] != '/')
		return bad_route(err, text, ", as the path is not absolute");
	if (strlen(copy) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return bad_route(err, text, ", as a path of a socket has at most 107 bytes");
	if (str_to_u64(port, UINT32_MAX - 1, &n) < 0 || !n)
		return bad_route(err, text, ", as ports are from 1 to 4294967294");
	if (n == AGENT_PORT || n == AGENT_CONTROL_PORT)
		return bad_route(err, text, ", as the guest's agent uses that port");
	*ret_port = (uint32_t)n;
	if (ret_path)
		*ret_path = take_ptr(copy);
	return 0;
}

void vm_config_encode(const struct vm_config *c, struct buf *b)
{
	wire_encode(&config_table, c, b);
}

int vm_config_decode(const void *p, size_t n, struct vm_config *ret, struct err *err)
{
	return wire_decode(&config_table, p, n, ret, err);
}

void vm_config_done(struct vm_config *c)
{
	wire_free(&config_table, c);
}

void vm_report_encode(const struct vm_report *r, struct buf *b)
{
	packet_put(&report_table, r, b);
}

int vm_report_decode(struct buf *b, struct vm_report *ret, struct err *err)
{
	return packet_take(&report_table, VM_REPORT_MAX, b, ret, err);
}

void vm_report_done(struct vm_report *r)
{
	wire_free(&report_table, r);
}
