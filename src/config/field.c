/* SPDX-License-Identifier: Apache-2.0 */
#include "config/field.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "config/load.h"
#include "config/net.h"
#include "sandbox/patch.h"

void model_init(struct model *m)
{
	*m = (struct model){0};
	sandbox_spec_init(&m->spec);
}

void model_done(struct model *m)
{
	sandbox_spec_done(&m->spec);
	free(m->image);
	strv_done(&m->cmd);
	free(m->registry_username);
	free(m->registry_password_env);
	for (size_t i = 0; i < m->nsaid; i++) {
		free(m->said[i].text);
		free(m->said[i].from);
	}
	free(m->said);
	*m = (struct model){0};
}

/* ---- setters that the spec has not ---- */

int pull_policy_parse(const char *text, enum pull_policy *ret, struct err *err)
{
	static const struct {
		const char *word;
		enum pull_policy policy;
	} words[] = {
		{"always", PULL_ALWAYS},
		{"missing", PULL_MISSING},
		{"if-missing", PULL_MISSING},
		{"never", PULL_NEVER},
	};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (str_eq(text, words[i].word)) {
			*ret = words[i].policy;
			return 0;
		}
	}
	err_set(err, ERR_USAGE, "\"%.60s\" does not say when to pull", text);
	return err_hint(err, "it is one of always, missing, never");
}

static int set_pull(struct model *m, const char *text, struct err *err)
{
	return pull_policy_parse(text, &m->pull, err);
}

static int replace(char **at, const char *text, struct err *err)
{
	char *copy = strdup(text);

	if (!copy)
		return err_set(err, ENOMEM, "out of memory");
	free(*at);
	*at = copy;
	return 0;
}

static int set_image(struct model *m, const char *text, struct err *err)
{
	if (!text[0])
		return err_set(err, ERR_USAGE, "the name of the image is empty");
	return replace(&m->image, text, err);
}

static int set_registry_username(struct model *m, const char *text, struct err *err)
{
	return replace(&m->registry_username, text, err);
}

static int set_registry_password_env(struct model *m, const char *text, struct err *err)
{
	if (!text[0] || strchr(text, '=')) {
		err_set(err, ERR_USAGE, "\"%.60s\" is no name of a variable", text);
		return err_hint(err, "name the environment variable that has the password");
	}
	return replace(&m->registry_password_env, text, err);
}

static int add_cmd(struct model *m, const char *text, struct err *err)
{
	return strv_add(&m->cmd, text) < 0 ? err_set(err, ENOMEM, "out of memory") : 0;
}

static void clear_cmd(struct model *m)
{
	strv_done(&m->cmd);
}

static void clear_rlimits(struct model *m)
{
	m->spec.nrlimits = 0;
}

static void clear_vsock(struct model *m)
{
	strv_done(&m->spec.vsock);
}

static void clear_vsock_listen(struct model *m)
{
	strv_done(&m->spec.vsock_listen);
}

static void clear_init_args(struct model *m)
{
	strv_done(&m->spec.init_args);
}

/* Scripts are a map, and stay. */
static void clear_patches(struct model *m)
{
	static const char *const opts[] = {"copy",  "copy-file", "copy-dir",
					   "mkdir", "rm",	 "patch-file"};

	sandbox_patches_clear(&m->spec);
	for (size_t i = 0; i < ARRAY_SIZE(opts); i++)
		(void)field_clear(field_by_opt(opts[i]), m);
}

/* What is in them are patches like others. */
static void clear_patch_files(struct model *m)
{
	(void)m;
}

static int set_name(struct sandbox_spec *s, const char *text, struct err *err)
{
	int r = sandbox_name_check(text, err);

	return r < 0 ? r : replace(&s->name, text, err);
}

#define PATCH(fn, patch)                                                                           \
	static int fn(struct sandbox_spec *s, const char *text, struct err *err)                   \
	{                                                                                          \
		return sandbox_patch_add(s, patch, text, err);                                     \
	}
PATCH(add_copy, SANDBOX_COPY)
PATCH(add_copy_file, SANDBOX_COPY_FILE)
PATCH(add_copy_dir, SANDBOX_COPY_DIR)
PATCH(add_mkdir, SANDBOX_MKDIR)
PATCH(add_rm, SANDBOX_RM)
PATCH(add_script, SANDBOX_SCRIPT)
PATCH(add_script_raw, SANDBOX_SCRIPT_RAW)
PATCH(add_script_path, SANDBOX_SCRIPT_PATH)

