/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `msb` tells `msb-vm`: everything one virtual machine needs, in one message.
 *
 * The message travels as CBOR in a memory file on descriptor VM_FD_CONFIG. Descriptors that both
 * sides share have fixed numbers. msb-vm opens disks, kernel and agent itself, before it gives up
 * the right to.
 */
#ifndef MACHINE_VM_CONFIG_H
#define MACHINE_VM_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "wire/codec.h"

enum vm_fd {
	VM_FD_CONFIG = 3, /* this message, a memfd */
	VM_FD_STARTUP, /* pipe: msb-vm writes a vm_report when the guest is ready or the start has
			* failed, and a second one when a guest that was ready has ended */
	VM_FD_PARENT,  /* read end of a pipe whose write end the owner holds: end = owner is gone.
			* Present only if vm_config.owned. */
	VM_FD_LOCK,    /* the sandbox's lock file, flock()ed; held, and owned, for as long as msb-vm
			  lives */
	VM_FD_AGENT,   /* listening unix socket, agent.sock */
	VM_FD_LOG,     /* vm.log */
	VM_FD_CONTROL, /* listening unix socket, control.sock: see control_msg.h */
};

/* A stretch of a disk: @blocks of 4 KiB from byte @offset of file @path. */
struct vm_extent {
	char *path;
	uint64_t offset;
	uint64_t blocks;
};

/* A disk image: one of a stack, each resting on the next. */
struct vm_image {
	char *path;
	char *format; /* "raw", "qcow2", "vmdk" */
	bool overlay; /* ours, to take what is written; an empty file is made into one */
};

struct vm_disk {
	char *serial;		  /* what the guest finds it by, at most 20 bytes */
	struct wire_list extents; /* struct vm_extent, laid end to end; a writable disk has one */
	struct wire_list images;  /* struct vm_image, top first; in place of extents */
	bool read_only;
	bool volatile_data; /* thrown away with the machine: flushes need not reach the disk */
};

/* The network, in the words of net/policy.h, net/limit.h and net/host.h. */
struct vm_net {
	char *profiles; /* may be empty */
	/* What no rule decides, "allow" or "deny"; empty: what the profiles say. */
	char *egress, *ingress;
	struct wire_texts rules;  /* in order, before what the profiles say */
	struct wire_texts limits; /* "KEY=VALUE" */
	struct wire_texts ports;
	struct wire_texts servers, hosts;	   /* of names, net/resolver.h */
	struct wire_texts names;		   /* "KEY=VALUE", net/plan.h */
	char *proxy, *proxy_user, *proxy_password; /* net/proxy.h; may be empty */
	char *dot; /* the program for servers of names over TLS; empty: there are none */
	bool ipv6;
};
extern const struct wire_table vm_net_table;

struct vm_config {
	char *name;
	char *dir;    /* the sandbox's directory; logs/kernel.log goes here */
	char *engine; /* "kvm" or "qemu": already decided */
	char *kernel; /* vmlinux */
	char *agentd;
	char *cmdline; /* appended to the kernel's command line; may be empty */
	char *log_level;
	uint32_t cpus;		     /* that the machine has */
	uint32_t cpus_on;	     /* ...and those that it starts with; 0: all */
	uint64_t memory;	     /* bytes, a multiple of 2 MiB */
	uint64_t memory_max;	     /* ...that it can have while it runs; 0: those */
	struct wire_list disks;	     /* struct vm_disk */
	struct wire_bytes bootstrap; /* a complete core.bootstrap frame */
	bool owned;		     /* end the machine when VM_FD_PARENT reports its owner gone */
	bool remove_dir;     /* ephemeral: msb-vm removes `dir` when its owner died before it */
	bool verbose_kernel; /* full kernel log instead of warnings */
	bool huge_pages;     /* memory comes from the host's pool of huge pages */
	char *jail;	     /* "off": msb-vm and QEMU keep the rights they were started with */
	/* The machine ends by itself, counted from its readiness; 0: it does not. */
	uint64_t max_duration_ns, idle_timeout_ns;
	bool has_net;
	struct vm_net net;
	struct wire_texts vsock, vsock_listen; /* "/HOST/PATH:PORT" */
	uint64_t spawned_ns; /* CLOCK_MONOTONIC when msb was about to start msb-vm */
};

/*
 * How the start went, and later how the machine ended. ok means "ready" in the first report and
 * "ended as it was asked to" in the second. On the pipe each is [length u32 BE][CBOR].
 */
struct vm_report {
	bool ok;
	char *stage; /* "config", "disk", "kernel", "jail", "engine", "boot", "guest"; empty when ok
		      */
	uint32_t code; /* an errno-like code of base/err.h */
	char *message;
	char *hint;
	uint64_t ready_ns; /* CLOCK_MONOTONIC when the agent reported ready */
	char *jail; /* first report: its walls, a line each (jail_describe()); may be empty */
	struct wire_texts ports; /* first report: "ADDRESS:HOST->GUEST/tcp", as they were bound */
	char *reason;		 /* second report: one of END_* (manage.h), or empty */
};

static inline uint32_t vm_config_cpus_on(const struct vm_config *c)
{
	return c->cpus_on ? c->cpus_on : c->cpus;
}

static inline uint64_t vm_config_memory_max(const struct vm_config *c)
{
	return c->memory_max > c->memory ? c->memory_max : c->memory;
}

/* How a report's message begins when that is why. */
#define VM_END_PANIC "the guest's kernel panicked"

#define VM_ROUTES_MAX 32
/*
 * Of vsock and vsock_listen, "/HOST/PATH:PORT[/stream]": the path, which becomes the caller's (may
 * be NULL), and the port. ERR_USAGE with a hint.
 */
int vm_route_parse(const char *text, char **ret_path, uint32_t *ret_port, struct err *err);

/* Failure is the buffer's. */
void vm_config_encode(const struct vm_config *c, struct buf *b);
/* What it points to becomes the caller's; release with vm_config_done(). */
int vm_config_decode(const void *p, size_t n, struct vm_config *ret, struct err *err);
void vm_config_done(struct vm_config *c);

/* A report is a few strings. */
#define VM_REPORT_MAX 65536u
/* Append a report with its length in front. Failure is the buffer's. */
void vm_report_encode(const struct vm_report *r, struct buf *b);
/*
 * Take the first complete report out of @b: 1 when there was one, 0 when more bytes are needed,
 * negative when it is no report.
 */
int vm_report_decode(struct buf *b, struct vm_report *ret, struct err *err);
void vm_report_done(struct vm_report *r);

#endif
