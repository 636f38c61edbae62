/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/agent_msg.h"

#include <assert.h>
#include <string.h>

#include "base/cleanup.h"
#include "wire/frame.h"

/* Row builders: F is required, O optional with a has_… flag beside it, T an optional text. */
#define F(S, m, t)                                                                                 \
	{                                                                                          \
		.key = #m, .type = t, .offset = offsetof(S, m)                                     \
	}
#define FK(S, k, m, t)                                                                             \
	{                                                                                          \
		.key = k, .type = t, .offset = offsetof(S, m)                                      \
	}
#define FD(S, m, t, d)                                                                             \
	{                                                                                          \
		.key = #m, .type = t, .flags = WIRE_DEFAULT, .offset = offsetof(S, m), .dflt = d   \
	}
#define FS(S, m, t)                                                                                \
	{                                                                                          \
		.key = #m, .type = t, .flags = WIRE_DEFAULT | WIRE_SKIP, .offset = offsetof(S, m)  \
	}
#define FL(S, m, sub)                                                                              \
	{                                                                                          \
		.key = #m, .type = WIRE_STRUCTS, .flags = WIRE_DEFAULT | WIRE_SKIP,                \
		.offset = offsetof(S, m), .table = &sub                                            \
	}
#define FN(S, m, sub)                                                                              \
	{                                                                                          \
		.key = #m, .type = WIRE_STRUCT, .offset = offsetof(S, m), .table = &sub            \
	}
