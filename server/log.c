/* SPDX-License-Identifier: GPL-2.0-or-later */
/* log - see the header */
#include "server/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#define LINE_BYTES 1024

static bool is_verbose;

void log_init(bool verbose)
{
	is_verbose = verbose;
}

static void __attribute__((format(printf, 2, 0)))
line(const char *level, const char *format, va_list args)
{
	char text[LINE_BYTES];
	int len = snprintf(text, sizeof(text), "sameblkd: %s", level);
	int more = vsnprintf(text + len, sizeof(text) - (size_t)len - 1, format, args);
	ssize_t written;

	if (more < 0)
		return;
	len += more;
	if (len > LINE_BYTES - 2)
		len = LINE_BYTES - 2;
	text[len++] = '\n';
	/* Nobody is left to be told when this fails. */
	written = write(STDERR_FILENO, text, (size_t)len);
	(void)written;
}

#define DEFINE_LOG(name, level, condition)                                                         \
	void name(const char *format, ...)                                                         \
	{                                                                                          \
		va_list args;                                                                      \
                                                                                                   \
		if (!(condition))                                                                  \
			return;                                                                    \
		va_start(args, format);                                                            \
		line(level, format, args);                                                         \
		va_end(args);                                                                      \
	}

DEFINE_LOG(log_error, "", true)
DEFINE_LOG(log_warn, "warning: ", true)
DEFINE_LOG(log_info, "", true)
DEFINE_LOG(log_debug, "", is_verbose)
