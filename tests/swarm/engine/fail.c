/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/swarm/engine/fail.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LINES 24u

static struct {
	uint64_t seed;
	unsigned life;
	bool tracing;
	char *check;
	uint64_t count;
	char lines[LINES][160];
} where;

void fail_where(uint64_t seed, unsigned life)
{
	where.seed = seed;
	where.life = life;
}

void fail_tell(char *check)
{
	where.check = check;
}

void fail_tracing(bool on)
{
	where.tracing = on;
}

void trace(const char *format, ...)
{
	char *line = where.lines[where.count++ % LINES];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(where.lines[0]), format, args);
	va_end(args);
	if (where.tracing)
		printf("  %u: %s\n", where.life, line);
}

void fail(const char *check, const char *format, ...)
{
	uint64_t first = where.count > LINES ? where.count - LINES : 0;
	char text[1000];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	printf("seed %" PRIu64 " life %u: %s: %s\n", where.seed, where.life, check, text);
	for (uint64_t i = first; i < where.count && !where.tracing; i++)
		printf("    %s\n", where.lines[i % LINES]);
	fflush(stdout);
	if (where.check)
		snprintf(where.check, FAIL_CHECK_BYTES, "%s", check);
	_exit(FAIL_STATUS);
}
