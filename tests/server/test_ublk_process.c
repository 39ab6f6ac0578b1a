/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_ublk_process - a server that runs is told from one that was killed
 */
#include <criterion/criterion.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/ublk_process.h"

Test(ublk_process, one_that_was_killed_does_not_live_although_it_is_still_there)
{
	siginfo_t info;
	pid_t child;

	cr_assert(ublk_process_lives(getpid()));
	child = fork();
	cr_assert_geq(child, 0);
	if (child == 0)
		_exit(0);
	cr_assert_eq(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
	cr_assert(!ublk_process_lives(child));
	cr_assert_eq(waitpid(child, NULL, 0), child);
	cr_assert(!ublk_process_lives(child));
}
