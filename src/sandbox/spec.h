/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a sandbox is: the wishes of whoever makes it, checked, and how they combine with what the
 * image says.
 *
 * A struct sandbox_spec owns its strings. Absent text is NULL and means the image's or our
 * default. Any thread, on its own objects.
 */
#ifndef SANDBOX_SPEC_H
#define SANDBOX_SPEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct image_config;
struct sandbox_patch;

#define SANDBOX_NAME_MAX       128 /* bytes; the peer's limit */
#define SANDBOX_HOSTNAME_MAX   64  /* __NEW_UTS_LEN of Linux */
#define SANDBOX_CPUS_DEFAULT   1
#define SANDBOX_CPUS_MAX       64
#define SANDBOX_MEMORY_DEFAULT ((uint64_t)512 << 20)
#define SANDBOX_MEMORY_MIN     ((uint64_t)64 << 20) /* kernel, agent and room to run something */
#define SANDBOX_MEMORY_MAX     ((uint64_t)16 << 40)
#define SANDBOX_ROOT_DEFAULT   ((uint64_t)8 << 30)
#define SANDBOX_RLIMITS_MAX    16 /* the resources there are */
#define SANDBOX_LABELS_MAX     64
#define SANDBOX_LABEL_KEY_MAX  128  /* bytes, as names */
#define SANDBOX_LABEL_MAX      1024 /* bytes of a value */

struct sandbox_rlimit {
	const char *resource; /* static */
	uint64_t soft, hard;  /* UINT64_MAX is unlimited */
};

enum sandbox_root {
	SANDBOX_ROOT_DISK,
	SANDBOX_ROOT_TMPFS, /* size 0: half of the memory */
	SANDBOX_ROOT_FILE,  /* a file of the user's, which outlives the sandbox */
};

struct sandbox_spec {
	char *name; /* NULL: a random one, and the sandbox is thrown away at its end */
	char *user, *workdir, *hostname;
	struct strv entrypoint; /* a program and arguments; empty: the image's */
	char *kernel;		/* NULL: ours */
	char *engine;		/* "auto" when NULL */
	char *jail;		/* "on" when NULL; "off" runs msb-vm without its walls */
	char *huge_pages;	/* "off" when NULL; "on": memory from the host's pool of those */
	char *log_level;
	struct strv env; /* "K=V" */
	uint32_t cpus;
	uint64_t memory; /* bytes, a multiple of 2 MiB */
	enum sandbox_root root;
	uint64_t root_size; /* bytes */
	char *root_file;    /* of SANDBOX_ROOT_FILE: a disk with options (source.h), absolute */
	bool root_asked;    /* for one of these, rather than getting the default */
	char *shell;	    /* NULL: /bin/sh */
	struct sandbox_patch *patches; /* patch.h; of a sandbox's making, not kept */
	size_t npatches;
	struct sandbox_rlimit rlimits[SANDBOX_RLIMITS_MAX];
	size_t nrlimits;
	struct strv labels; /* "K=V" */
	/* Profiles (net/policy.h); when NULL, "public" or what the next two say. */
	char *net;
	char *net_egress, *net_ingress; /* "allow", "deny": what no rule decides */
	struct strv net_rules, ports;
	struct strv net_limits;		    /* "KEY=VALUE" (net/limit.h) */
	struct strv dns_servers, dns_hosts; /* net/resolver.h */
	struct strv net_names;		    /* "KEY=VALUE" (net/plan.h) */
	char *proxy, *proxy_user;	    /* net/proxy.h */
	char *proxy_password_env;	    /* the variable that has it; read at each start */
	struct strv vsock, vsock_listen;    /* "/PATH:PORT" */
	/* 0: no limit. */
	uint64_t max_duration_ms; /* of the machine's life */
	uint64_t idle_timeout_ms; /* without anybody doing anything in it */
	uint64_t session_history; /* bytes kept of what a session prints; 0: the default */
	/* What it may grow to while it runs; 0: what it starts with. */
	uint32_t max_cpus;
	uint64_t max_memory; /* bytes, a multiple of 2 MiB */
	char *security;	     /* "default" when NULL, or "restricted" */
	/* PID 1 of the guest when the agent is not to be it: "auto" or a path; NULL: the agent. */
	char *init;
	struct strv init_args, init_env;
};

/* Fill in the defaults. */
void sandbox_spec_init(struct sandbox_spec *s);
void sandbox_spec_done(struct sandbox_spec *s);
#define cleanup_spec __attribute__((cleanup(sandbox_spec_done)))

/*
 * One field from the words of a person. ERR_USAGE with a hint; the spec is untouched then.
 */
