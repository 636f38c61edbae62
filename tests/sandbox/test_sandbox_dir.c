/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sandbox/change.h"
#include "sandbox/record.h"
#include "sandbox/sandbox.h"
#include "sandbox/sandbox_dir.h"
#include "sandbox/state.h"
#include "sandbox/upper.h"
#include "store/store.h"

static struct store *open_store(void **state)
{
	struct store *s = NULL;

	assert_int_equal(store_open(&s, scratch_path(state, "home"), NULL), 0);
	return s;
}

static struct sandbox_record make_record(const char *name, bool ephemeral)
{
	struct sandbox_record r = {
		.name = strdup(name),
		.image = strdup("python"),
		.image_id = strdup("sha256:00"),
		.created_at = 1700000000,
		.ephemeral = ephemeral,
	};

	sandbox_spec_init(&r.spec);
	return r;
}

static void write_record(const struct sandbox_dir *d, bool ephemeral)
{
	struct sandbox_record r = make_record(d->name, ephemeral);
	struct buf b = BUF_INIT;
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", d->path, ephemeral ? RECORD_EPHEMERAL : RECORD_KEPT);
	assert_int_equal(record_encode(&r, &b), 0);
	assert_int_equal(io_write_file_atomic(path, buf_ptr(&b), buf_size(&b), 0600, NULL), 0);
	buf_done(&b);
	record_done(&r);
}

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

/* What a spec may have but need not. */
static void options_survive(void **state)
{
	struct sandbox_record a = make_record("box", false), b = {0};
	struct buf text = BUF_INIT;
	struct sandbox_spec *s = &a.spec;

	(void)state;
	assert_int_equal(sandbox_spec_label(s, "team=a=b", NULL), 0);
	assert_int_equal(sandbox_spec_label(s, "bare", NULL), 0);
	assert_int_equal(sandbox_spec_max_duration(s, "30d", NULL), 0);
	assert_int_equal(sandbox_spec_idle_timeout(s, "5ms", NULL), 0);
	assert_int_equal(sandbox_spec_session_history(s, "2M", NULL), 0);
	assert_int_equal(sandbox_spec_max_cpus(s, "8", NULL), 0);
	assert_int_equal(sandbox_spec_max_memory(s, "8G", NULL), 0);
	assert_int_equal(sandbox_spec_security(s, "restricted", NULL), 0);
	assert_int_equal(sandbox_spec_init_program(s, "auto", NULL), 0);
	assert_int_equal(sandbox_spec_init_arg(s, "same", NULL), 0);
	assert_int_equal(sandbox_spec_init_arg(s, "same", NULL), 0);
	assert_int_equal(sandbox_spec_init_env(s, "A=1", NULL), 0);
	assert_int_equal(record_encode(&a, &text), 0);
	assert_int_equal(record_decode(buf_ptr(&text), buf_size(&text), &b, NULL), 0);
	assert_int_equal(b.spec.labels.n, 2);
	assert_string_equal(b.spec.labels.v[0], "team=a=b");
	assert_string_equal(b.spec.labels.v[1], "bare=");
	assert_true(b.spec.max_duration_ms == UINT64_C(30) * 86400000);
	assert_true(b.spec.idle_timeout_ms == 5);
	assert_int_equal(b.spec.session_history, 2 << 20);
	assert_int_equal(b.spec.max_cpus, 8);
	assert_true(b.spec.max_memory == UINT64_C(8) << 30);
	assert_string_equal(b.spec.security, "restricted");
	assert_string_equal(b.spec.init, "auto");
	assert_int_equal(b.spec.init_args.n, 2);
	assert_string_equal(b.spec.init_env.v[0], "A=1");
	record_done(&a);
	record_done(&b);
	buf_done(&text);
}