#define O(S, m, t)                                                                                 \
	{                                                                                          \
		.key = #m, .type = t, .flags = WIRE_OPTIONAL, .offset = offsetof(S, m),            \
		.has = offsetof(S, has_##m)                                                        \
	}
#define OS(S, m, t)                                                                                \
	{                                                                                          \
		.key = #m, .type = t, .flags = WIRE_OPTIONAL | WIRE_SKIP,                          \
		.offset = offsetof(S, m), .has = offsetof(S, has_##m)                              \
	}
#define ON(S, m, sub)                                                                              \
	{                                                                                          \
		.key = #m, .type = WIRE_STRUCT, .flags = WIRE_OPTIONAL | WIRE_SKIP,                \
		.offset = offsetof(S, m), .has = offsetof(S, has_##m), .table = &sub               \
	}
#define T(S, m)                                                                                    \
	{                                                                                          \
		.key = #m, .type = WIRE_TEXT, .flags = WIRE_OPTIONAL, .offset = offsetof(S, m)     \
	}
#define TS(S, m)                                                                                   \
	{                                                                                          \
		.key = #m, .type = WIRE_TEXT, .flags = WIRE_OPTIONAL | WIRE_SKIP,                  \
		.offset = offsetof(S, m)                                                           \
	}
#define OCT(S, m)                                                                                  \
	{                                                                                          \
		.key = #m, .type = WIRE_OCTETS, .offset = offsetof(S, m),                          \
		.size = sizeof(((S *)0)->m)                                                        \
	}
#define OCTS(S, m)                                                                                 \
	{                                                                                          \
		.key = #m, .type = WIRE_OCTETS, .flags = WIRE_OPTIONAL | WIRE_SKIP,                \
		.offset = offsetof(S, m), .has = offsetof(S, has_##m), .size = sizeof(((S *)0)->m) \
	}

#define TABLE(id, S, label)                                                                        \
	static_assert(ARRAY_SIZE(id##_fields) <= WIRE_FIELDS_MAX, label);                          \
	static const struct wire_table id = {.name = label,                                        \
					     .size = sizeof(S),                                    \
					     .fields = id##_fields,                                \
					     .nfields = ARRAY_SIZE(id##_fields)}
#define V(label, rows)                                                                             \
	{                                                                                          \
		.name = label, .fields = rows, .nfields = ARRAY_SIZE(rows)                         \
	}
#define VBARE(label, rows)                                                                         \
	{                                                                                          \
		.name = label, .fields = rows, .nfields = 1, .bare = true                          \
	}

static const struct wire_table empty = {.name = "empty", .size = sizeof(struct msg_empty)};

static const struct wire_field shutdown_fields[] = {
	FD(struct msg_shutdown, grace_ms, WIRE_U32, 0),
};
static const struct wire_table shutdown = {
	.name = "shutdown",
	.size = sizeof(struct msg_shutdown),
	.fields = shutdown_fields,
	.nfields = ARRAY_SIZE(shutdown_fields),
	.may_be_nothing = true,
};

static const struct wire_field ready_fields[] = {
	F(struct msg_ready, boot_time_ns, WIRE_U64),
	F(struct msg_ready, init_time_ns, WIRE_U64),
	F(struct msg_ready, ready_time_ns, WIRE_U64),
	TS(struct msg_ready, agent_version),
};
TABLE(ready, struct msg_ready, "ready");

static const struct wire_field resolved_fields[] = {
	F(struct resolved_user, uid, WIRE_U32),
	F(struct resolved_user, gid, WIRE_U32),
};
TABLE(resolved, struct resolved_user, "user");

static const struct wire_field init_resolved_fields[] = {
	FN(struct msg_init_resolved, default_user, resolved),
};
TABLE(init_resolved, struct msg_init_resolved, "init.resolved");

static const struct wire_field disconnected_fields[] = {
	F(struct msg_relay_client_disconnected, id_start, WIRE_U32),
	F(struct msg_relay_client_disconnected, id_end_exclusive, WIRE_U32),
};
TABLE(disconnected, struct msg_relay_client_disconnected, "relay.client.disconnected");

static const struct wire_field clock_sync_fields[] = {
	F(struct msg_clock_sync, unix_time_nanos, WIRE_U64),
};
TABLE(clock_sync, struct msg_clock_sync, "clock.sync");

static const struct wire_field rlimit_fields[] = {
	F(struct exec_rlimit, resource, WIRE_TEXT),
	F(struct exec_rlimit, soft, WIRE_U64),
	F(struct exec_rlimit, hard, WIRE_U64),
};
TABLE(rlimit, struct exec_rlimit, "rlimit");

static const struct wire_field exec_request_fields[] = {
	F(struct msg_exec_request, cmd, WIRE_TEXT),
	FD(struct msg_exec_request, args, WIRE_TEXTS, 0),
	{.key = "env",
	 .type = WIRE_TEXTS,
	 .flags = WIRE_DEFAULT | WIRE_SECRET,
	 .offset = offsetof(struct msg_exec_request, env)},
	T(struct msg_exec_request, cwd),
	T(struct msg_exec_request, user),
	FD(struct msg_exec_request, tty, WIRE_BOOL, 0),
	FD(struct msg_exec_request, rows, WIRE_U16, 24),
	FD(struct msg_exec_request, cols, WIRE_U16, 80),
	{.key = "rlimits",
	 .type = WIRE_STRUCTS,
	 .flags = WIRE_DEFAULT,
	 .offset = offsetof(struct msg_exec_request, rlimits),
	 .table = &rlimit},
};
TABLE(exec_request, struct msg_exec_request, "exec.request");

static const struct wire_field exec_started_fields[] = {
	F(struct msg_exec_started, pid, WIRE_U32),
};
TABLE(exec_started, struct msg_exec_started, "exec.started");

static const struct wire_field data_fields[] = {
	F(struct msg_data, data, WIRE_BYTES),
};
TABLE(data, struct msg_data, "data");

static const struct wire_field stdin_error_fields[] = {
	{.key = "errno",
	 .type = WIRE_I32,
	 .flags = WIRE_OPTIONAL,
	 .offset = offsetof(struct msg_exec_stdin_error, error),
	 .has = offsetof(struct msg_exec_stdin_error, has_errno)},
	T(struct msg_exec_stdin_error, errno_name),
	F(struct msg_exec_stdin_error, message, WIRE_TEXT),
};
TABLE(stdin_error, struct msg_exec_stdin_error, "exec.stdin.error");

static const struct wire_field exec_exited_fields[] = {
	F(struct msg_exec_exited, code, WIRE_I32),
};
TABLE(exec_exited, struct msg_exec_exited, "exec.exited");

const char *const exec_fail_names[] = {
	"not_found",
	"permission_denied",
	"not_executable",
	"bad_cwd",
	"bad_args",
	"resource_limit",
	"user_setup_failed",
	"out_of_memory",
	"pty_setup_failed",
	"other",
	NULL,
};
static_assert(ARRAY_SIZE(exec_fail_names) == EXEC_OTHER + 2, "names of enum exec_fail");

static const struct wire_field exec_failed_fields[] = {
	{.key = "kind",
	 .type = WIRE_ENUM,
	 .offset = offsetof(struct msg_exec_failed, kind),
	 .names = exec_fail_names},
	{.key = "errno",
	 .type = WIRE_I32,
	 .flags = WIRE_OPTIONAL,
	 .offset = offsetof(struct msg_exec_failed, error),
	 .has = offsetof(struct msg_exec_failed, has_errno)},
	T(struct msg_exec_failed, errno_name),
	F(struct msg_exec_failed, message, WIRE_TEXT),
	T(struct msg_exec_failed, stage),
};
TABLE(exec_failed, struct msg_exec_failed, "exec.failed");

static const struct wire_field exec_resize_fields[] = {
	F(struct msg_exec_resize, rows, WIRE_U16),
	F(struct msg_exec_resize, cols, WIRE_U16),
};
TABLE(exec_resize, struct msg_exec_resize, "exec.resize");

static const struct wire_field exec_signal_fields[] = {
	F(struct msg_exec_signal, signal, WIRE_I32),
};
TABLE(exec_signal, struct msg_exec_signal, "exec.signal");

/* Filesystem */

static const struct wire_field fs_attrs_fields[] = {
	O(struct fs_attrs, mode, WIRE_U32),  O(struct fs_attrs, uid, WIRE_U32),
	O(struct fs_attrs, gid, WIRE_U32),   O(struct fs_attrs, size, WIRE_U64),
	O(struct fs_attrs, atime, WIRE_I64), O(struct fs_attrs, mtime, WIRE_I64),
};
TABLE(fs_attrs, struct fs_attrs, "attrs");

static const struct wire_field fs_open_options_fields[] = {
	F(struct fs_open_options, read, WIRE_BOOL),
	F(struct fs_open_options, write, WIRE_BOOL),
	F(struct fs_open_options, append, WIRE_BOOL),
	F(struct fs_open_options, create, WIRE_BOOL),
	F(struct fs_open_options, truncate, WIRE_BOOL),
	F(struct fs_open_options, create_new, WIRE_BOOL),
	O(struct fs_open_options, mode, WIRE_U32),
	TS(struct fs_open_options, user),
};
TABLE(fs_open_options, struct fs_open_options, "options");

static const struct wire_field op_path[] = {F(struct fs_op, path, WIRE_TEXT)};
static const struct wire_field op_stat[] = {
	F(struct fs_op, path, WIRE_TEXT),
	F(struct fs_op, follow_symlink, WIRE_BOOL),
};
static const struct wire_field op_set_stat[] = {
	F(struct fs_op, path, WIRE_TEXT),
	F(struct fs_op, follow_symlink, WIRE_BOOL),
	FN(struct fs_op, attrs, fs_attrs),
};
static const struct wire_field op_symlink[] = {
	F(struct fs_op, target, WIRE_TEXT),
	F(struct fs_op, link_path, WIRE_TEXT),
	TS(struct fs_op, user),
};
static const struct wire_field op_mkdir[] = {
	F(struct fs_op, path, WIRE_TEXT),
	O(struct fs_op, mode, WIRE_U32),
	TS(struct fs_op, user),
};
static const struct wire_field op_remove_dir[] = {
	F(struct fs_op, path, WIRE_TEXT),
	F(struct fs_op, recursive, WIRE_BOOL),
};
static const struct wire_field op_src_dst[] = {
	F(struct fs_op, src, WIRE_TEXT),
	F(struct fs_op, dst, WIRE_TEXT),
};
static const struct wire_field op_open_file[] = {
	F(struct fs_op, path, WIRE_TEXT),
	FN(struct fs_op, options, fs_open_options),
};
static const struct wire_field op_handle[] = {F(struct fs_op, handle, WIRE_U64)};
static const struct wire_field op_transfer[] = {
	F(struct fs_op, handle, WIRE_U64),
	F(struct fs_op, offset, WIRE_U64),
	O(struct fs_op, len, WIRE_U64),
};
static const struct wire_field op_read_dir[] = {
	F(struct fs_op, handle, WIRE_U64),
	O(struct fs_op, limit, WIRE_U32),
};
static const struct wire_field op_fset_stat[] = {
	F(struct fs_op, handle, WIRE_U64),
	FN(struct fs_op, attrs, fs_attrs),
};
#define TREE_NAMES                                                                                 \
	{.key = "path", .type = WIRE_BYTES, .offset = offsetof(struct fs_op, tree_path)},          \
	{                                                                                          \
		.key = "name", .type = WIRE_BYTES, .offset = offsetof(struct fs_op, tree_name)     \
	}
static const struct wire_field op_pack_tree[] = {
	TREE_NAMES,
	F(struct fs_op, follow, WIRE_BOOL),
	F(struct fs_op, attributes, WIRE_BOOL),
};
static const struct wire_field op_unpack_tree[] = {
	TREE_NAMES,
	F(struct fs_op, archive, WIRE_BOOL),
	F(struct fs_op, rights, WIRE_BOOL),
	F(struct fs_op, attributes, WIRE_BOOL),
};

static const struct wire_variant fs_op_variants[FS_OPS] = {
	[FS_REAL_PATH] = V("RealPath", op_path),
	[FS_STAT] = V("Stat", op_stat),
	[FS_SET_STAT] = V("SetStat", op_set_stat),
	[FS_LIST] = V("List", op_path),
	[FS_READ_LINK] = V("ReadLink", op_path),
	[FS_SYMLINK] = V("Symlink", op_symlink),
	[FS_MKDIR] = V("Mkdir", op_mkdir),
	[FS_REMOVE] = V("Remove", op_path),
	[FS_REMOVE_DIR] = V("RemoveDir", op_remove_dir),
	[FS_COPY] = V("Copy", op_src_dst),
	[FS_RENAME] = V("Rename", op_src_dst),
	[FS_OPEN_FILE] = V("OpenFile", op_open_file),
	[FS_OPEN_DIR] = V("OpenDir", op_path),
	[FS_CLOSE_HANDLE] = V("CloseHandle", op_handle),
	[FS_READ] = V("Read", op_transfer),
	[FS_WRITE] = V("Write", op_transfer),
	[FS_READ_DIR] = V("ReadDir", op_read_dir),
	[FS_FSTAT] = V("FStat", op_handle),
	[FS_FSET_STAT] = V("FSetStat", op_fset_stat),
	[FS_PACK_TREE] = V("PackTree", op_pack_tree),
	[FS_UNPACK_TREE] = V("UnpackTree", op_unpack_tree),
};
static_assert(offsetof(struct fs_op, kind) == 0, "a union starts with its kind");
static const struct wire_table fs_op = {
	.name = "op",
	.size = sizeof(struct fs_op),
	.variants = fs_op_variants,
	.nvariants = FS_OPS,
};

static const struct wire_field fs_request_fields[] = {
	FN(struct msg_fs_request, op, fs_op),
	TS(struct msg_fs_request, user),
};
TABLE(fs_request, struct msg_fs_request, "fs.request");

static const struct wire_field fs_entry_fields[] = {
	F(struct fs_entry, path, WIRE_TEXT),	F(struct fs_entry, kind, WIRE_TEXT),
	F(struct fs_entry, size, WIRE_U64),	F(struct fs_entry, mode, WIRE_U32),
	O(struct fs_entry, modified, WIRE_I64), F(struct fs_entry, uid, WIRE_U32),
	F(struct fs_entry, gid, WIRE_U32),	O(struct fs_entry, atime, WIRE_I64),
	O(struct fs_entry, mtime, WIRE_I64),
};
TABLE(fs_entry, struct fs_entry, "entry");

static const struct wire_field result_stat[] = {FN(struct fs_result, stat, fs_entry)};
static const struct wire_field result_list[] = {
	{.key = "list",
	 .type = WIRE_STRUCTS,
	 .offset = offsetof(struct fs_result, list),
	 .table = &fs_entry},
};
static const struct wire_field result_handle[] = {F(struct fs_result, handle, WIRE_U64)};
static const struct wire_field result_path[] = {F(struct fs_result, path, WIRE_TEXT)};
static const struct wire_variant fs_result_variants[] = {
	[FS_RESULT_STAT] = VBARE("Stat", result_stat),
	[FS_RESULT_LIST] = VBARE("List", result_list),
	[FS_RESULT_HANDLE] = VBARE("Handle", result_handle),
	[FS_RESULT_PATH] = VBARE("Path", result_path),
};
static_assert(offsetof(struct fs_result, kind) == 0, "a union starts with its kind");
static const struct wire_table fs_result = {
	.name = "data",
	.size = sizeof(struct fs_result),
	.variants = fs_result_variants,
	.nvariants = ARRAY_SIZE(fs_result_variants),
};

static const struct wire_field fs_response_fields[] = {
	F(struct msg_fs_response, ok, WIRE_BOOL),
	T(struct msg_fs_response, error),
	{.key = "data",
	 .type = WIRE_STRUCT,
	 .flags = WIRE_OPTIONAL,
	 .offset = offsetof(struct msg_fs_response, data),
	 .has = offsetof(struct msg_fs_response, has_data),
	 .table = &fs_result},
};
TABLE(fs_response, struct msg_fs_response, "fs.response");

/* TCP */

static const struct wire_field tcp_connect_fields[] = {
	F(struct msg_tcp_connect, host, WIRE_TEXT),
	F(struct msg_tcp_connect, port, WIRE_U16),
};
TABLE(tcp_connect, struct msg_tcp_connect, "tcp.connect");

static const struct wire_field tcp_failed_fields[] = {F(struct msg_tcp_failed, error, WIRE_TEXT)};
TABLE(tcp_failed, struct msg_tcp_failed, "tcp.failed");

/* Core */

const char *const core_error_names[] = {
	"malformed_message",
	"unsupported_message_type",
	"unsupported_protocol_generation",
	"invalid_flags",
	"invalid_payload",
	"invalid_session",
	"initialization_failed",
	NULL,
};
static_assert(ARRAY_SIZE(core_error_names) == CORE_INITIALIZATION_FAILED + 2, "enum core_error");

static const struct wire_field error_fields[] = {
	{.key = "kind",
	 .type = WIRE_ENUM,
	 .offset = offsetof(struct msg_error, kind),
	 .names = core_error_names},
	F(struct msg_error, message, WIRE_TEXT),
	TS(struct msg_error, offending_type),
};
TABLE(error, struct msg_error, "error");

static const struct wire_field touched_fields[] = {F(struct msg_touched, activity_seq, WIRE_U64)};
TABLE(touched, struct msg_touched, "touched");

/* Bootstrap */

static const struct wire_field boot_flags_fields[] = {
	FD(struct boot_flags, readonly, WIRE_BOOL, 0),
	FD(struct boot_flags, noexec, WIRE_BOOL, 0),
	FD(struct boot_flags, nosuid, WIRE_BOOL, 0),
	FD(struct boot_flags, nodev, WIRE_BOOL, 0),
};
TABLE(boot_flags, struct boot_flags, "flags");
#define FLAGS(S)                                                                                   \
	{                                                                                          \
		.key = "flags", .type = WIRE_STRUCT, .flags = WIRE_DEFAULT,                        \
		.offset = offsetof(S, flags), .table = &boot_flags                                 \
	}

static const struct wire_field upper_device[] = {
	F(struct boot_upper, device, WIRE_TEXT),
	F(struct boot_upper, fstype, WIRE_TEXT),
};
static const struct wire_field upper_tmpfs[] = {OS(struct boot_upper, size_mib, WIRE_U32)};
static const struct wire_variant boot_upper_variants[] = {
	[BOOT_UPPER_DEVICE] = V("device", upper_device),
	[BOOT_UPPER_TMPFS] = V("tmpfs", upper_tmpfs),
};
static_assert(offsetof(struct boot_upper, kind) == 0, "a union starts with its kind");
static const struct wire_table boot_upper = {
	.name = "upper",
	.size = sizeof(struct boot_upper),
	.tag_key = "kind",
	.variants = boot_upper_variants,
	.nvariants = ARRAY_SIZE(boot_upper_variants),
};

static const struct wire_field root_disk_image[] = {
	F(struct boot_root, device, WIRE_TEXT),
	TS(struct boot_root, fstype),
};
static const struct wire_field root_oci_erofs[] = {
	F(struct boot_root, lower, WIRE_TEXT),
	FN(struct boot_root, upper, boot_upper),
};
static const struct wire_variant boot_root_variants[] = {
	[BOOT_ROOT_DISK_IMAGE] = V("disk-image", root_disk_image),
	[BOOT_ROOT_OCI_EROFS] = V("oci-erofs", root_oci_erofs),
};
static_assert(offsetof(struct boot_root, kind) == 0, "a union starts with its kind");
static const struct wire_table boot_root = {
	.name = "block_root",
	.size = sizeof(struct boot_root),
	.tag_key = "kind",
	.variants = boot_root_variants,
	.nvariants = ARRAY_SIZE(boot_root_variants),
};

static const struct wire_field dir_mount_fields[] = {
	F(struct boot_dir_mount, tag, WIRE_TEXT),
	F(struct boot_dir_mount, guest_path, WIRE_TEXT),
	FLAGS(struct boot_dir_mount),
};
TABLE(dir_mount, struct boot_dir_mount, "dir_mount");

static const struct wire_field file_mount_fields[] = {
	F(struct boot_file_mount, tag, WIRE_TEXT),
	F(struct boot_file_mount, filename, WIRE_TEXT),
	F(struct boot_file_mount, guest_path, WIRE_TEXT),
	FLAGS(struct boot_file_mount),
};
TABLE(file_mount, struct boot_file_mount, "file_mount");

static const struct wire_field disk_mount_fields[] = {
	F(struct boot_disk_mount, id, WIRE_TEXT),
	F(struct boot_disk_mount, guest_path, WIRE_TEXT),
	TS(struct boot_disk_mount, fstype),
	FLAGS(struct boot_disk_mount),
};
TABLE(disk_mount, struct boot_disk_mount, "disk_mount");

static const struct wire_field tmpfs_mount_fields[] = {
	F(struct boot_tmpfs_mount, path, WIRE_TEXT),
	OS(struct boot_tmpfs_mount, size_mib, WIRE_U32),
	OS(struct boot_tmpfs_mount, mode, WIRE_U32),
	FLAGS(struct boot_tmpfs_mount),
};
TABLE(tmpfs_mount, struct boot_tmpfs_mount, "tmpfs_mount");

static const struct wire_field ipv4_fields[] = {
	OCT(struct boot_ipv4, address),
	F(struct boot_ipv4, prefix_len, WIRE_U8),
	OCT(struct boot_ipv4, gateway),
	OCTS(struct boot_ipv4, dns),
};
TABLE(ipv4, struct boot_ipv4, "ipv4");

static const struct wire_field ipv6_fields[] = {
	OCT(struct boot_ipv6, address),
	F(struct boot_ipv6, prefix_len, WIRE_U8),
	OCT(struct boot_ipv6, gateway),
	OCTS(struct boot_ipv6, dns),
};
TABLE(ipv6, struct boot_ipv6, "ipv6");

static const struct wire_field network_fields[] = {
	F(struct boot_network, interface, WIRE_TEXT),
	OCT(struct boot_network, mac),
	OCT(struct boot_network, gateway_mac),
	F(struct boot_network, mtu, WIRE_U16),
	ON(struct boot_network, ipv4, ipv4),
	ON(struct boot_network, ipv6, ipv6),
	TS(struct boot_network, search),
};
TABLE(network, struct boot_network, "network");

static const struct wire_field boot_env_fields[] = {
	F(struct boot_env, key, WIRE_TEXT),
	{.key = "value",
	 .type = WIRE_TEXT,
	 .flags = WIRE_SECRET,
	 .offset = offsetof(struct boot_env, value)},
};
TABLE(boot_env, struct boot_env, "env");

static const char *const boot_security_names[] = {"default", "restricted", NULL};

static const struct wire_field handoff_fields[] = {
	F(struct boot_handoff, cmd, WIRE_TEXT),
	FS(struct boot_handoff, args, WIRE_TEXTS),
	TS(struct boot_handoff, cwd),
	FL(struct boot_handoff, env, boot_env),
};
TABLE(handoff, struct boot_handoff, "handoff_init");

static const struct wire_field bootstrap_fields[] = {
	ON(struct msg_bootstrap, block_root, boot_root),
	FL(struct msg_bootstrap, dir_mounts, dir_mount),
	FL(struct msg_bootstrap, file_mounts, file_mount),
	FL(struct msg_bootstrap, disk_mounts, disk_mount),
	FL(struct msg_bootstrap, tmpfs_mounts, tmpfs_mount),
	TS(struct msg_bootstrap, hostname),
	TS(struct msg_bootstrap, host_alias),
	ON(struct msg_bootstrap, network, network),
	FL(struct msg_bootstrap, rlimits, rlimit),
	TS(struct msg_bootstrap, user),
	TS(struct msg_bootstrap, default_cwd),
	FL(struct msg_bootstrap, default_env, boot_env),
	{.key = "security_profile",
	 .type = WIRE_ENUM,
	 .flags = WIRE_DEFAULT,
	 .offset = offsetof(struct msg_bootstrap, security_profile),
	 .names = boot_security_names},
	ON(struct msg_bootstrap, handoff_init, handoff),
	OS(struct msg_bootstrap, unix_time_nanos, WIRE_U64),
	OS(struct msg_bootstrap, tmp_size_mib, WIRE_U32),
	TS(struct msg_bootstrap, patch),
};
TABLE(bootstrap, struct msg_bootstrap, "bootstrap");

static const struct wire_field host_used_fields[] = {
	F(struct msg_host_used, memory_total, WIRE_U64),
	F(struct msg_host_used, memory_available, WIRE_U64),
	F(struct msg_host_used, root_total, WIRE_U64),
	F(struct msg_host_used, root_free, WIRE_U64),
	F(struct msg_host_used, cpus, WIRE_U32),
};
TABLE(host_used, struct msg_host_used, "host.used");

static const struct wire_field host_cpus_fields[] = {F(struct msg_host_cpus, online, WIRE_U32)};
TABLE(host_cpus, struct msg_host_cpus, "host.cpus");

static const struct wire_field host_cpus_set_fields[] = {
	F(struct msg_host_cpus_set, online, WIRE_U32),
	TS(struct msg_host_cpus_set, error),
};
TABLE(host_cpus_set, struct msg_host_cpus_set, "host.cpus.set");

static const struct wire_field host_defaults_fields[] = {
	FL(struct msg_host_defaults, env, boot_env),
	TS(struct msg_host_defaults, cwd),
};
TABLE(host_defaults, struct msg_host_defaults, "host.defaults");

const struct msg_type msg_types[MSG_KINDS] = {
	/* kind                            name                       flags          gen  payload */
	[MSG_READY] = {"core.ready", 0, 1, &ready},
	[MSG_INIT_RESOLVED] = {"core.init.resolved", 0, 1, &init_resolved},
	[MSG_INIT_ACK] = {"core.init.ack", 0, 1, &empty},
	[MSG_SHUTDOWN] = {"core.shutdown", FRAME_SHUTDOWN, 1, &shutdown},
	[MSG_RELAY_CLIENT_DISCONNECTED] = {"core.relay.client.disconnected", 0, 1, &disconnected},
	[MSG_CLOCK_SYNC] = {"core.clock.sync", 0, 1, &clock_sync},
	[MSG_EXEC_REQUEST] = {"core.exec.request", FRAME_SESSION_START, 1, &exec_request},
	[MSG_EXEC_STARTED] = {"core.exec.started", 0, 1, &exec_started},
	[MSG_EXEC_STDIN] = {"core.exec.stdin", 0, 1, &data},
	[MSG_EXEC_STDIN_ERROR] = {"core.exec.stdin.error", 0, 1, &stdin_error},
	[MSG_EXEC_STDOUT] = {"core.exec.stdout", 0, 1, &data},
	[MSG_EXEC_STDERR] = {"core.exec.stderr", 0, 1, &data},
	[MSG_EXEC_EXITED] = {"core.exec.exited", FRAME_TERMINAL, 1, &exec_exited},
	[MSG_EXEC_FAILED] = {"core.exec.failed", FRAME_TERMINAL, 1, &exec_failed},
	[MSG_EXEC_RESIZE] = {"core.exec.resize", 0, 1, &exec_resize},
	[MSG_EXEC_SIGNAL] = {"core.exec.signal", 0, 1, &exec_signal},
	[MSG_FS_REQUEST] = {"core.fs.request", FRAME_SESSION_START, 2, &fs_request},
	[MSG_FS_RESPONSE] = {"core.fs.response", FRAME_TERMINAL, 2, &fs_response},
	[MSG_FS_DATA] = {"core.fs.data", 0, 2, &data},
	[MSG_TCP_CONNECT] = {"core.tcp.connect", FRAME_SESSION_START, 4, &tcp_connect},
	[MSG_TCP_CONNECTED] = {"core.tcp.connected", 0, 4, &empty},
	[MSG_TCP_DATA] = {"core.tcp.data", 0, 4, &data},
	[MSG_TCP_EOF] = {"core.tcp.eof", 0, 4, &empty},
	[MSG_TCP_CLOSE] = {"core.tcp.close", 0, 4, &empty},
	[MSG_TCP_CLOSED] = {"core.tcp.closed", FRAME_TERMINAL, 4, &empty},
	[MSG_TCP_FAILED] = {"core.tcp.failed", FRAME_TERMINAL, 4, &tcp_failed},
	[MSG_ERROR] = {"core.error", FRAME_TERMINAL, 5, &error},
	[MSG_PING] = {"core.ping", 0, 6, &empty},
	[MSG_PONG] = {"core.pong", FRAME_TERMINAL, 6, &empty},
	[MSG_TOUCH] = {"core.touch", 0, 6, &empty},
	[MSG_TOUCHED] = {"core.touched", FRAME_TERMINAL, 6, &touched},
	[MSG_BOOTSTRAP] = {"core.bootstrap", 0, 7, &bootstrap},
	[MSG_HOST_DRAIN] = {"host.drain", 0, 7, &empty},
	[MSG_HOST_USAGE] = {"host.usage", 0, 7, &empty},
	[MSG_HOST_USED] = {"host.used", 0, 7, &host_used},
	[MSG_HOST_CPUS] = {"host.cpus", 0, 7, &host_cpus},
	[MSG_HOST_CPUS_SET] = {"host.cpus.set", 0, 7, &host_cpus_set},
	[MSG_HOST_DEFAULTS] = {"host.defaults", 0, 7, &host_defaults},
};

const struct msg_type *msg_find(const char *name, size_t n)
{
	for (size_t i = 0; i < MSG_KINDS; i++) {
		if (strlen(msg_types[i].name) == n && !memcmp(msg_types[i].name, name, n))
			return &msg_types[i];
	}
	return NULL;
}