#define LIMIT(fn, key)                                                                             \
	static int fn(struct sandbox_spec *s, const char *text, struct err *err)                   \
	{                                                                                          \
		return sandbox_spec_net_limit(s, key, text, err);                                  \
	}
LIMIT(limit_connections, "max-connections")
LIMIT(limit_connection_rate, "max-connection-rate")
LIMIT(limit_egress_bandwidth, "egress-bandwidth")
LIMIT(limit_egress_bandwidth_burst, "egress-bandwidth-burst")
LIMIT(limit_egress_ops, "egress-ops")
LIMIT(limit_egress_ops_burst, "egress-ops-burst")
LIMIT(limit_ingress_bandwidth, "ingress-bandwidth")
LIMIT(limit_ingress_bandwidth_burst, "ingress-bandwidth-burst")
LIMIT(limit_ingress_ops, "ingress-ops")
LIMIT(limit_ingress_ops_burst, "ingress-ops-burst")

static void clear_dns_servers(struct model *m)
{
	strv_done(&m->spec.dns_servers);
}

static void clear_dns_hosts(struct model *m)
{
	strv_done(&m->spec.dns_hosts);
}

static int set_dns_timeout_ms(struct sandbox_spec *s, const char *text, struct err *err)
{
	return sandbox_spec_net_name(s, "timeout-ms", text, err);
}

static int set_dns_timeout(struct sandbox_spec *s, const char *text, struct err *err)
{
	char ms[24];
	uint64_t ns;
	int r = str_to_duration(text, "timeout", &ns, err);

	if (r < 0)
		return r;
	snprintf(ms, sizeof(ms), "%llu", (unsigned long long)(ns / 1000000));
	return set_dns_timeout_ms(s, ms, err);
}

static int set_dns_rebind(struct sandbox_spec *s, const char *text, struct err *err)
{
	return sandbox_spec_net_name(s, "rebind-protection", text, err);
}

static int set_net_strict(struct sandbox_spec *s, const char *text, struct err *err)
{
	return sandbox_spec_net_name(s, "strict", text, err);
}

/* ---- the table ---- */

#define TEXT(field) .text = offsetof(struct sandbox_spec, field)

#define IN_PATCHES "in a file it is an entry of \"patches\""
#define IN_SCRIPTS "in a file it is an entry of \"scripts\""

#define SCHEMA_TEXT  "{\"type\":\"string\"}"
#define SCHEMA_VALUE "{\"type\":[\"string\",\"integer\"]}"
static const char schema_image[] =
	"{\"oneOf\":[" SCHEMA_TEXT ",{\"type\":\"object\",\"additionalProperties\":false,"
	"\"required\":[\"oci\"],\"properties\":{\"oci\":" SCHEMA_TEXT
	",\"upper_size\":" SCHEMA_VALUE "}},{\"type\":\"object\",\"additionalProperties\":false,"
	"\"required\":[\"bind\"],\"properties\":{\"bind\":" SCHEMA_TEXT
	"}},{\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"disk\"],"
	"\"properties\":{\"disk\":" SCHEMA_TEXT ",\"fstype\":" SCHEMA_TEXT
	",\"format\":" SCHEMA_TEXT "}}]}";
static const char schema_entrypoint[] =
	"{\"oneOf\":[" SCHEMA_TEXT ",{\"type\":\"array\",\"minItems\":1,\"items\":" SCHEMA_TEXT
	"}]}";
static const char schema_rlimits[] =
	"{\"type\":\"array\",\"items\":{\"oneOf\":[" SCHEMA_TEXT
	",{\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"resource\",\"soft\"],"
	"\"properties\":{\"resource\":" SCHEMA_TEXT ",\"soft\":" SCHEMA_VALUE
	",\"hard\":" SCHEMA_VALUE "}}]}}";
