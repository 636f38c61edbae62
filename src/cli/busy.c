/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A word on what takes long: "stopping box … 3 s", on stderr, from half a second on, if that is a
 * terminal. A thread draws it, since those who wait do so in many ways; it touches nothing else.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/term.h"

static struct {
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	pthread_t thread;
	bool there, over;
	char text[160];
} busy = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Up to what the terminal has columns for: a line that wraps cannot be taken back. */
static void draw(unsigned seconds)
{
	uint16_t rows, columns;
	char line[sizeof(busy.text) + 24];
	int n;

	term_size(STDERR_FILENO, &rows, &columns);
	n = snprintf(line, sizeof(line), "%.*s …", columns > 16 ? columns - 16 : 1, busy.text);
	if (seconds)
		(void)snprintf(line + n, sizeof(line) - (size_t)n, " %u s", seconds);
	fprintf(stderr, "\r\033[K%s%s%s", cli_dim(stderr), line, cli_reset(stderr));
	fflush(stderr);
}

static void *show(void *arg)
{
	struct timespec at;
	bool drawn = false;

	(void)arg;
	pthread_mutex_lock(&busy.lock);
	clock_gettime(CLOCK_MONOTONIC, &at);
	at.tv_nsec += 500000000;
	if (at.tv_nsec >= 1000000000) {
		at.tv_nsec -= 1000000000;
		at.tv_sec++;
	}
	for (unsigned seconds = 0; !busy.over; seconds++) {
		while (!busy.over &&
		       pthread_cond_timedwait(&busy.changed, &busy.lock, &at) != ETIMEDOUT)
			;
		if (busy.over)
			break;
		draw(seconds);
		drawn = true;
		at.tv_sec++;
	}
	pthread_mutex_unlock(&busy.lock);
	if (drawn) {
		fputs("\r\033[K", stderr);
		fflush(stderr);
	}
	return NULL;
}

void cli_busy(bool quiet, const char *fmt, ...)
{
	pthread_condattr_t attr;
	sigset_t all, old;
	va_list ap;

	cli_busy_end();
	if (quiet || !cli_screen(stderr))
		return;
	va_start(ap, fmt);
	vsnprintf(busy.text, sizeof(busy.text), fmt, ap);
	va_end(ap);
	for (char *c = busy.text; *c; c++) {
		if ((unsigned char)*c < ' ' || *c == 127)
			*c = '?';
	}
	busy.over = false;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&busy.changed, &attr);
	pthread_condattr_destroy(&attr);
	/* Signals are for who waits. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	busy.there = pthread_create(&busy.thread, NULL, show, NULL) == 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void cli_busy_end(void)
{
	if (!busy.there)
		return;
	pthread_mutex_lock(&busy.lock);
	busy.over = true;
	pthread_cond_signal(&busy.changed);
	pthread_mutex_unlock(&busy.lock);
	pthread_join(busy.thread, NULL);
	pthread_cond_destroy(&busy.changed);
	busy.there = false;
}
