/* SPDX-License-Identifier: Apache-2.0 */
/* agentd's server natively: file operations and TCP streams. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "gen.h"
#include "harness.h"

static struct client c;
static char dir[64], path[128], other[128];
static uint32_t next_id;

static int group_up(void **state)
{
	(void)state;
	harness_start(false);
	return 0;
}

static int group_down(void **state)
{
	(void)state;
	harness_stop();
	return 0;
}

static int up(void **state)
{
	(void)state;
	client_open(&c);
	strcpy(dir, "/tmp/agent-fs-XXXXXX");
	assert_non_null(mkdtemp(dir));
	next_id = 1;
	return 0;
}

static int down(void **state)
{
	char cmd[100];

	(void)state;
	client_close(&c);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd);
}

static char *at(char *buf, const char *name)
{
	snprintf(buf, 128, "%s/%s", dir, name);
	return buf;
}

/* Send an operation and take its answer; got_done() it. */
static void ask(struct fs_op op, struct got *g)
{
	struct msg_fs_request req = {.op = op};

	client_send(&c, next_id, MSG_FS_REQUEST, &req);
	client_next(&c, g);
	assert_int_equal(g->id, next_id++);
	assert_int_equal(g->kind, MSG_FS_RESPONSE);
}

static void ok(struct fs_op op)
{
	struct got g;

	ask(op, &g);
	if (!g.u.fs.ok)
		fail_msg("%s", g.u.fs.error);
	got_done(&g);
}

static void refused(struct fs_op op, const char *text)
{
	struct got g;

	ask(op, &g);
	assert_false(g.u.fs.ok);
	if (!strstr(g.u.fs.error, text))
		fail_msg("'%s' lacks '%s'", g.u.fs.error, text);
	got_done(&g);
}

static uint64_t handle(struct fs_op op)
{
	struct got g;

	ask(op, &g);
	if (!g.u.fs.ok)
		fail_msg("%s", g.u.fs.error);
	assert_true(g.u.fs.has_data && g.u.fs.data.kind == FS_RESULT_HANDLE);
	return g.u.fs.data.handle;
}

static uint64_t open_file(const char *name, bool create)
{
	struct fs_op op = {.kind = FS_OPEN_FILE, .path = (char *)name};

	op.options.read = true;
	op.options.write = op.options.create = op.options.truncate = create;
	op.options.has_mode = true;
	op.options.mode = 0640;
	return handle(op);
}

enum { SIZE = 5 << 20 };

