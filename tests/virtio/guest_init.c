/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first and only process of the guest in test_vhost_qemu.c: it exercises two disks and vsock
 * and reports over the control connection, a line per finding ("ok NAME..." or "bad NAME ...").
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/vm_sockets.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guest_demo.h"

static int control = -1;
static uint64_t buf[DEMO_CHUNK / 8];

static void say(const char *fmt, ...)
{
	char line[256];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	(void)!write(1, line, n);
	if (control >= 0)
		(void)!write(control, line, n);
}

static unsigned long long ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ull + t.tv_nsec / 1000000;
}

static int dial(unsigned cid, unsigned port)
{
	struct sockaddr_vm a = {.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port};
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		int e = errno;

		close(fd);
		return -e;
	}
	return fd;
}

static int full(int fd, void *p, size_t n, int wr)
{
	size_t done = 0;

	while (done < n) {
		ssize_t r = wr ? write(fd, (char *)p + done, n - done)
			       : read(fd, (char *)p + done, n - done);

		if (r <= 0)
			return -1;
		done += r;
	}
	return 0;
}

static int find_disk(const char *serial, char *path)
{
	for (char c = 'a'; c <= 'd'; c++) {
		char name[64], text[64] = "";
		int fd;

		sprintf(name, "/sys/block/vd%c/serial", c);
		fd = open(name, O_RDONLY);
		if (fd < 0)
			continue;
		(void)!read(fd, text, sizeof(text) - 1);
		close(fd);
		if (!strncmp(text, serial, strlen(serial))) {
			sprintf(path, "/dev/vd%c", c);
			return 0;
		}
	}
	return -1;
}

static void drop_caches(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

	sync();
	(void)!write(fd, "3", 1);
	close(fd);
}

static void read_disk(void)
{
	char path[32];
	uint64_t h = 0, total = 0;
	unsigned long long t;
	ssize_t n;
	int fd;

	if (find_disk("msb-root", path) < 0) {
		say("bad root: no disk with the serial\n");
		return;
	}
	/* Linux lets a read-only disk be opened for writing, and refuses the writes. */
	fd = open(path, O_RDWR);
	if (fd >= 0 && write(fd, buf, 4096) >= 0)
		say("bad root: written to\n");
	close(fd);
	fd = open(path, O_RDONLY);
	t = ms();
	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		h = demo_hash(h, buf, n);
		total += n;
	}
	t = ms() - t;
	say("%s root %llx %llu %llu\n", n == 0 ? "ok" : "bad", (unsigned long long)h,
	    (unsigned long long)total, t);
	close(fd);
}

static int zeros_at(int fd, off_t off)
{
	if (pread(fd, buf, sizeof(buf), off) != (ssize_t)sizeof(buf))
		return 0;
	for (size_t i = 0; i < DEMO_CHUNK / 8; i++) {
		if (buf[i])
			return 0;
	}
	return 1;
}

static void write_disk(void)
{
	char path[32];
	uint64_t range[2] = {4 * DEMO_CHUNK, 4 * DEMO_CHUNK};
	uint64_t seed = 7;
	unsigned long long t = ms();
	int fd, bad = 0;

	if (find_disk("msb-upper", path) < 0 || (fd = open(path, O_RDWR)) < 0) {
		say("bad upper: no disk\n");
		return;
	}
	for (int i = 0; i < DEMO_UPPER_CHUNKS; i++) {
		demo_fill(&seed, buf, sizeof(buf));
		if (full(fd, buf, sizeof(buf), 1) < 0)
			bad = 1;
	}
	if (bad || fsync(fd) < 0)
		say("bad upper: write: %s\n", strerror(errno));
	t = ms() - t;
	drop_caches();
	lseek(fd, 0, SEEK_SET);
	seed = 7;
	for (int i = 0; i < DEMO_UPPER_CHUNKS; i++) {
		static uint64_t want[DEMO_CHUNK / 8];

		demo_fill(&seed, want, sizeof(want));
		if (full(fd, buf, sizeof(buf), 0) < 0 || memcmp(buf, want, sizeof(buf))) {
			say("bad upper: chunk %d differs\n", i);
			return;
		}
	}
	if (ioctl(fd, BLKDISCARD, range) < 0)
		say("bad upper: discard: %s\n", strerror(errno));
	range[0] = 12 * DEMO_CHUNK;
	if (ioctl(fd, BLKZEROOUT, range) < 0)
		say("bad upper: zeroout: %s\n", strerror(errno));
	drop_caches();
	if (!zeros_at(fd, 4 * DEMO_CHUNK) || !zeros_at(fd, 15 * DEMO_CHUNK))
		say("bad upper: not zero\n");
	if (zeros_at(fd, 8 * DEMO_CHUNK) || zeros_at(fd, 16 * DEMO_CHUNK))
		say("bad upper: too much zero\n");
	say("ok upper %llu\n", t);
	close(fd);
}

