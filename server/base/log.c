/* SPDX-License-Identifier: GPL-2.0-or-later */
/* log - see the header */
#include "server/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "server/base/clock.h"

#define LINE_BYTES 1024
#define PACE_MS	   10000u

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

bool log_paced(struct log_pace *pace, unsigned *ret_left_out)
{
	uint64_t now_ms = clock_ms(), next_ms = atomic_load(&pace->next_ms);

	if (now_ms < next_ms ||
	    !atomic_compare_exchange_strong(&pace->next_ms, &next_ms, now_ms + PACE_MS)) {
		atomic_fetch_add(&pace->left_out, 1);
		return false;
	}
	*ret_left_out = atomic_exchange(&pace->left_out, 0);
	return true;
}
