/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * say - messages to people on stderr, and the exit statuses
 */
#ifndef CLI_BASE_SAY_H
#define CLI_BASE_SAY_H

#include <stdbool.h>

#define EXIT_GOOD   0
#define EXIT_SEE    1 /* a result the user must see: differs, damage, read-only */
#define EXIT_FAILED 2 /* anything was refused or failed */

/* The command that speaks; before that it is the program alone. */
void say_command(const char *name);

/* `sameblk COMMAND: what on: why`; "what on" reads as one, and on may be empty. */
void say_error(const char *what, const char *on, const char *why_format, ...)
	__attribute__((format(printf, 3, 4)));

/* Text that may be somebody else's: what a terminal would obey becomes a question mark. */
void say_plain(char *text);
/* The same, on stdout. */
void say_print(const char *text);

/* The higher one: 2 before 1 before 0. */
static inline int exit_worse(int a, int b)
{
	return a > b ? a : b;
}

/*
 * Flushes stdout; a result that could not be written is a failure. It is a silent one where the
 * reader of a pipe went away, as `head` does: it has what it wanted. What prints much stops when
 * ferror(stdout) tells that nothing arrives any more.
 */
int say_finish(int status);

/* Whether it is a terminal on which the cursor can be moved: TERM is neither dumb nor missing. */
bool say_can_draw(int fd);

#endif
