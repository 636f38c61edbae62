/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent protocol's messages, generation 7: one row per message type in msg_types[], one
 * struct and field table per payload. Names, keys and enum spellings are the peer's, so clients
 * written for it work; `core.bootstrap` carries a few keys more, which others skip.
 *
 * How to add a message: a struct here, its table in agent_msg.c, a kind in enum msg_kind and a
 * row in msg_types[]. The property tests then cover it by themselves.
 *
 * Structs start as all zeroes and own what they point to: msg_free(). Any thread.
 */
#ifndef WIRE_AGENT_MSG_H
#define WIRE_AGENT_MSG_H

#include "wire/codec.h"

enum {
	AGENT_GENERATION = 7,
	AGENT_PORT = 1024, /* vsock: the guest listens here for relay clients */
	AGENT_CONTROL_PORT =
		1025, /* vsock: the host listens here for the guest's control connection */
	FS_CHUNK_MAX = 3 << 20, /* largest core.fs.data */
	FS_HANDLES_MAX = 1024,	/* open handles per client */
	FS_READDIR_DEFAULT = 128,
	TCP_CHUNK_MAX = 64 << 10, /* largest core.tcp.data */
	TCP_CONNECT_TIMEOUT_S = 30,
};

enum msg_kind {
	MSG_READY,
	MSG_INIT_RESOLVED,
	MSG_INIT_ACK,
	MSG_SHUTDOWN,
	MSG_RELAY_CLIENT_DISCONNECTED,
	MSG_CLOCK_SYNC,
	MSG_EXEC_REQUEST,
	MSG_EXEC_STARTED,
	MSG_EXEC_STDIN,
	MSG_EXEC_STDIN_ERROR,
	MSG_EXEC_STDOUT,
	MSG_EXEC_STDERR,
	MSG_EXEC_EXITED,
	MSG_EXEC_FAILED,
	MSG_EXEC_RESIZE,
	MSG_EXEC_SIGNAL,
	MSG_FS_REQUEST,
	MSG_FS_RESPONSE,
	MSG_FS_DATA,
	MSG_TCP_CONNECT,
	MSG_TCP_CONNECTED,
	MSG_TCP_DATA,
	MSG_TCP_EOF,
	MSG_TCP_CLOSE,
	MSG_TCP_CLOSED,
	MSG_TCP_FAILED,
	MSG_ERROR,
	MSG_PING,
	MSG_PONG,
	MSG_TOUCH,
	MSG_TOUCHED,
	MSG_BOOTSTRAP,
	/* Ours, on the control connection only. */
	MSG_HOST_DRAIN,
	MSG_HOST_USAGE,
	MSG_HOST_USED,
	MSG_HOST_CPUS,
	MSG_HOST_CPUS_SET,
	MSG_HOST_DEFAULTS,
	MSG_KINDS,
};

struct msg_type {
	const char *name;
	uint8_t flags; /* enum frame_flags that go with it */
	uint8_t generation;
	const struct wire_table *table;
};

extern const struct msg_type msg_types[MSG_KINDS];

/* The row for a name, or NULL. */
const struct msg_type *msg_find(const char *name, size_t n);
static inline enum msg_kind msg_kind_of(const struct msg_type *t)
{
	return (enum msg_kind)(t - msg_types);
}
static inline void msg_free(enum msg_kind kind, void *msg)
{
	wire_free(msg_types[kind].table, msg);
}

/*
 * Payloads without fields: init.ack, ping, pong, touch, tcp.{connected,eof,close,closed},
 * host.{drain,usage}.
 */
struct msg_empty {
	char unused;
};

struct msg_shutdown {
	uint32_t grace_ms; /* what runs has so long to end; 0: not long */
};

struct msg_ready {
	uint64_t boot_time_ns;	/* CLOCK_BOOTTIME when agentd's main() began */
	uint64_t init_time_ns;	/* how long setting the guest up took */
	uint64_t ready_time_ns; /* CLOCK_BOOTTIME just before this message */
	char *agent_version;
};

struct resolved_user {
	uint32_t uid, gid;
};
struct msg_init_resolved {
	struct resolved_user default_user;
};

struct msg_relay_client_disconnected {
	uint32_t id_start, id_end_exclusive;
};

struct msg_clock_sync {
	uint64_t unix_time_nanos;
};

struct exec_rlimit {
	char *resource; /* "nofile", "nproc"... */
	uint64_t soft, hard;
};

struct msg_exec_request {
	char *cmd;
	struct wire_texts args; /* without argv[0] */
	struct wire_texts env;	/* "K=V" */
	char *cwd, *user;	/* NULL: the sandbox's default */
	bool tty;
	uint16_t rows, cols;
	struct wire_list rlimits; /* struct exec_rlimit */
};

