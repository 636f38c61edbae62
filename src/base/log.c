/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

static const char *const level_names[] = {"off", "error", "warn", "info", "debug", "trace"};

static int log_fd = -1;
static enum log_level log_max = LOG_OFF;
static const char *log_prefix;

void log_open(int fd, enum log_level level, const char *prefix)
{
	log_fd = fd;
	log_max = level;
	log_prefix = prefix;
	/* gmtime_r() does it on first use, which is too late in a thread that may open no file. */
	tzset();
}

bool log_on(enum log_level level)
{
	return level <= log_max && log_fd >= 0;
}

const char *log_level_name(enum log_level level)
{
	return level_names[level];
}

int log_level_parse(const char *s, enum log_level *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(level_names); i++) {
		if (strcmp(s, level_names[i]) == 0) {
			*ret = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

bool log_allow(atomic_uint *count)
{
	unsigned n = atomic_load(count);

	/* The first look keeps it from wrapping. */
	if (n <= LOG_LIMIT)
		n = atomic_fetch_add(count, 1);
	if (n == LOG_LIMIT)
		log_warn("more of this kind will not be logged");
	return n < LOG_LIMIT;
}

void log_write(enum log_level level, const char *fmt, ...)
{
	char line[1024];
	struct timespec ts;
	struct tm tm;
	size_t n;
	va_list ap;
	int r;

	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	n = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
	n += (size_t)snprintf(line + n, sizeof(line) - n, ".%03ldZ %-5s %s%s", ts.tv_nsec / 1000000,
			      level_names[level], log_prefix ? log_prefix : "",
			      log_prefix ? ": " : "");
	va_start(ap, fmt);
	r = vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
	va_end(ap);
	if (r > 0)
		n = MIN(n + (size_t)r, sizeof(line) - 2);
	line[n++] = '\n';
	/* A log that cannot be written has nowhere to say so. */
	(void)!write(log_fd, line, n);
}
