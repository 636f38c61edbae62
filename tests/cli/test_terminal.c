/* SPDX-License-Identifier: Apache-2.0 */
/* Terminal modes on a real pseudo-terminal, and our standard streams on a loop. */
#include "test.h"

#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "cli/stream.c"
#include "cli/term.c"

static struct termios mode_of(int fd)
{
	struct termios t;

	assert_int_equal(tcgetattr(fd, &t), 0);
	return t;
}

static void expect_cooked(int fd)
{
	assert_true(mode_of(fd).c_lflag & ECHO);
	assert_true(mode_of(fd).c_lflag & ICANON);
	assert_true(mode_of(fd).c_lflag & ISIG);
}

static void raw_and_back(void **state)
{
	struct winsize ws = {.ws_row = 40, .ws_col = 132};
	uint16_t rows, cols;
	int master, tty;

	(void)state;
	assert_int_equal(openpty(&master, &tty, NULL, NULL, &ws), 0);
	expect_cooked(tty);
	assert_int_equal(term_raw(tty), 0);
	assert_true(term_is_raw());
	assert_false(mode_of(tty).c_lflag & (ECHO | ICANON | ISIG));
	assert_false(mode_of(tty).c_oflag & OPOST);
	/* Twice (after SIGCONT) does not take raw for what was found. */
	assert_int_equal(term_raw(tty), 0);
	term_restore();
	expect_cooked(tty);
	term_restore();
	assert_false(term_is_raw());
	term_size(tty, &rows, &cols);
	assert_int_equal(rows, 40);
	assert_int_equal(cols, 132);
	close(tty);
	close(master);
	tty = open("/dev/null", O_RDWR | O_CLOEXEC);
	assert_true(term_raw(tty) < 0);
	term_size(tty, &rows, &cols);
	assert_int_equal(rows, 24);
	assert_int_equal(cols, 80);
	close(tty);
}

/* However a process ends, its terminal is as before. */
static void restored_on_any_end(void **state)
{
	static const int ends[] = {0, SIGSEGV, SIGABRT, SIGFPE, SIGBUS};
	int master, tty;

	(void)state;
	assert_int_equal(openpty(&master, &tty, NULL, NULL, NULL), 0);
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		int go[2], status;
		pid_t pid;

		assert_int_equal(pipe(go), 0);
		pid = fork();
		if (pid == 0) {
			signal(SIGABRT, SIG_DFL);
			if (term_raw(tty) < 0 || write(go[1], "r", 1) != 1)
				_exit(1);
			if (ends[i])
				raise(ends[i]);
			exit(0);
		}
		close(go[1]);
		assert_int_equal(read(go[0], (char[1]){0}, 1), 1);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (ends[i])
			assert_int_equal(WTERMSIG(status), ends[i]);
		expect_cooked(tty);
		close(go[0]);
	}
	close(tty);
	close(master);
}

struct box {
	struct out_stream out;
	struct in_stream in;
	unsigned changes;
	struct buf got;
	bool ended;
};

static void on_change(struct out_stream *o)
{
	container_of(o, struct box, out)->changes++;
}

static void output_waits_and_goes_on(void **state)
{
	enum { TOTAL = 4 << 20, PIECE = 100000 };
	/* Pipe, pipe that cannot be opened anew, socket. */
	(void)state;
	for (int kind = 0; kind < 3; kind++) {
		struct loop *loop = NULL;
		struct box b = {0};
		size_t written = 0, seen = 0;
		uint8_t *data = malloc(PIECE), *in = malloc(1 << 16);
		int p[2];

		assert_int_equal(loop_new(&loop, NULL), 0);
		if (kind == 2)
			assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, p), 0);
		else
			assert_int_equal(pipe(p), 0);
		if (kind == 2) {
			int t = p[0];
			p[0] = p[1];
			p[1] = t;
		}
		assert_int_equal(out_stream_init(&b.out, loop, p[1], on_change, NULL), 0);
		if (kind == 1) {
			close_fd(b.out.source.fd);
			b.out.source.fd = p[1];
			b.out.own = false;
			b.out.careful = true;
		}
		/* The description that others share stays as it was. */
		assert_false(fcntl(p[1], F_GETFL) & O_NONBLOCK);
		assert_int_equal(io_set_nonblock(p[0], true), 0);
		while (seen < TOTAL) {
			ssize_t n;

			while (written < TOTAL && out_stream_kept(&b.out) <= OUT_QUEUE_HIGH) {
				size_t k = MIN((size_t)PIECE, (size_t)TOTAL - written);

				for (size_t i = 0; i < k; i++)
					data[i] = (uint8_t)((written + i) * 7 >> 3);
				assert_int_equal(out_stream_write(&b.out, data, k), 0);
				written += k;
			}
			assert_true(out_stream_kept(&b.out) <= OUT_QUEUE_HIGH + PIECE);
			n = read(p[0], in, 1 << 16);
			for (ssize_t i = 0; i < n; i++)
				assert_int_equal(in[i], (uint8_t)((seen + (size_t)i) * 7 >> 3));
			if (n > 0)
				seen += (size_t)n;
			assert_int_equal(loop_turn(loop, 0), 0);
		}
		assert_int_equal(out_stream_kept(&b.out), 0);
		assert_true(b.changes > 0);
		/* Nobody reads any more. */
		close(p[0]);
		assert_int_equal(out_stream_write(&b.out, "x", 1), -EPIPE);
		assert_int_equal(b.out.error, EPIPE);
		out_stream_done(&b.out);
		close(p[1]);
		loop_free(loop);
		free(data);
		free(in);
	}
}

static void on_input(struct in_stream *i)
{
	struct box *b = container_of(i, struct box, in);
	uint8_t piece[4096];
	long n = in_stream_read(i, piece, sizeof(piece));

	if (n > 0) {
		buf_add(&b->got, piece, (size_t)n);
	} else if (n == 0) {
		b->ended = true;
		in_stream_done(i);
	}
}

static void read_all(int fd, size_t want)
{
	struct loop *loop = NULL;
	struct box b = {0};

	assert_int_equal(loop_new(&loop, NULL), 0);
	assert_int_equal(in_stream_init(&b.in, loop, fd, on_input, NULL), 0);
	/* Off, it is silent, even when the other end has hung up. */
	assert_int_equal(loop_turn(loop, 0), 0);
	assert_int_equal(buf_size(&b.got), 0);
	in_stream_enable(&b.in, true);
	for (int i = 0; i < 10000 && !b.ended; i++)
		assert_int_equal(loop_turn(loop, 10), 0);
	assert_true(b.ended);
	assert_int_equal(buf_size(&b.got), want);
	in_stream_done(&b.in);
	buf_done(&b.got);
	loop_free(loop);
}

static void input_of_all_kinds(void **state)
{
	static const uint8_t data[20000];
	int fd = io_memfd("in", data, sizeof(data), NULL), p[2];

	(void)state;
	read_all(fd, sizeof(data));
	close(fd);
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	read_all(fd, 0);
	close(fd);
	assert_int_equal(pipe(p), 0);
	assert_int_equal(write(p[1], data, 20000), 20000);
	close(p[1]);
	read_all(p[0], 20000);
	close(p[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* First: cmocka catches the same signals anew for each test. */
		cmocka_unit_test(restored_on_any_end),
		cmocka_unit_test(raw_and_back),
		cmocka_unit_test(output_waits_and_goes_on),
		cmocka_unit_test(input_of_all_kinds),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
