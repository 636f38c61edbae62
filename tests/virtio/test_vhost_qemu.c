/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices under a real driver: QEMU (software CPU) with a Linux kernel of ours, vhost-user
 * disks and vsock, and guest_init.c as the whole user space. DEMO_MIB sets how much goes through
 * each stream; the findings with their times are printed.
 *
 * Skipped when there is no QEMU, no musl compiler or no kernel ($MSB_KERNEL, else the newest in the
 * kernel cache).
 */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "guest_demo.h"
#include "virtio/blk.h"
#include "virtio/vhost_user.h"
#include "virtio/vsock.h"

enum { ROOT_EXTENTS = 40, DEADLINE_S = 150 };

static uint64_t stream_bytes(void)
{
	const char *s = getenv("DEMO_MIB");

	return (s ? strtoull(s, NULL, 10) : 16) << 20;
}

static const char *find_kernel(void)
{
	static char path[512];
	const char *env = getenv("MSB_KERNEL"), *cache = getenv("XDG_CACHE_HOME");
	char pattern[512];
	glob_t g;

	if (env)
		return env;
	if (cache)
		snprintf(pattern, sizeof(pattern), "%s/msb/kernel/*/vmlinux", cache);
	else
		snprintf(pattern, sizeof(pattern), "%s/.cache/msb/kernel/*/vmlinux",
			 getenv("HOME"));
	if (glob(pattern, 0, NULL, &g) != 0)
		return NULL;
	snprintf(path, sizeof(path), "%s", g.gl_pathv[g.gl_pathc - 1]);
	globfree(&g);
	return path;
}

static bool have(const char *program)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "command -v %s >/dev/null", program);
	return system(cmd) == 0;
}

/* ---- the host's ends of the connections, a thread each ---- */

struct peer {
	int fd;
	uint32_t port;
};

static pthread_mutex_t findings_lock = PTHREAD_MUTEX_INITIALIZER;
static char findings[16384]; /* what came over the control connection */
static size_t findings_len;

static void peer_control(int fd)
{
	char c;

	while (read(fd, &c, 1) == 1) {
		pthread_mutex_lock(&findings_lock);
		if (findings_len < sizeof(findings) - 1)
			findings[findings_len++] = c;
		pthread_mutex_unlock(&findings_lock);
	}
}

static void peer_sink(int fd)
{
	static uint64_t chunk[DEMO_CHUNK / 8];
	uint64_t h = 0;

	while (io_read_full(fd, chunk, sizeof(chunk)) == (ssize_t)sizeof(chunk))
		h = demo_hash(h, chunk, sizeof(chunk));
	(void)io_write_full(fd, &h, sizeof(h));
}

static void peer_source(int fd)
{
	static uint64_t chunk[DEMO_CHUNK / 8];
	uint64_t h = 0, seed = 11;

	demo_fill(&seed, chunk, sizeof(chunk));
	for (uint64_t n = 0; n < stream_bytes(); n += sizeof(chunk)) {
		chunk[0] = n;
		h = demo_hash(h, chunk, sizeof(chunk));
		if (io_write_full(fd, chunk, sizeof(chunk)) < 0)
			return;
	}
	(void)io_write_full(fd, &h, sizeof(h));
}

static void peer_echo(int fd)
{
	char data[4096];
	ssize_t n;

	while ((n = read(fd, data, sizeof(data))) > 0)
		(void)io_write_full(fd, data, (size_t)n);
}

static void *peer_main(void *arg)
{
	struct peer p = *(struct peer *)arg;

	free(arg);
	switch (p.port) {
	case DEMO_PORT_CONTROL:
		peer_control(p.fd);
		break;
	case DEMO_PORT_SINK:
		peer_sink(p.fd);
		break;
	case DEMO_PORT_SOURCE:
		peer_source(p.fd);
		break;
	default:
		peer_echo(p.fd);
	}
	close(p.fd);
	return NULL;
}

static pthread_t control_thread;

