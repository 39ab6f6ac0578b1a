/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_process - what a program inherits does it no harm
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/base/process.h"

TestSuite(process, .timeout = 60);

static bool is_null(int fd)
{
	struct stat st, null;

	return fstat(fd, &st) == 0 && stat("/dev/null", &null) == 0 && st.st_rdev == null.st_rdev &&
	       S_ISCHR(st.st_mode);
}

/* In a process of its own: 0, or a number that says what is wrong. */
static int begin_without(unsigned missing)
{
	int status;
	pid_t pid = fork();

	if (pid > 0)
		return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status)
									    : -1;
	for (int fd = 0; fd < 3; fd++)
		if ((missing >> fd & 1) != 0)
			close(fd);
	if (process_begin() < 0)
		_exit(1);
	for (int fd = 0; fd < 3; fd++)
		if ((missing >> fd & 1) != 0 && !is_null(fd))
			_exit(2);
	_exit(open("/", O_RDONLY | O_CLOEXEC) < 3 ? 3 : 0);
}

Test(process, whichever_of_the_first_three_descriptors_is_closed_nothing_else_gets_its_number)
{
	for (unsigned missing = 0; missing < 8; missing++)
		cr_expect_eq(begin_without(missing), 0, "without %u", missing);
}

/* Three files with these numbers are handed down: each must be where it belongs, and stay. */
static int hand_down(const int numbers[3])
{
	struct stat sent[3], got;
	int status, fds[3];
	pid_t pid = fork();

	if (pid > 0)
		return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status)
									    : -1;
	for (int i = 0; i < 3; i++) {
		FILE *file = tmpfile();

		if (file == NULL || fstat(fileno(file), &sent[i]) < 0)
			_exit(1);
		fds[i] = fcntl(fileno(file), F_DUPFD_CLOEXEC, 20);
	}
	for (int i = 0; i < 3; i++)
		if (dup3(fds[i], numbers[i], O_CLOEXEC) < 0)
			_exit(2);
	if (process_hand_down(numbers[0], numbers[1], numbers[2]) < 0)
		_exit(3);
	for (int i = 0; i < 3; i++)
		if (fstat(i, &got) < 0 || got.st_ino != sent[i].st_ino || fcntl(i, F_GETFD) != 0)
			_exit(10 + i);
	_exit(0);
}

Test(process, what_is_handed_down_arrives_whatever_its_numbers_were)
{
	static const int cases[][3] = {
		{0, 1, 2}, {2, 1, 0}, {1, 2, 0}, {5, 0, 1}, {10, 11, 12}, {0, 2, 7},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		cr_expect_eq(hand_down(cases[i]), 0, "case %zu", i);
}

Test(process, no_other_descriptor_is_handed_down)
{
	int fd = open("/dev/null", O_RDONLY);

	cr_assert_eq(fcntl(fd, F_GETFD), 0);
	cr_assert_eq(process_hand_down(fcntl(0, F_DUPFD, 20), fcntl(1, F_DUPFD, 20),
				       fcntl(2, F_DUPFD, 20)),
		     0);
	cr_assert_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
}

static volatile sig_atomic_t stops;

static void on_stop(int number)
{
	(void)number;
	stops++;
}

/* What these do to a process is right: see the header. */
static bool is_left(int number)
{
	static const int left[] = {SIGABRT, SIGBUS,  SIGCHLD, SIGCONT, SIGFPE,
				   SIGILL,  SIGKILL, SIGQUIT, SIGSEGV, SIGSTOP,
				   SIGSYS,  SIGTRAP, SIGTSTP, SIGURG,  SIGWINCH};

	for (size_t i = 0; i < sizeof(left) / sizeof(left[0]); i++)
		if (left[i] == number)
			return true;
	return false;
}

Test(process, no_signal_ends_a_server_by_default_but_those_that_are_meant_to)
{
	cr_assert_eq(process_begin(), 0);
	process_serve(on_stop);
	for (int number = 1; number <= SIGRTMAX; number++) {
		struct sigaction action;

		/* Those between are the C library's. */
		if (is_left(number) || (number > SIGSYS && number < SIGRTMIN))
			continue;
		cr_assert_eq(sigaction(number, NULL, &action), 0);
		if (number == SIGTERM || number == SIGINT || number == SIGXCPU)
			cr_expect_eq(action.sa_handler, on_stop, "signal %d", number);
		else
			cr_expect_eq(action.sa_handler, SIG_IGN, "signal %d", number);
	}
	raise(SIGTERM);
	cr_assert_eq(stops, 1);
}

Test(process, a_signal_that_was_blocked_by_who_started_us_arrives)
{
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	cr_assert_eq(process_begin(), 0);
	process_serve(on_stop);
	raise(SIGINT);
	cr_assert_eq(stops, 1);
}
