/* SPDX-License-Identifier: GPL-2.0-or-later */
/* say - see the header */
#include "cli/say.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void say_error(const char *what, const char *on, const char *why_format, ...)
{
	char why[1024];
	va_list args;

	va_start(args, why_format);
	vsnprintf(why, sizeof(why), why_format, args);
	va_end(args);
	fflush(stdout);
	fprintf(stderr, "sameblk: %s, on %s: %s\n", what, on, why);
}

int say_finish(int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	say_error("cannot print the result", "standard output", "%s", strerror(errno));
	return EXIT_FAILED;
}
