/* SPDX-License-Identifier: Apache-2.0 */
/* A machine's manager, asked on its socket; the test plays the engine and the guest's agent. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "machine/control.h"
#include "machine/engine.h"
#include "machine/machine.h"
#include "machine/manage.h"
#include "machine/relay.h"

#define MIB ((uint64_t)1 << 20)

struct engine {
	struct world *w;
};

struct world {
	struct machine m;
	struct vm_config config;
	struct manager *manager;
	struct engine engine;
	char dir[64];
	int agent; /* the guest's end of the control connection */
	int guest; /* ...and of the one client's */
	struct buf said;
	unsigned pauses, resumes, allowed;
	bool refuse_pause, late_pause, refuse_memory;
	uint64_t memory_wanted;
	unsigned wishes;
	char reason[32];
};

static int engine_pause(struct engine *e, bool pause, struct err *err)
{
	struct world *w = e->w;

	if (w->refuse_pause)
		return err_set(err, EIO, "no");
	(*(pause ? &w->pauses : &w->resumes))++;
	if (!w->late_pause)
		manage_paused(w->manager, pause);
	return 0;
}

static void engine_usage(struct engine *e, struct engine_usage *ret)
{
	(void)e;
	*ret = (struct engine_usage){.cpu_ns = 7, .memory = 4096};
}

static void engine_allow(struct engine *e, unsigned n)
{
	e->w->allowed = n;
}

static int engine_memory(struct engine *e, uint64_t bytes, struct err *err)
{
	struct world *w = e->w;

	if (w->refuse_memory)
		return err_set(err, EIO, "no");
	w->memory_wanted = bytes;
	w->wishes++;
	return 0;
}

static const struct engine_ops fake = {
	.name = "fake",
	.pause = engine_pause,
	.usage = engine_usage,
	.allow_cpus = engine_allow,
	.want_memory = engine_memory,
};

static int dial(void *arg, int fd, struct err *err)
{
	(void)err;
	((struct world *)arg)->guest = fd;
	return 0;
}

static void on_ready(void *arg)
{
	manage_ready(((struct world *)arg)->manager);
}

static void on_failed(void *arg, const char *why)
{
	(void)arg;
	fail_msg("%s", why);
}

static void on_active(void *arg)
{
	struct world *w = arg;

	if (w->manager)
		manage_active(w->manager);
}

static void on_agent(void *arg, const struct envelope *e)
{
	manage_agent(((struct world *)arg)->manager, e);
}

static void on_gone(void *arg)
{
	struct world *w = arg;

	if (w->manager)
		manage_gone(w->manager);
}

static const struct relay_ops relay_ops = {dial, on_ready, on_failed, on_active, on_agent, on_gone};

static void on_stop(void *arg, const char *reason)
{
	struct world *w = arg;

	snprintf(w->reason, sizeof(w->reason), "%s", reason);
	manage_stopping(w->manager);
}

static int listen_at(struct world *w, const char *name)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/%s", w->dir, name);
	assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	assert_int_equal(listen(fd, 100), 0);
	return fd;
}

static int connect_to(struct world *w, const char *name)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/%s", w->dir, name);
	assert_int_equal(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	return fd;
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	int p[2];

	strcpy(w->dir, "/tmp/msb-manage-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	w->guest = -1;
	w->config = (struct vm_config){
		.name = (char *)"box",
		.cpus = 4,
		.cpus_on = 2,
		.memory = 512 * MIB,
		.memory_max = 1024 * MIB,
	};
	w->engine.w = w;
	w->m.config = &w->config;
	w->m.ops = &fake;
	w->m.engine = &w->engine;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p), 0);
	w->agent = p[1];
	assert_int_equal(loop_new(&w->m.loop, NULL), 0);
	assert_int_equal(relay_new(&w->m.relay, w->m.loop, listen_at(w, "agent"), p[0], &relay_ops,
				   w, NULL),
			 0);
	*state = w;
	return 0;
}

static void begin(struct world *w)
{
	assert_int_equal(manage_new(&w->manager, &w->m, listen_at(w, "control"), on_stop, w, NULL),
			 0);
}