/* In the order of the help. */
const struct field fields[] = {
	{"image", NULL, FIELD_SOURCE, 0, NULL, "IMAGE|PATH",
	 "Image, directory or disk that the root is made of", NULL, .model = set_image,
	 .anyway = true, .load = conf_load_image, .schema = schema_image},
	{"cmd", NULL, FIELD_LIST, 0, NULL, "WORD", "Command in place of the image's", NULL,
	 .model = add_cmd, .scope = FIELD_RUNTIME, .clear = clear_cmd, .anyway = true},
	{"env", NULL, FIELD_MAP, 'e', "env", "KEY[=VALUE]",
	 "Set an environment variable, or pass on ours (repeatable)", NULL,
	 .spec = sandbox_spec_env, .scope = FIELD_RUNTIME},
	{"user", NULL, FIELD_TEXT, 'u', "user", "USER[:GROUP]",
	 "Run as this user, by name or number", "image's, or root", TEXT(user),
	 .scope = FIELD_RUNTIME},
	{"workdir", NULL, FIELD_TEXT, 'w', "workdir", "PATH", "Working directory", "image's, or /",
	 TEXT(workdir), .scope = FIELD_RUNTIME},
	{"entrypoint", NULL, FIELD_TEXT, 0, "entrypoint", "PROGRAM|[PROGRAM, ARGUMENT...]",
	 "Program to run in place of the image's entrypoint", NULL, .model = conf_entrypoint,
	 .scope = FIELD_RUNTIME, .load = conf_load_entrypoint, .schema = schema_entrypoint},
	{"cpus", NULL, FIELD_NUMBER, 'c', "cpus", "N", "Virtual CPUs", "1",
	 .spec = sandbox_spec_cpus, .scope = FIELD_RESOURCE},
	{"max_cpus", NULL, FIELD_NUMBER, 0, "max-cpus", "N",
	 "CPUs that it can be given while it runs", "--cpus", .spec = sandbox_spec_max_cpus,
	 .scope = FIELD_RESOURCE},
	{"memory", NULL, FIELD_SIZE, 'm', "memory", "SIZE",
	 "Memory, as in 512M or 1.5G; a bare number is MiB", "512M", .spec = sandbox_spec_memory,
	 .scope = FIELD_RESOURCE},
	{"max_memory", NULL, FIELD_SIZE, 0, "max-memory", "SIZE",
	 "Memory that it can be given while it runs", "--memory", .spec = sandbox_spec_max_memory,
	 .scope = FIELD_RESOURCE},
	{"root_disk", NULL, FIELD_SOURCE, 0, "root-disk", "SIZE|tmpfs[:SIZE]|FILE",
	 "Room for changes to the root file system, or a disk of yours for them", "8G",
	 .spec = sandbox_spec_root, .scope = FIELD_FS},
	{"shell", NULL, FIELD_TEXT, 0, "shell", "PATH", "Shell, and what runs scripts", "/bin/sh",
	 TEXT(shell), .scope = FIELD_RUNTIME},
	{NULL, IN_PATCHES, FIELD_LIST, 0, "copy", "SRC:DST",
	 "Copy a file or directory into the root (repeatable, as those below)", NULL,
	 .spec = add_copy},
	{NULL, IN_PATCHES, FIELD_LIST, 0, "copy-file", "SRC:DST", "Copy a file", NULL,
	 .spec = add_copy_file},
	{NULL, IN_PATCHES, FIELD_LIST, 0, "copy-dir", "SRC:DST", "Copy a directory", NULL,
	 .spec = add_copy_dir},
	{NULL, IN_PATCHES, FIELD_LIST, 0, "mkdir", "PATH", "Make a directory in the root", NULL,
	 .spec = add_mkdir},
	{NULL, IN_PATCHES, FIELD_LIST, 0, "rm", "PATH", "Remove a file or directory from the root",
	 NULL, .spec = add_rm},
	{"patches", NULL, FIELD_LIST, 0, "patch", "KIND: {KEY: VALUE, ...}",
	 "Change the root before the first command, as an entry of \"patches\" in a file does: "
	 "text, "
	 "file, append, symlink, copy, copy_file, copy_dir, mkdir, remove",
	 NULL, .model = conf_patch, .scope = FIELD_FS, .clear = clear_patches,
	 .load = conf_load_patches, .schema = conf_patches_schema},
	{"patch_files", NULL, FIELD_LIST, 0, "patch-file", "FILE", "The patches in this file", NULL,
	 .model = conf_patch_file, .scope = FIELD_FS, .clear = clear_patch_files,
	 .load = conf_load_patch_files},
	{NULL, IN_SCRIPTS, FIELD_LIST, 0, "script", "NAME=BODY",
	 "Put a script on the PATH; \\n, \\t, \\\" and the like are understood", NULL,
	 .spec = add_script},
	{"scripts", NULL, FIELD_MAP, 0, "script-raw", "NAME=BODY",
	 "Put a script on the PATH, as it stands", NULL, .spec = add_script_raw},
	{NULL, IN_SCRIPTS, FIELD_LIST, 0, "script-path", "NAME:FILE",
	 "Put a script on the PATH, from a file", NULL, .spec = add_script_path},
	{NULL, "a file may serve several sandboxes", FIELD_TEXT, 'n', "name", "NAME",
	 "Keep the sandbox under this name, and use it again next time", NULL, .spec = set_name,
	 .anyway = true},
	{"hostname", NULL, FIELD_TEXT, 'H', "hostname", "NAME", "Host name in the guest",
	 "from the sandbox's name", TEXT(hostname), .scope = FIELD_RUNTIME},
	{"ports", NULL, FIELD_LIST, 'p', "port", "[BIND:]HOST:GUEST[/udp]",
	 "Publish a port of the guest, or a range A-B, on this host, on 127.0.0.1 unless told "
	 "otherwise (repeatable)",
	 NULL, .spec = sandbox_spec_port, .clear = conf_net_ports},
	{"network", NULL, FIELD_TEXT, 0, NULL, "none|public|open|...", "What the guest may reach",
	 NULL, .load = conf_load_network, .schema = conf_network_schema},
	{"network.policy", NULL, FIELD_TEXT, 0, NULL, "none|public|open|PROFILE[,...]",
	 "What the guest may reach: none, public, open (the same as all) or profiles", NULL,
	 .model = conf_net_policy, .scope = FIELD_NET, .after = conf_net_compose},
	{"network.profiles", NULL, FIELD_TEXT, 0, "net", "PROFILE[,...]",
	 "What the guest may reach: public, private, host, none, or all but the host", "public",
	 .spec = sandbox_spec_net, .scope = FIELD_NET, .after = conf_net_compose},
	{"network.default", NULL, FIELD_WORD, 0, "net-default", "allow|deny",
	 "What no rule decides, both ways, in place of --net", NULL,
	 .spec = sandbox_spec_net_default, .scope = FIELD_NET, .after = conf_net_compose},
	{"network.default_egress", NULL, FIELD_WORD, 0, "net-default-egress", "allow|deny",
	 "The same, what the guest begins", NULL, .spec = sandbox_spec_net_egress,
	 .scope = FIELD_NET, .after = conf_net_compose},
	{"network.default_ingress", NULL, FIELD_WORD, 0, "net-default-ingress", "allow|deny",
	 "The same, what comes in through published ports", "allow",
	 .spec = sandbox_spec_net_ingress, .scope = FIELD_NET},
	{"network.rules", NULL, FIELD_LIST, 0, "net-rule", "RULE[,...]",
	 "Exceptions to that, as in deny@1.2.3.0/24 or allow@10.1.2.3:tcp:80,443 (repeatable)",
	 NULL, .spec = sandbox_spec_net_rule, .scope = FIELD_NET, .after = conf_net_compose},
	{"network.deny", NULL, FIELD_LIST, 0, NULL, "TARGET[:PROTOCOL[:PORTS]]",
	 "Rules that deny, behind those of network.rules", NULL, .model = conf_net_deny,
	 .scope = FIELD_NET, .after = conf_net_compose},
	{"network.allow", NULL, FIELD_LIST, 0, NULL, "TARGET[:PROTOCOL[:PORTS]]",
	 "Rules that allow, behind those that deny; with any, nothing else is allowed", NULL,
	 .model = conf_net_allow, .scope = FIELD_NET, .after = conf_net_compose},
	{"network.ports", NULL, FIELD_LIST, 0, NULL, "[BIND:]HOST:GUEST[/udp]",
	 "Ports to publish besides those of \"ports\"", NULL, .spec = sandbox_spec_port,
	 .scope = FIELD_NET, .clear = conf_net_ports},
	{"network.max_connections", NULL, FIELD_NUMBER, 0, "max-connections", "N",
	 "Connections of the guest at a time, both ways", NULL, .spec = limit_connections,
	 .scope = FIELD_NET},
	{"network.max_connection_rate", NULL, FIELD_TEXT, 0, "max-connection-rate", "N[/TIME]",
	 "New connections in a time, a second if it is not said", NULL,
	 .spec = limit_connection_rate, .scope = FIELD_NET},
	{"network.egress_bandwidth", NULL, FIELD_TEXT, 0, "net-egress-bandwidth", "SIZE[/TIME]",
	 "Bytes from the guest in a time, as in 10M or 1G/1m", NULL, .spec = limit_egress_bandwidth,
	 .scope = FIELD_NET},
	{"network.egress_bandwidth_burst", NULL, FIELD_TEXT, 0, "net-egress-bandwidth-burst",
	 "SIZE", "Bytes above that, once", NULL, .spec = limit_egress_bandwidth_burst,
	 .scope = FIELD_NET},
	{"network.egress_ops", NULL, FIELD_TEXT, 0, "net-egress-ops", "N[/TIME]",
	 "Frames from the guest in a time", NULL, .spec = limit_egress_ops, .scope = FIELD_NET},
	{"network.egress_ops_burst", NULL, FIELD_TEXT, 0, "net-egress-ops-burst", "N",
	 "Frames above that, once", NULL, .spec = limit_egress_ops_burst, .scope = FIELD_NET},
	{"network.ingress_bandwidth", NULL, FIELD_TEXT, 0, "net-ingress-bandwidth", "SIZE[/TIME]",
	 "Bytes to the guest in a time", NULL, .spec = limit_ingress_bandwidth, .scope = FIELD_NET},
	{"network.ingress_bandwidth_burst", NULL, FIELD_TEXT, 0, "net-ingress-bandwidth-burst",
	 "SIZE", "Bytes above that, once", NULL, .spec = limit_ingress_bandwidth_burst,
	 .scope = FIELD_NET},
	{"network.ingress_ops", NULL, FIELD_TEXT, 0, "net-ingress-ops", "N[/TIME]",
	 "Frames to the guest in a time", NULL, .spec = limit_ingress_ops, .scope = FIELD_NET},
	{"network.ingress_ops_burst", NULL, FIELD_TEXT, 0, "net-ingress-ops-burst", "N",
	 "Frames above that, once", NULL, .spec = limit_ingress_ops_burst, .scope = FIELD_NET},
	{"network.dns.nameservers", NULL, FIELD_LIST, 0, "dns-nameserver", "SERVER",
	 "Name server in place of the host's: IP[:PORT], tcp://IP..., tls://IP[:PORT][#NAME] "
	 "or tls://NAME (repeatable)",
	 NULL, .spec = sandbox_spec_dns_server, .scope = FIELD_NET, .clear = clear_dns_servers},
	{"network.dns.query_timeout", NULL, FIELD_DURATION, 0, NULL, "TIME",
	 "How long name servers have for an answer, all together", "5s", .spec = set_dns_timeout,
	 .scope = FIELD_NET},
	{NULL, "in a file it is network.dns.query_timeout", FIELD_NUMBER, 0, "dns-query-timeout-ms",
	 "N", "How long name servers have for an answer, all together", "5000",
	 .spec = set_dns_timeout_ms, .scope = FIELD_NET},
	{"network.dns.rebind_protection", NULL, FIELD_WORD, 0, "dns-rebind-protection", "on|off",
	 "Leave addresses out that are not public, when they come from name servers", "on",
	 .spec = set_dns_rebind, .scope = FIELD_NET},
	{"network.dns.hosts", NULL, FIELD_LIST, 0, "add-host", "NAME:IP",
	 "A name that the gateway knows an address of (repeatable)", NULL,
	 .spec = sandbox_spec_dns_host, .scope = FIELD_NET, .clear = clear_dns_hosts},
	{"network.strict", NULL, FIELD_WORD, 0, NULL, "on|off",
	 "What a rule allows by name has to say that name: in TLS, or as the host of HTTP", "off",
	 .spec = set_net_strict, .scope = FIELD_NET},
	{"network.proxy", NULL, FIELD_TEXT, 0, "proxy", "KIND://IP:PORT",
	 "Connect to the world through a proxy: socks5, socks4 or http", NULL,
	 .spec = sandbox_spec_proxy, .scope = FIELD_NET},
	{"network.proxy_user", NULL, FIELD_TEXT, 0, "proxy-user", "NAME", "User at the proxy", NULL,
	 .spec = sandbox_spec_proxy_user, .scope = FIELD_NET},
	{"network.proxy_password_env", NULL, FIELD_TEXT, 0, "proxy-password-env", "VARIABLE",
	 "Variable of ours that has the password for the proxy at each start", NULL,
	 .spec = sandbox_spec_proxy_password_env, .scope = FIELD_NET},
	{NULL, "in a file it is network.proxy_user", FIELD_TEXT, 0, "socks4-user-id", "ID",
	 "The same as --proxy-user", NULL, .spec = sandbox_spec_proxy_user, .scope = FIELD_NET},
	{NULL, "in a file it is network.proxy_user", FIELD_TEXT, 0, "socks5-username", "NAME",
	 "The same as --proxy-user", NULL, .spec = sandbox_spec_proxy_user, .scope = FIELD_NET},
	{NULL, "in a file it is network.proxy_password_env", FIELD_TEXT, 0, "socks5-password-env",
	 "VARIABLE", "The same as --proxy-password-env", NULL,
	 .spec = sandbox_spec_proxy_password_env, .scope = FIELD_NET},
	{"vsock", NULL, FIELD_LIST, 0, "vsock", "SOCKET:PORT[/stream]",
	 "Let the guest reach a Unix socket of this host as port PORT of vsock, CID 2 (repeatable)",
	 NULL, .spec = sandbox_spec_vsock, .clear = clear_vsock, .load = conf_load_sockets},
	{"vsock_listen", NULL, FIELD_LIST, 0, "vsock-listen", "SOCKET:PORT[/stream]",
	 "Make a Unix socket on this host that leads to a port of the guest's vsock (repeatable)",
	 NULL, .spec = sandbox_spec_vsock_listen, .clear = clear_vsock_listen,
	 .load = conf_load_sockets},
	{"labels", NULL, FIELD_MAP, 0, "label", "KEY[=VALUE]",
	 "Attach a label, to choose sandboxes by (repeatable)", NULL, .spec = sandbox_spec_label,
	 .scope = FIELD_RUNTIME},
	{"rlimits", NULL, FIELD_LIST, 0, "rlimit", "RES=SOFT[:HARD]",
	 "Resource limit, as in nofile=1024:4096 (repeatable)", NULL, .spec = sandbox_spec_rlimit,
	 .scope = FIELD_RESOURCE, .clear = clear_rlimits, .load = conf_load_rlimits,
	 .schema = schema_rlimits},
	{"max_duration", NULL, FIELD_DURATION, 0, "max-duration", "TIME",
	 "Stop it after this long, as in 90, 30s, 5m, 1h", NULL, .spec = sandbox_spec_max_duration,
	 .scope = FIELD_RESOURCE},
	{"idle_timeout", NULL, FIELD_DURATION, 0, "idle-timeout", "TIME",
	 "Stop it when nothing was done in it for so long", NULL, .spec = sandbox_spec_idle_timeout,
	 .scope = FIELD_RESOURCE},
	{"session_history", NULL, FIELD_SIZE, 0, "session-history", "SIZE",
	 "What each session keeps of what it printed, 512K to 16M", "512K",
	 .spec = sandbox_spec_session_history, .scope = FIELD_RESOURCE},
	{"security", NULL, FIELD_WORD, 0, "security", "default|restricted",
	 "restricted: commands get no new privileges, fewer capabilities, no user namespaces",
	 "default", .spec = sandbox_spec_security, .scope = FIELD_RUNTIME},
	{"init.cmd", NULL, FIELD_TEXT, 0, "init", "PATH|auto",
	 "Boot an init of the image, as systemd images have one", NULL,
	 .spec = sandbox_spec_init_program, .scope = FIELD_RUNTIME},
	{"init.args", NULL, FIELD_LIST, 0, "init-arg", "ARG", "Argument for the init (repeatable)",
	 NULL, .spec = sandbox_spec_init_arg, .scope = FIELD_RUNTIME, .clear = clear_init_args},
	{"init.env", NULL, FIELD_MAP, 0, "init-env", "KEY[=VALUE]",
	 "Environment variable for the init (repeatable)", NULL, .spec = sandbox_spec_init_env,
	 .scope = FIELD_RUNTIME},
	{"pull_policy", NULL, FIELD_WORD, 0, "pull", "always|missing|never",
	 "When to ask the image's registry", "missing", .model = set_pull, .anyway = true},
	{"registry.username", NULL, FIELD_TEXT, 0, "registry-username", "NAME",
	 "Who we are at the image's registry", "as `msb registry login` has it",
	 .model = set_registry_username, .anyway = true},
	{"registry.password_env", NULL, FIELD_TEXT, 0, "registry-password-env", "VARIABLE",
	 "The environment variable that has the password for that", NULL,
	 .model = set_registry_password_env, .anyway = true},
	{"kernel", NULL, FIELD_PATH, 0, "kernel", "PATH",
	 "Boot this kernel (an uncompressed vmlinux)", NULL, TEXT(kernel)},
	{"engine", NULL, FIELD_WORD, 0, "engine", "auto|kvm|qemu", "What runs the CPU", "auto",
	 TEXT(engine)},
	{"jail", NULL, FIELD_WORD, 0, "jail", "on|off",
	 "Walls around the process that runs the machine", "on", TEXT(jail)},
	{"huge_pages", NULL, FIELD_WORD, 0, "huge-pages", "on|off",
	 "Memory from the huge pages that the host has set aside", "off", TEXT(huge_pages)},
	{"log_level", NULL, FIELD_WORD, 0, "log-level", "error|warn|info|debug|trace",
	 "Log level of the sandbox's process", NULL, TEXT(log_level), .anyway = true},
};
const size_t nfields = ARRAY_SIZE(fields);