static void test_write_read(void **state)
{
	cleanup_free uint8_t *data = malloc(SIZE);
	struct fs_op op = {.kind = FS_WRITE, .has_len = true, .len = SIZE};
	struct msg_fs_request req = {0};
	struct rng rng = {9};
	size_t got_bytes = 0;
	struct stat st;
	struct got g;
	uint64_t h;

	(void)state;
	for (size_t i = 0; i < SIZE; i++)
		data[i] = (uint8_t)rng_next(&rng);
	h = open_file(at(path, "f"), true);
	op.handle = h;
	req.op = op;
	client_send(&c, 500, MSG_FS_REQUEST, &req);
	client_data(&c, 500, MSG_FS_DATA, data, FS_CHUNK_MAX);
	client_data(&c, 500, MSG_FS_DATA, data + FS_CHUNK_MAX, SIZE - FS_CHUNK_MAX);
	client_data(&c, 500, MSG_FS_DATA, "", 0);
	client_next(&c, &g);
	assert_int_equal(g.kind, MSG_FS_RESPONSE);
	assert_true(g.u.fs.ok);
	got_done(&g);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, SIZE);
	assert_int_equal(st.st_mode & 0777, 0640);
	/* All of it, then a part. */
	req.op = (struct fs_op){.kind = FS_READ, .handle = h, .offset = 3};
	client_send(&c, 501, MSG_FS_REQUEST, &req);
	for (;;) {
		client_next(&c, &g);
		if (g.kind == MSG_FS_RESPONSE)
			break;
		assert_int_equal(g.kind, MSG_FS_DATA);
		assert_memory_equal(g.data, data + 3 + got_bytes, g.data_len);
		got_bytes += g.data_len;
	}
	assert_true(g.u.fs.ok);
	got_done(&g);
	assert_int_equal(got_bytes, SIZE - 3);
	req.op = (struct fs_op){
		.kind = FS_READ, .handle = h, .offset = 10, .has_len = true, .len = 4};
	client_send(&c, 502, MSG_FS_REQUEST, &req);
	client_next(&c, &g);
	assert_int_equal(g.data_len, 4);
	assert_memory_equal(g.data, data + 10, 4);
	client_next(&c, &g);
	assert_true(g.u.fs.ok);
	got_done(&g);
	/* A count that is not kept. */
	req.op = (struct fs_op){.kind = FS_WRITE, .handle = h, .has_len = true, .len = 10};
	client_send(&c, 503, MSG_FS_REQUEST, &req);
	client_data(&c, 503, MSG_FS_DATA, "abc", 3);
	client_data(&c, 503, MSG_FS_DATA, "", 0);
	client_next(&c, &g);
	assert_false(g.u.fs.ok);
	assert_string_equal(g.u.fs.error, "write length mismatch: expected 10, wrote 3");
	got_done(&g);
	/* Data for a transfer that is over is dropped without a word. */
	client_data(&c, 503, MSG_FS_DATA, "late", 4);
	ok((struct fs_op){.kind = FS_FSTAT, .handle = h});
	ok((struct fs_op){.kind = FS_CLOSE_HANDLE, .handle = h});
	refused((struct fs_op){.kind = FS_FSTAT, .handle = h}, "invalid handle");
	refused((struct fs_op){.kind = FS_READ, .handle = h}, "invalid handle");
}

static void test_names(void **state)
{
	struct fs_op op;
	struct got g;
	struct stat st;

	(void)state;
	ok((struct fs_op){
		.kind = FS_MKDIR, .path = at(path, "a/b/c"), .has_mode = true, .mode = 0711});
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0711);
	ok((struct fs_op){.kind = FS_MKDIR, .path = path});
	ok((struct fs_op){
		.kind = FS_SYMLINK, .target = (char *)"b/c", .link_path = at(other, "a/l")});
	ask((struct fs_op){.kind = FS_READ_LINK, .path = other}, &g);
	assert_string_equal(g.u.fs.data.path, "b/c");
	got_done(&g);
	ask((struct fs_op){.kind = FS_REAL_PATH, .path = other}, &g);
	assert_string_equal(g.u.fs.data.path, path);
	got_done(&g);
	ask((struct fs_op){.kind = FS_STAT, .path = other}, &g);
	assert_string_equal(g.u.fs.data.stat.kind, "symlink");
	got_done(&g);
	ask((struct fs_op){.kind = FS_STAT, .path = other, .follow_symlink = true}, &g);
	assert_string_equal(g.u.fs.data.stat.kind, "dir");
	got_done(&g);
	op = (struct fs_op){.kind = FS_SET_STAT, .path = path, .follow_symlink = true};
	op.attrs = (struct fs_attrs){
		.has_mode = true, .mode = 0700, .has_mtime = true, .mtime = 12345};
	ok(op);
	stat(path, &st);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(st.st_mtime, 12345);
	op.path = other;
	op.follow_symlink = false;
	op.attrs.has_mtime = false;
	refused(op, "os error");
	ok((struct fs_op){.kind = FS_RENAME, .src = path, .dst = at(other, "a/d")});
	refused((struct fs_op){.kind = FS_STAT, .path = path},
		"No such file or directory (os error 2)");
	refused((struct fs_op){.kind = FS_REMOVE_DIR, .path = at(path, "a")}, "not empty");
	refused((struct fs_op){.kind = FS_REMOVE, .path = at(path, "a")}, "os error");
	ok((struct fs_op){.kind = FS_REMOVE_DIR, .path = at(path, "a"), .recursive = true});
	assert_true(stat(path, &st) < 0);
	refused((struct fs_op){.kind = FS_REMOVE_DIR, .path = path, .recursive = true},
		"os error 2");
}

