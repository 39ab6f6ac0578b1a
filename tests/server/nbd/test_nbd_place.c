/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_nbd_place - where a peer runs, and a thread that is bound there and let go
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/nbd/nbd_place.h"

static cpu_set_t mask(void)
{
	cpu_set_t now;

	cr_assert_eq(sched_getaffinity(0, sizeof(now), &now), 0);
	return now;
}

static int last_of(const cpu_set_t *cpus)
{
	for (int cpu = CPU_SETSIZE - 1; cpu >= 0; cpu--)
		if (CPU_ISSET((unsigned)cpu, cpus))
			return cpu;
	cr_assert_fail("a process that may run nowhere");
	return -1;
}

Test(nbd_place, a_peer_on_a_unix_socket_is_found_if_there_is_a_choice)
{
	cpu_set_t allowed = mask();
	int fds[2], cpu;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	cpu = nbd_place_find(fds[0]);
	if (CPU_COUNT(&allowed) > 1)
		cr_assert(cpu >= 0 && CPU_ISSET((unsigned)cpu, &allowed), "got %d", cpu);
	else
		cr_assert_eq(cpu, -EPERM);
	close(fds[0]);
	close(fds[1]);
	cr_assert_lt(nbd_place_find(-1), 0);
}

Test(nbd_place, what_was_bound_may_run_where_it_could_before)
{
	cpu_set_t before = mask(), now;
	struct nbd_place place = {0};
	int cpu = last_of(&before);

	cr_assert_eq(nbd_place_bind(&place, cpu), 0);
	now = mask();
	cr_assert_eq(CPU_COUNT(&now), 1);
	cr_assert(CPU_ISSET((unsigned)cpu, &now));
	nbd_place_unbind(&place);
	now = mask();
	cr_assert(CPU_EQUAL(&now, &before));
}

Test(nbd_place, a_mask_that_somebody_else_set_meanwhile_stays)
{
	cpu_set_t before = mask(), theirs, now;
	struct nbd_place place = {0};

	if (CPU_COUNT(&before) == 1)
		return; /* no other mask can be had */
	cr_assert_eq(nbd_place_bind(&place, last_of(&before)), 0);
	theirs = before;
	CPU_CLR((unsigned)last_of(&before), &theirs);
	cr_assert_eq(sched_setaffinity(0, sizeof(theirs), &theirs), 0);
	nbd_place_unbind(&place);
	now = mask();
	cr_assert(CPU_EQUAL(&now, &theirs));
}
