/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_dedupe_account - the progress bar stays on its line, whatever the window's width
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pty.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/base/say.h"
#include "cli/dedupe/dedupe_account.h"

#define DRAW_US 250000 /* it is drawn five times a second */

static int master;

/* stderr is a terminal. */
static void setup(void)
{
	int slave;

	cr_assert_eq(openpty(&master, &slave, NULL, NULL, NULL), 0);
	cr_assert_eq(dup2(slave, STDERR_FILENO), STDERR_FILENO);
	close(slave);
	setenv("TERM", "xterm", 1);
}

TestSuite(dedupe_account, .init = setup);

/* How many columns the bar takes in a window of so many. */
static size_t draw(struct dedupe_progress *progress, unsigned short columns)
{
	struct winsize window = {.ws_row = 25, .ws_col = columns};
	char text[1024], *end;
	ssize_t len;

	cr_assert_eq(ioctl(master, TIOCSWINSZ, &window), 0);
	usleep(DRAW_US);
	dedupe_progress_at(progress, 123ull << 30);
	len = read(master, text, sizeof(text) - 1);
	cr_assert_gt(len, 0);
	text[len] = '\0';
	end = strstr(text, "\033[K");
	cr_assert(text[0] == '\r' && end != NULL && end[3] == '\0', "%s", text);
	cr_assert_null(strchr(text, '\n'));
	return (size_t)(end - text) - 1;
}

Test(dedupe_account, the_bar_is_cut_to_the_window)
{
	struct dedupe_progress progress = {.show = DEDUPE_SHOW_BAR};

	cr_assert(say_can_draw(STDERR_FILENO));
	progress.account.duplicate_bytes = 12345678901234;
	progress.account.freed_bytes = 12345678901234;
	dedupe_progress_start(&progress);
	dedupe_progress_phase(&progress, "match", 456ull << 30);
	cr_assert_eq(draw(&progress, 80), 79);
	/* The window is made smaller, and larger. */
	cr_assert_eq(draw(&progress, 40), 39);
	cr_assert_eq(draw(&progress, 1), 0);
	cr_assert_gt(draw(&progress, 200), 79);
}

Test(dedupe_account, a_dumb_terminal_gets_lines)
{
	setenv("TERM", "dumb", 1);
	cr_assert(!say_can_draw(STDERR_FILENO));
	unsetenv("TERM");
	cr_assert(!say_can_draw(STDERR_FILENO));
	setenv("TERM", "xterm", 1);
	cr_assert(say_can_draw(STDERR_FILENO));
	cr_assert_geq(dup2(open("/dev/null", O_WRONLY), STDERR_FILENO), 0);
	cr_assert(!say_can_draw(STDERR_FILENO));
}