static int teardown(void **state)
{
	struct world *w = *state;

	w->manager = manage_free(w->manager);
	relay_free(w->m.relay);
	loop_free(w->m.loop);
	close_fd(w->agent);
	close_fd(w->guest);
	buf_done(&w->said);
	io_remove_tree(w->dir, NULL);
	free(w);
	return 0;
}

static void turn(struct world *w)
{
	for (int i = 0; i < 20; i++)
		assert_int_equal(loop_turn(w->m.loop, 0), 0);
}

/* A frame of session @id: only its header matters here. */
static void says(int fd, uint32_t id, uint8_t flags)
{
	cleanup_buf struct buf b = BUF_INIT;

	frame_put(&b, id, flags, "x", 1);
	assert_int_equal(write(fd, buf_ptr(&b), buf_size(&b)), buf_size(&b));
}

static void agent_says(struct world *w, enum msg_kind kind, const void *msg)
{
	cleanup_buf struct buf b = BUF_INIT;

	assert_int_equal(frame_put_msg(&b, 0, kind, msg), 0);
	assert_int_equal(write(w->agent, buf_ptr(&b), buf_size(&b)), buf_size(&b));
	turn(w);
}

/* The next message that the agent was sent, which must be of this kind. */
static void agent_hears(struct world *w, enum msg_kind kind)
{
	struct envelope e;
	struct frame f;
	ssize_t n;

	turn(w);
	n = read(w->agent, buf_reserve(&w->said, 65536), 65536);
	if (n > 0)
		buf_commit(&w->said, (size_t)n);
	assert_int_equal(frame_peek(&w->said, &f, NULL), 1);
	assert_int_equal(frame_open(&f, &e, NULL), 0);
	assert_int_equal(msg_kind_of(e.type), kind);
	frame_consume(&w->said, &f);
}

static void boot(struct world *w)
{
	begin(w);
	agent_says(w, MSG_READY, &(struct msg_ready){.agent_version = (char *)"test"});
	agent_hears(w, MSG_CLOCK_SYNC);
}

static void ask(struct world *w, int fd, const struct control_request *q)
{
	cleanup_buf struct buf b = BUF_INIT;

	control_request_put(q, &b);
	assert_int_equal(write(fd, buf_ptr(&b), buf_size(&b)), buf_size(&b));
	turn(w);
}

/* True when there is an answer. */
static bool answered(struct world *w, int fd, struct control_answer *a)
{
	cleanup_buf struct buf b = BUF_INIT;
	ssize_t n;

	turn(w);
	n = read(fd, buf_reserve(&b, 65536), 65536);
	if (n <= 0)
		return false;
	buf_commit(&b, (size_t)n);
	assert_int_equal(control_answer_take(&b, a, NULL), 1);
	assert_int_equal(buf_size(&b), 0);
	return true;
}

static uint32_t code_of(struct world *w, int fd, int32_t op)
{
	cleanup_answer struct control_answer a = {0};

	ask(w, fd, &(struct control_request){.op = op});
	assert_true(answered(w, fd, &a));
	return a.code;
}

static bool hung_up(struct world *w, int fd)
{
	char x[64];
	ssize_t n;

	turn(w);
	n = read(fd, x, sizeof(x));
	return n == 0 || (n < 0 && errno == ECONNRESET);
}

static void until_stopped(struct world *w)
{
	while (!w->reason[0])
		assert_int_equal(loop_turn(w->m.loop, 1000), 0);
}

/* ---- the tests ---- */

static void test_nothing_before_ready(void **state)
{
	struct world *w = *state;
	int fd;

	begin(w);
	fd = connect_to(w, "control");
	assert_int_equal(code_of(w, fd, CONTROL_PAUSE), EAGAIN);
	assert_int_equal(code_of(w, fd, CONTROL_PING), EAGAIN);
	assert_int_equal(code_of(w, fd, CONTROL_STATS), 0);
	close(fd);
}