/* ---- one value ---- */

/* Is @text one of the words "a|b|c"? */
static bool is_word(const char *words, const char *text)
{
	size_t n = strlen(text);

	for (const char *w = words; *w; w += w[0] == '|') {
		size_t len = strcspn(w, "|");

		if (len == n && memcmp(w, text, n) == 0)
			return true;
		w += len;
	}
	return false;
}

static int no_word(const struct field *f, const char *text, struct err *err)
{
	cleanup_strv struct strv words = {0};
	char list[128] = "";
	const char *like;
	size_t at = 0, len;

	for (const char *w = f->arg; *w; w += len + (w[len] == '|')) {
		len = strcspn(w, "|");
		at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%.*s", at ? ", " : "",
				       (int)len, w);
		if (strv_addf(&words, "%.*s", (int)len, w) < 0 || at >= sizeof(list))
			break;
	}
	like = str_suggest(text, (const char *const *)words.v, words.n);
	err_set(err, ERR_USAGE, "there is no %s \"%.60s\"", f->opt, text);
	if (like)
		return err_hint(err, "did you mean %s? It is one of %s", like, list);
	return err_hint(err, "it is one of %s", list);
}

int field_note(const struct field *f, struct model *m, const char *text, const char *from,
	       struct err *err)
{
	struct said *v = reallocarray(m->said, m->nsaid + 1, sizeof(*v)), *s;

