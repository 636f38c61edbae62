/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/initramfs.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"

static void pad4(struct buf *b)
{
	static const uint8_t zeros[4];

	buf_add(b, zeros, -buf_size(b) & 3);
}

/* An entry's header alone: @n bytes and their padding are to follow. */
static void add_header(struct buf *b, const char *name, unsigned mode, dev_t rdev, size_t n)
{
	/* ino, mode, uid, gid, nlink, mtime, filesize, dev 2x, rdev 2x, namesize, check. With one
	 * link each the inode number is never looked at. */
	buf_addf(b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", 0u, mode, 0u, 0u,
		 1u, 0u, (unsigned)n, 0u, 0u, major(rdev), minor(rdev), (unsigned)strlen(name) + 1,
		 0u);
	buf_add(b, name, strlen(name) + 1);
	pad4(b);
}

static void add_entry(struct buf *b, const char *name, unsigned mode, dev_t rdev, const void *p,
		      size_t n)
{
	add_header(b, name, mode, rdev, n);
	buf_add(b, p, n);
	pad4(b);
}

/* Open the agent and see that it can be one: a descriptor. */
static int open_agent(const char *path, size_t *ret_size, struct err *err)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char magic[4];

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(err, "guest agent: cannot open %s", path);
	if (st.st_size > (off_t)INITRAMFS_AGENT_MAX)
		return err_set(err, ERR_LIMIT, "guest agent %s is too large", path);
	if (io_pread_full(fd, magic, sizeof(magic), 0) != sizeof(magic) ||
	    memcmp(magic, "\177ELF", 4))
		return err_set(err, ENOEXEC, "guest agent %s is not a program", path);
	*ret_size = (size_t)st.st_size;
	return take_fd(&fd);
}

/* From file to memory file inside the kernel: this is done at every start. */
static int append_file(int to, int from, size_t n)
{
	while (n > 0) {
		ssize_t got = sendfile(to, from, NULL, n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? -errno : -EIO;
		n -= (size_t)got;
	}
	return 0;
}

int initramfs_build(const char *agent_path, const uint8_t *boot, size_t boot_n, struct err *err)
{
	cleanup_buf struct buf head = BUF_INIT, tail = BUF_INIT;
	cleanup_close int agent = -1, fd = -1;
	size_t size = 0;
	int r;

	agent = open_agent(agent_path, &size, err);
	if (agent < 0)
		return agent;
	add_entry(&head, "dev", S_IFDIR | 0755, 0, NULL, 0);
	/* The kernel opens it as the standard streams of /init. */
	add_entry(&head, "dev/console", S_IFCHR | 0600, makedev(5, 1), NULL, 0);
	add_header(&head, "init", S_IFREG | 0755, 0, size);
	add_entry(&tail, "msb-boot", S_IFREG | 0600, 0, boot, boot_n);
	add_entry(&tail, "TRAILER!!!", 0, 0, NULL, 0);
	if (buf_failed(&head) || buf_failed(&tail))
		return err_set(err, ENOMEM, "cannot build the initramfs: out of memory");
	fd = io_memfd("initramfs", NULL, 0, err);
	if (fd < 0)
		return fd;
	r = io_write_full(fd, buf_ptr(&head), buf_size(&head));
	if (r == 0)
		r = append_file(fd, agent, size);
	if (r == 0)
		r = io_write_full(fd, "\0\0\0", -size & 3);
	if (r == 0)
		r = io_write_full(fd, buf_ptr(&tail), buf_size(&tail));
	if (r == 0 && lseek(fd, 0, SEEK_SET) < 0)
		r = -errno;
	if (r < 0)
		return err_set(err, r, "cannot build the initramfs: %s", err_name(r));
	return take_fd(&fd);
}