static void test_pause(void **state)
{
	struct world *w = *state;
	cleanup_answer struct control_answer a = {0};
	int fd, other;

	boot(w);
	fd = connect_to(w, "control");
	other = connect_to(w, "control");
	assert_int_equal(code_of(w, fd, CONTROL_RESUME), 0); /* it is */
	assert_int_equal(w->resumes, 0);
	assert_int_equal(code_of(w, fd, CONTROL_PAUSE), 0);
	assert_int_equal(code_of(w, fd, CONTROL_PAUSE), 0);
	assert_int_equal(w->pauses, 1);
	assert_int_equal(code_of(w, fd, CONTROL_PING), EBUSY);
	w->late_pause = true;
	ask(w, fd, &(struct control_request){.op = CONTROL_RESUME});
	assert_false(answered(w, fd, &a));
	assert_int_equal(code_of(w, other, CONTROL_PAUSE), EBUSY);
	manage_paused(w->manager, false);
	assert_true(answered(w, fd, &a));
	assert_int_equal(a.code, 0);
	/* It learns what time it has become. */
	agent_hears(w, MSG_CLOCK_SYNC);
	w->refuse_pause = true;
	assert_int_equal(code_of(w, fd, CONTROL_PAUSE), EIO);
	w->refuse_pause = false;
	w->late_pause = false;
	/* A stop lets it go on first. */
	assert_int_equal(code_of(w, other, CONTROL_PAUSE), 0);
	manage_stopping(w->manager);
	assert_int_equal(w->resumes, 2);
	assert_int_equal(code_of(w, other, CONTROL_TOUCH), ESHUTDOWN);
	close(fd);
	close(other);
}

static void test_ping_and_stats(void **state)
{
	const struct msg_host_used used = {
		.memory_total = 1000, .memory_available = 600, .root_total = 50, .cpus = 2};
	struct world *w = *state;
	cleanup_answer struct control_answer a = {0}, b = {0}, c = {0};
	int fd, other;

	boot(w);
	fd = connect_to(w, "control");
	other = connect_to(w, "control");
	ask(w, fd, &(struct control_request){.op = CONTROL_PING});
	ask(w, other, &(struct control_request){.op = CONTROL_PING});
	agent_hears(w, MSG_PING);
	agent_hears(w, MSG_PING);
	agent_says(w, MSG_PONG, &(struct msg_empty){0});
	assert_true(answered(w, fd, &a));
	assert_false(answered(w, other, &b));
	agent_says(w, MSG_PONG, &(struct msg_empty){0});
	assert_true(answered(w, other, &b));
	assert_int_equal(a.code | b.code, 0);
	control_answer_done(&b);
	/* Two who want to know are one question. */
	ask(w, fd, &(struct control_request){.op = CONTROL_STATS});
	ask(w, other, &(struct control_request){.op = CONTROL_STATS});
	agent_hears(w, MSG_HOST_USAGE);
	agent_says(w, MSG_HOST_USED, &used);
	assert_true(answered(w, fd, &b));
	assert_true(answered(w, other, &c));
	assert_true(b.has_stats && b.stats.has_guest);
	assert_int_equal(b.stats.guest_memory_available, 600);
	assert_int_equal(b.stats.vcpu_time_ns, 7);
	assert_int_equal(b.stats.memory_resident, 4096);
	assert_int_equal(b.stats.cpus, 2);
	assert_int_equal(b.stats.cpus_max, 4);
	/* Of a guest that does not answer there is what was known. */
	control_answer_done(&b);
	ask(w, fd, &(struct control_request){.op = CONTROL_STATS});
	while (!answered(w, fd, &b))
		assert_int_equal(loop_turn(w->m.loop, 1000), 0);
	assert_int_equal(b.stats.guest_memory_total, 1000);
	close(fd);
	close(other);
}

static void test_drain(void **state)
{
	struct world *w = *state;
	cleanup_buf struct buf b = BUF_INIT;
	int fd, client;

	boot(w);
	client = connect_to(w, "agent");
	fd = connect_to(w, "control");
	turn(w);
	says(client, 1, FRAME_SESSION_START);
	turn(w);
	assert_int_equal(relay_sessions(w->m.relay), 1);
	assert_int_equal(code_of(w, fd, CONTROL_DRAIN), 0);
	agent_hears(w, MSG_HOST_DRAIN);
	assert_int_equal(code_of(w, fd, CONTROL_PAUSE), EBUSY);
	assert_string_equal(w->reason, "");
	/* The end of another session is none of its. */
	says(w->guest, 2, FRAME_TERMINAL);
	turn(w);
	assert_string_equal(w->reason, "");
	/* It is over with the last byte of its last frame. */
	frame_put(&b, 1, FRAME_TERMINAL, "x", 1);
	for (size_t i = 0; i < buf_size(&b); i++) {
		assert_string_equal(w->reason, "");
		assert_int_equal(write(w->guest, buf_ptr(&b) + i, 1), 1);
		turn(w);
	}
	assert_string_equal(w->reason, END_DRAINED);
	close(client);
	close(fd);
}