struct msg_exec_started {
	uint32_t pid;
};

/* exec.stdin, exec.stdout, exec.stderr, fs.data, tcp.data: empty stdin and fs data mean EOF. */
struct msg_data {
	struct wire_bytes data;
};

struct msg_exec_stdin_error {
	bool has_errno;
	int32_t error;
	char *errno_name;
	char *message;
};

struct msg_exec_exited {
	int32_t code; /* 128 + N when signal N ended it */
};

enum exec_fail {
	EXEC_NOT_FOUND,
	EXEC_PERMISSION_DENIED,
	EXEC_NOT_EXECUTABLE,
	EXEC_BAD_CWD,
	EXEC_BAD_ARGS,
	EXEC_RESOURCE_LIMIT,
	EXEC_USER_SETUP_FAILED,
	EXEC_OUT_OF_MEMORY,
	EXEC_PTY_SETUP_FAILED,
	EXEC_OTHER,
};
extern const char *const exec_fail_names[];

struct msg_exec_failed {
	int32_t kind; /* enum exec_fail */
	bool has_errno;
	int32_t error;
	char *errno_name;
	char *message;
	char *stage;
};

struct msg_exec_resize {
	uint16_t rows, cols;
};

struct msg_exec_signal {
	int32_t signal;
};

struct fs_attrs {
	bool has_mode, has_uid, has_gid, has_size, has_atime, has_mtime;
	uint32_t mode, uid, gid;
	uint64_t size;
	int64_t atime, mtime; /* seconds */
};

struct fs_open_options {
	bool read, write, append, create, truncate, create_new;
	bool has_mode;
	uint32_t mode;
	char *user;
};

enum fs_op_kind {
	FS_REAL_PATH,
	FS_STAT,
	FS_SET_STAT,
	FS_LIST,
	FS_READ_LINK,
	FS_SYMLINK,
	FS_MKDIR,
	FS_REMOVE,
	FS_REMOVE_DIR,
	FS_COPY,
	FS_RENAME,
	FS_OPEN_FILE,
	FS_OPEN_DIR,
	FS_CLOSE_HANDLE,
	FS_READ,
	FS_WRITE,
	FS_READ_DIR,
	FS_FSTAT,
	FS_FSET_STAT,
	/* Ours: a file or tree as a tar stream (tree/tree.h), out of the guest and into it. */
	FS_PACK_TREE,	/* answered like Read */
	FS_UNPACK_TREE, /* goes on like Write */
	FS_OPS,
};

struct fs_op {
	int32_t kind; /* enum fs_op_kind */
	char *path;
	bool follow_symlink, recursive;
	struct fs_attrs attrs;
	char *target, *link_path; /* Symlink */
	char *src, *dst;	  /* Copy, Rename */
	char *user;		  /* Symlink, Mkdir: create as this user; NULL is root */
	bool has_mode;
	uint32_t mode; /* Mkdir */
	struct fs_open_options options;
	uint64_t handle, offset;
	bool has_len, has_limit;
	uint64_t len;	/* Read, Write */
	uint32_t limit; /* ReadDir */
	/* PackTree, UnpackTree: the fields of struct tree_pack and tree_unpack. */
	struct wire_bytes tree_path, tree_name;
	bool follow, attributes, rights;
	bool archive; /* UnpackTree: any archive; tree_name means nothing then */
};

struct msg_fs_request {
	struct fs_op op;
	/*
	 * NULL: root, as all clients before have it. Else this user's rights are what counts, and
	 * relative paths are from its home; empty: the sandbox's user.
	 */
	char *user;
};

struct fs_entry {
	char *path;
	char *kind; /* "file", "dir", "symlink", "other" */
	uint64_t size;
	uint32_t mode;
	bool has_modified;
	int64_t modified;
	uint32_t uid, gid;
	bool has_atime, has_mtime;
	int64_t atime, mtime;
};

enum fs_result_kind { FS_RESULT_STAT, FS_RESULT_LIST, FS_RESULT_HANDLE, FS_RESULT_PATH };

struct fs_result {
	int32_t kind; /* enum fs_result_kind */
	struct fs_entry stat;
	struct wire_list list; /* struct fs_entry */
	uint64_t handle;
	char *path;
};

struct msg_fs_response {
	bool ok;
	char *error; /* PackTree, UnpackTree: also when ok, what was not kept */
	bool has_data;
	struct fs_result data;
};

struct msg_tcp_connect {
	char *host;
	uint16_t port;
};

struct msg_tcp_failed {
	char *error;
};