static void test_tree(void **state)
{
	char cmd[512];

	(void)state;
	snprintf(cmd, sizeof(cmd),
		 "cd %s && mkdir -p s/x/y && echo hi > s/x/f && chmod 4755 s/x/f && ln -s ../x/f "
		 "s/x/y/l "
		 "&& mkfifo s/p && head -c 3000000 /dev/urandom > s/big && ln -s / s/root",
		 dir);
	assert_int_equal(system(cmd), 0);
	ok((struct fs_op){.kind = FS_COPY, .src = at(path, "s"), .dst = at(other, "t")});
	snprintf(cmd, sizeof(cmd),
		 "cd %s && cmp s/big t/big && test -p t/p && test \"$(readlink t/x/y/l)\" = ../x/f "
		 "&& "
		 "test -u t/x/f && test \"$(readlink t/root)\" = /",
		 dir);
	assert_int_equal(system(cmd), 0);
	ok((struct fs_op){.kind = FS_COPY, .src = at(path, "s/big"), .dst = at(other, "big2")});
	refused((struct fs_op){.kind = FS_COPY, .src = at(path, "s"), .dst = at(other, "s/x/in")},
		"os error 22");
	refused((struct fs_op){.kind = FS_COPY, .src = at(path, "none"), .dst = at(other, "q")},
		"os error 2");
	/* The link to "/" is removed, not followed. */
	ok((struct fs_op){.kind = FS_REMOVE_DIR, .path = at(path, "t"), .recursive = true});
	assert_int_equal(access("/bin/sh", F_OK), 0);
}

static void test_listing(void **state)
{
	struct fs_op op = {.kind = FS_LIST};
	size_t total = 0;
	struct got g;
	uint64_t h;

	(void)state;
	for (int i = 0; i < 300; i++) {
		char name[16];
		FILE *f;

		snprintf(name, sizeof(name), "f%d", i);
		f = fopen(at(path, name), "w");
		fclose(f);
	}
	op.path = dir;
	ask(op, &g);
	assert_int_equal(g.u.fs.data.list.n, 300);
	got_done(&g);
	h = handle((struct fs_op){.kind = FS_OPEN_DIR, .path = dir});
	for (;;) {
		size_t n;

		ask((struct fs_op){.kind = FS_READ_DIR, .handle = h}, &g);
		n = g.u.fs.data.list.n;
		got_done(&g);
		if (!n)
			break;
		assert_true(n <= FS_READDIR_DEFAULT);
		total += n;
	}
	assert_int_equal(total, 300);
	refused((struct fs_op){.kind = FS_READ, .handle = h}, "is a directory");
	ok((struct fs_op){.kind = FS_CLOSE_HANDLE, .handle = h});
}

static void test_handle_limit(void **state)
{
	struct fs_op op = {.kind = FS_OPEN_FILE, .path = (char *)"/dev/null"};

	(void)state;
	op.options.read = true;
	for (int i = 0; i < FS_HANDLES_MAX; i++)
		handle(op);
	refused(op, "too many open");
	op.options.read = false;
	refused(op, "os error 22");
}

static void test_as_user(void **state)
{
	struct fs_op op = {.kind = FS_MKDIR, .path = at(path, "mine"), .user = (char *)"4711:4712"};
	struct stat st;

	(void)state;
	if (getuid())
		skip();
	refused(op, "Permission denied");
	assert_int_equal(chmod(dir, 0777), 0);
	ok(op);
	stat(path, &st);
	assert_int_equal(st.st_uid, 4711);
	assert_int_equal(st.st_gid, 4712);
	/* And root is root again. */
	assert_int_equal(chmod(dir, 0700), 0);
	ok((struct fs_op){.kind = FS_MKDIR, .path = at(path, "roots")});
}