static uint32_t leave(struct world *w, int fd)
{
	cleanup_answer struct control_answer a = {0};

	ask(w, fd, &(struct control_request){.op = CONTROL_LEAVE});
	assert_true(answered(w, fd, &a));
	assert_int_equal(a.code, 0);
	return a.clients;
}

static void test_the_last_one_out(void **state)
{
	struct world *w = *state;
	int fd, one, two;
	char c;

	boot(w);
	one = connect_to(w, "agent");
	fd = connect_to(w, "control");
	turn(w);
	assert_int_equal(leave(w, fd), 1);
	/* One who comes meanwhile counts, though nobody has let it in yet. */
	two = connect_to(w, "agent");
	close(one);
	turn(w);
	assert_string_equal(w->reason, "");
	assert_int_equal(relay_clients(w->m.relay), 1);
	close(two);
	turn(w);
	assert_string_equal(w->reason, END_LEFT);
	/* Who comes after that is told by there being nobody. */
	one = socket(AF_UNIX, SOCK_STREAM, 0);
	struct sockaddr_un sun = {.sun_family = AF_UNIX};

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/agent", w->dir);
	assert_int_equal(connect(one, (struct sockaddr *)&sun, sizeof(sun)), -1);
	assert_int_equal(errno, ECONNREFUSED);
	assert_int_equal(recv(fd, &c, 1, MSG_DONTWAIT), -1);
	close(one);
	close(fd);
}

static void test_nobody_in(void **state)
{
	struct world *w = *state;
	int fd, one;

	boot(w);
	one = connect_to(w, "agent");
	fd = connect_to(w, "control");
	turn(w);
	/* It has hung up before this is asked, which is enough. */
	close(one);
	assert_int_equal(leave(w, fd), 0);
	assert_string_equal(w->reason, END_LEFT);
	close(fd);
}

static void test_one_that_is_to_stay(void **state)
{
	struct world *w = *state;
	int fd, one;

	boot(w);
	one = connect_to(w, "agent");
	fd = connect_to(w, "control");
	turn(w);
	assert_int_equal(leave(w, fd), 1);
	assert_int_equal(code_of(w, fd, CONTROL_STAY), 0);
	close(one);
	turn(w);
	assert_true(leave(w, fd) > 0);
	assert_string_equal(w->reason, "");
	close(fd);
}

static void test_drain_in_time(void **state)
{
	struct world *w = *state;
	int fd, client;

	boot(w);
	client = connect_to(w, "agent");
	fd = connect_to(w, "control");
	turn(w);
	says(client, 1, FRAME_SESSION_START);
	turn(w);
	ask(w, fd, &(struct control_request){.op = CONTROL_DRAIN, .timeout_ns = 1000000});
	until_stopped(w);
	assert_string_equal(w->reason, END_DRAIN_TIMEOUT);
	close(client);
	close(fd);
}

static void test_max_duration(void **state)
{
	struct world *w = *state;

	w->config.max_duration_ns = 1000000;
	boot(w);
	assert_int_equal(w->pauses, 0);
	until_stopped(w);
	assert_string_equal(w->reason, END_MAX_DURATION);
}

static void test_idle(void **state)
{
	const struct control_request q = {
		.op = CONTROL_LIMITS, .has_idle_timeout_ns = true, .idle_timeout_ns = 1000000};
	struct world *w = *state;
	cleanup_answer struct control_answer a = {0};
	int fd, client;

	boot(w);
	client = connect_to(w, "agent");
	fd = connect_to(w, "control");
	turn(w);
	says(client, 1, FRAME_SESSION_START);
	ask(w, fd, &q);
	assert_true(answered(w, fd, &a));
	/* Not while a session is open, nor while paused. */
	for (int i = 0; i < 20; i++)
		assert_int_equal(loop_turn(w->m.loop, 1), 0);
	assert_string_equal(w->reason, "");
	assert_int_equal(code_of(w, fd, CONTROL_PAUSE), 0);
	close(client);
	turn(w);
	assert_int_equal(relay_sessions(w->m.relay), 0);
	for (int i = 0; i < 20; i++)
		assert_int_equal(loop_turn(w->m.loop, 1), 0);
	assert_string_equal(w->reason, "");
	ask(w, fd, &(struct control_request){.op = CONTROL_RESUME});
	until_stopped(w);
	assert_string_equal(w->reason, END_IDLE);
	close(fd);
}