	if (v)
		m->said = v;
	s = v ? &v[m->nsaid] : NULL;
	if (s)
		*s = (struct said){f, strdup(text), strdup(from)};
	if (!s || !s->text || !s->from) {
		if (s) {
			free(s->text);
			free(s->from);
		}
		return err_set(err, ENOMEM, "out of memory");
	}
	m->nsaid++;
	m->creates |= !f->anyway;
	return 0;
}

int field_set(const struct field *f, struct model *m, const char *text, const char *from,
	      struct err *err)
{
	int r;

	if (f->spec)
		r = f->spec(&m->spec, text, err);
	else if (f->model)
		r = f->model(m, text, err);
	else if (f->kind == FIELD_WORD && !is_word(f->arg, text))
		r = no_word(f, text, err);
	else
		r = replace((char **)((char *)&m->spec + f->text), text, err);
	if (r == 0)
		r = field_note(f, m, text, from, err);
	return r == 0 && f->after ? f->after(m, err) : r;
}

int field_clear(const struct field *f, struct model *m)
{
	size_t n = 0;

	for (size_t i = 0; i < m->nsaid; i++) {
		if (m->said[i].field != f) {
			m->said[n++] = m->said[i];
			continue;
		}
		free(m->said[i].text);
		free(m->said[i].from);
	}
	m->nsaid = n;
	if (f->clear)
		f->clear(m);
	return f->after ? f->after(m, NULL) : 0;
}

const struct field *field_by_key(const char *key)
{
	for (size_t i = 0; i < nfields; i++) {
		if (fields[i].key && str_eq(fields[i].key, key))
			return &fields[i];
	}
	return NULL;
}

const struct field *field_by_opt(const char *opt)
{
	for (size_t i = 0; i < nfields; i++) {
		if (fields[i].opt && str_eq(fields[i].opt, opt))
			return &fields[i];
	}
	return NULL;
}