/* An echo server that prefixes what it gets once the client has ended. */
static uint16_t echo_server(pid_t *pid)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(a);
	int s = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(s, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(s, 4), 0);
	getsockname(s, (struct sockaddr *)&a, &n);
	*pid = fork();
	if (!*pid) {
		for (;;) {
			int fd = accept(s, NULL, NULL);
			char b[65536];
			ssize_t k;

			while ((k = read(fd, b, sizeof(b))) > 0)
				(void)!write(fd, b, (size_t)k);
			(void)!write(fd, "END", 3);
			close(fd);
		}
	}
	close(s);
	return ntohs(a.sin_port);
}

static void test_tcp(void **state)
{
	struct msg_tcp_connect conn = {.host = (char *)"127.0.0.1"};
	static const char *const hosts[] = {"127.0.0.1", "localhost"};
	struct msg_empty none = {0};
	struct got g;
	pid_t pid;

	(void)state;
	conn.port = echo_server(&pid);
	for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
		uint32_t id = (uint32_t)(100 + i);
		cleanup_buf struct buf in = BUF_INIT;
		bool eof = false;

		conn.host = (char *)hosts[i];
		client_send(&c, id, MSG_TCP_CONNECT, &conn);
		client_next(&c, &g);
		assert_int_equal(g.kind, MSG_TCP_CONNECTED);
		for (int k = 0; k < 40; k++) {
			static char block[TCP_CHUNK_MAX];

			memset(block, 'a' + k % 26, sizeof(block));
			client_data(&c, id, MSG_TCP_DATA, block, sizeof(block));
			while (k >= 4 && buf_size(&in) < (size_t)(k - 4) * TCP_CHUNK_MAX) {
				client_next(&c, &g);
				assert_int_equal(g.kind, MSG_TCP_DATA);
				assert_true(g.data_len <= TCP_CHUNK_MAX);
				buf_add(&in, g.data, g.data_len);
			}
		}
		client_send(&c, id, MSG_TCP_EOF, &none);
		for (;;) {
			client_next(&c, &g);
			if (g.kind == MSG_TCP_CLOSED)
				break;
			if (g.kind == MSG_TCP_EOF)
				eof = true;
			else
				buf_add(&in, g.data, g.data_len);
		}
		(void)eof;
		assert_int_equal(buf_size(&in), 40 * TCP_CHUNK_MAX + 3);
		assert_memory_equal(buf_ptr(&in) + buf_size(&in) - 3, "END", 3);
	}
	/* Refused, unknown, and closed by the client. */
	conn.port = 1;
	client_send(&c, 200, MSG_TCP_CONNECT, &conn);
	client_next(&c, &g);
	assert_int_equal(g.kind, MSG_TCP_FAILED);
	assert_non_null(strstr(g.u.tcp_failed.error, "refused"));
	got_done(&g);
	conn.host = (char *)"no.such.name.invalid";
	client_send(&c, 201, MSG_TCP_CONNECT, &conn);
	client_next(&c, &g);
	assert_int_equal(g.kind, MSG_TCP_FAILED);
	got_done(&g);
	kill(pid, SIGKILL);
}

static struct wire_bytes bytes(const char *s)
{
	return (struct wire_bytes){(uint8_t *)(uintptr_t)s, strlen(s)};
}

/* Take the answer of an archive operation; true if it was ok. Its text goes to @text. */
static bool archive_end(struct buf *data, char text[300])
{
	struct got g;
	bool good;

	for (;;) {
		client_next(&c, &g);
		if (g.kind != MSG_FS_DATA)
			break;
		if (data)
			buf_add(data, g.data, g.data_len);
		got_done(&g);
	}
	assert_int_equal(g.kind, MSG_FS_RESPONSE);
	good = g.u.fs.ok;
	snprintf(text, 300, "%s", g.u.fs.error ? g.u.fs.error : "");
	got_done(&g);
	return good;
}