static void test_what_is_activity(void **state)
{
	struct world *w = *state;
	cleanup_answer struct control_answer a = {0}, b = {0};
	cleanup_buf struct buf bytes = BUF_INIT;
	uint64_t touched;
	int fd, client;

	boot(w);
	client = connect_to(w, "agent");
	fd = connect_to(w, "control");
	turn(w);
	usleep(2000);
	/* A ping is none... */
	frame_put_msg(&bytes, 1, MSG_PING, &(struct msg_empty){0});
	assert_int_equal(write(client, buf_ptr(&bytes), buf_size(&bytes)), buf_size(&bytes));
	turn(w);
	ask(w, fd, &(struct control_request){.op = CONTROL_STATS});
	agent_says(w, MSG_HOST_USED, &(struct msg_host_used){0});
	assert_true(answered(w, fd, &a));
	assert_true(a.stats.idle_ns >= 2000000);
	/* ...a touch is. */
	buf_reset(&bytes);
	frame_put_msg(&bytes, 1, MSG_TOUCH, &(struct msg_empty){0});
	usleep(2000);
	touched = now_ns();
	assert_int_equal(write(client, buf_ptr(&bytes), buf_size(&bytes)), buf_size(&bytes));
	turn(w);
	ask(w, fd, &(struct control_request){.op = CONTROL_STATS});
	agent_says(w, MSG_HOST_USED, &(struct msg_host_used){0});
	assert_true(answered(w, fd, &b));
	assert_true(b.stats.idle_ns <= now_ns() - touched);
	close(client);
	close(fd);
}

static void test_cpus(void **state)
{
	struct control_request q = {.op = CONTROL_CPUS, .cpus = 4};
	struct msg_host_cpus_set m = {.online = 4};
	struct world *w = *state;
	cleanup_answer struct control_answer a = {0}, b = {0}, c = {0};
	int fd;

	boot(w);
	fd = connect_to(w, "control");
	/* First they may run, then the guest is asked. */
	ask(w, fd, &q);
	assert_int_equal(w->allowed, 4);
	agent_hears(w, MSG_HOST_CPUS);
	assert_false(answered(w, fd, &a));
	agent_says(w, MSG_HOST_CPUS_SET, &m);
	assert_true(answered(w, fd, &a));
	assert_int_equal(a.code, 0);
	assert_int_equal(a.cpus, 4);
	/* The other way round. One that lets go of one only keeps three. */
	q.cpus = 1;
	ask(w, fd, &q);
	assert_int_equal(w->allowed, 4);
	agent_hears(w, MSG_HOST_CPUS);
	m = (struct msg_host_cpus_set){.online = 3, .error = (char *)"CPU 2: busy"};
	agent_says(w, MSG_HOST_CPUS_SET, &m);
	assert_true(answered(w, fd, &b));
	assert_int_equal(b.code, ERR_GUEST);
	assert_string_equal(b.message, "CPU 2: busy");
	assert_int_equal(w->allowed, 3);
	/* No more than there are, whatever the guest says that it has. */
	q.cpus = 2;
	ask(w, fd, &q);
	m = (struct msg_host_cpus_set){.online = 64, .error = (char *)"no"};
	agent_says(w, MSG_HOST_CPUS_SET, &m);
	assert_true(answered(w, fd, &c));
	assert_int_equal(w->allowed, 3);
	control_answer_done(&c);
	q.cpus = 5;
	ask(w, fd, &q);
	assert_true(answered(w, fd, &c));
	assert_int_equal(c.code, ERR_LIMIT);
	assert_int_equal(w->allowed, 3);
	/* One that was not asked changes nothing. */
	agent_says(w, MSG_HOST_CPUS_SET, &m);
	assert_int_equal(w->allowed, 3);
	close(fd);
}

static void ask_memory(struct world *w, int fd, uint64_t mib)
{
	ask(w, fd, &(struct control_request){.op = CONTROL_MEMORY, .memory = mib * MIB});
}