static void records_survive(void **state)
{
	struct sandbox_record a = make_record("box", false), b = {0};
	struct buf text = BUF_INIT;

	(void)state;
	a.spec.memory = (uint64_t)1 << 40;
	a.spec.root = SANDBOX_ROOT_TMPFS;
	a.spec.user = strdup("me:us");
	assert_int_equal(sandbox_spec_env(&a.spec, "A=\xc3\xa9 \"x\"", NULL), 0);
	assert_int_equal(sandbox_spec_rlimit(&a.spec, "core=0:unlimited", NULL), 0);
	assert_int_equal(record_encode(&a, &text), 0);
	assert_int_equal(record_decode(buf_ptr(&text), buf_size(&text), &b, NULL), 0);
	assert_string_equal(b.name, a.name);
	assert_string_equal(b.image_id, a.image_id);
	assert_int_equal(b.created_at, a.created_at);
	assert_true(b.spec.memory == a.spec.memory);
	assert_int_equal(b.spec.root, SANDBOX_ROOT_TMPFS);
	assert_string_equal(b.spec.user, "me:us");
	assert_null(b.spec.workdir);
	assert_string_equal(b.spec.env.v[0], a.spec.env.v[0]);
	assert_int_equal(b.spec.nrlimits, 1);
	assert_true(b.spec.rlimits[0].hard == UINT64_MAX);
	assert_int_equal(b.spec.rlimits[0].soft, 0);
	record_done(&b);
	/* Cut anywhere, it is refused. */
	for (size_t n = 0; n + 2 < buf_size(&text); n += 7)
		assert_true(record_decode(buf_ptr(&text), n, &b, NULL) < 0);
	buf_done(&text);
	record_done(&a);
}

static void one_owner(void **state)
{
	struct store *s = open_store(state);
	struct sandbox_dir a = SANDBOX_DIR_INIT, b = SANDBOX_DIR_INIT;
	struct err err = ERR_INIT;
	struct sandbox_list l = {0};

	assert_int_equal(sandbox_dir_take(s, "box", false, &a, &err), -ERR_NOT_FOUND);
	assert_int_equal(sandbox_dir_take(s, "box", true, &a, NULL), 0);
	assert_false(a.kept);
	assert_int_equal(sandbox_dir_take(s, "box", true, &b, &err), -EBUSY);
	assert_non_null(strstr(err.hint, "msb stop box"));
	/* A listing that probes the lock does not take it away. */
	write_record(&a, true);
	assert_int_equal(sandbox_dir_list(s, NULL, &l, NULL), 0);
	assert_int_equal(l.count, 1);
	assert_true(l.items[0].running);
	assert_int_equal(l.items[0].pid, 0);
	assert_int_equal(sandbox_dir_vm(s, "box"), -ESRCH);
	sandbox_list_done(&l);
	sandbox_dir_heal(s, true);
	assert_true(exists(a.path));
	assert_int_equal(sandbox_dir_remove(&a, NULL), 0);
	assert_false(exists(scratch_path(state, "home/sandboxes/box")));
	assert_int_equal(sandbox_dir_list(s, "box", &l, &err), -ERR_NOT_FOUND);
	store_close(s);
}

/* What a killed one left half-done is not done because another change is. */
static void marks_of_the_killed_stay(void **state)
{
	struct store *s = open_store(state);
	struct sandbox_dir d = SANDBOX_DIR_INIT;
	struct sandbox_change c = SANDBOX_CHANGE_INIT;

	assert_int_equal(sandbox_dir_take(s, "box", true, &d, NULL), 0);
	write_record(&d, false);
	assert_int_equal(sandbox_change_begin(s, "box", &c, NULL), 0);
	assert_true(sandbox_change_marked(c.dir));
	sandbox_change_end(&c, true);
	assert_int_equal(sandbox_change_begin(s, "box", &c, NULL), 0);
	/* As a kill does. */
	c.dir = close_fd(c.dir);
	assert_int_equal(sandbox_change_begin(s, "box", &c, NULL), 0);
	sandbox_change_end(&c, true);
	assert_true(exists(scratch_path(state, "home/sandboxes/box/changing")));
	assert_int_equal(sandbox_dir_remove(&d, NULL), 0);
	store_close(s);
}

/* What is on its way out, or not there yet, is nothing that could be changed. */
static void what_goes_is_not_changed(void **state)
{
	struct store *s = open_store(state);
	struct sandbox_dir d = SANDBOX_DIR_INIT;
	struct sandbox_change c = SANDBOX_CHANGE_INIT;
	struct err err = ERR_INIT;
	int fd;

	assert_int_equal(sandbox_dir_take(s, "box", true, &d, NULL), 0);
	assert_int_equal(sandbox_change_begin(s, "box", &c, &err), -ERR_NOT_FOUND);
	assert_int_equal(c.dir, -1);
	write_record(&d, false);
	assert_int_equal(sandbox_change_begin(s, "box", &c, NULL), 0);
	assert_int_equal(sandbox_change_lock(s, "box", false, NULL), -EWOULDBLOCK);
	sandbox_change_end(&c, true);
	assert_int_equal(sandbox_dir_hold(&d, NULL), 0);
	assert_int_equal(sandbox_dir_hold(&d, NULL), 0);
	assert_int_equal(sandbox_change_lock(s, "box", false, NULL), -EWOULDBLOCK);
	sandbox_dir_let(&d);
	fd = sandbox_change_lock(s, "box", false, NULL);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(sandbox_dir_renew(&d, NULL), 0);
	assert_int_equal(sandbox_change_lock(s, "box", false, NULL), -EWOULDBLOCK);
	assert_int_equal(sandbox_dir_remove(&d, NULL), 0);
	assert_int_equal(sandbox_change_lock(s, "box", false, &err), -ERR_NOT_FOUND);
	store_close(s);
}

