/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/initramfs.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"

static void pad4(struct buf *b)
{
	static const uint8_t zeros[4];

	buf_add(b, zeros, -b->len & 3);
}

static void add_entry(struct buf *b, const char *name, unsigned mode, dev_t rdev, const void *p,
		      size_t n)
{
	/* ino, mode, uid, gid, nlink, mtime, filesize, dev 2x, rdev 2x, namesize, check. With one
	 * link each the inode number is never looked at. */
	buf_addf(b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", 0u, mode, 0u, 0u,
		 1u, 0u, (unsigned)n, 0u, 0u, major(rdev), minor(rdev), (unsigned)strlen(name) + 1,
		 0u);
	buf_add(b, name, strlen(name) + 1);
	pad4(b);
	buf_add(b, p, n);
	pad4(b);
}

int initramfs_build(const char *agent_path, const uint8_t *boot, size_t boot_n, struct err *err)
{
	cleanup_buf struct buf agent = BUF_INIT, cpio = BUF_INIT;
	int r = io_read_file(agent_path, INITRAMFS_AGENT_MAX, &agent, err);

	if (r < 0)
		return err_wrap(err, "guest agent");
	if (buf_size(&agent) < 4 || memcmp(buf_ptr(&agent), "\177ELF", 4))
		return err_set(err, ENOEXEC, "guest agent %s is not a program", agent_path);
	add_entry(&cpio, "dev", S_IFDIR | 0755, 0, NULL, 0);
	/* The kernel opens it as the standard streams of /init. */
	add_entry(&cpio, "dev/console", S_IFCHR | 0600, makedev(5, 1), NULL, 0);
	add_entry(&cpio, "init", S_IFREG | 0755, 0, buf_ptr(&agent), buf_size(&agent));
	add_entry(&cpio, "msb-boot", S_IFREG | 0600, 0, boot, boot_n);
	add_entry(&cpio, "TRAILER!!!", 0, 0, NULL, 0);
	if (buf_failed(&cpio))
		return err_set(err, ENOMEM, "cannot build the initramfs: out of memory");
	return io_memfd("initramfs", buf_ptr(&cpio), buf_size(&cpio), err);
}
