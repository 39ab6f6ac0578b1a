/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_ublk_agent - the process that waits for a device has nothing that anybody else could need,
 * and whatever becomes of it becomes an error
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "server/ublk/driver/ublk_view.h"
#include "server/ublk/ublk_agent.h"

/* No machine has that many devices. */
#define NO_DEVICE 1048000u

static void wait_until(bool (*is_so)(pid_t pid), pid_t pid)
{
	const struct timespec pause = {.tv_nsec = 1000000};

	while (!is_so(pid))
		nanosleep(&pause, NULL);
}

/* The null device three times, and a socket. */
static bool has_only_its_own(pid_t pid)
{
	DIR *dir = ublk_view_folder("/proc/%d/fd", (int)pid);
	char path[64], target[PATH_MAX] = "";
	unsigned count = 0, nulls = 0;
	const char *name;

	while (dir != NULL && (name = ublk_view_next(dir)) != NULL) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)pid, name);
		memset(target, 0, sizeof(target));
		count++;
		nulls += readlink(path, target, sizeof(target) - 1) > 0 &&
			 strcmp(target, "/dev/null") == 0;
	}
	if (dir != NULL)
		closedir(dir);
	return count == 4 && nulls == 3;
}

static bool is_gone(pid_t pid)
{
	return kill(pid, 0) < 0;
}

TestSuite(ublk_agent, .timeout = 60);

Test(ublk_agent, it_has_no_descriptor_of_the_server_and_no_life_beyond_it)
{
	struct ublk_agent agent = {.pid = 0};
	int fd = open("/etc/passwd", O_RDONLY);
	pid_t pid;

	cr_assert_geq(fd, 0);
	cr_assert_eq(ublk_agent_start(&agent), 0);
	pid = agent.pid;
	wait_until(has_only_its_own, pid);
	ublk_agent_end(&agent);
	cr_assert(is_gone(pid));
	close(fd);
}

Test(ublk_agent, a_signal_that_stops_a_service_does_not_end_it)
{
	static const int numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};
	struct ublk_agent agent = {.pid = 0};

	cr_assert_eq(ublk_agent_start(&agent), 0);
	wait_until(has_only_its_own, agent.pid);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		cr_assert_eq(kill(agent.pid, numbers[i]), 0);
	/* It answers, if only that there is no such device, or no driver. */
	cr_assert_lt(ublk_agent_stop(&agent, NO_DEVICE), 0);
	cr_assert_neq(ublk_agent_stop(&agent, NO_DEVICE), -EPIPE);
	cr_assert_gt(strlen(ublk_agent_why(&agent)), 0);
	ublk_agent_end(&agent);
}

Test(ublk_agent, one_that_was_killed_is_an_error)
{
	struct ublk_agent agent = {.pid = 0};

	cr_assert_eq(ublk_agent_start(&agent), 0);
	cr_assert_eq(kill(agent.pid, SIGKILL), 0);
	cr_assert_eq(ublk_agent_stop_unused(&agent, NO_DEVICE), -EPIPE);
	cr_assert(strstr(ublk_agent_why(&agent), "is no more") != NULL);
	ublk_agent_forget_mounts(&agent, NO_DEVICE, true);
	ublk_agent_end(&agent);
	cr_assert_eq(ublk_agent_stop(&agent, NO_DEVICE), -EPIPE);
}