static bool unpack(uint32_t id, const char *to, const char *name, const void *p, size_t n,
		   char text[300])
{
	struct msg_fs_request req = {.op = {.kind = FS_UNPACK_TREE,
					    .tree_path = bytes(to),
					    .tree_name = bytes(name ? name : ""),
					    .archive = !name}};

	client_send(&c, id, MSG_FS_REQUEST, &req);
	if (n)
		client_data(&c, id, MSG_FS_DATA, p, n);
	client_data(&c, id, MSG_FS_DATA, "", 0);
	return archive_end(NULL, text);
}

static void test_archives(void **state)
{
	cleanup_buf struct buf b = BUF_INIT;
	struct msg_fs_request req = {.op = {.kind = FS_PACK_TREE, .tree_name = bytes(".")}};
	char text[300], cmd[300];
	struct stat st;

	(void)state;
	snprintf(cmd, sizeof(cmd), "cd %s && mkdir -p a/b && head -c 900000 /dev/urandom >a/b/f",
		 dir);
	assert_int_equal(system(cmd), 0);
	req.op.tree_path = bytes(at(path, "a"));
	client_send(&c, 700, MSG_FS_REQUEST, &req);
	assert_true(archive_end(&b, text));
	assert_string_equal(text, "");
	assert_true(unpack(701, at(other, "new"), "a", buf_ptr(&b), buf_size(&b), text));
	snprintf(cmd, sizeof(cmd), "cd %s && diff -r a new", dir);
	assert_int_equal(system(cmd), 0);
	/* What breaks off is taken back, also when nobody waits for the answer. */
	assert_false(unpack(702, at(other, "cut"), "a", buf_ptr(&b), 500000, text));
	assert_non_null(strstr(text, "cut off"));
	assert_int_not_equal(access(at(other, "cut"), F_OK), 0);
	req.op = (struct fs_op){.kind = FS_UNPACK_TREE,
				.tree_path = bytes(at(other, "gone")),
				.tree_name = bytes("a")};
	client_send(&c, 703, MSG_FS_REQUEST, &req);
	client_data(&c, 703, MSG_FS_DATA, buf_ptr(&b), 500000);
	for (int i = 0; i < 60000 && access(other, F_OK) < 0; i++)
		usleep(1000);
	assert_int_equal(access(other, F_OK), 0);
	client_close(&c);
	for (int i = 0; i < 60000 && !access(other, F_OK); i++)
		usleep(1000);
	assert_int_not_equal(access(other, F_OK), 0);
	client_open(&c);
	/* Refusals. */
	assert_false(unpack(704, at(other, "no/where"), "a", buf_ptr(&b), buf_size(&b), text));
	assert_non_null(strstr(text, "no/where"));
	assert_false(unpack(705, dir, "../x", buf_ptr(&b), buf_size(&b), text));
	assert_false(unpack(706, "", "x", buf_ptr(&b), buf_size(&b), text));
	assert_false(unpack(707, dir, NULL, "no tar at all", 13, text));
	req.op = (struct fs_op){.kind = FS_PACK_TREE,
				.tree_path = bytes("/no/such/thing"),
				.tree_name = bytes(".")};
	client_send(&c, 708, MSG_FS_REQUEST, &req);
	assert_false(archive_end(NULL, text));
	assert_non_null(strstr(text, "/no/such/thing"));
	assert_int_equal(stat(dir, &st), 0);
	/* Packing that its client gives up. */
	req.op.tree_path = bytes("/proc/self/../../usr");
	client_send(&c, 709, MSG_FS_REQUEST, &req);
	client_close(&c);
	client_open(&c);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, up, down)
	const struct CMUnitTest tests[] = {
		T(test_write_read),   T(test_names),   T(test_tree), T(test_listing),
		T(test_handle_limit), T(test_as_user), T(test_tcp),  T(test_archives),
	};

	return cmocka_run_group_tests(tests, group_up, group_down);
}
