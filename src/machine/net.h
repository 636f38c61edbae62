/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's network: the card (virtio/net.h) and the stack (net/host.h) on the card's worker.
 *
 * That thread alone stays in the host's net namespace; see JAIL_NET in machine/jail/jail.h. The
 * ports that lead in are bound before, by the main thread.
 */
#ifndef MACHINE_NET_H
#define MACHINE_NET_H

#include "base/str.h"
#include "machine/vm_config.h"
#include "virtio/device.h"

struct exec_log;
struct machine_net;

/* Before the jail: start who speaks TLS to name servers. A socket, or -1 when there are none. */
int machine_net_begin(const struct vm_config *c, int *ret, struct err *err);
/*
 * The device, which holds all else and frees it. To @published goes what became of each port, in
 * the words of vm_report.
 */
int machine_net_new(const struct vm_config *c, struct virtio_device **ret, struct machine_net **net,
		    struct strv *published, struct err *err);

/* Policy and limits, at once; connections that it denies are cut. The main thread. */
int machine_net_change(struct machine_net *n, const struct vm_net *c, struct err *err);
/*
 * Publish ports, as they are shown, or no longer. Of those to add @fds are the sockets, which
 * listen; one that was taken becomes -1. All or none. The main thread.
 */
int machine_net_ports(struct machine_net *n, const struct wire_texts *ports, int *fds, bool add,
		      struct err *err);

/* That socket, which is taken if this succeeds. It waits for who is at its other end. */
int machine_net_tls(struct machine_net *n, int fd, struct err *err);
/* Before the guest runs: where to write what becomes of connections. */
void machine_net_log(struct machine_net *n, struct exec_log *log);

/* What went through so far, seen from the guest. Any thread, for as long as the device is there. */
struct machine_net_usage {
	uint64_t rx_bytes, rx_packets, tx_bytes, tx_packets;
	uint64_t opened, denied; /* flows */
	uint64_t flows;		 /* that are open */
	uint64_t lookups, lookups_denied;
};
void machine_net_usage(const struct machine_net *n, struct machine_net_usage *ret);

#endif