static void memory_is(struct world *w, int fd, uint32_t code, uint64_t mib)
{
	cleanup_answer struct control_answer a = {0};

	assert_true(answered(w, fd, &a));
	assert_int_equal(a.code, code);
	if (code)
		assert_non_null(a.message);
	else
		assert_true(a.memory == mib * MIB);
}

static void test_memory_grows(void **state)
{
	cleanup_answer struct control_answer a = {0};
	struct world *w = *state;
	int fd, other;

	boot(w);
	fd = connect_to(w, "control");
	other = connect_to(w, "control");
	ask_memory(w, fd, 512);
	memory_is(w, fd, 0, 512);
	assert_int_equal(w->wishes, 0);
	ask_memory(w, fd, 511);
	memory_is(w, fd, ERR_LIMIT, 0);
	ask_memory(w, fd, 1026);
	memory_is(w, fd, ERR_LIMIT, 0);
	/* It comes in steps. */
	ask_memory(w, fd, 1024);
	assert_true(w->memory_wanted == 512 * MIB);
	ask_memory(w, other, 600);
	memory_is(w, other, EBUSY, 0);
	manage_memory(w->manager, 100 * MIB);
	manage_memory(w->manager, 510 * MIB);
	assert_false(answered(w, fd, &a));
	manage_memory(w->manager, 512 * MIB);
	memory_is(w, fd, 0, 1024);
	/* What comes unasked is known all the same. */
	manage_memory(w->manager, 400 * MIB);
	w->config.memory_max = 0;
	ask(w, fd, &(struct control_request){.op = CONTROL_STATS});
	agent_hears(w, MSG_HOST_USAGE);
	agent_says(w, MSG_HOST_USED, &(struct msg_host_used){0});
	assert_true(answered(w, fd, &a));
	assert_true(a.stats.memory == 912 * MIB && a.stats.memory_min == 512 * MIB);
	assert_true(a.stats.memory_max == 512 * MIB);
	w->config.memory_max = 1024 * MIB;
	w->refuse_memory = true;
	ask_memory(w, fd, 1024);
	memory_is(w, fd, EIO, 0);
	w->refuse_memory = false;
	/* Half a block is none. */
	ask(w, fd, &(struct control_request){.op = CONTROL_MEMORY, .memory = 913 * MIB});
	memory_is(w, fd, 0, 912);
	assert_int_equal(code_of(w, fd, CONTROL_PAUSE), 0);
	ask_memory(w, fd, 1024);
	memory_is(w, fd, EBUSY, 0);
	close(fd);
	close(other);
}

static void test_memory_shrinks(void **state)
{
	struct msg_host_used used = {.memory_total = 1000 * MIB, .memory_available = 900 * MIB};
	cleanup_answer struct control_answer a = {0}, b = {0};
	struct world *w = *state;
	int fd;

	boot(w);
	fd = connect_to(w, "control");
	manage_memory(w->manager, 512 * MIB);
	/* First the guest says what it can spare. */
	ask_memory(w, fd, 512);
	agent_hears(w, MSG_HOST_USAGE);
	assert_int_equal(w->wishes, 0);
	agent_says(w, MSG_HOST_USED, &used);
	assert_true(w->wishes == 1 && w->memory_wanted == 0);
	/* Another count changes nothing. */
	agent_says(w, MSG_HOST_USED, &(struct msg_host_used){0});
	assert_int_equal(w->wishes, 1);
	manage_memory(w->manager, 0);
	memory_is(w, fd, 0, 512);
	/* Of 1024 it uses 724, and a sixteenth and 16 MiB are its to keep. */
	manage_memory(w->manager, 512 * MIB);
	ask_memory(w, fd, 512);
	agent_hears(w, MSG_HOST_USAGE);
	used.memory_available = 300 * MIB;
	agent_says(w, MSG_HOST_USED, &used);
	assert_true(w->wishes == 2 && w->memory_wanted == (786 - 512) * MIB);
	assert_false(answered(w, fd, &a));
	manage_memory(w->manager, (786 - 512) * MIB);
	assert_true(answered(w, fd, &a));
	assert_int_equal(a.code, ERR_GUEST);
	assert_non_null(strstr(a.message, "gave up 238 MiB of 512 MiB"));
	assert_non_null(strstr(a.hint, "786 MiB"));
	/* Nothing to spare, by far: it is not asked. */
	ask_memory(w, fd, 600);
	agent_hears(w, MSG_HOST_USAGE);
	agent_says(w, MSG_HOST_USED, &(struct msg_host_used){0});
	memory_is(w, fd, ERR_GUEST, 0);
	assert_int_equal(w->wishes, 2);
	/* One that claims to have more free than it has is believed: it hurts itself. */
	ask_memory(w, fd, 600);
	agent_hears(w, MSG_HOST_USAGE);
	used.memory_available = UINT64_MAX;
	agent_says(w, MSG_HOST_USED, &used);
	assert_true(w->wishes == 3 && w->memory_wanted == 88 * MIB);
	w->manager = manage_free(w->manager);
	assert_true(answered(w, fd, &b));
	assert_int_equal(b.code, ESHUTDOWN);
	close(fd);
}

