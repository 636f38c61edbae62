/* SPDX-License-Identifier: Apache-2.0 */
/* What msb-convert has left, and what the other end of shared slots can do to us. */
#include "test.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/sanitized.h"
#include "image/convert.h"

enum { FILE_MAX = 8192 };

/* --- The walls --- */

static int null_fd, file_fd;

static int do_nothing(void)
{
	return 0;
}

static int do_open(void)
{
	return open("/dev/null", O_RDONLY);
}

static int do_socket(void)
{
	return socket(AF_INET, SOCK_STREAM, 0);
}

static int do_unix_socket(void)
{
	return socket(AF_UNIX, SOCK_STREAM, 0);
}

static int do_fork(void)
{
	return fork();
}

static int do_exec(void)
{
	return execl("/bin/true", "true", NULL);
}

static int do_kill(void)
{
	return kill(getppid(), 0);
}

static int do_trace(void)
{
	return (int)syscall(SYS_ptrace, 0, 0, 0, 0);
}

static int do_dup(void)
{
	return dup(null_fd);
}

static int do_send_fd(void)
{
	struct msghdr m = {0};

	return (int)sendmsg(null_fd, &m, 0);
}

static int do_execute(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
			       MAP_FAILED
		       ? -1
		       : 0;
}

static int do_make_executable(void)
{
	static char page[8192];

	return mprotect(page, 4096, PROT_READ | PROT_EXEC);
}

static int do_allocate(void)
{
	char *p = malloc(16 << 20);

	memset(p, 1, 16 << 20);
	p = realloc(p, 64 << 20);
	free(p);
	return p ? 0 : -1;
}

static int do_allocate_too_much(void)
{
	return malloc((size_t)1 << 30) ? -1 : 0;
}

static int do_pwrite(void)
{
	return pwrite(file_fd, "x", 1, 0) == 1 && ftruncate(file_fd, FILE_MAX) == 0 ? 0 : -1;
}

static int do_pwrite_too_far(void)
{
	return pwrite(file_fd, "x", 1, FILE_MAX) < 0 && errno == EFBIG ? 0 : -1;
}

static const struct wall {
	const char *name;
	int (*act)(void);
	bool writes;
	int signal; /* that it ends with */
} walls[] = {
	{"nothing", do_nothing, false, 0},
	{"nothing, of the other", do_nothing, true, 0},
	{"open", do_open, true, SIGSYS},
	{"socket", do_socket, true, SIGSYS},
	{"unix socket", do_unix_socket, false, SIGSYS},
	{"fork", do_fork, true, SIGSYS},
	{"exec", do_exec, true, SIGSYS},
	{"kill", do_kill, true, SIGSYS},
	{"ptrace", do_trace, true, SIGSYS},
	{"dup", do_dup, true, SIGSYS},
	{"sendmsg", do_send_fd, true, SIGSYS},
	{"map to execute", do_execute, false, SIGSYS},
	{"make executable", do_make_executable, true, SIGSYS},
	{"allocate", do_allocate, false, 0},
	{"allocate too much", do_allocate_too_much, true, 0},
	{"write to a file", do_pwrite, true, 0},
	{"write beyond the limit", do_pwrite_too_far, true, 0},
	{"write to a file, as an unpacker", do_pwrite, false, SIGSYS},
};

static void test_walls(void **state)
{
	(void)state;
	if (SANITIZED)
		skip();
	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	file_fd = memfd_create("file", MFD_CLOEXEC);
	assert_true(null_fd >= 0 && file_fd >= 0);
	for (size_t i = 0; i < ARRAY_SIZE(walls); i++) {
		const struct wall *w = &walls[i];
		pid_t pid = fork();
		int status;

		assert_true(pid >= 0);
		if (pid == 0) {
			signal(SIGXFSZ, SIG_IGN);
			_exit(convert_seal(w->writes, FILE_MAX, NULL) < 0 ? 2 : w->act() < 0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (w->signal ? !WIFSIGNALED(status) || WTERMSIG(status) != w->signal : status != 0)
			fail_msg("%s: status %x", w->name, (unsigned)status);
	}
	close(null_fd);
	close(file_fd);
}

/* --- Slots --- */

static void test_slots(void **state)
{
	struct slots w = SLOTS_INIT, r = SLOTS_INIT;
	const uint8_t *p;
	int peer;

	(void)state;
	assert_int_equal(slots_make(&w, true, &peer, NULL), 0);
	assert_int_equal(slots_join(&r, false, dup(w.memory), peer, NULL), 0);
	/* As many as there are without a reader; then one is still in its hands. */
	for (unsigned round = 0; round < 3; round++) {
		const unsigned n = SLOTS_COUNT - (round > 0);

		for (unsigned i = 0; i < n; i++) {
			memset(slots_room(&w), (int)(round * 16 + i), SLOT_SIZE);
			assert_true(slots_pass(&w, i ? i : SLOT_SIZE));
		}
		for (unsigned i = 0; i < n; i++) {
			assert_int_equal(slots_take(&r, &p), i ? i : SLOT_SIZE);
			assert_int_equal(p[0], round * 16 + i);
		}
	}
	slots_end(&w);
	assert_int_equal(slots_take(&r, &p), 0);
	slots_done(&r);
	assert_false(slots_pass(&w, 1));
	slots_done(&w);
}

/* A writer that was taken over: lengths beyond a slot, half a length, nothing. */
static void test_hostile_writer(void **state)
{
	const uint32_t lengths[] = {SLOT_SIZE + 1, UINT32_MAX, 0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lengths) + 1; i++) {
		struct slots r = SLOTS_INIT;
		const uint8_t *p = NULL;
		int peer;

		assert_int_equal(slots_make(&r, false, &peer, NULL), 0);
		if (i < ARRAY_SIZE(lengths))
			assert_int_equal(write(peer, &lengths[i], 4), 4);
		else
			assert_int_equal(write(peer, "\1\0", 2), 2);
		/* It cannot take the memory away from under our reading. */
		assert_int_equal(ftruncate(r.memory, 0), -1);
		assert_int_equal(errno, EPERM);
		close(peer);
		assert_int_equal(slots_take(&r, &p), 0);
		slots_done(&r);
	}
}

/* A reader that was taken over: more given back than it had, and writing to what it reads. */
static void test_hostile_reader(void **state)
{
	struct slots w = SLOTS_INIT;
	char many[4096] = {0};
	int peer;

	(void)state;
	assert_int_equal(slots_make(&w, true, &peer, NULL), 0);
	assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, w.memory, 0),
			 MAP_FAILED);
	assert_int_equal(pwrite(w.memory, "x", 1, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(w.memory, 0), -1);
	assert_int_equal(fcntl(w.memory, F_ADD_SEALS, F_SEAL_WRITE), -1);
	assert_int_equal(write(peer, many, sizeof(many)), sizeof(many));
	for (unsigned i = 0; i < 3 * SLOTS_COUNT; i++) {
		uint8_t *p = slots_room(&w);

		/* Whatever it gave back: never outside of the memory. */
		assert_in_range(p - w.p, 0, (SLOTS_COUNT - 1) * SLOT_SIZE);
		memset(p, 1, SLOT_SIZE);
		assert_true(slots_pass(&w, 1));
	}
	close(peer);
	while (w.used < SLOTS_COUNT)
		(void)slots_pass(&w, 1);
	while (slots_room(&w))
		(void)slots_pass(&w, 1);
	slots_done(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_walls),
		cmocka_unit_test(test_slots),
		cmocka_unit_test(test_hostile_writer),
		cmocka_unit_test(test_hostile_reader),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
