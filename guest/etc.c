/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that containers expect to be true. An image may make them unwritable in ways we need not
 * know: a failure is logged, and the guest runs without.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "boot.h"

static void put(const char *path, struct buf *b)
{
	cleanup_close int fd =
		open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0644);

	if (fd < 0 && errno == ENOENT && !mkdir("/etc", 0755))
		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0644);
	if (fd < 0 || buf_failed(b) || write(fd, buf_ptr(b), buf_size(b)) < 0)
		boot_log("cannot write %s: %s", path, strerror(errno));
	buf_reset(b);
}

static void add_address(struct buf *b, int family, const void *address)
{
	char text[INET6_ADDRSTRLEN];

	buf_add_str(b, inet_ntop(family, address, text, sizeof(text)));
}

void etc_write(const struct msg_bootstrap *boot)
{
	const struct boot_network *n = boot->has_network ? &boot->network : NULL;
	const char *name = boot->hostname;
	cleanup_buf struct buf b = BUF_INIT;

	if (name) {
		buf_addf(&b, "%s\n", name);
		put("/etc/hostname", &b);
	}
	buf_add_str(&b, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
	if (name && n && n->has_ipv4) {
		add_address(&b, AF_INET, n->ipv4.address);
		buf_addf(&b, "\t%s\n", name);
	} else if (name) {
		buf_addf(&b, "127.0.1.1\t%s\n", name);
	}
	if (boot->host_alias && n && n->has_ipv4) {
		add_address(&b, AF_INET, n->ipv4.gateway);
		buf_addf(&b, "\t%s\n", boot->host_alias);
	}
	if (boot->host_alias && n && n->has_ipv6) {
		add_address(&b, AF_INET6, n->ipv6.gateway);
		buf_addf(&b, "\t%s\n", boot->host_alias);
	}
	put("/etc/hosts", &b);
	if (!n)
		return;
	if (n->has_ipv4 && n->ipv4.has_dns) {
		buf_add_str(&b, "nameserver ");
		add_address(&b, AF_INET, n->ipv4.dns);
		buf_add_u8(&b, '\n');
	}
	if (n->has_ipv6 && n->ipv6.has_dns) {
		buf_add_str(&b, "nameserver ");
		add_address(&b, AF_INET6, n->ipv6.dns);
		buf_add_u8(&b, '\n');
	}
	if (buf_size(&b) && n->search)
		buf_addf(&b, "search %s\n", n->search);
	if (buf_size(&b))
		put("/etc/resolv.conf", &b);
}