/* The machine's process is known by what the kernel says, for as long as it lives. */
static void the_owner_is_known(void **state)
{
	struct store *s = open_store(state);
	struct sandbox_dir a = SANDBOX_DIR_INIT;
	struct pollfd p = {.events = POLLIN};
	struct sandbox_list l = {0};
	int ready[2];
	pid_t child;
	char c;

	assert_int_equal(sandbox_dir_take(s, "box", true, &a, NULL), 0);
	write_record(&a, false);
	assert_int_equal(pipe(ready), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		_exit(io_own(a.lock) == 0 && write(ready[1], "x", 1) == 1 ? pause() : 1);
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	assert_int_equal(io_own(a.lock), -EWOULDBLOCK);
	assert_int_equal(sandbox_dir_list(s, "box", &l, NULL), 0);
	assert_int_equal(l.items[0].pid, child);
	sandbox_list_done(&l);
	p.fd = sandbox_dir_vm(s, "box");
	assert_true(p.fd >= 0);
	assert_int_equal(poll(&p, 1, 0), 0);
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(poll(&p, 1, 60000), 1);
	/* A zombie still has its number, but owns nothing. */
	assert_int_equal(sandbox_dir_vm(s, "box"), -ESRCH);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_int_equal(sandbox_dir_vm(s, "none"), -ESRCH);
	close(p.fd);
	close(ready[0]);
	close(ready[1]);
	sandbox_dir_done(&a);
	store_close(s);
}

static void leftovers_go(void **state)
{
	struct store *s = open_store(state);
	struct sandbox_dir kept = SANDBOX_DIR_INIT, lost = SANDBOX_DIR_INIT;
	struct err err = ERR_INIT;
	char kept_path[512], lost_path[512];

	assert_int_equal(sandbox_dir_take(s, "kept", true, &kept, NULL), 0);
	assert_int_equal(sandbox_dir_take(s, "lost", true, &lost, NULL), 0);
	write_record(&kept, false);
	write_record(&lost, true);
	snprintf(kept_path, sizeof(kept_path), "%s", kept.path);
	snprintf(lost_path, sizeof(lost_path), "%s", lost.path);
	close(sandbox_socket_listen(kept.fd, "agent.sock", NULL));
	assert_int_equal(mkdirat(lost.fd, "logs", 0700), 0);
	sandbox_dir_done(&kept);
	sandbox_dir_done(&lost);
	/* One that was killed while being given up, and one killed before it had a lock. */
	assert_int_equal(mkdir(scratch_path(state, "home/sandboxes/.gone-x"), 0700), 0);
	assert_int_equal(mkdir(scratch_path(state, "home/sandboxes/young"), 0700), 0);
	sandbox_dir_heal(s, true);
	assert_false(exists(lost_path));
	assert_false(exists(scratch_path(state, "home/sandboxes/.gone-x")));
	assert_false(exists(scratch_path(state, "home/sandboxes/young")));
	assert_true(exists(kept_path));
	assert_int_equal(sandbox_dir_take(s, "kept", true, &kept, NULL), 0);
	assert_true(kept.kept);
	assert_int_not_equal(faccessat(kept.fd, "agent.sock", F_OK, 0), 0);
	sandbox_dir_done(&kept);
	assert_int_equal(sandbox_remove(s, "kept", false, NULL), 0);
	assert_int_equal(sandbox_remove(s, "kept", false, &err), -ERR_NOT_FOUND);
	store_close(s);
}

/* Many processes want one name: exactly one gets it, however often it is tried. */
static void races(void **state)
{
	enum { PROCESSES = 8, ROUNDS = 20 };

	for (int round = 0; round < ROUNDS; round++) {
		pid_t pids[PROCESSES];
		int go[2], winners = 0;

		assert_int_equal(pipe(go), 0);
		for (int i = 0; i < PROCESSES; i++) {
			pids[i] = fork();
			if (pids[i])
				continue;
			struct store *s = NULL;
			struct sandbox_dir d = SANDBOX_DIR_INIT;
			char c;
			int r;

			close(go[1]);
			if (store_open(&s, scratch_path(state, "home"), NULL) < 0)
				_exit(3);
			(void)!read(go[0], &c, 1);
			r = sandbox_dir_take(s, "one", true, &d, NULL);
			if (i % 2)
				sandbox_dir_heal(s, true);
			if (r == 0) {
				usleep(20000);
				(void)sandbox_dir_remove(&d, NULL);
			}
			_exit(r == 0 ? 0 : r == -EBUSY ? 1 : 2);
		}
		close(go[0]);
		close(go[1]);
		for (int i = 0; i < PROCESSES; i++) {
			int status;

			assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
			assert_true(WIFEXITED(status));
			if (WEXITSTATUS(status) > 1)
				fail_msg("process %d ended with %d", i, WEXITSTATUS(status));
			winners += WEXITSTATUS(status) == 0;
		}
		assert_true(winners >= 1);
		assert_false(exists(scratch_path(state, "home/sandboxes/one")));
	}
}

static void long_socket_paths(void **state)
{
	char path[3000];
	size_t n;
	cleanup_close int dir = -1, listener = -1, client = -1;

	n = (size_t)snprintf(path, sizeof(path), "%s", (char *)*state);
	while (n < 2500) {
		memset(path + n, 'd', 200);
		path[n] = '/';
		path[n + 200] = '\0';
		n += 200;
		assert_int_equal(mkdir(path, 0700), 0);
	}
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(dir >= 0);
	listener = sandbox_socket_listen(dir, "agent.sock", NULL);
	assert_true(listener >= 0);
	client = sandbox_socket_connect(dir, "agent.sock", NULL);
	assert_true(client >= 0);
}

static int check_disk(const char *path, const char *grep)
{
	char cmd[1200];

	snprintf(cmd, sizeof(cmd),
		 "PATH=$PATH:/usr/sbin:/sbin; e2fsck -fn '%s' >/dev/null 2>&1 && "
		 "dumpe2fs '%s' 2>/dev/null | grep -q '%s'",
		 path, path, grep);
	return system(cmd);
}

static void upper_disks(void **state)
{
	static const uint64_t sizes[] = {UPPER_SIZE_MIN, (uint64_t)100 << 20, (uint64_t)8 << 30};
	struct store *s = open_store(state);
	cleanup_close int dir = open(*state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct err err = ERR_INIT;
	struct stat st;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		for (int journal = 0; journal < 2; journal++) {
			/* A first one makes the template, a second one only copies it. */
			for (int again = 0; again < 2; again++) {
				const char *path = scratch_path(state, "upper.ext4");

				assert_int_equal(upper_create(s, dir, "upper.ext4", sizes[i],
							      journal, &err),
						 0);
				assert_int_equal(stat(path, &st), 0);
				assert_true((uint64_t)st.st_size == sizes[i]);
				assert_true(st.st_blocks * 512 < (journal ? 6 : 1) << 20);
				assert_int_equal(check_disk(path, "ITABLE_ZEROED"), 0);
				assert_int_equal(!check_disk(path, "has_journal"), journal);
				assert_int_equal(upper_create(s, dir, "upper.ext4", sizes[i],
							      journal, NULL),
						 -EEXIST);
				assert_int_equal(unlink(path), 0);
			}
		}
	}
	assert_int_equal(upper_create(s, dir, "x", 1 << 20, false, &err), -ERR_USAGE);
	assert_int_equal(upper_create(s, dir, "x", UINT64_MAX, false, &err), -ERR_USAGE);
	store_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_survive),
		cmocka_unit_test(options_survive),
		cmocka_unit_test_setup_teardown(one_owner, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(the_owner_is_known, scratch_setup,
						scratch_teardown),
		cmocka_unit_test_setup_teardown(marks_of_the_killed_stay, scratch_setup,
						scratch_teardown),
		cmocka_unit_test_setup_teardown(what_goes_is_not_changed, scratch_setup,
						scratch_teardown),
		cmocka_unit_test_setup_teardown(leftovers_go, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(races, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(long_socket_paths, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(upper_disks, scratch_setup, scratch_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