enum core_error {
	CORE_MALFORMED_MESSAGE,
	CORE_UNSUPPORTED_MESSAGE_TYPE,
	CORE_UNSUPPORTED_PROTOCOL_GENERATION,
	CORE_INVALID_FLAGS,
	CORE_INVALID_PAYLOAD,
	CORE_INVALID_SESSION,
	CORE_INITIALIZATION_FAILED, /* the guest could not boot; only on the control connection */
};
extern const char *const core_error_names[];

struct msg_error {
	int32_t kind; /* enum core_error */
	char *message;
	char *offending_type;
};

struct msg_touched {
	uint64_t activity_seq;
};

/* core.bootstrap */

struct boot_flags {
	bool readonly, noexec, nosuid, nodev;
};

enum boot_upper_kind { BOOT_UPPER_DEVICE, BOOT_UPPER_TMPFS };
struct boot_upper {
	int32_t kind; /* enum boot_upper_kind */
	char *device; /* "/dev/vdb" or "serial:msb-upper" */
	char *fstype;
	bool has_size_mib;
	uint32_t size_mib;
};

enum boot_root_kind { BOOT_ROOT_DISK_IMAGE, BOOT_ROOT_OCI_EROFS };
struct boot_root {
	int32_t kind; /* enum boot_root_kind */
	char *device; /* disk image */
	char *fstype;
	char *lower; /* EROFS: "/dev/vda" or "serial:msb-root" */
	struct boot_upper upper;
};

struct boot_dir_mount {
	char *tag, *guest_path;
	struct boot_flags flags;
};
struct boot_file_mount {
	char *tag, *filename, *guest_path;
	struct boot_flags flags;
};
struct boot_disk_mount {
	char *id, *guest_path, *fstype;
	struct boot_flags flags;
};
struct boot_tmpfs_mount {
	char *path;
	bool has_size_mib, has_mode;
	uint32_t size_mib, mode;
	struct boot_flags flags;
};

struct boot_ipv4 {
	uint8_t address[4];
	uint8_t prefix_len;
	uint8_t gateway[4];
	bool has_dns;
	uint8_t dns[4];
};
struct boot_ipv6 {
	uint8_t address[16];
	uint8_t prefix_len;
	uint8_t gateway[16];
	bool has_dns;
	uint8_t dns[16];
};
struct boot_network {
	char *interface;
	uint8_t mac[6], gateway_mac[6];
	uint16_t mtu;
	bool has_ipv4, has_ipv6;
	struct boot_ipv4 ipv4;
	struct boot_ipv6 ipv6;
	char *search; /* domains to look for short names in, with blanks between */
};

struct boot_env {
	char *key, *value;
};

enum boot_security { BOOT_SECURITY_DEFAULT, BOOT_SECURITY_RESTRICTED };

struct boot_handoff {
	char *cmd; /* an absolute path, or "auto" */
	struct wire_texts args;
	char *cwd;
	struct wire_list env; /* struct boot_env */
};

struct msg_bootstrap {
	bool has_block_root;
	struct boot_root block_root;
	struct wire_list dir_mounts;   /* struct boot_dir_mount */
	struct wire_list file_mounts;  /* struct boot_file_mount */
	struct wire_list disk_mounts;  /* struct boot_disk_mount */
	struct wire_list tmpfs_mounts; /* struct boot_tmpfs_mount */
	char *hostname, *host_alias;
	bool has_network;
	struct boot_network network;
	struct wire_list rlimits; /* struct exec_rlimit */
	char *user, *default_cwd;
	struct wire_list default_env; /* struct boot_env */
	int32_t security_profile;     /* enum boot_security */
	bool has_handoff_init;
	struct boot_handoff handoff_init;

	/* Ours. */
	bool has_unix_time_nanos;
	uint64_t unix_time_nanos; /* the host's clock when it wrote this message */
	bool has_tmp_size_mib;
	char *patch;	       /* the disk of wire/patch.h, if the root is to be changed */
	uint32_t tmp_size_mib; /* size of the tmpfs on /tmp; 0 is none, absent clamp(memory/4, 1,
				  512) */
};

/*
 * host.*: between msb-vm and the agent. host.drain refuses new sessions from then on. host.usage
 * asks for host.used: bytes, as the guest's kernel counts them. host.cpus switches the CPUs from
 * @online on off and those below on, as far as the guest's kernel does it; host.cpus.set says how
 * many are on afterwards. host.defaults replaces what sessions get unless they say otherwise.
 */
struct msg_host_used {
	uint64_t memory_total, memory_available;
	uint64_t root_total, root_free;
	uint32_t cpus;
};

struct msg_host_cpus {
	uint32_t online;
};

struct msg_host_cpus_set {
	uint32_t online;
	char *error; /* NULL: they are as asked */
};

struct msg_host_defaults {
	struct wire_list env; /* struct boot_env */
	char *cwd;
};

#endif
