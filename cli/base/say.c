/* SPDX-License-Identifier: GPL-2.0-or-later */
/* say - see the header */
#include "cli/base/say.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINE_BYTES 16384u /* two paths and a reason */

static const char *command = "";

void say_command(const char *name)
{
	command = name;
}

/* Control characters; those of ISO 6429 are two bytes in UTF-8. */
void say_plain(char *text)
{
	for (unsigned char *c = (unsigned char *)text; *c != '\0'; c++) {
		bool is_long = c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0;

		if (is_long)
			*c++ = '?';
		if (is_long || *c < ' ' || *c == 0x7f)
			*c = '?';
	}
}

void say_print(const char *text)
{
	char *plain = strdup(text);

	if (plain == NULL)
		return;
	say_plain(plain);
	fputs(plain, stdout);
	free(plain);
}

void say_error(const char *what, const char *on, const char *why_format, ...)
{
	char why[1024], line[LINE_BYTES];
	va_list args;

	va_start(args, why_format);
	vsnprintf(why, sizeof(why), why_format, args);
	va_end(args);
	snprintf(line, sizeof(line), "sameblk%s%s: %s%s%s: %s", command[0] != '\0' ? " " : "",
		 command, what, on[0] != '\0' ? " " : "", on, why);
	say_plain(line);
	fflush(stdout);
	fprintf(stderr, "%s\n", line);
}

/* The write that failed may be long ago, so errno does not tell. */
static bool reader_is_gone(void)
{
	struct pollfd poller = {.fd = STDOUT_FILENO, .events = POLLOUT};

	return poll(&poller, 1, 0) == 1 && (poller.revents & (POLLERR | POLLHUP)) != 0;
}

int say_finish(int status)
{
	errno = 0;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	if (!reader_is_gone())
		say_error("cannot print the result", "", "%s",
			  errno != 0 ? strerror(errno) : "an earlier part could not be written");
	return EXIT_FAILED;
}

bool say_can_draw(int fd)
{
	const char *term = getenv("TERM");

	return isatty(fd) == 1 && term != NULL && term[0] != '\0' && strcmp(term, "dumb") != 0;
}