/* "K=V", or "K" for the host's value of it. */
int sandbox_spec_env(struct sandbox_spec *s, const char *text, struct err *err);
/* A program, in place of what was said before; it gets no arguments. */
int sandbox_spec_entrypoint(struct sandbox_spec *s, const char *text, struct err *err);
int sandbox_spec_cpus(struct sandbox_spec *s, const char *text, struct err *err);
/* A bare number is in MiB; rounded up to 2 MiB. */
int sandbox_spec_memory(struct sandbox_spec *s, const char *text, struct err *err);
/* "SIZE", "tmpfs[:SIZE]" or a path of a disk, with options. */
int sandbox_spec_root(struct sandbox_spec *s, const char *text, struct err *err);
/* "RESOURCE=SOFT[:HARD]", numbers or "unlimited"; a later one of a resource replaces the former. */
int sandbox_spec_rlimit(struct sandbox_spec *s, const char *text, struct err *err);
/* "K=V" or "K"; a later one of a key replaces the former. */
int sandbox_spec_label(struct sandbox_spec *s, const char *text, struct err *err);
/* Profiles of the network, with commas; they replace those of before. */
int sandbox_spec_net(struct sandbox_spec *s, const char *text, struct err *err);
/* Rules before those of the profiles; net/policy.h has the grammar. */
int sandbox_spec_net_rule(struct sandbox_spec *s, const char *text, struct err *err);
/* "allow" or "deny", both ways or one, instead of profiles. */
int sandbox_spec_net_default(struct sandbox_spec *s, const char *text, struct err *err);
int sandbox_spec_net_egress(struct sandbox_spec *s, const char *text, struct err *err);
int sandbox_spec_net_ingress(struct sandbox_spec *s, const char *text, struct err *err);
/* A limit of net/limit.h. */
int sandbox_spec_net_limit(struct sandbox_spec *s, const char *key, const char *text,
			   struct err *err);
/* A name server in place of the host's; a name with its address; net/resolver.h has the grammar. */
int sandbox_spec_dns_server(struct sandbox_spec *s, const char *text, struct err *err);
/* Is any of them asked over TLS? */
bool sandbox_spec_dns_over_tls(const struct sandbox_spec *s);
/* Name servers as the machine asks them: those that have a name by addresses, of this host's
 * resolver, which may take its time. */
int sandbox_spec_dns_find(const struct sandbox_spec *s, struct strv *ret, struct err *err);
int sandbox_spec_dns_host(struct sandbox_spec *s, const char *text, struct err *err);
/* What else there is to say about names, see net_plan_names(). */
int sandbox_spec_net_name(struct sandbox_spec *s, const char *key, const char *text,
			  struct err *err);
struct vm_net;
/* What a machine is told of it; points into @s. */
struct vm_net sandbox_vm_net(const struct sandbox_spec *s);
/* "PATH:PORT[/stream]": a socket of this host for the guest's vsock, and the other way round. */
int sandbox_spec_vsock(struct sandbox_spec *s, const char *text, struct err *err);
int sandbox_spec_vsock_listen(struct sandbox_spec *s, const char *text, struct err *err);
/* Do the wishes for the network go together? */
int sandbox_spec_proxy(struct sandbox_spec *s, const char *text, struct err *err);
int sandbox_spec_proxy_user(struct sandbox_spec *s, const char *text, struct err *err);
int sandbox_spec_proxy_password_env(struct sandbox_spec *s, const char *text, struct err *err);
/* ERR_USAGE when the environment has no password for the proxy. Before each start. */
int sandbox_spec_proxy_check(const struct sandbox_spec *s, struct err *err);
int sandbox_spec_net_check(const struct sandbox_spec *s, struct err *err);
/* "[BIND:]HOST:GUEST[/udp]", ports or ranges of them */
int sandbox_spec_port(struct sandbox_spec *s, const char *text, struct err *err);
int sandbox_spec_max_duration(struct sandbox_spec *s, const char *text, struct err *err);
int sandbox_spec_idle_timeout(struct sandbox_spec *s, const char *text, struct err *err);
int sandbox_spec_session_history(struct sandbox_spec *s, const char *text, struct err *err);
int sandbox_spec_max_cpus(struct sandbox_spec *s, const char *text, struct err *err);
int sandbox_spec_max_memory(struct sandbox_spec *s, const char *text, struct err *err);
int sandbox_spec_security(struct sandbox_spec *s, const char *text, struct err *err);
int sandbox_spec_init_program(struct sandbox_spec *s, const char *text, struct err *err);
int sandbox_spec_init_arg(struct sandbox_spec *s, const char *text, struct err *err);
int sandbox_spec_init_env(struct sandbox_spec *s, const char *text, struct err *err);

/* Is @text a label's key, or a key with "=" and a value? Into @ret as "K=V", if wanted. */
int sandbox_label_parse(const char *text, char **ret, struct err *err);

/* Names: at most 128 bytes, a letter or digit and then those and "._-". */
int sandbox_name_check(const char *name, struct err *err);
/* "msb-" and 8 random hexadecimal digits. */
int sandbox_name_random(char ret[16], struct err *err);
/*
 * The hostname of a sandbox: what was asked for, else its name made fit for one (a long one is cut
 * and a hash put behind).
 */
void sandbox_hostname(const struct sandbox_spec *s, const char *name,
		      char ret[SANDBOX_HOSTNAME_MAX + 1]);

/* Everything that can be judged without an image or the host. */
int sandbox_spec_check(const struct sandbox_spec *s, struct err *err);

/*
 * A command as the guest runs it. OCI rules: entrypoint (ours or the image's), then the given
 * arguments or else the image's cmd; an entrypoint of ours drops the image's cmd as well.
 * Environment: the image's, then the sandbox's; the agent supplies HOME, and PATH if it is missing.
 */
struct sandbox_command {
	struct strv argv; /* empty: nothing to run */
	struct strv env;
	char *user;    /* "" is root */
	char *workdir; /* never empty */
};
int sandbox_command_resolve(const struct sandbox_spec *s, const struct image_config *image,
			    const char *const *args, size_t nargs, struct sandbox_command *ret,
			    struct err *err);
void sandbox_command_done(struct sandbox_command *c);
#define cleanup_command __attribute__((cleanup(sandbox_command_done)))

#endif
