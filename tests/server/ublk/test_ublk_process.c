/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_ublk_process - a server that runs is told from one that was killed, and a place where mounts
 * follow others from one where they do not
 */
#include <criterion/criterion.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/ublk/ublk_process.h"

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

Test(ublk_process, a_namespace_follows_where_the_root_is_shared_or_follows_itself)
{
	cr_assert(ublk_process_follows("29 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"));
	cr_assert(ublk_process_follows("29 1 8:1 / / rw master:1 - ext4 /dev/sda1 rw\n"));
	cr_assert(ublk_process_follows("29 1 8:1 / / rw shared:7 master:1 - ext4 /dev/sda1 rw\n"));
	cr_assert(!ublk_process_follows("29 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"));
	cr_assert(!ublk_process_follows("29 1 8:1 / / rw unbindable - ext4 /dev/sda1 rw\n"));
	/* Another mount point, and a file system that is called so. */
	cr_assert(!ublk_process_follows("30 29 8:1 / /a rw shared:1 - ext4 /dev/sda1 rw\n"));
	cr_assert(!ublk_process_follows("29 1 8:1 / / rw - shared:1 master:1 rw\n"));
	cr_assert(!ublk_process_follows("29 1 8:1"));
	cr_assert(!ublk_process_follows(""));
}