static int on_accept(struct virtio_device *dev, uint32_t guest_port, uint32_t host_port, void *arg)
{
	struct peer *p = malloc(sizeof(*p));
	pthread_t t;
	int sv[2];

	(void)dev;
	(void)guest_port;
	(void)arg;
	if (!p || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		abort();
	*p = (struct peer){sv[1], host_port};
	if (pthread_create(&t, NULL, peer_main, p))
		abort();
	if (host_port == DEMO_PORT_CONTROL)
		control_thread = t;
	else
		pthread_detach(t);
	return sv[0];
}

/* ---- the machine ---- */

/* One entry of a "newc" archive. */
static void cpio_entry(FILE *f, const char *name, unsigned mode, const void *data, size_t n)
{
	static unsigned ino;
	long pos;

	fprintf(f, "070701%08x%08x%08x%08x%08x%08x%08zx%08x%08x%08x%08x%08zx%08x%s%c", ++ino, mode,
		0, 0, 1, 0, n, 0, 0, 0, 0, strlen(name) + 1, 0, name, 0);
	for (pos = ftell(f); pos % 4; pos++)
		fputc(0, f);
	if (n)
		fwrite(data, 1, n, f);
	for (pos = ftell(f); pos % 4; pos++)
		fputc(0, f);
}

static void write_initramfs(void **state)
{
	const char *source = getenv("MSB_SOURCE");
	struct buf init = BUF_INIT;
	char cmd[1024];
	FILE *f;

	snprintf(cmd, sizeof(cmd),
		 "musl-gcc -static -O2 -idirafter /usr/include -idirafter "
		 "/usr/include/x86_64-linux-gnu %s/tests/virtio/guest_init.c -o %s/init",
		 source ? source : ".", (char *)*state);
	assert_int_equal(system(cmd), 0);
	assert_int_equal(io_read_file(scratch_path(state, "init"), 1 << 20, &init, NULL), 0);
	f = fopen(scratch_path(state, "initrd"), "w");
	assert_non_null(f);
	cpio_entry(f, "dev", S_IFDIR | 0755, NULL, 0);
	cpio_entry(f, "init", S_IFREG | 0755, buf_ptr(&init), buf_size(&init));
	cpio_entry(f, "TRAILER!!!", 0, NULL, 0);
	fclose(f);
	buf_done(&init);
}

/* The root disk: pieces of two files in an odd order with gaps. @hash gets what the guest must see.
 */
static struct blk_disk *make_root(int fd[2], uint64_t *hash)
{
	struct blk_extent e[ROOT_EXTENTS];
	uint64_t at = 0, seed = 1, size;
	struct blk_disk *d;
	uint8_t *all;

	for (int k = 0; k < 2; k++) {
		uint8_t *data = malloc(8 << 20);

		demo_fill(&seed, data, 8 << 20);
		fd[k] = io_memfd("root", data, 8 << 20, NULL);
		assert_true(fd[k] >= 0);
		free(data);
	}
	for (unsigned i = 0; i < ROOT_EXTENTS; i++) {
		uint64_t len = 512 + (i * 2654435761u >> 12) % 700000 / 512 * 512;

		at += i % 3 == 2 ? 4096 * i : 0;
		e[i] = (struct blk_extent){at, len, fd[i % 2], i * 40009u};
		at += len;
	}
	size = (at + DEMO_CHUNK) / DEMO_CHUNK * DEMO_CHUNK;
	all = calloc(1, size);
	for (unsigned i = 0; i < ROOT_EXTENTS; i++)
		assert_int_equal(pread(e[i].fd, all + e[i].start, e[i].length, (off_t)e[i].offset),
				 e[i].length);
	*hash = demo_hash(0, all, size);
	free(all);
	assert_int_equal(blk_extents_new(e, ROOT_EXTENTS, size, &d, NULL), 0);
	return d;
}

struct served {
	struct virtio_device *dev;
	struct worker *transport;
	struct vhost_user *vu;
	int fd, result;
	atomic_bool ended;
};

static void on_end(struct vhost_user *vu, const struct err *err, void *arg)
{
	struct served *s = arg;

	(void)vu;
	if (err->code)
		print_message("server: %s\n", err->msg);
	s->result = err->code;
	atomic_store(&s->ended, true);
}

static void serve_on_transport(void *arg)
{
	struct served *s = arg;

	s->result = vhost_user_new(s->dev, s->transport->loop, s->fd, on_end, s, &s->vu, NULL);
}

static void free_on_transport(void *arg)
{
	struct served *s = arg;

	s->vu = vhost_user_free(s->vu);
}

/* Serve @dev; returns the front-end's end. */
static int serve(struct served *s, struct worker *transport, struct virtio_device *dev)
{
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	io_set_cloexec(sv[0], true);
	*s = (struct served){.dev = dev, .transport = transport, .fd = sv[0]};
	loop_call(transport->loop, serve_on_transport, s);
	assert_int_equal(s->result, 0);
	return sv[1];
}

static pid_t start_qemu(void **state, const char *kernel, const int fd[3])
{
	char chardev[3][64], append[256];
	const char *argv[] = {
		"qemu-system-x86_64",
		"-M",
		"microvm,acpi=off,memory-backend=mem,rtc=on",
		"-accel",
		"tcg,thread=multi",
		"-cpu",
		"max",
		"-smp",
		"2",
		"-m",
		"256M",
		"-nodefaults",
		"-no-user-config",
		"-nographic",
		"-no-reboot",
		"-serial",
		"stdio",
		"-global",
		"virtio-mmio.force-legacy=false",
		"-object",
		"memory-backend-memfd,id=mem,size=256M,share=on",
		"-kernel",
		kernel,
		"-initrd",
		scratch_path(state, "initrd"),
		"-append",
		append,
		"-chardev",
		chardev[0],
		"-device",
		"vhost-user-blk,chardev=c0,num-queues=2",
		"-chardev",
		chardev[1],
		"-device",
		"vhost-user-blk,chardev=c1,num-queues=1",
		"-chardev",
		chardev[2],
		"-device",
		"vhost-user-vsock-device,chardev=c2",
		NULL,
	};
	pid_t pid;

	for (int i = 0; i < 3; i++)
		snprintf(chardev[i], sizeof(chardev[i]), "socket,id=c%d,fd=%d", i, fd[i]);
	snprintf(append, sizeof(append), "console=ttyS0 quiet panic=-1 reboot=t demo_mib=%llu",
		 (unsigned long long)(stream_bytes() >> 20));
	pid = fork();
	if (pid == 0) {
		int out = open(scratch_path(state, "console"), O_CREAT | O_WRONLY | O_TRUNC, 0600);

		dup2(out, 1);
		dup2(out, 2);
		alarm(DEADLINE_S);
		execvp(argv[0], (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	assert_true(pid > 0);
	return pid;
}

struct echo_call {
	struct virtio_device *dev;
	atomic_int *refused;
	bool ok;
	pthread_t thread;
	uint64_t seed;
};

static void on_connected(struct virtio_device *dev, int result, void *arg)
{
	struct echo_call *e = arg;

	(void)dev;
	if (result < 0)
		atomic_fetch_add(e->refused, 1);
}

/* Connect to the guest, send random data and half close, expect it all back. */
static void *echo_main(void *arg)
{
	struct echo_call *e = arg;
	uint64_t out[4096], back[4096];
	size_t n;
	int sv[2];

	demo_fill(&e->seed, out, sizeof(out));
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0 ||
	    vsock_connect(e->dev, DEMO_PORT_GUEST, sv[0], 60000, on_connected, e) < 0)
		return NULL;
	for (int i = 0; i < 8; i++) {
		if (io_write_full(sv[1], out, sizeof(out)) < 0)
			break;
		n = (size_t)io_read_full(sv[1], back, sizeof(back));
		if (n != sizeof(back) || memcmp(out, back, sizeof(out)))
			break;
		e->ok = i == 7;
	}
	shutdown(sv[1], SHUT_WR);
	if (io_read_full(sv[1], back, 1) != 0)
		e->ok = false;
	close(sv[1]);
	return NULL;
}

static bool found(const char *word)
{
	bool yes;

	pthread_mutex_lock(&findings_lock);
	yes = strstr(findings, word);
	pthread_mutex_unlock(&findings_lock);
	return yes;
}

static void linux_guest_uses_the_devices(void **state)
{
	const char *kernel = find_kernel();
	struct blk_file_options rw = {0};
	struct blk_disk *root, *upper;
	struct virtio_device *dev[3];
	struct served served[3];
	struct worker transport = {0};
	struct echo_call echo[DEMO_HOST_CONNECTS] = {0};
	atomic_int refused = 0;
	int root_fd[2], upper_fd, fd[3], status;
	uint64_t hash, seed = 7;
	char want[64];
	uint8_t *chunk;
	pid_t pid;

	if (!kernel || !have("qemu-system-x86_64") || !have("musl-gcc")) {
		print_message("skipped: %s missing\n", !kernel ? "the guest kernel (make kernel) is"
							       : "QEMU or musl-gcc is");
		skip();
	}
	write_initramfs(state);
	root = make_root(root_fd, &hash);
	upper_fd = open(scratch_path(state, "upper"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(upper_fd, 64 << 20), 0);
	assert_int_equal(blk_file_new(upper_fd, &rw, &upper, NULL), 0);
	assert_int_equal(blk_device_new(root,
					&(struct blk_options){.serial = "msb-root", .queues = 2},
					&dev[0], NULL),
			 0);
	assert_int_equal(blk_device_new(upper, &(struct blk_options){.serial = "msb-upper"},
					&dev[1], NULL),
			 0);
	assert_int_equal(vsock_device_new(&(struct vsock_options){0}, &dev[2], NULL), 0);
	assert_int_equal(worker_start(&transport, "transport", NULL), 0);
	for (unsigned p = DEMO_PORT_CONTROL; p <= DEMO_PORT_ECHO; p++)
		assert_int_equal(vsock_listen(dev[2], p, on_accept, NULL), 0);
	for (int i = 0; i < 3; i++)
		fd[i] = serve(&served[i], &transport, dev[i]);
	pid = start_qemu(state, kernel, fd);
	for (int i = 0; i < 3; i++)
		close(fd[i]);

	/* The guest's listener comes last; until then it refuses. */
	while (!found("ok listen\n") && waitpid(pid, &status, WNOHANG) == 0) {
		if (served[0].result || served[1].result || served[2].result)
			kill(pid, SIGKILL);
		usleep(20000);
	}
	for (unsigned i = 0; i < DEMO_HOST_CONNECTS; i++) {
		echo[i] = (struct echo_call){.dev = dev[2], .refused = &refused, .seed = i};
		pthread_create(&echo[i].thread, NULL, echo_main, &echo[i]);
	}
	for (unsigned i = 0; i < DEMO_HOST_CONNECTS; i++)
		pthread_join(echo[i].thread, NULL);
	waitpid(pid, &status, 0);
	for (int i = 0; i < 3; i++) {
		loop_call(transport.loop, free_on_transport, &served[i]);
		if (!served[i].ended)
			print_message("server %d had not seen the end\n", i);
	}
	worker_stop(&transport);
	if (found("ok up"))
		pthread_join(control_thread, NULL);
	for (int i = 0; i < 3; i++)
		virtio_device_free(dev[i]);
	print_message("%s", findings_len ? findings : "the guest said nothing\n");

	if (!found("ok end\n") || found("bad ")) {
		char cmd[256];

		snprintf(cmd, sizeof(cmd), "tail -n 40 %s", scratch_path(state, "console"));
		(void)!system(cmd);
	}
	assert_true(found("ok end\n"));
	assert_false(found("bad "));
	snprintf(want, sizeof(want), "ok root %llx ", (unsigned long long)hash);
	assert_true(found(want));
	assert_int_equal(refused, 0);
	for (unsigned i = 0; i < DEMO_HOST_CONNECTS; i++)
		assert_true(echo[i].ok);
	for (int i = 0; i < 3; i++)
		assert_int_equal(served[i].result, 0);

	/* What the guest wrote is in the file, and what it discarded is a hole. */
	chunk = malloc(DEMO_CHUNK);
	demo_fill(&seed, chunk, DEMO_CHUNK);
	{
		uint8_t *in_file = malloc(DEMO_CHUNK);

		assert_int_equal(pread(upper_fd, in_file, DEMO_CHUNK, 0), DEMO_CHUNK);
		assert_memory_equal(chunk, in_file, DEMO_CHUNK);
		free(in_file);
	}
	free(chunk);
	assert_int_equal(lseek(upper_fd, 4 * DEMO_CHUNK, SEEK_HOLE), 4 * DEMO_CHUNK);
	assert_int_equal(lseek(upper_fd, 4 * DEMO_CHUNK, SEEK_DATA), 8 * DEMO_CHUNK);
	close(upper_fd);
	close(root_fd[0]);
	close(root_fd[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(linux_guest_uses_the_devices, scratch_setup,
						scratch_teardown),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