static void send_stream(uint64_t bytes)
{
	int fd = dial(VMADDR_CID_HOST, DEMO_PORT_SINK);
	uint64_t seed = 3, h = 0, got = 0;
	unsigned long long t = ms();

	demo_fill(&seed, buf, sizeof(buf));
	for (uint64_t n = 0; n < bytes; n += sizeof(buf)) {
		buf[0] = n;
		h = demo_hash(h, buf, sizeof(buf));
		if (full(fd, buf, sizeof(buf), 1) < 0) {
			say("bad send: %s after %llu\n", strerror(errno), (unsigned long long)n);
			return;
		}
	}
	shutdown(fd, SHUT_WR);
	if (full(fd, &got, sizeof(got), 0) < 0 || got != h)
		say("bad send: hash differs\n");
	else
		say("ok send %llu\n", ms() - t);
	close(fd);
}

static void receive_stream(uint64_t bytes)
{
	int fd = dial(VMADDR_CID_HOST, DEMO_PORT_SOURCE);
	uint64_t h = 0, want;
	unsigned long long t = ms();

	for (uint64_t n = 0; n < bytes; n += sizeof(buf)) {
		if (full(fd, buf, sizeof(buf), 0) < 0) {
			say("bad receive: %s after %llu\n", strerror(errno), (unsigned long long)n);
			return;
		}
		h = demo_hash(h, buf, sizeof(buf));
	}
	if (full(fd, &want, sizeof(want), 0) < 0 || want != h)
		say("bad receive: hash differs\n");
	else if (read(fd, buf, 1) != 0)
		say("bad receive: no end of file\n");
	else
		say("ok receive %llu\n", ms() - t);
	close(fd);
}

static void many(void)
{
	static int fd[DEMO_MANY];
	int bad = 0;

	for (int i = 0; i < DEMO_MANY; i++) {
		fd[i] = dial(VMADDR_CID_HOST, DEMO_PORT_ECHO);
		bad += fd[i] < 0 || write(fd[i], &i, sizeof(i)) != sizeof(i);
	}
	for (int i = 0; i < DEMO_MANY; i++) {
		int back = -1;

		bad += full(fd[i], &back, sizeof(back), 0) < 0 || back != i;
		close(fd[i]);
	}
	say("%s many %d\n", bad ? "bad" : "ok", bad);
}

/* The host connects: echo until its end of file, DEMO_HOST_CONNECTS times, two at once. */
static void serve(void)
{
	struct sockaddr_vm a = {
		.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = DEMO_PORT_GUEST};
	int l = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (bind(l, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(l, 64) < 0) {
		say("bad listen: %s\n", strerror(errno));
		return;
	}
	say("ok listen\n");
	for (int i = 0; i < DEMO_HOST_CONNECTS; i++) {
		int fd = accept(l, NULL, NULL);
		ssize_t n;

		if (fork() == 0) {
			while ((n = read(fd, buf, sizeof(buf))) > 0)
				full(fd, buf, n, 1);
			_exit(0);
		}
		close(fd);
	}
	while (wait(NULL) > 0)
		;
	close(l);
	say("ok served\n");
}

int main(void)
{
	const char *mib;
	uint64_t bytes;
	int r;

	mount("dev", "/dev", "devtmpfs", 0, NULL);
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sys", "/sys", "sysfs", 0, NULL);
	r = open("/dev/console", O_RDWR);
	dup2(r, 1);
	dup2(r, 2);
	mib = getenv("demo_mib");
	bytes = (mib ? strtoull(mib, NULL, 10) : 16) << 20;
	control = dial(VMADDR_CID_HOST, DEMO_PORT_CONTROL);
	if (control < 0)
		say("bad control: %s\n", strerror(-control));
	say("ok up %llu\n", ms());
	read_disk();
	write_disk();
	r = dial(VMADDR_CID_HOST, DEMO_PORT_NOBODY);
	say("%s refused %d\n", r == -ECONNRESET || r == -ECONNREFUSED ? "ok" : "bad", r);
	many();
	send_stream(bytes);
	receive_stream(bytes);
	serve();
	say("ok end\n");
	/* No close, no wait: the last line must arrive all the same. */
	reboot(RB_AUTOBOOT);
	return 0;
}
