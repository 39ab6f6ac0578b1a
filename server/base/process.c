/* SPDX-License-Identifier: GPL-2.0-or-later */
/* process - see the header */
#include "server/base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

#include "core/base/mutant.h"

static const int ignored[] = {
	SIGPIPE, SIGXFSZ, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGSTKFLT, SIGPWR,
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* The lowest number that is free is the one that open() gives. */
static int open_missing(void)
{
	int fd;

	if (MUTANT(64)) /* the store gets one of them */
		return 0;
	do {
		fd = open("/dev/null", O_RDWR);
		if (fd < 0)
			return -errno;
	} while (fd <= STDERR_FILENO);
	close(fd);
	return 0;
}

/* Fails only for a signal that cannot be caught, and none of ours is one. */
static void set_signals(const int *numbers, size_t count, void (*handler)(int))
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};

	sigemptyset(&action.sa_mask);
	for (size_t i = 0; i < count; i++)
		sigaction(numbers[i], &action, NULL);
}

static void set_real_time(void (*handler)(int))
{
	for (int number = SIGRTMIN; number <= SIGRTMAX; number++)
		set_signals(&number, 1, handler);
}

int process_begin(void)
{
	sigset_t none;

	set_signals(ignored, COUNT(ignored), SIG_IGN);
	set_real_time(SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	return open_missing();
}

void process_undo_signals(void)
{
	set_signals(ignored, COUNT(ignored), SIG_DFL);
	set_real_time(SIG_DFL);
}

void process_serve(void (*on_stop)(int number))
{
	static const int terminal[] = {SIGHUP, SIGTTIN, SIGTTOU};
	static const int stop[] = {SIGTERM, SIGINT, SIGXCPU};

	set_signals(terminal, COUNT(terminal), SIG_IGN);
	set_signals(stop, COUNT(stop), on_stop);
}

/* Not one that is about to be replaced: and dup2() onto itself would leave it to be closed. */
static int lift(int fd)
{
	return fd > STDERR_FILENO ? fd : fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
}

/* Kernels before 5.11, and sandboxes that know no close_range(), take one after the other. */
static int close_others(void)
{
	if (close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC) == 0)
		return 0;
	for (long fd = STDERR_FILENO + 1; fd < sysconf(_SC_OPEN_MAX); fd++)
		if (fcntl((int)fd, F_SETFD, FD_CLOEXEC) < 0 && errno != EBADF)
			return -errno;
	return 0;
}

int process_hand_down(int in, int out, int err)
{
	int from[] = {lift(in), lift(out), lift(err)};

	for (int to = 0; to <= STDERR_FILENO; to++)
		if (from[to] < 0 || dup2(from[to], to) < 0)
			return -errno;
	return close_others();
}
