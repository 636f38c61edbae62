/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leveled log lines: "2026-11-21T06:30:00.123Z level message".
 *
 * Only programs log, and only programs choose where to: until log_open() every line is dropped.
 * Libraries report errors to their callers and may log at debug level. Thread-safe; a line is one
 * write(2).
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdatomic.h>
#include <stdbool.h>

enum log_level { LOG_OFF, LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_TRACE };

/* @fd is borrowed. @prefix (may be NULL) goes in front of each message; it must outlive the log. */
void log_open(int fd, enum log_level level, const char *prefix);
bool log_on(enum log_level level);
/* "error", "warn", "info", "debug", "trace", "off": 0 or -EINVAL. */
int log_level_parse(const char *s, enum log_level *ret);
const char *log_level_name(enum log_level level);

/*
 * For what a hostile guest can cause as often as it likes: true for the first LOG_LIMIT times that
 * @count sees; the next one logs that it was the last. Any thread.
 */
enum { LOG_LIMIT = 100 };
bool log_allow(atomic_uint *count);

void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_at(level, ...)                                                                         \
	do {                                                                                       \
		if (log_on(level))                                                                 \
			log_write(level, __VA_ARGS__);                                             \
	} while (0)
#define log_error(...) log_at(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_at(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_at(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)
#define log_trace(...) log_at(LOG_TRACE, __VA_ARGS__)

#endif