static void test_defaults(void **state)
{
	char *env[] = {(char *)"A=1", (char *)"B=x=y"};
	struct control_request q = {.op = CONTROL_DEFAULTS, .env = {env, 2}};
	struct world *w = *state;
	cleanup_answer struct control_answer a = {0};
	int fd;

	boot(w);
	fd = connect_to(w, "control");
	ask(w, fd, &q);
	agent_hears(w, MSG_HOST_DEFAULTS);
	assert_true(answered(w, fd, &a));
	assert_int_equal(a.code, 0);
	close(fd);
}

static void test_bad_clients(void **state)
{
	static const uint8_t long_one[] = {0x7f, 0, 0, 0, 1}, junk[] = {0, 0, 0, 2, 0xff, 0xff};
	struct world *w = *state;
	int fd[CONTROL_CLIENTS_MAX], a, b, more;
	cleanup_buf struct buf two = BUF_INIT;
	cleanup_answer struct control_answer answer = {0};

	boot(w);
	a = connect_to(w, "control");
	b = connect_to(w, "control");
	assert_int_equal(write(a, long_one, sizeof(long_one)), sizeof(long_one));
	assert_int_equal(write(b, junk, sizeof(junk)), sizeof(junk));
	assert_true(hung_up(w, a));
	assert_true(hung_up(w, b));
	close(a);
	close(b);
	/* Who leaves in the middle of a call leaves nothing. */
	a = connect_to(w, "control");
	ask(w, a, &(struct control_request){.op = CONTROL_PING});
	close(a);
	turn(w);
	agent_says(w, MSG_PONG, &(struct msg_empty){0});
	/* Two at once are answered one after the other, in pieces as they come. */
	a = connect_to(w, "control");
	control_request_put(&(struct control_request){.op = CONTROL_TOUCH}, &two);
	control_request_put(&(struct control_request){.op = CONTROL_TOUCH}, &two);
	for (size_t i = 0; i < buf_size(&two); i++) {
		assert_int_equal(write(a, buf_ptr(&two) + i, 1), 1);
		turn(w);
	}
	buf_reset(&two);
	buf_commit(&two, (size_t)read(a, buf_reserve(&two, 4096), 4096));
	assert_int_equal(control_answer_take(&two, &answer, NULL), 1);
	assert_int_equal(control_answer_take(&two, &answer, NULL), 1);
	close(a);
	turn(w);
	/* So many, and the next waits for one to go. */
	for (int i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		fd[i] = connect_to(w, "control");
		turn(w);
	}
	more = connect_to(w, "control");
	ask(w, more, &(struct control_request){.op = CONTROL_TOUCH});
	assert_false(answered(w, more, &answer));
	close(fd[5]);
	assert_true(answered(w, more, &answer));
	for (int i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		if (i != 5)
			close(fd[i]);
	}
	close(more);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_nothing_before_ready),
		TEST(test_pause),
		TEST(test_ping_and_stats),
		TEST(test_drain),
		TEST(test_drain_in_time),
		TEST(test_the_last_one_out),
		TEST(test_nobody_in),
		TEST(test_one_that_is_to_stay),
		TEST(test_max_duration),
		TEST(test_idle),
		TEST(test_what_is_activity),
		TEST(test_cpus),
		TEST(test_memory_grows),
		TEST(test_memory_shrinks),
		TEST(test_defaults),
		TEST(test_bad_clients),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
